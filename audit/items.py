"""The answer per item: evidence and scores joined, one row each, counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt64

from poolproof.audit.evidence import ITEMS, STATUSES
from poolproof.audit.groups import Groups, GroupTally, group_names
from poolproof.audit.references import Evidence, fold_of, part_features
from poolproof.detectors.detector import Scores
from poolproof.detectors.mixture import bin_counts
from poolproof.detectors.provenance import Finding, describe
from poolproof.detectors.soft import EMPTY, Moments, moments
from poolproof.files import replace_file

N_BINS: Final = 40

Score = Callable[[Float32[np.ndarray, "n d"], Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]
"""Scores of items from their features and their cross-fitting folds."""

Answer = Callable[[Float32[np.ndarray, "n d"], Int[np.ndarray, " n"]], Scores]
"""The same, with a mask of the items that have no score."""


@dataclass(frozen=True)
class Detector:
    """What scores the items of a pool.

    Attributes:
        name: a kind of detector, such as `probe` (real and synthetic references) or `real-distance` (real ones
            alone).
        answer: the scores that are counted and ranked.
        knn_score: scores by nearest neighbours, None where they are not computed.
        threshold: an item above it is flagged.
        folds: cross-fitting folds.
        edges: of the histogram of scores; scores beyond go to the outer bins.
        alarm_edges: inner edges of the bins in which the pool is held against the references, None without both.
        scale: of scores, on which a logistic curve softens them.
    """

    name: str
    answer: Answer
    knn_score: Score | None
    threshold: float
    folds: int
    edges: Float[np.ndarray, " bins"]
    alarm_edges: Float[np.ndarray, " edges"] | None = None
    scale: float = 1.0

    def soften(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Scores between 0 and 1, one half at the threshold."""
        from scipy.special import expit

        return expit((np.asarray(scores, np.float64) - self.threshold) / self.scale)

    def histogram(self, scores: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " bins"]:
        """Counts of scores by bin."""
        inside = np.clip(scores, self.edges[0], np.nextafter(self.edges[-1], -np.inf))
        return np.histogram(inside, self.edges)[0]


@dataclass
class Tally:
    """Counts over all items of a pool.

    Attributes:
        hits: scored items with a signed, declared or marked finding.
        answered_rest: scored items without such a finding that the detector has a score for.
        flagged_rest: of these, those that it flags.
        alarm_counts: of these, by the detector's alarm bins; None without.
        soft: moments of their soft scores.
        groups: the same counts by source, format and size.
        sampled: features of the rows asked for, in row order.
        rest: whether each item is scored and has no such finding, part by part.
    """

    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    payloads: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    n_bytes: int = 0
    hits: int = 0
    flagged: int = 0
    answered_rest: int = 0
    flagged_rest: int = 0
    alarm_counts: Int64[np.ndarray, " bins"] | None = None
    soft: Moments = EMPTY
    tested: int = 0
    controls: int = 0
    controls_found: int = 0
    histogram: Int[np.ndarray, " bins"] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    groups: Groups = field(default_factory=dict)
    sampled: list[Float32[np.ndarray, "n d"]] = field(default_factory=list)
    rest: list[Bool[np.ndarray, " n"]] = field(default_factory=list)

    @property
    def scored(self) -> int:
        """Distinct items that were read."""
        return self.status["scored"]


def write_items(
    evidence: Evidence,
    path: Path,
    *,
    duplicates: Bool[np.ndarray, " n"],
    digests: UInt64[np.ndarray, "n 2"],
    detector: Detector | None,
    embedder: str,
    sampled: Bool[np.ndarray, " n"],
) -> Tally:
    """Writes `items.parquet` part by part and returns the counts; memory holds one part at a time.

    Args:
        evidence: of the audited pool.
        path: the file to write.
        duplicates: items with the same bytes as an earlier one, by position in the plan.
        digests: content hashes, which settle each item's fold.
        detector: scores the items; None without references.
        embedder: names the feature space.
        sampled: items whose features are kept for set metrics.
    """
    tally = Tally()
    start = 0
    with replace_file(path) as temporary, pq.ParquetWriter(temporary, ITEMS, compression="zstd") as writer:
        for part in evidence.parts():
            here = slice(start, start + part.num_rows)
            start += part.num_rows
            rows = part.select([name for name in ITEMS.names if name in part.schema.names]).to_pylist()
            findings = part.column("findings").to_pylist()
            for row, found, repeated in zip(rows, findings, duplicates[here], strict=True):
                if repeated:
                    row.update(status="duplicate", reason="duplicate: same bytes as an earlier item")
                row["evidence"] = _describe(row, found)
            scored = np.array([row["status"] == "scored" for row in rows])
            features = part_features(part, embedder, scored)
            if detector is not None and len(features):
                _score(rows, scored, features, detector, digests[here], tally)
            for row, found in zip(rows, findings, strict=True):
                _count(tally, row, found, evidence.kind)
            tally.rest.append(scored & ~np.array([is_hit(row) for row in rows]))
            if sampled[here].any():
                tally.sampled.append(features[sampled[here][scored]])
            writer.write_table(pa.Table.from_pylist(rows, schema=ITEMS), row_group_size=max(1, len(rows)))
    return tally


