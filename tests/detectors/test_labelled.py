"""Tests of shares from labels: exact limits, parts, soft predictions, unsure labels, plans, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from poolproof.detectors.labelled import (
    LabelledMethod,
    labelled_interval,
    labelled_share,
    plan_labels,
)
from poolproof.detectors.prevalence import Interval, clopper_pearson
from poolproof.detectors.soft import Moments, moments
from poolproof.detectors.strata import Stratum, stratified_interval
from poolproof.errors import InputError


@pytest.mark.reference
@pytest.mark.parametrize(
    ("size", "n", "k"),
    [(60, 20, 3), (200, 50, 0), (200, 50, 50), (1000, 100, 7), (50, 50, 4), (7, 1, 1), (9, 8, 3)],
)
def test_one_part_has_the_exact_limits(size: int, n: int, k: int) -> None:
    """The limits are the least and the largest count that scipy's hypergeometric tests do not reject."""
    counts = np.arange(size + 1)
    lower = counts[stats.hypergeom.sf(k - 1, size, counts, n) > 0.025].min()
    upper = counts[stats.hypergeom.cdf(k, size, counts, n) > 0.025].max()
    found = stratified_interval([Stratum(size, n, k)])
    assert (round(found.lower * size, 6), round(found.upper * size, 6)) == (lower, upper)
    assert found.point == k / n


@pytest.mark.reference
@pytest.mark.parametrize("k", [0, 3, 250, 500])
def test_a_large_pool_has_clopper_pearson_limits(k: int) -> None:
    """Where a draw is a small part of the pool the limits are those of a proportion."""
    found, exact = stratified_interval([Stratum(10**7, 500, k)]), clopper_pearson(k, 500)
    assert (found.lower, found.upper) == pytest.approx((exact.lower, exact.upper), abs=3e-5)


def test_a_pool_labelled_through_is_known() -> None:
    """When every item has a label nothing is left open."""
    found = stratified_interval([Stratum(30, 30, 12), Stratum(70, 70, 1)])
    assert (found.lower, found.point, found.upper) == (0.13, pytest.approx(0.13), 0.13)


