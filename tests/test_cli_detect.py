"""`poolproof detect` as a stranger types it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from command_line import run_apart, run_here
from image_pools import write_class, write_mixed


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References, pools to try on, and a detector fitted by the command."""
    folder = tmp_path_factory.mktemp("pools")
    write_class(folder / "real", 80, synthetic=False, seed=1)
    write_class(folder / "synthetic", 80, synthetic=True, seed=2)
    write_class(folder / "other-real", 30, synthetic=False, seed=3)
    write_class(folder / "other-synthetic", 30, synthetic=True, seed=4)
    write_mixed(folder / "pool", 20, 10, seed=5)
    arguments = ["--real", folder / "real", "--synthetic", folder / "synthetic", "--out", folder / "detector"]
    done = run_apart("detect", "fit", *arguments, "--embedder", "forensic", "--workers", "0", "-q")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "tried on    24 real and 24 synthetic held-out references, probe on forensic"
    assert any(line.startswith("AUC ") for line in lines)
    return folder


@pytest.mark.parametrize("command", [[], ["fit"], ["evaluate"], ["score"]])
def test_help_is_complete(command: list[str]) -> None:
    """Every command explains itself and every option of it."""
    done = run_here("detect", *command, "--help")
    assert done.returncode == 0
    options = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("--")]
    assert all(len(option.split()) > 2 for option in options)


def test_evaluate_prints_rates_and_writes_a_curve(pools: Path, tmp_path: Path) -> None:
    """Rates with limits are printed; figures, scores and an SVG that parses lie in the folder."""
    named = ["--real", pools / "other-real", "--synthetic", pools / "other-synthetic"]
    done = run_here(
        "detect", "evaluate", "-d", pools / "detector", *named, "-o", tmp_path / "e", "--workers", "0", "-q"
    )
    assert done.returncode == 0, done.stderr
    assert "tried on    30 real and 30 synthetic images" in done.stdout
    figures = json.loads((tmp_path / "e" / "figures.json").read_text())
    assert f"AUC         {figures['auc']['point']:.3f}" in done.stdout
    assert ElementTree.parse(tmp_path / "e" / "roc.svg").getroot().tag.endswith("svg")
    assert pq.read_metadata(tmp_path / "e" / "scores.parquet").num_rows == 60


def test_names_of_folders_stay_on_their_line(pools: Path, tmp_path: Path) -> None:
    """A folder whose name holds a line break or a terminal's commands is printed with escapes."""
    for name, seed in (("a\nb", 6), ("\x1b[2J<b>", 7)):
        write_class(tmp_path / "synthetic" / name, 15, synthetic=True, seed=seed)
    named = ["--real", pools / "other-real", "--synthetic", tmp_path / "synthetic"]
    done = run_here(
        "detect", "evaluate", "-d", pools / "detector", *named, "-o", tmp_path / "e", "--workers", "0", "-q"
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("generator")]
    assert [line.split(":")[0].split()[1] for line in lines] == ["\\x1b[2J<b>", "a\\nb"]


def test_score_says_that_flags_are_no_share(pools: Path, tmp_path: Path) -> None:
    """A pool gets a score per image and a warning; the same command again gives the same table."""
    arguments = [
        "detect",
        "score",
        pools / "pool",
        "-d",
        pools / "detector",
        "-o",
        tmp_path / "s",
        "--workers",
        "0",
    ]
    first = run_here(*arguments, "-q")
    assert first.returncode == 0, first.stderr
    assert "scored      30 of 30 images" in first.stdout
    assert "no estimate of the share" in first.stdout
    table = (tmp_path / "s" / "scores.parquet").read_bytes()
    assert run_here(*arguments, "-q").returncode == 0
    assert (tmp_path / "s" / "scores.parquet").read_bytes() == table


def test_audit_prints_what_the_checks_found(pools: Path, tmp_path: Path) -> None:
    """An audit by a saved detector prints a share, and nothing of checks that pass."""
    named = ["--real", pools / "other-real", "--synthetic", pools / "other-synthetic"]
    done = run_here(
        "audit",
        pools / "pool",
        *named,
        "--detector",
        pools / "detector",
        "-o",
        tmp_path / "run",
        "--workers",
        "0",
        "-q",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("share ")
    assert "flagged by the probe detector" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--real", "nowhere", "--synthetic", "elsewhere", "-o", "out"], "no such file or folder"),
        (["fit", "--real", "x", "-o", "out"], "give --synthetic too"),
        (["fit", "--real", "x", "--detector", "univfd", "-o", "out"], "give --weights"),
        (["fit", "--real", "x", "--detector", "guess", "-o", "out"], "--detector: got 'guess'"),
        (["score", "x", "-d", "nowhere", "-o", "out"], "detector.json"),
        (["evaluate", "-d", "nowhere", "--real", "x", "--synthetic", "y", "-o", "out"], "detector.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    """What cannot be used costs one line, the name and the remedy in it."""
    done = run_here("detect", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
