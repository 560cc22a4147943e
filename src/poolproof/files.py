"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_LEFTOVER: Final = re.compile(r"\..+\.\d+(-\d+)?\.tmp", re.DOTALL)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: sorted as given, indented, no NaN (JSON has none).

    Text that stands for bytes which are not UTF-8, as in file names, is escaped and read back as it was.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with replace_file(path) as temporary:
        temporary.write_text(text, "utf-8", "backslashreplace")


def tell_failure(error: OSError, folder: Path | None = None) -> str:
    """What the machine refused, in one line; the same command continues when that is mended.

    Args:
        error: that it gave.
        folder: named where the error names no file.
    """
    reason = (error.strerror or str(error)).partition(". Detail:")[0]  # Arrow says it twice
    if error.errno in _FULL:
        reason = f"no space left on the device ({reason})"
    place = folder if error.filename is None else error.filename
    where = "" if place is None else f"{os.fsdecode(place)!r}: "
    return f"{where}{reason}; mend that, the same command continues"


def sweep_folder(folder: Path) -> None:
    """Removes what killed processes left of files and pages in a folder; nobody else may be at work in it."""
    for leftover in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
