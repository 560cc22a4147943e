"""Provenance: what an image file states about its own origin, read from its metadata.

Two tiers, never merged with each other or with a detector's score. `signed`: a C2PA manifest whose signature
and content hashes are intact. `declared`: XMP, EXIF, PNG text, or a manifest that no longer fits the file.
All of it is trivially removed, so absence says nothing; and anyone can write it, so presence is a claim, not
a proof.

Adding a generator is adding a row to `RULES` or `C2PA_GENERATORS`.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from poolproof.detectors.containers import Metadata, exif_text, read_metadata

Tier = Literal["signed", "declared"]
Confidence = Literal["verified", "stated", "weak"]
Source = Literal["c2pa", "xmp", "exif", "png-text", "comment", "iptc"]
Test = Callable[[str, Mapping[str, str]], bool]

MAX_FINDINGS = 64
"""Findings kept of one file."""


@dataclass(frozen=True)
class Finding:
    """One statement of a file about its origin.

    Attributes:
        tier: `signed` if an intact C2PA manifest makes the statement, else `declared`.
        synthetic: Whether it states that the image is synthetic. False for a manifest that says nothing of a
            generator, for a stated camera capture, and for a synthetic ingredient that is only a part.
        source: Block it was read from.
        field: Field of that block.
        value: What the field says: one line of printable characters, at most 200.
        confidence: `verified`: the source type in an intact manifest. `stated`: plain text in a form that one
            generator or standard is known to write. `weak`: a form that is not confirmed, or may mean less.
    """

    tier: Tier
    synthetic: bool
    source: Source
    field: str
    value: str
    confidence: Confidence


@dataclass(frozen=True)
class Rule:
    """One row of the table: which field of which block states a synthetic image, and how it is recognised."""

    producer: str
    source: Source
    fields: tuple[str, ...]
    states: Test
    confidence: Confidence = "stated"
    synthetic: bool = True


def _present(value: str, block: Mapping[str, str]) -> bool:
    return bool(value.strip())


def _equals(word: str) -> Test:
    return lambda value, block: value.strip() == word


def _starts(*heads: str) -> Test:
    return lambda value, block: value.startswith(heads)


def _has(*words: str) -> Test:
    """All words occur."""
    return lambda value, block: all(word in value for word in words)


def _finds(*patterns: str) -> Test:
    """All patterns are found. Hostile text must not slow them: no repeat without a small bound."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda value, block: all(pattern.search(value) for pattern in compiled)


def _begins_and_has(head: str, word: str) -> Test:
    return lambda value, block: value.startswith(head) and word in value


def _is_term(terms: frozenset[str]) -> Test:
    return lambda value, block: _term(value).lower() in terms


def _term(value: str) -> str:
    """Last part of a vocabulary address: `.../digitalsourcetype/digitalCapture` -> `digitalCapture`."""
    return re.split(r"[/:#]", value.strip().rstrip("/")[-200:])[-1]


_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_GROK_SIGNATURE = re.compile(r"Signature:\s{0,8}[A-Za-z0-9+/=_-]{64}")


def _grok_pair(value: str, block: Mapping[str, str]) -> bool:
    signed = _GROK_SIGNATURE.match(value) is not None
    return signed and re.fullmatch(_UUID, block.get("Artist", "").strip()) is not None


SYNTHETIC_TERMS = frozenset(
    {"trainedalgorithmicmedia", "compositewithtrainedalgorithmicmedia", "compositesynthetic"}
)
"""IPTC digital source types, in lower case, that state a synthetic image or a synthetic part.

`algorithmicMedia` is not among them: it stands for procedural pictures, made without a trained model.

Source: IPTC NewsCodes, digital source type.
"""
CAPTURE_TERMS = frozenset({"digitalcapture", "computationalcapture"})
"""IPTC digital source types, in lower case, that state a camera."""

# Names of producers that make nothing but synthetic images. Google, Microsoft, Canva and Samsung are missing
# on purpose: they sign photographs and edits too, and the source type tells which.
C2PA_GENERATORS: tuple[tuple[str, Confidence], ...] = (
    (r"\bchatgpt\b|\bopenai\b", "stated"),
    (r"\badobe firefly\b", "stated"),
    (r"\bblack forest labs\b|\bflux\.\d", "stated"),
    (r"\bstability ai\b|\bbria\b|\bfal-ai\b", "weak"),
    (r"\bvolcengine\b|\bbyteplus\b|\bdreamina\b", "weak"),
    (r"\bdall.?e\b|\bgpt-(?:4o|image)", "weak"),
)
"""Patterns of generator names, for a lower-case name with `_` as a space. The first that is found counts."""


def _name_confidence(name: str) -> Confidence | None:
    """Confidence with which a software name states a generator, or None if it names none."""
    plain = name[:1000].lower().replace("_", " ")
    return next((confidence for pattern, confidence in C2PA_GENERATORS if re.search(pattern, plain)), None)


