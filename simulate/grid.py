"""Many cells of the admissible map at once: in parallel, and remembered on disk by their content."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from poolproof.errors import InputError, UnreliableEstimate
from poolproof.files import hash_json
from poolproof.simulate.cache import remember
from poolproof.simulate.checks import check_count, check_dim, check_sampling_bias
from poolproof.simulate.limit import (
    DECIDED,
    MAX_GENERATIONS,
    RealOnlyCurve,
    check_budget,
    fresh_mixing,
    loop_limit,
)
from poolproof.simulate.threads import one_blas_thread

if TYPE_CHECKING:
    import pandas as pd

METHOD: Final = "gaussian-cell/2"
"""Names the computation in the cache; a change that moves figures takes another number."""


@final
@dataclass(frozen=True)
class Cell:
    """One fresh-data loop.

    Attributes:
        n_real: new real samples per generation, 2 or more.
        n_synthetic: synthetic samples per generation, 0 or more.
        sampling_bias: lambda in [0, 1].
        n_models: models before that the synthetic samples come from, 1 or more.
        dim: dimensions, 1 or more.
    """

    n_real: int
    n_synthetic: int
    sampling_bias: float | int = 1.0
    n_models: int = 1
    dim: int = 100

    def __post_init__(self) -> None:
        fresh_mixing(self.n_real, self.n_synthetic, n_models=self.n_models)
        check_sampling_bias(self.sampling_bias)
        check_dim(self.dim)


@final
@dataclass(frozen=True)
class Effort:
    """How precisely cells are computed.

    Attributes:
        tolerance: relative standard error of the distance, in (0, 1).
        max_paths: independent loops at most, 16 or more; None stands for 64 blocks.
        max_generations: of each loop, 20 or more.
        seed: of all randomness. A cell's figures depend on it and on the cell alone, not on the others.
    """

    tolerance: float | int = 0.01
    max_paths: int | None = None
    max_generations: int = MAX_GENERATIONS
    seed: int = 0

    def __post_init__(self) -> None:
        check_budget(self.tolerance, self.max_paths, self.max_generations)
        check_count("seed", self.seed, least=0)


def evaluate_cells(
    cells: Sequence[Cell],
    effort: Effort,
    *,
    n_workers: int | None = None,
    cache: Path | None = None,
    on_cell: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """A table with one row per cell: its options, its figures, and how good they are.

    `squared_w2`, `squared_w2_stderr`: the loop's limit; `n_e`, `n_e_stderr`, `ratio`, `ratio_stderr`: what it is
    worth, missing below 2 and above 8e14; `admissible`: True, False, or missing within two standard errors of 1
    and where the loop's start shows; `converged`, `start_shows`, `n_paths`, `n_generations`, `why`: how good it is.

    Args:
        cells: in the order of the rows.
        effort: precision and seed.
        n_workers: threads; None takes one per core.
        cache: folder that remembers cells by their content; None remembers nothing.
        on_cell: called with the number of cells done, as they end.

    Raises:
        InputError: no cells.
    """
    import pandas as pd

    if not cells:
        raise InputError("cells: got none, allowed one or more")
    rows = evaluate_rows(cells, effort, n_workers=n_workers, cache=cache, on_cell=on_cell)
    frame = pd.DataFrame(rows)
    return frame.astype({"admissible": "boolean", "n_e": float, "ratio": float})


def evaluate_rows(
    cells: Sequence[Cell],
    effort: Effort,
    *,
    n_workers: int | None = None,
    cache: Path | None = None,
    on_cell: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """The rows of `evaluate_cells` as JSON has them: None for what is missing."""
    n_workers = (os.cpu_count() or 1) if n_workers is None else n_workers
    check_count("n_workers", n_workers, least=1)
    rows: dict[Cell, Mapping[str, Any]] = {}
    # long loops first, so that no worker is left with one at the end
    order = sorted(set(cells), key=lambda cell: -_expected_cost(cell))
    with one_blas_thread():
        pool = ThreadPoolExecutor(n_workers)
        futures = {pool.submit(_remembered, cell, effort, cache): cell for cell in order}
        try:
            for n_done, future in enumerate(as_completed(futures), 1):
                rows[futures[future]] = future.result()
                if on_cell is not None:
                    on_cell(n_done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # a loop may run for minutes
            raise
        pool.shutdown()
    return [{**asdict(cell), **rows[cell]} for cell in cells]


def _expected_cost(cell: Cell) -> float:
    mixing = fresh_mixing(cell.n_real, cell.n_synthetic, n_models=cell.n_models)
    return cell.n_models / (1 - min(mixing.relaxation(cell.sampling_bias), 1 - 1e-12))


def _remembered(cell: Cell, effort: Effort, cache: Path | None) -> Mapping[str, Any]:
    # 1 and 1.0 are one cell with one stream, and NumPy's numbers are no JSON
    counts = {name: int(getattr(cell, name)) for name in ("n_real", "n_synthetic", "n_models", "dim")}
    cell = Cell(**counts, sampling_bias=float(cell.sampling_bias))
    content = {"method": METHOD, "cell": asdict(cell), "effort": asdict(effort)}
    return remember(cache, content, lambda: _compute(cell, effort))


def _compute(cell: Cell, effort: Effort) -> dict[str, Any]:
    # repr of a float is exact, so that equal cells have equal streams
    key = int.from_bytes(hash_json(asdict(cell)).encode()[:16], "big")
    rng = np.random.default_rng([effort.seed, key])
    limit = loop_limit(
        fresh_mixing(cell.n_real, cell.n_synthetic, n_models=cell.n_models),
        cell.sampling_bias,
        dim=cell.dim,
        tolerance=effort.tolerance,
        max_paths=effort.max_paths,
        max_generations=effort.max_generations,
        rng=rng,
    )
    curve = RealOnlyCurve(cell.dim, effort.seed, tolerance=min(0.001, effort.tolerance / 3))
    row: dict[str, Any] = {
        "squared_w2": limit.value,
        "squared_w2_stderr": limit.stderr,
        "n_e": None,
        "n_e_stderr": None,
        "ratio": None,
        "ratio_stderr": None,
        "admissible": None,
        "converged": limit.converged,
        "start_shows": limit.start_shows,
        "n_paths": limit.n_paths,
        "n_generations": limit.n_generations,
        "why": limit.why,
    }
    if cell.n_synthetic == 0:
        exact = {"n_e": float(cell.n_real), "n_e_stderr": 0.0, "ratio": 1.0, "ratio_stderr": 0.0}
        return row | exact | {"admissible": True}
    try:
        n_e, stderr = curve.invert(limit.value, limit.stderr)
    except UnreliableEstimate as error:
        low, high = error.estimate
        row |= {"why": "; ".join(filter(None, (limit.why, str(error))))}
        if not limit.start_shows and (low >= cell.n_real or high <= cell.n_real):
            row |= {"admissible": low >= cell.n_real}
        return row
    ratio, error = n_e / cell.n_real, stderr / cell.n_real
    undecided = limit.start_shows or abs(ratio - 1) < DECIDED * error
    return row | {
        "n_e": n_e,
        "n_e_stderr": stderr,
        "ratio": ratio,
        "ratio_stderr": error,
        "admissible": None if undecided else ratio >= 1,
    }
