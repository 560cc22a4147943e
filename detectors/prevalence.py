"""The share of synthetic items in a pool from counts of flagged items, detector errors included.

Every estimate rests on three binomial rates: `q`, the flagged share of the pool; `t`, the share of synthetic
references that are flagged (true positives); `f`, the share of real references that are flagged (false
positives). They are tied by `q = share * t + (1 - share) * f`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Final, Literal

from poolproof.detectors.melding import CERTAIN, lower_draw, lower_limit, upper_draw, upper_limit
from poolproof.errors import InputError

Method = Literal["melded", "melded-mid", "lang-reiczigel", "rogan-gladen"]

MID: Final = 0.75
"""How much of the chance of a reference count itself `melded-mid` counts against its limits: between
Clopper-Pearson's 1, which is wider than it need be, and Jeffreys' 0.5, which can cover too rarely."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits.

    Attributes:
        point: the estimate, or None where the data carry limits but no single figure.
        lower: lower confidence limit.
        upper: upper confidence limit.
        level: confidence level in (0, 1) of the pair, or of the one limit that is not a bound of the range.
        method: how the limits were found.
    """

    point: float | None
    lower: float
    upper: float
    level: float
    method: str


@dataclass(frozen=True)
class CountInterval:
    """An estimated number of items with its confidence limits.

    Attributes:
        point: the estimate, or None where there is none of the share.
        lower: lower confidence limit, a whole number.
        upper: upper confidence limit, a whole number.
        n: items that the share is of.
        level: confidence level of the pair.
        method: how the limits of the share were found.
    """

    point: float | None
    lower: int
    upper: int
    n: int
    level: float
    method: str


def clopper_pearson(x: int, n: int, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion; it covers with at least `level`.

    Args:
        x: successes, 0 to n.
        n: trials, at least 1.
        level: confidence level in (0, 1).

    Raises:
        InputError: a count or the level is out of range.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413.
    Assumes: independent trials with one common probability.
    """
    from scipy.special import betaincinv

    check_count("x", x, "n", n)
    alpha = 1.0 - check_level(level)
    lower = 0.0 if x == 0 else float(betaincinv(x, n - x + 1, alpha / 2))
    upper = 1.0 if x == n else float(betaincinv(x + 1, n - x, 1 - alpha / 2))
    return Interval(x / n, lower, upper, level, "clopper-pearson")


def interval(
    flagged: int,
    pool: int,
    true_positives: int,
    synthetic: int,
    false_positives: int,
    real: int,
    *,
    level: float = 0.95,
    method: Method = "melded",
) -> Interval:
    """Return the share of synthetic items in a pool with limits that include the detector's errors.

    The point is (q - f)/(t - f), clipped to [0, 1]. It is None where the references do not show t > f: such a
    detector says nothing, and `melded` then gives limits that are wide but still valid.

    `melded` holds its level in small samples; it is the default. `melded-mid` puts less weight on the
    reference counts themselves: some 4 % narrower at 100 references, its coverage nearer to the level; that it
    keeps it is computed on a grid (`docs/results/coverage.md`), not owed to its construction.
    `lang-reiczigel` is a closed form of about the same width. `rogan-gladen` is the plain delta method and
    covers too rarely below some hundred references; it is here to compare with.

    Args:
        flagged: items of the pool above the detector's threshold.
        pool: items of the pool that were scored, at least 1.
        true_positives: synthetic references above the threshold.
        synthetic: synthetic references, at least 1.
        false_positives: real references above the threshold.
        real: real references, at least 1.
        level: confidence level in (0, 1).
        method: "melded", "melded-mid", "lang-reiczigel" or "rogan-gladen".

    Raises:
        InputError: a count is negative or larger than its sample, a sample is empty, the level is outside
            (0, 1), or the method is unknown.

    Source: Bayer, Fay and Graubard, arXiv 2205.13494 (melded); Brown, Cai and DasGupta, Statist. Sci. 16
        (2001) 101-133, section 4.1 (mid-p and Jeffreys' law); Lang and Reiczigel, Prev. Vet. Med. 113 (2014)
        13-22, eq. 6, 7, 16, 17; Rogan and Gladen, Am. J. Epidemiol. 107 (1978) 71-76.
    Assumes: the three samples are independent; the synthetic references stand for the pool's synthetic items
        and the real ones for its real items (no unseen generator, no shift); the threshold was not chosen
        on the references that are counted here. Taking the pool as a binomial sample is conservative for
        the share of that very pool.
    """
    check_count("flagged", flagged, "pool", pool)
    check_count("true_positives", true_positives, "synthetic", synthetic)
    check_count("false_positives", false_positives, "real", real)
    alpha = 1.0 - check_level(level)
    q, t, f = flagged / pool, true_positives / synthetic, false_positives / real
    # Compared as integers, so that equal rates are equal.
    useful = true_positives * real > false_positives * synthetic
    point = _clip((q - f) / (t - f)) if useful else None
    lower, upper = 0.0, 1.0
    if method in ("melded", "melded-mid"):
        part = MID if method == "melded-mid" else 1.0
        lower = lower_limit(
            lower_draw(flagged, pool),
            upper_draw(false_positives, real, part=part),
            upper_draw(true_positives, synthetic, part=part),
            alpha / 2,
        )
        upper = upper_limit(
            upper_draw(flagged, pool),
            lower_draw(false_positives, real, part=part),
            lower_draw(true_positives, synthetic, part=part),
            1 - alpha / 2,
        )
    elif method == "lang-reiczigel":
        if useful:
            lower, upper = _lang_reiczigel(q, pool, t, synthetic, f, real, alpha)
    elif method == "rogan-gladen":
        if useful:
            lower, upper = _wald(q, pool, t, synthetic, f, real, alpha)
    else:
        allowed = "melded, melded-mid, lang-reiczigel or rogan-gladen"
        raise InputError(f"method: got {method!r}, allowed {allowed}: use method='melded'")
    return Interval(point, lower, upper, level, method)


