"""Metadata blocks of an image file, read from its bytes without decoding a pixel.

`read_metadata` walks the container (JPEG segments, PNG chunks, RIFF chunks) and returns the blocks in which
a file says where it comes from. GIF is walked for its comments and searched for the rest; TIFF, AVIF/HEIC
and JPEG XL are searched, not walked. Every length in a file is a claim by a stranger: each loop, each
inflated text and each packet has a bound below, and bytes that do not add up end the walk with a note, never
with an exception.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Literal

from poolproof.detectors.exif import EXIF_HEAD, MAX_TEXT, decode_text
from poolproof.detectors.trailers import trailer_text
from poolproof.detectors.xmp import decode_packets, find_packet

Kind = Literal["jpeg", "png", "webp", "gif", "tiff", "isobmff", "jxl", "unknown"]

MAX_INFLATED = 16 << 20
"""Bytes inflated in one file, over all its compressed texts."""
MAX_BLOCKS = 1 << 16
"""Segments or chunks walked in one file; image data in pieces of 8 KiB reach this at 512 MiB."""
MAX_SUBBLOCKS = 1 << 20
"""Sub-blocks walked in one GIF; each holds up to 255 bytes."""
MAX_COMMENT = 1 << 20
"""Bytes read of one GIF comment."""
MAX_ENTRIES = 1024
"""Texts kept of one file."""

_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP_HEAD = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP_HEAD = b"Photoshop 3.0\0"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
# `comf` is ComfyUI's own: a tEXt chunk by another name, in its animations.
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"comf"})
_JXL_HEAD = b"\0\0\0\x0cJXL "
_BRANDS = {b"avif": "image/avif", b"avis": "image/avif"}

_IIM_NAMES = {b"\x1c\x02\x6e": "Credit"}  # record 2, data set 110


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself, block by block; empty where a block is absent.

    Attributes:
        kind: Container, told by its first bytes; `unknown` is not searched.
        mime: Media type of the container, or None for `unknown`.
        exif: EXIF block, beginning at its TIFF header. For a TIFF file: the file.
        xmp: XMP packets, joined by line breaks; JPEG's extended packets follow the main one.
        text: PNG texts as (keyword, text), in file order.
        comments: Texts of JPEG COM segments and of a GIF's comments.
        iptc: IPTC-IIM fields as (name, text).
        trailer: Entries behind the image, as (name, text).
        has_jumbf: True where the container holds a block with the words `jumb` and `c2pa`.
        notes: What was cut or did not add up, in words.
    """

    kind: Kind
    mime: str | None = None
    exif: bytes = b""
    xmp: str = ""
    text: tuple[tuple[str, str], ...] = ()
    comments: tuple[str, ...] = ()
    iptc: tuple[tuple[str, str], ...] = ()
    trailer: tuple[tuple[str, str], ...] = ()
    has_jumbf: bool = False
    notes: tuple[str, ...] = ()


def read_metadata(data: bytes) -> Metadata:
    """Metadata blocks of an encoded image. Never raises on what the bytes hold.

    In JPEG the blocks before the first scan are read, and of what is behind it Samsung's trailer only. In PNG
    and WebP every chunk is visited, so blocks behind the pixels, or behind the frames of an animation, are
    found too.

    Args:
        data: The whole file.

    Source: ISO/IEC 10918-1 Annex B (JPEG); PNG third edition, section 11; RFC 9649 (WebP); XMP part 3 (where
        packets lie, JPEG's extended XMP); C2PA 2.2 appendix A (which block carries the manifest store).
    """
    metadata = _read_container(data)
    trailer = trailer_text(data) if metadata.kind != "unknown" else ()
    return replace(metadata, trailer=trailer) if trailer else metadata


def _read_container(data: bytes) -> Metadata:
    head = data[:16]
    if head.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data)
    if head.startswith(_PNG_HEAD):
        return _read_png(data)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _read_webp(data)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _search(data, "gif", "image/gif")
    if head.startswith((b"II*\0", b"MM\0*")):
        return _search(data, "tiff", "image/tiff")
    if head[4:8] == b"ftyp":
        return _search(data, "isobmff", _BRANDS.get(head[8:12], "image/heic"))
    if head.startswith((_JXL_HEAD, b"\xff\x0a")):
        return _search(data, "jxl", "image/jxl")
    return Metadata("unknown")


def _holds_store(data: bytes, start: int = 0, stop: int | None = None) -> bool:
    end = len(data) if stop is None else stop
    return data.find(b"jumb", start, end) >= 0 and data.find(b"c2pa", start, end) >= 0


