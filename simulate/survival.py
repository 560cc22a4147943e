"""What a loop forgets and how fast: survival of symbols and of variance, rates of relaxation.

Generation 0 is the truth, generation 1 the first fit; an array over generations has n_generations + 1 entries, the
first for generation 0. Arguments that recur, with their ranges unless a function says otherwise:

    n               samples per generation, 2 or more
    n_generations   0 or more

Other papers write lambda for other things: a ratio, a real share, a Poisson mean. Each has its own name here. An
argument outside its range raises InputError. "Derived here" marks what no paper states; tests simulate it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range


def _check_probabilities(name: str, values: Float64[np.ndarray, " k"]) -> None:
    """Raise InputError unless the values are a probability vector."""
    if values.size == 0 or not np.all(values >= 0) or not abs(values.sum() - 1) < 1e-9:
        raise InputError(
            f"{name}: got sum {values.sum():g}, allowed numbers from 0 with sum 1; normalise them"
        )


@final
@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds in [0, 1] on a probability, entry t for generation t."""

    lower: Float[np.ndarray, " t"]
    upper: Float[np.ndarray, " t"]


def survival_iterates(n_generations: int) -> Float64[np.ndarray, " t"]:
    """The iterates g_t of x -> 1 - exp(-x) from infinity, which is entry 0; between 1/t and 3/t.

    >>> survival_iterates(2).round(4).tolist()
    [inf, 1.0, 0.6321]

    Source: Suresh, Thangaraj and Khandavally, arXiv 2412.17646.
    """
    check_count("n_generations", n_generations, 0)
    iterates = np.full(n_generations + 1, np.inf)
    for t in range(1, n_generations + 1):
        iterates[t] = -math.expm1(-iterates[t - 1])
    return iterates


def poisson_survival(expected_count: float | int, n_generations: int) -> Float64[np.ndarray, " t"]:
    """Probability that a symbol is still seen in generation t: 1 - exp(-expected_count * g_t), exactly.

    >>> poisson_survival(1.0, 2).round(4).tolist()
    [1.0, 0.6321, 0.4685]

    Args:
        expected_count: occurrences expected in the samples of generation 1, above 0; n times the Poisson mean.
        n_generations: 0 or more.

    Source: Suresh et al., arXiv 2412.17646.
    Assumes: fully synthetic loop, counts Poisson given the last rate, maximum likelihood.
    """
    check_range("expected_count", expected_count, 0.0, math.inf, above=True)
    return -np.expm1(-expected_count * survival_iterates(n_generations))


def bernoulli_survival(n: int, probability: float | int, n_generations: int) -> Bounds:
    """Bounds on the probability that a Bernoulli outcome is still possible in generation t.

    The upper bound is of use only where n p^2 and t p are well below 1.

    >>> bounds = bernoulli_survival(1000, 0.001, 1)
    >>> bounds.lower.round(3).tolist(), bounds.upper.round(3).tolist()
    ([1.0, 0.632], [1.0, 0.634])

    Args:
        n: samples per generation, 1 or more.
        probability: of the outcome in the truth, in (0, 1].
        n_generations: 0 or more.

    Source: Suresh et al., arXiv 2412.17646.
    Assumes: fully synthetic loop, maximum likelihood.
    """
    check_count("n", n, 1)
    check_range("probability", probability, 0.0, 1.0, above=True)
    vanished = np.exp(-n * probability * survival_iterates(n_generations))
    slack = 1 - 3 * n * probability**2 - 3 * probability * np.arange(n_generations + 1.0)
    return Bounds(1 - vanished, np.minimum(1.0, 1 - slack * vanished))


