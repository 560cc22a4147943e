"""Closed forms of the Gaussian self-consuming loop, against which simulations are checked.

The truth is N(0, I_d). Generation 0 is the truth, generation 1 the first fit, and an array over generations has
n_generations + 1 entries, the first for generation 0. A model N(mu, S) is sampled from N(mu, sampling_bias * S),
generation 0 included; real data carry no bias. Covariances are unbiased unless a function says otherwise.
Arguments that recur, with their ranges unless a function says otherwise:

    n                    samples per generation, 2 or more
    n_real, n_synthetic  real samples (1 or more) and samples of the last model (0 or more) in one fit, together n
                         (2 or more); p and q are their shares
    sampling_bias        in [0, 1]
    n_generations        0 or more
    dim                  dimension d of the data, 1 or more

An argument outside its range raises InputError. "MAD paper" is Alemohammad et al., arXiv 2307.01850 (v1), whose loops
these are; "derived here" marks what no paper states, and tests hold it against sampled points.

Fully synthetic loops are heavy-tailed: for many generations per sample, rare paths carry the mean of the variance and
of its square, and an ordinary simulation misses them. Compare logarithms (`fully_synthetic_log_determinant`) or the
whole law (`variance_law_1d`) there; both are in `simulate/collapse.py`. Loops that keep all data are in
`simulate/accumulation.py`, survival and relaxation in `simulate/survival.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range


@final
@dataclass(frozen=True)
class Moments:
    """Expected moments per coordinate, entry t for generation t: E tr S_t / d and E|mu_t|^2 / d."""

    variance: Float[np.ndarray, " t"]
    mean_error: Float[np.ndarray, " t"]


@final
@dataclass(frozen=True)
class FixedPoint:
    """Limits of the expected moments; `rate`, in [0, 1), is the factor on the distance to them per generation."""

    variance: float
    mean_error: float
    rate: float


@final
@dataclass(frozen=True)
class SecondMoments:
    """Second moments of the covariance, entry t for generation t: E tr(S_t^2) and E (tr S_t)^2."""

    trace_of_square: Float[np.ndarray, " t"]
    square_of_trace: Float[np.ndarray, " t"]


def _check_loop(n: int, sampling_bias: float | int, n_generations: int) -> None:
    """Check the arguments of a loop without real data."""
    check_count("n", n, 2)
    check_range("sampling_bias", sampling_bias, 0.0, 1.0)
    check_count("n_generations", n_generations, 0)


def _check_pool(n_real: int, n_synthetic: int, sampling_bias: float | int, low: int) -> None:
    """Check the arguments of a mixed loop with `low` or more real samples."""
    check_count("n_real", n_real, low)
    check_count("n_synthetic", n_synthetic, 0)
    check_count("n_real + n_synthetic", n_real + n_synthetic, 2)
    check_range("sampling_bias", sampling_bias, 0.0, 1.0)


def _pooled_step(n_real: int, n_synthetic: int, sampling_bias: float | int) -> Float64[np.ndarray, "2 2"]:
    """The matrix that takes (variance, mean error) of the sampled model into those of the pooled fit."""
    n = n_real + n_synthetic
    q, between = n_synthetic / n, n_real * n_synthetic / (n * (n - 1))
    return np.array([[q * sampling_bias, between], [q * sampling_bias / n, q * q]])


def _iterate(
    step: Float64[np.ndarray, "2 2"], offset: Float64[np.ndarray, " 2"], start: list[float], steps: int
) -> Float64[np.ndarray, "2 t"]:
    """Columns x_0 = start, x_(t+1) = step x_t + offset."""
    columns = np.empty((2, steps + 1))
    columns[:, 0] = start
    for t in range(steps):
        columns[:, t + 1] = step @ columns[:, t] + offset
    return columns


def fully_synthetic_moments(
    n: int,
    sampling_bias: float | int,
    n_generations: int,
    *,
    covariance: Literal["unbiased", "mle"] = "unbiased",
) -> Moments:
    """Moments of a loop in which each model is fitted to samples of the last alone.

    With r = sampling_bias, for divisor n ("mle") times 1 - 1/n, the variance is r^t and the mean error
    (sampling_bias / n)(1 + r + ... + r^(t-1)). Where the first fit is to real data, divide both by sampling_bias.

    >>> fully_synthetic_moments(4, 1.0, 2, covariance="mle").mean_error.tolist()
    [0.0, 0.25, 0.4375]

    Source: MAD paper, Eq. 2, for the variance; mean error derived here, the sum of a martingale's squared steps.
    Assumes: normal data.
    """
    _check_loop(n, sampling_bias, n_generations)
    if covariance not in ("unbiased", "mle"):
        raise InputError(f"covariance: got {covariance!r}, allowed 'unbiased' or 'mle'; name one of them")
    ratio = sampling_bias * (1.0 if covariance == "unbiased" else 1 - 1 / n)
    variance = ratio ** np.arange(n_generations + 1.0)
    return Moments(variance, sampling_bias / n * np.concatenate([[0.0], np.cumsum(variance[:-1])]))


def fully_synthetic_w2_1d(
    n: int, sampling_bias: float | int, n_generations: int
) -> Float64[np.ndarray, " t"]:
    """Expected squared Wasserstein-2 distance to the truth in one dimension; never falls with the generation.

    >>> fully_synthetic_w2_1d(50, 1.0, 20)[-1].round(4)
    np.float64(0.594)

    Source: derived here, E mu^2 + E(sigma - 1)^2; E sigma is in Bertrand et al., arXiv 2310.00429.
    Assumes: normal data, truth N(0, 1), fully synthetic loop.
    """
    from scipy.special import gammaln

    moments = fully_synthetic_moments(n, sampling_bias, n_generations)
    alpha = math.sqrt(2 / (n - 1)) * math.exp(float(gammaln(n / 2) - gammaln((n - 1) / 2)))
    deviation = (math.sqrt(sampling_bias) * alpha) ** np.arange(n_generations + 1.0)
    return moments.mean_error + 1 + moments.variance - 2 * deviation


def fully_synthetic_second_moments(
    n: int, sampling_bias: float | int, n_generations: int, *, dim: int
) -> SecondMoments:
    """Second moments of the covariance: without bias they grow without bound, while S_t goes to 0 almost surely.

    >>> fully_synthetic_second_moments(3, 1.0, 2, dim=1).trace_of_square.tolist()
    [1.0, 2.0, 4.0]

    Source: derived here, from the second moments of a Wishart matrix.
    Assumes: normal data, fully synthetic loop.
    """
    _check_loop(n, sampling_bias, n_generations)
    check_count("dim", dim, 1)
    step = sampling_bias**2 * (np.eye(2) + np.array([[1.0, 1.0], [2.0, 0.0]]) / (n - 1))
    return SecondMoments(*_iterate(step, np.zeros(2), [float(dim), float(dim**2)], n_generations))


def fresh_moments(
    n_real: int,
    n_synthetic: int,
    sampling_bias: float | int,
    n_generations: int,
    *,
    n_initial: int | None = None,
) -> Moments:
    """Moments of a loop that pools fresh real data with samples of the last model.

    >>> fresh_moments(5, 5, 1.0, 1).mean_error.tolist()
    [0.0, 0.1]

    Args:
        n_real: 0 or more; 0 is the fully synthetic loop.
        n_synthetic: 0 or more.
        sampling_bias: in [0, 1].
        n_generations: 0 or more.
        n_initial: real samples that generation 1 is fitted to, 2 or more; None pools from generation 1 on.

    Source: derived here, as the pooled covariance has a between-group term; the loop is the MAD paper's.
    Assumes: normal data, pooled mean and covariance.
    """
    _check_pool(n_real, n_synthetic, sampling_bias, 0)
    check_count("n_generations", n_generations, 0)
    n = n_real + n_synthetic
    step, offset = _pooled_step(n_real, n_synthetic, sampling_bias), np.array([n_real / n, n_real / n**2])
    if n_initial is None:
        return Moments(*_iterate(step, offset, [1.0, 0.0], n_generations))
    check_count("n_initial", n_initial, 2)
    return _from_first_fit(step, offset, [1.0, 1 / n_initial], n_generations)


def _from_first_fit(
    step: Float64[np.ndarray, "2 2"],
    offset: Float64[np.ndarray, " 2"],
    first: list[float],
    n_generations: int,
) -> Moments:
    """Moments with the truth before a recursion that starts in generation 1."""
    later = _iterate(step, offset, first, max(n_generations - 1, 0))
    whole = np.concatenate([[[1.0], [0.0]], later], axis=1)
    return Moments(*whole[:, : n_generations + 1])


def _fixed_point(step: Float64[np.ndarray, "2 2"], offset: Float64[np.ndarray, " 2"]) -> FixedPoint:
    """Where the recursion rests."""
    variance, mean_error = np.linalg.solve(np.eye(2) - step, offset)
    return FixedPoint(float(variance), float(mean_error), float(np.abs(np.linalg.eigvals(step)).max()))


def fresh_fixed_point(n_real: int, n_synthetic: int, sampling_bias: float | int) -> FixedPoint:
    """Limit of `fresh_moments`, whatever the first fit.

    >>> round(fresh_fixed_point(100, 900, 1.0).variance, 4)
    1.0048

    Source: derived here, from the linear recursion; that there is a limit: MAD paper, Eq. 3.
    Assumes: normal data, pooled mean and covariance.
    """
    _check_pool(n_real, n_synthetic, sampling_bias, 1)
    step, n = _pooled_step(n_real, n_synthetic, sampling_bias), n_real + n_synthetic
    return _fixed_point(step, np.array([n_real / n, n_real / n**2]))


def mean_effective_size(n_real: int, n_synthetic: int) -> float:
    """Real samples whose mean errs as much as the limit of the fresh loop without bias; n_real to 2 n_real.

    It takes the limiting variance as 1. Counting the covariance too, the ratio to n_real can pass 2.

    >>> mean_effective_size(100, 100)
    150.0

    Source: derived here, 1/m at m = q^2 m + 1/n; effective size: MAD paper, Eq. 4.
    Assumes: sampling_bias 1, pooled mean.
    """
    _check_pool(n_real, n_synthetic, 1.0, 1)
    return n_real * (n_real + 2 * n_synthetic) / (n_real + n_synthetic)


def surrogate_real_only(n: int, *, dim: int) -> float:
    """Squared Wasserstein-2 distance to the truth of a fit to n real samples, to first order in dim / n.

    Fails near n = dim: at n = dim = 100 it says 26, the truth is 32. Simulate below a few times dim.

    >>> round(surrogate_real_only(1000, dim=4), 6)
    0.009

    Source: derived here, d/n for the mean, d(d + 1)/(4n) for the square root of the covariance.
    Assumes: normal data, n far above dim.
    """
    check_count("n", n, 2)
    check_count("dim", dim, 1)
    return dim / n + dim * (dim + 1) / (4 * n)


def covariance_noise(n_real: int, n_synthetic: int, sampling_bias: float | int) -> float:
    """Variance V of an off-diagonal entry of the covariance in the limit of the fresh loop, to first order in 1/n.

    >>> covariance_noise(100, 0, 1.0)
    0.01

    Source: derived here, V = (p^2/n_real + (q b s)^2/n_synthetic)/(1 - (q b)^2), b the bias, s the limiting variance.
    Assumes: normal data, isotropic limit.
    """
    s, n = fresh_fixed_point(n_real, n_synthetic, sampling_bias).variance, n_real + n_synthetic
    q = n_synthetic / n
    return (n_real / n + q * (sampling_bias * s) ** 2) / n / (1 - (q * sampling_bias) ** 2)


def surrogate_limit(n_real: int, n_synthetic: int, sampling_bias: float | int, *, dim: int) -> float:
    """Squared Wasserstein-2 distance to the truth in the limit of the fresh loop, to first order in dim / n.

    Fails where n_real is not far above dim: at (100, 900) without bias and dim 100 it is 12 % too high.

    >>> surrogate_limit(1000, 0, 0.5, dim=4) == surrogate_real_only(1000, dim=4)
    True

    Source: derived here: mean error, shrinkage of the deviation and noise V of the covariance, per coordinate.
    Assumes: normal data, pooled fit, n_real + n_synthetic far above dim.
    """
    check_count("dim", dim, 1)
    point = fresh_fixed_point(n_real, n_synthetic, sampling_bias)
    shrinkage = (1 - math.sqrt(point.variance)) ** 2
    noise = (dim + 1) * covariance_noise(n_real, n_synthetic, sampling_bias) / (4 * point.variance**1.5)
    return dim * (point.mean_error + shrinkage + noise)


def phase_line(sampling_bias: float | int, *, dim: int) -> float:
    """Synthetic samples per generation up to which the fresh loop beats its real data alone; infinite without bias.

    It is the limit for many real samples, and n_real must exceed dim by orders of magnitude to get near; where
    n_real is about dim or below, the threshold rises.

    >>> round(phase_line(0.7, dim=100))
    1247

    Source: derived here, `surrogate_limit` = `surrogate_real_only` to second order in 1/n_real. The region: MAD paper.
    Assumes: normal data, pooled fit, squared Wasserstein-2 distance.
    """
    check_range("sampling_bias", sampling_bias, 0.0, 1.0)
    check_count("dim", dim, 1)
    if sampling_bias == 1:
        return math.inf
    gain = 4 * (2 - sampling_bias) + (0.5 + 1.5 * sampling_bias - sampling_bias**2) * (dim + 1)
    return gain / (1 - sampling_bias) ** 2


def augmentation_moments(
    n_real: int, n_synthetic: int, sampling_bias: float | int, n_generations: int
) -> Moments:
    """Moments of a loop that pools the same real data (2 or more) with samples of the last model; total mean error.

    Generation 1 is the fit to the real data. The mean error is 1/n_real, which stays, plus that against the real mean:
    synthetic data never help here, but do bounded harm.

    >>> augmentation_moments(50, 200, 1.0, 2).mean_error.round(4).tolist()
    [0.0, 0.02, 0.0232]

    Source: derived here, from the recursion given the real data; the loop is the MAD paper's.
    Assumes: normal data, pooled mean and covariance.
    """
    _check_pool(n_real, n_synthetic, sampling_bias, 2)
    check_count("n_generations", n_generations, 0)
    step = _pooled_step(n_real, n_synthetic, sampling_bias)
    offset = np.array([(n_real - 1) / (n_real + n_synthetic - 1), 0.0])
    moments = _from_first_fit(step, offset, [1.0, 0.0], n_generations)
    moments.mean_error[1:] += 1 / n_real
    return moments


def augmentation_fixed_point(n_real: int, n_synthetic: int, sampling_bias: float | int) -> FixedPoint:
    """Limit of `augmentation_moments`.

    >>> round(augmentation_fixed_point(50, 200, 1.0).mean_error, 4)
    0.0288

    Source: derived here, from the linear recursion.
    Assumes: normal data, pooled mean and covariance.
    """
    _check_pool(n_real, n_synthetic, sampling_bias, 2)
    offset = np.array([(n_real - 1) / (n_real + n_synthetic - 1), 0.0])
    point = _fixed_point(_pooled_step(n_real, n_synthetic, sampling_bias), offset)
    return FixedPoint(point.variance, point.mean_error + 1 / n_real, point.rate)


def weighted_mean_error(real_weight: float | int, ratio: float | int) -> float:
    """Limiting mean error, in units of tr S / n_real, where the mean is w (real mean) + (1 - w)(synthetic mean).

    >>> weighted_mean_error(1.0, 3.0)
    1.0

    Args:
        real_weight: w, in (0, 1]; pooling has w = n_real/n.
        ratio: n_real / n_synthetic, above 0.

    Source: He, Xu and Cheng, arXiv 2502.18049.
    Assumes: fresh loop, sampling_bias 1, group covariances weighted alike, without a between-group term.
    """
    check_range("real_weight", real_weight, 0.0, 1.0, above=True)
    check_range("ratio", ratio, 0.0, math.inf, above=True)
    return (real_weight**2 + ratio * (1 - real_weight) ** 2) / (real_weight * (2 - real_weight))


def optimal_real_weight(ratio: float | int) -> float:
    """The weight of the real data that makes `weighted_mean_error` least, and that least error as well.

    >>> round(optimal_real_weight(1.0), 3)  # one over the golden ratio
    0.618

    Source: He, Xu and Cheng, arXiv 2502.18049: (sqrt(k^2 + 4k) - k)/2 for ratio k.
    Assumes: as `weighted_mean_error`.
    """
    check_range("ratio", ratio, 0.0, math.inf, above=True)
    return 2 / (math.sqrt(1 + 4 / ratio) + 1)


def weighted_effective_size(n_real: int, n_synthetic: int) -> float:
    """Real samples whose mean errs as much as the limit under the best weight; like sqrt(n_real n_synthetic) at last.

    >>> weighted_effective_size(2, 12)
    6.0

    Source: He, Xu and Cheng, arXiv 2502.18049, as n_real over the optimal weight.
    Assumes: as `weighted_mean_error`.
    """
    _check_pool(n_real, n_synthetic, 1.0, 1)
    return (n_real + math.sqrt(n_real * (n_real + 4 * n_synthetic))) / 2


def mark_drift(
    n_real: int, n_synthetic: int, strength: float | int, n_generations: int
) -> Float64[np.ndarray, " t"]:
    """Expected mean along a mark that shifts each synthetic sample by `strength`; n_real 0 gives t * strength.

    With fixed real data, whose first fit carries no mark, the same values come one generation later.

    >>> mark_drift(1, 1, 0.5, 2).tolist()
    [0.0, 0.25, 0.375]

    Source: derived here, drift = q (last drift + strength); marks in loops: MAD paper, Sec. 6.
    Assumes: pooled mean, real data without the mark.
    """
    _check_pool(n_real, n_synthetic, 1.0, 0)
    check_range("strength", strength, -math.inf, math.inf)
    check_count("n_generations", n_generations, 0)
    q = n_synthetic / (n_real + n_synthetic)
    return strength * np.concatenate([[0.0], np.cumsum(q ** np.arange(1.0, n_generations + 1))])


def mark_drift_limit(
    n_real: int,
    n_synthetic: int,
    strength: float | int,
    *,
    true_positive_rate: float | int = 0.0,
    false_positive_rate: float | int = 0.0,
) -> float:
    """Limit of `mark_drift` where a filter drops marked items: strength times synthetic per real among those kept.

    >>> round(mark_drift_limit(100, 900, 0.05), 4)
    0.45

    Args:
        n_real: 1 or more.
        n_synthetic: 0 or more.
        strength: shift of each synthetic sample.
        true_positive_rate: share of synthetic items dropped, in [0, 1].
        false_positive_rate: share of real items dropped, in [0, 1).

    Source: derived here, from `mark_drift` on the numbers kept.
    Assumes: as `mark_drift`; the filter drops items without regard to their values.
    """
    check_count("n_real", n_real, 1, "without real samples the drift has no limit")
    check_count("n_synthetic", n_synthetic, 0)
    check_range("strength", strength, -math.inf, math.inf)
    check_range("true_positive_rate", true_positive_rate, 0.0, 1.0)
    check_range("false_positive_rate", false_positive_rate, 0.0, 1.0)
    if false_positive_rate == 1:
        raise InputError("false_positive_rate: got 1, allowed below 1; keep some real items")
    return strength * n_synthetic * (1 - true_positive_rate) / (n_real * (1 - false_positive_rate))


def required_true_positive_rate(n_synthetic: int, threshold: float | int) -> float:
    """Share of the synthetic items that a filter must drop so that at most `threshold` are left; in [0, 1].

    >>> required_true_positive_rate(1000, 250.0)
    0.75

    Args:
        n_synthetic: 0 or more.
        threshold: synthetic samples that the loop can bear, such as `phase_line`; 0 or more, may be infinite.

    Source: derived here, 1 - threshold / n_synthetic. The use of marks to the purpose: MAD paper, Sec. 6.
    Assumes: no real items are dropped; expected numbers.
    """
    check_count("n_synthetic", n_synthetic, 0)
    if not threshold >= 0:
        raise InputError(f"threshold: got {threshold}, allowed 0 or more; give a number of samples")
    return max(0.0, 1 - threshold / n_synthetic) if n_synthetic else 0.0
