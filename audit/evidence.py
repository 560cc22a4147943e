"""The evidence table: one row per item of a pool, every row in exactly one status."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

STATUSES: Final = ("scored", "unreadable", "unsupported", "duplicate", "missing")
"""What can become of an item. The counts of the five add up to the pool's size, always."""

FINDING: Final = pa.struct(
    [
        ("tier", pa.string()),
        ("synthetic", pa.bool_()),
        ("source", pa.string()),
        ("field", pa.string()),
        ("value", pa.string()),
        ("confidence", pa.string()),
    ]
)

EVIDENCE: Final = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False, metadata={"doc": "position in the pool, from 0"}),
        pa.field("key", pa.string(), nullable=False, metadata={"doc": "the item's name in the pool"}),
        pa.field("source", pa.string(), nullable=False, metadata={"doc": "file that holds it"}),
        pa.field("status", pa.string(), nullable=False, metadata={"doc": "one of five words"}),
        pa.field("reason", pa.string(), metadata={"doc": "why, where the status is not scored"}),
        pa.field("n_bytes", pa.int64(), metadata={"doc": "encoded size"}),
        pa.field("sha256", pa.binary(32), metadata={"doc": "of the encoded bytes"}),
        pa.field("format", pa.string(), metadata={"doc": "JPEG, PNG, ..."}),
        pa.field("mode", pa.string(), metadata={"doc": "pixel mode as stored: RGB, L, CMYK, I;16, ..."}),
        pa.field("width", pa.int32(), metadata={"doc": "pixels, as stored"}),
        pa.field("height", pa.int32(), metadata={"doc": "pixels, as stored"}),
        pa.field("frames", pa.int32(), metadata={"doc": "more than 1: animated; the first is scored"}),
        pa.field("quality", pa.int16(), metadata={"doc": "JPEG quality by its tables, 1 to 100"}),
        pa.field("subsampling", pa.string(), metadata={"doc": "JPEG chroma: 4:4:4, 4:2:2, 4:2:0, other"}),
        pa.field("exif", pa.bool_(), metadata={"doc": "the file carries EXIF data"}),
        pa.field("findings", pa.list_(FINDING), metadata={"doc": "provenance of bytes and pixel bits"}),
        pa.field("signed", pa.bool_(), metadata={"doc": "an intact signature states synthesis"}),
        pa.field("declared", pa.bool_(), metadata={"doc": "unsigned metadata state synthesis"}),
        pa.field("marked", pa.bool_(), metadata={"doc": "a public mark was read, family-wise"}),
        pa.field("mark_payload", pa.string(), metadata={"doc": "the best payload"}),
        pa.field(
            "mark_variant", pa.string(), metadata={"doc": "how that was written: algorithm/array/channels"}
        ),
        pa.field("mark_pvalue", pa.float64(), metadata={"doc": "its p-value, family-wise"}),
        pa.field(
            "mark_control",
            pa.bool_(),
            metadata={"doc": "a mark written in memory would be found"},
        ),
        pa.field("forensic", pa.binary(), metadata={"doc": "weight-free features, float32"}),
        pa.field("embedding", pa.binary(), metadata={"doc": "model features, float16"}),
    ]
)
"""Columns of `RUN/evidence/part-*.parquet`. Vectors are bytes because a null inside a fixed-size list
cannot be read back by every pyarrow release."""

ITEMS: Final = pa.schema(
    [EVIDENCE.field(name) for name in ("row", "key", "source", "status", "reason", "n_bytes", "format")]
    + [EVIDENCE.field(name) for name in ("mode", "width", "height", "quality", "subsampling", "exif")]
    + [EVIDENCE.field(name) for name in ("signed", "declared", "marked")]
    + [EVIDENCE.field(name) for name in ("mark_payload", "mark_variant", "mark_pvalue", "mark_control")]
    + [
        pa.field("evidence", pa.string(), metadata={"doc": "the strongest finding in words"}),
        pa.field("score", pa.float32(), metadata={"doc": "probe; larger = more synthetic"}),
        pa.field("knn_score", pa.float32(), metadata={"doc": "neighbours; larger = more synthetic"}),
        pa.field("flagged", pa.bool_(), metadata={"doc": "score above the detector's threshold"}),
    ]
)
"""Columns of `RUN/items.parquet`, the answer per item."""
