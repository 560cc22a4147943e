"""Trailers: what a telephone's gallery app writes behind the image, and decoders never read."""

from __future__ import annotations

import struct

from poolproof.detectors.exif import MAX_TEXT, decode_text

TRAILER_NAMES = frozenset({"PhotoEditor_Re_Edit_Data", "PEg_Info"})
"""Entries that are kept: what Samsung's photo editor did, and what it notes about generated images."""

_MAX_ENTRIES = 256


def trailer_text(data: bytes) -> tuple[tuple[str, str], ...]:
    """Texts of a Samsung trailer's entries in `TRAILER_NAMES`, as (name, text); empty without a trailer.

    The file's last bytes are the length of a directory and `SEFT`; the directory before them begins with
    `SEFH` and says how far in front of it each entry lies.

    Args:
        data: The whole file. Nothing but its end is touched where there is no trailer.

    Source: ExifTool, `lib/Image/ExifTool/Samsung.pm` (the layout); the names by Samsung's own applications.
    """
    if not data.endswith(b"SEFT") or len(data) < 20:
        return ()
    (size,) = struct.unpack_from("<I", data, len(data) - 8)
    base = len(data) - 8 - size
    if size < 12 or base < 0 or not data.startswith(b"SEFH", base):
        return ()
    (count,) = struct.unpack_from("<I", data, base + 8)
    n = min(count, (size - 12) // 12, _MAX_ENTRIES)
    found: list[tuple[str, str]] = []
    for back, length in struct.iter_unpack("<4xII", data[base + 12 : base + 12 + 12 * n]):
        start = base - back
        if start < 0 or length < 8 or start + length > base:
            continue
        (name_length,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + min(name_length, length - 8, 64)
        name = decode_text(data[start + 8 : end])
        if name in TRAILER_NAMES:
            found.append((name, decode_text(data[end : min(start + length, end + MAX_TEXT)]).strip("\0 ")))
    return tuple(found)
