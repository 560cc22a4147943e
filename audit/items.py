"""The answer per item: evidence and scores joined, one row each, counted on the way."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported, where no type checker sees them.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Int, Int64

from poolproof.audit.digests import fold_of, part_digests, part_scored
from poolproof.audit.evidence import ITEMS, STATUSES
from poolproof.audit.groups import Groups, count_groups
from poolproof.audit.references import Evidence, part_features
from poolproof.detectors.detector import Scores
from poolproof.detectors.mixture import bin_counts
from poolproof.detectors.provenance import Finding, describe
from poolproof.detectors.soft import EMPTY, Moments, moments
from poolproof.files import replace_file

N_BINS: Final = 40

_TIERS: Final = ("signed", "declared", "marked")

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
    detector: Detector | None,
    embedder: str,
    sampled: Bool[np.ndarray, " n"],
) -> Tally:
    """Writes `items.parquet` part by part and returns the counts; memory holds one part at a time.

    Columns are worked on whole; only items with findings or marks are looked at one by one.

    Args:
        evidence: of the audited pool.
        path: the file to write.
        duplicates: items with the same bytes as an earlier one, by position in the plan.
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
            items = _answer(part, duplicates[here], detector, embedder, tally)
            scored, hit = part_scored(items), part_hits(items)
            _count_statuses(tally, items)
            if scored.any():
                _count_scored(tally, items, scored, hit, evidence.kind)
                _count_findings(tally, part, items, scored)
            tally.rest.append(scored & ~hit)
            if sampled[here].any():
                tally.sampled.append(part_features(part, embedder, sampled[here] & scored))
            writer.write_table(items, row_group_size=max(1, items.num_rows))
    return tally


def _answer(
    part: pa.Table,
    repeated: Bool[np.ndarray, " n"],
    detector: Detector | None,
    embedder: str,
    tally: Tally,
) -> pa.Table:
    """The rows of `items.parquet` for a part of the evidence; scores are counted on the way."""
    n = part.num_rows
    columns: dict[str, Any] = {name: part.column(name) for name in ITEMS.names if name in part.schema.names}
    if repeated.any():
        mask = pa.array(repeated)
        columns["status"] = pc.if_else(mask, "duplicate", columns["status"])
        columns["reason"] = pc.if_else(mask, "duplicate: same bytes as an earlier item", columns["reason"])
    columns["evidence"] = _describe_all(part)
    score, knn_score = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    told, flagged = np.zeros(n, bool), np.zeros(n, bool)
    scored = part_scored(part) & ~repeated
    if detector is not None and scored.any():
        features = part_features(part, embedder, scored)
        folds = fold_of(part_digests(part)[scored], detector.folds)
        answer = detector.answer(features, folds)
        answered = ~answer.abstained
        score[scored], told[scored] = answer.values, answered
        flagged[scored] = answered & (answer.values > detector.threshold)
        if detector.knn_score is not None and answered.any():
            knn_score[np.flatnonzero(scored)[answered]] = detector.knn_score(
                features[answered], folds[answered]
            )
        _count_scores(tally, detector, answer.values, answered, part_hits(part)[scored])
    columns["score"] = pa.array(score, mask=~told)
    columns["knn_score"] = pa.array(knn_score, mask=~np.isfinite(knn_score))
    columns["flagged"] = pa.array(flagged, mask=~told)
    return pa.table([columns[name] for name in ITEMS.names], schema=ITEMS)


def part_hits(part: pa.Table) -> Bool[np.ndarray, " n"]:
    """Which items of a part have a signed, declared or marked finding that says they are synthetic."""
    return np.logical_or.reduce([_mask(part, tier) for tier in _TIERS])


def _mask(part: pa.Table, name: str) -> Bool[np.ndarray, " n"]:
    """Where a column of yes and no says yes; what is not known is no."""
    return np.asarray(pc.fill_null(part.column(name), False).to_numpy(), bool)


def _told(part: pa.Table, name: str) -> Bool[np.ndarray, " n"]:
    """Where a column has a value."""
    return np.asarray(pc.is_valid(part.column(name)).to_numpy(), bool)


