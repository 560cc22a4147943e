"""Digits as image files: one mixture of formats for all, and traces of their origin in some."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from poolproof.audit.credentials import Identity, sign_synthetic
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import Payload, load_payloads

LEVELS: Final = 16
"""Largest grey level of the digits."""

# Both colours, and all between them, have U near 130 in YUV. That lies in the lower half of a step of the public
# mark, where flat areas take both bits. In the upper half, bit 0 would be lost: see `embed_dwt`.
PAPER: Final = (232, 233, 238)
INK: Final = (40, 42, 47)

MARKS: Final = ("sdxl", "stable-diffusion-v2")
"""Public payloads that marked items carry in turn."""


@dataclass(frozen=True)
class Rendering:
    """How a digit becomes a file. All classes use the same mixture, so that content alone tells them apart.

    Attributes:
        suffix: file ending.
        enlarge: side of one pixel of the digit, in pixels.
        options: of the encoder.
        keeps_mark: whether a public mark survives the encoder; halved chroma destroys it.
    """

    suffix: str
    enlarge: int
    options: Mapping[str, Any]
    keeps_mark: bool


# 32 and 36 pixels: 256 and 288 a side, from the least size of the public marks
RENDERINGS: Final = tuple(
    Rendering(suffix, enlarge, options, keeps_mark)
    for enlarge in (32, 36)
    for suffix, options, keeps_mark in (
        ("png", {"format": "PNG"}, True),
        ("jpg", {"format": "JPEG", "quality": 95, "subsampling": 0}, True),
        ("jpg", {"format": "JPEG", "quality": 90, "subsampling": 2}, False),
    )
)


@dataclass(frozen=True)
class Item:
    """A digit on its way to a file.

    Attributes:
        levels: ink of each pixel, 0 to `LEVELS`.
        digit: what it shows.
        synthetic: its class.
        rendering: how it is encoded.
        parameters: text that declares it synthetic; None for most.
        payload: public mark that it carries; None for most.
        signed: whether it carries a signed manifest.
    """

    levels: UInt8[np.ndarray, "h w"]
    digit: int
    synthetic: bool
    rendering: Rendering
    parameters: str | None = None
    payload: Payload | None = None
    signed: bool = False

    @property
    def evidence(self) -> str | None:
        """What is laid into the file, in a word."""
        if self.signed:
            return "signed"
        return "declared" if self.parameters else f"marked:{self.payload.name}" if self.payload else None


def make_items(
    levels: UInt8[np.ndarray, "n h w"],
    digits: Int[np.ndarray, " n"],
    synthetic: bool,
    *,
    rng: np.random.Generator,
) -> list[Item]:
    """Items in all renderings equally often (up to one), at random: no class has a format of its own.

    Args:
        levels: ink of each pixel, 0 to `LEVELS`.
        digits: what each image shows.
        synthetic: their class.
        rng: decides who gets which rendering.
    """
    turns = rng.permutation(np.arange(len(levels)) % len(RENDERINGS))
    return [
        Item(image, int(digit), synthetic, RENDERINGS[turn])
        for image, digit, turn in zip(levels, digits, turns, strict=True)
    ]


def lay_evidence(
    items: Sequence[Item],
    declared_share: float,
    marked_share: float,
    n_signed: int,
    *,
    rng: np.random.Generator,
) -> list[Item]:
    """The items, some declared, others marked, a few signed. Formats stay as they are: evidence goes where it can last.

    Args:
        items: synthetic items.
        declared_share: share of the items whose metadata state their origin, in [0, 1]; only PNG can.
        marked_share: share of the items that carry a public mark, in [0, 1]; formats that destroy it do not.
        n_signed: how many carry a signed manifest, at most what the others leave.
        rng: decides which.
    """
    order = rng.permutation(len(items)).tolist()
    declared = [i for i in order if items[i].rendering.suffix == "png"][: round(declared_share * len(items))]
    free = [i for i in order if items[i].rendering.keeps_mark and i not in declared]
    marked = free[: round(marked_share * len(items))]
    left = [i for i in order if i not in {*declared, *marked}]
    payloads = [payload for payload in load_payloads() if payload.name in MARKS]
    laid = list(items)
    for i in declared:
        laid[i] = replace(items[i], parameters=_parameters(items[i], rng))
    for turn, i in enumerate(marked):
        laid[i] = replace(items[i], payload=payloads[turn % len(payloads)])
    for i in left[:n_signed]:
        laid[i] = replace(items[i], signed=True)
    return laid


def _parameters(item: Item, rng: np.random.Generator) -> str:
    """Generation parameters in the form that a widespread web interface writes into PNG files."""
    side = item.levels.shape[0] * item.rendering.enlarge
    return (
        f"digit {item.digit}\nSteps: 50, Sampler: DDIM, CFG scale: 1.0, "
        f"Seed: {rng.integers(2**32)}, Size: {side}x{side}"
    )


def encode_item(item: Item, identity: Identity) -> bytes:
    """The encoded image of a digit: paper and ink, enlarged without smoothing, with the evidence laid in.

    Args:
        item: the digit.
        identity: signs the items that are signed.
    """
    ramp = np.linspace(PAPER, INK, LEVELS + 1).round().astype(np.uint8)
    pixels = ramp[item.levels].repeat(item.rendering.enlarge, axis=0).repeat(item.rendering.enlarge, axis=1)
    options = dict(item.rendering.options)
    if item.parameters is not None:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("parameters", item.parameters)
    if item.payload is not None:
        pixels = embed_dwt(pixels, item.payload.bits)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    if item.signed:
        mime = "image/png" if item.rendering.suffix == "png" else "image/jpeg"
        return sign_synthetic(buffer.getvalue(), mime, identity, "poolproof quickstart")
    return buffer.getvalue()
