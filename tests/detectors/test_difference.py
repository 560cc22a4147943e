"""Differences of shares: limits by other means, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from poolproof.detectors.difference import (
    Counts,
    Group,
    flag_difference,
    independent_difference,
    shared_difference,
)
from poolproof.errors import InputError

T, F = (90, 100), (8, 120)


def apart(x_a: int, n_a: int, x_b: int, n_b: int, rest: tuple[float, float] = (1.0, 1.0)) -> list[Group]:
    """The groups of two pools that share nothing: what was removed, what was added."""
    return [Group(-1, rest[0], x_a, n_a), Group(1, rest[1], x_b, n_b)]


@pytest.mark.reference
@pytest.mark.parametrize(
    "counts", [(3, 20, 11, 25), (11, 25, 3, 20), (0, 30, 0, 12), (0, 9, 7, 9), (40, 400, 52, 390)]
)
def test_the_test_on_flags_is_fishers(counts: tuple[int, int, int, int]) -> None:
    """Of two pools that share nothing, the p-value is twice the smaller tail of Fisher's exact test."""
    x_a, n_a, x_b, n_b = counts
    table = [[x_b, n_b - x_b], [x_a, n_a - x_a]]
    tails = [float(stats.fisher_exact(table, alternative=side)[1]) for side in ("less", "greater")]  # pyright: ignore[reportArgumentType]
    expected = min(1.0, 2 * min(tails))
    assert flag_difference(apart(*counts)).p_value == pytest.approx(expected, abs=2e-4)
    assert shared_difference(apart(*counts), apart(*counts), (100, 100), (0, 100)).p_value == pytest.approx(
        expected, abs=2e-4
    )


@pytest.mark.reference
def test_shared_limits_are_the_quantiles_of_random_draws(rng: np.random.Generator) -> None:
    """The quadrature agrees with drawing every rate and taking the worst corner of the box."""
    groups = [Group(-0.6, 0.9, 12, 90), Group(-0.1, 0.95, 40, 300), Group(0.7, 0.8, 45, 120)]
    found = shared_difference(groups, groups, T, F)
    hits = sum(g.weight * (1 - g.rest) for g in groups)
    u_t, u_f = rng.random(200_000), rng.random(200_000)
    t = [stats.beta.ppf(u_t, T[0] + i, T[1] - T[0] + 1 - i) for i in (0, 1)]
    f = [stats.beta.ppf(u_f, F[0] + i, F[1] - F[0] + 1 - i) for i in (0, 1)]
    for lower, limit, at in ((True, found.lower, 0.025), (False, found.upper, 0.975)):
        c = np.zeros(200_000)
        for g in groups:
            i = 0 if (g.weight > 0) == lower else 1
            c += g.weight * g.rest * rng.beta(g.flagged + i, g.answered - g.flagged + 1 - i, 200_000)
        corners = [(hits * t_ + c) / (t_ - f_) for t_ in t for f_ in f]
        worst = np.minimum.reduce(corners) if lower else np.maximum.reduce(corners)
        assert limit == pytest.approx(float(np.quantile(worst, at)), abs=0.004)
    assert found.point is not None
    assert found.lower < found.point < found.upper


@pytest.mark.reference
def test_independent_limits_are_the_quantiles_of_random_draws(rng: np.random.Generator) -> None:
    """The convolution agrees with subtracting random draws of both shares."""
    first = Counts((0.1, 0.1), 30, 200, (90, 100), (8, 120))
    second = Counts((0.0, 0.0), 60, 150, (70, 80), (2, 90))
    found = independent_difference(first, second)

    def draw(counts: Counts, *, lower: bool) -> np.ndarray:
        i, j = (0, 1) if lower else (1, 0)

        def rate(x: int, n: int, k: int) -> np.ndarray:
            return rng.beta(x + k, n - x + 1 - k, 400_000)

        q = rate(counts.flagged, counts.answered, i)
        t, f = rate(*counts.true_positives, j), rate(*counts.false_positives, j)
        return counts.hits[0] + (1 - counts.hits[0]) * np.clip((q - f) / (t - f), 0, 1)

    low = draw(second, lower=True) - draw(first, lower=False)
    high = draw(second, lower=False) - draw(first, lower=True)
    assert found.lower == pytest.approx(float(np.quantile(low, 0.025)), abs=0.003)
    assert found.upper == pytest.approx(float(np.quantile(high, 0.975)), abs=0.003)
    expected = 2 * min(float((low <= 0).mean()), float((high >= 0).mean()))
    assert found.p_value == pytest.approx(expected, abs=0.003)


RUNS = 100
FEWEST_COVERED = stats.binom.ppf(0.001, RUNS, 0.95) / RUNS
"""What an interval of 95 % stays above but once in a thousand."""


