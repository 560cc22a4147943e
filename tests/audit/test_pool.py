"""Pools are listed without being decoded, in one order, whatever their files are called."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolproof.audit import pool as pool_module
from poolproof.audit.decode import decode_image
from poolproof.audit.paths import find_files, is_image_name, is_inside, path_of, storable, walk
from poolproof.audit.pool import LISTING, ItemRef, Pool, Unread, list_folder, open_pool, read_file
from poolproof.errors import InputError


def keys(pool: Pool) -> list[str]:
    """The keys of a pool in order."""
    return pool.items.column("key").to_pylist()


def read_all(pool: Pool) -> list[bytes | Unread]:
    """What reading every item gives."""
    return list(pool.reader.read(pool.refs()))


@contextmanager
def within_seconds(seconds: int) -> Iterator[None]:
    """Fails where the block takes longer, for calls that might wait for ever."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_folder_is_listed_below_its_subfolders_in_the_order_of_bytes(tmp_path: Path) -> None:
    """Images at every depth are listed by the bytes of their paths, others are counted as ignored."""
    names = [
        "b.jpg",
        "B.png",
        "a/z.webp",
        "a/b/c.gif",
        "a.jpg",
        "a-1.jpg",
        "é.jpg",
        "notes.txt",
        "a/meta.json",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    pool = open_pool(tmp_path)
    images = [name for name in names if not name.endswith((".txt", ".json"))]
    assert keys(pool) == sorted(images, key=os.fsencode)
    assert pool.kind == "folder"
    assert len(pool) == 7
    assert pool.n_ignored == 2
    assert pool.items.schema.equals(LISTING)
    assert pool.items.column("n_bytes").to_pylist() == [1] * 7


def test_the_order_does_not_depend_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_folder: Callable[..., Path]
) -> None:
    """Listings are equal when the system returns the entries of a folder backwards, links included."""
    folder = make_folder(6)
    (folder / "real").mkdir()
    (folder / "real" / "x.jpg").write_bytes(b"x")
    outside = make_folder(2, "outside")
    for link, target in (("a", "real"), ("z", "real"), ("m", outside), ("b", outside)):
        (folder / link).symlink_to(target)
    first = open_pool(folder).items
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reversed(sorted(scandir(path), key=lambda e: e.name)))
    assert open_pool(folder).items.equals(first)
    monkeypatch.setattr(os, "scandir", lambda path: sorted(scandir(path), key=lambda e: e.name))
    assert open_pool(folder).items.equals(first)
    assert first.column("key").to_pylist()[6:] == ["b/0000.jpg", "b/0001.png", "real/x.jpg"]


def test_opening_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of garbage lists fine, and no file in it is opened."""
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"garbage")

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert len(open_pool(tmp_path)) == 5


def test_hidden_names_are_passed_over(tmp_path: Path) -> None:
    """Files and folders whose names begin with a dot are neither items nor counted."""
    for name in (".hidden.jpg", ".git/a.jpg", "._a.jpg", "a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    pool = open_pool(tmp_path)
    assert keys(pool) == ["a.jpg"]
    assert pool.n_ignored == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPG", True),
        ("a.tar.png", True),
        ("a.heic", True),
        ("a.txt", False),
        ("jpg", False),
        ("a.jpg.", False),
    ],
)
def test_images_are_told_by_their_ending(name: str, expected: bool) -> None:
    """Endings count in any case, those of images that cannot be decoded too."""
    assert is_image_name(name) is expected


def test_sidecars_share_the_stem(make_folder: Callable[..., Path]) -> None:
    """Files beside an image with its stem and another ending are its sidecars, other images are not."""
    folder = make_folder(2)
    for name in ("0000.txt", "0000.json", "0000.png", "00001.txt", "0001.txt"):
        (folder / name).write_bytes(name.encode())
    pool = open_pool(folder)
    assert pool.reader.sidecars(pool.refs()[0]) == {".json": b"0000.json", ".txt": b"0000.txt"}


def test_sidecars_of_a_name_with_wildcards(tmp_path: Path) -> None:
    """A name that looks like a pattern is taken as it stands."""
    for name in ("[ab]*.jpg", "[ab]*.txt", "a1.txt"):
        (tmp_path / name).write_bytes(name.encode())
    pool = open_pool(tmp_path)
    assert pool.reader.sidecars(pool.refs()[0]) == {".txt": b"[ab]*.txt"}


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"\xff\xfe/\x80.jpg", b"<img src=x onerror=alert(1)>.png", b"a\nb\t.png"]
)
def test_any_name_can_be_listed_and_read(tmp_path: Path, name: bytes) -> None:
    """A name that is not UTF-8 or looks like markup leads back to its file, and its key is text."""
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"here")
    path.with_suffix(".txt").write_bytes(b"caption")
    pool = open_pool(tmp_path)
    assert read_all(pool) == [b"here"]
    assert pool.reader.sidecars(pool.refs()[0]) == {".txt": b"caption"}
    keys(pool)[0].encode("utf-8")


@pytest.mark.property
@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
@settings(deadline=None)
def test_stored_names_lead_back(raw: bytes) -> None:
    """Any name survives the way through a table of text."""
    name = os.fsdecode(raw)
    stored = pa.array([storable(name)], pa.string()).to_pylist()[0]
    assert path_of(stored) == name


def test_links_up_the_tree_end(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    """A folder that links to its parent is walked once."""
    folder = make_folder(3)
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder, target_is_directory=True)
    with within_seconds(10):
        assert keys(open_pool(folder)) == ["0000.jpg", "0001.png", "0002.jpg"]


def test_a_linked_folder_is_followed(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    """A link to a folder elsewhere is part of the pool, under the link's name."""
    make_folder(2, "elsewhere")
    folder = make_folder(1)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    pool = open_pool(folder)
    assert keys(pool) == ["0000.jpg", "more/0000.jpg", "more/0001.png"]
    assert all(isinstance(data, bytes) for data in read_all(pool))


