"""A detector made of real references alone: what lies far from all of them is flagged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32

from poolproof.detectors.folds import check_enough
from poolproof.detectors.neighbours import check_features, check_pair, real_distance
from poolproof.detectors.scaling import Scaling, fit_scaling

BANK: Final = 0.6
"""Share of the real references that `real_only` compares with; it counts false positives on the others."""

QUANTILE: Final = 0.95
"""Quantile of the bank's own distances that `real_only` takes for its threshold."""


@dataclass(frozen=True)
class RealOnly:
    """A detector that knows real references alone: what lies far from all of them is flagged.

    Attributes:
        bank: real references that items are compared with, standardised.
        scaling: of the features, from the bank.
        k: the neighbour whose distance counts.
        threshold: a score above it flags the item.
        held_out_scores: scores of the real references that are not in the bank.
        false_positives: held-out references flagged.
        n: held-out references.
    """

    bank: Float[np.ndarray, "b d"]
    scaling: Scaling
    k: int
    threshold: float
    held_out_scores: Float32[np.ndarray, " n"]
    false_positives: int
    n: int

    def score(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
        """Return the log-distance of each item to its k-th neighbour in the bank; larger = further from real.

        Args:
            features: of the references' embedder.

        Raises:
            InputError: a feature is not finite, or the widths differ.
        """
        check_pair("features", features, "references", self.bank)
        return real_distance(self.scaling.apply(features), self.bank, self.k)


def real_only(real: Float[np.ndarray, "r d"], *, k: int = 5, rng: np.random.Generator) -> RealOnly:
    """Return a detector made of real references alone, with its false positives on held-out ones.

    The threshold is set on the bank, each of its points compared with the others, and the false positives are
    counted on the references left over; so `lower_bound` may use the count as it is.

    Args:
        real: features of real references, at least 10.
        k: the neighbour whose distance counts, 1 to the bank's size less 1.
        rng: splits the references.

    Raises:
        InputError: k is out of range or a feature is not finite.
        UnreliableEstimate: there are fewer than 10 references.

    Assumes: the references are independent draws of the pool's real items, without copies.
    """
    check_features("real", real)
    check_enough("real", len(real))
    order = rng.permutation(len(real))
    size = round(BANK * len(real))
    bank, held_out = real[order[:size]], real[order[size:]]
    scaling = fit_scaling(bank)
    bank, held_out = scaling.apply(bank), scaling.apply(held_out)
    own = real_distance(bank, bank, k, same=True)
    threshold = float(np.quantile(own, QUANTILE, method="higher"))
    scores = real_distance(held_out, bank, k)
    return RealOnly(bank, scaling, k, threshold, scores, int((scores > threshold).sum()), len(held_out))
