"""Statements of origin in files written on the spot by Pillow and c2pa-python, and in hostile ones."""

from __future__ import annotations

import datetime
import http.server
import io
import json
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from poolproof.audit.credentials import Identity, make_identity, sign_message
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


# --- C2PA ---


@pytest.fixture(scope="module")
def identity() -> Identity:
    """A signer whom nobody knows."""
    return make_identity(datetime.timedelta(days=30))


def sign(
    data: bytes,
    identity: Identity,
    actions: Sequence[Mapping[str, Any]],
    ingredients: Sequence[tuple[Mapping[str, str], bytes]] = (),
    mime: str = "image/jpeg",
    name: str = "Some Editor",
    extra: Sequence[Mapping[str, Any]] = (),
    remote: str | None = None,
) -> bytes:
    """The file with a signed manifest in it; with `remote`, with a reference to that address instead."""
    import c2pa

    automatic = {f"auto_{verb}_action": {"enabled": False} for verb in ("created", "opened", "placed")}
    builder_settings = {"thumbnail": {"enabled": False}, "actions": automatic}
    verify = {"verify_after_sign": False, "remote_manifest_fetch": False}
    manifest = {
        "title": "t.jpg",
        "claim_generator_info": [{"name": name, "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": list(actions)}}, *extra],
    }
    out = io.BytesIO()
    with (
        c2pa.Context.from_dict({"builder": builder_settings, "verify": verify}) as context,
        c2pa.Builder(manifest, context=context) as builder,
        c2pa.Signer.from_callback(
            lambda message: sign_message(identity, message), c2pa.C2paSigningAlg.ES256, identity.chain
        ) as signer,
    ):
        for meta, content in ingredients:
            builder.add_ingredient(dict(meta), mime, io.BytesIO(content))
        if remote is not None:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        builder.sign(signer, mime, io.BytesIO(data), out)
    return out.getvalue()


def created(term: str | None, **fields: Any) -> dict[str, Any]:
    """A creation action, with a digital source type if one is given."""
    return {"action": "c2pa.created"} | ({"digitalSourceType": TYPES + term} if term else {}) | fields


def related(relationship: str, content: bytes) -> tuple[dict[str, str], bytes]:
    """An ingredient as `sign` takes it, under the id `i`."""
    return {"title": "i.jpg", "relationship": relationship, "instance_id": "i", "label": "i"}, content


@pytest.fixture(scope="module")
def synthetic(identity: Identity) -> bytes:
    """A JPEG whose manifest states a trained model."""
    return sign(encoded("JPEG"), identity, [created("trainedAlgorithmicMedia")])


def opened(identity: Identity, parent: bytes, name: str = "Some Editor") -> bytes:
    """A JPEG whose manifest says no more than that it was opened from a parent."""
    action = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["i"]}}
    return sign(encoded("JPEG", 1), identity, [action], [related("parentOf", parent)], name=name)


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "term", ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"]
)
def test_intact_manifest_is_signed(identity: Identity, container: str, term: str) -> None:
    """An intact manifest by an unknown signer that states a synthetic source type is signed and verified."""
    mime = f"image/{container.lower()}"
    findings = read_provenance(sign(encoded(container), identity, [created(term)], mime=mime))
    assert findings == (Finding("signed", True, "c2pa", "digitalSourceType", term, "verified"),)
    assert is_signed(findings)
    assert not is_declared(findings)


def test_changed_pixels_are_not_signed(synthetic: bytes) -> None:
    """One changed byte of the image turns a signed statement into a declared one that says so."""
    data = bytearray(synthetic)
    data[-40] ^= 1
    findings = read_provenance(bytes(data))
    assert not is_signed(findings)
    assert is_declared(findings)
    assert findings[0].value == "trainedAlgorithmicMedia (signature broken: assertion.dataHash.mismatch)"
    assert findings[0].confidence == "stated"


