"""The main job: audit a pool, end to end, in a folder that a stopped run continues from."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolproof.audit.calibration import Choice, calibrate, choose_detector
from poolproof.audit.checking import Checker, check_transfer
from poolproof.audit.engine import run_shards, unfinished
from poolproof.audit.estimate import estimate_share, take_standing
from poolproof.audit.items import Detector, Tally, check_balance, write_items
from poolproof.audit.known import drop_learnt, fitted_digests
from poolproof.audit.labelled_audit import LabelledAudit, check_run, share_of_labels
from poolproof.audit.locks import lock_run, take_turn
from poolproof.audit.parts import Progressed, describe_shards, find_missing, parse_part
from poolproof.audit.plan import Plan, make_plan, read_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.references import (
    Evidence,
    Reference,
    drop_shared,
    find_duplicates,
    find_members,
    read_digests,
    read_reference,
)
from poolproof.audit.score import Scorer
from poolproof.audit.scored_pool import ShareLimits, write_standing
from poolproof.audit.sets import compare_sets
from poolproof.audit.spec import AuditSpec, check_spec
from poolproof.audit.summary import Audit, summarise
from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.embed import FORENSIC, find_weights, resolve_embedder
from poolproof.detectors.forensic import FORENSIC_NAME
from poolproof.detectors.prevalence import split_level
from poolproof.errors import InputError
from poolproof.files import hash_file, hash_json, write_json
from poolproof.watermark.dwt import VARIANTS

_STREAMS: Final = ("folds", "sets", "checks", "transfer")

_ROLES: Final = ("pool", "real", "synthetic")

_CALL: Final = ("out", "workers", "engine", "ray_address", "shards", "merge")
"""Settings of a call that no result depends on."""

_FREE: Final = ("level", "detector", "match", "labels")
"""Settings that may change between calls: the evidence does not depend on them."""

SET_SAMPLE: Final = 5000
"""Most items a side for precision and recall. Both sides are of one size, since the figures depend on it."""


@dataclass(frozen=True)
class RunFolder:
    """Where things lie in a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "run.json"

    @property
    def report(self) -> Path:
        """The report for machines."""
        return self.path / "report.json"

    @property
    def items(self) -> Path:
        """The answer per item."""
        return self.path / "items.parquet"

    @property
    def calibration(self) -> Path:
        """The scores of the references, and what else decisions rest on; not there for a sample."""
        return self.path / "calibration.parquet"

    def folder(self, role: str) -> Path:
        """Where the plan and evidence of the pool or of a reference lie."""
        return self.path if role == "pool" else self.path / "references" / role

    def plan(self, role: str = "pool") -> Plan:
        """The pinned plan of the pool or of a reference."""
        return read_plan(self.folder(role) / "plan.parquet")

    def evidence(self, role: str = "pool") -> Evidence:
        """The evidence of the pool or of a reference."""
        return Evidence(self.plan(role), self.folder(role) / "evidence")

    def settings(self) -> dict[str, Any]:
        """The settings of an earlier call.

        Raises:
            InputError: the folder is not a run.
        """
        try:
            return json.loads(self.config.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{str(self.path)!r} is not a run; give a folder that `poolproof audit` wrote"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{str(self.config)!r} is damaged ({error}); remove the run and start again"
            ) from error


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
    _check_call(spec)
    run = RunFolder(spec.out)
    run.path.mkdir(parents=True, exist_ok=True)
    with lock_run(run.path):
        begun = _begin(run, spec)
        choice, embedder, scanned, plans = begun.choice, begun.embedder, begun.scanned, begun.plans
        streams, config_sha256 = begun.streams, hash_json(scanned)
        labels = check_run(spec.labels, plans["pool"])
        roles = {role: getattr(spec, role) for role in _ROLES}
        missing = find_missing(
            {role: (plan, run.folder(role) / "evidence") for role, plan in plans.items()}, config_sha256
        )
        if spec.merge and missing:
            raise InputError(
                f"--merge: got a run that lacks shards ({describe_shards(missing)}), allowed one whose parts are all "
                "done; run the parts that hold them again, or leave out --merge to do them here"
            )
        with _engine(spec if missing else replace(spec, engine="local")) as engine:
            for role, plan in plans.items():
                scan(run, role, plan, begun.scorer, config_sha256, spec.workers, progress, engine=engine)
        with progress.stage("fitting the detector" if len(plans) > 1 else "looking for duplicates"):
            digests, scored = read_digests(run.evidence())
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
                learnt_pool = int((find_members(digests, learnt) & scored).sum())
            calibration, why = calibrate(
                references.get("real"),
                references.get("synthetic"),
                choice,
                reader=embedder,
                rng=streams["folds"],
            )
            generators = check_transfer(references, choice, embedder, rng=streams["transfer"])
        with progress.stage("scoring the items"):
            real = references.get("real")
            duplicates = find_duplicates(digests, scored)
            sampled = _draw(scored & ~duplicates, real, streams["sets"])
            detector = calibration.detector if calibration else None
            tally = _write_items(run, detector, embedder, duplicates, digests, sampled)
            check_balance(tally, plans["pool"].n_items)
            labelled = share_of_labels(labels, run.items, run.evidence(), digests, level=spec.level)
        checker = Checker(run, references, calibration, tally, digests, embedder, choice, spec.level)
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
        wide = share_of_labels(labels, run.items, run.evidence(), digests, level=split_level(spec.level))
        _write_calibration(run, audit, why, wide)
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


