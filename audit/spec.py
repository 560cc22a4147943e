"""What to audit and how."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolproof.errors import InputError

MATCHES: Final = ("auto", "always", "never")
"""When the share is estimated once more on files made alike."""

ENGINES: Final = ("local", "ray")
"""Where shards are scored."""


@dataclass(frozen=True)
class AuditSpec:
    """What to audit and how; equal to the command's flags.

    Args:
        pool: a folder, tars, Parquet or data set; see `open_pool`.
        out: the run's folder, made if needed.
        real: a reference pool of real images, disjoint from the pool.
        synthetic: a reference pool of synthetic images like those expected in the pool.
        embedder: `auto`, `forensic`, or a spec of an embedding model, see `load_embedder`.
        detector: a kind of detector that is fitted on the references, or a folder that `detect fit` wrote.
        match: when the share is estimated once more on files of one size and codec: `auto` (where files alone
            tell the references apart, or are of other kinds than the pool's), `always` or `never`.
        sample: audit so many items, drawn uniformly; None for all.
        level: confidence level of the interval, in (0, 1).
        labels: a file that `poolproof label` wrote for this run; the share then comes from it.
        workers: processes; 0 for this one, None for one a core, or for all that a cluster has.
        engine: where shards are scored: `local` or `ray`.
        ray_address: HOST:PORT of a cluster's head or `auto`; None starts Ray on this machine.
        shards: `I/N`: do the I-th of N parts of the reading alone, and no report; see `parts.py`.
        merge: report on what parts have read; refuse where a shard is not done.
        shard_size: items a shard; None for a size that suits the pool.
        seed: of the sample, the folds and the subsamples.
    """

    pool: str
    out: Path
    real: str | None = None
    synthetic: str | None = None
    embedder: str = "auto"
    detector: str = "probe"
    match: str = "auto"
    sample: int | None = None
    level: float = 0.95
    labels: str | None = None
    workers: int | None = None
    engine: str = "local"
    ray_address: str | None = None
    shards: str | None = None
    merge: bool = False
    shard_size: int | None = None
    seed: int = 0


def check_spec(spec: AuditSpec) -> None:
    """Raises InputError for a setting out of range, or a reference that is the pool itself."""
    if not 0 < spec.level < 1:
        raise InputError(f"--level is {spec.level}; it must lie between 0 and 1, for example 0.95")
    if spec.workers is not None and spec.workers < 0:
        raise InputError(f"--workers is {spec.workers}; it must be 0 or more")
    _check_engine(spec)
    if spec.match not in MATCHES:
        raise InputError(f"--match is {spec.match!r}; it must be {', '.join(MATCHES)}")
    if spec.seed < 0:
        raise InputError(f"--seed is {spec.seed}; it must be 0 or more")
    named = {"pool": spec.pool, "--real": spec.real, "--synthetic": spec.synthetic}
    real_paths = {name: os.path.realpath(path) for name, path in named.items() if path is not None}
    for name, path in real_paths.items():
        for other, other_path in real_paths.items():
            if name < other and path == other_path:
                raise InputError(
                    f"{name} and {other} are the same pool, {path!r}; a reference must be disjoint"
                )
    if spec.out.exists() and not spec.out.is_dir():
        raise InputError(f"--out is {str(spec.out)!r}, a file; give a folder")
    if os.path.realpath(spec.out) in real_paths.values():
        raise InputError(
            f"--out is {str(spec.out)!r}, an input; nothing is written there, give another folder"
        )


def _check_engine(spec: AuditSpec) -> None:
    if spec.engine not in ENGINES:
        raise InputError(f"--engine: got {spec.engine!r}, allowed {', '.join(ENGINES)}; choose one")
    if spec.ray_address is not None and spec.engine != "ray":
        raise InputError(
            f"--ray-address: got {spec.ray_address!r}, allowed with --engine ray alone; add it, or leave this out"
        )
    if spec.workers == 0 and spec.engine == "ray":
        raise InputError(
            "--workers: got 0, allowed 1 or more with --engine ray; leave it out for all there are"
        )
    if spec.merge and spec.shards is not None:
        raise InputError(
            f"--shards: got {spec.shards!r} with --merge, allowed one of them; read the parts first, then merge"
        )
