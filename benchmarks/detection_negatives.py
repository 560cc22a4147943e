"""Hard negatives of the detection benchmark: real photographs that were saved anew, compressed or resized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from detection_sets import decode, encode, encode_like
from detection_trials import Contender, Fitted, Trial, estimate, read_features, score, strict_threshold
from jaxtyping import Int, UInt8
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.detectors.comparability import Comparability, comparable
from poolproof.detectors.matching import match_image, match_target
from poolproof.detectors.metadata import Columns
from poolproof.detectors.preflight import Confounding, confounding
from poolproof.errors import UnreliableEstimate

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
class Rows:
    """Which images are references and which the pool, without content in common.

    Attributes:
        real: real references.
        synthetic: images whose reconstructions are the synthetic references.
        pool: images that are treated.
    """

    real: Int[np.ndarray, " r"]
    synthetic: Int[np.ndarray, " s"]
    pool: Int[np.ndarray, " p"]


@dataclass(frozen=True)
class Negative:
    """Pools of treated real photographs, one for each split.

    Attributes:
        name: of the treatment.
        files: how well files alone tell the first pool from its real references.
        fit: whether the references' files are of the kinds of the first pool.
        false_positives: mean share of the pools above a detector's own threshold.
        strict: mean share above the threshold that one hundredth of real images exceed; None for too few of them.
        trials: what a detector says of each pool.
        matched: the same of the linear detectors after pool and references were brought to one size and codec; None
            where they have them.
    """

    name: str
    files: Confounding
    fit: Comparability
    false_positives: dict[str, float]
    strict: dict[str, float | None]
    trials: dict[str, list[Trial]]
    matched: dict[str, list[Trial]] | None


@dataclass(frozen=True)
class Bench:
    """Untreated images, and what reads them.

    Attributes:
        real: encoded real images.
        synthetic: encoded synthetic ones, each made from the real one of its row.
        splits: into references and pool.
        contenders: detectors.
        readers: specs by name.
        work: folder for features.
        seed: of fits, folds and resamples.
    """

    real: list[bytes]
    synthetic: list[bytes]
    splits: list[Rows]
    contenders: tuple[Contender, ...]
    readers: Mapping[str, str]
    work: Path
    seed: int = 5

    def read(self, files: list[bytes]) -> dict[str, np.ndarray]:
        """Return the features of files by reader."""
        return read_features(files, self.readers, self.work)

    def fit(self, real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray]) -> list[dict[str, Fitted]]:
        """Return the detectors of each split by name."""
        fits = []
        for i, rows in enumerate(self.splits):
            one: dict[str, Fitted] = {}
            for each in self.contenders:
                references = real[each.reader][rows.real], synthetic[each.reader][rows.synthetic]
                one[each.name] = each.calibrate(*references, np.random.default_rng([self.seed, i]))
            fits.append(one)
        return fits

    def score(
        self, fits: list[dict[str, Fitted]], treated: dict[str, np.ndarray]
    ) -> dict[str, list[np.ndarray]]:
        """Return the scores of each split's pool by detector."""
        found: dict[str, list[np.ndarray]] = {each.name: [] for each in self.contenders}
        for i, (rows, one) in enumerate(zip(self.splits, fits, strict=True)):
            for each in self.contenders:
                rng = np.random.default_rng([self.seed, i, 1])
                found[each.name].append(score(one[each.name], treated[each.reader][rows.pool], rng))
        return found

    def judge(
        self, fits: list[dict[str, Fitted]], scores: dict[str, list[np.ndarray]]
    ) -> dict[str, list[Trial]]:
        """Return what detectors say of pools in which nothing is synthetic."""
        return {
            name: [
                estimate(one[name], each, 0.0, np.random.default_rng([self.seed, i, 2]))
                for i, (one, each) in enumerate(zip(fits, pools, strict=True))
            ]
            for name, pools in scores.items()
        }


def try_treatments(bench: Bench) -> Iterator[Negative]:
    """Yield what becomes of pools of real photographs that were treated, with untreated references."""
    fits = bench.fit(bench.read(bench.real), bench.read(bench.synthetic))
    # RIGID and neighbours take most of the time, and the linear ones show what matching brings
    linear = tuple(each for each in bench.contenders if each.kind in ("probe", "forensic"))
    used = {name: spec for name, spec in bench.readers.items() if name in {each.reader for each in linear}}
    again = replace(bench, contenders=linear, readers=used)
    first = bench.splits[0]
    references = [
        read_columns([files[i] for i in rows])
        for files, rows in ((bench.real, first.real), (bench.synthetic, first.synthetic))
    ]
    for name, treat in TREATMENTS.items():
        treated = [treat(file) for file in bench.real]
        columns = read_columns([treated[i] for i in first.pool])
        rng = np.random.default_rng([bench.seed, 3])
        files = confounding(references[0], columns, names=("real reference", "pool"), rng=rng)
        fit = comparable(references[0], references[1], columns)
        scores = bench.score(fits, bench.read(treated))
        own, strict = {}, {}
        for each in bench.contenders:
            pools = [(one[each.name], pool) for one, pool in zip(fits, scores[each.name], strict=True)]
            own[each.name] = float(np.mean([np.mean(pool > one.threshold) for one, pool in pools]))
            strict[each.name] = _strict_rate(pools)
        matched = None
        if fit.verdict != "comparable":
            target = match_target(*references, columns)
            sets = (
                [encode(match_image(decode(file), target)) for file in each]
                for each in (bench.real, bench.synthetic, treated)
            )
            real, synthetic, pool = (again.read(each) for each in sets)
            refitted = again.fit(real, synthetic)
            matched = again.judge(refitted, again.score(refitted, pool))
        yield Negative(name, files, fit, own, strict, bench.judge(fits, scores), matched)


def _strict_rate(pools: list[tuple[Fitted, np.ndarray]]) -> float | None:
    """Return the mean share above the threshold that one hundredth of real images exceed."""
    try:
        return float(np.mean([np.mean(pool > strict_threshold(one)) for one, pool in pools]))
    except UnreliableEstimate:
        return None


def read_columns(files: list[bytes]) -> Columns:
    """Return what files say of themselves."""
    headers: list[Any] = [decode_image(file).header for file in files]
    columns: dict[str, list[Any]] = {name: [getattr(header, name) for header in headers] for name in FACTS}
    return columns | {
        "n_bytes": [len(file) for file in files],
        "has_exif": [header.exif for header in headers],
    }


def deal_rows(groups: Int[np.ndarray, " n"], sizes: tuple[int, int, int], rng: np.random.Generator) -> Rows:
    """Return random rows whose groups are apart.

    Args:
        groups: the photograph that each row stems from.
        sizes: photographs for real references, synthetic references and pool.
        rng: deals them.
    """
    order = rng.permutation(np.unique(groups))
    parts = np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
    return Rows(*(rng.permutation(np.flatnonzero(np.isin(groups, part))) for part in parts))


def kodak_crops(data: Path, side: int = 128) -> tuple[UInt8[np.ndarray, "n s s 3"], Int[np.ndarray, " n"]]:
    """Return crops of the large photographs without overlap, and the photograph of each."""
    crops, groups = [], []
    for number, path in enumerate(sorted((data / "kodak").glob("*.png"))):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = (length - length % side for length in pixels.shape[:2])
        for top in range(0, height, side):
            for left in range(0, width, side):
                crops.append(pixels[top : top + side, left : left + side])
                groups.append(number)
    return np.stack(crops), np.array(groups)