def _read_jpeg(data: bytes) -> Metadata:
    exif = b""
    packets: list[bytes] = []
    extended: list[tuple[bytes, int, bytes]] = []
    comments: list[str] = []
    iptc: list[tuple[str, str]] = []
    notes: list[str] = []
    has_jumbf = False
    pos, end = 2, len(data)
    for _ in range(MAX_BLOCKS):
        if pos + 4 > end:
            notes.append("file ends before the first scan")
            break
        if data[pos] != 0xFF:
            notes.append(f"no segment where one should begin, at byte {pos}")
            break
        marker = data[pos + 1]
        if marker in (0xDA, 0xD9):  # start of scan, end of image
            break
        if marker == 0xFF:  # fill byte
            pos += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            pos += 2
            continue
        start, stop = pos + 4, pos + 2 + (data[pos + 2] << 8 | data[pos + 3])
        if stop < start:
            notes.append(f"segment of impossible length at byte {pos}")
            break
        pos = stop
        if marker == 0xE1:
            if data.startswith(EXIF_HEAD, start):
                exif = exif or data[start + len(EXIF_HEAD) : stop]
            elif data.startswith(_XMP_HEAD, start):
                packets.append(data[start + len(_XMP_HEAD) : stop])
            elif data.startswith(_EXTENDED_XMP_HEAD, start):
                # 32 characters of identity, 4 bytes of full length, 4 bytes of offset, then the piece itself
                at = start + len(_EXTENDED_XMP_HEAD)
                offset = int.from_bytes(data[at + 36 : at + 40])
                extended.append((data[at : at + 32], offset, data[at + 40 : stop]))
        elif marker == 0xEB:
            has_jumbf = has_jumbf or (data.startswith(b"JP", start) and _holds_store(data, start, stop))
        elif marker == 0xED and data.startswith(_PHOTOSHOP_HEAD, start):
            iptc += _read_iim(data[start:stop])
        elif marker == 0xFE and len(comments) < MAX_ENTRIES:
            comments.append(decode_text(data[start:stop]).strip("\0 "))
    else:
        notes.append(f"more than {MAX_BLOCKS} segments; the rest was not read")
    # The pieces of one packet share an identity; sorting by it and the offset puts each in order.
    packets.append(b"".join(piece for _, _, piece in sorted(extended)))
    xmp, cut = decode_packets(packets)
    if cut:
        notes.append(f"XMP cut at {MAX_TEXT} bytes")
    return Metadata(
        "jpeg",
        "image/jpeg",
        exif,
        xmp,
        comments=tuple(comments),
        iptc=tuple(iptc[:MAX_ENTRIES]),
        has_jumbf=has_jumbf,
        notes=tuple(notes),
    )


def _read_iim(block: bytes) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for head, name in _IIM_NAMES.items():
        at = block.find(head)
        if at >= 0:
            size = int.from_bytes(block[at + 3 : at + 5])
            fields.append((name, decode_text(block[at + 5 : at + 5 + size])))
    return fields


def _read_png(data: bytes) -> Metadata:
    exif = b""
    packets: list[bytes] = []
    text: list[tuple[str, str]] = []
    notes: list[str] = []
    has_jumbf = False
    budget = MAX_INFLATED
    unpack = struct.Struct(">I4s").unpack_from
    pos, end = len(_PNG_HEAD), len(data)
    for _ in range(MAX_BLOCKS):
        if pos + 8 > end:
            notes.append("file ends before its IEND chunk")
            break
        size, kind = unpack(data, pos)
        start, stop = pos + 8, pos + 8 + size
        pos = stop + 4
        if kind == b"IDAT":
            continue
        if kind == b"IEND":
            break
        if kind in _PNG_TEXTS:
            if len(text) >= MAX_ENTRIES:
                notes.append(f"more than {MAX_ENTRIES} texts; the rest was not read")
                break
            entry = _read_png_text(
                kind, data[start : min(stop, start + MAX_TEXT + 1024)], min(budget, MAX_TEXT)
            )
            if entry is None:
                notes.append(f"unreadable {kind.decode()} chunk at byte {start - 8}")
                continue
            keyword, raw = entry
            budget -= len(raw) if kind in (b"zTXt", b"iTXt") else 0
            if keyword == _XMP_KEYWORD:
                packets.append(raw)
            elif keyword.startswith("Raw profile type "):
                profile = _read_raw_profile(raw)
                if profile.startswith(_XMP_HEAD):
                    packets.append(profile[len(_XMP_HEAD) :])
                elif keyword.endswith("xmp"):
                    packets.append(profile)
                elif profile.startswith(EXIF_HEAD):
                    exif = exif or profile[len(EXIF_HEAD) :]
            else:
                text.append((keyword, decode_text(raw)))
        elif kind == b"eXIf":
            exif = exif or data[start : min(stop, start + MAX_TEXT)]
        elif kind == b"caBX":
            has_jumbf = has_jumbf or _holds_store(data, start, stop)
    else:
        notes.append(f"more than {MAX_BLOCKS} chunks; the rest was not read")
    xmp, cut = decode_packets(packets)
    if cut:
        notes.append(f"XMP cut at {MAX_TEXT} bytes")
    return Metadata("png", "image/png", exif, xmp, tuple(text), has_jumbf=has_jumbf, notes=tuple(notes))


