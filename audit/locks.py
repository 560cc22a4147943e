"""Locks of a run's folder, for processes on one machine or on several that share it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from poolproof.errors import InputError


@contextlib.contextmanager
def lock_run(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the run for this process, or for this and others that share it; two at once would do the work twice.

    Raises:
        InputError: another process holds it.
    """
    import fcntl

    with (folder / ".lock").open(
        "a+"
    ) as handle:  # network file systems ask for reading where a lock is shared
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is working on {str(folder)!r}; wait for it, or give another --out"
            ) from error
        yield


@contextlib.contextmanager
def take_turn(folder: Path) -> Iterator[None]:
    """Waits until no other part pins settings or plans, and keeps the others waiting."""
    import fcntl

    with (folder / ".turn").open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
