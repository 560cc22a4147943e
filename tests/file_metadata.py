"""Metadata of made-up image sets for tests of pre-flight checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def file_metadata(
    rng: np.random.Generator,
    n: int,
    *,
    formats: Sequence[str] = ("JPEG",),
    sides: Sequence[int] = range(300, 900),
    qualities: Sequence[int] = (85, 90, 95),
    chroma: str = "4:2:0",
) -> dict[str, list[Any]]:
    """Return the metadata of n files, each fact drawn evenly from those given."""
    format = [formats[i] for i in rng.integers(0, len(formats), n)]
    width, height = (np.array(sides)[rng.integers(0, len(sides), n)].tolist() for _ in range(2))
    quality = np.array(qualities)[rng.integers(0, len(qualities), n)].tolist()
    return {
        "format": format,
        "mode": ["RGB"] * n,
        "width": width,
        "height": height,
        "quality": [q if f == "JPEG" else None for q, f in zip(quality, format, strict=True)],
        "subsampling": [chroma if f == "JPEG" else None for f in format],
        "n_bytes": [int(w * h * r) for w, h, r in zip(width, height, rng.uniform(0.1, 0.5, n), strict=True)],
    }
