"""The share of a pool, from the counts of its items and of its references, and what forbids to tell it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from poolproof.audit.calibration import Calibration
from poolproof.audit.checks import Checks
from poolproof.audit.items import Tally
from poolproof.audit.scored_pool import ShareLimits, Standing
from poolproof.detectors.prevalence import (
    Interval,
    interval,
    lower_bound,
    split_level,
    with_floor,
    with_sampled_floor,
)
from poolproof.detectors.soft import soft_interval


@dataclass(frozen=True)
class Share:
    """The share of a pool that is synthetic, never without its interval.

    Attributes:
        interval: over the scored items. The point is None where it cannot be told.
        method: `melded+floor`, `hull+floor`, `lower-bound+floor` or `floor`.
        assumes: what the figure rests on, in sentences.
        why: why the point is withheld.
        estimates: the same share by every method that the counts allow, whatever forbids it as the answer.
    """

    interval: Interval
    method: str
    assumes: tuple[str, ...]
    why: str | None
    estimates: tuple[Interval, ...] = ()


@dataclass(frozen=True)
class _Rest:
    """The share among the items without a finding.

    Attributes:
        interval: with its limits.
        method: how it was found.
        why: why there is no point.
        assumes: what it rests on.
    """

    interval: Interval
    method: str
    why: str | None
    assumes: str | None = None


def estimate_share(
    tally: Tally,
    calibration: Calibration | None,
    why: str | None,
    *,
    sample: int | None,
    level: float,
    checks: Checks | None = None,
) -> Share | None:
    """The share among the scored items; None where not one was scored.

    Items with a signed, declared or marked finding count as synthetic. The share among the rest comes from
    the detector's flags, corrected by its error rates; without references it may be anything. Where a check
    says that the rates do not hold for this pool, the point is withheld and what remains valid is given: the
    lower bound where the synthetic side is in doubt, the floor alone where the real side is.

    Args:
        tally: counts over the audited items.
        calibration: the detector's error rates, None without usable references.
        why: why there is no calibration.
        sample: number of items drawn, None for a full audit; a draw has an error of its own.
        level: confidence level of the interval.
        checks: what was checked before the share.
    """
    n, hits = tally.scored, tally.hits
    if n == 0:
        return None
    rest = n - hits
    assumes = [
        "Findings of the signed, declared and marked tiers are true.",
        "The share is over readable, distinct images: byte-identical copies count once.",
    ]
    if sample is not None:
        assumes.append(
            "The audited items are a uniform random sample of the pool; its error is in the interval."
        )
    at = rest_level(level, sample)
    found = _estimate_rest(tally, rest, calibration, why, at, checks or Checks())
    if found.assumes is not None:
        assumes.append(found.assumes)
        if tally.answered_rest < rest:
            assumes.append("Images that the detector has no score for are as often synthetic as the others.")

    def whole(part: Interval) -> Interval:
        if sample is not None:
            return with_sampled_floor(hits, n, part, level=level)
        return with_floor(hits, part, rest)

    estimates = () if rest == 0 else _estimate_all(tally, calibration, at, checks or Checks())
    return Share(
        whole(found.interval),
        found.method,
        tuple(assumes),
        found.why,
        tuple(replace(whole(part), method=part.method) for part in estimates),
    )


def rest_level(level: float, sample: int | None) -> float:
    """The level at which the share among the items without a finding is asked for.

    Under a sampled floor the error is split over two limits, the floor's and the rest's.

    Args:
        level: of the share of the whole.
        sample: number of items drawn, None for a full audit.
    """
    return level if sample is None else split_level(level)


def take_standing(
    tally: Tally, calibration: Calibration | None, why: str | None, *, level: float, checks: Checks
) -> Standing | None:
    """What decisions on a pool that was audited in full may rest on; None where not one item was scored.

    The share is at a level that leaves half of the error to what a decision adds.

    Args:
        tally: counts over the items.
        calibration: the detector's error rates, None without usable references.
        why: why there is no calibration.
        level: confidence level of the decision's statements.
        checks: what was checked before the share.
    """
    share = estimate_share(tally, calibration, why, sample=None, level=split_level(level), checks=checks)
    if share is None:
        return None
    limits = ShareLimits.of(share.interval)
    if calibration is None:
        nothing = np.zeros(0)
        return Standing(limits, level, None, nothing, nothing, why, why)
    real_doubt = _forbidden_rates(checks)
    if real_doubt is None and checks.confounded:
        real_doubt = "files alone tell the references apart, so scores may be of files and not of pictures"
    absent = None if calibration.true_positives is not None else "no synthetic reference was given"
    return Standing(
        limits,
        level,
        float(calibration.detector.threshold),
        calibration.real_scores,
        np.zeros(0) if calibration.synthetic_scores is None else calibration.synthetic_scores,
        real_doubt,
        real_doubt or absent or _synthetic_doubt(checks),
    )


def _estimate_rest(
    tally: Tally, rest: int, calibration: Calibration | None, absent: str | None, level: float, checks: Checks
) -> _Rest:
    """The share among the items without a finding, as far as the checks allow."""
    nothing = Interval(None, 0.0, 1.0, level, "none")
    if rest == 0:
        return _Rest(replace(nothing, method="empty"), "floor", None)
    if calibration is None:
        return _Rest(nothing, "floor", absent)
    if tally.answered_rest == 0:
        return _Rest(nothing, "floor", "the detector has no score for any image without a finding")
    forbidden = _forbidden_rates(checks)
    if forbidden is not None:
        return _Rest(nothing, "floor", forbidden)
    if calibration.true_positives is None:
        return _Rest(
            _lower(tally, calibration, level),
            "lower-bound+floor",
            "real references alone allow a lower bound: how many synthetic images look real is unknown",
            "Real images of the pool resemble the real reference.",
        )
    both = "Real images of the pool resemble the real reference, synthetic ones the synthetic reference."
    melded = _melded(tally, calibration, level)
    matched = checks.matched.share if checks.matched is not None else None
    doubt = _synthetic_doubt(checks)
    if checks.confounded and matched is not None:
        return _hull(melded, matched, _lower(tally, calibration, level), doubt, both)
    if doubt is not None:
        assumed = "Real images of the pool resemble the real reference."
        return _Rest(_lower(tally, calibration, level), "lower-bound+floor", doubt, assumed)
    why = None
    if melded.point is None:
        why = "the detector flags real references as often as synthetic ones"
    return _Rest(melded, "melded+floor", why, both)


def _hull(melded: Interval, matched: Interval, bound: Interval, doubt: str | None, assumes: str) -> _Rest:
    """Limits that hold the share before and after files were made alike; the point only where both agree.

    Where files tell the references apart not even the false alarms are those of pictures, so no limit that
    rests on them alone is told, and an estimate on matched files that leaves everything open confirms nothing.
    """
    lower, upper = min(melded.lower, matched.lower), max(melded.upper, matched.upper)
    point, why = melded.point, None
    if doubt is not None:
        lower, upper, point, why = min(bound.lower, matched.lower), 1.0, None, doubt
    elif not _overlap(melded, matched):
        point, why = (
            None,
            "the share changes when size and codec are made alike; the limits hold both estimates",
        )
    elif point is None or matched.point is None:
        point, why = None, "with size and codec made alike the detector cannot tell the references apart"
    if why is not None:
        why = f"files alone tell the references apart, and {why}"
    return _Rest(Interval(point, lower, upper, melded.level, "hull"), "hull+floor", why, assumes)


def _forbidden_rates(checks: Checks) -> str | None:
    """Why not even the false alarms on the real reference say anything of this pool; None where they do."""
    for role in ("real", "pool"):
        if checks.incomparable(role) and checks.preflight is not None:
            words = " ".join(checks.preflight.comparability.words)
            return f"the references cannot be compared with this pool: {words}"
    if checks.confounded and (checks.matched is None or checks.matched.share is None):
        return (
            "files alone tell the references apart, so the detector may have learnt files and not pictures; "
            "give references of one format and size, or let the audit match them (--match auto)"
        )
    return None


def _synthetic_doubt(checks: Checks) -> str | None:
    """Why the synthetic reference does not stand for the pool's synthetic images; None where it may."""
    if checks.incomparable("synthetic") and checks.preflight is not None:
        words = " ".join(checks.preflight.comparability.words)
        return f"the synthetic reference cannot be compared with this pool: {words}"
    if checks.alarm is not None and checks.alarm.fit.fires:
        return f"{checks.alarm.words}; an unknown generator or another kind of real images does that"
    return None


