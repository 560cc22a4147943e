"""Tars are listed by their headers and read by offset, and what a damaged one lost is counted."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolproof.audit.pool import LISTING, MAX_ITEM_BYTES, Pool, Unread, open_pool
from poolproof.audit.webdataset import list_tars
from poolproof.errors import InputError

MakeTar = Callable[..., Path]


def keys(pool: Pool) -> list[str]:
    """The keys of a pool in order."""
    return pool.items.column("key").to_pylist()


def read_all(pool: Pool) -> list[bytes | Unread]:
    """What reading every item gives."""
    return list(pool.reader.read(pool.refs()))


def codes(pool: Pool) -> list[str]:
    """`ok` for each item that was read, the reason's code for the others."""
    return [d.reason.partition(":")[0] if isinstance(d, Unread) else "ok" for d in read_all(pool)]


def member_offset(path: Path, name: str) -> int:
    """Where a member's header begins."""
    with tarfile.open(path) as tar:
        return tar.getmember(name).offset


def patch_header(path: Path, name: str, *, size: bytes) -> None:
    """Writes another size into a member's header, with a checksum that fits."""
    data = bytearray(path.read_bytes())
    at = member_offset(path, name)
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)


def test_samples_keep_their_keys_and_sidecars(make_tar: MakeTar) -> None:
    """One item a sample, in the order of the members; captions stay with it and are counted."""
    members = [
        ("a/1.txt", b"cat"),
        ("a/1.jpg", b"one"),
        ("a/1.json", b"{}"),
        ("b/2.png", b"two"),
        ("lone.txt", b"?"),
    ]
    pool = open_pool(make_tar(members=members))
    assert pool.kind == "webdataset"
    assert keys(pool) == ["a/1", "b/2"]
    assert read_all(pool) == [b"one", b"two"]
    assert pool.n_ignored == 3
    assert pool.items.schema.equals(LISTING)
    assert pool.items.column("n_bytes").to_pylist() == [3, 3]
    first, second = pool.refs()
    assert pool.reader.sidecars(first) == {".txt": b"cat", ".json": b"{}"}
    assert pool.reader.sidecars(second) == {}


def test_a_folder_of_tars_is_one_pool(make_tar: MakeTar) -> None:
    """Tars come in the order of their names; equal keys in two of them are two items."""
    folder = make_tar(3, "tars/00001.tar", seed=1).parent
    make_tar(2, "tars/00000.tar", seed=2)
    make_tar(2, "tars/sub/x.tar", seed=3)
    pool = open_pool(folder)
    assert (
        pool.items.column("source").to_pylist() == ["00000.tar"] * 2 + ["00001.tar"] * 3 + ["sub/x.tar"] * 2
    )
    assert pool.items.column("group").to_pylist() == [0, 0, 1, 1, 1, 2, 2]
    assert keys(pool)[0] == keys(pool)[2]
    data = read_all(pool)
    assert len(set(data)) == 7
    refs = pool.refs()
    mixed = [refs[i] for i in (6, 0, 3, 1)]
    assert list(pool.reader.read(mixed)) == [data[i] for i in (6, 0, 3, 1)]


def test_opening_reads_headers_alone(make_tar: MakeTar) -> None:
    """A tar of garbage with image names lists fine."""
    pool = open_pool(make_tar(members=[(f"{i}.jpg", b"garbage") for i in range(4)]))
    assert len(pool) == 4


