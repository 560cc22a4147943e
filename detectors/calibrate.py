"""Detectors fitted on references, with error rates measured on references that they did not see.

With real and synthetic references: `cross_fit`. With real ones alone: `real_only`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from poolproof.detectors.neighbours import check_features, check_k, check_pair, knn_score, real_distance
from poolproof.detectors.prevalence import Interval, check_level
from poolproof.detectors.probe import LinearProbe, fit_probe
from poolproof.errors import InputError, UnreliableEstimate

FEWEST: Final = 10
"""References of a class below which nothing is estimated."""

BANK: Final = 0.6
"""Share of the real references that `real_only` compares with; it counts false positives on the others."""

QUANTILE: Final = 0.95
"""Quantile of the bank's own distances that `real_only` takes for its threshold."""


@dataclass(frozen=True)
class CrossFit:
    """Probes and neighbour banks by fold, and what they say of the references held out from them.

    The rates belong to `score`, which gives each pool item to the probe of one fold. Taken over the folds, such a
    probe flags an item with the very probability that the held-out counts estimate, because each reference
    was scored by one of the same probes, one that had not seen it. A probe refitted on all references might
    be a little better, but nobody would have measured it, and the share would be corrected by wrong rates.

    Attributes:
        probes: one per fold, fitted on the references of the other folds.
        real: features of the real references.
        synthetic: features of the synthetic references.
        real_fold: the fold that holds a real reference out.
        synthetic_fold: the fold that holds a synthetic reference out.
        real_scores: held-out probe scores of the real references.
        synthetic_scores: held-out probe scores of the synthetic references.
        real_knn: held-out neighbour scores of the real references.
        synthetic_knn: held-out neighbour scores of the synthetic references.
        k: number of neighbours in a neighbour score.
        tpr: synthetic references flagged, and their number.
        fpr: real references flagged, and their number.
        auc: area under the curve of the held-out probe scores, level 0.95.
        threshold: a probe score above it flags the item.
    """

    probes: tuple[LinearProbe, ...]
    real: Float[np.ndarray, "r d"]
    synthetic: Float[np.ndarray, "s d"]
    real_fold: Int64[np.ndarray, " r"]
    synthetic_fold: Int64[np.ndarray, " s"]
    real_scores: Float32[np.ndarray, " r"]
    synthetic_scores: Float32[np.ndarray, " s"]
    real_knn: Float32[np.ndarray, " r"]
    synthetic_knn: Float32[np.ndarray, " s"]
    k: int
    tpr: tuple[int, int]
    fpr: tuple[int, int]
    auc: Interval
    threshold: float = 0.0

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.probes)

    def score(
        self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Return the probe score of each item by its fold's probe; larger = more synthetic.

        Args:
            features: of the references' embedder.
            fold: 0 to `folds` - 1, evenly spread and settled by nothing but the item's content, by its hash say;
                then the same item has the same score in every pool and every shard.

        Raises:
            InputError: a fold is out of range, lengths or widths differ, or a feature is not finite.
        """
        return _by_fold(features, fold, self.folds, lambda part, i: self.probes[i].score(part))

    def knn_score(
        self, features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Return the neighbour score of each item by its fold's banks; larger = more synthetic.

        Args:
            features: of the references' embedder.
            fold: as in `score`.

        Raises:
            InputError: as in `score`.
        """
        return _by_fold(features, fold, self.folds, self._knn)

    def _knn(self, features: Float[np.ndarray, "n d"], fold: int) -> Float32[np.ndarray, " n"]:
        """Return neighbour scores against the references of the other folds."""
        real, synthetic = self.real[self.real_fold != fold], self.synthetic[self.synthetic_fold != fold]
        return knn_score(features, real, synthetic, self.k)


def cross_fit(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s d"],
    *,
    folds: int = 5,
    k: int = 5,
    rng: np.random.Generator,
) -> CrossFit:
    """Return a detector fitted on references, with its error rates on references held out from it.

    Args:
        real: features of real references, at least 10.
        synthetic: features of synthetic references, at least 10.
        folds: number of folds, at least 2; lowered until every fold holds 2 references of each class out.
        k: number of neighbours in the neighbour scores.
        rng: deals the references into folds.

    Raises:
        InputError: folds or k is out of range, a feature is not finite, or the widths differ.
        UnreliableEstimate: a class has fewer than 10 references.

    Assumes: references of a class are independent draws of what the pool holds of that class, and none is a copy of
        another or of a pool item: a copy in another fold makes the held-out rates look better than they are.
    """
    check_pair("real", real, "synthetic", synthetic)
    if folds < 2:
        raise InputError(f"folds: got {folds}, allowed 2 or more: 5 is usual")
    _check_enough("real", real)
    _check_enough("synthetic", synthetic)
    folds = min(folds, len(real) // 2, len(synthetic) // 2)
    real_fold, synthetic_fold = _deal(len(real), folds, rng), _deal(len(synthetic), folds, rng)
    probes = tuple(fit_probe(real[real_fold != i], synthetic[synthetic_fold != i]) for i in range(folds))
    scores = [
        _by_fold(features, fold, folds, lambda part, i: probes[i].score(part))
        for features, fold in ((real, real_fold), (synthetic, synthetic_fold))
    ]
