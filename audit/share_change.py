"""Whether the share of synthetic items changed from one audited pool to another, or why that cannot be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from poolproof.audit.changes import Changes
from poolproof.audit.estimate import rest_level
from poolproof.audit.finished import FinishedRun
from poolproof.audit.references import find_members
from poolproof.detectors.difference import (
    Counts,
    Difference,
    Group,
    flag_difference,
    independent_difference,
    shared_difference,
)
from poolproof.detectors.prevalence import (
    Interval,
    clopper_pearson,
    interval,
    split_level,
    with_floor,
    with_sampled_floor,
)

_TOLD: Final = ("melded+floor", "hull+floor")
_READ_BY: Final = ("embedder", "weights_sha256", "forensic", "payloads", "variants")
"""Settings that the evidence of an item depends on."""

_FINDINGS: Final = "Findings of the signed, declared and marked tiers are true."
_REFERENCES: Final = (
    "Real images of both pools resemble the real reference, synthetic ones the synthetic reference."
)


@dataclass(frozen=True)
class Basis:
    """What two runs have in common.

    Attributes:
        why: why their shares cannot be compared, None where they can.
        shared: whether one detector with one pair of error rates scored both pools.
        independent: whether no image had a part in both runs, in pools or references.
    """

    why: str | None
    shared: bool
    independent: bool


@dataclass(frozen=True)
class ShareChange:
    """How the share changed.

    Attributes:
        difference: of the shares, None where it cannot be told.
        why: why it cannot.
        assumes: what it rests on.
    """

    difference: Difference | None
    why: str | None
    assumes: tuple[str, ...] = ()


def find_basis(a: FinishedRun, b: FinishedRun, changes: Changes) -> Basis:
    """What two runs have in common: by their settings, their references' bytes and what their detectors said."""
    config = [run.report["manifest"]["config"] for run in (a, b)]
    detected = [run.report["tiers"]["detected"] for run in (a, b)]
    other = [name for name in _READ_BY if config[0].get(name) != config[1].get(name)]
    if detected[0]["detector"] != detected[1]["detector"]:
        other.append("detector")
    why = None
    if other:
        why = f"the runs differ in {', '.join(other)}; audit both pools with the same settings"
    references = [[run.reference_digests(role) for role in ("real", "synthetic")] for run in (a, b)]
    shared = (
        why is None
        and detected[0]["threshold"] is not None
        and math.isclose(detected[0]["threshold"], detected[1]["threshold"], rel_tol=1e-6)
        and all(detected[0][name] == detected[1][name] for name in ("tpr", "fpr"))
        and all(map(np.array_equal, *references))
        and len(changes.reassessed) == 0
    )
    parts = [
        np.concatenate([run.digests[run.digests.any(axis=1)], *found])
        for run, found in zip((a, b), references, strict=True)
    ]
    return Basis(why, shared, not find_members(*parts).any())


def change_share(
    a: FinishedRun, b: FinishedRun, changes: Changes, basis: Basis, *, level: float
) -> ShareChange:
    """How much larger the share of the second pool is, with limits, or why that cannot be told.

    With one detector and its error rates in common, their errors are common too and the change is told by flags
    and findings; items in both pools then add nothing to its error. With independent pools and references both
    intervals are melded. Else the limits of both shares, each at half the error, bound their difference.

    Args:
        a: the first run.
        b: the second run.
        changes: how their items are paired.
        basis: what they have in common.
        level: confidence level of the limits.
    """
    if basis.why is not None:
        return ShareChange(None, basis.why)
    for name, run in (("first", a), ("second", b)):
        why = _withheld(run)
        if why is not None:
            return ShareChange(None, f"the share of the {name} run is withheld: {why}")
    sampled = a.sampled or b.sampled
    melded = all(run.report["share"]["method"] == "melded+floor" for run in (a, b))
    overlap = bool(changes.common[0].any())
    assumes = [_FINDINGS, _REFERENCES]
    if sampled:
        assumes.append("The audited items are uniform random samples of their pools.")
    if melded and basis.shared and not (sampled and overlap):
        found = _shared(a, b, changes, level)
        assumes.append(
            "Images that are in one pool alone are independent of those in the other, and of the references."
        )
    elif melded and basis.independent:
        found = independent_difference(
            *(_counts(run, split_level(level) if sampled else level) for run in (a, b)),
            level=split_level(level) if sampled else level,
        )
        assumes.append("The pools and the references of one run are independent of those of the other.")
    else:
        limits = [_alone(run, split_level(level)) for run in (a, b)]
        if limits[0] is None or limits[1] is None:
            return ShareChange(
                None,
                "a share that holds two estimates is known at its own level alone; "
                f"audit both pools with --level {split_level(level):.6g}",
            )
        found = Difference(
            None,
            limits[1].lower - limits[0].upper,
            limits[1].upper - limits[0].lower,
            None,
            level,
            "separate",
        )
    if sampled:  # the limits of the findings are at one level, so no test can be read off
        found = replace(found, p_value=None)
    points = [run.report["share"]["point"] for run in (a, b)]
    point = min(max(points[1] - points[0], found.lower), found.upper)
    return ShareChange(replace(found, point=point, level=level), None, tuple(assumes))


