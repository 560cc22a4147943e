"""Tests of cross-fitting: honest rates, stable scores, and shares that are covered from features to interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from jaxtyping import Float, Float64
from toy_detectors import Direction, fit_direction

from poolproof.detectors.crossfit import cross_fit
from poolproof.detectors.neighbours import knn_score
from poolproof.detectors.prevalence import interval, lower_bound
from poolproof.detectors.probe import fit_probe
from poolproof.detectors.scaling import fit_scaling
from poolproof.errors import InputError, UnreliableEstimate

D = 8


def draw(rng: np.random.Generator, n: int, shift: float) -> Float64[np.ndarray, "n d"]:
    """Return n normal items whose features are all moved by `shift`."""
    return rng.normal(size=(n, D)) + shift


def pool(rng: np.random.Generator, n: int, share: float, shift: float) -> Float64[np.ndarray, "n d"]:
    """Return n items of which each is synthetic with probability `share`."""
    synthetic = rng.random(n) < share
    return draw(rng, n, 0.0) + shift * synthetic[:, None]


def test_references_are_scored_by_the_fold_that_holds_them_out() -> None:
    """Each held-out score is that of a probe and a bank made without the item's fold."""
    rng = np.random.default_rng(1)
    real, synthetic = draw(rng, 31, 0.0), draw(rng, 24, 0.7)
    fit = cross_fit(real, synthetic, folds=4, k=3, rng=rng)
    assert fit.real_knn is not None
    assert fit.synthetic_knn is not None
    for i in range(4):
        others = real[fit.real_fold != i], synthetic[fit.synthetic_fold != i]
        probe = fit_probe(*others)
        for features, fold, scores, by_neighbours in (
            (real, fit.real_fold, fit.real_scores, fit.real_knn),
            (synthetic, fit.synthetic_fold, fit.synthetic_scores, fit.synthetic_knn),
        ):
            np.testing.assert_array_equal(scores[fold == i], probe.score(features[fold == i]))
            apply = fit_scaling(np.concatenate(others)).apply
            expected = knn_score(apply(features[fold == i]), *map(apply, others), k=3)
            np.testing.assert_array_equal(by_neighbours[fold == i], expected)
    assert fit.fpr == (int((fit.real_scores > 0).sum()), 31)
    assert fit.tpr == (int((fit.synthetic_scores > 0).sum()), 24)
    assert fit.folds == 4


def test_items_are_scored_by_the_fold_that_is_asked_for() -> None:
    """A reference with its own fold gets its held-out score; mixed folds are put back in item order."""
    rng = np.random.default_rng(2)
    real, synthetic = draw(rng, 30, 0.0), draw(rng, 30, 0.7)
    fit = cross_fit(real, synthetic, rng=rng)
    np.testing.assert_array_equal(fit.score(real, fit.real_fold), fit.real_scores)
    assert fit.synthetic_knn is not None
    np.testing.assert_array_equal(fit.knn_score(synthetic, fit.synthetic_fold), fit.synthetic_knn)
    assert fit.score(real[:0], fit.real_fold[:0]).shape == (0,)


@pytest.mark.property
def test_scores_do_not_depend_on_the_batch() -> None:
    """An item with a fold has the same scores in any shard, to the last bit."""
    rng = np.random.default_rng(3)
    fit = cross_fit(draw(rng, 40, 0.0), draw(rng, 40, 0.5), rng=rng)
    items, fold = pool(rng, 50, 0.5, 0.5).astype(np.float32), np.arange(50) % fit.folds
    whole, near = fit.score(items, fold), fit.knn_score(items, fold)
    for part in (slice(0, 1), slice(3, 20), slice(20, 50)):
        np.testing.assert_array_equal(fit.score(items[part], fold[part]), whole[part])
        np.testing.assert_array_equal(fit.knn_score(items[part], fold[part]), near[part])


