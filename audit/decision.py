"""The decision on a pool: keep or not, weight and reason per item, and the file that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.pool import one_line
from poolproof.errors import InputError
from poolproof.files import replace_file

DECISION_VERSION: Final = 1
"""Of `decision.parquet` and `decision.json`. Raised when a field changes its meaning."""

DECISION: Final = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False, metadata={"doc": "position in the pool, from 0"}),
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "the item's name in the pool"}),
        pa.field("source", pa.string(), nullable=False, metadata={"doc": "file that holds it"}),
        pa.field("sha256", pa.binary(32), metadata={"doc": "of the encoded bytes that were judged"}),
        pa.field("keep", pa.bool_(), nullable=False, metadata={"doc": "whether it stays"}),
        pa.field("weight", pa.float32(), nullable=False, metadata={"doc": "in training; 0 where not kept"}),
        pa.field("reason", pa.string(), nullable=False, metadata={"doc": "`code: detail`, or `kept`"}),
    ]
)
"""Columns of `decision.parquet`. Row group i of the file is shard i of the run's plan."""

_META: Final = b"poolproof.decision"


@dataclass(frozen=True)
class DecisionFile:
    """A decision on disk.

    Attributes:
        path: of the Parquet file.
        header: `schema_version`, `plan_sha256` and `items_sha256` of the run that it is about, and `policy` with its
            options.
        sizes: items of each shard.
    """

    path: Path
    header: Mapping[str, Any]
    sizes: tuple[int, ...]

    def shard(self, index: int) -> pa.Table:
        """The decision on the items of one shard, in the plan's order."""
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(index)

    def shards(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The decision shard by shard."""
        with pq.ParquetFile(self.path) as file:
            for index in range(len(self.sizes)):
                yield file.read_row_group(index, columns=columns)


def write_decision(path: Path, header: Mapping[str, Any], shards: Iterator[pa.Table]) -> DecisionFile:
    """The decision as written to `path`, atomically.

    Args:
        path: the Parquet file.
        header: see `DecisionFile`; the version is added.
        shards: one table of schema `DECISION` for each shard of the plan, in its order.
    """
    told = {"schema_version": DECISION_VERSION, **header}
    schema = DECISION.with_metadata({_META: json.dumps(told, sort_keys=True).encode()})
    with replace_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in shards:
            writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
    return read_decision(path)


def read_decision(path: Path) -> DecisionFile:
    """The decision in a file.

    Raises:
        InputError: there is none, it is damaged, or of another version.
    """
    try:
        with pq.ParquetFile(path) as file:
            header = json.loads((file.schema_arrow.metadata or {})[_META])
            sizes = tuple(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
            columns = file.schema_arrow.names
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"no decision at {str(path)!r}; give a folder that `poolproof filter` wrote"
        ) from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"decision {str(path)!r} is damaged ({one_line(error)}); remove it and decide again"
        ) from error
    if header.get("schema_version") != DECISION_VERSION or columns != DECISION.names:
        raise InputError(
            f"decision {str(path)!r}: got version {header.get('schema_version')}, allowed {DECISION_VERSION}; "
            "decide again"
        )
    return DecisionFile(path, header, sizes)
