"""The label file: what people said of which item, one line for each time they said something.

The first line is the header: which run, which draw. Lines are only ever added, so that several people can work
on one file; of an item's lines the last one counts, and one without a label takes the earlier ones back.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Final

from poolproof.audit.label_draw import DRAWS, PARTS, DrawnPart
from poolproof.errors import InputError

LABELS: Final = ("real", "synthetic", "unsure")
"""What a person can say of an image."""

SCHEMA_VERSION: Final = 1
"""Of the label file, described in `docs/labels.md`."""

KIND: Final = "poolproof-labels"

_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Header:
    """Which run the labels are of, and how its items were drawn.

    Attributes:
        plan_sha256: of the run's list of items.
        draw: `random` or `detector`.
        seed: of the draw.
        size: items that could be drawn.
        parts: of a draw by part; empty for a simple one.
        parts_sha256: which item was in which part; None for a simple draw.
    """

    plan_sha256: str
    draw: str
    seed: int
    size: int
    parts: tuple[DrawnPart, ...] = ()
    parts_sha256: str | None = None


@dataclass(frozen=True)
class Label:
    """What somebody said of an item.

    Attributes:
        row: of the item in the pool.
        key: its name.
        sha256: of the bytes that were looked at.
        label: one of `LABELS`; None takes an earlier label back.
        at: when, in UTC.
        part: one of `PARTS` in a draw by part, else None.
        place: of the item in the order of its part, in a simple draw in the whole order.
        by: whose page it was.
    """

    row: int
    key: str
    sha256: str
    label: str | None
    at: str
    part: str | None
    place: int
    by: str


class LabelFile:
    """A label file that is open: what it says so far, kept up with what others add.

    Args:
        path: the file; it has a header.

    Raises:
        InputError: there is no such file, or it is damaged. A last line that was never finished is left aside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: dict[int, Label] = {}
        self.torn = False
        self._offset = 0
        self._line = 0
        header = None
        with _opened(path) as handle:
            for line in self._complete_lines(handle):
                if header is None:
                    header = self._header(line)
                else:
                    self._add(line)
        if header is None:
            raise InputError(f"{str(path)!r} has no header; give a file that `poolproof label` wrote")
        self.header: Header = header

    @property
    def labels(self) -> dict[int, Label]:
        """The label that counts, by row; items whose label was taken back are left out."""
        return {row: label for row, label in self.latest.items() if label.label is not None}

    def refresh(self) -> None:
        """Takes in what others have added."""
        if self.path.stat().st_size > self._offset:
            with _opened(self.path) as handle:
                for line in self._complete_lines(handle):
                    self._add(line)

    def append(self, label: Label) -> None:
        """Adds a line; it is on the disk when this returns."""
        with self.path.open("r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for line in self._complete_lines(handle):
                self._add(line)
            handle.truncate(self._offset)  # what a process that died has left of its last line
            handle.seek(self._offset)
            line = _line(asdict(label))
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
            self._offset += len(line)
            self._line += 1
            self._take(label)

    def _complete_lines(self, handle: BinaryIO) -> Iterator[bytes]:
        handle.seek(self._offset)
        for line in handle:
            self.torn = not line.endswith(b"\n")
            if self.torn:
                return
            self._offset += len(line)
            self._line += 1
            yield line

    def _header(self, line: bytes) -> Header:
        values = self._parse(line)
        if values.get("kind") != KIND:
            raise self._damaged("it is no label file; give one that `poolproof label` wrote")
        if values.get("schema_version") != SCHEMA_VERSION:
            raise self._damaged(
                f"schema_version is {values.get('schema_version')}, allowed is {SCHEMA_VERSION}; "
                "label again with this version"
            )
        names = ("plan_sha256", "draw", "seed", "size", "parts_sha256")
        if not {*names, "parts"} <= set(values):
            raise self._damaged("its header lacks fields")
        by_part, parts = values["draw"] == "detector", values["parts"]
        sound = isinstance(values["plan_sha256"], str) and values["draw"] in DRAWS
        sound = sound and _is_count(values["seed"]) and _is_count(values["size"])
        sound = sound and isinstance(values["parts_sha256"], str if by_part else NoneType)
        sound = sound and isinstance(parts, list) and bool(parts) == by_part and all(map(_is_part, parts))
        if not sound or (by_part and sum(part["size"] for part in parts) != values["size"]):
            raise self._damaged("its header does not describe a draw")
        return Header(
            **{name: values[name] for name in names}, parts=tuple(DrawnPart(**part) for part in parts)
        )

    def _add(self, line: bytes) -> None:
        values = self._parse(line)
        if set(values) != {field.name for field in fields(Label)}:
            raise self._damaged("a label has other fields")
        texts = all(isinstance(values[name], str) for name in ("key", "at", "by", "sha256"))
        sound = texts and _is_count(values["row"]) and _is_count(values["place"])
        if not sound or not _SHA256.fullmatch(values["sha256"]) or values["part"] not in (None, *PARTS):
            raise self._damaged("a label's fields are out of range")
        if values["label"] not in (None, *LABELS):
            raise self._damaged(f"a label is {values['label']!r}, allowed are {', '.join(LABELS)}")
        self._take(Label(**values))

    def _take(self, label: Label) -> None:
        """Remembers a line; the latest ones stand last."""
        self.latest.pop(label.row, None)
        self.latest[label.row] = label

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except ValueError as error:
            raise self._damaged("it is no JSON") from error
        if not isinstance(values, dict):
            raise self._damaged("it is no JSON object")
        return values

    def _damaged(self, why: str) -> InputError:
        remedy = "" if ";" in why else "; restore the file, or label again into another one"
        return InputError(f"labels {str(self.path)!r}, line {self._line}: {why}{remedy}")


def start_labels(path: Path, header: Header) -> LabelFile:
    """A new label file without labels.

    Raises:
        InputError: there is one, or its folder is not there.
    """
    values = {"schema_version": SCHEMA_VERSION, "kind": KIND} | asdict(header)
    try:
        with path.open("xb") as handle:
            handle.write(_line(values))
            handle.flush()
            os.fsync(handle.fileno())
    except FileExistsError as error:
        raise InputError(f"labels {str(path)!r}: there is such a file; give another one") from error
    except OSError as error:
        raise InputError(
            f"labels {str(path)!r} cannot be written ({error.strerror}); give another file"
        ) from error
    return LabelFile(path)


def read_labels(path: Path) -> LabelFile:
    """A label file that is whole.

    Raises:
        InputError: there is no such file, it is damaged, or its last line was not finished.
    """
    found = LabelFile(path)
    if found.torn:
        raise InputError(
            f"labels {str(path)!r}: the last line was not finished; `poolproof label` with the next label cuts it off"
        )
    return found


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        handle = path.open("rb")
    except OSError as error:
        raise InputError(
            f"labels {str(path)!r} cannot be read ({error.strerror}); give a file that `poolproof label` wrote"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield handle


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, allow_nan=False).encode("ascii") + b"\n"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_part(values: object) -> bool:
    """Whether a value describes a part of a draw."""
    if not isinstance(values, dict) or set(values) != {"name", "size", "allocation"}:
        return False
    share = values["allocation"]
    sound = values["name"] in PARTS and _is_count(values["size"]) and values["size"] > 0
    return sound and isinstance(share, float) and 0 < share <= 1
