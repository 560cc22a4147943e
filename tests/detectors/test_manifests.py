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

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import TYPES, encoded
from PIL import Image, features

from poolproof.audit.credentials import Identity, make_identity, sign_message
from poolproof.detectors import manifests as manifests_module
from poolproof.detectors.provenance import (
    MAX_FINDINGS,
    Finding,
    describe,
    is_declared,
    is_signed,
    read_provenance,
)


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


# --- What the reader of manifests hands over, made up ---


def test_soft_binding_states_nothing(identity: Identity) -> None:
    """A watermark or fingerprint named in a manifest is a weak finding that is not synthetic."""
    binding = {
        "label": "c2pa.soft-binding",
        "data": {"alg": "com.adobe.trustmark.P", "blocks": [{"scope": {}, "value": "Mg=="}]},
    }
    findings = read_provenance(sign(encoded("JPEG"), identity, [created(None)], extra=[binding]))
    assert findings == (
        Finding("signed", False, "c2pa", "c2pa.soft-binding", "com.adobe.trustmark.P", "weak"),
        Finding("signed", False, "c2pa", "claim_generator", "Some Editor", "verified"),
    )
    assert describe(findings) == "signed, not synthetic: C2PA claim_generator 'Some Editor'"


def test_chatgpt_states_in_the_parent(identity: Identity, synthetic: bytes) -> None:
    """ChatGPT's form, opened in the active manifest and typed in the parent, is signed and synthetic."""
    findings = read_provenance(opened(identity, synthetic, name="ChatGPT"))
    assert [(f.field, f.value, f.confidence) for f in findings] == [
        ("claim_generator", "ChatGPT", "stated"),
        ("digitalSourceType", "trainedAlgorithmicMedia", "verified"),
    ]
    assert is_signed(findings)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_manifest_in_avif_is_read(identity: Identity) -> None:
    """The box of an ISO base media file that holds a manifest is read like the blocks of other containers."""
    data = sign(encoded("AVIF"), identity, [created("trainedAlgorithmicMedia")], mime="image/avif")
    assert b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81" in data
    assert is_signed(read_provenance(data))


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_manifest_of_an_animation_is_read(identity: Identity, container: str) -> None:
    """A signed animated file is signed."""
    frames = [Image.open(io.BytesIO(encoded("PNG", seed))) for seed in range(3)]
    data = encoded_frames(frames, container)
    signed = sign(data, identity, [created("trainedAlgorithmicMedia")], mime=f"image/{container.lower()}")
    assert is_signed(read_provenance(signed))
    assert getattr(Image.open(io.BytesIO(signed)), "n_frames", 1) == 3


def encoded_frames(frames: Sequence[Image.Image], container: str) -> bytes:
    """An animated file."""
    out = io.BytesIO()
    frames[0].save(out, container, save_all=True, append_images=list(frames[1:]))
    return out.getvalue()


def store_of(manifests: Mapping[str, Mapping[str, Any]], active: str) -> dict[str, Any]:
    """A store as the reader reports it where all checks of the active manifest pass."""
    passed = [{"code": "claimSignature.validated"}, {"code": "assertion.dataHash.match"}]
    results = {"activeManifest": {"success": passed, "failure": []}}
    return {"active_manifest": active, "manifests": manifests, "validation_results": results}


def from_parents(*labels: str, **fields: Any) -> dict[str, Any]:
    """A manifest that was opened from others."""
    parents = [{"relationship": "parentOf", "active_manifest": label, "title": label} for label in labels]
    return {"ingredients": parents, **fields}


def read_store(monkeypatch: pytest.MonkeyPatch, store: dict[str, Any]) -> tuple[Finding, ...]:
    """Findings of a file whose store is the given one; reading must take less than a second."""
    monkeypatch.setattr(manifests_module, "_read_store", lambda data, mime: store)
    started = time.process_time()
    findings = read_provenance(encoded("PNG")[:33] + CABX + encoded("PNG")[33:])
    assert time.process_time() - started < 1
    return findings


TYPED = {
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created("trainedAlgorithmicMedia")]}}]
}
CABX = struct.pack(">I", 9) + b"caBXjumb c2pa" + bytes(4)


def test_signers_name_is_weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that only the certificate names is weak; a name of the software, or a type, goes before it."""
    signer = {"signature_info": {"issuer": "Some Trust", "common_name": "Black Forest Labs Inc."}}
    (finding,) = read_store(monkeypatch, store_of({"a": signer}, "a"))
    assert (finding.field, finding.confidence, finding.synthetic) == ("signature common_name", "weak", True)
    assert not is_signed((finding,))
    named = {**signer, "claim_generator": "Eleven Labs/1.0"}
    assert [f.field for f in read_store(monkeypatch, store_of({"a": named}, "a"))] == ["claim_generator"]
    typed = {**signer, **TYPED}
    assert [f.field for f in read_store(monkeypatch, store_of({"a": typed}, "a"))] == ["digitalSourceType"]


@pytest.mark.parametrize(
    "manifests",
    [
        {"a": from_parents("a", **TYPED)},
        {"a": from_parents("b"), "b": from_parents("a", **TYPED)},
        {"a": from_parents("b", "b", "c"), "b": from_parents("c", "a"), "c": from_parents("a", "b", **TYPED)},
    ],
)
def test_loops_of_ingredients_end(
    monkeypatch: pytest.MonkeyPatch, manifests: dict[str, dict[str, Any]]
) -> None:
    """Manifests that are each other's parents are visited once each, and what one of them states counts."""
    findings = read_store(monkeypatch, store_of(manifests, "a"))
    assert findings == (
        Finding("signed", True, "c2pa", "digitalSourceType", "trainedAlgorithmicMedia", "verified"),
    )


