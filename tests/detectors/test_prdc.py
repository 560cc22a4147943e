"""Tests of precision, recall, density and coverage against the full matrix and closed forms."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from jaxtyping import Float, Float64
from scipy.spatial.distance import cdist

from poolproof.detectors import tiles
from poolproof.detectors.prdc import PRDC, prdc
from poolproof.errors import InputError


def brute_force(real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int) -> PRDC:
    """Return the four figures from full distance matrices in double precision."""
    x, y = real.astype(np.float64), synthetic.astype(np.float64)

    def radii(points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        own = cdist(points, points)
        np.fill_diagonal(own, np.inf)
        return np.sort(own, axis=1)[:, k - 1]

    across = cdist(x, y)
    in_real, in_synthetic = across <= radii(x)[:, None], across <= radii(y)[None]
    return PRDC(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_synthetic.any(axis=1).mean()),
        density=float(in_real.sum() / (k * len(y))),
        coverage=float(in_real.any(axis=1).mean()),
        k=k,
    )


def pair(kind: str) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]]:
    """Return 90 real and 70 synthetic points with 10 columns, 90 of each for `identical`."""
    rng = np.random.default_rng(1)
    if kind == "normal":
        return rng.normal(size=(90, 10)), 0.9 * rng.normal(size=(70, 10)) + 0.1
    if kind == "copies":
        real = np.repeat(rng.normal(size=(9, 10)), 10, axis=0)
        return real, real[:70]
    if kind == "grid":
        # Squared distances are whole numbers here, so that ties are exact in any order of summation.
        return rng.integers(0, 2, (90, 10)).astype(float), rng.integers(0, 2, (70, 10)).astype(float)
    real = rng.normal(size=(90, 10))
    return real, real.copy()


@pytest.mark.reference
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("kind", ["normal", "copies", "grid", "identical"])
@pytest.mark.parametrize("k", [1, 5, 69])
def test_figures_are_those_of_the_full_matrix(
    offset: float, kind: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four equal brute force exactly, over many tiles, with copies, ties and a large common offset."""
    monkeypatch.setattr(tiles, "TILE", 32)
    real, synthetic = pair(kind)
    for dtype in (np.float32, np.float64):
        x, y = (real + offset).astype(dtype), (synthetic + offset).astype(dtype)
        assert prdc(x, y, k) == brute_force(x, y, k)


def test_an_offset_changes_nothing() -> None:
    """A constant added to whole-number features leaves the figures as they are."""
    real, synthetic = pair("grid")
    assert prdc(real + 4096, synthetic + 4096) == prdc(real, synthetic)


def test_copies_of_the_real_set_count_as_inside() -> None:
    """Where copies make every radius 0, a synthetic set of the same points is still inside."""
    real, _ = pair("copies")
    found = prdc(real, real)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_sets_far_apart_share_nothing() -> None:
    """Figures are 0 where no ball reaches the other set."""
    real, synthetic = pair("normal")
    assert prdc(real, synthetic + 100) == PRDC(0.0, 0.0, 0.0, 0.0, 5)


def test_roles_are_told_apart() -> None:
    """A synthetic set that misses half of the real one is precise and lacks recall; swapped, the reverse."""
    rng = np.random.default_rng(2)
    half = rng.normal(size=(200, 2))
    real = np.concatenate([half[:100], half[100:] + 50])
    synthetic = rng.normal(size=(200, 2))
    found, swapped = prdc(real, synthetic), prdc(synthetic, real)
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


@pytest.mark.theory
@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (150, 300, 3)])
def test_equal_distributions_have_the_expected_density_and_coverage(n: int, m: int, k: int) -> None:
    """Over seeds, density means 1 and coverage 1 - prod_j (n - j)/(n + m - j), whatever the distribution.

    Source: Naeem et al., arXiv 2002.09797, section 3.4.
    """
    rng = np.random.default_rng(3)
    runs = [prdc(rng.normal(size=(n, 4)), rng.normal(size=(m, 4)), k) for _ in range(20)]
    expected = 1 - np.prod([(n - j) / (n + m - j) for j in range(1, k + 1)])
    coverage, density = [run.coverage for run in runs], [run.density for run in runs]
    assert np.mean(coverage) == pytest.approx(expected, abs=4 * np.std(coverage) / np.sqrt(20))
    assert np.mean(density) == pytest.approx(1.0, abs=4 * np.std(density) / np.sqrt(20))


def test_memory_does_not_grow_with_the_matrix() -> None:
    """Two sets of 6000 points take less memory than a quarter of their distance matrix in single precision."""
    rng = np.random.default_rng(4)
    real, synthetic = rng.normal(size=(6000, 4)), rng.normal(size=(6000, 4))
    prdc(real[:50], synthetic[:50])
    tracemalloc.start()
    try:
        prdc(real, synthetic)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6000 * 6000


def test_bad_input_is_named() -> None:
    """K out of range, and NaN are refused."""
    points = np.random.default_rng(5).normal(size=(6, 3))
    for k in (0, 6):
        with pytest.raises(InputError, match=r"^k: "):
            prdc(points, points, k)
    with pytest.raises(InputError, match=r"^k: "):
        prdc(points, points[:3], 3)
    with pytest.raises(InputError, match=r"^synthetic: .*NaN"):
        prdc(points, np.full((6, 3), np.nan))
