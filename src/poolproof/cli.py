"""The `poolproof` command. Heavy packages load inside the commands that use them."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from poolproof import __version__
from poolproof.cli_audit import audit, percent, print_audit, render
from poolproof.cli_bench import watermark
from poolproof.cli_detect import detect
from poolproof.cli_diff import diff
from poolproof.cli_filter import filter_run
from poolproof.cli_gates import FailIf, Junit, MaxUnreadable, Summary, check_rate, close_audit
from poolproof.cli_label import label
from poolproof.cli_loop import simulate
from poolproof.errors import Halted, InputError, MissingExtra, UnreliableEstimate
from poolproof.files import tell_failure

EXIT_TOOL, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="poolproof",
    help="How much of an image pool is synthetic, which images, how sure, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 the tool failed, 2 usage or bad input, 3 a gate closed, 4 too many unreadable, "
    "130 interrupted (the same command continues).",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"poolproof {__version__}")
        raise typer.Exit


app.command("audit", short_help="Tell how much of a pool is synthetic, and which images.")(audit)
app.command("filter", short_help="Decide what of a pool stays, and write it.")(filter_run)


@app.command(short_help="Render a run's report anew.")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `poolproof audit` wrote.")],
    fail_if: FailIf = None,
    max_unreadable: MaxUnreadable = 1.0,
    junit: Junit = None,
    summary: Summary = None,
) -> None:
    """Render RUN/report.html anew from RUN/report.json, print the figures, and evaluate gates on them."""
    import json

    from poolproof.audit.gate import parse_gate
    from poolproof.audit.run_folder import RunFolder

    gates = [parse_gate(text) for text in fail_if or []]
    check_rate(max_unreadable)
    folder = RunFolder(run)
    folder.settings()
    if not folder.report.is_file():
        raise InputError(f"{str(run)!r} has no report.json; the audit did not finish, give its command again")
    render(run)
    result = json.loads(folder.report.read_text("utf-8"))
    print_audit(result, run)
    close_audit(result, gates, max_unreadable, junit=junit, summary=summary)


@app.command(short_help="Check that a run or a filtered pool is whole.")
def verify(
    run: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder that `poolproof audit` or `poolproof filter` wrote."),
    ],
) -> None:
    """Check that every item of DIR is accounted for and that no file changed. Exits with 1 where not."""
    from poolproof.audit.verify import find_faults
    from poolproof.audit.verify_filter import find_filter_faults, is_filtered

    faults = find_filter_faults(run) if is_filtered(run) else find_faults(run)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{len(faults)} faults in {run}" if faults else f"{run}: counts balance, hashes match")
    if faults:
        raise typer.Exit(EXIT_TOOL)


@app.command(short_help="Audit a pool whose true share is known.")
def quickstart(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for pools, run and report.")
    ] = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes. [default: one a core]", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Audit a pool whose true share is known: real digits, and samples of a diffusion model trained on the spot.

    Needs no network and under 3 minutes on 2 cores.
    """
    from poolproof.audit.demonstration import run_quickstart
    from poolproof.audit.progress import choose_progress

    command = shlex.join(["poolproof", *sys.argv[1:]])
    result = run_quickstart(
        out, seed=seed, workers=workers, command=command, progress=choose_progress(quiet=quiet)
    )
    render(out)
    share = result["share"]
    point = "not told" if share["point"] is None else percent(share["point"])
    typer.echo(f"share    {point}  ({percent(share['lower'])} to {percent(share['upper'])})")
    if share["why"]:
        typer.echo(f"         {share['why']}")
    typer.echo(f"truth    {percent(result['truth'])}")
    typer.echo(f"covered  {'yes' if result['covered'] else 'no'}    {result['seconds']:.0f} s    seed {seed}")
    typer.echo(f"report   {out / 'report.html'}")


models = typer.Typer(
    help="Weights of embedding models on this machine.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(models, name="models", short_help="List or fetch the weights of embedding models.")


@models.command("list")
def list_models() -> None:
    """List suggested embedders and where their weights lie. Nothing is fetched."""
    from poolproof.detectors.weights import list_weights

    for weights in list_weights():
        typer.echo(f"{weights.spec:42} {weights.path or 'not here; poolproof models pull ' + weights.spec}")


@models.command("pull")
def pull_model(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="clip:MODEL/TAG, a pretrained tag of open_clip.")
    ],
) -> None:
    """Fetch an embedder's weights into the local cache. The only command that uses the network."""
    from poolproof.detectors.weights import pull_weights

    typer.echo(str(pull_weights(spec)))


app.command("diff", short_help="Tell what changed between two runs, and whether the share did.")(diff)
app.command("label", short_help="Label images of a run by eye.")(label)
app.add_typer(detect, name="detect", short_help="Fit, try and use a detector alone.")
app.add_typer(simulate, name="simulate", short_help="Simulate self-consuming loops.")
app.add_typer(watermark, name="watermark", short_help="Write, read and test invisible marks.")


class _Interrupted(BaseException):
    """Ctrl-C or a request to end. Not KeyboardInterrupt, which the command-line library turns into exit code 1."""


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise _Interrupted


def main() -> None:
    """Runs the command; turns a user's errors into one line and exit code 2."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except (InputError, MissingExtra, UnreliableEstimate) as error:
        typer.echo(f"poolproof: {' '.join(str(error).split())}", err=True)
        raise SystemExit(EXIT_USAGE) from None
    except Halted as error:
        typer.echo(f"poolproof: {' '.join(str(error).split())}", err=True)
        raise SystemExit(EXIT_TOOL) from None
    except _Interrupted:
        anew = "--no-cache" in sys.argv  # nothing is remembered then
        typer.echo(
            f"poolproof: interrupted; the same command {'starts anew' if anew else 'continues'}", err=True
        )
        if threading.active_count() > 1:  # the interpreter would wait for loops that run on in threads
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # the reader of our output went away (`| head`); nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_TOOL) from None
    except OSError as error:
        if error.errno is None:
            raise
        typer.echo(f"poolproof: {' '.join(tell_failure(error).split())}", err=True)
        raise SystemExit(EXIT_TOOL) from None
