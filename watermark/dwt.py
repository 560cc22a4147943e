"""Reading the schemes of the invisible-watermark package: what every block of an image votes for.

Both schemes take the U channel, its low Haar band, and tiles of 4 x 4 coefficients, which are 8 x 8 pixels. A
tile carries one bit in the remainder of one number modulo a step: `dwtDct` in its largest coefficient (despite
the name no cosine transform is involved), `dwtDctSvd` in its largest singular value (the cosine transform
there is orthogonal and does not change it). What U is depends on the array that the writer was handed, hence
the variants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Integer, Num, UInt8

from poolproof.errors import InputError
from poolproof.watermark.chroma import FLOAT_UNIT, Channels, gather_quads, u_of_bytes, u_of_sums
from poolproof.watermark.singular import leading_pairs

BLOCK: Final = 8
"""Side of the square that carries one bit, in pixels."""

STEP: Final = 36
"""Quantisation step of the public marks, in units of the low band."""

MIN_PIXELS: Final = 65536
"""The schemes write and read no smaller images."""

MAX_PIXELS: Final = 4_000_000
"""Pixels that are read by default: 62500 votes, far more than a public payload needs."""

STRENGTH: Final = 8
"""Largest magnitude of a block's strength."""

Algorithm = Literal["dwtDct", "dwtDctSvd"]
Array = Literal["uint8", "float32"]

# Pixels that are converted at a time: the intermediate planes then stay in a core's own cache.
_STRIP_PIXELS: Final = 131072


@final
@dataclass(frozen=True, order=True)
class Variant:
    """One way in which a writer can have written: the same bits land in other coefficients and signs.

    Args:
        algorithm: `dwtDct` or `dwtDctSvd`.
        array: element type of the array that the writer was handed; floats go from 0 to 255.
        channels: order of its channels. The package assumes BGR.
    """

    algorithm: Algorithm = "dwtDct"
    array: Array = "uint8"
    channels: Channels = "BGR"

    def __str__(self) -> str:
        return f"{self.algorithm}/{self.array}/{self.channels}"


def variants_of(algorithm: Algorithm) -> tuple[Variant, ...]:
    """All variants of an algorithm."""
    arrays: tuple[Array, ...] = ("uint8", "float32")
    orders: tuple[Channels, ...] = ("BGR", "RGB")
    return tuple(Variant(algorithm, array, channels) for array in arrays for channels in orders)


VARIANTS: Final = variants_of("dwtDct") + variants_of("dwtDctSvd")[:2]
"""The variants that are read: all of `dwtDct`, and `dwtDctSvd` on bytes; nobody is known to hand it floats."""


