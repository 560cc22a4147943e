"""C2PA manifests: what those of a file state, and which of their checks fail."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from poolproof.detectors.findings import (
    CAPTURE_TERMS,
    SYNTHETIC_TERMS,
    Confidence,
    Finding,
    name_confidence,
    quote,
    vocabulary_term,
)

# Checks whose failure leaves signature and content hashes intact: who signed, when, and how an action
# is written (the reader asks for more than older writers gave).
_ACCEPTED_FAILURES = (
    "signingCredential.untrusted",
    "signingCredential.expired",
    "timeStamp.",
    "cawg.",
    "assertion.action.malformed",
)
_PASSES = frozenset({"validated", "match", "trusted", "insideValidity", "accessible", "notRevoked"})
_MAX_MANIFESTS = 256
_MAX_NAMES = 256


def read_manifests(data: bytes, mime: str | None) -> Iterator[Finding]:
    """What the manifests of a file state; nothing if they cannot be parsed. Never raises on what the bytes hold.

    An intact manifest that states nothing gives one finding with `synthetic=False` that names its software.
    `poolproof.detectors.provenance.read_provenance` says which checks count and what an ingredient passes on.

    Args:
        data: The whole file. c2pa-python is loaded here: call this only for a file with a manifest store.
        mime: Media type of the file, or None to let c2pa-python find it.

    Source: C2PA 2.2, sections 9, 11 and 15.
    """
    store = _read_store(data, mime)
    manifests = {label: m for label, m in _dict(store.get("manifests")).items() if isinstance(m, dict)}
    active = store.get("active_manifest")
    if not isinstance(active, str) or active not in manifests:
        return
    silent = True
    for label, own, fault in _walk(store, manifests, active):
        for field, value, synthetic, confidence in _read_statements(manifests[label]):
            silent = False
            if synthetic and not own:
                field, synthetic = "ingredient", False
                value = f"{value} in {_string(manifests[label].get('title')) or label}"
            yield _manifest_finding(field, value, synthetic, confidence, fault)
        for algorithm in dict.fromkeys(_read_soft_bindings(manifests[label])):
            yield _manifest_finding("c2pa.soft-binding", algorithm, False, "weak", fault)
    if silent:
        name = next((name for _, name in _read_names(manifests[active])), "unnamed software")
        yield _manifest_finding("claim_generator", name, False, "verified", _fault(store))


def _manifest_finding(
    field: str, value: str, synthetic: bool, confidence: Confidence, fault: str | None
) -> Finding:
    if fault is None:
        return Finding("signed", synthetic, "c2pa", field, quote(value), confidence)
    plain: Confidence = "stated" if confidence == "verified" else confidence
    return Finding("declared", synthetic, "c2pa", field, quote(f"{quote(value, 100)} ({fault})"), plain)


def _read_store(data: bytes, mime: str | None) -> dict[str, Any]:
    """The manifest store as c2pa-python reports it, or an empty dict where it can parse none."""
    import c2pa

    # Identity assertions stay undecoded because resolving their issuers can ask a server.
    settings = {
        "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(mime, io.BytesIO(data), context=context) as reader,
        ):
            return _dict(json.loads(reader.json()))
    except (c2pa.C2paError, ValueError, RecursionError, OSError):
        return {}


def _walk(
    store: dict[str, Any], manifests: Mapping[str, dict[str, Any]], active: str
) -> Iterator[tuple[str, bool, str | None]]:
    """Each manifest's label, whether its statements are the image's own, and the first check it failed."""
    deltas = _deltas(store)
    # Own ones first: a manifest that is both parent and component is the image's own. Each label waits at most
    # once in each queue, whatever loops the ingredients make.
    parents: deque[tuple[str, str | None]] = deque([(active, _fault(store))])
    others: deque[tuple[str, str | None]] = deque()
    queued: set[tuple[str, bool]] = {(active, True)}
    seen: set[str] = set()
    while (parents or others) and len(seen) < _MAX_MANIFESTS:
        own = bool(parents)
        label, fault = (parents or others).popleft()
        if label in seen:
            continue
        seen.add(label)
        yield label, own, fault
        for ingredient in _dicts(manifests[label].get("ingredients")):
            child = ingredient.get("active_manifest")
            if not isinstance(child, str) or child not in manifests:
                continue
            parent = own and ingredient.get("relationship") == "parentOf"
            if (child, parent) not in queued:
                queued.add((child, parent))
                step = child, fault or deltas.get(child) or _recorded_fault(ingredient)
                (parents if parent else others).append(step)
    for label in list(manifests)[:_MAX_MANIFESTS]:
        if label not in seen:
            yield label, False, "not checked: no link to the active manifest"


def _fault(store: dict[str, Any]) -> str | None:
    """The first check that the active manifest failed, or None if signature and content hashes are intact."""
    results = _dict(_dict(store.get("validation_results")).get("activeManifest"))
    failed = next((c for c in _codes(results.get("failure")) if not c.startswith(_ACCEPTED_FAILURES)), None)
    if failed is not None:
        return f"signature broken: {failed}"
    passed = _codes(results.get("success"))
    if "claimSignature.validated" not in passed:
        return "signature broken: none was validated"
    # assertion.dataHash.match, assertion.bmffHash.match, assertion.boxesHash.match, ...
    bound = any(code.endswith("Hash.match") for code in passed)
    return None if bound else "signature broken: no content hash"


def _deltas(store: dict[str, Any]) -> dict[str, str]:
    """First failed check by ingredient manifest, for checks that passed when the ingredient was added."""
    faults: dict[str, str] = {}
    for delta in _dicts(_dict(store.get("validation_results")).get("ingredientDeltas")):
        for failure in _dicts(_dict(delta.get("validationDeltas")).get("failure")):
            code = _string(failure.get("code"))
            parts = _string(failure.get("url")).split("/")  # self#jumbf=/c2pa/LABEL/...
            if len(parts) > 2 and not code.startswith(_ACCEPTED_FAILURES):
                faults.setdefault(parts[2], f"signature broken: {code}")
    return faults


def _recorded_fault(ingredient: dict[str, Any]) -> str | None:
    """First failed check that the signer recorded when the ingredient was added."""
    results = _dict(_dict(ingredient.get("validation_results")).get("activeManifest"))
    codes = _codes(results.get("failure")) + _codes(ingredient.get("validation_status"))
    for code in codes:
        # Older manifests list the checks that passed beside those that failed.
        if not code.startswith(_ACCEPTED_FAILURES) and code.rsplit(".", 1)[-1] not in _PASSES:
            return f"signature broken when it was added: {code}"
    return None


def _read_statements(manifest: dict[str, Any]) -> Iterator[tuple[str, str, bool, Confidence]]:
    """What a manifest states: field, value, synthetic, confidence. Names count where it gives no type."""
    typed = False
    values: set[str] = set()
    terms: set[str] = set()
    for assertion in _dicts(manifest.get("assertions")):
        label, data = _string(assertion.get("label")), _dict(assertion.get("data"))
        if label.startswith("c2pa.ai_generated_content"):
            typed = True
            yield "c2pa.ai_generated_content", "present", True, "verified"
        # Actions carry the type each; metadata assertions carry it as a property with some prefix.
        for carrier in (data, *_dicts(data.get("actions"))):
            for key, value in carrier.items():
                if key.rsplit(":", 1)[-1].lower() != "digitalsourcetype" or not isinstance(value, str):
                    continue
                if value in values:
                    continue
                values.add(value)
                term = vocabulary_term(value)
                if term not in terms:
                    terms.add(term)
                    if term.lower() in SYNTHETIC_TERMS | CAPTURE_TERMS:
                        typed = True
                        yield "digitalSourceType", term, term.lower() in SYNTHETIC_TERMS, "verified"
    if typed:
        return
    named = False
    for field, name in islice(dict.fromkeys(_read_names(manifest)), _MAX_NAMES):
        confidence = name_confidence(name)
        if confidence is not None:
            named = True
            yield field, name, True, confidence
    for field, name in () if named else _read_signer(manifest):
        # Who signs need not have made it: hosts sign what was uploaded, too.
        if name_confidence(name) is not None:
            yield field, name, True, "weak"


def _read_soft_bindings(manifest: dict[str, Any]) -> Iterator[str]:
    """Names of watermarks and fingerprints by which a stripped manifest can be found again.

    They say where the manifest is, not what it states: photographs are bound as well.

    Source: C2PA 2.2, section 18.10; the C2PA soft binding algorithm list.
    """
    for assertion in _dicts(manifest.get("assertions")):
        data = _dict(assertion.get("data"))
        if _string(assertion.get("label")).startswith("c2pa.soft-binding") and _string(data.get("alg")):
            yield data["alg"]


def _read_signer(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whom the signing certificate names, as (field, name). Anyone can write a certificate."""
    signature = _dict(manifest.get("signature_info"))
    for field in ("issuer", "common_name"):
        if isinstance(signature.get(field), str):
            yield f"signature {field}", signature[field]


def _read_names(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of software in a manifest, as (field, name)."""
    for info in _dicts(manifest.get("claim_generator_info")):
        if isinstance(info.get("name"), str):
            yield "claim_generator", info["name"]
    if isinstance(manifest.get("claim_generator"), str):
        yield "claim_generator", manifest["claim_generator"]
    for assertion in _dicts(manifest.get("assertions")):
        data = _dict(assertion.get("data"))
        agents = [action.get("softwareAgent") for action in _dicts(data.get("actions"))]
        for agent in agents + _dicts(data.get("softwareAgents")):
            name = agent.get("name") if isinstance(agent, dict) else agent
            if isinstance(name, str):
                yield "softwareAgent", name


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _codes(value: Any) -> list[str]:
    return [_string(status.get("code")) for status in _dicts(value)]
