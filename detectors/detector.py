"""What every detector is: features in, scores out, larger = more synthetic, and no answer where there is none.

A detector stands on two legs. A *reader* of images makes a vector of each (`detectors/embed.py`: an embedding
model, the weight-free features, or the stability of an embedding under noise); a *head* makes a score of the
vector. A detector here is a head, which names the reader it belongs to. So evidence is read once, whatever
heads are tried on it, and a head is small enough to be saved as a few tensors and a page of JSON.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Bool, Float, Float32

STATE_VERSION: Final = 1
"""Of saved detectors; raised when one that was saved before would score differently or not load."""


@final
@dataclass(frozen=True)
class Scores:
    """What a detector says of some items.

    Attributes:
        values: larger = more synthetic; 0 where the detector abstains, which means nothing.
        abstained: items without an answer: their features are missing or not finite.
    """

    values: Float32[np.ndarray, " n"]
    abstained: Bool[np.ndarray, " n"]


@final
@dataclass(frozen=True)
class DetectorState:
    """All that a fitted detector consists of.

    Attributes:
        kind: its name in the table of detectors.
        tensors: arrays by name, float32, float64 or int64.
        settings: JSON values by name.
    """

    kind: str
    tensors: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]


class AbstractDetector(abc.ABC):
    """A fitted head: scores feature vectors and knows which reader they must come from.

    Subclasses are frozen dataclasses. Scoring is row by row: the score of an item does not depend on the
    items beside it.

    Attributes:
        kind: its name in the table of detectors (`detectors/kinds.py`).
        reader: the spec of what makes its features, as in `load_embedder`; empty where the caller has not said.
        threshold: an item with a score above it is flagged.
    """

    kind: str
    reader: str
    threshold: float

    @abc.abstractmethod
    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the score of each item, larger = more synthetic; rows that are not finite are abstained from.

        Args:
            features: of the detector's reader.

        Raises:
            InputError: the width is not that of the detector's features.
        """

    @abc.abstractmethod
    def state(self) -> DetectorState:
        """Return what rebuilds the detector, threshold and reader among the settings."""


def split_finite(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "m d"], Bool[np.ndarray, " n"]]:
    """Return the rows that are finite, and which those are; what a detector abstains from is left out."""
    finite = np.isfinite(features).all(axis=1)
    return features[finite], finite


def fill_scores(values: Float[np.ndarray, " m"], finite: Bool[np.ndarray, " n"]) -> Scores:
    """Return the scores of all items from those of the finite ones."""
    full = np.zeros(len(finite), np.float32)
    full[finite] = values
    return Scores(full, ~finite)
