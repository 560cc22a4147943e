"""Which items changed from one audited pool to another: told by content first, by key second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from poolproof.audit.finished import FinishedRun
from poolproof.files import replace_file

CHANGES: Final = ("added", "removed", "changed", "moved", "reassessed")
"""What can have become of an item that is not the same."""

CHANGED: Final = pa.schema(
    [
        pa.field("change", pa.string(), nullable=False, metadata={"doc": "one of five words"}),
        *(
            pa.field(f"{name}_{side}", kind)
            for name, kind in (
                ("key", pa.string()),
                ("sha256", pa.binary(32)),
                ("status", pa.string()),
                ("evidence", pa.string()),
                ("score", pa.float32()),
                ("flagged", pa.bool_()),
            )
            for side in ("a", "b")
        ),
    ]
)
"""Columns of `changed.parquet`; those of `_a` are null for what was added, those of `_b` for what was removed."""


@dataclass(frozen=True)
class Changes:
    """How the items of two runs are paired. Rows count from 0 in the order of either run.

    Attributes:
        same: pairs of rows with the same key and bytes.
        moved: pairs with the same bytes under another key.
        changed: pairs with the same key and other bytes.
        removed: rows of the first run alone.
        added: rows of the second run alone.
        reassessed: pairs with the same bytes that were found to be something else.
        common: scored items of either run whose bytes were scored in the other, `(first, second)`.
    """

    same: Int64[np.ndarray, "s 2"]
    moved: Int64[np.ndarray, "m 2"]
    changed: Int64[np.ndarray, "c 2"]
    removed: Int64[np.ndarray, " r"]
    added: Int64[np.ndarray, " a"]
    reassessed: Int64[np.ndarray, "x 2"]
    common: tuple[Bool[np.ndarray, " n_a"], Bool[np.ndarray, " n_b"]]

    def counts(self) -> dict[str, int]:
        """Items by what became of them."""
        return {"same": len(self.same), **{name: len(getattr(self, name)) for name in CHANGES}}


def find_changes(a: FinishedRun, b: FinishedRun) -> Changes:
    """What became of the items from the first run to the second.

    Same key and same bytes come first, then the same bytes under another key (moved), then the same key with other
    bytes (changed). Copies are paired one to one: another copy of what is there already was added. An item
    without bytes is known by its key alone.
    """
    keys, content = _codes(a, b, "key"), _codes(a, b, "sha256")
    n = max(len(content[0]) + len(content[1]), 1) + 1
    left_a, left_b = np.arange(len(keys[0])), np.arange(len(keys[1]))
    both = [key * n + bytes_ for key, bytes_ in zip(keys, content, strict=True)]
    same, left_a, left_b = _pair(both, left_a, left_b)
    known = [rows[content[side][rows] > 0] for side, rows in enumerate((left_a, left_b))]
    moved, _, _ = _pair(content, known[0], known[1])
    left_a, left_b = np.setdiff1d(left_a, moved[:, 0]), np.setdiff1d(left_b, moved[:, 1])
    changed, left_a, left_b = _pair(keys, left_a, left_b)
    scored = [np.flatnonzero(run.scored) for run in (a, b)]
    common = [
        run.scored & np.isin(content[i], content[1 - i][scored[1 - i]]) & (content[i] > 0)
        for i, run in enumerate((a, b))
    ]
    return Changes(
        same,
        moved,
        changed,
        left_a,
        left_b,
        _reassessed(a, b, content, common),
        (common[0], common[1]),
    )


def write_changes(path: Path, changes: Changes, a: FinishedRun, b: FinishedRun) -> None:
    """Writes the items that are not the same, a row each."""
    pairs: dict[str, tuple[Any, Any]] = {
        "added": (np.full(len(changes.added), -1), changes.added),
        "removed": (changes.removed, np.full(len(changes.removed), -1)),
    }
    for name in ("changed", "moved", "reassessed"):
        found = getattr(changes, name)
        pairs[name] = (found[:, 0], found[:, 1])
    rows = [np.concatenate([pairs[name][side] for name in CHANGES]) for side in (0, 1)]
    words = [name for name in CHANGES for _ in range(len(pairs[name][0]))]
    columns = {"change": pa.array(words, pa.string())}
    for side, run, chosen in (("a", a, rows[0]), ("b", b, rows[1])):
        taken = run.items.take(pa.array(chosen, mask=chosen < 0))
        for name in ("key", "sha256", "status", "evidence", "score", "flagged"):
            columns[f"{name}_{side}"] = taken[name]
    table = pa.table([columns[name] for name in CHANGED.names], names=CHANGED.names).cast(CHANGED)
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _codes(a: FinishedRun, b: FinishedRun, name: str) -> list[Int64[np.ndarray, " _"]]:
    """The values of a column as numbers from 1 that are the same in both runs; 0 for null."""
    chunks = [*a.items[name].chunks, *b.items[name].chunks]
    encoded = pa.chunked_array(chunks, a.items[name].type).combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return [codes[: a.items.num_rows], codes[a.items.num_rows :]]


def _pair(
    codes: list[Int64[np.ndarray, " _"]], rows_a: Int64[np.ndarray, " _"], rows_b: Int64[np.ndarray, " _"]
) -> tuple[Int64[np.ndarray, "p 2"], Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
    """Pairs of rows with one code, each row once and in order, and the rows that are left of either side."""
    found, ranks = [codes[0][rows_a], codes[1][rows_b]], []
    for values in found:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.zeros(0, int)
        rank = np.empty(len(values), np.int64)
        rank[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
        ranks.append(rank)
    # codes and ranks together as one number: codes are made dense first
    _, dense = np.unique(np.concatenate(found), return_inverse=True)
    size = max((int(rank.max()) + 1 for rank in ranks if len(rank)), default=1)
    joined = [dense[: len(rows_a)] * size + ranks[0], dense[len(rows_a) :] * size + ranks[1]]
    _, at_a, at_b = np.intersect1d(*joined, assume_unique=True, return_indices=True)
    order = np.argsort(at_a)
    pairs = np.stack([rows_a[at_a[order]], rows_b[at_b[order]]], axis=1).astype(np.int64)
    return pairs, np.delete(rows_a, at_a), np.delete(rows_b, at_b)


def _reassessed(
    a: FinishedRun,
    b: FinishedRun,
    content: list[Int64[np.ndarray, " _"]],
    common: list[Bool[np.ndarray, " _"]],
) -> Int64[np.ndarray, "x 2"]:
    """Pairs of scored items with the same bytes whose findings or flags are not the same."""
    pairs, _, _ = _pair(content, np.flatnonzero(common[0]), np.flatnonzero(common[1]))
    first, second = pairs[:, 0], pairs[:, 1]
    other = (
        (a.hit[first] != b.hit[second])
        | (a.answered[first] != b.answered[second])
        | (a.flagged[first] != b.flagged[second])
    )
    return pairs[other]