def _read_png_text(kind: bytes, block: bytes, limit: int) -> tuple[str, bytes] | None:
    """Keyword and bytes of a text chunk, at most `limit` of them if compressed; None if it cannot be read."""
    keyword, separator, rest = block.partition(b"\0")
    if not separator or len(keyword) > 79:
        return None
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]  # compression method, of which there is one
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        fields = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        if len(fields) < 3:
            return None
        rest = fields[2]
    if packed:
        # zlib takes a limit of 0 to mean none
        if limit <= 0:
            return None
        try:
            rest = zlib.decompressobj().decompress(rest, limit)
        except zlib.error:
            return None
    return keyword.decode("latin-1"), rest


def _read_raw_profile(raw: bytes) -> bytes:
    """Bytes of a profile that ImageMagick wrote as text: a name, a length, then lines of hex digits."""
    match = re.match(rb"\s*\S{1,32}\s+\d{1,10}\s+", raw)
    if match is None:
        return b""
    try:
        return bytes.fromhex(raw[match.end() :].decode("ascii", "replace"))
    except ValueError:
        return b""


def _read_webp(data: bytes) -> Metadata:
    exif = b""
    packets: list[bytes] = []
    notes: list[str] = []
    has_jumbf = False
    unpack = struct.Struct("<4sI").unpack_from
    pos, end = 12, len(data)
    for _ in range(MAX_BLOCKS):
        if pos + 8 > end:
            break
        kind, size = unpack(data, pos)
        start, stop = pos + 8, pos + 8 + size
        if stop > end:
            notes.append(f"chunk at byte {pos} is longer than the file")
        pos = stop + (size & 1)
        if kind == b"EXIF":
            skip = len(EXIF_HEAD) if data.startswith(EXIF_HEAD, start) else 0
            exif = exif or data[start + skip : min(stop, start + MAX_TEXT)]
        elif kind == b"XMP ":
            packets.append(data[start : min(stop, start + MAX_TEXT + 1)])
        elif kind == b"C2PA":
            has_jumbf = has_jumbf or _holds_store(data, start, stop)
    else:
        notes.append(f"more than {MAX_BLOCKS} chunks; the rest was not read")
    xmp, cut = decode_packets(packets)
    if cut:
        notes.append(f"XMP cut at {MAX_TEXT} bytes")
    return Metadata("webp", "image/webp", exif, xmp, has_jumbf=has_jumbf, notes=tuple(notes))


def _search(data: bytes, kind: Kind, mime: str) -> Metadata:
    """Metadata of a container that is not walked: what a plain search of its bytes finds."""
    notes: list[str] = []
    packet, cut = find_packet(data)
    if cut:
        notes.append(f"XMP without an end, cut at {MAX_TEXT} bytes")
    xmp, _ = decode_packets([packet])
    exif = b""
    comments: tuple[str, ...] = ()
    if kind == "tiff":
        exif = data
    elif kind == "gif":
        comments = _read_gif_comments(data)
    else:
        # A TIFF header whose first directory follows at once: eight fixed bytes, so chance finds none.
        marks = (data.find(b"II*\0\x08\0\0\0"), data.find(b"MM\0*\0\0\0\x08"))
        at = min((mark for mark in marks if mark >= 0), default=-1)
        exif = data[at : at + MAX_TEXT] if at >= 0 else b""
    return Metadata(
        kind, mime, exif, xmp, comments=comments, has_jumbf=_holds_store(data), notes=tuple(notes)
    )


def _read_gif_comments(data: bytes) -> tuple[str, ...]:
    """Texts of a GIF's comments, before, between and behind its frames. Source: GIF89a, sections 15 to 27."""
    comments: list[str] = []
    left = MAX_SUBBLOCKS
    try:
        pos = 13 + _table_size(data[10])
        for _ in range(MAX_BLOCKS):
            kind, is_comment = data[pos], data[pos : pos + 2] == b"!\xfe"
            if kind == 0x2C:  # image descriptor: its table, then the code size, then the sub-blocks
                pos += 10 + _table_size(data[pos + 9]) + 1
            elif kind == 0x21:  # extension: its label, then the sub-blocks
                pos += 2
            else:
                break
            first = pos
            while (size := data[pos]) and left:
                pos += size + 1
                left -= 1
            if is_comment and len(comments) < MAX_ENTRIES:
                comments.append(_join_subblocks(data[first : min(pos, first + MAX_COMMENT)]))
            pos += 1
    except IndexError:  # the file ends here; what was found stands
        return tuple(comments)
    return tuple(comments)


def _join_subblocks(block: bytes) -> str:
    pieces: list[bytes] = []
    pos = 0
    while pos < len(block):
        pieces.append(block[pos + 1 : pos + 1 + block[pos]])
        pos += 1 + block[pos]
    return decode_text(b"".join(pieces))


def _table_size(flags: int) -> int:
    """Bytes of a GIF's colour table, from the flags that announce it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
