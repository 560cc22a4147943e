"""The real command line, as a stranger types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run_apart, run_here
from image_pools import add_evidence, write_class, write_mixed

COMMAND = [sys.executable, "-m", "poolproof"]


@pytest.mark.parametrize("command", [[], ["audit"], ["report"], ["verify"], ["quickstart"], ["detect"]])
def test_help_is_complete(command: list[str]) -> None:
    """Every command explains itself and every option of it."""
    result = run_apart(*command, "--help")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    options = [line.strip() for line in lines if line.strip().startswith("--")]
    assert all(len(option.split()) > 2 or option.endswith("TEXT") for option in options)


def test_help_loads_nothing_heavy() -> None:
    """`--help` is instant because no numeric package is imported for it."""
    code = (
        "import sys; sys.argv = ['poolproof', '--help']\n"
        "from poolproof.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'PIL', 'pandas', 'sklearn', 'scipy', 'faiss', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "HEAVY []" in result.stdout


def test_version() -> None:
    """`--version` prints name and version."""
    result = run_apart("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("poolproof 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "nowhere", "--out", "run"], "no such file or folder"),
        (["audit", "empty", "--out", "run"], "holds no images"),
        (["audit", "one", "--out", "run", "--level", "95"], "between 0 and 1"),
        (["audit", "one", "--out", "run", "--sample", "0"], "at least 1"),
        (["audit", "one", "--out", "run", "--shard-size", "0"], "at least 1"),
        (["audit", "one", "--out", "run", "--workers", "-1"], "0 or more"),
        (["audit", "one", "--out", "run", "--real", "one"], "same pool"),
        (["audit", "one", "--out", "one"], "nothing is written there"),
        (["audit", "one", "--out", "run", "--real", "gone"], "no such file or folder"),
        (["audit", "one", "--out", "run", "--fail-if", "share.lower"], "FIELD OPERATOR NUMBER"),
        (["audit", "one", "--out", "run", "--fail-if", "shape.lower > 1"], "no field"),
        (["audit", "one", "--out", "run", "--max-unreadable", "2"], "between 0 and 1"),
        (
            ["audit", "one", "--out", "run", "--embedder", "clip:ViT-B-32/not-cached"],
            "clip:ViT-B-32/not-cached",
        ),
        (["audit", "one", "--out", "run", "--embedder", "resnet"], "resnet"),
        (["verify", "one"], "is not a run"),
        (["report", "nowhere"], "is not a run"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    """What the user got wrong is said in one line, with exit code 2 and no traceback."""
    write_class(tmp_path / "one", 1, synthetic=False, seed=0)
    (tmp_path / "empty").mkdir()
    result = run_here(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert sum(line.startswith("poolproof: ") for line in lines) == 1


def test_unknown_option_is_exit_2() -> None:
    """A mistyped option is a usage error."""
    assert run_here("audit", "x", "--outt", "y").returncode == 2


def test_audit_report_verify(tmp_path: Path) -> None:
    """The main path: audit writes the report, the lines agree with it, and it can be rendered again."""
    add_evidence(write_mixed(tmp_path / "pool", 12, 3, seed=1), declared=5, marked=0)
    result = run_apart("audit", "pool", "--out", "run", "--embedder", "forensic", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "0 signed, 5 declared, 0 marked" in result.stdout
    assert "20 of 20: 20 scored" in result.stdout
    assert "reading the pool: done, 20 items" in result.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["tiers"]["declared"]["count"] == 5
    assert report["manifest"]["command"] == "poolproof audit pool --out run --embedder forensic"
    (tmp_path / "run" / "report.html").unlink()
    assert run_apart("report", "run", cwd=tmp_path).returncode == 0
    assert "<svg" in (tmp_path / "run" / "report.html").read_text("utf-8")
    checked = run_apart("verify", "run", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "run: counts balance, hashes match\n")
    (tmp_path / "run" / "evidence" / "part-00000.done.json").unlink()
    assert run_apart("verify", "run", cwd=tmp_path).returncode == 1


def test_gates(tmp_path: Path) -> None:
    """A closed gate exits with 3, an open one with 0, and a figure that could not be told closes."""
    add_evidence(write_mixed(tmp_path / "pool", 6, 0, seed=1), declared=2, marked=0)
    options = ["audit", "pool", "--out", "run", "--workers", "0"]
    assert run_here(*options, "--fail-if", "share.lower > 0.9", cwd=tmp_path).returncode == 0
    closed = run_here(*options, "--fail-if", "share.lower > 0.2", cwd=tmp_path)
    assert closed.returncode == 3
    assert "gate closed: share.lower is 0.25" in closed.stderr
    withheld = run_here(*options, "--fail-if", "share.point > 0.2", cwd=tmp_path)
    assert withheld.returncode == 3
    assert "could not be told" in withheld.stderr


def test_too_many_unreadable_is_exit_4(tmp_path: Path) -> None:
    """The limit on unreadable items is on by default, and the report is there all the same."""
    pool = write_class(tmp_path / "pool", 9, synthetic=False, seed=0)
    (pool / "bad.jpg").write_bytes(b"")
    result = run_here("audit", "pool", "--out", "run", "--workers", "0", cwd=tmp_path)
    assert result.returncode == 4
    assert "10.00%" in result.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    again = run_here(
        "audit", "pool", "--out", "run", "--workers", "0", "--max-unreadable", "0.2", cwd=tmp_path
    )
    assert again.returncode == 0


def test_interrupted_is_exit_130_and_resumable(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a line, and the same command finishes the run."""
    write_class(tmp_path / "pool", 300, synthetic=False, seed=0)
    options = ["audit", "pool", "--out", "run", "--shard-size", "8", "--workers", "1"]
    process = subprocess.Popen([*COMMAND, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "evidence" / "part-00001.done.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command continues" in error
    assert "Traceback" not in error
    assert run_apart(*options, cwd=tmp_path).returncode == 0


def test_two_at_once_is_refused(tmp_path: Path) -> None:
    """A second process on the same run is told so instead of doing the work twice."""
    import fcntl

    write_class(tmp_path / "pool", 2, synthetic=False, seed=0)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = run_here("audit", "pool", "--out", "run", cwd=tmp_path)
    assert result.returncode == 2
    assert "another process" in result.stderr


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Markup, newlines and bytes that are not UTF-8 in names reach the report as text."""
    pool = write_class(tmp_path / "pool", 3, synthetic=False, seed=0)
    data = (pool / "0000.png").read_bytes()
    for name in (b"<img src=x onerror=alert(1)>.png", b"new\nline.png", b"\xff\xfe.png", b"$(id) '\".png"):
        Path(os.fsdecode(os.fsencode(pool) + b"/" + name)).write_bytes(data + name)
    result = run_here("audit", "pool", "--out", "run", "--workers", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert json.loads((tmp_path / "run" / "report.json").read_text())["pool"]["status"]["scored"] == 7


def test_a_full_disk_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """A write that finds no space ends in one line, and with room the same command ends well."""
    write_class(tmp_path / "pool", 40, synthetic=False, seed=1)
    arguments = [
        "audit",
        str(tmp_path / "pool"),
        "--out",
        str(tmp_path / "run"),
        "--embedder",
        "forensic",
        "-q",
    ]
    code = (
        "import errno, sys, pathlib\n"
        "from poolproof.audit import summary, run\n"
        "def full(path, value):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device', str(path))\n"
        "run.write_json = full\n"
        f"sys.argv = ['poolproof', *{arguments!r}]\n"
        "from poolproof.cli import main\n"
        "main()"
    )
    halted = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert halted.returncode == 1
    assert len(halted.stderr.strip().splitlines()) == 1
    assert "no space left on the device" in halted.stderr
    assert run_apart(*arguments).returncode == 0
