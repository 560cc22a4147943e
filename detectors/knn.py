"""Detectors made of the references themselves: nearest neighbours of both classes, or distance from real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64

from poolproof.detectors.detector import (
    AbstractDetector,
    DetectorState,
    Scores,
    check_varied,
    score_rows,
    take_setting,
    take_tensor,
)
from poolproof.detectors.neighbours import check_features, check_pair, knn_score, nearest, real_distance
from poolproof.detectors.probe import head_settings, restore_scaling
from poolproof.detectors.rigid import QUANTILE, check_quantile
from poolproof.detectors.scaling import Scaling, fit_scaling
from poolproof.errors import InputError

METRICS: Final = ("standardised", "cosine")
"""How distances are measured: after `fit_scaling`, or between directions (length 1)."""


@final
@dataclass(frozen=True, eq=False)
class KNNDetector(AbstractDetector):
    """How much nearer an item lies to synthetic than to real references.

    Attributes:
        reader: spec of what makes its features.
        threshold: a score above it is flagged.
        real: features of real references as they came.
        synthetic: features of synthetic references as they came.
        k: number of neighbours in each class.
        scaling: of the features; None compares directions alone (cosine).
    """

    reader: str
    threshold: float
    real: Float32[np.ndarray, "r d"]
    synthetic: Float32[np.ndarray, "s d"]
    k: int
    scaling: Scaling | None
    kind: str = field(default="knn", init=False)

    @cached_property
    def banks(self) -> tuple[Float64[np.ndarray, "r d"], Float64[np.ndarray, "s d"]]:
        """Real and synthetic references in the space of distances."""
        return _place(self.real, self.scaling), _place(self.synthetic, self.scaling)

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the neighbour score of each item, as `knn_score`; larger = more synthetic.

        By cosine, a row of zeros has no direction and is abstained from.
        """
        width = self.real.shape[1]
        placed = _place(features, self.scaling) if features.shape[1:] == (width,) else features
        return score_rows(placed, width, lambda rows: knn_score(rows, *self.banks, self.k))

    def state(self) -> DetectorState:
        """Return what rebuilds the detector."""
        tensors = {"real": self.real, "synthetic": self.synthetic} | _scaling_tensors(self.scaling)
        metric = METRICS[self.scaling is None]
        return DetectorState(self.kind, tensors, head_settings(self) | {"k": self.k, "metric": metric})