def read_part(spec: AuditSpec, *, progress: AbstractProgress | None = None) -> Progressed:
    """What a part of a run did: it commits its shards, and writes no report.

    Any number of parts may be at work on one run, in any order, on machines that share its folder.

    Args:
        spec: what to audit, the same for all parts but for `shards`.
        progress: told of the items.

    Raises:
        InputError: as for `audit_pool`.
    """
    assert spec.shards is not None
    progress = progress or Silence()
    part = parse_part(spec.shards)
    _check_call(spec)
    run = RunFolder(spec.out)
    run.path.mkdir(parents=True, exist_ok=True)
    with lock_run(run.path, shared=True):
        with take_turn(run.path):
            begun = _begin(run, spec)
        plans, config_sha256 = begun.plans, hash_json(begun.scanned)
        mine = part.shards(plans)
        with _engine(spec) as engine:
            for role, plan in plans.items():
                scan(
                    *(run, role, plan, begun.scorer, config_sha256, spec.workers, progress),
                    engine=engine,
                    shards=mine[role],
                )
        missing = find_missing(
            {role: (plan, run.folder(role) / "evidence") for role, plan in plans.items()}, config_sha256
        )
    items = {role: sum(plan.sizes[i] for i in mine[role]) for role, plan in plans.items()}
    return Progressed(part, mine, items, missing)


@dataclass(frozen=True)
class _Begun:
    """A run whose settings and plans are pinned."""

    choice: Choice
    embedder: str
    note: str | None
    scorer: Scorer
    scanned: Mapping[str, Any]
    settings: Mapping[str, Any]
    plans: Mapping[str, Plan]
    streams: Mapping[str, np.random.Generator]


def _begin(run: RunFolder, spec: AuditSpec) -> _Begun:
    """Pins settings and plans, or finds them pinned by an earlier call."""
    choice, wanted = choose_detector(spec.detector, _pinned(run, "embedder") or spec.embedder)
    embedder, note = resolve_embedder(wanted)
    if embedder == FORENSIC and choose_detector(spec.detector, spec.embedder)[1] == "auto":
        note = resolve_embedder("auto")[1]  # a run that goes on has `auto` settled, and is to say it again
    scorer = Scorer(embedder)
    scanned = scan_settings(scorer)
    settings = _settings(spec, scanned)
    _check_same(run, settings)
    streams = dict[str, np.random.Generator](
        zip((*_ROLES, *_STREAMS), np.random.default_rng(spec.seed).spawn(7), strict=True)
    )
    plans: dict[str, Plan] = {}
    for role in _ROLES:
        path = getattr(spec, role)
        if path is not None:
            sample = spec.sample if role == "pool" else None
            pinned = _pinned(run, role) is not None
            if spec.merge and not pinned:
                raise InputError(
                    f"--merge: got a run that has not begun to read {path!r}, allowed one whose parts are all done; "
                    "run its parts, or leave out --merge to do them here"
                )
            plans[role] = _plan(run.folder(role), path, spec, sample, streams[role], pinned=pinned)
    write_json(run.config, settings)
    return _Begun(choice, embedder, note, scorer, scanned, settings, plans, streams)


