"""Luma and chroma as OpenCV computes them, from bytes and from floating-point pixels, and back.

The public marks live in the U channel alone. A writer may take RGB for BGR, and may hand over floats from 0 to
255 in place of bytes. Both change U: bytes are rounded and offset by 128, floats by 0.5. All functions here
work pixel by pixel on planes of any shape.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from jaxtyping import Float32, Int32, UInt8

Channels = Literal["BGR", "RGB"]
"""Order in which the writer had the channels. It takes the first one for blue."""

# Fixed-point weights for bytes: 14 fractional bits, rounded to nearest.
_SHIFT: Final = 14
_HALF: Final = np.int32(1 << (_SHIFT - 1))
_RED, _GREEN, _BLUE = np.int32(4899), np.int32(9617), np.int32(1868)
_U_WEIGHT, _V_WEIGHT = np.int32(8061), np.int32(14369)
_ZERO: Final = np.int32(128)
_OFFSET: Final = np.int32((128 << _SHIFT) + (1 << (_SHIFT - 1)))
_U_TO_BLUE, _U_TO_GREEN, _V_TO_GREEN, _V_TO_RED = (np.int32(w) for w in (33292, -6472, -9519, 18678))

FLOAT_UNIT: Final = 0.492 / 1000
"""U of floating-point pixels, less its offset of 0.5, is this times 886 blue - 587 green - 299 red."""


def blue_and_red(channels: Channels) -> tuple[int, int]:
    """Indices into RGB of what the writer takes for blue and for red."""
    return (2, 0) if channels == "BGR" else (0, 2)


def gather_quads(
    pixels: UInt8[np.ndarray, "h w 3"], out: Int32[np.ndarray, "3 2 2 _ _"] | None = None
) -> Int32[np.ndarray, "3 2 2 _ _"]:
    """The pixels by channel and by place within 2 x 2, row and column: what a Haar transform takes in.

    Args:
        pixels: RGB, with even sides.
        out: takes the result, of half the sides.
    """
    height, width, _ = pixels.shape
    split = pixels.reshape(height // 2, 2, width // 2, 2, 3).transpose(4, 1, 3, 0, 2)
    if out is None:
        out = np.empty(split.shape, np.int32)
    np.copyto(out, split)
    return out


def u_of_bytes(
    rgb: Int32[np.ndarray, " 3 *shape"],
    channels: Channels,
    out: Int32[np.ndarray, " 2 *shape"] | None = None,
) -> tuple[Int32[np.ndarray, " *shape"], Int32[np.ndarray, " *shape"]]:
    """U, in 17..239, and luma of bytes.

    Args:
        rgb: values 0..255 by channel.
        channels: order that the writer assumed.
        out: takes the two.

    Source: OpenCV 4 and 5, conversion from BGR to YUV for 8-bit pixels.
    """
    first, third = blue_and_red(channels)
    pair: np.ndarray = np.empty((2, *rgb.shape[1:]), np.int32) if out is None else out
    u: np.ndarray = pair[0]
    luma: np.ndarray = pair[1]
    np.multiply(rgb[1], _GREEN, out=luma)
    for channel, weight in ((third, _RED), (first, _BLUE)):
        np.multiply(rgb[channel], weight, out=u)
        luma += u
    luma += _HALF
    luma >>= _SHIFT
    np.subtract(rgb[first], luma, out=u)
    u *= _U_WEIGHT
    u += _OFFSET
    u >>= _SHIFT
    return u, luma


def v_of_bytes(
    rgb: Int32[np.ndarray, " 3 *shape"],
    luma: Int32[np.ndarray, " *shape"],
    channels: Channels,
    out: Int32[np.ndarray, " *shape"] | None = None,
) -> Int32[np.ndarray, " *shape"]:
    """V of bytes, cut to 0..255, which only saturated colours leave.

    Args:
        rgb: values 0..255 by channel.
        luma: from `u_of_bytes`.
        channels: order that the writer assumed.
        out: takes the result.

    Source: as `u_of_bytes`.
    """
    v = np.subtract(rgb[blue_and_red(channels)[1]], luma, out=out)
    v *= _V_WEIGHT
    v += _OFFSET
    v >>= _SHIFT
    return np.clip(v, 0, 255, out=v)


def rgb_of_bytes(
    luma: Int32[np.ndarray, " *shape"],
    u: Int32[np.ndarray, " *shape"],
    v: Int32[np.ndarray, " *shape"],
    channels: Channels,
    out: Int32[np.ndarray, " 3 *shape"],
) -> Int32[np.ndarray, " 3 *shape"]:
    """RGB by channel, cut to 0..255, in `out`; overwrites U and V.

    Source: OpenCV 4 and 5, conversion from YUV to BGR for 8-bit pixels.
    """
    first, third = blue_and_red(channels)
    rgb = out
    u -= _ZERO
    v -= _ZERO
    np.multiply(v, _V_TO_GREEN, out=rgb[1])
    np.multiply(v, _V_TO_RED, out=rgb[third])
    np.multiply(u, _U_TO_GREEN, out=v)
    rgb[1] += v
    np.multiply(u, _U_TO_BLUE, out=rgb[first])
    rgb += _HALF
    rgb >>= _SHIFT
    rgb += luma
    return np.clip(rgb, 0, 255, out=rgb)


def u_of_sums(sums: Int32[np.ndarray, " 3 *shape"], channels: Channels) -> Int32[np.ndarray, " *shape"]:
    """U of floating-point pixels summed over some of them, less the offset, in units of `FLOAT_UNIT`; exact.

    Args:
        sums: by channel, of RGB.
        channels: order that the writer assumed.
    """
    first, third = blue_and_red(channels)
    u = sums[first] * np.int32(886)
    u -= sums[1] * np.int32(587)
    u -= sums[third] * np.int32(299)
    return u


def yuv_of_floats(
    rgb: Float32[np.ndarray, " 3 *shape"], channels: Channels
) -> tuple[Float32[np.ndarray, " *shape"], Float32[np.ndarray, " *shape"], Float32[np.ndarray, " *shape"]]:
    """Luma, U and V of floats from 0 to 255.

    Source: OpenCV 4 and 5, conversion from BGR to YUV for 32-bit floats.
    """
    first, third = blue_and_red(channels)
    luma = rgb[1] * np.float32(0.587)
    luma += rgb[third] * np.float32(0.299)
    luma += rgb[first] * np.float32(0.114)
    u, v = rgb[first] - luma, rgb[third] - luma
    u *= np.float32(0.492)
    v *= np.float32(0.877)
    u += np.float32(0.5)
    v += np.float32(0.5)
    return luma, u, v


def rgb_of_floats(
    luma: Float32[np.ndarray, " *shape"],
    u: Float32[np.ndarray, " *shape"],
    v: Float32[np.ndarray, " *shape"],
    channels: Channels,
) -> Float32[np.ndarray, " 3 *shape"]:
    """RGB by channel, rounded and cut to 0..255; overwrites U and V.

    Source: OpenCV 4 and 5, conversion from YUV to BGR for 32-bit floats.
    """
    first, third = blue_and_red(channels)
    rgb = np.empty((3, *luma.shape), np.float32)
    u -= np.float32(0.5)
    v -= np.float32(0.5)
    np.multiply(u, np.float32(-0.395), out=rgb[1])
    rgb[1] -= v * np.float32(0.581)
    np.multiply(u, np.float32(2.032), out=rgb[first])
    np.multiply(v, np.float32(1.140), out=rgb[third])
    rgb += luma
    np.rint(rgb, out=rgb)
    return np.clip(rgb, 0, 255, out=rgb)
