"""What changed between two audited pools: items, evidence, flags, and the share of synthetic items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool

from poolproof.audit.changes import Changes, find_changes, write_changes
from poolproof.audit.evidence import STATUSES
from poolproof.audit.finished import FinishedRun, read_run
from poolproof.audit.paths import readable
from poolproof.audit.share_change import Basis, ShareChange, change_flags, change_share, find_basis
from poolproof.detectors.prevalence import check_level
from poolproof.errors import InputError
from poolproof.files import write_json

DIFF_SCHEMA_VERSION: Final = 1
"""Of `diff.json`, described in `docs/diff.schema.json`. Raised when a field changes its meaning."""

_QUANTILES: Final = (0.1, 0.5, 0.9)
_OF_POOL: Final = ("pool", "level", "sample", "shard_size")
"""Settings that are about one pool; all others should be the same."""


@dataclass(frozen=True)
class Diff:
    """What changed between two runs.

    Attributes:
        report: the content of `diff.json`.
        changes: how the items are paired.
        a: the first run.
        b: the second run.
    """

    report: dict[str, Any]
    changes: Changes
    a: FinishedRun
    b: FinishedRun


def compare_runs(path_a: Path, path_b: Path, *, level: float = 0.95) -> Diff:
    """What changed from the first run to the second. Nothing is read but the folders of the runs.

    Args:
        path_a: folder of the first run.
        path_b: folder of the second run.
        level: confidence level of all limits, in (0, 1).

    Raises:
        InputError: a folder is not a finished run, or the level is out of range.
    """
    try:
        check_level(level)
    except InputError as error:
        raise InputError(f"--level is {level}; it must lie between 0 and 1, for example 0.95") from error
    a, b = read_run(path_a), read_run(path_b)
    changes = find_changes(a, b)
    basis = find_basis(a, b, changes)
    report = {
        "schema_version": DIFF_SCHEMA_VERSION,
        "level": level,
        "a": _pool(path_a, a),
        "b": _pool(path_b, b),
        "share": _share(a, b, change_share(a, b, changes, basis, level=level)),
        "flags": change_flags(a, b, changes, basis, level=level),
        "findings": _findings(a, b),
        "items": changes.counts() | {"common": int(changes.common[1].sum())},
        "status": {
            name: _counts(*(run.report["pool"]["status"][name] for run in (a, b))) for name in STATUSES
        },
        "tiers": {
            name: _counts(*(run.report["tiers"][name]["count"] for run in (a, b)))
            for name in ("signed", "declared", "marked", "any")
        },
        "scores": {
            "a": _scores(a, a.answered),
            "b": _scores(b, b.answered),
            "removed": _scores(a, a.answered & ~changes.common[0]),
            "added": _scores(b, b.answered & ~changes.common[1]),
            "comparable": basis.shared,
        },
        "comparable": {
            "verdict": basis.why is None,
            "same_calibration": basis.shared,
            "independent": basis.independent,
            "why": basis.why,
        },
        "settings": _settings(a, b),
        "notes": list(_notes(a, b, changes, basis)),
    }
    return Diff(report, changes, a, b)


def write_diff(found: Diff, out: Path) -> None:
    """Writes `diff.json` and `changed.parquet` to a folder.

    Raises:
        InputError: the folder is a file, or one of the runs.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {str(out)!r}, a file; give a folder")
    if out.resolve() in {run.folder.path.resolve() for run in (found.a, found.b)}:
        raise InputError(f"--out is {str(out)!r}, one of the runs; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_changes(out / "changed.parquet", found.changes, found.a, found.b)
    write_json(out / "diff.json", found.report)


def _pool(path: Path, run: FinishedRun) -> dict[str, Any]:
    pool = run.report["pool"]
    return {"path": readable(str(path)), "pool": pool["path"]} | {
        name: pool[name] for name in ("items", "audited", "sample")
    }


def _share(a: FinishedRun, b: FinishedRun, change: ShareChange) -> dict[str, Any]:
    names = ("point", "lower", "upper", "level", "method", "why")
    shares = [None if run.report["share"] is None else run.report["share"] for run in (a, b)]
    found = change.difference
    return {
        **{
            side: None if share is None else {name: share[name] for name in names}
            for side, share in zip("ab", shares, strict=True)
        },
        "difference": None
        if found is None
        else {
            "point": found.point,
            "lower": found.lower,
            "upper": found.upper,
            "level": found.level,
            "p_value": found.p_value,
            "method": found.method,
            "verdict": _verdict(found.lower, found.upper),
            "assumes": list(change.assumes),
        },
        "why": change.why,
    }


def _verdict(lower: float, upper: float) -> str:
    if lower > 0:
        return "higher"
    return "lower" if upper < 0 else "no change shown"


def _counts(a: int, b: int) -> dict[str, int]:
    return {"a": a, "b": b, "change": b - a}


def _findings(a: FinishedRun, b: FinishedRun) -> dict[str, Any]:
    """Signed, declared or marked items among the scored ones; the difference of their parts is a count, not a guess."""
    found = {
        side: {"x": int(run.hit.sum()), "n": int(run.scored.sum())} for side, run in (("a", a), ("b", b))
    }
    parts = [each["x"] / each["n"] if each["n"] else None for each in found.values()]
    return {**found, "difference": None if None in parts else parts[1] - parts[0]}  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]


def _scores(run: FinishedRun, members: Bool[np.ndarray, " n"]) -> dict[str, Any] | None:
    if not members.any():
        return None
    scores = run.items["score"].to_numpy()[members].astype(np.float64)
    low, middle, high = (float(value) for value in np.quantile(scores, _QUANTILES))
    return {"n": len(scores), "tenth": low, "median": middle, "ninetieth": high}


def _settings(a: FinishedRun, b: FinishedRun) -> list[dict[str, Any]]:
    """Settings that are not the same, but those that say which pool."""
    config: list[Mapping[str, Any]] = [run.report["manifest"]["config"] for run in (a, b)]
    versions = [{"version": run.report["manifest"]["versions"]["poolproof"]} for run in (a, b)]
    both = [{**each, **version} for each, version in zip(config, versions, strict=True)]
    names = [name for name in {**both[0], **both[1]} if name not in _OF_POOL]
    return [
        {"name": name, "a": both[0].get(name), "b": both[1].get(name)}
        for name in names
        if both[0].get(name) != both[1].get(name)
    ]


def _notes(a: FinishedRun, b: FinishedRun, changes: Changes, basis: Basis) -> list[str]:
    notes = []
    if len(changes.reassessed):
        notes.append(
            f"{len(changes.reassessed)} images with the same bytes were found to be something else by the second "
            "run; changed.parquet names them"
        )
    if basis.why is None and not basis.shared and a.report["tiers"]["detected"]["detector"] is not None:
        notes.append(
            "the runs were not calibrated on the same images, so the errors of both calibrations are in the limits; "
            "audit both pools with the same --real and --synthetic for a sharper comparison"
        )
    if (a.sampled or b.sampled) and changes.common[0].any():
        notes.append("samples were audited that have items in common; the limits allow for any dependence")
    if a.sampled or b.sampled:
        notes.append("added and removed items are those of the audited samples, not of the pools")
    return notes
