"""Each check lets through what its text allows, and names what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from poolproof.simulate.checks import check_count, check_range, check_sampling_bias


@pytest.mark.parametrize("n", [2, 3, 10**30, np.int64(2), np.uint8(200)])
def test_whole_numbers_are_counts(n: object) -> None:
    """Python's and NumPy's whole numbers pass from the least one on."""
    check_count("n", n, 2)


@pytest.mark.parametrize("n", [1, -2, np.int64(1), 2.0, np.float64(3), math.nan, True, np.True_, "2", None])
def test_no_count_is_refused(n: object) -> None:
    """Too few, and what is no whole number though it may compare like one."""
    assert assert_refused(lambda: check_count("n", n, 2), "n") == (
        f"n: got {n!r}, allowed a whole number from 2; give a larger count"
    )


def test_count_ends_with_its_remedy() -> None:
    """A check that knows better what to do says so."""
    message = assert_refused(lambda: check_count("dim", 0, 1, "use one dimension or more"), "dim")
    assert message == "dim: got 0, allowed a whole number from 1; use one dimension or more"


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.5, np.float32(0.5), np.int64(1)])
def test_ends_are_in_the_range(value: object) -> None:
    """Numbers between the ends pass, and the ends do too."""
    check_range("share", value, 0.0, 1.0)


@pytest.mark.parametrize(
    "value", [-1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf, np.float64(2), True, np.True_, "0.5", None]
)
def test_outside_the_range_is_refused(value: object) -> None:
    """Numbers beyond the ends, and what is no number."""
    assert assert_refused(lambda: check_range("share", value, 0.0, 1.0), "share") == (
        f"share: got {value!r}, allowed finite numbers from 0 to 1; give a value in this range"
    )


def test_range_may_leave_out_its_lower_end() -> None:
    """With `above`, the lower end is refused and the next number passes."""
    message = assert_refused(lambda: check_range("share", 0, 0.0, 1.0, above=True), "share")
    assert message == "share: got 0, allowed finite numbers above 0 to 1; give a value in this range"
    check_range("share", math.nextafter(0, 1), 0.0, 1.0, above=True)
    check_range("share", 1.0, 0.0, 1.0, above=True)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_endless_ranges_hold_finite_numbers_only(value: float) -> None:
    """A range without an end still refuses infinity."""
    check_range("strength", -1e300, -math.inf, math.inf)
    message = assert_refused(lambda: check_range("strength", value, -math.inf, math.inf), "strength")
    assert f"got {value}, allowed finite numbers from -inf to inf" in message


@pytest.mark.property
@settings(deadline=None)
@given(st.floats() | st.integers(-3, 3))
def test_sampling_bias_is_a_share(bias: float) -> None:
    """Exactly the numbers from 0 to 1 pass."""
    if 0 <= bias <= 1:
        check_sampling_bias(bias)
    else:
        message = assert_refused(lambda: check_sampling_bias(bias), "sampling_bias")
        assert f"got {bias!r}, allowed finite numbers from 0 to 1" in message
