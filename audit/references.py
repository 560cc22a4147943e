"""Evidence that was read, as arrays: which items count, and the features that detectors work on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int, UInt64

from poolproof.audit.digests import Digests, find_duplicates, find_members, part_digests, part_scored
from poolproof.audit.engine import part_path
from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.groups import source_of
from poolproof.audit.plan import Plan
from poolproof.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """The evidence of one pool on disk: its plan and the folder of its parts."""

    plan: Plan
    folder: Path

    @property
    def kind(self) -> str:
        """How the pool is stored."""
        return self.plan.meta["reader"]["kind"]

    def parts(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The parts in the order of the plan."""
        for index in range(self.plan.n_shards):
            yield self._part(index, columns)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column over all parts, held whole."""
        return pa.chunked_array([chunk for part in self.parts([name]) for chunk in part.column(name).chunks])

    def take(self, columns: list[str], places: Int[np.ndarray, " m"]) -> pa.Table:
        """Some columns of the items at ascending positions of the plan; memory holds these and one part.

        Parts that hold none of them are not read.
        """
        ends = np.cumsum(self.plan.sizes)
        taken = []
        for index in np.unique(np.searchsorted(ends, places, side="right")).tolist():
            start = int(ends[index]) - self.plan.sizes[index]
            mine = places[(places >= start) & (places < ends[index])] - start
            taken.append(self._part(index, columns).take(pa.array(mine)))
        if not taken:
            return pa.schema([EVIDENCE.field(name) for name in columns]).empty_table()
        return pa.concat_tables(taken)

    def _part(self, index: int, columns: list[str] | None) -> pa.Table:
        with pq.ParquetFile(part_path(self.folder, index)) as file:
            return file.read(columns, use_threads=False)


def read_digests(evidence: Evidence) -> tuple[UInt64[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """The first 16 bytes of every item's content hash, and whether the item was scored; for references.

    Memory holds 17 bytes an item; the hashes of a pool are dealt to disk instead, see `deal_digests`.
    """
    digests, scored = [np.zeros((0, 2), np.uint64)], [np.zeros(0, bool)]
    for part in evidence.parts(["sha256", "status"]):
        digests.append(part_digests(part))
        scored.append(part_scored(part))
    return np.concatenate(digests), np.concatenate(scored)


def places_of(mask: Bool[np.ndarray, " n"], ranks: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """The positions of the true entries with the given ascending ranks; those of the others are not held."""
    found, before, stretch = [np.zeros(0, np.int64)], 0, 1 << 20
    for start in range(0, len(mask), stretch):
        here = np.flatnonzero(mask[start : start + stretch])
        first, last = np.searchsorted(ranks, [before, before + len(here)])
        found.append(here[ranks[first:last] - before] + start)
        before += len(here)
    return np.concatenate(found)


def part_features(part: pa.Table, embedder: str, keep: Bool[np.ndarray, " n"]) -> Float32[np.ndarray, "m d"]:
    """The feature vectors of the kept rows of a part, in the run's feature space."""
    column, kind = ("forensic", "<f4") if embedder == "forensic" else ("embedding", "<f2")
    mask = pa.array(keep)
    kept = part.column(column).filter(mask)
    if len(kept) == 0:
        return np.zeros((0, 0), np.float32)
    blocks = [_vectors(chunk, kind) for chunk in kept.chunks if len(chunk)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _vectors(chunk: pa.Array, kind: str) -> Float32[np.ndarray, "m d"]:
    """The vectors that a column of bytes holds; all are of one length."""
    width = len(chunk[0].as_py())
    offsets = np.frombuffer(chunk.buffers()[1], "<i4")[chunk.offset :][: len(chunk) + 1]
    if chunk.null_count or (np.diff(offsets) != width).any():
        raise RuntimeError(f"evidence: vectors of {width} bytes expected, others found among {len(chunk)}")
    values = np.frombuffer(chunk.buffers()[2], kind, len(chunk) * width // int(kind[-1]), int(offsets[0]))
    return values.reshape(len(chunk), -1).astype(np.float32)


@dataclass(frozen=True)
class Reference:
    """A reference pool that was read: the features of the items that may be used, and what was left out.

    Attributes:
        features: of the items that are scored, distinct, and not in the audited pool.
        n_items: all of its items.
        n_scored: those that could be read.
        n_overlap: scored items that are left out because the audited pool holds the same bytes.
        rows: their positions in the plan.
        origins: folder, tar or table that each of them comes from.
        named_by_folder: whether these are folders, which name what is in them.
        n_shared: items that are left out because the other reference holds the same bytes.
    """

    path: str
    features: Float32[np.ndarray, "n d"]
    digests: UInt64[np.ndarray, "n 2"]
    n_items: int
    n_scored: int
    n_overlap: int
    rows: Int[np.ndarray, " n"]
    origins: tuple[str, ...]
    named_by_folder: bool = False
    n_shared: int = 0

    def take(self, keep: Bool[np.ndarray, " n"]) -> Reference:
        """The reference with some of its usable items."""
        return replace(
            self,
            features=self.features[keep],
            digests=self.digests[keep],
            rows=self.rows[keep],
            origins=tuple(itertools.compress(self.origins, keep)),
        )


def read_reference(
    evidence: Evidence, path: str, role: str, embedder: str, pool: Digests | None
) -> Reference:
    """A reference pool's usable items.

    Args:
        evidence: of the reference.
        path: as it was given.
        role: `real` or `synthetic`.
        embedder: names the feature space.
        pool: hashes of the audited pool, None without one.

    Raises:
        InputError: every item of it is in the audited pool, or none could be read.
    """
    digests, scored = read_digests(evidence)
    shared = pool.holds(digests) & scored if pool is not None else np.zeros(len(scored), bool)
    keep = scored & ~find_duplicates(digests, scored) & ~shared
    if not scored.any():
        raise InputError(
            f"--{role} {path!r}: none of its {len(scored)} items can be read; give another reference"
        )
    if shared[scored].all():
        raise InputError(
            f"--{role} {path!r}: every item is in the audited pool too; a reference must be disjoint from the pool"
        )
    parts, origins, start = [], [], 0
    for part in evidence.parts(["forensic", "embedding", "source"]):
        chosen = keep[start : start + part.num_rows]
        start += part.num_rows
        features = part_features(part, embedder, chosen)
        if len(features):
            parts.append(features)
        for source in itertools.compress(part.column("source").to_pylist(), chosen):
            origins.append(source_of(source, evidence.kind))
    return Reference(
        path=path,
        features=np.concatenate(parts),
        digests=digests[keep],
        n_items=len(scored),
        n_scored=int(scored.sum()),
        n_overlap=int(shared.sum()),
        rows=np.flatnonzero(keep),
        origins=tuple(origins),
        named_by_folder=evidence.kind == "folder",
    )


def drop_shared(references: Mapping[str, Reference]) -> dict[str, Reference]:
    """The references without the items that both hold: one image cannot be real and synthetic.

    Raises:
        InputError: nothing is left of one of them.
    """
    if len(references) < 2:
        return dict(references)
    real, synthetic = references["real"], references["synthetic"]
    kept = {}
    for role, own, other in (("real", real, synthetic), ("synthetic", synthetic, real)):
        shared = find_members(own.digests, other.digests)
        if shared.all():
            raise InputError(
                f"--{role} {own.path!r}: every item of it is in the other reference too; give two different pools"
            )
        kept[role] = replace(own.take(~shared), n_shared=int(shared.sum()))
    return kept
