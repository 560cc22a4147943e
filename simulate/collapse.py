"""How the variance of a fully synthetic loop collapses: its exact law in one dimension, and its determinant.

The truth is generation 0 and a model N(mu, S) is sampled from N(mu, sampling_bias * S), generation 0 included.
Arguments that recur, with their ranges unless a function says otherwise; one outside raises InputError:

    n               samples per generation, 2 or more
    n_generations   0 or more
    sampling_bias   in (0, 1]
    dim             dimension of the data, 1 or more
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range

_TAIL: Final = 1e-12
"""Mass beyond the range on which a variance law is inverted, and size at which its transform is cut off."""


def _check_determinant(n: int, sampling_bias: float | int, n_generations: int, dim: int) -> None:
    """Check the arguments of figures that need a regular covariance."""
    check_count("dim", dim, 1)
    check_count("n", n, dim + 1, "with dim samples or fewer the covariance is singular")
    check_range("sampling_bias", sampling_bias, 0.0, 1.0, above=True)
    check_count("n_generations", n_generations, 0)


def fully_synthetic_log_determinant(
    n: int, sampling_bias: float | int, n_generations: int, *, dim: int = 1
) -> Float64[np.ndarray, " t"]:
    """E[log det S_t - log det S_0]: a straight line in t. For dim 1, the expected log variance; n > dim.

    >>> fully_synthetic_log_determinant(3, 1.0, 2).round(4).tolist()
    [0.0, -0.5772, -1.1544]

    Source: derived here, from the chi-square factors of a Wishart determinant.
    Assumes: normal data, truth with any regular covariance, unbiased covariance.
    """
    from scipy.special import psi

    _check_determinant(n, sampling_bias, n_generations, dim)
    freedom = n - np.arange(1.0, dim + 1)
    step = dim * math.log(sampling_bias) + float(np.sum(psi(freedom / 2) + math.log(2 / (n - 1))))
    return 0.0 + step * np.arange(n_generations + 1.0)


def fully_synthetic_determinant(
    n: int, sampling_bias: float | int, n_generations: int, *, dim: int
) -> Float64[np.ndarray, " t"]:
    """Logarithm of E det S_t / det S_0: above the expected logarithm, as rare paths carry the mean; n > dim.

    >>> fully_synthetic_determinant(5, 1.0, 1, dim=2).round(4).tolist()
    [0.0, -0.2877]

    Source: derived here, from the chi-square factors of a Wishart determinant.
    Assumes: normal data, truth with any regular covariance, unbiased covariance.
    """
    _check_determinant(n, sampling_bias, n_generations, dim)
    freedom = n - np.arange(1.0, dim + 1)
    step = dim * math.log(sampling_bias) + float(np.log(freedom / (n - 1)).sum())
    return 0.0 + step * np.arange(n_generations + 1.0)


def collapse_bias(n: int) -> float:
    """Sampling bias below which a one-dimensional loop collapses: above 1, by about 1/(n - 1) for large n.

    >>> round(collapse_bias(3), 4)
    1.7811

    Source: derived here, the log variance has no drift there; collapse up to bias 1: arXiv 2307.01850, Sec. 3.1.
    Assumes: normal data, unbiased variance.
    """
    return math.exp(-float(fully_synthetic_log_determinant(n, 1.0, 1)[-1]))


@final
@dataclass(frozen=True)
class VarianceLaw:
    """Law of sigma_t^2 / sigma_0^2 at t = generation in a fully synthetic loop; `variance_law_1d` makes it."""

    n: int
    sampling_bias: float | int
    generation: int

    @property
    def mean_log(self) -> float:
        """Mean of the log ratio."""
        return float(fully_synthetic_log_determinant(self.n, self.sampling_bias, self.generation)[-1])

    @property
    def var_log(self) -> float:
        """Variance of the log ratio."""
        from scipy.special import polygamma

        return self.generation * float(polygamma(1, (self.n - 1) / 2))

    def cdf(self, x: Float[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
        """P(ratio <= x), to 1e-8 or better.

        The characteristic function of the log ratio is inverted by the midpoint rule. Its step follows from an
        interval with all but 1e-12 of the mass on either side (Chernoff), its end from the function's size.

        Args:
            x: ratios of variances, 0 or more.

        Raises:
            InputError: a ratio is negative or not a number.

        Source: Gil-Pelaez, Biometrika 38 (1951) 481-482; step rule of Davies, Biometrika 60 (1973) 415-417.
        """
        if not np.all(x >= 0):
            raise InputError("x: got a negative ratio or NaN, allowed 0 or more; give ratios of variances")
        k, t = (self.n - 1) / 2, self.generation
        low, high = _bulk(k, t)
        end = np.array([1 / math.sqrt(self.var_log)])
        while t * _log_transform(k, end)[0][0] > math.log(_TAIL):
            end *= 2
        step = 2 * math.pi / (high - low)
        half = np.arange(0.5, end[0] / step + 1)
        size, angle = _log_transform(k, step * half)
        with np.errstate(divide="ignore"):
            log = np.log(np.asarray(x, np.float64)) - t * math.log(self.sampling_bias)
        inner = np.clip(log, low, high)
        total = np.full(inner.shape, 0.5)
        for u, weight, turn in zip(step * half, np.exp(t * size) / (math.pi * half), t * angle, strict=True):
            total -= weight * np.sin(turn - u * inner)
        return np.where(log < low, 0.0, np.where(log > high, 1.0, np.clip(total, 0.0, 1.0)))


def variance_law_1d(n: int, sampling_bias: float | int, generation: int) -> VarianceLaw:
    """Exact law of sigma_t^2 / sigma_0^2: sampling_bias^t times t independent chi2_(n-1) / (n-1); generation >= 1.

    >>> variance_law_1d(3, 1.0, 1).cdf(np.array([1.0])).round(6).tolist()  # 1 - exp(-1)
    [0.632121]

    Source: derived here, from the law of a normal sample's variance.
    Assumes: normal data, unbiased variance.
    """
    _check_determinant(n, sampling_bias, generation, 1)
    check_count("generation", generation, 1, "in generation 0 the law is a point")
    return VarianceLaw(n, sampling_bias, generation)


def _bulk(k: float, t: int) -> tuple[float, float]:
    """Ends that leave out at most _TAIL on either side of the sum of t logs of chi2_2k / 2k."""
    from scipy.special import gammaln

    up, down = k * np.logspace(-8, 4, 600), k / (1 + np.logspace(-4, 8, 600))
    above = t * (gammaln(k + up) - gammaln(k) - up * math.log(k))
    below = t * (gammaln(k - down) - gammaln(k) + down * math.log(k))
    return float(np.max((math.log(_TAIL) - below) / down)), float(np.min((above - math.log(_TAIL)) / up))


def _log_transform(
    k: float, u: Float64[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """Log modulus and argument of the characteristic function, at u, of the log of chi2_2k / 2k."""
    from scipy.special import loggamma

    z, v = k + 1j * u, u / k
    if k < 50:
        value = loggamma(z) - loggamma(k) - 1j * u * math.log(k)
    else:  # Stirling's series, its large terms cancelled by hand: log gamma itself loses digits as k grows
        rest = (1 / z - 1 / k) / 12 - (z**-3 - k**-3) / 360 + (z**-5 - k**-5) / 1260
        value = (z - 0.5) * (0.5 * np.log1p(v * v) + 1j * np.arctan(v)) - 1j * u + rest
    return np.real(value), np.imag(value)
