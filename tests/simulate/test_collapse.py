"""The collapse of the variance against SciPy, quadrature, limits and sampled loops."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from sampled_loops import agree, mixed_loop
from scipy import integrate, special, stats

from poolproof.simulate import collapse


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    outcome = doctest.testmod(collapse)
    assert outcome.attempted >= 4
    assert not outcome.failed


@pytest.mark.theory
@pytest.mark.parametrize(("n", "dim", "bias"), [(6, 1, 1.0), (9, 2, 0.8), (12, 3, 1.0)])
def test_log_determinants_are_those_of_sampled_loops(n: int, dim: int, bias: float) -> None:
    """The mean log determinant and the mean determinant of loops on points."""
    logs = np.linalg.slogdet(mixed_loop(0, n, bias, 4, dim=dim, loops=30_000)[1])[1]
    agree(logs, collapse.fully_synthetic_log_determinant(n, bias, 4, dim=dim))
    agree(np.exp(logs), np.exp(collapse.fully_synthetic_determinant(n, bias, 4, dim=dim)))


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 500), st.floats(0.01, 1.0))
def test_mean_determinant_lies_above_the_log_determinant(dim: int, surplus: int, bias: float) -> None:
    """By Jensen's inequality; both fall with the generation."""
    n = dim + surplus
    mean = collapse.fully_synthetic_determinant(n, bias, 5, dim=dim)
    log = collapse.fully_synthetic_log_determinant(n, bias, 5, dim=dim)
    assert np.all(mean[1:] > log[1:])
    assert np.all(np.diff(log) < 0)
    assert np.all(np.diff(mean) <= 1e-12)


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 5, 50, 2000])
def test_collapse_bias_stops_the_drift(n: int) -> None:
    """At that bias the log variance stays where it is; it is about 1 + 1/(n - 1)."""
    bias = collapse.collapse_bias(n)
    drift = collapse.fully_synthetic_log_determinant(n, 1.0, 3) + np.arange(4) * math.log(bias)
    np.testing.assert_allclose(drift, 0, atol=1e-12)
    assert bias > 1
    if n >= 50:
        assert bias - 1 == pytest.approx(1 / (n - 1), rel=0.05)


@pytest.mark.theory
@pytest.mark.parametrize(("factor", "falls"), [(0.97, True), (1.03, False)])
def test_sampled_loops_collapse_below_that_bias_only(factor: float, falls: bool) -> None:
    """Long loops of three points per generation lose their variance just below it and gain just above."""
    rng = np.random.default_rng(1)
    log = np.zeros(20_000)
    for _ in range(200):
        points = rng.standard_normal((log.size, 3))
        log += np.log(points.var(axis=1, ddof=1)) + math.log(factor * collapse.collapse_bias(3))
    assert (np.median(log) < -3) == falls
    assert (np.median(log) > 3) != falls


@pytest.mark.reference
@pytest.mark.parametrize("n", [2, 3, 10, 100, 101, 5000, 10**6])
@pytest.mark.parametrize("bias", [1.0, 0.4])
def test_law_of_one_generation_is_chi_square(n: int, bias: float) -> None:
    """SciPy's distribution function, from one tail to the other."""
    probability = np.array([1e-10, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-10])
    x = bias * stats.chi2.ppf(probability, n - 1) / (n - 1)
    found = collapse.variance_law_1d(n, bias, 1).cdf(x)
    assert np.abs(found - stats.chi2.cdf((n - 1) * x / bias, n - 1)).max() < 1e-9


@pytest.mark.reference
def test_law_of_two_generations_of_three_is_a_bessel_function() -> None:
    """The product of two exponential variables has P(product <= x) = 1 - 2 sqrt(x) K_1(2 sqrt(x))."""
    x = np.logspace(-9, 2, 60)
    root = 2 * np.sqrt(x)
    found = collapse.variance_law_1d(3, 1.0, 2).cdf(x)
    np.testing.assert_allclose(found, 1 - root * special.k1(root), atol=1e-9)


