"""A plan holds every item once, is the same wherever it is made, and leads back to the bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolproof.audit.plan import Plan, _cut, _find_changes, describe_reader, make_plan, open_reader, read_plan
from poolproof.audit.pool import FolderReader, Pool, Unread, list_folder, open_pool
from poolproof.errors import InputError


def plan_of(pool: Pool, path: Path, *, seed: int = 0, shard_size: int = 4, sample: int | None = None) -> Plan:
    """A plan with small shards."""
    return make_plan(pool, path, rng=np.random.default_rng(seed), shard_size=shard_size, sample=sample)


def bounds_of(groups: np.ndarray, shard_size: int, stretch: int = 7) -> list[int]:
    """Where shards begin and end, the groups looked at in stretches."""
    pieces = [groups[start : start + stretch] for start in range(0, len(groups), stretch)]
    return _cut(_find_changes(pa.table({"group": piece}) for piece in pieces), len(groups), shard_size)


def rows_of(plan: Plan) -> list[int]:
    """The rows of all shards, in order."""
    return [ref.row for index in range(plan.n_shards) for ref in plan.shard(index).refs]


@pytest.fixture
def pool(make_folder: Callable[..., Path]) -> Pool:
    """Ten images."""
    return open_pool(make_folder(10))


def test_row_groups_are_shards(pool: Pool, tmp_path: Path) -> None:
    """Each shard is one row group of the file, and together they are the pool in order."""
    plan = plan_of(pool, tmp_path / "plan.parquet")
    assert plan.sizes == (4, 4, 2)
    assert (plan.n_shards, plan.n_items, plan.n_pool) == (3, 10, 10)
    assert pq.read_metadata(plan.path).num_row_groups == 3
    refs = [ref for index in range(3) for ref in plan.shard(index).refs]
    assert refs == pool.refs()
    assert [plan.shard(i).index for i in range(3)] == [0, 1, 2]
    assert pq.read_schema(plan.path).names == ["row", "key", "source", "offset", "n_bytes"]


def test_shards_read_the_pool(pool: Pool, tmp_path: Path) -> None:
    """The reader that a shard carries gives the bytes that the pool's reader gives."""
    plan = plan_of(pool, tmp_path / "plan.parquet")
    read = [data for i in range(3) for data in plan.shard(i).reader.read(plan.shard(i).refs)]
    assert read == list(pool.reader.read(pool.refs()))


def test_the_same_pool_gives_the_same_file(pool: Pool, tmp_path: Path) -> None:
    """Plans of one pool are equal byte for byte, with a sample too, and differ by seed and size."""
    options = [{}, {"sample": 6}, {"sample": 6, "seed": 1}, {"shard_size": 3}]
    hashes = []
    for number, option in enumerate(options):
        first = plan_of(pool, tmp_path / f"a{number}.parquet", **option)
        again = plan_of(list_folder(pool.root), tmp_path / f"b{number}.parquet", **option)
        assert first.sha256 == again.sha256 == read_plan(first.path).sha256
        assert first.path.read_bytes() == again.path.read_bytes()
        hashes.append(first.sha256)
    assert len(set(hashes)) == len(options)


def test_a_plan_read_again_is_the_plan(pool: Pool, tmp_path: Path) -> None:
    """What was written is what is read."""
    plan = plan_of(pool, tmp_path / "plan.parquet", sample=5)
    assert read_plan(plan.path) == plan
    assert plan.meta["sample"] == 5
    assert plan.meta["n_ignored"] == 0
    assert json.loads(json.dumps(plan.meta)) == plan.meta


def test_a_sample_is_drawn_without_replacement_and_kept_in_order(pool: Pool, tmp_path: Path) -> None:
    """Sampled rows are distinct, ascending, keep their numbers, and keep their items."""
    plan = plan_of(pool, tmp_path / "plan.parquet", sample=7)
    rows = rows_of(plan)
    assert len(rows) == len(set(rows)) == plan.n_items == 7
    assert rows == sorted(rows)
    assert plan.n_pool == 10
    everything = {ref.row: ref for ref in pool.refs()}
    assert all(everything[ref.row] == ref for i in range(plan.n_shards) for ref in plan.shard(i).refs)


