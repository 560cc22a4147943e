"""Parts of a pool: how items are named, counted and put together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.groups import (
    FEWEST,
    GROUPINGS,
    MOST_GROUPS,
    OTHERS,
    GroupTally,
    merge_small,
    size_band,
    source_of,
)
from poolproof.audit.groups import group_names as names


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
    assert size_band(width, height) == expected


def test_an_item_is_in_one_group_of_each_grouping() -> None:
    """Source, format and size are told, in this order."""
    row = {"key": "k", "source": "a/k.png", "format": "PNG", "width": 100, "height": 80}
    found = names(row, "folder")
    assert found == (("source", "a"), ("format", "PNG"), ("size", "64 to 127 px"))
    assert tuple(by for by, _ in found) == GROUPINGS


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
