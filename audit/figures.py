"""What a detector does on labelled pools, as figures with limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int

from poolproof.audit.checking import check_transfer
from poolproof.audit.checks import check_files
from poolproof.audit.metadata import Facts, read_facts
from poolproof.audit.paths import readable
from poolproof.audit.references import Reference
from poolproof.audit.run_folder import RunFolder
from poolproof.detectors.calibrate import FixedFit
from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.kinds import KINDS
from poolproof.detectors.prevalence import Interval, clopper_pearson
from poolproof.detectors.roc import roc_curve, tpr_at_fpr

FALSE_RATES: Final = (0.001, 0.01, 0.05)
"""False positive rates at which the true positive rate is told."""

MOST_STEPS: Final = 2000
"""Steps of the ROC curve that are written down: finer than any picture of it, whatever the number of images."""


def measure_fit(
    fit: FixedFit,
    references: Mapping[str, Reference],
    rng: np.random.Generator,
    run: RunFolder,
    *,
    held_out: bool,
) -> dict[str, Any]:
    """Rates, area and curve of a detector on references that it was not fitted on, as JSON values.

    Args:
        fit: the detector with its scores.
        references: that the scores are of.
        rng: of the check of files.
        run: folder with their evidence.
        held_out: whether they were held out from the detector's own references.
    """
    facts: dict[str, Facts] = {}
    for role, each in references.items():
        keep = np.zeros(each.n_items, bool)
        keep[each.rows] = True
        facts[role] = read_facts(run.evidence(role), keep, rng=rng)
    files = check_files({**facts, "pool": facts["real"]}, rng=rng)
    found: dict[str, Any] = {
        "held_out": held_out,
        "detector": fit.detector.kind,
        "embedder": fit.detector.reader,
        "threshold": float(fit.threshold),
        "n_real": len(fit.real_scores),
        "n_synthetic": None if fit.synthetic_scores is None else len(fit.synthetic_scores),
        "abstained": {"real": fit.real_abstained, "synthetic": fit.synthetic_abstained},
        "fpr": told(clopper_pearson(*fit.fpr)),
        "tpr": None if fit.tpr is None else told(clopper_pearson(*fit.tpr)),
        "auc": None if fit.auc is None else told(fit.auc),
        "tpr_at_fpr": [],
        "roc": None,
        "files": [] if files is None or files.confounding is None else list(files.confounding.words),
    }
    if fit.synthetic_scores is None:
        return found
    for rate in FALSE_RATES:
        at = tpr_at_fpr(fit.real_scores, fit.synthetic_scores, rate)
        found["tpr_at_fpr"].append({"fpr": rate, **told(at.tpr), "why": at.why})
    curve = roc_curve(fit.real_scores, fit.synthetic_scores)
    kept = _thin(curve.fpr + curve.tpr)
    found["roc"] = {"fpr": curve.fpr[kept].tolist(), "tpr": curve.tpr[kept].tolist()}
    return found


def _thin(along: Float64[np.ndarray, " t"]) -> Int[np.ndarray, " k"]:
    """Which steps of a curve are kept, spread evenly along it, its ends among them; all of a short one."""
    if len(along) <= MOST_STEPS:
        return np.arange(len(along))
    return np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], MOST_STEPS)))


def told(limits: Interval) -> dict[str, Any]:
    """Return the numbers of an interval as JSON values."""
    return {name: getattr(limits, name) for name in ("point", "lower", "upper", "level")}


def measure_transfer(
    references: Mapping[str, Reference], kind: str, embedder: str, rng: np.random.Generator
) -> list[dict[str, Any]] | None:
    """Each named generator with and without it among the fitted ones, None where none are named.

    Args:
        references: both classes.
        kind: of the detector.
        embedder: of the features.
        rng: deals the references.
    """
    if KINDS[kind].needs != "both":
        return None
    found = check_transfer(references, kind, embedder, rng=rng)
    if found is None:
        return None
    return [
        {
            "name": readable(each.name),
            "known": told(clopper_pearson(*each.known)),
            "left_out": told(clopper_pearson(*each.left_out)),
            "known_auc": told(each.known_auc),
            "left_out_auc": told(each.left_out_auc),
        }
        for each in found.generators
    ]


def measure_generators(
    detector: AbstractDetector, synthetic: Reference | None
) -> list[dict[str, Any]] | None:
    """The true positive rate of each folder of the synthetic pool; None where folders name none.

    Args:
        detector: fitted.
        synthetic: labelled items.
    """
    if synthetic is None or not synthetic.named_by_folder or len(set(synthetic.origins)) < 2:
        return None
    answer = detector.score(synthetic.features)
    origins, rows = np.array(synthetic.origins), []
    for name in sorted(set(synthetic.origins)):
        mine = (origins == name) & ~answer.abstained
        if mine.any():
            found = int((answer.values[mine] > detector.threshold).sum())
            rows.append(
                {
                    "name": readable(name),
                    "n": int(mine.sum()),
                    **told(clopper_pearson(found, int(mine.sum()))),
                }
            )
    return rows
