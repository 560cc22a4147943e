"""The plan: which items are scored in which shard, written once so that every machine does the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolproof.audit.pool import AbstractReader, FolderReader, ItemRef, Pool, Unread, one_line
from poolproof.errors import InputError
from poolproof.files import hash_file, replace_file

SHARD_SIZES: Final = (32, 1024)
"""Least and most items of a shard where none is asked for."""

_META: Final = b"poolproof.plan"


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

    def shard(self, index: int) -> Shard:
        """One shard, read from its row group alone."""
        with pq.ParquetFile(self.path) as file:
            table = file.read_row_group(index)
        return Shard(index, open_reader(self.meta["reader"]), tuple(_refs(table)))

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
    rows = np.arange(n_pool)
    if sample is not None and sample < n_pool:
        rows = np.sort(rng.choice(n_pool, size=sample, replace=False))
    items = pool.items.take(pa.array(rows)) if len(rows) < n_pool else pool.items
    table = items.drop_columns("group").add_column(0, "row", pa.array(rows, pa.int64()))
    shard_size = shard_size or suit_shard_size(len(rows))
    meta = {
        "reader": describe_reader(pool.reader),
        "n_pool": n_pool,
        "n_ignored": pool.n_ignored,
        "sample": None if len(rows) == n_pool else len(rows),
        "shard_size": shard_size,
    }
    schema = table.schema.with_metadata({_META: json.dumps(meta, sort_keys=True).encode()})
    table = table.cast(schema)
    bounds = _shard_bounds(items.column("group").to_numpy(), shard_size)
    with replace_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start, stop in itertools.pairwise(bounds):
            writer.write_table(table.slice(start, stop - start), row_group_size=shard_size)
    return read_plan(path)


def suit_shard_size(n_items: int) -> int:
    """Items a shard for a pool: a stop costs seconds in a small one, and a large one has not too many files."""
    least, most = SHARD_SIZES
    return min(max(n_items // 64, least), most)


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


def _shard_bounds(groups: np.ndarray, shard_size: int) -> list[int]:
    """Where shards begin and end: at the size, or at a change of tar or row group once half full."""
    changes = np.flatnonzero(np.diff(groups)) + 1
    bounds, n = [0], len(groups)
    while bounds[-1] < n:
        start = bounds[-1]
        stop = min(start + shard_size, n)
        inside = changes[np.searchsorted(changes, start + max(1, shard_size // 2)) :]
        if stop < n and len(inside) and inside[0] < stop:
            stop = int(inside[np.searchsorted(inside, stop) - 1])
        bounds.append(stop)
    return bounds
