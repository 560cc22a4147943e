"""A linear probe: one logistic layer on standardised features, fitted on the user's own references."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from poolproof.detectors.neighbours import check_features, check_pair
from poolproof.detectors.scaling import Scaling, fit_scaling
from poolproof.errors import InputError

REGULARISATION: Final = 0.1
"""Inverse strength of the penalty on standardised features. Fixed, because a search on few references would
spend the items that the error rates are measured on."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe; plain numpy, so that scoring needs no scikit-learn.

    Attributes:
        scaling: of the features, from the references that were fitted.
        weight: of each standardised feature.
        bias: added at the end.
    """

    scaling: Scaling
    weight: Float64[np.ndarray, " d"]
    bias: float

    def score(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
        """Return the logit of each item; larger = more synthetic, threshold 0.

        Each row is summed on its own, so that a score does not depend on the batch it was computed in.

        Args:
            features: of the same embedder as the references.

        Raises:
            InputError: a feature is not finite, or the width is not that of the references.
        """
        check_features("features", features)
        if features.shape[1] != len(self.weight):
            allowed = f"{len(self.weight)} as in the references"
            raise InputError(
                f"features: got width {features.shape[1]}, allowed {allowed}: use the same embedder"
            )
        standard = self.scaling.apply(features)
        return (np.einsum("nd,d->n", standard, self.weight) + self.bias).astype(np.float32)


def fit_probe(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s d"],
    *,
    regularisation: float = REGULARISATION,
) -> LinearProbe:
    """Return a logistic probe that scores synthetic items above 0; both classes weigh the same.

    Args:
        real: features of real references.
        synthetic: features of synthetic references.
        regularisation: inverse penalty C of the logistic loss, above 0; smaller is stiffer.

    Raises:
        InputError: a set is empty, a feature is not finite, the widths differ, or C is not above 0.
    """
    from sklearn.linear_model import LogisticRegression

    check_pair("real", real, "synthetic", synthetic)
    if not 0 < regularisation < np.inf:
        raise InputError(f"regularisation: got {regularisation}, allowed above 0: {REGULARISATION} is usual")
    features = np.concatenate([real, synthetic]).astype(np.float64)
    labels = np.repeat([0, 1], [len(real), len(synthetic)])
    scaling = fit_scaling(features)
    model = LogisticRegression(C=regularisation, class_weight="balanced", max_iter=10_000)
    model.fit(scaling.apply(features), labels)
    return LinearProbe(scaling, model.coef_[0], float(np.ravel(model.intercept_)[0]))


@final
@dataclass(frozen=True, eq=False)
class ProbeDetector(AbstractDetector):
    """A linear probe on all features of its reader.

    Attributes:
        reader: spec of what makes its features.
        probe: fitted on references.
        threshold: a logit above it is flagged.
    """

    reader: str
    probe: LinearProbe
    threshold: float = 0.0
    kind: str = field(default="probe", init=False)

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the logit of each item; larger = more synthetic."""
        return score_rows(features, len(self.probe.weight), self.probe.score)

    def state(self) -> DetectorState:
        """Return what rebuilds the detector."""
        return DetectorState(self.kind, probe_tensors(self.probe), head_settings(self))


def fit_probe_detector(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s e"],
    *,
    reader: str = "",
    regularisation: float = REGULARISATION,
) -> ProbeDetector:
    """Return a probe of threshold 0, fixed beforehand: the classes weigh the same in its fit.

    Args:
        real: features of real references.
        synthetic: features of synthetic references.
        reader: spec of what made them.
        regularisation: as in `fit_probe`.

    Raises:
        InputError: as `fit_probe`, or all references are alike.
    """
    check_pair("real", real, "synthetic", synthetic)
    check_varied("real, synthetic", np.concatenate([real, synthetic]))
    return ProbeDetector(reader, fit_probe(real, synthetic, regularisation=regularisation))


def restore_probe_detector(state: DetectorState) -> ProbeDetector:
    """Return the detector that was saved."""
    reader, threshold = take_setting(state, "reader", str), take_setting(state, "threshold", float)
    return ProbeDetector(reader, restore_probe(state), threshold)


def probe_tensors(probe: LinearProbe) -> dict[str, np.ndarray]:
    """Return what a probe consists of."""
    scaling = probe.scaling
    return {
        "mean": scaling.mean,
        "scale": scaling.scale,
        "weight": np.asarray(probe.weight, np.float64),
        "bias": np.array([probe.bias]),
    }


def restore_probe(state: DetectorState) -> LinearProbe:
    """Return the probe among a saved detector's tensors."""
    weight = take_tensor(state, "weight", None)
    scaling = restore_scaling(state, len(weight))
    return LinearProbe(scaling, weight, float(take_tensor(state, "bias", 1)[0]))


def restore_scaling(state: DetectorState, width: int) -> Scaling:
    """Return the scaling among a saved detector's tensors."""
    scale = take_tensor(state, "scale", width)
    if not (scale > 0).all():
        raise InputError(f"detector {state.kind}: got 0 or less in scale, allowed above 0: save it anew")
    return Scaling(take_tensor(state, "mean", width), scale)


def head_settings(detector: AbstractDetector) -> dict[str, str | float]:
    """Return the settings that every saved detector has."""
    return {"reader": detector.reader, "threshold": float(detector.threshold)}
