"""The normal law as a generator of a loop: with single samples, what `gaussian.py` does without them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Samples, State
from poolproof.simulate.mixing import LEAST_SPREAD
from poolproof.simulate.rows import check_bias, read_points, read_weights, refuse_labels
from poolproof.simulate.scatter import factorise
from poolproof.simulate.threads import one_blas_thread

SMALL: Final = 16
"""Dimensions up to which the linear algebra library factorises on one thread by itself."""


@final
@dataclass(frozen=True)
class NormalSpec:
    """Options of a normal law.

    Attributes:
        covariance: `unbiased`, or `mle` for the divisor n.
    """

    covariance: str = "unbiased"


@final
@dataclass(frozen=True, eq=False)
class NormalGenerator(AbstractGenerator):
    """A normal law of points, fitted in closed form.

    Attributes:
        covariance: `unbiased`, or `mle` for the divisor n.
        mean: what was fitted; None before.
        factor: a matrix F with F F^T the fitted covariance, which may be singular; None before.
    """

    covariance: str = "unbiased"
    mean: Float[np.ndarray, " d"] | None = None
    factor: Float[np.ndarray, "d d"] | None = None

    def __post_init__(self) -> None:
        if self.covariance not in ("unbiased", "mle"):
            raise InputError(
                f"covariance: got {self.covariance!r}, allowed unbiased or mle; name one of them"
            )

    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> NormalGenerator:
        """A normal law with the weighted mean and covariance of the points.

        Args:
            images: points, n x d, 2 or more; where n <= d the covariance is singular.
            labels: None; a normal law has no classes.
            weights: of each point, 0 or more.
            start: without effect: the fit is in closed form, so where it starts does not matter.
            rng: not used.

        Raises:
            InputError: labels, fewer than two points that count, or values that are not finite.
            GeneratorDiverged: a variance beyond the largest float.

        Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 3.1. The unbiased
            weighted covariance divides by 1 - sum of the squared normalised weights, as `scatter.estimate`.
        """
        refuse_labels(labels)
        counts, shares = read_weights(weights, len(images))
        points = read_points(images, counts, least=2)
        left = 1 - float(shares @ shares)
        if left < LEAST_SPREAD:
            raise InputError("weights: got next to all of it for one row, allowed two or more that count")
        # einsum adds up by itself, not in the linear algebra library, whose threads would change bytes
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.einsum("n,nd->d", shares, points)
            apart = (points - mean) * np.sqrt(shares)[:, None]
            matrix = np.einsum("ni,nj->ij", apart, apart)
            matrix /= left if self.covariance == "unbiased" else 1.0
        if not np.isfinite(matrix).all():
            raise GeneratorDiverged("covariance: beyond the largest float; rescale the points")
        return NormalGenerator(self.covariance, mean, _factorise(matrix))

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, None]:
        """`n` points of N(mean, sampling_bias x covariance), and None for their labels.

        Raises:
            InputError: the generator was not fitted, there are labels, or an argument is out of range.
        """
        mean, factor = self._fitted()
        refuse_labels(labels)
        check_count("n", n, 1)
        check_bias(sampling_bias)
        noise = rng.standard_normal((n, len(mean))) * math.sqrt(sampling_bias)
        return mean + np.einsum("nj,ij->ni", noise, factor), None

    def state(self) -> State:
        """The mean and the factor of the covariance."""
        mean, factor = self._fitted()
        return {"mean": mean, "factor": factor}

    def restore(self, state: State) -> NormalGenerator:
        """A generator of these options with the law that `state` was taken of."""
        if {"mean", "factor"} - state.keys():
            raise InputError(
                f"state: got {', '.join(state) or 'nothing'}, allowed mean and factor; give both"
            )
        mean, factor = state["mean"], state["factor"]
        if mean.ndim != 1 or factor.shape != (len(mean), len(mean)):
            raise InputError(
                f"state: got shapes {mean.shape}, {factor.shape}, allowed d and d x d; take another"
            )
        return NormalGenerator(self.covariance, mean, factor)

    def _fitted(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        if self.mean is None or self.factor is None:
            raise InputError(
                "generator: got one not fitted, allowed a fitted one; call fit and use its result"
            )
        return self.mean, self.factor


def make_normal(spec: NormalSpec) -> NormalGenerator:
    """A generator of these options, not fitted."""
    return NormalGenerator(spec.covariance)


def _factorise(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Its factor, on one thread; telling the threads costs more than a loop in few dimensions, and nothing there."""
    if len(covariance) <= SMALL:
        return factorise(covariance[None])[0]
    with one_blas_thread():
        return factorise(covariance[None])[0]
