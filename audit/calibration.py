"""The detector for the references at hand, with error rates measured on references it did not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64

from poolproof.audit.items import N_BINS, Answer, Detector
from poolproof.audit.references import Reference
from poolproof.detectors.calibrate import FixedFit, RealOnly, calibrate_fixed, cross_fit, real_only
from poolproof.detectors.detector import AbstractDetector, Scores, score_rows, split_finite
from poolproof.detectors.folds import Fit, check_enough
from poolproof.detectors.kinds import KINDS, fit_detector
from poolproof.detectors.mixture import alarm_edges
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.saved import PAGE, load_detector
from poolproof.detectors.soft import Moments, moments
from poolproof.errors import InputError, UnreliableEstimate

DEFAULT_DETECTOR: Final = "probe"
"""What is fitted on both references where nothing else is asked for."""

Choice = str | AbstractDetector
"""A kind of detector that is fitted here, or one that was fitted elsewhere."""


@dataclass(frozen=True)
class Calibration:
    """A detector with its error rates, measured on references that it did not learn from.

    Attributes:
        detector: scores and flags items.
        true_positives: flagged and counted synthetic references; None with real references alone.
        false_positives: flagged and counted real references.
        auc: area under the curve over the references, None with real references alone.
        real_scores: of the real references that were counted.
        synthetic_scores: of the synthetic ones; None with real references alone.
    """

    detector: Detector
    true_positives: tuple[int, int] | None
    false_positives: tuple[int, int]
    auc: Interval | None
    real_scores: Float[np.ndarray, " r"]
    synthetic_scores: Float[np.ndarray, " s"] | None

    @property
    def real_histogram(self) -> Int64[np.ndarray, " bins"]:
        """Counts of the real references by bin of the chart."""
        return self.detector.histogram(self.real_scores)

    @property
    def synthetic_histogram(self) -> Int64[np.ndarray, " bins"] | None:
        """Counts of the synthetic references by bin of the chart."""
        return None if self.synthetic_scores is None else self.detector.histogram(self.synthetic_scores)

    def soft(self) -> tuple[Moments, Moments] | None:
        """Moments of the references' soft scores, synthetic and real; None with real references alone."""
        if self.synthetic_scores is None:
            return None
        return (
            moments(self.detector.soften(self.synthetic_scores)),
            moments(self.detector.soften(self.real_scores)),
        )


def choose_detector(spec: str, embedder: str) -> tuple[Choice, str]:
    """The detector that a spec names, and the embedder it needs.

    Args:
        spec: a kind of `KINDS` that is fitted on references, or a folder that `save_detector` wrote.
        embedder: that was asked for; `auto` gives way to the detector's own.

    Raises:
        InputError: neither, a kind that needs a file, or an embedder that is not the detector's.
    """
    if spec in KINDS and KINDS[spec].needs != "file":
        tied = KINDS[spec].reader
        if not tied or embedder.startswith(tied):
            return spec, embedder
        if embedder == "auto" and not tied.endswith(":"):
            return spec, tied
        wanted = f"one such as {tied}clip:MODEL/TAG" if tied.endswith(":") else tied
        raise InputError(
            f"--detector {spec}: got the embedder {embedder!r}, allowed {wanted}: give --embedder"
        )
    if spec in KINDS:
        raise InputError(
            f"--detector {spec}: it is made from a file of weights: poolproof detect fit --detector {spec} "
            "--weights FILE --out DIR, then give --detector DIR"
        )
    if not (Path(spec) / PAGE).is_file():
        fitted = ", ".join(name for name, kind in KINDS.items() if kind.needs != "file")
        raise InputError(f"--detector: got {spec!r}, allowed {fitted}, or a folder of `poolproof detect fit`")
    detector = load_detector(spec)
    if embedder not in ("auto", detector.reader):
        raise InputError(
            f"--embedder: got {embedder!r}, allowed {detector.reader!r} for this --detector: leave it out"
        )
    return detector, detector.reader


