"""New scores at or below a threshold, from the reference scores at or below it: limits for all thresholds at once.

New and reference scores of one class are exchangeable, so the places of the references among the new ones follow a
law that depends on n and r alone. A band over all r places holds for a threshold chosen after looking at everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64

from poolproof.detectors.prevalence import check_level
from poolproof.errors import InputError

PLACES: Final = 64
"""Ranks at which the band is laid out, at most; between them it steps to the safer side."""

DRAWS: Final = 10_000
"""Interleavings that settle the band."""

DRAWS_A_PLACE: Final = 150
"""Fewer interleavings for each rank could not tell how far out the band must lie."""


@dataclass(frozen=True)
class RankBand:
    """Limits of the number of new scores at or below a threshold, by how many references are.

    Attributes:
        n_new: new scores.
        n_reference: reference scores, 0 or more.
        level: probability that all limits of a side hold at once is at least 1 - (1 - level)/2.
        ranks: 1 to `n_reference`, ascending: places among the references at which the limits are known.
        lower: of the number of new scores before the reference of each rank.
        upper: the same from above.
    """

    n_new: int
    n_reference: int
    level: float
    ranks: Int64[np.ndarray, " k"]
    lower: Int64[np.ndarray, " k"]
    upper: Int64[np.ndarray, " k"]

    def limits(self, n_below: int) -> tuple[int, int]:
        """The least and the most new scores at or below a threshold that `n_below` references do not exceed.

        >>> band = rank_band(100, 50, rng=np.random.default_rng(0))
        >>> band.limits(50)[1], band.limits(0)[0]
        (100, 0)
        """
        before = int(np.searchsorted(self.ranks, n_below, "right")) - 1
        after = int(np.searchsorted(self.ranks, n_below + 1, "left"))
        lower = int(self.lower[before]) if before >= 0 else 0
        upper = int(self.upper[after]) if after < len(self.ranks) else self.n_new
        return lower, upper


def rank_band(
    n_new: int, n_reference: int, *, level: float | int = 0.95, draws: int = DRAWS, rng: np.random.Generator
) -> RankBand:
    """The band of new scores below a threshold by the references below it, valid for all thresholds at once.

    Pointwise, the number of new scores before the k-th of r references is beta-binomial with shapes k and r - k + 1.
    Its quantiles are taken at the level at which, over random interleavings, all of them hold with the wanted
    probability; each side has half of the error.

    Args:
        n_new: scores whose number is asked for, 0 or more.
        n_reference: known scores of the same class, 0 or more; without any, nothing is excluded.
        level: confidence of both sides together, in (0, 1).
        draws: interleavings, 1,000 or more.
        rng: draws them.

    Raises:
        InputError: a count below 0, too few draws, or a level outside (0, 1).

    Source: Thatcher, J. R. Stat. Soc. B 26 (1964) 176-210 (exact limits for one threshold); made simultaneous here by
        the law of interleavings.
    Assumes: new and reference scores are exchangeable. Ties count against the limits, never for them.
    """
    alpha = (1.0 - check_level(level)) / 2
    for name, value, least in (("n_new", n_new, 0), ("n_reference", n_reference, 0), ("draws", draws, 1000)):
        if value < least:
            raise InputError(f"{name}: got {value}, allowed {least} or more; give another")
    if n_reference == 0 or n_new == 0:
        nothing = np.zeros(0, np.int64)
        return RankBand(n_new, n_reference, level, nothing, nothing, nothing)
    ranks = _places(n_reference, min(PLACES, draws // DRAWS_A_PLACE))
    some, others = (_interleave(n_new, n_reference, ranks, draws, rng) for _ in range(2))
    n_out = math.floor(alpha * (draws + 1))
    if n_out == 0:
        return RankBand(n_new, n_reference, level, ranks, np.zeros_like(ranks), np.full_like(ranks, n_new))
    upper = _outermost(some, others, n_out)
    lower = _outermost(-some, -others, n_out)
    return RankBand(
        n_new,
        n_reference,
        level,
        ranks,
        np.zeros_like(ranks) if lower is None else -lower,
        np.full_like(ranks, n_new) if upper is None else upper,
    )


def _outermost(
    some: Int64[np.ndarray, "draws k"], others: Int64[np.ndarray, "draws k"], n_out: int
) -> Int64[np.ndarray, " k"] | None:
    """The lowest line, made of equal ranks of `some` from the top, that fewer than `n_out` of the others cross.

    None where even the line of the largest values is crossed too often.
    """
    draws = len(some)
    tops = np.sort(np.partition(some, draws - n_out, axis=0)[draws - n_out :], axis=0)
    # how many of `some` lie at or above a draw, at the place where it lies furthest out
    fewest = np.full(draws, n_out)
    for top, other in zip(tops.T, others.T, strict=True):
        far = np.flatnonzero(other > top[0])
        fewest[far] = np.minimum(fewest[far], n_out - np.searchsorted(top, other[far], "left"))
    rank = int(np.partition(fewest, n_out - 1)[n_out - 1])
    return tops[n_out - rank] if rank else None


def _places(n_reference: int, most: int) -> Int64[np.ndarray, " k"]:
    """Ranks at which the band is laid out: all, or the ends in full and the middle by steps."""
    if n_reference <= most:
        return np.arange(1, n_reference + 1)
    tail = np.unique(np.geomspace(1, max(1, n_reference // 2), max(1, most // 2)).round().astype(np.int64))
    return np.unique(np.concatenate([tail, n_reference + 1 - tail]))


def _interleave(
    n_new: int, n_reference: int, ranks: Int64[np.ndarray, " k"], draws: int, rng: np.random.Generator
) -> Int64[np.ndarray, "draws k"]:
    """For each draw the new scores that come before the reference of each rank.

    The references lie in (0, 1) as uniform order statistics do; given them the new scores fall between by chance.
    """
    steps = np.diff(ranks, prepend=0, append=n_reference + 1).astype(np.float64)
    places = np.cumsum(rng.standard_gamma(steps, size=(draws, len(steps))), axis=1)
    places = places[:, :-1] / places[:, -1:]
    before = np.zeros((draws, len(ranks)), np.int64)
    counted, place = np.zeros(draws, np.int64), np.zeros(draws)
    for i in range(len(ranks)):
        share = np.clip((places[:, i] - place) / np.maximum(1 - place, 1e-300), 0.0, 1.0)
        counted = counted + rng.binomial(n_new - counted, share)
        before[:, i], place = counted, places[:, i]
    return before
