"""Tests of the neighbour search against the full double-precision distance matrix, and of the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float, Float64, Int64
from scipy.spatial.distance import cdist

from poolproof.detectors.neighbours import check_pair, knn_score, nearest, real_distance
from poolproof.errors import InputError


def brute_force(
    queries: Float[np.ndarray, "m d"], bank: Float[np.ndarray, "n d"], k: int, *, same: bool
) -> tuple[Float64[np.ndarray, "m k"], Int64[np.ndarray, "m k"]]:
    """Return the k nearest by scipy's distances, ties by index."""
    distances = cdist(queries.astype(np.float64), bank.astype(np.float64))
    if same:
        np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def features(rng: np.random.Generator, kind: str, n: int) -> Float64[np.ndarray, "n d"]:
    """Return features with 12 columns: normal, or with many exact ties and duplicates."""
    if kind == "normal":
        return rng.normal(size=(n, 12))
    if kind == "grid":
        return rng.integers(0, 2, size=(n, 12)).astype(np.float64)
    return np.repeat(rng.normal(size=(5, 12)), n // 5, axis=0)


@pytest.mark.reference
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("kind", ["normal", "grid", "copies"])
@pytest.mark.parametrize("same", [False, True])
def test_neighbours_are_those_of_the_full_matrix(dtype: type, offset: float, kind: str, same: bool) -> None:
    """Distances and indices equal brute force, with ties, copies and an offset that eats single precision."""
    rng = np.random.default_rng(1)
    bank = (features(rng, kind, 200) + offset).astype(dtype)
    queries = bank if same else np.concatenate([bank[:20], (features(rng, kind, 50) + offset).astype(dtype)])
    for k in (1, 5, 199):
        distances, indices = brute_force(queries, bank, k, same=same)
        found = nearest(queries, bank, k, same=same)
        np.testing.assert_allclose(found.distances, distances, rtol=1e-12, atol=0)
        if kind == "normal" and dtype is not np.float16:
            np.testing.assert_array_equal(found.indices, indices)


@pytest.mark.parametrize("kind", ["grid", "copies"])
def test_ties_go_to_the_smaller_index(kind: str) -> None:
    """Equal distances are ordered by index, also where more points tie than the search returns."""
    bank = features(np.random.default_rng(2), kind, 200)
    _, indices = brute_force(bank, bank, 7, same=True)
    found = nearest(bank, bank, 7, same=True)
    np.testing.assert_array_equal(found.indices, indices)
    assert np.all(np.diff(found.distances) >= 0)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e100])
def test_scale_does_not_matter(scale: float) -> None:
    """Features far outside the range of single precision have the same neighbours."""
    bank = np.random.default_rng(3).normal(size=(100, 6))
    plain, scaled = nearest(bank, bank, 4, same=True), nearest(bank * scale, bank * scale, 4, same=True)
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.distances, plain.distances * scale, rtol=1e-12)


def test_no_point_is_its_own_neighbour() -> None:
    """With `same` a point is left out by index; a copy of it stays and is at distance 0."""
    bank = np.array([[0.0], [0.0], [3.0]])
    found = nearest(bank, bank, 2, same=True)
    np.testing.assert_array_equal(found.indices, [[1, 2], [0, 2], [0, 1]])
    np.testing.assert_array_equal(found.distances, [[0, 3], [0, 3], [3, 3]])


def test_equal_points_are_all_at_distance_zero() -> None:
    """A bank of one repeated point has radius 0 everywhere and no rounding noise."""
    bank = np.full((40, 3), 0.1)
    assert not nearest(bank, bank, 9, same=True).distances.any()


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float64, (17, 3), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
    st.integers(1, 17),
)
def test_distances_match_scipy_for_any_points(bank: Float64[np.ndarray, "n d"], k: int) -> None:
    """Whatever the points, the sorted distances are those of scipy."""
    expected, _ = brute_force(bank[:4], bank, k, same=False)
    np.testing.assert_allclose(nearest(bank[:4], bank, k).distances, expected, rtol=1e-9, atol=1e-300)