@pytest.mark.parametrize("sample", [10, 11, 10**9])
def test_a_sample_of_all_is_no_sample(pool: Pool, tmp_path: Path, sample: int) -> None:
    """Asking for as many as there are, or more, scores every item."""
    plan = plan_of(pool, tmp_path / "plan.parquet", sample=sample)
    assert rows_of(plan) == list(range(10))
    assert plan.meta["sample"] is None


def test_a_sample_is_uniform(pool: Pool, tmp_path: Path) -> None:
    """Over many seeds every row is drawn equally often."""
    counts = np.zeros(10)
    for seed in range(60):
        rows = rows_of(plan_of(pool, tmp_path / "plan.parquet", seed=seed, sample=5))
        counts[rows] += 1
    assert counts.sum() == 300
    # a chi-square test is conservative here: draws without replacement vary less
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_are_read_by_number(pool: Pool, tmp_path: Path) -> None:
    """Items are found by row in any order asked, come in the order of the pool, and absent rows are left out."""
    plan = plan_of(pool, tmp_path / "plan.parquet")
    everything = list(pool.reader.read(pool.refs()))
    assert list(plan.read_rows([7, 0, 3, 7, 99])) == [(row, everything[row]) for row in (0, 3, 7)]
    assert list(plan.read_rows([])) == []
    assert list(plan.read_rows([42])) == []


def test_rows_of_a_sample_keep_the_pools_numbers(pool: Pool, tmp_path: Path) -> None:
    """A row number means the same item with a sample and without."""
    plan = plan_of(pool, tmp_path / "plan.parquet", sample=4)
    everything = list(pool.reader.read(pool.refs()))
    assert list(plan.read_rows(range(10))) == [(row, everything[row]) for row in rows_of(plan)]


def test_rows_of_a_table_are_read_by_number(make_parquet: Callable[..., Path], tmp_path: Path) -> None:
    """Readers that want ascending references get them."""
    pool = open_pool(make_parquet(20, row_group_size=6))
    plan = plan_of(pool, tmp_path / "plan.parquet")
    everything = list(pool.reader.read(pool.refs()))
    assert list(plan.read_rows([19, 2, 11])) == [(row, everything[row]) for row in (2, 11, 19)]


def test_shards_end_with_row_groups_and_tars(make_parquet: Callable[..., Path], tmp_path: Path) -> None:
    """Where a row group or tar ends beyond half of a shard's size, the shard ends with it."""
    pool = open_pool(make_parquet(20, row_group_size=6))
    assert plan_of(pool, tmp_path / "a.parquet", shard_size=8).sizes == (6, 6, 8)
    assert plan_of(pool, tmp_path / "b.parquet", shard_size=14).sizes == (12, 8)
    assert plan_of(pool, tmp_path / "c.parquet", shard_size=4).sizes == (4, 2, 4, 2, 4, 4)
    assert plan_of(pool, tmp_path / "d.parquet", shard_size=100).sizes == (20,)


