"""The `poolproof` command. Heavy packages load inside the commands that use them."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof import __version__
from poolproof.cli_bench import watermark
from poolproof.cli_detect import detect
from poolproof.cli_diff import diff
from poolproof.cli_filter import filter_run
from poolproof.cli_gates import FailIf, Junit, MaxUnreadable, Summary, check_rate, close_audit
from poolproof.cli_label import label
from poolproof.cli_loop import simulate
from poolproof.errors import Halted, InputError, MissingExtra, UnreliableEstimate
from poolproof.files import tell_failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poolproof.audit.parts import Progressed

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


@app.command(short_help="Tell how much of a pool is synthetic, and which images.")
def audit(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="POOL",
            help="A folder, WebDataset tars, Parquet, a saved data set, or hf:NAME[:CONFIG][:SPLIT].",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="RUN", help="Folder of the run; the same command continues a stopped one."
        ),
    ],
    real: Annotated[
        str | None,
        typer.Option(
            metavar="POOL", help="Pool of real images, disjoint from POOL. Alone it gives a lower bound."
        ),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="POOL",
            help="Pool of synthetic images like those expected. With --real it gives an estimate.",
        ),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="auto, forensic (no weights), clip:MODEL/TAG from the local cache, or clip: or timm:MODEL/FILE.",
        ),
    ] = "auto",
    detector: Annotated[
        str,
        typer.Option(
            metavar="KIND|DIR",
            help="probe, knn, forensic, real-distance or rigid, fitted on the references, or what "
            "`poolproof detect fit` wrote.",
        ),
    ] = "probe",
    match: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            help="Estimate once more with all files made alike in size and codec: auto (where files alone give the "
            "classes away), always or never.",
        ),
    ] = "auto",
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Audit N items drawn uniformly; their sampling error is in the interval."
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Confidence level of the interval.")] = 0.95,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `poolproof label` wrote for RUN; the share is then told by the labels."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes. [default: one a core]", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="Where items are read: local, or ray for a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR", help="HOST:PORT of a cluster's head, or auto. [default: Ray on this machine]"
        ),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Read the I-th of N parts alone and write no report, as one job of an array."
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Report on what the parts have read; refuse where one is not done."),
    ] = False,
    shard_size: Annotated[
        int | None, typer.Option(help="Items committed together. [default: by pool size]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the cross-fitting folds.")] = 0,
    fail_if: FailIf = None,
    max_unreadable: MaxUnreadable = 0.01,
    junit: Junit = None,
    summary: Summary = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Tell how much of POOL is synthetic, with an interval, and which images.

    Writes report.json, report.html, items.parquet and evidence/ to --out. Nothing in POOL is changed.
    """
    from poolproof.audit.gate import parse_gate
    from poolproof.audit.progress import choose_progress
    from poolproof.audit.reading import read_part
    from poolproof.audit.run import audit_pool
    from poolproof.audit.spec import AuditSpec

    gates = [parse_gate(text) for text in fail_if or []]
    check_rate(max_unreadable)
    spec = AuditSpec(
        pool=pool,
        out=out,
        real=real,
        synthetic=synthetic,
        embedder=embedder,
        detector=detector,
        match=match,
        sample=sample,
        level=level,
        labels=None if labels is None else str(labels),
        workers=workers,
        engine=engine,
        ray_address=ray_address,
        shards=shards,
        merge=merge,
        shard_size=shard_size,
        seed=seed,
    )
    if shards is not None:
        if gates:
            raise InputError(
                "--fail-if: got a condition with --shards, allowed where a report is written; give it with --merge"
            )
        _print_part(read_part(spec, progress=choose_progress(quiet=quiet)), out)
        return
    result = audit_pool(
        spec, command=shlex.join(["poolproof", *sys.argv[1:]]), progress=choose_progress(quiet=quiet)
    )
    _render(out)
    _print_audit(result, out)
    close_audit(result, gates, max_unreadable, junit=junit, summary=summary)


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
    _render(run)
    result = json.loads(folder.report.read_text("utf-8"))
    _print_audit(result, run)
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
    _render(out)
    share = result["share"]
    point = "not told" if share["point"] is None else _percent(share["point"])
    typer.echo(f"share    {point}  ({_percent(share['lower'])} to {_percent(share['upper'])})")
    if share["why"]:
        typer.echo(f"         {share['why']}")
    typer.echo(f"truth    {_percent(result['truth'])}")
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


