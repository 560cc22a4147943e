"""The share of synthetic items from labels on a random part of the pool: valid under any detector error.

A person looks at some items drawn at random from the pool and says which are synthetic. That alone gives the
share, whatever the generator. What a detector says of all items of the pool then narrows it: within the items
it flags, and within those it does not, the labels are again a random draw, and each part's size is known.
How parts are added is in `detectors/strata.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.prevalence import Interval, check_level
from poolproof.detectors.soft import Moments
from poolproof.detectors.strata import Stratum, part_limits, stratified_interval
from poolproof.errors import InputError

LabelledMethod = Literal["auto", "strata", "ppi", "survey"]

EXPECTED: Final = 5.0
"""Labels a part must expect by its size, or it is not set apart: an empty part would leave its share open."""

FEW: Final = 30
"""Labels of either class below which the normal limits of soft predictions cover too rarely."""


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
        worst = Interval(
            None, part_limits(real, alpha)[0], part_limits(synthetic, alpha)[1], level, found.method
        )
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
        lower, upper = part_limits([_grown(part, total / n) for part in pilot.strata], 1 - found.level)
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
