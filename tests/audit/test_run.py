"""An audit end to end: what a run says with both references, one, or none, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from image_pools import add_evidence, write_class, write_mixed

from poolproof.audit.evidence import ITEMS
from poolproof.audit.run import audit_pool
from poolproof.audit.spec import AuditSpec
from poolproof.audit.verify import find_faults
from poolproof.errors import InputError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))


def run(tmp_path: Path, **options: object) -> dict[str, Any]:
    """The report of an audit in this process."""
    values = {"pool": str(tmp_path / "pool"), "out": tmp_path / "run", "embedder": "forensic", "workers": 0}
    report = audit_pool(AuditSpec(**(values | options)))  # pyright: ignore[reportArgumentType]
    jsonschema.validate(report, SCHEMA)
    return report


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A hundred real and a hundred synthetic images."""
    folder = tmp_path_factory.mktemp("references")
    return {
        "real": str(write_class(folder / "real", 100, synthetic=False, seed=1)),
        "synthetic": str(write_class(folder / "synthetic", 100, synthetic=True, seed=2)),
    }


def test_share_with_both_references(tmp_path: Path, references: dict[str, str]) -> None:
    """The interval holds the true share, all tiers are counted apart, and the run verifies."""
    add_evidence(write_mixed(tmp_path / "pool", 90, 40, seed=3), declared=6, marked=4)
    report = run(tmp_path, **references)
    truth = 50 / 140
    share, tiers = report["share"], report["tiers"]
    assert share["lower"] <= truth <= share["upper"]
    assert share["lower"] <= share["point"] <= share["upper"]
    assert share["upper"] - share["lower"] < 0.4
    assert share["method"] == "melded+floor"
    assert share["why"] is None
    assert tiers["declared"]["count"] == 6
    assert tiers["marked"]["count"] >= 3
    assert tiers["signed"]["count"] == 0
    assert tiers["any"]["count"] == 6 + tiers["marked"]["count"]
    assert tiers["detected"]["auc"] > 0.9
    assert report["set"]["n_pool"] == report["set"]["n_real"] == 100
    assert 0 <= report["set"]["precision"] <= 1
    assert find_faults(tmp_path / "run") == []


def test_items_carry_the_answer(tmp_path: Path, references: dict[str, str]) -> None:
    """`items.parquet` has a row per item, scores that tell the classes apart, and evidence in words."""
    add_evidence(write_mixed(tmp_path / "pool", 40, 40, seed=3), declared=2, marked=0)
    run(tmp_path, **references)
    table = pq.read_table(tmp_path / "run" / "items.parquet")
    assert table.schema.equals(ITEMS)
    rows = table.to_pylist()
    assert [row["row"] for row in rows] == list(range(82))
    real = [row["score"] for row in rows if row["key"].startswith("r")]
    synthetic = [row["score"] for row in rows if row["key"].startswith("s")]
    assert sum(score > 0 for score in synthetic) > 30 > 10 > sum(score > 0 for score in real)
    assert all(row["evidence"].startswith("declared: ") for row in rows if row["key"].startswith("d"))


def test_real_reference_alone_gives_a_lower_bound(tmp_path: Path, references: dict[str, str]) -> None:
    """The point is withheld with a reason; the lower bound does not exceed the truth."""
    write_mixed(tmp_path / "pool", 60, 60, seed=5)
    report = run(tmp_path, real=references["real"])
    share = report["share"]
    assert share["point"] is None
    assert "lower bound" in share["why"]
    assert 0 <= share["lower"] <= 0.5
    assert share["upper"] == 1.0
    assert report["tiers"]["detected"]["detector"] == "real-distance"


def test_without_references_only_the_floor(tmp_path: Path) -> None:
    """Findings are the floor, everything above is possible, and the reason is given."""
    add_evidence(write_mixed(tmp_path / "pool", 10, 6, seed=5), declared=4, marked=0)
    report = run(tmp_path)
    share = report["share"]
    assert (share["point"], share["lower"], share["upper"], share["method"]) == (None, 0.2, 1.0, "floor")
    assert "no references" in share["why"]
    assert report["set"]["why"] == "no real reference was given"


