"""Runs a command again and again, and lets something go wrong at each of its turns to the file system.

A script of its own, since it forks: `python crash_points.py SPEC`, where SPEC is JSON of `command` (arguments of
`poolproof`, `OUT` for the folder), `out` (a folder that does not exist), `fault` (`kill`, `full` or `swap:NAME`),
`every` and `first` (which turns). One line of JSON for each turn that was reached goes to standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from errno import ENOSPC
from pathlib import Path
from typing import Any

_TURNS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

state: dict[str, Any] = {"left": None, "fault": "", "out": ""}


def hook(event: str, args: tuple[Any, ...]) -> None:
    """Counts turns to the folder that is written to, and strikes at the last."""
    if state["left"] is None or event not in _TURNS:
        return
    path = args[0]
    if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
        return
    if not os.path.abspath(os.fsdecode(path)).startswith(state["out"]):
        return
    if event == "open" and not (args[2] or 0) & _WRITES:
        return
    state["left"] -= 1
    if state["left"] < 0:
        strike(event)


def strike(event: str) -> None:
    """What goes wrong: the process dies, the disk is full from now on, or a folder is replaced by a dangling link."""
    fault = state["fault"]
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "full":
        if event in ("open", "os.mkdir", "os.link"):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        return
    target = Path(state["out"]) / fault.removeprefix("swap:")
    state["left"] = None
    Path(state["out"] + ".mark").touch()
    if target.exists():
        target.rename(target.with_name("away"))
        target.symlink_to("nowhere")


def run(command: list[str], left: int | None) -> int:
    """The exit status of a command in this process."""
    from poolproof.cli import main

    sys.argv, code = ["poolproof", *command], 70
    state["left"] = left
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    state["left"] = None
    return code


def call(command: list[str], left: int | None, log: Path) -> int:
    """The exit status of a command in a child, with what it prints in a file."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            code = run(command, left)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder, but for what tells the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("report.html", ".lock", ".turn"):
            data = path.read_bytes()
            if path.name == "report.json":
                try:
                    told = json.loads(data)
                    del told["manifest"]["seconds"]
                    data = json.dumps(told).encode()
                except ValueError:
                    data = b"half"
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def main(spec: dict[str, Any]) -> None:
    """Tries all turns that the spec asks for."""
    out, log = Path(spec["out"]), Path(spec["out"] + ".log")
    command = [str(out) if word == "OUT" else word for word in spec["command"]]
    sys.addaudithook(hook)
    state.update(fault=spec["fault"], out=str(out))
    with contextlib.redirect_stdout(io.StringIO()):  # here, so that no child has to load what it needs
        assert run(command, None) == 0, log.read_text()
    calm = digests(out)
    turn = spec["first"]
    while True:
        shutil.rmtree(out)
        code = call(command, turn, log)
        said = log.read_text("utf-8", "replace")
        away = next(out.rglob("away"), None) if out.is_dir() else None
        mark = Path(spec["out"] + ".mark")
        reached = code != 0 or mark.exists()
        mark.unlink(missing_ok=True)
        if away is not None:
            link = away.with_name(spec["fault"].removeprefix("swap:").rpartition("/")[2])
            if link.is_symlink() or link.is_file():
                link.unlink()
            away.rename(link)
        half = [
            name
            for name, digest in (digests(out) if out.is_dir() else {}).items()
            if not any(part.startswith(".") for part in Path(name).parts) and calm.get(name) != digest
        ]
        again = call(command, None, log)
        told = {"turn": turn, "code": code, "said": said[-600:], "half": half, "again": again}
        after = digests(out)
        told["differs"] = sorted(
            name for name in calm.keys() | after.keys() if calm.get(name) != after.get(name)
        )
        told["said_again"] = log.read_text("utf-8", "replace")[-600:] if again else ""
        if not reached:
            break
        print(json.dumps(told), flush=True)
        turn += spec["every"]


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
