"""Fields of a report by path: `share.lower`, `estimates[melded].lower`, `groups.rows[by=source,name=web].upper`.

A path is names with dots between. Brackets pick rows of a list: `[0]` by place, `[name=web]` by what they hold (more
than one with commas), `[web]` by their `name` or `method`, `[*]` all of them; or a name of an object that is no plain
word, `formats["image/x"]`. Words in brackets may stand in quotes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from poolproof.errors import InputError

_STEP: Final = re.compile(r"""\.?([\w\-]+)|\[((?:"[^"]*"|'[^']*'|[^\]"'])*)\]|(\.|$)""")
_WORD: Final = r"""("[^"]*"|'[^']*'|[^,="'\s](?:[^,="']*[^,="'\s])?)"""
_CONDITION: Final = re.compile(rf"\s*([A-Za-z_]\w*)\s*=\s*{_WORD}\s*")
_SHORT: Final = ("name", "method")
_COUNTS: Final = ("formats", "reasons", "tiers.marked.payloads", "tiers.declared.tools")
"""Objects that hold only what was met: what is not there was counted 0 times."""
_SHOWN: Final = 12


@dataclass(frozen=True)
class Step:
    """One step of a path: a name, or what stands between brackets."""

    name: str
    brackets: bool = False


@dataclass(frozen=True)
class Found:
    """A value that a path leads to.

    Attributes:
        path: how it was reached.
        value: the value, None where it is not told.
        why: why there is none, beginning with a colon; empty where the report does not say.
    """

    path: str
    value: Any
    why: str = ""


def split_path(path: str) -> list[Step]:
    """The steps of a path.

    Raises:
        InputError: a step is empty, or a bracket is not closed.
    """
    steps, at = [], 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise InputError(f"{path!r} is no path of a field; write names with dots, rows in brackets")
        name, brackets, empty = match.groups()
        if empty is not None:
            raise InputError(f"no field '' in the report; {path!r} ends in, or doubles, a dot")
        if name is not None and at > 0 and not match.group().startswith("."):
            raise InputError(f"{path!r} is no path of a field; a dot is missing before {name!r}")
        steps.append(Step(name) if name is not None else Step(brackets.strip(), brackets=True))
        at = match.end()
    return steps


def find_values(path: str, report: Mapping[str, Any]) -> list[Found]:
    """The values that a path leads to; more than one where it names several rows.

    What lies below a null is None, and so is what lies in a row that is not there.

    Raises:
        InputError: a name is not in the report.
    """
    found = [Found("", report)]
    for step in split_path(path):
        found = [following for each in found for following in _follow(each, step, report)]
    return found


def _follow(at: Found, step: Step, report: Mapping[str, Any]) -> Iterator[Found]:
    value = at.value
    if value is None:
        yield replace(at, path=f"{at.path}[{step.name}]" if step.brackets else f"{at.path}.{step.name}")
    elif isinstance(value, Mapping):
        yield _member(at, _unquote(step.name), report)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if not step.brackets:
            raise InputError(
                f"no field {step.name!r} in the report; {at.path} is a list, name rows in brackets: "
                f"{at.path}[*].{step.name}"
            )
        yield from _rows(at, step.name)
    else:
        raise InputError(f"no field {step.name!r} in the report; there are none in {at.path}")


def _member(at: Found, name: str, report: Mapping[str, Any]) -> Found:
    path = f"{at.path}.{name}" if at.path else name
    if name in at.value:
        why = at.value.get(f"{name}_why", at.value.get("why")) if at.value[name] is None else None
        return Found(path, at.value[name], f": {why}" if isinstance(why, str) and name != "why" else "")
    if at.path in _COUNTS:
        return Found(path, 0)
    known = list(at.value)
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    raise InputError(
        f"no field {name!r} in the report; there are {shown or 'none'}{_nearest(path, name, report)}"
    )


def _rows(at: Found, brackets: str) -> Iterator[Found]:
    rows, chosen = at.value, []
    if brackets == "*":
        chosen = list(enumerate(rows))
    elif re.fullmatch(r"-?\d+", brackets):
        place = int(brackets)
        chosen = [(place, rows[place])] if -len(rows) <= place < len(rows) else []
    else:
        wanted = _conditions(brackets, at)
        chosen = [(i, row) for i, row in enumerate(rows) if _meets(row, wanted)]
    if not chosen:
        names = [str(row[key]) for row in rows if isinstance(row, Mapping) for key in _SHORT if key in row]
        there = f"rows are {', '.join(names[:_SHOWN])}" if names else f"it has {len(rows)} rows"
        near = difflib.get_close_matches(_unquote(brackets.rpartition("=")[2].strip()), names, n=1)
        nearest = f"; the nearest is {near[0]}" if near else ""
        yield Found(f"{at.path}[{brackets}]", None, f": no such row; {there}{nearest}")
    for place, row in chosen:
        yield Found(f"{at.path}[{place if brackets == '*' or len(chosen) > 1 else brackets}]", row)


def _conditions(brackets: str, at: Found) -> list[tuple[tuple[str, ...], str]]:
    """Names, any of which may hold the text, and the text."""
    known = {name for row in at.value if isinstance(row, Mapping) for name in row}
    wanted = []
    for part in re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""", brackets):
        match = _CONDITION.fullmatch(part)
        if match is None:
            wanted.append((_SHORT, _unquote(part.strip())))
            continue
        if known and match.group(1) not in known:
            raise InputError(
                f"no field {match.group(1)!r} in the rows of {at.path}; there are {', '.join(sorted(known))}"
            )
        wanted.append(((match.group(1),), _unquote(match.group(2))))
    return wanted


def _meets(row: Any, wanted: list[tuple[tuple[str, ...], str]]) -> bool:
    if not isinstance(row, Mapping):
        return False
    return all(any(name in row and _text(row[name]) == text for name in names) for names, text in wanted)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _nearest(path: str, name: str, report: Mapping[str, Any]) -> str:
    """The paths of the report that are most like one that is not there, in words."""
    known = list(_paths(report, ""))
    same = [each for each in known if each.rpartition(".")[2] == name]
    near = [*same, *difflib.get_close_matches(path, known, n=3, cutoff=0.7)]
    return f"; did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else ""


def _paths(value: Any, path: str) -> Iterator[str]:
    """The paths of all fields; of lists, those of all rows."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            below = f"{path}.{name}" if path else name
            yield below
            yield from _paths(each, below)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield from _paths(value[0], f"{path}[*]")
