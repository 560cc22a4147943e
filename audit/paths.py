"""Paths and names in pools: what lies below a folder, and how names that are not text are kept."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poolproof.errors import InputError

# fmt: off
IMAGE_SUFFIXES: Final = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
))
"""File endings that the scorer decodes."""

UNDECODED_SUFFIXES: Final = frozenset((
    ".heic", ".heif", ".svg", ".svgz", ".psd", ".jxl", ".ico", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".eps",
))
"""Endings of images that are listed and counted as unsupported."""

COMPRESSED_TAR_SUFFIXES: Final = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4",
)
"""Endings of tars that cannot be read by offset."""
# fmt: on


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image, decodable here or not."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in UNDECODED_SUFFIXES


def find_files(root: Path, suffix: str) -> list[str]:
    """Paths relative to the root of all files with the ending, in the order of their bytes."""
    if root.is_file():
        return [root.name]
    return sorted((path for path in walk_names(root) if path.lower().endswith(suffix)), key=os.fsencode)


def is_inside(root: Path, source: str) -> bool:
    """Whether a path named in a pool stays inside the pool's folder, links and `..` resolved."""
    if "\0" in source:  # no file has such a name, and in a listing it marks one that is not UTF-8
        return False
    try:
        return (root / source).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def storable(path: str) -> str:
    """The path as text that any table holds; a name that is not UTF-8 becomes NUL and its bytes in hex."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "\0" + raw.hex()


def path_of(source: str) -> str:
    """The relative path that a source stands for."""
    return os.fsdecode(bytes.fromhex(source[1:])) if source.startswith("\0") else source


def readable(name: str) -> str:
    """A name for people: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file below the root, in no order.

    Links are followed, to each folder once. What is not a file, or is a link to nothing, has size 0. Names
    that begin with a dot are passed over, as everywhere on Unix.
    """
    for path, entry in _entries(root):
        try:
            size = entry.stat().st_size
        except OSError:
            size = 0
        yield path, size


def walk_names(root: Path) -> Iterator[str]:
    """Relative path of every file below the root, as `walk` has it, without asking for sizes."""
    return (path for path, _ in _entries(root))


def _entries(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Relative path and directory entry of all that is no folder.

    A folder that is reached in several ways is walked once: by its real path where that lies below the root,
    else by the link that is first in the order of bytes. So links up the tree end, and the paths are the same
    in whatever order the file system lists them.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[str] = [""]
    links: list[bytes] = []
    while folders or links:
        folder = folders.pop() if folders else os.fsdecode(heapq.heappop(links))
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            found = list(os.scandir(root / folder))
        except OSError as error:
            raise InputError(
                f"folder {str(root / folder)!r}: cannot be listed ({error.strerror}); change its permissions"
            ) from error
        for entry in found:
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif _is_link_to_folder(entry):
                heapq.heappush(links, os.fsencode(path))
            else:
                yield path, entry


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself, or into a folder that is closed to us
        return False
