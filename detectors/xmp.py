"""XMP: packets as text, and the properties in them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from poolproof.detectors.exif import MAX_TEXT


def decode_packets(parts: Iterable[bytes]) -> tuple[str, bool]:
    """Packets as one text of at most MAX_TEXT bytes, and whether anything was cut.

    Args:
        parts: Packets, or pieces of them, in UTF-8 or UTF-16; each is decoded by itself.
    """
    texts: list[str] = []
    left = MAX_TEXT
    cut = False
    for part in parts:
        cut = cut or len(part) > left
        raw = part[:left]
        left -= len(raw)
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            texts.append(raw.decode("utf-16", "replace"))
        elif b"\0" in raw[:2]:  # the packet begins with `<`, so a zero beside it tells the byte order
            texts.append(raw.decode("utf-16-be" if raw[0] == 0 else "utf-16-le", "replace"))
        elif raw:
            texts.append(raw.decode("utf-8", "replace"))
    return "\n".join(texts), cut


_PACKET_END = re.compile(rb"</[\w.-]{1,32}:xmpmeta\s{0,8}>")


def find_packet(data: bytes) -> tuple[bytes, bool]:
    """The first packet in bytes of any kind, at most MAX_TEXT of it, and whether its end is missing.

    Args:
        data: Bytes of a container that is not walked; the packet is found by its element `xmpmeta`.
    """
    at = data.find(b":xmpmeta")
    start = data.rfind(b"<", max(0, at - 32), at) if at >= 0 else -1
    if start < 0:
        return b"", False
    end = _PACKET_END.search(data, start, start + MAX_TEXT)
    return data[start : end.start() if end else start + MAX_TEXT], end is None


_PROPERTY_HEAD = re.compile(r"(<|\s)(?:[\w.-]{1,60}:)?$")
_ATTRIBUTE_VALUE = re.compile(r"\s{0,16}=\s{0,16}(?:\"([^\"]{0,4096})|'([^']{0,4096}))")
_RESOURCE = re.compile(r"\s[^<>]{0,512}?resource\s{0,16}=\s{0,16}[\"']([^\"'<>]{0,512})")
# The text of an element, through containers such as rdf:Alt and rdf:li. A closing tag ends it.
_ELEMENT_TEXT = re.compile(
    r"(?:\s[^<>]{0,512})?(?<!/)>\s{0,256}(?:<[^/!<>][^<>]{0,255}>\s{0,256}){0,4}(?:<!\[CDATA\[)?([^<]{0,4096})"
)
_MAX_PLACES = 64


def read_properties(xmp: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Values of the named XMP properties, as (local name, value): attributes or elements, with any prefix.

    Read by patterns instead of an XML parser: no entity of a document type is ever expanded, a packet that
    was cut or is not well-formed still gives what stands in it, and a camera's packet costs a few searches.

    Args:
        xmp: Packets as text.
        names: Local names of the properties; of each, the first 64 places are looked at.
    """
    found: list[tuple[str, str]] = []
    for name in names:
        at = xmp.find(name)
        for _ in range(_MAX_PLACES):
            if at < 0:
                break
            end = at + len(name)
            head = _PROPERTY_HEAD.search(xmp, max(0, at - 62), at)
            value = _property_value(xmp, end, head.group(1)) if head else None
            if value is not None:
                found.append((name, html.unescape(value).strip()))
            at = xmp.find(name, end)
    return tuple(found)


def _property_value(xmp: str, end: int, head: str) -> str | None:
    if head != "<":
        match = _ATTRIBUTE_VALUE.match(xmp, end)
        return (match.group(1) or match.group(2) or "") if match else None
    match = _RESOURCE.match(xmp, end)
    if match:
        return match.group(1)
    match = _ELEMENT_TEXT.match(xmp, end)
    return match.group(1).removesuffix("]]>") if match else None
