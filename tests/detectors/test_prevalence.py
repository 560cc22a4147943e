"""Tests of share estimates: published limits, closed forms, order, coverage, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolproof.detectors.melding import NEVER, lower_draw, share_below, upper_draw
from poolproof.detectors.prevalence import (
    CountInterval,
    Interval,
    Method,
    clopper_pearson,
    count_of,
    interval,
    lower_bound,
    split_level,
    with_floor,
    with_sampled_floor,
)
from poolproof.errors import InputError

METHODS: tuple[Method, ...] = ("melded", "melded-mid", "lang-reiczigel", "rogan-gladen")

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.reference
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("x", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (4060, 11284)])
def test_clopper_pearson_agrees_with_scipy(x: int, n: int, level: float) -> None:
    """The limits are those of scipy's exact binomial interval."""
    exact = stats.binomtest(x, n).proportion_ci(level, method="exact")
    found = clopper_pearson(x, n, level=level)
    assert (found.lower, found.upper) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert found.point == x / n


@pytest.mark.reference
@pytest.mark.parametrize(
    ("given_counts", "published", "digits"),
    [
        ((4060, 11284, 178, 179, 1, 359), (0.349, 0.372), 3),
        ((51, 2971, 32, 33, 0, 20), (0.0, 0.053), 3),
        ((712, 11862, 8, 10, 0, 12), (0.0, 0.147), 3),
        ((259, 509, 84, 127, 13, 109), (0.58, 0.87), 2),
        ((51, 509, 23, 41, 8, 195), (0.037, 0.195), 3),
    ],
)
def test_lang_reiczigel_gives_its_published_examples(
    given_counts: tuple[int, int, int, int, int, int], published: tuple[float, float], digits: int
) -> None:
    """The limits round to those of Lang and Reiczigel (2014), examples 1 to 4, as the R package asht has them.

    Example 3 is published as an apparent prevalence of 0.06 among 11862; 712 is the nearest count.
    """
    found = interval(*given_counts, method="lang-reiczigel")
    assert (round(found.lower, digits), round(found.upper, digits)) == published


@pytest.mark.theory
@pytest.mark.parametrize("method", METHODS)
def test_point_inverts_the_mixture(method: Method) -> None:
    """A pool whose flags are exactly as expected at a share of 0.3 gives that share."""
    found = interval(290, 1000, 80, 100, 10, 100, method=method)
    assert found.point == pytest.approx(0.19 / 0.7)
    assert found.lower < 0.19 / 0.7 < found.upper


@pytest.mark.theory
def test_rogan_gladen_is_a_wald_interval_for_a_perfect_detector() -> None:
    """Without detector errors the delta method is the plain interval of a proportion."""
    found = interval(30, 100, 50, 50, 0, 50, method="rogan-gladen")
    half = stats.norm.ppf(0.975) * math.sqrt(0.3 * 0.7 / 100)
    assert (found.lower, found.upper) == pytest.approx((0.3 - half, 0.3 + half))


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(counts, counts, counts, st.sampled_from(METHODS))
def test_limits_are_ordered(
    pool: tuple[int, int], synthetic: tuple[int, int], real: tuple[int, int], method: Method
) -> None:
    """For any counts 0 <= lower <= upper <= 1, and melded limits hold the point."""
    found = interval(*pool, *synthetic, *real, method=method)
    assert 0 <= found.lower <= found.upper <= 1
    if found.point is not None and method in ("melded", "melded-mid"):
        assert found.lower - 1e-6 <= found.point <= found.upper + 1e-6


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(counts, counts, counts)
def test_melded_mid_lies_within_melded(
    pool: tuple[int, int], synthetic: tuple[int, int], real: tuple[int, int]
) -> None:
    """Counting less of the references' own chance narrows the interval on both sides."""
    wide, narrow = (interval(*pool, *synthetic, *real, method=m) for m in ("melded", "melded-mid"))
    assert wide.lower <= narrow.lower + 1e-6
    assert narrow.upper <= wide.upper + 1e-6


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(counts, counts, counts)
def test_a_higher_level_is_wider(
    pool: tuple[int, int], synthetic: tuple[int, int], real: tuple[int, int]
) -> None:
    """Melded intervals of growing level hold each other."""
    narrow = interval(*pool, *synthetic, *real, level=0.8)
    wide = interval(*pool, *synthetic, *real, level=0.99)
    assert wide.lower <= narrow.lower + 1e-6
    assert narrow.upper <= wide.upper + 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("true_positives", "false_positives"), [(5, 5), (2, 9), (0, 0), (10, 10)])
