"""The answer per item written row by row, as plainly as it can be said: what the columnar code must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.digests import fold_of
from poolproof.audit.evidence import ITEMS
from poolproof.audit.groups import SIZE_BANDS, GroupTally, source_of
from poolproof.audit.items import Detector, Tally
from poolproof.audit.references import Evidence
from poolproof.detectors.mixture import bin_counts
from poolproof.detectors.provenance import Finding, describe
from poolproof.detectors.soft import moments


def write_rows(
    evidence: Evidence, path: Path, duplicates: np.ndarray, detector: Detector | None, sampled: np.ndarray
) -> Tally:
    """Writes `items.parquet` and returns the counts, one item after another."""
    tally = Tally()
    start = 0
    with pq.ParquetWriter(path, ITEMS, compression="zstd") as writer:
        for part in evidence.parts():
            rows = part.to_pylist()
            here = slice(start, start + len(rows))
            start += len(rows)
            for row, repeated in zip(rows, duplicates[here], strict=True):
                if repeated:
                    row.update(status="duplicate", reason="duplicate: same bytes as an earlier item")
                row["evidence"] = _words(row)
            scored = np.array([row["status"] == "scored" for row in rows])
            vectors = [row["forensic"] for row in rows if row["status"] == "scored"]
            features = np.array([np.frombuffer(vector, "<f4") for vector in vectors])
            if detector is not None and len(features):
                _score([row for row in rows if row["status"] == "scored"], features, detector, tally)
            for row in rows:
                _count(tally, row, evidence.kind)
            tally.rest.append(scored & ~np.array([_is_hit(row) for row in rows]))
            if sampled[here].any():
                tally.sampled.append(features[sampled[here][scored]])
            answers = [{name: row.get(name) for name in ITEMS.names} for row in rows]
            writer.write_table(pa.Table.from_pylist(answers, schema=ITEMS), row_group_size=len(rows))
    return tally


def _score(rows: list[dict[str, Any]], features: np.ndarray, detector: Detector, tally: Tally) -> None:
    raw = b"".join(row["sha256"][:16] for row in rows)
    folds = fold_of(np.frombuffer(raw, "<u8").reshape(-1, 2), detector.folds)
    answer = detector.answer(features, folds)
    told = ~answer.abstained
    knn = np.full(len(rows), np.nan)
    if detector.knn_score is not None and told.any():
        knn[told] = detector.knn_score(features[told], folds[told])
    for i, row in enumerate(rows):
        if told[i]:
            row.update(score=float(answer.values[i]), flagged=bool(answer.values[i] > detector.threshold))
        if np.isfinite(knn[i]):
            row["knn_score"] = float(knn[i])
    tally.histogram = tally.histogram + detector.histogram(answer.values[told].astype(float))
    rest = answer.values[told & ~np.array([_is_hit(row) for row in rows])]
    tally.answered_rest += len(rest)
    tally.soft = tally.soft.merge(moments(detector.soften(rest)))
    if detector.alarm_edges is not None:
        counts = bin_counts(rest, detector.alarm_edges)
        tally.alarm_counts = counts if tally.alarm_counts is None else tally.alarm_counts + counts


def _is_hit(row: dict[str, Any]) -> bool:
    return bool(row["signed"] or row["declared"] or row["marked"])


def _count(tally: Tally, row: dict[str, Any], kind: str) -> None:
    status = row["status"]
    tally.status[status] += 1
    tally.n_bytes += row["n_bytes"] or 0
    if status != "scored":
        tally.reasons[f"{status}: {(row['reason'] or '').partition(':')[0]}"] += 1
        return
    tally.formats[row["format"]] += 1
    hit, flagged, answered = _is_hit(row), bool(row.get("flagged")), row.get("score") is not None
    tally.hits += hit
    tally.flagged += flagged
    tally.flagged_rest += flagged and not hit
    for name in (
        ("source", source_of(row["source"], kind)),
        ("format", row["format"]),
        ("size", size_band(max(row["width"], row["height"]))),
    ):
        counts = GroupTally(1, int(hit), int(answered and not hit), int(flagged and not hit))
        tally.groups.setdefault(name, GroupTally()).add(counts)
    tally.tested += row["mark_pvalue"] is not None
    tally.controls += row["mark_control"] is not None
    tally.controls_found += bool(row["mark_control"])
    for tier in ("signed", "declared", "marked"):
        tally.tiers[tier] += bool(row[tier])
    if row["marked"]:
        tally.payloads[row["mark_payload"]] += 1
    if row["declared"]:
        stated = next(f for f in row["findings"] if f["tier"] == "declared" and f["synthetic"])
        tally.tools[f"{stated['source']} {stated['field']}"] += 1


def size_band(side: int) -> str:
    """The band of a longer side, in words."""
    if side < SIZE_BANDS[0]:
        return f"under {SIZE_BANDS[0]} px"
    lower = max(bound for bound in SIZE_BANDS if bound <= side)
    if lower == SIZE_BANDS[-1]:
        return f"{lower} px and more"
    return f"{lower} to {SIZE_BANDS[SIZE_BANDS.index(lower) + 1] - 1} px"


def _words(row: dict[str, Any]) -> str | None:
    told = describe(tuple(Finding(**finding) for finding in row["findings"] or []))
    marked = f"marked: {row['mark_payload']}, p = {row['mark_pvalue']:.1e}" if row["marked"] else None
    return told if told is not None and (row["signed"] or row["declared"]) else marked or told
