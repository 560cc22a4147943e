"""Tests of the counts of points in balls against the full double-precision matrix."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.spatial.distance import cdist

from poolproof.detectors import balls as module
from poolproof.detectors import tiles
from poolproof.detectors.balls import count_inside
from poolproof.detectors.tiles import make_points


def pair(kind: str) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]]:
    """70 points and 90: normal, whole numbers with many ties, or small clusters far apart."""
    rng = np.random.default_rng(1)
    if kind == "grid":
        return rng.integers(0, 3, (70, 4)).astype(float), rng.integers(0, 3, (90, 4)).astype(float)
    if kind == "clusters":
        return rng.normal(size=(70, 4)) * 1e-6, rng.normal(size=(90, 4)) * 1e-6 + rng.integers(0, 2, (90, 1))
    return rng.normal(size=(70, 4)), rng.normal(size=(90, 4))


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["normal", "grid", "clusters"])
@pytest.mark.parametrize("quantile", [0.0, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("ties", ["<=", "<"])
@pytest.mark.parametrize("dense", [16, 1])
def test_counts_are_those_of_the_full_matrix(
    kind: str, quantile: float, ties: Literal["<=", "<"], dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For few and for many pairs inside, rows and columns are counted as brute force counts them."""
    monkeypatch.setattr(tiles, "TILE", 32)
    monkeypatch.setattr(module, "DENSE", dense)
    a, b = pair(kind)
    distances = cdist(a, b)
    # Radii that are distances: the pair itself is a tie.
    row_radii, column_radii = (np.quantile(distances, quantile, axis=x, method="nearest") for x in (1, 0))
    x, y = make_points(a, b)
    scaled = (row_radii * x.scale, column_radii * x.scale)
    (rows,), (columns,) = count_inside(x, y, row_radii=[scaled[0]], column_radii=[scaled[1]], ties=ties)
    compare = np.less_equal if ties == "<=" else np.less
    for found, inside in (
        (rows, compare(distances, row_radii[:, None])),
        (columns, compare(distances, column_radii)),
    ):
        np.testing.assert_array_equal(found.per_row, inside.sum(axis=1))
        np.testing.assert_array_equal(found.per_column, inside.sum(axis=0))


@pytest.mark.parametrize("tile", [16, 1024])
def test_a_set_with_itself_counts_each_pair_once(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves of the walk together give, for each point, the balls of others that hold it."""
    monkeypatch.setattr(tiles, "TILE", tile)
    a, _ = pair("normal")
    radii = np.random.default_rng(2).uniform(0.5, 2, len(a))
    distances = cdist(a, a)
    np.fill_diagonal(distances, np.inf)
    (x,) = make_points(a)
    scaled = radii * x.scale
    (rows,), (columns,) = count_inside(x, x, row_radii=[scaled], column_radii=[scaled], same=True)
    np.testing.assert_array_equal(columns.per_row + rows.per_column, (distances <= radii).sum(axis=1))
    np.testing.assert_array_equal(columns.per_column + rows.per_row, (distances <= radii).sum(axis=0))
