"""Tests of neighbour radii against the full double-precision matrix."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float, Float64
from scipy.spatial.distance import cdist

from poolproof.detectors import radii as module
from poolproof.detectors import tiles
from poolproof.detectors.radii import neighbour_radii
from poolproof.detectors.tiles import make_points


def by_full_matrix(points: Float[np.ndarray, "n d"], k: int) -> Float64[np.ndarray, " n"]:
    """The k-th smallest of each row of scipy's distances, the diagonal left out."""
    distances = cdist(points.astype(np.float64), points.astype(np.float64))
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, k - 1]


def points_of(kind: str, n: int) -> Float64[np.ndarray, "n d"]:
    """Points with 6 columns: normal, copies, whole numbers with many ties, one point, or two far small clusters."""
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(n, 6))
    return {
        "normal": normal,
        "copies": normal[rng.integers(0, n // 8, n)],
        "grid": rng.integers(0, 2, (n, 6)).astype(np.float64),
        "one": np.ones((n, 6)),
        "clusters": normal * 1e-6 + rng.integers(0, 2, (n, 1)),
    }[kind]


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["normal", "copies", "grid", "one", "clusters"])
@pytest.mark.parametrize("k", [1, 5, 30, 119])
@pytest.mark.parametrize("tile", [16, 1024])
def test_radii_are_those_of_the_full_matrix(
    kind: str, k: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many tiles or one, whatever the ties, each radius is the k-th smallest distance."""
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(module, "WIDEST", 50)
    points = points_of(kind, 120)
    (ready,) = make_points(points)
    found = neighbour_radii(ready, k) / ready.scale
    np.testing.assert_allclose(found, by_full_matrix(points, k), rtol=1e-12, atol=0)


def test_both_ways_agree_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether candidates are kept or whole rows looked at, the same pair decides."""
    (ready,) = make_points(points_of("normal", 300))
    kept = neighbour_radii(ready, 4)
    monkeypatch.setattr(module, "WIDEST", 0)
    np.testing.assert_array_equal(neighbour_radii(ready, 4), kept)
