"""Gates are read from a small grammar, and what could not be told does not pass."""

from __future__ import annotations

import math
import operator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poolproof.audit.gate import Gate, closed_because, parse_gate, unreadable_rate
from poolproof.errors import InputError

REPORT: dict[str, Any] = {
    "schema_version": 1,
    "pool": {
        "path": "p",
        "items": 100,
        "audited": 80,
        "status": {"unreadable": 3, "missing": 1, "scored": 76},
    },
    "share": {"point": None, "lower": 0.04, "upper": 0.2, "why": None},
    "tiers": {"marked": {"count": 2, "payloads": {}}},
    "set": None,
    "admissible": {"verdict": True},
}

OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("share.lower > 0.05", Gate("share.lower", ">", 0.05)),
        ("share.lower>0.05", Gate("share.lower", ">", 0.05)),
        ("  tiers.marked.count  >=  1  ", Gate("tiers.marked.count", ">=", 1.0)),
        ("set.frechet_distance<=1e-3", Gate("set.frechet_distance", "<=", 0.001)),
        ("share.upper == .5", Gate("share.upper", "==", 0.5)),
        ("share.upper != -2", Gate("share.upper", "!=", -2.0)),
        ("pool.status.unreadable < +3E2", Gate("pool.status.unreadable", "<", 300.0)),
    ],
)
def test_conditions_are_read(text: str, expected: Gate) -> None:
    """Field, operator and number are told apart with and without spaces."""
    assert parse_gate(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "share.lower",
        "share.lower >",
        "> 0.05",
        "share.lower = 0.05",
        "share.lower => 0.05",
        "share.lower > x",
        "share.lower > 1.2.3",
        "share.lower > .",
        "share.lower > nan",
        "share.lower > 5%",
        "share.lower > 0.05 > 0.01",
        "0.05 < share.lower",
        "share lower > 1",
        "nothing.lower > 1",
        "sharelower > 1",
        "__import__('os') > 1",
        "share.lower > 1; rm",
    ],
)
def test_other_text_is_refused_in_one_line(text: str) -> None:
    """The message repeats the condition and says what to write."""
    with pytest.raises(InputError, match="--fail-if") as caught:
        parse_gate(text)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.property
@given(
    field=st.from_regex(r"(share|tiers|pool)(\.[a-z_]{1,8}){0,3}", fullmatch=True),
    comparison=st.sampled_from(sorted(OPERATORS)),
    limit=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
def test_a_gate_is_read_from_its_own_words(field: str, comparison: str, limit: float) -> None:
    """What a gate is printed as reads as the same gate."""
    gate = Gate(field, comparison, limit)
    again = parse_gate(str(gate))
    assert (again.field, again.comparison) == (field, comparison)
    assert math.isclose(again.limit, limit, rel_tol=1e-14)


@pytest.mark.property
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    comparison=st.sampled_from(sorted(OPERATORS)),
    limit=st.floats(-1e6, 1e6),
)
def test_a_gate_closes_where_its_condition_holds(value: float, comparison: str, limit: float) -> None:
    """The six operators are those of arithmetic."""
    report = {"share": {"lower": value}}
    reason = closed_because(Gate("share.lower", comparison, limit), report)
    assert (reason is not None) == OPERATORS[comparison](value, limit)
    assume(reason is not None)
    assert "share.lower is" in str(reason)


def test_a_figure_that_was_withheld_closes_the_gate() -> None:
    """Null, or a field within a null, has not passed."""
    assert closed_because(parse_gate("share.point > 0.5"), REPORT) == "share.point could not be told"
    assert closed_because(parse_gate("set.precision < 0.5"), REPORT) == "set.precision could not be told"
    assert closed_because(parse_gate("share.lower > 0"), {"share": None}) == "share.lower could not be told"


def test_counts_and_open_gates() -> None:
    """Whole numbers are numbers; a condition that does not hold lets pass."""
    assert closed_because(parse_gate("tiers.marked.count > 1"), REPORT) is not None
    assert closed_because(parse_gate("tiers.marked.count > 2"), REPORT) is None
    assert closed_because(parse_gate("schema_version != 1"), REPORT) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("share.lowr > 0", "no field 'lowr' in the report; there are point, lower, upper, why"),
        ("share.lower.x > 0", "no field 'x'"),
        ("share. > 0", "no field ''"),
        ("references.real > 0", "no field 'references'"),
        ("pool.path > 0", "pool.path is str, not a number"),
        ("share > 0", "share is dict, not a number"),
        ("admissible.verdict == 1", "admissible.verdict is bool, not a number"),
    ],
)
def test_fields_that_are_not_numbers_are_refused(text: str, words: str) -> None:
    """A mistyped field is bad input, never a gate that is open."""
    with pytest.raises(InputError, match="--fail-if") as caught:
        closed_because(parse_gate(text), REPORT)
    assert words in str(caught.value)


def test_not_a_number_is_refused() -> None:
    """NaN compares with nothing, so it must not pass for open."""
    with pytest.raises(InputError, match="not a number"):
        closed_because(parse_gate("share.lower > 0"), {"share": {"lower": math.nan}})


def test_the_rate_of_unreadable_items() -> None:
    """Unreadable and missing items count, over those that were audited."""
    assert unreadable_rate(REPORT) == pytest.approx(4 / 80)
