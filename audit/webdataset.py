"""Pools of WebDataset tars: members that share a key are one sample; one of them is the image."""

from __future__ import annotations

import itertools
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, final

import pyarrow as pa

from poolproof.audit.listing import collect_listing
from poolproof.audit.paths import find_files, is_image_name, path_of, readable, storable
from poolproof.audit.pool import LISTING, MAX_ITEM_BYTES, AbstractReader, ItemRef, Pool, Unread, one_line
from poolproof.errors import InputError

_BLOCK: Final = 512
_FAR: Final = 1 << 62
"""A member whose header states a larger size is listed with this one: more than any file, and a 64-bit number."""

_PADDING: Final = 1 << 20
"""How far behind the end marker a tar is looked through for more."""


@dataclass(frozen=True)
class Member:
    """One file inside a tar: its ending (from the first dot of its name), offset of its data, size.

    Attributes:
        name: all of it as the tar has it, bytes that are not UTF-8 as surrogates.
        index: its place among the members of the tar.
    """

    ending: str
    offset: int
    n_bytes: int
    name: str = ""
    index: int = -1


@dataclass(frozen=True)
class Sample:
    """An item of a tar: its key, the member that is the image, and the others that belong to it."""

    key: str
    image: Member
    beside: tuple[Member, ...] = ()


@final
@dataclass(frozen=True)
class TarReader(AbstractReader):
    """Reads image members of tars by offset; nothing is ever unpacked to disk."""

    root: Path
    kind = "webdataset"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each image member's bytes; one open file per run of equal sources."""
        yield from _read_members(self.root, refs)

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """The other members of the sample, by ending. Lists the tar anew at each call."""
        samples, _ = _index(self.root / path_of(ref.source))
        sample = next((s for s in samples if s.image.offset == ref.offset and s.key == ref.key), None)
        if sample is None:
            raise InputError(
                f"tar {readable(path_of(ref.source))!r} has no image {ref.key!r} at byte {ref.offset}; "
                "it changed since it was listed, start a new run"
            )
        beside = [ItemRef(0, ref.key, ref.source, m.offset, m.n_bytes) for m in sample.beside]
        read = zip(sample.beside, _read_members(self.root, beside), strict=True)
        return {member.ending: data for member, data in read if isinstance(data, bytes)}

    def samples(self, source: str) -> list[Sample]:
        """All items of one tar, read from its headers."""
        samples, _ = _index(self.root / path_of(source))
        return samples

    def read_members(self, source: str, members: Sequence[Member]) -> Iterator[bytes | Unread]:
        """The bytes of members of one tar."""
        return _read_members(self.root, [ItemRef(0, "", source, m.offset, m.n_bytes) for m in members])


def list_tars(root: Path) -> Pool:
    """The pool of one tar or a folder of tars: samples that hold an image, in the order of their members.

    Only headers are read. A sample's key is the member's path up to the first dot of its file name, as
    WebDataset has it. Where no member is `KEY.jpg` or the like, each member with an image's ending is an item
    under its own name, so that names with dots in them lose nothing. Keys may occur again in another tar, so
    an item is known by source, key and offset.
    """
    folder = root.parent if root.is_file() else root
    n_lone: list[int] = []

    def list_each() -> Iterator[pa.Table]:
        for group, tar in enumerate(find_files(root, ".tar")):
            samples, lone = _index(folder / tar)
            n_lone.append(lone)
            yield _listing(samples, storable(tar), group)

    items, mapped = collect_listing(list_each())
    return Pool(folder, items, sum(n_lone), TarReader(folder), mapped)


def _listing(samples: Sequence[Sample], source: str, group: int) -> pa.Table:
    """The rows of one tar."""
    n = len(samples)
    return pa.table(
        {
            "key": [sample.key for sample in samples],
            "source": [source] * n,
            "offset": [sample.image.offset for sample in samples],
            "n_bytes": [sample.image.n_bytes for sample in samples],
            "group": [group] * n,
        },
        schema=LISTING,
    )


