"""Parquet pools are listed by footers and key columns, and a damaged page costs no other row group."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poolproof.audit.parquet import find_image_column, find_key_column, image_bytes
from poolproof.audit.pool import LISTING, Pool, Unread, open_pool
from poolproof.errors import InputError

MakeParquet = Callable[..., Path]


def column(pool: Pool, name: str) -> list[Any]:
    """A column of a pool's listing."""
    return pool.items.column(name).to_pylist()


def read_all(pool: Pool) -> list[bytes | Unread]:
    """What reading every item gives."""
    return list(pool.reader.read(pool.refs()))


def codes(pool: Pool) -> list[str]:
    """`ok` for each item that was read, the reason's code for the others."""
    return [d.reason.partition(":")[0] if isinstance(d, Unread) else "ok" for d in read_all(pool)]


def flip_data(path: Path, group: int, name: str) -> None:
    """Overwrites the header of the first data page of a column in one row group."""
    metadata = pq.read_metadata(path).row_group(group)
    chunk = next(
        metadata.column(i) for i in range(metadata.num_columns) if metadata.column(i).path_in_schema == name
    )
    data = bytearray(path.read_bytes())
    at = chunk.data_page_offset
    data[at : at + 40] = bytes(byte ^ 0xFF for byte in data[at : at + 40])
    path.write_bytes(data)


def test_images_as_hugging_face_writes_them(make_parquet: MakeParquet) -> None:
    """A struct of bytes and path is read, rows are named by their key column."""
    path = make_parquet(5)
    pool = open_pool(path)
    assert pool.kind == "parquet"
    assert column(pool, "key") == [f"key-{i:04d}" for i in range(5)]
    assert column(pool, "source") == ["pool.parquet"] * 5
    assert column(pool, "offset") == list(range(5))
    assert pool.items.schema.equals(LISTING)
    expected = [cell["bytes"] for cell in pq.read_table(path).column("image").to_pylist()]
    assert read_all(pool) == expected
    assert pool.reader.sidecars(pool.refs()[0]) == {}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("name", ["bytes", "jpg", "anything"])
def test_a_column_of_bytes(make_parquet: MakeParquet, name: str, kind: pa.DataType) -> None:
    """A binary column holds the images; without keys, rows are named by file and number."""
    cells = pa.array([b"one", b"", b"two"], kind)
    pool = open_pool(make_parquet(columns={name: cells, "label": [1, 2, 3]}))
    assert read_all(pool) == [b"one", b"", b"two"]
    assert column(pool, "key") == ["pool.parquet#0", "pool.parquet#1", "pool.parquet#2"]


@pytest.mark.reference
def test_what_pandas_writes(tmp_path: Path) -> None:
    """A frame with bytes and a categorical key, written by pandas, is a pool."""
    frame = pd.DataFrame({"image": [b"a", b"b"], "filename": pd.Categorical(["x.jpg", "y.jpg"])})
    frame.to_parquet(tmp_path / "frame.parquet")
    pool = open_pool(tmp_path / "frame.parquet")
    assert column(pool, "key") == ["x.jpg", "y.jpg"]
    assert read_all(pool) == [b"a", b"b"]


