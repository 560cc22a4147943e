"""Tests of shares from soft scores: moments, closed forms, coverage, poor detectors, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from scipy import optimize, special, stats

from poolproof.detectors.soft import EMPTY, Moments, SoftMethod, moments, soft_interval
from poolproof.errors import InputError

METHODS: tuple[SoftMethod, ...] = ("fieller", "delta")

samples = st.lists(st.floats(-100, 100), max_size=30).map(lambda values: np.array(values, np.float64))


@pytest.mark.property
@settings(deadline=None, max_examples=80)
@given(samples, samples, samples)
def test_parts_merge_to_the_whole(
    a: Float64[np.ndarray, " a"], b: Float64[np.ndarray, " b"], c: Float64[np.ndarray, " c"]
) -> None:
    """Moments of parts, merged in either order, are those of all scores."""
    whole = moments(np.concatenate([a, b, c]))
    for merged in (
        moments(a).merge(moments(b)).merge(moments(c)),
        moments(a).merge(moments(c).merge(moments(b))),
    ):
        assert merged.n == whole.n
        assert merged.mean == pytest.approx(whole.mean, abs=1e-9)
        assert merged.variance == pytest.approx(whole.variance, abs=1e-7)


def test_moments_survive_a_large_mean() -> None:
    """Merging loses no variance to a mean of a million."""
    rng = np.random.default_rng(0)
    values = 1e6 + rng.normal(size=4000)
    merged = EMPTY
    for part in np.split(values, 40):
        merged = merged.merge(moments(part))
    assert merged.variance == pytest.approx(np.var(values), rel=1e-7)


@pytest.mark.theory
@pytest.mark.parametrize("method", METHODS)
def test_point_inverts_the_mean_of_a_mixture(method: SoftMethod) -> None:
    """A pool mean a quarter of the way from real to synthetic is a share of a quarter."""
    found = soft_interval(
        Moments(900, 0.35, 0.1), Moments(200, 0.8, 0.05), Moments(300, 0.2, 0.05), method=method
    )
    assert found.point == pytest.approx(0.25)
    assert found.lower < 0.25 < found.upper


@pytest.mark.reference
def test_fieller_ends_are_where_the_residual_meets_its_error() -> None:
    """Each end solves D(p)^2 = quantile^2 V(p), found here by scipy from the other side."""
    pool, synthetic, real = Moments(900, 0.35, 0.1), Moments(40, 0.8, 0.05), Moments(60, 0.2, 0.05)
    found = soft_interval(pool, synthetic, real)
    parts = [s.variance / (s.n - 1) for s in (pool, synthetic, real)]
    weights = [1.0, 0.25**2, 0.75**2]
    terms = [w * v for w, v in zip(weights, parts, strict=True)]
    freedom = sum(terms) ** 2 / sum(
        t * t / (s.n - 1) for t, s in zip(terms, (pool, synthetic, real), strict=True)
    )
    quantile = stats.t.ppf(0.975, freedom)

    def excess(p: float) -> float:
        error = math.sqrt(parts[0] + p * p * parts[1] + (1 - p) ** 2 * parts[2])
        return abs(0.35 - 0.2 - 0.6 * p) - float(quantile) * error

    assert found.lower == pytest.approx(optimize.brentq(excess, 0.0, 0.25), abs=1e-9)
    assert found.upper == pytest.approx(optimize.brentq(excess, 0.25, 1.0), abs=1e-9)


@pytest.mark.theory
def test_methods_agree_for_many_references() -> None:
    """With a million references both are the plain Wald interval of a scaled mean."""
    pool, many = Moments(1000, 0.35, 0.1), 10**6
    for method in METHODS:
        found = soft_interval(pool, Moments(many, 0.8, 0.05), Moments(many, 0.2, 0.05), method=method)
        half = stats.t.ppf(0.975, 999) * math.sqrt(0.1 / 999) / 0.6
        assert (found.lower, found.upper) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_detector_that_may_say_nothing_has_no_point(method: SoftMethod) -> None:
    """Means that are not clearly apart, or the wrong way round, leave the share open and say so."""
    pool = Moments(900, 0.5, 0.1)
    for synthetic in (Moments(20, 0.52, 0.1), Moments(20, 0.2, 0.1), Moments(20, 0.5, 0.0)):
        found = soft_interval(pool, synthetic, Moments(20, 0.5, 0.1), method=method)
        assert (found.point, found.lower, found.upper) == (None, 0.0, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_beyond_the_references_is_clipped(method: SoftMethod) -> None:
    """A pool more real than the real references has the share 0, one beyond the synthetic ones 1."""
    synthetic, real = Moments(200, 0.8, 0.01), Moments(200, 0.2, 0.01)
    low, high = (soft_interval(Moments(10**5, m, 0.01), synthetic, real, method=method) for m in (0.1, 0.9))
    assert (low.point, low.lower) == (0.0, 0.0)
    assert (high.point, high.upper) == (1.0, 1.0)


def test_scores_without_spread_give_a_point_interval() -> None:
    """A perfect detector on counted samples leaves only the pool's own error."""
    found = soft_interval(Moments(100, 0.0, 0.0), Moments(50, 1.0, 0.0), Moments(50, 0.0, 0.0))
    assert (found.point, found.lower, found.upper) == (0.0, 0.0, 0.0)


def covered(mu: float, n: int, share: float, runs: int, seed: int) -> float:
    """Return how often the interval holds the share: normal scores through a logistic, pool of 2,000."""
    rng, held = np.random.default_rng(seed), 0
    for _ in range(runs):
        k = int(rng.binomial(2000, share))
        pool = np.concatenate([rng.normal(mu, 1, k), rng.normal(-1, 1.2, 2000 - k)])
        sets = (special.expit(2 * s) for s in (pool, rng.normal(mu, 1, n), rng.normal(-1, 1.2, n)))
        found = soft_interval(*(moments(s) for s in sets))
        held += found.lower <= share <= found.upper
    return held / runs


@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.6, 1.0])
@pytest.mark.parametrize(("mu", "n"), [(1.0, 100), (-0.6, 100), (-0.6, 1000)])
def test_limits_cover(mu: float, n: int, share: float) -> None:
    """For good and for poor detectors the limits hold the share, less the chance of 200 draws."""
    assert covered(mu, n, share, 200, 3) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("mu", [1.0, 0.0, -0.6, -0.8])
@pytest.mark.parametrize("n", [50, 100, 500, 2000])
def test_limits_cover_on_a_grid(mu: float, n: int, share: float) -> None:
    """The same in more draws: 93 % or more, less their chance."""
    assert covered(mu, n, share, 1000, 4) >= 0.93 - 2 * math.sqrt(0.95 * 0.05 / 1000)


def test_bad_input_is_named() -> None:
    """Too few scores, scores that are not finite and bad levels are refused."""
    good = Moments(10, 0.5, 0.1)
    for place, name in enumerate(("pool", "synthetic", "real")):
        given_moments = [good, good, good]
        given_moments[place] = Moments(1, 0.5, 0.0)
        with pytest.raises(InputError, match=rf"^{name}\.n: "):
            soft_interval(*given_moments)
    with pytest.raises(InputError, match="level"):
        soft_interval(good, good, good, level=1.0)
    with pytest.raises(InputError, match="scores"):
        moments(np.array([0.0, math.nan]))
