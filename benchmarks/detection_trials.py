"""Detectors of the detection benchmark on random references and pools: rates, shares, bounds and alarms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from detection_sets import ImageSet, decode, keep_arrays
from jaxtyping import Float, Float32, Int

from poolproof.detectors.conformal import conformal_threshold
from poolproof.detectors.crossfit import CrossFit, cross_fit
from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.embed import load_embedder
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.kinds import fit_detector
from poolproof.detectors.mixture import alarm_edges, bin_counts, goodness_of_fit
from poolproof.detectors.prevalence import Interval, interval, lower_bound
from poolproof.detectors.realonly import RealOnly, real_only
from poolproof.detectors.soft import moments, soft_interval

Fitted = CrossFit | RealOnly
"""A detector with its error rates."""

READERS: Final = ("forensic", "embedding", "stability")
"""What makes features: the weight-free ones, the backbone's vector, and how far noise moves that vector."""


@dataclass(frozen=True)
class Contender:
    """A detector under test.

    Attributes:
        name: in tables.
        kind: in the table of detectors.
        reader: of `READERS`.
    """

    name: str
    kind: str
    reader: str

    def calibrate(
        self,
        real: Float32[np.ndarray, "r d"],
        synthetic: Float32[np.ndarray, "s d"],
        rng: np.random.Generator,
    ) -> Fitted:
        """Return the detector with its error rates; `real-distance` has no look at the synthetic references."""
        if self.kind == "real-distance":
            return real_only(real, rng=rng)
        reader = {"forensic": "forensic", "embedding": "", "stability": "rigid:"}[self.reader]

        def fit(
            real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
        ) -> AbstractDetector:
            return fit_detector(self.kind, real, synthetic, reader=reader, rng=rng)

        return cross_fit(real, synthetic, fit=fit, rng=rng)


CONTENDERS: Final = (
    Contender("probe, weight-free", "probe", "forensic"),
    Contender("forensic (traces alone)", "forensic", "forensic"),
    Contender("kNN, weight-free", "knn", "forensic"),
    Contender("real-distance", "real-distance", "forensic"),
    Contender("probe, embedding", "probe", "embedding"),
    Contender("kNN, embedding", "knn", "embedding"),
    Contender("RIGID, embedding", "rigid", "stability"),
)


@dataclass(frozen=True)
class Sizes:
    """How many images the references and a pool of a scenario have."""

    reference: int
    pool: int