def calibrate(
    real: Reference | None,
    synthetic: Reference | None,
    choice: Choice = DEFAULT_DETECTOR,
    *,
    reader: str = "",
    rng: np.random.Generator,
) -> tuple[Calibration | None, str | None]:
    """The detector for the references at hand, or why there is none.

    Args:
        real: the real reference, None without one.
        synthetic: the synthetic reference, None without one.
        choice: which detector. With real references alone a kind that needs both gives way to the distance
            from real references.
        reader: of the features.
        rng: deals the references into folds or halves.
    """
    if real is None:
        if synthetic is not None:
            return None, "a synthetic reference alone says nothing of false alarms; give --real too"
        return (
            None,
            "no references were given; --real and --synthetic allow an estimate, --real alone a lower bound",
        )
    features = None if synthetic is None else synthetic.features
    try:
        if isinstance(choice, AbstractDetector):
            return _of_fixed(calibrate_fixed(choice, real.features, features, rng=rng)), None
        if features is None and KINDS[choice].needs == "both":
            return _of_real_only(real_only(split_finite(real.features)[0], rng=rng)), None
        if KINDS[choice].needs == "real":
            return _of_fixed(_fit_on_half(choice, real.features, features, reader, rng)), None
        assert features is not None
        return _of_both(choice, real.features, features, reader, rng), None
    except UnreliableEstimate as error:
        return None, str(error)


def _of_both(
    kind: str,
    real: Float32[np.ndarray, "r d"],
    synthetic: Float32[np.ndarray, "s d"],
    reader: str,
    rng: np.random.Generator,
) -> Calibration:
    fit = cross_fit(real, synthetic, fit=fit_of(kind, reader), rng=rng)
    knn = fit.knn_score if fit.k is not None else None
    detector = _detector(
        kind, fit.answer, knn, fit.threshold, fit.folds, fit.real_scores, fit.synthetic_scores
    )
    return Calibration(detector, fit.tpr, fit.fpr, fit.auc, fit.real_scores, fit.synthetic_scores)


def fit_of(kind: str, reader: str) -> Fit | None:
    """What fits a detector of a kind on references; None for the default probe, which `cross_fit` knows."""
    if kind == DEFAULT_DETECTOR:
        return None
    return lambda real, synthetic, rng: fit_detector(kind, real, synthetic, reader=reader, rng=rng)


def _fit_on_half(
    kind: str,
    real: Float32[np.ndarray, "r d"],
    synthetic: Float32[np.ndarray, "s d"] | None,
    reader: str,
    rng: np.random.Generator,
) -> FixedFit:
    """Fits on one half of the real references what needs no others, and counts on the other half."""
    real = split_finite(real)[0]
    check_enough("real", len(real) // 2, what="references in the half that is fitted on")
    order, half = rng.permutation(len(real)), len(real) // 2
    detector = fit_detector(kind, real[order[:half]], reader=reader, rng=rng)
    return calibrate_fixed(detector, real[order[half:]], synthetic, rng=rng)


def _of_fixed(fit: FixedFit) -> Calibration:
    detector = _detector(
        fit.detector.kind, fit.answer, None, fit.threshold, 1, fit.real_scores, fit.synthetic_scores
    )
    return Calibration(detector, fit.tpr, fit.fpr, fit.auc, fit.real_scores, fit.synthetic_scores)


def _of_real_only(fit: RealOnly) -> Calibration:
    def answer(features: Float32[np.ndarray, "n d"], folds: Int[np.ndarray, " n"]) -> Scores:
        return score_rows(features, fit.bank.shape[1], fit.score)

    scores = fit.held_out_scores
    detector = _detector("real-distance", answer, None, fit.threshold, 1, scores, None)
    return Calibration(detector, None, (fit.false_positives, fit.n), None, scores, None)


def _detector(
    name: str,
    answer: Answer,
    knn_score: Callable[..., Float32[np.ndarray, " n"]] | None,
    threshold: float,
    folds: int,
    real_scores: Float32[np.ndarray, " r"],
    synthetic_scores: Float32[np.ndarray, " s"] | None,
) -> Detector:
    both = real_scores if synthetic_scores is None else np.concatenate([real_scores, synthetic_scores])
    return Detector(
        name=name,
        answer=answer,
        knn_score=knn_score,
        threshold=threshold,
        folds=folds,
        edges=_edges(both, threshold),
        alarm_edges=_alarm_edges(real_scores, synthetic_scores),
        scale=float(np.median(np.abs(both - threshold))) or 1.0,
    )


def _alarm_edges(
    real_scores: Float32[np.ndarray, " r"], synthetic_scores: Float32[np.ndarray, " s"] | None
) -> Float64[np.ndarray, " edges"] | None:
    """Edges of the bins in which the pool is held against the references; None where they cannot be told apart."""
    if synthetic_scores is None:
        return None
    try:
        return alarm_edges(real_scores, synthetic_scores)
    except UnreliableEstimate:
        return None


def _edges(scores: Float[np.ndarray, " n"], threshold: float) -> Float[np.ndarray, " bins"]:
    """Bin edges that hold nearly all references and the threshold, with room on both sides."""
    low, high = np.quantile(scores, [0.01, 0.99])
    low, high = min(low, threshold), max(high, threshold)
    margin = 0.1 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, N_BINS + 1)
