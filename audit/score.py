"""The scorer: one pure function from a shard to its evidence, the same in every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from poolproof.audit.decode import decode_image
from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.marks import control_found
from poolproof.audit.plan import Shard
from poolproof.audit.pool import Unread
from poolproof.detectors.cache import EmbeddingCache, embed_cached, reader_identity
from poolproof.detectors.embed import AbstractEmbedder, load_embedder
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.provenance import is_declared, is_signed, read_provenance
from poolproof.detectors.stealth import read_stealth
from poolproof.watermark.payloads import Payload, load_payloads
from poolproof.watermark.public_marks import read_marks
from poolproof.watermark.significance import DETECTION_LEVEL

_CONTROL_EVERY: Final = 8
"""A mark is written in memory into one of so many items, to see whether it would be found; content decides which."""

_EMBED_BATCH: Final = 32
_EMBED_BYTES: Final = 64 << 20

Progress = Callable[[int], None]
"""Called with an item's row before its bytes are read, and with -1 when none is at hand."""


@final
@dataclass(frozen=True)
class Scorer:
    """What is read off every item. Small and picklable; models load on first use, once a process.

    Args:
        embedder: a resolved spec: `forensic` for the weight-free features alone, or `clip:MODEL/WEIGHTS`.
        marks: whether public marks are read.
        cache: folder in which vectors are remembered by content; None remembers none. A model's vectors may
            differ in the last bit with what is embedded beside them, so with a cache, evidence may too.
    """

    embedder: str = "forensic"
    marks: bool = True
    cache: str | None = None

    @cached_property
    def payloads(self) -> tuple[Payload, ...]:
        """The public payloads that are tried."""
        return load_payloads() if self.marks else ()

    @cached_property
    def model(self) -> AbstractEmbedder | None:
        """The embedding model, None for the weight-free features."""
        return load_embedder(self.embedder)

    @cached_property
    def remembered(self) -> EmbeddingCache | None:
        """The cache of the model's vectors, None without."""
        if self.cache is None or self.model is None:
            return None
        return EmbeddingCache(Path(self.cache), reader_identity(self.model))

    def __getstate__(self) -> dict[str, Any]:
        return {"embedder": self.embedder, "marks": self.marks, "cache": self.cache}


@dataclass
class _Batch:
    """Pixels that wait for the embedding model. It never reaches beyond its shard."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    pixels: list[UInt8[np.ndarray, "h w 3"]] = field(default_factory=list)

    def is_full(self) -> bool:
        return len(self.pixels) >= _EMBED_BATCH or sum(p.nbytes for p in self.pixels) >= _EMBED_BYTES

    def flush(self, scorer: Scorer) -> None:
        if not self.pixels or scorer.model is None:
            return
        keys = [row["sha256"] for row in self.rows]
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and detectors abstain from it
            vectors = embed_cached(scorer.model, self.pixels, scorer.remembered, keys).astype(np.float16)
        for row, vector in zip(self.rows, vectors, strict=True):
            row["embedding"] = vector.tobytes()
        self.rows, self.pixels = [], []


def score_shard(
    shard: Shard,
    scorer: Scorer,
    *,
    skip: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """The shard's evidence, schema `EVIDENCE`, one row per item in the shard's order.

    Pure: the same bytes in give the same table out, on every machine with the same library versions. Bytes
    are read once and decoded once; a damaged item costs its own row, with a status and a reason.

    Args:
        shard: which items.
        scorer: what is read off them.
        skip: reasons by row for items that are not touched: decoding them has killed a process.
        progress: told where the work is, so that the engine can name the item that killed it.
    """
    rows: list[dict[str, Any]] = []
    batch = _Batch()
    refs = [ref for ref in shard.refs if not skip or ref.row not in skip]
    reads = iter(shard.reader.read(refs))
    for ref in shard.refs:
        row: dict[str, Any] = {"row": ref.row, "key": ref.key, "source": ref.source.replace("\0", "\\0")}
        rows.append(row)
        if skip and ref.row in skip:
            row.update(status="unreadable", reason=skip[ref.row])
            continue
        if progress is not None:
            progress(ref.row)
        data = next(reads)
        if isinstance(data, Unread):
            row.update(status=data.status, reason=data.reason)
            continue
        pixels = _read_item(data, scorer, row)
        if pixels is not None and scorer.model is not None:
            batch.rows.append(row)
            batch.pixels.append(pixels)
            if batch.is_full():
                batch.flush(scorer)
    batch.flush(scorer)
    if progress is not None:
        progress(-1)
    return pa.Table.from_pylist(rows, schema=EVIDENCE)


def _read_item(data: bytes, scorer: Scorer, row: dict[str, Any]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Fills in the row from the item's bytes; returns the pixels where they could be decoded."""
    row.update(n_bytes=len(data), sha256=hashlib.sha256(data).digest())
    decoded = decode_image(data)
    row.update(status=decoded.status, reason=decoded.reason)
    if decoded.header is not None:
        row.update(vars(decoded.header))
    findings = read_provenance(data)
    if decoded.pixels is not None:
        findings += read_stealth(decoded.pixels, decoded.alpha)
    row.update(
        findings=[vars(finding) for finding in findings],
        signed=is_signed(findings),
        declared=is_declared(findings),
    )
    if decoded.pixels is None:
        return None
    if scorer.marks:
        reading = read_marks(decoded.pixels, scorer.payloads)
        if reading is not None:
            row.update(
                mark_payload=reading.payload,
                mark_variant=str(reading.variant),
                mark_pvalue=reading.p_value,
            )
        row["marked"] = reading is not None and reading.p_value < DETECTION_LEVEL
        digest = row["sha256"]
        if reading is not None and digest[0] % _CONTROL_EVERY == 0:
            turn, rng = int.from_bytes(digest[1:3]), np.random.default_rng(list(digest))
            row["mark_control"] = control_found(
                decoded.pixels, decoded.header, scorer.payloads, turn, rng=rng
            )
    row["forensic"] = forensic_features(decoded.pixels).tobytes()
    return decoded.pixels
