"""Effective sizes from measured curves: right for known curves, covered by their intervals, honest beyond the ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from sklearn.isotonic import isotonic_regression

from poolproof.simulate import limit
from poolproof.simulate.effective_size import EffectiveSize, RealOnlyCurve, real_only_curve
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.limit import fresh_mixing, loop_limit
from poolproof.simulate.measures import squared_w2_of_points
from poolproof.simulate.theory import mean_effective_size, surrogate_limit, surrogate_real_only

SIZES = (50, 100, 200, 400, 800)


def power(n: float) -> float:
    """A curve that falls as a power of n."""
    return 5 * n**-0.9


def measured(
    curve: Callable[[float], float], *, spread: float, seeds: int, rng: np.random.Generator
) -> RealOnlyCurve:
    """A curve as it would be measured, with a relative spread over seeds."""
    rows = [(n, (curve(n) * (1 + spread * rng.standard_normal(seeds))).tolist()) for n in SIZES]
    return real_only_curve(rows)


def exact(curve: Callable[[float], float]) -> RealOnlyCurve:
    """A curve measured twice without noise."""
    return real_only_curve([(n, [curve(n)] * 2) for n in SIZES])


def invert(curve: RealOnlyCurve, distance: float, stderr: float = 0.0, seed: int = 0) -> EffectiveSize:
    """The inversion with a fresh random state."""
    return curve.invert(distance, stderr, rng=np.random.default_rng(seed))


@pytest.mark.theory
@pytest.mark.parametrize("n", [51.0, 140.0, 200.0, 799.0])
def test_powers_of_n_are_inverted_exactly(n: float) -> None:
    """Between sizes a power law is exact, and the error is that of the distance over the slope."""
    found = invert(exact(power), power(n))
    assert found.point == pytest.approx(n)
    assert found.lower == pytest.approx(n)
    assert found.upper == pytest.approx(n)
    assert found.stderr == pytest.approx(0, abs=1e-6)
    assert found.why is None
    assert exact(power).at(n) == pytest.approx(power(n))


@pytest.mark.theory
def test_errors_are_carried_through_the_slope() -> None:
    """A relative error of the distance gives n_e that error over 0.9, and an interval of twice 1.96 of these."""
    found = invert(exact(power), power(200), 0.02 * power(200))
    assert found.stderr == pytest.approx(200 * 0.02 / 0.9, rel=0.05)
    assert found.lower is not None
    assert found.upper is not None
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * 200 * 0.02 / 0.9, rel=0.06)


def test_beyond_the_ends_there_is_a_bound() -> None:
    """Better than the largest size is 'more than', worse than the smallest 'less than', and no number."""
    curve = measured(power, spread=0.03, seeds=5, rng=np.random.default_rng(0))
    far = invert(curve, power(2000))
    assert (far.point, far.lower, far.upper, far.stderr) == (None, 800, None, None)
    assert "more than 800" in str(far.why)
    assert "ends" in str(far.why)
    near = invert(curve, power(20))
    assert (near.point, near.lower, near.upper) == (None, None, 50)
    assert "less than 50" in str(near.why)
    vague = invert(curve, 0.8 * power(800), power(800))
    assert vague.point is None
    assert vague.lower is not None
    assert 50 < vague.lower < 800
    assert invert(curve, -1.0).lower == 800
    assert invert(curve, power(800) * 0.9, 100.0).why is not None


def test_an_interval_may_pass_one_end() -> None:
    """A point near the end keeps its number, and the limit beyond the end is told as not known."""
    curve = exact(power)
    found = invert(curve, power(780), 0.05 * power(780))
    assert found.point == pytest.approx(780)
    assert found.upper is None
    assert found.stderr is None
    assert found.lower is not None
    assert found.lower < 780
    assert "upper limit lies beyond 800" in str(found.why)


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("curve", "seeds", "spread", "truth"),
    [
        (power, 4, 0.1, 60),
        (power, 4, 0.1, 150),
        (power, 3, 0.05, 700),
        (power, 2, 0.1, 300),
        (lambda n: 1 + 20 / n, 5, 0.05, 150),
    ],
)
@pytest.mark.slow
def test_intervals_hold_the_truth(
    curve: Callable[[float], float], seeds: int, spread: float, truth: float
) -> None:
    """Of 250 measured curves and loops, about 95 % of the intervals hold the size; open ends count as reaching it."""
    rng = np.random.default_rng(11)
    # between sizes the truth is what a curve without noise gives: the interpolation is not what is tested
    distance = exact(curve).at(truth)
    held = 0
    for _ in range(250):
        found = measured(curve, spread=spread, seeds=seeds, rng=rng).invert(
            distance * (1 + spread / math.sqrt(6) * rng.standard_normal()),
            distance * spread / math.sqrt(6),
            n_draws=400,
            rng=rng,
        )
        lower = 0 if found.lower is None else found.lower
        upper = math.inf if found.upper is None else found.upper
        held += lower <= truth <= upper
    # 4 standard deviations of a share of 250 at 95 %
    assert held / 250 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 250)


@pytest.mark.coverage
@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_hold_where_the_error_of_the_loop_is_estimated(seeds: int) -> None:
    """With a Student law for the loop's distance, few seeds do not make intervals too short."""
    rng, truth, held = np.random.default_rng(12), 150.0, 0
    distance = exact(power).at(truth)
    for _ in range(250):
        runs = distance * (1 + 0.2 * rng.standard_normal(seeds))
        found = measured(power, spread=0.05, seeds=3, rng=rng).invert(
            float(runs.mean()),
            float(runs.std(ddof=1) / math.sqrt(seeds)),
            dof=seeds - 1,
            n_draws=400,
            rng=rng,
        )
        lower = 0 if found.lower is None else found.lower
        upper = math.inf if found.upper is None else found.upper
        held += lower <= truth <= upper
    assert held >= 250 * 0.95 - 4 * math.sqrt(250 * 0.95 * 0.05)


