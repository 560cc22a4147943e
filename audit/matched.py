"""The share once more, after pool and references were brought to one size and one codec.

A detector may have learnt the references' files and not their pictures. What the share moves by when the files
are made alike is what size and codec had contributed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, Int, UInt8

from poolproof.audit.calibration import Choice, fit_of
from poolproof.audit.decode import decode_image
from poolproof.audit.metadata import Facts
from poolproof.audit.plan import Plan
from poolproof.detectors.calibrate import cross_fit
from poolproof.detectors.embed import load_embedder
from poolproof.detectors.forensic import MIN_SIDE, forensic_features
from poolproof.detectors.kinds import KINDS
from poolproof.detectors.matching import Target, match_image, match_target
from poolproof.detectors.prevalence import Interval, interval
from poolproof.errors import InputError, UnreliableEstimate

MATCH_SAMPLE: Final = 1000
"""Items a set that are read again; the sampling error is in the interval."""

BATCH: Final = 32

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Matched:
    """The share of the items without a finding, after all files were made alike.

    Attributes:
        target: what they were made into, in words.
        share: from a sample of such items; None where it cannot be told.
        n_pool: items of the sample that could be matched.
        n_real: real references.
        n_synthetic: synthetic references.
        auc: of the detector fitted on matched references.
        why: why there is no share.
    """

    target: str | None
    share: Interval | None
    n_pool: int
    n_real: int
    n_synthetic: int
    auc: float | None
    why: str | None


@dataclass(frozen=True)
class MatchedSet:
    """Items of one set to read again.

    Attributes:
        plan: of the set.
        rows: of its items, in the pool's numbering.
        folds: key of the cross-fitting fold of each item; None for references, which are dealt.
    """

    plan: Plan
    rows: Int[np.ndarray, " n"]
    keys: Int[np.ndarray, " n"] | None = None


def draw_rows(rows: Int[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """At most `MATCH_SAMPLE` of the rows, drawn uniformly, ascending."""
    if len(rows) <= MATCH_SAMPLE:
        return np.sort(rows)
    return np.sort(rng.choice(rows, MATCH_SAMPLE, replace=False))


def estimate_matched(
    pool: MatchedSet,
    real: MatchedSet,
    synthetic: MatchedSet,
    facts: Sequence[Facts],
    *,
    embedder: str,
    choice: Choice,
    level: float,
    rng: np.random.Generator,
    tick: Tick,
) -> Matched:
    """The share among a sample of the pool, by a detector fitted on matched references.

    Args:
        pool: a uniform sample of the items without a finding.
        real: real references.
        synthetic: synthetic references.
        facts: of the three sets, from which size and codec follow.
        embedder: the run's feature space.
        choice: the run's detector; one that cannot be fitted anew gives way to the probe.
        level: of the interval.
        rng: deals the references into folds.
        tick: called with the number of items read so far.
    """
    try:
        target = match_target(*facts, resampling="lanczos")
    except InputError as error:
        return Matched(None, None, 0, 0, 0, None, str(error))
    words = _describe(target)
    features, done = [], 0
    for part in (pool, real, synthetic):
        features.append(_read(part, target, embedder, lambda n, before=done: tick(before + n)))
        done += len(part.rows)
    (theirs, told), (genuine, _), (made, _) = features
    sizes = len(theirs), len(genuine), len(made)
    kind = choice if isinstance(choice, str) and KINDS[choice].needs == "both" else "probe"
    if not len(theirs):
        return Matched(words, None, *sizes, None, "no item of the pool is large enough to be matched")
    try:
        fit = cross_fit(genuine, made, fit=fit_of(kind, embedder), rng=rng)
    except (InputError, UnreliableEstimate) as error:
        return Matched(words, None, *sizes, None, str(error))
    assert pool.keys is not None
    scores = fit.answer(theirs, pool.keys[told] % fit.folds)
    answered = scores.values[~scores.abstained]
    if not len(answered):
        return Matched(words, None, *sizes, fit.auc.point, "the detector has no score for any item")
    flagged = int((answered > fit.threshold).sum())
    share = interval(flagged, len(answered), *fit.tpr, *fit.fpr, level=level)
    return Matched(words, share, *sizes, fit.auc.point, None)


def _read(
    part: MatchedSet, target: Target, embedder: str, tick: Tick
) -> tuple[Float32[np.ndarray, "m d"], Int[np.ndarray, " m"]]:
    """Features of the items that can be matched, and which of the rows they are."""
    model = load_embedder(embedder)
    vectors: list[np.ndarray] = []
    places: list[int] = []
    batch: list[UInt8[np.ndarray, "h w 3"]] = []
    for place, pixels in enumerate(_matched_pixels(part, target)):
        tick(place + 1)
        if pixels is None:
            continue
        places.append(place)
        if model is None:
            vectors.append(forensic_features(pixels)[None])
            continue
        batch.append(pixels)
        if len(batch) == BATCH:
            vectors.append(model.embed(batch))
            batch = []
    if model is not None and batch:
        vectors.append(model.embed(batch))
    joined = np.concatenate(vectors).astype(np.float32) if vectors else np.zeros((0, 0), np.float32)
    return joined, np.array(places, np.int64)


def _matched_pixels(part: MatchedSet, target: Target) -> Iterator[UInt8[np.ndarray, "h w 3"] | None]:
    """Each row's pixels as the target has them; None where the file is gone, damaged or too small."""
    for _, data in part.plan.read_rows(part.rows.tolist()):
        pixels = decode_image(data).pixels if isinstance(data, bytes) else None
        small = pixels is None or min(pixels.shape[:2]) < max(target.side, MIN_SIDE)
        yield None if small or pixels is None else match_image(pixels, target)


def _describe(target: Target) -> str:
    codec = "no lossy codec" if target.quality is None else f"JPEG {target.quality}, chroma halved"
    return f"{target.side} x {target.side} pixels, {codec}"