def test_changed_assertion_is_not_signed(identity: Identity) -> None:
    """A source type written over an intact manifest's own is not signed."""
    data = sign(encoded("JPEG"), identity, [created("compositeCapture" + "x" * 7)])
    forged = data.replace(b"compositeCapturexxxxxxx", b"trainedAlgorithmicMedia")
    findings = read_provenance(forged)
    assert not is_signed(findings)
    assert "signature broken: assertion.hashedURI.mismatch" in findings[0].value


def test_manifest_on_another_image_is_not_signed(synthetic: bytes) -> None:
    """A manifest moved to another image is declared at most."""
    start = synthetic.index(b"\xff\xeb")
    stop = start
    while synthetic[stop : stop + 2] == b"\xff\xeb":
        stop += 2 + int.from_bytes(synthetic[stop + 2 : stop + 4])
    other = encoded("JPEG", 5)
    findings = read_provenance(other[:2] + synthetic[start:stop] + other[2:])
    assert not is_signed(findings)
    assert all("signature broken" in f.value for f in findings)


@pytest.mark.parametrize("term", [None, "digitalCapture", "algorithmicMedia", "humanEdits"])
def test_manifest_without_statement_is_not_synthetic(identity: Identity, term: str | None) -> None:
    """An intact manifest that states no synthetic source type is recorded as not synthetic."""
    (finding,) = read_provenance(sign(encoded("JPEG"), identity, [created(term)]))
    assert (finding.tier, finding.synthetic, finding.confidence) == ("signed", False, "verified")
    assert finding.value == ("digitalCapture" if term == "digitalCapture" else "Some Editor")


def test_statement_is_inherited_from_parents(identity: Identity, synthetic: bytes) -> None:
    """A manifest that only opened a synthetic parent, or the parent of one, is signed and synthetic."""
    for data in (opened(identity, synthetic), opened(identity, opened(identity, synthetic))):
        findings = read_provenance(data)
        assert is_signed(findings)
        assert findings[0].value == "trainedAlgorithmicMedia"


@pytest.mark.parametrize("relationship", ["componentOf", "inputTo"])
def test_synthetic_ingredient_is_named_not_inherited(
    identity: Identity, synthetic: bytes, relationship: str
) -> None:
    """A synthetic ingredient of a composite is a finding that is not synthetic."""
    verb = "c2pa.placed" if relationship == "componentOf" else "c2pa.edited"
    actions = [created("digitalCapture"), {"action": verb, "parameters": {"ingredientIds": ["i"]}}]
    data = sign(encoded("JPEG", 2), identity, actions, [related(relationship, synthetic)])
    findings = read_provenance(data)
    assert not is_signed(findings)
    assert not is_declared(findings)
    assert [(f.field, f.value) for f in findings] == [
        ("digitalSourceType", "digitalCapture"),
        ("ingredient", "trainedAlgorithmicMedia in t.jpg"),
    ]


def test_forged_parent_is_not_signed(identity: Identity, synthetic: bytes) -> None:
    """A parent that was changed before it was opened, or after, does not make the image signed."""
    changed = bytearray(synthetic)
    changed[-40] ^= 1
    before = opened(identity, bytes(changed))
    after = opened(identity, synthetic).replace(b"trainedAlgorithmicMedia", b"TrainedAlgorithmicMedia")
    for data, words in ((before, "broken when it was added"), (after, "signature broken: ")):
        findings = read_provenance(data)
        assert not is_signed(findings)
        assert is_declared(findings)
        assert words in findings[0].value


@pytest.mark.parametrize(
    ("name", "confidence"), [("Adobe_Firefly", "stated"), ("ChatGPT", "stated"), ("Dreamina", "weak")]
)
def test_generator_names_count_without_a_source_type(identity: Identity, name: str, confidence: str) -> None:
    """A known generator's name states a synthetic image where no source type is given, and else nothing."""
    findings = read_provenance(sign(encoded("JPEG"), identity, [created(None)], name=name))
    assert [(f.field, f.value, f.confidence) for f in findings] == [("claim_generator", name, confidence)]
    assert is_signed(findings) == (confidence == "stated")
    typed = read_provenance(sign(encoded("JPEG"), identity, [created("digitalCapture")], name=name))
    assert not any(f.synthetic for f in typed)


