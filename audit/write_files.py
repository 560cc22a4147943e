"""Kept items as files: the image and what lies beside it, from any kind of pool."""

from __future__ import annotations

import abc
import base64
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, final

from poolproof.audit.paths import is_image_name, path_of
from poolproof.audit.pool import FolderReader, Unread
from poolproof.audit.webdataset import Member, Sample, TarReader
from poolproof.audit.write_kept import Kept, KeptItem, changed, check_bytes, read_kept
from poolproof.audit.write_names import image_ending
from poolproof.audit.write_rows import StoredRows, open_rows

_CAPTIONS: Final = ("txt", "caption", "text")
"""Columns that become the item's `.txt`, the first that is there."""


@dataclass(frozen=True)
class Part:
    """One file of an item.

    Attributes:
        ending: what follows the item's stem, such as `.jpg` or `.seg.png`.
        name: the whole name in the pool it comes from; empty where it was no file there.
    """

    ending: str
    data: bytes
    name: str = ""


@dataclass(frozen=True)
class ItemFiles:
    """The files of one item.

    Attributes:
        parts: in the order in which the pool has them.
        image: which of them is the image.
        n_lost: files of the item that cannot be read any more.
    """

    item: KeptItem
    parts: tuple[Part, ...]
    image: int
    n_lost: int = 0

    @property
    def beside(self) -> dict[str, bytes]:
        """The files that are not the image, by ending."""
        return {part.ending: part.data for i, part in enumerate(self.parts) if i != self.image}


class AbstractFiles(abc.ABC):
    """Reads kept items as files."""

    @abc.abstractmethod
    def read(self, items: Sequence[KeptItem]) -> Iterator[ItemFiles]:
        """The files of each item, the image checked.

        Raises:
            InputError: the pool changed since the audit.
        """

    @abc.abstractmethod
    def read_beside(self, item: KeptItem) -> Mapping[str, bytes]:
        """What lies beside one item, by ending."""


def open_files(kept: Kept) -> AbstractFiles:
    """What reads the kept items of a pool as files."""
    if isinstance(kept.reader, TarReader):
        return TarFiles(kept.reader)
    if isinstance(kept.reader, FolderReader):
        return FolderFiles(kept.reader)
    return RowFiles(open_rows(kept))


@final
@dataclass
class FolderFiles(AbstractFiles):
    """Image files of a folder, with the files of the same stem."""

    reader: FolderReader
    folder: str = "\0"
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def read(self, items: Sequence[KeptItem]) -> Iterator[ItemFiles]:
        """The image and its sidecars."""
        for item, data in read_kept(self.reader, items):
            path = path_of(item.ref.source)
            beside = self.sidecars(path)
            parts = [Part(os.path.splitext(path)[1], data, path)]
            parts += [Part(ending, (self.reader.root / name).read_bytes(), name) for name, ending in beside]
            yield ItemFiles(item, tuple(parts), 0)

    def read_beside(self, item: KeptItem) -> Mapping[str, bytes]:
        """The sidecars by ending."""
        beside = self.sidecars(path_of(item.ref.source))
        return {ending: (self.reader.root / name).read_bytes() for name, ending in beside}

    def sidecars(self, image: str) -> list[tuple[str, str]]:
        """Relative path and ending of each sidecar; the folder is listed once for all of its images."""
        folder, base = os.path.split(image)
        if folder != self.folder:
            self.folder, self.names = folder, _list_sidecars(self.reader.root / folder)
        stem = os.path.splitext(base)[0]
        return [(os.path.join(folder, name), name[len(stem) :]) for name in self.names.get(stem, ())]