@dataclass(frozen=True)
class Split:
    """Rows of a set: references, and what pools are drawn from.

    Attributes:
        real: real references.
        synthetic: synthetic references.
        real_rest: other real images.
        synthetic_rest: other synthetic images; in a paired set the same rows, one of which is used.
        paired: whether it is such a set.
    """

    real: Int[np.ndarray, " r"]
    synthetic: Int[np.ndarray, " s"]
    real_rest: Int[np.ndarray, " a"]
    synthetic_rest: Int[np.ndarray, " b"]
    paired: bool

    def pool(
        self, n: int, share: float, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
        """Return the real and the synthetic rows of a pool, of which the stated share is synthetic."""
        n_synthetic = round(n * share)
        if self.paired:
            rows = rng.choice(self.real_rest, n, replace=False)
            return rows[n_synthetic:], rows[:n_synthetic]
        real = rng.choice(self.real_rest, n - n_synthetic, replace=False)
        return real, rng.choice(self.synthetic_rest, n_synthetic, replace=False)

    def held_out(self) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
        """Return all real and synthetic rows that are no references, no content in both."""
        half = len(self.real_rest) // 2
        return (
            (self.real_rest[:half], self.real_rest[half:])
            if self.paired
            else (self.real_rest, self.synthetic_rest)
        )


def make_split(images: ImageSet, n: int, rng: np.random.Generator, *, same: bool = False) -> Split:
    """Return n random references of each class, and the rest.

    Args:
        images: the set.
        n: references of each class.
        rng: draws them.
        same: whether the synthetic references of a paired set are made from its real references.
    """
    order = rng.permutation(len(images.real))
    if images.paired:
        rest = order[2 * n :]
        return Split(order[:n], order[:n] if same else order[n : 2 * n], rest, rest, True)
    other = rng.permutation(len(images.synthetic))
    return Split(order[:n], other[:n], order[n:], other[n:], False)


@dataclass(frozen=True)
class Rates:
    """Held-out scores of one split, and what they say.

    Attributes:
        real_scores: of real images.
        synthetic_scores: of synthetic images.
        flagged: real and synthetic images above the detector's own threshold, as shares.
    """

    real_scores: Float[np.ndarray, " r"]
    synthetic_scores: Float[np.ndarray, " s"]
    flagged: tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """One pool by one detector.

    Attributes:
        truth: its share.
        melded: from counts; for real references alone the lower bound.
        soft: from scores; None for real references alone.
        bound: lower bound of any generator.
        alarm: whether the scores fit no mix of the references; None for real references alone.
    """

    truth: float
    melded: Interval
    soft: Interval | None
    bound: Interval
    alarm: bool | None


def read_features(files: list[bytes], readers: Mapping[str, str], work: Path) -> dict[str, np.ndarray]:
    """Return the features of files by reader, kept in the folder.

    Args:
        files: encoded images.
        readers: spec by name of `READERS`.
        work: folder.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file).digest())
    found = {}
    for name, spec in readers.items():
        weights = "" if name == "forensic" else hashlib.sha256(spec.encode()).hexdigest()[:8]
        path = work / "features" / f"{digest.hexdigest()[:24]}-{name}{weights}.npz"
        found[name] = keep_arrays(path, partial(_read, files, spec))["features"]
    return found


def _read(files: list[bytes], spec: str) -> dict[str, np.ndarray]:
    pixels = (decode(file) for file in files)
    if spec == "forensic":
        return {"features": np.stack([forensic_features(one) for one in pixels])}
    embedder: Any = load_embedder(spec, bfloat16=False)
    parts = []
    while part := [one for _, one in zip(range(256), pixels, strict=False)]:
        parts.append(embedder.embed(part))
    return {"features": np.concatenate(parts)}


def score(
    fitted: Fitted, features: Float32[np.ndarray, "n d"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Return the scores of pool items, each in a random fold."""
    if isinstance(fitted, RealOnly):
        return fitted.score(features)
    return fitted.score(features, rng.integers(fitted.folds, size=len(features)))


def measure(
    fitted: Fitted,
    real: Float32[np.ndarray, "r d"],
    synthetic: Float32[np.ndarray, "s d"],
    rng: np.random.Generator,
) -> Rates:
    """Return held-out scores and rates."""
    scores = [score(fitted, features, rng) for features in (real, synthetic)]
    low, high = (float(np.mean(each > fitted.threshold)) for each in scores)
    return Rates(scores[0], scores[1], (low, high))


def estimate(
    fitted: Fitted,
    scores: Float[np.ndarray, " n"],
    truth: float,
    rng: np.random.Generator,
    *,
    alarm: bool = True,
) -> Trial:
    """Return what a detector says of a pool.

    Args:
        fitted: the detector.
        scores: of the pool's items.
        truth: share of synthetic items.
        rng: of the alarm's resamples.
        alarm: whether to ask for the alarm.
    """
    flagged, n = int((scores > fitted.threshold).sum()), len(scores)
    if isinstance(fitted, RealOnly):
        bound = lower_bound(flagged, n, fitted.false_positives, fitted.n)
        return Trial(truth, bound, None, bound, None)
    melded = interval(flagged, n, *fitted.tpr, *fitted.fpr)
    soft = soft_interval(
        *(moments(squash(each)) for each in (scores, fitted.synthetic_scores, fitted.real_scores))
    )
    return Trial(
        truth,
        melded,
        soft,
        lower_bound(flagged, n, *fitted.fpr),
        fires(fitted, scores, rng) if alarm else None,
    )


def squash(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return scores in (0, 1): for the probes the probability of even odds, for others any increasing map."""
    from scipy.special import expit

    return expit(np.asarray(scores, np.float64))


def fires(fitted: CrossFit, scores: Float[np.ndarray, " n"], rng: np.random.Generator) -> bool:
    """Return whether no mix of the references explains the scores, at level 0.95."""
    edges = alarm_edges(fitted.real_scores, fitted.synthetic_scores)
    counts = [bin_counts(each, edges) for each in (scores, fitted.real_scores, fitted.synthetic_scores)]
    return goodness_of_fit(*counts, rng=rng).fires


def run_trials(
    contender: Contender,
    images: ImageSet,
    real: Float32[np.ndarray, "r d"],
    synthetic: Float32[np.ndarray, "s d"],
    sizes: Sizes,
    shares: tuple[float, ...],
    n_splits: int,
    *,
    seed: int,
    unknown: Float32[np.ndarray, "u d"] | None = None,
    same: bool = False,
    alarm: bool = True,
) -> Iterator[tuple[Rates, list[Trial]]]:
    """Yield rates and trials split by split; splits and pools are the same for every contender.

    Args:
        contender: the detector.
        images: the set.
        real: features of its real images.
        synthetic: features of its synthetic images by the generator that the references know.
        sizes: of references and pools.
        shares: one pool for each, in every split.
        n_splits: of references and rest.
        seed: of splits and pools.
        unknown: features of another generator's images, which then are the synthetic ones of pools and rates.
        same: as in `make_split`.
        alarm: whether to ask for the alarm, which takes most of the time.
    """
    for i in range(n_splits):
        draw, fit, rest = np.random.default_rng([seed, i]).spawn(3)
        split = make_split(images, sizes.reference, draw, same=same)
        fitted = contender.calibrate(real[split.real], synthetic[split.synthetic], fit)
        found = synthetic if unknown is None else unknown
        if unknown is not None and len(unknown) < len(synthetic):  # a generator with images of its own
            split = Split(split.real, split.synthetic, split.real_rest, np.arange(len(unknown)), False)
        low, high = split.held_out()
        rates = measure(fitted, real[low], found[high], rest)
        trials = []
        for share in shares:
            low, high = split.pool(sizes.pool, share, draw)
            scores = score(fitted, np.concatenate([real[low], found[high]]), rest)
            trials.append(estimate(fitted, scores, len(high) / sizes.pool, rest, alarm=alarm))
        yield rates, trials


def covered(found: Interval, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    return found.lower <= truth <= found.upper


def strict_threshold(fitted: Fitted, fpr: float = 0.01) -> float:
    """Return the threshold that a new real image exceeds with at most this probability."""
    scores = fitted.held_out_scores if isinstance(fitted, RealOnly) else fitted.real_scores
    return conformal_threshold(scores, fpr)