def gaussian_survival_bound(n: int, threshold: float | int, n_generations: int) -> Float64[np.ndarray, " t"]:
    """Upper bound exp(-t/(4n - 1)) / threshold, at most 1, on P(sigma_t > threshold * sigma_0).

    >>> gaussian_survival_bound(2, 0.5, 7)[-1].round(4)
    np.float64(0.7358)

    Args:
        n: samples per generation, 2 or more.
        threshold: as a share of the true standard deviation, above 0.
        n_generations: 0 or more.

    Source: Suresh et al., arXiv 2412.17646. By Markov's inequality; `variance_law_1d` has the exact probability.
    Assumes: fully synthetic loop in one dimension without bias, unbiased variance.
    """
    check_count("n", n, 2)
    check_count("n_generations", n_generations, 0)
    check_range("threshold", threshold, 0.0, math.inf, above=True)
    return np.minimum(1.0, np.exp(-np.arange(n_generations + 1.0) / (4 * n - 1)) / threshold)


def mixture_survival_bound(n: int, threshold: float | int, n_generations: int) -> Float64[np.ndarray, " t"]:
    """Upper bound exp(-t/(4n)) / threshold, at most 1, on P(sigma_t > threshold * sigma_0) in a Gaussian mixture.

    >>> mixture_survival_bound(2, 0.5, 8)[-1].round(4)
    np.float64(0.7358)

    Args:
        n: samples per generation, of all components together, 2 or more.
        threshold: as a share of the true standard deviation, above 0.
        n_generations: 0 or more.

    Source: Suresh et al., arXiv 2412.17646, for an approximate joint maximum likelihood fit.
    Assumes: fully synthetic loop; one pooled deviation; components so far apart that the labels are known.
    """
    check_count("n", n, 2)
    check_count("n_generations", n_generations, 0)
    check_range("threshold", threshold, 0.0, math.inf, above=True)
    return np.minimum(1.0, np.exp(-np.arange(n_generations + 1.0) / (4 * n)) / threshold)


def expected_concentration(
    n: int, initial: Float64[np.ndarray, " k"], n_generations: int
) -> Float64[np.ndarray, " t"]:
    """E of the sum of squared probabilities in a categorical loop: 1 - (1 - 1/n)^t (1 - its first value).

    >>> expected_concentration(2, np.array([0.5, 0.5]), 2).tolist()
    [0.5, 0.75, 0.875]

    Args:
        n: samples per generation, 1 or more.
        initial: true probabilities.
        n_generations: 0 or more.

    Source: Seddik et al., arXiv 2404.05090; derived here from the multinomial covariance.
    Assumes: fully synthetic loop, empirical frequencies.
    """
    check_count("n", n, 1)
    check_count("n_generations", n_generations, 0)
    _check_probabilities("initial", initial)
    return 1 - (1 - 1 / n) ** np.arange(n_generations + 1.0) * (1 - float(initial @ initial))


