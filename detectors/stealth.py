"""Stealth text: what generators write into the lowest bits of the pixels, where metadata cannot be stripped."""

from __future__ import annotations

import codecs
import zlib
from typing import Final

import numpy as np
from jaxtyping import UInt8

from poolproof.detectors.findings import Confidence, Finding, quote

ALPHA_MAGICS: Final[tuple[bytes, ...]] = (b"stealth_pnginfo", b"stealth_pngcomp")
"""What the bits of the alpha plane begin with, one bit a pixel: plain text, or text in gzip."""
RGB_MAGICS: Final[tuple[bytes, ...]] = (b"stealth_rgbinfo", b"stealth_rgbcomp")
"""What the bits of the colours begin with, three bits a pixel."""
MAX_PAYLOAD: Final = 1 << 16
"""Bytes read of a payload, and bytes inflated from them; a finding quotes less."""

_MAGIC_BITS: Final = 8 * 15
_HEAD_BITS: Final = _MAGIC_BITS + 32


def read_stealth(
    pixels: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"] | None
) -> tuple[Finding, ...]:
    """What the lowest bits of an image state about its origin: one finding for alpha, one for colours, or none.

    The bits run down the columns: x in the outer loop, y in the inner one, and of a pixel red, green, blue.
    They begin with a magic of 15 bytes, then the payload's length in bits as 32 bits, then the payload, in
    UTF-8 or gzip. An image without the magic costs its first columns only. Chance gives the magic to one
    image in 2^118. Whatever changes values destroys it: JPEG, lossy WebP, resizing, crops at the left or top.

    Written by NovelAI and by an extension of Stable Diffusion web UIs, with the settings of the generation
    as text. A payload that is no text, or whose length is impossible, is a weak finding that says so.

    Args:
        pixels: Decoded colours as stored.
        alpha: Decoded alpha as stored, not premultiplied; None where the image has none.

    Source: the extension sd_webui_stealth_pnginfo, by whose form NovelAI writes too.
    """
    found = None if alpha is None else _read_plane(alpha[:, :, None], ALPHA_MAGICS)
    return tuple(finding for finding in (found, _read_plane(pixels, RGB_MAGICS)) if finding is not None)


def _read_plane(plane: UInt8[np.ndarray, "h w c"], magics: tuple[bytes, ...]) -> Finding | None:
    head = _read_bytes(plane, 0, _HEAD_BITS)
    if head[:15] not in magics:
        return None
    value, confidence = _read_payload(plane, head)
    return Finding("declared", True, "stealth", head[:15].decode(), quote(value), confidence)


def _read_payload(plane: UInt8[np.ndarray, "h w c"], head: bytes) -> tuple[str, Confidence]:
    """The payload's text, or what is wrong with it."""
    n_bits = int.from_bytes(head[15:19])
    capacity = plane.size - _HEAD_BITS
    if not 0 < n_bits <= capacity:
        return f"unreadable: {n_bits} bits stated, room for {max(capacity, 0)}", "weak"
    raw = _read_bytes(plane, _HEAD_BITS, 8 * min(n_bits // 8, MAX_PAYLOAD))
    if head.endswith(b"comp", 0, 15):
        try:
            raw = zlib.decompressobj(31).decompress(raw, MAX_PAYLOAD)
        except zlib.error:
            return "unreadable: not in gzip", "weak"
    try:
        # not final: what was cut may end within a character
        text = codecs.getincrementaldecoder("utf-8")().decode(raw).strip()
    except UnicodeDecodeError:
        return "unreadable: not in UTF-8", "weak"
    return (text, "stated") if text else ("unreadable: no text", "weak")


def _read_bytes(plane: UInt8[np.ndarray, "h w c"], start: int, n_bits: int) -> bytes:
    """Lowest bits from the given one on, packed eight a byte, the first the highest; fewer where they end."""
    column = plane.shape[0] * plane.shape[2]
    first = start // column
    columns = plane[:, first : (start + n_bits - 1) // column + 1]
    bits = columns.transpose(1, 0, 2).reshape(-1)[start - first * column :][:n_bits] & 1
    return np.packbits(bits).tobytes()
