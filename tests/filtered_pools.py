"""Runs and decisions made by hand, without scoring: what writing a filtered pool starts from."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from poolproof.audit.decision import DECISION, DecisionFile, write_decision
from poolproof.audit.plan import make_plan
from poolproof.audit.pool import ItemRef, Pool, open_pool
from poolproof.audit.run import RunFolder

KINDS = ("folder", "webdataset", "parquet", "dataset")


def every_other(ref: ItemRef) -> bool:
    """Keeps items at even places."""
    return ref.row % 2 == 0


def images(n: int, seed: int = 0) -> list[bytes]:
    """Small images, JPEG and PNG in turn, no two alike."""
    rng, encoded = np.random.default_rng(seed), []
    for i in range(n):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, ("JPEG", "PNG")[i % 2])
        encoded.append(buffer.getvalue())
    return encoded


def ending(data: bytes) -> str:
    """The ending for an image of `images`."""
    return ".jpg" if data.startswith(b"\xff\xd8") else ".png"


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar of the members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(data), 1_700_000_000, 1000
            tar.addfile(info, io.BytesIO(data))
    return path


def uid(i: int) -> str:
    """The uid of the i-th item."""
    return hashlib.md5(str(i).encode()).hexdigest()


def write_kind(folder: Path, kind: str, n: int = 10) -> Path:
    """A pool of each kind with captions and uids beside the images, in two files where it can be."""
    data = images(n)
    pool = folder / f"{kind}-pool"
    pool.mkdir(parents=True)
    beside = [json.dumps({"uid": uid(i), "width": 8}) for i in range(n)]
    if kind == "folder":
        for i in range(n):
            stem = pool / ("ab"[i % 2]) / f"{i:03d}"
            stem.parent.mkdir(exist_ok=True)
            stem.with_suffix(ending(data[i])).write_bytes(data[i])
            stem.with_suffix(".txt").write_text(f"caption {i}")
            stem.with_suffix(".json").write_text(beside[i])
    elif kind == "webdataset":
        for part, rows in enumerate(np.array_split(np.arange(n), 2)):
            members = [
                member
                for i in rows
                for member in (
                    (f"{i:03d}.txt", f"caption {i}".encode()),
                    (f"{i:03d}{ending(data[i])}", data[i]),
                    (f"{i:03d}.json", beside[i].encode()),
                )
            ]
            write_tar(pool / f"{part:05d}.tar", members)
    else:
        table = pa.table(
            {
                "image": [{"bytes": d, "path": f"{i}{ending(d)}"} for i, d in enumerate(data)],
                "id": [f"item-{i}" for i in range(n)],
                "caption": [f"caption {i}" for i in range(n)],
                "uid": [uid(i) for i in range(n)],
                "sizes": [[1.5, float(i)] for i in range(n)],
            }
        )
        if kind == "parquet":
            pq.write_table(table.slice(0, n // 2), pool / "train-0.parquet", row_group_size=3)
            pq.write_table(table.slice(n // 2), pool / "train-1.parquet", row_group_size=3)
        else:
            import datasets

            features = datasets.Features.from_arrow_schema(table.schema)
            features["image"] = datasets.Image()
            made = datasets.Dataset(pa.table(table.columns, schema=features.arrow_schema))
            made.save_to_disk(str(pool))
    return pool


def decide(
    pool: str | Path,
    folder: Path,
    keep: Callable[[ItemRef], bool] = every_other,
    weight: Callable[[ItemRef], float] = lambda ref: 1.0,
    shard_size: int = 4,
) -> tuple[RunFolder, DecisionFile]:
    """A run that holds a plan alone, and a decision on it."""
    run = RunFolder(folder / "run")
    run.path.mkdir(parents=True)
    plan = make_plan(
        open_pool(pool), run.path / "plan.parquet", rng=np.random.default_rng(0), shard_size=shard_size
    )
    tables = []
    for index in range(plan.n_shards):
        shard = plan.shard(index)
        rows: list[dict[str, Any]] = []
        for ref, data in zip(shard.refs, shard.reader.read(shard.refs), strict=True):
            kept = keep(ref)
            rows.append(
                {
                    "row": ref.row,
                    "key": ref.key,
                    "source": ref.source,
                    "sha256": hashlib.sha256(data).digest() if isinstance(data, bytes) else None,
                    "keep": kept,
                    "weight": weight(ref) if kept else 0.0,
                    "reason": "kept" if kept else "found: by hand",
                }
            )
        tables.append(pa.Table.from_pylist(rows, schema=DECISION))
    header = {"plan_sha256": plan.sha256, "items_sha256": "0" * 64, "policy": {"kind": "by-hand"}}
    return run, write_decision(folder / "decision.parquet", header, iter(tables))


def kept_items(pool: Pool, keep: Callable[[ItemRef], bool] = every_other) -> list[tuple[str, bytes]]:
    """Key and bytes of the items that are kept."""
    refs = [ref for ref in pool.refs() if keep(ref)]
    return [
        (ref.key, data)
        for ref, data in zip(refs, pool.reader.read(refs), strict=True)
        if isinstance(data, bytes)
    ]


def all_items(pool: Pool) -> list[tuple[str, bytes]]:
    """Key and bytes of all items that can be read."""
    return kept_items(pool, lambda ref: True)


def load_saved(folder: Path) -> Any:
    """The data set in a folder, with the library's bars switched off."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_from_disk(str(folder))


def stored_rows(dataset: Any) -> list[dict[str, Any]]:
    """The rows of a data set as they are stored, nothing decoded."""
    return dataset.with_format("arrow")[:].to_pylist()


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
