"""The `poolproof simulate` commands. Heavy packages load inside the commands that use them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poolproof.simulate.placing import MeasuredPool
    from poolproof.simulate.spec import GaussianSpec, MapSpec
    from poolproof.simulate.study import Study

simulate = typer.Typer(
    help="What self-consumption does to models: loops and the admissible region.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_MOST_COLUMNS = 10
"""Columns of a map that are printed side by side; a wider one is printed in parts, if not written."""

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Folder for tables (Parquet, CSV), JSON, SVG and a page."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Threads. [default: one a core]", show_default=False)]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that remembers finished steps. [default: ~/.cache/poolproof]",
        show_default=False,
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Compute everything anew and remember nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@simulate.command("admissible", short_help="Tell how much synthetic data is too much.")
def admissible(
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET|SPEC.toml",
            help="fig11, fig12, memory, real-share, or a TOML file of kind map or curves; instead of the lists.",
        ),
    ] = None,
    n_real: Annotated[
        str | None, typer.Option(metavar="N,N,..", help="New real images per generation.")
    ] = None,
    n_synthetic: Annotated[
        str | None, typer.Option(metavar="N,N,..", help="Synthetic images per generation.")
    ] = None,
    sampling_bias: Annotated[
        str | None,
        typer.Option(
            metavar="L,L,..",
            help="Lambda in [0, 1]: 1 samples without bias, guidance of weight w is 1/(1+w). [default: 0.7,0.85,1]",
            show_default=False,
        ),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Dimensions of the normal data. [default: 100]", show_default=False)
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Relative standard error of each distance to stop at. [default: 0.01]", show_default=False
        ),
    ] = None,
    max_paths: Annotated[
        int | None,
        typer.Option(help="Independent loops per cell at most. [default: by --dim]", show_default=False),
    ] = None,
    max_generations: Annotated[
        int | None, typer.Option(help="Generations per loop at most. [default: 5000]", show_default=False)
    ] = None,
    threshold: Annotated[
        bool,
        typer.Option("--threshold", help="Also find the largest admissible n_synthetic for each n_real."),
    ] = False,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Place the pool that this audit measured.")
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="LOWER,UPPER",
            help="Place a pool with this interval of its synthetic share; with --items.",
        ),
    ] = None,
    items: Annotated[int | None, typer.Option(metavar="N", help="Images in that pool.")] = None,
    out: Out = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything. [default: 0]", show_default=False)
    ] = None,
    workers: Workers = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Tell how many real images a loop is worth (n_e) over the real images it uses, by Gaussian simulation.

    In a fresh-data loop each generation trains on --n-real new real images and on --n-synthetic images of the model
    before. Where n_e / n_real is 1 or more the synthetic images are admissible. Give lists, a preset, or a pool.
    """
    from poolproof.simulate.loop_spec import TrainedLoopSpec
    from poolproof.simulate.spec import CurvesSpec, LoopSpec, MapSpec, read_spec

    pool = _measured_pool(run, share, items)
    lists = {"n_real": n_real, "n_synthetic": n_synthetic, "sampling_bias": sampling_bias}
    chosen: Any
    if spec is not None:
        given = [
            f"--{name.replace('_', '-')}" for name, text in (lists | {"dim": dim}).items() if text is not None
        ]
        if given:
            raise InputError(
                f"{given[0]}: got a value beside {spec!r}, allowed one of the two; edit the TOML file"
            )
        chosen = read_spec(spec)
        if isinstance(chosen, LoopSpec | TrainedLoopSpec):
            raise InputError(f"{spec} is a loop, not a map: poolproof simulate loop {spec} --out DIR")
    else:
        chosen = _map_spec(lists, 100 if dim is None else dim, pool)
    assert isinstance(chosen, MapSpec | CurvesSpec)
    chosen = _with_effort(
        chosen, tolerance=tolerance, max_paths=max_paths, max_generations=max_generations, seed=seed
    )
    make_folder(out)
    study = run_study_shown(chosen, "loops", workers, cache, no_cache, quiet, pool=pool, thresholds=threshold)
    _print_limits(study, in_full=pool is None or n_real is not None, wide=out is None)
    write_shown(study, out)


