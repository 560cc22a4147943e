"""Kept items as the rows of the table that they come from, with all their columns."""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

import pyarrow as pa

from poolproof.audit.huggingface import DatasetReader
from poolproof.audit.parquet import ParquetReader
from poolproof.audit.paths import path_of, readable
from poolproof.audit.pool import one_line
from poolproof.audit.write_kept import Kept, KeptItem, changed, check_bytes
from poolproof.errors import InputError

IMAGE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How Hugging Face stores an image."""

_META: Final = b"huggingface"

Rows = tuple[list[KeptItem], pa.Table, list[bytes]]
"""Some items, their rows, and their images."""


@dataclass(frozen=True)
class StoredRows:
    """The rows of a table pool as they are stored."""

    reader: ParquetReader | DatasetReader

    @cached_property
    def dataset(self) -> Any:
        """The data set, opened once; None for Parquet."""
        return self.reader.load() if isinstance(self.reader, DatasetReader) else None

    def schema(self, source: str) -> pa.Schema:
        """The columns of the items of one source.

        Raises:
            InputError: it is gone, or damaged.
        """
        if isinstance(self.reader, DatasetReader):
            return self.dataset.features.arrow_schema
        try:
            return self.reader.schema(source)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"the pool changed since the audit: {readable(path_of(source))!r} ({one_line(error)}); audit it again"
            ) from error

    def read(self, items: Sequence[KeptItem]) -> Iterator[Rows]:
        """A few rows at a time, their images checked.

        Raises:
            InputError: the pool changed since the audit.
        """
        n_read = 0
        refs = [item.ref for item in items]
        try:
            found = (
                self.reader.rows(self.dataset, refs)
                if isinstance(self.reader, DatasetReader)
                else self.reader.rows(refs)
            )
            for table, images in found:
                several = list(items[n_read : n_read + table.num_rows])
                n_read += table.num_rows
                checked = [check_bytes(item, data) for item, data in zip(several, images, strict=True)]
                yield several, table, checked
        except (pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
            raise changed(items[n_read], f"its row cannot be read: {one_line(error)}") from error
        if n_read < len(items):
            raise changed(items[n_read], "its row is not there any more")


class AbstractRows(abc.ABC):
    """Makes the rows that are written."""

    @abc.abstractmethod
    def schema(self, source: str) -> pa.Schema:
        """The columns of the rows that come from one source."""

    @abc.abstractmethod
    def read(self, items: Sequence[KeptItem]) -> Iterator[pa.Table]:
        """The rows of the items, a few at a time, with the columns of their source."""


@final
@dataclass(frozen=True)
class TableRows(AbstractRows):
    """Stored rows, all columns untouched, and what they lack to stand alone.

    An image that is only a path gets its bytes: a struct has them filled in, else a column `image` comes first.
    A column `key` is added where a key is no more than the place in the pool, and `weight` where weights differ.
    """

    kept: Kept
    rows: StoredRows

    def schema(self, source: str) -> pa.Schema:
        """The stored columns and those that are added."""
        schema = self.rows.schema(source)
        metadata = dict(schema.metadata or {})
        front, back = self._added(schema)
        fields = [*front, *schema, *back]
        added = {field.name: feature_of(field.type) for field in (*front, *back)}
        return pa.schema(fields, metadata=with_features(metadata, added) if added else metadata)

    def read(self, items: Sequence[KeptItem]) -> Iterator[pa.Table]:
        """The stored rows, completed."""
        for several, table, images in self.rows.read(items):
            front, back = self._added(table.schema)
            column = self.rows.reader.column
            for field in front:
                cells = table.column(column).to_pylist()
                names = [os.path.basename(_path(cell) or "") or None for cell in cells]
                pairs = [{"bytes": data, "path": name} for data, name in zip(images, names, strict=True)]
                table = table.add_column(0, field, pa.array(pairs, field.type))
            if not front:
                table = _fill(table, column, images)
            for field in back:
                values = (
                    [item.ref.key for item in several]
                    if pa.types.is_string(field.type)
                    else [item.weight for item in several]
                )
                table = table.append_column(field, pa.array(values, field.type))
            yield table

    def _added(self, schema: pa.Schema) -> tuple[list[pa.Field], list[pa.Field]]:
        """Fields that go in front of the stored ones, and behind them."""
        kind = schema.field(self.rows.reader.column).type
        holds_bytes = not pa.types.is_struct(kind) or kind.get_field_index("bytes") >= 0
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
        front = [pa.field(_free("image", schema), IMAGE)] if is_text or not holds_bytes else []
        back = [pa.field("key", pa.string())] if self._names_places and "key" not in schema.names else []
        if self.kept.weighted:
            back.append(pa.field(_free("weight", schema), pa.float32()))
        return front, back

    @cached_property
    def _names_places(self) -> bool:
        """Whether some key only says where the item lies, and would change with its place."""
        return any(_is_place(item) for item in self.kept.items())


def open_rows(kept: Kept) -> StoredRows:
    """The rows of a table pool."""
    if not isinstance(kept.reader, ParquetReader | DatasetReader):
        raise TypeError(f"a pool of kind {kept.kind} has no rows")
    return StoredRows(kept.reader)


def holds_rows(kept: Kept) -> bool:
    """Whether the pool is a table."""
    return isinstance(kept.reader, ParquetReader | DatasetReader)


def _is_place(item: KeptItem) -> bool:
    ref = item.ref
    return ref.key in (f"{readable(path_of(ref.source))}#{ref.offset}", f"row-{ref.offset:08d}")


def _fill(table: pa.Table, column: str, images: Sequence[bytes]) -> pa.Table:
    """The table with the bytes of images of which it has the path alone."""
    at = table.column_names.index(column)
    field = table.schema.field(at)
    if not pa.types.is_struct(field.type):
        return table
    cells = table.column(at).to_pylist()
    if all(cell["bytes"] is not None for cell in cells):
        return table
    filled = [cell | {"bytes": data} for cell, data in zip(cells, images, strict=True)]
    return table.set_column(at, field, pa.array(filled, field.type))


def _path(cell: Any) -> str | None:
    path = cell.get("path") if isinstance(cell, dict) else cell
    return path if isinstance(path, str) else None


def _free(name: str, schema: pa.Schema) -> str:
    return name if name not in schema.names else f"poolproof_{name}"


def feature_of(kind: pa.DataType) -> dict[str, Any] | None:
    """What Hugging Face calls a column; None for one that it infers."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_string(kind):
        return {"dtype": "string", "_type": "Value"}
    if pa.types.is_float32(kind):
        return {"dtype": "float32", "_type": "Value"}
    return None


def with_features(
    metadata: Mapping[bytes, bytes], added: Mapping[str, dict[str, Any] | None]
) -> dict[bytes, bytes]:
    """The schema's metadata with the added columns among the features that `datasets` reads."""
    noted = dict(metadata)
    try:
        stated = json.loads(noted.get(_META, b"{}"))
        features = stated.setdefault("info", {}).setdefault("features", {})
        features.update({name: feature for name, feature in added.items() if feature is not None})
    except (ValueError, AttributeError):  # a stranger's metadata of another form stays as it is
        return noted
    noted[_META] = json.dumps(stated).encode()
    return noted
