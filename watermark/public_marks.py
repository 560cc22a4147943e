"""Public marks of an image: all payloads in all variants in one pass, with one p-value for the search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from poolproof.watermark.dwt import (
    BLOCK,
    MAX_PIXELS,
    VARIANTS,
    Variant,
    block_remainders,
    strengths_of,
    variants_of,
)
from poolproof.watermark.payloads import Payload
from poolproof.watermark.significance import payload_supports, sign_tail, whiten

Support = tuple[Payload, Variant, Int64[np.ndarray, " _"], int]
"""One test's payload, variant, supports, and the number of blocks read."""


@final
@dataclass(frozen=True)
class MarkReading:
    """The payload and variant that fit an image best.

    Args:
        payload: its name.
        variant: how it would have been written.
        p_value: in (0, 1], corrected for the number of tests in the search.
        matched: share of the payload's free bits that the blocks speak for, undecided ones counting half, in
            [0, 1].
        n_blocks: blocks read.
    """

    payload: str
    variant: Variant
    p_value: float
    matched: float
    n_blocks: int


def plan_search(payloads: Sequence[Payload]) -> tuple[tuple[Payload, Variant], ...]:
    """Every payload in every variant that is read for its algorithm: the tests of one search."""
    return tuple(
        (payload, variant)
        for payload in payloads
        for variant in variants_of(payload.algorithm)
        if variant in VARIANTS
    )


def read_marks(
    pixels: UInt8[np.ndarray, "h w 3"], payloads: Sequence[Payload], *, max_pixels: int = MAX_PIXELS
) -> MarkReading | None:
    """The reading of the payload and variant that fit best; None for too small an image, or without payloads.

    The p-value is that of the best test times the number of tests, at most 1 (Bonferroni). It holds for the
    search as a whole, however the tests hang together. Compare it with `significance.DETECTION_LEVEL`.

    Args:
        pixels: RGB.
        payloads: those to search for.
        max_pixels: as in `dwt.block_remainders`.

    Assumes: the free bits of the payloads were chosen without regard to the image.
    """
    return best_reading(read_supports(pixels, payloads, max_pixels=max_pixels), len(plan_search(payloads)))


def best_reading(supports: Iterable[Support], n_tests: int) -> MarkReading | None:
    """The reading that `read_marks` gives, from supports that were read already; None without any.

    Args:
        supports: of all tests of a search.
        n_tests: their number, for the correction.
    """
    best: MarkReading | None = None
    for payload, variant, values, n_blocks in supports:
        p_value = sign_tail(values)
        if best is None or p_value < best.p_value:
            matched = float(np.mean(np.sign(values) * 0.5 + 0.5))
            best = MarkReading(payload.name, variant, p_value, matched, n_blocks)
    if best is None:
        return None
    p_value = min(1.0, n_tests * best.p_value)
    return MarkReading(best.payload, best.variant, p_value, best.matched, best.n_blocks)


def read_supports(
    pixels: UInt8[np.ndarray, "h w 3"], payloads: Sequence[Payload], *, max_pixels: int = MAX_PIXELS
) -> Iterator[Support]:
    """The supports of every test; none for too small an image.

    Args:
        pixels: RGB.
        payloads: those to search for.
        max_pixels: as in `dwt.block_remainders`.
    """
    tests = plan_search(payloads)
    wanted = tuple(variant for variant in VARIANTS if any(variant == other for _, other in tests))
    remainders: dict[Variant, Float32[np.ndarray, " n"]] = block_remainders(
        pixels, wanted, max_pixels=max_pixels
    )
    columns = max(1, pixels.shape[1] // BLOCK)
    whites = {v: whiten(strengths_of(values).reshape(-1, columns)) for v, values in remainders.items()}
    for payload, variant in tests:
        white = whites[variant]
        if white.size:
            yield payload, variant, payload_supports(white, payload), white.size
