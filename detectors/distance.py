"""The Frechet distance and the kernel distance between two sets of features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.neighbours import check_pair
from poolproof.errors import InputError

ROWS: Final = 4096
"""Items whose products are summed at a time."""

TILE: Final = 512
"""Rows and columns of one tile of a kernel matrix: 2 MiB in double precision."""


Kernel = Callable[[Float64[np.ndarray, "r d"], Float64[np.ndarray, "s d"]], Float64[np.ndarray, "r s"]]
"""From two blocks of points to the kernel of all pairs."""


@final
@dataclass(frozen=True)
class KernelDistance:
    """A squared distance of two distributions, estimated without bias.

    Attributes:
        value: 0 on average where the distributions are equal; so it may be below 0.
        standard_error: standard deviation of `value` over repeated draws of both sets, estimated.
    """

    value: float
    standard_error: float


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Return the squared Frechet distance of the normal distributions fitted to two feature sets.

    It is |mean_a - mean_b|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2)), with unbiased covariances A and B.
    The last trace is the sum of the singular values of A^(1/2) B^(1/2); the roots come from symmetric
    eigen-decompositions in double precision. Eigenvalues of rounding size count as 0, so that directions
    without variance (fewer items than features) add no noise; no ridge is added.

    Args:
        a: features, at least 2 rows.
        b: features, at least 2 rows.

    Returns:
        A figure of at least 0, in squared feature units. It is 0 for equal sets, and its bias grows with d/n:
        compare only sets of equal size.

    Raises:
        InputError: a set has fewer than 2 rows, a feature is not finite, or the widths differ.

    Source: Dowson and Landau, J. Multivar. Anal. 12 (1982) 450-455; Heusel et al., arXiv 1706.08500.
    Assumes: nothing for the figure itself; that it tells distributions apart rests on normal features.
    """
    check_pair("a", a, "b", b)
    for name, features in (("a", a), ("b", b)):
        if len(features) < 2:
            raise InputError(f"{name}: got {len(features)} rows, allowed 2 or more: give more items")
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    shift = mean_a - mean_b
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * shared
    return max(0.0, float(shift @ shift + spread))


