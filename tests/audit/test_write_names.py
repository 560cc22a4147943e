"""Names made of keys are safe, one for each item, and the same in every call."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolproof.audit.write_names import image_ending, is_safe_path, name_stems, safe_ending, safe_stem


@pytest.mark.property
@given(st.text(max_size=400))
def test_stems_stay_inside(key: str) -> None:
    """A stem is a relative path without dots, hidden parts, or parts that are too long, whatever the key."""
    stem = safe_stem(key)
    assert is_safe_path(stem)
    parts = stem.split("/")
    assert all(parts)
    assert all(len(part.encode()) <= 200 for part in parts)
    assert "." not in stem
    assert stem.isprintable()
    assert os.path.normpath(stem) == stem


@pytest.mark.property
@given(st.lists(st.text("aA./~0", max_size=5), max_size=12))
def test_stems_differ(keys: list[str]) -> None:
    """No two items get one name, small and capital letters taken alike."""
    stems = name_stems(keys)
    assert len({stem.casefold() for stem in stems}) == len(keys)
    assert stems == name_stems(keys)


@pytest.mark.property
@given(st.text(max_size=300))
def test_endings_stay_endings(text: str) -> None:
    """An ending has no slash and is of bounded length."""
    ending = safe_ending(f".{text}")
    assert ending.startswith(".")
    assert "/" not in ending
    assert len(ending.encode()) <= 80


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("a/b.jpg", "a/b"),
        ("..", "%2E%2E"),
        ("a//b", "a/b"),
        ("100%", "100%25"),
        ("photo.v1.JPG", "photo%2Ev1"),
        ("nul\0", "nul%00"),
        ("gpj\u202e", "gpj%E2%80%AE"),
    ],
)
def test_stems_of_some_keys(key: str, stem: str) -> None:
    """Usual keys are themselves without ending; the rest is escaped."""
    assert safe_stem(key) == stem


@pytest.mark.parametrize(
    ("data", "names", "ending"),
    [
        (b"\xff\xd8\xff", (), ".jpg"),
        (b"\x89PNG\r\n\x1a\n", ("", "key"), ".png"),
        (b"RIFF\0\0\0\0WEBP", (), ".webp"),
        (b"unknown", ("a.txt",), ".jpg"),
        (b"\xff\xd8\xff", ("x.PNG",), ".PNG"),
    ],
)
def test_endings_of_images(data: bytes, names: tuple[str, ...], ending: str) -> None:
    """The ending an image had is kept; else its first bytes tell."""
    assert image_ending(data, *names) == ending
