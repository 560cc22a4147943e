"""Tests of conformal p-values and Benjamini-Hochberg: exact ranks, valid laws, and a rate that holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest

from poolproof.detectors.conformal import (
    benjamini_hochberg,
    conformal_pvalues,
    conformal_threshold,
    references_for_fpr,
    smallest_reference,
)
from poolproof.errors import InputError, UnreliableEstimate

scores = st.lists(st.integers(-4, 4), min_size=1, max_size=20)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(items=scores, references=scores)
def test_pvalues_are_ranks(items: list[int], references: list[int]) -> None:
    """A p-value counts references at or above the item, itself included; broken ties are never larger."""
    s, real = np.array(items, float), np.array(references, float)
    found = conformal_pvalues(s, real)
    expected = [(1 + sum(r >= x for r in references)) / (len(references) + 1) for x in items]
    np.testing.assert_array_equal(found, expected)
    broken = conformal_pvalues(s, real, rng=np.random.default_rng(0))
    assert (broken > 0).all()
    assert (broken <= found).all()


@pytest.mark.property
def test_a_real_item_is_super_uniform_exactly() -> None:
    """With each of n + 1 exchangeable scores as the item in turn, at most k of them have p <= k/(n + 1)."""
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=40), rng.integers(0, 5, 40).astype(float)):
        p = np.array([conformal_pvalues(values[i : i + 1], np.delete(values, i))[0] for i in range(40)])
        for k in range(1, 41):
            assert (p <= k / 40 + 1e-12).sum() <= k


@pytest.mark.theory
def test_broken_ties_are_uniform() -> None:
    """With ties broken, p-values of real items are uniform although the scores are few."""
    rng = np.random.default_rng(2)
    p = [
        conformal_pvalues(np.floor(rng.random(1) * 3), np.floor(rng.random(9) * 3), rng=rng)[0]
        for _ in range(4000)
    ]
    assert kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.reference
@settings(deadline=None, max_examples=60)
@given(p=st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_qvalues_are_those_of_scipy(p: list[int]) -> None:
    """q-values equal scipy's adjusted p-values, ties and ends included."""
    values = np.array(p) / 20
    found = benjamini_hochberg(values, 0.1)
    np.testing.assert_allclose(found.qvalues, false_discovery_control(values), atol=1e-15)
    np.testing.assert_array_equal(found.keep, found.qvalues > 0.1 * (1 + 1e-12))


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(p=st.lists(st.integers(1, 40), min_size=1, max_size=40), rate=st.sampled_from([0.05, 0.1, 0.3]))
def test_the_largest_step_below_the_line_is_removed(p: list[int], rate: float) -> None:
    """By whole numbers: as many items go as the largest k whose k-th p-value is at most rate k/n."""
    from fractions import Fraction

    exact, n = sorted(Fraction(x, 40) for x in p), len(p)
    line = Fraction(str(rate))
    removed = max(k for k in range(n + 1) if k == 0 or exact[k - 1] <= line * k / n)
    assert (~benjamini_hochberg(np.array(p) / 40, rate).keep).sum() == removed


@pytest.mark.coverage
@pytest.mark.parametrize(
    ("gap", "ties", "random"), [(2.0, False, False), (3.5, True, False), (3.0, True, True)]
)
def test_false_discovery_rate_holds(gap: float, ties: bool, random: bool) -> None:
    """On average over pools and references the share of real items among the removed is at most the rate."""
    rng, rate, repetitions, shares, power = np.random.default_rng(3), 0.2, 300, [], 0
    for _ in range(repetitions):
        real, pool = rng.normal(size=150), rng.normal(size=200)
        synthetic = np.arange(200) < 60
        pool += gap * synthetic
        if ties:
            real, pool = real.round(), pool.round()
        p = conformal_pvalues(pool, real, rng=rng if random else None)
        gone = ~benjamini_hochberg(p, rate).keep
        shares.append((gone & ~synthetic).sum() / max(gone.sum(), 1))
        power += (gone & synthetic).sum() / 60 / repetitions
    assert np.mean(shares) <= rate + 3 * np.std(shares) / math.sqrt(repetitions)
    assert power > 0.15


def test_a_contaminated_reference_is_conservative() -> None:
    """Synthetic images among the real references make every p-value larger."""
    rng = np.random.default_rng(4)
    clean, items = rng.normal(size=90), rng.normal(size=30) + 2
    mixed = np.concatenate([clean[:80], np.full(10, 99.0)])
    sized = np.concatenate([clean[:80], np.sort(clean)[:10]])
    assert (conformal_pvalues(items, mixed) >= conformal_pvalues(items, sized)).all()


@pytest.mark.theory
@pytest.mark.parametrize(
    ("rate", "k", "n", "size"),
    [(0.1, 10, 1000, 999), (0.05, 1, 100, 1999), (0.3, 50, 100, 6), (0.5, 7, 7, 1)],
)
def test_smallest_reference_is_where_removal_begins(rate: float, k: int, n: int, size: int) -> None:
    """With that many references items above them all go; with one less nothing does."""
    assert smallest_reference(rate, k, n) == size
    items = np.where(np.arange(n) < k, 9.0, -9.0)
    assert (~benjamini_hochberg(conformal_pvalues(items, np.zeros(size)), rate).keep).sum() == k
    if size > 1:
        fewer = benjamini_hochberg(conformal_pvalues(items, np.zeros(size - 1)), rate)
        assert fewer.keep.all()


@pytest.mark.theory
@pytest.mark.parametrize(("n", "fpr"), [(19, 0.05), (99, 0.01), (40, 0.1), (57, 0.3)])
def test_a_new_real_item_exceeds_the_threshold_as_stated(n: int, fpr: float) -> None:
    """Of n + 1 exchangeable scores at most the stated share exceeds the threshold of the others."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=n + 1)
    above = [values[i] > conformal_threshold(np.delete(values, i), fpr) for i in range(n + 1)]
    assert fpr * (n + 1) - 1 < sum(above) <= fpr * (n + 1) + 1e-9
    threshold = conformal_threshold(values[1:], fpr)
    flagged = conformal_pvalues(values, values[1:]) <= fpr + 1e-12
    np.testing.assert_array_equal(flagged, values > threshold)


def test_bad_input_is_named() -> None:
    """NaN, empty references, rates out of range and too few references are refused with the remedy."""
    some = np.arange(5.0)
    with pytest.raises(InputError, match=r"^scores: got NaN"):
        conformal_pvalues(some * np.nan, some)
    with pytest.raises(InputError, match=r"^real_scores: got no scores"):
        conformal_pvalues(some, some[:0])
    with pytest.raises(InputError, match=r"^pvalues: "):
        benjamini_hochberg(some, 0.1)
    with pytest.raises(InputError, match=r"^rate: "):
        benjamini_hochberg(some / 9, 1.0)
    with pytest.raises(InputError, match=r"^n_flagged: "):
        smallest_reference(0.1, 0, 10)
    with pytest.raises(InputError, match=r"^n_flagged: "):
        smallest_reference(0.1, 11, 10)
    with pytest.raises(UnreliableEstimate, match=r"got 18 real references .* allowed 19 or more"):
        conformal_threshold(np.arange(18.0), 0.05)
    assert references_for_fpr(0.01) == 99
    assert conformal_pvalues(some[:0], some).shape == (0,)
    assert benjamini_hochberg(some[:0], 0.1).keep.shape == (0,)
