"""Decisions on real runs: a reason for every item, the same bytes twice, and which runs are refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_pools import add_evidence, write_class, write_mixed

from poolproof.audit.decide import check_decision, decide, judge_run, save_decision
from poolproof.audit.decision import DECISION, read_decision
from poolproof.audit.policy import CapRatio, DropAbove, DropFound, HoldAdmissible, KeepBudget, Weigh
from poolproof.audit.region import GaussianRegion, RatioRegion
from poolproof.audit.run import audit_pool
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.spec import AuditSpec
from poolproof.audit.statement import describe_decision
from poolproof.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of 60 real and 33 synthetic images, 3 declared, two copies, a damaged file and one without pixels."""
    folder = tmp_path_factory.mktemp("decided")
    pool = write_mixed(folder / "pool", 60, 30, seed=3)
    add_evidence(pool, declared=3, marked=0)
    shutil.copy(pool / "r0000.png", pool / "x-copy-of-real.png")
    shutil.copy(pool / "d0000.png", pool / "x-copy-of-declared.png")
    (pool / "y-cut.png").write_bytes((pool / "r0001.png").read_bytes()[:300])
    (pool / "z.svg").write_text("<svg/>")
    audit_pool(
        AuditSpec(
            pool=str(pool),
            out=folder / "run",
            real=str(write_class(folder / "real", 80, synthetic=False, seed=1)),
            synthetic=str(write_class(folder / "synthetic", 80, synthetic=True, seed=2)),
            embedder="forensic",
            workers=0,
        )
    )
    return folder / "run"


def test_every_item_has_one_row_and_a_reason(run: Path, tmp_path: Path) -> None:
    """The file has the plan's rows in its row groups; what goes says why, and counts balance."""
    judged = judge_run(run)
    file, told = save_decision(judged, decide(judged, DropAbove()), tmp_path / "out")
    plan = RunFolder(run).plan()
    assert file.sizes == plan.sizes
    rows = [row for table in file.shards() for row in table.to_pylist()]
    assert [row["row"] for row in rows] == list(range(plan.n_items))
    assert pq.read_schema(file.path).remove_metadata().equals(DECISION.remove_metadata())
    by_key = {row["key"]: row for row in rows}
    assert by_key["d0001.png"]["reason"].startswith("declared: ")
    assert by_key["x-copy-of-real.png"]["reason"].startswith("duplicate: ")
    assert by_key["y-cut.png"]["reason"].startswith("unreadable: ")
    assert by_key["z.svg"]["reason"].startswith("unsupported: ")
    assert all((row["reason"] == "kept") == row["keep"] == (row["weight"] == 1) for row in rows)
    assert all(
        row["reason"].startswith("score: ") for row in rows if row["key"][0] in "rs" and not row["keep"]
    )
    counted = Counter(row["reason"].partition(":")[0] for row in rows)
    assert told["items"] == {"pool": 97, "kept": counted["kept"], "by_reason": dict(sorted(counted.items()))}
    assert sum(row["keep"] for row in rows) == counted["kept"]
    assert json.loads((tmp_path / "out" / "decision.json").read_text("utf-8")) == told


def test_copies_and_unread_items_stay_on_request(run: Path, tmp_path: Path) -> None:
    """A copy goes where its first goes; a file that could not be judged stays; what goes as a copy says so."""
    judged = judge_run(run)
    file, _ = save_decision(
        judged, decide(judged, DropFound()), tmp_path / "out", duplicates="keep", unread="keep"
    )
    by_key = {row["key"]: row for table in file.shards() for row in table.to_pylist()}
    assert by_key["x-copy-of-real.png"]["keep"]
    assert by_key["x-copy-of-declared.png"]["reason"] == "duplicate: of an image that goes"
    assert by_key["y-cut.png"]["keep"]
    assert by_key["z.svg"]["keep"]


def test_the_same_decision_twice_is_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """Deciding again gives the same file, into the same folder too; another decision there is refused."""
    for name in ("a", "b", "a"):
        judged = judge_run(run)
        save_decision(judged, decide(judged, CapRatio(0.2)), tmp_path / name)
    first, second = ((tmp_path / name / "decision.parquet").read_bytes() for name in "ab")
    assert first == second
    judged = judge_run(run)
    with pytest.raises(InputError, match="another decision"):
        save_decision(judged, decide(judged, DropFound()), tmp_path / "a")
    assert (tmp_path / "a" / "decision.parquet").read_bytes() == first


def test_weights_are_in_the_file(run: Path, tmp_path: Path) -> None:
    """A policy of weights keeps every image and writes what it weighs."""
    judged = judge_run(run)
    file, told = save_decision(judged, decide(judged, Weigh(0.25)), tmp_path / "out")
    weights = np.concatenate([table.column("weight").to_numpy() for table in file.shards()])
    keep = np.concatenate([table.column("keep").to_numpy() for table in file.shards()])
    assert set(weights[keep].tolist()) == {0.25, 1.0}
    assert told["items"]["kept"] == judged.ledger.n