def test_too_small_a_reference_withholds(tmp_path: Path, references: dict[str, str]) -> None:
    """Five synthetic references carry no error rate: the share is withheld and says how many are needed."""
    write_mixed(tmp_path / "pool", 20, 5, seed=5)
    few = write_class(tmp_path / "few", 5, synthetic=True, seed=8)
    report = run(tmp_path, real=references["real"], synthetic=str(few))
    assert report["share"]["point"] is None
    assert "5" in report["share"]["why"]


def test_duplicates_count_once(tmp_path: Path) -> None:
    """Byte-identical items after the first are duplicates, across shards too, and leave the share."""
    pool = write_mixed(tmp_path / "pool", 10, 0, seed=5)
    (pool / "z.png").write_bytes((pool / "r0000.png").read_bytes())
    report = run(tmp_path, shard_size=4)
    status = report["pool"]["status"]
    assert (status["scored"], status["duplicate"], sum(status.values())) == (10, 1, 11)
    rows = pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    assert rows[10]["reason"].startswith("duplicate:")


def test_nothing_readable_has_no_share(tmp_path: Path) -> None:
    """A pool of damaged files ends in a report without a share, not in an error."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jpg").write_bytes(b"<html>")
    report = run(tmp_path)
    assert report["share"] is None
    assert report["why"]
    assert report["pool"]["status"]["unreadable"] == 1


@pytest.mark.slow
def test_sample_widens_the_interval(tmp_path: Path, references: dict[str, str]) -> None:
    """A uniform sample audits so many items, scales the counts to the pool and adds its own error."""
    write_mixed(tmp_path / "pool", 140, 60, seed=3)
    whole = run(tmp_path, **references)
    part = run(tmp_path, out=tmp_path / "part", sample=60, **references)
    assert (part["pool"]["items"], part["pool"]["audited"], part["pool"]["sample"]) == (200, 60, 60)
    width = part["share"]["upper"] - part["share"]["lower"]
    assert width > whole["share"]["upper"] - whole["share"]["lower"]
    assert part["share"]["lower"] <= 0.3 <= part["share"]["upper"]
    assert part["share"]["count"]["upper"] <= 200


def test_rerun_adds_a_reference_without_reading_the_pool(tmp_path: Path, references: dict[str, str]) -> None:
    """A finished run takes a reference later; the pool's evidence is kept, even when the pool is gone."""
    pool = write_mixed(tmp_path / "pool", 30, 10, seed=5)
    run(tmp_path)
    part = tmp_path / "run" / "evidence" / "part-00000.parquet"
    before = part.stat().st_mtime_ns
    pool.rename(tmp_path / "moved")
    (tmp_path / "pool").mkdir()
    report = run(tmp_path, **references)
    assert report["share"]["point"] is not None
    assert part.stat().st_mtime_ns == before


def test_other_settings_are_refused(tmp_path: Path, references: dict[str, str]) -> None:
    """A run does not continue with another seed or another reference."""
    write_mixed(tmp_path / "pool", 12, 12, seed=5)
    run(tmp_path, **references)
    with pytest.raises(InputError, match="seed = 0, now it is 1"):
        run(tmp_path, seed=1, **references)
    with pytest.raises(InputError, match="made with real"):
        run(tmp_path, real=references["synthetic"], synthetic=None)


def test_reference_that_overlaps_is_left_out(tmp_path: Path) -> None:
    """Reference images that are in the pool do not calibrate; the report says how many."""
    write_mixed(tmp_path / "pool", 30, 10, seed=5)
    real = write_class(tmp_path / "real", 60, synthetic=False, seed=1)
    for i in range(7):
        (real / f"copy{i}.png").write_bytes((tmp_path / "pool" / f"r{i:04d}.png").read_bytes())
    report = run(tmp_path, real=str(real))
    assert report["references"]["real"]["overlap"] == 7
    assert report["references"]["real"]["used"] == 60
    assert any("7 of 67 real reference images" in note for note in report["notes"])


