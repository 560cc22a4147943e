"""Content hashes: duplicates, members and folds, in memory and dealt to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.digests import (
    deal_digests,
    find_duplicates,
    find_members,
    fold_of,
    part_digests,
    part_scored,
)
from poolproof.audit.evidence import EVIDENCE

Rows = list[tuple[int, int, bool]]

small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30)
wide = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1), st.booleans()), max_size=80)


def digests_of(rows: Rows) -> np.ndarray:
    """The hashes of drawn rows."""
    return np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)


def part_of(rows: Rows) -> pa.Table:
    """A part of evidence with these hashes; every seventh item that was not scored has none."""
    values = [
        None if not ok and i % 7 == 0 else np.array([a, b, 9, 9], "<u8").tobytes()
        for i, (a, b, ok) in enumerate(rows)
    ]
    statuses = ["scored" if ok else "unreadable" for *_, ok in rows]
    schema = pa.schema([EVIDENCE.field("sha256"), EVIDENCE.field("status")])
    return pa.table([values, statuses], schema=schema)


@pytest.mark.property
@settings(deadline=None)
@given(small)
def test_duplicates_are_the_later_scored_copies(rows: Rows) -> None:
    """An item is a duplicate exactly where an earlier scored one has the same hash."""
    seen: set[tuple[int, ...]] = set()
    expected = []
    for *digest, ok in rows:
        expected.append(ok and tuple(digest) in seen)
        if ok:
            seen.add(tuple(digest))
    scored = np.array([row[2] for row in rows], bool)
    assert find_duplicates(digests_of(rows), scored).tolist() == expected


@pytest.mark.property
@settings(deadline=None)
@given(small, small)
def test_members_are_those_of_a_set(rows: Rows, others: Rows) -> None:
    """Membership is by the whole hash, not by its first half."""
    known = {row[:2] for row in others}
    found = find_members(digests_of(rows), digests_of(others))
    assert found.tolist() == [row[:2] in known for row in rows]


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(wide, wide, st.integers(1, 30), st.integers(1, 20))
def test_dealt_to_disk_gives_what_memory_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, others: Rows, bucket_items: int, part_items: int
) -> None:
    """Duplicates and members are those found in memory, for any number of files and parts; no file is left."""
    folder = tmp_path_factory.mktemp("digests")
    table = part_of(rows)
    digests, scored, asked = part_digests(table), part_scored(table), digests_of(others)
    parts = [table.slice(start, part_items) for start in range(0, len(rows), part_items)]
    with deal_digests(parts, len(rows), folder, bucket_items=bucket_items) as dealt:
        assert (dealt.scored == scored).all()
        assert (dealt.duplicates() == find_duplicates(digests, scored)).all()
        assert (dealt.holds(asked) == find_members(asked, digests)).all()
        assert dealt.count_scored(asked) == (find_members(digests, asked) & scored).sum()
        assert len(dealt.buckets) == 1 or len(dealt.buckets) * bucket_items < 2 * len(rows)
    assert not any(folder.iterdir())


def test_hashes_of_a_part_are_the_first_bytes_and_zeros_where_there_are_none() -> None:
    """Slices and chunks of a column are read at their places."""
    values = [bytes([i] * 32) if i % 3 else None for i in range(10)]
    table = pa.table(
        {"sha256": pa.chunked_array([pa.array(values, pa.binary(32)), pa.array(values, pa.binary(32))])}
    )
    expected = np.array(
        [[int.from_bytes(bytes([i if i % 3 else 0] * 8), "little")] * 2 for i in range(10)], np.uint64
    )
    found = part_digests(table.slice(3, 12))
    assert (found == np.concatenate([expected, expected])[3:15]).all()


def test_folds_are_balanced_and_follow_the_content() -> None:
    """Folds depend on the hash alone and are about equally large."""
    digests = np.random.default_rng(0).integers(0, 2**63, size=(5000, 2), dtype=np.uint64)
    folds = fold_of(digests, 5)
    assert (fold_of(digests[::-1], 5)[::-1] == folds).all()
    assert np.bincount(folds, minlength=5).min() > 850


def test_a_large_pool_is_dealt_evenly(tmp_path: Path) -> None:
    """Random hashes fill all files about equally, so that none outgrows memory."""
    rng = np.random.default_rng(0)
    values = [bytes(row) for row in rng.integers(0, 256, (4000, 32), dtype=np.uint8)]
    table = pa.table([values, ["scored"] * 4000], schema=part_of([]).schema)
    with deal_digests([table], 4000, tmp_path, bucket_items=500) as dealt:
        sizes = [file.seek(0, 2) // 24 for file in dealt.buckets]
    assert sum(sizes) == 4000
    assert len(sizes) == 8
    assert max(sizes) < 600
