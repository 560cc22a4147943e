"""How a command ends: gates, JUnit XML, step summary, exit code. Heavy packages load inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.errors import InputError

if TYPE_CHECKING:
    from poolproof.audit.gate import Gate, Verdict

EXIT_GATE, EXIT_UNREADABLE = 3, 4

FailIf = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Exit with 3 where a condition on the report holds, such as 'share.lower > 0.05'. Repeatable.",
    ),
]
MaxUnreadable = Annotated[
    float,
    typer.Option(
        metavar="RATE", help="Exit with 4 where more than this rate of items is unreadable or missing."
    ),
]
Junit = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write what came of the gates as JUnit XML.")
]
Summary = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a summary in Markdown. Without it one is appended to the file that GITHUB_STEP_SUMMARY names.",
    ),
]


def check_rate(max_unreadable: float) -> None:
    """Raises InputError for a rate out of range."""
    if not 0 <= max_unreadable <= 1:
        raise InputError(f"--max-unreadable is {max_unreadable}; it must lie between 0 and 1")


def close_audit(
    report: dict[str, Any],
    gates: Sequence[Gate],
    max_unreadable: float,
    *,
    junit: Path | None = None,
    summary: Path | None = None,
) -> None:
    """Writes what came of an audit's gates, and exits with 3 or 4 where one is closed.

    Raises:
        InputError: a gate asks for a field that the report has not.
    """
    from poolproof.audit.gate import judge, unreadable_rate
    from poolproof.audit.junit import Case, gate_cases, write_junit
    from poolproof.audit.step_summary import audit_summary

    verdicts, rate = judge(gates, report), unreadable_rate(report)
    too_many = None
    if rate > max_unreadable:
        too_many = f"too many unreadable: {rate:.2%} of the items, allowed are {max_unreadable:.2%}"
    if junit is not None:
        pool = report["pool"]
        counted, audited = sum(pool["status"].values()), pool["audited"]
        lost = None if counted == audited else f"statuses add up to {counted}, audited are {audited}"
        cases = [
            *gate_cases(verdicts),
            Case(f"at most {max_unreadable:.2%} unreadable or missing", too_many, "unreadable"),
            Case("every item is accounted for", lost, "accounting"),
        ]
        write_junit(junit, f"audit of {pool['path']}", cases, seconds=report["manifest"]["seconds"])
    _summarise(audit_summary(report, verdicts, unreadable=rate, allowed=max_unreadable), summary)
    if too_many is not None:
        typer.echo(too_many, err=True)
        raise typer.Exit(EXIT_UNREADABLE)
    _close(verdicts)


def close_diff(
    found: dict[str, Any], gates: Sequence[Gate], *, junit: Path | None = None, summary: Path | None = None
) -> None:
    """Writes what came of a comparison's gates, and exits with 3 where one is closed.

    Raises:
        InputError: a gate asks for a field that the comparison has not.
    """
    from poolproof.audit.gate import judge
    from poolproof.audit.junit import Case, gate_cases, write_junit
    from poolproof.audit.step_summary import diff_summary

    verdicts = judge(gates, found)
    if junit is not None:
        suite = f"change from {found['a']['path']} to {found['b']['path']}"
        why = None if found["comparable"]["verdict"] else found["comparable"]["why"]
        write_junit(
            junit, suite, [*gate_cases(verdicts), Case("the runs can be compared", why, "comparable")]
        )
    _summarise(diff_summary(found, verdicts), summary)
    _close(verdicts)


def _summarise(text: str, path: Path | None) -> None:
    """Writes the summary where it was asked for, or appends it where a service reads it."""
    from poolproof.audit.step_summary import SUMMARY_VARIABLE, write_summary

    place = os.environ.get(SUMMARY_VARIABLE)
    if path is not None:
        write_summary(path, text, append=False)
    elif place:
        write_summary(Path(place), text, append=True)


def _close(verdicts: Sequence[Verdict]) -> None:
    reasons = [each.reason for each in verdicts if each.reason is not None]
    for reason in reasons:
        typer.echo(f"gate closed: {reason}", err=True)
    if reasons:
        raise typer.Exit(EXIT_GATE)
