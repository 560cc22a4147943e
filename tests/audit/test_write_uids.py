"""The subset file of DataComp: sorted, repeated uids repeated, and none made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_pools import KINDS, decide, images, uid, write_kind, write_tar

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import ItemRef
from poolproof.errors import InputError


def keep_all(ref: ItemRef) -> bool:
    """Keeps everything."""
    return ref.row >= 0


def subset(folder: Path) -> list[int]:
    """The numbers in the subset file."""
    array = np.load(folder / "out" / "subset.npy")
    assert array.dtype == np.dtype("u8,u8")
    return [int(high) << 64 | int(low) for high, low in array]


@pytest.mark.parametrize("kind", KINDS)
def test_sorted_halves(tmp_path: Path, kind: str) -> None:
    """High and low 64 bits, in ascending order, as bisection needs them; no pool beside it."""
    run, decision = decide(write_kind(tmp_path, kind), tmp_path, keep=keep_all)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out", format="uids", shard_items=3))
    assert subset(tmp_path) == sorted(int(uid(i), 16) for i in range(10))
    array = np.load(tmp_path / "out" / "subset.npy")
    assert (np.searchsorted(array, array, "left") == np.arange(10)).all()
    assert not (tmp_path / "out" / "pool").exists()
    assert manifest["shards"][0]["name"] == "subset.npy"


def test_a_uid_that_comes_again(tmp_path: Path) -> None:
    """A uid of three items is there three times: the resharder writes it three times."""
    uids = ["f" * 32, "0" * 31 + "1", "F" * 32, "f" * 32]
    rows = [
        member
        for i, (data, name) in enumerate(zip(images(4), uids, strict=True))
        for member in ((f"{i}.jpg", data), (f"{i}.json", json.dumps({"uid": name}).encode()))
    ]
    run, decision = decide(write_tar(tmp_path / "pool" / "0.tar", rows), tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="uids"))
    assert subset(tmp_path) == [1, *[2**128 - 1] * 3]


def test_keys_that_are_uids(tmp_path: Path) -> None:
    """Without JSON or column a key of 32 hex digits is the uid."""
    rows = [(f"{uid(i)}.jpg", data) for i, data in enumerate(images(3))]
    run, decision = decide(write_tar(tmp_path / "pool" / "0.tar", rows), tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="uids"))
    assert subset(tmp_path) == sorted(int(uid(i), 16) for i in range(3))


@pytest.mark.parametrize("stated", [None, "12", 12, "g" * 32])
def test_an_item_without_uid(tmp_path: Path, stated: object) -> None:
    """What has no uid ends in one line that names the item."""
    table = pa.table({"image": images(1), "id": ["a"], "json": [json.dumps({"uid": stated})]})
    (tmp_path / "pool").mkdir()
    pq.write_table(table, tmp_path / "pool" / "0.parquet")
    run, decision = decide(tmp_path / "pool", tmp_path, keep=keep_all)
    with pytest.raises(InputError, match="item 'a' has no uid"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out", format="uids"))
    assert not (tmp_path / "out" / "subset.npy").exists()