def test_a_useless_detector_has_no_point(true_positives: int, false_positives: int, method: Method) -> None:
    """References that do not show t > f give no point, and limits that leave nearly everything open."""
    found = interval(4, 10, true_positives, 10, false_positives, 10, method=method)
    assert found.point is None
    assert (found.lower, found.upper) == (0.0, 1.0)


def test_more_data_narrow_the_interval() -> None:
    """A hundred times the references shrinks the width about ten times."""
    few, many = interval(2300, 10**6, 95, 100, 5, 100), interval(230_000, 10**6, 9500, 10**4, 500, 10**4)
    assert (many.upper - many.lower) < 0.25 * (interval(230_000, 10**6, 95, 100, 5, 100).upper - 0.13)
    assert few.upper < many.lower


@pytest.mark.theory
def test_lower_bound_is_the_exact_one_without_false_positives_to_fear() -> None:
    """With a million clean real references the bound is the one-sided exact limit of the flagged share."""
    exact = stats.binomtest(300, 1000, alternative="greater").proportion_ci(0.95, method="exact")
    found = lower_bound(300, 1000, 0, 10**6)
    assert found.lower == pytest.approx(exact.low, abs=1e-4)
    assert (found.point, found.upper) == (None, 1.0)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(counts, counts)
def test_lower_bound_is_not_below_the_bonferroni_box(pool: tuple[int, int], real: tuple[int, int]) -> None:
    """The melded bound is at least (q_L - f_U)/(1 - f_U) with one-sided limits at half the error each."""
    # A two-sided level of 0.95 leaves 0.025 on each side, half of the bound's error of 0.05.
    q, f = clopper_pearson(*pool).lower, clopper_pearson(*real).upper
    box = 0.0 if f == 1 else max(0.0, (q - f) / (1 - f))
    assert lower_bound(*pool, *real).lower >= box - 1e-6


def melded_holds(counts: tuple[int, int, int, int, int, int], share: float) -> bool:
    """Return whether the 95 % melded interval holds a share, without the search for its limits.

    The lower limit is at most the share where the distribution it is a quantile of has reached 0.025 there.
    """
    flagged, pool, true_positives, synthetic, false_positives, real = counts
    f, t = upper_draw(false_positives, real), upper_draw(true_positives, synthetic)
    useless = 1.0 - share_below(0.5, NEVER, f, t)
    if share_below(share, lower_draw(flagged, pool), f, t) + useless < 0.025:
        return False
    f, t = lower_draw(false_positives, real), lower_draw(true_positives, synthetic)
    # The distribution function jumps to 1 at a share of 1.
    return share == 1.0 or share_below(share, upper_draw(flagged, pool), f, t) <= 0.975


def lang_reiczigel_holds(counts: tuple[int, int, int, int, int, int], share: float) -> bool:
    """Return whether the 95 % Lang-Reiczigel interval holds a share."""
    found = interval(*counts, method="lang-reiczigel")
    return found.lower <= share <= found.upper


def coverage(
    holds: Callable[[tuple[int, int, int, int, int, int], float], bool],
    rates: tuple[float, float],
    share: float,
    repetitions: int,
) -> float:
    """Return how often an interval holds the share, over simulated pools and 100 references of each class."""
    (t, f), rng = rates, np.random.default_rng(11)
    flagged = rng.binomial(20_000, share * t + (1 - share) * f, repetitions)
    rows = zip(flagged, rng.binomial(100, t, repetitions), rng.binomial(100, f, repetitions), strict=True)
    held = [holds((int(q), 20_000, int(x), 100, int(y), 100), share) for q, x, y in rows]
    return float(np.mean(held))


CELLS = [
    (rates, share) for rates in ((0.95, 0.05), (0.8, 0.1), (0.6, 0.3)) for share in (0.0, 0.02, 0.2, 0.6)
]


