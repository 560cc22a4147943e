"""What one generation of a loop could train on, with the truth of where each sample came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from poolproof.simulate.generator import Samples
from poolproof.simulate.mixing import SOURCES

FRESH, FIXED, SYNTHETIC = range(len(SOURCES))


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Samples of one source.

    Attributes:
        images: the samples.
        labels: their classes; None without.
        is_marked: whether the loop's mark was written into each.
    """

    images: Samples
    labels: Int[np.ndarray, " n"] | None
    is_marked: Bool[np.ndarray, " n"]


@final
@dataclass(frozen=True, eq=False)
class TrainingPool:
    """Samples of several sources in one order.

    Attributes:
        images: the samples.
        labels: their classes; None without.
        source: index into `SOURCES` of each.
        is_marked: whether the loop's mark was written into it.
        weights: of each in training; 0 leaves it out.
    """

    images: Samples
    labels: Int[np.ndarray, " n"] | None
    source: Int8[np.ndarray, " n"]
    is_marked: Bool[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_synthetic(self) -> Bool[np.ndarray, " n"]:
        """Which samples are synthetic."""
        return self.source == SYNTHETIC

    def counts(self) -> dict[str, int]:
        """Number of samples by source."""
        return {name: int((self.source == code).sum()) for code, name in enumerate(SOURCES)}

    def take(self, rows: Int[np.ndarray, " m"]) -> TrainingPool:
        """The pool of some of its samples, in the order of the rows."""
        labels = None if self.labels is None else self.labels[rows]
        return TrainingPool(
            self.images[rows], labels, self.source[rows], self.is_marked[rows], self.weights[rows]
        )

    def weigh(self, weights: Float[np.ndarray, " n"]) -> TrainingPool:
        """The same samples with their weights multiplied."""
        return replace(self, weights=self.weights * weights)


def make_pool(parts: Sequence[tuple[int, Part]], source_weights: tuple[float, ...]) -> TrainingPool:
    """One pool of several parts.

    Args:
        parts: source code and samples.
        source_weights: weight of one sample by source.
    """
    labels = [part.labels for _, part in parts if part.labels is not None]
    source = np.concatenate([np.full(len(part.images), code, np.int8) for code, part in parts])
    return TrainingPool(
        np.concatenate([part.images for _, part in parts]),
        np.concatenate(labels) if labels else None,
        source,
        np.concatenate([part.is_marked for _, part in parts]),
        np.asarray(source_weights, np.float64)[source],
    )


def unmarked(n: int) -> Bool[np.ndarray, " n"]:
    """That none of `n` samples is marked."""
    return np.zeros(n, bool)
