"""Chances, bounds and rates of forgetting against exact laws and chains, closed forms and sampled loops."""

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
from sampled_loops import agree
from scipy import special, stats

from poolproof.simulate import collapse, survival


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    outcome = doctest.testmod(survival)
    assert outcome.attempted >= 13
    assert not outcome.failed


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(1, 2000))
def test_iterates_lie_between_their_bounds(n_generations: int) -> None:
    """Iterate t lies in [1/t, 3/t], and each is less than the one before."""
    found = survival.survival_iterates(n_generations)
    t = np.arange(1, n_generations + 1)
    assert np.all((found[1:] >= 1 / t) & (found[1:] <= 3 / t))
    assert np.all(np.diff(found[1:]) < 0)


@pytest.mark.theory
@pytest.mark.parametrize("expected_count", [0.5, 3.0])
def test_poisson_survival_is_that_of_sampled_loops(expected_count: float) -> None:
    """Counts that are Poisson with the last count as their mean."""
    rng = np.random.default_rng(3)
    count, alive = rng.poisson(expected_count, 60_000), [np.ones(60_000)]
    for _ in range(6):
        alive.append((count > 0).astype(float))
        count = rng.poisson(count)
    agree(np.stack(alive), survival.poisson_survival(expected_count, 6))


@pytest.mark.theory
@pytest.mark.parametrize("n", [10, 50, 200])
@pytest.mark.parametrize("probability", [0.003, 0.01, 0.1, 0.5])
def test_bernoulli_bounds_hold_the_exact_chain(n: int, probability: float) -> None:
    """The exact Markov chain of counts survives as often as the bounds allow, in 50 generations."""
    counts = np.arange(n + 1)
    step = stats.binom.pmf(counts[None, :], n, counts[:, None] / n)
    law, exact = stats.binom.pmf(counts, n, probability), [1.0]
    for _ in range(50):
        exact.append(1 - law[0])
        law = law @ step
    bounds = survival.bernoulli_survival(n, probability, 50)
    assert np.all(bounds.lower <= np.array(exact) + 1e-12)
    assert np.all(bounds.upper >= np.array(exact) - 1e-12)


@pytest.mark.theory
def test_bernoulli_bounds_meet_for_rare_outcomes() -> None:
    """For an outcome expected once in a million samples the bounds differ by little."""
    bounds = survival.bernoulli_survival(10**6, 1e-6, 20)
    np.testing.assert_allclose(bounds.lower, bounds.upper, atol=1e-4)
    np.testing.assert_allclose(bounds.lower, survival.poisson_survival(1.0, 20), atol=1e-12)


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_gaussian_bound_holds_the_exact_law(n: int, threshold: float) -> None:
    """The exact chance of keeping that share of the deviation never passes the bound."""
    bound = survival.gaussian_survival_bound(n, threshold, 8 * n)
    for generation in (1, 2, n, 8 * n):
        law = collapse.variance_law_1d(n, 1.0, generation)
        assert 1 - law.cdf(np.array([threshold**2]))[0] <= bound[generation] + 1e-9
    assert bound[0] == 1


@pytest.mark.theory
def test_gaussian_bound_follows_from_the_mean_deviation() -> None:
    """The mean of a normal sample's deviation is at most exp(-1/(4n - 1)) for any number of samples."""
    n = np.arange(2, 5000)
    mean = 0.5 * np.log(2 / (n - 1)) + special.gammaln(n / 2) - special.gammaln((n - 1) / 2)
    assert np.all(mean < -1 / (4 * n - 1))


@pytest.mark.theory
@pytest.mark.parametrize("unbiased", [True, False])
def test_mixture_bound_holds_for_sampled_loops(unbiased: bool) -> None:
    """Two components with known labels and one pooled deviation, fitted anew in each generation."""
    rng = np.random.default_rng(4)
    n, loops = 12, 20_000
    mean, deviation, alive = np.tile([-50.0, 50.0], (loops, 1)), np.ones(loops), [np.ones(loops)]
    for _ in range(60):
        points = mean[:, :, None] + deviation[:, None, None] * rng.standard_normal((loops, 2, n // 2))
        mean = points.mean(axis=2)
        squares = np.square(points - mean[:, :, None]).sum(axis=(1, 2))
        deviation = np.sqrt(squares / (n - 2 if unbiased else n))
        alive.append((deviation > 0.6).astype(float))
    bound = survival.mixture_survival_bound(n, 0.6, 60)
    assert np.all(np.stack(alive).mean(axis=1) <= bound + 1e-12)
    assert np.all(survival.gaussian_survival_bound(n, 0.6, 60) <= bound)


def categorical_loop(
    first: Float64[np.ndarray, " k"], n: int, n_generations: int, *, loops: int, real_share: float = 0.0
) -> Float64[np.ndarray, "t m k"]:
    """Frequencies in loops of multinomial draws that mix in the first law, which comes first."""
    rng = np.random.default_rng(5)
    law = np.tile(first, (loops, 1))
    every = [law]
    for _ in range(n_generations):
        law = rng.multinomial(n, real_share * first + (1 - real_share) * law) / n
        every.append(law)
    return np.stack(every)


@pytest.mark.theory
def test_concentration_is_that_of_sampled_loops() -> None:
    """The mean sum of squared frequencies."""
    initial = np.array([0.5, 0.3, 0.15, 0.05])
    laws = categorical_loop(initial, 7, 6, loops=30_000)
    agree(np.square(laws).sum(axis=2), survival.expected_concentration(7, initial, 6))


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 50))
def test_concentration_rises_to_a_point_mass(weights: list[float], n: int) -> None:
    """It never falls and ends at 1."""
    initial = np.array(weights) / math.fsum(weights)
    found = survival.expected_concentration(n, initial, 60 * n)
    assert np.all(np.diff(found) >= -1e-12)
    assert found[-1] == pytest.approx(1.0)


