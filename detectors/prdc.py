"""Precision, recall, density and coverage of a synthetic set against a real one, exact and in little memory.

A ball around each point reaches to its k-th nearest neighbour in its own set. A point is inside a ball when
its distance is at most the radius: `<=`, the rule of Kynkaanniemi et al. The `<` of Naeem et al. differs only
where distances tie, that is for duplicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from poolproof.detectors.neighbours import (
    BLOCK,
    check_k,
    check_pair,
    nearest,
    paired_distances,
    rounding,
    screening,
)

TILE: Final = 1024
"""Rows and columns of one tile of the distance matrix."""


@dataclass(frozen=True)
class PRDC:
    """Four figures of how a synthetic set relates to a real one; none of them is a share of synthetic items.

    Attributes:
        precision: share of synthetic points inside at least one real ball, in [0, 1].
        recall: share of real points inside at least one synthetic ball, in [0, 1].
        density: real balls that hold a synthetic point, mean over synthetic points, divided by k; at least 0
            and not bounded by 1.
        coverage: share of real balls that hold at least one synthetic point, in [0, 1].
        k: which neighbour sets the radius. Figures of different k or set sizes do not compare.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def prdc(real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int = 5) -> PRDC:
    """Return precision, recall, density and coverage, equal to what the full double-precision matrix gives.

    The distance matrix is walked in single-precision tiles. A pair is decided there unless its squared
    distance is so close to a squared radius that rounding could turn it; such pairs are computed again in
    double precision. Memory grows with n + m, time with n m d.

    Args:
        real: features of real items, more than k of them.
        synthetic: features of synthetic items, more than k of them.
        k: which neighbour sets the radius, at least 1.

    Raises:
        InputError: k is out of range, a feature is not finite, or the widths differ.

    Source: Kynkaanniemi et al., arXiv 1904.06991 (precision, recall); Naeem et al., arXiv 2002.09797
        (density, coverage).
    """
    import faiss

    check_pair("real", real, "synthetic", synthetic)
    check_k(k, min(len(real), len(synthetic)) - 1)
    radius_real = nearest(real, real, k, same=True).distances[:, -1]
    radius_synthetic = nearest(synthetic, synthetic, k, same=True).distances[:, -1]
    x, y, scale = screening(real, synthetic)
    # A square of a radius in scaled units, and each point's part in the rounding error of a pair.
    limit_real, limit_synthetic = np.square(radius_real * scale), np.square(radius_synthetic * scale)
    slack_x, slack_y = _slack(x), _slack(y)
    balls = np.zeros(len(synthetic), dtype=np.int64)
    covered = np.zeros(len(real), dtype=bool)
    recalled = np.zeros(len(real), dtype=bool)
    for rows in _tiles(len(synthetic)):
        for columns in _tiles(len(real)):
            squares = faiss.pairwise_distances(y[rows], x[columns])
            slack = slack_y[rows, None] + slack_x[columns]
            pair = synthetic[rows], real[columns]
            in_real = _inside(squares, slack, limit_real[None, columns], *pair, radius_real[None, columns])
            balls[rows] += in_real.sum(axis=1)
            covered[columns] |= in_real.any(axis=0)
            in_synthetic = _inside(
                squares, slack, limit_synthetic[rows, None], *pair, radius_synthetic[rows, None]
            )
            recalled[columns] |= in_synthetic.any(axis=0)
    return PRDC(
        precision=float((balls > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls.sum() / (k * len(synthetic))),
        coverage=float(covered.mean()),
        k=k,
    )


def _inside(
    squares: Float32[np.ndarray, "m n"],
    slack: Float32[np.ndarray, "m n"],
    limit: Float64[np.ndarray, "#m #n"],
    a: Float[np.ndarray, "m d"],
    b: Float[np.ndarray, "n d"],
    radius: Float64[np.ndarray, "#m #n"],
) -> Bool[np.ndarray, "m n"]:
    """Return which pairs are at most a radius apart; those that rounding could turn are computed exactly."""
    excess = squares - limit.astype(np.float32)
    inside = excess <= 0
    # The sign of the excess is safe beyond the slack.
    i, j = np.nonzero(np.abs(excess, out=excess) <= slack)
    bound = np.broadcast_to(radius, squares.shape)
    step = max(1, BLOCK // a.shape[1])
    for start in range(0, len(i), step):
        part = i[start : start + step], j[start : start + step]
        inside[part] = paired_distances(a[part[0]], b[part[1]]) <= bound[part]
    return inside


def _tiles(n: int) -> list[slice]:
    """Return slices that cut n rows into tiles."""
    return [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]


def _slack(x: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    """Return each point's part in the rounding error of a squared distance and of the limit it meets."""
    square = np.einsum("nd,nd->n", x, x)
    return ((rounding(x.shape[1]) + 4 * np.finfo(np.float32).eps) * square).astype(np.float32)
