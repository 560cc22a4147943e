"""Provenance: what an image file states about its own origin, read from its metadata.

Two tiers, never merged with each other or with a detector's score. `signed`: a C2PA manifest whose signature
and content hashes are intact. `declared`: XMP, EXIF, PNG text, or a manifest that no longer fits the file.
All of it is trivially removed, so absence says nothing; and anyone can write it, so presence is a claim, not
a proof.

Adding a generator is adding a row to `RULES` in `rules.py` or to `C2PA_GENERATORS` in `findings.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from poolproof.detectors.containers import Metadata, read_metadata
from poolproof.detectors.exif import exif_text
from poolproof.detectors.findings import (
    C2PA_GENERATORS,
    CAPTURE_TERMS,
    SYNTHETIC_TERMS,
    Confidence,
    Finding,
    Source,
    Tier,
    quote,
    vocabulary_term,
)
from poolproof.detectors.manifests import read_manifests
from poolproof.detectors.rules import RULES, RULES_OF, Rule, Test
from poolproof.detectors.xmp import read_properties

# What a caller needs of `findings` and `rules` is public here too.
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

MAX_FINDINGS = 64
"""Findings kept of one file."""


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
    signed = read_manifests(data, metadata.mime) if metadata.has_jumbf else ()
    findings: dict[Finding, None] = {}
    for finding in chain(signed, _read_declared(metadata)):
        findings[finding] = None
        if len(findings) == MAX_FINDINGS:
            break
    return tuple(findings)


def is_signed(findings: Iterable[Finding]) -> bool:
    """Whether an intact manifest states that the image is synthetic. Weak findings do not count."""
    return any(f.synthetic and f.tier == "signed" and f.confidence != "weak" for f in findings)


def is_declared(findings: Iterable[Finding]) -> bool:
    """Whether unsigned metadata state that the image is synthetic. Weak findings do not count."""
    return any(f.synthetic and f.tier == "declared" and f.confidence != "weak" for f in findings)


_SOURCE_WORDS: Mapping[Source, str] = {
    "c2pa": "C2PA",
    "xmp": "XMP",
    "exif": "EXIF",
    "png-text": "PNG text",
    "iptc": "IPTC",
    "trailer": "trailer",
    "stealth": "pixel bits",
}


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
    texts = dict(metadata.text)
    if metadata.xmp:
        yield from _apply("xmp", read_properties(metadata.xmp, tuple(RULES_OF["xmp"])), texts)
    if metadata.exif:
        yield from _apply("exif", tuple(exif_text(metadata.exif).items()), texts)
    if metadata.text:
        yield from _apply("png-text", metadata.text, texts)
    if metadata.comments:
        yield from _apply("comment", tuple(("comment", text) for text in metadata.comments), texts)
    if metadata.iptc:
        yield from _apply("iptc", metadata.iptc, texts)
    if metadata.trailer:
        yield from _apply("trailer", metadata.trailer, texts)


def _apply(source: Source, entries: Sequence[tuple[str, str]], texts: Mapping[str, str]) -> Iterator[Finding]:
    rules = RULES_OF[source]
    block = {**texts, **dict(entries)}
    for field, value in entries:
        for rule in rules.get(field, ()):
            if rule.states(value, block):
                shown = vocabulary_term(value) if field == "DigitalSourceType" else value
                yield Finding("declared", rule.synthetic, source, field, quote(shown), rule.confidence)
                break
