"""The detectors as scikit-learn estimators, by scikit-learn's own checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from poolproof.detectors.estimators import RealDistance, SyntheticNeighbours, SyntheticProbe
from poolproof.detectors.knn import fit_knn, fit_real_distance
from poolproof.detectors.probe import fit_probe
from poolproof.errors import InputError

ESTIMATORS = [SyntheticProbe(), SyntheticNeighbours(), SyntheticNeighbours(metric="cosine"), RealDistance()]


def expected_failures(estimator: Any) -> dict[str, str]:
    """What an estimator cannot do, and why."""
    if isinstance(estimator, SyntheticNeighbours) and estimator.metric == "cosine":
        return {"check_estimators_dtypes": "its data have a row of zeros, which has no direction"}
    return {}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_scikit_learn_finds_nothing_to_object_to(estimator: Any, check: Any) -> None:
    """Every check that scikit-learn has for such an estimator passes."""
    check(estimator)


@pytest.fixture
def classes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of 60 real and 40 synthetic items, and labels 0 and 1."""
    features = rng.normal(size=(100, 6))
    labels = np.repeat([0, 1], [60, 40])
    features[labels == 1] += 1.5
    return features, labels


def test_estimators_are_the_detectors(classes: tuple[np.ndarray, np.ndarray]) -> None:
    """Scores less thresholds are those of the fitted detectors, and score is the accuracy."""
    features, labels = classes
    real, synthetic = features[labels == 0], features[labels == 1]
    probe = SyntheticProbe().fit(features, labels)
    np.testing.assert_array_equal(
        probe.decision_function(features), fit_probe(real, synthetic).score(features).astype(np.float64)
    )
    assert probe.score(features, labels) == np.mean((probe.decision_function(features) > 0) == labels) > 0.9
    neighbours, detector = SyntheticNeighbours(k=3).fit(features, labels), fit_knn(real, synthetic, k=3)
    expected = detector.score(features).values.astype(np.float64) - detector.threshold
    np.testing.assert_array_equal(neighbours.decision_function(features), expected)
    far = RealDistance(k=2, quantile=0.9).fit(real)
    expected = fit_real_distance(real, k=2, quantile=0.9).score(features)
    np.testing.assert_array_equal(far.score_samples(features), -expected.values.astype(np.float64))
    assert set(far.predict(features)) == {-1, 1}
    assert np.mean(far.predict(synthetic) == -1) > np.mean(far.predict(real) == -1)


@pytest.mark.parametrize("estimator", [SyntheticProbe(), SyntheticNeighbours()])
def test_labels_may_be_words(estimator: Any, classes: tuple[np.ndarray, np.ndarray]) -> None:
    """The words real and synthetic stand for 0 and 1, and come back as they were."""
    features, labels = classes
    words = np.array(["real", "synthetic"])[labels]
    by_word, by_number = estimator.fit(features, words).predict(features), None
    by_number = estimator.fit(features, labels).predict(features)
    np.testing.assert_array_equal(by_word, np.array(["real", "synthetic"])[by_number])


def test_pipelines_and_searches_take_them(classes: tuple[np.ndarray, np.ndarray]) -> None:
    """They cross-validate in a pipeline, and a grid search sets their parameters."""
    pipeline = make_pipeline(StandardScaler(), SyntheticProbe())
    assert cross_val_score(pipeline, *classes, cv=3, scoring="roc_auc").min() > 0.9
    search = GridSearchCV(SyntheticNeighbours(), {"k": [1, 3]}, cv=2).fit(*classes)
    assert search.best_params_["k"] in (1, 3)


def test_one_class_and_bad_settings_are_refused(classes: tuple[np.ndarray, np.ndarray]) -> None:
    """One class cannot be told from another, settings are checked in fit, and zeros have no direction."""
    features, labels = classes
    with pytest.raises(ValueError, match="1 class"):
        SyntheticProbe().fit(features, np.zeros(100))
    with pytest.raises(InputError, match="regularisation"):
        SyntheticProbe(regularisation=0.0).fit(features, labels)
    with pytest.raises(InputError, match="metric"):
        SyntheticNeighbours(metric="cubic").fit(features, labels)
    with pytest.raises(InputError, match="quantile"):
        RealDistance(quantile=1.0).fit(features)
    cosine = SyntheticNeighbours(metric="cosine").fit(features, labels)
    with pytest.raises(InputError, match="direction"):
        cosine.predict(np.zeros((1, 6)))
