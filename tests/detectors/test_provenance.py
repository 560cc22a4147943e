"""What is made of a file's statements, and how hostile files are read."""

from __future__ import annotations

import struct
import sys
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import A1111, GRAPH, encoded, packet, png_with, source_type, with_exif, with_xmp
from PIL import PngImagePlugin

from poolproof.detectors.provenance import (
    MAX_FINDINGS,
    Finding,
    describe,
    is_declared,
    is_signed,
    read_provenance,
)


def test_capture_is_recorded_as_not_synthetic() -> None:
    """A stated camera capture is a finding that is not synthetic."""
    findings = read_provenance(with_xmp(source_type("digitalCapture")))
    expected = Finding("declared", False, "xmp", "DigitalSourceType", "digitalCapture", "stated")
    assert findings == (expected,)
    assert not is_declared(findings)
    assert describe(findings) == "declared, not synthetic: XMP DigitalSourceType 'digitalCapture'"


def test_values_are_one_short_printable_line() -> None:
    """Control characters leave a quoted value, and a long one is cut with an ellipsis."""
    findings = read_provenance(png_with(parameters="\x1b[31m\u202e\n\r\x00x" + A1111 + "y" * 10_000))
    (value,) = (f.value for f in findings)
    assert value.isprintable()
    assert len(value) == 200
    assert value.startswith("[31m")
    assert "Steps: 20, Sampler: Euler a" in value
    assert value.endswith("y…")


def test_describe_takes_the_strongest_finding() -> None:
    """Synthetic goes before not synthetic, signed before declared, stated before weak; nothing gives None."""
    weak = Finding("declared", True, "exif", "Make", "Ideogram AI", "weak")
    stated = Finding("declared", True, "png-text", "parameters", "Steps: 20, Sampler: x", "stated")
    signed = Finding("signed", True, "c2pa", "digitalSourceType", "trainedAlgorithmicMedia", "verified")
    capture = Finding("signed", False, "c2pa", "digitalSourceType", "digitalCapture", "verified")
    assert describe(()) is None
    assert describe((weak, capture)) == "signed, not synthetic: C2PA digitalSourceType 'digitalCapture'"
    assert describe((weak, capture, stated)) == "declared: PNG text parameters 'Steps: 20, Sampler: x'"
    assert describe((stated, signed)) == "signed: C2PA digitalSourceType 'trainedAlgorithmicMedia'"
    assert is_signed((weak, signed))
    assert not is_signed((capture, stated))


def test_findings_are_bounded() -> None:
    """A file of a thousand statements gives the first of them."""
    info = PngImagePlugin.PngInfo()
    for number in range(1000):
        info.add_text("parameters", f"{number} {A1111}")
    assert len(read_provenance(encoded("PNG", pnginfo=info))) == MAX_FINDINGS


def test_c2pa_is_not_imported_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a manifest store are read without c2pa-python; its words elsewhere do not change that."""
    monkeypatch.setitem(sys.modules, "c2pa", None)  # makes an import fail
    assert read_provenance(encoded("JPEG", comment=b"jumb c2pa")) == ()
    assert is_declared(read_provenance(png_with(parameters=A1111, note="jumb c2pa")))


# --- Hostile bytes ---


def test_entities_are_not_expanded() -> None:
    """Nested entities in XMP cost nothing and state nothing; what stands beside them is still read."""
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    external = '<!ENTITY file SYSTEM "file:///etc/hostname">'
    inside = "<photoshop:Credit>&a11;&file;</photoshop:Credit>" + source_type("trainedAlgorithmicMedia")
    xmp = f"<!DOCTYPE x [{entities}{external}]>" + packet(inside)
    started = time.process_time()
    findings = read_provenance(encoded("JPEG", xmp=xmp.encode()))
    assert time.process_time() - started < 1
    assert [f.value for f in findings] == ["trainedAlgorithmicMedia"]


@pytest.mark.parametrize(
    "unit",
    [
        ' x:DigitalSourceType="',
        "<x:DigitalSourceType ",
        "<x:AIGC><a ",
        "<x:Credit>" + " " * 200,
        "<x:AISystemUsed resource ",
        "<" * 40 + "CreatorTool",
        "&#120;",
    ],
)
def test_repetitive_xmp_takes_bounded_time(unit: str) -> None:
    """50 MB of any repeated fragment of XMP are read in less than a second, and in little memory."""
    body = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta>" + (unit * (50_000_000 // len(unit))).encode()
    data = encoded("PNG")
    data = data[:33] + struct.pack(">I", len(body)) + b"iTXt" + body + b"\0\0\0\0" + data[33:]
    started = time.process_time()
    read_provenance(data)
    assert time.process_time() - started < 1
    tracemalloc.start()
    read_provenance(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(
    "unit",
    ["Steps: ", "Job ID: 1b4e28ba-", "Label: ProduceID", "Signature: aaaa", '{"', ' "sampler\\\\', " --v"],
)
@pytest.mark.parametrize("key", ["parameters", "Description", "AIGC", "prompt", "Comment"])
def test_repetitive_text_takes_bounded_time(unit: str, key: str) -> None:
    """A zipped text of many megabytes in any repeated fragment is read in bounded time."""
    body = key.encode() + b"\0\0" + zlib.compress((unit * (10_000_000 // len(unit))).encode(), 1)
    data = encoded("PNG")
    data = data[:33] + struct.pack(">I", len(body)) + b"zTXt" + body + b"\0\0\0\0" + data[33:]
    started = time.process_time()
    read_provenance(data)
    assert time.process_time() - started < 1


BASES = [
    png_with(parameters=A1111, prompt=GRAPH),
    with_exif({0x0131: "NovelAI", 0x9286: b"UNICODE\0St"}, "WEBP"),
]
BASES += [with_xmp(source_type("trainedAlgorithmicMedia")), encoded("GIF", comment=A1111.encode())]


def test_truncated_files_are_read() -> None:
    """Cutting a file at any place gives findings or none, and never a signed one."""
    for data in BASES:
        for stop in range(0, len(data), 97):
            assert not is_signed(read_provenance(data[:stop]))


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from(BASES),
    edits=st.lists(st.tuples(st.integers(0, 100_000), st.binary(max_size=6), st.booleans()), max_size=6),
    stop=st.integers(0, 100_000),
)
def test_mutated_files_never_raise(base: bytes, edits: list[tuple[int, bytes, bool]], stop: int) -> None:
    """Whatever is overwritten in a file, or put into it, reading it gives findings."""
    data = bytearray(base)
    for at, new, insert in edits:
        start = at % len(data)
        data[start : start if insert else start + len(new)] = new
    findings = read_provenance(bytes(data[: len(data) - stop % len(data) // 4]))
    assert all(f.value.isprintable() and len(f.value) <= 200 for f in findings)
    assert describe(findings) is None or findings


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=400),
    key=st.sampled_from(["parameters", "AIGC", "Description", "XML:com.adobe.xmp"]),
)
def test_arbitrary_text_never_raises(text: str, key: str) -> None:
    """Any text in a PNG is read to findings."""
    body = key.encode() + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
    data = BASES[0][:33] + struct.pack(">I", len(body)) + b"iTXt" + body + b"\0\0\0\0"
    assert isinstance(read_provenance(data), tuple)
