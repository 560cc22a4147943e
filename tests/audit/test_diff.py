"""What changed between two audited pools: items by content, and whether the share did."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_pools import add_evidence, write_class, write_mixed

from poolproof.audit.changes import CHANGED, CHANGES, find_changes
from poolproof.audit.diff import compare_runs, write_diff
from poolproof.audit.finished import FinishedRun
from poolproof.audit.gate import DIFF_FIELDS, REPORT_FIELDS
from poolproof.audit.run import audit_pool
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.spec import AuditSpec
from poolproof.errors import InputError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "diff.schema.json").read_text("utf-8"))


def listed(items: Sequence[tuple[str, str | None]]) -> FinishedRun:
    """A run of items by key and content; None stands for an item without bytes."""
    n = len(items)
    table = pa.table(
        {
            "key": pa.array([key for key, _ in items], pa.string()),
            "status": pa.array(
                ["missing" if content is None else "scored" for _, content in items], pa.string()
            ),
            **{
                name: pa.array([False] * n, pa.bool_())
                for name in ("signed", "declared", "marked", "flagged")
            },
            "evidence": pa.array([None] * n, pa.string()),
            "score": pa.array([0.5] * n, pa.float32()),
            "sha256": pa.array(
                [
                    None if content is None else hashlib.sha256(content.encode()).digest()
                    for _, content in items
                ],
                pa.binary(32),
            ),
        }
    )
    return FinishedRun(RunFolder(Path("nowhere")), {}, table)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")], {"same": 2}),
        ([("a", "1")], [("a", "2")], {"changed": 1}),
        ([("a", "1")], [("b", "1")], {"moved": 1}),
        ([("a", "1"), ("b", "2")], [("a", "2"), ("b", "1")], {"moved": 2}),
        ([("a", "1")], [("a", "1"), ("b", "1")], {"same": 1, "added": 1}),
        ([("a", "1"), ("b", "1")], [("c", "1")], {"moved": 1, "removed": 1}),
        ([("a", None)], [("a", None)], {"same": 1}),
        ([("a", None)], [("a", "1")], {"changed": 1}),
        ([("a", None)], [("b", None)], {"removed": 1, "added": 1}),
        (
            [("a", "1"), ("a", "1"), ("a", "2")],
            [("a", "1"), ("a", "3")],
            {"same": 1, "changed": 1, "removed": 1},
        ),
        ([], [("a", "1")], {"added": 1}),
        ([("a", "1")], [], {"removed": 1}),
    ],
)
def test_items_are_paired(
    before: list[tuple[str, str | None]], after: list[tuple[str, str | None]], expected: dict[str, int]
) -> None:
    """By key and bytes, then by bytes, then by key; copies one to one."""
    counts = find_changes(listed(before), listed(after)).counts()
    assert {name: n for name, n in counts.items() if n} == expected


ITEMS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["1", "2", "3", None])), max_size=8)


@pytest.mark.property
@given(before=ITEMS, after=ITEMS)
def test_every_item_is_paired_or_alone(
    before: list[tuple[str, str | None]], after: list[tuple[str, str | None]]
) -> None:
    """Each row of either run is in one change, and backwards what was added was removed."""
    first, second = listed(before), listed(after)
    found, back = find_changes(first, second), find_changes(second, first)
    pairs = [found.same, found.moved, found.changed]
    assert sorted([*found.removed, *(row for each in pairs for row in each[:, 0])]) == list(
        range(len(before))
    )
    assert sorted([*found.added, *(row for each in pairs for row in each[:, 1])]) == list(range(len(after)))
    counts, swapped = found.counts(), back.counts()
    assert counts["added"] == swapped["removed"]
    assert [counts[name] for name in ("same", "moved", "changed")] == [
        swapped[name] for name in ("same", "moved", "changed")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of references, a pool, the same pool with changes, another one, and their audits."""
    folder = tmp_path_factory.mktemp("diff")
    for i, seed in (("", 1), ("2", 11)):
        write_class(folder / f"real{i}", 36, synthetic=False, seed=seed)
        write_class(folder / f"syn{i}", 36, synthetic=True, seed=seed + 1)
    write_mixed(folder / "a", 30, 10, seed=3)
    b = Path(shutil.copytree(folder / "a", folder / "b"))
    for path in sorted(b.glob("r*"))[:8]:
        path.unlink()
    write_class(b, 11, synthetic=True, seed=9, prefix="n")
    add_evidence(b, declared=2, marked=0)
    (b / "r0029.png").rename(b / "moved.png")
    (b / "r0028.png").write_bytes((b / "r0027.png").read_bytes()[:100])
    write_mixed(folder / "c", 24, 16, seed=30)
    for name in ("a", "b", "c"):
        run(folder, name, f"run_{name}")
    run(folder, "c", "own", real="real2", synthetic="syn2")
    return folder


