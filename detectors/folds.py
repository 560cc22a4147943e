"""References dealt into folds, and items scored by the detector of their fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float, Int, Int64

from poolproof.detectors.detector import AbstractDetector, Scores, fill_scores, split_finite
from poolproof.detectors.neighbours import check_features
from poolproof.detectors.probe import LinearProbe
from poolproof.errors import InputError, UnreliableEstimate

FEWEST: Final = 10
"""References of a class below which nothing is estimated."""

Fit = Callable[
    [Float[np.ndarray, "r d"], Float[np.ndarray, "s d"], np.random.Generator], AbstractDetector | LinearProbe
]
"""What fits a detector on finite features: real ones, synthetic ones, randomness."""


def check_enough(name: str, n: int, *, what: str = "references", fewest: int = FEWEST) -> None:
    """Raise UnreliableEstimate where the references are too few for any rate."""
    if n < fewest:
        raise UnreliableEstimate(
            f"{name}: got {n} {what}, allowed {fewest} or more: add some, 100 serve well"
        )


def finite_references(name: str, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "m d"]:
    """Return the references with finite features.

    Raises:
        InputError: there is no row or no column.
        UnreliableEstimate: fewer than 10 are finite.
    """
    if features.size == 0:
        check_features(name, features)
    rows, finite = split_finite(features)
    lost = len(finite) - len(rows)
    check_enough(
        name, len(rows), what=f"references with finite features of {len(finite)}" if lost else "references"
    )
    return rows


def deal(n: int, folds: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Return a random fold for each of n references, sizes as equal as they go."""
    return rng.permutation(np.arange(n, dtype=np.int64) % folds)


def read(detector: AbstractDetector | LinearProbe, features: Float[np.ndarray, "n d"]) -> Scores:
    """Return a detector's scores; a bare probe abstains from rows that are not finite, as detectors do."""
    if isinstance(detector, AbstractDetector):
        return detector.score(features)
    rows, finite = split_finite(features)
    return fill_scores(detector.score(rows) if len(rows) else np.zeros(0, np.float32), finite)


def threshold_of(detector: AbstractDetector | LinearProbe) -> float:
    """Return the detector's own threshold; that of a bare probe is 0.

    Raises:
        InputError: it has none.
    """
    threshold = detector.threshold if isinstance(detector, AbstractDetector) else 0.0
    if not np.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, allowed a finite one: set it by max_fpr")
    return threshold


def above(scores: Scores, threshold: float) -> Scores:
    """Return how far each score lies above the threshold."""
    height = (scores.values.astype(np.float64) - threshold).astype(np.float32)
    return Scores(np.where(scores.abstained, np.float32(0), height), scores.abstained)


def by_fold(
    features: Float[np.ndarray, "n d"],
    fold: Int[np.ndarray, " n"],
    folds: int,
    score: Callable[[Float[np.ndarray, "p d"], int], Scores],
) -> Scores:
    """Return scores in item order, each made by `score(items, fold)`.

    Raises:
        InputError: lengths differ or a fold is out of range.
    """
    if len(fold) != len(features) or not np.isin(fold, np.arange(folds)).all():
        allowed = f"{len(features)} from 0 to {folds - 1}"
        raise InputError(
            f"fold: got {len(fold)} numbers, allowed {allowed}: use the content hash mod {folds}"
        )
    values, abstained = np.empty(len(features), np.float32), np.zeros(len(features), bool)
    for i in range(folds):
        mine = fold == i
        if mine.any():
            part = score(features[mine], i)
            values[mine], abstained[mine] = part.values, part.abstained
    return Scores(values, abstained)


def all_answered(scores: Scores) -> Float[np.ndarray, " n"]:
    """Return the values; raise InputError where the detector abstains from an item."""
    lost = int(scores.abstained.sum())
    if lost:
        got = f"{lost} items without an answer, as NaN or infinity has none"
        raise InputError(
            f"features: got {got}, allowed finite features: drop the broken items or use `answer`"
        )
    return scores.values
