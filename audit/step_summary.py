"""A summary of a run in Markdown, for the page that a service for continuous integration shows of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from poolproof.audit.gate import Verdict
from poolproof.page import percent, shorten

SUMMARY_VARIABLE: Final = "GITHUB_STEP_SUMMARY"
"""Names the file that a step's summary is appended to."""

_LONGEST: Final = 400
_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ,;()%'\"\u0080-\U0010ffff]")
_LINKS: Final = re.compile(r"&#64;|&#58;(?=//)|(?i:www)(?=\.)")
_SAFE: Final = frozenset("-+=/.?")


def plain(text: str) -> str:
    """Text as Markdown that shows it and does nothing else: no markup, links or mentions, on one line.

    >>> plain("a|b <b> @team www.example.org")
    'a&#124;b &#60;b&#62; &#64;&#8203;team www&#8203;.example.org'
    """
    words = shorten(" ".join(text.split()), _LONGEST)
    words = _PLAIN.sub(lambda found: found[0] if found[0] in _SAFE else f"&#{ord(found[0])};", words)
    words = _LINKS.sub(lambda found: f"{found[0]}&#8203;", words)
    return re.sub(r"^([-+=/.?0-9])", lambda found: f"&#{ord(found[1])};", words)


def code(text: str) -> str:
    r"""Text as a code span, in which Markdown reads nothing; fit for a cell of a table.

    >>> code("a`b|c")
    '`` a`b\\|c ``'
    """
    words = shorten(" ".join(text.split()), _LONGEST).replace("|", "\\|")
    if not words:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    pad = " " if "`" in words else ""
    return f"{fence}{pad}{words}{pad}{fence}"


def audit_summary(
    report: Mapping[str, Any], verdicts: Sequence[Verdict], *, unreadable: float | int, allowed: float | int
) -> str:
    """The summary of an audit: share, evidence, gates and checks.

    Args:
        report: the content of `report.json`.
        verdicts: what came of the gates.
        unreadable: rate of unreadable and missing items.
        allowed: the highest rate that passes.
    """
    share, tiers, pool = report["share"], report["tiers"], report["pool"]
    lines = [
        f"## Share of synthetic images: {code(pool['path'])}",
        "",
        *_share_lines(share, report["why"]),
        "",
    ]
    lines += ["| evidence | images |", "|---|--:|"]
    lines += [f"| {name} | {tiers[name]['count']:,} |" for name in ("signed", "declared", "marked")]
    if tiers["detected"]["count"] is not None:
        detector = code(tiers["detected"]["detector"])
        lines.append(f"| flagged by the {detector} detector | {tiers['detected']['count']:,} |")
    counts = ", ".join(f"{n:,} {status}" for status, n in pool["status"].items() if n)
    lines += ["", f"{pool['audited']:,} of {pool['items']:,} items were audited: {counts}.", ""]
    lines += gate_lines(verdicts)
    lines += ["", "| check | |", "|---|---|"]
    passes = "passed" if unreadable <= allowed else "**failed**"
    lines.append(f"| unreadable or missing, at most {percent(allowed)} | {passes}: {percent(unreadable)} |")
    lines += [f"| {name} | {words} |" for name, words in _checks(report["checks"])]
    lines += ["", *(f"- {plain(note)}" for note in report["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def diff_summary(found: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """The summary of a comparison: change of the share, items, evidence and gates.

    Args:
        found: the content of `diff.json`.
        verdicts: what came of the gates.
    """
    lines = [f"## What changed from {code(found['a']['path'])} to {code(found['b']['path'])}", ""]
    difference = found["share"]["difference"]
    if difference is None:
        lines.append(f"**Change of the share: not told.** {plain(found['share']['why'])}")
    else:
        limits = f"{signed_percent(difference['lower'])} to {signed_percent(difference['upper'])}"
        lines.append(
            f"**Change of the share: {signed_percent(difference['point'])}** "
            f"({limits}, {100 * difference['level']:g} % interval): {plain(difference['verdict'])}."
        )
    for role in ("a", "b"):
        lines += ["", f"Share in {code(found[role]['path'])}:", "", *_share_lines(found["share"][role], None)]
    lines += ["", "| items | |", "|---|--:|"]
    lines += [
        f"| {name} | {found['items'][name]:,} |" for name in ("same", "moved", "changed", "added", "removed")
    ]
    lines += ["", "| evidence | before | after |", "|---|--:|--:|"]
    lines += [f"| {name} | {each['a']:,} | {each['b']:,} |" for name, each in found["tiers"].items()]
    lines += ["", *gate_lines(verdicts)]
    lines += ["", *(f"- {plain(note)}" for note in found["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def gate_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A table of gates and what came of them; one sentence where there are none."""
    if not verdicts:
        return ["No gates were set."]
    lines = ["| gate: closed where | |", "|---|---|"]
    for each in verdicts:
        outcome = "passed" if each.reason is None else f"**closed**: {plain(each.reason)}"
        lines.append(f"| {code(each.gate)} | {outcome} |")
    return lines


def write_summary(path: Path, text: str, *, append: bool) -> None:
    """Writes a summary, or appends it to what other steps wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w", encoding="utf-8", errors="backslashreplace") as handle:
        handle.write(f"\n{text}" if append else text)


def signed_percent(value: float | int | None) -> str:
    """A difference of shares in points of per cent, with its sign.

    >>> signed_percent(0.021), signed_percent(-0.5)
    ('+2.1 points', '-50.0 points')
    """
    return "not told" if value is None else f"{100 * value:+.1f} points"


def _share_lines(share: Mapping[str, Any] | None, why: str | None) -> list[str]:
    if share is None:
        return [f"**Not told.** {plain(why or 'not one item could be read')}"]
    limits = f"{percent(share['lower'])} to {percent(share['upper'])}, {100 * share['level']:g} % interval"
    point = "Not told" if share["point"] is None else percent(share["point"])
    return [f"**{point}** ({limits})", *(["", plain(share["why"])] if share["why"] else [])]


def _checks(checks: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names of the checks, and what each of them found."""
    files, alarm, matched = checks["files"], checks["alarm"], checks["matched"]
    found = []
    if files is not None:
        verdict = files["confounding"]["verdict"] if files["confounding"] is not None else "not tested"
        parts = [
            f"{role} {match['verdict']}" for role, match in files["comparable"].items() if match is not None
        ]
        found.append(("files alone tell the references apart", plain(verdict)))
        found.append(("references against the pool", plain(", ".join(parts)) or "not tested"))
    if alarm is not None:
        words = f"**failed**: {plain(alarm['words'])}" if alarm["fires"] else "passed"
        found.append(("the references explain the scores", words))
    elif checks["alarm_why"]:
        found.append(("the references explain the scores", f"not tested: {plain(checks['alarm_why'])}"))
    if matched is not None and matched["share"] is not None:
        share = matched["share"]
        found.append(
            ("with files made alike", f"{percent(share['lower'])} to {percent(share['upper'])} synthetic")
        )
    return found
