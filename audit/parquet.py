"""Pools in Parquet: an image struct of bytes and path (as Hugging Face writes it), bytes, or paths."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.listing import collect_listing
from poolproof.audit.paths import find_files, is_inside, path_of, readable, storable
from poolproof.audit.pool import LISTING, AbstractReader, ItemRef, Pool, Unread, one_line, read_file
from poolproof.errors import InputError

KEY_COLUMNS: Final = ("key", "uid", "id", "__key__", "file_name", "filename", "path", "url")
"""Columns that name an item, the first that is there; else `FILE#ROW`."""

_IMAGE_COLUMNS: Final = ("image", "img", "bytes", "image_bytes", "jpg", "png", "webp", "content", "data")
_PATH_COLUMNS: Final = ("image_path", "file_path", "path", "file_name", "filename")

_BUFFER: Final = 1 << 20
"""Bytes read at a time; without it pyarrow holds the images of a whole row group in memory."""

_BATCH: Final = 16
"""Rows taken at a time. A damaged page costs those of its batch that lie before it."""


@final
@dataclass(frozen=True)
class ParquetReader(AbstractReader):
    """Reads rows of Parquet files; a file is streamed once over the rows that are asked for."""

    root: Path
    column: str
    kind = "parquet"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each row's encoded image; references to one file must ascend."""
        for source, run in itertools.groupby(refs, key=lambda ref: ref.source):
            path = self.root / path_of(source)
            values = _read_rows(path, self.column, [ref.offset for ref in run])
            for value in values:
                yield value if isinstance(value, Unread) else image_bytes(value, path.parent, self.root)

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Nothing: a row's other columns stay in its file."""
        del ref
        return {}

    def schema(self, source: str) -> pa.Schema:
        """All columns of a file, with what else its writer noted."""
        with _open_parquet(self.root / path_of(source)) as file:
            return file.schema_arrow

    def rows(self, refs: Sequence[ItemRef]) -> Iterator[tuple[pa.Table, list[bytes | Unread]]]:
        """All columns of the rows, a few at a time, and their images; references to one file must ascend.

        Raises:
            pyarrow.ArrowException, OSError: a file, or a page of any column, cannot be read.
        """
        for source, run in itertools.groupby(refs, key=lambda ref: ref.source):
            path = self.root / path_of(source)
            with _open_parquet(path) as file:
                for group, start, inside in _by_group(file, [ref.offset for ref in run]):
                    for table in _take_rows(file, group, start, inside):
                        cells = table.column(self.column)
                        values = [_value(cells, i) for i in range(table.num_rows)]
                        yield (
                            table,
                            [
                                value
                                if isinstance(value, Unread)
                                else image_bytes(value, path.parent, self.root)
                                for value in values
                            ],
                        )

    def values(self, column: str, refs: Sequence[ItemRef]) -> Iterator[Any]:
        """One column's value in each row, `Unread` where it cannot be had; references to one file must ascend."""
        for source, run in itertools.groupby(refs, key=lambda ref: ref.source):
            yield from _read_rows(self.root / path_of(source), column, [ref.offset for ref in run])


def list_parquet(root: Path) -> Pool:
    """The pool of one Parquet file or a folder of them: only footers and key columns are read.

    A file that is damaged, or has other columns than the rest, is one item that cannot be read.

    Raises:
        InputError: no file can be read, or none has a column of images.
    """
    folder = root.parent if root.is_file() else root
    schemas: dict[str, pa.Schema] = {}
    broken = ""
    files = find_files(root, ".parquet")
    for name in files:
        try:
            with _open_parquet(folder / name) as file:
                schemas[name] = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            broken = one_line(error)
    if files and not schemas:
        raise InputError(
            f"pool {str(root)!r}: no Parquet file of {len(files)} can be read ({broken}); fetch it again"
        )
    column = _choose_column(list(schemas.values())) if schemas else ""

    def list_each() -> Iterator[pa.Table]:
        n_groups = 0
        for name in files:
            whole = name in schemas and column in schemas[name].names
            alone = [_listing([readable(name)], name, 0, n_groups)]
            for table in _list_file(folder, name, n_groups) if whole else alone:
                n_groups += 1
                yield table

    items, mapped = collect_listing(list_each())
    return Pool(folder, items, 0, ParquetReader(folder, column), mapped)


def find_image_column(schema: pa.Schema) -> str:
    """The column that holds the images, or their paths.

    Raises:
        InputError: there is none; the message lists the columns there are.
    """
    for field in schema:
        if pa.types.is_struct(field.type) and any(_holds_image(child) for child in field.type):
            return field.name
    for name in _IMAGE_COLUMNS:
        if name in schema.names and _is_binary(schema.field(name).type):
            return name
    binary = [field.name for field in schema if _is_binary(field.type)]
    if len(binary) == 1:
        return binary[0]
    for name in _PATH_COLUMNS:
        if name in schema.names and _is_string(schema.field(name).type):
            return name
    raise InputError(
        f"columns {schema.names}: none holds images; allowed are a struct of bytes and path, "
        f"one binary column, or a text column named one of {', '.join(_PATH_COLUMNS)}"
    )


def find_key_column(schema: pa.Schema) -> str | None:
    """The column that names the items, text or whole numbers; None where there is none."""
    for name in KEY_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if _is_string(kind) or pa.types.is_integer(kind):
                return name
    return None


