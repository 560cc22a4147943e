"""Summaries of independent loops and their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from poolproof.errors import InputError
from poolproof.simulate.montecarlo import QUANTILES, summarise, with_error


@pytest.mark.reference
def test_summary_is_that_of_numpy(rng: np.random.Generator) -> None:
    """Mean, median, quantiles and log-moments are NumPy's."""
    values = rng.lognormal(size=501)
    summary = summarise(values)
    assert summary.n == 501
    assert summary.mean == pytest.approx(values.mean())
    assert summary.median == pytest.approx(np.median(values))
    assert summary.quantiles == pytest.approx(np.quantile(values, QUANTILES))
    assert summary.log_mean == pytest.approx(np.log(values).mean())
    assert summary.log_sd == pytest.approx(np.log(values).std(ddof=1))
    assert summary.mean_stderr == pytest.approx(stats.sem(values))
    of_square = math.sqrt(stats.kstatvar(np.log(values), 2))
    assert summary.log_sd_stderr == pytest.approx(of_square / (2 * np.log(values).std(ddof=1)))


@pytest.mark.coverage
def test_errors_are_as_large_as_they_say(rng: np.random.Generator) -> None:
    """Over many repetitions each figure spreads as much as its standard error claims, within a tenth."""
    summaries = [summarise(rng.lognormal(sigma=0.7, size=400)) for _ in range(600)]
    for name in ("mean", "median", "log_mean", "log_sd"):
        spread = np.std([getattr(summary, name) for summary in summaries])
        claimed = np.mean([getattr(summary, f"{name}_stderr") for summary in summaries])
        assert claimed == pytest.approx(spread, rel=0.12), name
    quantiles = np.std([summary.quantiles for summary in summaries], axis=0)
    claimed = np.mean([np.array(summary.quantiles_stderr, float) for summary in summaries], axis=0)
    assert claimed == pytest.approx(quantiles, rel=0.2)


def test_no_logarithm_of_zero() -> None:
    """Log-moments are withheld where a value is not above 0, and the rest is told."""
    summary = summarise(np.array([0.0, 1.0, 2.0]))
    assert summary.log_mean is None
    assert summary.log_sd_stderr is None
    assert summary.mean == 1


def test_equal_values_have_no_error() -> None:
    """A constant is known exactly."""
    summary = summarise(np.full(10, 2.0))
    assert (summary.mean, summary.mean_stderr, summary.median_stderr, summary.log_sd_stderr) == (2, 0, 0, 0)


@pytest.mark.coverage
def test_errors_of_few_loops_are_told_or_withheld(rng: np.random.Generator) -> None:
    """With a dozen loops told errors are those that repetitions have; what so few cannot tell is missing."""
    summaries = [summarise(rng.lognormal(size=12)) for _ in range(2000)]
    assert summaries[0].quantiles_stderr[0] is summaries[0].quantiles_stderr[3] is None
    spread = np.std(np.array([summary.log_sd for summary in summaries], float))
    claimed = np.sqrt(np.mean(np.square(np.array([summary.log_sd_stderr for summary in summaries], float))))
    assert claimed == pytest.approx(spread, rel=0.15)
    middle = np.std([summary.quantiles[1] for summary in summaries])
    told = [summary.quantiles_stderr[1] for summary in summaries]
    assert np.mean([error for error in told if error is not None]) == pytest.approx(middle, rel=0.25)


@pytest.mark.parametrize("n", [3, 4, 9, 10, 18, 20])
def test_errors_need_loops_on_either_side(n: int) -> None:
    """A quantile has an error where one binomial standard deviation stays inside; a deviation, from 10 loops on."""
    summary = summarise(np.arange(1.0, n + 1))
    for level, error in zip(QUANTILES, summary.quantiles_stderr, strict=True):
        way = (level * (1 - level) / n) ** 0.5
        assert (error is None) == (not way <= level <= 1 - way)
    assert (summary.log_sd_stderr is None) == (n < 10)
    assert summary.log_sd is not None
    assert summary.median_stderr > 0


def test_text_has_two_digits_of_the_error() -> None:
    """A value is written as precisely as its error is known to two digits, and whole where it has none."""
    assert with_error(32.1, 0.123) == "32.10 \u00b1 0.12"
    assert with_error(1207.2, 2.006) == "1,207.2 \u00b1 2.0"
    assert with_error(123456.0, 7890.0) == "123,456 \u00b1 7,890"
    assert with_error(40.0, 0.0) == "40 \u00b1 0"


@pytest.mark.parametrize(("values", "message"), [([1.0, 2.0], "got 2"), ([1.0, np.inf, 2.0], "not finite")])
def test_too_little_is_refused(values: list[float], message: str) -> None:
    """Fewer than three values, or infinite ones, give no summary."""
    with pytest.raises(InputError, match=message):
        summarise(np.array(values))
