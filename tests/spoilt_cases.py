"""Reads spoilt images, tars and tables in processes of their own, and tells what became of each."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from spoilt_pools import spoilt_image, spoilt_table, spoilt_tar

from poolproof.audit.evidence import STATUSES

CASES = {"bytes": 7400, "image": 800, "tar": 1000, "table": 800}
"""How many cases of each kind; images go twenty into a folder."""

CASE_SECONDS = 20.0
"""A case that takes longer counts as one that never ends."""

FILTER_EVERY = 8
"""One pool in so many is filtered too."""

FORMATS = ("folder", "webdataset", "parquet", "dataset", "keys")


def read_bytes(rng: np.random.Generator, folder: Path) -> Counter[str]:
    """Decodes an image and reads its provenance."""
    from poolproof.audit.decode import decode_image
    from poolproof.detectors.provenance import describe, read_provenance
    from poolproof.detectors.stealth import read_stealth

    del folder
    _, data = spoilt_image(rng)
    decoded = decode_image(data)
    assert decoded.status in STATUSES
    assert (decoded.pixels is not None) == (decoded.status == "scored")
    assert (decoded.reason is None) == (decoded.status == "scored")
    findings = read_provenance(data)
    if decoded.pixels is not None:
        findings += read_stealth(decoded.pixels, decoded.alpha)
    describe(findings)
    return Counter([decoded.status])


def read_images(rng: np.random.Generator, folder: Path) -> Counter[str]:
    """Audits a folder of twenty images."""
    pool = folder / "pool"
    for i in range(20):
        ending, data = spoilt_image(rng)
        (pool / f"{i:02d}.{ending}").write_bytes(data)
    return read_pool(pool, folder, rng)


def read_tar(rng: np.random.Generator, folder: Path) -> Counter[str]:
    """Audits a tar."""
    return read_pool(spoilt_tar(folder / "pool" / "pool.tar", rng), folder, rng)


def read_table(rng: np.random.Generator, folder: Path) -> Counter[str]:
    """Audits a Parquet file."""
    return read_pool(spoilt_table(folder / "pool" / "pool.parquet", rng), folder, rng)


def read_pool(path: Path, folder: Path, rng: np.random.Generator) -> Counter[str]:
    """Statuses of a pool's items, one each; now and then the pool is filtered too."""
    from poolproof.audit.plan import make_plan
    from poolproof.audit.pool import open_pool
    from poolproof.audit.run_folder import RunFolder
    from poolproof.audit.score import Scorer, score_shard
    from poolproof.errors import InputError

    run = RunFolder(folder / "run")
    run.path.mkdir()
    try:
        pool = open_pool(path)
        plan = make_plan(pool, run.path / "plan.parquet", rng=rng)
    except InputError:
        return Counter(["refused"])
    tables = [score_shard(plan.shard(i), Scorer(marks=False)) for i in range(plan.n_shards)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["row"] for row in rows] == list(range(len(pool)))
    assert {row["status"] for row in rows} <= set(STATUSES)
    assert all((row["reason"] is None) == (row["status"] == "scored") for row in rows)
    found = Counter(row["status"] for row in rows)
    if rng.integers(FILTER_EVERY) == 0:
        found["filtered"] += filter_some(run, plan, tables, rng)
    return found


def filter_some(run: Any, plan: Any, tables: list[Any], rng: np.random.Generator) -> bool:
    """Writes the scored items in one of the formats; whether that could be done."""
    import pyarrow as pa

    from poolproof.audit.decision import DECISION, write_decision
    from poolproof.audit.filter import FilterSpec, filter_pool
    from poolproof.audit.verify_filter import find_filter_faults
    from poolproof.errors import InputError

    decided = []
    for table in tables:
        rows = table.select(["row", "key", "source", "status", "sha256"]).to_pylist()
        for row in rows:
            row["keep"] = row.pop("status") == "scored"
            row |= {"weight": float(row["keep"]), "reason": "kept" if row["keep"] else "unreadable"}
        decided.append(pa.Table.from_pylist(rows, schema=DECISION))
    header = {"plan_sha256": plan.sha256, "items_sha256": "0" * 64, "policy": {"kind": "by-hand"}}
    decision = write_decision(run.path / "decision.parquet", header, iter(decided))
    out = run.path.with_name("out")
    try:
        filter_pool(run, decision, FilterSpec(out, format=FORMATS[int(rng.integers(len(FORMATS)))]))
    except InputError:
        return False
    assert find_filter_faults(out) == []
    return True


