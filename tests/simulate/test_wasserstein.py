"""Distances between normal laws against other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from poolproof.simulate.gaussian import Gaussian, Models
from poolproof.simulate.wasserstein import log_determinant, squared_w2, wasserstein


def random_models(rng: np.random.Generator, n: int, dim: int) -> Models:
    """Models with full covariances."""
    return Models(1, rng.standard_normal((n, dim)), rng.standard_normal((n, dim, dim)))


@pytest.mark.reference
def test_distance_is_the_formula_with_matrix_roots(rng: np.random.Generator) -> None:
    """The distance equals the textbook formula computed by SciPy's matrix square root."""
    models = random_models(rng, 5, 4)
    root = rng.standard_normal((4, 4))
    law = Gaussian.from_moments(np.arange(4.0), root @ root.T)
    half = linalg.sqrtm(root @ root.T)
    for mean, covariance, found in zip(
        models.mean, models.covariance(), squared_w2(models, law), strict=True
    ):
        cross = linalg.sqrtm(half @ covariance @ half)
        apart = mean - law.mean
        assert found == pytest.approx(
            apart @ apart + np.trace(root @ root.T + covariance - 2 * np.real(cross)), rel=1e-9
        )


def test_distance_from_the_standard_law_is_by_eigenvalues(rng: np.random.Generator) -> None:
    """Against N(0, I) it is the squared mean plus the squared distances of the deviations from 1."""
    models = random_models(rng, 3, 3)
    values = np.linalg.eigvalsh(models.covariance())
    parts = wasserstein(models, Gaussian.standard(3))
    assert parts.mean_part == pytest.approx(np.square(models.mean).sum(axis=1))
    assert parts.covariance_part == pytest.approx(np.square(1 - np.sqrt(values)).sum(axis=1))
    assert parts.squared == pytest.approx(parts.mean_part + parts.covariance_part)
    assert squared_w2(models, Gaussian.standard(3), root=True) ** 2 == pytest.approx(parts.squared)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(dim=st.integers(1, 5), seed=st.integers(0, 2**32), scale=st.floats(0.1, 10))
def test_distance_keeps_the_symmetries(dim: int, seed: int, scale: float) -> None:
    """Rotations, permutations and shifts of everything leave it as it is; scaling multiplies it by the square."""
    rng = np.random.default_rng(seed)
    models = random_models(rng, 3, dim)
    root = rng.standard_normal((dim, dim))
    law = Gaussian(rng.standard_normal(dim), root)
    base = squared_w2(models, law)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    order = np.eye(dim)[rng.permutation(dim)]
    for matrix, shift, factor in (
        (turn, 0.0, 1.0),
        (order, 0.0, 1.0),
        (np.eye(dim), 3.0, 1.0),
        (scale * turn, -1.0, scale**2),
    ):
        moved = Models(1, models.mean @ matrix.T + shift, matrix @ models.factor)
        law_moved = Gaussian(matrix @ law.mean + shift, matrix @ root)
        assert squared_w2(moved, law_moved) == pytest.approx(factor * base, rel=1e-6, abs=1e-6)


def test_distance_of_the_law_itself_is_zero(rng: np.random.Generator) -> None:
    """A model equal to the truth is at distance 0, also where the covariance is singular."""
    for covariance in (np.diag([1.0, 4.0, 0.0]), np.eye(3)):
        law = Gaussian.from_moments(rng.standard_normal(3), covariance)
        models = Models(1, law.mean[None], law.full_root()[None])
        assert squared_w2(models, law) == pytest.approx(0, abs=1e-7)
        assert squared_w2(models, law)[0] >= 0


def test_log_determinant_survives_underflow() -> None:
    """In a hundred dimensions of tiny variance the determinant is 0 to a computer and its logarithm is right."""
    models = Models(1, np.zeros((1, 100)), 1e-30 * np.eye(100)[None])
    assert np.linalg.det(models.covariance()) == 0
    assert log_determinant(models) == pytest.approx(100 * 2 * np.log(1e-30))


def test_log_determinant_of_a_singular_covariance_is_minus_infinity() -> None:
    """Where a direction has no variance there is no finite logarithm."""
    models = Models(1, np.zeros((1, 2)), np.array([[[1.0, 0.0], [1.0, 0.0]]]))
    assert log_determinant(models)[0] == -np.inf
