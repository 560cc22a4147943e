"""Detectors made of the references themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from poolproof.detectors.knn import balance_threshold, fit_knn, fit_real_distance
from poolproof.detectors.neighbours import knn_score, real_distance
from poolproof.detectors.scaling import fit_scaling
from poolproof.errors import InputError


@pytest.fixture
def classes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real and synthetic references of unequal scales, and items."""
    scales = np.array([1.0, 30.0, 0.02, 5.0])
    real, synthetic, items = (rng.normal(size=(n, 4)) * scales for n in (40, 25, 15))
    return real.astype(np.float32), (synthetic + 0.8 * scales).astype(np.float32), items.astype(np.float32)


@pytest.mark.reference
def test_scores_are_those_of_standardised_neighbours(classes: tuple[np.ndarray, ...]) -> None:
    """The detector is `knn_score` on features standardised by both classes' references."""
    real, synthetic, items = classes
    scaling = fit_scaling(np.concatenate([real, synthetic]))
    expected = knn_score(scaling.apply(items), scaling.apply(real), scaling.apply(synthetic), 3)
    np.testing.assert_array_equal(fit_knn(real, synthetic, k=3).score(items).values, expected)


@pytest.mark.reference
def test_cosine_scores_are_those_of_scikit_learn(classes: tuple[np.ndarray, ...]) -> None:
    """By cosine, the score is the mean log-distance of directions, which scikit-learn's cosine gives too."""
    real, synthetic, items = classes
    logs = []
    for bank in (real, synthetic):
        model = NearestNeighbors(n_neighbors=4, metric="cosine").fit(bank.astype(np.float64))
        cosine_distances = model.kneighbors(items.astype(np.float64))[0]
        logs.append(np.log(np.sqrt(2 * cosine_distances)).mean(axis=1))
    found = fit_knn(real, synthetic, k=4, metric="cosine").score(items)
    np.testing.assert_allclose(found.values, logs[0] - logs[1], atol=1e-5)
    longer = fit_knn(real * 7, synthetic, k=4, metric="cosine").score(items / 3)
    np.testing.assert_allclose(longer.values, found.values, atol=1e-5)


def test_by_cosine_zeros_have_no_direction(classes: tuple[np.ndarray, ...]) -> None:
    """An item of zeros is abstained from, and references of zeros are refused."""
    real, synthetic, items = classes
    items[2] = 0
    scores = fit_knn(real, synthetic, metric="cosine").score(items)
    assert np.flatnonzero(scores.abstained).tolist() == [2]
    real[0] = 0
    with pytest.raises(InputError, match="zeros"):
        fit_knn(real, synthetic, metric="cosine")
    fit_knn(real, synthetic)


@pytest.mark.reference
def test_the_threshold_balances_scores_with_each_reference_left_out(classes: tuple[np.ndarray, ...]) -> None:
    """Scored one by one against the others, as many real references lie above it as synthetic ones do not."""
    real, synthetic, _ = classes
    scaling = fit_scaling(np.concatenate([real, synthetic]))
    x, y = scaling.apply(real), scaling.apply(synthetic)
    own = np.array([knn_score(x[i : i + 1], np.delete(x, i, 0), y, 5)[0] for i in range(len(x))])
    other = np.array([knn_score(y[i : i + 1], x, np.delete(y, i, 0), 5)[0] for i in range(len(y))])
    threshold = fit_knn(real, synthetic).threshold
    assert threshold == pytest.approx(balance_threshold(own, other), abs=1e-5)
    assert abs(np.mean(own > threshold) - np.mean(other <= threshold)) <= 1 / len(synthetic)


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(
    arrays(np.float32, st.integers(1, 12), elements=st.integers(-5, 5).map(float)),
    arrays(np.float32, st.integers(1, 12), elements=st.integers(-5, 5).map(float)),
)
def test_no_other_threshold_is_more_balanced(real: np.ndarray, synthetic: np.ndarray) -> None:
    """Of all cuts between two scores, none has shares of errors that are closer to each other."""
    cut = balance_threshold(real, synthetic)
    values = np.unique(np.concatenate([real, synthetic]))
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values

    def gap(c: float) -> float:
        return float(abs(np.mean(real > np.float32(c)) - np.mean(synthetic <= np.float32(c))))

    assert gap(cut) <= min(gap(c) for c in cuts) + 1e-9


def test_classes_apart_are_parted_in_the_middle() -> None:
    """Without overlap the threshold lies in the middle of the gap; between neighbours in float32, on the lower."""
    assert balance_threshold(np.array([0.0, 1.0], "f4"), np.array([3.0, 9.0], "f4")) == 2
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    cut = balance_threshold(np.array([low]), np.array([high]))
    assert low <= np.float32(cut) < high


@pytest.mark.reference
def test_real_distance_flags_the_share_beyond_its_quantile(classes: tuple[np.ndarray, ...]) -> None:
    """The score is `real_distance` in standardised space; the threshold is a quantile of left-out distances."""
    real, _, items = classes
    scaling = fit_scaling(real)
    bank = scaling.apply(real)
    detector = fit_real_distance(real, k=3, quantile=0.8)
    expected = real_distance(scaling.apply(items), bank, 3)
    np.testing.assert_array_equal(detector.score(items).values, expected)
    own = np.array([real_distance(bank[i : i + 1], np.delete(bank, i, 0), 3)[0] for i in range(len(bank))])
    assert np.mean(own > detector.threshold + 1e-6) == pytest.approx(0.2, abs=1.5 / len(bank))


@pytest.mark.parametrize("k", [0, -1, 25, 40])
def test_too_few_references_for_k_are_refused(classes: tuple[np.ndarray, ...], k: int) -> None:
    """Every class needs more references than k, since each is left out once; k = 24 of 25 is the last."""
    real, synthetic, _ = classes
    fit_knn(real, synthetic, k=24)
    fit_real_distance(real, k=39)
    for fit in (lambda: fit_knn(real, synthetic, k=k), lambda: fit_real_distance(synthetic, k=k)):
        with pytest.raises(InputError, match=f"k: got {k}, allowed 1 to 24"):
            fit()
    with pytest.raises(InputError, match="2 references"):
        fit_knn(real, real[:1], k=1)


def test_features_beyond_single_precision_are_refused(classes: tuple[np.ndarray, ...]) -> None:
    """Banks are kept in single precision, so a reference that it does not hold is refused."""
    real, synthetic, _ = classes
    wide = real.astype(np.float64)
    wide[0, 0] = 1e300
    with pytest.raises(InputError, match="infinity"):
        fit_knn(wide, synthetic)
    with pytest.raises(InputError, match="metric"):
        fit_knn(real, synthetic, metric="euclid")
    for quantile in (0.0, 1.0, np.nan):
        with pytest.raises(InputError, match="quantile"):
            fit_real_distance(real, quantile=quantile)
