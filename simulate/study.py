"""Runs a spec: what comes out is a table, and a JSON document with verdicts and manifest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from poolproof import __version__
from poolproof.errors import InputError
from poolproof.simulate.cache import remember
from poolproof.simulate.checks import check_count
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.grid import evaluate_cells
from poolproof.simulate.loop_spec import TrainedLoopSpec
from poolproof.simulate.placing import MeasuredPool, check_placeable, find_threshold, place_pool
from poolproof.simulate.spec import Arm, CurvesSpec, GaussianSpec, LoopSpec, MapSpec, Spec
from poolproof.simulate.threads import one_blas_thread
from poolproof.simulate.trace import number_columns, trace_loop

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 1
"""Of the JSON documents written here."""

TRACE_METHOD: Final = "gaussian-trace/2"
"""Names the computation of a loop in the cache; a change that moves figures takes another number."""

Tick = Callable[[int], None]


@final
@dataclass(frozen=True, eq=False)
class Study:
    """What a spec gave.

    Attributes:
        spec: what was asked.
        table: one row per cell, or per generation and figure.
        document: the same with spec, verdicts and manifest, as JSON.
    """

    spec: GaussianSpec
    table: pd.DataFrame
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the files: `loop` or `admissible`."""
        return "loop" if isinstance(self.spec, LoopSpec) else "admissible"


def count_steps(spec: Spec) -> int:
    """Steps that `run_study` counts: cells, or arms of a loop."""
    spec = _gaussian(spec)
    return len(spec.arms) if isinstance(spec, LoopSpec) else len(set(spec.cells()))


def run_study(
    spec: Spec,
    *,
    pool: MeasuredPool | None = None,
    thresholds: bool = False,
    n_workers: int | None = None,
    cache: Path | None = None,
    on_step: Tick | None = None,
    command: str = "",
) -> Study:
    """The table and document of a spec.

    Args:
        spec: what to do.
        pool: an audited pool to place on a map; None places none.
        thresholds: whether to find the border of the region for each n_real and sampling bias of a map.
        n_workers: threads; None takes one per core. The figures do not depend on it.
        cache: folder that remembers finished steps, so that a stopped run goes on; None remembers nothing.
        on_step: called with the number of steps done, see `count_steps`.
        command: what the user typed, for the manifest.

    Raises:
        InputError: a loop of trained generators, a pool or thresholds where the spec is no map, or a pool that no map
            can place.
    """
    spec = _gaussian(spec)
    if (pool is not None or thresholds) and not isinstance(spec, MapSpec):
        raise InputError(
            "spec: got one that is no map, allowed a map where a pool or thresholds are asked for"
        )
    if pool is not None:
        check_placeable(pool)
    started = time.monotonic()
    placed = borders = None
    if isinstance(spec, LoopSpec):
        table = _trace_arms(spec, n_workers=n_workers, cache=cache, on_step=on_step)
    else:
        table = evaluate_cells(spec.cells(), spec.effort, n_workers=n_workers, cache=cache, on_cell=on_step)
        if isinstance(spec, CurvesSpec):
            curves = [(curve.panel, curve.label, x) for curve in spec.curves for x in curve.x]
            for position, name in enumerate(("panel", "curve", "x")):
                table.insert(position, name, [each[position] for each in curves])
        else:
            if pool is not None:
                placed = place_pool(pool, spec, n_workers=n_workers, cache=cache)
            if thresholds:
                borders = [
                    find_threshold(n_real, bias, spec.dim, spec.effort, cache=cache)
                    for bias in spec.sampling_bias
                    for n_real in spec.n_real
                ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": {LoopSpec: "loop", MapSpec: "map", CurvesSpec: "curves"}[type(spec)],
        "title": spec.title,
        "spec": _plain(asdict(spec)),
        "columns": list(table.columns),
        "rows": _plain([list(row) for row in table.itertuples(index=False)]),
        "thresholds": borders,
        "pool": placed,
        "manifest": {
            "versions": {"poolproof": __version__, **{name: version(name) for name in ("numpy", "scipy")}},
            "command": command,
            "seconds": round(time.monotonic() - started, 3),
        },
    }
    return Study(spec, table, document)


def _gaussian(spec: Spec) -> GaussianSpec:
    if isinstance(spec, TrainedLoopSpec):
        raise InputError(
            f"spec: got {spec.title!r}, a loop of trained generators, allowed one of the Gaussian engine; run it with "
            "`trained.run_trained`"
        )
    return spec


def _trace_arms(
    spec: LoopSpec, *, n_workers: int | None, cache: Path | None, on_step: Tick | None
) -> pd.DataFrame:
    import os
    from concurrent.futures import ThreadPoolExecutor, as_completed

    import pandas as pd

    frames: dict[str, pd.DataFrame] = {}
    n_workers = (os.cpu_count() or 1) if n_workers is None else n_workers
    check_count("n_workers", n_workers, least=1)
    with one_blas_thread():
        workers = ThreadPoolExecutor(n_workers)
        futures = {workers.submit(_trace_arm, spec, arm, cache): arm for arm in spec.arms}
        try:
            for n_done, future in enumerate(as_completed(futures), 1):
                frames[futures[future].label] = number_columns(pd.DataFrame(future.result()))
                if on_step is not None:
                    on_step(n_done)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)  # an arm may run for minutes
            raise
        workers.shutdown()
    return (
        pd.concat({arm.label: frames[arm.label] for arm in spec.arms}, names=["arm"])
        .reset_index(level=0)
        .reset_index(drop=True)
    )


def _trace_arm(spec: LoopSpec, arm: Arm, cache: Path | None) -> list[dict[str, Any]]:
    content = {
        "method": TRACE_METHOD,
        "arm": _plain({**asdict(arm), "label": ""}),
        "loop": {name: getattr(spec, name) for name in ("dim", "n_generations", "n_paths", "seed")},
    }

    def compute() -> list[dict[str, Any]]:
        mark = None if arm.mark == 0 else arm.mark * np.eye(1, spec.dim)[0]
        table = trace_loop(
            arm.mixing,
            law=Gaussian.standard(spec.dim),
            n_generations=spec.n_generations,
            n_paths=spec.n_paths,
            sampling_bias=arm.sampling_bias,
            initial=arm.initial,
            mark=mark,
            rng=np.random.default_rng(spec.seed),
        )
        return _plain(table.to_dict("records"))

    return remember(cache, content, compute)


def _plain(value: Any) -> Any:
    """The value as JSON has it: plain numbers, and null for what is missing or not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, np.bool)):
        return bool(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (int, str)) else None
