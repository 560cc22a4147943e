"""The main job on pools whose truth is known: build, audit, compare."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.quickstart import QuickstartSpec, build_pools, summarise
from poolproof.audit.run import audit_pool
from poolproof.audit.spec import AuditSpec


def run_quickstart(
    out: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    spec: QuickstartSpec | None = None,
    command: str = "",
    progress: AbstractProgress | None = None,
) -> dict[str, Any]:
    """The demonstration's summary, as written to `OUT/quickstart.json`; the audit's report is beside it.

    The references are disjoint from the pool, and the audit sees neither truth nor labels. Pools that lie in
    `out` from the same seed are audited again, not built again.

    Args:
        out: folder of the pools and of the run.
        seed: of the pools and of the audit.
        workers: processes; None for one a core.
        spec: sizes; the defaults take under 3 minutes on 2 cores.
        command: the command line that asked for it, for the report.
        progress: told of the stages.

    Raises:
        InputError: the folder holds another demonstration.
    """
    started = time.monotonic()
    progress = progress or Silence()
    with contextlib.ExitStack() as stages:
        pools = build_pools(out, seed=seed, on_progress=_by_stage(progress, stages), spec=spec)
    # features without weights: the figures must not depend on which weights happen to be cached
    audit = AuditSpec(
        pool=str(pools.pool),
        out=out,
        real=str(pools.real),
        synthetic=str(pools.synthetic),
        embedder="forensic",
        workers=workers,
        seed=seed,
    )
    report = audit_pool(audit, command=command, progress=progress)
    return summarise(out, report, pools, time.monotonic() - started)


def _by_stage(progress: AbstractProgress, stages: contextlib.ExitStack) -> Callable[[str, float], None]:
    """Turns shares of named stages into one bar a stage, a hundred ticks each."""
    ticks: dict[str, Callable[[int], None]] = {}

    def report(stage: str, done: float) -> None:
        if stage not in ticks:
            stages.close()  # the stage before has ended
            label = {"training": "training a diffusion model", "sampling": "sampling it"}.get(stage, stage)
            ticks[stage] = stages.enter_context(progress.items(label, 100, 0, "%"))
        ticks[stage](round(100 * done))

    return report
