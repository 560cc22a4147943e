"""Tests of the linear probe against scikit-learn, and of what it does with odd features."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from jaxtyping import Float32
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poolproof.detectors.probe import fit_probe
from poolproof.errors import InputError


def classes(
    n_real: int = 60, n_synthetic: int = 40, d: int = 8, seed: int = 1
) -> tuple[Float32[np.ndarray, "r d"], Float32[np.ndarray, "s d"]]:
    """Return two normal classes half a standard deviation apart in each feature."""
    rng = np.random.default_rng(seed)
    real, synthetic = rng.normal(size=(n_real, d)), rng.normal(size=(n_synthetic, d)) + 0.5
    return real.astype(np.float32), synthetic.astype(np.float32)


@pytest.mark.reference
@pytest.mark.parametrize("regularisation", [0.01, 0.1, 10.0])
def test_scores_are_those_of_a_scikit_learn_pipeline(regularisation: float) -> None:
    """Standardising and logistic regression with balanced classes give the same logits."""
    real, synthetic = classes()
    features, labels = np.concatenate([real, synthetic]).astype(np.float64), np.repeat([0, 1], [60, 40])
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=regularisation, class_weight="balanced", max_iter=1000, tol=1e-8),
    )
    expected = model.fit(features, labels).decision_function(features)
    found = fit_probe(real, synthetic, regularisation=regularisation).score(features)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_synthetic_items_score_higher() -> None:
    """On items that the probe did not see, the score ranks synthetic above real, with 0 between the classes."""
    probe = fit_probe(*classes())
    real, synthetic = classes(500, 500, seed=2)
    scores = probe.score(np.concatenate([real, synthetic]))
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.8
    assert (probe.score(real) > 0).mean() < 0.35
    assert (probe.score(synthetic) > 0).mean() > 0.65


def test_class_sizes_do_not_move_the_threshold() -> None:
    """Ten times as many real references leave the threshold between the classes."""
    probe = fit_probe(*classes(1000, 100))
    real, synthetic = classes(1000, 1000, seed=3)
    flagged_real, flagged_synthetic = (probe.score(real) > 0).mean(), (probe.score(synthetic) > 0).mean()
    assert flagged_real == pytest.approx(1 - flagged_synthetic, abs=0.06)


def test_constant_features_are_ignored() -> None:
    """A feature that never varies, exactly or but for rounding, is not divided by its spread."""
    real, synthetic = (x.astype(np.float64) for x in classes())
    for features in (real, synthetic):
        features[:, 0] = 0.1
        features[:, 1] = 1e6 + 1e-10 * features[:, 1]
    probe = fit_probe(real, synthetic)
    assert probe.scaling.scale[:2].tolist() == [1.0, 1.0]
    assert np.isfinite(probe.score(real)).all()


@pytest.mark.property
def test_scores_do_not_depend_on_the_batch() -> None:
    """An item has the same score alone, in any part, and among all, to the last bit."""
    real, synthetic = classes(d=67)
    probe = fit_probe(real, synthetic)
    scores = probe.score(real)
    for size in (1, 7, 32):
        parts = [probe.score(real[i : i + size]) for i in range(0, len(real), size)]
        np.testing.assert_array_equal(np.concatenate(parts), scores)


@pytest.mark.parametrize(("n", "d"), [(10, 300), (200, 100)])
def test_fitting_is_quiet(n: int, d: int) -> None:
    """Separable, wide and unevenly scaled features converge without a warning, and twice to the same probe."""
    rng = np.random.default_rng(4)
    scales = 10.0 ** rng.integers(-8, 8, d)
    real, synthetic = rng.normal(size=(n, d)) * scales, (rng.normal(size=(n, d)) + 1) * scales
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = fit_probe(real, synthetic), fit_probe(real, synthetic)
    np.testing.assert_array_equal(first.weight, second.weight)


def test_bad_input_is_named() -> None:
    """NaN, other widths and a penalty out of range are refused."""
    real, synthetic = classes()
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^regularisation: "):
            fit_probe(real, synthetic, regularisation=value)
    with pytest.raises(InputError, match=r"^synthetic: .*NaN"):
        fit_probe(real, synthetic * np.nan)
    with pytest.raises(InputError, match=r"^features: "):
        fit_probe(real, synthetic).score(real[:, 1:])
