"""How many balls of one set hold each point of another, and how many points each ball holds, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from poolproof.detectors import tiles
from poolproof.detectors.tiles import (
    Points,
    blocks,
    exact_distances,
    find_places,
    left_factor,
    lower_bounds,
    screen_points,
)

Ties = Literal["<=", "<"]
"""Whether a point at exactly the radius is inside a ball (`<=`) or not (`<`)."""

DENSE: Final = 16
"""Where more than one pair in so many is inside, masks are summed instead of listing pairs."""

UNCLEAR: Final = 64
"""Where more than one pair in so many is left open, the tile is computed in double precision."""


@final
@dataclass(frozen=True)
class Balls:
    """Balls around the points of one side, and the counts of a walk.

    Attributes:
        radii: of each ball, in scaled units.
        around_rows: the balls are around the points of the rows, not the columns.
        per_row: for each row, the pairs in which a point is inside a ball.
        per_column: likewise for each column.
    """

    radii: Float64[np.ndarray, " b"]
    around_rows: bool
    per_row: Int64[np.ndarray, " n"]
    per_column: Int64[np.ndarray, " m"]


def count_inside(
    rows: Points,
    columns: Points,
    *,
    row_radii: Sequence[Float64[np.ndarray, " n"]] = (),
    column_radii: Sequence[Float64[np.ndarray, " m"]] = (),
    ties: Ties = "<=",
    same: bool = False,
) -> tuple[list[Balls], list[Balls]]:
    """Return, for balls around row points and balls around column points, the pairs inside a ball.

    Pairs are decided by their single-precision bounds; those that the bounds leave open are computed in
    double precision. Time grows with n m d, memory with n + m.

    Args:
        rows: points of the rows.
        columns: points of the columns, made ready in the same call.
        row_radii: sets of radii around the row points, each counted by itself.
        column_radii: sets of radii around the column points.
        ties: whether a point at exactly the radius is inside.
        same: both sides are one set. Each unordered pair of distinct points is then walked once, as the row
            of smaller index and the column of larger index.
    """
    asked = [
        Balls(radii, around_rows, np.zeros(len(rows), np.int64), np.zeros(len(columns), np.int64))
        for around_rows, group in ((True, row_radii), (False, column_radii))
        for radii in group
    ]
    # In single precision: a squared distance above the outer limit is outside, one below the inner is inside.
    outer = [np.nextafter(_squares(b.radii, 1 + 1e-9), np.float32(np.inf)) for b in asked]
    inner = [np.nextafter(_squares(b.radii, 1 - 1e-9), np.float32(-np.inf)) for b in asked]
    mask_buffer = np.empty(min(len(rows), tiles.TILE) * min(len(columns), tiles.TILE), bool)
    for here, there, low, error, other_error in _walk(rows, columns, same=same):
        mask = mask_buffer[: low.size].reshape(low.shape)
        for balls, over, under in zip(asked, outer, inner, strict=True):
            side, shape = (here, (-1, 1)) if balls.around_rows else (there, (1, -1))
            np.less_equal(low, over[side].reshape(shape), out=mask)
            n_hits = np.count_nonzero(mask)
            if not n_hits:
                continue
            if n_hits * DENSE > mask.size:
                sure = low + 2 * (error[:, None] + other_error) < under[side].reshape(shape)
                balls.per_row[here] += np.count_nonzero(sure, axis=1)
                balls.per_column[there] += np.count_nonzero(sure, axis=0)
                i, j = np.divmod(np.flatnonzero(mask & ~sure), low.shape[1])
            else:
                hits = find_places(mask)
                i, j = np.divmod(hits, low.shape[1])
                most = low.reshape(-1)[hits] + 2 * (error[i] + other_error[j])
                sure = most < under[side][i if balls.around_rows else j]
                _add(balls, here, there, i[sure], j[sure])
                i, j = i[~sure], j[~sure]
            bound = balls.radii[side][i if balls.around_rows else j]
            if len(i) * UNCLEAR > mask.size:
                sure, unclear = _refine(rows, here, columns, there, i, j, bound)
                _add(balls, here, there, i[sure], j[sure])
                i, j, bound = i[unclear], j[unclear], bound[unclear]
            distances = exact_distances(rows, i + here.start, columns, j + there.start)
            kept = distances <= bound if ties == "<=" else distances < bound
            _add(balls, here, there, i[kept], j[kept])
    return asked[: len(row_radii)], asked[len(row_radii) :]


def _walk(
    rows: Points, columns: Points, *, same: bool
) -> Iterator[
    tuple[slice, slice, Float[np.ndarray, "b c"], Float[np.ndarray, " b"], Float[np.ndarray, " c"]]
]:
    """Yield the lower bounds of all tiles, in one buffer, and the errors; with `same`, above the diagonal."""
    size = tiles.TILE
    buffer = np.empty(min(len(rows), size) * min(len(columns), size), np.float32)
    right = screen_points(columns)
    for here in blocks(len(rows), size):
        # The rows' side is needed a strip at a time, and is screened then.
        strip = screen_points(rows, here)
        left = left_factor(strip.factor)
        for there in blocks(len(columns), size):
            if same and there.start < here.start:
                continue
            low = lower_bounds(left, right.factor[there], buffer)
            if same and there.start == here.start:
                low[np.tri(*low.shape, dtype=bool)] = np.inf
            yield here, there, low, strip.error, right.error[there]


def _refine(
    rows: Points,
    here: slice,
    columns: Points,
    there: slice,
    i: Int64[np.ndarray, " p"],
    j: Int64[np.ndarray, " p"],
    bound: Float64[np.ndarray, " p"],
) -> tuple[Bool[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """Return which pairs of a tile are surely inside and which remain open, by bounds in double precision."""
    strip, other = (
        screen_points(points, part, dtype=np.float64) for points, part in ((rows, here), (columns, there))
    )
    low = (left_factor(strip.factor) @ other.factor.T)[i, j]
    limit = np.square(bound)
    sure = low + 2 * (strip.error[i] + other.error[j]) < limit * (1 - 1e-9)
    return sure, ~sure & (low <= limit * (1 + 1e-9))


def _squares(radii: Float64[np.ndarray, " b"], factor: float) -> Float32[np.ndarray, " b"]:
    """Return squared radii times a factor, in single precision."""
    return (np.square(radii) * factor).astype(np.float32)


def _add(
    balls: Balls, here: slice, there: slice, i: Int64[np.ndarray, " p"], j: Int64[np.ndarray, " p"]
) -> None:
    """Count pairs given by their places in a tile."""
    balls.per_row[here] += np.bincount(i, minlength=here.stop - here.start)
    balls.per_column[there] += np.bincount(j, minlength=there.stop - there.start)
