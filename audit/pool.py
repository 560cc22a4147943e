"""Pools: ordered collections of encoded images with keys. Opening one reads keys, never pixels."""

from __future__ import annotations

import abc
import glob
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import pyarrow as pa

from poolproof.audit.paths import (
    COMPRESSED_TAR_SUFFIXES,
    is_image_name,
    path_of,
    readable,
    storable,
    walk,
    walk_names,
)
from poolproof.errors import InputError

MAX_ITEM_BYTES: Final = 1 << 30
"""Larger files are not read: no image of that size is training data, and memory is finite."""

LISTING: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("n_bytes", pa.int64(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
    ]
)
"""One row per item: its key, the file that holds it (relative to the root), where in that file (a byte or row
offset), its encoded size (-1: unknown until read) and the stretch of the source that is read in one go."""


@dataclass(frozen=True)
class ItemRef:
    """Where one item lies; a row of the listing."""

    row: int
    key: str
    source: str
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Unread:
    """An item whose bytes could not be had.

    Attributes:
        status: `missing` (not there any more, or null) or `unreadable` (there, but cannot be read).
        reason: `code: detail`, one line; equal codes are counted together.
    """

    status: str
    reason: str


def one_line(error: BaseException) -> str:
    """An error's message in one short line, its type where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class AbstractReader(abc.ABC):
    """Reads encoded images by reference. Small and picklable: it travels to workers, the listing does not."""

    kind: str
    root: Path

    @abc.abstractmethod
    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """The encoded bytes of each item in turn, or why they could not be had. Never raises for one item."""

    @abc.abstractmethod
    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Files that belong to the item (captions, json), by ending; empty where the pool has none."""


@dataclass(frozen=True)
class Pool:
    """A pool that was opened: its keys are known, nothing was decoded.

    Attributes:
        root: the folder that sources are relative to.
        items: the listing, schema `LISTING`, in pool order.
        n_ignored: files beside the images that are not items (captions, metadata); they stay with their item
            when a pool is written, and are counted so that nothing is passed over in silence.
        reader: reads the items.
        mapped: the file that holds the listing, where memory does not, see `collect_listing`.
    """

    root: Path
    items: pa.Table
    n_ignored: int
    reader: AbstractReader
    mapped: mmap.mmap | None = None

    @property
    def kind(self) -> str:
        """`folder`, `webdataset`, `parquet` or `dataset`."""
        return self.reader.kind

    def __len__(self) -> int:
        return self.items.num_rows

    def stretches(self, most: int) -> Iterator[pa.Table]:
        """The listing in pieces of at most so many rows; of a mapped listing one piece is in memory at a time."""
        for batch in self.items.to_batches(max_chunksize=most):
            yield pa.Table.from_batches([batch])
            if self.mapped is not None:
                self.mapped.madvise(mmap.MADV_DONTNEED)  # what is still in use is read again from the file

    def refs(self, start: int = 0, stop: int | None = None) -> list[ItemRef]:
        """References to the items of a stretch of the pool."""
        return refs_of(self.items.slice(start, None if stop is None else stop - start), start)


def refs_of(listing: pa.Table, start: int = 0) -> list[ItemRef]:
    """References to the rows of a listing, numbered from `start`."""
    columns = [listing.column(name).to_pylist() for name in ("key", "source", "offset", "n_bytes")]
    return [ItemRef(start + i, *values) for i, values in enumerate(zip(*columns, strict=True))]