def test_bad_input_is_named() -> None:
    """K out of range, NaN, infinity, unequal widths and unequal lengths are refused by name."""
    bank = np.zeros((5, 2))
    for k, same in ((0, False), (6, False), (5, True), (-1, False)):
        with pytest.raises(InputError, match=r"^k: "):
            nearest(bank, bank, k, same=same)
    for value in (np.nan, np.inf):
        broken = bank.copy()
        broken[3, 1] = value
        with pytest.raises(InputError, match=r"^bank: .*NaN"):
            nearest(bank, broken, 1)
        with pytest.raises(InputError, match=r"^queries: .*NaN"):
            nearest(broken, bank, 1)
    with pytest.raises(InputError, match=r"^a, b: .*widths"):
        check_pair("a", np.zeros((5, 3)), "b", bank)
    with pytest.raises(InputError, match=r"^same: "):
        nearest(bank[:4], bank, 1, same=True)
    with pytest.raises(InputError, match=r"^queries: "):
        nearest(np.zeros((0, 2)), bank, 1)


def test_neighbour_score_grows_towards_synthetic() -> None:
    """On the line from the real to the synthetic references the score grows and changes sign half way."""
    rng = np.random.default_rng(4)
    real, synthetic = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 10
    scores = knn_score(np.linspace(0, 10, 5)[:, None] * np.ones((1, 4)), real, synthetic)
    assert np.all(np.diff(scores) > 0)
    assert scores[0] < 0 < scores[-1]
    assert abs(scores[2]) < 0.1


@pytest.mark.theory
def test_neighbour_score_is_a_mean_of_log_distances() -> None:
    """One item, two neighbours: the score is what the definition gives by hand."""
    real, synthetic = np.array([[1.0], [3.0]]), np.array([[-2.0], [-4.0]])
    expected = (np.log([1, 3]).mean() - np.log([2, 4]).mean()).astype(np.float32)
    assert knn_score(np.array([[0.0]]), real, synthetic, k=2)[0] == pytest.approx(expected)


def test_scores_of_copies_are_finite() -> None:
    """An item that is a copy of references has a large, finite score."""
    real, synthetic = np.zeros((10, 2)), np.ones((10, 2))
    assert np.isfinite(knn_score(real[:1], real, synthetic)).all()
    assert np.isfinite(knn_score(real[:1], real, real)).all()
    assert np.isfinite(real_distance(real, real, same=True)).all()


def test_real_distance_is_the_log_of_the_kth_distance() -> None:
    """The k-th neighbour decides, and `same` leaves the item itself out."""
    real = np.array([[0.0], [1.0], [3.0]])
    np.testing.assert_allclose(real_distance(np.array([[10.0]]), real, k=2), np.log([9.0]), rtol=1e-6)
    np.testing.assert_allclose(real_distance(real, real, k=1, same=True), np.log([1.0, 1.0, 2.0]), atol=1e-6)


@pytest.mark.property
def test_scores_do_not_depend_on_the_batch() -> None:
    """An item has the same score alone as among others, to the last bit."""
    rng = np.random.default_rng(5)
    real, synthetic = rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) + 0.5
    items = rng.normal(size=(33, 8)).astype(np.float32) * rng.choice([1, 100], size=(33, 1))
    scores, far = knn_score(items, real, synthetic), real_distance(items, real)
    for i in range(len(items)):
        assert knn_score(items[i : i + 1], real, synthetic)[0] == scores[i]
        assert real_distance(items[i : i + 1], real)[0] == far[i]


def test_ties_beyond_the_length_of_the_bank_are_settled() -> None:
    """More queries than bank points are looked up exactly where many points lie equally far."""
    bank = np.concatenate([np.eye(30), np.full((1, 30), 5.0)])
    queries = np.zeros((100, 30))
    found = nearest(queries, bank, 2)
    assert (found.indices == [0, 1]).all()
    assert (found.distances == 1).all()
