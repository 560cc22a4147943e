"""Exact significance of public payloads, given an image's block votes.

The bits that an unmarked photograph seems to carry are no fair coins: smooth colour makes neighbouring votes equal, and
most photographs read as almost all 0 or all 1. So the test does not ask how likely the votes are. It keeps the votes as
they are and asks how many payloads, out of all that could have been chosen, would fit them as well as the public one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Int8, Int64

from poolproof.watermark.payloads import Payload

DETECTION_LEVEL: Final = 1e-6
"""An item counts as marked where the family-wise p-value of its reading lies below this. It bounds the chance that one
unmarked item is called marked, over all payloads tried on it: in a pool of a million, one such item is expected at most.
"""


@final
@dataclass(frozen=True)
class MarkReading:
    """The payload that fits an image best.

    Args:
        payload: its name.
        p_value: in (0, 1], corrected for the number of payloads tried.
        matched: share of the payload's free bits that the majority of votes gives, ties counting half, in [0, 1].
        n_votes: votes read.
    """

    payload: str
    p_value: float
    matched: float
    n_votes: int


def read_marks(votes: Int8[np.ndarray, " n"], payloads: Sequence[Payload]) -> MarkReading | None:
    """The reading of the best payload, or None without votes or payloads.

    The p-value is that of the best payload times the number of payloads, at most 1 (Bonferroni), and thus holds for the
    search as a whole, however the payloads and their votes hang together. Compare it with `DETECTION_LEVEL`.

    Args:
        votes: +1 and -1 in the order of the blocks.
        payloads: all of one variant, whose votes these are.
    """
    if votes.size == 0 or not payloads:
        return None
    p_values = [payload_pvalue(votes, payload) for payload in payloads]
    best = min(range(len(payloads)), key=p_values.__getitem__)
    support = _support(votes, payloads[best])
    return MarkReading(
        payload=payloads[best].name,
        p_value=min(1.0, len(payloads) * p_values[best]),
        matched=float(np.mean(np.sign(support) * 0.5 + 0.5)),
        n_votes=votes.size,
    )


def payload_pvalue(votes: Int8[np.ndarray, " n"], payload: Payload) -> float:
    """Share of all payloads with these fixed bits that fit the votes at least as well as the payload; in (0, 1].

    Exact: the votes enter as sums S_j over the blocks of bit j, the fit is T = sum of q_j S_j with q_j = +1 or -1, and
    the share of sign vectors with T' >= T is counted. The smallest value is 2 to the minus number of free bits. 1.0
    where there are fewer votes than bits.

    Args:
        votes: +1 and -1 in the order of the blocks.
        payload: its fixed bits take no part.

    Source: the randomisation distribution of a sum with known weights, counted by the recursion of Pagano and Tritchler,
        "On obtaining permutation distributions in polynomial time", 1983.
    Assumes: that the payload, apart from its fixed bits, was chosen without regard to the image. Nothing is assumed
        about the votes.
    """
    if votes.size < payload.period:
        return 1.0
    support = _support(votes, payload)
    weights = np.abs(support)
    total = int(weights.sum())
    # T' >= T holds where the weights of the bits that disagree with the votes add up to no more than now.
    against = int(weights[support < 0].sum())
    if 2 * against >= total:
        # By symmetry of the signs. The subtracted part is below a half, so no digits are lost.
        return 1.0 - _lower_share(weights, total - against - 1)
    return _lower_share(weights, against)


def _support(votes: Int8[np.ndarray, " n"], payload: Payload) -> Int64[np.ndarray, " free"]:
    """q_j S_j of the free bits: how strongly the votes speak for each."""
    period = payload.period
    whole = votes.size // period * period
    sums = votes[:whole].reshape(-1, period).sum(axis=0, dtype=np.int64)
    sums[: votes.size - whole] += votes[whole:]
    signs = 2 * np.array(payload.bits) - 1
    return (signs * sums)[np.array(payload.free)]


def _lower_share(weights: Int64[np.ndarray, " k"], limit: int) -> float:
    """Share of the subsets of the weights that add up to at most the limit."""
    if limit < 0:
        return 0.0
    # counts[w]: subsets of the weights so far that add up to w. Only sums of positive terms, so the relative error
    # stays near the machine's precision however small the share.
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