def test_every_hostile_file_gets_its_status(tmp_path: Path, hostile_files: Callable[[], list[Any]]) -> None:
    """Each file that readers stumble over costs its own row, with the status and code that it should."""
    files = {os.fsencode(file.name).decode("utf-8", "backslashreplace"): file for file in hostile_files()}
    for file in files.values():
        file.write(tmp_path)
    pool = open_pool(tmp_path)
    assert sorted(keys(pool)) == sorted(files)
    with within_seconds(60):
        for ref, data in zip(pool.refs(), read_all(pool), strict=True):
            found = data if isinstance(data, Unread) else decode_image(data)
            code = (found.reason or "").partition(":")[0]
            assert (found.status, code) == (files[ref.key].status, files[ref.key].code or ""), ref.key
            assert "\n" not in (found.reason or "")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe named like an image is listed and then unreadable, at once."""
    os.mkfifo(tmp_path / "x.jpg")
    with within_seconds(5):
        pool = open_pool(tmp_path)
        (read,) = read_all(pool)
    assert read == Unread("unreadable", "not-a-file: neither a file nor a link to one")


def test_a_denied_file_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission to read it a file is unreadable, and says so."""

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert read_file(tmp_path, "a.jpg") == Unread("unreadable", "denied: no permission to read it")


