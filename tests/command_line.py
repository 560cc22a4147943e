"""The command line, in a process of its own or in the test's."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

Result = subprocess.CompletedProcess[str]

_QUIET = {"GITHUB_STEP_SUMMARY": ""}
"""Nothing is appended to the summary of a job that runs these tests."""


def run_apart(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Result:
    """What `poolproof` does in a process of its own, as users start it."""
    command = [sys.executable, "-m", "poolproof", *map(str, arguments)]
    surroundings = os.environ | _QUIET | environment
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env=surroundings, timeout=600
    )


def run_here(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Result:
    """The same in this process, which spares the start of another one."""
    from poolproof.cli import main

    words = list(map(str, arguments))
    output, error = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code: object = 0
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(error),
            mock.patch.dict(os.environ, _QUIET | environment),
            mock.patch.object(sys, "argv", ["poolproof", *words]),
        ):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(words, int(str(code or 0)), output.getvalue(), error.getvalue())
