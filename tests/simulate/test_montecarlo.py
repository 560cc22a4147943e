"""Summaries of independent loops and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from poolproof.errors import InputError
from poolproof.simulate.montecarlo import QUANTILES, summarise


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


@pytest.mark.coverage
def test_errors_are_as_large_as_they_say(rng: np.random.Generator) -> None:
    """Over many repetitions each figure spreads as much as its standard error claims, within a tenth."""
    summaries = [summarise(rng.lognormal(sigma=0.7, size=400)) for _ in range(600)]
    for name in ("mean", "median", "log_mean", "log_sd"):
        spread = np.std([getattr(summary, name) for summary in summaries])
        claimed = np.mean([getattr(summary, f"{name}_stderr") for summary in summaries])
        assert claimed == pytest.approx(spread, rel=0.12), name
    quantiles = np.std([summary.quantiles for summary in summaries], axis=0)
    claimed = np.mean([summary.quantiles_stderr for summary in summaries], axis=0)
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


@pytest.mark.parametrize(("values", "message"), [([1.0, 2.0], "got 2"), ([1.0, np.inf, 2.0], "not finite")])
def test_too_little_is_refused(values: list[float], message: str) -> None:
    """Fewer than three values, or infinite ones, give no summary."""
    with pytest.raises(InputError, match=message):
        summarise(np.array(values))
