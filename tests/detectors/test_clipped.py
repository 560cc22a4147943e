"""Tests of clipped density and coverage against brute force and what theory says of shares of bad points."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float, Float64
from scipy import stats
from scipy.spatial.distance import cdist

from poolproof.detectors import tiles
from poolproof.detectors.clipped import ClippedMetrics, clipped_metrics, expected_coverage
from poolproof.errors import InputError


def raw_figures(
    real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int
) -> tuple[float, float, float]:
    """Return raw density, real density and raw coverage from full matrices in double precision."""
    x, y = real.astype(np.float64), synthetic.astype(np.float64)
    own, across = cdist(x, x), cdist(y, x)
    np.fill_diagonal(own, np.inf)
    radii = np.sort(own, axis=1)[:, k - 1]
    clipped = np.minimum(radii, np.median(radii))
    return (
        float(np.minimum((across <= clipped).sum(axis=1), k).mean() / k),
        float(np.minimum((own <= clipped).sum(axis=1), k).mean() / k),
        float(np.minimum((across <= radii).sum(axis=0), k).mean() / k),
    )


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["normal", "copies", "grid"])
@pytest.mark.parametrize(("n", "m"), [(90, 70), (61, 100)])
@pytest.mark.parametrize("k", [1, 5])
def test_raw_figures_are_those_of_the_full_matrices(
    kind: str, n: int, m: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many tiles, with copies and ties, all counts are those of brute force."""
    monkeypatch.setattr(tiles, "TILE", 32)
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    if kind == "copies":
        real, synthetic = real[rng.integers(0, 20, n)], real[rng.integers(0, 20, m)]
    elif kind == "grid":
        real, synthetic = np.round(real), np.round(synthetic)
    found = clipped_metrics(real, synthetic, k)
    assert (found.raw_density, found.real_density, found.raw_coverage) == raw_figures(real, synthetic, k)


def figures(bad: float, n: int, m: int, d: int, n_draws: int) -> Float64[np.ndarray, "r 2"]:
    """Density (not cut at 1) and coverage of draws in which a share of the synthetic points lies far away."""
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(n_draws):
        synthetic = rng.normal(size=(m, d))
        synthetic[: round(bad * m)] += 1000
        found = clipped_metrics(rng.normal(size=(n, d)), synthetic)
        rows.append((found.raw_density / found.real_density, found.coverage))
    return np.array(rows)


@pytest.mark.theory
@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 8), (150, 300, 2), (300, 150, 32)])
def test_equal_laws_score_one(n: int, m: int, d: int) -> None:
    """Over draws density means 1 before it is cut at 1, in few and in many dimensions and for unequal sizes."""
    density = figures(0.0, n, m, d, 40)[:, 0]
    assert density.mean() == pytest.approx(1.0, abs=4 * density.std() / np.sqrt(40))


@pytest.mark.theory
@pytest.mark.parametrize("bad", [0.3, 0.8])
@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 8), (150, 300, 2)])
def test_scores_fall_with_the_share_of_bad_points(bad: float, n: int, m: int, d: int) -> None:
    """With a share of the synthetic points far away both scores mean the rest."""
    found = figures(bad, n, m, d, 20)
    error = 4 * found.std(axis=0) / np.sqrt(20)
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - (1 - bad)), error + 0.01)


@pytest.mark.theory
@pytest.mark.parametrize(("n", "m", "k"), [(100, 100, 5), (80, 200, 3), (200, 50, 1)])
def test_raw_coverage_has_the_expected_mean(n: int, m: int, k: int) -> None:
    """Over draws of one law, whatever it is, raw coverage means what the beta-binomial law says."""
    rng = np.random.default_rng(3)
    raw = [
        clipped_metrics(rng.standard_exponential((n, 3)), rng.standard_exponential((m, 3)), k).raw_coverage
        for _ in range(49)
    ]
    expected = expected_coverage(m, n, k)
    assert np.mean(raw) == pytest.approx(expected, abs=4 * float(np.std(raw)) / 7)


@pytest.mark.reference
def test_expected_coverage_with_one_neighbour_is_the_published_one() -> None:
    """For k = 1 it is lemma 2 of Naeem et al., arXiv 2002.09797; for any k it is a mean over mass and count."""
    assert expected_coverage(70, 50, 1) == pytest.approx(1 - 49 / 119, rel=1e-12)
    mass = np.random.default_rng(4).beta(5, 45, size=200_000)
    count = np.random.default_rng(5).binomial(60, mass)
    assert expected_coverage(60, 50, 5) == pytest.approx(np.minimum(count, 5).mean() / 5, abs=0.003)
    # With k = n - 1 the ball reaches to the farthest of the others.
    assert expected_coverage(10, 4, 3) == pytest.approx(
        sum(min(c, 3) / 3 * stats.betabinom.pmf(c, 10, 3, 1) for c in range(11)), rel=1e-12
    )


@pytest.mark.property
def test_expected_coverage_rises() -> None:
    """More good points cover more, from 0 on."""
    expected = np.asarray(expected_coverage(np.arange(300), 120, 5))
    assert expected[0] == 0
    assert np.all(np.diff(expected) > 0)
    assert expected[-1] < 1


def test_outliers_of_the_real_set_lift_neither_score() -> None:
    """Bad points near a few real outliers with wide balls do not pass for good ones."""
    rng = np.random.default_rng(6)
    real, synthetic = rng.normal(size=(500, 8)), rng.normal(size=(500, 8))
    real[:10] *= 1000
    synthetic[:200] *= 100
    found = clipped_metrics(real, synthetic)
    assert found.density == pytest.approx(0.6, abs=0.1)
    assert found.coverage == pytest.approx(0.6, abs=0.12)


def test_a_collapsed_set_is_faithful_and_covers_little() -> None:
    """Copies of a few real points score high in density, and low in coverage."""
    real = np.random.default_rng(7).normal(size=(400, 4))
    thick = real[np.argsort(np.linalg.norm(real, axis=1))[:5]]
    found = clipped_metrics(real, np.repeat(thick, 80, axis=0))
    assert found.density == 1.0
    assert found.coverage < 0.1


def test_sets_far_apart_score_zero() -> None:
    """Nothing inside any ball is 0, and a set that is the real one is 1."""
    real = np.random.default_rng(8).normal(size=(60, 3))
    assert clipped_metrics(real, real + 100) == ClippedMetrics(
        0.0, 0.0, 0.0, clipped_metrics(real, real).real_density, 0.0, 5
    )
    assert (clipped_metrics(real, real).density, clipped_metrics(real, real).coverage) == (1.0, 1.0)
    assert clipped_metrics(np.ones((20, 3)), np.ones((9, 3))).density == 1.0


def test_bad_input_is_named() -> None:
    """K out of range and NaN are refused."""
    points = np.random.default_rng(9).normal(size=(6, 3))
    with pytest.raises(InputError, match=r"^k: got .*allowed"):
        clipped_metrics(points, points, 6)
    with pytest.raises(InputError, match=r"^k: got .*allowed"):
        clipped_metrics(points, points, 0)
    with pytest.raises(InputError, match=r"^real: got .*allowed"):
        clipped_metrics(points * np.nan, points)