def test_a_failing_disk_costs_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the device is the item's, with the system's words for it."""

    def fail(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert read_file(tmp_path, "a.jpg") == Unread("unreadable", "read-error: Input/output error")


def test_a_file_beyond_memory_is_not_read(tmp_path: Path) -> None:
    """A file above the limit is unsupported without being read."""
    path = tmp_path / "huge.png"
    with path.open("wb") as handle:
        handle.truncate(pool_module.MAX_ITEM_BYTES + 1)
    found = read_file(tmp_path, "huge.png")
    assert isinstance(found, Unread)
    assert (found.status, found.reason.partition(":")[0]) == ("unsupported", "too-large")


def test_a_file_removed_after_listing_is_missing(make_folder: Callable[..., Path]) -> None:
    """What is gone, or has become a file where a folder was, is missing."""
    folder = make_folder(2)
    pool = open_pool(folder)
    (folder / "0000.jpg").unlink()
    assert read_all(pool)[0] == Unread("missing", "no-file: removed, or a link to nothing")
    assert isinstance(read_all(pool)[1], bytes)
    assert read_file(folder, "0001.png/x.jpg") == Unread("missing", "no-file: removed, or a link to nothing")


def test_a_file_with_a_folder_in_its_place_is_no_file(tmp_path: Path) -> None:
    """A folder that took the place of a file is unreadable."""
    (tmp_path / "a.jpg").mkdir()
    assert read_file(tmp_path, "a.jpg") == Unread(
        "unreadable", "not-a-file: neither a file nor a link to one"
    )


def test_one_image_is_a_pool(make_folder: Callable[..., Path]) -> None:
    """A single image file is a pool of one."""
    folder = make_folder(3)
    pool = open_pool(folder / "0001.png")
    assert keys(pool) == ["0001.png"]
    assert read_all(pool) == [(folder / "0001.png").read_bytes()]


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    """An empty folder is a pool of no items; the plan refuses it."""
    assert len(open_pool(tmp_path)) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file or folder"),
        (lambda path: path.write_bytes(b"x"), "not a pool"),
        (lambda path: os.mkfifo(path), "neither a file nor a folder"),
        (lambda path: path.symlink_to(path.name), "cannot be opened"),
        (lambda path: path.symlink_to("nowhere"), "no such file or folder"),
    ],
    ids=["absent", "other", "pipe", "loop", "dangling"],
)
def test_a_path_that_is_no_pool_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    """The message names the path and what to give instead."""
    path = tmp_path / "thing.bin"
    make(path)
    with within_seconds(5), pytest.raises(InputError, match=words) as caught:
        open_pool(path)
    assert "thing.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["a\0b", "x" * 5000, "file.jpg/inside"])
def test_an_impossible_path_is_refused(tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that the system cannot take are bad input, not failures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(InputError):
        open_pool(spec)


def test_a_prefix_with_the_wrong_kind_of_path_is_refused(tmp_path: Path) -> None:
    """`folder:` before a file that is not listed as a folder still gives a pool or one line."""
    (tmp_path / "a.bin").write_bytes(b"x")
    assert keys(open_pool(f"folder:{tmp_path / 'a.bin'}")) == ["a.bin"]
    with pytest.raises(InputError, match="no such file"):
        open_pool(f"tar:{tmp_path / 'absent'}")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "a.tar.xz"])
def test_compressed_tars_are_refused(tmp_path: Path, name: str) -> None:
    """A compressed tar, alone or in a folder, is refused with the remedy."""
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(InputError, match="decompress"):
            open_pool(path)


def test_images_beside_a_compressed_tar_are_a_folder(make_folder: Callable[..., Path]) -> None:
    """A stray archive does not hide the images."""
    folder = make_folder(2)
    (folder / "source.tar.gz").write_bytes(b"\x1f\x8b")
    pool = open_pool(folder)
    assert (pool.kind, len(pool), pool.n_ignored) == ("folder", 2, 1)


def test_a_mixed_folder_must_be_named(
    make_folder: Callable[..., Path], make_tar: Callable[..., Path]
) -> None:
    """Images and tars side by side are refused until a prefix says which are meant."""
    folder = make_folder(3)
    make_tar(2, "folder/x.tar")
    with pytest.raises(InputError, match=r"3 image files and 1 tars.*folder:.*tar:"):
        open_pool(folder)
    assert len(open_pool(f"folder:{folder}")) == 3
    assert len(open_pool(f"tar:{folder}")) == 2


def test_the_kind_is_found_by_looking(
    make_folder: Callable[..., Path], make_tar: Callable[..., Path], make_parquet: Callable[..., Path]
) -> None:
    """Tars go before the tables beside them, and a table beside images is no pool."""
    make_parquet(2, "tars/00000.parquet")
    tars = make_tar(3, "tars/00000.tar").parent
    assert (open_pool(tars).kind, len(open_pool(tars))) == ("webdataset", 3)
    folder = make_folder(3)
    make_parquet(2, "folder/metadata.parquet")
    assert (open_pool(folder).kind, len(open_pool(folder))) == ("folder", 3)
    table = make_parquet(2, "tables/part.parquet")
    assert open_pool(table.parent).kind == open_pool(table).kind == "parquet"


def test_a_folder_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_folder: Callable[..., Path]
) -> None:
    """How many images a closed folder holds cannot be told, so the pool is refused, and the folder named."""
    folder = make_folder(2)
    (folder / "closed").mkdir()
    scandir = os.scandir

    def deny(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(InputError, match=r"closed.*cannot be listed"):
        open_pool(folder)


def test_references_are_numbered_from_the_start_of_the_stretch(make_folder: Callable[..., Path]) -> None:
    """A stretch of a pool keeps the rows of the whole."""
    pool = open_pool(make_folder(5))
    assert pool.refs(2, 4) == pool.refs()[2:4]
    assert [ref.row for ref in pool.refs(2)] == [2, 3, 4]
    assert isinstance(pool.refs()[0], ItemRef)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.jpg", True),
        ("sub/../a.jpg", True),
        ("x" * 5000, True),
        ("../a.jpg", False),
        ("/etc/passwd", False),
        ("a\0b", False),
        ("link/passwd", False),
        ("sub/../../a.jpg", False),
    ],
)
def test_paths_out_of_a_folder_are_told(tmp_path: Path, source: str, expected: bool) -> None:
    """Dots, absolute paths and links that lead out are seen."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    assert is_inside(tmp_path, source) is expected


@pytest.mark.property
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.text(
            st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
        ),
        max_size=8,
    )
)
def test_every_image_is_listed_once(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    """Whatever the files are called, items and ignored files add up, and each reads back."""
    folder = tmp_path_factory.mktemp("any")
    visible = {f"{name}.jpg" for name in names if not name.startswith(".") and len(name.encode()) < 200}
    for name in visible:
        (folder / name).write_text(name)
        (folder / f"{name}.txt").write_text(name)
    pool = list_folder(folder)
    assert set(keys(pool)) == visible
    assert pool.n_ignored == len(visible)
    assert [data.decode() for data in read_all(pool) if isinstance(data, bytes)] == keys(pool)


def test_walk_gives_sizes_and_no_folders(tmp_path: Path) -> None:
    """Every file has its size; what cannot be asked has 0."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to("nowhere")
    assert sorted(walk(tmp_path)) == [("a/b", 5), ("gone", 0)]


def test_files_are_found_by_ending(tmp_path: Path) -> None:
    """Paths come in the order of their bytes, a folder with the ending is none of them."""
    for name in ("b.tar", "a/c.TAR", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()
    assert find_files(tmp_path, ".tar") == ["a/c.TAR", "b.tar"]
    assert find_files(tmp_path / "a.txt", ".tar") == ["a.txt"]