def _lang_reiczigel(
    q: float, pool: int, t: float, synthetic: int, f: float, real: int, alpha: float
) -> tuple[float, float]:
    """Return limits after z^2 pseudo-items join the pool and 2 each reference set, with the paper's shift."""
    from scipy.special import ndtri

    z = float(ndtri(1 - alpha / 2))
    n_q, n_t, n_f = pool + z * z, synthetic + 2, real + 2
    q, t, f = (pool * q + z * z / 2) / n_q, (synthetic * t + 1) / n_t, (real * f + 1) / n_f
    if t <= f:
        return 0.0, 1.0
    share = (q - f) / (t - f)
    shift = 2 * z * z * (share * t * (1 - t) / n_t - (1 - share) * f * (1 - f) / n_f)
    half = z * _standard_error(share, q, n_q, t, n_t, f, n_f)
    return _clip(share + shift - half), _clip(share + shift + half)


def _wald(
    q: float, pool: int, t: float, synthetic: int, f: float, real: int, alpha: float
) -> tuple[float, float]:
    """Return the share plus and minus z standard errors of the delta method."""
    from scipy.special import ndtri

    share = (q - f) / (t - f)
    half = float(ndtri(1 - alpha / 2)) * _standard_error(share, q, pool, t, synthetic, f, real)
    return _clip(share - half), _clip(share + half)


def _standard_error(
    share: float, q: float, n_q: float | int, t: float, n_t: int, f: float, n_f: int
) -> float:
    """Return the delta-method standard error of (q - f)/(t - f) for three independent proportions."""
    variance = q * (1 - q) / n_q + share**2 * t * (1 - t) / n_t + (1 - share) ** 2 * f * (1 - f) / n_f
    return math.sqrt(variance) / (t - f)


def lower_bound(flagged: int, pool: int, false_positives: int, real: int, *, level: float = 0.95) -> Interval:
    """Return a one-sided lower limit of the share, for any generator and without synthetic references.

    Whatever the generator, t <= 1, so the share is at least (q - f)/(1 - f). The limit is the `1 - level`
    quantile of (q_L - f_U)/(1 - f_U), taken as 0 where q_L <= f_U, over the lower confidence distribution of
    q and the upper one of f. It is never below the same expression with one-sided Clopper-Pearson limits put
    in for q_L and f_U, each at half the error: both draws lie on the good side of those limits with
    probability (1 - alpha/2)^2, which is more than 1 - alpha.

    Args:
        flagged: items of the pool above the threshold.
        pool: items of the pool that were scored, at least 1.
        false_positives: real references above the threshold, counted on others than those it was set on.
        real: those real references, at least 1.
        level: confidence level in (0, 1) of the one-sided limit.

    Returns:
        An interval with no point, the limit as `lower`, and `upper` = 1.

    Raises:
        InputError: a count or the level is out of range.

    Source: the melding of Bayer, Fay and Graubard, arXiv 2205.13494, with sensitivity set to 1.
    Assumes: the real references stand for the pool's real items, independent samples. Nothing of generators.
    """
    check_count("flagged", flagged, "pool", pool)
    check_count("false_positives", false_positives, "real", real)
    alpha = 1.0 - check_level(level)
    lower = lower_limit(lower_draw(flagged, pool), upper_draw(false_positives, real), CERTAIN, alpha)
    return Interval(None, lower, 1.0, level, "melded-lower")


