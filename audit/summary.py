"""The report for machines: every figure of an audit, or the reason why it is withheld."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from poolproof import __version__
from poolproof.audit.estimate import Calibration, Share
from poolproof.audit.evidence import STATUSES
from poolproof.audit.items import Tally
from poolproof.audit.marks import marked_share
from poolproof.audit.paths import readable
from poolproof.audit.plan import Plan
from poolproof.audit.references import Reference
from poolproof.audit.sets import NEIGHBOURS, SetMetrics
from poolproof.audit.spec import AuditSpec
from poolproof.files import hash_json

SCHEMA_VERSION: Final = 1
"""Of `report.json`, described in `docs/report.schema.json`. Raised when a field changes its meaning."""

_PACKAGES: Final = (
    "numpy",
    "pillow",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "faiss-cpu",
    "torch",
    "open_clip_torch",
    "c2pa-python",
)


@dataclass(frozen=True)
class Audit:
    """Everything an audit found."""

    spec: AuditSpec
    embedder: str
    plan: Plan
    tally: Tally
    calibration: Calibration | None
    share: Share | None
    references: Mapping[str, Reference]
    sets: SetMetrics
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    weights_sha256: str | None
    command: str
    seconds: float


def summarise(audit: Audit) -> dict[str, Any]:
    """The report as `docs/report-schema.md` has it."""
    tally, plan = audit.tally, audit.plan
    return {
        "schema_version": SCHEMA_VERSION,
        "pool": {
            "path": readable(audit.spec.pool),
            "kind": plan.meta["reader"]["kind"],
            "items": plan.n_pool,
            "audited": plan.n_items,
            "sample": plan.meta["sample"],
            "ignored": plan.meta["n_ignored"],
            "n_bytes": tally.n_bytes,
            "status": {status: tally.status[status] for status in STATUSES},
        },
        "share": _share(audit),
        "why": None if audit.share else "not one item of the pool could be read",
        "tiers": _tiers(audit),
        "references": {role: _reference(audit.references.get(role)) for role in ("real", "synthetic")},
        "set": {**vars(audit.sets), "k": NEIGHBOURS, "embedder": audit.embedder},
        "scores": _scores(audit),
        "reasons": dict(sorted(tally.reasons.items())),
        "formats": dict(sorted(tally.formats.items())),
        "admissible": _admissible(audit),
        "notes": list(audit.notes),
        "manifest": {
            "versions": {"poolproof": __version__} | {name: metadata.version(name) for name in _PACKAGES},
            "config": dict(audit.settings),
            "config_sha256": hash_json(audit.settings),
            "plan_sha256": plan.sha256,
            "weights_sha256": audit.weights_sha256,
            "seed": audit.spec.seed,
            "seconds": round(audit.seconds, 3),
            "command": readable(audit.command),
        },
    }


def _share(audit: Audit) -> dict[str, Any] | None:
    share = audit.share
    if share is None:
        return None
    limits = share.interval
    n = _n_countable(audit)
    return {
        "point": limits.point,
        "lower": limits.lower,
        "upper": limits.upper,
        "level": audit.spec.level,
        "method": share.method,
        "assumes": list(share.assumes),
        "why": share.why,
        "count": {
            "point": None if limits.point is None else round(n * limits.point),
            "lower": int(n * limits.lower),
            "upper": -int(-n * limits.upper // 1),
        },
    }


def _n_countable(audit: Audit) -> int:
    """Readable, distinct items: counted in a full audit, scaled up from a sample."""
    tally, plan = audit.tally, audit.plan
    return round(plan.n_pool * tally.scored / plan.n_items)


def _tiers(audit: Audit) -> dict[str, Any]:
    tally, calibration = audit.tally, audit.calibration
    detected: dict[str, Any] = dict.fromkeys(("count", "detector", "threshold", "tpr", "fpr", "auc"))
    if calibration is not None:
        detected = {
            "count": tally.flagged,
            "detector": calibration.detector.name,
            "threshold": float(calibration.detector.threshold),
            "tpr": _rate(calibration.true_positives),
            "fpr": _rate(calibration.false_positives),
            "auc": calibration.auc,
        }
    marked = marked_share(
        tally.tiers["marked"], tally.tested, tally.controls_found, tally.controls, level=audit.spec.level
    )
    return {
        "signed": {"count": tally.tiers["signed"]},
        "declared": {"count": tally.tiers["declared"], "tools": dict(tally.tools.most_common())},
        "marked": {
            "count": tally.tiers["marked"],
            "tested": tally.tested,
            "payloads": dict(tally.payloads.most_common()),
            "recall": {"x": tally.controls_found, "n": tally.controls},
            "share": None
            if marked is None
            else {"point": marked.point, "lower": marked.lower, "upper": marked.upper, "level": marked.level},
        },
        "detected": detected,
        "any": {"count": tally.hits},
    }


def _rate(counts: tuple[int, int] | None) -> dict[str, int] | None:
    return None if counts is None else {"x": int(counts[0]), "n": int(counts[1])}


def _reference(reference: Reference | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    return {
        "path": readable(reference.path),
        "items": reference.n_items,
        "scored": reference.n_scored,
        "used": len(reference.features),
        "overlap": reference.n_overlap,
    }


def _scores(audit: Audit) -> dict[str, Any] | None:
    calibration = audit.calibration
    if calibration is None:
        return None
    synthetic = calibration.synthetic_histogram
    return {
        "edges": [float(edge) for edge in calibration.detector.edges],
        "pool": audit.tally.histogram.tolist(),
        "real": calibration.real_histogram.tolist(),
        "synthetic": None if synthetic is None else synthetic.tolist(),
    }


def _admissible(audit: Audit) -> dict[str, Any]:
    share, n = audit.share, _n_countable(audit)
    point = share.interval.point if share is not None else None
    synthetic = None if point is None else round(n * point)
    return {
        "sampling_bias": None,
        "n_real": None if synthetic is None else n - synthetic,
        "n_synthetic": synthetic,
        "threshold": None,
        "verdict": None,
        "why": "an audit does not tell the sampling bias of what wrote the synthetic images; "
        "`poolproof simulate admissible --run RUN` places the pool in the region for several",
    }
