"""Pools of WebDataset tars: members that share a key are one sample; one of them is the image."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import pyarrow as pa

from poolproof.audit.pool import (
    LISTING,
    MAX_ITEM_BYTES,
    AbstractReader,
    ItemRef,
    Pool,
    Unread,
    find_files,
    is_image_name,
)
from poolproof.errors import InputError

_BLOCK: Final = 512


@dataclass(frozen=True)
class Member:
    """One file inside a tar: its ending (from the first dot of its name), offset of its data, size."""

    ending: str
    offset: int
    n_bytes: int


@dataclass
class _Sample:
    key: str
    image: Member
    beside: list[Member] = field(default_factory=list)


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
        """The other members of the sample, by ending."""
        samples, _ = _index(self.root / ref.source)
        sample = next((s for s in samples if s.image.offset == ref.offset), None)
        if sample is None:
            raise InputError(
                f"tar {ref.source!r} has no image at byte {ref.offset}; it changed since it was listed"
            )
        beside = [ItemRef(0, ref.key, ref.source, m.offset, m.n_bytes) for m in sample.beside]
        read = zip(sample.beside, _read_members(self.root, beside), strict=True)
        return {member.ending: data for member, data in read if isinstance(data, bytes)}


def list_tars(root: Path) -> Pool:
    """The pool of one tar or a folder of tars: samples that hold an image, in the order of their members.

    Only headers are read. A sample's key is the member's path up to the first dot of its file name, as
    WebDataset has it. Keys may occur again in another tar, so an item is known by source, key and offset.
    """
    folder = root.parent if root.is_file() else root
    rows: list[tuple[str, int, _Sample]] = []
    n_ignored = 0
    for group, tar in enumerate(find_files(root, ".tar")):
        samples, n_lone = _index(folder / tar)
        n_ignored += n_lone + sum(len(sample.beside) for sample in samples)
        rows += [(tar, group, sample) for sample in samples]
    items = pa.table(
        {
            "key": [sample.key for _, _, sample in rows],
            "source": [tar for tar, _, _ in rows],
            "offset": [sample.image.offset for _, _, sample in rows],
            "n_bytes": [sample.image.n_bytes for _, _, sample in rows],
            "group": [group for _, group, _ in rows],
        },
        schema=LISTING,
    )
    return Pool(folder, items, n_ignored, TarReader(folder))


def _read_members(root: Path, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
    """The bytes at each reference's offset; one open file per run of equal sources."""
    handle, opened, failure = None, None, None
    try:
        for ref in refs:
            if ref.source != opened:
                if handle is not None:
                    handle.close()
                handle, opened, failure = None, ref.source, None
                try:
                    handle = (root / ref.source).open("rb")
                except FileNotFoundError:
                    failure = Unread("missing", "no-file: the tar is not there any more")
                except OSError as error:
                    failure = Unread("unreadable", f"read-error: {error.strerror or error}")
            if handle is None:
                yield failure or Unread("unreadable", "read-error: the tar cannot be read")
            elif ref.n_bytes < 0:
                yield Unread("unreadable", "cut: the tar is damaged or ends here; what followed is lost")
            elif ref.n_bytes > MAX_ITEM_BYTES:
                yield Unread("unsupported", f"too-large: {ref.n_bytes} bytes; the limit is {MAX_ITEM_BYTES}")
            else:
                handle.seek(ref.offset)
                data = handle.read(ref.n_bytes)
                whole = len(data) == ref.n_bytes
                yield (
                    data
                    if whole
                    else Unread("unreadable", f"cut: {len(data)} of {ref.n_bytes} bytes are there")
                )
    finally:
        if handle is not None:
            handle.close()


def _index(path: Path) -> tuple[list[_Sample], int]:
    """The samples of one tar and the number of members that belong to no image.

    A tar that is damaged or ends in the middle gives the samples whose headers could be read, and one more
    entry in its own name that is unreadable, so that the loss shows in the accounting.
    """
    members: dict[str, list[Member]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isfile():
                    key, ending = _split_name(info.name)
                    members.setdefault(key, []).append(Member(ending, info.offset_data, info.size))
                # tarfile keeps every header otherwise, and a shard may hold 100,000
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            complete = _has_end_marker(path, tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        complete = False
    samples, n_lone = [], 0
    for key, parts in members.items():
        images = [m for m in parts if m.ending.count(".") == 1 and is_image_name(f"x{m.ending}")]
        if not images:
            n_lone += len(parts)
            continue
        samples.append(_Sample(key, images[0], [m for m in parts if m is not images[0]]))
    n_bytes = path.stat().st_size
    cut_inside = any(s.image.offset + s.image.n_bytes > n_bytes for s in samples)
    if not complete and not cut_inside:
        samples.append(_Sample(path.name, Member("", n_bytes, -1)))
    return samples, n_lone


def _has_end_marker(path: Path, offset: int) -> bool:
    """Whether the archive ends as tars do, with a block of zeros, and not because the file is cut."""
    with path.open("rb") as handle:
        handle.seek(max(0, offset - _BLOCK))
        return bytes(_BLOCK) in handle.read(3 * _BLOCK)


def _split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}"
