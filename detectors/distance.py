"""The Frechet distance between two sets of features."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.neighbours import check_pair
from poolproof.errors import InputError

ROWS: Final = 4096
"""Items whose products are summed at a time."""


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Return the squared Frechet distance of the normal distributions fitted to two feature sets.

    It is |mean_a - mean_b|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2)), with unbiased covariances A and B.
    The last trace is the sum of the singular values of A^(1/2) B^(1/2); the roots come from symmetric
    eigen-decompositions in double precision. Eigenvalues of rounding size count as 0, so that directions
    without variance (fewer items than features) add no noise; no ridge is added.

    Args:
        a: features, at least 2 rows.
        b: features, at least 2 rows.

    Returns:
        A figure of at least 0, in squared feature units. It is 0 for equal sets, and its bias grows with d/n:
        compare only sets of equal size.

    Raises:
        InputError: a set has fewer than 2 rows, a feature is not finite, or the widths differ.

    Source: Dowson and Landau, J. Multivar. Anal. 12 (1982) 450-455; Heusel et al., arXiv 1706.08500.
    Assumes: nothing for the figure itself; that it tells distributions apart rests on normal features.
    """
    check_pair("a", a, "b", b)
    for name, features in (("a", a), ("b", b)):
        if len(features) < 2:
            raise InputError(f"{name}: got {len(features)} rows, allowed 2 or more: give more items")
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    shift = mean_a - mean_b
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(0.0, float(shift @ shift + spread))


def _moments(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "r d"]]:
    """Return the mean and a root R with R^T R the unbiased covariance; r is its numerical rank."""
    n, d = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, ROWS):
        block = features[start : start + ROWS] - mean
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance / (n - 1))
    kept = values > d * np.finfo(np.float64).eps * values[-1]
    return mean, np.sqrt(values[kept])[:, None] * vectors[:, kept].T
