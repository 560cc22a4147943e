"""Standardised features: scikit-learn's scaling, with limits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from poolproof.detectors.scaling import CLIP, fit_scaling


@pytest.mark.reference
def test_equals_scikit_learn(rng: np.random.Generator) -> None:
    """Within the limits it is scikit-learn's standard scaling."""
    features = rng.normal(3, 5, size=(200, 7))
    assert np.allclose(fit_scaling(features).apply(features), StandardScaler().fit_transform(features))


def test_outliers_are_kept_within_limits(rng: np.random.Generator) -> None:
    """A feature that hardly varied cannot grow beyond the limit."""
    features = rng.normal(0, 1e-6, size=(50, 2))
    assert np.abs(fit_scaling(features).apply(np.array([[1.0, -1.0]]))).tolist() == [[CLIP, CLIP]]


def test_constant_features_stay_at_zero() -> None:
    """A feature that never varied stays at 0 but for rounding, whatever its size."""
    features = np.full((30, 3), 0.1 + 1e8)
    assert np.abs(fit_scaling(features).apply(features)).max() < 1e-6


def test_single_precision_is_widened(rng: np.random.Generator) -> None:
    """Large offsets in single precision do not spoil the spread."""
    features = (rng.normal(0, 1, size=(500, 2)) + 4096).astype(np.float32)
    assert np.allclose(fit_scaling(features).apply(features).std(axis=0), 1, atol=1e-3)
