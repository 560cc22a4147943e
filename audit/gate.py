"""Gates for continuous integration: a condition on a field of a report that closes the run."""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from poolproof.audit.gate_path import Found, find_values, split_path
from poolproof.errors import InputError

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

_FIELD: Final = r"[A-Za-z_][\w.\-]*(?:\[(?:\"[^\"]*\"|'[^']*'|[^\]\"'])*\][\w.\-]*)*"
_NUMBER: Final = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_TEXT: Final = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_FORM: Final = re.compile(rf"\s*({_FIELD})\s*(>=|<=|==|!=|>|<)\s*({_NUMBER}|true|false|{_TEXT})\s*")

REPORT_FIELDS: Final = (
    "pool",
    "share",
    "tiers",
    "references",
    "set",
    "admissible",
    "manifest",
    "schema_version",
    "why",
    "labels",
    "estimates",
    "checks",
    "generators",
    "groups",
    "scores",
    "reasons",
    "formats",
    "notes",
)
"""What `report.json` holds at its top."""

DIFF_FIELDS: Final = (
    "share",
    "flags",
    "findings",
    "items",
    "status",
    "tiers",
    "scores",
    "settings",
    "comparable",
    "level",
    "a",
    "b",
    "notes",
    "schema_version",
)
"""What `diff.json` holds at its top."""

Limit = float | int | bool | str
"""What a field is compared with."""


@dataclass(frozen=True)
class Gate:
    """A condition such as `share.lower > 0.05`; where it holds, the gate is closed."""

    field: str
    comparison: str
    limit: Limit

    def __str__(self) -> str:
        return f"{self.field} {self.comparison} {_write(self.limit)}"


@dataclass(frozen=True)
class Verdict:
    """What came of one gate.

    Attributes:
        gate: the condition in words.
        reason: why it is closed, None where it is open.
    """

    gate: str
    reason: str | None


def parse_gate(text: str, fields: Sequence[str] = REPORT_FIELDS) -> Gate:
    """The gate that a condition describes.

    Args:
        text: FIELD OPERATOR VALUE. A field is a dotted path; rows of lists are named in brackets. A value is a
            number, true, false or text in quotes; the last three go with == and != alone.
        fields: what the report holds at its top.

    Raises:
        InputError: it is not of that form, or no report has such a field.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(
            f"--fail-if {text!r}: not a condition; write FIELD OPERATOR NUMBER, as in 'share.lower > 0.05', "
            f"with one of {', '.join(_OPERATORS)}, or compare by == or != with true, false or text in quotes"
        )
    field, comparison, written = match.groups()
    limit = _read(written, text)
    if isinstance(limit, bool | str) and comparison not in ("==", "!="):
        raise InputError(
            f"--fail-if {text!r}: {written} is not a number; only == and != compare with true, false and text"
        )
    try:
        top = split_path(field)[0].name
    except InputError as error:
        raise InputError(f"--fail-if {text!r}: {error}") from error
    if top not in fields:
        raise InputError(
            f"--fail-if {text!r}: no field {field!r} in a report; "
            f"fields begin with {', '.join(fields)}{_nearest(top, fields)}"
        )
    return Gate(field, comparison, limit)


def closed_because(gate: Gate, report: Mapping[str, Any]) -> str | None:
    """Why the gate is closed, or None where it is open.

    A figure that is withheld closes the gate: what could not be told has not passed. Neither has a row that is
    not there. Where several rows are meant, one that meets the condition closes the gate.

    Raises:
        InputError: the field is not in the report, or cannot be compared with what the gate asks for.
    """
    try:
        found = find_values(gate.field, report)
    except InputError as error:
        raise InputError(f"--fail-if '{gate}': {error}") from error
    reasons = [reason for each in found if (reason := _closed(gate, each)) is not None]
    if not reasons:
        return None
    return reasons[0] + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")


def judge(gates: Sequence[Gate], report: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """What comes of each gate.

    Raises:
        InputError: as `closed_because`.
    """
    return tuple(Verdict(str(gate), closed_because(gate, report)) for gate in gates)


def unreadable_rate(report: Mapping[str, Any]) -> float:
    """The rate of audited items that are unreadable or missing."""
    pool = report["pool"]
    return (pool["status"]["unreadable"] + pool["status"]["missing"]) / pool["audited"]


def _closed(gate: Gate, found: Found) -> str | None:
    value, wanted = found.value, _kind(gate.limit)
    if value is None:
        return f"{found.path} could not be told{found.why}"
    if _kind(value) != wanted or (isinstance(value, float) and math.isnan(value)):
        raise InputError(f"--fail-if '{gate}': {found.path} is {type(value).__name__}, not {wanted}")
    if not _OPERATORS[gate.comparison](value, gate.limit):
        return None
    words = f"{value:.6g}" if wanted == "a number" else _write(value)
    return f"{found.path} is {words}, and the gate is {gate}"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a single value"


def _read(written: str, text: str) -> Limit:
    if written in ("true", "false"):
        return written == "true"
    if written.startswith("'"):
        return written[1:-1]
    try:
        return json.loads(written) if written.startswith('"') else float(written)
    except ValueError as error:
        wanted = "text in JSON's quotes" if written.startswith('"') else "a number"
        raise InputError(f"--fail-if {text!r}: {written!r} is not {wanted}") from error


def _write(limit: Limit) -> str:
    return json.dumps(limit, ensure_ascii=False) if isinstance(limit, bool | str) else f"{limit:.15g}"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