def test_a_column_of_paths(tmp_path: Path, make_parquet: MakeParquet) -> None:
    """Paths start at the file's folder and may not leave the pool; links and dots are resolved."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    pool_folder = tmp_path / "pool"
    (pool_folder / "images").mkdir(parents=True)
    (pool_folder / "images" / "a.jpg").write_bytes(b"a")
    (pool_folder / "images" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    paths = [
        "../images/a.jpg",
        str(pool_folder / "images" / "a.jpg"),
        "../images/absent.jpg",
        "../../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "/etc/passwd",
        "../images/out.jpg",
        "../images/../../secret.jpg",
        "\0" + "612e6a7067",
        "x" * 5000,
        "../images",
        None,
    ]
    make_parquet(name="pool/tables/t.parquet", columns={"image_path": paths})
    pool = open_pool(f"parquet:{pool_folder}")
    assert read_all(pool)[:2] == [b"a", b"a"]
    assert codes(pool)[2:] == ["no-file", *["outside"] * 6, "read-error", "not-a-file", "null"]


def test_a_relative_pool_path_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_parquet: MakeParquet
) -> None:
    """A pool opened by a relative path follows its paths too."""
    (tmp_path / "a.jpg").write_bytes(b"a")
    make_parquet(name="t.parquet", columns={"image_path": ["a.jpg", "../a.jpg"]})
    monkeypatch.chdir(tmp_path)
    assert codes(open_pool("t.parquet")) == ["ok", "outside"]


def test_nulls_are_missing(make_parquet: MakeParquet) -> None:
    """A null, or a struct without bytes and path, costs its own row."""
    cells = [
        {"bytes": b"a", "path": None},
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": "absent.jpg"},
        {"bytes": b"b", "path": "/etc/passwd"},
    ]
    pool = open_pool(make_parquet(columns={"image": cells}))
    assert codes(pool) == ["ok", "null", "null", "no-file", "ok"]
    assert {d.status for d in read_all(pool) if isinstance(d, Unread)} == {"missing"}


def test_row_groups_are_groups_and_any_ascending_rows_can_be_read(make_parquet: MakeParquet) -> None:
    """Row groups are numbered through all files, and a selection of rows is the selection of the whole."""
    folder = make_parquet(50, "t/a.parquet", seed=1, row_group_size=20).parent
    make_parquet(7, "t/b.parquet", seed=2, row_group_size=4)
    pool = open_pool(folder)
    assert column(pool, "group") == [0] * 20 + [1] * 20 + [2] * 10 + [3] * 4 + [4] * 3
    whole = read_all(pool)
    refs = pool.refs()
    for chosen in ([0], [19, 20, 39, 40, 49, 50, 56], [5, 17, 45], [56], list(range(30, 55))):
        assert list(pool.reader.read([refs[i] for i in chosen])) == [whole[i] for i in chosen]
    assert list(pool.reader.read([])) == []


@pytest.mark.property
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    group=st.integers(1, 45),
    data=st.data(),
)
def test_rows_come_back_whatever_the_row_groups(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group: int, data: st.DataObject
) -> None:
    """Every selection of rows gives the bytes that were written there."""
    folder = tmp_path_factory.mktemp("any")
    written: list[bytes] = []
    for number, size in enumerate(sizes):
        cells = [f"{number}-{i}".encode() for i in range(size)]
        pq.write_table(pa.table({"image": cells}), folder / f"{number}.parquet", row_group_size=group)
        written += cells
    pool = open_pool(folder)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(written) - 1))))
    refs = pool.refs()
    assert list(pool.reader.read([refs[i] for i in chosen])) == [written[i] for i in chosen]


def test_a_damaged_page_costs_its_row_group_alone(make_parquet: MakeParquet) -> None:
    """Rows behind a damaged page are unreadable, those of other row groups and files are read."""
    folder = make_parquet(30, "t/a.parquet", seed=1, row_group_size=10).parent
    make_parquet(5, "t/b.parquet", seed=2)
    flip_data(folder / "a.parquet", 1, "image.bytes")
    pool = open_pool(folder)
    assert len(pool) == 35
    assert codes(pool) == ["ok"] * 10 + ["read-error"] * 10 + ["ok"] * 15


def test_rows_before_a_damaged_page_are_read(tmp_path: Path) -> None:
    """Within a row group, pages before the damaged one are read, up to a batch of 16 rows."""
    source = np.random.default_rng(0)
    cells = [source.bytes(4000) for _ in range(100)]
    path = tmp_path / "pages.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_batch_size": 1}
    pq.write_table(pa.table({"image": cells}), path, data_page_size=20_000, **options)
    data = bytearray(path.read_bytes())
    at = data.index(cells[60]) - 4  # the length that stands before the bytes
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    found = read_all(open_pool(path))
    n_read = next(i for i, d in enumerate(found) if isinstance(d, Unread))
    assert 40 <= n_read <= 60
    assert found[:n_read] == cells[:n_read]
    assert all(isinstance(d, Unread) and d.status == "unreadable" for d in found[n_read:])


def test_a_damaged_key_column_costs_the_names_alone(make_parquet: MakeParquet) -> None:
    """Keys that cannot be read are replaced by file and number, and the images are read."""
    path = make_parquet(6, row_group_size=3)
    flip_data(path, 1, "key")
    pool = open_pool(path)
    assert column(pool, "key") == [
        *(f"key-{i:04d}" for i in range(3)),
        *(f"pool.parquet#{i}" for i in (3, 4, 5)),
    ]
    assert codes(pool) == ["ok"] * 6


def test_one_file_without_a_footer(make_parquet: MakeParquet) -> None:
    """A damaged file among good ones is one unreadable item in its own name."""
    folder = make_parquet(3, "t/a.parquet").parent
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])
    make_parquet(2, "t/c.parquet")
    pool = open_pool(folder)
    assert column(pool, "key")[3] == "b.parquet"
    assert codes(pool) == ["ok", "ok", "ok", "read-error", "ok", "ok"]


@pytest.mark.parametrize("first", ["a", "z"])
def test_one_file_with_other_columns(make_parquet: MakeParquet, first: str) -> None:
    """A table without images among those with is one unreadable item, wherever it stands in the order."""
    folder = make_parquet(name=f"t/{first}.parquet", columns={"loss": [0.5]}).parent
    make_parquet(2, "t/m.parquet")
    pool = open_pool(folder)
    assert sorted(codes(pool)) == ["column", "ok", "ok"]


def test_no_file_that_can_be_read(tmp_path: Path) -> None:
    """A pool of damaged files is refused in one line."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(InputError, match="no Parquet file of 1 can be read") as caught:
        open_pool(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_column_of_images(make_parquet: MakeParquet) -> None:
    """Tables without images are refused, and the message lists their columns."""
    path = make_parquet(columns={"url": ["http://x"], "caption": ["a cat"]})
    with pytest.raises(InputError, match=r"\['url', 'caption'\]: none holds images"):
        open_pool(path)


def test_a_table_without_rows(make_parquet: MakeParquet) -> None:
    """An empty table is an empty pool."""
    cells = pa.array([], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    assert len(open_pool(make_parquet(columns={"image": cells}))) == 0


def test_a_file_changed_after_listing(make_parquet: MakeParquet) -> None:
    """Rows that are gone are unreadable, a file that is gone is missing."""
    path = make_parquet(6)
    pool = open_pool(path)
    make_parquet(4)
    assert codes(pool) == ["ok"] * 4 + ["cut"] * 2
    path.unlink()
    assert {d.status for d in read_all(pool) if isinstance(d, Unread)} == {"missing"}
    assert codes(pool) == ["no-file"] * 6


@pytest.mark.parametrize(
    ("make", "code"), [(os.mkfifo, "read-error"), (lambda path: path.symlink_to("nowhere"), "no-file")]
)
def test_a_table_that_is_no_file(make_parquet: MakeParquet, make: Callable[[Path], None], code: str) -> None:
    """A pipe or a dangling link called .parquet is one item that cannot be read, and is not waited for."""
    folder = make_parquet(1, "t/a.parquet").parent
    make(folder / "b.parquet")
    assert codes(open_pool(folder)) == ["ok", code]


def test_names_that_are_not_text(make_parquet: MakeParquet, tmp_path: Path) -> None:
    """A file and a folder with names that are not UTF-8 are listed and read."""
    path = make_parquet(columns={"image": [b"a"]})
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    path.rename(folder / os.fsdecode(b"p\xe9.parquet"))
    pool = open_pool(folder)
    assert column(pool, "key") == ["p\\xe9.parquet#0"]
    assert read_all(pool) == [b"a"]


def test_text_that_is_no_text(make_parquet: MakeParquet) -> None:
    """Strings that are not UTF-8, as keys or paths, cost their own rows at most."""
    broken = pa.array([b"\xff\xfe", b"b.jpg"], pa.binary()).view(pa.string())
    pool = open_pool(make_parquet(columns={"key": broken, "image": [b"1", b"2"]}))
    assert column(pool, "key") == ["pool.parquet#0", "pool.parquet#1"]
    assert read_all(pool) == [b"1", b"2"]
    assert codes(open_pool(make_parquet(columns={"image_path": broken}))) == ["column", "no-file"]


def test_keys_are_text_or_whole_numbers() -> None:
    """The first column that can name an item is taken, others are passed over."""
    schema = pa.schema([("key", pa.list_(pa.string())), ("id", pa.int64()), ("url", pa.string())])
    assert find_key_column(schema) == "id"
    assert find_key_column(pa.schema([("key", pa.float64())])) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("meta", pa.struct([("path", pa.int64())])), ("img", pa.binary())], "img"),
        ([("a", pa.struct([("bytes", pa.binary())])), ("image", pa.binary())], "a"),
        ([("photo", pa.struct([("path", pa.string())]))], "photo"),
        ([("hash", pa.binary()), ("jpg", pa.binary())], "jpg"),
        ([("only", pa.large_binary()), ("path", pa.string())], "only"),
        ([("text", pa.string()), ("file_name", pa.large_string())], "file_name"),
    ],
)
def test_the_column_of_images_is_found(fields: list[tuple[str, pa.DataType]], expected: str) -> None:
    """A struct goes first, then a known name of bytes, the only bytes, a known name of paths."""
    assert find_image_column(pa.schema(fields)) == expected