def test_members_of_every_size_are_read_exactly(make_tar: MakeTar, rng: np.random.Generator) -> None:
    """Sizes around the tar's blocks of 512 bytes lose and gain nothing."""
    members = [(f"{n}.png", rng.bytes(n)) for n in (0, 1, 511, 512, 513, 1024, 70_000)]
    assert read_all(open_pool(make_tar(members=members))) == [data for _, data in members]


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/x.jpg", "a/../../../x.jpg", "C:\\x.jpg", "x.jpg\n"])
def test_a_members_path_is_never_followed(make_tar: MakeTar, tmp_path: Path, name: str) -> None:
    """A member that is called like a path elsewhere is data, and nothing is written anywhere."""
    path = make_tar(members=[(name, b"data"), ("y.jpg", b"more")])
    before = sorted(tmp_path.parent.rglob("*"))
    pool = open_pool(path)
    if name.endswith(".jpg"):
        assert read_all(pool) == [b"data", b"more"]
        assert keys(pool)[0] == name.removesuffix(".jpg")
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_and_names_beyond_ascii(make_tar: MakeTar, kind: int) -> None:
    """GNU's and PAX's long names, and letters of any script, are keys in full."""
    long = "d" * 90 + "/" + "n" * 80 if kind == tarfile.USTAR_FORMAT else "d/" * 200 + "n" * 300
    members = [(f"{long}.jpg", b"long"), ("写真/é.png", b"letters"), ("z.jpg", b"last")]
    pool = open_pool(make_tar(members=members, kind=kind))
    assert keys(pool) == [long, "写真/é", "z"]
    assert read_all(pool) == [b"long", b"letters", b"last"]


def test_names_that_are_not_text(make_tar: MakeTar, tmp_path: Path) -> None:
    """Members and tars with names that are not UTF-8 are listed and read."""
    path = make_tar(members=[("caf\udce9.jpg", b"data"), ("caf\udce9.txt", b"words")])
    odd = path.rename(tmp_path / os.fsdecode(b"p\xff.tar"))
    pool = open_pool(odd)
    assert keys(pool) == ["caf\\xe9"]
    assert read_all(pool) == [b"data"]
    assert pool.reader.sidecars(pool.refs()[0]) == {".txt": b"words"}


def test_dots_in_names_lose_no_image(make_tar: MakeTar) -> None:
    """Where no member is KEY.jpg, each image is an item by its own name; beside one it is a sidecar."""
    members = [
        ("p.2021.05.jpg", b"may"),
        ("p.2021.05.txt", b"in may"),
        ("p.2021.06.jpg", b"june"),
        ("q.jpg", b"image"),
        ("q.mask.png", b"mask"),
    ]
    pool = open_pool(make_tar(members=members))
    assert keys(pool) == ["p.2021.05", "p.2021.06", "q"]
    assert read_all(pool) == [b"may", b"june", b"image"]
    assert [pool.reader.sidecars(ref) for ref in pool.refs()] == [
        {".txt": b"in may"},
        {},
        {".mask.png": b"mask"},
    ]
    assert pool.n_ignored == 2


def test_a_name_that_occurs_again_is_another_item(make_tar: MakeTar) -> None:
    """A tar that was appended to may hold a name twice: two items, neither hidden behind the other."""
    pool = open_pool(make_tar(members=[("a.jpg", b"old"), ("b.jpg", b"b"), ("a.jpg", b"new")]))
    assert keys(pool) == ["a", "b", "a"]
    assert read_all(pool) == [b"old", b"b", b"new"]


def test_hidden_members_are_ignored_and_counted(make_tar: MakeTar) -> None:
    """What macOS adds to a tar is no image."""
    pool = open_pool(make_tar(members=[("._a.jpg", b"x"), ("a.jpg", b"y"), ("d/._b.png", b"z")]))
    assert keys(pool) == ["a"]
    assert pool.n_ignored == 2


