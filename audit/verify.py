"""Checks a run: every item accounted for, every file what its marker says."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported, where no type checker sees them.
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolproof.audit.digests import part_scored
from poolproof.audit.engine import done_path, part_path
from poolproof.audit.evidence import EVIDENCE, ITEMS, STATUSES
from poolproof.audit.items import part_hits
from poolproof.audit.plan import Plan
from poolproof.audit.run_folder import RunFolder
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
    with pq.ParquetFile(part) as file:
        if not file.schema_arrow.equals(EVIDENCE):
            yield "its columns are not those of this version"
            return
        found = file.read(["row", "key", "status"], use_threads=False)
    wanted = plan.table(index, ["row", "key"])
    if not all(found.column(name).equals(wanted.column(name)) for name in ("row", "key")):
        yield f"its items are not those of the plan ({found.num_rows} found, {wanted.num_rows} planned)"
    if _count_statuses(found) != marker.get("status"):
        yield "its statuses are not those of its marker"


def _answer_faults(run: RunFolder) -> Iterator[str]:
    try:
        report: dict[str, Any] = json.loads(run.report.read_text("utf-8"))
        schema, counted, hits = _count_items(run.items)
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
    if not schema.equals(ITEMS):
        yield "items.parquet: its columns are not those of this version"
        return
    if counted != status:
        yield f"items.parquet counts {counted}, report.json {status}"
    if report["manifest"]["plan_sha256"] != plan.sha256:
        yield "report.json was made for another plan; run the audit again"
    if hits != report["tiers"]["any"]["count"]:
        yield f"items.parquet holds {hits} hits, report.json {report['tiers']['any']['count']}"


def _count_items(path: Path) -> tuple[pa.Schema, dict[str, int], int]:
    """The columns of the answer per item, its statuses and its hits, read row group by row group."""
    counted: dict[str, int] = dict.fromkeys(STATUSES, 0)
    hits = 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if schema.equals(ITEMS):
            for index in range(file.num_row_groups):
                items = file.read_row_group(index, use_threads=False)
                for status, n in _count_statuses(items).items():
                    counted[status] = counted.get(status, 0) + n
                hits += int((part_scored(items) & part_hits(items)).sum())
    return schema, counted, hits


def _count_statuses(table: pa.Table) -> dict[str, int]:
    """How many items have each status, those of no item too."""
    entries = pc.value_counts(table.column("status")).to_pylist()
    return dict.fromkeys(STATUSES, 0) | {entry["values"]: entry["counts"] for entry in entries}