@final
@dataclass
class TarFiles(AbstractFiles):
    """Members of tars that have one key."""

    reader: TarReader
    source: str = ""
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)

    def read(self, items: Sequence[KeptItem]) -> Iterator[ItemFiles]:
        """The image among the other members of its sample, in their order."""
        for source, run in groupby(items, key=lambda item: item.ref.source):
            for item in run:
                image, members = self._members(item)
                parts: list[Part] = []
                at = n_lost = 0
                for member, data in zip(members, self.reader.read_members(source, members), strict=True):
                    if member is image:
                        at, data = len(parts), check_bytes(item, data)
                    ending = member.ending
                    if member is image and member.name.startswith(item.ref.key):
                        ending = member.name[len(item.ref.key) :]  # a key may have dots in it
                    if isinstance(data, Unread):
                        n_lost += 1
                    else:
                        parts.append(Part(ending, data, member.name))
                yield ItemFiles(item, tuple(parts), at, n_lost)

    def read_beside(self, item: KeptItem) -> Mapping[str, bytes]:
        """The other members by ending."""
        image, members = self._members(item)
        others = [member for member in members if member is not image]
        read = zip(others, self.reader.read_members(item.ref.source, others), strict=True)
        return {member.ending: data for member, data in read if isinstance(data, bytes)}

    def _members(self, item: KeptItem) -> tuple[Member, list[Member]]:
        """The image and all members of its sample in their order; the tar is listed once for all of its items."""
        ref = item.ref
        if ref.source != self.source:
            samples: dict[str, list[Sample]] = {}
            for sample in self.reader.samples(ref.source):
                samples.setdefault(sample.key, []).append(sample)
            self.source, self.samples = ref.source, samples
        alike = self.samples.get(ref.key, ())
        turn = next((i for i, s in enumerate(alike) if s.image.offset == ref.offset), None)
        if turn is None or alike[turn].image.n_bytes != ref.n_bytes:
            raise changed(item, "its tar has another member there")
        image = alike[turn].image
        own = _own(alike[turn], turn, len(alike))
        return image, sorted((image, *own), key=lambda member: member.index)


@final
@dataclass(frozen=True)
class RowFiles(AbstractFiles):
    """Rows of a table; their other columns become a caption and JSON."""

    rows: StoredRows

    def read(self, items: Sequence[KeptItem]) -> Iterator[ItemFiles]:
        """The image, `.txt` and `.json`."""
        for several, table, images in self.rows.read(items):
            for item, row, data in zip(several, table.to_pylist(), images, strict=True):
                yield _row_files(item, row, self.rows.reader.column, data)

    def read_beside(self, item: KeptItem) -> Mapping[str, bytes]:
        """Caption and JSON."""
        return next(self.read([item])).beside


def _list_sidecars(folder: Path) -> dict[str, list[str]]:
    """The files that are not images, by the stem of each image that they lie beside."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries if entry.is_file()), key=os.fsencode)
    stems = {os.path.splitext(name)[0] for name in names if is_image_name(name)}
    found: dict[str, list[str]] = {}
    for name in names:
        if not is_image_name(name):
            for at in (i for i, c in enumerate(name) if c == "." and name[:i] in stems):
                found.setdefault(name[:at], []).append(name)
    return found


def _own(sample: Sample, turn: int, n_alike: int) -> Iterator[Member]:
    """The members beside an image; where its key occurs again in the tar, those of its own turn.

    An ending that is there once belongs to every image of the key. Of one that is there as often as the key, each
    image has its own; else the nearest.
    """
    by_ending: dict[str, list[Member]] = {}
    for member in sample.beside:
        by_ending.setdefault(member.ending, []).append(member)
    for same in by_ending.values():
        nearest = min(same, key=lambda member: abs(member.index - sample.image.index))
        yield same[turn] if len(same) == n_alike else nearest


def _row_files(item: KeptItem, row: dict[str, Any], column: str, data: bytes) -> ItemFiles:
    cell = row.pop(column)
    path = cell if isinstance(cell, str) else cell.get("path") if isinstance(cell, dict) else None
    parts = [Part(image_ending(data, path or "", item.ref.key), data)]
    caption = next((name for name in _CAPTIONS if isinstance(row.get(name), str)), None)
    if caption is not None:
        parts.append(Part(".txt", row[caption].encode()))
    if "json" in row and isinstance(row["json"], str | bytes):
        stored = row["json"]
        parts.append(Part(".json", stored if isinstance(stored, bytes) else stored.encode()))
    elif row:
        text = json.dumps(_plain(row), ensure_ascii=False, allow_nan=False, default=str)
        parts.append(Part(".json", text.encode("utf-8", "backslashreplace")))
    return ItemFiles(item, tuple(parts), 0)


def _plain(value: Any) -> Any:
    """The value in JSON's terms: bytes in base64, and null for what is no number."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
