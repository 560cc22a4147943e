"""Files are replaced whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.files import hash_file, hash_json, replace_file, write_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Until the block ends the old file stands; then the new one does, and nothing else is left."""
    path = tmp_path / "a.json"
    path.write_text("old")
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # another file system could not be renamed from
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    """Where the block fails, even by Ctrl-C, no trace of the new file is left."""
    path = tmp_path / "a.json"
    path.write_text("old")

    def write() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    """A block that forgets to write does not remove the file."""
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replace_file(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """No folders are made."""
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "absent" / "a.json", {})
    assert not list(tmp_path.iterdir())


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """While another process replaces a file again and again, and is killed, each reading is whole."""
    path = tmp_path / "a.json"
    write_json(path, {"value": "0" * 200_000})
    program = (
        "import sys, pathlib; from poolproof.files import write_json\n"
        "for i in range(10**6): write_json(pathlib.Path(sys.argv[1]), {'value': str(i % 10) * 200_000})"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            value = json.loads(path.read_text("utf-8"))["value"]
            assert len(value) == 200_000
            assert len(set(value)) == 1
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(json.loads(path.read_text("utf-8"))["value"]) == 200_000


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(JSON_VALUES)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    """Any JSON value is read as it was written, and the file ends with a line break."""
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value
    assert path.read_bytes().endswith(b"\n")


def test_names_that_are_not_text_come_back(tmp_path: Path) -> None:
    """A path that is not UTF-8 is written as plain JSON and read back as the same path."""
    name = os.fsdecode(b"caf\xe9 \xff")
    write_json(tmp_path / "a.json", {"pool": name, "letters": "é 写真"})
    raw = (tmp_path / "a.json").read_bytes()
    found = json.loads(raw.decode("utf-8"))
    assert os.fsencode(found["pool"]) == b"caf\xe9 \xff"
    assert "é 写真".encode() in raw


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_json_has_no_nan(tmp_path: Path, value: object) -> None:
    """A figure that is not a number is an error, and nothing is written."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match="JSON compliant"):
        hash_json(value)
    assert not list(tmp_path.iterdir())


def test_a_files_hash_is_its_sha256(tmp_path: Path) -> None:
    """The hash is that of the bytes."""
    path = tmp_path / "a"
    for content in (b"", b"abc", bytes(3_000_000)):
        path.write_bytes(content)
        assert hash_file(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.property
@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_a_values_hash_does_not_depend_on_order(value: dict[str, object]) -> None:
    """Equal values have equal hashes, in whatever order their fields stand."""
    backwards = dict(reversed(value.items()))
    assert hash_json(value) == hash_json(backwards) == hash_json(json.loads(json.dumps(value)))


def test_different_values_have_different_hashes() -> None:
    """Text is not its number, and a list is not its elements."""
    values = [1, "1", [1], {"1": 1}, None, True, 1.5, "", []]
    assert len({hash_json(value) for value in values}) == len(values)
