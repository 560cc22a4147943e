"""How many frames or pages a file holds, counted by its structure and never decoded."""

from __future__ import annotations

import struct
from typing import Final

from PIL import Image

MAX_FRAMES: Final = 10_000
"""Counting stops here: hostile files hold millions of empty frames."""


def count_frames(data: bytes, image: Image.Image) -> int:
    """The number of frames or pages, from 1 to `MAX_FRAMES`.

    Args:
        data: the whole file.
        image: the same file, opened.
    """
    # Pillow counts these two by visiting every frame, which takes minutes on a hostile file
    if image.format == "GIF":
        n = _count_gif(data)
    elif image.format == "TIFF":
        n = _count_tiff(data)
    else:
        n = int(getattr(image, "n_frames", 1))
    return min(max(n, 1), MAX_FRAMES)


def _count_gif(data: bytes) -> int:
    """Image descriptors of a GIF; what is cut is not counted. Source: GIF89a, sections 15 to 27."""
    n = 0
    try:
        position = 13 + _table_size(data[10])
        while n < MAX_FRAMES:
            kind = data[position]
            if kind == 0x2C:  # image descriptor: its table, then the code size, then the blocks
                position += 10 + _table_size(data[position + 9]) + 1
                n += 1
            elif kind == 0x21:  # extension: its label, then the blocks
                position += 2
            else:
                break
            while size := data[position]:
                position += size + 1
            position += 1
    except IndexError:
        return n
    return n


def _table_size(flags: int) -> int:
    """Bytes of a GIF's colour table, from the flags that announce it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _count_tiff(data: bytes) -> int:
    """Directories in a TIFF's chain. Source: TIFF 6.0, section 2; BigTIFF's wider offsets."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_form, offset_form, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + offset_form, data, 8 if big else 4)
        while offset and offset not in seen and len(seen) < MAX_FRAMES:
            (n_entries,) = struct.unpack_from(order + count_form, data, offset)
            seen.add(offset)
            behind = offset + struct.calcsize(order + count_form) + entry * n_entries
            (offset,) = struct.unpack_from(order + offset_form, data, behind)
    except (struct.error, OverflowError):
        return len(seen)
    return len(seen)
