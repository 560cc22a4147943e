"""The leading singular values and vectors of many small matrices at once."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32, Float64

_SQUARINGS: Final = (2, 4)
"""Rounds of squaring: the ratio of two singular values counts with its 8th, then with its 128th power."""

_RESIDUAL: Final = 1e-5
"""Relative residual up to which a vector stands; the error of the value is its square."""


def leading_pairs(
    matrices: Float64[np.ndarray, "k k n"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "k n"], Float64[np.ndarray, "k n"]]:
    """Largest singular values with their left and right vectors, as in M v = s u.

    Powers of M'M side by side, in 32 bits since only directions are taken from them; where two values lie close
    together more powers, and where they hardly differ LAPACK. Several times as fast as LAPACK on each.

    Args:
        matrices: one along the last axis.
    """
    gram = np.einsum("kin,kjn->ijn", matrices, matrices)
    trace = np.einsum("iin->n", gram)
    safe = np.where(trace == 0, 1.0, trace)  # a matrix of zeros has the value 0 with any vectors
    power = (gram / safe).astype(np.float32)
    squared, right = np.zeros_like(trace), np.zeros(matrices.shape[1:])
    right[0] = 1.0
    left = right.copy()
    pending = np.flatnonzero(trace)
    power = power if pending.size == trace.size else power[:, :, pending]
    for rounds in _SQUARINGS:
        for _ in range(rounds):
            power = np.einsum("ikn,kjn->ijn", power, power)
            power /= np.einsum("iin->n", power)
        vectors = _longest_columns(power)
        images = np.einsum("ijn,jn->in", gram[:, :, pending], vectors)
        values = (vectors * images).sum(axis=0)
        right[:, pending], squared[pending] = vectors, values
        close = ((images - values * vectors) ** 2).sum(axis=0) > (_RESIDUAL * values) ** 2
        pending, power = pending[close], power[:, :, close]
        if not pending.size:
            break
    values = np.sqrt(squared)
    np.divide(np.einsum("ijn,jn->in", matrices, right), values, out=left, where=values > 0)
    if pending.size:
        u, s, v = np.linalg.svd(matrices[:, :, pending].transpose(2, 0, 1))
        values[pending], left[:, pending], right[:, pending] = s[:, 0], u[:, :, 0].T, v[:, 0].T
    return values, left, right


def _longest_columns(power: Float32[np.ndarray, "k k n"]) -> Float64[np.ndarray, "k n"]:
    """Unit vectors. Any column of a power is close to the leading vector; the longest is the most exact."""
    place = np.einsum("iin->in", power).argmax(axis=0)
    vectors = power[:, place, np.arange(place.size)].astype(np.float64)
    vectors /= np.sqrt((vectors * vectors).sum(axis=0))
    return vectors
