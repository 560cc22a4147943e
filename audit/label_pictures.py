"""Pictures for a browser: an item's own bytes where these are of a kind that only shows, else a PNG of its pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from poolproof.audit.decode import decode_image

SERVED: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
"""Formats whose own bytes are served, and as what. A browser runs nothing in them."""


@dataclass(frozen=True)
class Picture:
    """What a browser shows of an item.

    Attributes:
        data: encoded bytes.
        media_type: what they are served as.
    """

    data: bytes
    media_type: str


def show_picture(data: bytes, sha256: str) -> Picture | str:
    """The picture of an item, or why there is none.

    Animations and formats that browsers do not show become a PNG of the first frame, which is what an audit scores.
    Of an MPO browsers show the first of its JPEGs.

    Args:
        data: encoded bytes, from anyone.
        sha256: of the bytes that were audited, in hex.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        return "its bytes are not those that were audited"
    found = decode_image(data)
    if found.pixels is None or found.header is None:
        return f"it cannot be decoded any more ({found.reason})"
    if found.header.format == "MPO" or (found.header.format in SERVED and found.header.frames == 1):
        return Picture(data, SERVED[found.header.format])
    buffer = io.BytesIO()
    Image.fromarray(found.pixels).save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), "image/png")