@pytest.mark.theory
@pytest.mark.parametrize(("n_real", "n_synthetic", "bias"), [(60, 60, 1.0), (60, 200, 1.0), (60, 60, 0.7)])
def test_fresh_loops_of_normal_laws(n_real: int, n_synthetic: int, bias: float) -> None:
    """The limit of a Gaussian loop is worth as many samples on a curve of fitted points as on the exact curve."""
    law, rng = Gaussian.standard(10), np.random.default_rng(5)
    curve = real_only_curve(
        (n, [squared_w2_of_points(rng.standard_normal((n, 10)), law) for _ in range(60)])
        for n in (20, 40, 80, 160, 320)
    )
    ending = loop_limit(fresh_mixing(n_real, n_synthetic), bias, dim=10, tolerance=0.005, rng=rng)
    found = curve.invert(ending.value, ending.stderr, rng=rng)
    expected, _ = limit.RealOnlyCurve(dim=10, seed=1).invert(ending.value, ending.stderr)
    assert found.point is not None
    assert found.stderr is not None
    assert abs(found.point - expected) < 3 * found.stderr
    assert found.stderr < 0.1 * expected
    if bias == 1:
        # counting the covariance, real samples gain more than their mean alone does, and synthetic ones never harm
        assert found.point / n_real > 1
        assert found.point == pytest.approx(mean_effective_size(n_real, n_synthetic), rel=0.25)