# --- options --------------------------------------------------------------------------------------------


def _numbers(name: str, text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(read(part) for part in text.split(","))
    except ValueError:
        kind = "whole numbers" if read is int else "numbers"
        raise InputError(
            f"--{name}: got {text!r}, allowed {kind} separated by commas, such as 100,1000"
        ) from None


def _map_spec(lists: dict[str, str | None], dim: int, pool: MeasuredPool | None) -> MapSpec:
    from poolproof.simulate.placing import surroundings
    from poolproof.simulate.spec import MapSpec

    values: dict[str, Any] = {"sampling_bias": (0.7, 0.85, 1.0)}
    if pool is not None:
        values |= surroundings(pool)
    for name, text in lists.items():
        if text is not None:
            read = float if name == "sampling_bias" else int
            values[name] = _numbers(name.replace("_", "-"), text, read)
    for name in ("n_real", "n_synthetic"):
        if name not in values:
            raise InputError(
                f"--{name.replace('_', '-')}: got none, allowed a list such as 100,1000; or give a preset, or a pool"
            )
    return MapSpec(title="Admissible region", dim=dim, **values)


def _with_effort(spec: Any, **changes: float | int | None) -> Any:
    from dataclasses import replace

    given = {name: value for name, value in changes.items() if value is not None}
    return replace(spec, effort=replace(spec.effort, **given)) if given else spec


def _measured_pool(run: Path | None, share: str | None, items: int | None) -> MeasuredPool | None:
    from poolproof.simulate.placing import MeasuredPool, pool_of_report

    if run is not None:
        if share is not None or items is not None:
            raise InputError("--run: got it beside --share or --items, allowed one of the two")
        return pool_of_report(run / "report.json")
    if share is None and items is None:
        return None
    if share is None:
        raise InputError(
            f"--items: got {items} without --share, allowed both; give the interval of the share too"
        )
    if items is None:
        raise InputError(
            f"--share: got {share!r} without --items, allowed both; say how many images it is of"
        )
    limits = _numbers("share", share, float)
    if len(limits) not in (2, 3):
        raise InputError(f"--share: got {share!r}, allowed LOWER,UPPER or LOWER,POINT,UPPER, such as 0.1,0.2")
    return MeasuredPool(items, limits[0], limits[-1], limits[1] if len(limits) == 3 else None)


# --- work and words -------------------------------------------------------------------------------------


def run_study_shown(
    spec: GaussianSpec,
    unit: str,
    workers: int | None,
    cache: Path | None,
    no_cache: bool,
    quiet: bool,
    **options: Any,
) -> Study:
    """The study of a spec, with progress and one line for what memory cannot hold."""
    from poolproof.audit.progress import choose_progress
    from poolproof.simulate.cache import default_cache
    from poolproof.simulate.checks import check_count
    from poolproof.simulate.study import count_steps, run_study

    if workers is not None:
        check_count("--workers", workers, 1)
    folder = None if no_cache else cache or default_cache()
    try:
        with choose_progress(quiet=quiet).items("simulating", count_steps(spec), 0, unit) as tick:
            return run_study(
                spec,
                n_workers=workers,
                cache=folder,
                on_step=tick,
                command=shlex.join(["poolproof", *sys.argv[1:]]),
                **options,
            )
    except MemoryError:
        raise InputError(
            f"dim: got {spec.dim}, allowed what fits into memory; lower it, or --workers"
        ) from None


def make_folder(out: Path | None) -> None:
    """Makes the folder before anything is computed."""
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out: got {str(out)!r} ({error.strerror}), allowed a folder, made where it is missing; give another"
        ) from None


def write_shown(study: Study, out: Path | None) -> None:
    """Writes a study to its folder, and says where."""
    if out is None:
        typer.echo("nothing is written without --out DIR")
        return
    from poolproof.simulate.study_page import write_study

    paths = write_study(study, out)
    typer.echo(f"page        {paths[-1]}")
    typer.echo(f"tables      {', '.join(str(path) for path in paths[:3])}")


