"""What came of a run's gates as JUnit XML, which services for continuous integration show as tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from poolproof.audit.gate import Verdict
from poolproof.files import replace_file
from poolproof.page import visible


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: what was tested.
        failure: why it failed, None where it passed.
        kind: of the failure, one word.
    """

    name: str
    failure: str | None
    kind: str


def gate_cases(verdicts: Sequence[Verdict]) -> list[Case]:
    """A case for each gate.

    >>> gate_cases([Verdict("share.lower > 0.1", None)])[0].name
    'gate: share.lower > 0.1'
    """
    return [Case(f"gate: {each.gate}", each.reason, "gate") for each in verdicts]


def write_junit(path: Path, suite: str, cases: Sequence[Case], *, seconds: float | int = 0.0) -> None:
    """Writes the cases as one test suite; text is escaped, and what XML has no characters for is spelt out.

    Args:
        path: of the file; its folder is made if needed.
        suite: name of the suite.
        cases: what was tested.
        seconds: that the run took.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.failure is not None for case in cases)),
        "errors": "0",
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "poolproof", **counts})
    element = ElementTree.SubElement(root, "testsuite", {"name": _text(suite), **counts})
    for case in cases:
        found = ElementTree.SubElement(
            element, "testcase", {"name": _text(case.name), "classname": _text(suite), "time": "0.000"}
        )
        if case.failure is not None:
            words = _text(case.failure)
            failure = ElementTree.SubElement(found, "failure", {"message": words, "type": case.kind})
            failure.text = words
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _text(text: str) -> str:
    return visible(" ".join(text.split()))