def _score(
    rows: list[dict[str, Any]],
    scored: Bool[np.ndarray, " n"],
    features: Float32[np.ndarray, "m d"],
    detector: Detector,
    digests: UInt64[np.ndarray, "n 2"],
    tally: Tally,
) -> None:
    folds = fold_of(digests[scored], detector.folds)
    answer = detector.answer(features, folds)
    scores, told = answer.values, ~answer.abstained
    knn = np.full(len(scores), np.nan)
    if detector.knn_score is not None and told.any():
        knn[told] = detector.knn_score(features[told], folds[told])
    hits = np.zeros(len(scores), bool)
    for i, position in enumerate(np.flatnonzero(scored)):
        row = rows[position]
        hits[i] = is_hit(row)
        if told[i]:
            row.update(score=float(scores[i]), flagged=bool(scores[i] > detector.threshold))
        if np.isfinite(knn[i]):
            row["knn_score"] = float(knn[i])
    tally.histogram = tally.histogram + detector.histogram(scores[told].astype(float))
    rest = scores[told & ~hits]
    tally.answered_rest += len(rest)
    tally.soft = tally.soft.merge(moments(detector.soften(rest)))
    if detector.alarm_edges is not None:
        counts = bin_counts(rest, detector.alarm_edges)
        tally.alarm_counts = counts if tally.alarm_counts is None else tally.alarm_counts + counts


def is_hit(row: dict[str, Any]) -> bool:
    """Whether a signed, declared or marked finding says that the item is synthetic."""
    return bool(row["signed"] or row["declared"] or row["marked"])


def _count(tally: Tally, row: dict[str, Any], findings: list[dict[str, Any]] | None, kind: str) -> None:
    status = row["status"]
    tally.status[status] += 1
    tally.n_bytes += row["n_bytes"] or 0
    if status != "scored":
        code = (row["reason"] or "").partition(":")[0]
        tally.reasons[f"{status}: {code}"] += 1
        return
    tally.formats[row["format"]] += 1
    hit, flagged = is_hit(row), bool(row.get("flagged"))
    tally.hits += hit
    tally.flagged += flagged
    tally.flagged_rest += flagged and not hit
    answered = row.get("score") is not None
    for name in group_names(row, kind):
        tally.groups.setdefault(name, GroupTally()).count(hit, answered, flagged)
    tally.tested += row["mark_pvalue"] is not None
    tally.controls += row["mark_control"] is not None
    tally.controls_found += bool(row["mark_control"])
    for tier in ("signed", "declared", "marked"):
        tally.tiers[tier] += bool(row[tier])
    if row["marked"]:
        tally.payloads[row["mark_payload"]] += 1
    if row["declared"]:
        stated = [f for f in findings or [] if f["tier"] == "declared" and f["synthetic"]]
        tally.tools[f"{stated[0]['source']} {stated[0]['field']}"] += 1


def _describe(row: dict[str, Any], findings: list[dict[str, Any]] | None) -> str | None:
    """The strongest evidence in words: signed, declared, then marked."""
    told = describe(tuple(Finding(**finding) for finding in findings or []))
    marked = f"marked: {row['mark_payload']}, p = {row['mark_pvalue']:.1e}" if row["marked"] else None
    return told if told is not None and (row["signed"] or row["declared"]) else marked or told


def check_balance(tally: Tally, n_items: int) -> None:
    """Fails where the five statuses do not add up to the plan: a bug, never the user's doing."""
    counted = sum(tally.status[status] for status in STATUSES)
    if counted != n_items or set(tally.status) - set(STATUSES):
        raise RuntimeError(f"{counted} items counted, {n_items} planned: {dict(tally.status)}")
