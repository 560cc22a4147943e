"""What a JPEG says of its making and of damage, beside its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_LUMA_AT_50: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""The luminance table of ITU-T T.81 annex K.1, which encoders scale by their quality setting."""


def _luma_sum(quality: int) -> int:
    """The sum of the luminance table at a quality setting, scaled as the reference encoder does."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return int(((_LUMA_AT_50 * scale + 50) // 100).clip(1, 255).sum())


_SUMS: Final = tuple(_luma_sum(quality) for quality in range(1, 101))

_BEHIND_A_SCAN: Final = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xDF, 0xFE, *range(0xE0, 0xF0)})
"""Markers of segments that may follow a scan: tables, another scan, line count, comments, applications."""

_RESTARTS: Final = range(0xD0, 0xD8)


def estimate_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The setting from 1 to 100 whose luminance table has the nearest sum; None without such a table.

    Exact for encoders that scale the standard table (libjpeg, and what is built on it), a figure for
    comparison with others.

    Args:
        tables: quantisation tables of 64 values by number; 0 is the luminance table.

    Source: ITU-T T.81 annex K.1 for the table, libjpeg's `jpeg_quality_scaling` for the scale.
    """
    table = tables.get(0)
    if table is None or len(table) != 64:
        return None
    return 1 + int(np.argmin(np.abs(np.array(_SUMS) - sum(table))))


def find_scan_fault(data: bytes) -> str | None:
    """What is wrong with the marker structure behind the first start of scan; None where it is sound.

    Decoders pass over marker codes that cannot stand inside entropy-coded data, and invent the pixels. A
    stream of random bytes holds such a code every 270 bytes or so, an intact one none: there 0xFF is followed
    by a zero, by the next restart marker in turn, or by a segment.

    Args:
        data: the whole file. What follows the end of the image is not looked at.

    Source: ITU-T T.81, B.1.1.2 to B.1.1.5 and B.2.1.
    """
    raw = np.frombuffer(data, np.uint8)
    marked = np.flatnonzero(raw[:-1] == 0xFF)
    codes = raw[marked + 1]
    real = (codes != 0) & (codes != 0xFF)
    marks, codes = marked[real], codes[real]
    position, i, n_scans, restarts, interval = 2, 0, 0, 0, 0
    in_scan = False
    while i < len(marks):
        at, code = int(marks[i]), int(codes[i])
        if at < position:
            i = int(np.searchsorted(marks, position))
            continue
        i += 1
        if n_scans and not in_scan and data[position:at].strip(b"\xff"):
            return f"no segment where one should begin, at byte {position}"
        if n_scans and code in _RESTARTS:
            if not in_scan or not interval or code != _RESTARTS[restarts % 8]:
                return f"restart marker out of turn at byte {at}"
            restarts += 1
            position = at + 2
        elif code == 0xD9:
            return None
        elif n_scans and code not in _BEHIND_A_SCAN:
            return f"code ff {code:02x} inside the image data at byte {at}"
        elif code in _RESTARTS or code in (0x01, 0xD8):  # stand alone, without a length
            position = at + 2
        else:
            position = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            in_scan = code == 0xDA
            if code == 0xDD:
                interval = int.from_bytes(data[at + 4 : at + 6])
            if in_scan:
                n_scans, restarts = n_scans + 1, 0
    return "no end of image"
