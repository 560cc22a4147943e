"""Tests of cross-fitting: honest rates, stable scores, and shares that are covered from features to interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from poolproof.detectors.calibrate import area_under_curve, cross_fit, real_only
from poolproof.detectors.neighbours import knn_score, real_distance
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
    with pytest.raises(UnreliableEstimate, match="got 9 references, allowed 10 or more"):
        real_only(draw(rng, 9, 0.0), rng=rng)


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
    with pytest.raises(InputError, match=r"^k: "):
        real_only(real, k=12, rng=rng)
    with pytest.raises(InputError, match=r"^real: .*NaN"):
        real_only(real * np.nan, rng=rng)


def test_real_only_counts_on_references_outside_its_bank() -> None:
    """The bank holds 60 %, the counts are those of the others, and the score is the distance to the bank."""
    rng = np.random.default_rng(9)
    real = draw(rng, 100, 0.0)
    fit = real_only(real, rng=rng)
    assert (len(fit.bank), fit.n) == (60, 40)
    known = {row.tobytes() for row in fit.bank}
    scaled = fit.scaling.apply(real)
    held_out = np.array([row for row, s in zip(real, scaled, strict=True) if s.tobytes() not in known])
    scores = fit.score(held_out)
    np.testing.assert_array_equal(np.sort(scores), np.sort(fit.held_out_scores))
    assert fit.false_positives == int((scores > fit.threshold).sum())
    np.testing.assert_array_equal(scores, real_distance(fit.scaling.apply(held_out), fit.bank))
    own = real_distance(fit.bank, fit.bank, same=True)
    assert (own > fit.threshold).mean() <= 0.05


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
@pytest.mark.parametrize("shift", [0.3, 1.2])
def test_the_bound_holds_for_a_generator_nobody_knows(shift: float) -> None:
    """Real references alone bound a share of 0.2 from below, for a generator near to real and for one far off."""
    rng, share, repetitions, above, bounds = np.random.default_rng(13), 0.2, 40, 0, []
    for _ in range(repetitions):
        fit = real_only(draw(rng, 300, 0.0), rng=rng)
        flagged = int((fit.score(pool(rng, 1000, share, shift)) > fit.threshold).sum())
        bounds.append(lower_bound(flagged, 1000, fit.false_positives, fit.n).lower)
        above += bounds[-1] > share
    assert above / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    if shift > 1:
        assert np.mean(bounds) > 0.05


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
