"""Checks of what a user can get wrong in a loop's options, each with one line that says what is allowed."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from poolproof.errors import InputError

MOST_SAMPLES: Final = 10**15
"""Samples beyond which counts are no longer exact as floats."""


MOST_DIMENSIONS: Final = 10_000
"""Dimensions beyond which the matrices of a few loops fit into no usual memory."""


def check_dim(dim: object) -> None:
    """Raises InputError where `dim` is not a whole number from 1 to `MOST_DIMENSIONS`."""
    check_count("dim", dim, least=1)
    if isinstance(dim, (int, np.integer)) and dim > MOST_DIMENSIONS:
        raise InputError(f"dim: got {dim}, allowed a whole number from 1 to {MOST_DIMENSIONS:,}; give fewer")


def check_samples(name: str, n: object, least: int) -> None:
    """Raises InputError where `n` is not a whole number of samples, from `least` to `MOST_SAMPLES`."""
    check_count(name, n, least)
    if isinstance(n, (int, np.integer)) and n > MOST_SAMPLES:
        raise InputError(
            f"{name}: got {n}, allowed a whole number from {least} to 10^15; give a smaller count"
        )


def check_count(name: str, n: object, least: int, remedy: str = "give a larger count") -> None:
    """Raises InputError where `n` is not a whole number of at least `least`."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < least:
        got = " ".join(repr(n).split())
        raise InputError(f"{name}: got {got:.60}, allowed a whole number from {least}; {remedy}")


def check_range(
    name: str, value: object, low: float | int, high: float | int, *, above: bool = False
) -> None:
    """Raises InputError unless the value is finite and low <= value <= high; with `above`, low < value."""
    x = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            x = float(value)
        except OverflowError:  # a whole number beyond the largest float
            x = math.inf
    if not low <= x <= high or (above and x == low) or math.isinf(x):
        ends = f"{'above' if above else 'from'} {low:g} to {high:g}"
        got = " ".join(repr(value).split())
        raise InputError(f"{name}: got {got:.60}, allowed finite numbers {ends}; give a value in this range")


def check_sampling_bias(sampling_bias: object) -> None:
    """Raises InputError where the bias is outside [0, 1]."""
    check_range("sampling_bias", sampling_bias, 0.0, 1.0)
