"""What all writers of a filtered pool have in common: units of work that are finished or not begun."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.write_kept import Kept, KeptItem
from poolproof.audit.write_place import Place

SHARD_ITEMS: Final = 10_000
"""Items of a shard where no number is asked for, as in img2dataset and DataComp."""

READ_ITEMS: Final = 1 << 16
"""Items asked of a reader at a time; their bytes come one by one, but each call may read a row group anew."""


@dataclass(frozen=True)
class AbstractWriter(abc.ABC):
    """Writes kept items in one format, unit by unit. The same items give the same bytes, in however many calls.

    Attributes:
        kept: the items.
        place: where they go.
        shard_items: most items of a unit.
    """

    kept: Kept
    place: Place
    shard_items: int = SHARD_ITEMS

    format: ClassVar[str]

    opens_as: ClassVar[str]
    """The prefix with which `open_pool` opens what was written; empty where there is nothing to open."""

    pattern: ClassVar[str] = ""
    """Where the data lie, relative to the output folder; empty where there are none."""

    def bounds(self) -> list[int]:
        """Positions at which units begin, and the end."""
        n = len(self.kept)
        return [*range(0, n, self.shard_items), n]

    @abc.abstractmethod
    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Writes the items of one unit and returns its `name`, `items`, `sha256` and what else is to be told."""

    def finish(self, units: Sequence[dict[str, Any]]) -> None:
        """Writes what needs all units. Does nothing where that is nothing."""
        del units

    def data_files(self, units: Sequence[dict[str, Any]]) -> list[str]:
        """What the loaders of a data set card read, as patterns relative to the output folder."""
        del units
        return [self.pattern] if self.pattern else []

    def write_names(self, stems: Sequence[str]) -> None:
        """Writes which name each key got, where items could not keep theirs."""
        table = pa.table({"key": list(self.kept.read_keys()), "file": list(stems)})
        with self.place.file(self.place.out / "names.parquet") as handle:
            pq.write_table(table, handle, compression="zstd")

    def relative(self, path: Path) -> str:
        """A path as the manifest tells it."""
        return path.relative_to(self.place.out).as_posix()


def in_batches(items: Iterator[KeptItem], size: int = READ_ITEMS) -> Iterator[list[KeptItem]]:
    """The items in lists of at most so many, each from one source."""
    batch: list[KeptItem] = []
    for item in items:
        if batch and (len(batch) == size or batch[-1].ref.source != item.ref.source):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def spans(bounds: Sequence[int]) -> list[tuple[int, int]]:
    """Start and stop of each unit."""
    return list(pairwise(bounds))