@pytest.mark.parametrize(("rates", "share"), CELLS)
def test_the_quick_test_of_coverage_agrees_with_the_limits(rates: tuple[float, float], share: float) -> None:
    """A share is held by the quick test just where it lies between the limits."""
    t, f = rates
    counts = int(20_000 * (share * t + (1 - share) * f)), 20_000, int(100 * t), 100, int(100 * f), 100
    found = interval(*counts)
    for limit, outside in ((found.lower, -1e-4), (found.upper, 1e-4)):
        assert melded_holds(counts, min(max(limit - outside, 0.0), 1.0))
        if 0 <= limit + outside <= 1:
            assert not melded_holds(counts, limit + outside)


@pytest.mark.coverage
@pytest.mark.parametrize(("rates", "share"), [((0.95, 0.05), 0.02), ((0.8, 0.1), 0.2), ((0.6, 0.3), 0.6)])
def test_melded_limits_cover(rates: tuple[float, float], share: float) -> None:
    """The melded interval holds the share at least as often as it says, but for the chance of 50 draws."""
    assert coverage(melded_holds, rates, share, 50) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 50)


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize(("rates", "share"), CELLS)
def test_melded_limits_cover_on_a_grid(rates: tuple[float, float], share: float) -> None:
    """Over good and poor detectors and small and large shares, coverage stays above 93 % less chance."""
    assert coverage(melded_holds, rates, share, 200) >= 0.93 - 2 * math.sqrt(0.95 * 0.05 / 200)


@pytest.mark.coverage
@pytest.mark.parametrize(("rates", "share"), CELLS)
def test_lang_reiczigel_limits_cover(rates: tuple[float, float], share: float) -> None:
    """The closed form covers with 92 % or more, less the chance of 400 draws."""
    assert coverage(lang_reiczigel_holds, rates, share, 400) >= 0.92 - 2 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.coverage
@pytest.mark.parametrize("t", [0.05, 0.3, 0.95])
def test_lower_bound_holds_for_any_generator(t: float) -> None:
    """Whatever the true positive rate, which it never sees, the bound exceeds the share in 5 % of cases."""
    rng, share, f, repetitions = np.random.default_rng(2), 0.2, 0.05, 80
    above = 0
    for _ in range(repetitions):
        flagged, false_positives = rng.binomial(5000, share * t + (1 - share) * f), rng.binomial(200, f)
        above += lower_bound(int(flagged), 5000, int(false_positives), 200).lower > share
    assert above / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


@pytest.mark.theory
def test_floor_adds_the_known_items() -> None:
    """With 20 known among 100 and a rest between 0.1 and 0.3 the share lies between 0.28 and 0.44."""
    found = with_floor(20, Interval(0.2, 0.1, 0.3, 0.9, "melded"), 80)
    assert (found.point, found.lower, found.upper) == pytest.approx((0.36, 0.28, 0.44))
    assert (found.level, found.method) == (0.9, "floor+melded")


def test_floor_alone_bounds_from_below() -> None:
    """Where nothing is known of the rest the known items are a lower limit without error."""
    found = with_floor(20, None, 80)
    assert (found.point, found.lower, found.upper, found.level) == (None, 0.2, 1.0, 1.0)


def test_a_pool_of_known_items_is_all_synthetic() -> None:
    """No rest, no doubt."""
    found = with_floor(7, None, 0)
    assert (found.point, found.lower, found.upper) == (1.0, 1.0, 1.0)


@pytest.mark.theory
def test_sampled_floor_is_the_corner_of_two_intervals() -> None:
    """The limits are h + (1 - h) r at the lower and at the upper ends."""
    h = clopper_pearson(30, 200, level=0.975)
    found = with_sampled_floor(30, 200, Interval(0.2, 0.1, 0.3, 0.975, "melded"))
    assert found.point == pytest.approx(0.15 + 0.85 * 0.2)
    assert found.lower == pytest.approx(h.lower + (1 - h.lower) * 0.1)
    assert found.upper == pytest.approx(h.upper + (1 - h.upper) * 0.3)
    assert found.level == 0.95


