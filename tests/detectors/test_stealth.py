"""Text in the lowest bits of the pixels, against an encoder that sets them one by one, and hostile bits."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.detectors.findings import Finding
from poolproof.detectors.stealth import MAX_PAYLOAD, read_stealth

MAGICS = ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"]
SETTINGS = json.dumps({"Software": "NovelAI", "Comment": {"prompt": "ein Mädchen, 猫", "steps": 28}})


def bits_of(data: bytes) -> Iterator[int]:
    """Bits of bytes, the highest of each first."""
    return ((byte >> shift) & 1 for byte in data for shift in range(7, -1, -1))


def stream(magic: str, payload: bytes, n_bits: int | None = None) -> bytes:
    """Magic, length in bits (true unless another is given), payload."""
    return magic.encode() + (8 * len(payload) if n_bits is None else n_bits).to_bytes(4, "big") + payload


def packed(magic: str, text: str) -> bytes:
    """The text as the magic announces it."""
    return gzip.compress(text.encode()) if magic.endswith("comp") else text.encode()


def hide(height: int, width: int, magic: str, data: bytes, seed: int = 0) -> np.ndarray:
    """A noisy RGBA image with the data in its lowest bits, down the columns: alpha's, or red, green and blue's."""
    rgba = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    bits = bits_of(data)
    channels = (3,) if "png" in magic else (0, 1, 2)
    for x in range(width):
        for y in range(height):
            for c in channels:
                bit = next(bits, None)
                if bit is None:
                    return rgba
                rgba[y, x, c] = rgba[y, x, c] & 254 | bit
    raise ValueError("the image is too small for the data")


def read(rgba: np.ndarray) -> tuple[Finding, ...]:
    """Findings of an RGBA array."""
    return read_stealth(rgba[:, :, :3], rgba[:, :, 3])


@pytest.mark.reference
@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize("shape", [(64, 96), (97, 61), (9, 400), (3000, 8)])
def test_text_comes_back(magic: str, shape: tuple[int, int]) -> None:
    """What was set bit by bit is read, whatever the shape, and quoted with the magic as its field."""
    findings = read(hide(*shape, magic, stream(magic, packed(magic, SETTINGS))))
    assert findings == (Finding("declared", True, "stealth", magic, SETTINGS, "stated"),)


@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize(("container", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_text_survives_lossless_files(magic: str, container: str, options: dict[str, bool]) -> None:
    """A file whose format keeps the values keeps the text, read from the decoded planes."""
    rgba = hide(64, 96, magic, stream(magic, packed(magic, SETTINGS)))
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, container, **options)
    decoded = decode_image(out.getvalue())
    assert decoded.pixels is not None
    assert [f.value for f in read_stealth(decoded.pixels, decoded.alpha)] == [SETTINGS]


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_first_frame_of_an_animation_is_read(container: str) -> None:
    """The text in the first frame of an animated file is read, with alpha or without."""
    for magic in ("stealth_pngcomp", "stealth_rgbcomp"):
        rgba = hide(64, 96, magic, stream(magic, packed(magic, SETTINGS)))
        frames = [Image.fromarray(rgba if "png" in magic else rgba[:, :, :3])]
        frames.append(frames[0].rotate(180))
        out = io.BytesIO()
        lossless = {"lossless": True, "exact": True} if container == "WEBP" else {}
        frames[0].save(out, container, save_all=True, append_images=frames[1:], **lossless)
        decoded = decode_image(out.getvalue())
        assert decoded.header is not None
        assert decoded.header.frames == 2
        assert decoded.pixels is not None
        assert [f.field for f in read_stealth(decoded.pixels, decoded.alpha)] == [magic]


def test_both_planes_are_read() -> None:
    """Text in alpha and text in the colours give a finding each."""
    rgba = hide(64, 96, "stealth_rgbinfo", stream("stealth_rgbinfo", b"colours"))
    rgba[:, :, 3] = hide(64, 96, "stealth_pnginfo", stream("stealth_pnginfo", b"alpha"))[:, :, 3]
    assert [(f.field, f.value) for f in read(rgba)] == [
        ("stealth_pnginfo", "alpha"),
        ("stealth_rgbinfo", "colours"),
    ]
    assert [f.value for f in read_stealth(rgba[:, :, :3], None)] == ["colours"]


def test_what_changes_values_leaves_nothing() -> None:
    """JPEG, a crop at the top, and a magic in the wrong plane give no finding."""
    magic = "stealth_rgbcomp"
    rgba = hide(64, 96, magic, stream(magic, packed(magic, SETTINGS)))
    out = io.BytesIO()
    Image.fromarray(rgba[:, :, :3]).save(out, "JPEG", quality=95)
    decoded = decode_image(out.getvalue())
    assert decoded.pixels is not None
    assert decoded.alpha is None
    assert read_stealth(decoded.pixels, None) == ()
    assert read(rgba[1:]) == ()
    swapped = stream("stealth_pnginfo", b"text")
    assert read(hide(64, 96, "stealth_rgbinfo", swapped)) == ()


def test_values_are_cut_and_cleaned() -> None:
    """A quoted payload is one line of at most 200 printable characters."""
    text = "\x1b[2J\u202e\n" + "é" * 5000
    (finding,) = read(hide(640, 640, "stealth_pnginfo", stream("stealth_pnginfo", text.encode())))
    assert finding.value.isprintable()
    assert len(finding.value) == 200
    assert finding.confidence == "stated"


def test_an_image_without_text_costs_no_copy() -> None:
    """No text in a large image is found out without a copy of it, from the few bits that would begin one."""
    rgba = np.random.default_rng(0).integers(0, 256, (4000, 3000, 4), np.uint8)
    pixels, alpha = np.ascontiguousarray(rgba[:, :, :3]), np.ascontiguousarray(rgba[:, :, 3])
    assert read_stealth(pixels, alpha) == ()
    tracemalloc.start()
    read_stealth(pixels, alpha)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


# --- Hostile bits ---


@pytest.mark.parametrize("n_bits", [0, 64 * 96 - 151, 2**31, 2**32 - 1])
@pytest.mark.parametrize("magic", MAGICS)
def test_impossible_lengths_are_weak(magic: str, n_bits: int) -> None:
    """A length of nothing, or beyond the image, is a weak finding that names it."""
    n_bits = n_bits if "png" in magic or n_bits != 64 * 96 - 151 else 3 * 64 * 96 - 151
    (finding,) = read(hide(64, 96, magic, stream(magic, b"", n_bits)))
    assert (finding.confidence, finding.field) == ("weak", magic)
    assert finding.value.startswith(f"unreadable: {n_bits} bits stated, room for ")


@pytest.mark.parametrize(
    ("magic", "payload", "words"),
    [
        ("stealth_pnginfo", b"\xff\xfe\xff", "not in UTF-8"),
        ("stealth_rgbinfo", b"   ", "no text"),
        ("stealth_pngcomp", b"no gzip at all", "not in gzip"),
        ("stealth_rgbcomp", gzip.compress(b"\xff\xff", mtime=0), "not in UTF-8"),
        ("stealth_rgbcomp", zlib.compress(b"text"), "not in gzip"),
        ("stealth_pngcomp", gzip.compress(b"", mtime=0), "no text"),
        (
            "stealth_pngcomp",
            gzip.compress(b"text", mtime=0)[:-8] + bytes(8),
            "not in gzip",
        ),  # its checksum is wrong
    ],
)
def test_payloads_that_are_no_text_are_weak(magic: str, payload: bytes, words: str) -> None:
    """A magic in front of something else than text is a weak finding that says what is wrong."""
    (finding,) = read(hide(64, 96, magic, stream(magic, payload)))
    assert (finding.value, finding.confidence) == (f"unreadable: {words}", "weak")


def test_lengths_within_a_byte_are_weak() -> None:
    """A length of less than a byte holds no text."""
    (finding,) = read(hide(64, 96, "stealth_pnginfo", stream("stealth_pnginfo", b"a", 7)))
    assert finding.value == "unreadable: no text"


def test_gzip_bombs_are_bounded() -> None:
    """A payload that inflates to 128 MB costs less than a second and a few megabytes."""
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(b"a" * (1 << 20)) for _ in range(128)) + squeeze.flush()
    plane = np.zeros(4000 * 2500, np.uint8)
    bits = np.unpackbits(np.frombuffer(stream("stealth_pngcomp", bomb), np.uint8))
    plane[: len(bits)] = bits
    alpha = np.ascontiguousarray(plane.reshape(2500, 4000).T)
    pixels = np.zeros((4000, 2500, 3), np.uint8)
    tracemalloc.start()
    started = time.process_time()
    (finding,) = read_stealth(pixels, alpha)
    assert time.process_time() - started < 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MAX_PAYLOAD
    assert finding.value == "a" * 199 + "…"
    assert finding.confidence == "stated"


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 160), (8, 8), (120, 1), (13, 11), (151, 1), (152, 1), (1, 152)]
)
def test_tiny_images_are_read(shape: tuple[int, int]) -> None:
    """Images too small for the magic or the length are read without an exception."""
    assert read(np.full((*shape, 4), 255, np.uint8)) == ()
    bits = np.unpackbits(np.frombuffer(stream("stealth_pnginfo", b""), np.uint8))[: shape[0] * shape[1]]
    alpha = np.zeros(shape[0] * shape[1], np.uint8)
    alpha[: len(bits)] = bits
    found = read_stealth(np.zeros((*shape, 3), np.uint8), alpha.reshape(shape[::-1]).T)
    assert all(f.confidence == "weak" for f in found)
    assert bool(found) == (shape[0] * shape[1] >= 120)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(
    text=st.text(min_size=1, max_size=60),
    magic=st.sampled_from(MAGICS),
    height=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_any_text_comes_back(text: str, magic: str, height: int, seed: int) -> None:
    """Any text in any shape is read to one finding: stated where it has something printable to quote."""
    data = stream(magic, packed(magic, text))
    (finding,) = read(hide(height, 8 * len(data) // height + 1, magic, data, seed))
    assert finding.confidence == ("stated" if text.strip() else "weak")


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(tail=st.binary(max_size=300), magic=st.sampled_from(MAGICS))
def test_arbitrary_bits_behind_the_magic_never_raise(tail: bytes, magic: str) -> None:
    """Noise behind a magic is one finding or another, never an exception."""
    (finding,) = read(hide(64, 60, magic, magic.encode() + tail))
    assert finding.value.isprintable()
