"""What generation t of a loop trains on: how many samples, from where, for how long, with what weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range, check_samples, check_sampling_bias

Covariance = Literal["unbiased", "mle"]
Estimator = Literal["pooled", "grouped"]

SOURCES: Final = ("fresh", "fixed", "synthetic")
"""Where samples come from: real data drawn anew, real data drawn once, and models of the loop."""

LEAST_SPREAD: Final = 1e-9
"""Difference of 1 and the sum of squared sample weights below which next to all weight lies on one sample."""

_WEIGHTS: Final = (1e-100, 1e100)
"""Range of weights above 0, within which their sums and squares stay numbers."""

LONGEST_MEMORY: Final = 1000
"""Models and generations in a loop's memory, together, up to which its recursion is solved."""


@final
@dataclass(frozen=True)
class Mixing:
    """What each generation trains on. One class holds the paper's three families and what lies between.

    A generation's pool is `n_fresh` real samples drawn anew, `n_fixed` real samples drawn once for the whole
    loop, and `n_synthetic` samples drawn from the last `n_models` models in equal parts; the synthetic samples
    of the last `n_kept` generations stay in it. From the pool `n_subsample` samples are drawn without
    replacement, or all are taken.

    Attributes:
        n_fresh: real samples drawn anew for each generation, 0 or more.
        n_fixed: real samples drawn once and kept, 0 or more.
        n_synthetic: synthetic samples drawn for each generation, 0 or more.
        n_models: models that the synthetic samples are drawn from: the last K, or None for all so far.
        n_kept: generations for which synthetic samples stay in the pool: 1 replaces them, None keeps all.
        n_subsample: samples taken out of the pool, 2 or more; None takes all.
        weight_fresh: of one sample beside those of other sources, 0 or more.
        weight_fixed: likewise.
        weight_synthetic: likewise.
        estimator: `pooled` fits one mean and covariance to the weighted pool. `grouped` averages the means and
            the covariances of the sources by their weights and leaves out the spread between their means.
        covariance: `unbiased`, or `mle` which divides by n where that divides by n - 1.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 2 (the families),
        appendix G (memory); Gerstgrasser et al., "Is model collapse inevitable?", 2024 (accumulation); He, Xu
        and Cheng, "Golden ratio weighting prevents model collapse", 2025 (weights, `grouped`).
    """

    n_fresh: int = 0
    n_fixed: int = 0
    n_synthetic: int = 0
    n_models: int | None = 1
    n_kept: int | None = 1
    n_subsample: int | None = None
    weight_fresh: float | int = 1.0
    weight_fixed: float | int = 1.0
    weight_synthetic: float | int = 1.0
    estimator: Estimator = "pooled"
    covariance: Covariance = "unbiased"

    def __post_init__(self) -> None:
        for name in ("n_fresh", "n_fixed", "n_synthetic"):
            check_samples(name, getattr(self, name), least=0)
        for name in ("n_models", "n_kept"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        if self.n_subsample is not None:
            check_count("n_subsample", self.n_subsample, least=2)
        for source in SOURCES:
            weight = getattr(self, f"weight_{source}")
            check_range(f"weight_{source}", weight, 0.0, _WEIGHTS[1])
            if 0 < weight < _WEIGHTS[0]:
                raise InputError(
                    f"weight_{source}: got {weight}, allowed 0, or {_WEIGHTS[0]:g} to {_WEIGHTS[1]:g}"
                )
        if self.estimator not in ("pooled", "grouped"):
            raise InputError(f"estimator: got {self.estimator!r}, allowed pooled, grouped; choose one")
        if self.covariance not in ("unbiased", "mle"):
            raise InputError(f"covariance: got {self.covariance!r}, allowed unbiased, mle; choose one")
        n = self.n_fresh + self.n_fixed + self.n_synthetic
        if n < 2:
            raise InputError(f"n: got {n} samples per generation, allowed 2 or more; raise one of the counts")
        if not any(getattr(self, f"n_{source}") * getattr(self, f"weight_{source}") for source in SOURCES):
            raise InputError("weights: got 0 for every source that has samples, allowed one above 0")
        if self.estimator == "grouped":
            for source in SOURCES:
                if getattr(self, f"n_{source}") == 1:
                    raise InputError(f"n_{source}: got 1, allowed 0 or 2 or more with the grouped estimator")
        elif sum(self._squared_weights(n_kept=1)) > 1 - LEAST_SPREAD:
            raise InputError("weights: got next to all of it for one sample, allowed two or more that count")

    @classmethod
    def fully_synthetic(cls, n: int, *, covariance: Covariance = "unbiased") -> Mixing:
        """Every generation trains on `n` samples of the one before it, and on nothing else."""
        return cls(n_synthetic=n, covariance=covariance)

    @classmethod
    def augmentation(cls, n_real: int, n_synthetic: int, *, covariance: Covariance = "unbiased") -> Mixing:
        """Synthetic augmentation: the same `n_real` real samples throughout, and new synthetic ones."""
        return cls(n_fixed=n_real, n_synthetic=n_synthetic, covariance=covariance)

    @classmethod
    def fresh(cls, n_real: int, n_synthetic: int, *, covariance: Covariance = "unbiased") -> Mixing:
        """Fresh data: `n_real` new real samples and `n_synthetic` new synthetic ones each time."""
        return cls(n_fresh=n_real, n_synthetic=n_synthetic, covariance=covariance)

    @classmethod
    def from_real_share(cls, n: int, real_share: float | int) -> Mixing:
        """Fresh data with `n` samples in all, of which the share `real_share` in [0, 1] is real.

        >>> Mixing.from_real_share(1000, 0.003)
        Mixing(n_fresh=3, n_synthetic=997)
        """
        check_samples("n", n, least=2)
        check_range("real_share", real_share, 0.0, 1.0)
        n_real = round(n * real_share)
        return cls(n_fresh=n_real, n_synthetic=n - n_real)

    @classmethod
    def weighted(cls, n_real: int, n_synthetic: int, real_weight: float | int) -> Mixing:
        """Fresh data whose real samples together weigh `real_weight` in [0, 1], the synthetic ones the rest.

        Means and covariances of the two sources are averaged (`grouped`).
        """
        check_range("real_weight", real_weight, 0.0, 1.0)
        check_count("n_real", n_real, least=2)
        check_count("n_synthetic", n_synthetic, least=2)
        return cls(
            n_fresh=n_real,
            n_synthetic=n_synthetic,
            weight_fresh=real_weight / n_real,
            weight_synthetic=(1 - real_weight) / n_synthetic,
            estimator="grouped",
        )

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.options().items()]
        return f"Mixing({', '.join(given)})"

    def options(self) -> dict[str, int | float | str | None]:
        """The options that differ from their defaults, by name."""
        return {
            name: getattr(self, name)
            for name, field in self.__dataclass_fields__.items()
            if getattr(self, name) != field.default
        }

    @property
    def needs_points(self) -> bool:
        """Whether single samples are needed: a subsample has no law in terms of sums over the pool."""
        return self.n_subsample is not None

    def synthetic_counts(self, n_available: int) -> list[int]:
        """Samples to draw from each of the latest models, newest first; equal but for the remainder.

        Args:
            n_available: models so far, 1 or more.
        """
        k = n_available if self.n_models is None else min(self.n_models, n_available)
        return [self.n_synthetic // k + (i < self.n_synthetic % k) for i in range(k)]

    def real_weight(self) -> float:
        """The weight in [0, 1] of real samples in a pool that holds all its kept generations.

        Raises:
            InputError: the pool never ends to grow, so there is no such number.
        """
        if self.n_kept is None:
            raise InputError("n_kept: got None, allowed a number of generations; the pool has no final size")
        real = self.n_fresh * self.weight_fresh + self.n_fixed * self.weight_fixed
        return real / (real + self.n_kept * self.n_synthetic * self.weight_synthetic)

    def relaxation(self, sampling_bias: float | int = 1.0) -> float:
        """The factor by which a disturbance of a mean (or, with a bias, of a covariance) shrinks a generation.

        It is the largest root of the recursion of expectations: the synthetic part of the pool averages the
        last `n_models` models and the last `n_kept` draws. At 1 or above nothing is forgotten.

        Args:
            sampling_bias: factor in [0, 1] between a model's covariance and its samples'.

        Raises:
            InputError: a finite memory longer than `LONGEST_MEMORY`.
        """
        kernel = self._kernel()
        if kernel is None:
            return 1.0
        strength = (1 - self.real_weight()) * sampling_bias
        return float(np.abs(np.roots(np.concatenate([[1.0], -strength * kernel]))).max())

    def persistence(self, sampling_bias: float | int = 1.0) -> float:
        """Variance, over that of one generation's noise, of what the synthetic data average over their models.

        In the long run, for a mean (or, with a bias, an entry of a covariance): 1 / (1 - q^2) for a memory of one model
        and synthetic share q. It solves the Yule-Walker equations of the recursion in `relaxation`.

        Args:
            sampling_bias: factor in [0, 1] between a model's covariance and its samples'.
        """
        return self._variances(sampling_bias)[1]

    def expected_variance(self, sampling_bias: float | int = 1.0) -> float:
        """The variance per dimension that models have on average in the long run, for data of variance 1.

        Solves the recursion of expectations: samples vary about the model they come from, and their sources lie apart,
        which a pooled covariance counts. Exact for fresh data, the pooled estimator and a memory of one model. To first
        order in 1/n for samples of several models; a little high where samples are kept, whose noise is taken as new.
        Infinite where the expectation grows without bound.

        Args:
            sampling_bias: factor in [0, 1] between a model's covariance and its samples'.
        """
        p = self.real_weight()
        q = 1 - p
        real, synthetic = self._squared_weights()
        single, average = self._variances(1.0)
        apart = q * (single - average)
        if self.estimator == "pooled":
            apart += p * q * average / (1 - real - synthetic)
        shrink = 1 - real - synthetic if self.covariance == "mle" else 1.0
        kept = 1 - shrink * (q * sampling_bias + apart * synthetic * sampling_bias)
        if shrink == 1:  # the same without cancellation where hardly any weight is real
            kept = p + q * (1 - sampling_bias) - apart * synthetic * sampling_bias
        return shrink * (p + apart * real) / kept if kept > 0 else math.inf

    def noise(self, sampling_bias: float | int, variance: float | int) -> tuple[float, float]:
        """Variance that one generation adds to a mean, and to an entry of the covariance, per dimension.

        Args:
            sampling_bias: factor in [0, 1].
            variance: of the models that synthetic samples come from.
        """
        real, synthetic = self._squared_weights()
        spread = sampling_bias * variance
        return real + synthetic * spread, real + synthetic * spread**2

    def _squared_weights(self, n_kept: int | None = None) -> tuple[float, float]:
        """Sums of the squared weights of single real, and single synthetic, samples; all weigh 1 together."""
        n_synthetic = self.n_synthetic * (n_kept or self.n_kept or 1)
        counts = {"fresh": self.n_fresh, "fixed": self.n_fixed, "synthetic": n_synthetic}
        weights = {name: n * getattr(self, f"weight_{name}") for name, n in counts.items()}
        total = sum(weights.values())
        squares = {name: (weights[name] / total) ** 2 / n if n else 0.0 for name, n in counts.items()}
        return squares["fresh"] + squares["fixed"], squares["synthetic"]

    def _variances(self, sampling_bias: float | int) -> tuple[float, float]:
        """Long-run variance of a model, and of the average that synthetic data take, over one generation's noise."""
        kernel = self._kernel()
        p = self.real_weight() if kernel is not None else 0.0
        if kernel is None or p == 0:
            return math.inf, math.inf
        strength = (1 - p) * sampling_bias
        if len(kernel) == 1:  # 1 / (1 - strength^2), also where next to no weight is real
            variance = 1 / ((p + (1 - p) * (1 - sampling_bias)) * (1 + strength))
            return variance, variance
        coefficients = strength * kernel
        order = len(coefficients)
        lags = np.abs(np.arange(order + 1)[:, None] - np.arange(1, order + 1))
        system = np.eye(order + 1)
        for lag in range(order + 1):
            np.subtract.at(system[lag], lags[lag], coefficients)
        covariances = np.linalg.solve(system, np.eye(order + 1)[0])
        apart = np.abs(np.arange(order)[:, None] - np.arange(order))
        return float(covariances[0]), float(kernel @ covariances[apart] @ kernel)

    def _kernel(self) -> Float[np.ndarray, " k"] | None:
        """Weights of the models before, newest first, in a generation's synthetic data; None if all count."""
        if self.n_models is None or self.n_kept is None:
            return None
        if self.n_models + self.n_kept > LONGEST_MEMORY:
            raise InputError(
                f"n_models, n_kept: got {self.n_models} and {self.n_kept}, allowed {LONGEST_MEMORY} together"
            )
        return np.convolve(np.full(self.n_models, 1 / self.n_models), np.full(self.n_kept, 1 / self.n_kept))


def bias_schedule(sampling_bias: float | int | Sequence[float | int]) -> Float[np.ndarray, " t"]:
    """The sampling bias by generation, at least one; the last value holds for all later generations.

    Raises:
        InputError: a value outside [0, 1], or none.
    """
    values = list(sampling_bias) if isinstance(sampling_bias, Sequence) else [sampling_bias]
    if not values:
        raise InputError("sampling_bias: got no value, allowed one, or one per generation")
    for value in values:
        check_sampling_bias(value)
    return np.array(values, dtype=np.float64)
