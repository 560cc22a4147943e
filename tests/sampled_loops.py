"""Gaussian loops run on sampled points, and whether figures agree with them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from poolproof.simulate.theory import Moments


def normal(
    mean: Float64[np.ndarray, "m d"],
    covariance: Float64[np.ndarray, "m d d"],
    n: int,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "m n d"]:
    """Draw n points from each of m normal distributions."""
    root = np.linalg.cholesky(covariance + 1e-300 * np.eye(mean.shape[1]))
    points = rng.standard_normal((len(mean), n, mean.shape[1]))
    return mean[:, None, :] + points @ root.swapaxes(1, 2)


def fit(
    points: Float64[np.ndarray, "m n d"], *, mle: bool = False
) -> tuple[Float64[np.ndarray, "m d"], Float64[np.ndarray, "m d d"]]:
    """Fit a mean and a covariance to each of m sets of points."""
    mean = points.mean(axis=1)
    centred = points - mean[:, None, :]
    return mean, centred.swapaxes(1, 2) @ centred / (points.shape[1] - (0 if mle else 1))


def mixed_loop(
    n_real: int,
    n_synthetic: int,
    bias: float,
    n_generations: int,
    *,
    dim: int = 1,
    loops: int = 30_000,
    fixed: bool = False,
    n_initial: int | None = None,
    mle: bool = False,
    strength: float = 0.0,
    seed: int = 0,
) -> tuple[Float64[np.ndarray, "t m d"], Float64[np.ndarray, "t m d d"]]:
    """Run loops on sampled points: means and covariances of every generation, the truth first."""
    rng = np.random.default_rng(seed)
    mean, covariance = np.zeros((loops, dim)), np.tile(np.eye(dim), (loops, 1, 1))
    means, covariances = [mean], [covariance]
    real = rng.standard_normal((loops, n_real, dim))
    for generation in range(1, n_generations + 1):
        if generation == 1 and (fixed or n_initial is not None):
            points = real if fixed else rng.standard_normal((loops, n_initial or 0, dim))
        else:
            fresh = real if fixed else rng.standard_normal((loops, n_real, dim))
            points = np.concatenate(
                [fresh, normal(mean, bias * covariance, n_synthetic, rng) + strength], axis=1
            )
        mean, covariance = fit(points, mle=mle)
        means.append(mean)
        covariances.append(covariance)
    return np.stack(means), np.stack(covariances)


def agree(
    draws: Float64[np.ndarray, "t m"], expected: Float64[np.ndarray, " t"], errors: float = 4.5
) -> None:
    """Check that the mean of every row is the expected one, within some standard errors."""
    allowed = errors * draws.std(axis=1) / math.sqrt(draws.shape[1]) + 1e-12
    np.testing.assert_array_less(np.abs(draws.mean(axis=1) - expected), allowed)


def moments_agree(
    found: tuple[Float64[np.ndarray, "t m d"], Float64[np.ndarray, "t m d d"]], expected: Moments
) -> None:
    """Check both moments per coordinate against those of simulated loops."""
    means, covariances = found
    agree(np.square(means).mean(axis=2), expected.mean_error)
    agree(np.trace(covariances, axis1=2, axis2=3) / means.shape[2], expected.variance)
