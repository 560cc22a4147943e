"""How much the share of synthetic items differs between two pools, by melding; no random draws.

**One detector with one pair of error rates.** The items of both pools fall into groups, each in both pools or
in one: common, added, removed. Group k holds the part `weight_k` more of the second pool than of the first, so
that the weights add up to 0, and flags `q_k` of its items without a finding, which are the part `rest_k` of it.
With true and false positive rates t and f, q = r t + (1 - r) f in every group, and the difference of the shares is

    d = (h t + c) / (t - f),    c = sum of weight_k rest_k q_k,    h = sum of weight_k (1 - rest_k).

h, the difference of the shares of items with a finding, is known. Neither t nor f tells whether c is 0: without
findings a change is tested on flags alone, and the errors of the calibration scale d but do not add to it.

d <= x is c <= x (t - f) - h t, which is linear in both rates, so that over a box of rates its right side is
largest and smallest at corners. The lower limit is the alpha/2 quantile of the d that meld the draws
that make c small with the least favourable corner of [t_L, t_U] x [f_L, f_U], each pair of draws taken at one
probability; the upper limit likewise. Draws with t_L <= f_U carry nothing: there d is -1 below and 1 above.

**Two detectors, or references that are not the same, all independent.** The limits of either share are two
confidence distributions; the lower limit of the difference is the alpha/2 quantile of the lower draw of the
second share less the upper draw of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from poolproof.detectors.melding import NEVER, Rate, lower_draw, share_below, upper_draw
from poolproof.detectors.prevalence import check_count, check_level
from poolproof.errors import InputError

NODES: Final = 49
"""Trapezoid nodes for each error rate, equally spaced in normal scores."""

POINTS: Final = 1025
"""Points at which the distribution of a sum is tabulated."""

_STEPS: Final = 40  # of bisection: far below the accuracy of the table
_TINY: Final = 1e-9  # what is as good as the same share
_REACH: Final = 5.0  # normal scores; 6e-7 of the probability lies beyond


@dataclass(frozen=True)
class Group:
    """Items that are in both pools, in the second alone or in the first alone.

    Attributes:
        weight: the part of the second pool that they are, less the part of the first.
        rest: the part of them without a finding, in [0, 1].
        flagged: of these, those above the threshold.
        answered: of these, those that have a score.
    """

    weight: float | int
    rest: float | int
    flagged: int
    answered: int


@dataclass(frozen=True)
class Difference:
    """How much larger the second share is, with confidence limits.

    Attributes:
        point: the estimate, None where the rates carry none.
        lower: lower limit, in [-1, 1].
        upper: upper limit.
        p_value: of "the shares are equal", two-sided: twice the smaller of the one-sided ones; None where the
            limits are not found by inverting a test.
        level: confidence level of the limits.
        method: `shared-rates`, `independent` or `separate`.
    """

    point: float | None
    lower: float
    upper: float
    p_value: float | None
    level: float
    method: str


@dataclass(frozen=True)
class Counts:
    """What the share of one pool is told from.

    Attributes:
        hits: the part of the items with a finding, in [0, 1], as limits: equal where all items were audited.
        flagged: items without a finding above the threshold.
        answered: items without a finding that have a score.
        true_positives: flagged and counted synthetic references.
        false_positives: flagged and counted real references.
    """

    hits: tuple[float | int, float | int]
    flagged: int
    answered: int
    true_positives: tuple[int, int]
    false_positives: tuple[int, int]


def shared_difference(
    low: Sequence[Group],
    high: Sequence[Group],
    true_positives: tuple[int, int],
    false_positives: tuple[int, int],
    *,
    level: float = 0.95,
) -> Difference:
    """Return the difference of two shares that one detector tells with one pair of error rates.

    Without findings, and with pools that share no item, the p-value is that of Fisher's exact test on the flags,
    central (twice the smaller tail), but for the chance that the detector is of no use.

    Args:
        low: the groups for the lower limit.
        high: the groups for the upper limit; the same where the parts with a finding are known.
        true_positives: flagged and counted synthetic references.
        false_positives: flagged and counted real references.
        level: confidence level in (0, 1).

    Raises:
        InputError: a count or the level is out of range, or the weights do not add up to 0.

    Source: Fay, Proschan and Brittain, Biometrics 71 (2015) 146-156 (melding of two samples, and its tie to
        Fisher's test); Bayer, Fay and Graubard, arXiv 2205.13494 (several rates); the linear form is derived here.
    Assumes: groups are independent samples, and independent of the references; real and synthetic items of
        all groups score like the references; the threshold was not chosen on the references counted here.
    """
    alpha = 1.0 - check_level(level)
    check_count("true positives", *_named("synthetic", true_positives))
    check_count("false positives", *_named("real", false_positives))
    for groups in (low, high):
        if abs(sum(group.weight for group in groups)) > 1e-9:
            raise InputError(
                f"groups: got weights that add up to {sum(group.weight for group in groups):.3g}, allowed 0: "
                "give parts of the second pool less parts of the first"
            )
    boxes = _boxes(true_positives, false_positives)
    below = _shared(low, boxes, lower=True)
    above = _shared(high, boxes, lower=False)
    t, f = (x / n for x, n in (true_positives, false_positives))
    point = None
    if t > f:
        found = [(_hits(groups) * t + _flags(groups)) / (t - f) for groups in (low, high)]
        point = min(max(sum(found) / 2, -1.0), 1.0)
    return Difference(
        point,
        _quantile(below, alpha / 2),
        _quantile(above, 1 - alpha / 2),
        _p_value(below, above),
        level,
        "shared-rates",
    )


def independent_difference(first: Counts, second: Counts, *, level: float = 0.95) -> Difference:
    """Return the difference of two shares that were told from independent pools and references.

    Args:
        first: of the first pool.
        second: of the second.
        level: confidence level in (0, 1).

    Raises:
        InputError: the level is out of range.

    Source: Fay, Proschan and Brittain, Biometrics 71 (2015) 146-156; Bayer, Fay and Graubard, arXiv 2205.13494.
    Assumes: the two pools and the four references are independent samples; each share's own assumptions.
    """
    alpha = 1.0 - check_level(level)
    tables = {
        (name, lower): _share_table(counts, lower=lower)
        for name, counts in (("first", first), ("second", second))
        for lower in (True, False)
    }

    def below(x: float) -> float:
        return _convolve(tables["second", True], tables["first", False], x)

    def above(x: float) -> float:
        return _convolve(tables["second", False], tables["first", True], x)

    points = [_point(counts) for counts in (first, second)]
    return Difference(
        None if points[0] is None or points[1] is None else points[1] - points[0],
        _quantile(below, alpha / 2),
        _quantile(above, 1 - alpha / 2),
        _p_value(below, above),
        level,
        "independent",
    )


def flag_difference(groups: Sequence[Group], *, level: float = 0.95) -> Difference:
    """Return the difference of two rates of flagged items: counts alone, no error rates.

    Args:
        groups: as in `shared_difference`; `rest` is 1 where all items are meant.
        level: confidence level in (0, 1).

    Raises:
        InputError: the level is out of range.

    Source: Fay, Proschan and Brittain, Biometrics 71 (2015) 146-156.
    Assumes: groups are independent samples.
    """
    alpha = 1.0 - check_level(level)
    low, high = _sum_table(groups, lower=True), _sum_table(groups, lower=False)

    def below(x: float) -> float:
        return float(_at_or_below(low, np.asarray(x, np.float64)))

    def above(x: float) -> float:
        return float(_at_or_below(high, np.asarray(x, np.float64)))

    return Difference(
        _flags(groups),
        _quantile(below, alpha / 2),
        _quantile(above, 1 - alpha / 2),
        _p_value(below, above),
        level,
        "flags",
    )


@dataclass(frozen=True)
class _Table:
    """A distribution: values in rising order, and the probability of at most each."""

    values: Float64[np.ndarray, " n"]
    probability: Float64[np.ndarray, " n"]


def _named(name: str, counts: tuple[int, int]) -> tuple[int, str, int]:
    return counts[0], name, counts[1]


def _hits(groups: Sequence[Group]) -> float:
    return float(sum(group.weight * (1 - group.rest) for group in groups))


def _flags(groups: Sequence[Group]) -> float:
    """The estimate of c; a group without scores is left out."""
    return float(sum(g.weight * g.rest * g.flagged / g.answered for g in groups if g.answered))


def _boxes(
    true_positives: tuple[int, int], false_positives: tuple[int, int]
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, "m 2"], Float64[np.ndarray, "m 2"]]:
    """Weights of pairs of draws, and the two ends of t and of f in each."""
    from scipy.special import ndtr

    z = np.linspace(-_REACH, _REACH, NODES)
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()
    t, f = (
        np.stack([_draw(lower_draw(*counts), ndtr(z)), _draw(upper_draw(*counts), ndtr(z))], axis=1)
        for counts in (true_positives, false_positives)
    )
    i, j = (index.ravel() for index in np.indices((NODES, NODES)))
    return weight[i] * weight[j], t[i], f[j]


def _draw(rate: Rate, u: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The draws of a rate at probabilities u."""
    from scipy.special import betaincinv

    if rate.low == rate.high:
        return np.full(len(u), rate.low)
    return betaincinv(rate.a, rate.b, u)


def _shared(
    groups: Sequence[Group],
    boxes: tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, "m 2"], Float64[np.ndarray, "m 2"]],
    *,
    lower: bool,
) -> Callable[[float], float]:
    """The distribution function of the lower or the upper draw of the difference."""
    weight, t, f = boxes
    table, hits = _sum_table(groups, lower=lower), _hits(groups)
    useful = t[:, 0] > f[:, 1]
    useless = float(weight[~useful].sum()) if lower else 0.0
    weight, t, f = weight[useful], t[useful], f[useful]

    def below(x: float) -> float:
        corners = [x * (t[:, i] - f[:, j]) - hits * t[:, i] for i in (0, 1) for j in (0, 1)]
        limit = np.maximum.reduce(corners) if lower else np.minimum.reduce(corners)
        return float(weight @ _at_or_below(table, limit)) + useless

    return below


