"""Clipped density and clipped coverage: what share of a synthetic set is as good as real, and how much it covers.

Both are 1 for a synthetic set with the law of the real one and fall in proportion to the share of synthetic points
that lie nowhere near it. Density and coverage do neither: one outlying real point with a wide ball, or a few
synthetic points in the thick of the real ones, can lift density at will, and coverage saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64, Int64

from poolproof.detectors.balls import count_inside
from poolproof.detectors.neighbours import check_k, check_pair
from poolproof.detectors.radii import neighbour_radii
from poolproof.detectors.tiles import make_points


@final
@dataclass(frozen=True)
class ClippedMetrics:
    """Two figures in [0, 1] that read as shares of good synthetic points, and what they were made of.

    Attributes:
        density: of fidelity: `raw_density` over `real_density`, at most 1.
        coverage: of diversity: the share of the synthetic points that, drawn from the real law, would cover
            the real set as well as all of them do; at most 1.
        raw_density: mean over synthetic points of min(1, number of clipped real balls that hold it / k).
        real_density: the same of the real points, each without its own ball.
        raw_coverage: mean over real balls of min(1, number of synthetic points inside / k).
        k: which neighbour sets the radius.
    """

    density: float
    coverage: float
    raw_density: float
    real_density: float
    raw_coverage: float
    k: int


def clipped_metrics(
    real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int = 5
) -> ClippedMetrics:
    """Return clipped density and clipped coverage, exact as `prdc`.

    A real ball reaches to the k-th nearest other real point; for density no further than the median of these
    radii, so that an outlier's wide ball counts no synthetic points far from all others. A synthetic point counts at
    most as one, however many balls hold it; a ball counts at most as one, however many points it holds.

    Density is divided by what the real points get from each other. That is what a fresh real point would
    get, up to 1/n: a ball of x_j holds x_i, at most at its rim, exactly if x_i is among the k nearest of
    x_j, and it would hold a fresh point y exactly if y were among the k nearest of x_j in the set with y. For
    this a point at exactly the radius is inside. Coverage is turned into a share by `expected_coverage`.

    Args:
        real: features of real items, more than k of them.
        synthetic: features of synthetic items.
        k: which neighbour sets the radius, at least 1.

    Raises:
        InputError: k is out of range, a feature is not finite, or the widths differ.

    Source: Salvy, Talbot and Thirion, arXiv 2507.01761 (clipping, division by the real score, calibration
        of coverage); the normalisation without own balls and the calibration are derived here.
    Assumes: for reading a figure as a share, that synthetic points are of two kinds: good ones, with the law of the
        real ones, and bad ones outside all real balls. Independent draws, no ties.
    """
    check_pair("real", real, "synthetic", synthetic)
    check_k(k, len(real) - 1)
    x, y = make_points(real, synthetic)
    radii = neighbour_radii(x, k)
    clipped = np.minimum(radii, np.median(radii))
    _, (narrow, wide) = count_inside(y, x, column_radii=[clipped, radii])
    (left,), (right,) = count_inside(x, x, row_radii=[clipped], column_radii=[clipped], same=True)
    raw_density = _clipped_mean(narrow.per_row, k)
    real_density = _clipped_mean(left.per_column + right.per_row, k)
    raw_coverage = _clipped_mean(wide.per_column, k)
    return ClippedMetrics(
        density=min(1.0, raw_density / real_density),
        coverage=_share_covering(raw_coverage, len(real), len(synthetic), k),
        raw_density=raw_density,
        real_density=real_density,
        raw_coverage=raw_coverage,
        k=k,
    )


def expected_coverage(
    n_good: Int64[np.ndarray, " s"] | int, n_real: int, k: int
) -> Float64[np.ndarray, " s"] | float:
    """Return the mean raw clipped coverage when `n_good` synthetic points have the law of the real ones.

    The probability mass p of a ball to the k-th of n - 1 other points is Beta(k, n - k), whatever the law;
    given p, the number C of good points inside is binomial. So C is beta-binomial, and

        E min(C, k)/k = 1 - sum_(c < k) (1 - c/k) P(C = c).

    For k = 1 this is the expected coverage 1 - P(C = 0) of Naeem et al.

    Args:
        n_good: number of good synthetic points.
        n_real: number of real points, more than k.
        k: which neighbour sets the radius.

    Source: derived; P(C = 0) is lemma 2 of Naeem et al., arXiv 2002.09797.
    Assumes: a law without ties.
    """
    from scipy import stats

    missing = sum((1 - c / k) * stats.betabinom.pmf(c, n_good, k, n_real - k) for c in range(k))
    return 1 - missing


def _share_covering(raw: float, n_real: int, n_synthetic: int, k: int) -> float:
    """Return the share of good points whose expected raw coverage is the given one, at most 1."""
    # Between whole numbers of good points the expectation is taken as linear. It rises throughout.
    low, high = 0, n_synthetic
    if raw >= expected_coverage(high, n_real, k):
        return 1.0
    while high - low > 1:
        middle = (low + high) // 2
        if expected_coverage(middle, n_real, k) <= raw:
            low = middle
        else:
            high = middle
    at_low, at_high = (float(expected_coverage(n, n_real, k)) for n in (low, high))
    return (low + (raw - at_low) / (at_high - at_low)) / n_synthetic


def _clipped_mean(counts: Int64[np.ndarray, " s"], k: int) -> float:
    """Return the mean of counts over k, each at most 1."""
    return float(np.minimum(counts, k).mean() / k)
