"""The main job: audit a pool, end to end, in a folder that a stopped run continues from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolproof.audit.calibration import calibrate
from poolproof.audit.checking import Checker, check_transfer
from poolproof.audit.digests import deal_digests
from poolproof.audit.engine import distrust
from poolproof.audit.estimate import estimate_share, take_standing
from poolproof.audit.items import Detector, Tally, check_balance, write_items
from poolproof.audit.known import drop_learnt, fitted_digests
from poolproof.audit.labelled_audit import LabelledAudit, check_run, share_of_labels
from poolproof.audit.locks import lock_run
from poolproof.audit.parts import describe_shards, find_missing
from poolproof.audit.plan import Plan
from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.reading import ROLES, begin, check_call, open_engine, scan
from poolproof.audit.references import (
    Reference,
    drop_shared,
    places_of,
    read_reference,
)
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.scored_pool import ShareLimits, write_standing
from poolproof.audit.sets import compare_sets
from poolproof.audit.spec import AuditSpec
from poolproof.audit.summary import Audit, summarise
from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.prevalence import split_level
from poolproof.errors import InputError
from poolproof.files import hash_file, hash_json, sweep_folder, write_json

SET_SAMPLE: Final = 5000
"""Most items a side for precision and recall. Both sides are of one size, since the figures depend on it."""


def audit_pool(
    spec: AuditSpec, *, command: str = "", progress: AbstractProgress | None = None
) -> dict[str, Any]:
    """The report of an audit, as written to `OUT/report.json`.

    A run that was stopped goes on where it was. Evidence is committed shard by shard; what follows from it is
    computed anew at each call, so a reference can be added to a finished run without reading the pool again.

    Args:
        spec: what to audit.
        command: the command line that asked for it, for the report.
        progress: told of the stages and items.

    Raises:
        InputError: the pool or a reference cannot be used, or the run was made with other settings.
    """
    assert spec.shards is None, "read_part does parts"
    started = time.monotonic()
    progress = progress or Silence()
    check_call(spec)
    run = RunFolder(spec.out)
    run.path.mkdir(parents=True, exist_ok=True)
    with lock_run(run.path):
        for folder in (run.path, *map(run.folder, ("real", "synthetic"))):
            sweep_folder(folder)
        begun = begin(run, spec)
        choice, embedder, scanned, plans = begun.choice, begun.embedder, begun.scanned, begun.plans
        streams, config_sha256 = begun.streams, hash_json(scanned)
        labels = check_run(spec.labels, plans["pool"])
        roles = {role: getattr(spec, role) for role in ROLES}
        for role, plan in plans.items():
            distrust(plan, run.folder(role) / "evidence")
        missing = find_missing(
            {role: (plan, run.folder(role) / "evidence") for role, plan in plans.items()}, config_sha256
        )
        if spec.merge and missing:
            raise InputError(
                f"--merge: got a run that lacks shards ({describe_shards(missing)}), allowed one whose parts are all "
                "done; run the parts that hold them again, or leave out --merge to do them here"
            )
        with open_engine(spec if missing else replace(spec, engine="local")) as engine:
            for role, plan in plans.items():
                scan(run, role, plan, begun.scorer, config_sha256, spec.workers, progress, engine=engine)
        hashes = run.evidence().parts(["sha256", "status"])
        with (
            progress.stage("fitting the detector" if len(plans) > 1 else "looking for duplicates"),
            deal_digests(hashes, plans["pool"].n_items, run.path) as digests,
        ):
            references = drop_shared(
                {
                    role: read_reference(run.evidence(role), path, role, embedder, digests)
                    for role, path in roles.items()
                    if role != "pool" and path is not None
                }
            )
            known = learnt_pool = 0
            if isinstance(choice, AbstractDetector):
                learnt = fitted_digests(Path(spec.detector))
                references, known = drop_learnt(references, learnt)
                learnt_pool = digests.count_scored(learnt)
            calibration, why = calibrate(
                references.get("real"),
                references.get("synthetic"),
                choice,
                reader=embedder,
                rng=streams["folds"],
            )
            generators = check_transfer(references, choice, embedder, rng=streams["transfer"])
            scored, duplicates = digests.scored, digests.duplicates()
        with progress.stage("scoring the items"):
            real = references.get("real")
            sampled = _draw(scored & ~duplicates, real, streams["sets"])
            detector = calibration.detector if calibration else None
            tally = _write_items(run, detector, embedder, duplicates, sampled)
            check_balance(tally, plans["pool"].n_items)
            labelled = share_of_labels(labels, run.items, run.evidence(), level=spec.level)
        checker = Checker(run, references, calibration, tally, embedder, choice, spec.level)
        checks = checker.check(spec.match, rng=streams["checks"], progress=progress)
        with progress.stage("comparing the sets"):
            sets = compare_sets(tally.sampled, real, embedder, rng=streams["sets"])
        audit = Audit(
            spec=spec,
            embedder=embedder,
            plan=plans["pool"],
            tally=tally,
            calibration=calibration,
            share=estimate_share(
                tally, calibration, why, sample=plans["pool"].meta["sample"], level=spec.level, checks=checks
            ),
            labelled=labelled,
            checks=checks,
            generators=generators,
            references=references,
            sets=sets,
            notes=tuple(filter(None, [begun.note, *_notes(references, plans["pool"], known, learnt_pool)])),
            settings=begun.settings,
            weights_sha256=scanned["weights_sha256"],
            command=command,
            seconds=time.monotonic() - started,
        )
        report = summarise(audit)
        wide = share_of_labels(labels, run.items, run.evidence(), level=split_level(spec.level))
        _write_calibration(run, audit, why, wide)
        report["manifest"]["files"] = {
            file.name: hash_file(file) for file in (run.items, run.calibration) if file.is_file()
        }
        write_json(run.report, report)
    return report


def _write_calibration(run: RunFolder, audit: Audit, why: str | None, labelled: LabelledAudit | None) -> None:
    """Leaves what decisions need beside the report; a sample or an unreadable pool carries none."""
    standing = None
    if audit.plan.meta["sample"] is None:
        standing = take_standing(
            audit.tally, audit.calibration, why, level=audit.spec.level, checks=audit.checks
        )
    if standing is not None and labelled is not None:
        standing = replace(standing, share=ShareLimits.of(labelled.share.interval))
    if standing is None:
        run.calibration.unlink(missing_ok=True)
    else:
        write_standing(run.calibration, standing, audit.plan.sha256)


def _write_items(
    run: RunFolder,
    detector: Detector | None,
    embedder: str,
    duplicates: np.ndarray,
    sampled: np.ndarray,
) -> Tally:
    return write_items(
        run.evidence(),
        run.items,
        duplicates=duplicates,
        detector=detector,
        embedder=embedder,
        sampled=sampled,
    )


def _draw(countable: np.ndarray, real: Reference | None, rng: np.random.Generator) -> np.ndarray:
    """Which items are compared with the real reference: as many as it has, at most `SET_SAMPLE`."""
    chosen = np.zeros(len(countable), bool)
    if real is not None:
        n_items = int(countable.sum())
        n = min(n_items, len(real.features), SET_SAMPLE)
        chosen[places_of(countable, np.sort(rng.choice(n_items, size=n, replace=False)))] = True
    return chosen


def _notes(references: Mapping[str, Reference], plan: Plan, known: int, learnt_pool: int) -> Iterator[str]:
    if learnt_pool:
        yield (
            f"the detector learnt from {learnt_pool} images of the pool, which it knows better than new ones; "
            "fit it on others, or leave out --detector"
        )
    if known:
        yield f"the detector learnt from {known} images of the references; they were not used for calibration"
    n_shared = next((reference.n_shared for reference in references.values()), 0)
    if n_shared:
        yield f"{n_shared} images are in both references; they were not used for calibration"
    for role, reference in references.items():
        if reference.n_overlap:
            yield (
                f"{reference.n_overlap} of {reference.n_scored} {role} reference images are in the pool too; "
                "they were not used for calibration"
            )
    if plan.meta["n_ignored"]:
        yield f"{plan.meta['n_ignored']} files of the pool are not images and were not read"
