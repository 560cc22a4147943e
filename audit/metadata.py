"""What the files of a pool are like, apart from their pixels: the facts that a pre-flight check looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Bool

from poolproof.audit.references import Evidence, places_of

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
    n = int(keep.sum())
    ranks = np.sort(rng.choice(n, MOST, replace=False)) if n > MOST else np.arange(n)
    taken = evidence.take(list(FACTS), places_of(keep, ranks))
    return {name: taken.column(column).to_pylist() for column, name in FACTS.items()}
