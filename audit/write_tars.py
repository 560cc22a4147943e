"""The filtered pool as WebDataset tars: the members byte for byte, under their names."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast, final

from poolproof.audit.webdataset import TarReader
from poolproof.audit.write_files import ItemFiles, open_files
from poolproof.audit.write_kept import KeptItem
from poolproof.audit.write_names import is_safe_path, name_stems, safe_ending, safe_stem
from poolproof.audit.write_pool import AbstractWriter, in_batches
from poolproof.files import hash_file


@final
@dataclass(frozen=True)
class TarWriter(AbstractWriter):
    """Tars `00000000.tar`, each with `00000000_stats.json`, and `sizes.json` over all.

    Members of a tar keep their names, unless one would lead out of the folder that it is unpacked in. Items of
    other pools are named after their keys. No key is in one tar twice: the next begins where one comes again.
    """

    format: ClassVar[str] = "webdataset"
    opens_as: ClassVar[str] = "tar"
    pattern: ClassVar[str] = "pool/*.tar"

    def bounds(self) -> list[int]:
        """Units end at their size, or before a key that they hold already."""
        if not isinstance(self.kept.reader, TarReader):
            return super().bounds()
        bounds, start = [0], 0
        keys: set[str] = set()
        groups: dict[str, str] = {}
        for position, item in enumerate(self.kept.items()):
            key = _tar_key(item)
            folder, slash, base = key.rpartition("/")
            group = f"{folder}{slash}{base.partition('.')[0]}"  # what WebDataset takes for the key
            again = key in keys or groups.get(group, item.ref.source) != item.ref.source
            if position > start and (again or position - start == self.shard_items):
                bounds.append(position)
                start = position
                keys.clear()
                groups.clear()
            keys.add(key)
            groups[group] = item.ref.source
        return [*bounds, len(self.kept)]

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Writes one tar and its statistics."""
        path = self.place.pool / f"{unit:08d}.tar"
        files = open_files(self.kept)
        position, n_lost = start, 0
        written: set[str] = set()
        fields: set[str] = set()
        with (
            self.place.file(path) as handle,
            tarfile.open(
                fileobj=cast(BinaryIO, handle),
                mode="w",
                format=tarfile.GNU_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar,
        ):
            for batch in in_batches(self.kept.items(start, stop)):
                for found in files.read(batch):
                    self._add(tar, found, position, written)
                    fields.add(_fields(found))
                    position += 1
                    n_lost += found.n_lost
        self.place.json(path.with_name(f"{unit:08d}_stats.json"), {"successes": stop - start})
        return {
            "name": self.relative(path),
            "items": stop - start,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
            "lost": n_lost,
            "fields": sorted(fields),
        }

    def finish(self, units: Sequence[dict[str, Any]]) -> None:
        """Writes the sizes of all tars, and the names that keys got where they are not their own."""
        sizes = {Path(unit["name"]).name: unit["items"] for unit in units}
        self.place.json(self.place.pool / "sizes.json", sizes)
        if not isinstance(self.kept.reader, TarReader):
            self.write_names(self.stems)

    @cached_property
    def stems(self) -> list[str]:
        """The name of each item that does not come from a tar, without ending."""
        return name_stems(self.kept.read_keys())

    def _add(self, tar: tarfile.TarFile, found: ItemFiles, position: int, written: set[str]) -> None:
        stored = isinstance(self.kept.reader, TarReader)
        stem = safe_stem(found.item.ref.key) if stored else self.stems[position]
        for part in found.parts:
            name = part.name if stored and is_safe_path(part.name) else stem + safe_ending(part.ending)
            if name in written:  # one file that two items have
                continue
            written.add(name)
            info = tarfile.TarInfo(name)
            info.size = len(part.data)
            tar.addfile(info, io.BytesIO(part.data))


def _tar_key(item: KeptItem) -> str:
    key = item.ref.key
    return key if is_safe_path(key) else safe_stem(key)


def _fields(found: ItemFiles) -> str:
    """What a sample consists of, such as `jpg json`."""
    return " ".join(sorted(part.ending.lstrip(".").lower() for part in found.parts))