def _names_generator(value: str, block: Mapping[str, str]) -> bool:
    return _name_confidence(value) is not None


# Text that Stable Diffusion web UIs write: the step count and one of the settings always written beside it.
_A1111 = _finds(r"Steps: ?\d", r"(?:Sampler|Seed|CFG scale): ?\S")
_COMFY_GRAPH = _begins_and_has("{", '"class_type"')
# GB 45438-2025, annex E. Labels 2 and 3 state less than 1: possible and suspected synthesis.
_AIGC_KEYS = r"ContentProducer|ServiceProvider|ProduceID"
_AIGC = _finds(r"Label\"?\s{0,4}[:=]\s{0,4}\"?[^\s\"23]", _AIGC_KEYS)
_AIGC_MAYBE = _finds(r"Label\"?\s{0,4}[:=]\s{0,4}\"?[23]\b", _AIGC_KEYS)
_ORIGIN_TAGS = ("Make", "Model", "ImageDescription")

RULES: tuple[Rule, ...] = (
    # XMP properties, by local name: the prefix differs between writers.
    Rule("IPTC", "xmp", ("DigitalSourceType",), _is_term(SYNTHETIC_TERMS)),
    Rule("IPTC", "xmp", ("DigitalSourceType",), _is_term(CAPTURE_TERMS), synthetic=False),
    Rule("IPTC 2025.1", "xmp", ("AISystemUsed", "AISystemVersionUsed"), _present),
    Rule("IPTC 2025.1", "xmp", ("AIPromptInformation", "AIPromptWriterName"), _present),
    Rule("Google", "xmp", ("Credit",), _has("Made with Google AI")),
    Rule("Google", "iptc", ("Credit",), _has("Made with Google AI")),
    Rule("GB 45438", "xmp", ("AIGC",), _AIGC),
    Rule("GB 45438", "xmp", ("AIGC",), _AIGC_MAYBE, "weak"),
    Rule("Reve", "xmp", ("CreatorTool",), _has("reve.com"), "weak"),
    Rule("Aphrodite", "xmp", ("CreatorTool",), _has("Aphrodite AI"), "weak"),
    Rule("named generator", "xmp", ("CreatorTool",), _names_generator, "weak"),
    # EXIF tags.
    Rule("FLUX", "exif", ("Software",), _starts("AI generated;")),
    Rule("FLUX", "exif", ("Make",), _starts("Black Forest Labs")),
    Rule("Fooocus", "exif", ("Software",), _starts("Fooocus ")),
    Rule("Grok", "exif", ("ImageDescription",), _grok_pair),
    Rule("A1111, Forge, SD.Next", "exif", ("UserComment",), _A1111),
    Rule("SwarmUI", "exif", ("UserComment",), _has('"sui_image_params"')),
    Rule("ComfyUI", "exif", _ORIGIN_TAGS, _begins_and_has("prompt:", '"class_type"')),
    Rule("ComfyUI", "exif", _ORIGIN_TAGS, _begins_and_has("workflow:", '"nodes"')),
    Rule("GB 45438", "exif", ("UserComment",), _AIGC),
    Rule("GB 45438", "exif", ("UserComment",), _AIGC_MAYBE, "weak"),
    Rule("Ideogram", "exif", ("Make",), _has("Ideogram AI"), "weak"),
    Rule("Reve", "exif", ("Software",), _has("reve.com"), "weak"),
    Rule("Aphrodite", "exif", ("Software",), _has("Aphrodite AI"), "weak"),
    Rule("named generator", "exif", ("Software",), _names_generator, "weak"),
    # PNG text keywords.
    Rule("A1111, Forge, SD.Next", "png-text", ("parameters", "postprocessing", "extras"), _A1111),
    # An upscaler's settings alone may belong to a photograph.
    Rule("A1111, Forge, SD.Next", "png-text", ("postprocessing", "extras"), _present, "weak"),
    Rule("SwarmUI", "png-text", ("parameters",), _has('"sui_image_params"')),
    Rule("Fooocus", "png-text", ("fooocus_scheme",), _present),
    Rule("ComfyUI", "png-text", ("prompt",), _COMFY_GRAPH),
    Rule("ComfyUI", "png-text", ("workflow",), _begins_and_has("{", '"nodes"')),
    Rule("InvokeAI", "png-text", ("invokeai_metadata", "invokeai_graph", "invokeai_workflow"), _present),
    Rule("InvokeAI before 3", "png-text", ("sd-metadata", "Dream"), _present),
    Rule("NovelAI", "png-text", ("Software",), _equals("NovelAI")),
    Rule("Midjourney", "png-text", ("Description",), _finds(rf"Job ID: {{0,8}}{_UUID}")),
    Rule("GB 45438", "png-text", ("AIGC",), _AIGC),
    Rule("GB 45438", "png-text", ("AIGC",), _AIGC_MAYBE, "weak"),
    Rule("Luma", "png-text", ("Source",), _has("Luma AI"), "weak"),
    Rule("Hugging Face jobs", "png-text", ("hf-job-id",), _present, "weak"),
    Rule("named generator", "png-text", ("Software",), _names_generator, "weak"),
    # Comments of JPEG and GIF.
    Rule("A1111, Forge, SD.Next", "comment", ("comment",), _A1111),
)
"""What states a synthetic image outside C2PA. The first matching row of a field counts."""

