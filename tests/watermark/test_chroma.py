"""Luma and chroma against OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.watermark.chroma import (
    FLOAT_UNIT,
    Channels,
    blue_and_red,
    gather_quads,
    rgb_of_bytes,
    rgb_of_floats,
    u_of_bytes,
    u_of_sums,
    v_of_bytes,
    yuv_of_floats,
)

ORDERS: tuple[Channels, ...] = ("BGR", "RGB")


def colours() -> np.ndarray:
    """The corners, edges and many points of the cube of colours, as a picture of RGB."""
    corners = np.stack(np.meshgrid([0, 1, 127, 128, 254, 255], range(0, 256, 5), [0, 3, 128, 255]), -1)
    points = np.random.default_rng(8).integers(0, 256, (60_000, 3))
    return np.concatenate([corners.reshape(-1, 3), points]).astype(np.uint8)[None]


def convert(pixels: np.ndarray, channels: Channels, code: int) -> Any:
    """OpenCV's conversion of what the writer took for BGR."""
    ordered = pixels[:, :, ::-1] if channels == "BGR" else pixels
    return cv2.cvtColor(np.ascontiguousarray(ordered), code)


@pytest.mark.reference
@pytest.mark.parametrize("channels", ORDERS)
def test_bytes_are_opencvs_exactly(channels: Channels) -> None:
    """Luma, U and V of bytes."""
    pixels = colours()
    rgb = np.moveaxis(pixels, 2, 0).astype(np.int32)
    before = rgb.copy()
    u, luma = u_of_bytes(rgb, channels)
    v = v_of_bytes(rgb, luma, channels)
    expected = convert(pixels, channels, cv2.COLOR_BGR2YUV)
    np.testing.assert_array_equal(np.stack([luma, u, v], -1), expected)
    np.testing.assert_array_equal(rgb, before)
    assert 17 <= u.min() < u.max() <= 239


@pytest.mark.reference
@pytest.mark.parametrize("channels", ORDERS)
def test_bytes_come_back_as_opencvs_exactly(channels: Channels) -> None:
    """RGB of any luma, U and V, also of those that no colour has."""
    yuv = colours()
    luma, u, v = np.moveaxis(yuv, 2, 0).astype(np.int32)
    back = cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR)
    expected = back[:, :, ::-1] if channels == "BGR" else back
    found = rgb_of_bytes(luma, u.copy(), v.copy(), channels)
    np.testing.assert_array_equal(np.moveaxis(found, 0, 2), expected)


@pytest.mark.reference
@pytest.mark.parametrize("channels", ORDERS)
def test_floats_are_opencvs(channels: Channels) -> None:
    """Luma, U and V of floats to 1e-4, and RGB from them but for ties in rounding."""
    pixels = colours().astype(np.float32)
    luma, u, v = yuv_of_floats(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), channels)
    expected = convert(pixels, channels, cv2.COLOR_BGR2YUV)
    np.testing.assert_allclose(np.stack([luma, u, v], -1), expected, atol=1e-4)
    moved = expected + np.array([0, 9.3, -7.1], np.float32)
    back = cv2.cvtColor(moved, cv2.COLOR_YUV2BGR)
    rounded = (
        np.clip(np.rint(back), 0, 255)[:, :, ::-1] if channels == "BGR" else np.clip(np.rint(back), 0, 255)
    )
    planes = [np.ascontiguousarray(plane) for plane in np.moveaxis(moved, 2, 0)]
    found = np.moveaxis(rgb_of_floats(planes[0], planes[1], planes[2], channels), 0, 2)
    different = np.abs(found - rounded)
    assert different.max() <= 1
    assert np.mean(different > 0) < 1e-3


@settings(deadline=None, max_examples=20)
@pytest.mark.property
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_quads_hold_every_pixel_at_its_place(rows: int, columns: int, seed: int) -> None:
    """Element (channel, a, b, i, j) is the pixel at row 2i + a and column 2j + b."""
    pixels = np.random.default_rng(seed).integers(0, 256, (2 * rows, 2 * columns, 3), dtype=np.uint8)
    quads = gather_quads(pixels)
    assert quads.shape == (3, 2, 2, rows, columns)
    for channel, a, b, i, j in np.ndindex(*quads.shape):
        assert quads[channel, a, b, i, j] == pixels[2 * i + a, 2 * j + b, channel]


@pytest.mark.reference
@pytest.mark.parametrize("channels", ORDERS)
def test_sums_are_exact_multiples_of_u(channels: Channels) -> None:
    """U summed over four pixels is the whole number times its unit, and U less its offset in floats."""
    quads = gather_quads(np.random.default_rng(9).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    units = u_of_sums(quads.sum(axis=(1, 2), dtype=np.int32), channels)
    first, third = blue_and_red(channels)
    rgb = quads.astype(np.float64)
    luma = 0.587 * rgb[1] + 0.299 * rgb[third] + 0.114 * rgb[first]
    np.testing.assert_allclose(units * FLOAT_UNIT, (0.492 * (rgb[first] - luma)).sum(axis=(0, 1)), atol=1e-9)
    _, u, _ = yuv_of_floats(quads.astype(np.float32), channels)
    np.testing.assert_allclose(units * FLOAT_UNIT, (u - 0.5).sum(axis=(0, 1)), atol=1e-3)
