"""Estimates from independent loops, with their own errors, and summaries that heavy tails cannot mislead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError

QUANTILES: Final = (0.05, 0.25, 0.75, 0.95)
"""Levels of the quantiles of a `Summary`."""

_FOURTH: Final = 10
"""Loops from which on a fourth moment, and with it the error of a standard deviation, is told."""


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
        quantiles_stderr: their standard errors; None where too few loops lie beyond a quantile to tell.
        log_mean: mean of the logarithm; None where a value is not above 0.
        log_mean_stderr: its standard error.
        log_sd: standard deviation of the logarithm.
        log_sd_stderr: its standard error; None also for fewer than 10 loops.
    """

    n: int
    mean: float
    mean_stderr: float
    median: float
    median_stderr: float
    quantiles: tuple[float, ...]
    quantiles_stderr: tuple[float | None, ...]
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
        and below it, if both are in the sample; that of a standard deviation comes from the variance of its square,
        estimated without bias from the k-statistics (Kenney and Keeping, 1951): (2 n k2^2 + (n - 1) k4)/(n (n + 1)).
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
    errors: list[float | None] = []
    for level, way in zip(levels.tolist(), reach.tolist(), strict=True):
        inside = way <= level <= 1 - way
        low, high = np.quantile(values, [level - way, level + way]).tolist() if inside else (0.0, 0.0)
        errors.append((high - low) / 2 if inside else None)
    logs = None
    if (values > 0).all():
        logarithm = np.log(values)
        mean, mean_error = _mean(logarithm)
        sd, sd_error = _sd(logarithm)
        logs = (mean, mean_error, sd, sd_error)
    mean, mean_stderr = _mean(values)
    assert errors[0] is not None  # half of the values lie on either side of the median
    return Summary(
        n, mean, mean_stderr, quantiles[0], errors[0], tuple(quantiles[1:]), tuple(errors[1:]),
        *(logs or (None, None, None, None)),
    )  # fmt: skip


def _mean(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _sd(values: Float[np.ndarray, " n"]) -> tuple[float, float | None]:
    n, variance = len(values), float(values.var(ddof=1))
    if n < _FOURTH:
        return variance**0.5, None
    if variance == 0:
        return 0.0, 0.0
    second = variance * (n - 1) / n
    fourth = float(((values - values.mean()) ** 4).mean())
    k4 = n**2 * ((n + 1) * fourth - 3 * (n - 1) * second**2) / ((n - 1) * (n - 2) * (n - 3))
    of_square = max(2 * n * variance**2 + (n - 1) * k4, 0.0) / (n * (n + 1))
    return variance**0.5, float(of_square**0.5 / (2 * variance**0.5))


def with_error(value: float | int, stderr: float | int) -> str:
    """The value and its standard error as text, to two digits of the error.

    >>> with_error(1206.34, 2.4123), with_error(32.123, 0.0149), with_error(10858.4, 144.0)
    ('1,206.3 ± 2.4', '32.123 ± 0.015', '10,858 ± 144')
    """
    exponent = float(f"{stderr:.1e}".split("e")[1]) if stderr > 0 else 1
    places = max(0, int(1 - exponent))
    return f"{value:,.{places}f} \u00b1 {stderr:,.{places}f}"