def _moments(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "r d"]]:
    """Return the mean and a root R with R^T R the unbiased covariance; r is its numerical rank."""
    n, d = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, ROWS):
        block = features[start : start + ROWS] - mean
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance / (n - 1))
    kept = values > d * np.finfo(np.float64).eps * values[-1]
    return mean, np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def kernel_distance(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
) -> KernelDistance:
    """Return the squared maximum mean discrepancy under the kernel (gamma x.y + coef0)^degree, and its error.

    On Inception features with the defaults it is the kernel Inception distance, KID. The published KID
    averages over random subsets; here all pairs are used, which is what that average tends to with ever more
    subsets: the estimate of smallest variance, without chance in it. The spread over subsets that is usually
    printed is no error of the figure, since the subsets are small and overlap; the standard error here is.

    With g(x) = E k(x, X') - E k(x, Y), and likewise for y, the variance of the estimate is exactly

        4 var g(X)/n + 4 var g(Y)/m + 2 e_xx/(n(n-1)) + 2 e_yy/(m(m-1)) + 4 e_xy/(nm),

    where e is the mean square of the kernel less its row and column means. The second line of terms is all that
    is left where the distributions are equal. All are estimated by sums over the kernel matrices: e without
    bias, var g from row means, less the noise that e says these have, and at least 0. Memory does not grow
    with the matrices; time with (n^2/2 + m^2/2 + n m) d.

    Args:
        a: features, at least 4 rows.
        b: features, at least 4 rows.
        degree: of the polynomial, at least 1. With degree p, differences of the first p moments are seen.
        gamma: factor of the scalar product, above 0; 1/d if not given.
        coef0: constant of the polynomial, at least 0.

    Raises:
        InputError: a set has fewer than 4 rows, an option is out of range, a feature is not finite, the
            widths differ, or the features are so large that the kernel overflows.

    Source: Binkowski et al., arXiv 1801.01401 (KID); Gretton et al., J. Mach. Learn. Res. 13 (2012), lemma 6
        (estimate); Hoeffding, Ann. Math. Stat. 19 (1948) (variance); Szekely and Rizzo, Ann. Statist. 42
        (2014), equation 3.2 (e_xx without bias).
    Assumes: independent draws. For value +- 1.96 standard errors as a 95 % interval, also that the value is
        about normal: so it is where the distributions differ clearly; where they are equal its law is skewed.
    """
    check_pair("a", a, "b", b)
    for name, features in (("a", a), ("b", b)):
        if len(features) < 4:
            raise InputError(f"{name}: got {len(features)} rows, allowed 4 or more: give more items")
    factor = 1 / a.shape[1] if gamma is None else gamma
    for name, number, allowed in (
        ("degree", degree, degree >= 1),
        ("gamma", factor, 0 < factor < math.inf),
        ("coef0", coef0, 0 <= coef0 < math.inf),
    ):
        if not allowed:
            least = {"degree": "1 and up", "gamma": "above 0", "coef0": "0 and up"}[name]
            raise InputError(f"{name}: got {number}, allowed {least}: leave it out for the usual kernel")

    def kernel(x: Float64[np.ndarray, "r d"], y: Float64[np.ndarray, "s d"]) -> Float64[np.ndarray, "r s"]:
        base = x @ y.T
        base *= factor
        base += coef0
        matrix = base.copy() if degree > 1 else base
        for _ in range(degree - 1):
            matrix *= base
        return matrix

    with np.errstate(over="ignore", invalid="ignore"):
        within = [_own_sums(features, kernel) for features in (a, b)]
        rows, columns, squares = _cross_sums(a, b, kernel)
        if not all(map(math.isfinite, (squares, within[0][1], within[1][1]))):
            raise InputError(
                "a, b: got features whose kernel overflows, allowed smaller ones: scale them down"
            )
    n, m, total = len(a), len(b), float(rows.sum())
    crossed = squares - np.square(rows).sum() / m - np.square(columns).sum() / n + total**2 / (n * m)
    e_cross = max(0.0, float(crossed) / ((n - 1) * (m - 1)))
    value, variance = -2 * total / (n * m), 4 * e_cross / (n * m)
    first_order = 0.0
    for (own, own_squares), other, size, other_size in (
        (within[0], rows, n, m),
        (within[1], columns, m, n),
    ):
        whole = float(own.sum())
        centred = (
            own_squares - 2 * np.square(own).sum() / (size - 2) + whole**2 / ((size - 1) * (size - 2))
        ) / (size * (size - 3))
        e_own = max(0.0, float(centred))
        value += whole / (size * (size - 1))
        variance += 2 * e_own / (size * (size - 1))
        gain = own / (size - 1) - other / other_size
        first_order += 4 / size * (float(gain.var(ddof=1)) - e_own / (size - 1) - e_cross / other_size)
    return KernelDistance(value, math.sqrt(variance + max(0.0, first_order)))


def _own_sums(points: Float[np.ndarray, "n d"], kernel: Kernel) -> tuple[Float64[np.ndarray, " n"], float]:
    """Return the row sums of a set's kernel matrix and the sum of squares, without the diagonal."""
    sums, squares = np.zeros(len(points)), 0.0
    for i in range(0, len(points), TILE):
        x = points[i : i + TILE].astype(np.float64)
        for j in range(i, len(points), TILE):
            matrix = kernel(x, points[j : j + TILE].astype(np.float64))
            if i == j:
                np.fill_diagonal(matrix, 0)
            else:
                sums[j : j + TILE] += matrix.sum(axis=0)
            sums[i : i + TILE] += matrix.sum(axis=1)
            squares += (1 if i == j else 2) * float(np.vdot(matrix, matrix))
    return sums, squares


def _cross_sums(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], kernel: Kernel
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " m"], float]:
    """Return the row sums and column sums of the kernel matrix between two sets, and the sum of squares."""
    rows, columns, squares = np.zeros(len(a)), np.zeros(len(b)), 0.0
    for i in range(0, len(a), TILE):
        x = a[i : i + TILE].astype(np.float64)
        for j in range(0, len(b), TILE):
            matrix = kernel(x, b[j : j + TILE].astype(np.float64))
            rows[i : i + TILE] += matrix.sum(axis=1)
            columns[j : j + TILE] += matrix.sum(axis=0)
            squares += float(np.vdot(matrix, matrix))
    return rows, columns, squares
