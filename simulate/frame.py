"""The frame in which a flow sees its samples: points or pixels as standardised coordinates, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float, Float64

from poolproof.errors import InputError
from poolproof.simulate.generator import Samples
from poolproof.simulate.rows import read_points

MARGIN: Final = 0.05
"""Share of the unit interval that is left free at each end before the logit, as in Real NVP."""

KINDS: Final = ("points", "bytes", "floats")
"""What samples can be: points of d coordinates, images of bytes, images of floats in [-1, 1]."""


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """A map between samples and standardised coordinates.

    Attributes:
        kind: of `KINDS`.
        shape: of one sample, without the count.
        n_levels: grey levels of images; noise fills the gap between two.
        centre: of each coordinate before it is scaled.
        scale: of each coordinate, above 0.
    """

    kind: str
    shape: tuple[int, ...]
    n_levels: int
    centre: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    def encode(
        self, rows: Float64[np.ndarray, "n d"], *, rng: np.random.Generator
    ) -> Float[np.ndarray, "n d"]:
        """Standardised coordinates of rows as `read_rows` gives them; levels of images get uniform noise.

        Source: noise between levels: Theis, van den Oord and Bethge, "A note on the evaluation of generative
            models", 2016, section 3.1.
        """
        filled = rows if self.kind == "points" else _open(rows, self.n_levels, rng=rng)
        return (filled - self.centre) / self.scale

    def decode(self, coordinates: Float[np.ndarray, "n d"]) -> Samples:
        """Samples of the training samples' kind and shape; levels beyond the range become its ends."""
        rows = coordinates * self.scale + self.centre
        if self.kind == "points":
            return rows
        last = self.n_levels - 1
        # the logistic function, in the form that does not overflow
        rows = ((np.tanh(rows / 2) + 1) / 2 - MARGIN) * (self.n_levels / (1 - 2 * MARGIN))
        if self.kind == "bytes":
            pixels = np.rint(np.floor(rows).clip(0, last) * (255 / last)).astype(np.uint8)
        else:
            pixels = ((rows - 0.5).clip(0, last) * (2 / last) - 1).astype(np.float32)
        return pixels.reshape(-1, *self.shape)


def read_rows(
    images: Samples, counts: Bool[np.ndarray, " n"], n_levels: int
) -> tuple[str, Float64[np.ndarray, "m d"]]:
    """The kind of the samples, and those that count as rows of numbers: coordinates, or levels of pixels from 0.

    Raises:
        InputError: one coordinate alone, a shape that is neither points nor images, or values out of range.
    """
    if images.ndim == 2:
        points = read_points(images, counts)
        if points.shape[1] < 2:
            raise InputError("images: got points of 1 coordinate, allowed 2 or more; use a mixture for them")
        return "points", points
    if images.ndim not in (3, 4) or math.prod(images.shape[1:]) < 2:
        raise InputError(f"images: got shape {images.shape}, allowed n d, n h w or n h w c; reshape them")
    rows = images[counts].reshape(int(counts.sum()), -1).astype(np.float64)
    if images.dtype == np.uint8:
        return "bytes", np.rint(rows * ((n_levels - 1) / 255))
    if not (np.isfinite(rows).all() and np.abs(rows).max() <= 1):
        raise InputError(f"images: got pixels to {np.abs(rows).max():g}, allowed from -1 to 1; rescale them")
    return "floats", (rows + 1) * ((n_levels - 1) / 2)


def measure_frame(
    kind: str,
    shape: tuple[int, ...],
    rows: Float64[np.ndarray, "n d"],
    shares: Float[np.ndarray, " n"],
    n_levels: int,
    *,
    rng: np.random.Generator,
) -> Frame:
    """The frame in which the weighted rows have mean 0 and variance 1.

    Raises:
        InputError: a coordinate of points without spread, whose density would be infinite.
    """
    filled = rows if kind == "points" else _open(rows, n_levels, rng=rng)
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.einsum("n,nd->d", shares, filled)
        variance = np.einsum("n,nd->d", shares, (filled - centre) ** 2)
    is_bad = ~((variance > 0) & np.isfinite(variance))
    if is_bad.any():
        bad = int(np.flatnonzero(is_bad)[0])
        raise InputError(
            f"images: got variance {variance[bad]:g} in coordinate {bad}, allowed finite above 0; drop or rescale it"
        )
    return Frame(kind, shape, n_levels, centre, np.sqrt(variance))


def _open(
    levels: Float64[np.ndarray, "n d"], n_levels: int, *, rng: np.random.Generator
) -> Float64[np.ndarray, "n d"]:
    """Levels with uniform noise that fills the gaps, on the whole line: their ends become long tails, not walls."""
    unit = MARGIN + (1 - 2 * MARGIN) / n_levels * (levels + rng.random(levels.shape))
    return np.log(unit / (1 - unit))