@pytest.mark.reference
def test_parts_are_quantiles_of_sums_of_draws() -> None:
    """With two parts the limits are quantiles of summed random draws of the two laws."""
    parts, rng, size = [Stratum(3000, 100, 90), Stratum(27_000, 300, 4)], np.random.default_rng(0), 400_000

    def draws(more: int) -> np.ndarray:
        total = np.zeros(size)
        for p in parts:
            k, n = p.synthetic + more, p.labelled + 1
            total += p.synthetic + rng.binomial(p.size - p.labelled, rng.beta(k, n - k, size))
        return total / 30_000

    found = stratified_interval(parts)
    assert found.lower == pytest.approx(np.quantile(draws(0), 0.025), abs=1e-4)
    assert found.upper == pytest.approx(np.quantile(draws(1), 0.975), abs=2e-4)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.integers(1, 300).flatmap(
            lambda n: st.tuples(st.integers(n, 3000), st.just(n), st.integers(0, n)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_limits_are_ordered_and_hold_the_point(parts: list[tuple[int, int, int]]) -> None:
    """For any counts 0 <= lower <= point <= upper <= 1, and a higher level is wider."""
    strata = [Stratum(*part) for part in parts]
    narrow, wide = stratified_interval(strata, level=0.8), stratified_interval(strata, level=0.99)
    assert narrow.point is not None
    assert 0 <= wide.lower <= narrow.lower <= narrow.point + 1e-9
    assert narrow.point - 1e-9 <= narrow.upper <= wide.upper <= 1


def test_a_part_without_labels_is_left_open() -> None:
    """A tenth of the pool without labels widens the limits by a tenth and leaves no point."""
    seen = stratified_interval([Stratum(900, 100, 10)])
    found = stratified_interval([Stratum(900, 100, 10), Stratum(100, 0, 0)])
    assert found.point is None
    assert found.lower == pytest.approx(0.9 * seen.lower)
    assert found.upper == pytest.approx(0.9 * seen.upper + 0.1)


Pool = tuple[np.ndarray, np.ndarray]


def pool(share: float, rng: np.random.Generator, size: int = 5000) -> Pool:
    """Return which items are synthetic, and their scores: N(1, 1) or N(-1, 1.2) through a logistic."""
    y = np.arange(size) < round(share * size)
    return y, special.expit(2 * np.where(y, rng.normal(1, 1, size), rng.normal(-1, 1.2, size)))


def coverage(
    share: float, n: int, runs: int, estimate: Callable[[np.ndarray, np.ndarray], Interval]
) -> float:
    """Return how often an estimate from n labelled items of a fixed pool holds its share."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(runs):
        found = estimate(np.arange(5000), rng.choice(5000, n, replace=False))
        held += found.lower - 1e-12 <= share <= found.upper + 1e-12
    return held / runs


def by_method(y: np.ndarray, f: np.ndarray, method: LabelledMethod = "auto") -> Callable[..., Interval]:
    """Return an estimate of a simulated pool."""
    whole = moments(f)
    return lambda _, i: labelled_interval([bool(v) for v in y[i]], f[i], whole, method=method).interval


@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n", [50, 400])
def test_limits_cover(share: float, soft: bool, n: int) -> None:
    """Flags and soft predictions, small and larger shares: 95 % hold, less the chance of 60 draws."""
    y, scores = pool(share, np.random.default_rng(1))
    f = scores if soft else (scores > 0.7).astype(float)
    assert coverage(share, n, 60, by_method(y, f)) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 60)


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.05, 0.08, 0.3, 0.97])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n", [50, 100, 400, 700, 1000])
def test_limits_cover_on_a_grid(share: float, soft: bool, n: int) -> None:
    """93 % or more in 400 draws, less their chance, where the method of soft predictions changes too."""
    y, scores = pool(share, np.random.default_rng(1))
    f = scores if soft else (scores > 0.7).astype(float)
    assert coverage(share, n, 400, by_method(y, f)) >= 0.93 - 2 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.coverage
def test_a_misleading_detector_does_no_harm() -> None:
    """Flags that are noise, or the wrong way round, leave the limits valid."""
    rng = np.random.default_rng(2)
    y, scores = pool(0.1, rng)
    for f in (rng.random(5000), 1 - scores, (scores < 0.5).astype(float)):
        assert coverage(0.1, 400, 50, by_method(y, f)) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 50)


@pytest.mark.coverage
def test_labels_drawn_by_part_cover() -> None:
    """With more labels where the detector is unsure, the limits still hold the share of the pool."""
    rng = np.random.default_rng(3)
    y, scores = pool(0.08, rng)
    part = np.searchsorted([0.2, 0.8], scores)
    sizes, takes, held = np.bincount(part), (60, 150, 60), 0
    for _ in range(60):
        drawn = [rng.choice(np.flatnonzero(part == h), n, replace=False) for h, n in enumerate(takes)]
        found = stratified_interval(
            [Stratum(int(s), len(i), int(y[i].sum())) for s, i in zip(sizes, drawn, strict=True)]
        )
        held += found.lower <= 0.08 <= found.upper
    assert held / 60 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 60)


@pytest.mark.theory
def test_soft_predictions_are_a_regression() -> None:
    """The soft estimate is the survey regression estimate, its weight the regression slope."""
    rng = np.random.default_rng(4)
    y, f = pool(0.3, rng)
    i = rng.choice(5000, 400, replace=False)
    found = labelled_interval([bool(v) for v in y[i]], f[i], moments(f), method="ppi")
    line = stats.linregress(f[i], y[i].astype(float))
    residual = y[i] - line.intercept - line.slope * f[i]  # pyright: ignore[reportAttributeAccessIssue]
    error = math.sqrt((1 - 400 / 5000) * np.sum(residual**2) / 398 / 400)
    point = line.intercept + line.slope * f.mean()  # pyright: ignore[reportAttributeAccessIssue]
    assert found.interval.point == pytest.approx(point)
    assert found.interval.upper - found.interval.lower == pytest.approx(2 * stats.t.ppf(0.975, 398) * error)


def test_a_good_detector_narrows_the_limits() -> None:
    """For a common class the predictions save labels: narrower than the survey."""
    y, f = pool(0.3, np.random.default_rng(6))
    i = np.random.default_rng(7).choice(5000, 400, replace=False)
    labels = [bool(v) for v in y[i]]
    flags = (f > 0.5).astype(float)
    survey = labelled_interval(labels, f[i], moments(f), method="survey").interval
    for found in (
        labelled_interval(labels, f[i], moments(f)),
        labelled_interval(labels, flags[i], moments(flags)),
    ):
        assert found.interval.upper - found.interval.lower < 0.92 * (survey.upper - survey.lower)


def test_rare_classes_fall_back() -> None:
    """Few synthetic labels take the exact survey for soft predictions; few flags one part for flags."""
    f = np.linspace(0, 1, 1000)
    labels = [True] * 3 + [False] * 97
    assert labelled_interval(labels, f[:100], moments(f)).interval.method == "labels-survey"
    flags = np.zeros(1000)
    flags[:4] = 1.0
    assert labelled_interval(labels, flags[100:200], moments(flags)).interval.method == "labels-survey"


@pytest.mark.parametrize("method", ["survey", "strata", "ppi"])
def test_unsure_labels_are_told_as_a_worst_case(method: LabelledMethod) -> None:
    """The worst case is the lower limit with all unsure real and the upper one with all synthetic."""
    rng = np.random.default_rng(8)
    f = (rng.random(2000) < 0.4).astype(float)
    labels: list[bool | None] = [bool(v) for v in rng.random(300) < 0.2 + 0.5 * f[:300]]
    sure = labelled_interval(labels, f[:300], moments(f), method=method)
    assert sure.worst_case == sure.interval
    some = [None if i % 10 == 0 else label for i, label in enumerate(labels)]
    found = labelled_interval(some, f[:300], moments(f), method=method)
    assert (found.labelled, found.unsure) == (270, 30)
    for value, limit in ((False, "lower"), (True, "upper")):
        filled = [value if label is None else label for label in some]
        alone = labelled_interval(filled, f[:300], moments(f), method=method).interval
        assert getattr(found.worst_case, limit) == pytest.approx(getattr(alone, limit))
    assert found.worst_case.lower <= found.interval.lower
    assert found.worst_case.upper >= found.interval.upper


@pytest.mark.theory
def test_plan_of_a_survey_is_the_textbook_size() -> None:
    """For ±2 points at a share of a half some 2,401 labels are needed, less those there are."""
    pilot = labelled_share([Stratum(10**6, 100, 50)])
    plan = plan_labels(pilot, half_width=0.02)
    assert plan.n_more == pytest.approx(2401 - 100, rel=0.04)
    assert plan.expected_half_width <= 0.02
    assert f"label {plan.n_more:,} more for ±2 points" in plan.describe()


@pytest.mark.theory
def test_plan_of_soft_predictions_inverts_the_normal_width() -> None:
    """Labels added as planned to a pilot of soft predictions reach the width within a few per cent."""
    rng = np.random.default_rng(9)
    y, f = pool(0.3, rng, 50_000)
    order = rng.permutation(50_000)
    first = order[:300]
    pilot = labelled_interval([bool(v) for v in y[first]], f[first], moments(f))
    plan = plan_labels(pilot, half_width=0.015)
    more = order[: 300 + plan.n_more]
    reached = labelled_interval([bool(v) for v in y[more]], f[more], moments(f)).interval
    assert (reached.upper - reached.lower) / 2 == pytest.approx(0.015, rel=0.1)


def test_plans_know_what_is_enough_and_what_is_not() -> None:
    """Enough labels need no more; a small pool is labelled through."""
    done = plan_labels(labelled_share([Stratum(10**6, 10_000, 100)]))
    assert (done.n_more, done.describe()) == (0, "the labels are enough: ±0.2 points")
    small = plan_labels(labelled_share([Stratum(200, 20, 4), Stratum(100, 10, 1)]), half_width=0.001)
    assert small.n_more <= 270
    assert small.reachable


def test_bad_input_is_named() -> None:
    """Lengths, empty labels, small pools, gaps, contradictions and bad counts are refused by name."""
    f = np.array([0.2, 0.8, 0.5])
    whole = Moments(100, 0.5, 0.1)
    with pytest.raises(InputError, match="predictions: got 3"):
        labelled_interval([True], f, whole)
    with pytest.raises(InputError, match="labels: got 0"):
        labelled_interval([None, None, None], f, whole)
    with pytest.raises(InputError, match=r"pool\.n"):
        labelled_interval([True, False, True], f, Moments(2, 0.5, 0.1))
    with pytest.raises(InputError, match="not finite"):
        labelled_interval([True, False, True], np.array([0.2, math.nan, 0.5]), whole)
    with pytest.raises(InputError, match="no flags"):
        labelled_interval([True, False, True], f, whole, method="strata")
    with pytest.raises(InputError, match="allowed 3 or more"):
        labelled_interval([True, None, True], f, whole, method="ppi")
    with pytest.raises(InputError, match="count the pool again"):
        labelled_interval([True] * 50, np.ones(50), Moments(100, 0.4, 0.24))
    with pytest.raises(InputError, match="strata"):
        stratified_interval([])
    for part, name in (
        (Stratum(10, 11, 0), "labelled"),
        (Stratum(10, 5, 6), "synthetic"),
        (Stratum(10, 5, 5, -1), "unsure"),
        (Stratum(10, 5, 5, 6), "labelled"),
        (Stratum(0, 0, 0), "size"),
    ):
        with pytest.raises(InputError, match=name):
            stratified_interval([part])
    with pytest.raises(InputError, match="level"):
        stratified_interval([Stratum(10, 5, 5)], level=1.0)
    with pytest.raises(InputError, match="half_width"):
        plan_labels(labelled_share([Stratum(10, 5, 5)]), half_width=0.0)