def test_the_same_seed_gives_the_same_fit() -> None:
    """Two fits from equal generators agree in folds, scores and rates."""
    rng = np.random.default_rng(4)
    real, synthetic = draw(rng, 30, 0.0), draw(rng, 30, 0.5)
    first, second = (cross_fit(real, synthetic, rng=np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first.real_fold, second.real_fold)
    np.testing.assert_array_equal(first.synthetic_scores, second.synthetic_scores)
    assert (first.tpr, first.fpr, first.auc) == (second.tpr, second.fpr, second.auc)


@pytest.mark.parametrize(
    ("real", "synthetic", "asked", "folds"), [(10, 40, 8, 5), (40, 10, 5, 5), (12, 30, 20, 6)]
)
def test_small_references_get_fewer_folds(real: int, synthetic: int, asked: int, folds: int) -> None:
    """Every fold holds out two references or more of each class, as evenly as they go."""
    rng = np.random.default_rng(5)
    fit = cross_fit(draw(rng, real, 0.0), draw(rng, synthetic, 0.5), folds=asked, k=3, rng=rng)
    assert fit.folds == folds
    for fold in (fit.real_fold, fit.synthetic_fold):
        sizes = np.bincount(fold, minlength=folds)
        assert sizes.min() >= 2
        assert sizes.max() - sizes.min() <= 1


def test_references_of_one_distribution_show_no_skill() -> None:
    """Where the classes do not differ, held-out rates are alike although the features are many."""
    rng = np.random.default_rng(6)
    fit = cross_fit(rng.normal(size=(100, 300)), rng.normal(size=(100, 300)), rng=rng)
    assert fit.auc.lower < 0.5 < fit.auc.upper
    assert abs(fit.tpr[0] - fit.fpr[0]) < 25


def test_too_few_references_say_how_many_are_needed() -> None:
    """Nine references of a class carry no rate; the message names ten."""
    rng = np.random.default_rng(7)
    for real, synthetic in ((9, 50), (50, 9)):
        with pytest.raises(UnreliableEstimate, match="got 9 references, allowed 10 or more"):
            cross_fit(draw(rng, real, 0.0), draw(rng, synthetic, 0.5), rng=rng)


def test_bad_input_is_named() -> None:
    """Folds out of range, NaN and too large a k are refused."""
    rng = np.random.default_rng(8)
    real, synthetic = draw(rng, 20, 0.0), draw(rng, 20, 0.5)
    fit = cross_fit(real, synthetic, rng=rng)
    for wrong in (-1, 5):
        with pytest.raises(InputError, match=r"^fold: "):
            fit.score(real[:2], np.array([0, wrong]))
    with pytest.raises(InputError, match=r"^folds: "):
        cross_fit(real, synthetic, folds=1, rng=rng)
    with pytest.raises(InputError, match=r"^k: "):
        cross_fit(real, synthetic, k=17, rng=rng)


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("references", [30, 150])
def test_shares_are_covered_from_features_to_interval(references: int) -> None:
    """Cross-fitting, counting and melding together hold a share of 0.2 as often as they say, less chance."""
    rng, share, shift, repetitions, held = np.random.default_rng(12), 0.2, 0.8, 60, 0
    points = []
    for _ in range(repetitions):
        fit = cross_fit(draw(rng, references, 0.0), draw(rng, references, shift), rng=rng)
        items = pool(rng, 2000, share, shift)
        flagged = int((fit.score(items, np.arange(2000) % fit.folds) > fit.threshold).sum())
        found = interval(flagged, 2000, *fit.tpr, *fit.fpr)
        held += found.lower <= share <= found.upper
        points.append(found.point)
    assert held / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)
    assert np.mean(points) == pytest.approx(
        share, abs=4 * float(np.std(points)) / math.sqrt(repetitions) + 0.01
    )


