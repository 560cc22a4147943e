"""The `poolproof simulate loop` command. Heavy packages load inside it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.cli_simulate import (
    Cache,
    NoCache,
    Out,
    Quiet,
    make_folder,
    run_study_shown,
    simulate,
    write_shown,
)
from poolproof.errors import InputError

if TYPE_CHECKING:
    from poolproof.simulate.loop_spec import TrainedLoopSpec
    from poolproof.simulate.spec import LoopSpec
    from poolproof.simulate.trained import TrainedStudy

__all__ = ["simulate"]


@simulate.command("loop", short_help="Follow loops generation by generation.")
def loop(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|SPEC.toml",
            help="digits-synthetic, fig10-left, mark-drift or another of `poolproof simulate presets`, or a TOML file "
            "of kind loop.",
        ),
    ],
    out: Out = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Repetitions of each trained loop, seeds 0 to N - 1.", show_default=False
        ),
    ] = None,
    generations: Annotated[
        int | None, typer.Option(metavar="N", help="Generations to run.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where the real data of a trained loop lie.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", help="cpu, cuda or auto: where generators are trained.", show_default=False
        ),
    ] = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the weights of every generation.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Loops run at the same time. [default: one a core, or one on a GPU]", show_default=False
        ),
    ] = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    quiet: Quiet = False,
) -> None:
    """Follow loops generation by generation: distance from the truth, quality, variety, marks, policies.

    A spec with a [generator] trains real models (diffusion, GAN, flow, mixtures) on real data and writes to --out; one
    without follows the exact Gaussian engine. A run that stopped goes on when the same command is given again. Writes
    generations.parquet, loop.json and loop.html; a Gaussian loop without --out prints its last generation.
    """
    from poolproof.simulate.loop_spec import TrainedLoopSpec
    from poolproof.simulate.spec import LoopSpec, read_spec

    chosen = read_spec(spec)
    if isinstance(chosen, TrainedLoopSpec):
        if cache is not None or no_cache:
            raise InputError(
                "--cache: got one for a trained loop, allowed --out alone, where it also goes on"
            )
        _run_trained(
            _adapt(chosen, seeds, generations, data, device),
            out,
            workers,
            keep_models=keep_models,
            quiet=quiet,
        )
    elif isinstance(chosen, LoopSpec):
        given = {"--seeds": seeds, "--data": data, "--device": device, "--keep-models": keep_models or None}
        for name, value in given.items():
            if value is not None:
                raise InputError(
                    f"{name}: got {value} for a Gaussian loop, allowed for a spec with a [generator]"
                )
        if generations is not None:
            chosen = replace(chosen, n_generations=generations)
        _run_gaussian(chosen, out, workers, cache, no_cache, quiet)
    else:
        raise InputError(f"{spec} is no loop: poolproof simulate admissible {spec} --out DIR")


@simulate.command("presets", short_help="List the specs that come with poolproof.")
def presets() -> None:
    """List the specs that come with poolproof: their names, commands and titles."""
    from poolproof.simulate.loop_spec import TrainedLoopSpec
    from poolproof.simulate.spec import LoopSpec, list_presets, read_spec

    names = list_presets()
    width = max(map(len, names))
    for name in names:
        chosen = read_spec(name)
        command = "loop" if isinstance(chosen, LoopSpec | TrainedLoopSpec) else "admissible"
        typer.echo(f"{name:{width}}  simulate {command:10}  {chosen.title}")


# --- Gaussian loops -------------------------------------------------------------------------------------


def _run_gaussian(
    chosen: LoopSpec, out: Path | None, workers: int | None, cache: Path | None, no_cache: bool, quiet: bool
) -> None:
    from poolproof.simulate.montecarlo import with_error

    make_folder(out)
    study = run_study_shown(chosen, "arms", workers, cache, no_cache, quiet)
    table = study.table
    ends = table.groupby("arm")["generation"].transform("max")
    last = table[(table["generation"] == ends) & (table["n_infinite"] == 0)]
    width = max(len(arm.label) for arm in chosen.arms)
    typer.echo(f"generation {table['generation'].max()}, {chosen.n_paths:,} independent loops")
    for _, row in last[last["figure"].isin(["squared_w2", "drift"])].iterrows():
        typer.echo(
            f"{row['arm']:{width}}  {row['figure']:10}  mean {with_error(row['mean'], row['mean_stderr'])}"
            f"   median {row['median']:.4g}   5 % to 95 %: {row['q05']:.4g} to {row['q95']:.4g}"
        )
    write_shown(study, out)


# --- trained loops --------------------------------------------------------------------------------------


def _adapt(
    spec: TrainedLoopSpec, seeds: int | None, generations: int | None, data: str | None, device: str | None
) -> TrainedLoopSpec:
    """The spec with what the command line says instead."""
    from poolproof.simulate.checks import check_count
    from poolproof.simulate.generators import with_device
    from poolproof.simulate.loop_spec import read_seeds
    from poolproof.simulate.real_data import LAWS

    changes: dict[str, Any] = {}
    if seeds is not None:
        check_count("--seeds", seeds, least=1)
        changes["seeds"] = read_seeds(seeds)
    if generations is not None:
        check_count("--generations", generations, least=1)
        changes["n_generations"] = generations
    if data is not None:
        if spec.data.kind in ("digits", *LAWS):
            raise InputError(
                f"--data: got {data!r} for {spec.data.kind}, allowed for data that lie somewhere; leave it out"
            )
        changes["data"] = replace(spec.data, path=data)
    if device is not None:
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device: got {device!r}, allowed auto, cpu, cuda; choose one")
        changes["arms"] = tuple(
            replace(arm, generator=with_device(arm.generator, device)) for arm in spec.arms
        )
    return replace(spec, **changes)


def _run_trained(
    spec: TrainedLoopSpec, out: Path | None, workers: int | None, *, keep_models: bool, quiet: bool
) -> None:
    import contextlib

    from poolproof.audit.loop_images import read_loop_images
    from poolproof.audit.progress import Tick, choose_progress
    from poolproof.simulate.checks import check_count
    from poolproof.simulate.trained import check_runnable, run_trained

    if out is None:
        raise InputError("--out: got none, allowed a folder: trained loops go on there when they are stopped")
    if workers is not None:
        check_count("--workers", workers, least=1)
    check_runnable(spec)
    with contextlib.ExitStack() as stack:
        ticks: list[Tick] = []

        def start(total: int, finished: int) -> None:
            bars = choose_progress(quiet=quiet)
            ticks.append(stack.enter_context(bars.items("training", total, finished, "generations")))

        study = run_trained(
            spec,
            out,
            n_workers=workers,
            keep_models=keep_models,
            command=shlex.join(["poolproof", *sys.argv[1:]]),
            read_pool=read_loop_images,
            on_start=start,
            on_generation=lambda n_done: ticks[0](n_done),
        )
    _print_trained(study)


def _print_trained(study: TrainedStudy) -> None:
    from poolproof.page import visible
    from poolproof.simulate.summary import summarise_generations, tell_findings

    for sentence in tell_findings(summarise_generations(study.table), study.document):
        typer.echo(visible(sentence))
    for row in study.document["failed"]:
        where = f"{row['arm']}, seed {row['seed']}, generation {row['generation']}"
        typer.echo(f"failed      {visible(where)}: {row['why']}")
    typer.echo(f"page        {next(path for path in study.paths if path.suffix == '.html')}")
    tables = [str(path) for path in study.paths if path.suffix in (".parquet", ".csv", ".json")]
    typer.echo(f"tables      {', '.join(tables)}")