def _render(run: Path) -> None:
    from poolproof.audit.report import render_report
    from poolproof.audit.run_folder import RunFolder

    plan = RunFolder(run).plan()

    def read_images(rows: Sequence[int]) -> Mapping[int, bytes | None]:
        return {row: data if isinstance(data, bytes) else None for row, data in plan.read_rows(rows)}

    render_report(run, read_images=read_images)


def _print_audit(report: dict[str, Any], out: Path) -> None:
    pool, share, tiers = report["pool"], report["share"], report["tiers"]
    if share is None:
        typer.echo(f"share       cannot be told: {report['why']}")
    else:
        limits = (
            f"{_percent(share['lower'])} to {_percent(share['upper'])}, {100 * share['level']:g} % interval"
        )
        point = _percent(share["point"]) if share["point"] is not None else "not told"
        typer.echo(f"share       {point}  ({limits})")
        if share["why"]:
            typer.echo(f"            {share['why']}")
    for line in _label_lines(report.get("labels")):
        typer.echo(line)
    typer.echo(
        "evidence    " + ", ".join(f"{tiers[t]['count']} {t}" for t in ("signed", "declared", "marked"))
    )
    if tiers["detected"]["count"] is not None:
        typer.echo(
            f"            {tiers['detected']['count']} flagged by the {tiers['detected']['detector']} detector"
        )
    for line in _check_lines(report["checks"]):
        typer.echo(line)
    counts = ", ".join(f"{n} {status}" for status, n in pool["status"].items() if n)
    typer.echo(f"items       {pool['audited']} of {pool['items']}: {counts}")
    for note in report["notes"]:
        typer.echo(f"note        {note}")
    typer.echo(f"report      {out / 'report.html'}")


def _label_lines(labels: Mapping[str, Any] | None) -> list[str]:
    """What people said, and what more of it is worth."""
    if labels is None:
        return []
    real, worst = labels["n"] - labels["synthetic"], labels["worst_case"]
    lines = [f"labels      {labels['synthetic']} synthetic, {real} real, {labels['unsure']} unsure"]
    if labels["unsure"]:
        between = f"{_percent(worst['lower'])} to {_percent(worst['upper'])}"
        lines.append(f"            whatever the unsure are: {between}")
    if labels["hits_real"]:
        lines.append(
            f"            {labels['hits_real']} labelled real are signed, declared or marked synthetic"
        )
    return [*lines, f"            {labels['plan']['words']}"]


def _print_part(done: Progressed, out: Path) -> None:
    counts = ", ".join(
        f"{len(shards)} shards of {done.items[role]} items of the {role if role == 'pool' else f'{role} reference'}"
        for role, shards in done.shards.items()
    )
    typer.echo(f"part        {done.part.number} of {done.part.of}: {counts}")
    if done.missing:
        n = sum(map(len, done.missing.values()))
        typer.echo(
            f"left        {n} shards of other parts; when they are done, the same command with --merge reports"
        )
    else:
        typer.echo(
            f"left        nothing; the same command with --merge in place of --shards reports on {out}"
        )


def _check_lines(checks: dict[str, Any]) -> list[str]:
    """What the checks before the share found, the remarkable alone."""
    lines = []
    files, alarm, matched = checks["files"], checks["alarm"], checks["matched"]
    if files is not None:
        verdicts = [match["verdict"] for match in files["comparable"].values() if match is not None]
        confounded = files["confounding"] is not None and files["confounding"]["verdict"] == "confounded"
        if confounded or "incomparable" in verdicts or files["pool_unmatched"] > 0.1:
            lines += [f"files       {words}" for words in files["words"]]
    if matched is not None and matched["share"] is not None:
        share = matched["share"]
        lines.append(
            f"            made alike ({matched['target']}): {_percent(share['lower'])} to {_percent(share['upper'])}"
        )
    if alarm is not None and alarm["fires"]:
        lines.append(f"scores      {alarm['words']}")
    return lines


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


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
