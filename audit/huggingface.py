"""Pools that are Hugging Face data sets, saved to disk or in the local cache; nothing is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa

from poolproof.audit.parquet import find_image_column, find_key_column, image_bytes
from poolproof.audit.pool import LISTING, AbstractReader, ItemRef, Pool, Unread, one_line
from poolproof.errors import InputError

_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

_BATCH: Final = 64
"""Rows taken at a time with all their columns."""


@final
@dataclass(frozen=True)
class DatasetReader(AbstractReader):
    """Reads rows of a data set.

    Args:
        root: the folder that holds its Arrow files.
        name: empty for one saved at `root`, else `NAME:SPLIT`, and `root` is its folder in the cache: the same
            build is read however the cache changes.
        column: the column of images.
    """

    root: Path
    name: str
    column: str
    kind = "dataset"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each row's encoded image."""
        try:
            rows = _undecoded(self.load(), self.column)
        except InputError as error:
            yield from (Unread("missing", f"no-dataset: {one_line(error)}") for _ in refs)
            return
        within = self._within()
        for ref in refs:
            try:
                value = rows[ref.offset][self.column]
            except (pa.ArrowException, OSError, IndexError, ValueError) as error:
                yield Unread("unreadable", f"read-error: {one_line(error)}")
                continue
            yield image_bytes(value, self.root, *within)

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Nothing: a row's other columns stay in the data set."""
        del ref
        return {}

    def load(self) -> Any:
        """The data set, opened by the library.

        Raises:
            InputError: it is not there any more.
        """
        return _load_build(self.root, self.name) if self.name else _load_saved(self.root)

    def rows(self, dataset: Any, refs: Sequence[ItemRef]) -> Iterator[tuple[pa.Table, list[bytes | Unread]]]:
        """All columns of the rows as stored, a few at a time, and their images.

        Args:
            dataset: from `load`, which takes longer than some rows.
            refs: of the rows.

        Raises:
            pyarrow.ArrowException, OSError, IndexError: its files are damaged, or hold fewer rows.
        """
        within = self._within()
        stored = dataset.with_format("arrow")
        for start in range(0, len(refs), _BATCH):
            table = stored[[ref.offset for ref in refs[start : start + _BATCH]]]
            table = table.cast(dataset.features.arrow_schema)
            cells = table.column(self.column)
            yield table, [image_bytes(cells[i].as_py(), self.root, *within) for i in range(table.num_rows)]

    def _within(self) -> tuple[Path, ...]:
        return (self.root, *_cache_folders()) if self.name else (self.root,)


def list_saved(root: Path) -> Pool:
    """The pool of a data set that `datasets.save_to_disk` wrote.

    Raises:
        InputError: it cannot be opened, holds several splits, or has no column of images.
    """
    return _list(_load_saved(root), root, "")


def list_cached(name: str) -> Pool:
    """The pool of a data set in the local Hugging Face cache; nothing is fetched or built.

    Args:
        name: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`, NAME as on the hub. The split may be left out where
            there is one, the configuration where one is cached.

    Raises:
        InputError: it is not in the cache, or the split is not one of its splits.
    """
    path, *rest = name.split(":")
    if len(rest) > 2 or not _NAME.fullmatch(path) or any("/" in part for part in rest):
        raise InputError(
            f"data set {name!r}: not a name; write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT"
        )
    split = rest.pop() if rest else ""
    config = rest.pop() if rest else None
    builder = _open_cache(path, config_name=config, version="auto", hash="auto")
    splits = sorted(map(str, builder.info.splits or {}))
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise InputError(f"data set {path!r}: split {split!r}; allowed are {splits}: hf:{path}:SPLIT")
    root = Path(builder.cache_dir)
    return _list(_load_build(root, f"{path}:{split}"), root, f"{path}:{split}")


def _list(dataset: Any, root: Path, name: str) -> Pool:
    import datasets

    schema = dataset.features.arrow_schema
    images = [column for column, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
    column = images[0] if images else find_image_column(schema)
    n = len(dataset)
    keys = [f"row-{i:08d}" for i in range(n)]
    key_column = find_key_column(schema)
    if key_column is not None and key_column != column:
        named = dataset.select_columns([key_column]).with_format("arrow")[:].column(0).to_pylist()
        keys = [str(key) if key is not None else other for key, other in zip(named, keys, strict=True)]
    items = pa.table(
        {"key": keys, "source": [name or "."] * n, "offset": range(n), "n_bytes": [-1] * n, "group": [0] * n},
        schema=LISTING,
    )
    return Pool(root, items, 0, DatasetReader(root, name, column))


def _load_saved(root: Path) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(root))
    except Exception as error:  # the library raises a dozen kinds, from KeyError to its own
        raise InputError(
            f"pool {str(root)!r}: not a data set that `datasets` can open ({one_line(error)}); save it again"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise InputError(
            f"pool {str(root)!r} holds the splits {sorted(map(str, loaded))}; give the folder of one of them"
        )
    return loaded


def _load_build(root: Path, name: str) -> Any:
    """The data set of one split in one folder of the cache, CACHE/NAME/CONFIG/VERSION/HASH."""
    path, _, split = name.partition(":")
    config, version, build = root.parts[-3:]
    builder = _open_cache(
        path, cache_dir=str(root.parents[3]), config_name=config, version=version, hash=build
    )
    try:
        return builder.as_dataset(split=split)
    except Exception as error:  # as above
        raise InputError(
            f"data set {name!r} in the local cache cannot be opened ({one_line(error)}); download it again"
        ) from error


def _open_cache(path: str, **options: Any) -> Any:
    """The library's own reader of its cache.

    `load_dataset` would ask the hub first, build from a folder that happens to have the name, and fetch what
    is not there.
    """
    from datasets.packaged_modules.cache.cache import Cache

    try:
        return Cache(repo_id=path, dataset_name=path.rpartition("/")[2], **options)
    except Exception as error:  # as above
        raise InputError(
            f"data set {path!r} is not in the local cache ({one_line(error)}); download it first"
        ) from error


def _cache_folders() -> tuple[Path, ...]:
    """Where the images of a cached data set may lie apart from its Arrow files: unpacked archives."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(config.HF_DATASETS_CACHE), Path(config.DOWNLOADED_DATASETS_PATH), Path(HF_HUB_CACHE)


def _undecoded(dataset: Any, column: str) -> Any:
    """The column alone, as stored: neither it nor another one is decoded, whatever format was saved with it."""
    import datasets

    rows = dataset.with_format(None).select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    return rows
