"""Samsung's trailer, whole, absent, and lying about itself."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, trailer

from poolproof.detectors.containers import read_metadata
from poolproof.detectors.trailers import trailer_text

NOTE = '{"genAIType":1, "é": 2}'


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP"])
def test_entries_are_read_behind_any_image(container: str) -> None:
    """The named entries come back whole and in order, behind whatever image; others are left out."""
    data = encoded(container) + trailer(Image_UTC_Data="1", PEg_Info=NOTE, PhotoEditor_Re_Edit_Data="{}")
    expected = (("PEg_Info", NOTE), ("PhotoEditor_Re_Edit_Data", "{}"))
    assert read_metadata(data).trailer == expected
    assert read_metadata(data[:-1]).trailer == ()
    assert read_metadata(encoded(container)).trailer == ()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (-8, 0),  # a directory of no length
        (-8, 0xFFFFFFFF),  # one that begins before the file
        (-8, 25),  # one that begins elsewhere
        (-12, 0xFFFFFFFF),  # an entry longer than the file
        (-12, 3),  # one too short for its own head
        (-16, 0xFFFFFFFF),  # an entry before the file
        (-16, 0),  # one inside the directory
    ],
)
def test_lying_lengths_give_nothing(at: int, value: int) -> None:
    """A length or an offset that does not fit the file ends in no text, not in an exception."""
    data = bytearray(encoded("JPEG") + trailer(PEg_Info=NOTE))
    data[len(data) + at : len(data) + at + 4] = struct.pack("<I", value)
    assert trailer_text(bytes(data)) == ()


def test_count_is_bounded_by_the_directory() -> None:
    """A directory that claims four billion entries is read as far as it goes, at once."""
    data = bytearray(trailer(PEg_Info=NOTE))
    at = data.index(b"SEFH") + 8
    data[at : at + 4] = b"\xff\xff\xff\xff"
    started = time.process_time()
    assert trailer_text(bytes(data)) == (("PEg_Info", NOTE),)
    many = trailer(**{f"PEg_Info{'x' * (n % 2)}": NOTE for n in range(2)})
    assert len(trailer_text(many)) == 1
    assert time.process_time() - started < 0.1


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=6)), max_size=6))
def test_mutated_trailers_never_raise(edits: list[tuple[int, bytes]]) -> None:
    """Whatever bytes of a trailer are overwritten, reading it gives texts."""
    data = bytearray(encoded("JPEG")[:50] + trailer(PEg_Info=NOTE, PhotoEditor_Re_Edit_Data=NOTE))
    for at, new in edits:
        start = at % len(data)
        data[start : start + len(new)] = new
    assert all(isinstance(text, str) for _, text in trailer_text(bytes(data[:-4]) + b"SEFT"))
