"""Hard negatives of the detection benchmark: real photographs that were saved anew, compressed or resized."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from detection_sets import decode, encode, encode_like
from detection_trials import Contender, Trial, estimate, read_features, score, strict_threshold
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.detectors.comparability import Comparability, comparable
from poolproof.detectors.matching import match_image, match_target
from poolproof.detectors.metadata import Columns
from poolproof.detectors.preflight import Confounding, confounding

FACTS: Final = ("format", "mode", "width", "height", "quality", "subsampling")


def _resized(pixels: np.ndarray, factor: float, *, back: bool = False) -> np.ndarray:
    image = Image.fromarray(pixels)
    small = image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC) if back else small)


TREATMENTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "as they are": lambda file: file,
    "saved once more, as before": lambda file: encode_like(decode(file), file),
    "JPEG 50": lambda file: encode(decode(file), "JPEG", quality=50),
    "JPEG 30": lambda file: encode(decode(file), "JPEG", quality=30),
    "WebP 80": lambda file: encode(decode(file), "WEBP", quality=80),
    "PNG": lambda file: encode(decode(file)),
    "half the size and back": lambda file: encode_like(_resized(decode(file), 0.5, back=True), file),
    "three quarters and back": lambda file: encode_like(_resized(decode(file), 0.75, back=True), file),
    "twice the size": lambda file: encode_like(_resized(decode(file), 2), file),
    "half the size": lambda file: encode_like(_resized(decode(file), 0.5), file),
}
"""What happened to the photographs of a pool, none of which is synthetic."""


@dataclass(frozen=True)
class Negative:
    """A pool of treated real photographs.

    Attributes:
        name: of the treatment.
        files: how well files alone tell the pool from the real references.
        fit: whether the references' files are of the pool's kinds.
        false_positives: share of the pool above each detector's own threshold.
        strict: share above the threshold that flags one hundredth of the real references.
        trials: what each detector says of the pool.
        matched: what each says after pool and references were brought to one size and codec; empty for pools that
            are no other kind of file.
    """

    name: str
    files: Confounding
    fit: Comparability
    false_positives: dict[str, float]
    strict: dict[str, float]
    trials: dict[str, Trial]
    matched: dict[str, Trial]


def read_columns(files: list[bytes]) -> Columns:
    """Return what files say of themselves."""
    headers: list[Any] = [decode_image(file).header for file in files]
    columns: dict[str, list[Any]] = {name: [getattr(header, name) for header in headers] for name in FACTS}
    return columns | {
        "n_bytes": [len(file) for file in files],
        "has_exif": [header.exif for header in headers],
    }


def try_treatment(
    name: str,
    treat: Callable[[bytes], bytes],
    real: list[bytes],
    synthetic: list[bytes],
    pool: list[bytes],
    contenders: tuple[Contender, ...],
    readers: Mapping[str, str],
    work: Path,
    *,
    seed: int,
) -> Negative:
    """Return what becomes of a pool of real photographs that were treated, with untreated references.

    Args:
        name: of the treatment.
        treat: from a file to a file.
        real: real references.
        synthetic: synthetic references.
        pool: real photographs.
        contenders: detectors.
        readers: specs by name.
        work: folder for features.
        seed: of fits, folds and resamples.
    """
    treated = [treat(file) for file in pool]
    columns = [read_columns(files) for files in (real, synthetic, treated)]
    rng = np.random.default_rng([seed, 1])
    files = confounding(columns[0], columns[2], names=("real reference", "pool"), rng=rng)
    fit = comparable(*columns)
    result = Negative(name, files, fit, {}, {}, {}, {})
    _judge(result, [real, synthetic, treated], contenders, readers, work, seed)
    if fit.verdict != "comparable" or name == "half the size and back":
        target = match_target(*columns)
        sets = [
            [encode(match_image(decode(file), target)) for file in each]
            for each in (real, synthetic, treated)
        ]
        again = Negative(name, files, fit, {}, {}, {}, result.matched)
        _judge(again, sets, contenders, readers, work, seed, matched=True)
    return result


def _judge(
    result: Negative,
    sets: list[list[bytes]],
    contenders: tuple[Contender, ...],
    readers: Mapping[str, str],
    work: Path,
    seed: int,
    *,
    matched: bool = False,
) -> None:
    features = [read_features(files, readers, work) for files in sets]
    for contender in contenders:
        fit, fold, resample = np.random.default_rng([seed, 2]).spawn(3)
        real, synthetic, pool = (each[contender.reader] for each in features)
        fitted = contender.calibrate(real, synthetic, fit)
        scores = score(fitted, pool, fold)
        trial = estimate(fitted, scores, 0.0, resample)
        if matched:
            result.matched[contender.name] = trial
            continue
        result.trials[contender.name] = trial
        result.false_positives[contender.name] = float(np.mean(scores > fitted.threshold))
        result.strict[contender.name] = float(np.mean(scores > strict_threshold(fitted)))


def kodak_crops(data: Path, side: int = 128) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return crops of twelve photographs and crops of the other twelve, without overlap."""
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, path in enumerate(sorted((data / "kodak").glob("*.png"))):
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
        height, width = (length - length % side for length in pixels.shape[:2])
        for top in range(0, height, side):
            halves[number % 2].extend(
                pixels[top : top + side, left : left + side] for left in range(0, width, side)
            )
    return halves
