"""Hugging Face data sets are read as they were stored, from disk or the local cache, without a network."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import config
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.audit.huggingface import DatasetReader, list_cached
from poolproof.audit.plan import make_plan, open_reader
from poolproof.audit.pool import LISTING, Pool, Unread, open_pool
from poolproof.errors import InputError

FEATURES = datasets.Features(
    {"image": datasets.Image(), "mask": datasets.Image(), "id": datasets.Value("string")}
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach a network fails the test."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No progress bars of the library in the tests' output."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the library."""
    folder = tmp_path / "cache" / "datasets"
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(config, "DOWNLOADED_DATASETS_PATH", folder / "downloads")
    return folder


@pytest.fixture
def images(make_image: Callable[..., Image.Image], encode: Callable[..., bytes]) -> list[bytes]:
    """Encoded images; the third is cut, the fourth is no image."""
    whole = [encode(make_image(seed=i), "JPEG" if i % 2 else "PNG") for i in range(4)]
    return [whole[0], whole[1], whole[2][:100], b"<html>", whole[3]]


def columns(images: list[bytes]) -> dict[str, list[Any]]:
    """Columns of a data set: images, masks that cannot be decoded, names."""
    cells = [{"bytes": data, "path": None} for data in images]
    masks = [{"bytes": b"no mask", "path": None}] * len(images)
    return {"image": cells, "mask": masks, "id": [f"item-{i}" for i in range(len(images))]}


def read_all(pool: Pool) -> list[bytes | Unread]:
    """What reading every item gives."""
    return list(pool.reader.read(pool.refs()))


def build(folder: Path, table: dict[str, Any]) -> None:
    """Puts a data set into the cache, under the folder's name, as `load_dataset` does."""
    folder.mkdir()
    datasets.Dataset.from_dict(table, features=FEATURES).to_parquet(folder / "train-00000-of-00001.parquet")
    datasets.load_dataset(str(folder))


def test_a_saved_data_set_is_read_as_stored(tmp_path: Path, images: list[bytes]) -> None:
    """Bytes come back as they were saved, damaged ones too, and nothing is decoded on the way."""
    datasets.Dataset.from_dict(columns(images), features=FEATURES).save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    assert pool.kind == "dataset"
    assert pool.items.column("key").to_pylist() == [f"item-{i}" for i in range(5)]
    assert pool.items.schema.equals(LISTING)
    assert read_all(pool) == images
    statuses = [decode_image(data).status for data in images]
    assert statuses == ["scored", "scored", "unreadable", "unreadable", "scored"]
    assert pool.reader.sidecars(pool.refs()[0]) == {}


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow"])
def test_a_saved_format_is_set_aside(tmp_path: Path, images: list[bytes], form: str) -> None:
    """A data set that was saved with a format for training is read like any other."""
    saved = datasets.Dataset.from_dict(columns(images), features=FEATURES).with_format(form)
    saved.save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    assert read_all(pool) == images
    assert pool.items.column("key").to_pylist() == [f"item-{i}" for i in range(5)]


def test_rows_without_images_and_without_names(tmp_path: Path, images: list[bytes]) -> None:
    """A null is missing; without a column of names, rows are numbered."""
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.Value("int64")})
    table = {"photo": [{"bytes": images[0], "path": None}, None], "label": [1, 2]}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    assert pool.items.column("key").to_pylist() == ["row-00000000", "row-00000001"]
    assert read_all(pool) == [images[0], Unread("missing", "null: no image in this row")]


def test_a_selection_that_was_saved_keeps_its_order(tmp_path: Path, images: list[bytes]) -> None:
    """Rows picked before saving are read as picked."""
    whole = datasets.Dataset.from_dict(columns(images), features=FEATURES)
    whole.select([4, 0, 2]).save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    assert read_all(pool) == [images[4], images[0], images[2]]
    assert pool.items.column("key").to_pylist() == ["item-4", "item-0", "item-2"]


