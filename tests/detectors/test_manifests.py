"""Statements of C2PA manifests that c2pa-python signs on the spot, and of broken and hostile ones."""

from __future__ import annotations

import datetime
import http.server
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poolproof.audit.credentials import Identity, make_identity, sign_message
from poolproof.detectors.provenance import Finding, describe, is_declared, is_signed, read_provenance

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def encoded(container: str, seed: int = 0, **options: object) -> bytes:
    """A small noisy picture as a file of the given Pillow format."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save(out, container, **options)
    return out.getvalue()


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


def test_truncated_file_is_not_signed(synthetic: bytes) -> None:
    """Cutting a signed file at any place gives findings or none, and never a signed one."""
    for stop in range(0, len(synthetic), 97):
        assert not is_signed(read_provenance(synthetic[:stop]))


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 100_000), st.binary(max_size=6), st.booleans()), max_size=6),
    stop=st.integers(0, 100_000),
)
def test_mutated_manifest_never_raises(
    synthetic: bytes, edits: list[tuple[int, bytes, bool]], stop: int
) -> None:
    """Whatever is overwritten in a signed file, or put into it, reading it gives findings."""
    data = bytearray(synthetic)
    for at, new, insert in edits:
        start = at % len(data)
        data[start : start if insert else start + len(new)] = new
    findings = read_provenance(bytes(data[: len(data) - stop % len(data) // 4]))
    assert all(f.value.isprintable() and len(f.value) <= 200 for f in findings)
    assert describe(findings) is None or findings