@pytest.mark.reference
@pytest.mark.parametrize("n", [2, 6, 40, 300])
@pytest.mark.parametrize("generation", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_law_is_the_quadrature_over_the_last_factor(n: int, generation: int) -> None:
    """P(V_t <= x) is the mean of P(V_(t-1) <= x/c) over the last chi-square factor c."""
    scale, bias = 1 / (n - 1), 0.8
    last = collapse.variance_law_1d(n, bias, generation - 1)
    law = collapse.variance_law_1d(n, bias, generation)
    ends = [math.log(stats.chi2.ppf(p, n - 1, scale=scale)) for p in (1e-15, 1 - 1e-15)]

    def integrand(u: float, x: float) -> float:
        density = stats.chi2.pdf(math.exp(u), n - 1, scale=scale) * math.exp(u)
        return float(density * last.cdf(np.array([x / (bias * math.exp(u))]))[0])

    for x in np.exp(law.mean_log + math.sqrt(law.var_log) * np.array([-2.0, 0.0, 1.5])):
        expected = integrate.quad(integrand, ends[0], ends[1], args=(x,), epsabs=1e-10, limit=200)[0]
        assert float(law.cdf(np.array([x]))[0]) == pytest.approx(expected, abs=1e-8)


@pytest.mark.theory
@pytest.mark.parametrize(("n", "bias", "generation"), [(4, 1.0, 5), (20, 0.9, 12), (2, 1.0, 3)])
def test_law_is_that_of_sampled_loops(n: int, bias: float, generation: int) -> None:
    """Kolmogorov and Smirnov find no difference to loops on points, and the log moments agree."""
    variance = mixed_loop(0, n, bias, generation, dim=1, loops=20_000, seed=2)[1][-1, :, 0, 0]
    law = collapse.variance_law_1d(n, bias, generation)
    assert stats.kstest(variance, law.cdf).pvalue > 1e-3
    agree(np.log(variance)[None], np.array([law.mean_log]))
    agree((np.log(variance)[None] - law.mean_log) ** 2, np.array([law.var_log]))


@pytest.mark.theory
@pytest.mark.parametrize(("n", "generation"), [(2, 400), (1000, 1000), (10**6, 200)])
def test_law_of_many_generations_is_log_normal(n: int, generation: int) -> None:
    """The log is a sum of many terms, so the law nears the log-normal one with its moments."""
    law = collapse.variance_law_1d(n, 0.95, generation)
    z = np.linspace(-4, 4, 41)
    with np.errstate(under="ignore"):
        x = np.exp(law.mean_log + math.sqrt(law.var_log) * z)
    assert np.abs(law.cdf(x) - stats.norm.cdf(z)).max() < 0.02


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.integers(2, 3000), st.integers(1, 60), st.floats(0.01, 1.0))
def test_law_is_a_distribution_function(n: int, generation: int, bias: float) -> None:
    """It grows from 0 to 1, and bias only scales the ratio."""
    law = collapse.variance_law_1d(n, bias, generation)
    x = np.concatenate([[0.0], np.logspace(-30, 6, 200), [np.inf]])
    values = law.cdf(x)
    assert np.all(np.diff(values) >= -1e-10)
    assert (values[0], values[-1]) == (0.0, 1.0)
    plain = collapse.variance_law_1d(n, 1.0, generation).cdf(x / bias**generation)
    np.testing.assert_allclose(values, plain, atol=1e-9)


def test_law_keeps_the_shape_of_its_argument() -> None:
    """Ratios of any shape give probabilities of that shape."""
    law = collapse.variance_law_1d(5, 1.0, 2)
    grid = np.linspace(0.1, 2, 6)
    np.testing.assert_array_equal(law.cdf(grid.reshape(2, 3)), law.cdf(grid).reshape(2, 3))
    assert law.cdf(np.array(0.5)).shape == ()
    assert law.cdf(np.zeros(0)).size == 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: collapse.fully_synthetic_log_determinant(3, 1.0, 2, dim=3), "n"),
        (lambda: collapse.fully_synthetic_log_determinant(5, 0.0, 2), "sampling_bias"),
        (lambda: collapse.fully_synthetic_determinant(5, 1.0, 2, dim=0), "dim"),
        (lambda: collapse.fully_synthetic_determinant(5, 1.0, -2, dim=1), "n_generations"),
        (lambda: collapse.collapse_bias(1), "n"),
        (lambda: collapse.variance_law_1d(1, 1.0, 1), "n"),
        (lambda: collapse.variance_law_1d(5, 0.0, 1), "sampling_bias"),
        (lambda: collapse.variance_law_1d(5, 1.0, 0), "generation"),
        (lambda: collapse.variance_law_1d(5, 1.0, 1).cdf(np.array([-0.1])), "x"),
        (lambda: collapse.variance_law_1d(5, 1.0, 1).cdf(np.array([np.nan])), "x"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    """A value out of range raises one line that starts with the argument's name."""
    assert_refused(call, name)
