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

from poolproof.audit.engine import part_path
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
            yield pq.read_table(part_path(self.folder, index), columns=columns)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column over all parts."""
        return pa.chunked_array([chunk for part in self.parts([name]) for chunk in part.column(name).chunks])


def read_digests(evidence: Evidence) -> tuple[UInt64[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """The first 16 bytes of every item's content hash, and whether the item was scored.

    128 bits: among 10^9 items two different ones agree with probability below 10^-20.
    """
    digests, scored = [], []
    for part in evidence.parts(["sha256", "status"]):
        values = part.column("sha256").to_pylist()
        raw = b"".join(value[:16] if value is not None else bytes(16) for value in values)
        digests.append(np.frombuffer(raw, "<u8").reshape(-1, 2))
        scored.append(np.array([status == "scored" for status in part.column("status").to_pylist()], bool))
    return np.concatenate(digests), np.concatenate(scored)


def find_duplicates(
    digests: UInt64[np.ndarray, "n 2"], scored: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which items have the same bytes as an earlier scored one."""
    order = np.lexsort((np.arange(len(digests)), digests[:, 1], digests[:, 0], ~scored))
    ordered = digests[order]
    same = np.r_[False, (ordered[1:] == ordered[:-1]).all(axis=1)] if len(order) else np.zeros(0, bool)
    repeated = np.zeros(len(digests), bool)
    repeated[order] = same
    return repeated & scored


def find_members(
    digests: UInt64[np.ndarray, "n 2"], others: UInt64[np.ndarray, "m 2"]
) -> Bool[np.ndarray, " n"]:
    """Which digests occur among the others."""
    candidates = np.isin(digests[:, 0], others[:, 0])
    if not candidates.any():
        return candidates
    known = {tuple(pair) for pair in others[np.isin(others[:, 0], digests[candidates, 0])].tolist()}
    return np.array(
        [c and tuple(pair) in known for c, pair in zip(candidates, digests.tolist(), strict=True)]
    )


def fold_of(digests: UInt64[np.ndarray, "n 2"], folds: int) -> Int[np.ndarray, " n"]:
    """The cross-fitting fold of each item, from its content alone: order and shards do not matter."""
    return (digests[:, 0] % np.uint64(folds)).astype(np.int64)


def part_features(part: pa.Table, embedder: str, keep: Bool[np.ndarray, " n"]) -> Float32[np.ndarray, "m d"]:
    """The feature vectors of the kept rows of a part, in the run's feature space."""
    column, kind = ("forensic", "<f4") if embedder == "forensic" else ("embedding", "<f2")
    values = [value for value, kept in zip(part.column(column).to_pylist(), keep, strict=True) if kept]
    if not values:
        return np.zeros((0, 0), np.float32)
    return np.frombuffer(b"".join(values), kind).reshape(len(values), -1).astype(np.float32)


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
    evidence: Evidence, path: str, role: str, embedder: str, pool_digests: UInt64[np.ndarray, "m 2"]
) -> Reference:
    """A reference pool's usable items.

    Raises:
        InputError: every item of it is in the audited pool, or none could be read.
    """
    digests, scored = read_digests(evidence)
    shared = find_members(digests, pool_digests) & scored
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
