"""Detectors fitted on references, with error rates measured on references that they did not see.

With real and synthetic references: `cross_fit`. With real ones alone: `real_only`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from poolproof.detectors.neighbours import check_features, check_pair, knn_score, real_distance
from poolproof.detectors.prevalence import Interval, check_level
from poolproof.detectors.probe import LinearProbe, fit_probe
from poolproof.detectors.scaling import Scaling, fit_scaling
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

    The rates belong to `score`, which gives each pool item to the probe of one fold. Taken over the folds,
    such a probe flags an item with the very probability that the held-out counts estimate, because each
    reference was scored by one of the same probes, one that had not seen it. A probe refitted on all
    references might be a little better, but nobody would have measured it, and the share would be corrected
    by wrong rates.

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
            fold: 0 to `folds` - 1, evenly spread and settled by the item's content alone, by its hash say;
                then the same item has the same score in every pool and every shard.

        Raises:
            InputError: a fold is out of range, lengths or widths differ, or a feature is not finite.
        """
        return _probe_scores(self.probes, features, fold)

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
        banks = (self.real, self.real_fold), (self.synthetic, self.synthetic_fold)
        return _knn_scores(*banks, self.k, self.folds, features, fold)


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

    Assumes: the references of a class are independent draws of what the pool holds of that class, and none is
        a copy of another or of a pool item: a copy in another fold makes the held-out rates look too good.
    """
    check_pair("real", real, "synthetic", synthetic)
    if folds < 2:
        raise InputError(f"folds: got {folds}, allowed 2 or more: 5 is usual")
    _check_enough("real", real)
    _check_enough("synthetic", synthetic)
    folds = min(folds, len(real) // 2, len(synthetic) // 2)
    real_fold, synthetic_fold = _deal(len(real), folds, rng), _deal(len(synthetic), folds, rng)
    probes = tuple(fit_probe(real[real_fold != i], synthetic[synthetic_fold != i]) for i in range(folds))
    real_scores = _probe_scores(probes, real, real_fold)
    synthetic_scores = _probe_scores(probes, synthetic, synthetic_fold)
    banks = (real, real_fold), (synthetic, synthetic_fold)
    return CrossFit(
        probes=probes,
        real=real,
        synthetic=synthetic,
        real_fold=real_fold,
        synthetic_fold=synthetic_fold,
        real_scores=real_scores,
        synthetic_scores=synthetic_scores,
        real_knn=_knn_scores(*banks, k, folds, real, real_fold),
        synthetic_knn=_knn_scores(*banks, k, folds, synthetic, synthetic_fold),
        k=k,
        tpr=(int((synthetic_scores > 0).sum()), len(synthetic)),
        fpr=(int((real_scores > 0).sum()), len(real)),
        auc=area_under_curve(real_scores, synthetic_scores),
    )


@dataclass(frozen=True)
class RealOnly:
    """A detector that knows real references alone: what lies far from all of them is flagged.

    Attributes:
        bank: real references that items are compared with, standardised.
        scaling: of the features, from the bank.
        k: the neighbour whose distance counts.
        threshold: a score above it flags the item.
        held_out_scores: scores of the real references that are not in the bank.
        false_positives: held-out references flagged.
        n: held-out references.
    """

    bank: Float[np.ndarray, "b d"]
    scaling: Scaling
    k: int
    threshold: float
    held_out_scores: Float32[np.ndarray, " n"]
    false_positives: int
    n: int

    def score(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
        """Return the log-distance of each item to its k-th neighbour in the bank; larger = further from real.

        Args:
            features: of the references' embedder.

        Raises:
            InputError: a feature is not finite, or the widths differ.
        """
        check_pair("features", features, "references", self.bank)
        return real_distance(self.scaling.apply(features), self.bank, self.k)


def real_only(real: Float[np.ndarray, "r d"], *, k: int = 5, rng: np.random.Generator) -> RealOnly:
    """Return a detector made of real references alone, with its false positives on held-out ones.

    The threshold is set on the bank, each of its points compared with the others, and the false positives are
    counted on the references left over; so `lower_bound` may use the count as it is.

    Args:
        real: features of real references, at least 10.
        k: the neighbour whose distance counts, 1 to the bank's size less 1.
        rng: splits the references.

    Raises:
        InputError: k is out of range or a feature is not finite.
        UnreliableEstimate: there are fewer than 10 references.

    Assumes: the references are independent draws of the pool's real items, without copies.
    """
    check_features("real", real)
    _check_enough("real", real)
    order = rng.permutation(len(real))
    size = round(BANK * len(real))
    bank, held_out = real[order[:size]], real[order[size:]]
    scaling = fit_scaling(bank)
    bank, held_out = scaling.apply(bank), scaling.apply(held_out)
    own = real_distance(bank, bank, k, same=True)
    threshold = float(np.quantile(own, QUANTILE, method="higher"))
    scores = real_distance(held_out, bank, k)
    return RealOnly(bank, scaling, k, threshold, scores, int((scores > threshold).sum()), len(held_out))


def area_under_curve(
    real_scores: Float[np.ndarray, " r"], synthetic_scores: Float[np.ndarray, " s"], *, level: float = 0.95
) -> Interval:
    """Return the probability that a synthetic item scores above a real one, with score-type limits.

    Ties count one half. The limits solve (estimate - A)^2 = z^2 V(A) for the area A, with the Hanley-McNeil
    variance V; unlike estimate +- z standard errors they stay in [0, 1] and have a width at an area of 1.

    Args:
        real_scores: scores of real items.
        synthetic_scores: scores of synthetic items.
        level: confidence level in (0, 1).

    Raises:
        InputError: a class is empty or the level is out of range.

    Source: Hanley and McNeil, Radiology 143 (1982) 29-36; Newcombe, Stat. Med. 25 (2006) 559-573, method 5.
    Assumes: independent items; scores that are roughly exponential where the variance is concerned.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    m, n = len(real_scores), len(synthetic_scores)
    if m == 0 or n == 0:
        raise InputError(f"scores: got {m} real and {n} synthetic, allowed 1 or more each: give references")
    z = float(ndtri(0.5 + check_level(level) / 2))
    ordered = np.sort(real_scores)
    below = np.searchsorted(ordered, synthetic_scores, "left").sum()
    not_above = np.searchsorted(ordered, synthetic_scores, "right").sum()
    area = float(below + not_above) / (2 * m * n)

    def excess(a: float) -> float:
        half = (m + n) / 2 - 1
        spread = a * (1 - a) * (1 + half * (1 - a) / (2 - a) + half * a / (1 + a)) / (m * n)
        return (area - a) ** 2 - z * z * spread

    # Next to an area of 0 or 1 the excess is negative, whatever rounding makes of it at the end itself.
    lower = 0.0 if area == 0 else brentq(excess, 0.0, min(area, 1 - 1e-12))
    upper = 1.0 if area == 1 else brentq(excess, max(area, 1e-12), 1.0)
    limits = float(lower), float(upper)  # pyright: ignore[reportArgumentType]
    return Interval(area, *limits, level, "hanley-mcneil-score")


