"""Precision, recall, density and coverage of a synthetic set against a real one, exact and in little memory.

A ball around each point reaches to its k-th nearest neighbour in its own set. Whether a point at exactly the
radius is inside is a parameter: `<=` is the rule of Kynkaanniemi et al., `<` the one of Naeem et al. They
differ only where distances tie, that is for duplicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float

from poolproof.detectors.balls import Ties, count_inside
from poolproof.detectors.neighbours import check_k, check_pair
from poolproof.detectors.radii import neighbour_radii
from poolproof.detectors.tiles import make_points
from poolproof.errors import InputError


@dataclass(frozen=True)
class PRDC:
    """Four figures of how a synthetic set relates to a real one; none of them is a share of synthetic items.

    Attributes:
        precision: share of synthetic points inside at least one real ball, in [0, 1].
        recall: share of real points inside at least one synthetic ball, in [0, 1].
        density: real balls that hold a synthetic point, mean over synthetic points, divided by k; at least 0
            and not bounded by 1.
        coverage: share of real balls that hold at least one synthetic point, in [0, 1].
        k: which neighbour sets the radius. Figures of different k or set sizes do not compare.
        ties: whether a point at exactly the radius is inside (`<=`) or not (`<`).
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    ties: Ties = "<="


def prdc(
    real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int = 5, *, ties: Ties = "<="
) -> PRDC:
    """Return precision, recall, density and coverage, equal to what the full double-precision matrix gives.

    Three distance matrices (two of them symmetric, so half of each) are walked in single-precision tiles
    whose rounding error is bounded; what the bound leaves open is computed in double precision. Memory grows
    with (n + m) d, time with (n^2/2 + m^2/2 + n m) d. As many threads are used as numpy's linear algebra has.

    Args:
        real: features of real items, more than k of them.
        synthetic: features of synthetic items, more than k of them.
        k: which neighbour sets the radius, at least 1.
        ties: `<=` counts a point at exactly the radius as inside, `<` does not. With `<`, a point that has k
            duplicates has an empty ball.

    Raises:
        InputError: k or ties is none of the allowed, a feature is not finite, or the widths differ.

    Source: Kynkaanniemi et al., arXiv 1904.06991 (precision, recall); Naeem et al., arXiv 2002.09797
        (density, coverage).
    """
    check_pair("real", real, "synthetic", synthetic)
    check_k(k, min(len(real), len(synthetic)) - 1)
    if ties not in get_args(Ties):
        raise InputError(f"ties: got {ties!r}, allowed {', '.join(get_args(Ties))}: take one of these")
    x, y = make_points(real, synthetic)
    around_synthetic, around_real = count_inside(
        y, x, row_radii=[neighbour_radii(y, k)], column_radii=[neighbour_radii(x, k)], ties=ties
    )
    return PRDC(
        precision=float((around_real[0].per_row > 0).mean()),
        recall=float((around_synthetic[0].per_column > 0).mean()),
        density=float(around_real[0].per_row.sum() / (k * len(synthetic))),
        coverage=float((around_real[0].per_column > 0).mean()),
        k=k,
        ties=ties,
    )
