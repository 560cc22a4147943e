"""Features on one scale, so that distances and penalties weigh them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

CLIP: Final = 10.0
"""Standard deviations. A feature that hardly varied among the references must not decide an item alone."""


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of each feature over some references.

    Attributes:
        mean: taken off each feature.
        scale: divides each feature, 1 where it never varied.
    """

    mean: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]

    def apply(self, features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        """Standardised features, kept within `CLIP` on both sides."""
        return np.clip((features - self.mean) / self.scale, -CLIP, CLIP)


def fit_scaling(features: Float[np.ndarray, "n d"]) -> Scaling:
    """The scaling that brings each feature of these references to mean 0 and spread 1.

    Args:
        features: of at least one item, finite.
    """
    wide = features.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    # a constant feature keeps a spread of rounding size, which must not be blown up to 1
    scale[scale <= 1e-12 * np.abs(wide).max(axis=0)] = 1.0
    return Scaling(mean, scale)
