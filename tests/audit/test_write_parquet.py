"""Filtered Parquet: every column of the kept rows as it was, images that stand alone, keys that last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_pools import all_items, decide, every_other, images, kept_items, write_kind, write_tar

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import ItemRef, open_pool
from poolproof.errors import InputError


def keep_all(ref: ItemRef) -> bool:
    """Keeps everything."""
    return ref.row >= 0


def filtered(pool: Path, folder: Path, **options: Any) -> Path:
    """The filtered pool of Parquet."""
    run, decision = decide(pool, folder, **options)
    filter_pool(run, decision, FilterSpec(folder / "out", format="parquet"))
    return folder / "out" / "pool"


def write_table(path: Path, table: pa.Table, **options: Any) -> Path:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def test_all_columns_and_files_stay(tmp_path: Path) -> None:
    """Files keep their names, and the rows all of their columns with types and metadata."""
    n = 7
    table = pa.table(
        {
            "image": pa.array([{"bytes": d, "path": None} for d in images(n)]),
            "key": [f"k{i}" for i in range(n)],
            "when": pa.array(range(n), pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"] * i for i in range(n)], pa.large_list(pa.string())),
            "class": pa.array(["x", "y", None, "x", "y", "x", None]).dictionary_encode(),
            "nan": pa.array([float("nan"), None, 1.0, -0.0, 2.0, 3.0, 4.0], pa.float32()),
            "weight": list(range(n)),
        }
    ).replace_schema_metadata({"mine": "note"})
    write_table(tmp_path / "pool" / "sub" / "train-0.parquet", table, row_group_size=3)
    write_table(tmp_path / "pool" / "test.parquet", table.slice(1, 2))
    out = filtered(tmp_path / "pool", tmp_path)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.parquet")) == [
        "sub/train-0.parquet",
        "test.parquet",
    ]
    first = pq.read_table(out / "sub" / "train-0.parquet")
    before = pq.read_table(tmp_path / "pool" / "sub" / "train-0.parquet")
    assert first.schema.equals(before.schema, check_metadata=True)
    assert first.drop_columns("nan").to_pylist() == before.take([0, 2, 4, 6]).drop_columns("nan").to_pylist()
    assert first.column("nan").to_pylist()[1:] == [1.0, 2.0, 4.0]


def test_weights_do_not_overwrite_a_column(tmp_path: Path) -> None:
    """A column of that name stays, and ours has another."""
    pool = write_table(
        tmp_path / "pool" / "0.parquet",
        pa.table({"image": images(2), "key": ["a", "b"], "weight": ["theirs", "too"]}),
    )
    out = filtered(pool, tmp_path, keep=keep_all, weight=lambda ref: 0.5)
    table = pq.read_table(out)
    assert table.column("weight").to_pylist() == ["theirs", "too"]
    assert table.column("poolproof_weight").to_pylist() == [0.5, 0.5]


def test_keys_that_are_places_become_a_column(tmp_path: Path) -> None:
    """Where a key only says file and row, the output names the items so: the places are others now."""
    pool = write_table(tmp_path / "pool" / "0.parquet", pa.table({"jpg": images(5)}))
    out = filtered(pool, tmp_path)
    assert pq.read_table(out).column("key").to_pylist() == ["0.parquet#0", "0.parquet#2", "0.parquet#4"]
    assert all_items(open_pool(out)) == kept_items(open_pool(pool))


def test_a_key_that_is_missing(tmp_path: Path) -> None:
    """A null in the column of keys does not make the item lose the name it had."""
    pool = write_table(tmp_path / "pool" / "0.parquet", pa.table({"jpg": images(3), "id": ["x", "y", None]}))
    out = filtered(pool, tmp_path)
    assert all_items(open_pool(out)) == kept_items(open_pool(pool))
    assert pq.read_table(out).column("id").to_pylist() == ["x", None]


@pytest.mark.parametrize(
    "cells",
    [
        ["img/0.jpg", "img/1.png"],
        [{"bytes": None, "path": "img/0.jpg"}, {"bytes": None, "path": "img/1.png"}],
        [{"path": "img/0.jpg"}, {"path": "img/1.png"}],
    ],
    ids=["text", "struct", "struct-without-bytes"],
)
@pytest.mark.parametrize("name", ["parquet", "dataset"])
def test_images_that_are_paths_are_taken_in(tmp_path: Path, cells: list[Any], name: str) -> None:
    """A table of paths becomes one that holds its images; its own columns stay."""
    column = "path" if isinstance(cells[0], str) else "image"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if "bytes" in cells[0] else None
    table = pa.table({column: pa.array(cells, kind), "n": [0, 1]})
    pool = write_table(tmp_path / "pool" / "0.parquet", table)
    (tmp_path / "pool" / "img").mkdir()
    for path, data in zip(("0.jpg", "1.png"), images(2), strict=True):
        (tmp_path / "pool" / "img" / path).write_bytes(data)
    run, decision = decide(pool, tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    (tmp_path / "pool").rename(tmp_path / "gone")
    written = open_pool(tmp_path / "out" / "pool")
    assert [data for _, data in all_items(written)] == images(2)
    if name == "parquet":
        assert pq.read_table(tmp_path / "out" / "pool").column("n").to_pylist() == [0, 1]


def test_paths_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    """A path in a table that leads out of its folder is no item that can be kept."""
    (tmp_path / "secret.jpg").write_bytes(images(1)[0])
    pool = write_table(tmp_path / "pool" / "0.parquet", pa.table({"path": ["../secret.jpg"]}))
    run, decision = decide(pool, tmp_path, keep=keep_all)
    with pytest.raises(InputError, match="no bytes were read"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out"))


def test_what_hugging_face_reads(tmp_path: Path) -> None:
    """`datasets` finds an image in the output of any pool, through the card."""
    import datasets

    datasets.disable_progress_bars()
    pool = write_kind(tmp_path, "webdataset")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="parquet"))
    loaded: Any = datasets.load_dataset(
        str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    undecoded = loaded.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in undecoded] == [data for _, data in kept_items(open_pool(pool))]
    assert loaded[0]["image"].size == (8, 8)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Sidecars with other endings, or that are not UTF-8, are kept as bytes."""
    data = images(1)[0]
    rows = [("a.jpg", data), ("a.txt", b"caf\xe9"), ("a.npy", b"\0\1"), ("a.json", b"{}")]
    out = filtered(write_tar(tmp_path / "pool" / "0.tar", rows), tmp_path, keep=keep_all)
    (row,) = pq.read_table(out).to_pylist()
    assert (row["txt"], row["json"]) == (None, "{}")
    assert row["sidecars"] == [{"ending": ".txt", "data": b"caf\xe9"}, {"ending": ".npy", "data": b"\0\1"}]


