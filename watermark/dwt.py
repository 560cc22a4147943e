"""The dwtDct scheme of the invisible-watermark package: reading block votes, and writing a mark.

The scheme takes the U channel, its low Haar band, and tiles of 4 x 4 coefficients, which are 8 x 8 pixels.
A tile carries one bit in the remainder of its largest coefficient modulo a step. Despite the name no cosine
transform is involved. This module holds the variant for uint8 pixels in the package's own channel order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from jaxtyping import Float64, Int, Int8, Int32, Int64, UInt8

from poolproof.errors import InputError

BLOCK: Final = 8
"""Side of the square that carries one bit, in pixels."""

STEP: Final = 36
"""Quantisation step of the public marks, in units of the low band."""

MIN_PIXELS: Final = 65536
"""The scheme writes and reads no smaller images."""

MAX_PIXELS: Final = 4_000_000
"""Pixels that are read by default: 62500 votes, far more than a public payload needs."""

# Fixed-point weights of OpenCV's 8-bit conversion: 14 fractional bits, rounded to nearest.
_SHIFT: Final = 14
_HALF: Final = 1 << (_SHIFT - 1)
_RED, _GREEN, _BLUE = 4899, 9617, 1868
_U_WEIGHT: Final = 8061
_U_ZERO: Final = 128

# Pixels that are converted at a time: the intermediate planes then stay in a core's own cache.
_STRIP_PIXELS: Final = 32768


def block_votes(
    pixels: UInt8[np.ndarray, "h w 3"], *, max_pixels: int = MAX_PIXELS
) -> Int8[np.ndarray, " n"]:
    """Votes of the 8 x 8 blocks, row by row: +1 for bit 1, -1 for bit 0. Vote n belongs to bit n mod period.

    The votes equal those of the package's decoder, ties and rounding included, on machines whose PyWavelets
    build does not fuse multiplications and additions (its wheels for x86-64 do not).

    Args:
        pixels: RGB. Rows and columns beyond a multiple of 8 are left out.
        max_pixels: at most about so many pixels are read, whole rows of blocks from the top, at least one.
            The width stays, so the votes are the beginning of the full sequence.

    Returns:
        Empty where the image has fewer than `MIN_PIXELS` pixels.

    Source: invisible-watermark 0.2.0, method dwtDct; OpenCV's conversion from BGR to YUV for 8-bit pixels.
    """
    height, width = pixels.shape[:2]
    if max_pixels < 1:
        raise InputError(f"max_pixels: got {max_pixels}, allowed from 1; leave it out for {MAX_PIXELS}")
    columns = width // BLOCK
    if height * width < MIN_PIXELS or columns == 0:
        return np.empty(0, np.int8)
    rows = min(height // BLOCK, max(1, max_pixels // (width * BLOCK)))
    votes = np.empty((rows, columns), np.int8)
    strip = max(1, _STRIP_PIXELS // (width * BLOCK))
    for start in range(0, rows, strip):
        stop = min(rows, start + strip)
        part = pixels[start * BLOCK : stop * BLOCK, : columns * BLOCK]
        votes[start:stop] = _votes_of_strip(_u_channel(part))
    return votes.ravel()


def _u_channel(pixels: UInt8[np.ndarray, "h w 3"]) -> Int32[np.ndarray, "h w"]:
    """U as OpenCV computes it for 8-bit pixels, without its saturation: the values lie in 17..239."""
    blue = pixels[:, :, 2].astype(np.int32)
    luma = pixels[:, :, 1] * np.int32(_GREEN)
    luma += pixels[:, :, 0] * np.int32(_RED)
    luma += blue * np.int32(_BLUE)
    luma += np.int32(_HALF)
    luma >>= _SHIFT
    blue -= luma
    blue *= np.int32(_U_WEIGHT)
    blue += np.int32((_U_ZERO << _SHIFT) + _HALF)
    blue >>= _SHIFT
    return blue


def _votes_of_strip(u: Int32[np.ndarray, "h w"]) -> Int8[np.ndarray, "a b"]:
    rows, columns = u.shape[0] // BLOCK, u.shape[1] // BLOCK
    pairs = u[0::2] + u[1::2]
    sums = pairs[:, 0::2] + pairs[:, 1::2]  # twice the low band; never negative
    sums[::4, ::4] = 0  # the first coefficient carries nothing
    down = sums.reshape(rows, 4, columns * 4).max(axis=1)
    largest = np.maximum(np.maximum(down[:, 0::4], down[:, 1::4]), np.maximum(down[:, 2::4], down[:, 3::4]))
    votes = _vote_table()[largest]
    # The package computes in floating point. Only a remainder of exactly 0 or half a step depends on its
    # rounding, and then on which of several equal coefficients it takes for the largest.
    at_edge = np.argwhere(largest % STEP == 0)
    if at_edge.size:
        tiles = u.reshape(rows, BLOCK, columns, BLOCK)[at_edge[:, 0], :, at_edge[:, 1]]
        low = _low_band(tiles.astype(np.float64)).reshape(-1, 16)
        value = np.take_along_axis(low, 1 + low[:, 1:].argmax(axis=1)[:, None], axis=1)[:, 0]
        votes[at_edge[:, 0], at_edge[:, 1]] = np.where(value % STEP > STEP / 2, 1, -1)
    return votes


@cache
def _vote_table() -> Int8[np.ndarray, " n"]:
    """Votes by the doubled largest coefficient, at most 4 * 255."""
    doubled = np.arange(4 * 255 + 1)
    return np.where(doubled % (2 * STEP) > STEP, 1, -1).astype(np.int8)


def _low_band(u: Float64[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n h/2 w/2"]:
    """The low Haar band with the rounding of PyWavelets: each axis scaled by sqrt(0.5), rows first."""
    scaled = u * np.sqrt(0.5)
    down = (scaled[:, 0::2] + scaled[:, 1::2]) * np.sqrt(0.5)
    return down[:, :, 0::2] + down[:, :, 1::2]


def embed_dwt(
    pixels: UInt8[np.ndarray, "h w 3"], bits: Sequence[int], step: float | int = STEP
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with the bits written into its 8 x 8 blocks, over and over.

    A block's largest low-band coefficient moves to a quarter (bit 0) or three quarters (bit 1) of its step.
    This happens in all blocks, however flat, and as in the package another coefficient can then be the
    largest, or a colour can be clipped: such blocks read wrongly.

    The package differs in the way back. It swaps the horizontal and vertical detail bands of U, which
    transposes the detail within 2 x 2 pixels, and it passes all pixels through rounded YUV. Here only the
    pixels under changed coefficients change, by blue and green at constant luma and V.

    Args:
        pixels: RGB, at least `MIN_PIXELS` pixels.
        bits: 0 or 1, block n carries bit n mod their number.
        step: quantisation step; the public marks use 36, and only they are read by `block_votes`.

    Raises:
        InputError: too small an image, no bits, other values than 0 and 1, or a step that is not positive.

    Source: invisible-watermark 0.2.0, method dwtDct.
    """
    height, width = pixels.shape[:2]
    rows, columns = height // BLOCK, width // BLOCK
    if height * width < MIN_PIXELS or rows * columns == 0:
        raise InputError(
            f"pixels: got {height}x{width}, allowed from {MIN_PIXELS} pixels and 8 a side; enlarge it first"
        )
    payload = np.asarray(bits)
    if payload.size == 0 or not np.isin(payload, (0, 1)).all():
        raise InputError(
            f"bits: got {bits!r}, allowed one or more of 0 and 1; give them as a sequence of ints"
        )
    if not step > 0:
        raise InputError(f"step: got {step}, allowed above 0; leave it out for {STEP}")
    area = pixels[: rows * BLOCK, : columns * BLOCK]
    change = _block_changes(_u_channel(area), np.resize(payload, rows * columns), step)
    marked = pixels.copy()
    target = marked[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    # U is a multiple of blue minus luma. Blue and green move so that luma and V keep their values.
    blue = change * (1 << _SHIFT) / _U_WEIGHT
    target[:, :, 2] += blue
    target[:, :, 1] -= blue * _BLUE / _GREEN
    marked[: rows * BLOCK, : columns * BLOCK] = np.clip(np.rint(target), 0, 255).astype(np.uint8)
    return marked


def _block_changes(
    u: Int[np.ndarray, "h w"], payload: Int64[np.ndarray, " n"], step: float | int
) -> Float64[np.ndarray, "h w"]:
    """What is added to U, four equal pixels in every block."""
    rows, columns = u.shape[0] // BLOCK, u.shape[1] // BLOCK
    tiles = u.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    low = _low_band(tiles.astype(np.float64)).reshape(-1, 16)
    place = 1 + low[:, 1:].argmax(axis=1)
    block = np.arange(len(low))
    value = low[block, place]
    delta = np.zeros_like(low)
    # A coefficient is half the sum of its four pixels, so each pixel takes half of the change.
    delta[block, place] = ((value // step + 0.25 + 0.5 * payload) * step - value) / 2
    grid = delta.reshape(rows, columns, 4, 4).swapaxes(1, 2).reshape(rows * 4, columns * 4)
    return grid.repeat(2, axis=0).repeat(2, axis=1)