def test_large_stores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of 100,000 parents, each also listed 100 times, is walked as far as the bound."""
    chain = {str(n): from_parents(*([str(n + 1)] * 100)) for n in range(2000)}
    chain |= {str(n): from_parents(str(n + 1)) for n in range(2000, 100_000)}
    chain["300"] |= TYPED
    assert not any(f.synthetic for f in read_store(monkeypatch, store_of(chain, "0")))
    chain["255"] |= TYPED
    assert is_signed(read_store(monkeypatch, store_of(chain, "0")))


def test_many_statements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of 100,000 different statements gives the first of them."""
    actions = [created("digitalCapture", softwareAgent=f"OpenAI {n}") for n in range(100_000)]
    untyped = [{**action, "digitalSourceType": TYPES + "humanEdits"} for action in actions]
    for listed in (actions, untyped):
        manifest = {"assertions": [{"label": "c2pa.actions", "data": {"actions": listed}}]}
        assert 0 < len(read_store(monkeypatch, store_of({"a": manifest}, "a"))) <= MAX_FINDINGS


@pytest.mark.parametrize(
    "store",
    [
        {},
        {"active_manifest": "a"},
        {"active_manifest": ["a"], "manifests": {"a": {}}},
        {"active_manifest": "a", "manifests": [1]},
        {"active_manifest": "a", "manifests": {"a": 1}},
        store_of({"a": {"ingredients": 1, "assertions": {"x": 1}, "claim_generator": 1}}, "a"),
        store_of({"a": {"ingredients": [1, {"active_manifest": 1}], "assertions": [1, {"data": 1}]}}, "a"),
        store_of({"a": {"assertions": [{"label": 1, "data": {"actions": [{"digitalSourceType": 1}]}}]}}, "a"),
        store_of({"a": {"assertions": [{"label": "c2pa.soft-binding", "data": {"alg": 1}}]}}, "a"),
        store_of({"a": {"signature_info": [1], "claim_generator_info": [{"name": 1}]}}, "a"),
        {"active_manifest": "a", "manifests": {"a": TYPED}, "validation_results": {"activeManifest": 1}},
        {"active_manifest": "a", "manifests": {"a": TYPED}, "validation_results": {"ingredientDeltas": [1]}},
    ],
)
def test_odd_stores_are_never_signed(monkeypatch: pytest.MonkeyPatch, store: dict[str, Any]) -> None:
    """Values of other types than a store holds give findings or none, and never a synthetic signed one."""
    assert not is_signed(read_store(monkeypatch, store))


@pytest.mark.parametrize("depth", [100, 10_000, 200_000])
def test_nested_boxes_take_bounded_time(depth: int) -> None:
    """Boxes nested 200,000 deep inside a store take less than a second and are no finding."""
    uuid = b"c2%s\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71"
    head = struct.pack(">I", 35) + b"jumd" + uuid % b"ma" + b"\x03urn:uuid:\0"
    step = 8 + len(head)
    inside = b"".join(struct.pack(">I", step * left) + b"jumb" + head for left in range(depth, 0, -1))
    top = struct.pack(">I", 30) + b"jumd" + uuid % b"pa" + b"\x03c2pa\0"
    body = struct.pack(">I", 8 + len(top) + len(inside)) + b"jumb" + top + inside
    block = struct.pack(">I", len(body)) + b"caBX" + body + struct.pack(">I", zlib.crc32(b"caBX" + body))
    data = encoded("PNG")
    started = time.process_time()
    assert read_provenance(data[:33] + block + data[33:]) == ()
    assert time.process_time() - started < 1


def test_wide_boxes_take_bounded_time() -> None:
    """A million empty boxes inside a store take less than a second and are no finding."""
    box = struct.pack(">I", 8) + b"free"
    top = struct.pack(">I", 30) + b"jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"
    body = struct.pack(">I", 8 + len(top) + 8_000_000) + b"jumb" + top + box * 1_000_000
    block = struct.pack(">I", len(body)) + b"caBX" + body + struct.pack(">I", zlib.crc32(b"caBX" + body))
    data = encoded("PNG")
    started = time.process_time()
    assert read_provenance(data[:33] + block + data[33:]) == ()
    assert time.process_time() - started < 1
