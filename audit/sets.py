"""A pool against its real reference, set against set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32

from poolproof.audit.references import Reference

NEIGHBOURS: Final = 5
"""k of precision and recall: 5 in the self-consuming-loops literature; never compare across k."""


@dataclass(frozen=True)
class SetMetrics:
    """Set metrics of the pool against the real reference, None with the reason where they cannot be had.

    Attributes:
        precision: share of pool items inside the support of the real ones.
        recall: share of real items inside the support of the pool.
        density: how deep the pool's items lie in the real support; not bounded by 1.
        coverage: share of real items with a pool item near.
        frechet_distance: squared Frechet distance of Gaussian fits; None with fewer items than features.
        n_pool: items of the pool that were compared.
        n_real: items of the reference that were compared.
        why: the reason for each None.
    """

    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    frechet_distance: float | None = None
    n_pool: int | None = None
    n_real: int | None = None
    why: str | None = None


def compare_sets(
    sampled: Sequence[Float32[np.ndarray, "_ d"]],
    real: Reference | None,
    embedder: str,
    *,
    rng: np.random.Generator,
) -> SetMetrics:
    """Precision, recall, density, coverage and Frechet distance on two samples of one size.

    Args:
        sampled: features of the pool's sample, part by part.
        real: the real reference; None gives no figure.
        embedder: the feature space. Weight-free features are standardised by the reference, since their parts
            have different scales; embeddings are taken as they are.
        rng: draws the reference's sample.
    """
    from poolproof.detectors.detector import split_finite
    from poolproof.detectors.distance import frechet_distance
    from poolproof.detectors.prdc import prdc
    from poolproof.detectors.scaling import fit_scaling

    if real is None:
        return SetMetrics(why="no real reference was given")
    pool = np.concatenate(sampled) if sampled else np.zeros((0, real.features.shape[1]), np.float32)
    pool, finite = split_finite(pool)[0], split_finite(real.features)[0]
    n = min(len(pool), len(finite))
    if len(pool) > n:
        pool = pool[np.sort(rng.choice(len(pool), size=n, replace=False))]
    if n < NEIGHBOURS + 2:
        return SetMetrics(why=f"{n} items on the smaller side; {NEIGHBOURS + 2} are needed")
    chosen = np.sort(rng.choice(len(finite), size=n, replace=False))
    theirs = finite[chosen]
    if embedder == "forensic":
        scaling = fit_scaling(finite)
        pool, theirs = scaling.apply(pool), scaling.apply(theirs)
    figures = prdc(theirs, pool, k=NEIGHBOURS)
    d = pool.shape[1]
    return SetMetrics(
        precision=float(figures.precision),
        recall=float(figures.recall),
        density=float(figures.density),
        coverage=float(figures.coverage),
        frechet_distance=float(frechet_distance(theirs, pool)) if n > d else None,
        n_pool=n,
        n_real=n,
        why=None if n > d else f"a Frechet distance needs more items than features: {n} of {d}",
    )
