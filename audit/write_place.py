"""The output folder: what may be in it, what is finished in it, and files that appear in it whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from poolproof.errors import Halted, InputError
from poolproof.files import write_json

WORK: Final = ".filter"
"""Folder of the markers of what is finished, and of files that are not whole yet. Gone at the end."""

_GIVEN: Final = frozenset(("decision.parquet", "decision.json", WORK))
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


class FilterError(Halted):
    """The pool could not be written; what is finished stays, and the same command continues."""


@dataclass(frozen=True)
class Place:
    """The output folder of one call, held by it alone."""

    out: Path

    @property
    def pool(self) -> Path:
        """The data alone."""
        return self.out / "pool"

    @property
    def work(self) -> Path:
        """Markers and unfinished files."""
        return self.out / WORK

    @contextlib.contextmanager
    def file(self, path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
        """A file to write; it is at `path`, whole, when the block ends well, else nowhere.

        Args:
            path: its final name.
            sync: whether to wait until it is on disk; else whoever marks it as finished has to.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.work / "unfinished"
        try:
            with temporary.open("wb") as handle:
                yield handle
                handle.flush()
                if sync:
                    os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # on a full disk it would be in the way

    def write(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        """Puts bytes at a path, as `file` does."""
        with self.file(path, sync=sync) as handle:
            handle.write(data)

    def json(self, path: Path, value: Any) -> None:
        """Puts JSON at a path."""
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        self.write(path, text.encode("utf-8", "backslashreplace"))

    def link(self, original: Path, path: Path) -> str | None:
        """Makes a second name for a file and returns the digest of its bytes; None where that cannot be done."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.work / "linked"
        temporary.unlink(missing_ok=True)
        try:
            os.link(os.path.realpath(original), temporary)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
        with temporary.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        path.unlink(missing_ok=True)  # two names of one file: a rename would leave both
        temporary.replace(path)
        return digest

    def done(self, unit: int) -> dict[str, Any] | None:
        """What a finished unit is, None where it is not finished."""
        try:
            return json.loads((self.work / f"{unit:08d}.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def mark_done(self, unit: int, found: Mapping[str, Any]) -> None:
        """Notes that a unit is finished; comes after its files."""
        self.json(self.work / f"{unit:08d}.json", found)

    def clear(self) -> None:
        """Removes the markers."""
        shutil.rmtree(self.work)


@contextlib.contextmanager
def hold(out: Path, identity: Mapping[str, Any]) -> Iterator[Place]:
    """The output folder, made if needed and held against another process.

    Args:
        out: the folder.
        identity: what the output depends on. A folder that was begun with another one is refused.

    Raises:
        InputError: the folder holds other files, a link, or the output of another decision or format.
        FilterError: no space is left, or a file cannot be read or written.
    """
    import fcntl

    try:
        if out.is_symlink():
            raise InputError(f"--out {str(out)!r} is a link; give the folder itself")
        if out.exists() and not out.is_dir():
            raise InputError(f"--out is {str(out)!r}, a file; give a folder")
        found = sorted(os.listdir(out)) if out.exists() else []
        place = Place(out)
        begun = _begun(place)
        if begun is None and (others := [name for name in found if not _is_given(name)]):
            raise InputError(
                f"--out {str(out)!r} holds other files ({others[0]!r}, {len(others)} in all); give a new folder"
            )
        if begun is not None and begun != dict(identity):
            changed = sorted(name for name in identity if begun.get(name) != identity[name])
            raise InputError(
                f"--out {str(out)!r} holds the pool of another {' and '.join(changed) or 'version'}; "
                "give another folder, or the same settings to continue"
            )
        _refuse_links(out)
        place.work.mkdir(parents=True, exist_ok=True)
        with (place.work / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another process is writing to {str(out)!r}; wait for it, or give another folder"
                ) from error
            for name in filter(is_leftover, os.listdir(out)):
                (out / name).unlink()
            if begun is None:
                write_json(place.work / "begun.json", dict(identity))
            yield place
    except (BrokenPipeError, InterruptedError):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise FilterError(
                f"no space left on the device of {str(out)!r}; free some, the same command continues"
            ) from error
        raise FilterError(
            f"cannot read or write {str(error.filename or out)!r} ({error.strerror or error}); "
            "the same command continues"
        ) from error


def finished(out: Path) -> dict[str, Any] | None:
    """The manifest of a pool that was written in full, None where there is none."""
    try:
        return json.loads((out / "filter.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(
            f"{str(out / 'filter.json')!r} is damaged ({error}); remove the folder and filter again"
        ) from error


def _begun(place: Place) -> dict[str, Any] | None:
    manifest = finished(place.out)
    if manifest is not None:
        return manifest.get("identity", {})
    try:
        return json.loads((place.work / "begun.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _is_given(name: str) -> bool:
    """Whether a file may be there before anything was written: the decision, also one half written."""
    return name in _GIVEN or is_leftover(name)


def is_leftover(name: str) -> bool:
    """Whether a file is what a killed process left of a decision that it wrote."""
    return name == ".decision.parquet" or (
        name.lstrip(".").startswith("decision.") and name.startswith(".") and name.endswith(".tmp")
    )


def _refuse_links(out: Path) -> None:
    """Fails where the folder holds a symbolic link: we make none, and one may lead anywhere."""
    for folder, folders, files in os.walk(out):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                raise InputError(
                    f"--out {str(out)!r} holds a link ({os.path.join(folder, name)!r}); give a new folder"
                )
