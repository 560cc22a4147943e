"""Tests of the Frechet distance against scipy's matrix root and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float
from scipy import linalg

from poolproof.detectors.distance import frechet_distance
from poolproof.errors import InputError


def by_matrix_root(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Return the distance from covariances and scipy's general matrix square root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(linalg.sqrtm(cov_a @ cov_b))
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(cov_a + cov_b - 2 * root))


@pytest.mark.reference
@pytest.mark.parametrize(("n", "m", "d"), [(50, 80, 3), (200, 200, 40), (5000, 30, 7)])
def test_distance_agrees_with_the_matrix_root(n: int, m: int, d: int) -> None:
    """For covariances of full rank the figure is the one of scipy.linalg.sqrtm."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(d, d))
    a, b = rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) + 0.3
    assert frechet_distance(a, b) == pytest.approx(by_matrix_root(a, b), rel=1e-9)


@pytest.mark.reference
def test_few_items_cost_no_accuracy() -> None:
    """With fewer items than features the figure is the one of QR factors, which need no covariance."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(20, 100)), rng.normal(size=(15, 100)) + 0.1
    factor_a, factor_b = (
        np.asarray(np.linalg.qr(x - x.mean(axis=0), mode="r")) / np.sqrt(len(x) - 1) for x in (a, b)
    )
    shift = a.mean(axis=0) - b.mean(axis=0)
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    expected = shift @ shift + (factor_a**2).sum() + (factor_b**2).sum() - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.theory
def test_distance_of_scaled_and_moved_features() -> None:
    """For b = s a + c the distance is |mean shift|^2 + (s - 1)^2 tr(cov a)."""
    a = np.random.default_rng(3).normal(size=(60, 5))
    b = 3 * a + 2
    shift = b.mean(axis=0) - a.mean(axis=0)
    expected = shift @ shift + 4 * np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.theory
def test_distance_in_one_dimension() -> None:
    """With one feature it is (difference of means)^2 + (difference of standard deviations)^2."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(40, 1)), 2 * rng.normal(size=(30, 1)) + 1
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_sets_are_at_zero(offset: float, dtype: type) -> None:
    """A set has no distance from itself or from its rows in another order, beside any offset."""
    a = (np.random.default_rng(5).normal(size=(70, 90)) + offset).astype(dtype)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-9)


def test_distance_is_symmetric() -> None:
    """The order of the sets does not matter."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(30, 8)), rng.normal(size=(50, 8)) ** 2
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_constant_sets_are_as_far_as_their_means() -> None:
    """Without any variance only the means count."""
    assert frechet_distance(np.zeros((3, 2)), np.ones((4, 2))) == pytest.approx(2.0)


def test_bad_input_is_named() -> None:
    """One row and NaN are refused."""
    a = np.zeros((3, 2))
    with pytest.raises(InputError, match=r"^b: .*2 or more"):
        frechet_distance(a, a[:1])
    with pytest.raises(InputError, match=r"^a: .*NaN"):
        frechet_distance(a * np.nan, a)
