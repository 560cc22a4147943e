"""The stories in `docs/stories` run as written, and print what they show.

In a page, fences `sh` and `python` are run in order in one folder; others are not run. A line `# exit code N` in an
`sh` block is the exit code of its last command, 0 without. A `text` fence shows lines of what the last block before
it printed, in order, with others left out; numbers may differ a little, and a line that ends with ` ...` is cut there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STORIES = Path(__file__).parents[1] / "docs" / "stories"
DEMONSTRATION = "poolproof quickstart --seed 9 --out demo"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"^# exit code (\d+)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: the word after the fence.
        body: its lines.
        line: of the page, from 1.
    """

    kind: str
    body: str
    line: int


def read_blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for match in _FENCE.finditer(page):
        yield Block(match[1], match[2], page.count("\n", 0, match.start()) + 1)


def matches(shown: str, printed: str) -> bool:
    """Whether a printed line has the words of a shown one, and numbers that differ by a sixth or .05 at most.

    >>> matches("share 25.7 % ...", "share 24.9 %  (19 to 32)"), matches("share 25.7 %", "share 12.1 %")
    (True, False)
    """
    words, numbers = _parts(shown.removesuffix(" ..."))
    others, values = _parts(printed)
    if shown.endswith(" ..."):
        if not " ".join(others).startswith(" ".join(words)):
            return False
        values = values[: len(numbers)]
    elif words != others:
        return False
    return len(numbers) == len(values) and all(
        abs(a - b) <= max(abs(a) / 6, 0.05) or (a.is_integer() and abs(a) < 20 and abs(a - b) <= 3)
        for a, b in zip(numbers, values, strict=True)
    )


def _parts(line: str) -> tuple[list[str], list[float]]:
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(line)]
    return _NUMBER.sub("#", line).split(), numbers


def find_absent(shown: str, printed: str) -> list[str]:
    """The shown lines that were not printed, in order."""
    left = iter(printed.splitlines())
    return [line for line in shown.splitlines() if not any(matches(line, other) for other in left)]


class Shell:
    """Runs blocks with the interpreter and the `poolproof` of the tests."""

    def __init__(self, tools: Path) -> None:
        tools.mkdir()
        for name, arguments in (("poolproof", "-m poolproof "), ("python", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            (tools / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(tools.parent / "cache"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }

    def run(self, block: Block, folder: Path) -> tuple[int, str]:
        """Exit code and output of a block."""
        command = ["bash", "-euo", "pipefail", "-c"] if block.kind == "sh" else ["python", "-c"]
        result = subprocess.run(
            [*command, block.body],
            cwd=folder,
            env=self.environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return result.returncode, result.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell for all pages."""
    return Shell(tmp_path_factory.mktemp("shell") / "bin")


@pytest.fixture(scope="module")
def demonstration(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first command of two pages ran."""
    folder = tmp_path_factory.mktemp("demonstration")
    code, printed = shell.run(Block("sh", DEMONSTRATION, 1), folder)
    assert code == 0, printed
    return folder


def test_examples_in_docstrings() -> None:
    """A shown line is compared word by word, and number by number within limits."""
    assert matches("share 25.7 % ...", "share 24.9 %  (19 to 32)")
    assert not matches("share 25.7 %", "share 12.1 %")
    assert not matches("share not told", "share 12.1 %")
    assert find_absent("a 1\nc 3\n", "a 1\nb 2\nc 3") == []
    assert find_absent("c 3\na 1\n", "a 1\nb 2\nc 3") == ["a 1"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", sorted(STORIES.glob("*.md")), ids=lambda page: page.stem)
def test_page_runs_as_written(
    page: Path, shell: Shell, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Each block of a page ends with the exit code it names, and prints what the page shows."""
    printed, n_run = "", 0
    for block in read_blocks(page.read_text("utf-8")):
        where = f"{page.name}, line {block.line}"
        if block.kind == "text":
            assert n_run, f"{where}: nothing ran before"
            assert find_absent(block.body, printed) == [], f"{where}, printed:\n{printed}"
        elif block.kind in ("sh", "python"):
            if DEMONSTRATION in block.body:
                folder: Path = request.getfixturevalue("demonstration")
                shutil.copytree(folder / "demo", tmp_path / "demo")
                block = Block(block.kind, block.body.replace(DEMONSTRATION, ":"), block.line)
            wanted = _EXIT.search(block.body)
            code, printed = shell.run(block, tmp_path)
            assert code == (int(wanted[1]) if wanted else 0), f"{where}, printed:\n{printed}"
            n_run += 1
    assert n_run


def test_there_are_three_stories() -> None:
    """Each page has blocks that run, results that are shown, and few lines."""
    pages = sorted(STORIES.glob("*.md"))
    assert len(pages) == 3
    for page in pages:
        text = page.read_text("utf-8")
        kinds = [block.kind for block in read_blocks(text)]
        assert {"sh", "text"} <= set(kinds)
        assert len(text.splitlines()) <= 130