@pytest.mark.theory
def test_surrogates_agree() -> None:
    """On the curve of the expansion, the expansion of a fresh loop's limit has the size at which the two meet."""
    curve = real_only_curve((n, [surrogate_real_only(n, dim=10)] * 2) for n in (500, 1000, 4000, 16000))
    ending = surrogate_limit(1000, 1000, 1.0, dim=10)
    found = invert(curve, ending)
    assert found.point == pytest.approx(surrogate_real_only(1000, dim=10) * 1000 / ending)


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(20))
def test_falling_means_are_those_of_scikit_learn(seed: int) -> None:
    """Means that rise are pooled as scikit-learn's isotonic regression does, with the same weights."""
    rng = np.random.default_rng(seed)
    rows = [(n, rng.normal(0 if seed % 2 else 20, 2, rng.integers(2, 6)).tolist()) for n in range(10, 90, 10)]
    curve = real_only_curve(rows)
    heights = np.log(curve.means) if curve.is_logarithmic else curve.means
    errors = curve.stderrs / curve.means if curve.is_logarithmic else curve.stderrs
    expected = isotonic_regression(heights, sample_weight=errors**-2.0, increasing=False)
    found = np.array([curve.at(n) for n in curve.sizes])
    np.testing.assert_allclose(found, np.exp(expected) if curve.is_logarithmic else expected)


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_larger_distances_are_worth_less(seed: int, spread: float) -> None:
    """With the same draws, n_e never rises with the distance, and the curve at n_e has the distance."""
    curve = measured(power, spread=spread, seeds=3, rng=np.random.default_rng(seed))
    before = math.inf
    for n in (1000, 700, 200, 90, 55, 20):
        found = invert(curve, power(n), 0.05 * power(n), seed)
        reached = found.point or (0.0 if "above" in str(found.why) else math.inf)
        assert reached <= before
        before = reached
        if found.point is not None:
            assert curve.at(min(max(found.point, 50), 800)) == pytest.approx(power(n), rel=1e-6)
            assert found.lower is None or found.lower <= found.point * 1.5
        assert (found.why is None) == (found.lower is not None and found.upper is not None)


def test_distances_below_zero_are_interpolated_as_they_are() -> None:
    """A kernel distance that passes 0 is read straight in log n."""
    curve = real_only_curve([(10, [3.0, 3.0]), (100, [1.0, 1.0]), (1000, [-1.0, -1.0])])
    assert not curve.is_logarithmic
    found = invert(curve, 0.0)
    assert found.point == pytest.approx(10**2.5)
    assert curve.at(10) == pytest.approx(3)
    assert invert(curve, -2.0).lower == 1000


def test_same_random_state_gives_the_same_result() -> None:
    """Two inversions from equal states agree; the order and splitting of rows does not matter."""
    rows = [(50, [2.0, 2.2]), (100, [1.1, 1.0, 1.2]), (200, [0.6, 0.5])]
    other = [(200, [0.6]), (100, [1.1, 1.0]), (200, [0.5]), (50, [2.0, 2.2]), (100, [1.2])]
    one, again = invert(real_only_curve(rows), 0.8, 0.05), invert(real_only_curve(other), 0.8, 0.05)
    assert one == again
    assert one != invert(real_only_curve(rows), 0.8, 0.05, seed=1)


def test_a_wider_level_has_a_wider_interval() -> None:
    """At 99 % the interval holds that of 80 %."""
    curve = measured(power, spread=0.05, seeds=4, rng=np.random.default_rng(0))
    wide, narrow = (
        curve.invert(power(200), 0.0, level=level, rng=np.random.default_rng(0)) for level in (0.99, 0.8)
    )
    assert wide.lower is not None
    assert narrow.lower is not None
    assert wide.upper is not None
    assert narrow.upper is not None
    assert wide.lower < narrow.lower < narrow.upper < wide.upper
    assert (wide.point, wide.level) == (narrow.point, 0.99)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: real_only_curve([(50, [1.0, 2.0])]), "rows"),
        (lambda: real_only_curve([(50, [1.0]), (100, [0.5])]), "rows"),
        (lambda: real_only_curve([(50, [1.0, math.nan]), (100, [0.5])]), "rows"),
        (lambda: real_only_curve([(50, [1.0, 1.0]), (100, [])]), "rows"),
        (lambda: real_only_curve([(1, [1.0, 1.0]), (100, [1.0])]), "n"),
        (lambda: exact(power).at(40), "n"),
        (lambda: invert(exact(power), math.nan), "distance"),
        (lambda: invert(exact(power), 1.0, -0.1), "stderr"),
        (lambda: invert(exact(power), 1.0, math.nan), "stderr"),
        (lambda: exact(power).invert(1.0, 0.1, level=1.0, rng=np.random.default_rng(0)), "level"),
        (lambda: exact(power).invert(1.0, 0.1, n_draws=9, rng=np.random.default_rng(0)), "n_draws"),
    ],
)
def test_what_makes_no_curve_is_refused(call: Callable[[], object], name: str) -> None:
    """One size, one seed throughout, values that are not finite and arguments out of range are refused."""
    assert_refused(call, name)