def _check_call(spec: AuditSpec) -> None:
    check_spec(spec)
    if spec.engine == "ray":
        from poolproof.audit.ray_cluster import check_ray

        check_ray(spec.ray_address)


@contextlib.contextmanager
def _engine(spec: AuditSpec) -> Iterator[Callable[..., None]]:
    """What scores shards, for the length of the block."""
    if spec.engine == "local":
        yield run_shards
        return
    from poolproof.audit.ray_cluster import connect
    from poolproof.audit.ray_engine import run_on_ray

    with connect(spec.ray_address, spec.workers) as inherited:
        yield functools.partial(run_on_ray, inherited=inherited)


def scan(
    run: RunFolder,
    role: str,
    plan: Plan,
    scorer: Scorer,
    config_sha256: str,
    workers: int | None,
    progress: AbstractProgress,
    *,
    engine: Callable[..., None] = run_shards,
    shards: Collection[int] | None = None,
) -> None:
    """Commits the evidence of every shard that has none yet, or of those among the given ones."""
    evidence = run.folder(role) / "evidence"
    chosen = range(plan.n_shards) if shards is None else shards
    n_items = sum(plan.sizes[i] for i in chosen)
    todo = set(unfinished(plan, evidence, config_sha256)).intersection(chosen)
    before = n_items - sum(plan.sizes[i] for i in todo)
    label = "reading the pool" if role == "pool" else f"reading the {role} reference"
    with progress.items(label, n_items, before) as tick:
        engine(plan, scorer, evidence, config_sha256, workers=workers, tick=tick, shards=shards)


def scan_settings(scorer: Scorer) -> dict[str, Any]:
    """What the evidence of an item depends on, apart from its bytes."""
    weights = find_weights(scorer.embedder)
    return {
        "embedder": scorer.embedder,
        "weights_sha256": hash_file(weights) if weights is not None else None,
        "forensic": FORENSIC_NAME,
        "payloads": [payload.name for payload in scorer.payloads],
        "variants": [str(variant) for variant in VARIANTS],
    }


def _settings(spec: AuditSpec, scanned: Mapping[str, Any]) -> dict[str, Any]:
    values = asdict(spec) | dict(scanned)
    for name in _CALL:
        del values[name]
    for role in (*_ROLES, "labels"):
        if values[role] is not None and Path(values[role]).exists():
            values[role] = str(Path(values[role]).resolve())
    return values


def _pinned(run: RunFolder, name: str) -> str | None:
    return run.settings().get(name) if run.config.is_file() else None


def _check_same(run: RunFolder, settings: Mapping[str, Any]) -> None:
    """Refuses to continue a run whose evidence would not fit the settings."""
    if not run.config.is_file():
        return
    earlier = run.settings()
    for name, value in settings.items():
        old = earlier.get(name)
        added = name in ("real", "synthetic") and old is None
        if old != value and not added and name not in _FREE:
            raise InputError(
                f"{str(run.path)!r} was made with {name} = {old!r}, now it is {value!r}; "
                "give the same settings to continue, or another --out"
            )


def _plan(
    folder: Path, path: str, spec: AuditSpec, sample: int | None, rng: np.random.Generator, *, pinned: bool
) -> Plan:
    """The pinned plan where the run's settings name its pool, else a new one.

    A call that failed before the settings were written may have left the plan of another pool.
    """
    file = folder / "plan.parquet"
    if pinned and file.is_file():
        return read_plan(file)
    folder.mkdir(parents=True, exist_ok=True)
    return make_plan(open_pool(path), file, rng=rng, shard_size=spec.shard_size, sample=sample)


def _write_items(
    run: RunFolder,
    detector: Detector | None,
    embedder: str,
    duplicates: np.ndarray,
    digests: np.ndarray,
    sampled: np.ndarray,
) -> Tally:
    return write_items(
        run.evidence(),
        run.items,
        duplicates=duplicates,
        digests=digests,
        detector=detector,
        embedder=embedder,
        sampled=sampled,
    )


def _draw(countable: np.ndarray, real: Reference | None, rng: np.random.Generator) -> np.ndarray:
    """Which items are compared with the real reference: as many as it has, at most `SET_SAMPLE`."""
    chosen = np.zeros(len(countable), bool)
    if real is not None:
        candidates = np.flatnonzero(countable)
        n = min(len(candidates), len(real.features), SET_SAMPLE)
        chosen[rng.choice(candidates, size=n, replace=False)] = True
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
