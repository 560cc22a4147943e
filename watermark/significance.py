"""Exact significance of public payloads, given an image's block votes.

The bits that an unmarked photograph seems to carry are no fair coins: smooth colour makes neighbouring votes
equal, and most photographs read as almost all 0 or all 1. So the test does not ask how likely the votes
are. It keeps them as they are and asks how many payloads, out of all that could have been chosen, would fit
as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Int, Int8, Int64

from poolproof.watermark.payloads import Payload

DETECTION_LEVEL: Final = 1e-6
"""An item counts as marked where the family-wise p-value of its reading lies below this level.

It bounds the chance that one unmarked item is called marked, over all payloads tried on it. In a pool of a
million unmarked items at most one such call is expected.
"""

_REACH: Final = 2
"""Neighbours on either side, in reading order, whose mean is taken off a vote."""


@final
@dataclass(frozen=True)
class MarkReading:
    """The payload that fits an image best.

    Args:
        payload: its name.
        p_value: in (0, 1], corrected for the number of payloads tried.
        matched: share of the payload's free bits that the votes speak for, undecided ones counting half, in
            [0, 1].
        n_votes: votes read.
    """

    payload: str
    p_value: float
    matched: float
    n_votes: int


def read_marks(votes: Int8[np.ndarray, " n"], payloads: Sequence[Payload]) -> MarkReading | None:
    """The reading of the best payload, or None without votes or payloads.

    The p-value is that of the best payload times the number of payloads, at most 1 (Bonferroni). It holds
    for the search as a whole, however the payloads hang together. Compare it with `DETECTION_LEVEL`.

    Args:
        votes: +1 and -1 in the order of the blocks.
        payloads: those of one variant, whose votes these are.
    """
    if votes.size == 0 or not payloads:
        return None
    contrast = _contrast(votes)
    supports = [_support(contrast, payload) for payload in payloads]
    p_values = [sign_tail(support) for support in supports]
    best = min(range(len(payloads)), key=p_values.__getitem__)
    return MarkReading(
        payload=payloads[best].name,
        p_value=min(1.0, len(payloads) * p_values[best]),
        matched=float(np.mean(np.sign(supports[best]) * 0.5 + 0.5)),
        n_votes=votes.size,
    )


def payload_pvalue(votes: Int8[np.ndarray, " n"], payload: Payload) -> float:
    """Share of all payloads with the same fixed bits that fit the votes at least as well; in (0, 1].

    A vote counts less the mean of its neighbourhood. Bits change from block to block and colour does not,
    so this takes off what the picture adds to all bits alike; the largest coefficient of a block cannot
    always be moved. The sums of these contrasts by bit are S_j, the fit is T = sum of q_j S_j with q_j = +1
    or -1 over the free bits, and sign vectors with T' >= T are counted.

    Args:
        votes: +1 and -1 in the order of the blocks.
        payload: its fixed bits take no part.

    Returns:
        At least 2 to the minus number of free bits; 1.0 where there are fewer votes than bits.

    Assumes: the free bits of the payload were chosen without regard to the image. Nothing is assumed about
        the votes: the weights may be any function of them.
    """
    return sign_tail(_support(_contrast(votes), payload))


def sign_tail(support: Int[np.ndarray, " k"]) -> float:
    """Share of the 2^k choices of signs for which the sum of the weights reaches the given one; in (0, 1].

    Exact but for rounding: the relative error of a share below one half stays near the machine's precision.

    Args:
        support: integer weights with the observed signs, k up to 1000; the sum of their magnitudes bounds
            the time.

    Source: the recursion for permutation distributions of Pagano and Tritchler, "On obtaining permutation
        distributions in polynomial time", 1983, for signs.
    """
    weights = np.abs(support)
    # A sum reaches the observed one where the weights with the other sign add up to no more than they do now.
    against = int(weights[support < 0].sum())
    rest = int(weights.sum()) - against
    if against < rest:
        return _lower_share(weights, against)
    # By symmetry of the signs. What is taken off is at most a half, so no digits are lost.
    return 1.0 - _lower_share(weights, rest - 1)


def _lower_share(weights: Int[np.ndarray, " k"], limit: int) -> float:
    """Share of the subsets of the weights that add up to at most the limit."""
    if limit < 0:
        return 0.0
    # counts[w]: subsets of the weights so far that add up to w. Only positive terms are added, so no share,
    # however small, suffers from cancellation.
    counts = np.zeros(limit + 1)
    counts[0] = 1.0
    reached = 0
    ordered = np.sort(weights)
    zeros = int(np.searchsorted(ordered, 1))
    within = int(np.searchsorted(ordered, limit, side="right"))
    for weight in ordered[zeros:within].tolist():
        reached = min(limit, reached + weight)
        counts[weight : reached + 1] += counts[: reached + 1 - weight]
    return float(np.ldexp(counts[: reached + 1].sum(), zeros - weights.size))


def _contrast(votes: Int8[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Votes less the mean of their neighbourhood, times its size; reflected at both ends."""
    if votes.size <= _REACH:
        return np.zeros(votes.size, np.int64)
    padded = np.pad(votes.astype(np.int64), _REACH, mode="reflect")
    size = 2 * _REACH + 1
    return size * votes.astype(np.int64) - np.convolve(padded, np.ones(size, np.int64), mode="valid")


def _support(contrast: Int64[np.ndarray, " n"], payload: Payload) -> Int64[np.ndarray, " free"]:
    """q_j S_j of the free bits, in whole votes: how strongly the votes speak for each."""
    period = payload.period
    free = np.array(payload.free)
    if contrast.size < period:
        return np.zeros(int(free.sum()), np.int64)
    whole = contrast.size // period * period
    sums = contrast[:whole].reshape(-1, period).sum(axis=0)
    sums[: contrast.size - whole] += contrast[whole:]
    # Rounding to whole votes keeps the count short. Any weights that do not look at the payload are valid.
    size = 2 * _REACH + 1
    rounded = (sums + _REACH) // size
    return (rounded * (2 * np.array(payload.bits) - 1))[free]
