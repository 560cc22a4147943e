"""Writing the schemes of the invisible-watermark package into images, pixel for pixel as the package does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Num, UInt8

from poolproof.errors import InputError
from poolproof.watermark.chroma import (
    gather_quads,
    rgb_of_bytes,
    rgb_of_floats,
    u_of_bytes,
    v_of_bytes,
    yuv_of_floats,
)
from poolproof.watermark.dwt import BLOCK, MIN_PIXELS, STEP, Variant
from poolproof.watermark.singular import leading_pairs

# Pixels that are rewritten at a time: the intermediate planes then stay in a core's own cache.
_STRIP_PIXELS: Final = 65536


def embed_dwt(
    pixels: UInt8[np.ndarray, "*batch h w 3"],
    bits: Sequence[int],
    variant: Variant | None = None,
    *,
    step: float | int = STEP,
) -> UInt8[np.ndarray, "*batch h w 3"]:
    """Copies of the images with the bits written into their 8 x 8 blocks, over and over.

    The number that carries a block's bit moves to a quarter (bit 0) or three quarters (bit 1) of its step. The
    schemes have three faults, kept here because the marks in the world carry them. All blocks are written,
    however flat, so another coefficient can be the largest afterwards, or a colour is clipped: such blocks read
    wrongly. The way back swaps the horizontal and vertical detail of U, which transposes it within 2 x 2 pixels.
    And all pixels pass through rounded YUV, where U is cut to whole numbers, not rounded.

    For `dwtDct` on bytes the result equals the package's in every pixel, on machines whose PyWavelets build
    does not fuse multiplications and additions. On floats the package rounds to 32 bits in an order that
    depends on the machine, and in `dwtDctSvd` so does the decomposition: a few pixels in 100,000 differ by 1.

    Args:
        pixels: RGB, one image or several of one size, of at least `MIN_PIXELS` pixels and 8 a side.
        bits: 0 or 1, block n carries bit n mod their number.
        variant: the writer's habits, None for `dwtDct` on bytes in the package's own order.
        step: quantisation step; the public marks use 36, and only they are read by `block_remainders`.

    Raises:
        InputError: too small an image, no bits, other values than 0 and 1, or a step that is not positive.

    Source: invisible-watermark 0.2.0, methods dwtDct and dwtDctSvd.
    """
    variant = variant or Variant()
    *_, height, width, _ = pixels.shape
    rows, columns = height // BLOCK, width // BLOCK
    if height * width < MIN_PIXELS or rows * columns == 0:
        raise InputError(
            f"pixels: got {height}x{width}, allowed from {MIN_PIXELS} pixels and 8 a side; enlarge it first"
        )
    payload = np.asarray(bits)
    if payload.ndim != 1 or payload.size == 0 or not np.isin(payload, (0, 1)).all():
        raise InputError(
            f"bits: got {bits!r}, allowed one or more of 0 and 1; give them as a sequence of ints"
        )
    if not step > 0:
        raise InputError(f"step: got {step}, allowed above 0; leave it out for {STEP}")
    # places of the bits within a step, a quarter or three
    carried = np.resize(0.25 + 0.5 * payload, rows * columns).reshape(rows, columns)
    images = pixels.reshape(-1, height, width, 3)
    marked = np.empty_like(images)
    strip = max(1, _STRIP_PIXELS // (width * BLOCK))
    planes: dict[tuple[int, int], _Planes] = {}
    for image, target in zip(images, marked, strict=True):
        for start in range(0, rows, strip):
            stop = min(rows, start + strip)
            # rows beyond the last whole block take part in the colour transform, four of them in the wavelet's
            end = height if stop == rows else stop * BLOCK
            area = np.s_[start * BLOCK : end]
            _write_strip(image[area], carried[start:stop], variant, float(step), planes, out=target[area])
    return marked.reshape(pixels.shape)


@final
class _Planes:
    """Arrays of a strip, kept from one strip to the next: fresh memory costs as much as the arithmetic."""

    def __init__(self, height: int, width: int, variant: Variant) -> None:
        quads = (2, 2, height // 2, width // 2)
        self.rgb = np.empty((3, *quads), np.int32)
        self.yuv = np.empty((3, *quads), np.int32)
        self.u = np.empty(quads, np.float64 if variant.array == "uint8" else np.float32)
        self.down, self.detail = np.empty((2, *quads[1:]), self.u.dtype)
        self.bands = np.empty((4, *quads[2:]), self.u.dtype)


def _write_strip(
    part: UInt8[np.ndarray, "h w 3"],
    places: Float64[np.ndarray, "a b"],
    variant: Variant,
    step: float,
    planes: dict[tuple[int, int], _Planes],
    out: UInt8[np.ndarray, "h w 3"],
) -> None:
    height, width = (side // 4 * 4 for side in part.shape[:2])
    own = planes.get((height, width)) or _Planes(height, width, variant)
    planes[height, width] = own
    if variant.array == "uint8":
        quads = _rewrite_bytes(part[:height, :width], places, variant, step, own)
    else:
        quads = _rewrite_floats(part[:height, :width], places, variant, step, own)
    for channel, row, column in np.ndindex(3, 2, 2):  # one plane at a time is a third of a transposed copy
        out[row:height:2, column:width:2, channel] = quads[channel, row, column]
    for border in (np.s_[height:], np.s_[:height, width:]):  # takes part in the colour transform alone
        if part[border].size:
            out[border] = _pass_through(part[border], variant)


def _pass_through(pixels: UInt8[np.ndarray, "h w 3"], variant: Variant) -> Num[np.ndarray, "h w 3"]:
    """The pixels after a way through YUV."""
    rgb = np.moveaxis(pixels, 2, 0)
    if variant.array == "uint8":
        whole = rgb.astype(np.int32)
        u, luma = u_of_bytes(whole, variant.channels)
        v = v_of_bytes(whole, luma, variant.channels)
        return np.moveaxis(rgb_of_bytes(luma, u, v, variant.channels, out=whole), 0, 2)
    luma, u, v = yuv_of_floats(rgb.astype(np.float32), variant.channels)
    return np.moveaxis(rgb_of_floats(luma, u, v, variant.channels), 0, 2)


def _rewrite_bytes(
    area: UInt8[np.ndarray, "h w 3"],
    places: Float64[np.ndarray, "a b"],
    variant: Variant,
    step: float,
    planes: _Planes,
) -> Int32[np.ndarray, "3 2 2 _ _"]:
    """Quads of the pixels after a way through YUV bytes, with the bits in U."""
    rgb = gather_quads(area, out=planes.rgb)
    u, luma = u_of_bytes(rgb, variant.channels, out=planes.yuv[:2])
    v = v_of_bytes(rgb, luma, variant.channels, out=planes.yuv[2])
    np.copyto(planes.u, u)
    _rewrite_u(planes, places, variant, step)
    np.copyto(u, planes.u, casting="unsafe")  # the package cuts to whole numbers
    return rgb_of_bytes(luma, u, v, variant.channels, out=rgb)


def _rewrite_floats(
    area: UInt8[np.ndarray, "h w 3"],
    places: Float64[np.ndarray, "a b"],
    variant: Variant,
    step: float,
    planes: _Planes,
) -> Float32[np.ndarray, "3 2 2 _ _"]:
    """Quads of the pixels after a way through floating-point YUV, with the bits in U."""
    rgb = gather_quads(area, out=planes.rgb).astype(np.float32)
    luma, u, v = yuv_of_floats(rgb, variant.channels)
    np.copyto(planes.u, u)
    _rewrite_u(planes, places, variant, step)
    return rgb_of_floats(luma, planes.u, v, variant.channels)


def _rewrite_u(planes: _Planes, places: Float64[np.ndarray, "a b"], variant: Variant, step: float) -> None:
    """Puts the bits into the low band of U, in the precision it comes in; each rounding as in PyWavelets."""
    u, down, detail, bands = planes.u, planes.down, planes.detail, planes.bands
    root = u.dtype.type(np.sqrt(0.5))
    u *= root
    np.add(u[0], u[1], out=down)
    np.subtract(u[0], u[1], out=detail)
    down *= root
    detail *= root
    low, vertical, horizontal, diagonal = bands
    np.add(down[0], down[1], out=low)
    np.subtract(down[0], down[1], out=vertical)
    np.add(detail[0], detail[1], out=horizontal)
    np.subtract(detail[0], detail[1], out=diagonal)
    if variant.algorithm == "dwtDct":
        _move_largest(low, places, step)
    else:
        _move_singular(low, places, step)
    bands *= root
    # the package hands the two detail bands back in the wrong order
    np.add(low, horizontal, out=down[0])
    np.subtract(low, horizontal, out=down[1])
    np.add(vertical, diagonal, out=detail[0])
    np.subtract(vertical, diagonal, out=detail[1])
    down *= root
    detail *= root
    np.add(down, detail, out=u[0])
    np.subtract(down, detail, out=u[1])


def _move_largest(low: Float[np.ndarray, "h w"], places: Float64[np.ndarray, "a b"], step: float) -> None:
    """Moves each tile's coefficient of the largest magnitude, the first one excepted."""
    rows, columns = places.shape
    area = low[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4)
    magnitudes = area.transpose(1, 3, 0, 2).reshape(16, rows, columns)  # a copy
    np.abs(magnitudes, out=magnitudes)
    magnitudes[0] = -1.0  # the first coefficient carries nothing
    largest = magnitudes.max(axis=0)
    place = (magnitudes == largest).argmax(axis=0)  # the first of equal ones
    down = (place >> 2) + np.arange(0, rows * 4, 4)[:, None]
    right = (place & 3) + np.arange(0, columns * 4, 4)
    size = step * (largest // step + places.astype(low.dtype))
    low[down, right] = np.copysign(size, low[down, right])


def _move_singular(low: Float[np.ndarray, "h w"], places: Float64[np.ndarray, "a b"], step: float) -> None:
    """Moves each tile's largest singular value."""
    rows, columns = places.shape
    view = low[: rows * 4, : columns * 4]
    tiles = view.reshape(rows, 4, columns, 4).transpose(1, 3, 0, 2).reshape(4, 4, -1).astype(np.float64)
    values, left, right = leading_pairs(tiles)
    moved = step * (values // step + places.ravel())
    tiles += (moved - values) * left[:, None] * right[None, :]
    view[:] = tiles.reshape(4, 4, rows, columns).transpose(2, 0, 3, 1).reshape(rows * 4, columns * 4)
