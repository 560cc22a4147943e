"""Exact significance of payloads, given what an image's blocks say.

The bits that an unmarked photograph seems to carry are no fair coins: smooth colour makes neighbouring blocks
alike, and most photographs read as almost all 0 or all 1. So the test does not ask how likely the blocks are.
It keeps them as they are and asks how many payloads, out of all that could have been chosen, would fit as well.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float64, Int, Int8, Int64

from poolproof.watermark.payloads import Payload

DETECTION_LEVEL: Final = 1e-6
"""An item counts as marked where the family-wise p-value of its reading lies below this level.

It bounds the chance that one unmarked item is called marked, over all payloads tried on it. In a pool of a
million unmarked items at most one such call is expected.
"""

_SMOOTHED: Final = (3, 9)
"""Spatial frequencies, down and across, over which the power of the blocks is averaged."""

_POWER_FLOOR: Final = 1e-3
"""Of the mean power: what a picture lacks altogether is rounding, and is not blown up."""

_UNITS: Final = 4
"""Whole-number weight of a block of mean magnitude."""

_RESCALE: Final = 512
"""Weights after which counts are scaled down; each one at most doubles them, and floats end at 2 to the 1024."""


def payload_pvalue(strengths: Int8[np.ndarray, "rows columns"], payload: Payload) -> float:
    """Share of all payloads with the same fixed bits that fit the blocks at least as well; in (0, 1].

    The fit is T = sum of q_j S_j over the free bits, q_j = +1 or -1, and sign vectors with T' >= T are counted;
    S_j are the supports of `payload_supports`.

    Args:
        strengths: of the blocks, in their rows and columns, from `dwt.strengths_of`.
        payload: its fixed bits take no part.

    Returns:
        At least 2 to the minus number of free bits; 1.0 where there are fewer blocks than bits.

    Assumes: the free bits of the payload were chosen without regard to the image. Nothing is assumed about
        the blocks: the weights may be any function of them.
    """
    return sign_tail(payload_supports(whiten(strengths), payload))


def sign_tail(support: Int[np.ndarray, " k"]) -> float:
    """Share of the 2^k choices of signs for which the sum of the weights reaches the given one; in (0, 1].

    Exact but for rounding: the relative error of a share below one half stays near the machine's precision.

    Args:
        support: integer weights with the observed signs, k up to 2500; the sum of their magnitudes bounds
            the time.

    Returns:
        The smallest positive float where the share is below it.

    Source: the recursion for permutation distributions of Pagano and Tritchler, "On obtaining permutation
        distributions in polynomial time", 1983, for signs.
    """
    weights = np.abs(support)
    # A sum reaches the observed one where the weights with the other sign add up to no more than they do now.
    against = int(weights[support < 0].sum())
    rest = int(weights.sum()) - against
    if against < rest:
        return max(_lower_share(weights, against), float(np.nextafter(0, 1)))
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
    reached = exponent = 0
    ordered = np.sort(weights)
    zeros = int(np.searchsorted(ordered, 1))
    within = int(np.searchsorted(ordered, limit, side="right"))
    for n, weight in enumerate(ordered[zeros:within].tolist(), start=1):
        reached = min(limit, reached + weight)
        counts[weight : reached + 1] += counts[: reached + 1 - weight]
        if n % _RESCALE == 0:
            # What drops below the smallest float here could grow by the weights to come alone: of 2500, to a
            # share of the sum that is far below its last digit.
            shift = int(np.frexp(counts[: reached + 1].max())[1])
            counts = np.ldexp(counts, -shift)
            exponent += shift
    return float(np.ldexp(counts[: reached + 1].sum(), exponent + zeros - weights.size))


def whiten(strengths: Int8[np.ndarray, "rows columns"]) -> Float64[np.ndarray, " n"]:
    """Strengths in reading order, with what neighbours have in common taken off; their mean magnitude is 1.

    Bits change from block to block and colour does not. So each spatial frequency of the blocks is divided by the
    magnitude that it and its neighbours have in this image: what the picture adds to all bits alike loses its
    weight, and payloads with long runs of a bit, such as text, fit an unmarked picture no better than others.

    Args:
        strengths: of the blocks in their rows and columns.

    Source: prewhitening before a matched filter; Turin, "An introduction to matched filters", 1960.
    """
    from scipy.ndimage import uniform_filter1d

    if strengths.size == 0:
        return np.empty(0)
    spectrum = np.fft.fft2(strengths - strengths.mean())
    power = np.abs(spectrum) ** 2
    for axis, size in enumerate(_SMOOTHED):
        power = uniform_filter1d(power, size, axis=axis, mode="wrap")
    floor = _POWER_FLOOR * float(power.mean())
    if floor == 0:  # all blocks say the same
        return np.zeros(strengths.size)
    white = np.fft.ifft2(spectrum / np.sqrt(power + floor)).real.ravel()
    return white / np.abs(white).mean()


def payload_supports(white: Float64[np.ndarray, " n"], payload: Payload) -> Int64[np.ndarray, " free"]:
    """q_j S_j of the free bits: how strongly the blocks speak for each, in quarters of a block's mean weight.

    Args:
        white: of the blocks, from `whiten`.
        payload: whose bits.
    """
    period = payload.period
    free = np.array(payload.free)
    if white.size < period:
        return np.zeros(int(free.sum()), np.int64)
    whole = white.size // period * period
    sums = white[:whole].reshape(-1, period).sum(axis=0)
    sums[: white.size - whole] += white[whole:]
    # Coarse units keep the count short. Any weights that do not look at the payload are valid.
    rounded = np.rint(_UNITS * sums).astype(np.int64)
    return (rounded * (2 * np.array(payload.bits) - 1))[free]
