"""Provenance: what an image file states about its own origin, read from its metadata.

Two tiers, never merged with each other or with a detector's score. `signed`: a C2PA manifest whose signature
and content hashes are intact. `declared`: XMP, EXIF, PNG text, or a manifest that no longer fits the file.
All of it is trivially removed, so absence says nothing; and anyone can write it, so presence is a claim, not
a proof.

Adding a generator is adding a row to `RULES` here or to `C2PA_GENERATORS` in `findings.py`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from poolproof.detectors.containers import Metadata, exif_text, read_metadata
from poolproof.detectors.findings import (
    C2PA_GENERATORS,
    CAPTURE_TERMS,
    SYNTHETIC_TERMS,
    Confidence,
    Finding,
    Source,
    Tier,
    name_confidence,
    quote,
    vocabulary_term,
)
from poolproof.detectors.manifests import read_manifests

# What a caller needs of `findings` is public here too.
__all__ = [
    "C2PA_GENERATORS",
    "CAPTURE_TERMS",
    "MAX_FINDINGS",
    "RULES",
    "SYNTHETIC_TERMS",
    "Confidence",
    "Finding",
    "Rule",
    "Source",
    "Test",
    "Tier",
    "describe",
    "is_declared",
    "is_signed",
    "read_provenance",
]

Test = Callable[[str, Mapping[str, str]], bool]

MAX_FINDINGS = 64
"""Findings kept of one file."""


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
    return lambda value, block: vocabulary_term(value).lower() in terms


_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_GROK_SIGNATURE = re.compile(r"Signature:\s{0,8}[A-Za-z0-9+/=_-]{64}")


def _grok_pair(value: str, block: Mapping[str, str]) -> bool:
    signed = _GROK_SIGNATURE.match(value) is not None
    return signed and re.fullmatch(_UUID, block.get("Artist", "").strip()) is not None


def _names_generator(value: str, block: Mapping[str, str]) -> bool:
    return name_confidence(value) is not None


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
        findings += read_manifests(data, metadata.mime)
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
    return f"{best.tier}{manner}{weak}: {where} '{quote(best.value, 120)}'"


def _strength(finding: Finding) -> tuple[bool, bool, int]:
    counts = finding.synthetic and finding.confidence != "weak"
    return counts, finding.tier == "signed", ("weak", "stated", "verified").index(finding.confidence)


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
                shown = vocabulary_term(value) if field == "DigitalSourceType" else value
                yield Finding("declared", rule.synthetic, source, field, quote(shown), rule.confidence)
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
