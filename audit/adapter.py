"""The scorer for other people's data frames: a batch with a column of images in, columns of evidence out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa

from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.parquet import image_bytes
from poolproof.audit.plan import Shard
from poolproof.audit.pool import AbstractReader, ItemRef, Unread, one_line
from poolproof.audit.score import Scorer, score_shard
from poolproof.detectors.embed import resolve_embedder
from poolproof.detectors.forensic import FORENSIC_DIM
from poolproof.errors import InputError

PLAIN: Final = (
    *("status", "reason", "sha256", "format", "width", "height", "signed", "declared"),
    *("marked", "mark_payload", "mark_pvalue"),
)
"""Columns of evidence that are handed on as they are."""

_VECTORS: Final = {"forensic": np.float32, "embedding": np.float16}


@final
class ItemScorer:
    """A callable from a batch to its evidence, for `datasets.Dataset.map`, `ray.data.Dataset.map_batches` and the like.

    A row's evidence is what an audit would record for the same bytes. A damaged row gets a status and a reason;
    no row makes the call raise. Without a process of its own, a row that kills a decoder takes its caller along.

    Args:
        embedder: as for `poolproof audit`; its model loads with the first batch, once a process.
        column: of the images: encoded bytes, or the `{"bytes", "path"}` of undecoded Hugging Face images.
        keep: columns of the batch that are handed on. `datasets` keeps all of itself, Ray Data none.
        marks: whether public marks are read.
        folder: where images that are given as paths may lie; None reads no paths. Relative ones start from the
            working folder.

    Raises:
        InputError: an embedder that is not known or not on this machine.

    >>> columns = ItemScorer(keep=["name"])({"name": ["a.jpg"], "image": [b"<html>"]})
    >>> columns["name"], columns["status"], columns["reason"]
    (['a.jpg'], ['unreadable'], ['not-an-image: HTML or XML text'])
    """

    def __init__(
        self,
        embedder: str = "forensic",
        *,
        column: str = "image",
        keep: Sequence[str] = (),
        marks: bool = True,
        folder: str | Path | None = None,
    ) -> None:
        self.scorer = Scorer(resolve_embedder(embedder)[0], marks=marks)
        self.column = column
        self.keep = tuple(keep)
        self.folder = None if folder is None else Path(folder).absolute()

    def __call__(self, batch: Any) -> Any:
        """The kept columns and those of the evidence, as a dict of columns, or as a table where the batch is one.

        The columns are those of `PLAIN`, `forensic` and, with a model, `embedding`. In a dict the vectors are an
        array of a row an item, NaN where there is none; in a table they are lists, null where there is none.

        Args:
            batch: a mapping from names to columns (lists or arrays), or a `pyarrow.Table`.

        Raises:
            InputError: the batch lacks a column.
        """
        names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        for name in (self.column, *self.keep):
            if name not in names:
                raise InputError(
                    f"column: got {name!r}, allowed {', '.join(map(str, names))}; name one of the batch"
                )
        evidence = self._score(_values(batch[self.column]))
        vectors = {"forensic": FORENSIC_DIM}
        if self.scorer.model is not None:
            vectors["embedding"] = self.scorer.model.dim
        rows = {
            name: _unpack(evidence.column(name).to_pylist(), dim, _VECTORS[name])
            for name, dim in vectors.items()
        }
        if isinstance(batch, pa.Table):
            table = batch.select(self.keep)
            for name in PLAIN:
                table = table.append_column(name, evidence.column(name))
            for name, array in rows.items():
                table = table.append_column(name, _lists(array, evidence.column(name)))
            return table
        plain = {name: evidence.column(name).to_pylist() for name in PLAIN}
        return {name: batch[name] for name in self.keep} | plain | rows

    def _score(self, values: Sequence[Any]) -> pa.Table:
        try:
            return score_shard(_shard(values, self.folder), self.scorer)
        except InputError:  # of the embedder
            raise
        except Exception as error:  # a bug on one row's input; the others are scored one by one
            if len(values) == 1:
                row = {"row": 0, "key": "0", "source": "", "status": "unreadable"}
                row["reason"] = f"error: {type(error).__name__}: {one_line(error)}"
                return pa.Table.from_pylist([row], schema=EVIDENCE)
            return pa.concat_tables(self._score([value]) for value in values)


@final
@dataclass(frozen=True)
class GivenReader(AbstractReader):
    """Hands out images of a batch.

    Args:
        root: where images that are given as paths may lie.
        values: the column's cells.
        paths: whether paths are followed.
    """

    root: Path
    values: tuple[Any, ...]
    paths: bool
    kind = "given"

    def read(self, refs: Sequence[ItemRef]) -> Iterator[bytes | Unread]:
        """Each cell's encoded image."""
        for ref in refs:
            yield self._read(self.values[ref.row])

    def sidecars(self, ref: ItemRef) -> dict[str, bytes]:
        """Nothing."""
        del ref
        return {}

    def _read(self, value: Any) -> bytes | Unread:
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        has_bytes = isinstance(value, bytes) or (
            isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes)
        )
        path = value.get("path") if isinstance(value, Mapping) else value
        if not has_bytes and isinstance(path, str) and not self.paths:
            return Unread("missing", "path: a path without bytes; name the folder in which paths may lie")
        return image_bytes(value, Path(), self.root)


def _shard(values: Sequence[Any], folder: Path | None) -> Shard:
    reader = GivenReader(folder or Path(), tuple(values), folder is not None)
    return Shard(0, reader, tuple(ItemRef(i, str(i), "", i, -1) for i in range(len(values))))


def _values(column: Any) -> list[Any]:
    return column.to_pylist() if isinstance(column, pa.Array | pa.ChunkedArray) else list(column)


def _unpack(cells: Sequence[bytes | None], dim: int, dtype: type[np.generic]) -> np.ndarray:
    """Vectors from their bytes, a row each, NaN where there are none."""
    vectors = np.full((len(cells), dim), np.nan, np.float32)
    for vector, cell in zip(vectors, cells, strict=True):
        if cell is not None:
            vector[:] = np.frombuffer(cell, dtype)
    return vectors


def _lists(vectors: np.ndarray, cells: pa.ChunkedArray) -> pa.Array:
    """Vectors as lists of one length, null where the cell is."""
    missing = np.asarray(cells.is_null())
    flat = pa.array(vectors.ravel(), pa.float32())
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(missing))
