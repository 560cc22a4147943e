"""Progress off a terminal: plain lines with rate and time left."""

from __future__ import annotations

import time

import pytest

from poolproof.audit import progress
from poolproof.audit.progress import Bars, Lines, Silence, choose_progress


def test_lines_tell_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage begins with its size, reports at intervals, and ends with its rate."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Lines().items("reading", 10, 4) as tick:
        time.sleep(0.01)
        tick(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading: 10 items, 4 done earlier"
    assert lines[1].startswith("reading: 7 of 10 items, ")
    assert lines[1].endswith(" left")
    assert lines[2].startswith("reading: done, 6 items in ")


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    """A tick every moment does not print a line every moment."""
    with Lines().items("reading", 100, 0) as tick:
        for n in range(100):
            tick(n)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars on a terminal, lines elsewhere, silence when asked."""
    assert isinstance(choose_progress(quiet=True), Silence)
    assert isinstance(choose_progress(), Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(choose_progress(), Bars)


def test_bars_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Bars take ticks and stages and write to standard error alone."""
    with Bars().items("reading", 10, 2) as tick:
        tick(5)
    with Bars().stage("thinking"):
        pass
    output = capsys.readouterr()
    assert "reading" in output.err
    assert output.out == ""
