"""The kept items as a list: the subset file of DataComp, or keys alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np

from poolproof.audit.parquet import ParquetReader
from poolproof.audit.write_files import AbstractFiles, open_files
from poolproof.audit.write_kept import KeptItem
from poolproof.audit.write_pool import AbstractWriter, in_batches
from poolproof.audit.write_rows import holds_rows, open_rows
from poolproof.errors import InputError
from poolproof.files import hash_file

_UID: Final = re.compile(r"[0-9a-fA-F]{32}")
_TYPE: Final = np.dtype("u8,u8")
_MASK: Final = (1 << 64) - 1


@final
@dataclass(frozen=True)
class UidWriter(AbstractWriter):
    """`subset.npy`, dtype `u8,u8`: the high and low 64 bits of each uid, ascending, repeated ones repeated."""

    format: ClassVar[str] = "uids"
    opens_as: ClassVar[str] = ""

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Notes the uids of some items, in hex."""
        uids = "".join(self._uids(start, stop))
        self.place.write(self.place.work / f"{unit:08d}.uids", uids.encode())
        return {"items": stop - start}

    def finish(self, units: Sequence[dict[str, Any]]) -> None:
        """Sorts them into the file."""
        parts = [(self.place.work / f"{unit:08d}.uids").read_bytes() for unit in range(len(units))]
        words = np.frombuffer(bytes.fromhex(b"".join(parts).decode()), ">u8").reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))
        subset = np.empty(len(words), _TYPE)
        subset["f0"], subset["f1"] = words[order, 0], words[order, 1]
        path = self.place.out / "subset.npy"
        with self.place.file(path) as handle:
            np.save(handle, subset)
        units[0].update(name=self.relative(path), bytes=path.stat().st_size, sha256=hash_file(path))

    def _uids(self, start: int, stop: int) -> Iterator[str]:
        files = None if holds_rows(self.kept) else open_files(self.kept)
        for batch in in_batches(self.kept.items(start, stop)):
            stated = _stated_in_rows(self, batch) if files is None else _stated_beside(files, batch)
            for item, uid in zip(batch, stated, strict=True):
                found = uid if uid is not None else item.ref.key
                if not isinstance(found, str) or not _UID.fullmatch(found):
                    raise InputError(
                        f"item {item.ref.key!r} has no uid (got {found!r}); the format uids takes 32 hex digits "
                        "from `uid` in its json, a column `uid`, or its key"
                    )
                yield found.lower()


@final
@dataclass(frozen=True)
class KeyWriter(AbstractWriter):
    """Nothing but what every output has: `kept.txt`."""

    format: ClassVar[str] = "keys"
    opens_as: ClassVar[str] = ""

    def bounds(self) -> list[int]:
        """No units."""
        return [0]

    def write(self, unit: int, start: int, stop: int) -> dict[str, Any]:
        """Never called: there are no units."""
        raise RuntimeError(f"a list has no units; asked for unit {unit}, {start} to {stop}")


def _stated_beside(files: AbstractFiles, batch: Sequence[KeptItem]) -> Iterator[Any]:
    for item in batch:
        yield _uid_in(files.read_beside(item).get(".json"))


def _stated_in_rows(writer: UidWriter, batch: Sequence[KeptItem]) -> Iterator[Any]:
    rows = open_rows(writer.kept)
    names = rows.schema(batch[0].ref.source).names
    column = next((name for name in ("uid", "json") if name in names), None)
    if column is None:
        yield from (None for _ in batch)
        return
    if isinstance(rows.reader, ParquetReader):
        values = list(rows.reader.values(column, [item.ref for item in batch]))
    else:
        stored = rows.reader.load().select_columns([column]).with_format("arrow")
        values = stored[[item.ref.offset for item in batch]].column(0).to_pylist()
    yield from (value if column == "uid" else _uid_in(value) for value in values)


def _uid_in(text: bytes | str | None) -> Any:
    """`uid` of a JSON object, None where there is none."""
    try:
        stated = json.loads(text) if text is not None else None
    except (ValueError, TypeError):
        return None
    return stated.get("uid") if isinstance(stated, dict) else None