@final
@dataclass(frozen=True, eq=False)
class RealDistanceDetector(AbstractDetector):
    """How far an item lies from real references. It knows no generator, so none can be too new for it.

    Attributes:
        reader: spec of what makes its features.
        threshold: a score above it is flagged.
        real: features of real references as they came.
        k: the neighbour whose distance counts.
        scaling: of the features, from the references.
    """

    reader: str
    threshold: float
    real: Float32[np.ndarray, "r d"]
    k: int
    scaling: Scaling
    kind: str = field(default="real-distance", init=False)

    @cached_property
    def bank(self) -> Float64[np.ndarray, "r d"]:
        """The references in the space of distances."""
        return _place(self.real, self.scaling)

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the log-distance of each item to its k-th real reference; larger = further from real."""
        width = self.real.shape[1]
        return score_rows(
            features, width, lambda rows: real_distance(_place(rows, self.scaling), self.bank, self.k)
        )

    def state(self) -> DetectorState:
        """Return what rebuilds the detector."""
        tensors = {"real": self.real} | _scaling_tensors(self.scaling)
        return DetectorState(self.kind, tensors, head_settings(self) | {"k": self.k})


def fit_knn(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s e"],
    *,
    reader: str = "",
    k: int = 5,
    metric: str = "standardised",
) -> KNNDetector:
    """Return a detector that compares items with all references of both classes.

    The zero of its score is not calibrated, so the threshold is chosen on the references: each is scored with
    itself left out of its bank, and the threshold is where the share of real ones above it equals the share of
    synthetic ones not above it, as nearly as can be. Error rates counted on the same references would look
    slightly too good; count them on others.

    Args:
        real: features of real references, more than k.
        synthetic: features of synthetic references, more than k.
        reader: spec of what made them.
        k: number of neighbours in each class.
        metric: `standardised`, or `cosine` as in the neighbour variant of Ojha, Li and Lee.

    Raises:
        InputError: too few references for k, a feature that is not finite, unequal widths, all references
            alike, or an unknown metric.

    Source: of the cosine variant: Ojha, Li and Lee, arXiv 2302.10174, section 4.2.
    """
    real, synthetic = _single("real", real), _single("synthetic", synthetic)
    check_pair("real", real, "synthetic", synthetic)
    both = np.concatenate([real, synthetic])
    check_varied("real, synthetic", both)
    if metric not in METRICS:
        raise InputError(f"metric: got {metric!r}, allowed {', '.join(METRICS)}: choose one")
    _check_enough(k, real, synthetic)
    scaling = fit_scaling(both) if metric == METRICS[0] else None
    if scaling is None and not both.any(axis=1).all():
        raise InputError("real, synthetic: got rows of zeros, allowed directions for cosine: leave them out")
    banks = _place(real, scaling), _place(synthetic, scaling)
    threshold = balance_threshold(*_left_out(*banks, k))
    return KNNDetector(reader, threshold, real, synthetic, k, scaling)


def fit_real_distance(
    real: Float[np.ndarray, "r d"], *, reader: str = "", k: int = 5, quantile: float = QUANTILE
) -> RealDistanceDetector:
    """Return a detector of what lies far from real references.

    The threshold is a quantile of the references' own distances, each with itself left out.

    Args:
        real: features of real references, more than k.
        reader: spec of what made them.
        k: the neighbour whose distance counts.
        quantile: of the references, in (0, 1); about that share of real items is not flagged.

    Raises:
        InputError: too few references for k, a feature that is not finite, all alike, or a quantile out of range.
    """
    real = _single("real", real)
    check_features("real", real)
    check_varied("real", real)
    check_quantile(quantile)
    _check_enough(k, real)
    scaling = fit_scaling(real)
    bank = _place(real, scaling)
    own = real_distance(bank, bank, k, same=True)
    return RealDistanceDetector(reader, float(np.quantile(own, quantile, method="higher")), real, k, scaling)


def restore_knn(state: DetectorState) -> KNNDetector:
    """Return the detector that was saved."""
    real = take_tensor(state, "real", None, None, dtype=np.float32)
    width = real.shape[1]
    synthetic = take_tensor(state, "synthetic", None, width, dtype=np.float32)
    k, metric = take_setting(state, "k", int), take_setting(state, "metric", str)
    _check_enough(k, real, synthetic)
    scaling = restore_scaling(state, width) if metric == METRICS[0] else None
    reader, threshold = take_setting(state, "reader", str), take_setting(state, "threshold", float)
    return KNNDetector(reader, threshold, real, synthetic, k, scaling)


def restore_real_distance(state: DetectorState) -> RealDistanceDetector:
    """Return the detector that was saved."""
    real = take_tensor(state, "real", None, None, dtype=np.float32)
    k = take_setting(state, "k", int)
    _check_enough(k, real)
    scaling = restore_scaling(state, real.shape[1])
    reader, threshold = take_setting(state, "reader", str), take_setting(state, "threshold", float)
    return RealDistanceDetector(reader, threshold, real, k, scaling)


def balance_threshold(real: Float32[np.ndarray, " r"], synthetic: Float32[np.ndarray, " s"]) -> float:
    """Return the threshold at which both shares of errors are as equal as can be.

    It lies in the middle between two scores, so classes that do not overlap are parted in the middle of the gap.

    Args:
        real: scores of real items.
        synthetic: scores of synthetic items.
    """
    values = np.unique(np.concatenate([real, synthetic]))
    if len(values) == 1:
        return float(values[0])
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    cuts = np.where(
        middles < values[1:], middles, values[:-1]
    )  # neighbours in single precision have no middle
    above = 1 - np.searchsorted(np.sort(real), cuts, "right") / len(real)
    below = np.searchsorted(np.sort(synthetic), cuts, "right") / len(synthetic)
    best = np.lexsort((above + below, np.abs(above - below).round(12)))[0]
    return float(cuts[best])


def _left_out(
    real: Float64[np.ndarray, "r d"], synthetic: Float64[np.ndarray, "s d"], k: int
) -> tuple[Float32[np.ndarray, " r"], Float32[np.ndarray, " s"]]:
    """The neighbour score of each reference among all the others."""
    spread = (real.var(axis=0).sum() + synthetic.var(axis=0).sum()) / 2
    floor = max(2.0**-24 * math.sqrt(spread), float(np.finfo(np.float32).tiny))

    def log_distance(items: np.ndarray, bank: np.ndarray) -> np.ndarray:
        distances = nearest(items, bank, k, same=items is bank).distances
        return np.log(np.maximum(distances, floor)).mean(axis=1)

    def score(items: np.ndarray) -> np.ndarray:
        return (log_distance(items, real) - log_distance(items, synthetic)).astype(np.float32)

    return score(real), score(synthetic)


def _place(features: Float[np.ndarray, "n d"], scaling: Scaling | None) -> Float64[np.ndarray, "n d"]:
    """The features in the space of distances; rows that have no place there are NaN."""
    wide = features.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if scaling is not None:
            # kept apart from the clipping in `apply`, which would make a number of infinity
            return np.where(np.isfinite(wide).all(axis=1, keepdims=True), scaling.apply(wide), np.nan)
        return wide / np.sqrt(np.square(wide).sum(axis=1, keepdims=True))


def _single(name: str, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """The features in the precision in which they are kept."""
    with np.errstate(over="ignore"):
        single = features.astype(np.float32)
    check_features(name, single)
    return single


def _check_enough(k: int, *banks: np.ndarray) -> None:
    fewest = min(len(bank) for bank in banks)
    if not 1 <= k < fewest:
        allowed = f"1 to {fewest - 1}" if fewest > 1 else "2 references of a class or more"
        raise InputError(f"k: got {k}, allowed {allowed} for this many references: lower k or add references")


def _scaling_tensors(scaling: Scaling | None) -> dict[str, np.ndarray]:
    return {} if scaling is None else {"mean": scaling.mean, "scale": scaling.scale}
