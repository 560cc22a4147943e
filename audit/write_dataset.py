"""The filtered pool as a Hugging Face data set that `datasets.load_from_disk` opens; nothing is decoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import pyarrow as pa

from poolproof.audit.huggingface import DatasetReader
from poolproof.audit.parquet import ParquetReader
from poolproof.audit.pool import one_line
from poolproof.audit.write_file_rows import make_rows
from poolproof.audit.write_kept import KeptItem
from poolproof.audit.write_parquet import in_groups
from poolproof.audit.write_pool import AbstractWriter
from poolproof.audit.write_rows import AbstractRows
from poolproof.errors import InputError
from poolproof.files import hash_file, hash_json

_INFO = ("description", "citation", "homepage", "license")


@final
@dataclass(frozen=True)
class DatasetWriter(AbstractWriter):
    """Arrow files `data-00000-of-00003.arrow` with `dataset_info.json` and `state.json`.

    The rows of a data set keep all columns. Written here and not by the library, which would read all rows anew
    after a stop, and names them after the moment.
    """

    format: ClassVar[str] = "dataset"
    opens_as: ClassVar[str] = "dataset"
    pattern: ClassVar[str] = "pool/*.arrow"

    @cached_property
    def rows(self) -> AbstractRows:
        """Makes the rows."""
        return make_rows(self.kept)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all rows.

        Raises:
            InputError: the files of the pool differ in the types of their columns.
        """
        sources = dict.fromkeys(item.ref.source for item in self.kept.items())
        try:
            schema = pa.unify_schemas([self.rows.schema(source) for source in sources])
        except pa.ArrowException as error:
            raise InputError(
                f"the files of the pool differ in their columns ({one_line(error)}); use the format parquet"
            ) from error
        plain = [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in schema
        ]
        return _features(pa.schema(plain, metadata=schema.metadata)).arrow_schema

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Writes one Arrow file."""
        n_units = len(self.bounds()) - 1
        path = self.place.pool / f"data-{unit:05d}-of-{n_units:05d}.arrow"
        with self.place.file(path) as handle, pa.ipc.new_stream(handle, self.schema) as writer:
            for group in self._groups(self.kept.items(start, stop)):
                writer.write_table(group)
        return {
            "name": self.relative(path),
            "items": stop - start,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }

    def finish(self, units: Sequence[dict[str, Any]]) -> None:
        """Writes what the library wants to know."""
        info: dict[str, Any] = dict.fromkeys(_INFO, "")
        if isinstance(self.kept.reader, DatasetReader):
            before = self.kept.reader.load().info
            info = {name: getattr(before, name) or "" for name in _INFO}
        info["features"] = _features(self.schema).to_dict()
        self.place.json(self.place.pool / "dataset_info.json", info)
        state = {
            "_data_files": [{"filename": unit["name"].rpartition("/")[2]} for unit in units],
            "_fingerprint": hash_json([unit["sha256"] for unit in units])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        self.place.json(self.place.pool / "state.json", state)

    def _groups(self, items: Iterator[KeptItem]) -> Iterator[pa.Table]:
        table = isinstance(self.kept.reader, ParquetReader)  # of which each file has columns of its own
        for _, run in itertools.groupby(items, key=lambda item: item.ref.source if table else ""):
            first = next(run)
            source = self.rows.schema(first.ref.source)
            for group in in_groups(self.rows, itertools.chain((first,), run), source):
                yield _completed(group, self.schema)


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of the schema in its order, those that it lacks null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _features(schema: pa.Schema) -> Any:
    import datasets

    return datasets.Features.from_arrow_schema(schema)
