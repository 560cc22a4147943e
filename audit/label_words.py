"""Labels in words, for the report page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poolproof.page import counted

_PART: Final = {
    "hit": "signed, declared or marked",
    "flagged": "flagged by the detector",
    "rest": "all others",
}


@dataclass(frozen=True)
class LabelledPart:
    """Labels in a part of the pool."""

    name: str
    items: int
    n: int
    synthetic: int
    unsure: int


def labelled_parts(report: Mapping[str, Any]) -> list[LabelledPart]:
    """Labels by part of the pool, the parts in words; none without labels.

    Args:
        report: the content of `report.json`.
    """
    labels = report.get("labels")
    return [] if labels is None else [_part(part, len(labels["parts"]) == 1) for part in labels["parts"]]


def labels_basis(labels: Mapping[str, Any]) -> str:
    """One sentence: what a share by labels rests on.

    Args:
        labels: the section of `report.json`.
    """
    narrower = (
        "; the detector's flags make it narrower, and cannot make it wrong"
        if len(labels["parts"]) > 1
        else ""
    )
    return f"It rests on what people said of {counted(labels['n'], 'image')} drawn at random{narrower}."


def _part(part: Mapping[str, Any], whole: bool) -> LabelledPart:
    name = "all images" if whole else ", or ".join(_PART[name] for name in part["names"])
    name = name[:1].upper() + name[1:]
    return LabelledPart(name, part["items"], part["n"], part["synthetic"], part["unsure"])
