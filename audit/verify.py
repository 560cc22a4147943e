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
from poolproof.audit.pool import one_line
from poolproof.audit.run import SCANNED, RunFolder
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
    for role in ("pool", "real", "synthetic"):
        if role != "pool" and not run.folder(role).is_dir():
            continue
        try:
            plan = run.plan(role)
        except InputError as error:
            faults.append(f"{role}: {error}")
            continue
        for index in range(plan.n_shards):
            faults += [
                f"{role} shard {index}: {fault}"
                for fault in _shard_faults(run, role, plan, index, config_sha256)
            ]
    return faults or [*_answer_faults(run)]


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
    table = pq.read_table(part)
    if not table.schema.equals(EVIDENCE):
        yield "its columns are not those of this version"
        return
    wanted = [(ref.row, ref.key) for ref in plan.shard(index).refs]
    found = list(zip(table.column("row").to_pylist(), table.column("key").to_pylist(), strict=True))
    if wanted != found:
        yield f"its items are not those of the plan ({len(found)} found, {len(wanted)} planned)"
    counted = Counter(table.column("status").to_pylist())
    counts = {status: counted[status] for status in STATUSES}
    if (counts, index, table.num_rows) != tuple(marker.get(name) for name in ("status", "shard", "items")):
        yield "its statuses are not those of its marker"


def _answer_faults(run: RunFolder) -> Iterator[str]:
    try:
        report: dict[str, Any] = json.loads(run.report.read_text("utf-8"))
        items = pq.read_table(run.items)
    except FileNotFoundError as error:
        yield f"{Path(str(error.filename)).name} is missing; run the audit again"
        return
    except (ValueError, OSError, pa.ArrowException) as error:
        yield f"report.json or items.parquet is damaged ({one_line(error)}); run the audit again"
        return
    try:
        faults = [*_balance_faults(run, report, items)]
    except (KeyError, TypeError, AttributeError) as error:
        faults = [f"report.json is damaged ({type(error).__name__}: {error}); run the audit again"]
    yield from faults


def _balance_faults(run: RunFolder, report: dict[str, Any], items: pa.Table) -> Iterator[str]:
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
