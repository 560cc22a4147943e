"""Laws of points in the plane that serve as the truth of a loop, with what is known of them exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range

Points = Float64[np.ndarray, "n 2"]


@final
@dataclass(frozen=True)
class ModeCount:
    """How a set of points covers a grid of normal laws.

    Attributes:
        n_modes: modes with enough points of high quality.
        high_quality: share of points of high quality, in [0, 1].
        within_variance: variance per coordinate of the points about the mean of those that are nearest to the same
            mode, averaged over the modes with two points or more; None where there is no such mode.
    """

    n_modes: int
    high_quality: float
    within_variance: float | None


# --- a grid of normal laws ------------------------------------------------------------------------------


def grid_means(side: int = 5, spacing: float | int = 2.0) -> Float64[np.ndarray, "m 2"]:
    """Means of a square grid of `side` x `side` modes about 0; mode i is in column i // side and row i % side.

    >>> grid_means(2, 1.0).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    _check_grid(side, spacing)
    ticks = spacing * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)


def grid_of_normals(
    n: int, *, side: int = 5, spacing: float | int = 2.0, sd: float | int = 0.05, rng: np.random.Generator
) -> tuple[Points, Int[np.ndarray, " n"]]:
    """`n` points of an equal mixture of round normal laws on a square grid, and the mode of each.

    The defaults are the 25 modes at {-4, -2, 0, 2, 4}^2.

    Args:
        n: points, 1 or more.
        side: modes per side.
        spacing: distance of neighbouring modes.
        sd: standard deviation per coordinate of a mode, 0 or more.
        rng: all randomness.

    Raises:
        InputError: a value out of range.

    Source: a test bed of GANs since Dumoulin et al., "Adversarially learned inference", 2017, and Srivastava et al.,
        "VEEGAN", 2017. Papers differ in spacing and scale; Azadi et al., "Discriminator rejection sampling", 2019,
        and Che et al., "Your GAN is secretly an energy-based model" (DDLS), 2020, take sd 0.05. Alemohammad et al.,
        "Self-consuming generative models go MAD", 2023, figures 14 and 15, use 25 modes without stating a scale.
    """
    check_count("n", n, 1)
    check_range("sd", sd, 0.0, math.inf)
    means = grid_means(side, spacing)
    modes = rng.integers(len(means), size=n)
    return means[modes] + sd * rng.standard_normal((n, 2)), modes


def count_modes(
    points: Points,
    *,
    side: int = 5,
    spacing: float | int = 2.0,
    sd: float | int = 0.05,
    n_deviations: float | int = 4.0,
    least: int = 1,
) -> ModeCount:
    """How many modes of `grid_of_normals` the points cover, and how well.

    A point is of high quality if it is at most `n_deviations` standard deviations away from the nearest mode, and a
    mode is covered if it is the nearest to `least` of these. Of the truth 1 - exp(-n_deviations^2 / 2) of the points
    are of high quality: 0.9997 for 4, 0.989 for 3.

    >>> count_modes(np.array([[0.0, 0.1], [2.0, 0.0], [2.0, 0.02], [1.2, 1.2]]))
    ModeCount(n_modes=2, high_quality=0.75, within_variance=0.0001)

    Args:
        points: at least one.
        side: modes per side.
        spacing: distance of neighbouring modes.
        sd: standard deviation per coordinate of a mode, above 0.
        n_deviations: radius of high quality in standard deviations, above 0.
        least: points of high quality that a covered mode has, 1 or more.

    Raises:
        InputError: no points, one that is not finite, or a value out of range.

    Source: Srivastava et al., "VEEGAN", 2017, section 5.1, with 3 deviations; Azadi et al., "Discriminator rejection
        sampling", 2019, with 4. The variance per mode: Alemohammad et al., 2023, figure 15, who state no formula.
    """
    _check_grid(side, spacing)
    check_range("sd", sd, 0.0, math.inf, above=True)
    check_range("n_deviations", n_deviations, 0.0, math.inf, above=True)
    check_count("least", least, 1)
    if len(points) == 0 or not np.isfinite(points).all():
        raise InputError(
            "points: got none, or one that is not finite, allowed finite points; drop the others"
        )
    cells = np.rint(points / spacing + (side - 1) / 2).clip(0, side - 1).astype(np.int64)
    nearest = cells[:, 0] * side + cells[:, 1]
    apart = points - grid_means(side, spacing)[nearest]
    is_good = np.hypot(apart[:, 0], apart[:, 1]) <= n_deviations * sd
    n_modes = int(np.count_nonzero(np.bincount(nearest[is_good], minlength=side**2) >= least))
    counts = np.bincount(nearest, minlength=side**2)
    several = counts >= 2
    variance = None
    if several.any():
        sums = np.stack([np.bincount(nearest, axis, side**2) for axis in apart.T], axis=1)
        inner = apart - (sums / np.maximum(counts, 1)[:, None])[nearest]
        squares = np.bincount(nearest, (inner**2).sum(axis=1), side**2)
        variance = float((squares[several] / (2 * (counts[several] - 1))).mean())
    return ModeCount(n_modes, float(is_good.mean()), variance)


