"""The share of a pool, from the counts of its items and of its references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.audit.items import N_BINS, Detector, Tally
from poolproof.audit.references import Reference
from poolproof.detectors.calibrate import CrossFit, RealOnly, cross_fit, real_only
from poolproof.detectors.prevalence import (
    Interval,
    interval,
    lower_bound,
    split_level,
    with_floor,
    with_sampled_floor,
)
from poolproof.errors import UnreliableEstimate


@dataclass(frozen=True)
class Calibration:
    """A detector with its error rates, measured on references that it did not learn from.

    Attributes:
        detector: scores and flags items.
        true_positives: flagged and counted synthetic references; None with real references alone.
        false_positives: flagged and counted real references.
        auc: area under the curve over the references, None with real references alone.
    """

    detector: Detector
    true_positives: tuple[int, int] | None
    false_positives: tuple[int, int]
    auc: float | None
    real_histogram: Int[np.ndarray, " bins"]
    synthetic_histogram: Int[np.ndarray, " bins"] | None


@dataclass(frozen=True)
class Share:
    """The share of a pool that is synthetic, never without its interval.

    Attributes:
        interval: over the scored items. The point is None where it cannot be told.
        method: `melded+floor`, `lower-bound+floor` or `floor`.
        assumes: what the figure rests on, in sentences.
        why: why the point is withheld.
    """

    interval: Interval
    method: str
    assumes: tuple[str, ...]
    why: str | None


def calibrate(
    real: Reference | None, synthetic: Reference | None, *, rng: np.random.Generator
) -> tuple[Calibration | None, str | None]:
    """The detector for the references at hand, or why there is none."""
    try:
        if real is not None and synthetic is not None:
            return _calibrate_both(cross_fit(real.features, synthetic.features, rng=rng)), None
        if real is not None:
            return _calibrate_real(real_only(real.features, rng=rng)), None
    except UnreliableEstimate as error:
        return None, str(error)
    if synthetic is not None:
        return None, "a synthetic reference alone says nothing of false alarms; give --real too"
    return (
        None,
        "no references were given; --real and --synthetic allow an estimate, --real alone a lower bound",
    )


def estimate_share(
    tally: Tally, calibration: Calibration | None, why: str | None, *, sample: int | None, level: float
) -> Share | None:
    """The share among the scored items; None where not one was scored.

    Items with a signed, declared or marked finding count as synthetic. The share among the rest comes from
    the detector's flags, corrected by its error rates; without references it may be anything.

    Args:
        tally: counts over the audited items.
        calibration: the detector's error rates, None without usable references.
        why: why there is no calibration.
        sample: number of items drawn, None for a full audit; a draw has an error of its own.
        level: confidence level of the interval.
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
    # under a sampled floor the error is split over two limits, so the rest is asked at half of it
    rest_level = split_level(level) if sample is not None else level
    if rest == 0:
        estimate = Interval(None, 0.0, 1.0, level, "empty")
        method, why_not = "floor", None
    elif calibration is None:
        estimate, method, why_not = Interval(None, 0.0, 1.0, rest_level, "none"), "floor", why
    elif calibration.true_positives is None:
        false_positives, n_real = calibration.false_positives
        estimate = lower_bound(tally.flagged_rest, rest, false_positives, n_real, level=rest_level)
        method = "lower-bound+floor"
        why_not = "real references alone allow a lower bound: how many synthetic images look real is unknown"
        assumes.append("Real images of the pool resemble the real reference.")
    else:
        counts = (*calibration.true_positives, *calibration.false_positives)
        estimate = interval(tally.flagged_rest, rest, *counts, level=rest_level)
        method = "melded+floor"
        why_not = None
        if estimate.point is None:
            why_not = "the detector flags real references as often as synthetic ones"
        assumes.append(
            "Real images of the pool resemble the real reference, synthetic ones the synthetic reference."
        )
    return Share(_combine(hits, n, rest, estimate, sample, level), method, tuple(assumes), why_not)


def _combine(hits: int, n: int, rest: int, estimate: Interval, sample: int | None, level: float) -> Interval:
    if sample is not None:
        return with_sampled_floor(hits, n, estimate, level=level)
    return with_floor(hits, estimate, rest)


def _calibrate_both(fit: CrossFit) -> Calibration:
    edges = _edges(np.concatenate([fit.real_scores, fit.synthetic_scores]), fit.threshold)
    detector = Detector("probe", fit.score, fit.knn_score, fit.threshold, fit.folds, edges)
    return Calibration(
        detector,
        fit.tpr,
        fit.fpr,
        fit.auc.point,
        detector.histogram(fit.real_scores),
        detector.histogram(fit.synthetic_scores),
    )


def _calibrate_real(fit: RealOnly) -> Calibration:
    detector = Detector(
        "real-distance",
        _without_folds(fit.score),
        None,
        fit.threshold,
        1,
        _edges(fit.held_out_scores, fit.threshold),
    )
    counts = (fit.false_positives, fit.n)
    return Calibration(detector, None, counts, None, detector.histogram(fit.held_out_scores), None)


def _without_folds(
    score: Callable[[Float32[np.ndarray, "n d"]], Float[np.ndarray, " n"]],
) -> Callable[[Float32[np.ndarray, "n d"], Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]:
    return lambda features, folds: score(features)


def _edges(scores: Float[np.ndarray, " n"], threshold: float) -> Float[np.ndarray, " bins"]:
    """Bin edges that hold nearly all references and the threshold, with room on both sides."""
    low, high = np.quantile(scores, [0.01, 0.99])
    low, high = min(low, threshold), max(high, threshold)
    margin = 0.1 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, N_BINS + 1)
