"""The `poolproof label` command and `audit --labels`, as a stranger types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_apart, run_here
from label_runs import make_run

COMMAND = [sys.executable, "-m", "poolproof"]
PAGE = "page0number1"


class Running:
    """`poolproof label` at work."""

    def __init__(self, cwd: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "label", "run", "--no-open", *options],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)

    def label(self, n: int) -> None:
        """Labels n items by their names."""
        state = self.ask(f"state/{PAGE}")
        for _ in range(n):
            item = state["item"]
            said = "real" if item["key"].startswith("r") else "synthetic"
            state = self.ask("label", {"page": PAGE, "row": item["row"], "label": said})

    def stop(self, number: int) -> tuple[str, str]:
        """Ends it; returns what it printed."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """The command on a run of 20 items."""
    make_run(tmp_path)
    running = Running(tmp_path, "--n", "12", "--seed", "5")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


@pytest.mark.slow
def test_label_then_audit(running: Running, tmp_path: Path) -> None:
    """Ctrl-C ends with 0, a summary and the next command, which tells the share by the labels; so does the report."""
    running.label(12)
    out, error = running.stop(signal.SIGINT)
    assert (running.process.returncode, error) == (0, "")
    assert "labels      12 of 12 (" in out
    assert "±" in out
    following = out.splitlines()[-1].removeprefix("next        ")
    assert following.endswith("--out run --labels run/labels.jsonl")
    done = run_apart(*following.split()[1:], "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["share"]["method"] == "labels-survey"
    labels = report["labels"]
    assert (
        f"labels      {labels['synthetic']} synthetic, {12 - labels['synthetic']} real, 0 unsure"
        in done.stdout
    )
    assert labels["plan"]["words"] in done.stdout
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Labels by people" in page
    assert "people said of 12 images drawn at random" in page
    assert run_apart("verify", "run", cwd=tmp_path).returncode == 0


def test_killed_and_begun_again(running: Running, tmp_path: Path) -> None:
    """What was labelled before a kill is there when the same command is given again; SIGTERM ends as Ctrl-C does."""
    running.label(5)
    running.process.kill()
    running.process.communicate()
    again = Running(tmp_path, "--n", "12")
    assert again.ask(f"state/{PAGE}")["done"] == 5
    out, _ = again.stop(signal.SIGTERM)
    assert again.process.returncode == 0
    assert "labels      5 of 12" in out


def test_ended_without_labels(running: Running) -> None:
    """Ctrl-C before the first label says so."""
    out, _ = running.stop(signal.SIGINT)
    assert running.process.returncode == 0
    assert out.splitlines()[-1] == "share       not told without a label that is sure"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "nowhere"], "is not a run"),
        (["label", "run", "--n", "0"], "--n: got 0"),
        (["label", "run", "--by", "score"], "--by: got 'score'"),
        (["label", "run", "--seed", "-1"], "--seed: got -1"),
        (["label", "run", "--port", "70000"], "--port: got 70000"),
        (["label", "run", "--labels", "no/l.jsonl"], "cannot be written"),
        (["label", "run", "--labels", "run/run.json"], "no JSON"),
        (["audit", "pool", "--out", "run", "--labels", "none"], "cannot be read"),
        (["audit", "pool", "--out", "run", "--labels", "run/run.json"], "no JSON"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(finished: Path, arguments: list[str], message: str) -> None:
    """What the user got wrong is said in one line, with exit code 2 and no traceback."""
    result = run_here(*arguments, "--no-open" if arguments[0] == "label" else "--quiet", cwd=finished)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("poolproof: ")
    assert message in lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool and its run."""
    folder = tmp_path_factory.mktemp("bad")
    make_run(folder, 3, 1)
    return folder