def _read_members(root: Path, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
    """The bytes at each reference's offset; one open file per run of equal sources."""
    for source, run in itertools.groupby(refs, key=lambda ref: ref.source):
        tar = _open_tar(root / path_of(source))
        if isinstance(tar, Unread):
            yield from (tar for _ in run)
            continue
        with tar:
            yield from (_read_member(tar, ref) for ref in run)


def _open_tar(path: Path) -> BinaryIO | Unread:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            return Unread("unreadable", "not-a-file: neither a file nor a link to one")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return Unread("missing", "no-file: the tar is not there any more, or a link to nothing")
    except PermissionError:
        return Unread("unreadable", "denied: no permission to read the tar")
    except OSError as error:
        return Unread("unreadable", f"read-error: {one_line(error)}")


def _read_member(tar: BinaryIO, ref: ItemRef) -> bytes | Unread:
    if ref.n_bytes < 0:
        return Unread("unreadable", "cut: the tar is damaged or ends here; what followed is lost")
    try:
        there = max(0, tar.seek(0, os.SEEK_END) - ref.offset)
        if there < ref.n_bytes:
            return Unread("unreadable", f"cut: {there} of {ref.n_bytes} bytes are there")
        if ref.n_bytes > MAX_ITEM_BYTES:
            return Unread("unsupported", f"too-large: {ref.n_bytes} bytes; the limit is {MAX_ITEM_BYTES}")
        tar.seek(ref.offset)
        return tar.read(ref.n_bytes)
    except OSError as error:
        return Unread("unreadable", f"read-error: {one_line(error)}")


def _index(path: Path) -> tuple[list[Sample], int]:
    """The samples of one tar, and the number of members that are not the image of one.

    A tar that is damaged or ends in the middle gives the samples whose headers could be read, and one more
    entry in its own name that is unreadable, so that the loss shows in the accounting.
    """
    opened = _open_tar(path)
    if isinstance(opened, Unread):
        return [Sample(readable(path.name), Member("", 0, -1))], 0
    with opened:
        members, n_members, complete = _read_headers(opened)
        n_bytes = opened.seek(0, os.SEEK_END)
    samples = [sample for key, parts in members.items() for sample in _samples(key, parts)]
    samples.sort(key=lambda sample: sample.image.offset)
    n_lone = n_members - len(samples)
    cut_inside = any(s.image.offset + s.image.n_bytes > n_bytes for s in samples)
    if not complete and not cut_inside:
        samples.append(Sample(readable(path.name), Member("", n_bytes, -1)))
    return samples, n_lone


def _read_headers(handle: BinaryIO) -> tuple[dict[str, list[Member]], int, bool]:
    """The members of a tar by key, how many there are of any kind, and whether it is whole."""
    members: dict[str, list[Member]] = {}
    n_members, last = 0, -1
    try:
        with tarfile.open(fileobj=handle, mode="r:", encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                if info.size < 0 or info.offset <= last:  # would lead back to where it came from, for ever
                    return members, n_members, False
                last = info.offset
                # tarfile keeps every header otherwise, and a shard may hold 100,000
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if info.isdir():
                    continue
                n_members += 1
                key, ending = _split_name(info.name)
                if info.isreg() and not info.issparse():
                    own = Member(ending, info.offset_data, min(info.size, _FAR), info.name, n_members)
                    members.setdefault(key, []).append(own)
                elif info.islnk():  # tar stores a file that has two names once
                    linked, its_ending = _split_name(info.linkname)
                    target = next((m for m in members.get(linked, ()) if m.ending == its_ending), None)
                    if target is not None:
                        own = Member(ending, target.offset, target.n_bytes, info.name, n_members)
                        members.setdefault(key, []).append(own)
            return members, n_members, _ends_well(handle, tar.offset)
    except Exception:  # a hostile header makes the parser raise anything, up to MemoryError
        return members, n_members, False


def _ends_well(handle: BinaryIO, offset: int) -> bool:
    """Whether the archive ends as tars do, with a block of zeros and nothing but zeros behind it."""
    handle.seek(offset)
    rest = handle.read(_BLOCK + _PADDING)
    return len(rest) >= _BLOCK and not rest.strip(b"\0")


def _samples(key: str, parts: Sequence[Member]) -> Iterator[Sample]:
    """The items among the members with one key: as a rule one, the first with a plain image ending."""
    images = [m for m in parts if is_image_name(f"x{m.ending}")]
    stem = key.rpartition("/")[2]
    if not stem or not images:  # hidden names, such as the `._x.jpg` that macOS adds
        return
    plain = [m for m in images if m.ending.count(".") == 1]
    if not plain:
        for member in images:
            name = member.ending.rpartition(".")[0]
            own = (m for m in parts if m not in images and m.ending.startswith(f"{name}."))
            beside = tuple(replace(m, ending=m.ending[len(name) :]) for m in own)
            yield Sample(readable(key + name), member, beside)
        return
    chosen = [m for m in plain if m.ending == plain[0].ending]  # more than one: the name occurs again
    beside = tuple(m for m in parts if m not in chosen)
    for member in chosen:
        yield Sample(readable(key), member, beside)


def _split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}"
