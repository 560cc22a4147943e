"""The share of synthetic items in a pool from labels drawn at random within each of its parts: exact limits.

Counts of a part. Of N items n were labelled, k of them synthetic. The number K of synthetic items has a lower
confidence law k + BetaBinomial(N - n; k, n - k + 1) and an upper one k + BetaBinomial(N - n; k + 1, n - k): their
quantiles are the exact hypergeometric limits, so the part of the pool that was seen carries no error. (The
distribution function of the first is P(X >= k | K), which follows by adding one synthetic item at a time.)
Parts are added by melding: the limits are quantiles of sums of independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from poolproof.detectors.prevalence import Interval, check_count, check_level
from poolproof.errors import InputError

GRID: Final = 8192
"""Points on which the widest law of a part is laid out."""

TAIL: Final = 1e-10
"""Probability left out at each end of a law."""


@dataclass(frozen=True)
class Stratum:
    """A part of the pool with labels on a random draw of its items.

    Attributes:
        size: items of the pool in it.
        labelled: those with a label, real or synthetic.
        synthetic: those labelled synthetic.
        unsure: those drawn whose label could not be told; not among `labelled`.
    """

    size: int
    labelled: int
    synthetic: int
    unsure: int = 0


def stratified_interval(strata: Sequence[Stratum], *, level: float = 0.95) -> Interval:
    """Return the share of a pool from labels drawn at random within each of its parts.

    Good for draws by part (more labels where the detector is unsure) and for one simple draw that is looked at
    by parts afterwards; the parts must not depend on the labels. With one part the limits are the exact
    hypergeometric ones. The point is None where a part has no label.

    Args:
        strata: the parts, which make up the pool.
        level: confidence level in (0, 1).

    Raises:
        InputError: there is no part, a count is out of range, or the level is outside (0, 1).

    Source: Bayer, Fay and Graubard, arXiv 2205.13494 (melding of parts); Buonaccorsi, The American
        Statistician 41 (1987) 215-218 (exact limits in finite populations); their law in K is derived here.
    Assumes: labels are right, and within a part each item was as likely to be drawn as any other.
    """
    alpha = 1.0 - check_level(level)
    _check(strata)
    size = sum(part.size for part in strata)
    known = all(part.labelled > 0 for part in strata)
    point = sum(part.size * part.synthetic / part.labelled for part in strata) / size if known else None
    return Interval(
        point, *part_limits(strata, alpha), level, "labels-strata" if len(strata) > 1 else "labels-survey"
    )


def part_limits(strata: Sequence[Stratum], alpha: float) -> tuple[float, float]:
    """Return both limits of the share, each at half of alpha."""
    return _limit(strata, alpha / 2, upper=False), _limit(strata, alpha / 2, upper=True)


def _limit(strata: Sequence[Stratum], error: float, *, upper: bool) -> float:
    """Return one limit: the quantile of the sum of the parts' synthetic counts, over the pool's size."""
    from scipy.signal import fftconvolve

    size = sum(part.size for part in strata)
    supports = [_support(part, upper=upper) for part in strata]
    step = max(1, *(math.ceil((high - low) / GRID) for low, high in supports))
    start, mass = 0, np.ones(1)
    for part, (low, high) in zip(strata, supports, strict=True):
        law = _law(part, low, high, step, upper=upper)
        start += low
        mass = law if len(mass) == 1 else mass if len(law) == 1 else fftconvolve(mass, law)
    if len(mass) == 1:
        return start / size
    below = np.cumsum(np.maximum(mass, 0.0))
    below /= below[-1]
    if upper:
        # The largest count that draws reach or exceed with more than the error.
        place = int(np.searchsorted(below, 1 - error, side="left"))
    else:
        place = int(np.searchsorted(below, error, side="right"))
    return min(start + step * place, size) / size


def _shapes(part: Stratum, *, upper: bool) -> tuple[int, int]:
    """Return the Beta shapes of a part's law."""
    k, n = part.synthetic, part.labelled
    return (k + 1, n - k) if upper else (k, n - k + 1)


def _support(part: Stratum, *, upper: bool) -> tuple[int, int]:
    """Return the least and the largest synthetic count that matter."""
    from scipy.special import betaincinv

    (a, b), rest = _shapes(part, upper=upper), part.size - part.labelled
    if a == 0 or b == 0 or rest == 0:
        count = part.synthetic + (rest if b == 0 and rest else 0)
        return count, count
    # Six deviations of the binomial count beyond the ends of its rate.
    ends = float(betaincinv(a, b, TAIL)), 1 - float(betaincinv(b, a, TAIL))
    low, high = (
        rest * r + sign * 6 * math.sqrt(rest * r * (1 - r) + 1) for r, sign in zip(ends, (-1, 1), strict=True)
    )
    return part.synthetic + max(math.floor(low), 0), part.synthetic + min(math.ceil(high), rest)


def _law(part: Stratum, low: int, high: int, step: int, *, upper: bool) -> Float64[np.ndarray, " m"]:
    """Return the probabilities of a part's synthetic counts from `low` on, gathered in steps."""
    from scipy.special import betaln, gammaln

    if low == high:
        return np.ones(1)
    (a, b), rest = _shapes(part, upper=upper), part.size - part.labelled
    fine = high - low <= 8 * GRID
    r = np.arange(low, high + 1, 1 if fine else step, dtype=np.float64) - part.synthetic
    choose = gammaln(rest + 1) - gammaln(r + 1) - gammaln(rest - r + 1)
    mass = np.exp(choose + betaln(r + a, rest - r + b) - betaln(a, b))
    if fine and step > 1:
        mass = np.bincount((np.arange(len(mass)) + step // 2) // step, mass)
    return mass / mass.sum()


def _check(strata: Sequence[Stratum]) -> None:
    """Raise InputError unless there are parts and their counts are in order."""
    if not strata:
        raise InputError("strata: got none, allowed 1 or more: give the parts of the pool")
    for part in strata:
        check_count("labelled + unsure", part.labelled + part.unsure, "size", part.size)
        check_count("unsure", part.unsure, "size", part.size)
        check_count("labelled", part.labelled, "size", part.size)
        check_count("synthetic", part.synthetic, "size", part.size)
        if part.synthetic > part.labelled:
            raise InputError(
                f"synthetic: got {part.synthetic}, allowed 0 to {part.labelled} (labelled): count again"
            )
