"""Policies: what of an audited pool is removed, or with what weight it is trained on. Nothing is deleted."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np
from jaxtyping import Float32

from poolproof.audit.ledger import Cut, Ledger
from poolproof.audit.region import AbstractRegion, RatioRegion
from poolproof.audit.removal import Shortfall, cut_above, smallest_cut
from poolproof.audit.scored_pool import TIERS
from poolproof.detectors.conformal import (
    benjamini_hochberg,
    conformal_pvalues,
    conformal_threshold,
    smallest_reference,
)
from poolproof.errors import InputError
from poolproof.simulate.checks import check_range
from poolproof.simulate.theory import optimal_real_weight


@dataclass(frozen=True, eq=False)
class Choice:
    """What a policy answers.

    Attributes:
        cut: what is removed.
        weights: of each item in training, before the cut; None for 1 each.
        shortfall: what is missing where the policy's aim is out of reach; None where it is met or there is none.
        notes: what the reader should know.
    """

    cut: Cut
    weights: Float32[np.ndarray, " n"] | None = None
    shortfall: Shortfall | None = None
    notes: tuple[str, ...] = ()


class AbstractPolicy(abc.ABC):
    """Decides what of a pool is removed."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def choose(self, ledger: Ledger) -> Choice:
        """The policy's choice for a pool.

        Raises:
            InputError: the audit does not carry what the policy needs.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Kind and options as JSON has them."""


@final
@dataclass(frozen=True)
class DropFound(AbstractPolicy):
    """Removes images with a finding that says they are synthetic, and no others.

    Attributes:
        tiers: findings that count, of `signed`, `declared` and `marked`.
    """

    kind = "found"
    tiers: tuple[str, ...] = TIERS

    def __post_init__(self) -> None:
        if not self.tiers or set(self.tiers) - set(TIERS):
            raise InputError(f"tiers: got {','.join(self.tiers)!r}, allowed some of {', '.join(TIERS)}")

    def choose(self, ledger: Ledger) -> Choice:
        """By the strongest finding; an image that is signed and marked counts as signed."""
        wanted = [TIERS.index(name) + 1 for name in self.tiers]
        return Choice(Cut(ledger.pool.found & np.isin(ledger.pool.tier, wanted), math.inf))

    def describe(self) -> dict[str, Any]:
        """Kind and tiers."""
        return {"kind": self.kind, "tiers": list(self.tiers)}


@final
@dataclass(frozen=True)
class DropAbove(AbstractPolicy):
    """Removes what was found and what scores above a threshold.

    Attributes:
        threshold: of the score; None for the detector's own, or for that of `max_fpr`.
        max_fpr: mean share of real images that may score above the threshold, in (0, 1); sets it. None for none.
    """

    kind = "threshold"
    threshold: float | int | None = None
    max_fpr: float | int | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.max_fpr is not None:
            raise InputError("threshold: got it beside max_fpr, allowed one of the two")
        if self.threshold is not None:
            check_range("threshold", self.threshold, -3e38, 3e38)
        if self.max_fpr is not None:
            check_range("max_fpr", self.max_fpr, 0.0, 1.0, above=True)

    def choose(self, ledger: Ledger) -> Choice:
        """By score."""
        own = _need_detector(ledger)
        above = own if self.threshold is None else self.threshold
        if self.max_fpr is not None:
            above = conformal_threshold(_need_real(ledger), float(self.max_fpr))
        return Choice(cut_above(ledger, above))

    def describe(self) -> dict[str, Any]:
        """Kind and options."""
        return {"kind": self.kind, "threshold": self.threshold, "max_fpr": self.max_fpr}


@final
@dataclass(frozen=True)
class ControlDiscoveries(AbstractPolicy):
    """Removes what was found, and by score so much that in expectation at most a set share of it is real.

    Attributes:
        rate: false discovery rate among those removed by score, in (0, 1).

    Source: Bates et al., arXiv 2104.08279 (conformal p-values); Benjamini and Hochberg (1995).
    Assumes: real images of the pool and real references are exchangeable, given the detector.
    """

    kind = "fdr"
    rate: float | int = 0.1

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 0.0, 1.0, above=True)

    def choose(self, ledger: Ledger) -> Choice:
        """By p-values of "this image is real"."""
        _need_detector(ledger)
        real = _need_real(ledger)
        scores = ledger.scores
        if not len(scores):
            return Choice(cut_above(ledger, math.inf))
        removal = benjamini_hochberg(conformal_pvalues(scores, real), float(self.rate))
        kept = scores[removal.keep]
        above = float(kept.max()) if len(kept) else -math.inf
        notes: tuple[str, ...] = ()
        top = int((scores > real.max()).sum())
        if removal.keep.all() and top:
            needed = smallest_reference(float(self.rate), top, len(scores))
            notes = (
                f"{len(real):,} real references allow no removal at this rate; {top:,} images score above all of them "
                f"and would go with {needed:,} references",
            )
        return Choice(cut_above(ledger, above if not removal.keep.all() else math.inf), notes=notes)

    def describe(self) -> dict[str, Any]:
        """Kind and rate."""
        return {"kind": self.kind, "rate": self.rate}


@final
@dataclass(frozen=True)
class HoldAdmissible(AbstractPolicy):
    """Removes the fewest images after which the most synthetic ones that may be left are inside the admissible region.

    Attributes:
        region: the admissible region for the sampling bias, or its range, of what the pool trains.
    """

    kind = "admissible"
    region: AbstractRegion

    def choose(self, ledger: Ledger) -> Choice:
        """By finding, then by score."""
        return Choice(*_smallest(ledger, self.region))

    def describe(self) -> dict[str, Any]:
        """Kind and region."""
        return {"kind": self.kind, "region": self.region.describe()}