_RULES_OF: Mapping[Source, Mapping[str, tuple[Rule, ...]]] = {
    source: {
        field: tuple(rule for rule in RULES if rule.source == source and field in rule.fields)
        for field in dict.fromkeys(field for rule in RULES if rule.source == source for field in rule.fields)
    }
    for source in ("xmp", "exif", "png-text", "comment", "iptc")
}


def read_provenance(data: bytes) -> tuple[Finding, ...]:
    """What an image file states about its origin; empty if nothing. Never raises on what the bytes hold.

    No request leaves the machine: manifests kept elsewhere are not fetched, certificate status is not asked,
    and trust lists are not consulted. `signed` therefore means that the manifest was signed with the key of
    the certificate inside it, and that neither manifest nor image changed since. It does not mean that the
    signer is known, or that the certificate has not expired. A manifest that fails a check and states a
    synthetic image gives `declared`, with the failed check in its value. One that cannot be parsed gives
    nothing.

    An ingredient's statement is the image's own where the image was opened from that ingredient (`parentOf`,
    through any number of steps). A synthetic ingredient placed in a composite, or used as an input, is named
    in a finding with `synthetic=False`: nobody states how much of the picture it is.

    A graph of ComfyUI is taken as stating a synthetic image. The program writes one also after merely
    editing a loaded photograph.

    Args:
        data: The whole file.

    Source: C2PA 2.2, sections 9, 11 and 15; IPTC NewsCodes digital source type; IPTC Photo Metadata 2025.1.
    """
    metadata = read_metadata(data)
    findings: list[Finding] = []
    if metadata.has_jumbf:
        findings += _read_manifests(data, metadata.mime)
    findings += _read_declared(metadata)
    return tuple(dict.fromkeys(findings))[:MAX_FINDINGS]


def is_signed(findings: Iterable[Finding]) -> bool:
    """Whether an intact manifest states that the image is synthetic. Weak findings do not count."""
    return any(f.synthetic and f.tier == "signed" and f.confidence != "weak" for f in findings)


def is_declared(findings: Iterable[Finding]) -> bool:
    """Whether unsigned metadata state that the image is synthetic. Weak findings do not count."""
    return any(f.synthetic and f.tier == "declared" and f.confidence != "weak" for f in findings)


_SOURCE_WORDS = {"c2pa": "C2PA", "xmp": "XMP", "exif": "EXIF", "png-text": "PNG text", "iptc": "IPTC"}


def describe(findings: Sequence[Finding]) -> str | None:
    """The strongest finding in words, or None if there is none.

    A synthetic statement goes before others, signed before declared, verified before stated before weak.
    Example: `declared: PNG text parameters 'a cat Steps: 20, Sampler: Euler a, Seed: 1'`.
    """
    if not findings:
        return None
    best = max(findings, key=_strength)
    manner = "" if best.synthetic else ", not synthetic"
    weak = ", weak" if best.synthetic and best.confidence == "weak" else ""
    where = " ".join(word for word in (_SOURCE_WORDS.get(best.source), best.field) if word)
    return f"{best.tier}{manner}{weak}: {where} '{_quote(best.value, 120)}'"


def _strength(finding: Finding) -> tuple[bool, bool, int]:
    counts = finding.synthetic and finding.confidence != "weak"
    return counts, finding.tier == "signed", ("weak", "stated", "verified").index(finding.confidence)


