"""The `poolproof audit` command, and how an audit's figures are printed. Heavy packages load inside."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.cli_gates import FailIf, Junit, MaxUnreadable, Summary, check_rate, close_audit
from poolproof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poolproof.audit.parts import Progressed


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
    render(out)
    print_audit(result, out)
    close_audit(result, gates, max_unreadable, junit=junit, summary=summary)


def render(run: Path) -> None:
    """Writes a run's page, with the images of its pool."""
    from poolproof.audit.report import render_report
    from poolproof.audit.run_folder import RunFolder

    plan = RunFolder(run).plan()

    def read_images(rows: Sequence[int]) -> Mapping[int, bytes | None]:
        return {row: data if isinstance(data, bytes) else None for row, data in plan.read_rows(rows)}

    render_report(run, read_images=read_images)


def print_audit(report: dict[str, Any], out: Path) -> None:
    """Prints an audit's figures."""
    pool, share, tiers = report["pool"], report["share"], report["tiers"]
    if share is None:
        typer.echo(f"share       cannot be told: {report['why']}")
    else:
        limits = (
            f"{percent(share['lower'])} to {percent(share['upper'])}, {100 * share['level']:g} % interval"
        )
        point = percent(share["point"]) if share["point"] is not None else "not told"
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
        between = f"{percent(worst['lower'])} to {percent(worst['upper'])}"
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
            f"            made alike ({matched['target']}): {percent(share['lower'])} to {percent(share['upper'])}"
        )
    if alarm is not None and alarm["fires"]:
        lines.append(f"scores      {alarm['words']}")
    return lines


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.1f} %"
