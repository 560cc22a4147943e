"""The `metadata` files of an image folder: their kept rows, as they stand."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.pool import one_line
from poolproof.audit.write_place import Place
from poolproof.errors import InputError

METADATA: Final = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names under which Hugging Face looks for the columns of an image folder."""


def filter_metadata(root: Path, place: Place, paths: Iterable[str]) -> None:
    """Writes the rows about kept files of every metadata file on the way to one.

    A row is kept where one of its columns `file_name` or `*_file_name` leads to a kept file.

    Raises:
        InputError: such a file cannot be read.
    """
    kept = set(paths)
    folders = {folder for path in kept for folder in _folders_above(path)}
    for folder in sorted(folders):
        for name in METADATA:
            original = root / folder / name
            if original.is_file():
                try:
                    _filter_file(original, folder, place.pool / folder / name, place, kept)
                except (ValueError, csv.Error, pa.ArrowException) as error:
                    raise InputError(
                        f"{str(original)!r} cannot be read ({one_line(error)}); mend it, or take it out of the pool"
                    ) from error


def _folders_above(path: str) -> Iterator[str]:
    while path:
        path = posixpath.dirname(path)
        yield path


def _filter_file(original: Path, folder: str, path: Path, place: Place, kept: set[str]) -> None:
    with place.file(path) as handle:
        if original.suffix == ".parquet":
            with (
                pq.ParquetFile(original) as file,
                pq.ParquetWriter(handle, file.schema_arrow, compression="zstd") as writer,
            ):
                for batch in file.iter_batches():
                    mask = [_is_about(row, folder, kept) for row in batch.to_pylist()]
                    writer.write_batch(batch.filter(pa.array(mask, pa.bool_())))
        elif original.suffix == ".csv":
            for line in _csv_lines(original, folder, kept):
                handle.write(line.encode("utf-8", "surrogateescape"))
        else:
            with original.open("rb") as lines:
                for line in lines:
                    if line.strip() and _is_about(json.loads(line), folder, kept):
                        handle.write(line)


def _csv_lines(original: Path, folder: str, kept: set[str]) -> Iterator[str]:
    """The header and the kept records, character for character."""
    taken: list[str] = []

    def remember(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    with original.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        names: list[str] | None = None
        for record in csv.reader(remember(lines)):
            text, first = "".join(taken), names is None
            taken.clear()
            if names is None:
                names = [name.removeprefix("\ufeff") for name in record]
            if first or _is_about(dict(zip(names, record, strict=False)), folder, kept):
                yield text if text.endswith(("\n", "\r")) else f"{text}\n"


def _is_about(row: Any, folder: str, kept: set[str]) -> bool:
    """Whether a row names a kept file."""
    if not isinstance(row, dict):
        return False
    names = (value for name, value in row.items() if name == "file_name" or name.endswith("_file_name"))
    return any(
        isinstance(name, str) and posixpath.normpath(posixpath.join(folder, name)) in kept for name in names
    )
