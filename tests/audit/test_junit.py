"""JUnit XML that any reader takes, whatever the names hold."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolproof.audit.gate import Verdict
from poolproof.audit.junit import Case, gate_cases, write_junit

HOSTILE = "a\x00b\x1b[31m <x y='z'>&amp; ]]> \ud800 \ufffe \u202e\n\"q\""


def test_cases_and_counts(tmp_path: Path) -> None:
    """One test case a gate; the counts are those of the cases, and failures carry the reason."""
    verdicts = [Verdict("share.lower > 0.1", None), Verdict("share.upper > 0.2", "share.upper is 0.3")]
    path = tmp_path / "new" / "junit.xml"
    write_junit(
        path, "audit of p", [*gate_cases(verdicts), Case("accounted for", None, "accounting")], seconds=1.5
    )
    root = ElementTree.parse(path).getroot()
    suite = root.find("testsuite")
    assert root.tag == "testsuites"
    assert suite is not None
    for element in (root, suite):
        assert [element.get(name) for name in ("tests", "failures", "errors", "skipped", "time")] == [
            "3", "1", "0", "0", "1.500",
        ]  # fmt: skip
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        "gate: share.lower > 0.1", "gate: share.upper > 0.2", "accounted for",
    ]  # fmt: skip
    assert all(case.get("classname") == "audit of p" and case.get("time") for case in cases)
    failures = [case.find("failure") for case in cases]
    assert failures[0] is None
    assert failures[2] is None
    assert failures[1] is not None
    assert failures[1].get("message") == failures[1].text == "share.upper is 0.3"
    assert failures[1].get("type") == "gate"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Markup is escaped, and characters that XML forbids or that redirect others are spelt out."""
    path = tmp_path / "junit.xml"
    write_junit(path, HOSTILE, [Case(HOSTILE, HOSTILE, "gate")])
    case = ElementTree.parse(path).getroot().find("testsuite/testcase")
    assert case is not None
    name = case.get("name") or ""
    assert name == "a\\x00b\\x1b[31m <x y='z'>&amp; ]]> \\ud800 \\ufffe \\u202e \"q\""
    assert b"\x1b" not in path.read_bytes()


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_is_well_formed(tmp_path: Path, text: str) -> None:
    """Whatever the text, the file is XML with one case."""
    path = tmp_path / "junit.xml"
    write_junit(path, text, [Case(text, text, "gate")])
    assert len(ElementTree.parse(path).getroot().findall("testsuite/testcase/failure")) == 1