def simulate_shared(
    groups: dict[str, tuple[int, int, int]],
    rates: tuple[float, float],
    references: int,
    rng: np.random.Generator,
) -> tuple[float, list[Group], tuple[int, int], tuple[int, int]]:
    """The true difference and what an audit counts; groups have (synthetic with a finding, other synthetic, real)."""
    sizes = {name: sum(group) for name, group in groups.items()}
    n_a, n_b = sizes["common"] + sizes["removed"], sizes["common"] + sizes["added"]
    synthetic = {name: group[0] + group[1] for name, group in groups.items()}
    share_a = (synthetic["common"] + synthetic["removed"]) / n_a
    share_b = (synthetic["common"] + synthetic["added"]) / n_b
    found = []
    for name, (hits, other, real) in groups.items():
        weight = (name != "removed") * sizes[name] / n_b - (name != "added") * sizes[name] / n_a
        flagged = int(rng.binomial(other, rates[0]) + rng.binomial(real, rates[1]))
        found.append(Group(weight, 1 - hits / max(sizes[name], 1), flagged, other + real))
    counts = [(int(rng.binomial(references, rate)), references) for rate in rates]
    return share_b - share_a, found, counts[0], counts[1]


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("rates", [(0.95, 0.03), (0.7, 0.2)])
@pytest.mark.parametrize(
    "groups",
    [
        {"common": (0, 0, 0), "removed": (0, 20, 80), "added": (0, 20, 80)},
        {"common": (0, 0, 0), "removed": (0, 4, 96), "added": (0, 90, 110)},
        {"common": (0, 30, 270), "removed": (0, 2, 28), "added": (0, 30, 30)},
        {"common": (10, 30, 200), "removed": (15, 5, 40), "added": (0, 40, 60)},
        {"common": (0, 0, 0), "removed": (40, 10, 50), "added": (0, 50, 50)},
    ],
)
def test_the_interval_of_shared_rates_covers(
    groups: dict[str, tuple[int, int, int]], rates: tuple[float, float], rng: np.random.Generator
) -> None:
    """The limits hold the true difference at least as often as they say, paired or not, with findings or not."""
    covered = rejected = 0
    for _ in range(RUNS):
        truth, found, t, f = simulate_shared(groups, rates, 60, rng)
        limits = shared_difference(found, found, t, f)
        covered += limits.lower <= truth <= limits.upper
        rejected += truth == 0 and limits.p_value is not None and limits.p_value < 0.05
    assert covered / RUNS >= FEWEST_COVERED
    assert rejected / RUNS <= 1 - FEWEST_COVERED


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize(("share_a", "share_b"), [(0.2, 0.2), (0.0, 0.0), (0.05, 0.4)])
def test_the_interval_of_independent_shares_covers(
    share_a: float, share_b: float, rng: np.random.Generator
) -> None:
    """Two audits with their own references: the limits hold the truth, and equal shares are seldom told apart."""
    covered = rejected = 0
    runs = 50
    least = stats.binom.ppf(0.001, runs, 0.95) / runs
    for _ in range(runs):
        counts = []
        for share, (t, f) in ((share_a, (0.9, 0.05)), (share_b, (0.8, 0.1))):
            flagged = int(rng.binomial(100, share * t + (1 - share) * f))
            references = [(int(rng.binomial(60, rate)), 60) for rate in (t, f)]
            counts.append(Counts((0.0, 0.0), flagged, 100, references[0], references[1]))
        limits = independent_difference(counts[0], counts[1])
        covered += limits.lower <= share_b - share_a <= limits.upper
        rejected += share_a == share_b and limits.p_value is not None and limits.p_value < 0.05
    assert covered / runs >= least
    assert rejected / runs <= 1 - least


@pytest.mark.coverage
def test_a_shared_calibration_is_sharper() -> None:
    """Errors that both shares have in common do not hide a change, and common items do not either."""
    t, f = (54, 60), (3, 60)
    groups = apart(60, 400, 100, 400)
    shared = shared_difference(groups, groups, t, f)
    own = [Counts((0.0, 0.0), x, 400, t, f) for x in (60, 100)]
    independent = independent_difference(own[0], own[1])
    # of 400 items 360 are in both pools, and 40 were replaced
    paired = [Group(0.0, 1.0, 58, 360), Group(-0.1, 1.0, 2, 40), Group(0.1, 1.0, 20, 40)]
    narrow = shared_difference(paired, paired, t, f)
    widths = [found.upper - found.lower for found in (narrow, shared, independent)]
    assert widths[0] < 0.6 * widths[1] < widths[1] < widths[2]


def test_a_useless_detector_tells_nothing() -> None:
    """Error rates that do not differ leave the difference open, and give no point."""
    groups = apart(10, 100, 50, 100)
    found = shared_difference(groups, groups, (10, 50), (10, 50))
    assert found.point is None
    assert (found.lower, found.upper) == (-1.0, 1.0)


def test_groups_without_scores_may_be_anything() -> None:
    """What no detector answered widens the interval by its whole weight."""
    known = shared_difference(apart(0, 500, 0, 500), apart(0, 500, 0, 500), (500, 500), (0, 500))
    unknown = [Group(-1, 1, 0, 500), Group(0.8, 1, 0, 500), Group(0.2, 1, 0, 0)]
    found = shared_difference(unknown, unknown, (500, 500), (0, 500))
    assert found.upper > 0.19 > 0.02 > known.upper


def test_identical_pools_do_not_differ() -> None:
    """Where nothing was added or removed the difference is 0, without error."""
    groups = [Group(0.0, 0.9, 30, 100)]
    found = shared_difference(groups, groups, T, F)
    assert (found.point, found.p_value) == (0.0, 1.0)
    assert abs(found.lower) < 1e-6
    assert abs(found.upper) < 1e-6


def test_weights_that_do_not_balance_are_refused() -> None:
    """Parts of two pools, one less the other, add up to nothing."""
    with pytest.raises(InputError, match=r"add up to 0\.5"):
        shared_difference([Group(0.5, 1, 1, 2)], [Group(0.5, 1, 1, 2)], T, F)
