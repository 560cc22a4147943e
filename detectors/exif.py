"""EXIF: the few tags that name where an image comes from, read without a decoder."""

from __future__ import annotations

import struct

EXIF_HEAD = b"Exif\0\0"
"""Bytes in front of an EXIF block in JPEG, and in some writers' other files."""
MAX_TEXT = 4 << 20
"""Bytes kept of one text, XMP packet or EXIF value, and of one inflated text."""

_EXIF_NAMES = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9286: "UserComment",
}
_EXIF_IFD = 0x8769
# BYTE, ASCII, UNDEFINED and Exif 3.0's UTF-8: the types of one byte a value
_BYTE_TYPES = frozenset({1, 2, 7, 129})


def exif_text(exif: bytes) -> dict[str, str]:
    """Text of the EXIF tags that name an origin, by tag name; empty if the block cannot be read.

    Read are ImageDescription, Make, Model, Software, Artist and UserComment of the first directory and of the
    Exif directory; the first that is not empty counts. A reader of our own, because Pillow's warns about a
    damaged block, or raises one of many exception types.

    Args:
        exif: EXIF block, with or without its six-byte head `Exif`.

    Source: TIFF 6.0, section 2; Exif 3.0, section 4.6 (the first eight bytes of UserComment name its code).
    """
    block = exif[len(EXIF_HEAD) :] if exif.startswith(EXIF_HEAD) else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return {}
    text: dict[str, str] = {}
    (first,) = struct.unpack_from(order + "I", block, 4)
    pointer = _read_directory(block, order, first, text)
    if pointer:
        _read_directory(block, order, pointer, text)
    return text


def _read_directory(block: bytes, order: str, offset: int, text: dict[str, str]) -> int:
    """Offset of the Exif directory that this one points to, or 0; texts found go into `text`."""
    if offset + 2 > len(block):
        return 0
    (count,) = struct.unpack_from(order + "H", block, offset)
    entries = block[offset + 2 : offset + 2 + 12 * min(count, 512)]
    pointer = 0
    for tag, kind, size, value in struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _EXIF_IFD:
            (pointer,) = struct.unpack(order + "I", value)
        elif tag in _EXIF_NAMES and kind in _BYTE_TYPES:
            start = struct.unpack(order + "I", value)[0]
            raw = value[:size] if size <= 4 else block[start : start + min(size, MAX_TEXT)]
            words = _decode_comment(raw, order) if tag == 0x9286 else decode_text(raw)
            words = words.strip("\0 ")
            if words:
                text.setdefault(_EXIF_NAMES[tag], words)
    return pointer


def _decode_comment(raw: bytes, order: str) -> str:
    code, body = raw[:8], raw[8:]
    if code == b"UNICODE\0":
        # The byte order should be the block's, but some writers use big-endian always. In Western text the
        # zero bytes give it away; elsewhere the block's order is the best guess.
        even, odd = body[:512:2].count(0), body[1:512:2].count(0)
        little = odd > even if odd != even else order == "<"
        return body.decode("utf-16-le" if little else "utf-16-be", "replace")
    if code in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8):
        return decode_text(body)
    return decode_text(raw)


def decode_text(raw: bytes) -> str:
    """Text in UTF-8 where the bytes are valid, else in Latin-1, in which all bytes are."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