@pytest.mark.theory
def test_loops_end_in_a_symbol_as_often_as_it_was_there() -> None:
    """After many generations every loop is a point mass, on each symbol with its first probability."""
    initial = np.array([0.6, 0.3, 0.1])
    last = categorical_loop(initial, 4, 80, loops=20_000)[-1]
    assert np.mean(last.max(axis=1) == 1) > 0.999
    agree(last.T, survival.absorption_probability(initial))


@pytest.mark.theory
@pytest.mark.parametrize(("model_share", "previous_share"), [(0.5, 0.2), (1.0, 0.0), (0.0, 0.0)])
def test_mixture_recursion_is_its_closed_form(model_share: float, previous_share: float) -> None:
    """For a linear model the data follow a geometric series of matrices."""
    initial = np.array([0.2, 0.3, 0.5])
    blur = np.array([[0.8, 0.1, 0.0], [0.2, 0.8, 0.2], [0.0, 0.1, 0.8]])
    step = model_share * blur + previous_share * np.eye(3)
    found = survival.mixture_recursion(
        initial, lambda p: blur @ p, model_share=model_share, previous_share=previous_share, n_generations=7
    )
    for t, row in enumerate(found):
        powers = [np.linalg.matrix_power(step, i) for i in range(t + 1)]
        rest = (1 - model_share - previous_share) * np.sum(powers[:t], axis=0) if t else np.zeros((3, 3))
        np.testing.assert_allclose(row, (powers[t] + rest) @ initial, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_perfect_model_stays_at_the_truth(model_share: float) -> None:
    """A model that returns what it was fitted to changes nothing, in any mixture."""
    initial = np.array([0.2, 0.3, 0.5])
    found = survival.mixture_recursion(
        initial, lambda p: p, model_share=model_share, previous_share=(1 - model_share) / 2, n_generations=5
    )
    np.testing.assert_allclose(found, np.tile(initial, (6, 1)))


@pytest.mark.theory
def test_discrete_fresh_mean_is_that_of_sampled_loops() -> None:
    """The mean frequencies move to the truth by the real share, for few samples as well."""
    truth, law = np.array([0.7, 0.2, 0.1]), np.tile([0.0, 0.0, 1.0], (30_000, 1))
    rng, every = np.random.default_rng(6), [np.tile([0.0, 0.0, 1.0], (30_000, 1))]
    for _ in range(6):
        law = rng.multinomial(5, 0.3 * truth + 0.7 * law) / 5
        every.append(law)
    expected = survival.discrete_fresh_mean(truth, np.array([0.0, 0.0, 1.0]), 0.3, 6)
    for symbol in range(3):
        agree(np.stack(every)[..., symbol], expected[:, symbol])


@pytest.mark.theory
@pytest.mark.parametrize("window", [1, 3, 10])
def test_window_rate_is_that_of_the_pooled_recursion(window: int) -> None:
    """Pooling the last batches, whose means are known, nears the truth by the rate in the long run."""
    gaps = [1.0] * window
    for _ in range(400):
        gaps.append(0.8 * float(np.mean(gaps[-window:])))
    assert gaps[-1] / gaps[-2] == pytest.approx(survival.window_rate(0.2, window), rel=1e-9)


@pytest.mark.theory
def test_window_rate_is_that_of_sampled_loops() -> None:
    """Multinomial batches of a two-batch window, averaged over many loops."""
    rng = np.random.default_rng(7)
    batches = [np.ones(200_000), np.ones(200_000)]
    gaps = []
    for _ in range(5):
        share = 0.4 * 0.5 + 0.6 * (batches[-1] + batches[-2]) / 2
        batches.append(rng.binomial(10, share) / 10)
        gaps.append(((batches[-1] + batches[-2]) / 2).mean() - 0.5)
    assert gaps[-1] / gaps[-2] == pytest.approx(survival.window_rate(0.4, 2), abs=0.02)


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 30))
def test_longer_windows_forget_more_slowly(real_share: float, window: int) -> None:
    """The rate is between 0 and 1, grows with the window, and is 1 - share for one batch."""
    rate = survival.window_rate(real_share, window)
    assert 0 <= rate <= 1 + 1e-9
    assert rate <= survival.window_rate(real_share, window + 1) + 1e-9
    assert survival.window_rate(real_share, 1) == pytest.approx(1 - real_share)


