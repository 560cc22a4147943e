"""Results are remembered by their whole content, damage is repaired, and nothing is mistaken for something else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.simulate.cache import default_cache, remember

CONTENT = {"method": "test/1", "cell": {"n": 3, "bias": 0.1}}
RESULT = {"value": 0.5, "why": None}


def never() -> Any:
    """Stands for a computation that must not run."""
    pytest.fail("computed again")


def counting(result: Any) -> tuple[Callable[[], Any], list[int]]:
    """A computation with this result, and a list that grows with each call."""
    calls: list[int] = []

    def compute() -> Any:
        calls.append(len(calls))
        return result

    return compute, calls


def test_same_content_computes_once(tmp_path: Path) -> None:
    """The second call reads what the first one wrote, in whatever order the content's keys stand."""
    assert remember(tmp_path, CONTENT, lambda: RESULT) == RESULT
    assert remember(tmp_path, dict(reversed(CONTENT.items())), never) == RESULT


@pytest.mark.parametrize("result", [None, False, 0, "", [], {}, 0.1 + 0.2, [1, None, "a"]])
def test_any_json_value_is_remembered(tmp_path: Path, result: object) -> None:
    """Empty and missing values count as results, and floats come back exactly."""
    assert remember(tmp_path, CONTENT, lambda: result) == result
    assert remember(tmp_path, CONTENT, never) == result


def test_file_says_what_it_holds(tmp_path: Path) -> None:
    """One file, in a folder that is made, holds content and result as JSON; no temporary file stays."""
    folder = tmp_path / "deep" / "cache"
    remember(folder, CONTENT, lambda: RESULT)
    [path] = [path for path in folder.rglob("*") if path.is_file()]
    assert path.suffix == ".json"
    assert json.loads(path.read_text("utf-8")) == {"content": CONTENT, "result": RESULT}


def test_none_remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder each call computes, and no file is written anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compute, calls = counting(RESULT)
    for _ in range(3):
        assert remember(None, CONTENT, compute) == RESULT
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def damages() -> dict[str, bytes]:
    """What a file of the cache may hold though it should not."""
    whole = json.dumps({"content": CONTENT, "result": RESULT}).encode()
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "words": b"not json",
        "no text": b"\xff\xfe\x00",
        "number": b"3",
        "null": b"null",
        "list": b"[" + whole + b"]",
        "text": json.dumps(whole.decode()).encode(),
        "no result": json.dumps({"content": CONTENT}).encode(),
        "no content": json.dumps({"result": RESULT}).encode(),
        "other content": json.dumps({"content": {"n": 4}, "result": 7}).encode(),
    }


@pytest.mark.parametrize("damage", damages())
def test_damage_is_repaired(tmp_path: Path, damage: str) -> None:
    """A file that does not hold the content's result is computed anew, and whole afterwards."""
    remember(tmp_path, CONTENT, lambda: RESULT)
    [path] = tmp_path.rglob("*.json")
    path.write_bytes(damages()[damage])
    compute, calls = counting({"value": 2})
    assert remember(tmp_path, CONTENT, compute) == {"value": 2}
    assert len(calls) == 1
    assert remember(tmp_path, CONTENT, never) == {"value": 2}


def test_failure_is_not_remembered(tmp_path: Path) -> None:
    """A computation that raises leaves nothing behind, so the next call computes."""

    def fail() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remember(tmp_path, CONTENT, fail)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert remember(tmp_path, CONTENT, lambda: RESULT) == RESULT


@pytest.mark.parametrize(
    "other",
    [
        {},
        {**CONTENT, "more": None},
        {**CONTENT, "method": "test/2"},
        {**CONTENT, "cell": {"n": 3, "bias": math.nextafter(0.1, 1)}},
        {**CONTENT, "cell": {"n": 3, "bias": "0.1"}},
        {**CONTENT, "cell": {"n": 3.0, "bias": 0.1}},
        {**CONTENT, "cell": {"n": True, "bias": 0.1}},
        {**CONTENT, "cell": [["n", 3], ["bias", 0.1]]},
    ],
)
def test_contents_do_not_collide(tmp_path: Path, other: dict[str, Any]) -> None:
    """Contents that differ in the least have results of their own."""
    assert remember(tmp_path, CONTENT, lambda: "first") == "first"
    assert remember(tmp_path, other, lambda: "second") == "second"
    assert remember(tmp_path, CONTENT, never) == "first"
    assert remember(tmp_path, other, never) == "second"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.1]) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(contents=st.lists(st.dictionaries(st.text(max_size=2), _JSON, max_size=2), max_size=5))
def test_each_content_has_its_own_result(
    tmp_path_factory: pytest.TempPathFactory, contents: list[dict[str, Any]]
) -> None:
    """Of any contents, each gives its own result and equal ones share it."""
    folder = tmp_path_factory.mktemp("cache")
    for content in contents * 2:
        text = json.dumps(content, sort_keys=True)
        assert remember(folder, content, lambda text=text: text) == text


def test_threads_may_share_a_folder(tmp_path: Path) -> None:
    """Threads that fill one folder at once all get their results, and leave whole files."""

    def ask(n: int) -> int:
        return remember(tmp_path, {"n": n}, lambda: n * n)

    with ThreadPoolExecutor(8) as workers:
        assert list(workers.map(ask, range(100))) == [n * n for n in range(100)]
        assert list(workers.map(ask, range(100))) == [n * n for n in range(100)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(json.loads(path.read_text())["result"] for path in files) == [n * n for n in range(100)]


def test_default_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder is under XDG_CACHE_HOME where that is set, and under ~/.cache where not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "poolproof"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (
        lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""),
        lambda: monkeypatch.delenv("XDG_CACHE_HOME"),
    ):
        unset()
        assert default_cache() == tmp_path / ".cache" / "poolproof"
    assert not (tmp_path / "xdg").exists()