def test_verdicts_stand_before_and_after(run: Path) -> None:
    """The capped pool is above the cap before and within it after, and its lines say so."""
    judged = judge_run(run)
    verdict = decide(judged, HoldAdmissible(RatioRegion(0.25)))
    assert (verdict.before, verdict.after) == ("above the cap", "within the cap")
    assert verdict.reached
    plain = decide(judged, KeepBudget(20), GaussianRegion((1.0,)))
    assert (plain.before, plain.after) == ("admissible", "admissible")
    assert decide(judged, DropFound()).after is None


def test_out_of_reach_is_said_in_words(run: Path, tmp_path: Path) -> None:
    """A cap that 80 references cannot prove names the rate it would take and the references that would do."""
    judged = judge_run(run)
    verdict = decide(judged, CapRatio(0.001))
    assert not verdict.reached
    _, told = save_decision(judged, verdict, tmp_path / "out")
    lines = describe_decision(told)
    words = " ".join(text for _, text in lines)
    assert "out of reach" in [label for label, _ in lines]
    assert "would have to find" in words
    assert told["statement"]["shortfall"]["needed_tpr"] > told["statement"]["shortfall"]["proven_tpr"]


def test_a_run_of_a_sample_is_refused(run: Path, tmp_path: Path) -> None:
    """Deciding needs evidence of every item."""
    audit_pool(
        AuditSpec(
            pool=str(run.parent / "pool"), out=tmp_path / "run", sample=40, embedder="forensic", workers=0
        )
    )
    assert not (tmp_path / "run" / "calibration.parquet").exists()
    with pytest.raises(InputError, match="sample of 40 of 97"):
        judge_run(tmp_path / "run")


def test_damaged_and_foreign_files_are_refused(run: Path, tmp_path: Path) -> None:
    """A folder that is no run, a missing or damaged calibration, and a decision of another run are told in one line."""
    with pytest.raises(InputError, match="is not a run"):
        judge_run(tmp_path)
    copy = shutil.copytree(run, tmp_path / "copy")
    judged = judge_run(copy)
    save_decision(judged, decide(judged, DropFound()), tmp_path / "decided")
    (copy / "calibration.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        judge_run(copy)
    (copy / "calibration.parquet").unlink()
    with pytest.raises(InputError, match="unfinished, of an earlier version"):
        judge_run(copy)
    (copy / "items.parquet").write_bytes(b"other")
    with pytest.raises(InputError, match="earlier state"):
        check_decision(copy, tmp_path / "decided")
    audit_pool(
        AuditSpec(pool=str(run.parent / "real"), out=tmp_path / "other", embedder="forensic", workers=0)
    )
    with pytest.raises(InputError, match="of another run"):
        check_decision(tmp_path / "other", tmp_path / "decided")
    (tmp_path / "decided" / "decision.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="damaged"):
        read_decision(tmp_path / "decided" / "decision.parquet")
    with pytest.raises(InputError, match="no decision"):
        check_decision(run, tmp_path / "nowhere")


def test_folders_with_other_files_are_refused(run: Path, tmp_path: Path) -> None:
    """A decision is not written among other files, nor over a file."""
    judged = judge_run(run)
    verdict = decide(judged, DropFound())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        save_decision(judged, verdict, tmp_path / "full")
    with pytest.raises(InputError, match="a file"):
        save_decision(judged, verdict, tmp_path / "full" / "mine.txt")
    with pytest.raises(InputError, match="--duplicates"):
        save_decision(judged, verdict, tmp_path / "new", duplicates="maybe")


def test_copies_weigh_as_their_first(run: Path, tmp_path: Path) -> None:
    """A copy of a declared image has its weight, and the statement says what it leaves out."""
    judged = judge_run(run)
    file, told = save_decision(judged, decide(judged, Weigh(0.25)), tmp_path / "out", duplicates="keep")
    by_key = {row["key"]: row["weight"] for table in file.shards() for row in table.to_pylist()}
    assert by_key["x-copy-of-declared.png"] == by_key["d0000.png"] == 0.25
    assert by_key["x-copy-of-real.png"] == by_key["r0000.png"]
    assert told["statement"]["notes"][-1].startswith("2 kept copies and items")


def test_items_of_another_state_are_refused(run: Path, tmp_path: Path) -> None:
    """An answer per item that is not the report's, as a stopped audit leaves it, is not decided on."""
    copy = shutil.copytree(run, tmp_path / "copy")
    table = pq.read_table(copy / "items.parquet")
    pq.write_table(table, copy / "items.parquet", compression="gzip")
    with pytest.raises(InputError, match=r"items\.parquet is not the one"):
        judge_run(copy)


def test_a_decision_without_its_statement_is_unfinished(run: Path, tmp_path: Path) -> None:
    """A file that a kill left alone is not adopted."""
    judged = judge_run(run)
    save_decision(judged, decide(judged, DropFound()), tmp_path / "out")
    (tmp_path / "out" / "decision.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        check_decision(run, tmp_path / "out")