def test_a_damaged_page_of_another_column(tmp_path: Path) -> None:
    """A row that cannot be copied whole is told with its key, not cut."""
    n = 40
    table = pa.table(
        {
            "image": images(n),
            "key": [f"k{i}" for i in range(n)],
            "text": ["word" * 50 + str(i) for i in range(n)],
        }
    )
    pool = write_table(tmp_path / "pool" / "0.parquet", table, compression="none", use_dictionary=False)
    run, decision = decide(pool, tmp_path)
    chunk = pq.ParquetFile(pool).metadata.row_group(0).column(2)
    raw = bytearray(pool.read_bytes())
    raw[chunk.data_page_offset : chunk.data_page_offset + 12] = b"\xff" * 12
    pool.write_bytes(bytes(raw))
    with pytest.raises(InputError, match=r"the pool changed since the audit: 'k0' .*; audit it again"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out"))


def test_tables_become_captions_and_json(tmp_path: Path) -> None:
    """A row's other columns are in the item's JSON, bytes in base64, what is no number as null."""
    table = pa.table(
        {"image": images(1), "key": ["a/b.jpg"], "caption": ["c"], "raw": [b"\0"], "x": [float("inf")]}
    )
    run, decision = decide(write_table(tmp_path / "pool" / "0.parquet", table), tmp_path, keep=every_other)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="folder"))
    out = tmp_path / "out" / "pool" / "a"
    assert (out / "b.jpg").read_bytes() == images(1)[0]
    assert (out / "b.txt").read_text() == "c"
    assert json.loads((out / "b.json").read_text()) == {
        "key": "a/b.jpg",
        "caption": "c",
        "raw": {"base64": "AA=="},
        "x": None,
    }
