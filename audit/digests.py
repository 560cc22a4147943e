"""Content hashes of a pool: which items are copies, which are known elsewhere, and in which fold each falls.

Hashes of a large pool are dealt by their first bits into files without names, and one of these is looked at at
a time: equal hashes meet in the same file. So memory holds two bits of knowledge an item, not its hash.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported, where no type checker sees them.
from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int, UInt64

BUCKET_ITEMS: Final = 1 << 21
"""Items that are looked at together; 24 bytes each in the file, about 100 while they are sorted."""

MOST_BUCKETS: Final = 256
"""Files that are open at a time; systems allow 1024 as a rule."""

_RECORD: Final = np.dtype([("digest", "<u8", (2,)), ("position", "<i8")])


@dataclass(frozen=True)
class Digests:
    """The content hashes of a pool on disk, by their first bits.

    Attributes:
        scored: whether each item was scored, in the plan's order.
        buckets: files of hashes with their positions in the plan, -1 where the item was not scored.
    """

    scored: Bool[np.ndarray, " n"]
    buckets: tuple[IO[bytes], ...]

    def duplicates(self) -> Bool[np.ndarray, " n"]:
        """Which items have the same bytes as an earlier scored one."""
        repeated = np.zeros(len(self.scored), bool)
        for records in self._records():
            records = records[records["position"] >= 0]
            copies = find_duplicates(records["digest"], np.ones(len(records), bool))
            repeated[records["position"][copies]] = True
        return repeated

    def holds(self, others: UInt64[np.ndarray, "m 2"]) -> Bool[np.ndarray, " m"]:
        """Which of other hashes occur in the pool."""
        found = np.zeros(len(others), bool)
        if not len(others):
            return found
        homes = _bucket_of(others, len(self.buckets))
        for home, records in enumerate(self._records()):
            mine = np.flatnonzero(homes == home)
            if len(mine):
                found[mine] = find_members(others[mine], records["digest"])
        return found

    def count_scored(self, others: UInt64[np.ndarray, "m 2"]) -> int:
        """How many scored items of the pool, copies included, occur among other hashes."""
        if not len(others):
            return 0
        return sum(
            int(find_members(records["digest"][records["position"] >= 0], others).sum())
            for records in self._records()
        )

    def _records(self) -> Iterator[np.ndarray]:
        """The buckets, one in memory at a time."""
        for file in self.buckets:
            file.seek(0)
            yield np.frombuffer(file.read(), _RECORD)


@contextlib.contextmanager
def deal_digests(
    parts: Iterable[pa.Table], n_items: int, folder: Path, *, bucket_items: int = BUCKET_ITEMS
) -> Iterator[Digests]:
    """The hashes of a pool, dealt into files that vanish when the block ends, or with the process.

    Args:
        parts: evidence in the plan's order, with `sha256` and `status`.
        n_items: how many there are, which settles the number of files.
        folder: has room for 24 bytes an item.
        bucket_items: about so many in a file.
    """
    n_buckets = 1
    while n_buckets < MOST_BUCKETS and n_buckets * bucket_items < n_items:
        n_buckets *= 2
    scored: list[np.ndarray] = [np.zeros(0, bool)]
    start = 0
    with contextlib.ExitStack() as stack:
        buckets = tuple(
            stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=1 << 18))
            for _ in range(n_buckets)
        )
        for part in parts:
            records = np.empty(part.num_rows, _RECORD)
            records["digest"] = part_digests(part)
            told = part_scored(part)
            records["position"] = np.where(told, np.arange(start, start + part.num_rows), -1)
            scored.append(told)
            start += part.num_rows
            for file, mine in zip(buckets, _split(records, n_buckets), strict=True):
                file.write(mine.tobytes())
        yield Digests(np.concatenate(scored), buckets)


def _split(records: np.ndarray, n_buckets: int) -> list[np.ndarray]:
    """The records of each bucket, in their order."""
    homes = _bucket_of(records["digest"], n_buckets)
    order = np.argsort(homes, kind="stable")
    bounds = np.searchsorted(homes[order], np.arange(1, n_buckets))
    return np.split(records[order], bounds)


def _bucket_of(digests: UInt64[np.ndarray, "n 2"], n_buckets: int) -> Int[np.ndarray, " n"]:
    return (digests[:, 0] & np.uint64(n_buckets - 1)).astype(np.int16)


def part_digests(part: pa.Table) -> UInt64[np.ndarray, "n 2"]:
    """The first 16 bytes of the hash of each item of a part of the evidence, zeros where there is none.

    128 bits: among 10^9 items two different ones agree with probability below 10^-20.
    """
    found = []
    for chunk in part.column("sha256").chunks:
        filled = pc.fill_null(chunk, pa.scalar(bytes(32), pa.binary(32))) if chunk.null_count else chunk
        words = np.frombuffer(filled.buffers()[1], "<u8")[4 * filled.offset :][: 4 * len(filled)]
        found.append(words.reshape(-1, 4)[:, :2])
    return np.concatenate(found) if found else np.zeros((0, 2), np.uint64)


def part_scored(part: pa.Table) -> Bool[np.ndarray, " n"]:
    """Which items of a part of the evidence were scored."""
    return np.asarray(pc.equal(part.column("status"), "scored").to_numpy(), bool)


def find_duplicates(
    digests: UInt64[np.ndarray, "n 2"], scored: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which items have the same bytes as an earlier scored one."""
    places = np.flatnonzero(scored)
    order = places[np.lexsort((digests[places, 1], digests[places, 0]))]  # equal ones stay in their order
    ordered = digests[order]
    repeated = np.zeros(len(digests), bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return repeated


def find_members(
    digests: UInt64[np.ndarray, "n 2"], others: UInt64[np.ndarray, "m 2"]
) -> Bool[np.ndarray, " n"]:
    """Which digests occur among the others."""
    found = np.isin(digests[:, 0], others[:, 0])
    candidates = np.flatnonzero(found)
    if len(candidates):
        halves = np.isin(others[:, 0], digests[candidates, 0])
        known = {tuple(pair) for pair in others[halves].tolist()}
        found[candidates] = [tuple(pair) in known for pair in digests[candidates].tolist()]
    return found


def fold_of(digests: UInt64[np.ndarray, "n 2"], folds: int) -> Int[np.ndarray, " n"]:
    """The cross-fitting fold of each item, from its content alone: order and shards do not matter."""
    return (digests[:, 0] % np.uint64(folds)).astype(np.int64)
