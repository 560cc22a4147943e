"""Estimates from independent loops, with their own errors, and summaries that heavy tails cannot mislead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError

QUANTILES: Final = (0.05, 0.25, 0.75, 0.95)
"""Levels of the quantiles of a `Summary`."""


@final
@dataclass(frozen=True)
class MonteCarlo:
    """An estimate and how good it is.

    Attributes:
        value: the estimate.
        stderr: its standard error.
        tolerance: the relative standard error that was asked for.
        converged: whether `stderr` is at most `tolerance` times `value`, and the start no longer shows.
        start_shows: whether the measured generations still drift away from where the loops started.
        n_paths: independent loops behind the estimate.
        n_generations: generations of each.
        why: what is amiss where not converged; None otherwise.
    """

    value: float
    stderr: float | int
    tolerance: float | int
    converged: bool
    start_shows: bool
    n_paths: int
    n_generations: int
    why: str | None = None


@final
@dataclass(frozen=True)
class Summary:
    """What independent loops say of one figure in one generation; every entry with its standard error.

    Attributes:
        n: loops.
        mean: average. Misleading where few loops carry most of it; compare with `median`.
        mean_stderr: its standard error.
        median: middle value.
        median_stderr: its standard error.
        quantiles: at the levels of `QUANTILES`.
        quantiles_stderr: their standard errors.
        log_mean: mean of the logarithm; None where a value is not above 0.
        log_mean_stderr: its standard error.
        log_sd: standard deviation of the logarithm.
        log_sd_stderr: its standard error.
    """

    n: int
    mean: float
    mean_stderr: float
    median: float
    median_stderr: float
    quantiles: tuple[float, ...]
    quantiles_stderr: tuple[float, ...]
    log_mean: float | None
    log_mean_stderr: float | None
    log_sd: float | None
    log_sd_stderr: float | None


def summarise(values: Float[np.ndarray, " n"]) -> Summary:
    """Mean, median, quantiles and log-moments of the values, each with its Monte-Carlo standard error.

    Args:
        values: of independent loops, 3 or more, finite.

    Raises:
        InputError: fewer than 3 values, or one that is not finite.

    Source: the error of a quantile is half the distance of the order statistics one binomial standard deviation above
        and below it; that of a standard deviation comes from the sample's fourth moment.
    Assumes: independent loops; for the error of the mean, a finite variance.

    >>> summarise(np.arange(1.0, 100.0)).median
    50.0
    """
    n = len(values)
    if n < 3:
        raise InputError(f"values: got {n}, allowed 3 or more; run more loops")
    if not np.isfinite(values).all():
        raise InputError(
            "values: got some that are not finite, allowed finite ones; leave singular loops out"
        )
    levels = np.array([0.5, *QUANTILES])
    reach = np.sqrt(levels * (1 - levels) / n)
    quantiles = np.quantile(values, levels).tolist()
    apart = np.quantile(values, (levels + reach).clip(0, 1)) - np.quantile(
        values, (levels - reach).clip(0, 1)
    )
    errors = (apart / 2).tolist()
    logs = None
    if (values > 0).all():
        logarithm = np.log(values)
        mean, mean_error = _mean(logarithm)
        sd, sd_error = _sd(logarithm)
        logs = (mean, mean_error, sd, sd_error)
    mean, mean_stderr = _mean(values)
    return Summary(
        n, mean, mean_stderr, quantiles[0], errors[0], tuple(quantiles[1:]), tuple(errors[1:]),
        *(logs or (None, None, None, None)),
    )  # fmt: skip


def _mean(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _sd(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    variance = float(values.var(ddof=1))
    if variance == 0:
        return 0.0, 0.0
    fourth = float(((values - values.mean()) ** 4).mean())
    error = np.sqrt(max(fourth - variance**2, 0.0) / len(values))
    return variance**0.5, float(error / (2 * variance**0.5))
