"""Exact distances of points to their k-th nearest neighbour in their own set."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32, Float64, Int64

from poolproof.detectors import tiles
from poolproof.detectors.tiles import (
    Points,
    Screened,
    blocks,
    exact_distances,
    find_places,
    left_factor,
    lower_bounds,
    screen_points,
)

SPARE: Final = 4
"""Candidates kept beyond k."""

WIDEST: Final = 128
"""Candidates per point that are kept at most; for a larger k, whole rows of the matrix are looked at."""


def neighbour_radii(points: Points, k: int) -> Float64[np.ndarray, " n"]:
    """Return each point's distance to its k-th nearest other point, in scaled units.

    The matrix of lower bounds is walked in tiles on and above the diagonal; each tile serves its rows and
    its columns. A pair is a candidate of a point where its bound is below the point's `k + SPARE`-th smallest
    so far. At the end only those candidates are computed in double precision that could be the k-th: for
    most points, one. A point whose candidates could lack one (many near-ties) is compared with all others, in
    double precision.

    Args:
        points: more than k of them.
        k: which neighbour. A point is told from its duplicates by its index, so they do count.
    """
    n, kept, screened = len(points), min(k + SPARE, len(points) - 1), screen_points(points)
    if kept > WIDEST:
        return _by_whole_rows(points, np.arange(n), k)
    low, index = _candidates(screened, kept)
    upper = low + 2 * (screened.error[:, None] + screened.error[index])
    at_least = np.partition(low, k - 1, axis=1)[:, k - 1, None]
    at_most = np.partition(upper, k - 1, axis=1)[:, k - 1, None]
    distance = np.where(upper < at_least, -np.inf, np.inf)
    i, j = np.nonzero((upper >= at_least) & (low <= at_most))
    distance[i, j] = exact_distances(points, i, points, index[i, j])
    radii = np.partition(distance, k - 1, axis=1)[:, k - 1]
    if kept < n - 1:
        (open_rows,) = np.nonzero(low.max(axis=1) <= at_most[:, 0])
        if len(open_rows):
            # Identical points have one radius.
            _, first, back = np.unique(points.groups[open_rows], return_index=True, return_inverse=True)
            radii[open_rows] = _by_whole_rows(points, open_rows[first], k)[back]
    return radii


def _candidates(points: Screened, kept: int) -> tuple[Float32[np.ndarray, "n c"], Int64[np.ndarray, "n c"]]:
    """Return the smallest lower bounds of each point to others and whose they are, in no order."""
    n, size = len(points.factor), tiles.TILE
    low = np.full((n, kept), np.inf, np.float32)
    index = np.zeros((n, kept), np.int64)
    most = min(n, size) ** 2
    buffer, masks = np.empty(most, np.float32), (np.empty(most, bool), np.empty(most, bool))
    strips = blocks(n, size)
    # The tiles of the diagonal come first: they give every point a bar that few later pairs are below.
    for rows in strips:
        tile = lower_bounds(left_factor(points.factor[rows]), points.factor[rows], buffer)
        np.fill_diagonal(tile, np.inf)
        width = min(kept, len(tile))
        bar = np.partition(tile, width - 1, axis=1)[:, width - 1, None]
        hits = find_places(tile <= bar)
        i, j = np.divmod(hits, len(tile))
        _merge(low, index, i + rows.start, j + rows.start, tile.reshape(-1)[hits])
    for place, rows in enumerate(strips[:-1]):
        left = left_factor(points.factor[rows])
        for columns in strips[place + 1 :]:
            tile = lower_bounds(left, points.factor[columns], buffer)
            below, also = (mask[: tile.size].reshape(tile.shape) for mask in masks)
            row_bar, column_bar = low[rows].max(axis=1), low[columns].max(axis=1)
            np.less(tile, row_bar[:, None], out=below)
            np.less(tile, column_bar, out=also)
            hits = find_places(np.logical_or(below, also, out=below))
            bounds = tile.reshape(-1)[hits]
            i, j = np.divmod(hits, tile.shape[1])
            taken = bounds < row_bar[i]
            _merge(low, index, i[taken] + rows.start, j[taken] + columns.start, bounds[taken])
            taken = np.flatnonzero(bounds < column_bar[j])
            taken = taken[np.argsort(j[taken], kind="stable")]
            _merge(low, index, j[taken] + columns.start, i[taken] + rows.start, bounds[taken])
    return low, index


def _merge(
    low: Float32[np.ndarray, "n c"],
    index: Int64[np.ndarray, "n c"],
    rows: Int64[np.ndarray, " h"],
    others: Int64[np.ndarray, " h"],
    bounds: Float32[np.ndarray, " h"],
) -> None:
    """Put new candidates, sorted by row, into the tables where they beat what is there."""
    if not len(rows):
        return
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    counts = np.diff(starts, append=len(rows))
    line = np.repeat(np.arange(len(starts)), counts)
    column = np.arange(len(rows)) - np.repeat(starts, counts)
    changed, kept = rows[starts], low.shape[1]
    wide_low = np.full((len(starts), kept + counts.max()), np.inf, np.float32)
    wide_index = np.zeros(wide_low.shape, np.int64)
    wide_low[:, :kept], wide_index[:, :kept] = low[changed], index[changed]
    wide_low[line, kept + column], wide_index[line, kept + column] = bounds, others
    order = np.argpartition(wide_low, kept - 1, axis=1)[:, :kept]
    low[changed] = np.take_along_axis(wide_low, order, axis=1)
    index[changed] = np.take_along_axis(wide_index, order, axis=1)


def _by_whole_rows(points: Points, rows: Int64[np.ndarray, " r"], k: int) -> Float64[np.ndarray, " r"]:
    """Return the radii of some points, each compared with all others."""
    n, right = len(points), screen_points(points, dtype=np.float64)
    step = max(1, tiles.TILE**2 // n)
    buffer, radii = np.empty(min(step, len(rows)) * n), np.empty(len(rows))
    for part in blocks(len(rows), step):
        block = rows[part]
        low = lower_bounds(left_factor(right.factor[block]), right.factor, buffer)
        low[np.arange(len(block)), block] = np.inf
        upper = low + 2 * (right.error[block, None] + right.error)
        at_least = np.partition(low, k - 1, axis=1)[:, k - 1, None]
        at_most = np.partition(upper, k - 1, axis=1)[:, k - 1, None]
        nearer = np.count_nonzero(upper < at_least, axis=1)
        i, j = np.nonzero((upper >= at_least) & (low <= at_most))
        distances = exact_distances(points, block[i], points, j)
        ends = np.searchsorted(i, np.arange(len(block) + 1))
        for line in range(len(block)):
            place = k - 1 - nearer[line]
            radii[part.start + line] = np.partition(distances[ends[line] : ends[line + 1]], place)[place]
    return radii
