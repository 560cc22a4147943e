"""Tests of curves, operating points and thresholds: exact steps, and limits that hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_curve

from poolproof.detectors.prevalence import clopper_pearson
from poolproof.detectors.roc import area_under_curve, roc_band, roc_curve, threshold_for_fpr, tpr_at_fpr
from poolproof.errors import InputError


@pytest.mark.reference
@pytest.mark.parametrize("ties", [False, True])
def test_curve_is_the_one_of_scikit_learn(ties: bool) -> None:
    """Every step agrees with scikit-learn's curve, with and without ties."""
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=60), rng.normal(size=40) + 1
    if ties:
        real, synthetic = real.round(), synthetic.round()
    found = roc_curve(real, synthetic)
    label, scores = np.repeat([0, 1], [60, 40]), np.concatenate([real, synthetic])
    fpr, tpr, _ = sklearn_curve(label, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.fpr, fpr)
    np.testing.assert_allclose(found.tpr, tpr)
    for threshold, x, y in zip(found.thresholds, found.false_positives, found.true_positives, strict=True):
        assert (x, y) == ((real > threshold).sum(), (synthetic > threshold).sum())


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    real=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    synthetic=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
)
def test_area_under_the_steps_is_the_area(real: list[int], synthetic: list[int]) -> None:
    """The trapezoids under the curve add up to the probability of a right order, ties one half."""
    low, high = np.array(real, float), np.array(synthetic, float)
    curve = roc_curve(low, high)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(area_under_curve(low, high).point)
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.fpr) >= 0).all()
    assert (np.diff(curve.tpr) >= 0).all()


@pytest.mark.reference
def test_area_is_the_one_of_scikit_learn() -> None:
    """The area agrees with roc_auc_score, ties included."""
    rng = np.random.default_rng(10)
    real, synthetic = rng.integers(0, 9, 70).astype(float), rng.integers(3, 12, 50).astype(float)
    expected = roc_auc_score(np.repeat([0, 1], [70, 50]), np.concatenate([real, synthetic]))
    found = area_under_curve(real, synthetic)
    assert found.point == pytest.approx(expected)
    assert 0 <= found.lower < expected < found.upper <= 1


def test_a_perfect_area_still_has_a_lower_limit() -> None:
    """Scores that do not overlap give an area of 1 with a limit below it, and the mirror image when swapped."""
    low, high = np.arange(10.0), np.arange(10.0) + 20
    found, swapped = area_under_curve(low, high), area_under_curve(high, low)
    assert (found.point, found.upper) == (1.0, 1.0)
    assert 0.6 < found.lower < 0.95
    assert (swapped.point, swapped.lower) == (0.0, 0.0)
    assert swapped.upper == pytest.approx(1 - found.lower)
    with pytest.raises(InputError, match="scores"):
        area_under_curve(low, high[:0])


@pytest.mark.coverage
@pytest.mark.parametrize(("gap", "m", "n"), [(0.5, 20, 20), (1.5, 50, 50), (2.5, 100, 30)])
def test_limits_of_the_area_cover(gap: float, m: int, n: int) -> None:
    """For normal scores the true area lies within the limits as often as they say, less chance."""
    rng, truth, held = np.random.default_rng(11), norm.cdf(gap / math.sqrt(2)), 0
    for _ in range(200):
        found = area_under_curve(rng.normal(size=m), rng.normal(size=n) + gap)
        held += found.lower <= truth <= found.upper
    assert held / 200 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


def test_operating_point_counts_what_is_above_its_threshold() -> None:
    """The threshold flags no more than the stated share of real references, and none lower would do."""
    rng = np.random.default_rng(2)
    real, synthetic = rng.normal(size=250), rng.normal(size=150) + 2
    found = tpr_at_fpr(real, synthetic, 0.05)
    assert found.threshold is not None
    assert (real > found.threshold).sum() == 12
    assert (real >= found.threshold).sum() == 13
    assert found.tpr.point == (synthetic > found.threshold).mean()
    assert found.tpr.lower < (found.tpr.point or 0.0) < found.tpr.upper
    band = roc_band(real, synthetic, np.array([0.05]))
    assert (band.lower[0], band.upper[0]) == (found.tpr.lower, found.tpr.upper)


