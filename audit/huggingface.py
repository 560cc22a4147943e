"""Pools that are Hugging Face data sets, saved to disk or in the local cache; nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pyarrow as pa

from poolproof.audit.parquet import KEY_COLUMNS, find_image_column, image_bytes
from poolproof.audit.pool import LISTING, AbstractReader, ItemRef, Pool, Unread
from poolproof.errors import InputError


@final
@dataclass(frozen=True)
class DatasetReader(AbstractReader):
    """Reads rows of a data set. `name` is empty for one saved at `root`, else `NAME[:SPLIT]` in the cache."""

    root: Path
    name: str
    column: str
    kind = "dataset"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each row's encoded image."""
        rows = _undecoded(_load_cached(self.name) if self.name else _load_saved(self.root), self.column)
        for ref in refs:
            try:
                value = rows[ref.offset][self.column]
            except (pa.ArrowException, OSError, IndexError) as error:
                yield Unread("unreadable", f"read-error: {' '.join(str(error).split())[:200]}")
                continue
            yield image_bytes(value, self.root)

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Nothing: a row's other columns stay in the data set."""
        del ref
        return {}


def list_saved(root: Path) -> Pool:
    """The pool of a data set that `datasets.save_to_disk` wrote."""
    return _list(_load_saved(root), root, "")


def list_cached(name: str) -> Pool:
    """The pool of a data set in the local Hugging Face cache, `NAME[:SPLIT]`; nothing is fetched.

    Raises:
        InputError: it is not in the cache, or the split is not one of its splits.
    """
    dataset = _load_cached(name)
    files = dataset.cache_files
    root = Path(files[0]["filename"]).parent if files else Path.cwd()
    return _list(dataset, root, name)


def _list(dataset: Any, root: Path, name: str) -> Pool:
    column = find_image_column(dataset.features.arrow_schema)
    n = len(dataset)
    key_column = next((c for c in KEY_COLUMNS if c in dataset.column_names and c != column), None)
    keys = [str(k) for k in dataset[key_column]] if key_column else [f"row-{i:08d}" for i in range(n)]
    items = pa.table(
        {"key": keys, "source": [name or "."] * n, "offset": range(n), "n_bytes": [-1] * n, "group": [0] * n},
        schema=LISTING,
    )
    return Pool(root, items, 0, DatasetReader(root, name, column))


def _load_saved(root: Path) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(root))
    except (FileNotFoundError, ValueError, pa.ArrowException) as error:
        raise InputError(f"pool {str(root)!r}: not a data set that `datasets` can open: {error}") from error
    if isinstance(loaded, datasets.DatasetDict):
        raise InputError(
            f"pool {str(root)!r} holds the splits {sorted(loaded)}; give the folder of one of them"
        )
    return loaded


def _load_cached(name: str) -> Any:
    import datasets
    from datasets import config

    path, _, split = name.partition(":")
    # without these the library asks the hub whether the cached copy is the newest
    offline = datasets.DownloadConfig(local_files_only=True)
    previous = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(path, download_config=offline)
    except Exception as error:  # the library raises a dozen kinds, from httpx to its own
        line = str(error).split("\n")[0][:200]
        raise InputError(
            f"data set {path!r} is not in the local cache ({line}); download it first"
        ) from error
    finally:
        config.HF_HUB_OFFLINE = previous
    if not isinstance(loaded, datasets.DatasetDict):
        raise InputError(f"data set {path!r}: not a data set of splits")
    if not split and len(loaded) == 1:
        split = next(iter(loaded))
    if split not in loaded:
        raise InputError(
            f"data set {path!r}: split {split!r}; allowed are {sorted(map(str, loaded))}: hf:{path}:SPLIT"
        )
    return loaded[split]


def _undecoded(dataset: Any, column: str) -> Any:
    import datasets

    if isinstance(dataset.features[column], datasets.Image):
        return dataset.cast_column(column, datasets.Image(decode=False))
    return dataset
