"""A filtered folder: the same paths and bytes, sidecars and metadata with their images, links only on request."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_pools import all_items, contents, decide, images, kept_items, write_kind, write_tar

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import ItemRef, open_pool


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "sync", lambda: None)


def write_images(folder: Path, names: list[str | bytes]) -> Path:
    """A folder of images with these paths."""
    for name, data in zip(names, images(len(names)), strict=True):
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def keep_all(ref: ItemRef) -> bool:
    """Keeps everything."""
    return ref.row >= 0


def test_copies_are_files_of_their_own(tmp_path: Path) -> None:
    """By default no file of the output is a second name of an original."""
    pool = write_kind(tmp_path, "folder")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    written = [path for path in (tmp_path / "out" / "pool").rglob("*") if path.is_file()]
    assert len(written) == 15
    assert all(path.stat().st_nlink == 1 for path in written)


def test_links_share_their_bytes(tmp_path: Path) -> None:
    """On request images and sidecars are second names of the originals; the card says what that means."""
    pool = write_kind(tmp_path, "folder")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", link="hard"))
    filter_pool(run, decision, FilterSpec(tmp_path / "copied"))
    written = [path for path in (tmp_path / "out" / "pool").rglob("*") if path.is_file()]
    assert len(written) == 15
    for path in written:
        assert path.stat().st_ino == (pool / path.relative_to(tmp_path / "out" / "pool")).stat().st_ino
    assert contents(tmp_path / "out" / "pool") == contents(tmp_path / "copied" / "pool")
    assert "hard links" in (tmp_path / "out" / "README.md").read_text()


def test_links_across_devices_become_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses a link, the file is copied."""

    def refuse(original: object, path: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    pool = write_kind(tmp_path, "folder")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", link="hard"))
    assert all_items(open_pool(tmp_path / "out" / "pool")) == kept_items(open_pool(pool))
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "out" / "pool").rglob("*") if path.is_file())


def test_a_link_in_the_pool_becomes_a_file(tmp_path: Path) -> None:
    """A symbolic link to an image is followed; the output holds the image."""
    pool = write_images(tmp_path / "pool", ["a.jpg"])
    (tmp_path / "elsewhere.png").write_bytes(images(2)[1])
    (pool / "b.png").symlink_to(tmp_path / "elsewhere.png")
    run, decision = decide(pool, tmp_path, keep=keep_all)
    for link in ("copy", "hard"):
        filter_pool(run, decision, FilterSpec(tmp_path / link, link=link))
        assert not (tmp_path / link / "pool" / "b.png").is_symlink()
        assert (tmp_path / link / "pool" / "b.png").read_bytes() == images(2)[1]


