"""A run is begun, its settings and plans pinned, and its items are read: here, on a cluster, or part by part."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolproof.audit.calibration import Choice, choose_detector
from poolproof.audit.engine import run_shards, unfinished
from poolproof.audit.locks import lock_run, take_turn
from poolproof.audit.parts import Progressed, find_missing, parse_part
from poolproof.audit.plan import Plan, make_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.score import Scorer
from poolproof.audit.spec import AuditSpec, check_spec
from poolproof.detectors.embed import find_weights, resolve_embedder
from poolproof.detectors.forensic import FORENSIC_NAME
from poolproof.errors import InputError
from poolproof.files import hash_file, hash_json, write_json
from poolproof.watermark.dwt import VARIANTS

_STREAMS: Final = ("folds", "sets", "checks", "transfer")

ROLES: Final = ("pool", "real", "synthetic")

_CALL: Final = ("out", "workers", "engine", "ray_address", "shards", "merge")
"""Settings of a call that no result depends on."""

_FREE: Final = ("level", "detector", "match", "labels")
"""Settings that may change between calls: the evidence does not depend on them."""


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
    check_call(spec)
    run = RunFolder(spec.out)
    run.path.mkdir(parents=True, exist_ok=True)
    with lock_run(run.path, shared=True):
        with take_turn(run.path):
            begun = begin(run, spec)
        plans, config_sha256 = begun.plans, hash_json(begun.scanned)
        mine = part.shards(plans)
        with open_engine(spec) as engine:
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
class Begun:
    """A run whose settings and plans are pinned."""

    choice: Choice
    embedder: str
    note: str | None
    scorer: Scorer
    scanned: Mapping[str, Any]
    settings: Mapping[str, Any]
    plans: Mapping[str, Plan]
    streams: Mapping[str, np.random.Generator]


def begin(run: RunFolder, spec: AuditSpec) -> Begun:
    """Pins settings and plans, or finds them pinned by an earlier call."""
    choice, wanted = choose_detector(spec.detector, spec.embedder)
    embedder, note = resolve_embedder(wanted)
    settled = _pinned(run, "embedder")
    if settled is not None and settled != embedder:
        choice, wanted = choose_detector(spec.detector, settled)
        embedder, note = resolve_embedder(wanted)
    scorer = Scorer(embedder)
    scanned = scan_settings(scorer)
    settings = _settings(spec, scanned)
    _check_same(run, settings)
    streams = dict[str, np.random.Generator](
        zip((*ROLES, *_STREAMS), np.random.default_rng(spec.seed).spawn(7), strict=True)
    )
    plans: dict[str, Plan] = {}
    for role in ROLES:
        path = getattr(spec, role)
        if path is not None:
            sample = spec.sample if role == "pool" else None
            pinned = _pinned(run, role) is not None
            if spec.merge and not pinned:
                raise InputError(
                    f"--merge: got a run that has not begun to read {path!r}, allowed one whose parts are all done; "
                    "run its parts, or leave out --merge to do them here"
                )
            plans[role] = _plan(run, role, path, spec, sample, streams[role], pinned=pinned)
    hashes = run.settings().get("plans", {}) if run.config.is_file() else {}
    hashes |= {role: plan.sha256 for role, plan in plans.items()}
    write_json(run.config, settings | {"plans": hashes})
    return Begun(choice, embedder, note, scorer, scanned, settings, plans, streams)


def check_call(spec: AuditSpec) -> None:
    """Raises InputError for a setting out of range, or a cluster that does not answer."""
    check_spec(spec)
    if spec.engine == "ray":
        from poolproof.audit.ray_cluster import check_ray

        check_ray(spec.ray_address)


@contextlib.contextmanager
def open_engine(spec: AuditSpec) -> Iterator[Callable[..., None]]:
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


SCANNED: Final = ("embedder", "weights_sha256", "forensic", "payloads", "variants")
"""Settings that the evidence depends on."""


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
    for role in (*ROLES, "labels"):
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
    run: RunFolder,
    role: str,
    path: str,
    spec: AuditSpec,
    sample: int | None,
    rng: np.random.Generator,
    *,
    pinned: bool,
) -> Plan:
    """The pinned plan where the run's settings name its pool, else a new one.

    A call that failed before the settings were written may have left the plan of another pool.
    """
    folder = run.folder(role)
    file = folder / "plan.parquet"
    if pinned and file.is_file():
        return run.plan(role)
    folder.mkdir(parents=True, exist_ok=True)
    return make_plan(open_pool(path), file, rng=rng, shard_size=spec.shard_size, sample=sample)
