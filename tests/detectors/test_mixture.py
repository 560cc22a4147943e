"""Tests of the mixture of histograms and of its alarm: likelihood, size, power, bins, words, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from scipy import optimize

from poolproof.detectors.mixture import (
    GoodnessOfFit,
    alarm_edges,
    bin_counts,
    fit_mixture,
    goodness_of_fit,
)
from poolproof.errors import InputError, UnreliableEstimate


def alarm(
    rng: np.random.Generator,
    *,
    share: float,
    references: int = 2000,
    pool: int = 100_000,
    shift: float = 0.0,
    real_shift: float = 0.0,
    grain: float | None = None,
) -> GoodnessOfFit:
    """Return the alarm of one simulated audit: real scores N(-1, 1.2), synthetic ones N(1, 1)."""
    real, synthetic = rng.normal(-1, 1.2, references), rng.normal(1, 1, references)
    k = int(rng.binomial(pool, share))
    items = np.concatenate([rng.normal(1 + shift, 1, k), rng.normal(-1 + real_shift, 1.2, pool - k)])
    if grain:
        real, synthetic, items = (np.round(s / grain) * grain for s in (real, synthetic, items))
    edges = alarm_edges(real, synthetic)
    counts = (bin_counts(s, edges) for s in (items, real, synthetic))
    return goodness_of_fit(*counts, rng=rng)


def alarms(
    runs: int, seed: int, *, share: float, references: int = 2000, pool: int = 100_000, **more: float
) -> float:
    """Return how often the alarm fires."""
    rng = np.random.default_rng(seed)
    return float(
        np.mean(
            [alarm(rng, share=share, references=references, pool=pool, **more).fires for _ in range(runs)]
        )
    )


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(5))
def test_share_has_the_highest_likelihood(seed: int) -> None:
    """The share is where scipy finds the slope of the likelihood to be 0."""
    rng = np.random.default_rng(seed)
    real, synthetic = rng.multinomial(500, [0.5, 0.3, 0.1, 0.1]), rng.multinomial(500, [0.1, 0.1, 0.3, 0.5])
    pool = rng.multinomial(3000, [0.3, 0.2, 0.25, 0.25])
    p0, p1 = real / 500, synthetic / 500
    gap = p1 - p0
    best = optimize.brentq(lambda x: float(pool @ (gap / (p0 + x * gap))), 1e-9, 1 - 1e-9)
    assert fit_mixture(pool, real, synthetic) == pytest.approx(best, abs=1e-8)


@pytest.mark.theory
def test_two_bins_are_flags() -> None:
    """With two bins the share is (q - f)/(t - f), clipped."""
    assert fit_mixture(np.array([71, 29]), np.array([90, 10]), np.array([20, 80])) == pytest.approx(
        0.19 / 0.7
    )
    assert fit_mixture(np.array([95, 5]), np.array([90, 10]), np.array([20, 80])) == 0.0
    assert fit_mixture(np.array([5, 95]), np.array([90, 10]), np.array([20, 80])) == 1.0


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 3), min_size=2, max_size=12))
def test_any_counts_have_a_share(rows: list[tuple[int, int, int]]) -> None:
    """Whatever the counts, empty bins among them, the share is in [0, 1] or refused by name."""
    pool, real, synthetic = (np.array(column) for column in zip(*rows, strict=True))
    try:
        share = fit_mixture(pool, real, synthetic)
        found = goodness_of_fit(pool, real, synthetic, rng=np.random.default_rng(0), n_resamples=100)
    except (InputError, UnreliableEstimate):
        return
    assert 0 <= share <= 1
    assert 0 <= found.share <= 1
    assert 0 < found.p_value <= 1
    assert np.isfinite(found.residuals).all()


@pytest.mark.coverage
def test_half_a_deviation_of_the_generator_raises_the_alarm() -> None:
    """With 2,000 references of each class, 9 of 10 pools with synthetic scores half a deviation off are seen."""
    assert alarms(20, 1, share=0.2, shift=0.5) >= 0.9


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_half_a_deviation_either_way_raises_the_alarm(shift: float) -> None:
    """Also towards the real scores, where the change hides better: 90 %, less the chance of 300 draws."""
    assert alarms(300, 6, share=0.2, shift=shift) >= 0.9 - 2 * math.sqrt(0.9 * 0.1 / 300)


@pytest.mark.coverage
def test_another_kind_of_real_images_raises_the_alarm() -> None:
    """A quarter of a deviation in the real scores is seen in 9 of 10 pools."""
    assert alarms(20, 2, share=0.2, real_shift=0.3) >= 0.9


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("share", "references", "pool"), [(0.2, 2000, 100_000), (0.0, 100, 1000), (1.0, 200, 10_000)]
)
def test_a_mix_seldom_raises_the_alarm(share: float, references: int, pool: int) -> None:
    """Pools that are mixes raise an alarm in 5 % of cases at most, but for the chance of 60 draws."""
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)
    assert alarms(60, 3, share=share, references=references, pool=pool) <= limit


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.6, 1.0])
@pytest.mark.parametrize(
    ("references", "pool", "grain"),
    [(2000, 100_000, 0), (2000, 300, 0), (500, 10_000, 0.5), (200, 10_000, 0), (40, 300, 0), (100, 300, 1)],
)
def test_a_mix_seldom_raises_the_alarm_on_a_grid(
    share: float, references: int, pool: int, grain: float
) -> None:
    """The same for few references, small pools and scores that repeat, in 300 draws."""
    rate = alarms(300, 4, share=share, references=references, pool=pool, grain=grain)
    assert rate <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 300)


def test_the_alarm_says_where() -> None:
    """Items at scores that neither reference has are named by their bins."""
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(-1, 1, 1000), rng.normal(1, 1, 1000)
    edges = alarm_edges(real, synthetic)
    pool = np.concatenate([rng.normal(-1, 1, 4000), rng.normal(4, 0.3, 1000)])
    found = goodness_of_fit(*(bin_counts(s, edges) for s in (pool, real, synthetic)), rng=rng)
    assert found.fires
    assert len(edges) in found.excess
    assert found.describe(edges).endswith(" up")
    assert "no mix" in found.describe(edges)
    with pytest.raises(InputError, match="edges"):
        found.describe(edges[1:])


def test_no_alarm_is_said_so() -> None:
    """A pool that is a mix is called explained."""
    found = goodness_of_fit(
        np.array([50, 30, 20]), np.array([50, 30, 20]), np.array([20, 30, 50]), rng=np.random.default_rng(0)
    )
    assert not found.fires
    assert found.describe(np.array([0.0, 1.0])).startswith("a mix of the two references explains")


def test_the_same_seed_gives_the_same_alarm() -> None:
    """Resamples come from `rng` alone."""
    counts = np.array([50, 30, 25]), np.array([50, 30, 20]), np.array([20, 30, 50])
    first, second = (goodness_of_fit(*counts, rng=np.random.default_rng(7)) for _ in range(2))
    assert first.p_value == second.p_value


def test_bins_share_the_mass() -> None:
    """Twenty bins, where asked for, hold a twentieth of the mixed references each, whatever their sizes."""
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(-1, 1, 4000), rng.normal(1, 1, 400)
    edges = alarm_edges(real, synthetic, 20)
    mass = bin_counts(real, edges) / 8000 + bin_counts(synthetic, edges) / 800
    assert len(mass) == 20
    assert mass == pytest.approx(np.full(20, 0.05), abs=0.002)


@pytest.mark.property
@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.floats(-3, 3).map(lambda x: round(x, 1)), min_size=1, max_size=60),
    st.lists(st.floats(-3, 3).map(lambda x: round(x, 1)), min_size=1, max_size=60),
)
def test_bins_of_repeated_scores_are_filled(real: list[float], synthetic: list[float]) -> None:
    """However scores repeat, edges rise and each bin holds a reference."""
    a, b = np.array(real), np.array(synthetic)
    if len(np.unique(np.concatenate([a, b]))) < 2:
        with pytest.raises(UnreliableEstimate):
            alarm_edges(a, b)
        return
    edges = alarm_edges(a, b)
    assert (np.diff(edges) > 0).all()
    assert (bin_counts(a, edges) + bin_counts(b, edges) > 0).all()


def test_neighbouring_doubles_are_parted() -> None:
    """Two scores one rounding apart still fall into two bins."""
    low, high = np.array([1.0]), np.array([np.nextafter(1.0, 2.0)])
    edges = alarm_edges(low, high)
    assert bin_counts(low, edges).tolist() == [1, 0]
    assert bin_counts(high, edges).tolist() == [0, 1]


def test_a_score_on_an_edge_counts_above_it() -> None:
    """Bins are closed below, and none is lost."""
    counts = bin_counts(np.array([-5.0, 0.0, 0.5, 1.0, 9.0]), np.array([0.0, 1.0]))
    assert counts.tolist() == [1, 2, 2]


def test_bad_input_is_named() -> None:
    """Unequal bins, negative counts, empty samples, gaps, few bins or resamples are refused."""
    good, rng = np.array([5, 5, 5]), np.random.default_rng(0)
    with pytest.raises(InputError, match="real_counts: got 2 bins"):
        fit_mixture(good, np.array([5, 5]), good)
    with pytest.raises(InputError, match="pool_counts: got -1"):
        fit_mixture(np.array([-1, 5, 5]), good, good)
    with pytest.raises(InputError, match="synthetic_counts: got no items"):
        fit_mixture(good, good, np.array([0, 0, 0]))
    with pytest.raises(UnreliableEstimate, match="same shares"):
        fit_mixture(good, good, 2 * good)
    with pytest.raises(UnreliableEstimate, match="fewer than 3"):
        goodness_of_fit(np.array([5, 5]), np.array([5, 5]), np.array([5, 6]), rng=rng)
    with pytest.raises(InputError, match="n_resamples"):
        goodness_of_fit(good, good, good, rng=rng, n_resamples=10)
    with pytest.raises(InputError, match="level"):
        goodness_of_fit(good, good, good, rng=rng, level=0.0)
    with pytest.raises(InputError, match="n_bins"):
        alarm_edges(np.array([1.0]), np.array([2.0]), 1)
    for bad in (np.array([math.nan]), np.array([], np.float64)):
        with pytest.raises(InputError, match="synthetic_scores"):
            alarm_edges(np.array([1.0]), bad)
    nan: Float64[np.ndarray, " n"] = np.array([math.nan])
    with pytest.raises(InputError, match="scores"):
        bin_counts(nan, np.array([0.0]))