def _print_limits(study: Study, *, in_full: bool, wide: bool) -> None:
    from poolproof.simulate.montecarlo import with_error
    from poolproof.simulate.spec import CurvesSpec, MapSpec

    table, spec = study.table, study.spec
    if isinstance(spec, MapSpec) and in_full and (wide or len(spec.n_synthetic) <= _MOST_COLUMNS):
        typer.echo(f"n_e / n_real in {spec.dim} dimensions; 1 or more is admissible")
        for bias in spec.sampling_bias:
            rows = table[table["sampling_bias"] == bias]
            for first in range(0, len(spec.n_synthetic), _MOST_COLUMNS):
                typer.echo("")
                columns = spec.n_synthetic[first : first + _MOST_COLUMNS]
                _print_matrix(f"bias {bias:g}", spec.n_real, columns, rows)
    elif isinstance(spec, CurvesSpec):
        for row in table.itertuples(index=False):
            value, error = getattr(row, spec.y), getattr(row, f"{spec.y}_stderr")
            told = with_error(value, error) if value > 0 else "not known"
            typer.echo(f"{row.panel}  {row.curve}  {spec.x} {row.x:g}: {spec.y} {told}".strip())
    for border in study.document["thresholds"] or []:
        _print_border(border)
    if study.document["pool"]:
        _print_pool(study.document["pool"])
    short = table[~table["converged"].astype(bool)]
    for _, row in short.head(3).iterrows():
        typer.echo(
            f"note        n_real {row['n_real']}, n_synthetic {row['n_synthetic']}, bias {row['sampling_bias']:g}: "
            f"{row['why']}"
        )
    if len(short) > 3:
        typer.echo(f"note        and {len(short) - 3} more did not reach the asked precision")


def _print_matrix(corner: str, n_real: Sequence[int], n_synthetic: Sequence[int], rows: Any) -> None:
    head = [f"{n:,} syn." for n in n_synthetic]
    cells = {(row.n_real, row.n_synthetic): _ratio_text(row) for row in rows.itertuples(index=False)}
    lines = [[f"{n:,} real", *(cells[n, m] for m in n_synthetic)] for n in n_real]
    widths = [max(map(len, column)) for column in zip([corner, *head], *lines, strict=True)]
    for line in ([corner, *head], *lines):
        typer.echo("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _ratio_text(row: Any) -> str:
    from poolproof.simulate.montecarlo import with_error

    if not row.ratio > 0:  # missing: two real images do better, far from the truth, or none do worse, at it
        return "n_e < 2" if row.squared_w2 > 0.1 else "n_e > 8e14"
    return with_error(row.ratio, row.ratio_stderr)


def _print_border(border: dict[str, Any]) -> None:
    from poolproof.simulate.placing import border_text

    words = border_text(border)
    why = f" ({border['why']})" if border["why"] else ""
    typer.echo(
        f"threshold   n_real {border['n_real']:,}, bias {border['sampling_bias']:g}: {words} synthetic{why}"
    )


def _print_pool(pool: dict[str, Any]) -> None:
    from poolproof.simulate.placing import border_text

    typer.echo("")
    share = pool["share"]
    point = "" if share["point"] is None else f"{100 * share['point']:.1f} %, "
    limits = f"{100 * share['lower']:.1f} % to {100 * share['upper']:.1f} %"
    typer.echo(f"pool        {pool['n_items']:,} images, share {point}{limits}")
    for row in pool["by_sampling_bias"]:
        over = "-" if row["lowest"] is None else f"{row['lowest']:.2f} to {row['highest']:.2f}"
        most = border_text(row["threshold"])
        typer.echo(
            f"  bias {row['sampling_bias']:<5g} {row['verdict']:15} n_e / n_real {over}; "
            f"with {row['threshold']['n_real']:,} real admissible up to {most} synthetic"
        )
