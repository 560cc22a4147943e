"""Leading singular pairs against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.watermark.singular import leading_pairs


@settings(deadline=None, max_examples=40)
@pytest.mark.reference
@pytest.mark.property
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 30.0, 3000.0]), st.integers(2, 5))
def test_values_and_vectors_are_those_of_lapack(seed: int, offset: float, k: int) -> None:
    """Well separated, close and equal singular values, matrices of zeros and of rank one."""
    matrices = np.random.default_rng(seed).normal(scale=10, size=(k, k, 60)) + offset
    matrices[:, :, 0] = 0
    matrices[:, :, 1] = 1
    matrices[:, :, 2] = np.eye(k)
    values, left, right = leading_pairs(matrices)
    expected = np.linalg.svd(matrices.transpose(2, 0, 1), compute_uv=False)[:, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((right**2).sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose((left**2).sum(axis=0), 1, rtol=1e-9)
    # the left vector is exact by its making; the value is what it leaves of the matrix
    np.testing.assert_allclose(
        np.einsum("ijn,jn->in", matrices, right), values * left, atol=1e-9 * offset + 1e-9
    )
