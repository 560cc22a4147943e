"""The faster JPEG decoder gives the same pixels and the same verdicts."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_pools import draw
from PIL import Image

from poolproof.audit import decode
from poolproof.audit.decode import decode_image

KINDS: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 95, "subsampling": 0},
    {"quality": 75, "subsampling": 1},
    {"quality": 50, "subsampling": 2, "progressive": True},
    {"quality": 80, "keep_rgb": True},
    {"quality": 80, "restart_marker_rows": 1},
]


def jpeg(mode: str = "RGB", side: int = 61, **options: Any) -> bytes:
    """A JPEG of odd size."""
    pixels = draw(np.random.default_rng(3), synthetic=False, side=side)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.reference
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", KINDS)
def test_same_pixels_as_pillow(mode: str, options: dict[str, Any]) -> None:
    """Bit for bit Pillow's pixels, in every mode, subsampling and coding."""
    pytest.importorskip("simplejpeg")
    if mode != "RGB":
        options = {name: value for name, value in options.items() if name != "keep_rgb"}
    data = jpeg(mode, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    found = decode_image(data).pixels
    assert found is not None
    assert np.array_equal(found, expected)


def test_without_the_package_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where simplejpeg is not installed, Pillow decodes to the same."""
    data = jpeg()
    with_it = decode_image(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    without = decode_image(data)
    assert with_it.header == without.header
    assert with_it.pixels is not None
    assert without.pixels is not None
    assert np.array_equal(with_it.pixels, without.pixels)


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(position=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_same_verdict_on_damaged_files(position: float, value: int, cut: bool) -> None:
    """A changed byte or a cut ends in the same status with both decoders, and in the same pixels if scored."""
    data = bytearray(jpeg(side=48, quality=85))
    at = int(position * (len(data) - 1))
    data = data[:at] if cut else data
    if not cut:
        data[at] = value
    found = decode_image(bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_decode_fast", lambda image, data: None)
        expected = decode_image(bytes(data))
    assert (found.status, found.reason) == (expected.status, expected.reason)
    if expected.pixels is not None and found.pixels is not None:
        assert np.array_equal(found.pixels, expected.pixels)
