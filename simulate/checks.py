"""Checks of what a user can get wrong in a loop's options, each with one line that says what is allowed."""

from __future__ import annotations

import math

import numpy as np

from poolproof.errors import InputError


def check_count(name: str, n: object, least: int, remedy: str = "give a larger count") -> None:
    """Raises InputError where `n` is not a whole number of at least `least`."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < least:
        raise InputError(f"{name}: got {n!r}, allowed a whole number from {least}; {remedy}")


def check_range(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    """Raises InputError unless the value is finite and low <= value <= high; with `above`, low < value."""
    x = (
        float(value)
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        else math.nan
    )
    if not low <= x <= high or (above and x == low) or math.isinf(x):
        ends = f"{'above' if above else 'from'} {low:g} to {high:g}"
        raise InputError(f"{name}: got {value!r}, allowed finite numbers {ends}; give a value in this range")


def check_sampling_bias(sampling_bias: object) -> None:
    """Raises InputError where the bias is outside [0, 1]."""
    check_range("sampling_bias", sampling_bias, 0.0, 1.0)
