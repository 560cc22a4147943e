"""The images that a report shows: which ones, their captions, and small copies of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from jaxtyping import Float, Int

from poolproof.page import thumbnail_uris

GALLERY_SIZE: Final = 24
"""Images shown at most per gallery: the page stays near a megabyte, opens at once and can be mailed."""

LOST_SIZE: Final = 20
"""Items named at most among those that could not be scored; all of them are in `items.parquet`."""

ReadImages = Callable[[Sequence[int]], Mapping[int, bytes | None]]
"""Gives the encoded bytes of items by their row; None, or no entry, where they are not at hand."""


@dataclass(frozen=True)
class Tile:
    """One image of a gallery."""

    key: str
    score: float | None
    evidence: str | None
    picture: str | None
    """A `data:` address, or None where no picture could be made."""


@dataclass(frozen=True)
class Gallery:
    """Images chosen for one reason."""

    title: str
    chosen: str
    """How they were chosen, in words."""
    total: int
    """Items there were to choose from."""
    tiles: tuple[Tile, ...]


def galleries(items: Path, read_images: ReadImages) -> list[Gallery]:
    """The images with the most evidence of each kind; a kind that no image has is left out.

    Args:
        items: `items.parquet` of a run.
        read_images: asked for at most `GALLERY_SIZE` rows at a time, never twice for the same row.
    """
    dataset = ds.dataset(items)
    table = dataset.to_table(columns=["row", "score", "knn_score", "signed", "declared", "marked"])
    table = table.sort_by("row")
    rows = table["row"].to_numpy()
    score = _ranking(table)
    known = np.flatnonzero(np.isfinite(score))
    best = known[np.argsort(-score[known], kind="stable")][:GALLERY_SIZE]
    chosen = [("Highest scores", "the most synthetic by their scores, highest first", len(known), best)]
    for name, title in (("signed", "Signed"), ("declared", "Declared"), ("marked", "Marked")):
        having = np.flatnonzero(table[name].fill_null(False).to_numpy())
        spread = _spread(having)
        how = (
            "in the pool's order"
            if len(spread) == len(having)
            else "taken evenly over the pool, in its order"
        )
        chosen.append((title, how, len(having), spread))
    pictures: dict[int, str | None] = {}
    made = []
    for title, how, total, positions in chosen:
        if total:
            wanted = [int(row) for row in rows[positions]]
            new = [row for row in wanted if row not in pictures]
            images = read_images(new) if new else {}
            pictures |= zip(new, thumbnail_uris([images.get(row) for row in new]), strict=True)
            tiles = _tiles(dataset, wanted, score[positions], pictures)
            made.append(Gallery(title, how, total, tiles))
    return made


def lost_items(items: Path) -> list[dict[str, Any]]:
    """Row, key, status and reason of the first items, in the pool's order, that could not be scored.

    Args:
        items: `items.parquet` of a run.
    """
    lost = pc.field("status").isin(["unreadable", "unsupported", "missing"])
    columns = ["row", "key", "status", "reason"]
    return _entries(ds.dataset(items).head(LOST_SIZE, columns=columns, filter=lost))


def _ranking(table: pa.Table) -> Float[np.ndarray, " n"]:
    """The probe's scores, or those of the neighbours in a run without a probe; NaN where there is none."""
    probe, neighbours = (
        table[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in ("score", "knn_score")
    )
    return probe if np.isfinite(probe).any() else neighbours


def _spread(positions: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """At most `GALLERY_SIZE` of the positions, evenly: neighbours in a pool often come from one source."""
    if len(positions) <= GALLERY_SIZE:
        return positions
    return positions[np.linspace(0, len(positions) - 1, GALLERY_SIZE).round().astype(np.int64)]


def _tiles(
    dataset: ds.Dataset,
    rows: list[int],
    scores: Float[np.ndarray, " k"],
    pictures: Mapping[int, str | None],
) -> tuple[Tile, ...]:
    found = dataset.to_table(columns=["row", "key", "evidence"], filter=pc.field("row").isin(rows))
    captions = {entry["row"]: entry for entry in _entries(found)}
    return tuple(
        Tile(
            captions[row]["key"],
            float(score) if np.isfinite(score) else None,
            captions[row]["evidence"],
            pictures[row],
        )
        for row, score in zip(rows, scores, strict=True)
    )


def _entries(table: pa.Table) -> list[dict[str, Any]]:
    """The rows in the pool's order. Bytes of a string column that are no UTF-8 become escapes."""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    for name in texts:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.binary()))
    entries = table.to_pylist()
    for entry in entries:
        for name in texts:
            entry[name] = None if entry[name] is None else entry[name].decode("utf-8", "backslashreplace")
    return sorted(entries, key=lambda entry: entry["row"])