def image_bytes(value: Any, folder: Path, *within: Path) -> bytes | Unread:
    """The encoded image in a cell: bytes, a struct of bytes and path, or a path.

    Args:
        value: the cell.
        folder: what a relative path starts from.
        within: folders that a path may lead into, links resolved; `folder` where none is given.
    """
    path = value
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        path = value.get("path")
    if isinstance(value, bytes):
        return value
    if path is None:
        return Unread("missing", "null: no image in this row")
    if not isinstance(path, str):
        return Unread("unreadable", f"column: {type(path).__name__} is neither bytes nor a path")
    absolute = str(folder.absolute() / path)
    if not any(is_inside(root, absolute) for root in within or (folder,)):
        return Unread("missing", "outside: its path leads out of the pool's folder; not followed")
    return read_file(folder, path)


def _choose_column(schemas: Sequence[pa.Schema]) -> str:
    """The image column of the first file that has one."""
    for schema in schemas[:-1]:
        with contextlib.suppress(InputError):
            return find_image_column(schema)
    return find_image_column(schemas[-1])


@contextlib.contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise OSError("neither a file nor a link to one")
    # pyarrow takes the name as text and fails where it is not UTF-8; as bytes it takes any
    with pa.OSFile(os.fsencode(path)) as handle:
        try:
            opened = pq.ParquetFile(handle, buffer_size=_BUFFER, pre_buffer=False)
        except UnicodeDecodeError as error:
            raise OSError(f"a column's name is not text ({one_line(error)})") from error
        with opened as file:
            yield file


def _list_file(folder: Path, name: str, group: int) -> Iterator[pa.Table]:
    """The listings of a file's row groups."""
    with _open_parquet(folder / name) as file:
        key_column = find_key_column(file.schema_arrow)
        start = 0
        for index in range(file.metadata.num_row_groups):
            n = file.metadata.row_group(index).num_rows
            keys = [f"{readable(name)}#{start + i}" for i in range(n)]
            if key_column is not None:
                keys = _read_keys(file, index, key_column, keys)
            yield _listing(keys, name, start, group + index)
            start += n


def _read_keys(file: pq.ParquetFile, index: int, column: str, otherwise: list[str]) -> list[str]:
    """The keys of a row group; the others where its column is damaged or holds nothing."""
    try:
        named = file.read_row_group(index, columns=[column]).column(0).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return otherwise
    if len(named) != len(otherwise):  # a damaged page can hold fewer rows than the footer states
        return otherwise
    return [str(key) if key is not None else other for key, other in zip(named, otherwise, strict=True)]


def _listing(keys: list[str], name: str, start: int, group: int) -> pa.Table:
    n = len(keys)
    return pa.table(
        {
            "key": keys,
            "source": [storable(name)] * n,
            "offset": range(start, start + n),
            "n_bytes": [-1] * n,
            "group": [group] * n,
        },
        schema=LISTING,
    )


def _read_rows(path: Path, column: str, rows: Sequence[int]) -> Iterator[Any]:
    """The column's values at ascending row numbers, or `Unread`; memory holds one batch."""
    n_read = 0
    reason = "cut: the row is not there any more"
    try:
        with _open_parquet(path) as file:
            if column not in file.schema_arrow.names:
                reason = f"column: the file has no column {column!r}"
            else:
                for group, start, inside in _by_group(file, rows):
                    yield from _read_group(file, group, start, column, inside)
                    n_read += len(inside)
    except FileNotFoundError:
        yield from itertools.repeat(
            Unread("missing", "no-file: removed, or a link to nothing"), len(rows) - n_read
        )
        return
    except (pa.ArrowException, OSError) as error:
        reason = f"read-error: {one_line(error)}"
    yield from itertools.repeat(Unread("unreadable", reason), len(rows) - n_read)


def _by_group(file: pq.ParquetFile, rows: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Row groups that hold wanted rows: their number, first row, and the rows."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    groups = np.searchsorted(starts, rows, side="right") - 1
    for group, found in itertools.groupby(zip(groups.tolist(), rows, strict=True), key=lambda pair: pair[0]):
        if group < len(sizes):
            yield group, int(starts[group]), [row for _, row in found]


def _read_group(file: pq.ParquetFile, group: int, start: int, column: str, rows: list[int]) -> Iterator[Any]:
    """The values of some rows of one row group; those behind a damaged page are unreadable."""
    n_read, position = 0, start
    reason = "cut: the row is not there any more"
    try:
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[column]):
            while n_read < len(rows) and rows[n_read] < position + batch.num_rows:
                yield _value(batch.column(0), rows[n_read] - position)
                n_read += 1
            position += batch.num_rows
            if n_read == len(rows):
                return
    except (pa.ArrowException, OSError) as error:
        reason = f"read-error: {one_line(error)}"
    yield from itertools.repeat(Unread("unreadable", reason), len(rows) - n_read)


def _take_rows(file: pq.ParquetFile, group: int, start: int, rows: list[int]) -> Iterator[pa.Table]:
    """All columns of some rows of one row group, batch by batch."""
    wanted, position = np.array(rows), start
    for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
        first, last = np.searchsorted(wanted, (position, position + batch.num_rows))
        if first < last:
            yield pa.Table.from_batches([batch]).take(pa.array(wanted[first:last] - position))
        position += batch.num_rows
        if last == len(wanted):
            return


def _value(column: pa.Array | pa.ChunkedArray, index: int) -> Any:
    try:
        return column[index].as_py()
    except UnicodeDecodeError as error:
        return Unread("unreadable", f"column: {one_line(error)}")


def _holds_image(child: pa.Field) -> bool:
    return (child.name == "bytes" and _is_binary(child.type)) or (
        child.name == "path" and _is_string(child.type)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