def _sum_table(groups: Sequence[Group], *, lower: bool) -> _Table:
    """The distribution of c, its rates drawn so that it is small, or large."""
    table = _Table(np.zeros(1), np.ones(1))
    for group in groups:
        factor = group.weight * group.rest
        if factor == 0:
            continue
        small = (factor > 0) == lower
        rate = (lower_draw if small else upper_draw)(group.flagged, group.answered)
        table = _add(table, factor, rate)
    return table


def _add(table: _Table, factor: float | int, rate: Rate) -> _Table:
    """The distribution of a tabulated variable plus a factor times a rate."""
    values = table.values
    ends = sorted((factor * rate.low, factor * rate.high))
    if rate.low == rate.high:
        return _Table(values + ends[0], table.probability)
    grid = np.linspace(values[0] + ends[0], values[-1] + ends[1], POINTS)
    if len(values) == 1:
        scaled = (grid - values[0]) / factor
        found = rate.below(scaled) if factor > 0 else rate.above(scaled)
    else:
        # midpoints of equal steps of normal scores carry the rate; the table is smooth between its points
        from scipy.special import ndtr

        z = np.linspace(-_REACH, _REACH, 4 * NODES)
        weight = np.exp(-z * z / 2)
        shift = factor * _draw(rate, ndtr(z))
        found = _at_or_below(table, grid[:, None] - shift) @ (weight / weight.sum())
    return _Table(grid, np.maximum.accumulate(found))


