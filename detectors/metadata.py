"""What files say of themselves, as numbers and words: format, size, codec settings; never the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from poolproof.errors import InputError

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Metadata by name, one value an item. Required: format, mode, width, height, quality (None where there is no
JPEG quality), subsampling (None likewise), n_bytes. Optional: has_exif, blockiness."""

REQUIRED: Final = ("format", "mode", "width", "height", "quality", "subsampling", "n_bytes")
OPTIONAL: Final = ("has_exif", "blockiness")

NO_QUALITY: Final = "no quality on record"

MULTIPLES: Final = (64, 16, 8)

QUALITY_BANDS: Final = (50, 70, 80, 90, 95)
"""Lower ends of the bands of JPEG quality above the lowest one."""


@dataclass(frozen=True)
class MetadataFeatures:
    """Metadata as numbers.

    Attributes:
        values: facts of the container, which no picture decides.
        names: of their columns.
        facts: the fact that each column belongs to: format, mode, size, multiples, quality, subsampling, exif.
        content: what the picture has a say in: log bytes per pixel, and blockiness where it was given.
        content_names: of its columns.
    """

    values: Float64[np.ndarray, "n d"]
    names: tuple[str, ...]
    facts: tuple[str, ...]
    content: Float64[np.ndarray, "n c"]
    content_names: tuple[str, ...]


def metadata_features(columns: Columns) -> MetadataFeatures:
    """Return metadata as a matrix with named columns.

    Names stand for words by one column each; the words are those that occur, so sets that are to be compared
    are joined first (`join_columns`). A missing quality is 0.

    Args:
        columns: metadata of at least one item.

    Raises:
        InputError: a column is missing, lengths differ, or a size is not above 0.
    """
    n = check_columns("columns", columns)
    width, height = numbers(columns["width"]), numbers(columns["height"])
    values: list[np.ndarray] = []
    names: list[str] = []
    facts: list[str] = []

    def add(fact: str, name: str, column: np.ndarray) -> None:
        values.append(np.asarray(column, np.float64))
        names.append(name)
        facts.append(fact)

    def add_words(fact: str) -> None:
        words = np.array([_word(value) for value in columns[fact]])
        for word in np.unique(words):
            add(fact, f"{fact} {word}", words == word)

    add_words("format")
    add("quality", "quality", np.nan_to_num(numbers(columns["quality"]), nan=0.0))
    add("size", "log width", np.log2(width))
    add("size", "log height", np.log2(height))
    add("size", "log aspect", np.log2(width / height))
    for step in MULTIPLES:
        add("multiples", f"sides are multiples of {step}", (width % step == 0) & (height % step == 0))
    add_words("subsampling")
    add_words("mode")
    if "has_exif" in columns:
        add("exif", "has EXIF", np.array([bool(value) for value in columns["has_exif"]]))
    content = [np.log2(np.maximum(numbers(columns["n_bytes"]), 1.0) / (width * height))]
    content_names = ["log bytes per pixel"]
    if "blockiness" in columns:
        content.append(np.nan_to_num(numbers(columns["blockiness"])))
        content_names.append("blockiness")
    return MetadataFeatures(
        np.stack(values, axis=1).reshape(n, -1),
        tuple(names),
        tuple(facts),
        np.stack(content, axis=1),
        tuple(content_names),
    )


def item_facts(columns: Columns) -> dict[str, list[str]]:
    """Return each fact of each item in words: "JPEG", "512 x 512", "quality 80 to 89".

    Args:
        columns: as for `metadata_features`.
    """
    sizes = list(zip(map(int, columns["width"]), map(int, columns["height"]), strict=True))
    facts = {
        "format": [_word(value) for value in columns["format"]],
        "mode": [f"in mode {_word(value)}" for value in columns["mode"]],
        "size": [f"{w} x {h}" for w, h in sizes],
        "multiples": [_multiple(w, h) for w, h in sizes],
        "quality": [f"with {band}" for band in quality_bands(numbers(columns["quality"]))],
        "subsampling": [
            "with no chroma on record" if value is None else f"with chroma {value}"
            for value in columns["subsampling"]
        ],
    }
    if "has_exif" in columns:
        facts["exif"] = ["with EXIF" if value else "without EXIF" for value in columns["has_exif"]]
    return facts


def join_columns(first: Columns, second: Columns) -> dict[str, list[Any]]:
    """Return the items of both sets, one after the other; a column that one of them lacks is left out."""
    return {
        name: [*first[name], *second[name]]
        for name in (*REQUIRED, *OPTIONAL)
        if name in first and name in second
    }


def take_columns(columns: Columns, rows: np.ndarray) -> dict[str, list[Any]]:
    """Return some items of a set."""
    return {name: [columns[name][i] for i in rows] for name in (*REQUIRED, *OPTIONAL) if name in columns}


def quality_bands(quality: Float64[np.ndarray, " n"]) -> list[str]:
    """Return the band of each JPEG quality in words; NaN has none."""
    ends = np.array([0, *QUALITY_BANDS, 101])
    names = [f"quality {max(low, 1)} to {high - 1}" for low, high in pairwise(ends.tolist())] + [NO_QUALITY]
    # NaN is sorted behind everything
    return [names[i] for i in np.searchsorted(ends[1:], quality, "right").tolist()]


def size_bands(width: Float64[np.ndarray, " n"], height: Float64[np.ndarray, " n"]) -> list[int]:
    """Return the band of each image's size: its mean side in steps of the root of two, round sides central."""
    return np.round(np.log2(width * height)).astype(int).tolist()


def check_columns(name: str, columns: Columns) -> int:
    """Return the number of items; raise InputError where metadata are missing, unequal in length or broken."""
    for wanted in REQUIRED:
        if wanted not in columns:
            got = ", ".join(columns) or "none"
            raise InputError(f"{name}: got columns {got}, allowed all of {', '.join(REQUIRED)}: add {wanted}")
    lengths = {key: len(columns[key]) for key in (*REQUIRED, *OPTIONAL) if key in columns}
    n = lengths["format"]
    if n == 0 or set(lengths.values()) != {n}:
        got = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(f"{name}: got lengths {got}, allowed one length above 0: give one value an item")
    for key in ("width", "height"):
        sides = numbers(columns[key])
        if not (np.isfinite(sides) & (sides > 0)).all():
            raise InputError(f"{name}: got a {key} that is no size, allowed above 0: drop what was not read")
    return n


def numbers(column: Sequence[Any] | np.ndarray) -> Float64[np.ndarray, " n"]:
    """Return a column as numbers, NaN where a value is None."""
    return np.array([np.nan if value is None else value for value in column], np.float64)


def percent(share: float) -> str:
    """Return a share in percent, never rounded to all or to nothing where it is neither."""
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def _word(value: Any) -> str:
    """Return a name as it stands, "none" for None."""
    return "none" if value is None else str(value)


def _multiple(width: int, height: int) -> str:
    """Return the largest of the usual steps that divides both sides, in words."""
    for step in MULTIPLES:
        if width % step == 0 and height % step == 0:
            return f"with sides in multiples of {step}"
    return "with sides in no multiples of 8"
