"""Tests of the Frechet distance against scipy's matrix root and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float
from scipy import linalg

from poolproof.detectors import distance as module
from poolproof.detectors.distance import frechet_distance, kernel_distance
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


@pytest.mark.reference
@pytest.mark.parametrize("n", [40, 200])
def test_distance_is_that_of_torch_fidelity(n: int) -> None:
    """The Frechet distance is torch-fidelity's, where it is installed, with more items than features."""
    import torch

    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(n, 12)), rng.normal(size=(n, 12)) * 1.5 + 0.2
    moments = [theirs.fid_features_to_statistics(torch.from_numpy(points)) for points in (a, b)]
    expected = theirs.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def by_full_kernel(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], degree: int) -> float:
    """Return the unbiased estimate from whole kernel matrices."""
    n, m, d = len(a), len(b), a.shape[1]
    own_a, own_b, across = ((x @ y.T / d + 1) ** degree for x, y in ((a, a), (b, b), (a, b)))
    within_a = (own_a.sum() - np.trace(own_a)) / (n * (n - 1))
    within_b = (own_b.sum() - np.trace(own_b)) / (m * (m - 1))
    return float(within_a + within_b - 2 * across.mean())


@pytest.mark.reference
@pytest.mark.parametrize(("n", "m", "degree"), [(30, 50, 3), (70, 33, 1), (40, 40, 2)])
def test_kernel_distance_is_that_of_the_full_matrices(
    n: int, m: int, degree: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many tiles the value is the one of whole kernel matrices."""
    monkeypatch.setattr(module, "TILE", 16)
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(n, 6)), rng.normal(size=(m, 6)) + 0.3
    found = kernel_distance(a, b, degree=degree)
    assert found.value == pytest.approx(by_full_kernel(a, b, degree), rel=1e-10)


@pytest.mark.reference
def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    """It is torch-fidelity's KID of one subset that is the whole set, where it is installed."""
    import torch

    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(120, 8)), rng.normal(size=(120, 8)) * 1.2
    sets = torch.from_numpy(a), torch.from_numpy(b)
    found = theirs.kid_features_to_metric(*sets, kid_subsets=1, kid_subset_size=120, verbose=False)
    assert kernel_distance(a, b).value == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-9)


@pytest.mark.theory
def test_kernel_distance_of_degree_one_is_the_distance_of_means() -> None:
    """With the kernel x.y the value is |mean_a - mean_b|^2 less tr(cov_a)/n and tr(cov_b)/m."""
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=(25, 4)), rng.normal(size=(35, 4)) + 1
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift - np.trace(np.cov(a, rowvar=False)) / 25 - np.trace(np.cov(b, rowvar=False)) / 35
    found = kernel_distance(a, b, degree=1, gamma=1.0, coef0=0.0)
    assert found.value == pytest.approx(expected, rel=1e-10)


@pytest.mark.theory
@pytest.mark.parametrize(("shift", "n", "m"), [(0.0, 100, 100), (0.0, 60, 180), (0.5, 60, 180)])
def test_kernel_distance_knows_its_error(shift: float, n: int, m: int) -> None:
    """Over draws the standard error is the spread of the value, equal laws or not, and the mean has no bias.

    For normal features the mean of the kernel (x.y/d + 1)^2 follows from first and second moments.
    """
    rng = np.random.default_rng(11)
    d, n_draws = 20, 150
    draws = [
        kernel_distance(rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift, degree=2)
        for _ in range(n_draws)
    ]
    values = np.array([draw.value for draw in draws])
    errors = np.array([draw.standard_error for draw in draws])
    # E (x.y/d + 1)^2 = E(x.y)^2/d^2 + 2 E(x.y)/d + 1, with E(x.y)^2 = tr(E xx' E yy').
    mean_b, second_a = np.full(d, shift), np.eye(d)
    second_b = np.eye(d) + np.outer(mean_b, mean_b)

    def mean_kernel(u: np.ndarray, v: np.ndarray, second_u: np.ndarray, second_v: np.ndarray) -> float:
        return float(np.trace(second_u @ second_v) / d**2 + 2 * (u @ v) / d + 1)

    zero = np.zeros(d)
    truth = (
        mean_kernel(zero, zero, second_a, second_a)
        + mean_kernel(mean_b, mean_b, second_b, second_b)
        - 2 * mean_kernel(zero, mean_b, second_a, second_b)
    )
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(n_draws))
    # The spread of 150 draws is itself off by some 6 %, more for skewed laws; where laws are equal the
    # estimate of the first-order part, at least 0, adds up to a fifth.
    assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.35


@pytest.mark.coverage
@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_kernel_distance_intervals_cover(shift: float) -> None:
    """Where laws differ, value +- 1.96 standard errors holds the truth in 95 % of draws."""
    rng = np.random.default_rng(12)
    d, n, n_draws = 20, 100, 200
    # With degree 1, gamma 1 and no constant the truth is |shift|^2.
    inside = 0
    for _ in range(n_draws):
        a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift
        found = kernel_distance(a, b, degree=1, gamma=1.0, coef0=0.0)
        inside += abs(found.value - d * shift**2) <= 1.96 * found.standard_error
    # 0.95 less four binomial standard deviations.
    assert inside >= n_draws * (0.95 - 4 * np.sqrt(0.95 * 0.05 / n_draws))


def test_kernel_distance_is_symmetric() -> None:
    """The order of the sets does not matter."""
    rng = np.random.default_rng(13)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(31, 3)) ** 2
    one, other = kernel_distance(a, b), kernel_distance(b, a)
    assert (one.value, one.standard_error) == pytest.approx((other.value, other.standard_error), rel=1e-9)


def test_kernel_distance_takes_half_precision() -> None:
    """Float16 features are multiplied in double precision."""
    a = (np.random.default_rng(14).normal(size=(20, 3)) * 200).astype(np.float16)
    found, expected = kernel_distance(a, a[::-1]), kernel_distance(a.astype(float), a[::-1].astype(float))
    assert found == expected


def test_bad_input_of_kernel_distance_is_named() -> None:
    """Too few rows, options out of range, NaN and overflow are refused."""
    a = np.random.default_rng(15).normal(size=(5, 2))
    with pytest.raises(InputError, match=r"^b: got .*allowed"):
        kernel_distance(a, a[:3])
    with pytest.raises(InputError, match=r"^degree: got .*allowed"):
        kernel_distance(a, a, degree=0)
    with pytest.raises(InputError, match=r"^gamma: got .*allowed"):
        kernel_distance(a, a, gamma=0.0)
    with pytest.raises(InputError, match=r"^gamma: got .*allowed"):
        kernel_distance(a, a, gamma=np.inf)
    with pytest.raises(InputError, match=r"^coef0: got .*allowed"):
        kernel_distance(a, a, coef0=-1.0)
    with pytest.raises(InputError, match=r"^a: got .*allowed"):
        kernel_distance(a * np.nan, a)
    with pytest.raises(InputError, match=r"^a, b: got .*allowed"):
        kernel_distance(a * 1e200, a)
