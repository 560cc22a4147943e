"""What becomes of vectors before they are stored in half precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poolproof.detectors.backbone import mark_overflow, unit_rows


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(arrays(np.float32, (4, 3), elements=st.floats(width=32)))
def test_rows_are_held_by_half_precision_or_are_nan(vectors: np.ndarray) -> None:
    """Rows that come through are finite in half precision, and exactly those that are not become NaN."""
    with np.errstate(over="ignore"):
        held = np.isfinite(vectors.astype(np.float16)).all(axis=1)
    marked = mark_overflow(vectors)
    stored = marked.astype(np.float16)  # warns of no overflow
    np.testing.assert_array_equal(np.isfinite(stored).all(axis=1), held)
    np.testing.assert_array_equal(marked[held], vectors[held])
    assert np.isnan(marked[~held]).all()


@pytest.mark.parametrize("value", [65_504.0, 65_519.996, 65_520.0, 65_536.0])
def test_the_limit_is_that_of_half_precision(value: float) -> None:
    """The largest number that half precision does not make infinite comes through, up to the last single one."""
    vector = np.array([[value]], np.float32)
    with np.errstate(over="ignore"):
        held = np.isfinite(vector.astype(np.float16)).all()
    assert np.isfinite(mark_overflow(vector)).all() == held


def test_length_one_whatever_the_length() -> None:
    """Tiny and huge vectors get length 1; zeros have no direction and stay."""
    vectors = np.array([[3, 4], [3e30, 4e30], [3e-9, 4e-9], [0, 0]], np.float32)
    np.testing.assert_allclose(unit_rows(vectors)[:3], [[0.6, 0.8]] * 3, rtol=1e-6)
    np.testing.assert_array_equal(unit_rows(vectors)[3], 0)
