"""Summaries in Markdown: the figures are there, and names of strangers are nothing but text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolproof.audit.gate import Verdict
from poolproof.audit.step_summary import audit_summary, code, plain, write_summary

VERDICTS = (Verdict("share.lower > 0.9", None), Verdict("share.upper > 0.1", "share.upper is 0.3478"))
HOSTILE = (
    "x|y](http://evil) ![i](//e) <script>alert(1)</script> `c` **b** @team https://e.org www.e.org\n# h\n- l"
)


def read(run: Any) -> dict[str, Any]:
    """The report of a run."""
    return json.loads((run.path / "report.json").read_text("utf-8"))


@pytest.mark.parametrize("kind", ["both-references", "real-only", "no-references", "nothing-scored"])
def test_every_kind_of_run_has_a_summary(make_run: Callable[[str], Any], kind: str) -> None:
    """Share with interval or the reason, evidence, gates and checks are in it."""
    report = read(make_run(kind))
    text = audit_summary(report, VERDICTS, unreadable=0.02, allowed=0.01)
    told = {"both-references": "**30.2", "real-only": "**Not told**", "no-references": "**Not told**"}
    assert told.get(kind, "**Not told.** All 4 items") in text
    assert "| signed |" in text
    assert "| `share.lower > 0.9` | passed |" in text
    assert "| `share.upper > 0.1` | **closed**: share.upper is 0.3478 |" in text
    assert "**failed**" in text
    assert "items were audited" in text


def test_names_of_strangers_stay_text(make_run: Callable[[str], Any]) -> None:
    """Markup, links, mentions and line breaks of a path or a note do nothing."""
    report = read(make_run("both-references"))
    report["pool"]["path"] = HOSTILE
    report["notes"] = [HOSTILE]
    report["share"]["why"] = HOSTILE
    text = audit_summary(report, [Verdict("share.why == '`|'", HOSTILE)], unreadable=0, allowed=0)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    for part in ("<script", "](", "https://", "http://", "@team", "www.e"):
        assert part not in outside
    assert not any(line.startswith(("# h", "- l")) for line in text.splitlines())


@pytest.mark.property
@given(text=st.text(max_size=60))
def test_plain_text_has_no_markup(text: str) -> None:
    """Nothing that Markdown reads as structure is left, and people see what was written."""
    words = plain(text)
    assert not set(re.sub(r"&#\d+;", "", words)) & set("|<>[]`*_~#!\\{}&@:$^\n\r")
    assert not re.match(r"[-+=0-9.]", words)
    if text.isascii() and text.isprintable() and len(text) < 60:
        assert html.unescape(words).replace("\u200b", "") == " ".join(text.split())


@pytest.mark.property
@given(text=st.text(st.sampled_from("`|a \n\\<"), max_size=30))
def test_code_spans_hold_their_text(text: str) -> None:
    """The fence is longer than any run of backticks inside, on one line, and no bar ends a table's cell."""
    words = code(text)
    assert "\n" not in words
    assert re.search(r"(?<!\\)\|", words) is None
    if words:
        fence = re.match("`+", words)
        assert fence is not None
        inner = words[len(fence[0]) : -len(fence[0])]
        assert all(len(run) < len(fence[0]) for run in re.findall("`+", inner))


def test_a_summary_is_appended_or_written_anew(tmp_path: Path) -> None:
    """What other steps wrote stays where it is asked to, with a line between."""
    path = tmp_path / "new" / "summary.md"
    write_summary(path, "one\n", append=True)
    write_summary(path, "two \udc80\n", append=True)
    assert path.read_text("utf-8") == "\none\n\ntwo \\udc80\n"
    write_summary(path, "three\n", append=False)
    assert path.read_text("utf-8") == "three\n"
