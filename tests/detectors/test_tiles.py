"""Tests of the tiles: bounds must hold for any points, and exact distances are those of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float, Float64
from scipy.spatial.distance import cdist

from poolproof.detectors.tiles import (
    blocks,
    exact_distances,
    find_places,
    left_factor,
    lower_bounds,
    make_points,
    screen_points,
)


def assert_bounds_hold(
    a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"], dtype: type[np.floating]
) -> Float64[np.ndarray, "m n"]:
    """Checks that squared distances lie between the bounds; gives the width of the bounds."""
    x, y = make_points(a, b)
    left, right = screen_points(x, dtype=dtype), screen_points(y, dtype=dtype)
    buffer = np.empty(len(a) * len(b), dtype)
    low = lower_bounds(left_factor(left.factor), right.factor, buffer).astype(np.float64)
    width = 2 * (left.error.astype(np.float64)[:, None] + right.error)
    squares = np.square(cdist(a.astype(np.float64) * x.scale, b.astype(np.float64) * x.scale))
    assert np.all(low <= squares * (1 + 1e-12))
    assert np.all(squares * (1 - 1e-12) <= low + width)
    return width


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float64, (9, 4), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
    hnp.arrays(np.float64, (7, 4), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
)
def test_bounds_hold_for_any_points(a: Float64[np.ndarray, "m d"], b: Float64[np.ndarray, "n d"]) -> None:
    """No squared distance is outside its bounds, whatever the points."""
    assert_bounds_hold(a, b, np.float32)


@pytest.mark.parametrize("d", [1, 3, 512, 2048])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_bounds_are_tight(d: int, offset: float, scale: float) -> None:
    """Beside offsets and at any scale the bounds are a small part of the distance apart."""
    rng = np.random.default_rng(1)
    a, b = ((rng.normal(size=(60, d)) + offset) * scale for _ in range(2))
    width = assert_bounds_hold(a, b, np.float32)
    assert width.max() < 1e-3 * d
    width = assert_bounds_hold(a, b, np.float64)
    assert width.max() < 1e-12 * d


def test_half_precision_is_squared_in_wider_numbers() -> None:
    """Features of float16 whose squares float16 cannot hold have the distances of their float64 values."""
    a = (np.random.default_rng(2).normal(size=(30, 8)) * 2e4).astype(np.float16)
    assert np.isfinite(a).all()
    assert_bounds_hold(a, a, np.float32)
    (x,) = make_points(a)
    i, j = np.divmod(np.arange(900), 30)
    found = exact_distances(x, i, x, j) / x.scale
    np.testing.assert_allclose(found, cdist(a.astype(float), a.astype(float)).ravel(), rtol=1e-12)


def test_copies_are_computed_once_and_right() -> None:
    """Where identical points make many pairs, their distances are still the ones of each pair."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(4, 5))[rng.integers(0, 4, 50)], rng.normal(size=(3, 5))[rng.integers(0, 3, 40)]
    x, y = make_points(a, b)
    i, j = np.divmod(np.arange(2000), 40)
    np.testing.assert_allclose(exact_distances(x, i, y, j) / x.scale, cdist(a, b).ravel(), rtol=1e-12)
    assert len(np.unique(x.groups)) == len(np.unique(a, axis=0))
    many, few = make_points(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)))
    i, j = rng.integers(0, 40, 100), rng.integers(0, 40, 100)
    expected = np.linalg.norm(many.given[i] - few.given[j], axis=1)
    np.testing.assert_allclose(exact_distances(many, i, few, j) / many.scale, expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_exact_distances_neither_over_nor_underflow(factor: float) -> None:
    """Distances whose squares double precision cannot hold come out right in scaled units."""
    a = np.random.default_rng(4).normal(size=(5, 3))
    (plain,), (scaled,) = make_points(a), make_points(a * factor)
    i, j = np.divmod(np.arange(25), 5)
    found = exact_distances(scaled, i, scaled, j) / scaled.scale
    np.testing.assert_allclose(found, exact_distances(plain, i, plain, j) / plain.scale * factor, rtol=1e-12)


def test_blocks_cut_all_rows() -> None:
    """Blocks follow each other and end at the last row."""
    assert blocks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert blocks(0, 2) == []


@pytest.mark.parametrize("shape", [(8, 16), (5, 7), (1, 8), (3, 1)])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_places_are_those_of_numpy(shape: tuple[int, int], share: float) -> None:
    """Whatever the shape, the places of true are found in order."""
    mask = np.random.default_rng(5).random(shape) < share
    np.testing.assert_array_equal(find_places(mask), np.flatnonzero(mask))
