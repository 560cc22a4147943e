"""Names for items that go into another kind of pool: safe as files, one for each item, and without dots."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from poolproof.audit.paths import IMAGE_SUFFIXES, is_image_name

_UNSAFE: Final = frozenset('\\:*?"<>|%')
_MOST_PART: Final = 160
"""Bytes of one part of a name; file systems allow 255, and endings follow."""

_MOST_NAME: Final = 1000
_STARTS: Final = (
    (0, b"\xff\xd8", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
    (4, b"jP  ", ".jp2"),
)


def is_safe_path(name: str) -> bool:
    """Whether a relative path stays below where it starts."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and ".." not in parts and "\0" not in name


def safe_stem(key: str) -> str:
    """A relative path without an ending for a key; different keys may get the same one.

    >>> safe_stem("../cat.v1.jpg"), safe_stem("https://a.b/c?d=1")
    ('%2E%2E/cat%2Ev1', 'https%3A/a%2Eb/c%3Fd=1')
    """
    stem = os.path.splitext(key)[0] if is_image_name(key) else key
    parts = [_escape(part) for part in stem.split("/") if part]
    name = "/".join(part if len(part.encode()) <= _MOST_PART else _cut(part, part) for part in parts)
    if not name or len(name.encode()) > _MOST_NAME:
        return _cut(parts[-1] if parts else "item", key)
    return name


def safe_ending(ending: str) -> str:
    """A file's ending, `.txt` or `.a.b`, without what a file name should not hold.

    >>> safe_ending(".seg.png"), safe_ending(".a/..")
    ('.seg.png', '.a%2F..')
    """
    escaped = ".".join(_escape(part) if part else "" for part in ending.split("."))
    return escaped if len(escaped.encode()) <= _MOST_PART // 2 else f".{_digest(ending)}"


def name_stems(keys: Iterable[str]) -> list[str]:
    """A safe stem for each key, no two alike even where the file system takes capitals for small letters.

    The first item with a name has it plain, a later one with its position behind a `~`.
    """
    taken: set[str] = set()
    stems: list[str] = []
    for position, key in enumerate(keys):
        stem = plain = safe_stem(key)
        while stem.casefold() in taken:
            stem = f"{plain}~{position}" if stem == plain else f"{stem}~"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def image_ending(data: bytes, *names: str) -> str:
    """The ending of the first name that has an image's, else the one that the bytes ask for, else `.jpg`."""
    for name in names:
        suffix = PurePosixPath(name).suffix
        if suffix.lower() in IMAGE_SUFFIXES or (suffix and is_image_name(name)):
            return suffix
    return next((ending for at, start, ending in _STARTS if data.startswith(start, at)), ".jpg")


def _escape(part: str) -> str:
    """The part with dots, what is not printable, and what some system forbids as `%` and hex."""
    return (
        "".join(
            c
            if c not in _UNSAFE and c not in "./" and c.isprintable()
            else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
            for c in part
        ).strip(" ")
        or "%20"
    )


def _cut(part: str, whole: str) -> str:
    kept = part.encode()[:80].decode(errors="ignore")
    return f"{kept}~{_digest(whole)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
