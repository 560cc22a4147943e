"""An audit of as many items as are asked for, pixels left out: `python benchmarks/scale.py [--rows N] [--out DIR]`.

Writes a listing, its plan and evidence of the real schema as a scan would have left them (a 100th of the items
copies, a 200th unreadable, some findings and marks; vectors of the real length, drawn from a small bank so that
the files stay small), then runs what follows a scan: `audit_pool` from the markers to the report, and `verify`.
Prints seconds, rows per second and peak memory of each step, and what lies on disk.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported, where no type checker sees them.
from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolproof.audit.decide import decide, judge_run, save_decision
from poolproof.audit.engine import done_path, part_path
from poolproof.audit.evidence import EVIDENCE, FINDING, STATUSES
from poolproof.audit.listing import collect_listing
from poolproof.audit.plan import Plan, make_plan
from poolproof.audit.policy import CapRatio
from poolproof.audit.pool import LISTING, Pool
from poolproof.audit.progress import AbstractProgress, Tick
from poolproof.audit.run import RunFolder, audit_pool, scan_settings
from poolproof.audit.score import Scorer
from poolproof.audit.spec import AuditSpec
from poolproof.audit.verify import find_faults
from poolproof.audit.webdataset import TarReader
from poolproof.detectors.forensic import FORENSIC_DIM
from poolproof.files import hash_file, hash_json, write_json
from poolproof.watermark.payloads import load_payloads

TAR_ITEMS: Final = 10_000
COPY_EVERY: Final = 100
LOST_EVERY: Final = 200
LOST_AT: Final = 49
SYNTHETIC_SHARE: Final = 0.3
BANK: Final = 1024
PART_BANK: Final = 64


@final
@dataclass
class Recorder(AbstractProgress):
    """Prints seconds, rate and peak memory of each stage.

    Attributes:
        rows: items of the pool, for the rates.
        seconds: by stage.
        peaks: resident memory in MB, by stage.
    """

    rows: int
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """Measures one stage."""
        reset_peak()
        started, processed = time.perf_counter(), time.process_time()
        yield
        processed = time.process_time() - processed
        self.seconds[label], self.peaks[label] = time.perf_counter() - started, read_peak()
        seconds = f"{self.seconds[label]:8.1f} s ({processed:.1f} of a core)"
        rate = self.rows / max(self.seconds[label], 1e-3)
        print(f"{label:32}{seconds:34}{rate:13,.0f} rows/s{self.peaks[label]:7.0f} MB peak", flush=True)

    @contextlib.contextmanager
    def items(self, label: str, total: int, before: int, unit: str = "items") -> Iterator[Tick]:
        """Measures a stage that counts items; here that is the look for what is unfinished."""
        del total, before, unit
        with self.stage(label):
            yield lambda n_done: None


def reset_peak() -> None:
    """Makes the kernel forget the peak of resident memory; where it may not, peaks are those since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> float:
    """Peak of resident memory, file pages that are mapped included, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def list_pool(rows: int) -> Iterator[pa.Table]:
    """The listing of tars of `TAR_ITEMS` items, one tar at a time."""
    for group, start in enumerate(range(0, rows, TAR_ITEMS)):
        numbers = np.arange(start, min(start + TAR_ITEMS, rows))
        names = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")
        keys = pc.binary_join_element_wise(f"{group:05d}", names, "/")
        source = pa.array([f"{group:05d}.tar"]).take(pa.array(np.zeros(len(numbers), np.int64)))
        offset, sizes = (numbers - start) * 150_000, 20_000 + numbers % 100_000
        groups = np.full(len(numbers), group, np.int32)
        yield pa.table([keys, source, offset, sizes, groups], schema=LISTING)


def origin_of(rows: np.ndarray) -> np.ndarray:
    """The row whose bytes each row has: its own, or for every 100th that of an earlier one."""
    origin = rows.copy()
    while (copies := origin % COPY_EVERY == COPY_EVERY - 1).any():
        origin[copies] //= 2
    return origin


def hash_rows(origin: np.ndarray, pool: int) -> pa.Array:
    """32 bytes that look random and depend on pool and origin alone. Source: Steele et al. 2014, splitmix64."""
    words = (
        (origin + (pool << 48)).astype(np.uint64)[:, None] * 4 + np.arange(4, dtype=np.uint64)
    ) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    raw = pa.py_buffer((words ^ (words >> np.uint64(31))).tobytes())
    return pa.Array.from_buffers(pa.binary(32), len(origin), [None, raw])


def draw_vectors(n: int, *, synthetic: bool, rng: np.random.Generator) -> list[bytes]:
    """Vectors of the forensic length; those of synthetic items are shifted a little."""
    vectors = rng.normal(size=(n, FORENSIC_DIM))
    vectors[:, :16] += 0.6 * synthetic
    return [vector.tobytes() for vector in vectors.astype("<f4")]


def pick(values: Sequence[Any], n: int, rng: np.random.Generator, kind: pa.DataType) -> pa.Array:
    """A column of values drawn with equal weight."""
    return pa.array(values, kind).take(pa.array(rng.integers(len(values), size=n)))


def make_part(rows: pa.Table, vectors: pa.Array, pool: int, rng: np.random.Generator) -> pa.Table:
    """The evidence of a shard.

    Args:
        rows: of the plan.
        vectors: to draw from.
        pool: sets its hashes apart from another pool's.
        rng: draws.
    """
    n = rows.num_rows
    origin = origin_of(rows.column("row").to_numpy())
    lost = origin % LOST_EVERY == LOST_AT
    scored = pa.array(~lost)
    declared, marked = (rng.random(n) < 0.002) & ~lost, (rng.random(n) < 0.0005) & ~lost
    n_found = int(declared.sum())
    finding = {
        "tier": "declared",
        "synthetic": True,
        "source": "xmp",
        "field": "Iptc4xmpExt:DigitalSourceType",
    }
    found = pa.array(
        [finding | {"value": "trainedAlgorithmicMedia", "confidence": "stated"}] * n_found, FINDING
    )
    side = pick([256, 384, 512, 768, 1024, 1536], n, rng, pa.int32())
    columns: dict[str, Any] = {name: rows.column(name) for name in ("row", "key", "source", "n_bytes")}
    columns |= {
        "status": pc.if_else(scored, "scored", "unreadable"),
        "reason": pc.if_else(scored, pa.scalar(None, pa.string()), "truncated: 7 of 9 bytes are there"),
        "sha256": hash_rows(origin, pool),
        "format": pick(["JPEG", "JPEG", "JPEG", "PNG", "WEBP"], n, rng, pa.string()),
        "mode": pick(["RGB"], n, rng, pa.string()),
        "width": side,
        "height": pick([256, 384, 512, 768, 1024], n, rng, pa.int32()),
        "frames": pa.array(np.ones(n, np.int32)),
        "quality": pick([75, 85, 90, 95], n, rng, pa.int16()),
        "subsampling": pick(["4:2:0", "4:4:4"], n, rng, pa.string()),
        "exif": pa.array(rng.random(n) < 0.2),
        "findings": pa.ListArray.from_arrays(np.r_[0, np.cumsum(declared)].astype(np.int32), found),
        "signed": pa.array(np.zeros(n, bool)),
        "declared": pa.array(declared),
        "marked": pa.array(marked),
        "mark_payload": pick([payload.name for payload in load_payloads()], n, rng, pa.string()),
        "mark_variant": pick(["dwtDct/rgb/1"], n, rng, pa.string()),
        "mark_pvalue": pa.array(np.where(marked, 1e-12, rng.random(n))),
        "mark_control": pa.array(rng.random(n) < 0.97, mask=rng.random(n) > 0.125),
        "forensic": vectors.take(pa.array(rng.integers(len(vectors), size=n))),
        "embedding": pa.nulls(n, pa.binary()),
    }
    return pa.table([columns[name] for name in EVIDENCE.names], schema=EVIDENCE)


def write_evidence(
    plan: Plan, folder: Path, bank: pa.Array, config_sha256: str, pool: int, seed: int
) -> None:
    """Parts and markers of every shard, as a scan leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(plan.n_shards):
        rng = np.random.default_rng([seed, pool, index])
        drawn = rng.choice(len(bank), min(PART_BANK, len(bank)), replace=False)
        table = make_part(plan.table(index), bank.take(pa.array(drawn)), pool, rng)
        pq.write_table(table, part_path(folder, index), compression="zstd")
        n_scored = int(pc.sum(pc.equal(table.column("status"), "scored")).as_py())
        status = dict.fromkeys(STATUSES, 0) | {"scored": n_scored, "unreadable": table.num_rows - n_scored}
        marker = {"shard": index, "items": table.num_rows, "status": status}
        marker |= {"sha256": hash_file(part_path(folder, index))}
        marker |= {"plan_sha256": plan.sha256, "config_sha256": config_sha256}
        done_path(folder, index).write_text(json.dumps(marker), "utf-8")


