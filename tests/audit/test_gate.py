"""Gates are read from a small grammar, and what could not be told does not pass."""

from __future__ import annotations

import math
import operator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poolproof.audit.gate import (
    DIFF_FIELDS,
    Gate,
    Limit,
    Verdict,
    closed_because,
    judge,
    parse_gate,
    unreadable_rate,
)
from poolproof.audit.gate_path import find_values, split_path
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
    assert isinstance(again.limit, float)
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


ROWS: dict[str, Any] = {
    "why": None,
    "estimates": [
        {"method": "melded", "lower": 0.1, "upper": 0.3},
        {"method": "melded-lower", "lower": 0.05, "upper": 1.0},
    ],
    "groups": {
        "rows": [
            {"by": "source", "name": "web", "upper": 0.6},
            {"by": "source", "name": "a, b", "upper": 0.2},
            {"by": "format", "name": "web", "upper": 0.4},
        ]
    },
    "checks": {"alarm": {"fires": True}, "matched": None, "alarm_why": None},
    "generators": None,
    "admissible": {"verdict": "not admissible"},
    "formats": {"JPEG": 5},
    "tiers": {"marked": {"payloads": {}}},
    "notes": ["one", "two"],
    "share": {"point": None, "why": "real references alone allow a lower bound"},
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("estimates[melded].lower > 0.05", "estimates[melded].lower is 0.1"),
        ("estimates[method=melded-lower].upper >= 1", "estimates[method=melded-lower].upper is 1"),
        ("estimates[0].upper < 0.5", "estimates[0].upper is 0.3"),
        ("estimates[*].upper > 0.9", "estimates[1].upper is 1"),
        ("groups.rows[name=web].upper > 0.5", "groups.rows[0].upper is 0.6"),
        ("groups.rows[by=format,name=web].upper > 0.3", "groups.rows[by=format,name=web].upper is 0.4"),
        ("groups.rows[name='a, b'].upper > 0.1", "groups.rows[name='a, b'].upper is 0.2"),
        (
            "checks.alarm.fires == true",
            "checks.alarm.fires is true, and the gate is checks.alarm.fires == true",
        ),
        ("checks.alarm.fires != false", "checks.alarm.fires is true"),
        ('admissible.verdict == "not admissible"', 'admissible.verdict is "not admissible"'),
        ("admissible.verdict != 'admissible'", 'admissible.verdict is "not admissible"'),
        ("notes[1] == 'two'", 'notes[1] is "two"'),
        ('formats["JPEG"] > 4', "formats.JPEG is 5"),
        ("share.point > 0", "share.point could not be told: real references alone allow a lower bound"),
        ("generators.rows[name=x].known.x > 1", "could not be told"),
        ("estimates[meldid].lower > 0", "no such row; rows are melded, melded-lower; the nearest is melded"),
        ("estimates[7].lower > 0", "estimates[7].lower could not be told: no such row"),
        (
            "groups.rows[*].upper > 0.3",
            "groups.rows[0].upper is 0.6, and the gate is groups.rows[*].upper > 0.3, and 1 more",
        ),
    ],
)
def test_any_field_can_close_a_gate(text: str, reason: str) -> None:
    """Rows of lists, truth values and words are reached, and the reason says what was found."""
    found = closed_because(parse_gate(text), ROWS)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    "text",
    [
        "estimates[melded].lower > 0.5",
        "groups.rows[by=source].upper > 0.6",
        "checks.alarm.fires == false",
        "admissible.verdict == 'admissible'",
        "formats.WEBP > 0",
        "tiers.marked.payloads.StableDiffusionV1 > 0",
        'formats["image/x"] > 0',
    ],
)
def test_what_does_not_hold_is_open(text: str) -> None:
    """Conditions that do not hold let pass; what was never met was counted 0 times."""
    assert closed_because(parse_gate(text), ROWS) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "checks.alrm.fires == true",
            "no field 'alrm' in the report; there are alarm, matched, alarm_why; did you mean",
        ),
        ("estimates.lower > 0", "estimates is a list, name rows in brackets: estimates[*].lower"),
        ("estimates[nme=melded].lower > 0", "no field 'nme' in the rows of estimates"),
        ("estimates[melded].lowr > 0", "no field 'lowr'"),
        ("checks.fires == true", "did you mean checks.alarm.fires"),
        ("checks.alarm.fires > 0", "checks.alarm.fires is bool, not a number"),
        ("admissible.verdict == true", "admissible.verdict is str, not true or false"),
        ("estimates[melded].lower == 'x'", "estimates[melded].lower is float, not text"),
        ("checks.alarm == true", "checks.alarm is dict, not true or false"),
    ],
)
def test_mistyped_fields_name_the_nearest(text: str, words: str) -> None:
    """An unknown field is bad input, and the message says what there is."""
    with pytest.raises(InputError, match="--fail-if") as caught:
        closed_because(parse_gate(text), ROWS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("checks.alarm.fires > true", "only == and != compare with true"),
        ("admissible.verdict >= 'x'", "only == and != compare with true"),
        ("shares.lower > 1", "did you mean share"),
        ("share.lower == null", "not a condition"),
        ("share.lower == yes", "not a condition"),
        ("estimates[melded.lower > 1", "not a condition"),
        ("estimates[0]lower > 1", "a dot is missing before 'lower'"),
        ("share..lower > 1", "doubles, a dot"),
        (r'admissible.verdict == "\x"', "JSON's quotes"),
    ],
)
def test_conditions_that_cannot_be_read_say_why(text: str, words: str) -> None:
    """Each kind of mistake has its own words."""
    with pytest.raises(InputError, match="--fail-if") as caught:
        parse_gate(text)
    assert words in str(caught.value)


@pytest.mark.property
@given(
    limit=st.one_of(st.booleans(), st.text(st.characters(codec="utf-8"), max_size=20)),
    comparison=st.sampled_from(["==", "!="]),
)
def test_gates_on_words_are_read_from_their_own(limit: Limit, comparison: str) -> None:
    """Truth values and any text survive being written and read."""
    gate = Gate("admissible.verdict", comparison, limit)
    assert parse_gate(str(gate)) == gate


@pytest.mark.property
@given(path=st.text(max_size=30))
def test_any_text_is_a_path_or_bad_input(path: str) -> None:
    """No path makes the reader fail in another way."""
    try:
        steps = split_path(path)
    except InputError:
        return
    assert bool(steps) == bool(path)
    try:
        found = find_values(path, ROWS)
    except InputError:
        return
    assert found


def test_every_gate_is_judged() -> None:
    """Each gate gets its verdict, in order."""
    gates = [parse_gate("estimates[melded].lower > 0.5"), parse_gate("estimates[melded].lower > 0.05")]
    first, second = judge(gates, ROWS)
    assert first == Verdict("estimates[melded].lower > 0.5", None)
    assert second.reason is not None


def test_the_fields_of_another_report() -> None:
    """A comparison has its own fields."""
    assert parse_gate("share.difference.lower > 0.02", DIFF_FIELDS).field == "share.difference.lower"
    with pytest.raises(InputError, match="no field 'estimates"):
        parse_gate("estimates[melded].lower > 0", DIFF_FIELDS)
