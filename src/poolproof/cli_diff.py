"""The `poolproof diff` command. Heavy packages load inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poolproof.cli_gates import FailIf, Junit, Summary, close_diff


def diff(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of the first audit.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the second audit.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write diff.json and changed.parquet there."),
    ] = None,
    level: Annotated[float, typer.Option(help="Confidence level of the limits.")] = 0.95,
    fail_if: FailIf = None,
    junit: Junit = None,
    summary: Summary = None,
) -> None:
    """Tell what changed from RUN_A to RUN_B: items, evidence, flags, and whether the share did.

    Gates are on fields of diff.json, such as 'share.difference.lower > 0.02'. Nothing in the runs is changed.
    """
    from poolproof.audit.diff import compare_runs, write_diff
    from poolproof.audit.gate import DIFF_FIELDS, parse_gate

    gates = [parse_gate(text, DIFF_FIELDS) for text in fail_if or []]
    found = compare_runs(run_a, run_b, level=level)
    if out is not None:
        write_diff(found, out)
    _print_diff(found.report)
    if out is not None:
        typer.echo(f"written     {out / 'diff.json'}, {out / 'changed.parquet'}")
    close_diff(found.report, gates, junit=junit, summary=summary)


def _print_diff(report: dict[str, Any]) -> None:
    share, items, flags = report["share"], report["items"], report["flags"]
    for side, name in (("a", "before"), ("b", "after")):
        typer.echo(f"{name:12}{_share(share[side])}")
    difference = share["difference"]
    if difference is None:
        typer.echo(f"change      cannot be told: {share['why']}")
    else:
        limits = (
            f"{_points(difference['lower'])} to {_points(difference['upper'])}, "
            f"{100 * difference['level']:g} % interval"
        )
        test = "" if difference["p_value"] is None else f", {_p_value(difference['p_value'])}"
        typer.echo(f"change      {_points(difference['point'])}  ({limits}{test}): {difference['verdict']}")
    typer.echo("items       " + ", ".join(f"{items[name]} {name}" for name in items if name != "common"))
    for name in ("status", "tiers"):
        changed = [
            f"{key} {each['a']} to {each['b']}" for key, each in report[name].items() if each["change"]
        ]
        typer.echo(f"{'evidence' if name == 'tiers' else name:12}{', '.join(changed) or 'the same counts'}")
    if flags["a"]["n"] and flags["b"]["n"]:
        rates = [f"{flags[side]['x']} of {flags[side]['n']}" for side in "ab"]
        test = "" if flags["p_value"] is None else f", {_p_value(flags['p_value'])}"
        typer.echo(f"flagged     {rates[0]} to {rates[1]}{test}")
    for setting in report["settings"]:
        typer.echo(f"setting     {setting['name']}: {setting['a']!r} to {setting['b']!r}")
    for note in report["notes"]:
        typer.echo(f"note        {note}")


def _share(share: dict[str, Any] | None) -> str:
    if share is None:
        return "cannot be told"
    point = "not told" if share["point"] is None else f"{100 * share['point']:.1f} %"
    return f"{point}  ({100 * share['lower']:.1f} % to {100 * share['upper']:.1f} %)"


def _p_value(value: float) -> str:
    """A p-value in words; the smallest are beyond what sums in double precision tell from 0."""
    return "p < 1e-15" if value < 1e-15 else f"p = {value:.2g}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"
