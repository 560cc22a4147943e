"""Marks under one interface: write into pixels, read from pixels, with a p-value for what was read."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import UInt8

from poolproof.watermark.dwt import (
    BLOCK,
    MIN_PIXELS,
    Variant,
    block_remainders,
    decode_bits,
    strengths_of,
    votes_of,
)
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.key import Key
from poolproof.watermark.message import encode_message
from poolproof.watermark.payloads import Payload
from poolproof.watermark.significance import payload_pvalue
from poolproof.watermark.spread import MIN_SIDE, PSNR, SCALES, check_psnr, detect_spread, embed_spread


@final
@dataclass(frozen=True)
class Reading:
    """What a scheme read off an image.

    Args:
        p_value: of the mark's presence, in (0, 1]; 1 where the image is too small to be read.
        bits: the payload as far as it was read, None where it was not.
    """

    p_value: float
    bits: tuple[int, ...] | None


class AbstractScheme(abc.ABC):
    """A way to mark images, with its payload or key.

    Attributes:
        name: in tables.
        bits: the payload that it writes; empty for presence alone.
    """

    name: str
    bits: tuple[int, ...]

    @abc.abstractmethod
    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A marked copy.

        Args:
            pixels: RGB.

        Raises:
            InputError: the image is too small for the scheme.
        """

    @abc.abstractmethod
    def read(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """What the image says of this mark; never raises for an image's size.

        Args:
            pixels: RGB, at least one pixel.
        """


@final
class SpreadScheme(AbstractScheme):
    """Our keyed mark.

    Args:
        key: whose mark.
        bits: payload of up to 64 bits, none for presence alone.
        scales: enlargements that reading tries.
        psnr: decibels between an image and its marked copy.
    """

    def __init__(
        self,
        key: Key,
        bits: Sequence[int] = (),
        scales: Sequence[float | int] = SCALES,
        *,
        psnr: float | int = PSNR,
    ) -> None:
        # refuse what could not be written
        check_psnr(psnr)
        if bits:
            encode_message(bits)
        self.name = "spread"
        self.key, self.bits, self.scales, self.psnr = key, tuple(bits), tuple(scales), psnr

    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A marked copy."""
        return embed_spread(pixels, self.key, self.bits, psnr=self.psnr)

    def read(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """Presence, and the payload where it can be recovered."""
        if min(pixels.shape[:2]) < MIN_SIDE // 4:
            return Reading(1.0, None)
        found = detect_spread(pixels, self.key, len(self.bits), scales=self.scales)
        return Reading(found.p_value, found.bits)


@final
class DwtScheme(AbstractScheme):
    """A scheme of the invisible-watermark package with a known payload, read in one variant.

    Args:
        payload: what is written and looked for.
        variant: how.
    """

    def __init__(self, payload: Payload, variant: Variant | None = None) -> None:
        self.payload = payload
        self.variant = variant or Variant(payload.algorithm)
        self.name = f"{self.variant.algorithm} ({self.variant.array})"
        self.bits = payload.bits

    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A marked copy."""
        return embed_dwt(pixels, self.bits, self.variant)

    def read(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """The exact p-value of the payload, and the bits by majority."""
        if pixels.shape[0] * pixels.shape[1] < MIN_PIXELS:
            return Reading(1.0, None)
        remainders = block_remainders(pixels, (self.variant,))[self.variant]
        if remainders.size < len(self.bits):
            return Reading(1.0, None)
        grid = strengths_of(remainders).reshape(-1, pixels.shape[1] // BLOCK)
        p_value = payload_pvalue(grid, self.payload)
        return Reading(p_value, decode_bits(votes_of(remainders), len(self.bits)))