def run(
    folder: Path, pool: str, out: str, real: str = "real", synthetic: str | None = "syn", **more: Any
) -> Path:
    """An audit of a pool with the weight-free features."""
    spec = AuditSpec(
        pool=str(folder / pool),
        out=folder / out,
        real=str(folder / real),
        synthetic=None if synthetic is None else str(folder / synthetic),
        embedder="forensic",
        workers=0,
        **more,
    )
    audit_pool(spec)
    return spec.out


def compare(a: Path, b: Path) -> dict[str, Any]:
    """The comparison's report, which is what the published schema promises."""
    report = compare_runs(a, b).report
    jsonschema.validate(report, SCHEMA)
    return report


def test_a_pool_that_changed(folder: Path) -> None:
    """Items, evidence and share: what changed is told, and the limits are those of the changed items alone."""
    found = compare(folder / "run_a", folder / "run_b")
    assert found["items"] == {
        "same": 30, "added": 13, "removed": 8, "changed": 1, "moved": 1, "reassessed": 0, "common": 31,
    }  # fmt: skip
    assert found["status"]["unreadable"] == {"a": 0, "b": 1, "change": 1}
    assert found["tiers"]["declared"] == {"a": 0, "b": 2, "change": 2}
    assert found["findings"]["difference"] == pytest.approx(2 / 44)
    assert found["comparable"]["same_calibration"]
    difference = found["share"]["difference"]
    truth = (10 + 11 + 2) / 44 - 10 / 40
    assert difference["method"] == "shared-rates"
    assert difference["verdict"] == "higher"
    assert difference["lower"] <= truth <= difference["upper"]
    assert difference["p_value"] < 0.01
    separate = [found["share"][side]["upper"] - found["share"][side]["lower"] for side in "ab"]
    assert difference["upper"] - difference["lower"] < 0.6 * max(separate)
    assert found["flags"]["difference"] > 0.1
    assert found["flags"]["p_value"] < 0.01
    assert found["settings"] == []


def test_gates_reach_all_that_reports_hold(folder: Path) -> None:
    """The fields that gates may begin with are those at the top of either report."""
    report = json.loads((folder / "run_a" / "report.json").read_text("utf-8"))
    assert set(REPORT_FIELDS) == set(report)
    assert set(DIFF_FIELDS) == set(compare(folder / "run_a", folder / "run_b"))


def test_a_pool_compared_with_itself(folder: Path) -> None:
    """Nothing changed, and that is certain."""
    found = compare(folder / "run_a", folder / "run_a")
    difference = found["share"]["difference"]
    assert (difference["point"], difference["lower"], difference["upper"]) == (0, 0, 0)
    assert (difference["verdict"], difference["p_value"]) == ("no change shown", 1)
    assert found["items"]["same"] == 40


def test_backwards_is_the_opposite(folder: Path) -> None:
    """Limits change their signs and places, the p-value stays."""
    there = compare(folder / "run_a", folder / "run_b")["share"]["difference"]
    back = compare(folder / "run_b", folder / "run_a")["share"]["difference"]
    assert back["lower"] == pytest.approx(-there["upper"], abs=1e-3)
    assert back["upper"] == pytest.approx(-there["lower"], abs=1e-3)
    assert back["p_value"] == pytest.approx(there["p_value"], abs=1e-6)
    assert back["verdict"] == "lower"


def test_other_pools_and_other_references(folder: Path) -> None:
    """Pools without an item in common: sharper with one calibration than with two independent ones."""
    shared = compare(folder / "run_a", folder / "run_c")
    own = compare(folder / "run_a", folder / "own")
    truth = 16 / 40 - 10 / 40
    widths = []
    for found, method in ((shared, "shared-rates"), (own, "independent")):
        difference = found["share"]["difference"]
        assert difference["method"] == method
        assert difference["lower"] <= truth <= difference["upper"]
        widths.append(difference["upper"] - difference["lower"])
    assert widths[0] < widths[1]
    assert own["flags"]["difference"] is None
    assert "not calibrated on the same images" in own["flags"]["why"]
    assert {each["name"] for each in own["settings"]} == {"real", "synthetic"}


