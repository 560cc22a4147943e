"""A linear probe: one logistic layer on standardised features, fitted on the user's own references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64

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