@final
@dataclass(frozen=True)
class CapRatio(AbstractPolicy):
    """Removes the fewest images after which at most so many synthetic ones per real one may be left.

    Attributes:
        max_ratio: synthetic per real image, 0 or more.
    """

    kind = "ratio-cap"
    max_ratio: float | int

    def __post_init__(self) -> None:
        RatioRegion(self.max_ratio)

    def choose(self, ledger: Ledger) -> Choice:
        """By finding, then by score."""
        return Choice(*_smallest(ledger, RatioRegion(self.max_ratio)))

    def describe(self) -> dict[str, Any]:
        """Kind and ratio."""
        return {"kind": self.kind, "max_ratio": self.max_ratio}


@final
@dataclass(frozen=True)
class KeepBudget(AbstractPolicy):
    """Keeps at most so many images, those that look most real.

    What was found goes first, then what scores highest, then what has no score, the last of the pool first.

    Attributes:
        n_kept: 1 or more.
    """

    kind = "budget"
    n_kept: int

    def __post_init__(self) -> None:
        if self.n_kept < 1:
            raise InputError(f"budget: got {self.n_kept}, allowed 1 or more images")

    def choose(self, ledger: Ledger) -> Choice:
        """By finding, then by score. Images of equal score go together, so a few less than the budget may stay."""
        pool = ledger.pool
        excess = ledger.n - self.n_kept
        gone = np.zeros(len(pool), bool)
        if excess <= 0:
            return Choice(Cut(gone, math.inf), notes=("the pool is within the budget as it is",))
        found = np.flatnonzero(pool.found)
        found = found[np.argsort(pool.tier[found], kind="stable")][:excess]
        gone[found] = True
        excess -= len(found)
        above = math.inf
        if excess > 0:
            n = len(ledger.scores)
            # the highest score that may stay, -inf where none may
            above = float(ledger.scores[n - excess - 1]) if excess < n else -math.inf
            by_score = pool.answered & (pool.scores > above)
            # a tie with what stays would keep too many
            if int(by_score.sum()) < excess:
                lower = ledger.scores[ledger.scores < above]
                above = float(lower[-1]) if len(lower) else -math.inf
                by_score = pool.answered & (pool.scores > above)
            gone |= by_score
            excess -= int(by_score.sum())
        if excess > 0:
            unanswered = np.flatnonzero(pool.scored & ~pool.found & ~pool.answered)
            gone[unanswered[::-1][:excess]] = True
        return Choice(Cut(gone, above))

    def describe(self) -> dict[str, Any]:
        """Kind and budget."""
        return {"kind": self.kind, "n_kept": self.n_kept}


@final
@dataclass(frozen=True)
class Weigh(AbstractPolicy):
    """Keeps all images; those found or flagged get another weight in training.

    Attributes:
        weight: of one of them, 0 or more; None takes the weight at which they count 1 - w together where the rest
            counts w, the best w for a loop of means.

    Source: He, Xu and Cheng, arXiv 2502.18049 (the weight, for fresh-data loops without bias).
    Assumes: what is found or flagged is synthetic, and nothing else.
    """

    kind = "weights"
    weight: float | int | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            check_range("weight", self.weight, 0.0, 1e6)

    def choose(self, ledger: Ledger) -> Choice:
        """By finding and flag."""
        pool = ledger.pool
        flagged = pool.found
        if pool.standing.threshold is not None:
            flagged = flagged | (pool.answered & (pool.scores > pool.standing.threshold))
        n_synthetic = int(flagged.sum())
        n_real = ledger.n - n_synthetic
        weight = 1.0 if self.weight is None else float(self.weight)
        if self.weight is None and n_real and n_synthetic:
            w = optimal_real_weight(n_real / n_synthetic)
            weight = (1 - w) / n_synthetic / (w / n_real)
        weights = np.where(flagged, np.float32(weight), np.float32(1.0)).astype(np.float32)
        note = (
            f"{n_synthetic:,} found or flagged images weigh {weight:.4g} each, the other {n_real:,} weigh 1"
        )
        return Choice(Cut(np.zeros(len(pool), bool), math.inf), weights, notes=(note,))

    def describe(self) -> dict[str, Any]:
        """Kind and weight."""
        return {"kind": self.kind, "weight": self.weight}


POLICIES: Final[Mapping[str, type[AbstractPolicy]]] = {
    each.kind: each
    for each in (DropFound, DropAbove, ControlDiscoveries, HoldAdmissible, CapRatio, KeepBudget, Weigh)
}
"""The closed list of policies, by the names that commands use."""


def _smallest(ledger: Ledger, region: AbstractRegion) -> tuple[Cut, None, Shortfall | None]:
    cut, shortfall = smallest_cut(ledger, region)
    return cut, None, shortfall


def _need_detector(ledger: Ledger) -> float:
    threshold = ledger.pool.standing.threshold
    if threshold is None:
        raise InputError(
            "policy: got one that goes by scores for a run without a detector, allowed found, budget or weights; "
            "audit with --real and --synthetic"
        )
    return float(threshold)


def _need_real(ledger: Ledger) -> np.ndarray:
    doubt = ledger.pool.standing.real_doubt
    if doubt is not None or not len(ledger.real_references):
        raise InputError(
            "policy: got one that bounds the real images lost, which this run does not carry: "
            f"{doubt or 'no references'}; audit with a --real reference like the pool"
        )
    return ledger.real_references
