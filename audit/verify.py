"""Checks a run: every item accounted for, every file what its marker says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.engine import done_path, part_path
from poolproof.audit.evidence import EVIDENCE, ITEMS, STATUSES
from poolproof.audit.plan import Plan
from poolproof.audit.run import RunFolder
from poolproof.files import hash_file


def find_faults(path: Path) -> list[str]:
    """What is wrong with a run, a line each; empty where all is well.

    Raises:
        InputError: the folder is not a run.
    """
    run = RunFolder(path)
    run.settings()
    faults: list[str] = []
    for role in ("pool", "real", "synthetic"):
        if role != "pool" and not run.folder(role).is_dir():
            continue
        plan = run.plan(role)
        for index in range(plan.n_shards):
            faults += [f"{role} shard {index}: {fault}" for fault in _shard_faults(run, role, plan, index)]
    faults += _answer_faults(run)
    return faults


def _shard_faults(run: RunFolder, role: str, plan: Plan, index: int) -> Iterator[str]:
    evidence = run.folder(role) / "evidence"
    part = part_path(evidence, index)
    try:
        marker = json.loads(done_path(evidence, index).read_text("utf-8"))
    except FileNotFoundError:
        yield "not finished; the audit command continues it"
        return
    except ValueError:
        yield "its marker is damaged; remove it and run the audit again"
        return
    if not part.is_file():
        yield "its evidence is gone; remove its marker and run the audit again"
        return
    if marker.get("plan_sha256") != plan.sha256:
        yield "made for another plan"
    if hash_file(part) != marker.get("sha256"):
        yield "its evidence is not what was written (hash differs); remove its marker and run the audit again"
        return
    table = pq.read_table(part)
    if not table.schema.equals(EVIDENCE):
        yield "its columns are not those of this version"
        return
    wanted = [(ref.row, ref.key) for ref in plan.shard(index).refs]
    found = list(zip(table.column("row").to_pylist(), table.column("key").to_pylist(), strict=True))
    if wanted != found:
        yield f"its items are not those of the plan ({len(found)} found, {len(wanted)} planned)"
    counted = Counter(table.column("status").to_pylist())
    if {status: counted[status] for status in STATUSES} != marker.get("status"):
        yield "its statuses are not those of its marker"


def _answer_faults(run: RunFolder) -> Iterator[str]:
    try:
        report: dict[str, Any] = json.loads(run.report.read_text("utf-8"))
        items = pq.read_table(run.items)
    except FileNotFoundError as error:
        yield f"{Path(str(error.filename)).name} is missing; run the audit again"
        return
    except (ValueError, pa.ArrowException) as error:
        yield f"report.json or items.parquet is damaged ({error}); run the audit again"
        return
    plan = run.plan()
    status, audited = report["pool"]["status"], report["pool"]["audited"]
    if sum(status.values()) != audited or audited != plan.n_items:
        yield f"statuses add up to {sum(status.values())}, audited are {audited}, planned are {plan.n_items}"
    if not items.schema.equals(ITEMS):
        yield "items.parquet: its columns are not those of this version"
        return
    counted = Counter(items.column("status").to_pylist())
    if {name: counted[name] for name in STATUSES} != status:
        yield f"items.parquet counts {dict(counted)}, report.json {status}"
    if report["manifest"]["plan_sha256"] != plan.sha256:
        yield "report.json was made for another plan; run the audit again"
    hits = sum(
        state == "scored" and bool(signed or declared or marked)
        for state, signed, declared, marked in zip(
            *(items.column(name).to_pylist() for name in ("status", "signed", "declared", "marked")),
            strict=True,
        )
    )
    if hits != report["tiers"]["any"]["count"]:
        yield f"items.parquet holds {hits} hits, report.json {report['tiers']['any']['count']}"
