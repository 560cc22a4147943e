"""Marks over many images: what a search would have found, what it finds by chance, and what images say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from poolproof.errors import InputError
from poolproof.watermark.dwt import MAX_PIXELS, MIN_PIXELS, Variant
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import Payload
from poolproof.watermark.public_marks import Support, plan_search, read_supports
from poolproof.watermark.significance import DETECTION_LEVEL, sign_tail

Container = Callable[[UInt8[np.ndarray, "_ _ 3"]], UInt8[np.ndarray, "_ _ 3"]]
"""What an image's file does to pixels, such as JPEG at the quality and subsampling of that file."""

_POOLED_WEIGHT: Final = 20_000
"""Sum of the whole-number weights of a pooled test."""


def draw_controls(payloads: Sequence[Payload], n: int, *, rng: np.random.Generator) -> tuple[Payload, ...]:
    """Payloads that nobody writes, n for each given one: the same fixed bits, free bits drawn at random.

    A search for them shows what a search finds by chance. A payload with more hits than its controls stands out
    by more than the test's assumption.

    Args:
        payloads: to be imitated.
        n: controls for each.
        rng: draws the bits.
    """
    controls = []
    for payload in payloads:
        free = np.array(payload.free)
        for i in range(n):
            bits = np.array(payload.bits)
            bits[free] = rng.integers(0, 2, int(free.sum()))
            controls.append(
                Payload(f"{payload.name}/control-{i}", tuple(bits.tolist()), payload.free, payload.algorithm)
            )
    return tuple(controls)


def would_be_found(
    pixels: UInt8[np.ndarray, "h w 3"],
    payload: Payload,
    variant: Variant,
    container: Container | None = None,
    *,
    n_tests: int,
    level: float | int = DETECTION_LEVEL,
    max_pixels: int = MAX_PIXELS,
    rng: np.random.Generator,
) -> bool | None:
    """Whether this picture would be detected had it carried a mark; None where the scheme takes no such image.

    A control payload is written in memory, sent through what the image's file does to pixels, and tested as a
    search does. Over many images of a pool this is the recall of the search there, without which "none found" says
    nothing: a mark in a JPEG with halved chroma is lost.

    Args:
        pixels: RGB, as decoded.
        payload: imitated by a control of the same length.
        variant: how it is written.
        container: applied after writing, None for a lossless file.
        n_tests: in the search, whose correction applies here too.
        level: of the search.
        max_pixels: as in `dwt.block_remainders`.
        rng: draws the control's bits.

    Raises:
        InputError: a variant in which no search reads the payload.

    Assumes: the file's settings are those with which a marked image was last written. What happened before,
        such as a change of size, is not imitated, so the recall is an upper estimate.
    """
    if (payload, variant) not in plan_search((payload,)):
        raise InputError(
            f"variant: got {variant}, allowed one that a search reads for {payload.name}; choose one"
        )
    if pixels.shape[0] * pixels.shape[1] < MIN_PIXELS or min(pixels.shape[:2]) < 8:
        return None
    (control,) = draw_controls((payload,), 1, rng=rng)
    marked = embed_dwt(pixels, control.bits, variant)
    if container is not None:
        marked = container(marked)
    for _, found_in, supports, _ in read_supports(marked, (control,), max_pixels=max_pixels):
        if found_in == variant:
            return n_tests * sign_tail(supports) < level
    return False  # the container left too little of it


@final
@dataclass
class PooledSearch:
    """One test per payload and variant over many images: marks too weak in each may show in all of them.

    The payload is shared by the images that carry it, so images are no independent witnesses of a random payload:
    their supports are added, each image counting alike, and the sum is tested once.

    Args:
        payloads: those to search for.
    """

    payloads: tuple[Payload, ...]
    n_images: int = 0
    _sums: dict[tuple[str, Variant], Float64[np.ndarray, " free"]] = field(default_factory=dict)

    def update(self, pixels: UInt8[np.ndarray, "h w 3"], *, max_pixels: int = MAX_PIXELS) -> None:
        """Adds an image; too small ones are passed over.

        Args:
            pixels: RGB.
            max_pixels: as in `dwt.block_remainders`.
        """
        self.add(read_supports(pixels, self.payloads, max_pixels=max_pixels))

    def add(self, supports: Iterable[Support]) -> None:
        """Adds an image whose supports were read already, from `public_marks.read_supports`."""
        read = list(supports)
        for payload, variant, values, _ in read:
            size = float(np.abs(values).sum())
            key = (payload.name, variant)
            share = values / size if size else np.zeros(len(values))
            self._sums[key] = self._sums.get(key, np.zeros(len(values))) + share
        self.n_images += bool(read)

    def compute(self) -> dict[tuple[str, Variant], float]:
        """P-values by payload and variant, each corrected for the number of tests; empty before any image.

        Assumes: as `significance.payload_pvalue`, for all images together.
        """
        n_tests = len(plan_search(self.payloads))
        return {key: min(1.0, n_tests * sign_tail(_whole(sums))) for key, sums in self._sums.items()}


def _whole(sums: Float64[np.ndarray, " free"]) -> Int64[np.ndarray, " free"]:
    total = float(np.abs(sums).sum())
    return np.rint(sums * (_POOLED_WEIGHT / total)).astype(np.int64) if total else sums.astype(np.int64)
