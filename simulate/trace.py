"""A loop generation by generation: distances, spread and drift, with their errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count
from poolproof.simulate.gaussian import (
    Gaussian,
    Models,
    Start,
    Vector,
    check_start,
    generations,
    read_mark,
)
from poolproof.simulate.limit import block_size
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.montecarlo import QUANTILES, summarise
from poolproof.simulate.points import Policy, point_generations
from poolproof.simulate.threads import one_blas_thread
from poolproof.simulate.wasserstein import log_determinant, wasserstein

if TYPE_CHECKING:
    import pandas as pd

FIGURES: Final = ("squared_w2", "w2", "mean_part", "covariance_part", "variance", "log_determinant", "drift")
"""What is told of each generation. `squared_w2` is `mean_part` plus `covariance_part` and `w2` its root; `variance` is
the trace of the covariance over that of the truth; `drift` is the way of the mean along the mark, in its lengths."""

_KEYS: Final = ("generation", "figure", "n", "n_infinite")


@one_blas_thread()
def trace_loop(
    mixing: Mixing,
    *,
    law: Gaussian,
    n_generations: int,
    n_paths: int = 256,
    sampling_bias: float | int | Sequence[float | int] = 1.0,
    initial: Start | int | Models = "data",
    mark: Vector | None = None,
    policy: Policy | None = None,
    on_generation: Callable[[int], None] | None = None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """A table with one row per generation and figure: what `montecarlo.summarise` says of it over the loops.

    Means mislead where few loops carry most of the sum, as late in a fully synthetic loop: compare median and
    log-moments. Summaries are missing where loops have a figure that is not finite, such as the
    log-determinant of a singular covariance; `n_infinite` counts these.

    Args:
        mixing: what each generation trains on. With a subsample, single samples are drawn.
        law: of the real data.
        n_generations: generations to tell of, 1 or more; with `initial="truth"` the first is generation 0.
        n_paths: independent loops, 3 or more.
        sampling_bias: see `gaussian.generations`.
        initial: see `gaussian.generations`.
        mark: see `gaussian.generations`.
        policy: see `points.point_generations`; needs single samples.
        on_generation: called with the number of generations done, over all blocks of loops together.
        rng: all randomness.

    Returns:
        Columns `generation`, `figure` (of `FIGURES`), `n`, `n_infinite`, `mean`, `mean_stderr`, `median`,
        `median_stderr`, `q05` to `q95` with `_stderr`, `log_mean`, `log_mean_stderr`, `log_sd`, `log_sd_stderr`;
        missing where `montecarlo.Summary` has None.

    Raises:
        InputError: a value out of range, a mark without length, or a law without variance.
    """
    import pandas as pd

    check_count("n_generations", n_generations, least=1)
    check_count("n_paths", n_paths, least=3)
    check_start(law, n_paths, initial)
    mark = read_mark(mark, law.dim)
    if mark is not None and not mark.any():
        raise InputError(
            "mark: got zeros, allowed a direction to measure the drift along; None stands for no mark"
        )
    if not law.full_root().any():
        raise InputError("law: got one without variance, allowed some to measure the models' by")
    size = block_size(law.dim)
    sizes = [size] * (n_paths // size) + ([n_paths % size] if n_paths % size else [])
    values: dict[tuple[int, str], list[Float[np.ndarray, " paths"]]] = {}
    first = 0
    for block, (n, stream) in enumerate(zip(sizes, rng.spawn(len(sizes)), strict=True)):
        start = initial
        if isinstance(initial, Models):
            rows = slice(first, first + n)
            start = Models(initial.generation, initial.mean[rows], initial.factor[rows])
        options: dict[str, Any] = {
            "law": law, "n_paths": n, "sampling_bias": sampling_bias, "initial": start, "mark": mark, "rng": stream
        }  # fmt: skip
        by_points = policy is not None or mixing.needs_points
        loops = (
            point_generations(mixing, policy=policy, **options)
            if by_points
            else generations(mixing, **options)
        )
        for step, models in enumerate(itertools.islice(loops, n_generations)):
            for figure, told in _measure(models, law, mark).items():
                values.setdefault((models.generation, figure), []).append(told)
            if on_generation is not None:
                on_generation(block * n_generations + step + 1)
        first += n
    return number_columns(
        pd.DataFrame(
            [{"generation": g, "figure": f, **_row(np.concatenate(told))} for (g, f), told in values.items()]
        )
    )


def number_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers in its columns of figures, also where all of a column is missing."""
    return table.astype({name: float for name in table.columns if str(name) not in _KEYS})


def _measure(
    models: Models, law: Gaussian, mark: Float[np.ndarray, " d"] | None
) -> dict[str, Float[np.ndarray, " paths"]]:
    distance = wasserstein(models, law)
    figures = {
        "squared_w2": distance.squared,
        "w2": np.sqrt(distance.squared),
        "mean_part": distance.mean_part,
        "covariance_part": distance.covariance_part,
        "variance": np.square(models.factor).sum(axis=(1, 2)) / np.square(law.full_root()).sum(),
        "log_determinant": log_determinant(models),
    }
    if mark is not None:
        figures["drift"] = (models.mean - law.mean) @ mark / (mark @ mark)
    return figures


def _row(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    infinite = int((~np.isfinite(values)).sum())
    row: dict[str, Any] = {"n": len(values), "n_infinite": infinite}
    if infinite:
        return row
    summary = asdict(summarise(values))
    for level, value, error in zip(
        QUANTILES, summary.pop("quantiles"), summary.pop("quantiles_stderr"), strict=True
    ):
        row |= {f"q{100 * level:02.0f}": value, f"q{100 * level:02.0f}_stderr": error}
    return row | summary