def make_run(
    out: Path,
    rows: int,
    n_references: int,
    detector: str,
    shard_size: int | None,
    record: Recorder,
    *,
    seed: int,
) -> AuditSpec:
    """A run whose scan is done: plans, evidence and settings; the spec that goes on with it."""
    places = {role: out / "pools" / role for role in ("pool", "real", "synthetic")}
    for place in places.values():
        place.mkdir(parents=True)
    spec = AuditSpec(
        str(places["pool"]),
        out / "run",
        str(places["real"]),
        str(places["synthetic"]),
        embedder="forensic",
        detector=detector,
        match="never",
        workers=0,
        shard_size=shard_size,
    )
    run, scanned = RunFolder(spec.out), scan_settings(Scorer("forensic"))
    rng = np.random.default_rng(seed)
    for number, (role, place) in enumerate(places.items()):
        n = rows if role == "pool" else n_references
        run.folder(role).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            if role == "pool":
                stack.enter_context(record.stage("listing and plan"))
            items, mapped = collect_listing(list_pool(n))
            plan = make_plan(
                Pool(place, items, 0, TarReader(place), mapped),
                run.folder(role) / "plan.parquet",
                rng=np.random.default_rng(0),
                shard_size=shard_size,
            )
            del items, mapped
        n_synthetic = {"pool": int(BANK * SYNTHETIC_SHARE), "real": 0, "synthetic": n}[role]
        n_bank = BANK if role == "pool" else n
        bank = draw_vectors(n_bank - n_synthetic, synthetic=False, rng=rng)
        bank += draw_vectors(n_synthetic, synthetic=True, rng=rng)
        with contextlib.ExitStack() as stack:
            if role == "pool":
                stack.enter_context(record.stage("evidence (made up)"))
            evidence = run.evidence(role).folder
            write_evidence(plan, evidence, pa.array(bank, pa.binary()), hash_json(scanned), number, seed)
    settings = asdict(spec) | scanned | {role: str(place.resolve()) for role, place in places.items()}
    write_json(
        run.config, {name: value for name, value in settings.items() if name not in ("out", "workers")}
    )
    return spec


