"""Statements of origin in files written on the spot by Pillow, and in hostile ones."""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from poolproof.detectors.provenance import (
    MAX_FINDINGS,
    RULES,
    Finding,
    describe,
    is_declared,
    is_signed,
    read_provenance,
)

A1111 = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
GRAPH = json.dumps({"3": {"inputs": {"seed": 1}, "class_type": "KSampler"}})
WORKFLOW = json.dumps({"last_node_id": 9, "nodes": [{"id": 7, "type": "VAEDecode"}]})
SWARM = json.dumps({"sui_image_params": {"prompt": "a cat", "seed": 1}})
AIGC = json.dumps({"AIGC": {"Label": "1", "ContentProducer": "001", "ProduceID": "x"}})
AIGC_MAYBE = json.dumps({"Label": "3", "ContentProducer": "001", "ProduceID": "x"})
UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def encoded(container: str, seed: int = 0, **options: object) -> bytes:
    """A small noisy picture as a file of the given Pillow format."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save(out, container, **options)
    return out.getvalue()


def png_with(**texts: str) -> bytes:
    """A PNG with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return encoded("PNG", pnginfo=info)


def with_exif(tags: Mapping[int, str | bytes], container: str = "JPEG") -> bytes:
    """A file with EXIF tags; UserComment goes into the Exif directory."""
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag == 0x9286:
            exif.get_ifd(0x8769)[tag] = value
        else:
            exif[tag] = value
    return encoded(container, exif=exif)


