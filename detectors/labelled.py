"""The share of synthetic items from labels on a random part of the pool: valid under any detector error.

A person looks at some items drawn at random from the pool and says which are synthetic. That alone gives the
share, whatever the generator. What a detector says of all items of the pool then narrows it: within the items
it flags, and within those it does not, the labels are again a random draw, and each part's size is known.

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
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.prevalence import Interval, check_count, check_level
from poolproof.detectors.soft import Moments
from poolproof.errors import InputError

LabelledMethod = Literal["auto", "strata", "ppi", "survey"]

EXPECTED: Final = 5.0
"""Labels a part must expect by its size, or it is not set apart: an empty part would leave its share open."""

FEW: Final = 30
"""Labels of either class below which the normal limits of soft predictions cover too rarely."""

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


@dataclass(frozen=True)
class LabelledShare:
    """The share of a pool from labels.

    Attributes:
        interval: the share, items of unsure label left out as if they were like the others.
        worst_case: limits that hold whatever the unsure ones are: all real below, all synthetic above.
        pool: items of the pool.
        labelled: items with a label, real or synthetic.
        unsure: drawn items without one.
        residual_variance: variance of a label that is left after what the detector says; what one more label
            is worth.
        weight: how far the predictions were trusted: 0 not at all, 1 as they are; 1 for strata.
        strata: the parts, where the limits come from parts.
    """

    interval: Interval
    worst_case: Interval
    pool: int
    labelled: int
    unsure: int
    residual_variance: float
    weight: float
    strata: tuple[Stratum, ...] = ()


@dataclass(frozen=True)
class LabelPlan:
    """How many more labels a half width takes.

    Attributes:
        n_more: labels to add to those there are; 0 where they are enough.
        half_width: what was asked for.
        expected_half_width: what is expected with `n_more` more.
        current_half_width: what there is now.
        reachable: whether labels can reach it; where not, `n_more` labels the whole pool.
    """

    n_more: int
    half_width: float
    expected_half_width: float
    current_half_width: float
    reachable: bool

    def describe(self) -> str:
        """Return the plan in a sentence."""
        now = f"±{100 * self.current_half_width:.2g} points"
        if self.n_more == 0:
            return f"the labels are enough: {now}"
        then = f"±{100 * self.expected_half_width:.2g} points"
        return f"label {self.n_more:,} more for {then} (now {now})"


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
        point, *_limits(strata, alpha), level, "labels-strata" if len(strata) > 1 else "labels-survey"
    )


def labelled_interval(
    labels: Sequence[bool | None],
    predictions: Float[np.ndarray, " n"],
    pool: Moments,
    *,
    level: float = 0.95,
    method: LabelledMethod = "auto",
) -> LabelledShare:
    """Return the share of a pool from labels on a simple random draw of it and predictions for all of it.

    `strata` is for flags, predictions of 0 and 1: parts by flag, exact limits in each, melded; valid at any size.
    `ppi` is for soft predictions: with w the tuned weight, the point is
    mean(label - w prediction) + w mean_pool(prediction), and its variance
    (1 - n/N)/n times that of label - w prediction; limits are normal. `survey` leaves the predictions aside.

    `auto` takes strata for flags; for soft predictions `ppi` where both labels occur at least 30 times, and
    the exact survey elsewhere, since the normal limits cover too rarely for rare classes.

    Args:
        labels: True for synthetic, False for real, None for unsure.
        predictions: of the labelled items in the same order; flags, or scores in any fixed range.
        pool: moments of the predictions of the whole pool, labelled items included.
        level: confidence level in (0, 1).
        method: "auto", "strata", "ppi" or "survey".

    Raises:
        InputError: lengths differ, no item has a label, the pool is smaller than the labels, predictions are
            not finite, flags contradict the pool's mean, the level is outside (0, 1), or the method is unknown.

    Source: Angelopoulos et al., arXiv 2301.09633 (prediction-powered inference) and 2311.01453, section 6
        (weight); Cochran, Sampling Techniques (1977), eq. 7.8 to 7.11, for draws from the pool itself.
    Assumes: labels are right; the items were drawn uniformly without replacement. Nothing of the detector.
    """
    known = np.array([label is not None for label in labels], bool)
    values = np.asarray(predictions, np.float64)
    n = int(known.sum())
    if len(values) != len(known):
        raise InputError(f"predictions: got {len(values)}, allowed {len(known)}: give one for each label")
    if n == 0:
        raise InputError(f"labels: got 0 that are sure of {len(known)}, allowed 1 or more: label some items")
    if pool.n < len(known):
        raise InputError(f"pool.n: got {pool.n}, allowed {len(known)} or more: count the labelled items in")
    if not np.isfinite(values).all():
        raise InputError("predictions: got some that are not finite, allowed finite: leave abstentions out")
    if method not in ("auto", "strata", "ppi", "survey"):
        raise InputError(f"method: got {method!r}, allowed auto, strata, ppi or survey: use method='auto'")
    y = np.array([label is True for label in labels], bool)
    flags = _are_flags(values, pool)
    if method == "strata" and not flags:
        raise InputError("method: got 'strata' for predictions that are no flags: use stratified_interval")
    rare = min(int(y[known].sum()), n - int(y[known].sum()))
    if method == "ppi" or (method == "auto" and not flags and rare >= FEW):
        return _powered(y, known, values, pool, check_level(level))
    strata = _by_flag(y, known, values, pool) if flags and method != "survey" else _one(y, known, pool.n)
    return labelled_share(strata, level=level)


def labelled_share(strata: Sequence[Stratum], *, level: float = 0.95) -> LabelledShare:
    """Return the share from labelled parts of the pool, with the worst case of unsure labels.

    Args:
        strata: the parts, as in `stratified_interval`.
        level: confidence level in (0, 1).

    Raises:
        InputError: as `stratified_interval`.
    """
    found = stratified_interval(strata, level=level)
    unsure, n = sum(part.unsure for part in strata), sum(part.labelled for part in strata)
    worst = found
    if unsure:
        real, synthetic = (
            [Stratum(p.size, p.labelled + p.unsure, p.synthetic + p.unsure * all_are) for p in strata]
            for all_are in (0, 1)
        )
        alpha = 1.0 - level
        worst = Interval(None, _limits(real, alpha)[0], _limits(synthetic, alpha)[1], level, found.method)
    size = sum(part.size for part in strata)
    # Shares within parts are drawn to the middle, so that a part without hits is not taken for certain.
    inside = [(part.synthetic + 0.5) / (part.labelled + 1) for part in strata]
    variance = sum(part.size * p * (1 - p) for part, p in zip(strata, inside, strict=True)) / size
    return LabelledShare(
        found, worst, size, n, unsure, variance, 1.0 if len(strata) > 1 else 0.0, tuple(strata)
    )


def plan_labels(pilot: LabelledShare, *, half_width: float = 0.01) -> LabelPlan:
    """Return how many more labels make the interval as narrow as asked, for a share like the pilot's.

    Normal limits shrink as the root of (1/n - 1/N); limits of parts are computed anew for counts grown in
    proportion, because exact limits are wider than normal ones where a class is rare.

    Args:
        pilot: the labels so far.
        half_width: half of upper - lower that is wanted, above 0.

    Raises:
        InputError: the half width is not above 0.

    Assumes: the pilot's residual variance; more labels are drawn as the first ones were.
    """
    if not half_width > 0:
        raise InputError(f"half_width: got {half_width}, allowed above 0: 0.01 is one point")
    found, n, size = pilot.interval, pilot.labelled, pilot.pool
    now = (found.upper - found.lower) / 2

    def expected(total: int) -> float:
        if not pilot.strata:
            return now * math.sqrt(max((1 / total - 1 / size) / (1 / n - 1 / size), 0.0))
        lower, upper = _limits([_grown(part, total / n) for part in pilot.strata], 1 - found.level)
        return (upper - lower) / 2

    if now <= half_width:
        return LabelPlan(0, half_width, now, now, True)
    short, enough = n, n
    while enough < size and (enough == n or expected(enough) > half_width):
        short, enough = enough, min(2 * enough, size)
    while enough - short > max(1, enough // 200):
        middle = (short + enough) // 2
        short, enough = (middle, enough) if expected(middle) > half_width else (short, middle)
    then = expected(enough)
    return LabelPlan(enough - n, half_width, then, now, then <= half_width)


def _grown(part: Stratum, factor: float) -> Stratum:
    """Return a part with as many times the labels at the same share."""
    labelled = min(round(part.labelled * factor), part.size)
    share = part.synthetic / part.labelled if part.labelled else 0.5
    return Stratum(part.size, labelled, min(round(labelled * share), labelled))


def _powered(
    y: np.ndarray, known: np.ndarray, values: Float64[np.ndarray, " n"], pool: Moments, level: float
) -> LabelledShare:
    """Return the prediction-powered share of soft predictions, and its worst case of unsure labels."""
    found, variance, weight = _normal(y[known].astype(np.float64), values[known], pool, level)
    worst = found
    if not known.all():
        low = _normal((y & known).astype(np.float64), values, pool, level)[0]
        high = _normal((y | ~known).astype(np.float64), values, pool, level)[0]
        worst = Interval(None, low.lower, high.upper, level, found.method)
    n = int(known.sum())
    return LabelledShare(found, worst, pool.n, n, len(known) - n, variance, weight)


def _normal(
    y: Float64[np.ndarray, " n"], f: Float64[np.ndarray, " n"], pool: Moments, level: float
) -> tuple[Interval, float, float]:
    """Return the regression estimate of the share with normal limits, the residual variance and the weight."""
    from scipy.special import stdtrit

    n = len(y)
    if n < 3:
        raise InputError(f"labels: got {n}, allowed 3 or more for method='ppi': use method='survey'")
    spread = float(np.mean((f - f.mean()) ** 2))
    # A draw of the pool itself: its covariance alone sets the weight, without the factor for two samples.
    weight = float(np.mean((f - f.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    point = float(y.mean()) + weight * (pool.mean - float(f.mean()))
    variance = float(np.var(y - weight * f)) * n / (n - 2)
    error = math.sqrt(max(1 - n / pool.n, 0.0) * variance / n)
    half = float(stdtrit(n - 2, 1 - (1 - level) / 2)) * error
    lower, upper = (min(max(limit, 0.0), 1.0) for limit in (point - half, point + half))
    return Interval(min(max(point, 0.0), 1.0), lower, upper, level, "labels-ppi"), variance, weight


def _are_flags(values: Float64[np.ndarray, " n"], pool: Moments) -> bool:
    """Return whether predictions are 0 and 1 alone, for the pool as for the labels."""
    if not np.isin(values, (0.0, 1.0)).all():
        return False
    return abs(pool.variance - pool.mean * (1 - pool.mean)) < 1e-9 and 0 <= pool.mean <= 1


def _by_flag(
    y: np.ndarray, known: np.ndarray, values: Float64[np.ndarray, " n"], pool: Moments
) -> tuple[Stratum, ...]:
    """Return the flagged and the other items as parts, or the whole pool where one expects too few labels."""
    flagged = round(pool.mean * pool.n)
    if min(flagged, pool.n - flagged) * len(values) / pool.n < EXPECTED:
        return _one(y, known, pool.n)
    parts = []
    for flag, size in ((1.0, flagged), (0.0, pool.n - flagged)):
        part = values == flag
        if part.sum() > size:
            raise InputError(
                f"pool.mean: got {size} items of flag {flag:g}, {part.sum()} labelled: count the pool again"
            )
        n = int((part & known).sum())
        parts.append(Stratum(size, n, int((part & known & y).sum()), int(part.sum()) - n))
    return tuple(parts)


def _one(y: np.ndarray, known: np.ndarray, size: int) -> tuple[Stratum, ...]:
    """Return the whole pool as one part."""
    n = int(known.sum())
    return (Stratum(size, n, int((known & y).sum()), len(known) - n),)


def _limits(strata: Sequence[Stratum], alpha: float) -> tuple[float, float]:
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