def _check_grid(side: int, spacing: float | int) -> None:
    check_count("side", side, 1)
    check_range("spacing", spacing, 0.0, math.inf, above=True)


# --- the Rosenbrock law ---------------------------------------------------------------------------------


def rosenbrock(
    n: int,
    *,
    a: float | int = 0.05,
    b: float | int = 5.0,
    centre: float | int = 1.0,
    rng: np.random.Generator,
) -> Points:
    """`n` points of the Rosenbrock law, exactly: x ~ N(centre, 1 / 2a) and, given x, y ~ N(x^2, 1 / 2b).

    The density is sqrt(a b) / pi * exp(-a (x - centre)^2 - b (y - x^2)^2): mass along a parabola, in the shape of a
    banana. The defaults are Rosenbrock's function (1 - x)^2 + 100 (y - x^2)^2 over 20, as Goodman and Weare have it.

    Args:
        n: points, 1 or more.
        a: above 0; smaller is longer.
        b: above 0; larger is thinner.
        centre: of the first coordinate.
        rng: all randomness.

    Raises:
        InputError: a value out of range.

    Source: Goodman and Weare, "Ensemble samplers with affine invariance", 2010, section 5; the sampler: Pagani,
        Wiegand and Nadarajah, "An n-dimensional Rosenbrock distribution for Markov chain Monte Carlo testing", 2022.
        Alemohammad et al., 2023, figure 17, train on 10 000 points without stating a, b and centre.
    """
    check_count("n", n, 1)
    _check_rosenbrock(a, b, centre)
    x = centre + rng.standard_normal(n) / math.sqrt(2 * a)
    return np.stack([x, x**2 + rng.standard_normal(n) / math.sqrt(2 * b)], axis=1)


def rosenbrock_log_density(
    points: Points, *, a: float | int = 0.05, b: float | int = 5.0, centre: float | int = 1.0
) -> Float64[np.ndarray, " n"]:
    """The logarithm of the density of `rosenbrock` at the points."""
    _check_rosenbrock(a, b, centre)
    x, y = points.T
    return 0.5 * math.log(a * b) - math.log(math.pi) - a * (x - centre) ** 2 - b * (y - x**2) ** 2


def rosenbrock_moments(
    *, a: float | int = 0.05, b: float | int = 5.0, centre: float | int = 1.0
) -> tuple[Float64[np.ndarray, " 2"], Float64[np.ndarray, "2 2"]]:
    """The exact mean and covariance of `rosenbrock`.

    >>> rosenbrock_moments()[0].tolist()
    [1.0, 11.0]

    Source: derived here, from the first four moments of a normal law.
    """
    _check_rosenbrock(a, b, centre)
    v = 1 / (2 * a)
    cross = 2 * centre * v
    square = 4 * centre**2 * v + 2 * v**2 + 1 / (2 * b)
    return np.array([centre, centre**2 + v]), np.array([[v, cross], [cross, square]])


def _check_rosenbrock(a: float | int, b: float | int, centre: float | int) -> None:
    check_range("a", a, 0.0, math.inf, above=True)
    check_range("b", b, 0.0, math.inf, above=True)
    check_range("centre", centre, -math.inf, math.inf)
