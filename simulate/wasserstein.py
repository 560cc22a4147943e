"""How far models are from the truth: the squared 2-Wasserstein distance of normal laws, and the log-determinant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from poolproof.simulate.gaussian import Gaussian, Models


@final
@dataclass(frozen=True, eq=False)
class Wasserstein:
    """Squared 2-Wasserstein distances between models and the truth, by loop, in two parts that add up.

    Attributes:
        mean_part: squared distance between the means.
        covariance_part: squared Bures distance between the covariances.
    """

    mean_part: Float[np.ndarray, " paths"]
    covariance_part: Float[np.ndarray, " paths"]

    @property
    def squared(self) -> Float[np.ndarray, " paths"]:
        """The squared distances: the convention of the paper and of the Frechet inception distance."""
        return self.mean_part + self.covariance_part


def wasserstein(models: Models, law: Gaussian) -> Wasserstein:
    """Squared distances of the models from the law of the real data.

    With covariances F F^T and R R^T it is |mean difference|^2 + |F|^2 + |R|^2 - 2 times the sum of the singular
    values of R^T F; these are roots of the eigenvalues of a d x d matrix. Works for singular covariances. The
    square of a distance near 0 is exact to about 1e-8 of the larger variance, so it is never below 0.

    Args:
        models: of one generation.
        law: of the real data, of as many dimensions.

    Source: Dowson and Landau, J. Multivar. Anal. 12 (1982) 450-455.
    """
    apart = models.mean - law.mean
    shared = models.factor if law.root is None else law.root.T @ models.factor
    values = np.linalg.eigvalsh(shared @ shared.transpose(0, 2, 1))
    roots = np.sqrt(values.clip(0))
    if law.root is None:
        bures = np.square(1 - roots).sum(axis=1)
    else:
        bures = np.square(models.factor).sum(axis=(1, 2)) + np.square(law.root).sum() - 2 * roots.sum(axis=1)
    return Wasserstein(np.square(apart).sum(axis=1), bures.clip(0))


def squared_w2(models: Models, law: Gaussian, *, root: bool = False) -> Float[np.ndarray, " paths"]:
    """The squared 2-Wasserstein distance of each model from the law; with `root`, the distance itself."""
    squared = wasserstein(models, law).squared
    return np.sqrt(squared) if root else squared


def log_determinant(models: Models) -> Float[np.ndarray, " paths"]:
    """The logarithm of the determinant of each covariance; minus infinity where it is singular.

    It comes from the factors, so it is right long after the determinant itself has underflowed.
    """
    return 2 * np.linalg.slogdet(models.factor).logabsdet