def test_links_in_a_tar(tmp_path: Path) -> None:
    """A hard link is its file once more; symbolic links, folders and devices are never followed."""
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
        for name, kind, target in (
            ("b.jpg", tarfile.LNKTYPE, "a.jpg"),
            ("c.jpg", tarfile.LNKTYPE, "absent.jpg"),
            ("d.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("e.jpg", tarfile.FIFOTYPE, ""),
            ("f.jpg", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    pool = open_pool(path)
    assert keys(pool) == ["a", "b"]
    assert read_all(pool) == [b"data", b"data"]
    assert pool.n_ignored == 3


def test_a_tar_cut_inside_an_image(make_tar: MakeTar) -> None:
    """The image that is cut is unreadable, those before it are whole."""
    members = [("a.jpg", b"a" * 600), ("b.jpg", b"b" * 5000), ("c.jpg", b"c" * 100)]
    path = make_tar(members=members)
    os.truncate(path, member_offset(path, "b.jpg") + 512 + 2000)
    pool = open_pool(path)
    assert keys(pool) == ["a", "b"]
    assert read_all(pool) == [b"a" * 600, Unread("unreadable", "cut: 2000 of 5000 bytes are there")]


@pytest.mark.parametrize("extra", [0, 1, 200, 511])
def test_a_tar_cut_at_or_inside_a_header(make_tar: MakeTar, extra: int) -> None:
    """The loss of what followed is one unreadable item in the tar's name."""
    members = [("a.jpg", b"a" * 600), ("b.jpg", b"b" * 512), ("c.jpg", b"c" * 100)]
    path = make_tar(members=members)
    os.truncate(path, member_offset(path, "c.jpg") + extra)
    pool = open_pool(path)
    assert keys(pool) == ["a", "b", "pool.tar"]
    assert codes(pool) == ["ok", "ok", "cut"]


def test_a_tar_cut_inside_a_caption(make_tar: MakeTar) -> None:
    """The image before it is whole, and the loss of what followed shows."""
    path = make_tar(members=[("a.jpg", b"a" * 600), ("a.txt", b"t" * 600), ("b.jpg", b"b")])
    os.truncate(path, member_offset(path, "a.txt") + 512 + 100)
    pool = open_pool(path)
    assert keys(pool) == ["a", "pool.tar"]
    assert codes(pool) == ["ok", "cut"]
    assert pool.reader.sidecars(pool.refs()[0]) == {}


@pytest.mark.property
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_anywhere_shows(make_tar: MakeTar, data: st.DataObject) -> None:
    """Wherever a tar is cut before its end marker, whole images are read and at least one item is unreadable."""
    members = [(f"{i}.jpg", bytes([65 + i]) * (300 * i + 1)) for i in range(5)]
    path = make_tar(members=members)
    end = member_offset(path, "4.jpg") + 512 + 1536
    os.truncate(path, data.draw(st.integers(0, end)))
    pool = open_pool(path)
    read = read_all(pool)
    whole = [d for d in read if isinstance(d, bytes)]
    assert whole == [content for _, content in members][: len(whole)]
    assert sum(isinstance(d, Unread) for d in read) == 1
    assert isinstance(read[-1], Unread)


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\x1f\x8b" + b"x" * 2000, bytes(100)])
def test_what_is_no_tar_is_one_unreadable_item(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign or compressed file with a tar's name shows in the accounting."""
    (tmp_path / "x.tar").write_bytes(content)
    pool = open_pool(tmp_path / "x.tar")
    assert keys(pool) == ["x.tar"]
    assert codes(pool) == ["cut"]


def test_an_empty_tar_holds_nothing(make_tar: MakeTar) -> None:
    """A tar of end markers alone is whole and has no items."""
    assert len(open_pool(make_tar(members=[]))) == 0


def test_tars_glued_together_are_not_whole(make_tar: MakeTar) -> None:
    """What lies behind an end marker is not read, and the loss shows."""
    path = make_tar(members=[("a.jpg", b"a")])
    second = make_tar(members=[("b.jpg", b"b")], name="second.bin")
    path.write_bytes(path.read_bytes() + second.read_bytes())
    pool = open_pool(path)
    assert keys(pool) == ["a", "pool.tar"]
    assert codes(pool) == ["ok", "cut"]


def test_a_header_that_claims_too_much(make_tar: MakeTar) -> None:
    """A size beyond the file makes that item unreadable, and nothing of that size is asked of memory."""
    path = make_tar(members=[("a.jpg", b"a" * 100), ("b.jpg", b"b" * 100)])
    patch_header(path, "a.jpg", size=b"%011o\0" % 8_000_000_000)
    there = path.stat().st_size - 512
    assert read_all(open_pool(path)) == [Unread("unreadable", f"cut: {there} of 8000000000 bytes are there")]


def test_a_member_beyond_memory_is_not_read(tmp_path: Path) -> None:
    """A member above the limit is unsupported without being read."""
    info = tarfile.TarInfo("a.jpg")
    info.size = MAX_ITEM_BYTES + 1
    path = tmp_path / "large.tar"
    with path.open("wb") as handle:
        handle.write(info.tobuf())
        handle.truncate(512 + MAX_ITEM_BYTES + 512 + 1024)
    (only,) = read_all(open_pool(path))
    assert isinstance(only, Unread)
    assert (only.status, only.reason.partition(":")[0]) == ("unsupported", "too-large")


def test_a_header_that_claims_too_little(make_tar: MakeTar) -> None:
    """A size that is too small ends the tar early, and the loss shows."""
    path = make_tar(members=[("a.jpg", b"a" * 2000), ("b.jpg", b"b" * 100)])
    patch_header(path, "a.jpg", size=b"%011o\0" % 10)
    pool = open_pool(path)
    assert keys(pool) == ["a", "pool.tar"]
    assert codes(pool) == ["ok", "cut"]


@pytest.mark.parametrize("size", [-512, -1024, -1, -(1 << 40)])
def test_a_negative_size_ends(make_tar: MakeTar, size: int) -> None:
    """A size below zero, which leads some readers round for ever, ends the tar."""
    path = make_tar(members=[("a.jpg", b"a" * 100), ("b.jpg", b"b" * 100), ("c.jpg", b"c")])
    patch_header(path, "b.jpg", size=b"\xff" * 4 + struct.pack(">q", size))
    pool = open_pool(path)
    assert keys(pool) == ["a", "pool.tar"]
    assert codes(pool) == ["ok", "cut"]


@pytest.mark.property
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_tar_with_changed_bytes_is_listed_and_read(
    make_tar: MakeTar, changes: list[tuple[int, int]]
) -> None:
    """Whatever is changed in a tar, listing and reading end without an error."""
    path = make_tar(members=[(f"{i}.jpg", b"x" * 700) for i in range(3)], kind=tarfile.PAX_FORMAT)
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    path.write_bytes(data)
    pool = list_tars(path)
    assert len(read_all(pool)) == len(pool)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), Path.mkdir])
def test_a_tar_that_is_no_file(tmp_path: Path, make_tar: MakeTar, make: Callable[[Path], object]) -> None:
    """A pipe or a dangling link called .tar is one item that cannot be read; a folder is a folder."""
    path = make_tar(1, "tars/a.tar")
    make(path.parent / "b.tar")
    pool = open_pool(path.parent)
    found = codes(pool)
    assert found[0] == "ok"
    assert found[1:] in (["not-a-file"], ["no-file"], [])


def test_a_tar_removed_or_changed_after_listing(make_tar: MakeTar) -> None:
    """Items of a tar that is gone are missing, of one that shrank unreadable; sidecars refuse."""
    path = make_tar(3)
    pool = open_pool(path)
    os.truncate(path, 600)
    assert codes(pool)[1:] == ["cut", "cut"]
    with pytest.raises(InputError, match="changed since it was listed"):
        pool.reader.sidecars(pool.refs()[1])
    path.unlink()
    assert {d.status for d in read_all(pool) if isinstance(d, Unread)} == {"missing"}


@pytest.mark.reference
def test_a_tar_made_by_tar(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    """What GNU tar writes, hard links and long names included, is listed whole and reads back."""
    folder = make_folder(6)
    os.link(folder / "0000.jpg", folder / "again.jpg")
    (folder / ("n" * 180 + ".png")).write_bytes((folder / "0001.png").read_bytes())
    path = tmp_path / "made.tar"
    try:
        subprocess.run(["tar", "-cf", path, "-C", folder, "."], check=True)
    except FileNotFoundError:
        pytest.skip("no tar on this machine")
    pool = open_pool(path)
    expected = {f"./{file.stem}": file.read_bytes() for file in folder.iterdir()}
    assert dict(zip(keys(pool), read_all(pool), strict=True)) == expected
