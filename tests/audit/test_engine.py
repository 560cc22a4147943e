"""The engine commits every shard once, with the same bytes however often it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sharded_pools import digest, is_running, plan_of, write_pool

from poolproof.audit.engine import KILLED, WorkerError, done_path, part_path, run_shards, unfinished
from poolproof.audit.evidence import EVIDENCE, STATUSES
from poolproof.audit.score import Scorer, score_shard

CONFIG = "c" * 64


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Twenty-eight images, eight of them damaged."""
    return write_pool(tmp_path / "pool", 28, damaged=True)


def test_one_and_many_workers_write_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    """In this process, with one worker and with three, evidence and markers are byte-identical."""
    plan = plan_of(pool, tmp_path)
    for workers in (0, 1, 3):
        run_shards(plan, Scorer(), tmp_path / f"w{workers}", CONFIG, workers=workers)
    assert digest(tmp_path / "w0") == digest(tmp_path / "w1") == digest(tmp_path / "w3")
    assert len(digest(tmp_path / "w0")) == 2 * plan.n_shards


def test_every_item_has_one_row_and_one_status(pool: Path, tmp_path: Path) -> None:
    """Rows come in plan order, the damaged ones with a reason, and markers count them."""
    plan = plan_of(pool, tmp_path)
    run_shards(plan, Scorer(), tmp_path / "evidence", CONFIG, workers=0)
    rows, counts = [], dict.fromkeys(STATUSES, 0)
    for index in range(plan.n_shards):
        table = pq.read_table(part_path(tmp_path / "evidence", index))
        assert table.schema.equals(EVIDENCE)
        rows += table.to_pylist()
        marker = json.loads(done_path(tmp_path / "evidence", index).read_text())
        for status, n in marker["status"].items():
            counts[status] += n
    assert [row["row"] for row in rows] == list(range(28))
    assert counts == {"scored": 20, "unreadable": 8, "unsupported": 0, "duplicate": 0, "missing": 0}
    assert {row["reason"].partition(":")[0] for row in rows if row["status"] != "scored"} == {
        "empty",
        "truncated",
    }
    assert all(len(row["forensic"]) % 4 == 0 and row["sha256"] for row in rows if row["status"] == "scored")


def test_finished_shards_are_not_done_again(pool: Path, tmp_path: Path) -> None:
    """A rerun touches nothing that has a marker, and redoes a part without one."""
    plan, evidence = plan_of(pool, tmp_path), tmp_path / "evidence"
    run_shards(plan, Scorer(), evidence, CONFIG, workers=0)
    before = digest(evidence)
    kept = part_path(evidence, 0).stat().st_mtime_ns
    done_path(evidence, 1).unlink()
    part_path(evidence, 1).write_bytes(b"cut")
    assert unfinished(plan, evidence, CONFIG) == [1]
    run_shards(plan, Scorer(), evidence, CONFIG, workers=0)
    assert digest(evidence) == before
    assert part_path(evidence, 0).stat().st_mtime_ns == kept


def test_other_settings_are_not_taken_for_done(pool: Path, tmp_path: Path) -> None:
    """A marker of another configuration does not count."""
    plan, evidence = plan_of(pool, tmp_path), tmp_path / "evidence"
    run_shards(plan, Scorer(), evidence, CONFIG, workers=0)
    assert unfinished(plan, evidence, "d" * 64) == list(range(plan.n_shards))


def test_an_item_that_kills_its_worker_costs_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A decoder that dies takes its item with it; the rest of the shard is scored, and the log says what ended it."""
    pool = write_pool(tmp_path / "pool", 6)
    (pool / "0003.jpg").write_bytes(b"KILL")
    module = tmp_path / "sitecustomize.py"
    module.write_text(
        "import os, signal, sys\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('0003.jpg'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(hook)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan = plan_of(pool, tmp_path)
    run_shards(plan, Scorer(), tmp_path / "evidence", CONFIG, workers=1)
    rows = pq.read_table(part_path(tmp_path / "evidence", 0)).to_pylist()
    assert [row["status"] for row in rows] == ["scored"] * 3 + ["unreadable"] + ["scored"] * 2
    assert rows[3]["reason"] == KILLED
    assert [record.getMessage() for record in caplog.records] == [
        "row 3 of shard 0 is left out: reading it ended the process twice (SIGKILL)"
    ]


def test_a_bug_in_a_worker_keeps_its_traceback(pool: Path, tmp_path: Path) -> None:
    """What is not the input's fault is raised in the parent, with the worker's traceback."""
    plan = plan_of(pool, tmp_path)
    with pytest.raises(WorkerError, match=r"Input\w+"):
        run_shards(plan, Scorer("clip:no-such-model/none"), tmp_path / "evidence", CONFIG, workers=1)


def test_skipped_rows_are_recorded(pool: Path, tmp_path: Path) -> None:
    """Rows to skip keep their place and carry the reason."""
    plan = plan_of(pool, tmp_path)
    table = score_shard(plan.shard(0), Scorer(), skip={2: "killed: SIGSEGV"}).to_pylist()
    assert [row["row"] for row in table] == list(range(8))
    assert (table[2]["status"], table[2]["reason"]) == ("unreadable", "killed: SIGSEGV")
    assert table[1]["status"] == "scored"


@pytest.mark.slow
def test_killed_ten_times_and_continued(tmp_path: Path) -> None:
    """SIGKILL at random moments, ten times, changes no byte of the evidence and leaves no process behind."""
    pool = write_pool(tmp_path / "pool", 600, damaged=True)
    command = [sys.executable, "-m", "poolproof", "audit", str(pool), "--quiet", "--workers", "2"]
    command += ["--shard-size", "16", "--max-unreadable", "1", "--out"]
    subprocess.run([*command, str(tmp_path / "calm")], check=True, capture_output=True)
    rng = np.random.default_rng(5)
    kills, orphans = 0, set[int]()
    for _ in range(10):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0.4, 2.2)))
        if process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + 20  # a worker that is still importing ends when it is through
            while any(is_running(int(child)) for child in children) and time.monotonic() < deadline:
                time.sleep(0.05)
            orphans |= {int(child) for child in children if is_running(int(child))}
            kills += 1
        process.wait()
    assert kills >= 3
    assert not orphans
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert digest(tmp_path / "killed" / "evidence") == digest(tmp_path / "calm" / "evidence")
    verify = [sys.executable, "-m", "poolproof", "verify", str(tmp_path / "killed")]
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0