@final
@dataclass(frozen=True)
class FolderReader(AbstractReader):
    """Reads image files below a folder."""

    root: Path
    kind = "folder"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each file's bytes."""
        for ref in refs:
            yield read_file(self.root, ref.source)

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Files beside the image with the same stem and another, non-image ending."""
        image = self.root / path_of(ref.source)
        beside = sorted(image.parent.glob(f"{glob.escape(image.stem)}.*"))
        return {
            path.name[len(image.stem) :]: path.read_bytes()
            for path in beside
            if path.is_file() and not is_image_name(path.name)
        }


def list_folder(root: Path) -> Pool:
    """The pool of every image file below a folder, or of one image file, ordered by the bytes of the paths."""
    files: list[tuple[bytes, str, int]] = []
    n_ignored = 0
    if root.is_file():
        root, files = root.parent, [(b"", root.name, root.stat().st_size)]
    else:
        for path, size in walk(root):
            if is_image_name(path):
                files.append((os.fsencode(path), path, size))
            else:
                n_ignored += 1
        files.sort()
    n = len(files)
    items = pa.table(
        {
            "key": [readable(path) for _, path, _ in files],
            "source": [storable(path) for _, path, _ in files],
            "offset": [0] * n,
            "n_bytes": [size for _, _, size in files],
            "group": [0] * n,
        },
        schema=LISTING,
    )
    return Pool(root, items, n_ignored, FolderReader(root))


def open_pool(spec: str | Path) -> Pool:
    """The pool at a path, its kind found by looking; nothing is decoded.

    Args:
        spec: a folder of images, a folder of WebDataset tars or one tar, a Parquet file or a folder of them,
            a folder written by `datasets.save_to_disk`, or `hf:NAME[:SPLIT]` for a data set in the local
            Hugging Face cache. A prefix (`folder:`, `tar:`, `parquet:`, `dataset:`) settles the kind by hand.

    Raises:
        InputError: there is no such path, or its kind cannot be told.
    """
    kind, path = _split_spec(str(spec))
    if kind == "hf":
        from poolproof.audit.huggingface import list_cached

        return list_cached(path)
    root = Path(path)
    try:
        mode = root.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"pool {path!r}: no such file or folder; give a folder, a .tar, a .parquet or hf:NAME"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"pool {path!r}: cannot be opened ({error}); give another path") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise InputError(f"pool {path!r}: neither a file nor a folder; give a folder, a .tar or a .parquet")
    if not os.access(root, os.R_OK):
        raise InputError(
            f"pool {path!r}: not readable by this user; change its permissions or run as its owner"
        )
    return _OPENERS[kind or _find_kind(root)](root)


def _split_spec(spec: str) -> tuple[str | None, str]:
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in {*_OPENERS, "hf"}:
        return prefix, rest
    return None, spec


def _find_kind(root: Path) -> str:
    """The kind of the pool at an existing path."""
    if root.is_file():
        return _kind_of_file(root)
    if (root / "dataset_dict.json").is_file() or (
        (root / "dataset_info.json").is_file() and (root / "state.json").is_file()
    ):
        return "dataset"
    counts = {"folder": 0, "tar": 0, "parquet": 0, "compressed": 0}
    for path in walk_names(root):
        suffix = os.path.splitext(path)[1].lower()
        if is_image_name(path):
            counts["folder"] += 1
        elif suffix in (".tar", ".parquet"):
            counts[suffix[1:]] += 1
        elif path.lower().endswith(COMPRESSED_TAR_SUFFIXES):
            counts["compressed"] += 1
    # img2dataset writes NNNNN.tar beside NNNNN.parquet, and image folders carry a metadata.parquet:
    # Parquet is the pool only where nothing else is
    if counts["folder"] and counts["tar"]:
        raise InputError(
            f"pool {str(root)!r} holds {counts['folder']} image files and {counts['tar']} tars; "
            f"say which: folder:{root} or tar:{root}"
        )
    if counts["tar"]:
        return "tar"
    if counts["parquet"] and not counts["folder"]:
        return "parquet"
    if counts["compressed"] and not counts["folder"]:
        raise InputError(
            f"pool {str(root)!r} holds {counts['compressed']} compressed tars; they cannot be read by offset, "
            "decompress them first"
        )
    return "folder"


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if is_image_name(path.name):
        return "folder"
    if suffix in (".tar", ".parquet"):
        return suffix[1:]
    if path.name.lower().endswith(COMPRESSED_TAR_SUFFIXES):
        raise InputError(f"pool {str(path)!r}: compressed tars cannot be read by offset; decompress it first")
    raise InputError(
        f"pool {str(path)!r}: not a pool; give a folder, an image, a .tar, a .parquet or hf:NAME"
    )


def _list_tars(root: Path) -> Pool:
    from poolproof.audit.webdataset import list_tars

    return list_tars(root)


def _list_parquet(root: Path) -> Pool:
    from poolproof.audit.parquet import list_parquet

    return list_parquet(root)


def _list_saved(root: Path) -> Pool:
    from poolproof.audit.huggingface import list_saved

    return list_saved(root)


_OPENERS = {"folder": list_folder, "tar": _list_tars, "parquet": _list_parquet, "dataset": _list_saved}


def read_file(root: Path, source: str) -> bytes | Unread:
    """A file's bytes, or the status and reason where they cannot be had."""
    try:
        path = root / path_of(source)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Unread("unreadable", "not-a-file: neither a file nor a link to one")
        if status.st_size > MAX_ITEM_BYTES:
            return Unread("unsupported", f"too-large: {status.st_size} bytes; the limit is {MAX_ITEM_BYTES}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Unread("missing", "no-file: removed, or a link to nothing")
    except PermissionError:
        return Unread("unreadable", "denied: no permission to read it")
    except OSError as error:
        return Unread("unreadable", f"read-error: {error.strerror or error}")