def test_a_run_goes_on_from_another_folder(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that was opened by a relative path is found from anywhere."""
    monkeypatch.chdir(tmp_path)
    plan = plan_of(open_pool("folder"), tmp_path / "plan.parquet")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert all(isinstance(data, bytes) for _, data in plan.read_rows(range(10)))


def test_names_that_are_not_text_survive(tmp_path: Path, hostile_files: Callable[..., list]) -> None:
    """Files and folders with any name are read through a plan."""
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    files = {file.write(folder).name: file for file in hostile_files()}
    plan = plan_of(open_pool(folder), tmp_path / "plan.parquet", shard_size=7)
    found = dict(plan.read_rows(range(plan.n_items)))
    assert len(found) == len(files)
    n_bytes = sum(isinstance(file.content, bytes) for file in files.values())
    assert sum(isinstance(data, bytes) for data in found.values()) == n_bytes
    assert {d.status for d in found.values() if isinstance(d, Unread)} == {"missing", "unreadable"}


def test_every_reader_is_described_by_text(
    make_folder: Callable[..., Path], make_tar: Callable[..., Path], make_parquet: Callable[..., Path]
) -> None:
    """A reader comes back from its description."""
    for path in (make_folder(1), make_tar(1), make_parquet(1)):
        reader = open_pool(path).reader
        description = json.loads(json.dumps(describe_reader(reader)))
        assert open_reader(description) == reader
        assert type(open_reader(description)) is type(reader)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shard_size": 0}, "shard size is 0"),
        ({"sample": 0}, "--sample is 0"),
        ({"sample": -3}, "--sample is -3"),
    ],
)
def test_sizes_below_one_are_refused(pool: Pool, tmp_path: Path, options: dict[str, int], words: str) -> None:
    """Nothing is written for a size that makes no sense."""
    with pytest.raises(InputError, match=words):
        plan_of(pool, tmp_path / "plan.parquet", **options)
    assert not list(tmp_path.glob("*.parquet"))


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    """No images is one line that says what else was there."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("none")
    with pytest.raises(InputError, match=r"holds no images \(1 other files\)"):
        plan_of(open_pool(folder), tmp_path / "plan.parquet")


def test_an_absent_plan_is_refused(tmp_path: Path) -> None:
    """Where no run is, the message says what to give."""
    with pytest.raises(InputError, match="no plan at"):
        read_plan(tmp_path / "plan.parquet")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="no plan at"):
        read_plan(tmp_path / "file" / "plan.parquet")


def test_a_damaged_plan_is_refused(pool: Pool, tmp_path: Path) -> None:
    """Cut, foreign and empty files are named as damaged, in one line."""
    plan = plan_of(pool, tmp_path / "plan.parquet")
    whole = plan.path.read_bytes()
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    for content in (whole[: len(whole) // 2], b"", b"PAR1", other.read_bytes()):
        plan.path.write_bytes(content)
        with pytest.raises(InputError, match="damaged") as caught:
            read_plan(plan.path)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match="damaged"):
        read_plan(tmp_path / "folder.parquet")


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30), shard_size=st.integers(1, 70))
def test_bounds_cut_the_pool_into_shards(sizes: list[int], shard_size: int) -> None:
    """Every row is in exactly one shard, in order, and no shard is empty or above the size."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    bounds = bounds_of(groups, shard_size)
    assert bounds[0] == 0
    assert bounds[-1] == len(groups)
    lengths = [stop - start for start, stop in pairwise(bounds)]
    assert all(1 <= length <= shard_size for length in lengths)
    # at least half full, but for the last: the number of shards is at most about twice the least possible
    assert all(length >= max(1, shard_size // 2) for length in lengths[:-1])


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(1, 10), min_size=1, max_size=40), shard_size=st.integers(20, 40))
def test_small_groups_are_never_cut(sizes: list[int], shard_size: int) -> None:
    """Where groups fit into half a shard, every shard ends with one, so that none is read twice."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ends = set(np.cumsum(sizes).tolist())
    assert set(bounds_of(groups, shard_size)[1:]) <= ends


@pytest.mark.property
@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 40),
    shard_size=st.integers(1, 50),
    sample=st.none() | st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_plans_hold_every_item_once(
    tmp_path_factory: pytest.TempPathFactory, n: int, shard_size: int, sample: int | None, seed: int
) -> None:
    """Shards add up to the pool or to the sample, whatever the sizes."""
    listing = pa.table(
        {
            "key": [f"k{i}" for i in range(n)],
            "source": [f"{i}.jpg" for i in range(n)],
            "offset": pa.array([0] * n, pa.int64()),
            "n_bytes": pa.array([1] * n, pa.int64()),
            "group": pa.array([i // 5 for i in range(n)], pa.int32()),
        }
    )
    folder = tmp_path_factory.mktemp("plan")
    plan = plan_of(
        Pool(folder, listing, 0, FolderReader(folder)),
        folder / "plan.parquet",
        seed=seed,
        shard_size=shard_size,
        sample=sample,
    )
    rows = rows_of(plan)
    assert len(rows) == plan.n_items == min(n, sample or n)
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(n))
    assert max(plan.sizes) <= shard_size
    keys = [ref.key for index in range(plan.n_shards) for ref in plan.shard(index).refs]
    assert keys == [f"k{row}" for row in rows]