READERS = {"bytes": read_bytes, "image": read_images, "tar": read_tar, "table": read_table}


def listing(folder: Path) -> dict[str, str]:
    """What lies in the folders that a case must not touch, with the hashes of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[:3] not in (("deep", "case", "run"), ("deep", "case", "out")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            found[str(relative)] = digest
    return found


def serve(pipe: Connection, cases: list[tuple[str, int]], folder: Path, at: Any) -> None:
    """Does cases in a process of its own, and tells what became of them."""
    import warnings

    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    failures = []
    os.chdir(folder)
    for i, (kind, seed) in enumerate(cases):
        at[0] = i
        case = folder / "deep" / "case"
        if kind != "bytes":
            shutil.rmtree(case, ignore_errors=True)
            (case / "pool").mkdir(parents=True)
        try:
            rng = np.random.default_rng(seed)
            if kind == "bytes":
                found.update(read_bytes(rng, case))
            else:
                found.update(READERS[kind](rng, case))
                left = set(listing(folder))
                allowed = {"deep", "deep/case", "secret"} | {
                    name for name in left if name.startswith("deep/case/pool")
                }
                assert left <= allowed, f"written elsewhere: {sorted(left - allowed)}"
                assert (folder / "secret").read_bytes() == b"secret"
        except BaseException:
            failures.append(f"{kind} {seed}: {traceback.format_exc()[-1500:]}")
    at[0] = -1
    pipe.send((found, failures))


def watch(jobs: list[list[tuple[str, int]]], folder: Path) -> tuple[Counter[str], list[str]]:
    """What became of all cases, by process; a crash or a case that never ends is a failure with its seed."""
    context = multiprocessing.get_context("spawn")
    started = []
    for number, cases in enumerate(jobs):
        place = folder / str(number)
        place.mkdir()
        (place / "secret").write_bytes(b"secret")
        ours, theirs = context.Pipe()
        at = context.RawArray("q", [0])
        process = context.Process(target=serve, args=(theirs, cases, place, at), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours, at, cases))
    found, failures = Counter[str](), list[str]()
    since = [(-1, time.monotonic() + 60) for _ in started]  # imports take their time
    open_ = set(range(len(started)))
    while open_:
        for number in sorted(open_):
            process, pipe, at, cases = started[number]
            if pipe.poll(0.1):
                try:
                    counts, wrong = pipe.recv()
                    found.update(counts)
                    failures += wrong
                except EOFError:
                    process.join()
                    failures.append(f"{cases[int(at[0])]}: the process ended with {process.exitcode}")
                open_.remove(number)
            elif int(at[0]) != since[number][0]:
                since[number] = (int(at[0]), max(time.monotonic(), since[number][1] if at[0] == 0 else 0))
            elif time.monotonic() - since[number][1] > CASE_SECONDS:
                failures.append(f"{cases[int(at[0])]}: not done after {CASE_SECONDS:g} s")
                process.kill()
                open_.remove(number)
    for process, *_ in started:
        process.join()
    return found, failures


def cases_of(scale: int, seed: int) -> list[tuple[str, int]]:
    """Kinds and seeds, mixed; a folder of images counts as twenty."""
    counts = {kind: n // scale // (20 if kind == "image" else 1) for kind, n in CASES.items()}
    cases = [(kind, seed + 100_000 * i + j) for i, (kind, n) in enumerate(counts.items()) for j in range(n)]
    order = np.random.default_rng(seed).permutation(len(cases))
    return [cases[i] for i in order]
