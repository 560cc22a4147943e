"""The closed forms of loops that keep all earlier data against loops of sampled points, limits and bounds."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from refusals import assert_refused
from sampled_loops import agree, fit, moments_agree, normal

from poolproof.simulate import accumulation, theory


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    outcome = doctest.testmod(accumulation)
    assert outcome.attempted >= 5
    assert not outcome.failed


@pytest.mark.theory
def test_arrays_start_at_the_truth() -> None:
    """Entry 0 is the truth, and zero generations leave it alone."""
    for moments in (accumulation.accumulate_moments(5, 0), accumulation.subsample_moments(5, 0)):
        assert (moments.variance.tolist(), moments.mean_error.tolist()) == ([1.0], [0.0])


def pool_loop(
    n: int, n_generations: int, *, subsample: bool, loops: int
) -> tuple[Float64[np.ndarray, "t m d"], Float64[np.ndarray, "t m d d"]]:
    """Run loops on a growing pool in one dimension, with divisor n."""
    rng = np.random.default_rng(3)
    pool = rng.standard_normal((loops, n, 1))
    means, covariances = [np.zeros((loops, 1))], [np.ones((loops, 1, 1))]
    for _ in range(n_generations):
        drawn = rng.permuted(pool, axis=1)[:, :n] if subsample else pool
        mean, covariance = fit(drawn, mle=True)
        means.append(mean)
        covariances.append(covariance)
        pool = np.concatenate([pool, normal(mean, covariance, n, rng)], axis=1)
    return np.stack(means), np.stack(covariances)


@pytest.mark.theory
@pytest.mark.parametrize("n", [3, 8])
def test_growing_pools_are_those_of_sampled_loops(n: int) -> None:
    """Moments of a loop on all data so far, and on a draw from them."""
    moments_agree(pool_loop(n, 5, subsample=False, loops=30_000), accumulation.accumulate_moments(n, 5))
    moments_agree(pool_loop(n, 5, subsample=True, loops=30_000), accumulation.subsample_moments(n, 5))


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_accumulation_stays_above_its_limit(n: int) -> None:
    """The variance falls to the sine limit, which the mean error complements to about pi^2/(6 n)."""
    variance = accumulation.accumulate_moments(n, 20_000).variance
    limit = accumulation.accumulate_limit(n)
    assert np.all(np.diff(variance) < 0)
    assert limit < variance[-1] == pytest.approx(limit, rel=1e-4)
    assert 1 - accumulation.accumulate_limit(10**6) == pytest.approx(math.pi**2 / 6e6, rel=1e-5)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(2, 200))
def test_keeping_more_data_keeps_more_variance(n: int) -> None:
    """Accumulation keeps the most, replacement the least, a draw from the pool lies between."""
    replaced = theory.fully_synthetic_moments(n, 1.0, 30, covariance="mle").variance
    drawn = accumulation.subsample_moments(n, 30).variance
    kept = accumulation.accumulate_moments(n, 30).variance
    assert np.all(replaced <= drawn + 1e-12)
    assert np.all(drawn <= kept + 1e-12)


@pytest.mark.theory
@pytest.mark.parametrize("keep", [False, True])
def test_regression_errors_are_those_of_sampled_loops(keep: bool) -> None:
    """Least squares on labels of the last model alone, or on all label sets so far."""
    rng = np.random.default_rng(4)
    n_samples, dim, loops, noise = 14, 3, 20_000, 0.5
    x = rng.standard_normal((loops, n_samples, dim))
    inverse = np.linalg.pinv(x)
    weight, labels, errors = np.zeros((loops, dim, 1)), [], [np.zeros(loops)]
    for _ in range(4):
        labels.append(x @ weight + math.sqrt(noise) * rng.standard_normal((loops, n_samples, 1)))
        # Least squares on repeated inputs is least squares on the mean of their labels.
        weight = inverse @ (np.mean(labels, axis=0) if keep else labels[-1])
        errors.append(np.square(weight).sum(axis=(1, 2)))
    function = accumulation.accumulate_regression_error if keep else accumulation.replace_regression_error
    agree(np.stack(errors), function(noise, n_samples, dim, 4))


@pytest.mark.theory
def test_accumulated_regression_error_stays_below_its_bound() -> None:
    """The error of all label sets stays within pi^2/6 of one fit, the inverse of the efficiency."""
    errors = accumulation.accumulate_regression_error(1.0, 50, 5, 5000)
    assert errors[-1] < errors[1] / accumulation.AUGMENT_EFFICIENCY
    assert errors[-1] == pytest.approx(errors[1] / accumulation.AUGMENT_EFFICIENCY, rel=2e-4)
    assert pytest.approx(0.607, abs=1e-3) == accumulation.AUGMENT_EFFICIENCY


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: accumulation.accumulate_moments(1, 3), "n"),
        (lambda: accumulation.accumulate_limit(1), "n"),
        (lambda: accumulation.subsample_moments(5, -1), "n_generations"),
        (lambda: accumulation.replace_regression_error(-1.0, 12, 1, 3), "noise_variance"),
        (lambda: accumulation.replace_regression_error(math.inf, 12, 1, 3), "noise_variance"),
        (lambda: accumulation.accumulate_regression_error(1.0, 4, 3, 3), "n_samples"),
        (lambda: accumulation.accumulate_regression_error(1.0, 12, 3, -3), "n_generations"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    """A value out of range raises one line that starts with the argument's name."""
    assert_refused(call, name)