def _check_enough(name: str, references: Float[np.ndarray, "n d"]) -> None:
    """Raise UnreliableEstimate where the references are too few for any rate."""
    if len(references) < FEWEST:
        got = f"{len(references)} references"
        raise UnreliableEstimate(f"{name}: got {got}, allowed {FEWEST} or more: add some, 100 serve well")


def _deal(n: int, folds: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Return a random fold for each of n references, sizes as equal as they go."""
    return rng.permutation(np.arange(n, dtype=np.int64) % folds)


def _probe_scores(
    probes: tuple[LinearProbe, ...], features: Float[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """Return the score of each item by the probe of its fold."""
    return _by_fold(features, fold, len(probes), lambda part, i: probes[i].score(part))


def _knn_scores(
    real: tuple[Float[np.ndarray, "r d"], Int[np.ndarray, " r"]],
    synthetic: tuple[Float[np.ndarray, "s d"], Int[np.ndarray, " s"]],
    k: int,
    folds: int,
    features: Float[np.ndarray, "n d"],
    fold: Int[np.ndarray, " n"],
) -> Float32[np.ndarray, " n"]:
    """Return the neighbour score of each item against the references that its fold does not hold out."""

    def score(part: Float[np.ndarray, "p d"], i: int) -> Float32[np.ndarray, " p"]:
        bank, other = real[0][real[1] != i], synthetic[0][synthetic[1] != i]
        scaling = fit_scaling(np.concatenate([bank, other]))
        return knn_score(scaling.apply(part), scaling.apply(bank), scaling.apply(other), k)

    return _by_fold(features, fold, folds, score)


def _by_fold(
    features: Float[np.ndarray, "n d"],
    fold: Int[np.ndarray, " n"],
    folds: int,
    score: Callable[[Float[np.ndarray, "p d"], int], Float32[np.ndarray, " p"]],
) -> Float32[np.ndarray, " n"]:
    """Return scores in item order, each made by `score(items, fold)`."""
    if len(fold) != len(features) or not np.isin(fold, np.arange(folds)).all():
        allowed = f"{len(features)} from 0 to {folds - 1}"
        raise InputError(
            f"fold: got {len(fold)} numbers, allowed {allowed}: use the content hash mod {folds}"
        )
    scores = np.empty(len(features), dtype=np.float32)
    for i in range(folds):
        mine = fold == i
        if mine.any():
            scores[mine] = score(features[mine], i)
    return scores
