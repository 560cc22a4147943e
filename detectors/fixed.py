"""Error rates of a detector that was fitted elsewhere: a public head, one without training, a saved one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.detectors.conformal import conformal_threshold
from poolproof.detectors.detector import AbstractDetector, Scores
from poolproof.detectors.folds import all_answered, by_fold, check_enough, threshold_of
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.roc import area_under_curve, check_rate


@dataclass(frozen=True)
class FixedFit:
    """A detector with a threshold and what it says of references that it was not fitted on.

    References without an answer are counted and left out of the rates, as pool items without one are; the
    share is then that of the items with an answer.

    Attributes:
        detector: scores items.
        threshold: a score above it flags the item.
        real_scores: of the real references with an answer, less those that the threshold was set on.
        synthetic_scores: of the synthetic references with an answer; None without any references of the kind.
        tpr: synthetic references flagged, and their number; None without.
        fpr: real references flagged, and their number: all that `real_scores` holds.
        auc: area under the curve of these scores, level 0.95; None without synthetic references.
        real_abstained: real references without an answer.
        synthetic_abstained: synthetic references without an answer.
    """

    detector: AbstractDetector
    threshold: float
    real_scores: Float32[np.ndarray, " r"]
    synthetic_scores: Float32[np.ndarray, " s"] | None
    tpr: tuple[int, int] | None
    fpr: tuple[int, int]
    auc: Interval | None
    real_abstained: int
    synthetic_abstained: int

    @property
    def folds(self) -> int:
        """Number of folds: one, as nothing was fitted."""
        return 1

    def score(
        self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Return the score of each item; larger = more synthetic.

        Args:
            features: of the detector's reader.
            fold: 0 for every item.

        Raises:
            InputError: a fold is not 0, lengths or widths differ, or the detector abstains from an item.
        """
        return all_answered(self.answer(features, fold))

    def answer(self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]) -> Scores:
        """Return the scores, and from which items the detector abstains.

        Args:
            features: as in `score`.
            fold: as in `score`.

        Raises:
            InputError: a fold is not 0, or lengths or widths differ.
        """
        return by_fold(features, fold, 1, lambda part, _: self.detector.score(part))


def calibrate_fixed(
    detector: AbstractDetector,
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s d"] | None = None,
    *,
    max_fpr: float | None = None,
    rng: np.random.Generator,
) -> FixedFit:
    """Return a detector with its error rates on references, at its own threshold or at one of a stated error.

    With `max_fpr` the threshold is set on a random half of the real references and the false positives are
    counted on the other half, so that the counts may go into `interval` and `lower_bound` as they are. A new
    real item is flagged with probability `max_fpr` at most, taken over references (`conformal_threshold`).

    Args:
        detector: fitted on none of these references.
        real: features of real references, at least 10 with an answer; twice as many with `max_fpr`, and
            2/max_fpr - 2 or more.
        synthetic: features of synthetic references, at least 10 with an answer; None where there are none,
            then a lower bound of the share is all that the counts carry.
        max_fpr: mean false positive rate to set the threshold by, in (0, 1); None for the detector's own.
        rng: halves the real references.

    Raises:
        InputError: max_fpr or a width is out of range, or the detector has no threshold and `max_fpr` is None.
        UnreliableEstimate: too few references.

    Assumes: the references of a class are independent draws of what the pool holds of that class, unknown to
        the detector: one that was fitted on them looks too good, and nothing here can tell. Items without an
        answer are as often synthetic as others, if the share is to be that of all.
    """
    scores = detector.score(real)
    counted = scores.values[~scores.abstained]
    what = "references that the detector answers for"
    if max_fpr is None:
        check_enough("real", len(counted), what=what)
        threshold = threshold_of(detector)
    else:
        check_rate("max_fpr", max_fpr)
        order, half = rng.permutation(len(counted)), (len(counted) + 1) // 2
        setting, counted = counted[order[:half]], counted[order[half:]]
        check_enough("real", len(counted), what=f"{what} in the half that is counted")
        threshold = conformal_threshold(setting, max_fpr)
    high, abstained = None, 0
    if synthetic is not None:
        other = detector.score(synthetic)
        high, abstained = other.values[~other.abstained], int(other.abstained.sum())
        check_enough("synthetic", len(high), what=what)
    return FixedFit(
        detector=detector,
        threshold=threshold,
        real_scores=counted,
        synthetic_scores=high,
        tpr=None if high is None else (int((high > threshold).sum()), len(high)),
        fpr=(int((counted > threshold).sum()), len(counted)),
        auc=None if high is None else area_under_curve(counted, high),
        real_abstained=int(scores.abstained.sum()),
        synthetic_abstained=abstained,
    )
