"""A linear probe: one logistic layer on standardised features, fitted on the user's own references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64

from poolproof.detectors.neighbours import check_features, check_pair
from poolproof.errors import InputError

REGULARISATION: Final = 0.1
"""Inverse strength of the penalty on standardised features. Fixed, because a search on few references would
spend the items that the error rates are measured on."""


CLIP: Final = 10.0
"""Standard deviations. A feature that hardly varied among the references must not decide an item alone."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe; plain numpy, so that scoring needs no scikit-learn.

    Attributes:
        mean: taken off each feature.
        scale: divides each feature, 1 where it never varied.
        weight: of each standardised feature.
        bias: added at the end.
    """

    mean: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]
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
        standard = np.clip((features - self.mean) / self.scale, -CLIP, CLIP)
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
    mean, scale = features.mean(axis=0), features.std(axis=0)
    # A constant feature keeps a spread of rounding size, which must not be blown up to 1.
    scale[scale <= 1e-12 * np.abs(features).max(axis=0)] = 1.0
    model = LogisticRegression(C=regularisation, class_weight="balanced", max_iter=10_000)
    model.fit(np.clip((features - mean) / scale, -CLIP, CLIP), labels)
    return LinearProbe(mean, scale, model.coef_[0], float(np.ravel(model.intercept_)[0]))
