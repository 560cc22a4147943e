"""What the files of a pool are like, apart from their pixels: the facts that a pre-flight check looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Bool

from poolproof.audit.references import Evidence

FACTS: Final = {
    **{name: name for name in ("format", "mode", "width", "height", "quality", "subsampling", "n_bytes")},
    "exif": "has_exif",
}
"""Columns of the evidence that say how a file was made and not what it shows, and their names as facts."""

MOST: Final = 5000
"""Items a set that are looked at: enough to tell an AUC to a point, and quick."""

Facts = Mapping[str, list[Any]]
"""Values by fact, one per item."""


def read_facts(evidence: Evidence, keep: Bool[np.ndarray, " n"], *, rng: np.random.Generator) -> Facts:
    """The facts of the kept items, or of `MOST` of them drawn uniformly, in the plan's order.

    Args:
        evidence: of a pool or of a reference.
        keep: which items, by position in the plan.
        rng: draws.
    """
    chosen = keep.copy()
    if keep.sum() > MOST:
        chosen[:] = False
        chosen[rng.choice(np.flatnonzero(keep), MOST, replace=False)] = True
    facts: dict[str, list[Any]] = {name: [] for name in FACTS.values()}
    start = 0
    for part in evidence.parts(list(FACTS)):
        rows = np.flatnonzero(chosen[start : start + part.num_rows])
        start += part.num_rows
        taken = part.take(rows)
        for column, name in FACTS.items():
            facts[name] += taken.column(column).to_pylist()
    return facts