def test_a_rate_the_references_cannot_show_is_withheld() -> None:
    """Fifty references show no rate of 1 %: no point, a lower limit of 0, and the number that would do."""
    rng = np.random.default_rng(3)
    found = tpr_at_fpr(rng.normal(size=50), rng.normal(size=50) + 9, 0.01)
    assert found.tpr.point is None
    assert found.threshold is None
    assert found.tpr.lower == 0
    assert found.why is not None
    assert "100 or more" in found.why


def test_perfect_and_useless_detectors() -> None:
    """A perfect detector's rate is near 1 with a limit below; the useless one's holds the chance rate."""
    real = np.linspace(0, 1, 1000)
    perfect, useless = tpr_at_fpr(real, real[:200] + 5), tpr_at_fpr(real, real[::5])
    assert (perfect.tpr.point, perfect.tpr.upper) == (1.0, 1.0)
    assert perfect.tpr.lower == pytest.approx(clopper_pearson(200, 200, level=0.975).lower, abs=0.01)
    assert useless.tpr.lower < 0.01 < useless.tpr.upper
    constant = tpr_at_fpr(np.zeros(1000), np.zeros(50))
    assert (constant.tpr.point, constant.tpr.lower) == (0.0, 0.0)


@pytest.mark.coverage
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("n", "m", "fpr"), [(60, 40, 0.2), (300, 100, 0.05), (600, 50, 0.01)])
def test_limits_of_the_rate_cover(n: int, m: int, fpr: float, discrete: bool) -> None:
    """The true rate at the true threshold lies within the limits as often as they say, less chance."""
    rng, held, level, repetitions = np.random.default_rng(4), 0, 0.9, 400
    step = 0.25
    if discrete:  # scores are rounded down to a grid
        grid = np.arange(-40, 40) * step
        threshold = grid[np.argmax(norm.sf(grid + step) <= fpr)]
        truth = norm.sf(threshold + step - 1.5)
    else:
        truth = norm.sf(norm.isf(fpr) - 1.5)
    for _ in range(repetitions):
        real, synthetic = rng.normal(size=n), rng.normal(size=m) + 1.5
        if discrete:
            real, synthetic = np.floor(real / step) * step, np.floor(synthetic / step) * step
        found = tpr_at_fpr(real, synthetic, fpr, level=level).tpr
        held += found.lower <= truth <= found.upper
    assert held / repetitions >= level - 3 * math.sqrt(level * (1 - level) / repetitions)


@pytest.mark.theory
def test_band_ranks_are_the_smallest_that_hold() -> None:
    """The order statistics are the innermost ones whose binomial errors stay within a quarter each."""
    rng, n, part = np.random.default_rng(5), 200, 0.05 / 4
    real = np.sort(rng.normal(size=n))
    for fpr in (0.01, 0.1, 0.5, 0.97):
        # one synthetic item at each real score and above it: the counts give the ranks away
        synthetic = np.repeat(real, 1)
        found = roc_band(real, synthetic, np.array([fpr]))
        low = max(i for i in range(n + 1) if i == 0 or binom.cdf(i - 1, n, 1 - fpr) <= part)
        high = min(i for i in range(1, n + 2) if i == n + 1 or binom.sf(i - 1, n, 1 - fpr) <= part)
        above_high, above_low = max(n - high, 0), n - low
        expected = 0.0 if above_high == 0 else beta.ppf(part, above_high, n - above_high + 1)
        assert found.lower[0] == pytest.approx(expected)
        expected = 1.0 if above_low == n else beta.ppf(1 - part, above_low + 1, n - above_low)
        assert found.upper[0] == pytest.approx(expected)


