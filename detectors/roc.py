"""What a detector's scores can tell apart: curve, area, thresholds of a stated error, and limits for each.

An item is flagged where its score lies above the threshold, not on it. Scores may tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from poolproof.detectors.prevalence import Interval, check_level
from poolproof.errors import InputError


@dataclass(frozen=True)
class Roc:
    """The steps of an empirical curve, from nothing flagged to everything flagged.

    Attributes:
        thresholds: the distinct scores in falling order, and minus infinity at the end.
        false_positives: real items above each threshold.
        true_positives: synthetic items above each threshold.
        n_real: real items.
        n_synthetic: synthetic items.
    """

    thresholds: Float64[np.ndarray, " t"]
    false_positives: Int64[np.ndarray, " t"]
    true_positives: Int64[np.ndarray, " t"]
    n_real: int
    n_synthetic: int

    @property
    def fpr(self) -> Float64[np.ndarray, " t"]:
        """Share of the real items above each threshold, rising from 0 to 1."""
        return self.false_positives / self.n_real

    @property
    def tpr(self) -> Float64[np.ndarray, " t"]:
        """Share of the synthetic items above each threshold, rising from 0 to 1."""
        return self.true_positives / self.n_synthetic


@dataclass(frozen=True)
class RocBand:
    """Limits of the true curve, each at its own false positive rate.

    Attributes:
        fpr: false positive rates.
        lower: lower limits of the true positive rate.
        upper: upper limits.
        level: confidence level of each pair, not of all together.
    """

    fpr: Float64[np.ndarray, " p"]
    lower: Float64[np.ndarray, " p"]
    upper: Float64[np.ndarray, " p"]
    level: float


@dataclass(frozen=True)
class OperatingPoint:
    """The true positive rate where a given share of real items is flagged.

    Attributes:
        fpr: share of real items that may be flagged.
        tpr: true positive rate there. The point is None where the real references cannot show that rate.
        threshold: the empirical one that the point belongs to; None with the point.
        why: why the point is withheld.
    """

    fpr: float
    tpr: Interval
    threshold: float | None
    why: str | None


@dataclass(frozen=True)
class GuaranteedThreshold:
    """A threshold whose true false positive rate is bounded with confidence.

    Attributes:
        threshold: flag what scores above; None where the real references are too few.
        fpr: the bound.
        level: probability, over draws of references, that the bound holds.
        needed: real references from which such a threshold exists.
        why: why there is none.
    """

    threshold: float | None
    fpr: float
    level: float
    needed: int
    why: str | None


def roc_curve(real_scores: Float[np.ndarray, " r"], synthetic_scores: Float[np.ndarray, " s"]) -> Roc:
    """Return every step of the curve; tied scores are one step.

    Args:
        real_scores: scores of real items, larger = more synthetic.
        synthetic_scores: scores of synthetic items.

    Raises:
        InputError: a class is empty or a score is not finite.
    """
    real, synthetic = _check_scores(real_scores, synthetic_scores)
    distinct = np.unique(np.concatenate([real, synthetic]))[::-1]
    above_real = len(real) - np.searchsorted(np.sort(real), distinct, "right")
    above_synthetic = len(synthetic) - np.searchsorted(np.sort(synthetic), distinct, "right")
    return Roc(
        np.append(distinct, -np.inf),
        np.append(above_real, len(real)).astype(np.int64),
        np.append(above_synthetic, len(synthetic)).astype(np.int64),
        len(real),
        len(synthetic),
    )


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
        InputError: a class is empty, a score is not finite, or the level is out of range.

    Source: Hanley and McNeil, Radiology 143 (1982) 29-36; Newcombe, Stat. Med. 25 (2006) 559-573, method 5.
    Assumes: independent items; scores that are roughly exponential where the variance is concerned.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    _check_scores(real_scores, synthetic_scores)
    m, n = len(real_scores), len(synthetic_scores)
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


def roc_band(
    real_scores: Float[np.ndarray, " r"],
    synthetic_scores: Float[np.ndarray, " s"],
    fpr: Float[np.ndarray, " p"],
    *,
    level: float = 0.95,
) -> RocBand:
    """Return limits of the true positive rate at each false positive rate, valid in samples of any size.

    At rate f the threshold is the 1 - f quantile of real scores. Two order statistics hold it, each with an
    error of a quarter of 1 - level; the synthetic items above the higher one give a Clopper-Pearson lower
    limit, those above the lower one an upper limit, with the other two quarters. The curve is monotone, so
    by Bonferroni's inequality each pair of limits holds with at least `level`. No law of scores is assumed.

    Args:
        real_scores: scores of real items.
        synthetic_scores: scores of synthetic items.
        fpr: rates in (0, 1).
        level: confidence level in (0, 1) of each pair.

    Raises:
        InputError: a class is empty, a score is not finite, or a rate or the level is out of range.

    Source: order statistics as limits of a quantile (David and Nagaraja, Order Statistics, 3rd ed., 7.1);
        Clopper and Pearson, Biometrika 26 (1934) 404-413.
    Assumes: independent items, real ones of one law and synthetic ones of one law; scores that were not
        learnt from these items.
    """
    from scipy.special import betaincinv
    from scipy.stats import binom

    real, synthetic = _check_scores(real_scores, synthetic_scores)
    rates = np.asarray(fpr, np.float64)
    if len(rates) and not (rates.min() > 0 and rates.max() < 1):
        raise InputError(
            f"fpr: got {rates.min()} to {rates.max()}, allowed above 0 and below 1: 0.01 is usual"
        )
    part = (1 - check_level(level)) / 4
    n, m = len(real), len(synthetic)
    # The quantile is below the rank-th score with at most `part`, and above the other one with at most `part`.
    low = binom.ppf(part, n, 1 - rates).astype(np.int64)
    high = binom.isf(part, n, 1 - rates).astype(np.int64) + 1
    ends = np.concatenate([[-np.inf], np.sort(real), [np.inf]])
    ordered = np.sort(synthetic)
    surely = m - np.searchsorted(ordered, ends[np.minimum(high, n + 1)], "right")
    perhaps = m - np.searchsorted(ordered, ends[np.maximum(low, 0)], "right")
    lower = np.where(surely == 0, 0.0, betaincinv(np.maximum(surely, 1), m - surely + 1, part))
    upper = np.where(perhaps == m, 1.0, betaincinv(perhaps + 1, np.maximum(m - perhaps, 1), 1 - part))
    return RocBand(rates, lower, upper, level)


def tpr_at_fpr(
    real_scores: Float[np.ndarray, " r"],
    synthetic_scores: Float[np.ndarray, " s"],
    fpr: float = 0.01,
    *,
    level: float = 0.95,
) -> OperatingPoint:
    """Return the true positive rate where the share `fpr` of real items is flagged, with valid limits.

    The limits are those of `roc_band`: they hold the error of the threshold, which is itself an estimate from
    the real scores, and that of the rate. The point takes the smallest threshold that flags no more than
    the share `fpr` of the real references; below 1/fpr of them there is none to tell such a rate by.

    Args:
        real_scores: scores of real items.
        synthetic_scores: scores of synthetic items.
        fpr: share of real items that may be flagged, in (0, 1).
        level: confidence level in (0, 1).

    Raises:
        InputError: as `roc_band`.

    Source: as `roc_band`.
    Assumes: as `roc_band`.
    """
    band = roc_band(real_scores, synthetic_scores, np.array([fpr]), level=level)
    limits = float(band.lower[0]), float(band.upper[0])
    n, needed = len(real_scores), math.ceil(1 / fpr - 1e-9)
    if n < needed:
        why = f"{n} real references cannot show a false positive rate of {fpr:g}: {needed} or more can"
        return OperatingPoint(fpr, Interval(None, *limits, level, "order-statistics"), None, why)
    allowed = math.floor(fpr * n + 1e-9)
    threshold = float(np.sort(real_scores)[n - allowed - 1])
    point = float(np.mean(np.asarray(synthetic_scores, np.float64) > threshold))
    return OperatingPoint(fpr, Interval(point, *limits, level, "order-statistics"), threshold, None)


def threshold_for_fpr(
    real_scores: Float[np.ndarray, " n"], fpr: float, *, level: float = 0.95
) -> GuaranteedThreshold:
    """Return the smallest real score whose true false positive rate is at most `fpr` with `level` or more.

    Above the j-th smallest of n real scores lies a share of real items that is Beta(n - j + 1, j), or less with
    ties. The smallest j is taken for which this law puts `level` or more below `fpr`.

    Args:
        real_scores: scores of real references.
        fpr: the bound, in (0, 1).
        level: probability that the bound holds, in (0, 1).

    Raises:
        InputError: there is no score, one is not finite, or the bound or level is out of range.

    Source: tolerance limits of Wilks, Ann. Math. Stat. 12 (1941) 91-96; Wald, Ann. Math. Stat. 14 (1943) 45-55.
    Assumes: the references are independent draws of the real items that will be scored, and the scores were
        not learnt from them. References that are counted afterwards must be others than these.
    """
    from scipy.special import bdtr

    scores = check_scores("real_scores", real_scores)
    check_rate("fpr", fpr)
    error, n = 1 - check_level(level), len(scores)
    needed = math.ceil(math.log(error) / math.log1p(-fpr) - 1e-9)
    if n < needed:
        why = f"{n} real references carry no threshold of {fpr:g} at level {level:g}: {needed} or more do"
        return GuaranteedThreshold(None, fpr, level, needed, why)
    # k real scores above: allowed where a true rate of `fpr` would rarely leave so few.
    counts = np.arange(n, dtype=np.float64)
    k = int(np.flatnonzero(bdtr(counts, n, fpr) <= error * (1 + 1e-12))[-1])
    return GuaranteedThreshold(float(np.sort(scores)[n - k - 1]), fpr, level, needed, None)


def check_scores(name: str, scores: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return the scores in double precision; raise InputError unless there are some and all are finite."""
    if len(scores) == 0:
        raise InputError(f"{name}: got no scores, allowed 1 or more: give references")
    if not np.isfinite(scores).all():
        raise InputError(f"{name}: got NaN or infinity, allowed finite scores: leave abstentions out")
    return np.asarray(scores, np.float64)


def check_rate(name: str, rate: float) -> float:
    """Return the rate; raise InputError unless it is inside (0, 1)."""
    if not 0.0 < rate < 1.0:
        raise InputError(f"{name}: got {rate}, allowed above 0 and below 1: 0.01 is usual")
    return rate


def _check_scores(
    real: Float[np.ndarray, " r"], synthetic: Float[np.ndarray, " s"]
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " s"]]:
    """Return both classes' scores in double precision; raise InputError where they cannot be used."""
    m, n = len(real), len(synthetic)
    if m == 0 or n == 0:
        raise InputError(f"scores: got {m} real and {n} synthetic, allowed 1 or more each: give references")
    return check_scores("real_scores", real), check_scores("synthetic_scores", synthetic)