@pytest.mark.coverage
def test_the_bound_holds_where_the_probe_meets_another_generator() -> None:
    """With a generator between the known one and real images, the bound from the probe's real counts still holds."""
    rng, share, repetitions, above = np.random.default_rng(14), 0.2, 25, 0
    for _ in range(repetitions):
        fit = cross_fit(draw(rng, 80, 0.0), draw(rng, 80, 1.0), rng=rng)
        items = pool(rng, 1000, share, 0.5)
        flagged = int((fit.score(items, np.arange(1000) % fit.folds) > fit.threshold).sum())
        above += lower_bound(flagged, 1000, *fit.fpr).lower > share
    assert above / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_another_detector_is_fitted_and_scored_by_folds() -> None:
    """A given fit sees all but a fold, and scores are heights above its own threshold."""
    rng = np.random.default_rng(15)
    real, synthetic = draw(rng, 33, 0.0), draw(rng, 27, 0.9)
    fit = cross_fit(real, synthetic, folds=3, fit=fit_direction, rng=rng)
    assert (fit.k, fit.real_knn, fit.synthetic_knn, fit.threshold) == (None, None, None, 0.0)
    for i in range(3):
        expected = fit_direction(real[fit.real_fold != i], synthetic[fit.synthetic_fold != i], rng)
        assert fit.thresholds[i] == expected.threshold
        mine = fit.real_fold == i
        heights = expected.score(real[mine]).values - expected.threshold
        np.testing.assert_allclose(fit.real_scores[mine], heights, atol=1e-6)
    assert fit.fpr == (int((fit.real_scores > 0).sum()), 33)
    assert fit.tpr == (int((fit.synthetic_scores > 0).sum()), 27)
    np.testing.assert_array_equal(fit.score(real, fit.real_fold), fit.real_scores)
    with pytest.raises(InputError, match="knn_score"):
        fit.knn_score(real, fit.real_fold)


