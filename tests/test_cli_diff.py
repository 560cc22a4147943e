"""Gates, JUnit XML and step summaries on the real command line, of audits and of comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import Result, run_apart, run_here
from image_pools import write_class, write_mixed

from poolproof.cli_diff import _p_value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References and two pools, the first of them audited."""
    folder = tmp_path_factory.mktemp("gates")
    write_class(folder / "real", 40, synthetic=False, seed=1)
    write_class(folder / "synthetic", 40, synthetic=True, seed=2)
    write_mixed(folder / "a", 40, 5, seed=3)
    write_mixed(folder / "b", 15, 30, seed=30)
    assert audit(folder, "a", "--fail-if", "share.lower > 0.9").returncode == 0
    return folder


def audit(folder: Path, pool: str, *more: str, **environment: str) -> Result:
    """Audits a pool."""
    options = ["--real", "real", "--synthetic", "synthetic", "--embedder", "forensic", "--workers", "0", "-q"]
    return run_here("audit", pool, "--out", f"run_{pool}", *options, *more, cwd=folder, **environment)


def failures(path: Path) -> dict[str | None, str | None]:
    """Names of the test cases, and why they failed."""
    found = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        failure = case.find("failure")
        found[case.get("name")] = None if failure is None else failure.get("message")
    return found


def test_audit_writes_junit_and_appends_the_summary(folder: Path) -> None:
    """One case a gate, one for unreadable items, one for the accounting; the summary goes where the service reads."""
    result = audit(
        folder,
        "b",
        "--fail-if", "estimates[melded].lower > 0.2",
        "--fail-if", "checks.alarm.fires == true",
        "--junit", "out/junit.xml",
        GITHUB_STEP_SUMMARY=str(folder / "step.md"),
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    found = failures(folder / "out" / "junit.xml")
    assert list(found) == [
        "gate: estimates[melded].lower > 0.2",
        "gate: checks.alarm.fires == true",
        "at most 1.00% unreadable or missing",
        "every item is accounted for",
    ]
    assert [reason is None for reason in found.values()] == [False, True, True, True]
    text = (folder / "step.md").read_text("utf-8")
    assert "## Share of synthetic images: `" in text
    assert "| `checks.alarm.fires == true` | passed |" in text


def test_gates_of_a_finished_run(folder: Path) -> None:
    """`report` evaluates gates without auditing again, writes the same files, and refuses unknown fields."""
    closed = run_here(
        "report",
        "run_a",
        "--fail-if",
        "pool.items >= 45",
        "--junit",
        "r.xml",
        "--summary",
        "r.md",
        cwd=folder,
    )
    assert closed.returncode == 3
    assert "gate closed: pool.items is 45" in closed.stderr
    assert (
        failures(folder / "r.xml")["gate: pool.items >= 45"]
        == "pool.items is 45, and the gate is pool.items >= 45"
    )
    assert "**closed**" in (folder / "r.md").read_text("utf-8")
    assert run_here("report", "run_a", "--fail-if", "pool.items > 45", cwd=folder).returncode == 0
    unknown = run_here("report", "run_a", "--fail-if", "pool.item > 45", cwd=folder)
    assert unknown.returncode == 2
    assert "did you mean pool.items" in unknown.stderr


def test_diff(folder: Path) -> None:
    """The text, the files, the gates and the exit code of a comparison."""
    audit(folder, "b")
    result = run_apart(
        "diff", "run_a", "run_b", "--out", "diff", "--junit", "d.xml", "--summary", "d.md",
        "--fail-if", "share.difference.lower > 0.02", "--fail-if", "comparable.verdict == false",
        cwd=folder,
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert "change      +" in result.stdout
    assert "gate closed: share.difference.lower is 0." in result.stderr
    assert json.loads((folder / "diff" / "diff.json").read_text("utf-8"))["schema_version"] == 1
    assert (folder / "diff" / "changed.parquet").is_file()
    found = failures(folder / "d.xml")
    assert found["the runs can be compared"] is None
    assert found["gate: comparable.verdict == false"] is None
    assert found["gate: share.difference.lower > 0.02"] is not None
    assert "**Change of the share: +" in (folder / "d.md").read_text("utf-8")
    assert run_here("diff", "run_a", "run_a", cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run_a", "nowhere"], "is not a run"),
        (["run_a", "run_a", "--fail-if", "estimates > 1"], "no field 'estimates'"),
        (["run_a", "run_a", "--level", "2"], "--level is 2"),
        (["run_a", "run_a", "--out", "run_a"], "one of the runs"),
    ],
)
def test_bad_input_of_diff_is_one_line_and_exit_2(folder: Path, arguments: list[str], words: str) -> None:
    """What cannot be used is named in one line."""
    result = run_here("diff", *arguments, cwd=folder)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_p_value_is_printed_as_zero() -> None:
    """Beyond double precision a p-value is told by its limit."""
    assert [_p_value(value) for value in (0.0, 1e-13, 0.25)] == ["p < 1e-15", "p = 1e-13", "p = 0.25"]
