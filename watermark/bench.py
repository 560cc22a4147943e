"""What marks survive: every scheme under every attack, on the same images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np
from jaxtyping import UInt8

from poolproof.errors import InputError
from poolproof.watermark.attacks import Attack
from poolproof.watermark.quality import psnr, ssim
from poolproof.watermark.schemes import AbstractScheme
from poolproof.watermark.significance import DETECTION_LEVEL

if TYPE_CHECKING:
    import pandas as pd

UNMARKED: Final = "unmarked"
"""Name of the row in which images carry no mark: what is found there is false."""


@final
@dataclass(frozen=True)
class Outcome:
    """One image under one scheme and attack.

    Args:
        scheme: its name.
        attack: its name, or `UNMARKED`.
        image: its key.
        p_value: of the reading.
        detected: whether that lies below the level.
        bit_accuracy: share of the payload's bits that were read rightly; None where none were read.
        recovered: whether all of them were; None for a scheme without payload.
        psnr: decibels between the image and its marked copy before the attack; None for the unmarked.
        ssim: structural similarity of the two.
        embed_seconds: of writing.
        read_seconds: of reading after the attack.
    """

    scheme: str
    attack: str
    image: str
    p_value: float
    detected: bool
    bit_accuracy: float | None
    recovered: bool | None
    psnr: float | None
    ssim: float | None
    embed_seconds: float | None
    read_seconds: float


def run_bench(
    images: Iterable[tuple[str, UInt8[np.ndarray, "_ _ 3"]]],
    schemes: Sequence[AbstractScheme],
    attacks: Sequence[Attack],
    *,
    level: float | int = DETECTION_LEVEL,
    rng: np.random.Generator,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """The outcome of every image, scheme and attack, image by image.

    Randomness of an attack is the same for all schemes.

    Args:
        images: keys and RGB pixels.
        schemes: with unlike names.
        attacks: after writing; each scheme is also read on the image without a mark.
        level: p-values below it count as detection, in (0, 1).
        rng: all randomness; one stream per image.
        tick: called after each reading.

    Raises:
        InputError: a level out of range, two schemes of one name, or an image that a scheme cannot take.
    """
    if not 0 < level < 1:
        raise InputError(f"level: got {level}, allowed between 0 and 1; {DETECTION_LEVEL:g} is usual")
    names = [scheme.name for scheme in schemes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"schemes: got {twice[0]!r} twice, allowed once; rename one")
    for key, pixels in images:
        (stream,) = rng.spawn(1)
        seeds = stream.integers(2**63, size=len(attacks))
        for scheme in schemes:
            yield _read(scheme, key, UNMARKED, pixels, level)
            tick()
            start = time.perf_counter()
            marked = scheme.embed(pixels)
            seconds = time.perf_counter() - start
            quality = psnr(pixels, marked), ssim(pixels, marked)
            for attack, seed in zip(attacks, seeds.tolist(), strict=True):
                attacked = attack.apply(marked, np.random.default_rng(seed))
                yield _read(scheme, key, attack.name, attacked, level, quality, seconds)
                tick()


def _read(
    scheme: AbstractScheme,
    key: str,
    attack: str,
    pixels: UInt8[np.ndarray, "_ _ 3"],
    level: float | int,
    quality: tuple[float, float] | None = None,
    embed_seconds: float | None = None,
) -> Outcome:
    start = time.perf_counter()
    reading = scheme.read(pixels)
    seconds = time.perf_counter() - start
    accuracy = None
    if scheme.bits and reading.bits is not None:
        accuracy = float(np.mean(np.asarray(reading.bits) == np.asarray(scheme.bits)))
    return Outcome(
        scheme=scheme.name,
        attack=attack,
        image=key,
        p_value=reading.p_value,
        detected=reading.p_value < level,
        bit_accuracy=accuracy,
        recovered=accuracy == 1.0 if scheme.bits else None,
        psnr=quality[0] if quality else None,
        ssim=quality[1] if quality else None,
        embed_seconds=embed_seconds,
        read_seconds=seconds,
    )


def tabulate_outcomes(outcomes: Iterable[Outcome]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The outcomes as a table, and one row per scheme and attack, in the order in which they were met.

    Columns of the second: `n` images, share `detected`, mean `bit_accuracy` where bits were read, share `recovered`
    of payloads read whole, means of `psnr` and `ssim`, medians of `embed_ms` and `read_ms`.

    Args:
        outcomes: of `run_bench`.
    """
    import pandas as pd

    table = pd.DataFrame([vars(outcome) for outcome in outcomes])
    for column in ("bit_accuracy", "recovered", "psnr", "ssim", "embed_seconds"):
        table[column] = table[column].astype("float64")
    grouped = table.groupby(["scheme", "attack"], sort=False)
    summary = grouped.agg(
        n=("image", "size"),
        detected=("detected", "mean"),
        bit_accuracy=("bit_accuracy", "mean"),
        recovered=("recovered", "mean"),
        psnr=("psnr", "mean"),
        ssim=("ssim", "mean"),
        embed_ms=("embed_seconds", "median"),
        read_ms=("read_seconds", "median"),
    ).reset_index()
    summary[["embed_ms", "read_ms"]] *= 1000
    return table, summary
