"""Frames and pages are counted by structure, in bounded time."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poolproof.audit.frames import MAX_FRAMES, count_frames

Encode = Callable[..., bytes]
MakeImage = Callable[..., Image.Image]


def count(data: bytes) -> int:
    """Frames of a file that Pillow opens."""
    with Image.open(io.BytesIO(data)) as image:
        return count_frames(data, image)


def directories(n: int, *, loop: bool = False) -> bytes:
    """A TIFF of n directories that share one image of 8 x 8 pixels; the last leads to the first on request."""
    entries = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    size = 2 + 12 * len(entries) + 4
    data = bytearray(b"II*\0" + struct.pack("<I", 72) + bytes(64))
    for i in range(n):
        data += struct.pack("<H", len(entries))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        data += struct.pack("<I", 72 + size * (i + 1) if i < n - 1 else 72 * loop)
    return bytes(data)


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "MPO"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_counts_are_those_of_pillow(make_image: MakeImage, encode: Encode, kind: str, n: int) -> None:
    """Files that Pillow wrote hold as many frames as it counts."""
    frames = [make_image(24, 16, seed, 60) for seed in range(n)]
    options = {"save_all": True, "append_images": frames[1:], "comment": b"words", "loop": 0}
    if kind in ("TIFF", "MPO"):
        options = {"save_all": True, "append_images": frames[1:]}
    data = encode(frames[0], kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert count(data) == getattr(image, "n_frames", 1) == n


def test_pages_of_a_big_tiff(make_image: MakeImage, encode: Encode) -> None:
    """BigTIFF's wide offsets are followed."""
    image = make_image(16, 16)
    data = encode(image, "TIFF", big_tiff=True, save_all=True, append_images=[image, image])
    assert count(data) == 3


def test_pages_that_lead_round_in_a_circle() -> None:
    """A chain of directories that comes back on itself is counted once."""
    assert count(directories(3)) == 3
    assert count(directories(3, loop=True)) == 3


def test_counting_is_bounded() -> None:
    """Files of very many pages or frames are counted up to the limit, in little time."""
    tiff = directories(2 * MAX_FRAMES)
    frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    gif = b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(6) + frame * 2 * MAX_FRAMES + b";"
    with Image.open(io.BytesIO(tiff)) as first, Image.open(io.BytesIO(gif)) as second:
        started = time.monotonic()
        assert count_frames(tiff, first) == MAX_FRAMES
        assert count_frames(gif, second) == MAX_FRAMES
    assert time.monotonic() - started < 2


def test_a_claim_of_frames_is_bounded(make_image: MakeImage, encode: Encode) -> None:
    """A header that claims two thousand million frames counts as the limit: the figure must fit its column."""
    frames = [make_image(16, 16, seed) for seed in range(3)]
    data = bytearray(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    at = data.index(b"acTL")
    data[at + 4 : at + 8] = struct.pack(">I", 0x80000000)
    data[at + 12 : at + 16] = struct.pack(">I", zlib.crc32(data[at : at + 12]))
    assert count(bytes(data)) == MAX_FRAMES


@pytest.mark.property
@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["GIF", "TIFF"]), st.binary(max_size=300), st.integers(0, 80))
def test_counting_never_raises(kind: str, tail: bytes, keep: int) -> None:
    """Whatever follows a good beginning, there is a count within the limits."""
    image = Image.new("L", (8, 8))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    image.format = kind
    start = b"II*\0\x08\0\0\0" if kind == "TIFF" else b"GIF89a"
    assert 1 <= count_frames(buffer.getvalue()[:keep] + tail, image) <= MAX_FRAMES
    assert 1 <= count_frames(start + tail, image) <= MAX_FRAMES
