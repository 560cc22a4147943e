"""`poolproof filter` as a stranger types it: look, decide, write, continue, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import run_apart, run_here
from image_pools import add_evidence, write_class, write_mixed

COMMAND = [sys.executable, "-m", "poolproof"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit of 60 real and 30 synthetic images, 3 of which declare themselves."""
    folder = tmp_path_factory.mktemp("filtered")
    add_evidence(write_mixed(folder / "pool", 60, 27, seed=3), declared=3, marked=0)
    write_class(folder / "real", 80, synthetic=False, seed=1)
    write_class(folder / "synthetic", 80, synthetic=True, seed=2)
    result = run_here(
        "audit", folder / "pool", "--out", folder / "run", "--real", folder / "real",
        "--synthetic", folder / "synthetic", "--embedder", "forensic", "--workers", "0", "-q",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_look_decide_write_and_continue(run: Path, tmp_path: Path) -> None:
    """A dry run writes nothing, the pool is written byte for byte, and the same command again says the same."""
    looked = run_apart("filter", run, "--dry-run", "-q")
    assert looked.returncode == 0, looked.stderr
    assert "synthetic left" in looked.stdout
    assert "found" in looked.stdout
    out = tmp_path / "out"
    told = [run_apart("filter", run, "--out", out, "--max-share", "0.3", "-q") for _ in range(2)]
    assert [each.returncode for each in told] == [0, 0], told[0].stderr
    assert told[0].stdout == told[1].stdout
    kept = sorted(path.name for path in (out / "pool").iterdir())
    statement = json.loads((out / "decision.json").read_text("utf-8"))
    assert len(kept) == statement["items"]["kept"]
    assert not any(name.startswith("d") for name in kept)
    original = run.parent / "pool"
    assert all((out / "pool" / name).read_bytes() == (original / name).read_bytes() for name in kept)
    assert len(list(original.iterdir())) == 90


def test_a_dry_decision_is_applied_later(run: Path, tmp_path: Path) -> None:
    """--dry-run --out leaves the decision alone, and --decision writes its pool in another form."""
    assert run_here("filter", run, "-n", "--out", tmp_path / "dry", "--budget", "40", "-q").returncode == 0
    assert sorted(path.name for path in (tmp_path / "dry").iterdir()) == ["decision.json", "decision.parquet"]
    result = run_here(
        "filter",
        run,
        "--decision",
        tmp_path / "dry",
        "--out",
        tmp_path / "tars",
        "--format",
        "webdataset",
        "-q",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "tars" / "filter.json").read_text("utf-8"))["counts"]["kept"] == 40


def test_out_of_reach_writes_nothing_and_exits_3(run: Path, tmp_path: Path) -> None:
    """A cap that cannot be proven leaves no file unless it is asked for anyway."""
    result = run_here("filter", run, "--out", tmp_path / "out", "--max-share", "0.0001", "-q")
    assert result.returncode == 3
    assert "out of reach" in result.stdout
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "out").exists()
    anyway = run_here("filter", run, "--out", tmp_path / "out", "--max-share", "0.0001", "--anyway", "-q")
    assert anyway.returncode == 0, anyway.stderr
    assert (tmp_path / "out" / "pool").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out: got none"),
        (["-n", "--policy", "best"], "--policy: got 'best'"),
        (["-n", "--policy", "admissible"], "got no --sampling-bias"),
        (["-n", "--policy", "admissible", "--sampling-bias", "much"], "--sampling-bias: got 'much'"),
        (["-n", "--policy", "admissible", "--sampling-bias", "2"], "sampling_bias"),
        (["-n", "--policy", "budget"], "got no --budget"),
        (["-n", "--policy", "found", "--budget", "3"], "--budget: got it for the policy found"),
        (["-n", "--max-share", "1.5"], "--max-share is 1.5"),
        (["-n", "--dim", "4"], "--dim: got 4 without --sampling-bias"),
        (["-n", "--tiers", "guessed"], "tiers"),
        (["--decision", "nowhere", "-n", "--out", "x"], "--decision: got it beside"),
        (["--decision", "nowhere", "--out", "x"], "no decision at"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """A mistake is told in one line, before anything is written."""
    arguments = [str(tmp_path / word) if word in ("x", "nowhere") else word for word in arguments]
    result = run_here("filter", run, *arguments, "-q")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_changed_pool_and_foreign_folders_are_refused(run: Path, tmp_path: Path) -> None:
    """The run's own folder and one with other files are no output, and no filter is written of a pool that changed."""
    assert "the run itself" in run_here("filter", run, "--out", run, "-q").stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "other files" in run_here("filter", run, "--out", tmp_path / "full", "-q").stderr
    path = run.parent / "pool" / "r0003.png"
    before = path.read_bytes()
    try:
        path.write_bytes((run.parent / "pool" / "r0004.png").read_bytes())
        result = run_here("filter", run, "--out", tmp_path / "out", "-q")
    finally:
        path.write_bytes(before)
    assert result.returncode == 2
    assert "changed since the audit" in result.stderr
    assert not (tmp_path / "out" / "filter.json").exists()


def test_a_decision_out_of_reach_is_not_applied_in_silence(run: Path, tmp_path: Path) -> None:
    """What a dry run found out of reach is said again and not written without --anyway; other options are refused."""
    assert (
        run_here("filter", run, "-n", "--out", tmp_path / "dry", "--max-share", "0.0001", "-q").returncode
        == 3
    )
    apply = ["filter", run, "--decision", tmp_path / "dry", "--out", tmp_path / "out", "-q"]
    result = run_here(*apply)
    assert result.returncode == 3
    assert "out of reach" in result.stdout
    assert not (tmp_path / "out").exists()
    assert "options that decide" in run_here(*apply, "--unread", "keep").stderr
    assert run_here(*apply, "--anyway").returncode == 0


def test_nothing_is_written_into_the_pool_or_the_evidence(run: Path) -> None:
    """A folder inside the audited pool or the run's evidence is refused before anything is written there."""
    before = sorted(path.name for path in (run.parent / "pool").iterdir())
    for out in (run.parent / "pool" / "dec", run / "evidence" / "x"):
        result = run_here("filter", run, "-n", "--out", out, "--policy", "found", "-q")
        assert result.returncode == 2
        assert not out.exists()
    assert sorted(path.name for path in (run.parent / "pool").iterdir()) == before


def test_weights_of_zero_travel_and_a_lost_pool_is_told(run: Path, tmp_path: Path) -> None:
    """Weights of 0 on kept images are written beside the pool; a finished folder whose pool is gone says so."""
    import shutil

    command = ["filter", run, "--policy", "weights", "--weight", "0", "--out", tmp_path / "out", "-q"]
    assert run_here(*command).returncode == 0
    assert (tmp_path / "out" / "weights.parquet").is_file()
    shutil.rmtree(tmp_path / "out" / "pool")
    result = run_here(*command)
    assert result.returncode == 2
    assert "its pool is gone" in result.stderr


def test_the_command_knows_every_policy() -> None:
    """The names and options that the command lists without loading policies are those of the table."""
    from poolproof.audit.policy import POLICIES
    from poolproof.cli_filter import _OPTIONS, _POLICIES

    assert set(_POLICIES) == set(POLICIES) == set(_OPTIONS)