def absorption_probability(initial: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Probability that a categorical loop ends with each symbol alone: the probability it started with.

    >>> absorption_probability(np.array([0.2, 0.8])).tolist()
    [0.2, 0.8]

    Source: Shumailov et al., Nature 631 (2024) 755. The frequency is a bounded martingale.
    Assumes: fully synthetic loop, unbiased fit that returns point masses as they are.
    """
    _check_probabilities("initial", initial)
    return initial.copy()


def mixture_recursion(
    initial: Float64[np.ndarray, " k"],
    model: Callable[[Float64[np.ndarray, " k"]], Float64[np.ndarray, " k"]],
    *,
    model_share: float | int,
    previous_share: float | int,
    n_generations: int,
) -> Float64[np.ndarray, "t k"]:
    """Data distributions p_(t+1) = model_share * model(p_t) + previous_share * p_t + the rest * p_0, by row.

    >>> mixture_recursion(np.array([0.5, 0.5]), lambda p: p * [0, 2], model_share=0.5, previous_share=0.0,
    ...                   n_generations=1).tolist()
    [[0.5, 0.5], [0.25, 0.75]]

    Args:
        initial: true probabilities p_0.
        model: what a fit to p_t generates, as probabilities.
        model_share: in [0, 1].
        previous_share: in [0, 1 - model_share].
        n_generations: 0 or more.

    Source: Shumailov et al., Nature 631 (2024) 755.
    Assumes: samples without limit. Of finite samples, it is the mean where the model is linear.
    """
    _check_probabilities("initial", initial)
    check_range("model_share", model_share, 0.0, 1.0)
    check_range("previous_share", previous_share, 0.0, 1.0 - model_share)
    check_count("n_generations", n_generations, 0)
    rows = [initial]
    for _ in range(n_generations):
        rest = (1 - model_share - previous_share) * initial
        rows.append(model_share * model(rows[-1]) + previous_share * rows[-1] + rest)
    return np.stack(rows)


def discrete_fresh_mean(
    truth: Float64[np.ndarray, " k"],
    first: Float64[np.ndarray, " k"],
    real_share: float | int,
    n_generations: int,
) -> Float64[np.ndarray, "t k"]:
    """E q_t by row, where each q is the empirical law of draws from real_share * truth + the rest * last q.

    >>> discrete_fresh_mean(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 0.5, 2).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.625, 0.375]]

    Args:
        truth: true probabilities.
        first: q_0; the truth itself where no collapse has come before.
        real_share: in [0, 1]; the distance to the truth shrinks by 1 - real_share, for any sample size.
        n_generations: 0 or more.

    Source: derived here, as multinomial frequencies are unbiased.
    """
    _check_probabilities("truth", truth)
    _check_probabilities("first", first)
    check_range("real_share", real_share, 0.0, 1.0)
    check_count("n_generations", n_generations, 0)
    if truth.size != first.size:
        raise InputError(
            f"first: got {first.size} numbers, allowed {truth.size}; give one per entry of truth"
        )
    return truth + (1 - real_share) ** np.arange(n_generations + 1.0)[:, None] * (first - truth)


def window_rate(real_share: float | int, window: int) -> float:
    """Factor per generation by which E q_t nears the truth where q_t pools the last `window` batches.

    >>> round(window_rate(0.5, 1), 4), round(window_rate(0.5, 2), 4)
    (0.5, 0.6404)

    Args:
        real_share: of every batch, in [0, 1].
        window: batches in the pool, 1 or more; the synthetic part of each comes from the model of its time.

    Source: derived here, the largest root of z^K = (1 - real_share)(1 + z + ... + z^(K-1))/K (companion matrix).
    """
    check_range("real_share", real_share, 0.0, 1.0)
    check_count("window", window, 1)
    companion = np.eye(window, k=-1)
    companion[0] = (1 - real_share) / window
    return float(np.abs(np.linalg.eigvals(companion)).max())


def retraining_rate(
    synthetic_ratio: float | int, *, distance: float | int, smoothness: float | int, curvature: float | int
) -> float | None:
    """Bound, in [0, 1), on the factor per retraining near the optimum; None where stability is not guaranteed.

    Guaranteed is it where synthetic_ratio (1 + smoothness * distance / curvature) < 1/2. Real loops can be stable
    beyond that: a Gaussian mean has the factor r/(1 + r), the bound is r/(1 - r).

    >>> retraining_rate(0.25, distance=0.0, smoothness=1.0, curvature=1.0)
    0.3333333333333333
    >>> retraining_rate(0.5, distance=0.0, smoothness=1.0, curvature=1.0) is None
    True

    Args:
        synthetic_ratio: synthetic over real samples, 0 or more.
        distance: Wasserstein distance from the truth to the best model, 0 or more.
        smoothness: Lipschitz constant, in the data, of the log likelihood's Hessian, 0 or more.
        curvature: least curvature of the expected log likelihood at the optimum, above 0.

    Source: Bertrand et al., arXiv 2310.00429; the rate derived here too, from the Jacobian of a retraining.
    Assumes: samples without limit, start near the optimum.
    """
    check_range("synthetic_ratio", synthetic_ratio, 0.0, math.inf)
    check_range("distance", distance, 0.0, math.inf)
    check_range("smoothness", smoothness, 0.0, math.inf)
    check_range("curvature", curvature, 0.0, math.inf, above=True)
    strength = synthetic_ratio * (1 + smoothness * distance / curvature)
    return strength / (1 - strength) if strength < 0.5 else None