@pytest.mark.theory
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.49])
def test_retraining_rate_bounds_that_of_a_gaussian_mean(ratio: float) -> None:
    """The likelihood of real and weighted synthetic data moves a mean by r/(1 + r), less than the bound."""
    mean = 0.5
    mean_after = ratio * mean / (1 + ratio)  # maximises -(m - 0)^2 / 2 - ratio (m - mean)^2 / 2
    bound = survival.retraining_rate(ratio, distance=0.0, smoothness=1.0, curvature=1.0)
    assert bound is not None
    assert mean_after / mean <= bound < 1


@pytest.mark.theory
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4])
def test_retraining_rate_bounds_a_misspecified_fit(ratio: float) -> None:
    """Jacobians ratio (A + ratio B)^-1 B, with B near A, have norms and radii within the bound."""
    rng = np.random.default_rng(8)
    for _ in range(200):
        root = rng.standard_normal((3, 3))
        real = root @ root.T + 0.5 * np.eye(3)
        change = rng.standard_normal((3, 3))
        change = 0.1 * (change + change.T) / np.linalg.norm(change + change.T, 2)
        jacobian = ratio * np.linalg.solve(real + ratio * (real + change), real + change)
        curvature = float(np.linalg.eigvalsh(real)[0])
        bound = survival.retraining_rate(ratio, distance=0.1, smoothness=1.0, curvature=curvature)
        if bound is not None:
            assert np.abs(np.linalg.eigvals(jacobian)).max() <= bound + 1e-12


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(0.1, 5))
def test_retraining_rate_exists_where_the_condition_holds(
    ratio: float, distance: float, smoothness: float, curvature: float
) -> None:
    """A rate below 1 where the loop is stable for sure, None elsewhere, never falling with the ratio."""
    options = {"distance": distance, "smoothness": smoothness, "curvature": curvature}
    rate = survival.retraining_rate(ratio, **options)
    assert (rate is not None) == (ratio * (1 + smoothness * distance / curvature) < 0.5)
    if rate is not None:
        assert 0 <= rate < 1
        less = survival.retraining_rate(ratio / 2, **options)
        assert less is not None
        assert less <= rate


half = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: survival.survival_iterates(-1), "n_generations"),
        (lambda: survival.poisson_survival(0.0, 3), "expected_count"),
        (lambda: survival.bernoulli_survival(0, 0.5, 3), "n"),
        (lambda: survival.bernoulli_survival(5, 0.0, 3), "probability"),
        (lambda: survival.gaussian_survival_bound(1, 0.5, 3), "n"),
        (lambda: survival.gaussian_survival_bound(5, 0.0, 3), "threshold"),
        (lambda: survival.mixture_survival_bound(5, math.inf, 3), "threshold"),
        (lambda: survival.expected_concentration(0, half, 3), "n"),
        (lambda: survival.expected_concentration(5, 2 * half, 3), "initial"),
        (lambda: survival.absorption_probability(np.array([1.5, -0.5])), "initial"),
        (lambda: survival.absorption_probability(np.array([np.nan, 1.0])), "initial"),
        (lambda: survival.absorption_probability(np.zeros(0)), "initial"),
        (
            lambda: survival.mixture_recursion(
                half, lambda p: p, model_share=0.7, previous_share=0.4, n_generations=1
            ),
            "previous_share",
        ),
        (
            lambda: survival.mixture_recursion(
                half, lambda p: p, model_share=1.1, previous_share=0.0, n_generations=1
            ),
            "model_share",
        ),
        (lambda: survival.discrete_fresh_mean(half, half / 2, 0.5, 3), "first"),
        (lambda: survival.discrete_fresh_mean(half, half, 1.5, 3), "real_share"),
        (lambda: survival.window_rate(0.5, 0), "window"),
        (lambda: survival.window_rate(-0.5, 1), "real_share"),
        (
            lambda: survival.retraining_rate(-1.0, distance=0.0, smoothness=0.0, curvature=1.0),
            "synthetic_ratio",
        ),
        (lambda: survival.retraining_rate(0.1, distance=0.0, smoothness=0.0, curvature=0.0), "curvature"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    """A value out of range raises one line that starts with the argument's name."""
    assert_refused(call, name)
