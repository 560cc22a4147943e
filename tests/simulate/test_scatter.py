"""Sufficient statistics: their laws, their union, and the fits made from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import two_sample_pvalue
from scipy import stats

from poolproof.errors import InputError
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.scatter import Scatter, bartlett, draw_root, draw_scatter, estimate, factorise, unite


def scatter_of(points: np.ndarray) -> Scatter:
    """Statistics of one set of points per loop."""
    mean = points.mean(axis=1)
    apart = points - mean[:, None, :]
    return Scatter(np.full(len(points), float(points.shape[1])), mean, apart.transpose(0, 2, 1) @ apart)


@pytest.mark.reference
@pytest.mark.parametrize("dof", [2, 3, 7, 400])
def test_wishart_draws_have_the_law_of_scipy(rng: np.random.Generator, dof: int) -> None:
    """Trace, one entry and determinant of our draws and of SciPy's come from one distribution (or are singular)."""
    triangle = bartlett(4000, 3, dof, rng=rng)
    ours = triangle @ triangle.transpose(0, 2, 1)
    points = rng.standard_normal((4000, dof, 3))
    theirs = (
        stats.wishart(dof, np.eye(3)).rvs(4000, random_state=rng)
        if dof >= 3
        else points.transpose(0, 2, 1) @ points
    )
    for figure in (
        lambda m: np.trace(m, axis1=1, axis2=2),
        lambda m: m[:, 2, 0],
        lambda m: m[:, 2, 2],
        lambda m: np.linalg.eigvalsh(m)[:, -1],
        lambda m: np.linalg.eigvalsh(m)[:, 0] if dof >= 3 else np.linalg.eigvalsh(m)[:, 1],
    ):
        assert two_sample_pvalue(figure(ours), figure(theirs)) > 1e-4
    assert np.linalg.matrix_rank(ours[0]) == min(3, dof)


def test_no_degrees_of_freedom_give_no_scatter(rng: np.random.Generator) -> None:
    """One sample has no scatter, none has neither."""
    assert not bartlett(2, 3, 0, rng=rng).any()
    one = draw_scatter(np.zeros((2, 3)), None, 1, 1.0, rng=rng)
    assert one.mean.any()
    assert not one.matrix.any()
    assert not draw_scatter(np.zeros((2, 3)), None, 0, 1.0, rng=rng).n.any()


@pytest.mark.theory
def test_drawn_statistics_have_the_moments_of_samples(rng: np.random.Generator) -> None:
    """Mean and scatter of biased samples of a normal law have the known expectations."""
    root = np.array([[2.0, 0.0], [1.0, 0.5]])
    drawn = draw_scatter(np.tile([1.0, -1.0], (40_000, 1)), root, 6, 0.4, rng=rng)
    covariance = 0.4 * root @ root.T
    assert drawn.mean.mean(axis=0) == pytest.approx([1, -1], abs=0.02)
    assert np.cov(drawn.mean.T) == pytest.approx(covariance / 6, abs=0.02)
    assert drawn.matrix.mean(axis=0) == pytest.approx(5 * covariance, abs=0.1)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_union_is_that_of_the_points(sizes: list[int], seed: int) -> None:
    """Statistics of several sets united are those of all their points, whatever the order of the sets."""
    if sum(sizes) == 0:
        sizes = [*sizes, 1]
    rng = np.random.default_rng(seed)
    sets = [rng.standard_normal((2, n, 3)) + i for i, n in enumerate(sizes)]
    whole = scatter_of(np.concatenate(sets, axis=1))
    empty = Scatter(np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3, 3)))
    parts = [scatter_of(points) if points.shape[1] else empty for points in sets]
    for ordered in (parts, parts[::-1]):
        united = unite(ordered)
        assert united.n == pytest.approx(whole.n)
        assert united.mean == pytest.approx(whole.mean)
        assert united.matrix == pytest.approx(whole.matrix, abs=1e-9)


@pytest.mark.reference
@pytest.mark.parametrize("covariance", ["unbiased", "mle"])
def test_fit_is_that_of_numpy(rng: np.random.Generator, covariance: str) -> None:
    """The pooled fit of two sources is NumPy's mean and covariance of their points."""
    real, synthetic = rng.standard_normal((3, 7, 2)), rng.standard_normal((3, 11, 2)) + 1
    mixing = Mixing(n_fresh=7, n_synthetic=11, covariance=covariance)  # pyright: ignore[reportArgumentType]
    mean, factor = estimate({"fresh": scatter_of(real), "synthetic": scatter_of(synthetic)}, mixing)
    points = np.concatenate([real, synthetic], axis=1)
    for path in range(3):
        assert mean[path] == pytest.approx(points[path].mean(axis=0))
        expected = np.cov(points[path].T, bias=covariance == "mle")
        assert factor[path] @ factor[path].T == pytest.approx(expected)