def _count_scores(
    tally: Tally,
    detector: Detector,
    scores: Float[np.ndarray, " m"],
    told: Bool[np.ndarray, " m"],
    hits: Bool[np.ndarray, " m"],
) -> None:
    """Counts the scores of a part's scored items: all by bin, those without a finding for the share."""
    tally.histogram = tally.histogram + detector.histogram(scores[told].astype(float))
    rest = scores[told & ~hits]
    tally.answered_rest += len(rest)
    tally.soft = tally.soft.merge(moments(detector.soften(rest)))
    if detector.alarm_edges is not None:
        counts = bin_counts(rest, detector.alarm_edges)
        tally.alarm_counts = counts if tally.alarm_counts is None else tally.alarm_counts + counts


def _count_statuses(tally: Tally, items: pa.Table) -> None:
    tally.n_bytes += pc.sum(items.column("n_bytes")).as_py() or 0
    _add(tally.status, items.column("status"))
    failed = items.select(["status", "reason"]).filter(pc.not_equal(items.column("status"), "scored"))
    if failed.num_rows:
        codes = pc.replace_substring_regex(pc.fill_null(failed.column("reason"), ""), "(?s):.*", "")
        _add(tally.reasons, pc.binary_join_element_wise(failed.column("status"), codes, ": "))


def _count_scored(
    tally: Tally, items: pa.Table, scored: Bool[np.ndarray, " n"], hit: Bool[np.ndarray, " n"], kind: str
) -> None:
    """Counts the items that were scored: by format, group, flag, tier and control mark."""
    flagged, answered = _mask(items, "flagged"), _told(items, "score")
    tally.hits += int((scored & hit).sum())
    tally.flagged += int(flagged.sum())
    tally.flagged_rest += int((flagged & ~hit).sum())
    tally.tested += int((scored & _told(items, "mark_pvalue")).sum())
    tally.controls += int((scored & _told(items, "mark_control")).sum())
    tally.controls_found += int((scored & _mask(items, "mark_control")).sum())
    for tier in _TIERS:
        tally.tiers[tier] += int((scored & _mask(items, tier)).sum())
    chosen = items.select(["source", "format", "width", "height"]).filter(pa.array(scored))
    _add(tally.formats, chosen.column("format"))
    count_groups(
        tally.groups, chosen, kind, hit=hit[scored], answered=answered[scored], flagged=flagged[scored]
    )


def _count_findings(tally: Tally, part: pa.Table, items: pa.Table, scored: Bool[np.ndarray, " n"]) -> None:
    """Counts the marks by payload, and the declarations by what they were read from."""
    marked = items.column("mark_payload").filter(pa.array(scored & _mask(items, "marked")))
    tally.payloads.update(marked.to_pylist())
    declared = part.column("findings").filter(pa.array(scored & _mask(items, "declared")))
    for findings in declared.to_pylist():
        stated = [f for f in findings or [] if f["tier"] == "declared" and f["synthetic"]]
        tally.tools[f"{stated[0]['source']} {stated[0]['field']}"] += 1


def _add(counter: Counter[str], values: pa.ChunkedArray) -> None:
    """Counts values in, new ones in the order in which they first occur."""
    for entry in pc.value_counts(values).to_pylist():
        counter[entry["values"]] += entry["counts"]


def _describe_all(part: pa.Table) -> pa.Array:
    """The strongest evidence in words, null for most items: they have none."""
    found = pc.fill_null(pc.list_value_length(part.column("findings")), 0).to_numpy() > 0
    places = np.flatnonzero(found | _mask(part, "marked"))
    words: list[str | None] = [None] * part.num_rows
    columns = ["findings", "signed", "declared", "marked", "mark_payload", "mark_pvalue"]
    for place, row in zip(places, part.select(columns).take(pa.array(places)).to_pylist(), strict=True):
        words[place] = _describe(row, row["findings"])
    return pa.array(words, pa.string())


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