def test_one_pool_under_two_calibrations(folder: Path) -> None:
    """The same items twice are not independent: the limits allow for any dependence, and no test is made."""
    found = compare(folder / "run_c", folder / "own")
    difference = found["share"]["difference"]
    assert difference["method"] == "separate"
    assert difference["p_value"] is None
    assert difference["lower"] < 0 < difference["upper"]


@pytest.mark.slow
def test_samples(folder: Path) -> None:
    """The draw is in the limits, which are wider than those of all items; no test is read off."""
    a = run(folder, "a", "sample_a", sample=30)
    c = run(folder, "c", "sample_c", sample=30)
    drawn = compare(a, c)["share"]["difference"]
    whole = compare(folder / "run_a", folder / "run_c")["share"]["difference"]
    assert drawn["method"] == "shared-rates"
    assert drawn["p_value"] is None
    assert drawn["upper"] - drawn["lower"] > whole["upper"] - whole["lower"]
    overlapping = compare(a, folder / "run_a")
    assert overlapping["share"]["difference"]["method"] == "separate"
    assert "samples with items in common" in overlapping["flags"]["why"]


def test_what_cannot_be_compared_is_withheld(folder: Path) -> None:
    """Another detector, or a share that was withheld: a reason in place of a figure."""
    other = compare(folder / "run_c", run(folder, "c", "knn", detector="knn"))
    assert other["share"]["difference"] is None
    assert other["share"]["why"] == "the runs differ in detector; audit both pools with the same settings"
    assert other["comparable"]["verdict"] is False
    bound = run(folder, "c", "bound", synthetic=None)
    withheld = compare(bound, bound)
    assert withheld["share"]["difference"] is None
    assert withheld["share"]["why"].startswith(
        "the share of the first run is withheld: real references alone"
    )
    assert withheld["flags"]["difference"] == 0


def test_schema_refuses_what_is_not_promised(folder: Path) -> None:
    """A field too many, a field too few, a share out of range and another version are not valid."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    report = compare(folder / "run_a", folder / "run_b")
    for change in (
        {"more": 1},
        {"schema_version": 2},
        {"share": report["share"] | {"a": report["share"]["a"] | {"upper": 1.2}}},
        {"items": report["items"] | {"added": -1}},
    ):
        assert not validator.is_valid(report | change), change
    for name in report:
        assert not validator.is_valid({key: value for key, value in report.items() if key != name}), name


def test_the_files_of_a_comparison(folder: Path, tmp_path: Path) -> None:
    """`diff.json` is what was returned; `changed.parquet` names every item that is not the same."""
    found = compare_runs(folder / "run_a", folder / "run_b")
    write_diff(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "diff.json").read_text("utf-8")) == found.report
    table = pq.read_table(tmp_path / "out" / "changed.parquet")
    assert table.schema.equals(CHANGED)
    words = table.column("change").to_pylist()
    assert {name: words.count(name) for name in CHANGES} == {
        name: found.report["items"][name] for name in CHANGES
    }
    rows = {row["change"]: row for row in table.to_pylist()}
    assert rows["added"]["key_a"] is None
    assert rows["removed"]["key_b"] is None
    assert rows["moved"]["sha256_a"] == rows["moved"]["sha256_b"]
    assert (rows["moved"]["key_a"], rows["moved"]["key_b"]) == ("r0029.png", "moved.png")
    assert rows["changed"]["status_b"] == "unreadable"


def test_places_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    """What is no finished run, a level out of range, and an output on a run are refused with a remedy."""
    with pytest.raises(InputError, match="is not a run"):
        compare_runs(tmp_path, folder / "run_a")
    with pytest.raises(InputError, match="--level is 1"):
        compare_runs(folder / "run_a", folder / "run_a", level=1.0)
    found = compare_runs(folder / "run_a", folder / "run_a")
    with pytest.raises(InputError, match="one of the runs"):
        write_diff(found, folder / "run_a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file; give a folder"):
        write_diff(found, tmp_path / "file")
    unfinished = Path(shutil.copytree(folder / "run_a", tmp_path / "unfinished"))
    (unfinished / "items.parquet").unlink()
    with pytest.raises(InputError, match="did not finish"):
        compare_runs(unfinished, folder / "run_a")
