"""Parts of a pool: how items are named, counted and put together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.groups import (
    FEWEST,
    GROUPINGS,
    MOST_GROUPS,
    OTHERS,
    Groups,
    GroupTally,
    count_groups,
    merge_small,
    source_of,
)


@pytest.mark.parametrize(
    ("source", "kind", "expected"),
    [
        ("a/b/c.png", "folder", "a"),
        ("c.png", "folder", "."),
        ("shards/00001.tar", "webdataset", "shards/00001.tar"),
        ("\0666f6fff/x.png", "folder", None),
    ],
)
def test_source_is_the_top_folder_or_the_file(source: str, kind: str, expected: str | None) -> None:
    """Files are named by their top folder, items of tars by their tar; a name that is no text becomes escapes."""
    found = source_of(source, kind)
    assert found == expected if expected else found.isprintable()


def listed(*rows: tuple[str, str, int, int]) -> pa.Table:
    """Items by source, format, width and height."""
    schema = pa.schema([EVIDENCE.field(name) for name in ("source", "format", "width", "height")])
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (8, 63, "under 64 px"),
        (64, 8, "64 to 127 px"),
        (511, 511, "256 to 511 px"),
        (3000, 2048, "2048 px and more"),
    ],
)
def test_size_band_is_that_of_the_longer_side(width: int, height: int, expected: str) -> None:
    """A band holds its lower bound and not its upper one."""
    groups: Groups = {}
    no = np.zeros(1, bool)
    count_groups(groups, listed(("a.png", "PNG", width, height)), "folder", hit=no, answered=no, flagged=no)
    assert [name for by, name in groups if by == "size"] == [expected]


def test_an_item_is_in_one_group_of_each_grouping() -> None:
    """Source, format and size are told in this order, and each item is counted once in each."""
    items = listed(("a/k.png", "PNG", 100, 80), ("k.jpg", "JPEG", 9, 9), ("a/b/c.png", "PNG", 90, 80))
    groups: Groups = {}
    hit, yes = np.array([True, False, False]), np.ones(3, bool)
    for _ in range(2):  # a second part is added to the first
        count_groups(groups, items, "folder", hit=hit, answered=yes, flagged=~hit)
    assert groups == {
        ("source", "a"): GroupTally(4, 2, 2, 2),
        ("source", "."): GroupTally(2, 0, 2, 2),
        ("format", "PNG"): GroupTally(4, 2, 2, 2),
        ("format", "JPEG"): GroupTally(2, 0, 2, 2),
        ("size", "64 to 127 px"): GroupTally(4, 2, 2, 2),
        ("size", "under 64 px"): GroupTally(2, 0, 2, 2),
    }
    assert tuple(dict.fromkeys(by for by, _ in groups)) == GROUPINGS


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["a/b/c.png", "c.png", "été/x y.png", "0/1", "a b/c", "\\0ff"]), min_size=1),
    st.sampled_from(["folder", "webdataset"]),
)
def test_sources_of_a_column_are_those_of_its_rows(sources: list[str], kind: str) -> None:
    """Counting whole columns names each item as it is named alone."""
    groups: Groups = {}
    no = np.zeros(len(sources), bool)
    items = listed(*((source, "PNG", 9, 9) for source in sources))
    count_groups(groups, items, kind, hit=no, answered=no, flagged=no)
    expected = Counter(source_of(source, kind) for source in sources)
    assert {name: counts.scored for (by, name), counts in groups.items() if by == "source"} == expected


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_merging_keeps_the_large_and_loses_at_most_a_small_rest(sizes: list[int]) -> None:
    """At most eight groups and one rest are kept, each large enough, and counts are those of the groups."""
    groups = {("source", f"g{i}"): GroupTally(n, n // 3, n // 2, n // 4) for i, n in enumerate(sizes)}
    merged = merge_small(groups)
    if not merged:
        assert sum(n >= FEWEST for n in sizes) <= 1
        return
    assert 2 <= len(merged) <= MOST_GROUPS + 1
    assert all(tally.scored >= FEWEST for tally in merged.values())
    total = sum(tally.scored for tally in merged.values())
    assert total <= sum(sizes)
    if ("source", OTHERS) in merged:
        assert total == sum(sizes)
        assert sum(tally.hits for tally in merged.values()) == sum(n // 3 for n in sizes)


def test_a_folder_named_like_the_rest_loses_nothing() -> None:
    """A folder that is called as the rest is put with it, and every item is counted once."""
    groups = {
        ("source", name): GroupTally(scored=n) for name, n in (("a", 50), (OTHERS, 40), ("b", 35), ("c", 20))
    }
    merged = merge_small(groups)
    assert {name: tally.scored for (_, name), tally in merged.items()} == {"a": 50, "b": 35, OTHERS: 60}
