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
from poolproof.audit.pool import one_line
from poolproof.audit.reading import SCANNED
from poolproof.audit.run_folder import RunFolder
from poolproof.errors import InputError
from poolproof.files import hash_file, hash_json


def find_faults(path: Path) -> list[str]:
    """What is wrong with a run, a line each; empty where all is well.

    Raises:
        InputError: the folder is not a run.
    """
    run = RunFolder(path)
    settings = run.settings()
    config_sha256 = hash_json({name: settings.get(name) for name in SCANNED})
    faults: list[str] = []
    planned = True
    for role in ("pool", "real", "synthetic"):
        if role != "pool" and not run.folder(role).is_dir():
            continue
        try:
            plan = run.plan(role)
        except InputError as error:
            faults.append(f"{role}: {error}")
            planned = planned and role != "pool"
            continue
        for index in range(plan.n_shards):
            faults += [
                f"{role} shard {index}: {fault}"
                for fault in _shard_faults(run, role, plan, index, config_sha256)
            ]
    return [*faults, *(_answer_faults(run) if planned else ())]


def _shard_faults(run: RunFolder, role: str, plan: Plan, index: int, config_sha256: str) -> Iterator[str]:
    evidence = run.folder(role) / "evidence"
    part = part_path(evidence, index)
    try:
        marker = json.loads(done_path(evidence, index).read_text("utf-8"))
    except FileNotFoundError:
        yield "not finished; the audit command continues it"
        return
    except (ValueError, OSError):
        marker = None
    if not isinstance(marker, dict):
        yield "its marker is damaged; the audit command reads the shard again"
        return
    if not part.is_file():
        yield "its evidence is gone; the audit command reads the shard again"
        return
    if marker.get("plan_sha256") != plan.sha256:
        yield "made for another plan"
    if marker.get("config_sha256") != config_sha256:
        yield "made with other settings; the audit command reads the shard again"
    if hash_file(part) != marker.get("sha256"):
        yield "its evidence is not what was written (hash differs); the audit command reads the shard again"
        return
    with pq.ParquetFile(part) as file:
        if not file.schema_arrow.equals(EVIDENCE):
            yield "its columns are not those of this version"
            return
        found = file.read(["row", "key", "status"], use_threads=False)
    wanted = plan.table(index, ["row", "key"])
    if not all(found.column(name).equals(wanted.column(name)) for name in ("row", "key")):
        yield f"its items are not those of the plan ({found.num_rows} found, {wanted.num_rows} planned)"
    counts = (_count_statuses(found), index, found.num_rows)
    if counts != tuple(marker.get(name) for name in ("status", "shard", "items")):
        yield "its statuses are not those of its marker"


def _answer_faults(run: RunFolder) -> Iterator[str]:
    try:
        report: dict[str, Any] = json.loads(run.report.read_text("utf-8"))
        answers = _count_items(run.items)
    except FileNotFoundError as error:
        yield f"{Path(str(error.filename)).name} is missing; run the audit again"
        return
    except (ValueError, OSError, pa.ArrowException) as error:
        yield f"report.json or items.parquet is damaged ({one_line(error)}); run the audit again"
        return
    try:
        faults = [*_balance_faults(run, report, *answers)]
    except (KeyError, TypeError, AttributeError) as error:
        faults = [f"report.json is damaged ({type(error).__name__}: {error}); run the audit again"]
    yield from faults


def _balance_faults(
    run: RunFolder, report: dict[str, Any], schema: pa.Schema, counted: dict[str, int], hits: int
) -> Iterator[str]:
    plan = run.plan()
    for name, sha256 in report["manifest"].get("files", {}).items():
        file = run.path / name
        if not file.is_file():
            yield f"{name} is missing; run the audit again"
        elif hash_file(file) != sha256:
            yield f"{name} is not what was written (hash differs); run the audit again"
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
