"""Tiles of a distance matrix: certain lower bounds in single precision, exact distances for chosen pairs.

A matrix product in single precision gives, for every pair of points, a number that the squared distance
cannot be below. Whatever that bound leaves open is computed from the features as given, in double precision.
So a count over all pairs costs one fast product and is still what the full double-precision matrix gives.
Where the bounds leave much open (clusters far apart, each small), the product is taken in double precision.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

TILE: Final = 1024
"""Rows and columns of one tile: 4 MiB in single precision, which the last cache level holds."""

WORK: Final = 1 << 19
"""Numbers in one block of double-precision work: 4 MiB."""

ALL: Final = slice(None)


@final
@dataclass(frozen=True)
class Points:
    """A set of points in a frame of coordinates that it shares with the sets it meets in tiles.

    Attributes:
        given: the features.
        mean: of the features of all sets of the frame.
        scale: power of two that brings all coordinates, less the mean, below 1. Scaled units are by this
            factor larger than those of the features.
    """

    given: Float[np.ndarray, "n d"]
    mean: Float64[np.ndarray, " d"]
    scale: float

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def groups(self) -> Int64[np.ndarray, " n"]:
        """A number per point that is the same for identical points only."""
        known: dict[bytes, int] = {}
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.given)
        return np.array([known.setdefault(digest, len(known)) for digest in digests], dtype=np.int64)


@final
@dataclass(frozen=True)
class Screened:
    """Points in single or double precision.

    Attributes:
        factor: per point centred and scaled features x, then |x|^2 less `error`, then 1.
        error: per point its part in what a squared distance can be off by, in scaled units.
    """

    factor: Float[np.ndarray, "n e"]
    error: Float[np.ndarray, " n"]


def make_points(*sets: Float[np.ndarray, "_ d"]) -> list[Points]:
    """Return the sets with their common mean and scale.

    Without the mean an offset of all features would eat the digits in which points differ; without the scale
    squares could leave the range of single precision.
    """
    n = sum(map(len, sets))
    mean = np.sum([points.sum(axis=0, dtype=np.float64) / n for points in sets], axis=0)
    largest = max(
        float(np.abs(edge.astype(np.float64) - mean).max())
        for points in sets
        for edge in (points.max(axis=0), points.min(axis=0))
    )
    scale = 2.0 ** -max(math.frexp(largest)[1], -1000)
    return [Points(points, mean, scale) for points in sets]


def screen_points(
    points: Points, rows: slice | Int64[np.ndarray, " b"] = ALL, *, dtype: type[np.floating] = np.float32
) -> Screened:
    """Return some points in single or double precision, with bounds of what that costs.

    The bounds are `rounding`, plus what underflow can cost.
    """
    given = points.given[rows]
    n, d = given.shape
    share, underflow = rounding(d, dtype), (d + 16) * 4 * float(np.finfo(dtype).tiny)
    factor, error = np.empty((n, d + 2), dtype), np.empty(n, dtype)
    for part in blocks(n, max(1, WORK // d)):
        centred = (given[part] - points.mean) * points.scale
        square = np.einsum("nd,nd->n", centred, centred)
        factor[part, :d] = centred
        error[part] = share * square + underflow
        factor[part, d] = square - error[part]
    factor[:, d + 1] = 1
    return Screened(factor, error)


def rounding(d: int, dtype: type[np.floating] = np.float32) -> float:
    """Return c such that |x|^2 + |y|^2 - 2 x.y is off by less than c (|x|^2 + |y|^2).

    It holds for any order of summation, from coordinates that were rounded once: d + 2 terms and their
    rounding add up to less than 2 (d + 16) u/(1 - (d + 16) u), with u the largest relative error of one.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1.
    """
    u = (d + 16) * float(np.finfo(dtype).eps) / 2
    return 2 * u / (1 - u)


def left_factor(factor: Float[np.ndarray, "b e"]) -> Float[np.ndarray, "b e"]:
    """Return the rows changed so that their product with another set's factor bounds squared distances."""
    left = factor * factor.dtype.type(-2)
    left[:, -2], left[:, -1] = 1, factor[:, -2]
    return left


def lower_bounds(
    left: Float[np.ndarray, "b e"], right: Float[np.ndarray, "c e"], buffer: Float[np.ndarray, " s"]
) -> Float[np.ndarray, "b c"]:
    """Return what the squared distance of each pair, in scaled units, is certainly not below, in the buffer.

    It is certainly not above this plus twice the errors of both points.
    """
    low = buffer[: len(left) * len(right)].reshape(len(left), len(right))
    return np.matmul(left, right.T, out=low)


def exact_distances(
    a: Points, i: Int64[np.ndarray, " p"], b: Points, j: Int64[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    """Return the Euclidean distance of a's i-th point to b's j-th for each pair, in scaled units.

    Differences are taken before squares, in double precision, so that nothing cancels and equal points are
    at 0. Where there are more pairs than rounding alone explains, each pair of identical points is computed
    once.
    """
    d = a.given.shape[1]
    if len(i) > 2 * max(len(a), len(b)):
        key = a.groups[i] * (b.groups.max() + 1) + b.groups[j]
        # A table, not a sort: there are few kinds of pairs where there are many pairs.
        key -= key.min()
        if key.max() < 4 * len(key):
            some = np.full(int(key.max()) + 1, -1)
            some[key] = np.arange(len(key))
            first = some[some >= 0]
            back = (np.cumsum(some >= 0) - 1)[key]
        else:
            _, first, back = np.unique(key, return_index=True, return_inverse=True)
        i, j = i[first], j[first]
    else:
        back = slice(None)
    distances = np.empty(len(i))
    for part in blocks(len(i), max(1, WORK // d)):
        difference = a.given[i[part]].astype(np.float64)
        difference -= b.given[j[part]]
        difference *= a.scale
        distances[part] = np.sqrt(np.square(difference, out=difference).sum(axis=1))
    return distances[back]


def find_places(mask: Bool[np.ndarray, "b c"]) -> Int64[np.ndarray, " p"]:
    """Return the places of the few that are true, as in the flattened mask, in order."""
    if mask.size % 8:
        return np.flatnonzero(mask)
    # Eight at a time: most are false.
    words = np.flatnonzero(mask.reshape(-1).view(np.uint64) != 0)
    places = np.flatnonzero(mask.reshape(-1, 8)[words])
    return words[places >> 3] * 8 + (places & 7)


def blocks(n: int, size: int) -> list[slice]:
    """Return slices that cut n rows into blocks."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