def _estimate_all(
    tally: Tally, calibration: Calibration | None, level: float, checks: Checks
) -> tuple[Interval, ...]:
    """The share among the items without a finding by every method that the counts allow."""
    if calibration is None or tally.answered_rest == 0:
        return ()
    found = []
    if calibration.true_positives is not None:
        found.append(_melded(tally, calibration, level))
        counts = (*calibration.true_positives, *calibration.false_positives)
        found.append(
            interval(tally.flagged_rest, tally.answered_rest, *counts, level=level, method="lang-reiczigel")
        )
    soft = calibration.soft()
    if soft is not None and tally.soft.n > 1:  # a single item has no variance
        found.append(soft_interval(tally.soft, *soft, level=level))
    found.append(_lower(tally, calibration, level))
    if checks.matched is not None and checks.matched.share is not None:
        found.append(replace(checks.matched.share, method="matched"))
    return tuple(found)


def _melded(tally: Tally, calibration: Calibration, level: float) -> Interval:
    assert calibration.true_positives is not None
    counts = (*calibration.true_positives, *calibration.false_positives)
    return interval(tally.flagged_rest, tally.answered_rest, *counts, level=level)


def _lower(tally: Tally, calibration: Calibration, level: float) -> Interval:
    return lower_bound(tally.flagged_rest, tally.answered_rest, *calibration.false_positives, level=level)


def _overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals have a share in common."""
    return a.lower <= b.upper and b.lower <= a.upper
