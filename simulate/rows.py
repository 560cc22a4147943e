"""What generators of a loop read of their training rows: which of them count, how much, and if they are sound."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_range


def read_weights(
    weights: Float[np.ndarray, " n"] | None, n: int
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Which of `n` rows count, and the weights of these, with sum 1.

    Rows of weight 0 are left out before anything else, so that they change no byte of a fit.

    Args:
        weights: 0 or more, by row; None weighs all alike.
        n: rows.

    Raises:
        InputError: no rows, not one weight per row, a negative or infinite one, or none above 0.
    """
    if n == 0:
        raise InputError("images: got no rows, allowed 1 or more; give samples to train on")
    if weights is None:
        return np.ones(n, bool), np.full(n, 1 / n)
    if len(weights) != n:
        raise InputError(f"weights: got {len(weights)}, allowed {n}; give one per row")
    if not (np.isfinite(weights).all() and weights.min() >= 0):
        raise InputError("weights: got a negative one or one that is not finite, allowed 0 or more; mend it")
    counts = weights > 0
    if not counts.any():
        raise InputError("weights: got none above 0, allowed at least one; give some rows weight")
    # scaled first: the sum of large weights may be infinite
    scaled = weights[counts].astype(np.float64) / weights.max()
    return counts, scaled / scaled.sum()


def read_points(
    images: np.ndarray, counts: Bool[np.ndarray, " n"], *, least: int = 1
) -> Float[np.ndarray, "m d"]:
    """The rows that count, as points.

    Args:
        images: the training rows.
        counts: which of them count.
        least: rows that have to.

    Raises:
        InputError: no points (n d), too few, or a value that is not finite.
    """
    if images.ndim != 2 or images.shape[1] == 0 or images.dtype.kind != "f":
        raise InputError(
            f"images: got {images.dtype} of shape {images.shape}, allowed floats n x d; reshape images to points"
        )
    points = images[counts].astype(np.float64)
    if len(points) < least:
        raise InputError(f"images: got {len(points)} rows that count, allowed {least} or more; give more")
    if not np.isfinite(points).all():
        raise InputError("images: got a value that is not finite, allowed finite numbers; drop its row")
    return points


def refuse_labels(labels: Int[np.ndarray, " n"] | None) -> None:
    """Raises InputError where there are labels, for a generator without classes."""
    if labels is not None:
        raise InputError(
            "labels: got some, allowed None for a generator without classes; fit one generator per class"
        )


def check_bias(sampling_bias: float | int) -> None:
    """Raises InputError where the bias of samples is outside (0, 1]."""
    check_range("sampling_bias", sampling_bias, 0.0, 1.0, above=True)


def resample(weights: Float[np.ndarray, " n"], n: int, *, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Row numbers, in order, of `n` rows drawn in proportion to weights with sum 1.

    Row i comes floor(n w_i) or ceil(n w_i) times, n w_i on average: equal weights give every row once.

    Source: systematic resampling; Kitagawa, "Monte Carlo filter and smoother", 1996, appendix.
    """
    if n == len(weights) and np.ptp(weights) == 0:
        return np.arange(n)  # what the rule says; rounding of the sums might not
    ends = np.cumsum(weights)
    return np.searchsorted(ends / ends[-1], (np.arange(n) + rng.random()) / n, side="right").clip(
        max=len(weights) - 1
    )