def test_the_image_column_goes_before_other_structs(tmp_path: Path, images: list[bytes]) -> None:
    """A column declared as images is taken where an earlier one looks alike."""
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"sound": struct, "image": datasets.Image()})
    cells = [{"bytes": images[0], "path": None}]
    table = {"sound": [{"bytes": b"wav", "path": None}], "image": cells}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    assert read_all(open_pool(tmp_path / "saved")) == [images[0]]


def test_a_column_of_bytes_is_enough(tmp_path: Path) -> None:
    """A data set that never heard of images, with one binary column, is a pool."""
    datasets.Dataset.from_dict({"content": [b"a", b"b"]}).save_to_disk(tmp_path / "saved")
    assert read_all(open_pool(tmp_path / "saved")) == [b"a", b"b"]


def test_paths_in_a_saved_data_set_stay_inside(tmp_path: Path) -> None:
    """A path that leads out of the data set's folder is not followed."""
    table = {"image": [{"bytes": None, "path": "/etc/passwd"}, {"bytes": None, "path": "../x.jpg"}]}
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": struct})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    reasons = [
        d.reason.partition(":")[0] for d in read_all(open_pool(tmp_path / "saved")) if isinstance(d, Unread)
    ]
    assert reasons == ["outside", "outside"]


def test_splits_side_by_side_must_be_named(tmp_path: Path, images: list[bytes]) -> None:
    """A folder of several splits is refused; the folder of one is a pool."""
    split = datasets.Dataset.from_dict(columns(images), features=FEATURES)
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "both")
    with pytest.raises(InputError, match=r"holds the splits \['test', 'train'\]"):
        open_pool(tmp_path / "both")
    assert len(open_pool(tmp_path / "both" / "test")) == 5


@pytest.mark.parametrize("broken", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_data_set_is_refused_in_one_line(tmp_path: Path, images: list[bytes], broken: str) -> None:
    """Whatever file of it is damaged, the message names the folder."""
    datasets.Dataset.from_dict(columns(images), features=FEATURES).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / broken).write_bytes(b"{nonsense")
    with pytest.raises(InputError, match="saved") as caught:
        open_pool(tmp_path / "saved")
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_gone_costs_its_rows(tmp_path: Path, images: list[bytes]) -> None:
    """A data set removed after listing leaves missing items, not an error."""
    datasets.Dataset.from_dict(columns(images), features=FEATURES).save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    refs = pool.refs()
    (tmp_path / "saved").rename(tmp_path / "elsewhere")
    found = list(pool.reader.read(refs))
    assert [d.status for d in found if isinstance(d, Unread)] == ["missing"] * 5


def test_a_cached_data_set_is_read(tmp_path: Path, cache: Path, images: list[bytes]) -> None:
    """What `load_dataset` left in the cache is found by name, with and without its split."""
    build(tmp_path / "photos", columns(images))
    for spec in ("hf:photos", "hf:photos:train", "hf:photos:default:train"):
        pool = open_pool(spec)
        assert pool.kind == "dataset"
        assert pool.items.column("key").to_pylist() == [f"item-{i}" for i in range(5)]
        assert read_all(pool) == images


def test_a_cached_build_is_pinned(
    tmp_path: Path,
    cache: Path,
    images: list[bytes],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan reads the build it was made from, after a newer one came and the cache's variable changed."""
    build(tmp_path / "photos", columns(images))
    plan = make_plan(open_pool("hf:photos"), tmp_path / "plan.parquet", rng=rng)
    (tmp_path / "photos").rename(tmp_path / "old")
    time.sleep(0.01)
    build(tmp_path / "photos", columns(images[:2]))
    assert len(open_pool("hf:photos")) == 2
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "nowhere")
    shard = plan.shard(0)
    assert list(shard.reader.read(shard.refs)) == images


