"""Listings in memory and in a mapped file are the same, and so are the plans made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.listing import collect_listing
from poolproof.audit.plan import make_plan
from poolproof.audit.pool import LISTING, Pool
from poolproof.audit.webdataset import TarReader


def tables(sizes: list[int]) -> Iterator[pa.Table]:
    """The listings of tars of these sizes."""
    for group, n in enumerate(sizes):
        rows = {
            "key": [f"clé-{group}-{i}" for i in range(n)],
            "source": [f"{group:05d}.tar"] * n,
            "offset": [512 * i for i in range(n)],
            "n_bytes": [100 + i for i in range(n)],
            "group": [group] * n,
        }
        yield pa.table(rows, schema=LISTING)


@pytest.mark.property
@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 60), st.sampled_from([None, 1, 30]))
def test_a_mapped_listing_gives_the_same_plan(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], held_bytes: int, sample: int | None
) -> None:
    """A listing that went to a file is the one in memory, and the plan is the same to the byte."""
    folder = tmp_path_factory.mktemp("plan")
    memory, none = collect_listing(tables(sizes))
    mapped, file = collect_listing(tables(sizes), held_bytes=held_bytes)
    assert none is None
    assert (file is not None) == (bool(sizes) and memory.nbytes >= held_bytes)
    assert mapped.equals(memory)
    if not any(sizes):
        return
    plans = [
        make_plan(
            Pool(folder, items, 0, TarReader(folder), handle),
            folder / f"{name}.parquet",
            rng=np.random.default_rng(0),
            shard_size=9,
            sample=sample,
        )
        for name, items, handle in (("memory", memory, None), ("mapped", mapped, file))
    ]
    assert plans[0].path.read_bytes() == plans[1].path.read_bytes()


def test_a_plan_of_many_stretches_holds_every_item_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that reach over stretches and tars hold the items in order, in a draw too."""
    monkeypatch.setattr("poolproof.audit.plan._STRETCH", 7)
    items, file = collect_listing(tables([5, 50, 1, 23]), held_bytes=1)
    pool = Pool(tmp_path, items, 0, TarReader(tmp_path), file)
    for sample in (None, 31):
        plan = make_plan(pool, tmp_path / "p", rng=np.random.default_rng(1), shard_size=10, sample=sample)
        rows = [row for i in range(plan.n_shards) for row in plan.table(i).column("row").to_pylist()]
        keys = [key for i in range(plan.n_shards) for key in plan.table(i).column("key").to_pylist()]
        assert len(rows) == (sample or 79)
        assert rows == sorted(set(rows))
        assert keys == items.column("key").take(pa.array(rows)).to_pylist()


def test_large_pools_have_larger_shards_and_not_ever_more() -> None:
    """Up to 16 million items shards stay as they are; beyond, their number does, up to 8192 items each."""
    from poolproof.audit.plan import suit_shard_size

    sizes = [suit_shard_size(n) for n in (1, 2048, 6400, 65536, 10**7, 2**24, 10**8, 10**9)]
    assert sizes == [32, 32, 100, 1024, 1024, 1024, 6103, 8192]
