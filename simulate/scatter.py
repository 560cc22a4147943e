"""What a fit needs to know of a set of samples: how many there are, their mean, and their scatter about it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float, Int

from poolproof.errors import InputError
from poolproof.simulate.mixing import LEAST_SPREAD, SOURCES, Mixing

_EPSILON: Final = float(np.finfo(np.float64).eps)


@final
@dataclass(frozen=True, eq=False)
class Scatter:
    """Statistics of samples, by loop.

    Attributes:
        n: how many.
        mean: their mean.
        matrix: sum of the squared deviations from it, as outer products.
    """

    n: Float[np.ndarray, " paths"]
    mean: Float[np.ndarray, "paths d"]
    matrix: Float[np.ndarray, "paths d d"]


def unite(parts: Sequence[Scatter]) -> Scatter:
    """Statistics of several sets of samples together."""
    if len(parts) == 1:
        return parts[0]
    counts = np.array([part.n for part in parts])
    n = counts.sum(axis=0)
    means = np.array([part.mean for part in parts])
    shares = np.divide(counts, n, out=np.zeros_like(counts), where=n > 0)
    mean = (shares[:, :, None] * means).sum(axis=0)
    apart = np.sqrt(counts)[:, :, None] * (means - mean)
    matrix = apart.transpose(1, 2, 0) @ apart.transpose(1, 0, 2)
    for part in parts:
        matrix += part.matrix
    return Scatter(n, mean, matrix)


# --- draws ----------------------------------------------------------------------------------------------


def bartlett(n_paths: int, dim: int, dof: int, *, rng: np.random.Generator) -> Float[np.ndarray, "paths d d"]:
    """Lower triangles T with T T^T Wishart distributed, W(I, dof), by loop.

    With fewer degrees of freedom than dimensions, the columns beyond them are zero and T T^T is singular.

    Args:
        n_paths: number of triangles.
        dim: dimensions.
        dof: degrees of freedom, 0 or more.
        rng: all randomness.

    Source: Bartlett, "On the theory of statistical regression", 1933; for dof < dim Srivastava, "Singular
        Wishart and multivariate beta distributions", 2003.
    """
    triangle = np.zeros((n_paths, dim, dim))
    columns = min(dim, dof)
    if columns == 0:
        return triangle
    flat = triangle.reshape(n_paths, dim * dim)
    # Real and synthetic parts of a fixed size use as many normals whatever their degrees of freedom, so that
    # loops of one seed stay close while a count varies.
    flat[:, _below_diagonal(dim)] = rng.standard_normal((n_paths, dim * (dim - 1) // 2))
    degrees = dof - np.arange(columns)
    flat[:, : columns * (dim + 1) : dim + 1] = np.sqrt(rng.chisquare(degrees, (n_paths, columns)))
    triangle[:, :, columns:] = 0
    return triangle


@functools.lru_cache(maxsize=64)
def _below_diagonal(dim: int) -> Int[np.ndarray, " m"]:
    rows, columns = np.tril_indices(dim, -1)
    return rows * dim + columns


def draw_root(
    mean: Float[np.ndarray, "paths d"],
    factor: Float[np.ndarray, "... d d"] | None,
    n: int,
    sampling_bias: float | int,
    *,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "paths d"], Float[np.ndarray, "paths d d"]]:
    """Means, and roots of the scatters, of `n` samples from normal laws; no factor stands for the identity."""
    n_paths, dim = mean.shape
    scale = math.sqrt(sampling_bias)
    noise = rng.standard_normal((n_paths, dim, 1)) * (scale / math.sqrt(n))
    root = bartlett(n_paths, dim, n - 1, rng=rng)
    if factor is not None:
        noise, root = factor @ noise, factor @ root
    return mean + noise[:, :, 0], root if scale == 1 else root * scale


def draw_scatter(
    mean: Float[np.ndarray, "paths d"],
    factor: Float[np.ndarray, "... d d"] | None,
    n: int,
    sampling_bias: float | int,
    *,
    rng: np.random.Generator,
) -> Scatter:
    """Statistics of `n` samples from normal laws, see `draw_root`, drawn without the samples."""
    n_paths, dim = mean.shape
    if n == 0:
        return Scatter(np.zeros(n_paths), mean, np.zeros((n_paths, dim, dim)))
    mean, root = draw_root(mean, factor, n, sampling_bias, rng=rng)
    return Scatter(np.full(n_paths, float(n)), mean, root @ root.transpose(0, 2, 1))


def estimate(
    sources: Mapping[str, Scatter], mixing: Mixing
) -> tuple[Float[np.ndarray, "paths d"], Float[np.ndarray, "paths d d"]]:
    """Means, and factors of the covariances, fitted to the weighted samples of all sources.

    Args:
        sources: statistics by source, of `SOURCES`.
        mixing: weights and estimator.

    Raises:
        InputError: a loop or, where they are averaged, a source has fewer than two samples left, or one that counts.

    Source: the unbiased weighted covariance divides by 1 - sum of the squared normalised sample weights, which
        is (n - 1)/n for equal ones.
    """
    names = [
        name
        for name in SOURCES
        if name in sources and sources[name].n.any() and getattr(mixing, f"weight_{name}") > 0
    ]
    parts = [sources[name] for name in names]
    counts = np.array([part.n for part in parts])
    if not parts or counts.sum(axis=0).min() < 2:
        n = int(counts.sum(axis=0).min()) if parts else 0
        raise InputError(f"n: got {n} weighted samples in a generation, allowed 2 or more")
    unbiased = mixing.covariance == "unbiased"
    single = np.array([[getattr(mixing, f"weight_{name}")] for name in names])
    single = single / (counts * single).sum(axis=0)  # of one sample; all together weigh 1
    weights = counts * single
    means = np.array([part.mean for part in parts])
    mean = (weights[:, :, None] * means).sum(axis=0)
    if mixing.estimator == "grouped":
        if counts.min() < 2:
            raise InputError(f"n: got {counts.min():.0f} samples of a source, allowed 2 or more (grouped)")
        scales = weights / (counts - unbiased)
    else:
        scales = single
    matrix = np.zeros(parts[0].matrix.shape)
    for part, scale in zip(parts, scales, strict=True):
        matrix += scale[:, None, None] * part.matrix
    if mixing.estimator == "pooled":
        apart = np.sqrt(weights)[:, :, None] * (means - mean)
        matrix += np.einsum("gpi,gpj->pij", apart, apart)
        if unbiased:
            left = 1 - (weights * single).sum(axis=0)
            if left.min() < LEAST_SPREAD:
                raise InputError(
                    "weights: got next to all of it for one sample, allowed two or more that count"
                )
            matrix /= left[:, None, None]
    return mean, factorise(matrix)


def factorise(covariance: Float[np.ndarray, "paths d d"]) -> Float[np.ndarray, "paths d d"]:
    """Matrices F with F F^T the given ones: Cholesky's, or where one is singular, the spectral root.

    Directions whose variance is of rounding size get exactly none. Each matrix is treated by itself.
    """
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        factor = np.zeros_like(covariance)
        for path, matrix in enumerate(covariance):
            try:
                factor[path] = np.linalg.cholesky(matrix)
            except np.linalg.LinAlgError:
                continue  # its pivots stay zero, which makes it doubtful below
    doubtful = _is_doubtful(factor, covariance)
    if doubtful.any():
        values, vectors = np.linalg.eigh(covariance[doubtful])
        values[values <= 4 * covariance.shape[1] * _EPSILON * values[:, -1:]] = 0
        factor[doubtful] = vectors * np.sqrt(values)[:, None, :]
    return factor


def _is_doubtful(
    factor: Float[np.ndarray, "paths d d"], covariance: Float[np.ndarray, "paths d d"]
) -> Bool[np.ndarray, " paths"]:
    """Where a pivot is so small that it may be rounding, and the eigenvalues have to decide."""
    pivots = np.diagonal(factor, axis1=1, axis2=2) ** 2
    return pivots.min(axis=1) <= 1e-10 * np.diagonal(covariance, axis1=1, axis2=2).max(axis=1)
