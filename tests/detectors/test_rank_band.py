"""Rank bands: how many new scores lie below a threshold, by the references that do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from poolproof.detectors.rank_band import rank_band
from poolproof.errors import InputError


@pytest.mark.theory
@pytest.mark.parametrize("n_below", [0, 1, 5, 20])
def test_band_is_wider_than_the_exact_limit_of_one_threshold(n_below: int) -> None:
    """The simultaneous limit lies beyond the beta-binomial one, and not far beyond."""
    band = rank_band(300, 400, level=0.95, rng=np.random.default_rng(0))
    exact = betabinom.ppf(0.975, 300, n_below + 1, 400 - n_below)
    strict = betabinom.ppf(1 - 0.025 / 200, 300, n_below + 1, 400 - n_below)
    assert exact <= band.limits(n_below)[1] <= strict + 3


@pytest.mark.coverage
@pytest.mark.parametrize(("n_new", "n_reference"), [(150, 60), (40, 300), (500, 250)])
def test_band_holds_for_all_thresholds_at_once(n_new: int, n_reference: int) -> None:
    """Each side misses anywhere at all in at most half of the error, in 600 draws."""
    rng = np.random.default_rng(1)
    band = rank_band(n_new, n_reference, level=0.9, rng=rng)
    limits = np.array([band.limits(k) for k in range(n_reference + 1)])
    missed = np.zeros(2)
    for _ in range(600):
        new, reference = np.sort(rng.random(n_new)), np.sort(rng.random(n_reference))
        thresholds = np.concatenate([[0.0], new, reference, np.nextafter(reference, 0)])
        below = np.searchsorted(reference, thresholds, "right")
        count = np.searchsorted(new, thresholds, "right")
        missed += (count < limits[below, 0]).any(), (count > limits[below, 1]).any()
    # three standard errors of 600 draws above 5 %
    assert (missed / 600 <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5).all()


@pytest.mark.coverage
def test_ties_never_make_the_band_too_narrow() -> None:
    """Scores rounded to ten values keep the band, since ties count against the limits."""
    rng = np.random.default_rng(2)
    band = rank_band(200, 200, level=0.9, rng=rng)
    limits = np.array([band.limits(k) for k in range(201)])
    missed = np.zeros(2)
    for _ in range(300):
        new, reference = rng.integers(10, size=200), rng.integers(10, size=200)
        for threshold in range(-1, 10):
            k, count = (reference <= threshold).sum(), (new <= threshold).sum()
            missed += count < limits[k, 0], count > limits[k, 1]
    assert (missed / 300 <= 0.05).all()


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 100))
def test_limits_grow_with_the_references_below(n_new: int, n_reference: int, seed: int) -> None:
    """Limits lie within 0 and all new scores, the lower below the upper, and grow with the references."""
    band = rank_band(n_new, n_reference, draws=1000, rng=np.random.default_rng(seed))
    limits = np.array([band.limits(k) for k in range(n_reference + 1)])
    assert (limits[:, 0] >= 0).all()
    assert (limits[:, 1] <= n_new).all()
    assert (limits[:, 0] <= limits[:, 1]).all()
    assert (np.diff(limits, axis=0) >= 0).all()


def test_band_of_a_large_pool_is_as_narrow_as_the_references_allow() -> None:
    """With 10^9 new scores and 20,000 references at their middle the limits are some 2 % apart."""
    band = rank_band(10**9, 20_000, rng=np.random.default_rng(0))
    lower, upper = band.limits(10_000)
    assert 0.47e9 < lower < 0.5e9 < upper < 0.53e9


def test_without_references_nothing_is_excluded() -> None:
    """No reference leaves every number open."""
    assert rank_band(10, 0, rng=np.random.default_rng(0)).limits(0) == (0, 10)


def test_counts_below_zero_are_refused() -> None:
    """A negative count is named."""
    with pytest.raises(InputError, match="n_new"):
        rank_band(-1, 3, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="draws"):
        rank_band(1, 3, draws=10, rng=np.random.default_rng(0))
