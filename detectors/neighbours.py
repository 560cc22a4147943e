"""Exact nearest neighbours in feature space, and two scores made of their distances.

FAISS looks for candidates in single precision, after the joint mean is taken off: without that, an offset
common to all features eats the digits in which neighbours differ. Distances are then computed in double
precision from the features as given. A query whose candidates could have missed a neighbour by rounding is
compared with the whole bank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from poolproof.detectors.tiles import rounding
from poolproof.errors import InputError

SPARE: Final = 8
"""Candidates beyond k that the single-precision search returns."""

BLOCK: Final = 1 << 22
"""Numbers in one block of work: 32 MiB in double precision."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest bank points of each query, nearest first.

    Attributes:
        distances: Euclidean distances.
        indices: rows of the bank. Among equal distances the smaller index comes first.
    """

    distances: Float64[np.ndarray, "m k"]
    indices: Int64[np.ndarray, "m k"]


def nearest(
    queries: Float[np.ndarray, "m d"], bank: Float[np.ndarray, "n d"], k: int, *, same: bool = False
) -> Neighbours:
    """Return the exact k nearest neighbours of each query in the bank, by Euclidean distance.

    Args:
        queries: features to look up.
        bank: features to search in.
        k: number of neighbours, 1 to n; 1 to n - 1 with `same`.
        same: the queries are the bank, and no point counts as its own neighbour. Points are told apart by
            their index, so a duplicate does count.

    Raises:
        InputError: k is out of range, a feature is not finite, the widths differ, or the lengths with `same`.
    """
    import faiss

    check_pair("queries", queries, "bank", bank)
    if same and len(queries) != len(bank):
        got = f"{len(queries)} queries and {len(bank)} bank points"
        raise InputError(f"same: got {got}, allowed equal numbers: give the bank as the queries")
    m, n = len(queries), len(bank)
    check_k(k, n - same)
    x, y, scale = screening(queries, bank)
    wanted = min(k + same + SPARE, n)
    rows = max(1, min(1024, BLOCK // (wanted * queries.shape[1])))
    distances, indices = np.empty((m, k)), np.empty((m, k), dtype=np.int64)
    for start in range(0, m, rows):
        block = slice(start, min(start + rows, m))
        coarse, found = faiss.knn(x[block], y, wanted)
        exact = paired_distances(queries[block, None], bank[found])
        if same:
            exact[found == np.arange(block.start, block.stop)[:, None]] = np.inf
        order = np.lexsort((found, exact))[:, :k]
        distances[block] = np.take_along_axis(exact, order, axis=1)
        indices[block] = np.take_along_axis(found, order, axis=1)
        if wanted == n:
            continue
        # A point as near as the k-th one has at most this single-precision squared distance.
        reach = _reach(x[block], distances[block, -1] * scale)
        for row in np.flatnonzero(coarse[:, -1] <= reach):
            i = start + row
            other = faiss.pairwise_distances(x[i : i + 1], y)[0] <= reach[row]
            if same:
                other[i] = False
            candidates = np.flatnonzero(other)
            exact_row = _distances_from(queries[i], bank, candidates)
            order_row = np.argsort(exact_row, kind="stable")[:k]
            distances[i], indices[i] = exact_row[order_row], candidates[order_row]
    return Neighbours(distances, indices)


def knn_score(
    items: Float[np.ndarray, "n d"],
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s d"],
    k: int = 5,
) -> Float32[np.ndarray, " n"]:
    """Return how much nearer each item lies to synthetic than to real references; larger = more synthetic.

    It is the mean log-distance to the k nearest real references minus that to the k nearest synthetic ones, a
    nearest-neighbour estimate of the log density ratio divided by d. Its zero is not calibrated.

    Args:
        items: features to score.
        real: real references, at least k.
        synthetic: synthetic references, at least k.
        k: number of neighbours in each class.

    Raises:
        InputError: as `nearest`.
    """
    floor = _resolution(real, synthetic)
    far = np.log(np.maximum(nearest(items, real, k).distances, floor)).mean(axis=1)
    near = np.log(np.maximum(nearest(items, synthetic, k).distances, floor)).mean(axis=1)
    return (far - near).astype(np.float32)


def real_distance(
    items: Float[np.ndarray, "n d"], real: Float[np.ndarray, "r d"], k: int = 5, *, same: bool = False
) -> Float32[np.ndarray, " n"]:
    """Return the log-distance of each item to its k-th nearest real reference; larger = further from real.

    Args:
        items: features to score.
        real: real references, at least k; at least k + 1 with `same`.
        k: which neighbour.
        same: the items are the references themselves, and none counts as its own neighbour.

    Raises:
        InputError: as `nearest`.
    """
    distances = nearest(items, real, k, same=same).distances[:, -1]
    return np.log(np.maximum(distances, _resolution(real))).astype(np.float32)


def paired_distances(
    a: Float[np.ndarray, "*#s d"], b: Float[np.ndarray, "*#s d"]
) -> Float64[np.ndarray, "*s"]:
    """Return the Euclidean distance of each point of `a` to its partner in `b`, in double precision.

    Differences are taken before squares, so that equal points are at 0 and nothing cancels.
    """
    difference = np.asarray(a, dtype=np.float64) - b
    return np.sqrt(np.square(difference, out=difference).sum(axis=-1))


def screening(
    a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"]
) -> tuple[Float32[np.ndarray, "m d"], Float32[np.ndarray, "n d"], float]:
    """Return both sets centred, scaled and in single precision, and the factor that scales their distances.

    The factor is a power of two that brings the largest coordinate below 1, so that squares stay in range.
    """
    mean = (a.sum(axis=0, dtype=np.float64) + b.sum(axis=0, dtype=np.float64)) / (len(a) + len(b))
    largest = max(float(np.abs(part - mean).max()) for points in (a, b) for part in _blocks(points))
    scale = 2.0 ** -max(math.frexp(largest)[1], -1000)
    x, y = np.empty(a.shape, np.float32), np.empty(b.shape, np.float32)
    for points, out in ((a, x), (b, y)):
        for part, target in zip(_blocks(points), _blocks(out), strict=True):
            target[...] = (part - mean) * scale
    return x, y, scale


def check_pair(name_a: str, a: Float[np.ndarray, "m d"], name_b: str, b: Float[np.ndarray, "n e"]) -> None:
    """Raise InputError unless both feature sets are usable and equally wide."""
    check_features(name_a, a)
    check_features(name_b, b)
    if a.shape[1] != b.shape[1]:
        got = f"{a.shape[1]} and {b.shape[1]} features"
        raise InputError(f"{name_a}, {name_b}: got {got}, allowed equal widths: use one embedder for both")


def check_features(name: str, features: Float[np.ndarray, "n d"]) -> None:
    """Raise InputError unless the features are a finite matrix with a row and a column."""
    if features.size == 0:
        raise InputError(f"{name}: got shape {features.shape}, allowed 1 or more rows and columns: add items")
    for part in _blocks(features):
        if not np.isfinite(part).all():
            raise InputError(f"{name}: got NaN or infinity, allowed finite features: drop the broken items")


def check_k(k: int, largest: int) -> None:
    """Raise InputError unless 1 <= k <= largest."""
    if not 1 <= k <= largest:
        raise InputError(f"k: got {k}, allowed 1 to {largest} for this many points: lower k or add points")


def _reach(x: Float32[np.ndarray, "m d"], radius: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return the largest single-precision squared distance a point within `radius` of each x can show."""
    # Such a point is no longer than |x| + radius, which bounds the rounding error without a look at the bank.
    length = np.sqrt(np.square(x, dtype=np.float64).sum(axis=1))
    slack = rounding(x.shape[1]) * (length**2 + (length + radius) ** 2)
    return radius**2 + slack + float(np.finfo(np.float32).tiny)


def _distances_from(
    query: Float[np.ndarray, " d"], bank: Float[np.ndarray, "n d"], rows: Int64[np.ndarray, " c"]
) -> Float64[np.ndarray, " c"]:
    """Return the distances of one query to some rows of the bank, a block at a time."""
    step = max(1, BLOCK // len(query))
    parts = [paired_distances(query, bank[rows[i : i + step]]) for i in range(0, len(rows), step)]
    return np.concatenate(parts)


def _resolution(*banks: Float[np.ndarray, "_ d"]) -> float:
    """Return the distance below which single-precision features tell nothing, the floor of logarithms."""
    variance = sum(float(bank.var(axis=0, dtype=np.float64).sum()) for bank in banks) / len(banks)
    return max(2.0**-24 * math.sqrt(variance), float(np.finfo(np.float32).tiny))


def _blocks(points: Float[np.ndarray, "n d"]) -> list[Float[np.ndarray, "_ d"]]:
    """Return views of consecutive rows, small enough to work on in double precision."""
    step = max(1, BLOCK // points.shape[1])
    return [points[i : i + step] for i in range(0, len(points), step)]
