"""The filtered pool as Parquet: the kept rows with all their columns, or rows made of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.parquet import ParquetReader
from poolproof.audit.paths import path_of
from poolproof.audit.write_file_rows import make_rows
from poolproof.audit.write_kept import KeptItem
from poolproof.audit.write_names import is_safe_path
from poolproof.audit.write_pool import AbstractWriter, in_batches
from poolproof.audit.write_rows import AbstractRows
from poolproof.errors import InputError
from poolproof.files import hash_file

_GROUP_BYTES: Final = 64 << 20
_GROUP_ROWS: Final = 10_000
"""A row group ends at either: readers hold one in memory."""


@final
@dataclass(frozen=True)
class ParquetWriter(AbstractWriter):
    """Parquet files: of a Parquet pool one for each of its files, under its path; else `00000000.parquet`."""

    format: ClassVar[str] = "parquet"
    opens_as: ClassVar[str] = "parquet"
    pattern: ClassVar[str] = "pool/**/*.parquet"

    @cached_property
    def rows(self) -> AbstractRows:
        """Makes the rows."""
        return make_rows(self.kept)

    def bounds(self) -> list[int]:
        """Units are the files of a Parquet pool, or end at their size."""
        if not isinstance(self.kept.reader, ParquetReader):
            return super().bounds()
        bounds, last = [], ""
        for position, item in enumerate(self.kept.items()):
            if not bounds or item.ref.source != last:
                bounds.append(position)
                last = item.ref.source
        return [*bounds, len(self.kept)]

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Writes one file."""
        items = self.kept.items(start, stop)
        first = next(self.kept.items(start, start + 1))
        path = self.place.pool / self._name(unit, first)
        schema = self.rows.schema(first.ref.source)
        with (
            self.place.file(path) as handle,
            pq.ParquetWriter(handle, schema, compression="zstd") as writer,
        ):
            for group in in_groups(self.rows, items, schema):
                writer.write_table(group, row_group_size=group.num_rows)
        return {
            "name": self.relative(path)
            .encode("utf-8", "surrogateescape")
            .decode("utf-8", "backslashreplace"),
            "items": stop - start,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }

    def _name(self, unit: int, first: KeptItem) -> str:
        if not isinstance(self.kept.reader, ParquetReader):
            return f"{unit:08d}.parquet"
        name = path_of(first.ref.source)
        if not is_safe_path(name):
            raise InputError(f"plan: item {first.ref.key!r} lies outside its pool; audit the pool again")
        return name


def in_groups(rows: AbstractRows, items: Iterator[KeptItem], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the items in tables that fit into memory; where they are cut depends on the items alone."""
    tables: list[pa.Table] = []
    n_rows = n_bytes = 0
    for batch in in_batches(items):
        for table in rows.read(batch):
            tables.append(table)
            n_rows += table.num_rows
            n_bytes += table.nbytes
            if n_rows >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
                yield _joined(tables, schema)
                tables, n_rows, n_bytes = [], 0, 0
    if tables:
        yield _joined(tables, schema)


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    joined = pa.concat_tables([table.replace_schema_metadata(schema.metadata) for table in tables])
    return joined.cast(schema).unify_dictionaries()
