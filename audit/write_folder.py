"""The filtered pool as a folder of image files with what lies beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

from poolproof.audit.paths import is_image_name, path_of, readable
from poolproof.audit.pool import FolderReader, read_file
from poolproof.audit.write_files import AbstractFiles, FolderFiles, open_files
from poolproof.audit.write_kept import KeptItem, changed, check_bytes
from poolproof.audit.write_metadata import METADATA, filter_metadata
from poolproof.audit.write_names import is_safe_path, name_stems, safe_ending
from poolproof.audit.write_pool import AbstractWriter, in_batches
from poolproof.errors import InputError

_Written = tuple[str, int, str, int]
"""Name, size and digest of a file, and how many files of its item were lost."""


@final
@dataclass(frozen=True)
class FolderWriter(AbstractWriter):
    """Image files, from a folder under their own paths, from elsewhere named after their keys.

    Attributes:
        hard: whether files of a folder become second names of the originals instead of copies. To write into one
            is to write into the other.
    """

    hard: bool = False
    format: ClassVar[str] = "folder"
    opens_as: ClassVar[str] = "folder"
    pattern: ClassVar[str] = "pool/**"

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Writes the files of some items; the digest is that of the list of digests and names."""
        digest = hashlib.sha256()
        n_bytes = n_lost = 0
        suffixes: set[str] = set()
        for name, size, sha256, lost in self._files(start, stop):
            if is_image_name(name):
                suffixes.add(os.path.splitext(name)[1])
            digest.update(f"{sha256}  ".encode() + os.fsencode(name) + b"\n")
            n_bytes += size
            n_lost += lost
        os.sync()  # once for all of them: to wait for each file takes many times as long
        return {
            "name": f"items {start} to {stop - 1}",
            "items": stop - start,
            "bytes": n_bytes,
            "sha256": digest.hexdigest(),
            "lost": n_lost,
            "suffixes": sorted(suffixes),
        }

    def data_files(self, units: Sequence[dict[str, Any]]) -> list[str]:
        """The images alone, and the files that hold their columns: by captions beside them loaders are misled."""
        suffixes = sorted({suffix for unit in units for suffix in unit["suffixes"]})
        metadata = [name for name in METADATA if any(self.place.pool.rglob(name))]
        return [f"pool/**/{name}" for name in (*(f"*{suffix}" for suffix in suffixes), *metadata)]

    def finish(self, units: Sequence[dict[str, Any]]) -> None:
        """Writes the kept rows of `metadata.*`, or the list of keys and the names they got."""
        del units
        if isinstance(self.kept.reader, FolderReader):
            paths = (path_of(item.ref.source) for item in self.kept.items())
            filter_metadata(self.kept.reader.root, self.place, paths)
            return
        self.write_names(self.stems)

    @cached_property
    def stems(self) -> list[str]:
        """The name of each item, without ending."""
        return name_stems(self.kept.read_keys())

    def _files(self, start: int, stop: int) -> Iterator[_Written]:
        items = self.kept.items(start, stop)
        if isinstance(self.kept.reader, FolderReader):
            files = FolderFiles(self.kept.reader)
            for item in items:
                yield from self._same(item, files)
            return
        position, found = start, open_files(self.kept)
        for batch in in_batches(items):
            yield from self._named(batch, found, position)
            position += len(batch)

    def _named(self, batch: Sequence[KeptItem], files: AbstractFiles, position: int) -> Iterator[_Written]:
        """Writes items of another kind of pool under the names of their keys."""
        for at, found in enumerate(files.read(batch), position):
            for i, part in enumerate(found.parts):
                name = self.stems[at] + safe_ending(part.ending)
                if i != found.image and is_image_name(name):
                    name += ".data"  # another image beside it, such as a mask, is no item of its own
                self.place.write(self.place.pool / name, part.data, sync=False)
                lost = found.n_lost if i == found.image else 0
                yield name, len(part.data), hashlib.sha256(part.data).hexdigest(), lost

    def _same(self, item: KeptItem, files: FolderFiles) -> Iterator[_Written]:
        """Copies or links an item and its sidecars to the same relative path."""
        root, path = files.reader.root, path_of(item.ref.source)
        if not is_safe_path(path):
            raise InputError(f"plan: item {item.ref.key!r} lies outside its pool; audit the pool again")
        data = check_bytes(item, read_file(root, item.ref.source))
        digest = hashlib.sha256(data).hexdigest()
        linked = self.place.link(root / path, self.place.pool / path) if self.hard else None
        if linked is None:
            self.place.write(self.place.pool / path, data, sync=False)
        elif linked != digest:
            (self.place.pool / path).unlink()
            raise changed(item, "it has other bytes")
        yield path, len(data), digest, 0
        for name, _ in files.sidecars(path):
            yield self._sidecar(item, name)

    def _sidecar(self, item: KeptItem, name: str) -> _Written:
        original, path = self.kept.reader.root / name, self.place.pool / name
        digest = self.place.link(original, path) if self.hard else None
        if digest is None:
            try:
                data = original.read_bytes()
            except OSError as error:
                raise changed(item, f"{readable(name)!r} beside it cannot be read") from error
            self.place.write(path, data, sync=False)
            digest = hashlib.sha256(data).hexdigest()
        return name, path.stat().st_size, digest, 0
