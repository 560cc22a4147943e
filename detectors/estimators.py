"""The detectors as scikit-learn estimators, for pipelines, searches and comparisons. Needs nothing but features."""

from __future__ import annotations

import abc
from typing import Any, final

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.knn import fit_knn, fit_real_distance
from poolproof.detectors.probe import REGULARISATION, fit_probe_detector
from poolproof.errors import InputError


class AbstractClassifier(ClassifierMixin, BaseEstimator, abc.ABC):
    """A detector of two classes as a classifier.

    Labels are 0 and 1, `real` and `synthetic`, or any two values: the second in sorted order is synthetic.
    """

    def fit(self, X: Any, y: Any) -> AbstractClassifier:
        """Fits the detector; returns the estimator.

        Args:
            X: features, one row an item, finite.
            y: labels.
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            n = len(self.classes_)
            raise ValueError(
                f"Only binary classification is supported. y: got {n} class{'es' * (n > 1)}, allowed 2: "
                "real and synthetic"
            )
        synthetic = y == self.classes_[1]
        self.detector_ = self._fit_detector(X[~synthetic], X[synthetic])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the score less the threshold of each item; above 0 = synthetic."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=(np.float64, np.float32))
        return _scores(self.detector_, X) - self.detector_.threshold

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each item."""
        flagged = self.decision_function(X) > 0
        return self.classes_[flagged.astype(int)]

    @abc.abstractmethod
    def _fit_detector(self, real: np.ndarray, synthetic: np.ndarray) -> AbstractDetector:
        """Return the detector fitted on both classes."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


@final
class SyntheticProbe(AbstractClassifier):
    """A linear probe on standardised features, classes weighted equally.

    Args:
        regularisation: inverse strength of the penalty, above 0.

    Attributes:
        detector_: the `ProbeDetector`.
        classes_: both labels, synthetic second.
        n_features_in_: number of features.
    """

    def __init__(self, regularisation: Any = REGULARISATION) -> None:  # checked in fit, as is the custom
        self.regularisation = regularisation

    def _fit_detector(self, real: np.ndarray, synthetic: np.ndarray) -> Any:
        return fit_probe_detector(real, synthetic, regularisation=self.regularisation)


@final
class SyntheticNeighbours(AbstractClassifier):
    """Nearer to synthetic than to real references.

    Args:
        k: neighbours in each class; lowered where a class has too few items.
        metric: `standardised` or `cosine`.

    Attributes:
        detector_: the `KNNDetector`.
        classes_: both labels, synthetic second.
        n_features_in_: number of features.
    """

    def __init__(self, k: Any = 5, metric: Any = "standardised") -> None:
        self.k = k
        self.metric = metric

    def _fit_detector(self, real: np.ndarray, synthetic: np.ndarray) -> Any:
        k = min(self.k, max(1, len(real) - 1), max(1, len(synthetic) - 1))
        return fit_knn(real, synthetic, k=k, metric=self.metric)


@final
class RealDistance(OutlierMixin, BaseEstimator):
    """Distance from real references, as an outlier detector: outliers (-1) are what lies far from all of them.

    As scikit-learn has it, larger values are more normal here; `detector_` has the score of which larger is more
    synthetic.

    Args:
        k: the neighbour whose distance counts; lowered where there are too few items.
        quantile: of the references' own distances, in (0, 1): the threshold.

    Attributes:
        detector_: the `RealDistanceDetector`.
        offset_: the threshold of `score_samples`.
        n_features_in_: number of features.
    """

    def __init__(self, k: Any = 5, quantile: Any = 0.95) -> None:
        self.k = k
        self.quantile = quantile

    def fit(self, X: Any, y: Any = None) -> RealDistance:
        """Fits the detector on real references; returns the estimator.

        Args:
            X: features of real references, one row an item, finite.
            y: not used.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        self.detector_ = fit_real_distance(X, k=min(self.k, len(X) - 1), quantile=self.quantile)
        self.offset_ = -self.detector_.threshold
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the negative score of each item; larger = nearer to the real references."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=(np.float64, np.float32))
        return -_scores(self.detector_, X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return how far each item lies within the threshold; below 0 = flagged."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for what is flagged and 1 for the others."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _scores(detector: AbstractDetector, features: np.ndarray) -> np.ndarray:
    scores = detector.score(features)
    if scores.abstained.any():
        n = int(scores.abstained.sum())
        raise InputError(f"X: got {n} rows without a direction, allowed others than zeros: leave them out")
    return scores.values.astype(np.float64)