def test_names_of_every_sort_stay(tmp_path: Path) -> None:
    """Names that are not UTF-8, as long as a file system allows, or odd otherwise are as they were."""
    names: list[str | bytes] = [
        b"caf\xe9.png",
        "new\nline.jpg",
        "x" * 251 + ".png",
        "<b>'\"&.jpg",
        "写真/🙂.webp",
        " .jpg",
    ]
    pool = write_images(tmp_path / "pool", names)
    run, decision = decide(pool, tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert contents(tmp_path / "out" / "pool") == contents(pool)
    lines = (tmp_path / "out" / "kept.txt").read_text().splitlines()
    assert len(lines) == len(names)
    assert [json.loads(line) if line.startswith('"') else line for line in lines] == [
        ref.key for ref in open_pool(pool).refs()
    ]


def test_sidecars_go_with_their_image(tmp_path: Path) -> None:
    """A caption goes where its image goes; one that two images share stays as long as one of them does."""
    pool = write_images(tmp_path / "pool", ["a.jpg", "b.jpg", "b.png", "c.v1.jpg"])
    for name in ("a.txt", "b.txt", "b.jpg.json", "c.v1.txt", "lone.txt"):
        (pool / name).write_text(name)
    run, decision = decide(pool, tmp_path, keep=lambda ref: ref.key in ("b.png", "c.v1.jpg"))
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert sorted(contents(tmp_path / "out" / "pool")) == [
        "b.jpg.json",
        "b.png",
        "b.txt",
        "c.v1.jpg",
        "c.v1.txt",
    ]


def test_metadata_keeps_the_kept_rows(tmp_path: Path) -> None:
    """`metadata.*` holds the rows of kept images, character for character, wherever it lies."""
    pool = write_images(tmp_path / "pool", ["a/1.jpg", "a/2.jpg", "b/3.jpg"])
    (pool / "metadata.csv").write_bytes(
        b'file_name,text\r\na/1.jpg,"one,\nin two lines"\r\na/2.jpg,"two"\r\nb/3.jpg,caf\xe9\r\nnone.jpg,x'
    )
    lines = [json.dumps({"text": str(i), "file_name": f"{i}.jpg"}) + " \n" for i in (1, 2)]
    (pool / "a" / "metadata.jsonl").write_text("".join(lines))
    pq.write_table(pa.table({"file_name": ["3.jpg", "9.jpg"], "n": [3, 9]}), pool / "b" / "metadata.parquet")
    run, decision = decide(pool, tmp_path, keep=lambda ref: ref.key != "a/2.jpg")
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    out = tmp_path / "out" / "pool"
    assert (out / "metadata.csv").read_bytes() == (
        b'file_name,text\r\na/1.jpg,"one,\nin two lines"\r\nb/3.jpg,caf\xe9\r\n'
    )
    assert (out / "a" / "metadata.jsonl").read_text() == lines[0]
    assert pq.read_table(out / "b" / "metadata.parquet").to_pylist() == [{"file_name": "3.jpg", "n": 3}]
    with (out / "metadata.csv").open(encoding="latin-1", newline="") as handle:
        assert [row[0] for row in csv.reader(handle)] == ["file_name", "a/1.jpg", "b/3.jpg"]


def test_keys_of_tars_become_safe_names(tmp_path: Path) -> None:
    """Keys that lead out, are hidden or absolute become names inside the folder; each item has one."""
    data = images(7)
    keys = ["../up", "/etc/passwd", "a/../../b", ".hid/x", "A", "a", "c\\d:e"]
    write_tar(tmp_path / "pool" / "0.tar", [(f"{key}.png", d) for key, d in zip(keys, data, strict=True)])
    run, decision = decide(tmp_path / "pool", tmp_path / "x" / "y", keep=keep_all)
    before = contents(tmp_path / "pool")
    filter_pool(run, decision, FilterSpec(tmp_path / "x" / "y" / "out", format="folder"))
    assert sorted(os.listdir(tmp_path / "x")) == ["y"]
    assert contents(tmp_path / "pool") == before
    out = open_pool(tmp_path / "x" / "y" / "out" / "pool")
    assert sorted(d for _, d in all_items(out)) == sorted(data)
    names = pq.read_table(tmp_path / "x" / "y" / "out" / "names.parquet").to_pylist()
    assert [row["key"] for row in names] == keys
    assert [row["file"] for row in names] == [
        "%2E%2E/up",
        "etc/passwd",
        "a/%2E%2E/%2E%2E/b",
        "%2Ehid/x",
        "A",
        "a~5",
        "c%5Cd%3Ae",
    ]


def test_masks_beside_an_image_are_no_items(tmp_path: Path) -> None:
    """Another image of a sample lies beside the first under a name that is no image's."""
    data = images(3)
    members = [("s.jpg", data[0]), ("s.mask.png", data[1]), ("t.jpg", data[2])]
    run, decision = decide(write_tar(tmp_path / "pool" / "0.tar", members), tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="folder"))
    assert sorted(contents(tmp_path / "out" / "pool")) == ["s.jpg", "s.mask.png.data", "t.jpg"]


def test_the_pool_is_one_image(tmp_path: Path) -> None:
    """A pool of one file is written without what lies beside it by chance."""
    folder = write_images(tmp_path / "data", ["one.jpg", "other.jpg"])
    run, decision = decide(folder / "one.jpg", tmp_path, keep=keep_all)
    run.config.write_text(json.dumps({"pool": str(folder / "one.jpg")}))
    filter_pool(run, decision, FilterSpec(folder / "out"))
    assert list(contents(folder / "out" / "pool")) == ["one.jpg"]
