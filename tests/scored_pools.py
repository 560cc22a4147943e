"""Audited pools without pixels: scores drawn from two laws, and the truth of each item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poolproof.audit.scored_pool import SCORED, ScoredPool, ShareLimits, Standing
from poolproof.detectors.prevalence import interval, split_level, with_floor


@dataclass(frozen=True, eq=False)
class DrawnPool:
    """A pool and its truth."""

    pool: ScoredPool
    is_synthetic: np.ndarray

    def left(self, gone: np.ndarray) -> int:
        """Synthetic items that a cut leaves."""
        return int((self.is_synthetic & ~gone).sum())

    def lost(self, gone: np.ndarray) -> int:
        """Real items that it removes."""
        return int((~self.is_synthetic & gone).sum())


def draw_pool(
    rng: np.random.Generator,
    *,
    n: int = 600,
    share: float = 0.3,
    found_share: float = 0.2,
    separation: float = 2.5,
    n_reference: int = 400,
    n_unanswered: int = 0,
    level: float = 0.95,
) -> DrawnPool:
    """A pool of `n` scored items whose scores are normal, the synthetic ones shifted by `separation`.

    Flags are scores above half of the separation; the share's limits are those an audit would give.
    """
    is_synthetic = rng.permutation(n) < round(n * share)
    scores = (rng.standard_normal(n) + separation * is_synthetic).astype(np.float32)
    tier = np.where(is_synthetic & (rng.random(n) < found_share), rng.integers(1, 4, size=n), 0)
    scores[rng.permutation(n)[:n_unanswered]] = np.nan
    threshold = separation / 2
    real = rng.standard_normal(n_reference).astype(np.float32)
    synthetic = (rng.standard_normal(n_reference) + separation).astype(np.float32)
    rest = tier == 0
    told = rest & ~np.isnan(scores)
    counts = (int((synthetic > threshold).sum()), n_reference, int((real > threshold).sum()), n_reference)
    found = interval(
        int((scores[told] > threshold).sum()), int(told.sum()), *counts, level=split_level(level)
    )
    whole = with_floor(int((~rest).sum()), found, int(rest.sum()))
    standing = Standing(
        ShareLimits(whole.point, whole.lower, whole.upper, split_level(level)),
        level,
        threshold,
        real.astype(np.float64),
        synthetic.astype(np.float64),
        None,
        None,
    )
    pool = ScoredPool(np.full(n, SCORED, np.uint8), tier.astype(np.uint8), scores, standing)
    return DrawnPool(pool, is_synthetic)