def test_agents_and_content_assertions_count(identity: Identity) -> None:
    """A generator as software agent counts, and so does the assertion of generated content."""
    agent = created(None, softwareAgent={"name": "Flux.2"})
    (finding,) = read_provenance(sign(encoded("JPEG"), identity, [agent]))
    assert (finding.field, finding.value, finding.synthetic) == ("softwareAgent", "Flux.2", True)
    assertion = {"label": "c2pa.ai_generated_content", "data": {"model": "x"}}
    findings = read_provenance(sign(encoded("JPEG"), identity, [created(None)], extra=[assertion]))
    assert is_signed(findings)
    assert findings[0].field == "c2pa.ai_generated_content"


@pytest.mark.slow
def test_expired_certificate_is_accepted() -> None:
    """A manifest whose certificate has run out since is still signed: content and signature are intact."""
    started = time.monotonic()
    brief = make_identity(datetime.timedelta(seconds=3))
    data = sign(encoded("JPEG"), brief, [created("trainedAlgorithmicMedia")])
    time.sleep(max(0.0, started + 4.5 - time.monotonic()))
    assert is_signed(read_provenance(data))


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Address of a local server, and the paths asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/manifest.c2pa", asked
        httpd.shutdown()
        thread.join()


def test_no_manifest_is_fetched(identity: Identity, server: tuple[str, list[str]]) -> None:
    """A manifest kept elsewhere is not asked for, even past the gate; by default the library asks."""
    import c2pa

    address, asked = server
    remote = sign(encoded("JPEG"), identity, [created("trainedAlgorithmicMedia")], remote=address)
    decoy = b"\xff\xeb" + struct.pack(">H", 12) + b"JPjumbc2pa"
    for data in (remote, remote[:2] + decoy + remote[2:]):
        assert read_provenance(data) == ()
    assert asked == []
    with pytest.raises(c2pa.C2paError), c2pa.Reader("image/jpeg", io.BytesIO(remote)):
        raise AssertionError("the address holds no manifest")
    assert asked == ["/manifest.c2pa"]


def test_c2pa_is_not_imported_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a manifest store are read without c2pa-python; its words elsewhere do not change that."""
    monkeypatch.setitem(sys.modules, "c2pa", None)  # makes an import fail
    assert read_provenance(encoded("JPEG", comment=b"jumb c2pa")) == ()
    assert is_declared(read_provenance(png_with(parameters=A1111, note="jumb c2pa")))


# --- Hostile bytes ---


def test_unreadable_store_gives_no_finding() -> None:
    """A block that only looks like a manifest store is passed over, also when its boxes are nested deeply."""
    box = b""
    for _ in range(3000):
        inner = struct.pack(">I", 35) + b"jumdc2ma\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03urn:uuid:x\0"
        box = struct.pack(">I", 8 + len(inner) + len(box)) + b"jumb" + inner + box
    for body in (b"jumb c2pa", b"\0\0\0\x10jumbjumdc2pa", box + b"c2pa"):
        data = encoded("PNG")
        block = struct.pack(">I", len(body)) + b"caBX" + body + struct.pack(">I", zlib.crc32(b"caBX" + body))
        assert read_provenance(data[:33] + block + data[33:]) == ()


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


def test_truncated_files_are_read(synthetic: bytes) -> None:
    """Cutting a file at any place gives findings or none, and never a signed one."""
    for data in (synthetic, *BASES):
        for stop in range(0, len(data), 97):
            assert not is_signed(read_provenance(data[:stop]))


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(
    base=st.integers(0, len(BASES)),
    edits=st.lists(st.tuples(st.integers(0, 100_000), st.binary(max_size=6), st.booleans()), max_size=6),
    stop=st.integers(0, 100_000),
)
def test_mutated_files_never_raise(
    synthetic: bytes, base: int, edits: list[tuple[int, bytes, bool]], stop: int
) -> None:
    """Whatever is overwritten in a file, or put into it, reading it gives findings."""
    data = bytearray([*BASES, synthetic][base])
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