def test_a_fit_that_draws_has_a_stream_of_its_own_per_fold() -> None:
    """Folds draw differently, equal seeds equally."""

    def fit(
        real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
    ) -> Direction:
        return Direction(rng.normal(size=D))

    rng = np.random.default_rng(16)
    real, synthetic = draw(rng, 30, 0.0), draw(rng, 30, 0.5)
    first, second = (cross_fit(real, synthetic, fit=fit, rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first.real_scores, second.real_scores)
    ways = [detector.direction for detector in first.detectors if isinstance(detector, Direction)]
    assert len({way.tobytes() for way in ways}) == 5


def test_references_without_an_answer_are_counted_and_left_out() -> None:
    """Rows that are not finite, or that the detector abstains from, count in no rate."""
    rng = np.random.default_rng(17)
    real, synthetic = draw(rng, 40, 0.0), draw(rng, 30, 0.9)
    real[:4], synthetic[:2, 0] = np.nan, np.inf
    whole = cross_fit(real[4:], synthetic[2:], rng=np.random.default_rng(1))
    fit = cross_fit(real, synthetic, rng=np.random.default_rng(1))
    assert (fit.real_abstained, fit.synthetic_abstained) == (4, 2)
    assert (fit.tpr, fit.fpr, fit.auc) == (whole.tpr, whole.fpr, whole.auc)
    answer = fit.answer(real, np.zeros(40, np.int64))
    np.testing.assert_array_equal(answer.abstained, np.arange(40) < 4)
    with pytest.raises(InputError, match="got 4 items without an answer"):
        fit.score(real, np.zeros(40, np.int64))

    def shy(
        real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
    ) -> Direction:
        return Direction(np.ones(D), 0.0, limit=6.0)

    fit = cross_fit(real[4:], synthetic[2:], fit=shy, rng=rng)
    sums = [features.sum(axis=1) for features in (real[4:], synthetic[2:])]
    assert fit.real_abstained == (np.abs(sums[0]) > 6).sum()
    assert fit.tpr == (((sums[1] > 0) & (sums[1] <= 6)).sum(), (np.abs(sums[1]) <= 6).sum())
    assert len(fit.real) == len(fit.real_fold) == len(fit.real_scores) == fit.fpr[1]
    with pytest.raises(UnreliableEstimate, match="got 9 references with finite features of 40"):
        cross_fit(np.where(np.arange(40)[:, None] < 9, 1.0, np.full((40, D), np.nan)), synthetic, rng=rng)


@pytest.mark.coverage
@pytest.mark.parametrize("default", [True, False])
def test_stated_error_is_kept_on_average(default: bool) -> None:
    """Over references, cross-fitted detectors flag real items no more often than stated, and the counts say so."""
    rng, rate, true, counted = np.random.default_rng(18), 0.05, [], []
    repetitions = 15 if default else 60
    fresh = draw(rng, 4000, 0.0)
    for _ in range(repetitions):
        real, synthetic = draw(rng, 110, 0.0), draw(rng, 60, 1.0)
        fit = cross_fit(real, synthetic, fit=None if default else fit_direction, max_fpr=rate, rng=rng)
        true.append((fit.score(fresh, np.arange(4000) % 5) > fit.threshold).mean())
        counted.append(fit.fpr[0] / fit.fpr[1])
    error = float(np.std(true)) / math.sqrt(repetitions)
    assert np.mean(true) <= rate + 3 * error
    assert np.mean(true) > rate / 2
    assert np.mean(counted) == pytest.approx(
        np.mean(true), abs=4 * float(np.std(counted)) / math.sqrt(repetitions)
    )


def test_thresholds_of_stated_error_come_from_reserved_folds() -> None:
    """A fold's detector sees neither the fold nor the next one, whose real scores set its threshold."""
    rng = np.random.default_rng(19)
    real, synthetic = draw(rng, 100, 0.0), draw(rng, 50, 1.0)
    fit = cross_fit(real, synthetic, fit=fit_direction, max_fpr=0.05, rng=rng)
    for i in range(5):
        ahead = (fit.real_fold - i) % 5
        expected = fit_direction(real[ahead > 1], synthetic[fit.synthetic_fold != i], rng)
        assert fit.thresholds[i] == expected.score(real[ahead == 1]).values.max()
    # 1 % needs 99 real references: two folds of 50
    fit = cross_fit(draw(rng, 250, 0.0), synthetic, fit=fit_direction, max_fpr=0.01, rng=rng)
    assert fit.folds == 5
    with pytest.raises(UnreliableEstimate, match="got 240 references in 5 folds, allowed 250 or more"):
        cross_fit(draw(rng, 240, 0.0), synthetic, max_fpr=0.01, rng=rng)
    with pytest.raises(InputError, match=r"^max_fpr: "):
        cross_fit(real, synthetic, max_fpr=0.0, rng=rng)
    with pytest.raises(InputError, match=r"^folds: got 2, allowed 3 or more with max_fpr"):
        cross_fit(real, synthetic, folds=2, max_fpr=0.1, rng=rng)


def test_a_detector_without_a_threshold_needs_a_stated_error() -> None:
    """An infinite threshold is refused unless one is set by stated error."""

    def fit(
        real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
    ) -> Direction:
        return Direction(np.ones(D), math.inf)

    rng = np.random.default_rng(20)
    real, synthetic = draw(rng, 100, 0.0), draw(rng, 50, 1.0)
    with pytest.raises(InputError, match=r"^threshold: got inf"):
        cross_fit(real, synthetic, fit=fit, rng=rng)
    assert cross_fit(real, synthetic, fit=fit, max_fpr=0.1, rng=rng).tpr[0] > 25


@pytest.mark.slow
@pytest.mark.coverage
def test_shares_are_covered_with_a_stated_error() -> None:
    """Nested thresholds, counting and melding together hold a share of 0.2 as often as they say, less chance."""
    rng, share, repetitions, held = np.random.default_rng(21), 0.2, 60, 0
    for _ in range(repetitions):
        real, synthetic = draw(rng, 120, 0.0), draw(rng, 60, 0.8)
        fit = cross_fit(real, synthetic, fit=fit_direction, max_fpr=0.1, rng=rng)
        items = pool(rng, 2000, share, 0.8)
        flagged = int((fit.score(items, np.arange(2000) % fit.folds) > fit.threshold).sum())
        found = interval(flagged, 2000, *fit.tpr, *fit.fpr)
        held += found.lower <= share <= found.upper
    assert held / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)
