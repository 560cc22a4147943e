"""Parts of a pool that get a share of their own: by source, by format, by size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from poolproof.audit.paths import path_of, readable

GROUPINGS: Final = ("source", "format", "size")
"""How a pool is cut, each in turn: by the folder, tar or table that holds an item, by image format, by longer side."""

SIZE_BANDS: Final = (64, 128, 256, 512, 1024, 2048)
"""Bounds of the longer side in pixels; a band holds its lower bound."""

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

    def count(self, hit: bool, answered: bool, flagged: bool) -> None:
        """Counts one item."""
        self.scored += 1
        self.hits += hit
        self.answered_rest += answered and not hit
        self.flagged_rest += flagged and not hit

    def add(self, other: GroupTally) -> None:
        """Counts another group in."""
        self.scored += other.scored
        self.hits += other.hits
        self.answered_rest += other.answered_rest
        self.flagged_rest += other.flagged_rest


Groups = dict[tuple[str, str], GroupTally]
"""Counts by grouping and group."""


def group_names(row: Mapping[str, Any], kind: str) -> tuple[tuple[str, str], ...]:
    """The groups that an item is in, one for each grouping.

    Args:
        row: of the evidence or of the items.
        kind: of the pool, `folder`, `webdataset`, `parquet` or `dataset`.
    """
    return (
        ("source", source_of(row["source"], kind)),
        ("format", row["format"]),
        ("size", size_band(row["width"], row["height"])),
    )


def source_of(source: str, kind: str) -> str:
    """Where an item comes from: the folder at the top of its pool, or the tar or table that holds it."""
    if kind != "folder":
        return readable(path_of(source))
    parts = PurePosixPath(path_of(source)).parts
    return readable(parts[0]) if len(parts) > 1 else "."


def size_band(width: int, height: int) -> str:
    """The longer side's band in words, such as `512 to 1023 px`."""
    side = max(width, height)
    if side < SIZE_BANDS[0]:
        return f"under {SIZE_BANDS[0]} px"
    lower = max(bound for bound in SIZE_BANDS if bound <= side)
    if lower == SIZE_BANDS[-1]:
        return f"{lower} px and more"
    return f"{lower} to {SIZE_BANDS[SIZE_BANDS.index(lower) + 1] - 1} px"


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
