"""Tests of the melded limits: against random draws of the same definition, and in their corners."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float64
from scipy import stats

from poolproof.detectors.melding import (
    CERTAIN,
    NEVER,
    beta,
    least_limit,
    lower_draw,
    lower_limit,
    share_below,
    upper_draw,
    upper_limit,
)

COUNTS = [
    (2300, 10000, 95, 100, 5, 100),
    (0, 100, 95, 100, 0, 100),
    (100, 100, 95, 100, 3, 100),
    (500, 1000, 60, 100, 30, 100),
    (300, 1000, 100, 100, 0, 100),
    (300, 1000, 99, 100, 1, 100),
    (3, 10, 9, 10, 1, 10),
    (120_000, 1_000_000, 2, 5, 100_000, 1_000_000),
    (250, 500, 9990, 10000, 5, 10000),
    (8, 200, 5, 6, 2, 100),
    (50, 100, 2, 6, 4, 6),
]
"""Flagged and size of the pool, true positives and synthetic, false positives and real."""


def limits(counts: tuple[int, ...], alpha: float = 0.05) -> tuple[float, float]:
    """Return both melded limits."""
    flagged, pool, true_positives, synthetic, false_positives, real = counts
    lower = lower_limit(
        lower_draw(flagged, pool),
        upper_draw(false_positives, real),
        upper_draw(true_positives, synthetic),
        alpha / 2,
    )
    upper = upper_limit(
        upper_draw(flagged, pool),
        lower_draw(false_positives, real),
        lower_draw(true_positives, synthetic),
        1 - alpha / 2,
    )
    return lower, upper


def drawn_limits(
    counts: tuple[int, ...], rng: np.random.Generator, alpha: float = 0.05
) -> tuple[float, float]:
    """Return both limits as quantiles of 300 000 random draws."""
    size, alpha = 300_000, 0.05
    flagged, pool, true_positives, synthetic, false_positives, real = counts

    def low(x: int, n: int) -> Float64[np.ndarray, " n"]:
        return np.zeros(size) if x == 0 else rng.beta(x, n - x + 1, size)

    def high(x: int, n: int) -> Float64[np.ndarray, " n"]:
        return np.ones(size) if x == n else rng.beta(x + 1, n - x, size)

    def share(
        q: Float64[np.ndarray, " n"],
        f: Float64[np.ndarray, " n"],
        t: Float64[np.ndarray, " n"],
        useless: float,
    ) -> Float64[np.ndarray, " n"]:
        width = np.where(t > f, t - f, 1.0)
        return np.where(t > f, np.clip((q - f) / width, 0.0, 1.0), useless)

    below = share(low(flagged, pool), high(false_positives, real), high(true_positives, synthetic), 0.0)
    above = share(high(flagged, pool), low(false_positives, real), low(true_positives, synthetic), 1.0)
    return float(np.quantile(below, alpha / 2)), float(np.quantile(above, 1 - alpha / 2))


@pytest.mark.reference
@pytest.mark.parametrize("counts", COUNTS)
def test_limits_are_the_quantiles_of_random_draws(counts: tuple[int, ...]) -> None:
    """The quadrature gives the quantiles of 300 000 draws, up to those draws' own error."""
    found, drawn = limits(counts), drawn_limits(counts, np.random.default_rng(7))
    assert found == pytest.approx(drawn, abs=4e-3)


@pytest.mark.parametrize("counts", COUNTS)
def test_limits_are_settled_by_the_counts(counts: tuple[int, ...]) -> None:
    """The same counts give the same limits, to the last bit."""
    assert limits(counts) == limits(counts)


@pytest.mark.theory
@pytest.mark.parametrize(("x", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (30, 5000)])
def test_a_perfect_detector_leaves_the_clopper_pearson_limits(x: int, n: int) -> None:
    """With rates known to be 0 and 1 the share is the flagged share and its limits are the exact ones."""
    exact = stats.binomtest(x, n).proportion_ci(0.95, method="exact")
    lower = lower_limit(lower_draw(x, n), NEVER, CERTAIN, 0.025)
    upper = upper_limit(upper_draw(x, n), NEVER, CERTAIN, 0.975)
    assert (lower, upper) == pytest.approx((exact.low, exact.high), abs=1e-6)