def _at_or_below(table: _Table, x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    values, probability = table.values, table.probability
    if len(values) == 1:
        return np.asarray(x >= values[0] - 1e-12, np.float64)
    return np.asarray(np.interp(x, values, probability, left=0.0, right=1.0))


def _share_table(counts: Counts, *, lower: bool) -> _Table:
    """The distribution of the lower or the upper draw of a share."""
    draw, other = (lower_draw, upper_draw) if lower else (upper_draw, lower_draw)
    q = draw(counts.flagged, counts.answered)
    f, t = other(*counts.false_positives), other(*counts.true_positives)
    useless = 1.0 - share_below(0.5, NEVER, f, t) if lower else 0.0

    def below(x: float) -> float:
        return share_below(x, q, f, t) + useless

    # the grid is finer where the distribution is steep
    ends = [_quantile(below, p, 0.0) for p in (1e-5, 1 - 1e-5)]
    start = min(max(ends[0], _TINY), 1 - 2 * _TINY)
    inner = np.linspace(start, max(min(ends[1], 1 - _TINY), start + _TINY), 193)
    found = np.array([below(float(x)) for x in inner])
    hits = counts.hits[0] if lower else counts.hits[1]
    at_zero, values = below(0.0), hits + (1 - hits) * np.r_[0.0, inner, 1.0]
    return _Table(values, np.maximum.accumulate(np.r_[at_zero, found, 1.0]))


def _convolve(plus: _Table, minus: _Table, x: float) -> float:
    """P(plus - minus <= x), both independent."""
    values, probability = minus.values, minus.probability
    mass = np.diff(probability, prepend=0.0)
    middle = np.r_[values[0], (values[1:] + values[:-1]) / 2]
    # what lies at the very ends, where shares are cut off, is no density
    middle[-1] = values[-1]
    return float(_at_or_below(plus, x + middle + _TINY) @ mass)


def _point(counts: Counts) -> float | None:
    (t, n_t), (f, n_f) = counts.true_positives, counts.false_positives
    if t * n_f <= f * n_t or counts.answered == 0:
        return None
    rest = (counts.flagged / counts.answered - f / n_f) / (t / n_t - f / n_f)
    hits = sum(counts.hits) / 2
    return hits + (1 - hits) * min(max(rest, 0.0), 1.0)


def _quantile(below: Callable[[float], float], probability: float, lowest: float = -1.0) -> float:
    """Where a rising function crosses a probability between the lowest value and 1, or the end it does not reach."""
    low, high = lowest, 1.0
    if below(low) >= probability:
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if below(middle) >= probability else (middle, high)
    return 0.0 if abs(high) < _TINY else high  # no change is no change, whatever rounding makes of it


def _p_value(below: Callable[[float], float], above: Callable[[float], float]) -> float:
    """Of no difference: twice the smaller of what the draws leave on the wrong side of 0."""
    return min(1.0, 2 * min(below(0.0), 1.0 - above(-_TINY)))
