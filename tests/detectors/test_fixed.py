"""Tests of detectors that were fitted elsewhere: all references count, or half of the real ones set a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy_detectors import Direction

from poolproof.detectors.fixed import calibrate_fixed
from poolproof.detectors.prevalence import interval, lower_bound
from poolproof.detectors.roc import area_under_curve
from poolproof.errors import InputError, UnreliableEstimate

HEAD = Direction(np.ones(1), 1.0)


def column(values: np.ndarray) -> np.ndarray:
    """Return scores as features of one column."""
    return np.asarray(values, np.float64)[:, None]


def test_all_references_count_at_the_detectors_own_threshold() -> None:
    """Nothing is held back where nothing is set; scores are the detector's own."""
    real, synthetic = np.linspace(-2, 2, 50), np.linspace(0, 3, 40)
    fit = calibrate_fixed(HEAD, column(real), column(synthetic), rng=np.random.default_rng(0))
    assert (fit.threshold, fit.folds) == (1.0, 1)
    assert fit.fpr == ((real > 1).sum(), 50)
    assert fit.tpr == ((synthetic > 1).sum(), 40)
    assert fit.auc == area_under_curve(real.astype(np.float32), synthetic.astype(np.float32))
    np.testing.assert_array_equal(fit.score(column(real), np.zeros(50, np.int64)), real.astype(np.float32))


def test_a_stated_error_is_set_on_one_half_and_counted_on_the_other() -> None:
    """The halves are disjoint, the threshold is a score of the first, and the counts are those of the second."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=61)
    fit = calibrate_fixed(HEAD, column(real), column(real[:20] + 3), max_fpr=0.1, rng=rng)
    assert len(fit.real_scores) == 30
    assert fit.threshold in real.astype(np.float32)
    assert fit.threshold not in fit.real_scores
    assert fit.fpr == ((fit.real_scores > fit.threshold).sum(), 30)
    setting = np.setdiff1d(real.astype(np.float32), fit.real_scores)
    assert (setting > fit.threshold).sum() == 2  # of 31: 3/32 is the largest rate below 0.1


def test_real_references_alone_carry_false_positives() -> None:
    """Without synthetic references there is no rate and no area of theirs, and a lower bound can be had."""
    real = np.random.default_rng(2).normal(size=200)
    fit = calibrate_fixed(HEAD, column(real), max_fpr=0.05, rng=np.random.default_rng(0))
    assert (fit.tpr, fit.auc, fit.synthetic_scores) == (None, None, None)
    assert lower_bound(500, 1000, *fit.fpr).lower > 0.3


def test_references_without_an_answer_are_counted_and_left_out() -> None:
    """Abstentions are told and are in no rate; a pool's are told by a mask."""
    real, synthetic = np.linspace(-2, 2, 50), np.linspace(0, 3, 40)
    gaps = real.copy(), synthetic.copy()
    gaps[0][:5], gaps[1][-3:] = np.nan, np.inf
    fit = calibrate_fixed(HEAD, column(gaps[0]), column(gaps[1]), rng=np.random.default_rng(0))
    assert (fit.real_abstained, fit.synthetic_abstained) == (5, 3)
    assert fit.fpr == ((real[5:] > 1).sum(), 45)
    assert fit.tpr == ((synthetic[:-3] > 1).sum(), 37)
    answer = fit.answer(column(gaps[0]), np.zeros(50, np.int64))
    np.testing.assert_array_equal(answer.abstained, np.isnan(gaps[0]))
    with pytest.raises(InputError, match="got 5 items without an answer"):
        fit.score(column(gaps[0]), np.zeros(50, np.int64))


def test_bad_input_is_named() -> None:
    """Too few references, rates out of range, folds, and a missing threshold are refused."""
    rng, some = np.random.default_rng(3), column(np.arange(100.0))
    with pytest.raises(UnreliableEstimate, match=r"^real: got 9 references that the detector answers for"):
        calibrate_fixed(HEAD, some[:9], some, rng=rng)
    with pytest.raises(UnreliableEstimate, match=r"^synthetic: got 0 references"):
        calibrate_fixed(HEAD, some, some * np.nan, rng=rng)
    with pytest.raises(UnreliableEstimate, match=r"got 9 references .* in the half that is counted"):
        calibrate_fixed(HEAD, some[:19], some, max_fpr=0.5, rng=rng)
    with pytest.raises(UnreliableEstimate, match=r"got 50 real references .* allowed 99 or more"):
        calibrate_fixed(HEAD, some, some, max_fpr=0.01, rng=rng)
    with pytest.raises(InputError, match=r"^max_fpr: "):
        calibrate_fixed(HEAD, some, some, max_fpr=1.0, rng=rng)
    with pytest.raises(InputError, match=r"^threshold: got inf.* max_fpr"):
        calibrate_fixed(Direction(np.ones(1), math.inf), some, some, rng=rng)
    fit = calibrate_fixed(Direction(np.ones(1), math.inf), some, some, max_fpr=0.1, rng=rng)
    with pytest.raises(InputError, match=r"^fold: "):
        fit.score(some, np.ones(100, np.int64))


@pytest.mark.coverage
def test_shares_are_covered_with_a_stated_error() -> None:
    """Threshold, counts and melding together hold a share of 0.2 as often as they say, less chance."""
    rng, share, repetitions, held = np.random.default_rng(4), 0.2, 60, 0
    for _ in range(repetitions):
        real, synthetic = rng.normal(size=80), rng.normal(size=50) + 2
        fit = calibrate_fixed(HEAD, column(real), column(synthetic), max_fpr=0.1, rng=rng)
        items = rng.normal(size=1000) + 2 * (rng.random(1000) < share)
        assert fit.tpr is not None
        flagged = int((fit.score(column(items), np.zeros(1000, np.int64)) > fit.threshold).sum())
        found = interval(flagged, 1000, *fit.tpr, *fit.fpr)
        held += found.lower <= share <= found.upper
    assert held / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)
