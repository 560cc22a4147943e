"""Findings: single statements of a file about its origin, and the vocabulary they are made in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Tier = Literal["signed", "declared"]
Confidence = Literal["verified", "stated", "weak"]
Source = Literal["c2pa", "xmp", "exif", "png-text", "comment", "iptc", "trailer", "stealth"]


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
    (r"\beleven ?labs\b|\bideogram\b|\bmidjourney\b", "weak"),
)
"""Patterns of generator names, for a lower-case name with `_` as a space. The first that is found counts."""


def name_confidence(name: str) -> Confidence | None:
    """Confidence with which a software name states a generator, or None if it names none.

    Args:
        name: Any text; the first 1000 characters are searched.
    """
    plain = name[:1000].lower().replace("_", " ")
    return next((confidence for pattern, confidence in C2PA_GENERATORS if re.search(pattern, plain)), None)


def vocabulary_term(value: str) -> str:
    """Last part of a vocabulary address: `.../digitalsourcetype/digitalCapture` -> `digitalCapture`.

    Args:
        value: An address, or a term alone, which comes back as it is; the last 200 characters count.
    """
    return re.split(r"[/:#]", value.strip().rstrip("/")[-200:])[-1]


def quote(value: str, limit: int = 200) -> str:
    """One line of printable characters; text beyond the limit is replaced by an ellipsis.

    Args:
        value: Any text, as a stranger wrote it.
        limit: Most characters of the line, the ellipsis included; at least 1.
    """
    clean = "".join(c if c.isprintable() else " " for c in value[: 2 * limit])
    line = " ".join(clean.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
