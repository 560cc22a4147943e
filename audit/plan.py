"""The plan: which items are scored in which shard, written once so that every machine does the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from poolproof.audit.pool import LISTING, AbstractReader, FolderReader, ItemRef, Pool, Unread, one_line
from poolproof.errors import InputError
from poolproof.files import hash_file, replace_file

SHARD_SIZES: Final = (32, 1024, 8192)
"""Items of a shard where none is asked for: the least, the most of a common pool, and of a very large one."""

MOST_SHARDS: Final = 1 << 14
"""Shards of a pool, before they grow beyond the common size: each is a row group in the footers of the plan and of
the items, which are held whole by whoever opens them, and a file."""

_STRETCH: Final = 1 << 16
"""Rows of the listing that are looked at together."""

_META: Final = b"poolproof.plan"

_ROWS: Final = pa.schema(
    [pa.field("row", pa.int64()), *(field for field in LISTING if field.name != "group")]
)


@dataclass(frozen=True)
class Shard:
    """A unit of work: the same items in the same order wherever it runs."""

    index: int
    reader: AbstractReader
    refs: tuple[ItemRef, ...]


@dataclass(frozen=True)
class Plan:
    """A plan file that was written or found. Row group i of the file is shard i.

    Attributes:
        sizes: items of each shard.
        n_pool: items of the pool, more than the plan's where it is sampled.
        meta: pool kind, root, reader options, sample size, ignored files.
    """

    path: Path
    sha256: str
    sizes: tuple[int, ...]
    n_pool: int
    meta: Mapping[str, Any]

    @property
    def n_shards(self) -> int:
        """How many shards there are."""
        return len(self.sizes)

    @property
    def n_items(self) -> int:
        """How many items are scored."""
        return sum(self.sizes)

    @cached_property
    def _footer(self) -> pq.FileMetaData:
        """Where the row groups lie: parsed once a process, since that of a large plan takes a while."""
        return pq.read_metadata(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_footer"}

    def table(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """The rows of one shard, read from its row group alone."""
        with pq.ParquetFile(self.path, metadata=self._footer) as file:
            return file.read_row_group(index, columns=columns, use_threads=False)

    def shard(self, index: int) -> Shard:
        """One shard, as a scorer takes it."""
        return Shard(index, open_reader(self.meta["reader"]), tuple(_refs(self.table(index))))

    def read_rows(self, rows: Sequence[int]) -> Iterator[tuple[int, bytes | Unread]]:
        """Row and encoded bytes of some items by their row in the pool, in the order of the pool.

        Rows that the plan does not hold are left out. Memory holds the plan's row groups that are needed.
        """
        if not rows:
            return
        wanted = pc.field("row").isin(pa.array(sorted(set(rows)), pa.int64()))
        refs = _refs(pq.read_table(self.path, filters=wanted))
        reader = open_reader(self.meta["reader"])
        for ref, data in zip(refs, reader.read(refs), strict=True):
            yield ref.row, data


def make_plan(
    pool: Pool,
    path: Path,
    *,
    rng: np.random.Generator,
    shard_size: int | None = None,
    sample: int | None = None,
) -> Plan:
    """The plan of a pool, written to `path`.

    Args:
        pool: an opened pool.
        path: where the plan file goes.
        rng: draws the sample.
        shard_size: items a shard, at most; None for a size that suits the pool, see `suit_shard_size`.
        sample: score only so many items, drawn uniformly without replacement; None for all.

    Raises:
        InputError: the pool is empty, or the sample or shard size is below 1.
    """
    n_pool = len(pool)
    if n_pool == 0:
        raise InputError(
            f"pool {str(pool.root)!r} holds no images ({pool.n_ignored} other files); nothing to do"
        )
    if shard_size is not None and shard_size < 1:
        raise InputError(f"shard size is {shard_size}; it must be at least 1")
    if sample is not None and sample < 1:
        raise InputError(f"--sample is {sample}; it must be at least 1, or left out to score every item")
    rows = None
    if sample is not None and sample < n_pool:
        rows = np.sort(rng.choice(n_pool, size=sample, replace=False))
    n_items = n_pool if rows is None else len(rows)
    shard_size = shard_size or suit_shard_size(n_items)
    meta = {
        "reader": describe_reader(pool.reader),
        "n_pool": n_pool,
        "n_ignored": pool.n_ignored,
        "sample": None if rows is None else len(rows),
        "shard_size": shard_size,
    }
    schema = _ROWS.with_metadata({_META: json.dumps(meta, sort_keys=True).encode()})
    ends = _cut(_find_changes(_stretches(pool, rows)), n_items, shard_size)[1:]
    with replace_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for shard in _cut_stretches(_stretches(pool, rows), ends):
            table = shard.select(_ROWS.names).combine_chunks().cast(schema)
            writer.write_table(table, row_group_size=shard_size)
    return read_plan(path)


def suit_shard_size(n_items: int) -> int:
    """Items a shard for a pool: a stop costs seconds in a small one, and a large one has not too many files."""
    least, common, most = SHARD_SIZES
    return max(min(max(n_items // 64, least), common), min(n_items // MOST_SHARDS, most))


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        metadata = pq.read_metadata(path)
        meta = json.loads(pq.read_schema(path).metadata[_META])
        sizes = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return Plan(path, hash_file(path), sizes, meta["n_pool"], meta)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"no plan at {str(path)!r}; give a folder that `poolproof audit` wrote") from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"plan {str(path)!r} is damaged ({one_line(error)}); remove the run and start it again"
        ) from error


def describe_reader(reader: AbstractReader) -> dict[str, str]:
    """The reader as the plan stores it, its root absolute: a run may go on from another working folder."""
    options = {name: str(value) for name, value in vars(reader).items()}
    return {"kind": reader.kind, **options, "root": str(reader.root.absolute())}


def open_reader(description: Mapping[str, str]) -> AbstractReader:
    """The reader that a plan describes."""
    kind, root = description["kind"], Path(description["root"])
    if kind == "folder":
        return FolderReader(root)
    if kind == "webdataset":
        from poolproof.audit.webdataset import TarReader

        return TarReader(root)
    if kind == "parquet":
        from poolproof.audit.parquet import ParquetReader

        return ParquetReader(root, description["column"])
    from poolproof.audit.huggingface import DatasetReader

    return DatasetReader(root, description["name"], description["column"])


def _refs(table: pa.Table) -> list[ItemRef]:
    columns = [table.column(name).to_pylist() for name in ("row", "key", "source", "offset", "n_bytes")]
    return [ItemRef(*values) for values in zip(*columns, strict=True)]


def _stretches(pool: Pool, rows: Int[np.ndarray, " n"] | None) -> Iterator[pa.Table]:
    """The listing with its row numbers, stretch by stretch; of drawn rows those alone."""
    start = 0
    for stretch in pool.stretches(_STRETCH):
        stop = start + stretch.num_rows
        numbers = np.arange(start, stop)
        if rows is not None:
            numbers = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            stretch = stretch.take(pa.array(numbers - start))
        start = stop
        if stretch.num_rows:
            yield stretch.add_column(0, _ROWS.field("row"), pa.array(numbers, pa.int64()))


def _find_changes(stretches: Iterator[pa.Table]) -> Int[np.ndarray, " m"]:
    """The places before which the group is another than before them."""
    changes, start, last = [np.zeros(0, np.int64)], 0, None
    for stretch in stretches:
        groups = stretch.column("group").to_numpy()
        first = groups[0] if last is None else last
        changes.append(np.flatnonzero(np.diff(groups, prepend=first)) + start)
        start, last = start + len(groups), groups[-1]
    return np.concatenate(changes)


def _cut(changes: Int[np.ndarray, " m"], n: int, shard_size: int) -> list[int]:
    """Where shards begin and end: at the size, or at a change of tar or row group once half full."""
    bounds = [0]
    while bounds[-1] < n:
        start = bounds[-1]
        stop = min(start + shard_size, n)
        first = np.searchsorted(changes, start + max(1, shard_size // 2))
        behind = np.searchsorted(changes, stop)
        if stop < n and first < behind:
            stop = int(changes[behind - 1])
        bounds.append(stop)
    return bounds


def _cut_stretches(stretches: Iterator[pa.Table], ends: Sequence[int]) -> Iterator[pa.Table]:
    """The shards that end at the given places; memory holds one and a stretch."""
    held: list[pa.Table] = []
    start = 0
    remaining = iter(ends)
    end = next(remaining, None)
    for stretch in stretches:
        taken = 0
        while end is not None and end <= start + stretch.num_rows:
            held.append(stretch.slice(taken, end - start - taken))
            taken = end - start
            yield pa.concat_tables(held)
            held = []
            end = next(remaining, None)
        held.append(stretch.slice(taken))
        start += stretch.num_rows
