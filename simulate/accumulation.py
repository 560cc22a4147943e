"""Closed forms of loops that keep all earlier data instead of replacing it.

Generation 0 is the truth, generation 1 the first fit, and an array over generations has n_generations + 1 entries.
`n`, 2 or more, is the number of samples per generation; `n_generations` is 0 or more. An argument outside its
range raises InputError.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Float64

from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.theory import Moments

AUGMENT_EFFICIENCY: Final = 6 / math.pi**2
"""Least asymptotic efficiency, against the real data alone, of fits to real and all earlier synthetic data.

Source: Dey and Donoho, arXiv 2410.22812: the risk grows at most pi^2/6-fold, however many the generations.
"""


def accumulate_moments(n: int, n_generations: int) -> Moments:
    """Moments of a loop fitted to all data so far: n real samples, then n of each model.

    >>> accumulate_moments(2, 2).variance.tolist()
    [1.0, 0.5, 0.4375]

    Source: derived here, factors 1 - 1/(n i^2); the workflow is that of Kazdan et al., arXiv 2410.16713.
    Assumes: normal data, maximum likelihood covariance, no bias.
    """
    check_count("n", n, 2)
    check_count("n_generations", n_generations, 0)
    factors = 1 - 1 / (n * np.arange(1.0, n_generations + 1) ** 2)
    variance = np.concatenate([[1.0], np.cumprod(factors)])
    return Moments(variance, 1 - variance)


def accumulate_limit(n: int) -> float:
    """Limiting variance of `accumulate_moments`; the limiting mean error, about pi^2/(6n), is 1 less this.

    The distance to the limit falls as 1/t, so there is no rate.

    >>> round(accumulate_limit(4), 4)  # sin(pi/2) / (pi/2)
    0.6366

    Source: derived here, Euler's product for the sine.
    Assumes: as `accumulate_moments`.
    """
    check_count("n", n, 2)
    return float(np.sinc(1 / math.sqrt(n)))


def subsample_moments(n: int, n_generations: int) -> Moments:
    """Moments of a loop fitted to n items drawn without replacement from n real samples and n of each model so far.

    >>> subsample_moments(2, 2).variance.round(4).tolist()
    [1.0, 0.5, 0.2917]

    Source: derived here, from the law of a mean drawn from a finite pool; workflow of arXiv 2410.16713.
    Assumes: normal data, maximum likelihood covariance, no bias.
    """
    check_count("n", n, 2)
    check_count("n_generations", n_generations, 0)
    variance, pool_variance = np.ones(n_generations + 1), 1 - 1 / n
    for t in range(1, n_generations + 1):
        drawn = (t - 1) / (t * n - 1)
        variance[t] = pool_variance * (1 - drawn)
        pool_variance *= 1 - (drawn + (1 - drawn) / n) / (t + 1) ** 2
    return Moments(variance, 1 - variance)


def replace_regression_error(
    noise_variance: float | int, n_samples: int, dim: int, n_generations: int
) -> Float64[np.ndarray, " t"]:
    """Expected excess test error of least squares where each generation relabels the inputs by the last model.

    >>> replace_regression_error(1.0, 12, 1, 2).tolist()
    [0.0, 0.1, 0.2]

    Args:
        noise_variance: variance of the label noise, 0 or more.
        n_samples: inputs, the same in all generations; dim + 2 or more.
        dim: 1 or more.
        n_generations: 0 or more.

    Source: Gerstgrasser et al., arXiv 2404.01413; t times the error of one fit.
    Assumes: Gaussian inputs, independent noise of equal variance in every generation.
    """
    check_range("noise_variance", noise_variance, 0.0, math.inf)
    check_count("dim", dim, 1)
    check_count("n_samples", n_samples, dim + 2, "the expected error is infinite otherwise")
    check_count("n_generations", n_generations, 0)
    return noise_variance * dim / (n_samples - dim - 1) * np.arange(n_generations + 1.0)


def accumulate_regression_error(
    noise_variance: float | int, n_samples: int, dim: int, n_generations: int
) -> Float64[np.ndarray, " t"]:
    """As `replace_regression_error` where all label sets so far are kept: bounded, at most pi^2/6 times one fit.

    >>> accumulate_regression_error(1.0, 12, 1, 2).tolist()
    [0.0, 0.1, 0.125]

    Source: Gerstgrasser et al., arXiv 2404.01413, as the sum of 1/i^2 over the generations.
    Assumes: as `replace_regression_error`.
    """
    single = replace_regression_error(noise_variance, n_samples, dim, 1)[1]
    check_count("n_generations", n_generations, 0)
    return single * np.concatenate([[0.0], np.cumsum(np.arange(1.0, n_generations + 1) ** -2)])
