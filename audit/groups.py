"""Parts of a pool that get a share of their own: by source, by format, by size."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported, where no type checker sees them.
from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from poolproof.audit.paths import path_of, readable

GROUPINGS: Final = ("source", "format", "size")
"""How a pool is cut, each in turn: by the folder, tar or table that holds an item, by image format, by longer side."""

SIZE_BANDS: Final = (64, 128, 256, 512, 1024, 2048)
"""Bounds of the longer side in pixels; a band holds its lower bound."""

_BANDS: Final = (
    f"under {SIZE_BANDS[0]} px",
    *(f"{lower} to {upper - 1} px" for lower, upper in itertools.pairwise(SIZE_BANDS)),
    f"{SIZE_BANDS[-1]} px and more",
)

MOST_GROUPS: Final = 8
"""Groups told apart in one grouping, the largest; a share of each costs the others width."""

FEWEST: Final = 30
"""Items in a group below which it is put with the rest."""

OTHERS: Final = "(others)"
"""Name of the group that holds what is not told apart."""


@dataclass
class GroupTally:
    """Counts of one group.

    Attributes:
        scored: items that were scored.
        hits: of these, with a signed, declared or marked finding.
        answered_rest: of the others, with a score by the detector.
        flagged_rest: of these, flagged by it.
    """

    scored: int = 0
    hits: int = 0
    answered_rest: int = 0
    flagged_rest: int = 0

    def add(self, other: GroupTally) -> None:
        """Counts another group in."""
        self.scored += other.scored
        self.hits += other.hits
        self.answered_rest += other.answered_rest
        self.flagged_rest += other.flagged_rest


Groups = dict[tuple[str, str], GroupTally]
"""Counts by grouping and group."""


def count_groups(
    groups: Groups,
    items: pa.Table,
    kind: str,
    *,
    hit: Bool[np.ndarray, " n"],
    answered: Bool[np.ndarray, " n"],
    flagged: Bool[np.ndarray, " n"],
) -> None:
    """Counts scored items into their groups, new ones in the order in which they first occur.

    Args:
        groups: are added to.
        items: `source`, `format`, `width` and `height` of scored items.
        kind: of the pool, `folder`, `webdataset`, `parquet` or `dataset`.
        hit: which have a signed, declared or marked finding.
        answered: which the detector has a score for.
        flagged: which it flags.
    """
    for grouping, (names, codes) in zip(GROUPINGS, _name_groups(items, kind), strict=True):
        n = len(names)
        scored, hits = np.bincount(codes, minlength=n), np.bincount(codes[hit], minlength=n)
        asked = np.bincount(codes[answered & ~hit], minlength=n)
        found = np.bincount(codes[flagged & ~hit], minlength=n)
        for i, name in enumerate(names):
            counts = GroupTally(int(scored[i]), int(hits[i]), int(asked[i]), int(found[i]))
            groups.setdefault((grouping, name), GroupTally()).add(counts)


def _name_groups(items: pa.Table, kind: str) -> Iterator[tuple[list[str], Int[np.ndarray, " n"]]]:
    """Names and each item's number among them, for each grouping in turn."""
    source = items.column("source").combine_chunks()
    if kind == "folder":
        tops, numbers = _encode(_top_folder(source))
        yield [source_of(f"{top}/x", kind) if top else "." for top in tops], numbers
    else:
        sources, numbers = _encode(source)
        yield [source_of(name, kind) for name in sources], numbers
    yield _encode(items.column("format").combine_chunks())
    side = np.maximum(items.column("width").to_numpy(), items.column("height").to_numpy())
    bands, numbers = _encode(pa.array(np.digitize(side, SIZE_BANDS)))
    yield [_BANDS[band] for band in bands], numbers


def _encode(values: pa.Array) -> tuple[list[Any], Int[np.ndarray, " n"]]:
    """Distinct values in the order in which they first occur, and each value's number among them."""
    encoded = pc.dictionary_encode(values, null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _top_folder(source: pa.Array) -> pa.Array:
    """The first folder of each path, empty where there is none."""
    nested = pc.match_substring(source, "/")
    return pc.if_else(nested, pc.replace_substring_regex(source, "(?s)/.*", ""), "")


def source_of(source: str, kind: str) -> str:
    """Where an item comes from: the folder at the top of its pool, or the tar or table that holds it."""
    if kind != "folder":
        return readable(path_of(source))
    parts = PurePosixPath(path_of(source)).parts
    return readable(parts[0]) if len(parts) > 1 else "."


def merge_small(groups: Groups) -> Groups:
    """The groups worth a share of their own, the small ones put together; groupings with one group left out."""
    merged: Groups = {}
    for grouping in GROUPINGS:
        mine = Counter({name: tally.scored for (by, name), tally in groups.items() if by == grouping})
        # a folder may bear the name of the rest: it is put with it
        large = [name for name, n in mine.most_common(MOST_GROUPS) if n >= FEWEST and name != OTHERS]
        kept: Groups = {(grouping, name): groups[grouping, name] for name in large}
        rest = GroupTally()
        for name in mine:
            if name not in large:
                rest.add(groups[grouping, name])
        if rest.scored >= FEWEST:
            kept[grouping, OTHERS] = rest
        if len(kept) > 1:
            merged |= kept
    return merged