def test_image_in_both_references_is_left_out(tmp_path: Path, references: dict[str, str]) -> None:
    """An image cannot be real and synthetic: it calibrates neither side, and two equal references are refused."""
    write_mixed(tmp_path / "pool", 20, 10, seed=5)
    synthetic = write_class(tmp_path / "synthetic", 60, synthetic=True, seed=12)
    for name in ("0001.png", "0002.png"):
        (synthetic / f"copy-{name}").write_bytes((Path(references["real"]) / name).read_bytes())
    report = run(tmp_path, real=references["real"], synthetic=str(synthetic))
    assert [report["references"][role]["used"] for role in ("real", "synthetic")] == [98, 60]
    assert any("2 images are in both references" in note for note in report["notes"])
    copy = write_class(tmp_path / "copy", 100, synthetic=False, seed=1)
    with pytest.raises(InputError, match="every item of it is in the other reference"):
        run(tmp_path, out=tmp_path / "other", real=references["real"], synthetic=str(copy))


def test_reference_equal_to_the_pool_is_refused(tmp_path: Path) -> None:
    """The pool as its own reference, by path or by content, is one clear error."""
    pool = write_mixed(tmp_path / "pool", 12, 4, seed=5)
    with pytest.raises(InputError, match="same pool"):
        run(tmp_path, real=str(pool))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in pool.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="disjoint"):
        run(tmp_path, real=str(copy))


def test_verify_finds_what_was_changed(tmp_path: Path) -> None:
    """A flipped byte in the evidence, a lost marker and a doctored report are each named."""
    write_mixed(tmp_path / "pool", 12, 4, seed=5)
    run(tmp_path, shard_size=4)
    folder = tmp_path / "run"
    part = folder / "evidence" / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(data)
    (folder / "evidence" / "part-00002.done.json").unlink()
    report = json.loads((folder / "report.json").read_text())
    report["pool"]["status"]["scored"] -= 1
    (folder / "report.json").write_text(json.dumps(report))
    faults = "\n".join(find_faults(folder))
    assert "shard 1: its evidence is not what was written" in faults
    assert "shard 2: not finished" in faults
    assert "statuses add up to 15" in faults


def test_a_call_that_failed_pins_no_pool(tmp_path: Path, references: dict[str, str]) -> None:
    """After a mistyped reference the same folder takes another pool and reads that one, not the first."""
    write_mixed(tmp_path / "pool", 12, 4, seed=5)
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path, real="nowhere")
    other = write_class(tmp_path / "other", 9, synthetic=False, seed=6)
    assert run(tmp_path, pool=str(other))["pool"]["items"] == 9
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path, pool=str(other), real=references["real"], synthetic="nowhere")
    real = write_class(tmp_path / "real", 20, synthetic=False, seed=7)
    assert run(tmp_path, pool=str(other), real=str(real))["references"]["real"]["items"] == 20


def test_a_file_in_place_of_the_output_is_refused(tmp_path: Path) -> None:
    """One line says that --out is a file."""
    pool = write_mixed(tmp_path / "pool", 2, 1, seed=5)
    with pytest.raises(InputError, match="a file; give a folder"):
        run(tmp_path, out=next(pool.iterdir()))


def test_a_run_that_goes_on_says_again_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That `auto` fell back on weight-free features is noted by the first call and by each later one."""
    monkeypatch.setattr("poolproof.detectors.embed.default_is_cached", lambda: False)
    write_mixed(tmp_path / "pool", 6, 2, seed=3)
    notes = [run(tmp_path, embedder="auto")["notes"] for _ in range(2)]
    assert notes[0] == notes[1]
    assert any("weight-free features are used" in note for note in notes[0])
    (tmp_path / "run-forensic").mkdir()
    named = run(tmp_path, out=tmp_path / "run-forensic")["notes"]
    assert not any("weight-free features are used" in note for note in named)