@pytest.mark.parametrize("value", [5, [1, 2], {"bytes": 5, "path": 7}, 1.5])
def test_cells_of_other_kinds_are_unreadable(tmp_path: Path, value: object) -> None:
    """A cell that is neither bytes nor a path is unreadable, and no bytes are made of it."""
    found = image_bytes(value, tmp_path)
    assert isinstance(found, Unread)
    assert (found.status, found.reason.partition(":")[0]) == ("unreadable", "column")


def test_memory_holds_a_batch_and_no_row_group(tmp_path: Path) -> None:
    """Reading some rows out of one large row group does not bring it all into memory."""
    source = np.random.default_rng(0)
    path = tmp_path / "large.parquet"
    cells = pa.array([source.bytes(1 << 16) for _ in range(1000)])
    options = {"compression": "none", "use_dictionary": False, "write_batch_size": 1}
    pq.write_table(pa.table({"image": cells}), path, row_group_size=1000, **options)
    pool = open_pool(path)
    del cells
    refs = pool.refs()
    arrow = pa.default_memory_pool()
    before, most = arrow.bytes_allocated(), 0
    tracemalloc.start()
    for data in pool.reader.read(refs[::50]):
        assert isinstance(data, bytes)
        most = max(most, arrow.bytes_allocated() - before)
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20
    assert traced < 16 << 20


@pytest.mark.property
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(changes=[(240050, 1)])  # a key page that holds fewer rows than the footer states
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_table_with_changed_bytes_is_listed_and_read(
    make_parquet: MakeParquet, changes: list[tuple[int, int]]
) -> None:
    """Whatever is changed in the pages, every row has bytes or a reason, and the other file is whole."""
    folder = make_parquet(3, "t/a.parquet").parent
    path = make_parquet(
        columns={"image": [b"x" * 300] * 8, "key": list("abcdefgh")}, name="t/b.parquet", row_group_size=4
    )
    data = bytearray(path.read_bytes())
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # the footer stays as it is
    for position, value in changes:
        data[4 + position % (end - 4)] = value
    path.write_bytes(data)
    pool = open_pool(folder)
    found = read_all(pool)
    assert len(found) == len(pool) == 11
    assert all(isinstance(d, bytes) for d in found[:3])
