"""The Gaussian loop, exact in law, at a cost that does not depend on the number of samples.

A normal model learns from its training set a mean and a covariance, so the training set matters through the
means and scatter matrices of its parts alone. These have known laws: a normal and a Wishart one. They are drawn
directly (Bartlett), for many independent loops at once; no sample is ever made. Where single samples are
needed, `simulate/points.py` does the same with them.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_dim
from poolproof.simulate.mixing import Mixing, bias_schedule
from poolproof.simulate.scatter import Scatter, draw_root, draw_scatter, estimate, unite

Start = Literal["data", "truth"]

Vector = Float[np.ndarray, " d"] | Sequence[float | int]
"""A number per dimension."""


@final
@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal law: that of the real data.

    Attributes:
        mean: its mean.
        root: a matrix R with R R^T the covariance; None stands for the identity.
    """

    mean: Float[np.ndarray, " d"]
    root: Float[np.ndarray, "d d"] | None

    @classmethod
    def standard(cls, dim: int) -> Gaussian:
        """N(0, I) in `dim` dimensions."""
        check_dim(dim)
        return cls(np.zeros(dim), None)

    @classmethod
    def from_moments(cls, mean: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"]) -> Gaussian:
        """The law of a given mean and covariance, which may be singular.

        Raises:
            InputError: sizes that do not fit, a value that is not finite, or a covariance that is not
                symmetric and positive semidefinite.
        """
        mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
        d = mean.size
        if mean.ndim != 1 or d < 1 or covariance.shape != (d, d):
            raise InputError(
                f"covariance: got shape {covariance.shape} with a mean of {mean.shape}, allowed d x d with d"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise InputError("mean, covariance: got a value that is not finite, allowed finite values")
        scale = np.abs(covariance).max()
        if np.abs(covariance - covariance.T).max() > 1e-10 * scale:
            raise InputError("covariance: got one that is not symmetric; take (C + C^T) / 2 if that is meant")
        values, vectors = np.linalg.eigh(covariance)
        if values[0] < -1e-10 * scale:
            raise InputError(
                f"covariance: got smallest eigenvalue {values[0]:.3g}, allowed 0 or more (positive semidefinite)"
            )
        return cls(mean, vectors * np.sqrt(values.clip(0)))

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.mean)

    def full_root(self) -> Float[np.ndarray, "d d"]:
        """The root as a matrix, also where it is the identity."""
        return np.eye(self.dim) if self.root is None else self.root


@final
@dataclass(frozen=True, eq=False)
class Models:
    """The models of one generation of many independent loops.

    Attributes:
        generation: 1 for the first fit; 0 stands for the truth.
        mean: by loop.
        factor: matrices F with F F^T the covariance, by loop; no shape in particular.
    """

    generation: int
    mean: Float[np.ndarray, "paths d"]
    factor: Float[np.ndarray, "paths d d"]

    def covariance(self) -> Float[np.ndarray, "paths d d"]:
        """The covariances."""
        return self.factor @ self.factor.transpose(0, 2, 1)


def generations(
    mixing: Mixing,
    *,
    law: Gaussian,
    n_paths: int,
    sampling_bias: float | int | Sequence[float | int] = 1.0,
    initial: Start | int | Models = "data",
    mark: Vector | None = None,
    rng: np.random.Generator,
) -> Iterator[Models]:
    """Yields the models of generation after generation, without end, of `n_paths` independent loops.

    Every generation is trained from scratch on what `mixing` gives it, real samples from `law` and synthetic
    ones N(mean, sampling_bias x covariance) of earlier models. Exact in law for any number of samples; where
    there are fewer than dimensions the covariances are singular, as they should be.

    Args:
        mixing: what each generation trains on.
        law: of the real data.
        n_paths: independent loops, 1 or more. The same `rng` and number give the same loops.
        sampling_bias: in [0, 1]; one value, or one per generation of which the last holds on. The first is that
            of the samples drawn for the second model (for the first one where `initial` is `truth`).
        initial: what comes first. `data`: generation 1 is trained on the real data of the mixing; in the fully
            synthetic family, on as many real samples as there are synthetic ones later. A number: generation 1 is
            trained on so many real samples. `truth`: generation 0 is the truth. Models: they come first.
        mark: what a watermark adds to each synthetic sample; None adds nothing.
        rng: all randomness.

    Raises:
        InputError: a value out of range, or a mixing that needs single samples.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 3.1 and equation 1;
        Bartlett, "On the theory of statistical regression", 1933 (Wishart draws).
    Assumes: normal data, and nothing of the number of samples.
    """
    if mixing.needs_points:
        raise InputError(
            "n_subsample: a subsample needs single samples, which this engine has not; use simulate.points"
        )
    check_start(law, n_paths, initial)
    biases = bias_schedule(sampling_bias)
    return _generations(mixing, law, n_paths, biases, initial, read_mark(mark, law.dim), rng)


def _generations(
    mixing: Mixing,
    law: Gaussian,
    n_paths: int,
    biases: Float[np.ndarray, " t"],
    initial: Start | int | Models,
    mark: Float[np.ndarray, " d"] | None,
    rng: np.random.Generator,
) -> Iterator[Models]:
    fixed = draw_real(law, mixing.n_fixed, n_paths, rng=rng)
    if isinstance(initial, Models):
        models = initial
    elif initial == "truth":
        models = truth_models(law, n_paths)
    elif initial == "data":
        n = mixing.n_fresh if mixing.n_fixed + mixing.n_fresh else mixing.n_synthetic
        models = first_fit(unite([fixed, draw_real(law, n, n_paths, rng=rng)]), mixing)
    else:
        models = first_fit(draw_real(law, int(initial), n_paths, rng=rng), mixing)
    yield models
    history = deque([models], maxlen=mixing.n_models)
    kept: deque[Scatter] = deque(maxlen=mixing.n_kept)
    alone = mixing.n_fresh + mixing.n_fixed == 0 and mixing.n_models == mixing.n_kept == 1
    for step in itertools.count():
        bias = float(biases[min(step, len(biases) - 1)])
        if alone:
            mean, factor = draw_root(models.mean, models.factor, mixing.n_synthetic, bias, rng=rng)
            divisor = mixing.n_synthetic - (mixing.covariance == "unbiased")
            mean = mean if mark is None else mean + mark
            models = Models(models.generation + 1, mean, factor / math.sqrt(divisor))
        else:
            fresh = draw_real(law, mixing.n_fresh, n_paths, rng=rng)
            counts = mixing.synthetic_counts(len(history))
            synthetic = unite(
                [draw_synthetic(model, n, bias, rng=rng) for model, n in zip(history, counts, strict=False)]
            )
            if mark is not None:
                synthetic = Scatter(synthetic.n, synthetic.mean + mark, synthetic.matrix)
            if mixing.n_kept is None and kept:
                kept = deque([unite([kept[0], synthetic])])
            else:
                kept.append(synthetic)
            sources = {"fresh": fresh, "fixed": fixed, "synthetic": unite(list(kept))}
            models = Models(models.generation + 1, *estimate(sources, mixing))
        history.appendleft(models)
        yield models


def check_start(law: Gaussian, n_paths: int, initial: Start | int | Models) -> None:
    """Raises InputError where a loop cannot start so."""
    check_count("n_paths", n_paths, least=1)
    if isinstance(initial, Models):
        shapes = initial.mean.shape, initial.factor.shape
        asked = (n_paths, law.dim), (n_paths, law.dim, law.dim)
        if shapes != asked:
            raise InputError(
                f"initial: got models of shapes {shapes[0]} and {shapes[1]}, allowed {asked[0]} and {asked[1]}; "
                "give as many as n_paths"
            )
    elif not isinstance(initial, str):
        check_count("n_initial", initial, least=2)
    elif initial not in ("data", "truth"):
        raise InputError(f"initial: got {initial!r}, allowed data, truth or a number of real samples")


def read_mark(mark: Vector | None, dim: int) -> Float[np.ndarray, " d"] | None:
    """The mark as an array; None stays None.

    Raises:
        InputError: not one finite number per dimension.
    """
    if mark is None:
        return None
    try:
        values = np.asarray(mark, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"mark: got {mark!r:.60}, allowed one number per dimension") from None
    if values.shape != (dim,):
        raise InputError(f"mark: got shape {values.shape}, allowed {(dim,)}, one number per dimension")
    if not np.isfinite(values).all():
        raise InputError("mark: got a value that is not finite, allowed finite numbers")
    return values


def truth_models(law: Gaussian, n_paths: int) -> Models:
    """The truth as generation 0 of every loop."""
    shape = (n_paths, law.dim, law.dim)
    return Models(0, np.tile(law.mean, (n_paths, 1)), np.broadcast_to(law.full_root(), shape))


def draw_real(law: Gaussian, n: int, n_paths: int, *, rng: np.random.Generator) -> Scatter:
    """Statistics of `n` real samples for each loop, drawn without the samples."""
    return draw_scatter(np.tile(law.mean, (n_paths, 1)), law.root, n, 1.0, rng=rng)


def draw_synthetic(
    models: Models, n: int, sampling_bias: float | int = 1.0, *, rng: np.random.Generator
) -> Scatter:
    """Statistics of `n` samples from each model, their covariance multiplied by the bias in [0, 1]."""
    return draw_scatter(models.mean, models.factor, n, sampling_bias, rng=rng)


def first_fit(real: Scatter, mixing: Mixing) -> Models:
    """Generation 1, fitted to real samples that all weigh alike."""
    plain = Mixing(n_fresh=2, covariance=mixing.covariance)
    return Models(1, *estimate({"fresh": real}, plain))
