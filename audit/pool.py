"""Pools: ordered collections of encoded images with keys. Opening one reads keys, never pixels."""

from __future__ import annotations

import abc
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import pyarrow as pa

from poolproof.errors import InputError

IMAGE_SUFFIXES: Final = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"]
    + [".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"]
)
"""File endings that the scorer decodes."""

UNDECODED_SUFFIXES: Final = frozenset(
    [
        ".heic",
        ".heif",
        ".svg",
        ".svgz",
        ".psd",
        ".jxl",
        ".ico",
        ".exr",
        ".hdr",
        ".dng",
        ".cr2",
        ".nef",
        ".eps",
    ]
)
"""Endings of images that are listed and counted as unsupported."""

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
    """

    root: Path
    items: pa.Table
    n_ignored: int
    reader: AbstractReader

    @property
    def kind(self) -> str:
        """`folder`, `webdataset`, `parquet` or `dataset`."""
        return self.reader.kind

    def __len__(self) -> int:
        return self.items.num_rows

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
    files, n_ignored = [], 0
    if root.is_file():
        root, files = root.parent, [(root.name, root.stat().st_size)]
    else:
        for path, size in sorted(walk(root), key=lambda entry: os.fsencode(entry[0])):
            if is_image_name(path):
                files.append((path, size))
            else:
                n_ignored += 1
    n = len(files)
    items = pa.table(
        {
            "key": [_readable(path) for path, _ in files],
            "source": [_storable(path) for path, _ in files],
            "offset": [0] * n,
            "n_bytes": [size for _, size in files],
            "group": [0] * n,
        },
        schema=LISTING,
    )
    return Pool(root, items, n_ignored, FolderReader(root))


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image, decodable here or not."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES or suffix in UNDECODED_SUFFIXES


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
    if not root.exists():
        raise InputError(
            f"pool {path!r}: no such file or folder; give a folder, a .tar, a .parquet or hf:NAME"
        )
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
    if (root / "dataset_info.json").is_file() and (root / "state.json").is_file():
        return "dataset"
    counts = {"folder": 0, "tar": 0, "parquet": 0}
    for path, _ in walk(root):
        suffix = Path(path).suffix.lower()
        if is_image_name(path):
            counts["folder"] += 1
        elif suffix in (".tar", ".parquet"):
            counts[suffix[1:]] += 1
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
    return "folder"


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if is_image_name(path.name):
        return "folder"
    if suffix in (".tar", ".parquet"):
        return suffix[1:]
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
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


def find_files(root: Path, suffix: str) -> list[str]:
    """Paths relative to the root of all files with the ending, in the order of their bytes."""
    if root.is_file():
        return [root.name]
    return sorted((path for path, _ in walk(root) if path.lower().endswith(suffix)), key=os.fsencode)


def read_file(root: Path, source: str) -> bytes | Unread:
    """A file's bytes, or the status and reason where they cannot be had."""
    path = root / path_of(source)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Unread("unreadable", "not-a-file: neither a file nor a link to one")
        if status.st_size > MAX_ITEM_BYTES:
            return Unread("unsupported", f"too-large: {status.st_size} bytes; the limit is {MAX_ITEM_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        return Unread("missing", "no-file: removed, or a link to nothing")
    except PermissionError:
        return Unread("unreadable", "denied: no permission to read it")
    except OSError as error:
        return Unread("unreadable", f"read-error: {error.strerror or error}")


def is_inside(root: Path, source: str) -> bool:
    """Whether a path named in a pool stays inside the pool's folder, links and `..` resolved."""
    try:
        return (root / source).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _storable(path: str) -> str:
    """The path as text that any table holds; a name that is not UTF-8 becomes NUL and its bytes in hex."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "\0" + raw.hex()


def path_of(source: str) -> str:
    """The relative path that a source stands for."""
    return os.fsdecode(bytes.fromhex(source[1:])) if source.startswith("\0") else source


def _readable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file below the root; a dangling link has size 0, hidden names are skipped."""
    stack = [root]
    seen = {os.path.realpath(root)}
    while stack:
        folder = stack.pop()
        try:
            entries = list(os.scandir(folder))
        except PermissionError as error:
            raise InputError(
                f"folder {str(folder)!r}: not readable by this user; change its permissions"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:  # a link back up would never end
                    seen.add(real)
                    stack.append(Path(entry.path))
                continue
            try:
                size = entry.stat().st_size
            except OSError:
                size = 0
            yield os.path.relpath(entry.path, root), size