def with_floor(hits: int, rest: Interval | None, rest_size: int) -> Interval:
    """Return the share of a whole pool with `hits` items known to be synthetic and the rest estimated.

    The share is (hits + rest_size * r)/(hits + rest_size), r the share in the rest, so the limits of r carry
    over and keep their level.

    Args:
        hits: items known to be synthetic (signed, declared, marked), at least 0.
        rest: share of synthetic items among the others, or None where it cannot be told; the limits are then
            certain and their level is 1.
        rest_size: number of the others, at least 0.

    Raises:
        InputError: a count is negative or both are 0.

    Assumes: every hit is synthetic; `rest` was estimated for the items that are no hits, with synthetic
        references that are no hits either. For a sample of a pool use `with_sampled_floor`.
    """
    check_count("hits", hits, "hits + rest_size", hits + operator.index(rest_size))
    check_count("rest_size", rest_size, "hits + rest_size", hits + rest_size)
    size = hits + rest_size
    r = rest or Interval(None, 0.0, 1.0, 1.0, "none")
    point = 1.0 if rest_size == 0 else None if r.point is None else (hits + rest_size * r.point) / size
    lower, upper = (hits + rest_size * r.lower) / size, (hits + rest_size * r.upper) / size
    return Interval(point, lower, upper, r.level, f"floor+{r.method}")


def with_sampled_floor(hits: int, sample: int, rest: Interval | None, *, level: float = 0.95) -> Interval:
    """Return the share of a pool from a uniform sample of it, with `hits` of the sample known synthetic.

    With h the pool's share of hits and r the synthetic share among its other items, the share is
    h + (1 - h) r, which grows with h and with r. Half of the error goes to a Clopper-Pearson interval of h,
    half to `rest`. Both hold together with at least `level`, and then the share lies between its values at
    the two lower and at the two upper limits.

    Args:
        hits: sampled items known to be synthetic, 0 to sample.
        sample: items drawn uniformly from the pool, at least 1.
        rest: share of synthetic items among those that are no hits, found at `split_level(level)` or more
            from the sample's other items; None where it cannot be told.
        level: confidence level in (0, 1) of the result.

    Raises:
        InputError: a count or the level is out of range, or the level of `rest` is too low.

    Source: Bonferroni's inequality.
    Assumes: as `with_floor`, and that the sample is uniform over the pool's items.
    """
    half = split_level(level)
    h = clopper_pearson(hits, sample, level=half)
    # A sample of hits alone says nothing of the pool's other items.
    r = rest if rest and hits < sample else Interval(None, 0.0, 1.0, 1.0, "none")
    if r.level < half - 1e-12:
        raise InputError(f"rest.level: got {r.level}, allowed {half} or more: use split_level(level) for it")
    share = hits / sample
    point = 1.0 if hits == sample else None if r.point is None else share + (1 - share) * r.point
    lower = h.lower + (1 - h.lower) * r.lower
    upper = h.upper + (1 - h.upper) * r.upper
    return Interval(point, lower, upper, level, f"sampled-floor+{r.method}")


def split_level(level: float) -> float:
    """Return the level two intervals need to hold together with at least `level`: half of the error each."""
    return 1.0 - (1.0 - check_level(level)) / 2


def count_of(share: Interval, n: int) -> CountInterval:
    """Return how many of n items are synthetic: the share times n, limits rounded outwards.

    The level of the share carries over. For the pool that was scored, n is its size. For a larger pool of
    which the scored items are a uniform sample, n is the larger size and nothing needs to be added: the
    share's limits from `interval` hold the error of drawing already (the binomial error of q).

    >>> count_of(Interval(0.25, 0.2, 0.31, 0.95, "melded"), 1000)
    CountInterval(point=250.0, lower=200, upper=310, n=1000, level=0.95, method='melded')

    Args:
        share: share of synthetic items, with limits in [0, 1].
        n: items, at least 0.

    Raises:
        InputError: n is no whole number or is negative, or a limit lies outside [0, 1].
    """
    try:
        operator.index(n)
    except TypeError:
        raise InputError(f"n: got {n!r}, allowed a whole number: give a count of items") from None
    if n < 0:
        raise InputError(f"n: got {n}, allowed 0 or more: give a count of items")
    if not 0 <= share.lower <= share.upper <= 1:
        raise InputError(f"share: got {share.lower} to {share.upper}, allowed within 0 to 1: give a share")
    # What rounding in double precision alone has moved off a whole number stays on it.
    lower, upper = math.floor(n * share.lower + 1e-6), math.ceil(n * share.upper - 1e-6)
    point = None if share.point is None else n * share.point
    return CountInterval(point, lower, upper, n, share.level, share.method)


def check_count(name: str, x: int, total_name: str, total: int) -> None:
    """Raise InputError unless 0 <= x <= total and total >= 1, both whole numbers."""
    for label, value in ((name, x), (total_name, total)):
        try:
            operator.index(value)
        except TypeError:
            raise InputError(
                f"{label}: got {value!r}, allowed a whole number: give counts, not rates"
            ) from None
    if total < 1:
        raise InputError(f"{total_name}: got {total}, allowed 1 or more: give at least one item")
    if not 0 <= x <= total:
        raise InputError(f"{name}: got {x}, allowed 0 to {total} ({total_name}): count the items again")


def check_level(level: float) -> float:
    """Return the confidence level; raise InputError unless it is inside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise InputError(f"level: got {level}, allowed above 0 and below 1: 0.95 is usual")
    return level


def _clip(share: float) -> float:
    """Return the share forced into [0, 1]."""
    return min(max(share, 0.0), 1.0)