def change_flags(
    a: FinishedRun, b: FinishedRun, changes: Changes, basis: Basis, *, level: float
) -> dict[str, Any]:
    """How much more often the detector flags items of the second pool, where it is one detector."""
    counts = [{"x": int(run.flagged.sum()), "n": int(run.answered.sum())} for run in (a, b)]
    found: dict[str, Any] = {"a": counts[0], "b": counts[1]}
    told: dict[str, Any] = dict.fromkeys(("difference", "lower", "upper", "p_value"))
    why = None
    if not counts[0]["n"] or not counts[1]["n"]:
        why = "no detector scored both pools"
    elif not basis.shared:
        why = (
            basis.why
            or "the detectors were not calibrated on the same images, so their flags differ in meaning"
        )
    elif (a.sampled or b.sampled) and changes.common[0].any():
        why = "samples with items in common do not tell apart what changed and what was drawn"
    else:
        difference = flag_difference(
            _groups(a, b, changes, a.answered, b.answered, (None, None)), level=level
        )
        told = {
            "difference": difference.point,
            "lower": difference.lower,
            "upper": difference.upper,
            "p_value": difference.p_value,
        }
    return found | told | {"level": level, "why": why}


def _withheld(run: FinishedRun) -> str | None:
    """Why the share of a run is no basis of a difference; None where it is one."""
    share: Mapping[str, Any] | None = run.report["share"]
    if share is None:
        return run.report["why"]
    if share["method"] not in _TOLD:
        return share["why"] or "it rests on findings alone"
    return share["why"] if share["point"] is None else None


def _shared(a: FinishedRun, b: FinishedRun, changes: Changes, level: float) -> Difference:
    """The difference under one pair of error rates; a sample's findings take half of the error."""
    detected = a.report["tiers"]["detected"]
    rates = ((detected["tpr"]["x"], detected["tpr"]["n"]), (detected["fpr"]["x"], detected["fpr"]["n"]))
    if not (a.sampled or b.sampled):
        groups = _groups(a, b, changes, a.scored, b.scored, (None, None))
        return shared_difference(groups, groups, *rates, level=level)
    half = split_level(level)
    hits = [_hits(run, split_level(half)) for run in (a, b)]
    low = _groups(a, b, changes, a.scored, b.scored, (hits[0][1], hits[1][0]))
    high = _groups(a, b, changes, a.scored, b.scored, (hits[0][0], hits[1][1]))
    return shared_difference(low, high, *rates, level=half)


def _groups(
    a: FinishedRun,
    b: FinishedRun,
    changes: Changes,
    whole_a: np.ndarray,
    whole_b: np.ndarray,
    hits: tuple[float | None, float | None],
) -> list[Group]:
    """Items removed, in both pools, and added, of those that are counted.

    Args:
        a: the first run.
        b: the second run.
        changes: how their items are paired.
        whole_a: items of the first pool that are counted. Where these are the answered ones all of them count
            as items without a finding.
        whole_b: of the second.
        hits: parts with a finding to put in place of those that were counted.
    """
    n_a, n_b = int(whole_a.sum()), int(whole_b.sum())
    common_a, common_b = (
        common & whole for common, whole in zip(changes.common, (whole_a, whole_b), strict=True)
    )
    n_common = int(common_b.sum())
    weights = (-(n_a - n_common) / n_a, n_common / n_b - n_common / n_a, (n_b - n_common) / n_b)
    chosen = ((a, whole_a & ~common_a, hits[0]), (b, common_b, None), (b, whole_b & ~common_b, hits[1]))
    counts_flags = whole_b is b.answered
    found = []
    for weight, (run, members, part) in zip(weights, chosen, strict=True):
        size = int(members.sum())
        if size == 0:
            continue
        rest = members if counts_flags else members & ~run.hit
        share = int(rest.sum()) / size if part is None else 1 - part
        found.append(Group(weight, share, int((rest & run.flagged).sum()), int((rest & run.answered).sum())))
    return found


def _hits(run: FinishedRun, level: float) -> tuple[float, float]:
    """Limits of the part with a finding: equal where all items were audited."""
    hits, n = int(run.hit.sum()), int(run.scored.sum())
    if not run.sampled:
        return hits / n, hits / n
    limits = clopper_pearson(hits, n, level=level)
    return limits.lower, limits.upper


def _counts(run: FinishedRun, level: float) -> Counts:
    detected, rest = run.report["tiers"]["detected"], run.scored & ~run.hit
    return Counts(
        _hits(run, split_level(level)),
        int((rest & run.flagged).sum()),
        int((rest & run.answered).sum()),
        (detected["tpr"]["x"], detected["tpr"]["n"]),
        (detected["fpr"]["x"], detected["fpr"]["n"]),
    )


def _alone(run: FinishedRun, level: float) -> Interval | None:
    """The share of one run at a level; None where the run holds it at a lower one alone."""
    share = run.report["share"]
    if share["method"] != "melded+floor":
        enough = share["level"] >= level - 1e-12
        return (
            Interval(share["point"], share["lower"], share["upper"], share["level"], "told")
            if enough
            else None
        )
    counts, sample = _counts(run, level), run.report["pool"]["sample"]
    hits, n = int(run.hit.sum()), int(run.scored.sum())
    rest = interval(
        counts.flagged,
        counts.answered,
        *counts.true_positives,
        *counts.false_positives,
        level=rest_level(level, sample),
    )
    if sample is not None:
        return with_sampled_floor(hits, n, rest, level=level)
    return with_floor(hits, rest, n - hits)