def run_steps(
    out: Path, rows: int, n_references: int, detector: str, shard_size: int | None, *, seed: int
) -> tuple[Recorder, dict[str, Any]]:
    """All steps in turn, measured, and the report of the audit."""
    record = Recorder(rows)
    spec = make_run(out, rows, n_references, detector, shard_size, record, seed=seed)
    started = time.perf_counter()
    report = audit_pool(spec, progress=record)
    print(f"{'audit in all':32}{time.perf_counter() - started:9.1f} s")
    with record.stage("verify"):
        faults = find_faults(spec.out)
    with record.stage("decide"):
        judged = judge_run(spec.out)
        verdict = decide(judged, CapRatio(0.1))
        save_decision(judged, verdict, out / "decided")
    if faults:
        raise RuntimeError(f"the run has {len(faults)} faults, the first is: {faults[0]}")
    return record, report


def count_copies(rows: int) -> int:
    """How many items are copies of an earlier one that can be read."""
    copies = np.arange(COPY_EVERY - 1, rows, COPY_EVERY)
    return int((origin_of(copies) % LOST_EVERY != LOST_AT).sum())


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, prints and returns the audit's report."""
    parser = argparse.ArgumentParser(description="An audit without pixels, at any size.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--references", type=int, default=200, help="real ones, and as many synthetic ones")
    parser.add_argument(
        "--detector", default="probe", help="`probe` scores neighbours too, `forensic` does not"
    )
    parser.add_argument("--shard-size", type=int, help="of the pool; without it, what suits so many rows")
    parser.add_argument("--out", type=Path, help="a new folder, kept; without it, one that is removed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        out = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        record, report = run_steps(
            out, options.rows, options.references, options.detector, options.shard_size, seed=options.seed
        )
        sizes = {
            "plan": (out / "run" / "plan.parquet").stat().st_size,
            "evidence": sum(path.stat().st_size for path in (out / "run" / "evidence").iterdir()),
            "items": (out / "run" / "items.parquet").stat().st_size,
        }
    share, status = report["share"], report["pool"]["status"]
    per_million = ", ".join(f"{name} {n_bytes / options.rows:.1f}" for name, n_bytes in sizes.items())
    print(f"MB on disk per million items: {per_million}; while copies are looked for 24.0 more")
    print(f"highest peak {max(record.peaks.values()):.0f} MB; {sum(record.seconds.values()):.0f} s in all")
    print(f"status {status}; share {share['point']} from {share['lower']} to {share['upper']}")
    if status["duplicate"] != count_copies(options.rows):
        raise RuntimeError(f"{status['duplicate']} copies found, {count_copies(options.rows)} were made")
    return report


if __name__ == "__main__":
    main()