def packet(inside: str, attributes: str = "") -> str:
    """An XMP packet around one description."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}>{inside}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def with_xmp(inside: str, attributes: str = "", container: str = "JPEG") -> bytes:
    """A JPEG or WebP file with an XMP packet."""
    return encoded(container, xmp=packet(inside, attributes).encode())


def with_credit(credit: bytes) -> bytes:
    """A JPEG with an IPTC-IIM credit line."""
    field = b"\x1c\x02\x6e" + struct.pack(">H", len(credit)) + credit
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(field)) + field
    data = encoded("JPEG")
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:]


def source_type(term: str) -> str:
    """An element that gives the IPTC digital source type."""
    return f"<Iptc4xmpExt:DigitalSourceType>{TYPES}{term}</Iptc4xmpExt:DigitalSourceType>"


# (source, field, file): each must give a synthetic finding that counts as declared.
STATED: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "A1111 PNG": ("png-text", "parameters", lambda: png_with(parameters=A1111)),
    "A1111 extras": ("png-text", "extras", lambda: png_with(extras=A1111)),
    "A1111 JPEG": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"UNICODE\0" + A1111.encode("utf-16-be")}),
    ),
    "A1111 WebP": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"ASCII\0\0\0" + A1111.encode()}, "WEBP"),
    ),
    "A1111 GIF": ("comment", "comment", lambda: encoded("GIF", comment=A1111.encode())),
    "SD.Next": (
        "png-text",
        "parameters",
        lambda: png_with(parameters="a cat\nSteps: 20| Seed: 1| Sampler: x"),
    ),
    "ComfyUI prompt": ("png-text", "prompt", lambda: png_with(prompt=GRAPH)),
    "ComfyUI workflow": ("png-text", "workflow", lambda: png_with(workflow=WORKFLOW)),
    "ComfyUI WebP": ("exif", "Model", lambda: with_exif({0x0110: "prompt:" + GRAPH}, "WEBP")),
    "ComfyUI WebP workflow": ("exif", "Make", lambda: with_exif({0x010F: "workflow:" + WORKFLOW}, "WEBP")),
    "SwarmUI PNG": ("png-text", "parameters", lambda: png_with(parameters=SWARM)),
    "SwarmUI JPEG": ("exif", "UserComment", lambda: with_exif({0x9286: b"\0" * 8 + SWARM.encode()})),
    "Fooocus PNG": (
        "png-text",
        "fooocus_scheme",
        lambda: png_with(fooocus_scheme="fooocus", parameters="{}"),
    ),
    "Fooocus JPEG": ("exif", "Software", lambda: with_exif({0x0131: "Fooocus v2.5.5"})),
    "InvokeAI": ("png-text", "invokeai_metadata", lambda: png_with(invokeai_metadata='{"seed": 1}')),
    "InvokeAI graph": ("png-text", "invokeai_graph", lambda: png_with(invokeai_graph="{}")),
    "InvokeAI 2": ("png-text", "sd-metadata", lambda: png_with(**{"sd-metadata": '{"model": "x"}'})),
    "InvokeAI 1": ("png-text", "Dream", lambda: png_with(Dream='"a cat" -s 50 -S 1 -W 512 -H 512')),
    "NovelAI": ("png-text", "Software", lambda: png_with(Software="NovelAI", Comment="{}")),
    "Midjourney": ("png-text", "Description", lambda: png_with(Description=f"a cat --v 6 Job ID: {UUID}")),
    "FLUX": ("exif", "Software", lambda: with_exif({0x0131: "AI generated;txt2img;flux"})),
    "FLUX make": ("exif", "Make", lambda: with_exif({0x010F: "Black Forest Labs"})),
    "Grok": (
        "exif",
        "ImageDescription",
        lambda: with_exif({0x010E: "Signature: " + "aB3/" * 20, 0x013B: UUID}),
    ),
    "AIGC PNG": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC)),
    "AIGC EXIF": ("exif", "UserComment", lambda: with_exif({0x9286: b"ASCII\0\0\0" + AIGC.encode()})),
    "AIGC element": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC>{AIGC}</TC260:AIGC>")),
    "AIGC CDATA": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC><![CDATA[{AIGC}]]></TC260:AIGC>")),
    "AIGC attribute": (
        "xmp",
        "AIGC",
        lambda: with_xmp("", 'TC260:AIGC="' + AIGC.replace('"', "&quot;") + '"'),
    ),
    "source type element": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(source_type("trainedAlgorithmicMedia")),
    ),
    "source type attribute": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp("", f"iptcExt:DigitalSourceType='{TYPES}compositeSynthetic'", "WEBP"),
    ),
    "source type resource": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(f'<a.b-c:DigitalSourceType rdf:resource="{TYPES}trainedAlgorithmicMedia"/>'),
    ),
    "source type in a list": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(
            "<x:DigitalSourceType>\n <rdf:Bag>\n <rdf:li>"
            f"{TYPES}compositeWithTrainedAlgorithmicMedia/</rdf:li></rdf:Bag></x:DigitalSourceType>"
        ),
    ),
    "source type PNG": (
        "xmp",
        "DigitalSourceType",
        lambda: png_with(**{"XML:com.adobe.xmp": packet(source_type("trainedAlgorithmicMedia"))}),
    ),
    "system": ("xmp", "AISystemUsed", lambda: with_xmp("", 'Iptc4xmpExt:AISystemUsed="Some Model"')),
    "prompt": (
        "xmp",
        "AIPromptInformation",
        lambda: with_xmp("<Iptc4xmpExt:AIPromptInformation>a cat</Iptc4xmpExt:AIPromptInformation>"),
    ),
    "Google": ("xmp", "Credit", lambda: with_xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>")),
    "Google IIM": ("iptc", "Credit", lambda: with_credit(b"Made with Google AI")),
}

# (source, field, file): each must give a synthetic finding that is too weak to count alone.
WEAK: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "upscaler": ("png-text", "postprocessing", lambda: png_with(postprocessing="Postprocess upscale by: 4")),
    "Luma": ("png-text", "Source", lambda: png_with(Source="Luma AI")),
    "job": ("png-text", "hf-job-id", lambda: png_with(**{"hf-job-id": "12"})),
    "Ideogram": ("exif", "Make", lambda: with_exif({0x010F: "Ideogram AI"})),
    "Reve": ("exif", "Software", lambda: with_exif({0x0131: "reve.com"})),
    "Reve XMP": ("xmp", "CreatorTool", lambda: with_xmp("<xmp:CreatorTool>reve.com</xmp:CreatorTool>")),
    "Aphrodite": ("exif", "Software", lambda: with_exif({0x0131: "Aphrodite AI"})),
    "Aphrodite XMP": ("xmp", "CreatorTool", lambda: with_xmp("", 'xmp:CreatorTool="Aphrodite AI"')),
    "tool": ("xmp", "CreatorTool", lambda: with_xmp("", 'xmp:CreatorTool="Adobe Firefly"')),
    "software": ("exif", "Software", lambda: with_exif({0x0131: "ChatGPT"})),
    "PNG software": ("png-text", "Software", lambda: png_with(Software="OpenAI")),
    "possible": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC_MAYBE)),
    "possible EXIF": ("exif", "UserComment", lambda: with_exif({0x9286: b"\0" * 8 + AIGC_MAYBE.encode()})),
    "possible XMP": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC>{AIGC_MAYBE}</TC260:AIGC>")),
}

# Files close to a rule that state nothing synthetic.
SILENT: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded("JPEG"),
    "PNG": lambda: encoded("PNG"),
    "camera": lambda: with_exif({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "Adobe Lightroom 12"}),
    "parameters of something else": lambda: png_with(parameters="gain=2; offset=1"),
    "prompt that is no graph": lambda: png_with(prompt="please print on A4", workflow="scan then archive"),
    "another description": lambda: png_with(Description="Job ID: 4711", Software="GIMP", Source="scanner"),
    "signature without UUID": lambda: with_exif({0x010E: "Signature: " + "aB3/" * 20, 0x013B: "J. Doe"}),
    "UUID without signature": lambda: with_exif({0x010E: "a cat", 0x013B: UUID}),
    "procedural": lambda: with_xmp(source_type("algorithmicMedia")),
    "scan": lambda: with_xmp(source_type("negativeFilm")),
    "credit": lambda: with_xmp("<photoshop:Credit>Agency</photoshop:Credit>"),
    "empty system": lambda: with_xmp("<Iptc4xmpExt:AISystemUsed></Iptc4xmpExt:AISystemUsed>"),
    "empty element before another": lambda: with_xmp(
        "<Iptc4xmpExt:AISystemUsed/><dc:title>x</dc:title><a:AISystemUsed></a:AISystemUsed><dc:x>y</dc:x>"
    ),
    "name inside a longer name": lambda: with_xmp("", 'x:NotDigitalSourceType="trainedAlgorithmicMedia"'),
    "term in a description": lambda: with_xmp("<dc:title>trainedAlgorithmicMedia</dc:title>"),
    "recipe": lambda: with_exif({0x9286: b"ASCII\0\0\0Steps: 3 to follow. Enjoy."}),
}


@pytest.mark.parametrize("case", STATED)
def test_stated_rules_declare(case: str) -> None:
    """A file of each producer is declared synthetic by the field that the producer writes."""
    source, field, build = STATED[case]
    findings = read_provenance(build())
    assert is_declared(findings)
    assert not is_signed(findings)
    assert [(f.source, f.field, f.tier, f.confidence) for f in findings if f.synthetic][:1] == [
        (source, field, "declared", "stated")
    ]


@pytest.mark.parametrize("case", WEAK)
def test_weak_rules_do_not_count_alone(case: str) -> None:
    """An unconfirmed form is reported as weak and declares nothing."""
    source, field, build = WEAK[case]
    findings = read_provenance(build())
    assert [(f.source, f.field, f.confidence, f.synthetic) for f in findings] == [
        (source, field, "weak", True)
    ]
    assert not is_declared(findings)
    assert (describe(findings) or "").startswith("declared, weak: ")


@pytest.mark.parametrize("case", SILENT)
def test_files_close_to_a_rule_are_silent(case: str) -> None:
    """A file that only resembles a rule gives no finding at all."""
    assert read_provenance(SILENT[case]()) == ()


def test_every_rule_is_exercised() -> None:
    """Each row of the table names a field that the cases above cover, with the row's confidence."""
    covered = {(source, field, "stated") for source, field, _ in STATED.values()}
    covered |= {(source, field, "weak") for source, field, _ in WEAK.values()}
    for rule in RULES:
        if rule.synthetic:
            assert any((rule.source, field, rule.confidence) in covered for field in rule.fields), rule


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
    started = time.perf_counter()
    findings = read_provenance(encoded("JPEG", xmp=xmp.encode()))
    assert time.perf_counter() - started < 10
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
    """20 MB of any repeated fragment of XMP are read in bounded time."""
    body = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta>" + (unit * (20_000_000 // len(unit))).encode()
    data = encoded("PNG")
    data = data[:33] + struct.pack(">I", len(body)) + b"iTXt" + body + b"\0\0\0\0" + data[33:]
    started = time.perf_counter()
    read_provenance(data)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "unit", ["Steps: ", "Job ID: 1b4e28ba-", "Label: ProduceID", "Signature: aaaa", '{"']
)
@pytest.mark.parametrize("key", ["parameters", "Description", "AIGC", "prompt"])
def test_repetitive_text_takes_bounded_time(unit: str, key: str) -> None:
    """A zipped text of many megabytes in any repeated fragment is read in bounded time."""
    body = key.encode() + b"\0\0" + zlib.compress((unit * (10_000_000 // len(unit))).encode(), 1)
    data = encoded("PNG")
    data = data[:33] + struct.pack(">I", len(body)) + b"zTXt" + body + b"\0\0\0\0" + data[33:]
    started = time.perf_counter()
    read_provenance(data)
    assert time.perf_counter() - started < 10


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
