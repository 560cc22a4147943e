"""Kept items as rows made of their files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import pyarrow as pa

from poolproof.audit.paths import readable
from poolproof.audit.write_files import AbstractFiles, ItemFiles, open_files
from poolproof.audit.write_kept import Kept, KeptItem
from poolproof.audit.write_rows import (
    IMAGE,
    AbstractRows,
    TableRows,
    feature_of,
    holds_rows,
    open_rows,
    with_features,
)

_SIDECARS: Final = pa.list_(pa.struct([("ending", pa.string()), ("data", pa.binary())]))


@final
@dataclass(frozen=True)
class FileRows(AbstractRows):
    """Rows made of files: `image`, `key`, `txt` and `json` where they are text, and all else in `sidecars`."""

    files: AbstractFiles
    weighted: bool

    def schema(self, source: str) -> pa.Schema:
        """The same columns for every source."""
        del source
        fields = [
            pa.field("image", IMAGE),
            pa.field("key", pa.string()),
            pa.field("txt", pa.string()),
            pa.field("json", pa.string()),
            pa.field("sidecars", _SIDECARS),
        ]
        fields += [pa.field("weight", pa.float32())] if self.weighted else []
        return pa.schema(
            fields, metadata=with_features({}, {field.name: feature_of(field.type) for field in fields})
        )

    def read(self, items: Sequence[KeptItem]) -> Iterator[pa.Table]:
        """One row at a time."""
        schema = self.schema("")
        for found in self.files.read(items):
            yield pa.Table.from_pylist([_file_row(found)], schema=schema)


def make_rows(kept: Kept) -> AbstractRows:
    """What makes rows of the kept items of any pool."""
    if holds_rows(kept):
        return TableRows(kept, open_rows(kept))
    return FileRows(open_files(kept), kept.weighted)


def _file_row(found: ItemFiles) -> dict[str, Any]:
    image = found.parts[found.image]
    row: dict[str, Any] = {
        "image": {
            "bytes": image.data,
            "path": readable(os.path.basename(image.name)) or f"image{image.ending}",
        },
        "key": found.item.ref.key,
        "weight": found.item.weight,
        "sidecars": [],
    }
    for ending, data in found.beside.items():
        try:
            if ending not in (".txt", ".json"):
                raise ValueError(ending)
            row[ending[1:]] = data.decode()
        except ValueError:  # another ending, or no text
            row["sidecars"].append({"ending": readable(ending), "data": data})
    return row