def test_unpacked_images_in_the_cache_are_read(
    tmp_path: Path, cache: Path, images: list[bytes], make_folder: Callable[..., Path]
) -> None:
    """Rows that hold paths are followed into the cache, where archives are unpacked, and nowhere else."""
    inside = make_folder(2, "cache/datasets/downloads/extracted/photos")
    datasets.load_dataset(str(inside))
    assert read_all(open_pool("hf:photos")) == [path.read_bytes() for path in sorted(inside.iterdir())]
    outside = make_folder(2, "mine")
    datasets.load_dataset(str(outside))
    assert {d.reason for d in read_all(open_pool("hf:mine")) if isinstance(d, Unread)} == {
        "outside: its path leads out of the pool's folder; not followed"
    }


@pytest.mark.parametrize("name", ["nobody/absent", "absent", "nobody/absent:train", "buckets/x", "parquet"])
def test_an_absent_name_is_refused_at_once(cache: Path, name: str) -> None:
    """A name that is not cached is one line of bad input, without a network, in well under a second."""
    started = time.monotonic()
    with pytest.raises(InputError, match="not in the local cache") as caught:
        open_pool(f"hf:{name}")
    assert time.monotonic() - started < 5  # the first call loads the library
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "../../etc", "/etc", "hf://datasets/x/y", "a/b/c", "a:b:c:d", "s3://x", "*"]
)
def test_what_is_no_name_is_refused(cache: Path, name: str) -> None:
    """Paths, addresses and patterns are no names."""
    with pytest.raises(InputError, match="not a name"):
        list_cached(name)


def test_a_folder_is_not_taken_for_a_name(
    tmp_path: Path, cache: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the name in the working folder is not built into the cache."""
    make_folder(2, "photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not in the local cache"):
        open_pool("hf:photos")
    assert not list(cache.rglob("*.arrow"))


def test_a_split_that_is_not_there(tmp_path: Path, cache: Path, images: list[bytes]) -> None:
    """An unknown split is refused with those there are."""
    build(tmp_path / "photos", columns(images))
    with pytest.raises(InputError, match=r"split 'test'; allowed are \['train'\]"):
        open_pool("hf:photos:test")


def test_several_splits_must_be_named(tmp_path: Path, cache: Path, images: list[bytes]) -> None:
    """With several splits and none named, the message lists them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(columns(images), features=FEATURES)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    datasets.load_dataset(str(folder))
    with pytest.raises(InputError, match=r"allowed are \['test', 'train'\]"):
        open_pool("hf:photos")
    assert len(open_pool("hf:photos:test")) == 5


def test_readers_are_small_and_come_back_from_a_plan(
    tmp_path: Path, images: list[bytes], rng: np.random.Generator
) -> None:
    """The plan describes the reader in text, and reads the same rows by it."""
    datasets.Dataset.from_dict(columns(images), features=FEATURES).save_to_disk(tmp_path / "saved")
    plan = make_plan(open_pool(tmp_path / "saved"), tmp_path / "plan.parquet", rng=rng, shard_size=2)
    assert plan.sizes == (2, 2, 1)
    reader = open_reader(json.loads(json.dumps(plan.meta["reader"])))
    assert isinstance(reader, DatasetReader)
    assert [data for shard in map(plan.shard, range(3)) for data in reader.read(shard.refs)] == images


def test_a_row_beyond_the_end_costs_itself(tmp_path: Path, images: list[bytes]) -> None:
    """A reference to a row that is not there is unreadable."""
    datasets.Dataset.from_dict(columns(images), features=FEATURES).save_to_disk(tmp_path / "saved")
    pool = open_pool(tmp_path / "saved")
    refs = pool.refs()
    datasets.Dataset.from_dict(columns(images[:1]), features=FEATURES).save_to_disk(tmp_path / "less")
    reader = DatasetReader(tmp_path / "less", "", "image")
    found = list(reader.read(refs[:2]))
    assert found[0] == images[0]
    assert isinstance(found[1], Unread)
    assert found[1].status == "unreadable"


def test_no_column_of_images(tmp_path: Path) -> None:
    """A data set without images is refused with its columns."""
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"\['text'\]: none holds images"):
        open_pool(tmp_path / "saved")