def test_band_rises_with_the_rate() -> None:
    """Limits are monotone in the false positive rate and enclose the empirical curve in its middle."""
    rng = np.random.default_rng(6)
    real, synthetic = rng.normal(size=400), rng.normal(size=300) + 1
    rates = np.linspace(0.02, 0.98, 49)
    band = roc_band(real, synthetic, rates)
    assert (np.diff(band.lower) >= 0).all()
    assert (np.diff(band.upper) >= 0).all()
    curve = roc_curve(real, synthetic)
    empirical = np.interp(rates, curve.fpr, curve.tpr)
    assert ((band.lower <= empirical) & (empirical <= band.upper)).all()
    assert len(roc_band(real, synthetic, rates[:0]).lower) == 0


@pytest.mark.reference
@pytest.mark.parametrize(("fpr", "level", "needed"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.1, 0.9, 22)])
def test_needed_references_are_those_of_wilks(fpr: float, level: float, needed: int) -> None:
    """The first sizes with a threshold are the tabled ones of one-sided tolerance limits; one less has none."""
    scores = np.arange(needed, dtype=float)
    found, short = (
        threshold_for_fpr(scores, fpr, level=level),
        threshold_for_fpr(scores[1:], fpr, level=level),
    )
    assert (found.threshold, found.needed, found.why) == (needed - 1, needed, None)
    assert (short.threshold, short.needed) == (None, needed)
    assert short.why is not None
    assert f"{needed} or more" in short.why


@pytest.mark.theory
@pytest.mark.parametrize(("n", "fpr", "level"), [(93, 0.05, 0.95), (1000, 0.01, 0.9), (500, 0.2, 0.99)])
def test_threshold_is_the_lowest_that_beta_allows(n: int, fpr: float, level: float) -> None:
    """The share above the j-th of n is Beta(n - j + 1, j): j holds the level, j - 1 does not."""
    j = int(threshold_for_fpr(np.arange(1.0, n + 1), fpr, level=level).threshold or 0)
    assert beta.cdf(fpr, n - j + 1, j) >= level
    assert beta.cdf(fpr, n - j + 2, j - 1) < level


@pytest.mark.coverage
@pytest.mark.parametrize("digits", [1, 9])
def test_threshold_keeps_its_promise(digits: int) -> None:
    """The true false positive rate exceeds the bound as rarely as promised, ties or not."""
    rng, broken, repetitions = np.random.default_rng(7), 0, 800
    for _ in range(repetitions):
        threshold = threshold_for_fpr(rng.normal(size=120).round(digits), 0.05, level=0.9).threshold
        assert threshold is not None
        half = 0.05 if digits == 1 else 0
        broken += norm.sf(threshold + half) > 0.05
    assert broken / repetitions <= 0.1 + 3 * math.sqrt(0.09 / repetitions)


def test_bad_scores_are_named() -> None:
    """Empty classes, NaN, and rates out of range are refused."""
    some, nan = np.zeros(5), np.array([0.0, np.nan])
    with pytest.raises(InputError, match="got 0 real and 5 synthetic"):
        roc_curve(some[:0], some)
    for call in (roc_curve, area_under_curve, tpr_at_fpr):
        with pytest.raises(InputError, match=r"^synthetic_scores: got NaN"):
            call(some, nan)
    with pytest.raises(InputError, match=r"^fpr: "):
        tpr_at_fpr(some, some, 0.0)
    with pytest.raises(InputError, match=r"^fpr: "):
        threshold_for_fpr(some, 1.0)
    with pytest.raises(InputError, match=r"^real_scores: got no scores"):
        threshold_for_fpr(some[:0], 0.1)
    with pytest.raises(InputError, match=r"^level: "):
        tpr_at_fpr(some, some, level=1.0)
