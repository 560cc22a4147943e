"""Heads of few lines for tests of calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.detector import AbstractDetector, DetectorState, Scores, fill_scores, split_finite


@final
@dataclass(frozen=True)
class Direction(AbstractDetector):
    """Scores items along a direction, and abstains from what is not finite or lies beyond a limit."""

    direction: Float64[np.ndarray, " d"]
    threshold: float = 0.0
    limit: float = np.inf
    kind: str = "direction"
    reader: str = ""

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the projections."""
        rows, finite = split_finite(features)
        scores = fill_scores((rows * self.direction).sum(axis=1), finite)
        return Scores(scores.values, scores.abstained | (np.abs(scores.values) > self.limit))

    def state(self) -> DetectorState:
        """Return the direction and the threshold."""
        settings = {"threshold": self.threshold, "reader": self.reader}
        return DetectorState(self.kind, {"direction": self.direction}, settings)


def fit_direction(
    real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
) -> Direction:
    """Return a detector along the difference of the means, with its threshold in the middle."""
    direction = (synthetic.mean(axis=0) - real.mean(axis=0)).astype(np.float64)
    middle = (synthetic.mean(axis=0) + real.mean(axis=0)) / 2
    return Direction(direction, float(middle @ direction))
