"""Detectors fitted on some of the references, with error rates measured on the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from poolproof.detectors.conformal import conformal_threshold, references_for_fpr
from poolproof.detectors.detector import AbstractDetector, Scores
from poolproof.detectors.folds import (
    Fit,
    above,
    all_answered,
    by_fold,
    check_enough,
    deal,
    finite_references,
    read,
    threshold_of,
)
from poolproof.detectors.neighbours import check_features, check_pair, knn_score
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.probe import LinearProbe, fit_probe
from poolproof.detectors.roc import area_under_curve, check_rate
from poolproof.detectors.scaling import fit_scaling
from poolproof.errors import InputError, UnreliableEstimate


@dataclass(frozen=True)
class CrossFit:
    """Detectors and neighbour banks by fold, and what they say of the references held out from them.

    The rates belong to `score`, which gives each pool item to the detector of one fold. Taken over the folds,
    such a detector flags an item with the very probability that the held-out counts estimate, because each
    reference was scored by one of the same detectors, one that had not seen it. A detector refitted on all
    references might be a little better, but nobody would have measured it, and the share would be corrected
    by wrong rates.

    Scores are heights above the threshold of the fold's detector, so that one threshold serves all folds.

    References that a detector gives no answer for are counted and left out of everything else, as pool items
    without an answer are. The share is then that of the items with an answer.

    Attributes:
        detectors: one per fold, fitted on the references of the other folds.
        thresholds: of each, in its own scores.
        real: features of the real references with an answer.
        synthetic: features of the synthetic references with an answer.
        real_fold: the fold that holds a real reference out.
        synthetic_fold: the fold that holds a synthetic reference out.
        real_scores: held-out scores of the real references.
        synthetic_scores: held-out scores of the synthetic references.
        real_knn: held-out neighbour scores of the real references; None where a detector was given.
        synthetic_knn: held-out neighbour scores of the synthetic references; None where a detector was given.
        k: number of neighbours in a neighbour score; None where a detector was given.
        tpr: synthetic references flagged, and their number.
        fpr: real references flagged, and their number.
        auc: area under the curve of the held-out scores, level 0.95.
        real_abstained: real references without an answer.
        synthetic_abstained: synthetic references without an answer.
        threshold: a score above it flags the item.
    """

    detectors: tuple[AbstractDetector | LinearProbe, ...]
    thresholds: tuple[float, ...]
    real: Float[np.ndarray, "r d"]
    synthetic: Float[np.ndarray, "s d"]
    real_fold: Int64[np.ndarray, " r"]
    synthetic_fold: Int64[np.ndarray, " s"]
    real_scores: Float32[np.ndarray, " r"]
    synthetic_scores: Float32[np.ndarray, " s"]
    real_knn: Float32[np.ndarray, " r"] | None
    synthetic_knn: Float32[np.ndarray, " s"] | None
    k: int | None
    tpr: tuple[int, int]
    fpr: tuple[int, int]
    auc: Interval
    real_abstained: int
    synthetic_abstained: int
    threshold: float = 0.0

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.detectors)

    def score(
        self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Return the score of each item by its fold's detector; larger = more synthetic.

        Args:
            features: of the references' embedder.
            fold: 0 to `folds` - 1, evenly spread and settled by the item's content alone, by its hash say;
                then the same item has the same score in every pool and every shard.

        Raises:
            InputError: a fold is out of range, lengths or widths differ, or a feature is not finite.
        """
        return all_answered(self.answer(features, fold))

    def answer(self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]) -> Scores:
        """Return the scores, and from which items the detectors abstain, rows that are not finite among them.

        Args:
            features: as in `score`.
            fold: as in `score`.

        Raises:
            InputError: a fold is out of range, or lengths or widths differ.
        """
        return _fold_scores(self.detectors, self.thresholds, features, fold)

    def knn_score(
        self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Return the neighbour score of each item by its fold's banks; larger = more synthetic.

        Args:
            features: of the references' embedder.
            fold: as in `score`.

        Raises:
            InputError: as in `score`, or a detector was given in place of the probe and its neighbours.
        """
        if self.k is None:
            raise InputError(
                "knn_score: got a fit of another detector, allowed one of the default probe: use `score`"
            )
        banks = (self.real, self.real_fold), (self.synthetic, self.synthetic_fold)
        return _knn_scores(*banks, self.k, self.folds, features, fold)


def cross_fit(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s d"],
    *,
    folds: int = 5,
    k: int = 5,
    fit: Fit | None = None,
    max_fpr: float | None = None,
    rng: np.random.Generator,
) -> CrossFit:
    """Return a detector fitted on references, with its error rates on references held out from it.

    With `max_fpr` the threshold of each fold's detector is set by stated error. It may depend neither on the
    references that are counted nor on those that the detector was fitted on, so each fold reserves real
    references for it: those of the next fold, or of as many next folds as the rate needs, at most half of
    the folds. The detector is fitted on what is left. A new real item is then flagged with probability
    `max_fpr` at most, taken over references; the counts in `fpr` remain unbiased and say what came of it.

    Args:
        real: features of real references, at least 10 of them finite.
        synthetic: features of synthetic references, at least 10 of them finite.
        folds: number of folds, at least 2; lowered until every fold holds 2 references of each class out.
        k: number of neighbours in the neighbour scores.
        fit: fits a detector on finite features of both classes, with randomness of its own; None for the
            linear probe, which comes with neighbour scores.
        max_fpr: mean false positive rate to set thresholds by, in (0, 1); None for the detectors' own.
        rng: deals the references into folds.

    Raises:
        InputError: folds, k or max_fpr is out of range, a set is empty, the widths differ, or the detector
            has no threshold and no `max_fpr` is given.
        UnreliableEstimate: a class has fewer than 10 references that are finite and have an answer, or the
            real ones are too few for `max_fpr`.

    Assumes: the references of a class are independent draws of what the pool holds of that class, and none is
        a copy of another or of a pool item: a copy in another fold makes the held-out rates look too good,
        one in the other class, such as a photograph's reconstruction, too bad.
        Items without an answer are as often synthetic as others, if the share is to be that of all.
    """
    if folds < 2:
        raise InputError(f"folds: got {folds}, allowed 2 or more: 5 is usual")
    n_real, n_synthetic = len(real), len(synthetic)
    real, synthetic = finite_references("real", real), finite_references("synthetic", synthetic)
    check_pair("real", real, "synthetic", synthetic)
    folds = min(folds, len(real) // 2, len(synthetic) // 2)
    reserved = 0 if max_fpr is None else _reserved_folds(len(real), folds, max_fpr)
    real_fold, synthetic_fold = deal(len(real), folds, rng), deal(len(synthetic), folds, rng)
    default = fit is None
    streams = [rng] * folds if default else rng.spawn(folds)  # the probe draws nothing
    fit = fit or fit_default
    detectors, thresholds = [], []
    for i, stream in enumerate(streams):
        ahead = (real_fold - i) % folds
        detector = fit(real[ahead > reserved], synthetic[synthetic_fold != i], stream)
        detectors.append(detector)
        if max_fpr is None:
            thresholds.append(threshold_of(detector))
        else:
            others = read(detector, real[(ahead >= 1) & (ahead <= reserved)])
            thresholds.append(conformal_threshold(others.values[~others.abstained], max_fpr))
    fitted = tuple(detectors), tuple(thresholds)
    real_scores = _fold_scores(*fitted, real, real_fold)
    synthetic_scores = _fold_scores(*fitted, synthetic, synthetic_fold)
    told, told_too = ~real_scores.abstained, ~synthetic_scores.abstained
    for name, answered in (("real", told), ("synthetic", told_too)):
        check_enough(name, int(answered.sum()), what="references that the detector answers for")
    real, real_fold = real[told], real_fold[told]
    synthetic, synthetic_fold = synthetic[told_too], synthetic_fold[told_too]
    low, high = real_scores.values[told], synthetic_scores.values[told_too]
    near: tuple[Float32[np.ndarray, " r"] | None, Float32[np.ndarray, " s"] | None] = None, None
    if default:
        banks = (real, real_fold), (synthetic, synthetic_fold)
        near = (
            _knn_scores(*banks, k, folds, real, real_fold),
            _knn_scores(*banks, k, folds, synthetic, synthetic_fold),
        )
    return CrossFit(
        detectors=fitted[0],
        thresholds=fitted[1],
        real=real,
        synthetic=synthetic,
        real_fold=real_fold,
        synthetic_fold=synthetic_fold,
        real_scores=low,
        synthetic_scores=high,
        real_knn=near[0],
        synthetic_knn=near[1],
        k=k if default else None,
        tpr=(int((high > 0).sum()), len(high)),
        fpr=(int((low > 0).sum()), len(low)),
        auc=area_under_curve(low, high),
        real_abstained=n_real - len(low),
        synthetic_abstained=n_synthetic - len(high),
    )


def fit_default(
    real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
) -> LinearProbe:
    """Return the detector that is fitted where none is named: the linear probe."""
    return fit_probe(real, synthetic)


def _reserved_folds(n_real: int, folds: int, max_fpr: float) -> int:
    """Return how many folds of real references a threshold of this mean rate needs.

    Raises:
        UnreliableEstimate: more than half of the folds.
    """
    needed, most = references_for_fpr(check_rate("max_fpr", max_fpr)), folds // 2
    # the smallest fold holds n_real // folds
    reserved = math.ceil(needed / (n_real // folds))
    if reserved > most:
        got = f"{n_real} references in {folds} folds"
        allowed = f"{folds * math.ceil(needed / most)} or more for a false positive rate of {max_fpr:g}"
        raise UnreliableEstimate(f"real: got {got}, allowed {allowed}: add some or raise max_fpr")
    if reserved == folds - 1:
        raise InputError(f"folds: got {folds}, allowed 3 or more with max_fpr: 5 is usual")
    return reserved


def _fold_scores(
    detectors: tuple[AbstractDetector | LinearProbe, ...],
    thresholds: tuple[float, ...],
    features: Float[np.ndarray, "n d"],
    fold: Int[np.ndarray, " n"],
) -> Scores:
    """Return how far each item lies above the threshold of its fold's detector."""
    return by_fold(
        features, fold, len(detectors), lambda part, i: above(read(detectors[i], part), thresholds[i])
    )


def _knn_scores(
    real: tuple[Float[np.ndarray, "r d"], Int[np.ndarray, " r"]],
    synthetic: tuple[Float[np.ndarray, "s d"], Int[np.ndarray, " s"]],
    k: int,
    folds: int,
    features: Float[np.ndarray, "n d"],
    fold: Int[np.ndarray, " n"],
) -> Float32[np.ndarray, " n"]:
    """Return the neighbour score of each item against the references that its fold does not hold out."""

    def score(part: Float[np.ndarray, "p d"], i: int) -> Scores:
        check_features("features", part)
        bank, other = real[0][real[1] != i], synthetic[0][synthetic[1] != i]
        scaling = fit_scaling(np.concatenate([bank, other]))
        values = knn_score(scaling.apply(part), scaling.apply(bank), scaling.apply(other), k)
        return Scores(values, np.zeros(len(part), bool))

    return by_fold(features, fold, folds, score).values