def _quote(value: str, limit: int = 200) -> str:
    """One line of printable characters; text beyond the limit is replaced by an ellipsis."""
    clean = "".join(c if c.isprintable() else " " for c in value[: 2 * limit])
    line = " ".join(clean.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _read_declared(metadata: Metadata) -> Iterator[Finding]:
    if metadata.xmp:
        yield from _apply("xmp", _read_properties(metadata.xmp, tuple(_RULES_OF["xmp"])))
    if metadata.exif:
        yield from _apply("exif", tuple(exif_text(metadata.exif).items()))
    if metadata.text:
        yield from _apply("png-text", metadata.text)
    if metadata.comments:
        yield from _apply("comment", tuple(("comment", text) for text in metadata.comments))
    if metadata.iptc:
        yield from _apply("iptc", metadata.iptc)


def _apply(source: Source, entries: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    rules = _RULES_OF[source]
    block = dict(entries)
    for field, value in entries:
        for rule in rules.get(field, ()):
            if rule.states(value, block):
                shown = _term(value) if field == "DigitalSourceType" else value
                yield Finding("declared", rule.synthetic, source, field, _quote(shown), rule.confidence)
                break


_PROPERTY_HEAD = re.compile(r"(<|\s)(?:[\w.-]{1,60}:)?$")
_ATTRIBUTE_VALUE = re.compile(r"\s{0,16}=\s{0,16}(?:\"([^\"]{0,4096})|'([^']{0,4096}))")
_RESOURCE = re.compile(r"\s[^<>]{0,512}?resource\s{0,16}=\s{0,16}[\"']([^\"'<>]{0,512})")
# The text of an element, through containers such as rdf:Alt and rdf:li. A closing tag ends it.
_ELEMENT_TEXT = re.compile(
    r"(?:\s[^<>]{0,512})?(?<!/)>\s{0,256}(?:<[^/!<>][^<>]{0,255}>\s{0,256}){0,4}(?:<!\[CDATA\[)?([^<]{0,4096})"
)
_MAX_PLACES = 64


def _read_properties(xmp: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Values of the named XMP properties, as (local name, value): attributes or elements, with any prefix.

    Read by patterns instead of an XML parser: no entity of a document type is ever expanded, a packet that
    was cut or is not well-formed still gives what stands in it, and a camera's packet costs a few searches.
    """
    found: list[tuple[str, str]] = []
    for name in names:
        at = xmp.find(name)
        for _ in range(_MAX_PLACES):
            if at < 0:
                break
            end = at + len(name)
            head = _PROPERTY_HEAD.search(xmp, max(0, at - 62), at)
            value = _property_value(xmp, end, head.group(1)) if head else None
            if value is not None:
                found.append((name, html.unescape(value).strip()))
            at = xmp.find(name, end)
    return tuple(found)


def _property_value(xmp: str, end: int, head: str) -> str | None:
    if head != "<":
        match = _ATTRIBUTE_VALUE.match(xmp, end)
        return (match.group(1) or match.group(2) or "") if match else None
    match = _RESOURCE.match(xmp, end)
    if match:
        return match.group(1)
    match = _ELEMENT_TEXT.match(xmp, end)
    return match.group(1).removesuffix("]]>") if match else None


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


def _read_manifests(data: bytes, mime: str | None) -> Iterator[Finding]:
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
    if silent:
        name = next((name for _, name in _read_names(manifests[active])), "unnamed software")
        yield _manifest_finding("claim_generator", name, False, "verified", _fault(store))


def _manifest_finding(
    field: str, value: str, synthetic: bool, confidence: Confidence, fault: str | None
) -> Finding:
    if fault is None:
        return Finding("signed", synthetic, "c2pa", field, _quote(value), confidence)
    plain: Confidence = "stated" if confidence == "verified" else confidence
    return Finding("declared", synthetic, "c2pa", field, _quote(f"{_quote(value, 100)} ({fault})"), plain)


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
    pending: list[tuple[str, bool, str | None]] = [(active, True, _fault(store))]
    seen: set[str] = set()
    while pending and len(seen) < _MAX_MANIFESTS:
        # Own ones first: a manifest that is both parent and component is the image's own.
        pending.sort(key=lambda step: not step[1])
        label, own, fault = pending.pop(0)
        if label in seen:
            continue
        seen.add(label)
        yield label, own, fault
        for ingredient in _dicts(manifests[label].get("ingredients")):
            child = ingredient.get("active_manifest")
            if isinstance(child, str) and child in manifests:
                parent = own and ingredient.get("relationship") == "parentOf"
                pending.append((child, parent, fault or deltas.get(child) or _recorded_fault(ingredient)))
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
    for assertion in _dicts(manifest.get("assertions")):
        label, data = _string(assertion.get("label")), _dict(assertion.get("data"))
        if label.startswith("c2pa.ai_generated_content"):
            typed = True
            yield "c2pa.ai_generated_content", "present", True, "verified"
        # Actions carry the type each; metadata assertions carry it as a property with some prefix.
        for carrier in (data, *_dicts(data.get("actions"))):
            for key, value in carrier.items():
                if isinstance(value, str) and key.rsplit(":", 1)[-1].lower() == "digitalsourcetype":
                    term = _term(value)
                    if term.lower() in SYNTHETIC_TERMS | CAPTURE_TERMS:
                        typed = True
                        yield "digitalSourceType", term, term.lower() in SYNTHETIC_TERMS, "verified"
    if not typed:
        for field, name in _read_names(manifest):
            confidence = _name_confidence(name)
            if confidence is not None:
                yield field, name, True, confidence


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
