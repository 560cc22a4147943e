"""Duplicates, overlaps and folds by content hash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.references import Reference, drop_shared, find_duplicates, find_members, fold_of
from poolproof.errors import InputError

small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30)


@pytest.mark.property
@settings(deadline=None)
@given(small)
def test_duplicates_are_the_later_scored_copies(rows: list[tuple[int, int, bool]]) -> None:
    """An item is a duplicate exactly where an earlier scored one has the same hash."""
    digests = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    scored = np.array([row[2] for row in rows], bool)
    seen: set[tuple[int, ...]] = set()
    expected = []
    for *digest, ok in rows:
        expected.append(ok and tuple(digest) in seen)
        if ok:
            seen.add(tuple(digest))
    assert find_duplicates(digests, scored).tolist() == expected


@pytest.mark.property
@settings(deadline=None)
@given(small, small)
def test_members_are_those_of_a_set(
    rows: list[tuple[int, int, bool]], others: list[tuple[int, int, bool]]
) -> None:
    """Membership is by the whole hash, not by its first half."""
    a = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    b = np.array([row[:2] for row in others], np.uint64).reshape(-1, 2)
    known = {row[:2] for row in others}
    assert find_members(a, b).tolist() == [row[:2] in known for row in rows]


def test_folds_are_balanced_and_follow_the_content() -> None:
    """Folds depend on the hash alone and are about equally large."""
    digests = np.random.default_rng(0).integers(0, 2**63, size=(5000, 2), dtype=np.uint64)
    folds = fold_of(digests, 5)
    assert (fold_of(digests[::-1], 5)[::-1] == folds).all()
    assert np.bincount(folds, minlength=5).min() > 850


def test_shared_images_leave_both_references() -> None:
    """An image in both references is left out of both; equal references are refused."""

    def reference(first: int, last: int) -> Reference:
        digests = np.array([[i, i] for i in range(first, last)], np.uint64)
        n = last - first
        features = np.arange(n, dtype=np.float32)[:, None]
        return Reference(f"{first}-{last}", features, digests, n, n, 0, np.arange(n), ("",) * n)

    kept = drop_shared({"real": reference(0, 10), "synthetic": reference(8, 20)})
    assert kept["real"].digests[:, 0].tolist() == list(range(8))
    assert kept["synthetic"].features[:, 0].tolist() == list(range(2, 12))
    assert (kept["real"].n_shared, kept["synthetic"].n_shared) == (2, 2)
    with pytest.raises(InputError, match="two different pools"):
        drop_shared({"real": reference(0, 3), "synthetic": reference(0, 5)})
