"""Laws of points: their moments, their densities, and the count of modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import law_pvalue
from scipy import integrate, stats

from poolproof.errors import InputError
from poolproof.simulate.laws import (
    count_modes,
    grid_means,
    grid_of_normals,
    rosenbrock,
    rosenbrock_log_density,
    rosenbrock_moments,
)


@pytest.mark.theory
def test_grid_has_its_modes_alike_and_its_spread(rng: np.random.Generator) -> None:
    """All 25 modes are as frequent, at the means told, and round about them with the standard deviation asked."""
    points, modes = grid_of_normals(20_000, rng=rng)
    assert {tuple(mean) for mean in grid_means()} == {
        (x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)
    }
    assert stats.chisquare(np.bincount(modes, minlength=25)).pvalue > 1e-4
    apart = (points - grid_means()[modes]) / 0.05
    assert law_pvalue((apart**2).sum(axis=1), stats.chi2(2).cdf) > 1e-4
    assert law_pvalue(np.arctan2(*apart.T), stats.uniform(-np.pi, 2 * np.pi).cdf) > 1e-4


@pytest.mark.theory
@pytest.mark.parametrize("n_deviations", [3.0, 4.0, 1.0])
def test_truth_covers_all_modes_with_the_share_of_a_normal_law(
    n_deviations: float, rng: np.random.Generator
) -> None:
    """The truth has all modes, a Rayleigh share of high quality, and its own variance, within 5 standard errors."""
    n = 20_000
    count = count_modes(grid_of_normals(n, rng=rng)[0], n_deviations=n_deviations)
    share = 1 - np.exp(-(n_deviations**2) / 2)
    assert count.n_modes == 25
    assert abs(count.high_quality - share) < 5 * np.sqrt(share * (1 - share) / n)
    assert count.within_variance is not None
    assert abs(count.within_variance / 0.05**2 - 1) < 5 / np.sqrt(n)


@pytest.mark.reference
def test_count_is_that_of_a_plain_search(rng: np.random.Generator) -> None:
    """Nearest modes, quality and variances agree with all distances written out, for points anywhere."""
    points = rng.uniform(-4, 4, size=(500, 2))
    count = count_modes(points, side=3, spacing=1.5, sd=0.2, n_deviations=2, least=3)
    distances = np.linalg.norm(points[:, None] - grid_means(3, 1.5), axis=-1)
    nearest, good = distances.argmin(axis=1), distances.min(axis=1) <= 0.4
    assert count.n_modes == sum(np.count_nonzero(good & (nearest == mode)) >= 3 for mode in range(9))
    assert count.high_quality == good.mean()
    variances = [points[nearest == mode].var(axis=0, ddof=1).mean() for mode in range(9)]
    assert count.within_variance == pytest.approx(np.mean(variances))


def test_lost_modes_and_lone_points_are_told() -> None:
    """Modes without points are not counted, and a variance that no mode can tell is None."""
    points, modes = grid_of_normals(2000, rng=np.random.default_rng(0))
    assert count_modes(points[modes < 7]).n_modes == 7
    assert count_modes(points, least=2000).n_modes == 0
    lone = count_modes(np.array([[0.0, 0.0], [2.0, 1.0]]))
    assert (lone.n_modes, lone.high_quality, lone.within_variance) == (1, 0.5, None)


@pytest.mark.theory
@pytest.mark.parametrize("options", [{}, {"a": 1.0, "b": 2.0, "centre": -0.5}])
def test_rosenbrock_has_its_moments(options: dict[str, float], rng: np.random.Generator) -> None:
    """Mean and covariance of samples are within 5 standard errors of the exact ones."""
    points = rosenbrock(50_000, rng=rng, **options)
    mean, covariance = rosenbrock_moments(**options)
    apart = points - mean
    products = np.stack([*apart.T, apart[:, 0] ** 2, apart[:, 0] * apart[:, 1], apart[:, 1] ** 2])
    asked = np.array([0.0, 0.0, covariance[0, 0], covariance[0, 1], covariance[1, 1]])
    errors = products.std(axis=1) / np.sqrt(len(points))
    assert (np.abs(products.mean(axis=1) - asked) < 5 * errors).all()


@pytest.mark.reference
def test_rosenbrock_has_its_density(rng: np.random.Generator) -> None:
    """The density integrates to 1, has the exact moments by quadrature, and is that of the sampler's factors."""
    options = {"a": 1.0, "b": 2.0, "centre": -0.5}

    x, t = np.meshgrid(np.linspace(-5, 4, 401), np.linspace(-5, 5, 401), indexing="ij")
    y = t + x**2  # of unit Jacobian, and the mass lies along t = 0
    density = np.exp(rosenbrock_log_density(np.stack([x.ravel(), y.ravel()], axis=1), **options)).reshape(
        x.shape
    )

    def integral(value: np.ndarray | float) -> float:
        return float(integrate.trapezoid(integrate.trapezoid(value * density, t[0]), x[:, 0]))

    mean, covariance = rosenbrock_moments(**options)
    assert integral(1.0) == pytest.approx(1, abs=1e-4)
    assert integral(y) == pytest.approx(mean[1], abs=1e-4)
    assert integral(x * y) - mean[0] * mean[1] == pytest.approx(covariance[0, 1], abs=1e-4)
    points = rosenbrock(50, rng=rng)
    norm: Any = stats.norm
    np.testing.assert_allclose(
        rosenbrock_log_density(points),
        norm.logpdf(points[:, 0], 1, np.sqrt(10))
        + norm.logpdf(points[:, 1], points[:, 0] ** 2, np.sqrt(0.1)),
    )


@pytest.mark.property
@pytest.mark.parametrize(
    "law", [lambda rng: grid_of_normals(9, rng=rng)[0], lambda rng: rosenbrock(9, rng=rng)]
)
def test_equal_random_states_give_equal_bytes(law: Callable[[np.random.Generator], np.ndarray]) -> None:
    """A law is a function of the random state alone."""
    first, again, other = (law(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert (first.shape, first.dtype) == ((9, 2), np.float64)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda rng: grid_of_normals(0, rng=rng), "n"),
        (lambda rng: grid_of_normals(1, side=0, rng=rng), "side"),
        (lambda rng: grid_of_normals(1, spacing=0.0, rng=rng), "spacing"),
        (lambda rng: grid_of_normals(1, sd=-1.0, rng=rng), "sd"),
        (lambda rng: count_modes(np.zeros((1, 2)), sd=0.0), "sd"),
        (lambda rng: count_modes(np.zeros((1, 2)), n_deviations=float("nan")), "n_deviations"),
        (lambda rng: count_modes(np.zeros((1, 2)), least=0), "least"),
        (lambda rng: count_modes(np.zeros((0, 2))), "points"),
        (lambda rng: count_modes(np.full((3, 2), np.nan)), "points"),
        (lambda rng: rosenbrock(-1, rng=rng), "n"),
        (lambda rng: rosenbrock(1, a=0.0, rng=rng), "a"),
        (lambda rng: rosenbrock(1, b=-1.0, rng=rng), "b"),
        (lambda rng: rosenbrock_moments(centre=float("inf")), "centre"),
    ],
)
def test_values_out_of_range_are_refused(call: Callable[..., object], name: str) -> None:
    """Every argument names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"^{name}: got"):
        call(np.random.default_rng(0))