@pytest.mark.theory
@pytest.mark.parametrize("x", [0.0, 0.03, 0.4, 1.0])
def test_probability_is_the_double_integral(x: float) -> None:
    """Two uniform rates leave a polygon whose area is known."""
    # q and f uniform, t = 1: q <= f + x (1 - f) has probability 1/2 + x/2.
    assert share_below(x, beta(1, 1), beta(1, 1), CERTAIN) == pytest.approx(0.5 + x / 2, abs=1e-6)
    # f = 0, t and q uniform: q <= x t has probability x/2.
    assert share_below(x, beta(1, 1), NEVER, beta(1, 1)) == pytest.approx(x / 2, abs=1e-6)
    # All three uniform: the volume of {t > f, q <= f + x (t - f)} is 1/6 + x/6.
    assert share_below(x, beta(1, 1), beta(1, 1), beta(1, 1)) == pytest.approx((1 + x) / 6, abs=1e-6)


@pytest.mark.theory
@pytest.mark.parametrize(
    ("f", "t"), [((3, 8), (9, 2)), ((1, 100), (100, 1)), ((4, 4), (4, 4)), ((400, 600), (2, 3))]
)
def test_chance_of_a_useful_detector_is_the_beta_inequality(f: tuple[int, int], t: tuple[int, int]) -> None:
    """A pool that flags nothing leaves P(t > f), which has a finite sum for whole shapes."""
    total = sum(
        np.exp(stats.betabinom.logpmf(i, f[0] + f[1] - 1, t[0], t[1])) for i in range(f[0], f[0] + f[1])
    )
    assert share_below(0.5, NEVER, beta(*f), beta(*t)) == pytest.approx(total, abs=1e-6)


def test_probability_grows_with_the_share() -> None:
    """The distribution of the share is a distribution function, also where the closed-form rate changes."""
    rates = beta(20, 981), beta(3, 98), beta(60, 41)
    values = [share_below(x, *rates) for x in np.linspace(0, 1, 101)]
    assert np.all(np.diff(values) >= -1e-7)
    assert 0 <= values[0] <= values[-1] <= 1 + 1e-7


@pytest.mark.parametrize("pool", [10, 10**9])
def test_a_detector_the_wrong_way_round_says_nothing(pool: int) -> None:
    """Where the references show t < f beyond doubt, the limits are 0 and 1 and not a confident 0."""
    assert limits((pool // 2, pool, 100, 1000, 900, 1000)) == (0.0, 1.0)


def test_all_flags_and_no_flags_meet_the_ends() -> None:
    """A pool without flags can be free of synthetic items, one of flags alone can hold nothing else."""
    assert limits((0, 50, 9, 10, 1, 10))[0] == 0.0
    assert limits((50, 50, 9, 10, 1, 10))[1] == 1.0


@pytest.mark.theory
@pytest.mark.parametrize("counts", COUNTS)
def test_a_limit_inside_is_where_the_distribution_meets_its_level(counts: tuple[int, ...]) -> None:
    """At an upper limit inside (0, 1) the distribution function is at 97.5 %, however the search went."""
    flagged, pool, true_positives, synthetic, false_positives, real = counts
    upper = limits(counts)[1]
    rates = (
        upper_draw(flagged, pool),
        lower_draw(false_positives, real),
        lower_draw(true_positives, synthetic),
    )
    if 0 < upper < 1:
        assert share_below(upper - 1e-6, *rates) < 0.975 < share_below(upper + 1e-6, *rates)


@pytest.mark.theory
@pytest.mark.parametrize("probability", [1e-6, 0.025, 0.5, 0.975])
def test_least_limit_differs_for_useless_draws_alone(probability: float) -> None:
    """It is the lower limit for a good detector, and the published convention for one that may be useless."""
    good = lower_draw(2300, 10**4), upper_draw(5, 100), upper_draw(95, 100)
    assert least_limit(*good, probability) == pytest.approx(lower_limit(*good, probability), abs=1e-5)
    poor = lower_draw(230, 1000), upper_draw(10, 200), upper_draw(12, 200)
    rng = np.random.default_rng(3)
    q, f, t = rng.beta(230, 771, 10**6), rng.beta(11, 190, 10**6), rng.beta(13, 188, 10**6)
    share = np.where(q <= f, 0.0, np.where(q >= t, 1.0, (q - f) / (t - f)))
    assert least_limit(*poor, probability) == pytest.approx(np.quantile(share, probability), abs=0.02)
