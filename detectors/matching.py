"""One size and one codec for images from different pipelines, so that a detector cannot tell those apart.

Run pool and references through `match_image` with one target, read their features anew, and estimate again:
what the estimate moves by is what size and codec had contributed to it.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8

from poolproof.detectors.metadata import Columns, check_columns, numbers
from poolproof.errors import InputError

LOSSY: Final = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"})
"""Formats that have thrown details away, or may have."""

UNKNOWN_QUALITY: Final = 75
"""JPEG quality where sets are lossy and none tells its quality: libjpeg's default."""

FLOOR: Final = 0.01
"""Share of each set's items that may be smaller than the target, or of lower quality; they are left out."""

SMALLEST_SIDE: Final = 16
"""Pixels; below this nothing is matched and no grid is seen."""

Resampling = Literal["lanczos", "area", "crop"]


@dataclass(frozen=True)
class Target:
    """What every image is made into: a square of one side, by one codec.

    Attributes:
        side: pixels.
        quality: JPEG quality; None where no set is lossy and nothing is encoded.
        resampling: how larger images come to the side: "lanczos" or "area" shrink the central square, "crop"
            cuts it out at native resolution, which keeps traces of generators that shrinking destroys.
    """

    side: int
    quality: int | None
    resampling: Resampling = "lanczos"

    def holds(self, width: Int[np.ndarray, " n"], height: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Return which images can be matched: those that need no upscaling."""
        return np.minimum(width, height) >= self.side


def match_target(*sets: Columns, resampling: Resampling = "lanczos") -> Target:
    """Return a size and a codec that all sets can be brought to by losing alone.

    The side is the smallest shorter side over the sets, after the smallest hundredth of each is passed over:
    a single icon must not decide. The codec is JPEG with halved chroma (4:2:0) where a set is lossy, at the
    lowest quality of the sets, after the lowest hundredth of each; else none.

    Args:
        sets: metadata of the pool and of the references, as `metadata_features` takes them.
        resampling: of larger images.

    Raises:
        InputError: there is no set, a column is missing, empty or broken, or the images are smaller than 16 pixels.
    """
    if not sets:
        raise InputError("sets: got none, allowed 1 or more: give the metadata of pool and references")
    sides, qualities, lossy = [], [], False
    for i, columns in enumerate(sets):
        check_columns(f"sets[{i}]", columns)
        shorter = np.minimum(numbers(columns["width"]), numbers(columns["height"]))
        sides.append(_low(shorter))
        known = numbers(columns["quality"])
        if np.isfinite(known).any():
            qualities.append(_low(known[np.isfinite(known)]))
        lossy |= not LOSSY.isdisjoint(str(name).upper() for name in columns["format"])
    if min(sides) < SMALLEST_SIDE:
        got = f"a shorter side of {min(sides)} pixels"
        raise InputError(f"sets: got {got}, allowed {SMALLEST_SIDE} or more: leave the smallest images out")
    quality = min(qualities) if qualities else UNKNOWN_QUALITY if lossy else None
    return Target(min(sides), quality, resampling)


def match_image(pixels: UInt8[np.ndarray, "h w 3"], target: Target) -> UInt8[np.ndarray, "s s 3"]:
    """Return the image at the target's size, encoded by the target's codec and decoded again.

    The central square is taken and shrunk, never enlarged; then JPEG at the target's quality with 4:2:0 and
    libjpeg's standard tables. The same pixels give the same pixels with one version of Pillow.

    Args:
        pixels: RGB, at least the target's side both ways.
        target: from `match_target`.

    Raises:
        InputError: the image is smaller than the target, or the target is none.

    Fails: an image that has the target's size already is not resampled while others are, so an 8-grid of
        earlier JPEG coding may survive in it. Where that matters choose a side below all sizes.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    if target.side < 1 or not (target.quality is None or 1 <= target.quality <= 100):
        raise InputError(f"target: got {target}, allowed a side from 1 and a quality of 1 to 100 or None")
    if min(height, width) < target.side:
        got, allowed = f"{width} x {height}", f"{target.side} or more both ways"
        raise InputError(f"pixels: got {got}, allowed {allowed}: leave the image out, nothing is enlarged")
    taken = target.side if target.resampling == "crop" else min(height, width)
    top, left = (height - taken) // 2, (width - taken) // 2
    square = np.ascontiguousarray(pixels[top : top + taken, left : left + taken])
    image = Image.fromarray(square)
    if taken != target.side:
        ways = {"lanczos": Image.Resampling.LANCZOS, "area": Image.Resampling.BOX}
        if target.resampling not in ways:
            raise InputError(
                f"resampling: got {target.resampling!r}, allowed lanczos, area or crop: use lanczos"
            )
        image = image.resize((target.side, target.side), ways[target.resampling])
    if target.quality is None:
        return np.array(image)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=target.quality, subsampling="4:2:0")
    with Image.open(encoded) as decoded:
        return np.array(decoded.convert("RGB"))


def blockiness(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return how much larger luma steps are at the borders of an 8 x 8 grid than elsewhere, as a logarithm.

    About 0 without a grid; 0.1 to 1 after JPEG of usual to low quality at the image's own origin; 0 for an
    image without any steps. A grid that was shifted by a crop or stretched by resizing is not seen.

    Args:
        pixels: RGB, at least 16 both ways.

    Raises:
        InputError: the image is smaller.

    Source: after Wang, Sheikh and Bovik, ICIP 2002, eq. 1 and 2, as a ratio.
    """
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        got = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise InputError(f"pixels: got {got}, allowed {SMALLEST_SIDE} or more both ways: leave the image out")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    across, down = _border_steps(luma), _border_steps(luma.T)
    border, inside = across[0] + down[0], across[1] + down[1]
    # one grey level on both sides: in flat images rounding alone would decide
    return math.log((border + 1.0) / (inside + 1.0))


def _border_steps(luma: Float64[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return the mean absolute step between columns at borders of the grid, and elsewhere."""
    steps = np.abs(np.diff(luma, axis=1)).mean(axis=0)
    border = np.arange(1, len(steps) + 1) % 8 == 0
    return float(steps[border].mean()), float(steps[~border].mean())


def _low(values: Float64[np.ndarray, " n"]) -> int:
    """Return the smallest value after the lowest hundredth is passed over."""
    return int(np.sort(values)[math.floor(FLOOR * len(values))])
