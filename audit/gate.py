"""Gates for continuous integration: a condition on a field of the report that closes the run."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from poolproof.errors import InputError

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

_FORM: Final = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|==|!=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")

_TOP: Final = ("pool", "share", "tiers", "references", "set", "admissible", "manifest", "schema_version")


@dataclass(frozen=True)
class Gate:
    """A condition such as `share.lower > 0.05`; where it holds, the gate is closed."""

    field: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.field} {self.comparison} {self.limit:.15g}"


def parse_gate(text: str) -> Gate:
    """The gate that a condition describes.

    Raises:
        InputError: it is not of the form FIELD OPERATOR NUMBER, or no report has such a field.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(
            f"--fail-if {text!r}: not a condition; write FIELD OPERATOR NUMBER, as in 'share.lower > 0.05', "
            f"with one of {', '.join(_OPERATORS)}"
        )
    field, comparison, number = match.groups()
    try:
        limit = float(number)
    except ValueError as error:
        raise InputError(f"--fail-if {text!r}: {number!r} is not a number") from error
    if field.partition(".")[0] not in _TOP:
        raise InputError(
            f"--fail-if {text!r}: no field {field!r} in a report; fields begin with {', '.join(_TOP)}"
        )
    return Gate(field, comparison, limit)


def closed_because(gate: Gate, report: Mapping[str, Any]) -> str | None:
    """Why the gate is closed, or None where it is open.

    A figure that is withheld closes the gate: what could not be told has not passed.

    Raises:
        InputError: the field is not in the report, or is no number.
    """
    value: Any = report
    for name in gate.field.split("."):
        if value is None:
            break
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "none"
            raise InputError(f"--fail-if '{gate}': no field {name!r} in the report; there are {known}")
        value = value[name]
    if value is None:
        return f"{gate.field} could not be told"
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise InputError(f"--fail-if '{gate}': {gate.field} is {type(value).__name__}, not a number")
    holds = _OPERATORS[gate.comparison](value, gate.limit)
    return f"{gate.field} is {value:.6g}, and the gate is {gate}" if holds else None


def unreadable_rate(report: Mapping[str, Any]) -> float:
    """The rate of audited items that are unreadable or missing."""
    pool = report["pool"]
    return (pool["status"]["unreadable"] + pool["status"]["missing"]) / pool["audited"]
