"""Where a curve that is known by simulation alone rises through 0: a bracket, then the root of a cubic in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

REACH: Final = 0.4
"""Half the width of the neighbourhood of the root that is sampled; the curve is close to a cubic over it."""

_STEP: Final = math.log(2)
"""Steps in which the rise is bracketed."""


class Sample(NamedTuple):
    """A point of the curve.

    Attributes:
        place: where.
        height: of the curve.
        error: its standard error, without what is common to all points.
    """

    place: float
    height: float
    error: float


def bracket_border(
    start: float, sample: Callable[[float, float], Sample], common_error: float, *, highest: float
) -> float:
    """A place near the rise through 0; infinity where the curve is still below at `highest`, minus infinity above at 0.

    Each place is sampled until its side is clear, or the curve is found to be within 0.3 % of 0 there.

    Args:
        start: where to look first.
        sample: gives a point of the curve at a place, to a precision.
        common_error: standard error that all points share.
        highest: place beyond which nothing is looked for; 0 is the lowest.
    """

    def side(x: float) -> float:
        for precision in (0.005, 0.002, 0.001):
            found = sample(max(x, 0.0), precision)
            if abs(found.height) > 3 * math.hypot(found.error, common_error):
                return math.copysign(1.0, found.height)
        return 0.0

    x = min(start, highest)
    first = here = side(x)
    while here and here == first:
        x -= here * _STEP
        if here < 0 and x > highest:
            return math.inf
        if here > 0 and x < -_STEP:
            return -math.inf
        here = side(x)
    return max(x + here * _STEP / 2 if here == 0 else x - here * _STEP / 2, 0.0)


def fit_border(samples: Sequence[Sample], around: float, common_error: float) -> tuple[float, float]:
    """Root and its error of the cubic fitted to the samples; infinite where no clear rise through 0 is near.

    Args:
        samples: of the curve, some of them within `REACH` of `around`.
        around: about where the root is.
        common_error: standard error that all points share.
    """
    x, height, error = np.array([each for each in samples if abs(each.place - around) <= 1.5 * REACH]).T
    inverse = np.linalg.pinv(np.vander(x - around, 4) / error[:, None])
    coefficients = inverse @ (height / error)
    covariance = inverse @ inverse.T
    cubic = np.poly1d(coefficients)
    rising = [z.real for z in cubic.roots if abs(z.imag) < 1e-9 and cubic.deriv()(z.real) > 0]
    if not rising:
        return around, math.inf
    root = float(min(rising, key=abs))
    if abs(root) > REACH:
        return around + math.copysign(REACH, root), math.inf
    slopes = np.array([3 * root**2, 2 * root, 1.0, 0.0])
    slope, slope_error = float(slopes @ coefficients), math.sqrt(float(slopes @ covariance @ slopes))
    if slope < 3 * slope_error:
        return around + root, math.inf
    powers = np.vander([root], 4)[0]
    return around + root, math.sqrt(float(powers @ covariance @ powers) + common_error**2) / slope
