"""Pools in Parquet: an image struct of bytes and path (as Hugging Face writes it), bytes, or paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.pool import (
    LISTING,
    AbstractReader,
    ItemRef,
    Pool,
    Unread,
    find_files,
    is_inside,
    read_file,
)
from poolproof.errors import InputError

KEY_COLUMNS: Final = ("key", "uid", "id", "__key__", "file_name", "filename", "path", "url")
"""Columns that name an item, the first that is there; else `FILE#ROW`."""

_IMAGE_COLUMNS: Final = ("image", "img", "bytes", "image_bytes", "jpg", "png", "webp", "content", "data")
_PATH_COLUMNS: Final = ("image_path", "file_path", "path", "file_name", "filename")


@final
@dataclass(frozen=True)
class ParquetReader(AbstractReader):
    """Reads rows of Parquet files; a file is streamed once over the rows that are asked for."""

    root: Path
    column: str
    kind = "parquet"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each row's encoded image; references to one file must ascend."""
        for source, wanted in _runs(refs):
            path = self.root / source
            n_read = 0
            reason = "cut: the row is not there any more"
            try:
                for value in _stream_rows(path, self.column, [ref.offset for ref in wanted]):
                    yield image_bytes(value, path.parent)
                    n_read += 1
            except (pa.ArrowException, OSError) as error:
                reason = f"read-error: {' '.join(str(error).split())[:200]}"
            yield from (Unread("unreadable", reason) for _ in wanted[n_read:])

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Nothing: a row's other columns stay in its file."""
        del ref
        return {}


def list_parquet(root: Path) -> Pool:
    """The pool of one Parquet file or a folder of them: only footers and key columns are read.

    Raises:
        InputError: no file can be read, or none has a column of images.
    """
    folder = root.parent if root.is_file() else root
    schemas: dict[str, pa.Schema] = {}
    broken = ""
    files = find_files(root, ".parquet")
    for name in files:
        try:
            schemas[name] = pq.read_schema(folder / name)
        except (pa.ArrowException, OSError) as error:
            broken = " ".join(str(error).split())[:200]
    if files and not schemas:
        raise InputError(
            f"pool {str(root)!r}: no Parquet file of {len(files)} can be read ({broken}); fetch it again"
        )
    column = find_image_column(next(iter(schemas.values()))) if schemas else ""
    parts: list[pa.Table] = []
    group = 0
    for name in files:
        if column not in (schemas[name].names if name in schemas else ()):
            # its footer is damaged or its columns are others: one row, unreadable when it is read
            parts.append(_listing([name], name, 0, group))
            group += 1
            continue
        with pq.ParquetFile(folder / name) as file:
            key_column = next((c for c in KEY_COLUMNS if c in file.schema_arrow.names), None)
            start = 0
            for index in range(file.metadata.num_row_groups):
                n = file.metadata.row_group(index).num_rows
                keys: list[str] = [f"{name}#{start + i}" for i in range(n)]
                if key_column is not None:
                    named = file.read_row_group(index, columns=[key_column]).column(0).to_pylist()
                    keys = [str(k) if k is not None else other for k, other in zip(named, keys, strict=True)]
                parts.append(_listing(keys, name, start, group))
                start += n
                group += 1
    items = pa.concat_tables(parts) if parts else LISTING.empty_table()
    return Pool(folder, items, 0, ParquetReader(folder, column))


def find_image_column(schema: pa.Schema) -> str:
    """The column that holds the images, or their paths.

    Raises:
        InputError: there is none; the message lists the columns there are.
    """
    for field in schema:
        if pa.types.is_struct(field.type) and {"bytes", "path"} & {child.name for child in field.type}:
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
        f"Parquet columns {schema.names}: none holds images; allowed are a struct of bytes and path, "
        f"one binary column, or a text column named one of {', '.join(_PATH_COLUMNS)}"
    )


def image_bytes(value: Any, folder: Path) -> bytes | Unread:
    """The encoded image in a cell: bytes, a struct of bytes and path, or a path inside the pool's folder."""
    path = value
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = value.get("path")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if path is None:
        return Unread("missing", "null: no image in this row")
    if not is_inside(folder, str(path)):
        return Unread("missing", "outside: its path leads out of the pool's folder; not followed")
    return read_file(folder, str(path))


def _listing(keys: list[str], source: str, start: int, group: int) -> pa.Table:
    n = len(keys)
    return pa.table(
        {
            "key": keys,
            "source": [source] * n,
            "offset": range(start, start + n),
            "n_bytes": [-1] * n,
            "group": [group] * n,
        },
        schema=LISTING,
    )


def _runs(refs: Sequence[ItemRef]) -> Iterator[tuple[str, list[ItemRef]]]:
    """Neighbouring references to the same file, together."""
    run: list[ItemRef] = []
    for ref in refs:
        if run and ref.source != run[0].source:
            yield run[0].source, run
            run = []
        run.append(ref)
    if run:
        yield run[0].source, run


def _stream_rows(path: Path, column: str, rows: list[int]) -> Iterator[Any]:
    """The column's values at ascending row numbers, batch by batch so that memory stays small."""
    with pq.ParquetFile(path) as file:
        starts = [0]
        for index in range(file.metadata.num_row_groups):
            starts.append(starts[-1] + file.metadata.row_group(index).num_rows)
        groups = [g for g in range(len(starts) - 1) if any(starts[g] <= r < starts[g + 1] for r in rows)]
        wanted = iter(rows)
        row = next(wanted, None)
        for group in groups:
            position = starts[group]
            for batch in file.iter_batches(batch_size=64, row_groups=[group], columns=[column]):
                while row is not None and row < position + batch.num_rows:
                    yield batch.column(0)[row - position].as_py()
                    row = next(wanted, None)
                position += batch.num_rows
                if row is None:
                    return


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
