"""The smallest removal after which a pool is inside a region, and what is missing where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool

from poolproof.audit.ledger import Cut, Ledger
from poolproof.audit.region import AbstractRegion
from poolproof.detectors.prevalence import split_level
from poolproof.detectors.rank_band import rank_band

LEAST_KEPT: Final = 0.1
"""Share of the images that a cut must leave to be called close to the aim, or to be an argument for more references."""

_ADVICE_DRAWS: Final = 2000

_MOST_REFERENCES: Final = 1_000_000
"""References beyond which asking for more is no advice."""


@dataclass(frozen=True)
class Shortfall:
    """Why no removal by the detector at hand brings a pool inside a region.

    Attributes:
        allowed: synthetic images that may stay, at the removal that comes closest.
        most_left: synthetic images that may be left by it.
        needed_tpr: share of the synthetic images that the detector would have to find, in [0, 1].
        tpr: share that it finds of its references at that removal; None without.
        proven_tpr: lower limit of that share among the pool's images.
        fpr: share of the real references that go with them; None without.
        needed_references: synthetic references with which the same detector would do, None where none would.
        why: in a sentence.
    """

    allowed: int
    most_left: int
    needed_tpr: float | int
    tpr: float | None
    proven_tpr: float | int
    fpr: float | None
    needed_references: int | None
    why: str


def smallest_cut(ledger: Ledger, region: AbstractRegion) -> tuple[Cut, Shortfall | None]:
    """The cut that removes fewest images of those after which the pool is inside the region, and None.

    Images with a finding go first, the strongest evidence first, and no more than needed; then those that score
    highest. The pool counts as inside where the most synthetic images that may be left are. Where no threshold
    brings it there, the cut that comes closest is given, and what is missing.

    Args:
        ledger: of the pool.
        region: where it has to end.
    """
    pool, n = ledger.pool, ledger.n
    found = np.flatnonzero(pool.found)
    found = found[np.argsort(pool.tier[found], kind="stable")]

    def without_found(k: int) -> bool:
        left = len(found) - k
        return region.holds(n - k, ledger.rest.lower + left, ledger.rest.upper + left)

    if without_found(len(found)):
        short, enough = -1, len(found)
        while enough - short > 1:
            middle = (short + enough) // 2
            short, enough = (short, middle) if without_found(middle) else (middle, enough)
        gone = np.zeros(len(pool), bool)
        gone[found[:enough]] = True
        return Cut(gone, math.inf), None
    closest: tuple[float, float] | None = None
    for above in _thresholds(ledger):
        kept = _kept(ledger, above)
        fewest, most = ledger.fewest_left(above), ledger.most_left(above)
        if region.holds(kept, fewest, most):
            return cut_above(ledger, above), None
        allowed = region.border(max(kept - most, 0), max(kept - fewest, 0))
        excess = (most - allowed) / max(1.0, allowed)
        if kept >= LEAST_KEPT * ledger.n and (closest is None or excess < closest[0]):
            closest = (excess, above)
    above = math.inf if closest is None else closest[1]
    return cut_above(ledger, above), _find_shortfall(ledger, region, above)


def cut_above(ledger: Ledger, above: float | int, *, found: Bool[np.ndarray, " n"] | None = None) -> Cut:
    """The cut of all items that score above a threshold, and of those with a finding.

    Args:
        ledger: of the pool.
        above: the threshold.
        found: items with a finding that go; None for all of them.
    """
    pool, above = ledger.pool, float(np.float32(above))  # as scores are stored, so that all compare alike
    by_score = pool.answered & (pool.scores > above)
    return Cut(by_score | (pool.found if found is None else found), above)


def _kept(ledger: Ledger, above: float | int) -> int:
    return int(np.searchsorted(ledger.scores, above, "right")) + ledger.n_unanswered


def _thresholds(ledger: Ledger) -> list[float]:
    """Thresholds worth trying, the smallest removal first.

    What may be left changes only where a threshold passes a synthetic reference; among thresholds that leave as much,
    the highest keeps most: the largest score of the pool below the next reference.
    """
    scores, references = ledger.scores, ledger.synthetic_references
    if not len(scores) or not len(references):
        return []
    last = np.searchsorted(scores, references[::-1], "left") - 1
    tried = [float(scores[i]) if i >= 0 else -math.inf for i in dict.fromkeys(last.tolist())]
    return [*tried, -math.inf] if tried[-1] > -math.inf else tried


def _find_shortfall(ledger: Ledger, region: AbstractRegion, above: float) -> Shortfall:
    kept = _kept(ledger, above)
    most = ledger.most_left(above)
    allowed = region.border(max(kept - most, 0), max(kept - ledger.fewest_left(above), 0))
    n = len(ledger.synthetic_references)
    below = int(np.searchsorted(ledger.synthetic_references, above, "right"))
    n_real = len(ledger.real_references)
    among = max(1, ledger.most_answered)
    needed = min(max(1 - (allowed - ledger.n_unanswered) / among, 0.0), 1.0)
    doubt = ledger.pool.standing.synthetic_doubt
    if n == 0 and doubt is not None:
        why = f"what the detector finds of this pool's synthetic images is not known: {doubt}"
    elif n == 0:
        why = "without a detector and synthetic references only images with a finding can be told"
    else:
        why = (
            f"at the removal that comes closest {most:,} synthetic images may be left and {math.floor(allowed):,} are "
            f"allowed; a detector would have to find {100 * needed:.1f} % of them"
        )
    return Shortfall(
        allowed=math.floor(allowed),
        most_left=most,
        needed_tpr=needed,
        tpr=(n - below) / n if n else None,
        proven_tpr=max(0.0, 1 - (most - ledger.n_unanswered) / among),
        fpr=(n_real - int(np.searchsorted(ledger.real_references, above, "right"))) / n_real
        if n_real
        else None,
        needed_references=_find_references(ledger, region) if n else None,
        why=why,
    )


def _find_references(ledger: Ledger, region: AbstractRegion) -> int | None:
    """Synthetic references, a power of two times those at hand, with which a threshold would do."""
    level, n = split_level(ledger.pool.standing.level), len(ledger.synthetic_references)
    thresholds = [t for t in _thresholds(ledger) if _kept(ledger, t) >= LEAST_KEPT * ledger.n]
    below = np.searchsorted(ledger.synthetic_references, thresholds, "right")
    factor = 2
    while factor * n <= _MOST_REFERENCES:
        rng = np.random.default_rng([factor, n])
        band = rank_band(ledger.most_answered, factor * n, level=level, draws=_ADVICE_DRAWS, rng=rng)
        for above, n_below in zip(thresholds, below.tolist(), strict=True):
            kept = _kept(ledger, above)
            most = min(band.limits(factor * n_below)[1], kept - ledger.n_unanswered) + ledger.n_unanswered
            if region.holds(kept, min(ledger.fewest_left(above), most), most):
                return factor * n
        factor *= 2
    return None
