"""A filtered data set is one that the library opens, with all columns, and nothing was decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_pools import all_items, decide, images, kept_items, load_saved, stored_rows, write_kind

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import open_pool
from poolproof.errors import InputError


def load(out: Path) -> Any:
    """The data set that was written."""
    return load_saved(out / "pool")


def test_columns_and_features_stay(tmp_path: Path) -> None:
    """The output is `select` of the kept rows: same features, same stored values."""
    pool = write_kind(tmp_path, "dataset")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", shard_items=2))
    before, after = load_saved(pool), load(tmp_path / "out")
    selected = before.select(range(0, 10, 2))
    assert after.features == before.features
    assert stored_rows(after) == stored_rows(selected)
    assert after[0]["image"].size == (8, 8)
    assert len(list((tmp_path / "out" / "pool").glob("data-*-of-00003.arrow"))) == 3


def test_damaged_images_are_never_decoded(tmp_path: Path) -> None:
    """What no decoder opens is copied like any other bytes."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    cells = [{"bytes": b"no image %d" % i, "path": f"dir/{i}.jpg"} for i in range(4)]
    table = pa.table({"image": cells, "label": [0, 1, 0, 1]}).cast(features.arrow_schema)
    datasets.Dataset(table).save_to_disk(str(tmp_path / "pool"))
    stored = stored_rows(load_saved(tmp_path / "pool"))
    run, decision = decide(tmp_path / "pool", tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    after = load(tmp_path / "out")
    rows = stored_rows(after)
    assert [row["image"] for row in rows] == [stored[0]["image"], stored[2]["image"]]
    assert after.features["label"] == features["label"]
    assert [row["key"] for row in rows] == ["row-00000000", "row-00000002"]
    assert all_items(open_pool(tmp_path / "out" / "pool")) == kept_items(open_pool(tmp_path / "pool"))


def test_parquet_files_with_different_columns(tmp_path: Path) -> None:
    """Columns that some files lack are null there; types that differ are told in one line."""
    data = images(4)
    (tmp_path / "pool").mkdir()
    pq.write_table(pa.table({"image": data[:2], "key": ["a", "b"]}), tmp_path / "pool" / "0.parquet")
    pq.write_table(
        pa.table({"image": data[2:], "key": ["c", "d"], "n": [1, 2]}), tmp_path / "pool" / "1.parquet"
    )
    run, decision = decide(tmp_path / "pool", tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="dataset"))
    assert load(tmp_path / "out")["n"][:] == [None, 1]
    assert all_items(open_pool(tmp_path / "out" / "pool")) == [("a", data[0]), ("c", data[2])]
    pq.write_table(
        pa.table({"image": data[2:], "key": ["c", "d"], "n": ["x", "y"]}), tmp_path / "pool" / "2.parquet"
    )
    run, decision = decide(tmp_path / "pool", tmp_path / "second")
    with pytest.raises(InputError, match=r"differ in their columns .*; use the format parquet"):
        filter_pool(run, decision, FilterSpec(tmp_path / "second" / "out", format="dataset"))
