"""The report for machines: every figure of an audit, or the reason why it is withheld."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final

from poolproof import __version__
from poolproof.audit.calibration import Calibration
from poolproof.audit.checks import Checks
from poolproof.audit.estimate import Share
from poolproof.audit.evidence import STATUSES
from poolproof.audit.groups import merge_small
from poolproof.audit.items import Tally
from poolproof.audit.labelled_audit import LabelledAudit, report_labels
from poolproof.audit.marks import marked_share
from poolproof.audit.paths import readable
from poolproof.audit.plan import Plan
from poolproof.audit.references import Reference
from poolproof.audit.sets import NEIGHBOURS, SetMetrics
from poolproof.audit.spec import AuditSpec
from poolproof.detectors.preflight import Confounding
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.subgroups import GroupCounts, subgroup_shares, unknown_generator_interval
from poolproof.detectors.transfer import Transfer
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
    """By findings and detector."""
    labelled: LabelledAudit | None
    checks: Checks
    generators: Transfer | None
    references: Mapping[str, Reference]
    sets: SetMetrics
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    weights_sha256: str | None
    command: str
    seconds: float

    @property
    def answer(self) -> Share | None:
        """The share that is told: by labels where there are some, since these are right whatever a detector errs."""
        return self.share if self.labelled is None else self.labelled.share


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
        "labels": report_labels(audit.labelled),
        "estimates": _estimates(audit),
        "checks": _checks(audit),
        "generators": _generators(audit),
        "groups": _groups(audit),
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
    share = audit.answer
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


def _estimates(audit: Audit) -> list[dict[str, Any]]:
    """The share by every method, that of labels first."""
    labelled = [] if audit.labelled is None else [audit.labelled.share.interval]
    return [_estimate(found) for found in [*labelled, *(audit.share.estimates if audit.share else ())]]


def _estimate(found: Interval) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("method", "point", "lower", "upper", "level")}


def _checks(audit: Audit) -> dict[str, Any]:
    checks, preflight = audit.checks, audit.checks.preflight
    alarm, matched = checks.alarm, checks.matched
    return {
        "files": None
        if preflight is None
        else {
            "confounding": _confounding(preflight.confounding),
            "why": preflight.why,
            "pool_unmatched": preflight.comparability.pool_unmatched,
            "comparable": {
                role: None
                if match is None
                else {"share_in_pool": match.share_in_pool, "verdict": match.verdict}
                for role, match in (
                    ("real", preflight.comparability.real),
                    ("synthetic", preflight.comparability.synthetic),
                )
            },
            "words": [
                *(preflight.confounding.words if preflight.confounding is not None else ()),
                *preflight.comparability.words,
            ],
        },
        "alarm": None
        if alarm is None
        else {
            "fires": alarm.fit.fires,
            "p_value": alarm.fit.p_value,
            "level": alarm.fit.level,
            "bins": len(alarm.fit.residuals),
            "words": alarm.words,
        },
        "alarm_why": checks.alarm_why,
        "matched": None
        if matched is None
        else {
            "target": matched.target,
            "share": None if matched.share is None else _estimate(replace(matched.share, method="matched")),
            "auc": matched.auc,
            "n_pool": matched.n_pool,
            "n_real": matched.n_real,
            "n_synthetic": matched.n_synthetic,
            "why": matched.why,
        },
    }


def _confounding(found: Confounding | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "auc": {name: getattr(found.auc, name) for name in ("point", "lower", "upper", "level")},
        "verdict": found.verdict,
        "facts": [fact.name for fact in found.facts],
    }


def _generators(audit: Audit) -> dict[str, Any] | None:
    found = audit.generators
    if found is None:
        return None
    tally, unknown, calibration, share = audit.tally, None, audit.calibration, audit.share
    # what forbids the detector's false alarms forbids this too
    rated = share is not None and share.method in ("melded+floor", "lower-bound+floor")
    if tally.answered_rest and calibration is not None and rated:
        limits = unknown_generator_interval(
            tally.flagged_rest,
            tally.answered_rest,
            {each.name: each.left_out for each in found.generators},
            *calibration.false_positives,
            level=audit.spec.level,
        )
        unknown = _estimate(limits)
    return {
        "rows": [
            {
                "name": readable(each.name),
                "known": _rate(each.known),
                "left_out": _rate(each.left_out),
                "known_auc": each.known_auc.point,
                "left_out_auc": each.left_out_auc.point,
            }
            for each in found.generators
        ],
        "too_few": sum(found.too_few.values()),
        "unknown": unknown,
    }


def _groups(audit: Audit) -> dict[str, Any] | None:
    """Shares of parts of the pool, where the share of the whole is told by the detector's rates."""
    share, calibration = audit.share, audit.calibration
    if share is None or share.method != "melded+floor" or calibration is None:
        return None
    groups = merge_small(audit.tally.groups)
    if not groups or calibration.true_positives is None:
        return None
    counts = {
        f"{by}\0{name}": GroupCounts(
            tally.flagged_rest,
            tally.answered_rest,
            tally.hits,
            unanswered=tally.scored - tally.hits - tally.answered_rest,
        )
        for (by, name), tally in groups.items()
    }
    rates = (*calibration.true_positives, *calibration.false_positives)
    sampled = audit.plan.meta["sample"] is not None
    shares = subgroup_shares(counts, *rates, level=audit.spec.level, sampled=sampled).shares
    return {
        "level": audit.spec.level,
        "rows": [
            {
                "by": by,
                "name": name,
                "items": tally.scored,
                "hits": tally.hits,
                "point": shares[f"{by}\0{name}"].point,
                "lower": shares[f"{by}\0{name}"].lower,
                "upper": shares[f"{by}\0{name}"].upper,
            }
            for (by, name), tally in groups.items()
        ],
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
            "auc": None if calibration.auc is None else calibration.auc.point,
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
    share, n = audit.answer, _n_countable(audit)
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
