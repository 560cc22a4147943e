"""The spec of a reader: which backbone, from which weights, and how features are taken from it.

    SPEC      auto | forensic | PRESET | BACKBONE | rigid:BACKBONE
    BACKBONE  clip:MODEL/WEIGHTS[@OPTION,...] | timm:MODEL/WEIGHTS[@OPTION,...]

MODEL is a name of open_clip or timm, WEIGHTS a pretrained tag of it in the local cache or the path of a file.
The options, in the order in which they are written:

    penultimate       the vector before the last projection (clip: alone; timm: has none in front)
    raw               vectors as they come; without it they have length 1
    resize            shorter side to the input's size, then the centre
    crop              the centre at native resolution, black where the image is smaller: nothing is resampled
    squash            both sides to the input's size, whatever the shape
    bilinear, bicubic the filter of a resize
    224px             side of the input, position embeddings resampled to it
    3draws            noises that a `rigid:` score is averaged over

Without an option the model does as it was published: its own size, filter and way to fit. An `@` after which a
slash or a dot comes belongs to a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, final

from poolproof.errors import InputError

DEFAULT_EMBEDDER: Final = "clip:ViT-B-32/laion2b_s34b_b79k"
"""What `auto` stands for where its weights are in the local cache."""

FORENSIC: Final = "forensic"
"""The spec of a run without an embedding model: the weight-free features alone."""

PRESETS: Final = {
    "univfd": "clip:ViT-L-14/openai@raw,crop",
    "clipdet": "clip:ViT-L-14/commonpool_xl_s13b_b90k@penultimate,resize,bicubic,224px",
    "rigid": "rigid:timm:vit_large_patch14_dinov2/lvd142m@squash,bilinear,224px",
}
"""Readers as published with a detector, by name."""

LIBRARIES: Final = ("clip", "timm")
_FITS: Final = ("resize", "crop", "squash")
_FILTERS: Final = ("bilinear", "bicubic")
_OPTIONS: Final = f"penultimate, raw, {', '.join(_FITS)}, {', '.join(_FILTERS)}, 224px, and for rigid: 3draws"


@final
@dataclass(frozen=True)
class ReaderSpec:
    """A spec in parts; `str` gives the one way to write it.

    Attributes:
        library: that holds the architecture, `clip` or `timm`.
        model: its name there.
        weights: a pretrained tag or the path of a file.
        penultimate: whether the last projection is left out.
        unit: whether vectors get length 1.
        fit: how an image becomes the input's shape; empty for the model's own way.
        filter: of a resize; empty for the model's own.
        side: of the input in pixels; None for the model's own.
        draws: noises of a stability score; 0 for an embedding.
    """

    library: str
    model: str
    weights: str
    penultimate: bool = False
    unit: bool = True
    fit: str = ""
    filter: str = ""
    side: int | None = None
    draws: int = 0

    def __str__(self) -> str:
        options = (
            "penultimate" if self.penultimate else "",
            "" if self.unit else "raw",
            self.fit,
            self.filter,
            f"{self.side}px" if self.side else "",
            f"{self.draws}draws" if self.draws > 1 else "",
        )
        written = ",".join(filter(None, options))
        prefix = "rigid:" if self.draws else ""
        return f"{prefix}{self.library}:{self.model}/{self.weights}{'@' if written else ''}{written}"

    @property
    def backbone(self) -> ReaderSpec:
        """The embedding under a stability score, with length 1."""
        return replace(self, draws=0, unit=True) if self.draws else self


def parse_reader(spec: str) -> ReaderSpec:
    """Return the parts of the spec of a backbone, a preset or a stability score.

    Raises:
        InputError: another form, an unknown option, or two that exclude each other.
    """
    written = PRESETS.get(spec, spec)
    kind, _, rest = written.partition(":")
    rigid = kind == "rigid"
    if rigid:
        kind, _, rest = PRESETS.get(rest, rest).partition(":")
    model, _, weights = rest.partition("/")
    weights, options = _split_options(weights)
    if kind not in LIBRARIES or not model or not weights:
        raise InputError(
            f"embedder: got {spec!r}, allowed auto, forensic, {', '.join(PRESETS)}, clip:MODEL/WEIGHTS, "
            f"timm:MODEL/WEIGHTS or rigid: and one of the two; for example {DEFAULT_EMBEDDER}"
        )
    parts: dict[str, str | int | bool] = {"draws": 1} if rigid else {}
    for option in options:
        name, value = _read_option(spec, option, kind, rigid)
        if name in parts and (name, parts[name]) != ("draws", 1):
            raise InputError(
                f"embedder: got {spec!r} with two options for {name}, allowed one; drop {option}"
            )
        parts[name] = value
    return ReaderSpec(kind, model, weights, **parts)  # type: ignore[arg-type]


def _split_options(weights: str) -> tuple[str, list[str]]:
    path, mark, options = weights.rpartition("@")
    if not mark or "/" in options or "." in options:
        return weights, []
    return path, options.split(",")


def _read_option(spec: str, option: str, library: str, rigid: bool) -> tuple[str, str | int | bool]:
    number = re.fullmatch(r"([1-9]\d{0,3})(px|draws)", option)
    if number and number[2] == "px":
        return "side", int(number[1])
    if number and rigid:
        return "draws", int(number[1])
    if option in _FITS:
        return "fit", option
    if option in _FILTERS:
        return "filter", option
    if option == "raw":
        return "unit", False
    if option == "penultimate" and library == "clip":
        return "penultimate", True
    raise InputError(
        f"embedder: got {spec!r} with the option {option!r}, allowed {_OPTIONS}; choose of these"
    )