@pytest.mark.reference
def test_weighted_fit_is_that_of_numpy(rng: np.random.Generator) -> None:
    """Sample weights act as the reliability weights of NumPy's covariance."""
    real, synthetic = rng.standard_normal((1, 7, 2)), rng.standard_normal((1, 11, 2)) + 1
    mixing = Mixing(n_fresh=7, n_synthetic=11, weight_fresh=3.0, weight_synthetic=0.5)
    mean, factor = estimate({"fresh": scatter_of(real), "synthetic": scatter_of(synthetic)}, mixing)
    weights = np.repeat([3.0, 0.5], [7, 11])
    points = np.concatenate([real, synthetic], axis=1)[0]
    assert mean[0] == pytest.approx(np.average(points, axis=0, weights=weights))
    assert factor[0] @ factor[0].T == pytest.approx(np.cov(points.T, aweights=weights))


def test_grouped_fit_averages_the_sources(rng: np.random.Generator) -> None:
    """The grouped fit averages means and covariances by weight and has no term between the sources."""
    real, synthetic = rng.standard_normal((1, 7, 2)), rng.standard_normal((1, 11, 2)) + 100
    mixing = Mixing.weighted(7, 11, 0.3)
    mean, factor = estimate({"fresh": scatter_of(real), "synthetic": scatter_of(synthetic)}, mixing)
    assert mean[0] == pytest.approx(0.3 * real[0].mean(axis=0) + 0.7 * synthetic[0].mean(axis=0))
    expected = 0.3 * np.cov(real[0].T) + 0.7 * np.cov(synthetic[0].T)
    assert factor[0] @ factor[0].T == pytest.approx(expected)


def test_fit_needs_two_samples(rng: np.random.Generator) -> None:
    """A loop with a single sample left cannot be fitted, and says so."""
    alone = scatter_of(rng.standard_normal((2, 1, 2)))
    with pytest.raises(InputError, match="n: got 1 weighted samples"):
        estimate({"fresh": alone}, Mixing(n_fresh=2))
    with pytest.raises(InputError, match="n: got 0 weighted samples"):
        estimate({}, Mixing(n_fresh=2))
    pair = scatter_of(rng.standard_normal((2, 5, 2)))
    with pytest.raises(InputError, match=r"n: got 1 samples of a source.*grouped"):
        estimate({"fresh": alone, "synthetic": pair}, Mixing(n_fresh=2, n_synthetic=5, estimator="grouped"))


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    dim=st.integers(1, 6),
    rank=st.integers(0, 6),
    scale=st.sampled_from([1e-200, 1e-8, 1.0, 1e9]),
    seed=st.integers(0, 2**32),
)
def test_factors_square_to_the_matrix(dim: int, rank: int, scale: float, seed: int) -> None:
    """A factor gives its matrix back, of any rank and size, and null directions get exactly no variance."""
    rank = min(rank, dim)
    root = np.random.default_rng(seed).standard_normal((3, dim, rank)) * scale**0.5
    matrix = root @ root.transpose(0, 2, 1)
    factor = factorise(matrix)
    assert factor @ factor.transpose(0, 2, 1) == pytest.approx(matrix, abs=1e-12 * dim * scale)
    if rank < dim:
        assert (np.abs(np.linalg.slogdet(factor).sign) == 0).all()


def test_each_matrix_is_factorised_by_itself(rng: np.random.Generator) -> None:
    """A singular matrix in a batch does not change the factors of its neighbours."""
    root = rng.standard_normal((2, 3, 3))
    matrices = root @ root.transpose(0, 2, 1)
    flat = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    alone, beside = factorise(matrices), factorise(np.stack([matrices[0], flat, -0 * flat, matrices[1]]))
    assert (alone == beside[[0, 3]]).all()
    assert not beside[2].any()


def test_roots_reach_the_mean_and_scatter(rng: np.random.Generator) -> None:
    """A bias of 0 leaves the mean where it is and no scatter."""
    mean, root = draw_root(np.ones((2, 3)), np.eye(3), 10, 0.0, rng=rng)
    assert (mean == 1).all()
    assert not root.any()


def test_one_sample_left_that_counts_is_refused(rng: np.random.Generator) -> None:
    """Where a policy has left one heavy sample beside light ones no covariance is made up."""
    mixing = Mixing(n_fresh=5, n_synthetic=5, weight_synthetic=1e-20)
    left = {
        "fresh": Scatter(np.ones(2), np.zeros((2, 1)), np.zeros((2, 1, 1))),
        "synthetic": Scatter(np.full(2, 5.0), np.ones((2, 1)), np.ones((2, 1, 1))),
    }
    with pytest.raises(InputError, match="weights: got next to all"):
        estimate(left, mixing)