@pytest.mark.parametrize("rest", [None, Interval(None, 0.0, 1.0, 0.5, "empty")])
def test_a_sample_of_known_items_leaves_the_rest_of_the_pool_open(rest: Interval | None) -> None:
    """A sample of hits alone bounds the share from below, whatever is said of a rest it does not have."""
    found = with_sampled_floor(50, 50, rest)
    assert found.point == 1.0
    assert found.lower == pytest.approx(clopper_pearson(50, 50, level=0.975).lower)
    assert found.upper == 1.0


@pytest.mark.coverage
def test_sampled_floor_covers() -> None:
    """With a sample of 400 items, hits in it and an imperfect detector for the rest, the share is held."""
    rng, h, r, t, f, repetitions = np.random.default_rng(4), 0.1, 0.2, 0.9, 0.05, 60
    truth, held = h + (1 - h) * r, 0
    for _ in range(repetitions):
        hits = int(rng.binomial(400, h))
        flagged = int(rng.binomial(400 - hits, r * t + (1 - r) * f))
        references = int(rng.binomial(150, t)), 150, int(rng.binomial(150, f)), 150
        rest = interval(flagged, 400 - hits, *references, level=split_level(0.95))
        found = with_sampled_floor(hits, 400, rest)
        held += found.lower <= truth <= found.upper
    assert held / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)


@pytest.mark.parametrize(
    ("position", "value", "name"),
    [
        (0, -1, "flagged"),
        (0, 101, "flagged"),
        (1, 0, "pool"),
        (2, 51, "true_positives"),
        (3, 0, "synthetic"),
        (4, -1, "false_positives"),
        (5, 0, "real"),
    ],
)
def test_bad_counts_are_named(position: int, value: int, name: str) -> None:
    """A count below 0 or above its sample, and an empty sample, are refused by name."""
    given_counts = [10, 100, 40, 50, 5, 60]
    given_counts[position] = value
    with pytest.raises(InputError, match=f"^{name}: "):
        interval(*given_counts)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 95.0, math.nan])
def test_bad_levels_are_refused(level: float) -> None:
    """A level is inside (0, 1); 95 is not taken for 0.95."""
    with pytest.raises(InputError, match="level"):
        interval(10, 100, 40, 50, 5, 60, level=level)
    with pytest.raises(InputError, match="level"):
        clopper_pearson(1, 2, level=level)
    with pytest.raises(InputError, match="level"):
        with_sampled_floor(1, 2, None, level=level)


def test_a_rest_of_too_low_a_level_is_refused() -> None:
    """Two intervals of 95 % do not hold together with 95 %, and the message names the remedy."""
    with pytest.raises(InputError, match="split_level"):
        with_sampled_floor(30, 200, Interval(0.2, 0.1, 0.3, 0.95, "melded"))


@pytest.mark.parametrize(("hits", "rest_size"), [(-1, 5), (5, -1), (0, 0)])
def test_bad_floors_are_refused(hits: int, rest_size: int) -> None:
    """Negative counts and an empty pool have no share."""
    with pytest.raises(InputError, match=r"hits|rest_size"):
        with_floor(hits, None, rest_size)


@pytest.mark.theory
def test_counts_are_shares_times_items() -> None:
    """A share of 0.2 to 0.31 of 1,005 items is 201 to 312 items, rounded outwards."""
    found = count_of(Interval(0.25, 0.2, 0.31, 0.9, "melded"), 1005)
    assert found == CountInterval(251.25, 201, 312, 1005, 0.9, "melded")


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_whole_counts_stay_whole(counts: tuple[int, int]) -> None:
    """Known items are counted exactly, whatever their share rounds to."""
    hits, size = counts
    found = count_of(with_floor(hits, None, size - hits), size)
    assert (found.lower, found.upper) == (hits, size)


def test_bad_count_requests_are_named() -> None:
    """Numbers of items that are no count, and limits that are no shares, are refused."""
    share = Interval(None, 0.1, 0.2, 0.95, "melded")
    with pytest.raises(InputError, match=r"^n: "):
        count_of(share, -1)
    with pytest.raises(InputError, match=r"^share: "):
        count_of(Interval(None, -0.1, 0.2, 0.95, "melded"), 10)
