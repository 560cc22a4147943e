"""The answer per item: columns give what rows give, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rowwise_items import write_rows

from poolproof.audit.engine import part_path
from poolproof.audit.evidence import EVIDENCE, ITEMS
from poolproof.audit.groups import GROUPINGS
from poolproof.audit.items import N_BINS, Detector, Tally, check_balance, write_items
from poolproof.audit.plan import Plan
from poolproof.audit.references import Evidence
from poolproof.detectors.detector import Scores

D = 6


@pytest.fixture
def make_evidence(tmp_path: Path) -> Callable[..., Evidence]:
    """Writes parts of random evidence in which every kind of row occurs."""

    def make(sizes: tuple[int, ...], kind: str = "folder", seed: int = 0) -> Evidence:
        rng = np.random.default_rng(seed)
        folder = tmp_path / f"evidence-{kind}-{seed}"
        folder.mkdir()
        for index, n in enumerate(sizes):
            rows = [_row(sum(sizes[:index]) + i, rng, kind) for i in range(n)]
            table = pa.Table.from_pylist(rows, schema=EVIDENCE)
            pq.write_table(table, part_path(folder, index), compression="zstd")
        meta = {"reader": {"kind": kind}}
        return Evidence(Plan(tmp_path / "plan.parquet", "", sizes, sum(sizes), meta), folder)

    return make


def _row(i: int, rng: np.random.Generator, kind: str) -> dict[str, Any]:
    key = f"{rng.choice(['a/', 'b/c/', '', 'été/', 'a b/'])}{i}.png"
    source = key if kind == "folder" else f"shards/{rng.integers(4)}.tar"
    row: dict[str, Any] = {"row": i, "key": key, "source": source}
    drawn = rng.random()
    if drawn < 0.1:
        reason = rng.choice(["truncated: 3 bytes", "no-file: a: b", "empty"])
        return row | {"status": rng.choice(["missing", "unreadable"]), "reason": str(reason)}
    row |= {"n_bytes": int(rng.integers(1, 10**7)), "sha256": rng.bytes(32), "findings": []}
    row |= {"signed": False, "declared": False, "format": str(rng.choice(["JPEG", "PNG", "WEBP"]))}
    row |= {"mode": "RGB", "width": int(rng.integers(8, 3000)), "height": int(rng.integers(8, 3000))}
    if drawn < 0.15:
        return row | {"status": "unsupported", "reason": "mode: five channels\nof light"}
    row |= {"status": "scored", "marked": False, "exif": bool(rng.random() < 0.3), "frames": 1}
    vector = rng.normal(size=D).astype("<f4")
    vector[0] = np.nan if rng.random() < 0.05 else vector[0]
    row["forensic"] = vector.tobytes()
    if rng.random() < 0.8:
        p = float(10 ** -rng.uniform(0, 20))
        row |= {"mark_payload": str(rng.choice(["p", "q"])), "mark_variant": "dwt", "mark_pvalue": p}
        row |= {"marked": p < 1e-15, "mark_control": [None, True, False][rng.integers(3)]}
    for tier in ("signed", "declared"):
        if rng.random() < 0.1:
            synthetic = bool(rng.random() < 0.7)
            finding = {"tier": tier, "synthetic": synthetic, "source": "xmp", "field": f"f{rng.integers(3)}"}
            row["findings"] = [*row["findings"], finding | {"value": "text", "confidence": "stated"}]
            row[tier] = synthetic
    return row


def make_detector(*, knn: bool = True, alarm: bool = True) -> Detector:
    """A linear detector with three folds that abstains from what is not finite."""
    weights = np.random.default_rng(5).normal(size=(3, D)).astype(np.float32)

    def score(features: np.ndarray, folds: np.ndarray) -> np.ndarray:
        return np.einsum("nd,nd->n", features, weights[folds]).astype(np.float32)

    def answer(features: np.ndarray, folds: np.ndarray) -> Scores:
        values = score(features, folds)
        lost = ~np.isfinite(values)
        return Scores(np.where(lost, np.float32(0), values), lost)

    def near(features: np.ndarray, folds: np.ndarray) -> np.ndarray:
        values = score(features**2, folds)
        return np.where(values > 6, np.float32(np.inf), values)

    edges, inner = np.linspace(-4, 4, N_BINS + 1), np.array([-1.0, 0.0, 1.0]) if alarm else None
    return Detector("linear", answer, near if knn else None, 0.25, 3, edges, inner, 0.7)


def told(tally: Tally) -> dict[str, Any]:
    """All that was counted, with the orders that reports show."""
    values = asdict(tally)
    values["groups"] = [
        (name, asdict(counts)) for by in GROUPINGS for name, counts in tally.groups.items() if name[0] == by
    ]
    for name in ("status", "reasons", "formats", "payloads", "tools", "tiers"):
        values[name] = list(values[name].items())
    values["histogram"] = values["histogram"].tolist()
    values["alarm_counts"] = None if values["alarm_counts"] is None else values["alarm_counts"].tolist()
    values["sampled"] = [block.tobytes() for block in values["sampled"]]
    values["rest"] = [block.tolist() for block in values["rest"]]
    return values


@pytest.mark.parametrize(
    ("kind", "detector"),
    [
        ("folder", make_detector()),
        ("webdataset", make_detector(knn=False)),
        ("parquet", make_detector(alarm=False)),
        ("folder", None),
    ],
)
def test_columns_give_what_rows_give(
    make_evidence: Callable[..., Evidence], tmp_path: Path, kind: str, detector: Detector | None
) -> None:
    """File and counts are those of the row by row reference, byte for byte."""
    sizes = (150, 1, 2, 97, 250)
    evidence = make_evidence(sizes, kind)
    rng = np.random.default_rng(1)
    statuses = [status for part in evidence.parts() for status in part.column("status").to_pylist()]
    duplicates = (np.array(statuses) == "scored") & (rng.random(sum(sizes)) < 0.2)
    sampled = (np.array(statuses) == "scored") & ~duplicates & (rng.random(sum(sizes)) < 0.3)
    sampled[150:253] = False
    expected = write_rows(evidence, tmp_path / "rows.parquet", duplicates, detector, sampled)
    found = write_items(
        evidence,
        tmp_path / "items.parquet",
        duplicates=duplicates,
        detector=detector,
        embedder="forensic",
        sampled=sampled,
    )
    assert told(found) == told(expected)
    assert (tmp_path / "items.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()
    check_balance(found, sum(sizes))


def test_parts_without_a_scored_item_are_written(
    make_evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    """Where everything is a duplicate the rows are there, and nothing is scored."""
    evidence = make_evidence((40,))
    statuses = pa.concat_tables(evidence.parts()).column("status").to_pylist()
    duplicates = np.array(statuses) == "scored"
    path, nothing = tmp_path / "items.parquet", np.zeros(40, bool)
    tally = write_items(
        evidence, path, duplicates=duplicates, detector=make_detector(), embedder="forensic", sampled=nothing
    )
    table = pq.read_table(path)
    assert table.schema.equals(ITEMS)
    assert table.column("status").to_pylist() == [
        "duplicate" if repeated else status for status, repeated in zip(statuses, duplicates, strict=True)
    ]
    assert table.column("score").null_count == 40
    assert (tally.scored, tally.hits, tally.groups) == (0, 0, {})


def test_a_lost_row_is_noticed(make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    """Counts that do not add up to the plan are a bug that is told."""
    nothing = np.zeros(9, bool)
    tally = write_items(
        make_evidence((9,)),
        tmp_path / "items.parquet",
        duplicates=nothing,
        detector=None,
        embedder="forensic",
        sampled=nothing,
    )
    check_balance(tally, 9)
    with pytest.raises(RuntimeError, match="9 items counted, 10 planned"):
        check_balance(tally, 10)