def block_remainders(
    pixels: UInt8[np.ndarray, "*batch h w 3"],
    variants: Sequence[Variant] = VARIANTS,
    *,
    max_pixels: int = MAX_PIXELS,
) -> dict[Variant, Float32[np.ndarray, "*batch n"]]:
    """By variant, the remainders of the 8 x 8 blocks modulo the step, row by row, in [0, `STEP`].

    A mark moves them to 9 for bit 0 and to 27 for bit 1. Each variant takes one colour transform and one
    wavelet level, and the float variants share their sums.

    Args:
        pixels: RGB, one image or several of one size. Rows and columns beyond a multiple of 8 are left out.
        variants: those to read.
        max_pixels: at most about so many pixels of an image are read, whole rows of blocks from the top, at
            least one. The width stays, so block n remains block n.

    Returns:
        Empty arrays where an image has fewer than `MIN_PIXELS` pixels.

    Raises:
        InputError: `max_pixels` is below 1.

    Source: invisible-watermark 0.2.0, methods dwtDct and dwtDctSvd; OpenCV's conversions from BGR to YUV.
    """
    *batch, height, width, _ = pixels.shape
    if max_pixels < 1:
        raise InputError(f"max_pixels: got {max_pixels}, allowed from 1; leave it out for {MAX_PIXELS}")
    columns = width // BLOCK
    if height * width < MIN_PIXELS or min(height, width) < BLOCK:
        return {variant: np.empty((*batch, 0), np.float32) for variant in variants}
    rows = min(height // BLOCK, max(1, max_pixels // (width * BLOCK)))
    images = pixels.reshape(-1, height, width, 3)[:, : rows * BLOCK, : columns * BLOCK]
    out = {variant: np.empty((len(images), rows, columns), np.float32) for variant in variants}
    for n, image in enumerate(images):
        for variant, remainders in _read_image(image, variants):
            out[variant][n] = remainders
    return {variant: values.reshape(*batch, rows * columns) for variant, values in out.items()}


def _read_image(
    image: UInt8[np.ndarray, "h w 3"], variants: Sequence[Variant]
) -> Iterator[tuple[Variant, Float32[np.ndarray, "a b"]]]:
    """Strip by strip what costs time by pixel, then at once what costs time by block."""
    height, width, _ = image.shape
    strip = max(1, _STRIP_PIXELS // (width * BLOCK)) * BLOCK
    parts: dict[Variant, list[np.ndarray]] = {variant: [] for variant in variants}
    for start in range(0, height, strip):
        for variant, found in _read_strip(image[start : start + strip], variants):
            parts[variant].append(found)
    for variant, found in parts.items():
        carriers = np.concatenate(found)
        if (variant.algorithm, variant.array) == ("dwtDct", "uint8"):
            yield variant, _remainders_of_bytes(carriers, image, variant.channels)
        else:
            yield variant, (carriers % STEP).astype(np.float32)


def _read_strip(
    part: UInt8[np.ndarray, "h w 3"], variants: Sequence[Variant]
) -> Iterator[tuple[Variant, Num[np.ndarray, "a b"]]]:
    """The number that carries each tile's bit; for `dwtDct` on bytes twice that number, which is whole."""
    quads = gather_quads(part)
    sums = quads.sum(axis=(1, 2), dtype=np.int32) if any(v.array == "float32" for v in variants) else None
    for channels in ("BGR", "RGB"):
        wanted = [v for v in variants if (v.array, v.channels) == ("uint8", channels)]
        if wanted:
            u, _ = u_of_bytes(quads, channels)
            doubled = u[0, 0] + u[0, 1]  # twice the low band in the end; never negative
            doubled += u[1, 0]
            doubled += u[1, 1]
            for variant in wanted:
                if variant.algorithm == "dwtDct":
                    yield variant, _tile_maxima(doubled.astype(np.int16))
                else:
                    yield variant, _singular(doubled * 0.5)
        wanted = [v for v in variants if (v.array, v.channels) == ("float32", channels)]
        if wanted and sums is not None:
            units = u_of_sums(sums, channels)
            for variant in wanted:
                if variant.algorithm == "dwtDct":
                    yield variant, _largest_of_floats(units)
                else:
                    yield variant, _singular(units * (FLOAT_UNIT / 2) + 1.0)


def _remainders_of_bytes(
    doubled: Integer[np.ndarray, "a b"], image: UInt8[np.ndarray, "h w 3"], channels: Channels
) -> Float32[np.ndarray, "a b"]:
    """Remainders of the tiles' largest coefficients, from these doubled."""
    remainders = _remainder_table()[doubled]
    # The package computes in floating point. Only a remainder of exactly 0 or half a step depends on its
    # rounding, and then on which of several equal coefficients it takes for the largest.
    down, right = np.nonzero(_edge_table()[doubled])
    if down.size:
        rows, columns = doubled.shape
        tiles = image.reshape(rows, BLOCK, columns, BLOCK, 3)[down, :, right]
        u, _ = u_of_bytes(gather_quads(tiles.reshape(-1, BLOCK, 3)), channels)
        quads = u.reshape(2, 2, down.size, 4, 4).transpose(2, 0, 1, 3, 4)
        low = low_band(quads.astype(np.float64)).reshape(-1, 16)
        value = np.take_along_axis(low, 1 + low[:, 1:].argmax(axis=1)[:, None], axis=1)[:, 0] % STEP
        # in 32 bits a value just beyond half a step would fall back on it
        beyond = np.nextafter(np.float32(STEP / 2), np.float32(STEP))
        remainders[down, right] = np.where(value > STEP / 2, np.maximum(value, beyond), value)
    return remainders


@cache
def _remainder_table() -> Float32[np.ndarray, " n"]:
    """Remainders by the doubled coefficient, at most 4 * 255."""
    return (np.arange(4 * 255 + 1) % (2 * STEP) / 2).astype(np.float32)


@cache
def _edge_table() -> Bool[np.ndarray, " n"]:
    """Whether the remainder is 0 or half a step, by the doubled coefficient."""
    return np.arange(4 * 255 + 1) % STEP == 0


def _largest_of_floats(units: Int32[np.ndarray, "h w"]) -> Float64[np.ndarray, "a b"]:
    """The largest magnitude of the tiles' coefficients."""
    highest, lowest = _tile_maxima(units), _tile_maxima(-units)
    # half the sum of four pixels, offset included: the low band
    scale = FLOAT_UNIT / 2
    return np.maximum(highest * scale + 1.0, lowest * scale - 1.0)


def _tile_maxima(values: Integer[np.ndarray, "h w"]) -> Integer[np.ndarray, "a b"]:
    """Largest value of every 4 x 4 tile without its first one, which carries nothing."""
    rows, columns = values.shape[0] // 4, values.shape[1] // 4
    values = values.copy()
    values[::4, ::4] = values[::4, 1::4]
    down = values.reshape(rows, 4, columns * 4).max(axis=1)
    return np.maximum(np.maximum(down[:, 0::4], down[:, 1::4]), np.maximum(down[:, 2::4], down[:, 3::4]))


def _singular(low: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "a b"]:
    """The tiles' largest singular values."""
    rows, columns = low.shape[0] // 4, low.shape[1] // 4
    tiles = low.reshape(rows, 4, columns, 4).transpose(1, 3, 0, 2).reshape(4, 4, rows * columns)
    return leading_pairs(tiles)[0].reshape(rows, columns)


def low_band(u: Float64[np.ndarray, "n 2 2 h w"]) -> Float64[np.ndarray, "n h w"]:
    """The low Haar band of quads with the rounding of PyWavelets: each axis scaled by sqrt(0.5), rows first."""
    scaled = u * np.sqrt(0.5)
    down = (scaled[:, 0] + scaled[:, 1]) * np.sqrt(0.5)
    return down[:, 0] + down[:, 1]


def block_votes(
    pixels: UInt8[np.ndarray, "*batch h w 3"],
    variant: Variant | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Int8[np.ndarray, "*batch n"]:
    """Votes of the 8 x 8 blocks, row by row: +1 for bit 1, -1 for bit 0. Vote n belongs to bit n mod period.

    For `dwtDct` on bytes the votes equal those of the package's decoder, ties and rounding included, on
    machines whose PyWavelets build does not fuse multiplications and additions (its wheels for x86-64 do not).
    The other variants are computed more exactly than the package's 32-bit floats, so a remainder within about
    1e-4 of 0 or of half a step can vote otherwise.

    Args:
        pixels: RGB, one image or several of one size.
        variant: None for `dwtDct` on bytes in the package's own order.
        max_pixels: as in `block_remainders`.
    """
    variant = variant or Variant()
    remainders = block_remainders(pixels, (variant,), max_pixels=max_pixels)[variant]
    return votes_of(remainders)


def votes_of(remainders: Float32[np.ndarray, "*batch n"]) -> Int8[np.ndarray, "*batch n"]:
    """Votes as the package counts them: +1 where the remainder passes half a step, else -1."""
    return np.where(remainders > STEP / 2, np.int8(1), np.int8(-1))


def strengths_of(remainders: Float32[np.ndarray, "*batch n"]) -> Int8[np.ndarray, "*batch n"]:
    """Soft votes, from -`STRENGTH` at the place of bit 0 to +`STRENGTH` at that of bit 1, with a sine between.

    A remainder near 0 or half a step can have come from either bit, and hardly counts. After resampling,
    blur or compression this finds more marks than votes do.
    """
    return np.rint(-STRENGTH * np.sin(remainders * np.float32(2 * np.pi / STEP))).astype(np.int8)


def decode_bits(votes: Int8[np.ndarray, " n"], n_bits: int) -> tuple[int, ...]:
    """The bits that the package's decoder gives for these votes: by majority, and 1 where the votes tie.

    Args:
        votes: at least `n_bits` of them.
        n_bits: period of the payload.

    Raises:
        InputError: fewer votes than bits.
    """
    if not 1 <= n_bits <= votes.size:
        raise InputError(
            f"n_bits: got {n_bits}, allowed 1 to the number of blocks, {votes.size}; take a larger image"
        )
    index = np.arange(votes.size) % n_bits
    ones = np.bincount(index, weights=votes > 0, minlength=n_bits)
    return tuple((ones / np.bincount(index, minlength=n_bits) * 255 > 127).astype(int).tolist())
