"""Removal with a bounded share of real images among the removed: p-values by rank, and Benjamini-Hochberg.

The only thing that is asked of a detector is that it does not know which real images are references and which
are in the pool. How well it works decides how much is removed, not whether the bound holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Float64

from poolproof.detectors.prevalence import check_count
from poolproof.detectors.roc import check_rate, check_scores
from poolproof.errors import InputError, UnreliableEstimate


@dataclass(frozen=True)
class Removal:
    """Which items stay, and the smallest rate at which each would go.

    Attributes:
        keep: items that are not removed.
        qvalues: an item is removed at every rate from its q-value on.
        rate: bound on the expected share of real items among the removed.
    """

    keep: Bool[np.ndarray, " n"]
    qvalues: Float64[np.ndarray, " n"]
    rate: float


def conformal_pvalues(
    scores: Float[np.ndarray, " n"],
    real_scores: Float[np.ndarray, " r"],
    *,
    rng: np.random.Generator | None = None,
) -> Float64[np.ndarray, " n"]:
    """Return p-values of "this item is real": the rank of its score among the real references.

    (1 + #{reference >= score})/(r + 1), which is at or below p with probability at most p for a real item. With
    `rng` ties are broken, its own place among them too: (#{reference > score} + U (1 + #{reference = score}))/(r + 1)
    with U uniform, one an item; exactly uniform for a real item, and smaller.

    Args:
        scores: of the items; larger = more synthetic.
        real_scores: of real references, by the same detector, which was not fitted on them.
        rng: breaks ties; without it p-values depend on the scores alone.

    Raises:
        InputError: there is no reference or a score is not finite.

    Source: Bates, Candes, Lei, Romano and Sesia, arXiv 2104.08279, eq. 1; Vovk, Gammerman and Shafer,
        Algorithmic Learning in a Random World (2005), 2.2 (smoothed).
    Assumes: real items of the pool and real references are exchangeable, given the detector. Synthetic items among the
        references make the p-values larger, never too small. With cross-fitted scores this holds nearly:
        the references were scored by several detectors, each fitted on the others.
    """
    if not np.isfinite(scores).all():
        raise InputError("scores: got NaN or infinity, allowed finite scores: leave abstentions out")
    ordered = np.sort(check_scores("real_scores", real_scores))
    wide, n = np.asarray(scores, np.float64), len(ordered)
    not_below = n - np.searchsorted(ordered, wide, "left")
    if rng is None:
        return (1 + not_below) / (n + 1)
    above = n - np.searchsorted(ordered, wide, "right")
    # 1 - random() lies in (0, 1], so that no p-value is 0
    return (above + (1 - rng.random(len(wide))) * (1 + not_below - above)) / (n + 1)


def benjamini_hochberg(pvalues: Float[np.ndarray, " n"], rate: float) -> Removal:
    """Return which items to keep so that at most the share `rate` of the removed is real, in expectation.

    The items with the k smallest p-values are removed, k the largest number for which the k-th is at most
    rate k/n. The q-value of an item is the smallest rate at which it goes.

    Args:
        pvalues: of "this item is real", in [0, 1].
        rate: false discovery rate, in (0, 1).

    Raises:
        InputError: a p-value or the rate is out of range.

    Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995) 289-300; for conformal p-values, which share
        their references, Bates et al., arXiv 2104.08279, theorem 2 and corollary 1.
    Assumes: p-values of real items as those of `conformal_pvalues`, or independent.
    """
    check_rate("rate", rate)
    p, n = np.asarray(pvalues, np.float64), len(pvalues)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("pvalues: got NaN or values outside [0, 1], allowed 0 to 1: leave abstentions out")
    order = np.argsort(p, kind="stable")
    stepped = p[order] * n / np.arange(1, n + 1)
    qvalues = np.empty(n)
    qvalues[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    # Ranks make p-values fractions that often meet the rate exactly; rounding must not keep them.
    return Removal(qvalues > rate * (1 + 1e-12), qvalues, rate)


def smallest_reference(rate: float, n_flagged: int, n_pool: int) -> int:
    """Return the real references from which Benjamini-Hochberg removes `n_flagged` items that top them all.

    The smallest p-value that r references allow is 1/(r + 1); k items of N that have it are removed where
    1/(r + 1) <= rate k/N, so r is N/(rate k) - 1, rounded up. With fewer references nothing is removed,
    however clear the items are.

    Args:
        rate: false discovery rate, in (0, 1).
        n_flagged: items that score above every real reference, 1 to n_pool.
        n_pool: items of the pool that are scored.

    Raises:
        InputError: the rate or a count is out of range.

    Source: derived from the two definitions above.
    """
    check_rate("rate", rate)
    check_count("n_flagged", n_flagged, "n_pool", n_pool)
    if n_flagged == 0:
        raise InputError(f"n_flagged: got 0, allowed 1 to {n_pool}: nothing can be removed of nothing")
    exact = Fraction(rate).limit_denominator(10**9)
    return max(1, math.ceil(Fraction(n_pool) / (exact * n_flagged) - 1))


def conformal_threshold(real_scores: Float[np.ndarray, " n"], fpr: float) -> float:
    """Return the smallest real score that a new real item exceeds with probability at most `fpr`.

    The probability is over the references and the item together: it bounds the mean false positive rate.
    For a bound that holds with confidence for these very references see `threshold_for_fpr`.

    Args:
        real_scores: of real references that the detector was not fitted on.
        fpr: the bound, in (0, 1).

    Raises:
        InputError: there is no score, one is not finite, or the bound is out of range.
        UnreliableEstimate: fewer than 1/fpr - 1 references.

    Source: Vovk, Gammerman and Shafer (2005), 2.2: the score from which on p-values exceed `fpr`.
    Assumes: references and item are exchangeable.
    """
    scores = np.sort(check_scores("real_scores", real_scores))
    n, needed = len(scores), references_for_fpr(fpr)
    if n < needed:
        got = f"{n} real references to set a threshold on"
        raise UnreliableEstimate(
            f"real: got {got}, allowed {needed} or more for a rate of {fpr:g}: add some or raise max_fpr"
        )
    return float(scores[math.ceil((1 - fpr) * (n + 1) - 1e-9) - 1])


def references_for_fpr(fpr: float) -> int:
    """Return how many real references `conformal_threshold` needs: 1/fpr - 1, rounded up."""
    return max(1, math.ceil(1 / check_rate("fpr", fpr) - 1 - 1e-9))
