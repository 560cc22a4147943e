"""The mixture of normal laws: it finds modes, samples as stated, and can be laid down and taken up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.gmm import GmmGenerator, GmmSpec, Mixture
from poolproof.simulate.laws import count_modes, grid_of_normals
from poolproof.simulate.rows import resample

KINDS: list[Literal["full", "diag", "spherical"]] = ["full", "diag", "spherical"]
PAIR = GmmSpec(n_components=2, n_init=1)


def pair(n: int = 200, seed: int = 0) -> np.ndarray:
    """Two stretched clouds, a quarter of the points in the right one."""
    rng = np.random.default_rng(seed)
    right = np.arange(n) % 4 == 0
    return rng.normal(size=(n, 2)) * [0.3, 1.0] + np.where(right, 5, -5)[:, None] * [1, 0]


def fit(points: np.ndarray, spec: GmmSpec = PAIR, seed: int = 0, **options: Any) -> GmmGenerator:
    """A mixture fitted to points."""
    return GmmGenerator(spec).fit(points, None, rng=np.random.default_rng(seed), **options)


def mixture_of(generator: GmmGenerator) -> Mixture:
    """What was fitted."""
    assert generator.mixture is not None
    return generator.mixture


def draw(generator: GmmGenerator, n: int, bias: float = 1.0, seed: int = 1) -> np.ndarray:
    """Samples with a fresh random state."""
    return generator.sample(n, sampling_bias=bias, rng=np.random.default_rng(seed))[0]


@pytest.mark.parametrize("seed", range(5))
def test_finds_all_modes_of_the_grid(seed: int) -> None:
    """A mixture of 25 fitted to the grid of 25 modes covers all of them, with their variance."""
    points, _ = grid_of_normals(2500, rng=np.random.default_rng([3, seed]))
    fitted = fit(points, GmmSpec(), seed)
    count = count_modes(draw(fitted, 5000))
    assert count.n_modes == 25
    assert count.high_quality > 0.99
    assert count.within_variance is not None
    assert abs(count.within_variance / 0.05**2 - 1) < 0.15
    assert mixture_of(fitted).converged


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_density_of_the_library(kind: Literal["full", "diag", "spherical"]) -> None:
    """Our samples are as likely, on average, as the library's own, for every form of covariance."""
    from sklearn.mixture import GaussianMixture

    points = pair()
    fitted = mixture_of(fit(points, replace(PAIR, covariance=kind)))
    theirs: Any = GaussianMixture(2, covariance_type=kind, random_state=0).fit(points)
    order, asked = np.argsort(fitted.means[:, 0]), np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(fitted.means[order], theirs.means_[asked], atol=1e-3)
    np.testing.assert_allclose(fitted.covariances[order], theirs.covariances_[asked], atol=1e-3)
    ours = theirs.score_samples(draw(fit(points, replace(PAIR, covariance=kind)), 4000))
    drawn = theirs.score_samples(theirs.sample(4000)[0])
    error = np.sqrt((ours.var() + drawn.var()) / 4000)
    assert abs(ours.mean() - drawn.mean()) < 5 * error


@pytest.mark.theory
@pytest.mark.parametrize("kind", KINDS)
def test_bias_scales_every_component_exactly(kind: Literal["full", "diag", "spherical"]) -> None:
    """From one random state, deviations from the component's mean are sqrt(bias) times those without bias."""
    fitted = fit(pair(), replace(PAIR, covariance=kind))
    means = mixture_of(fitted).means
    plain, biased = draw(fitted, 300), draw(fitted, 300, 0.25)
    nearest = np.abs(plain[:, :1] - means[:, 0]).argmin(axis=1)
    np.testing.assert_allclose(biased - means[nearest], 0.5 * (plain - means[nearest]), atol=1e-12)


def test_equal_random_states_give_equal_bytes() -> None:
    """Fits and samples depend on the random state alone, not on threads, and survive being laid down."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(2):
        first = draw(fit(pair()), 9)
    fitted = fit(pair())
    assert first.tobytes() == draw(fitted, 9).tobytes()
    assert first.tobytes() != draw(fitted, 9, seed=2).tobytes()
    for kind in KINDS:
        spec = replace(PAIR, covariance=kind)
        fitted = fit(pair(), spec)
        assert draw(fitted, 9).tobytes() == draw(GmmGenerator(spec).restore(fitted.state()), 9).tobytes()


def test_weights_act_like_repeated_rows() -> None:
    """A cloud with three times the weight per point gets three times the share; weight 0 rows change no byte."""
    points = pair()
    right = points[:, 0] > 0
    fitted = mixture_of(fit(points, weights=np.where(right, 3.0, 1.0)))
    np.testing.assert_allclose(fitted.weights, 0.5, atol=0.01)
    spoilt = np.concatenate([points, [[np.nan, 7.0]]])
    other = fit(spoilt, weights=np.append(np.ones(len(points)), 0.0))
    assert draw(fit(points), 9).tobytes() == draw(other, 9).tobytes()


@pytest.mark.property
def test_resampling_keeps_counts_next_to_their_expectation(rng: np.random.Generator) -> None:
    """Row i comes floor(n w) or ceil(n w) times, on average n w, and once each for equal weights."""
    weights = rng.dirichlet(np.ones(7))
    draws = np.array([np.bincount(resample(weights, 20, rng=rng), minlength=7) for _ in range(3000)])
    assert (np.floor(20 * weights) <= draws).all()
    assert (draws <= np.ceil(20 * weights)).all()
    np.testing.assert_allclose(draws.mean(axis=0), 20 * weights, atol=5 * 0.5 / np.sqrt(3000))
    np.testing.assert_array_equal(resample(np.full(9, 1 / 9), 9, rng=rng), np.arange(9))


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_goes_on_from_the_components_it_is_given(
    kind: Literal["full", "diag", "spherical"],
) -> None:
    """One iteration from a converged fit stays next to it, and keeps the order of the components."""
    spec = replace(PAIR, covariance=kind, tolerance=1e-8)
    first = fit(pair(), spec)
    again = fit(pair(), replace(spec, max_iterations=1), seed=8, start=first)
    np.testing.assert_allclose(mixture_of(again).means, mixture_of(first).means, atol=1e-4)
    np.testing.assert_allclose(mixture_of(again).covariances, mixture_of(first).covariances, atol=1e-4)


def test_collapsed_points_are_a_floor_or_a_failed_generation() -> None:
    """Equal points give the floor as variance; without a floor the generation fails. Neither warns."""
    points = np.ones((10, 2))
    np.testing.assert_allclose(mixture_of(fit(points)).covariances[0], 1e-6 * np.eye(2), atol=1e-12)
    with pytest.raises(GeneratorDiverged, match="shrank to nothing"):
        fit(points, replace(PAIR, floor=0.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": pair()[:1]}, "images: got 1 rows"),
        ({"images": pair() * np.nan}, "images: got a value that is not finite"),
        ({"images": pair()[:, :, None]}, "images: got float64 of shape"),
        ({"labels": np.zeros(200, int)}, "labels: got some"),
        ({"start": GmmGenerator()}, "start: got no fitted mixture"),
        ({"start": fit(pair(), replace(PAIR, n_components=3))}, "start: got covariances of shape"),
        ({"start": fit(pair(), replace(PAIR, covariance="diag"))}, "start: got covariances of shape"),
    ],
)
def test_bad_training_data_are_refused(change: dict[str, Any], message: str) -> None:
    """Every argument names itself when it cannot be trained on."""
    arguments = {"images": pair(), "labels": None} | change
    with pytest.raises(InputError, match=message):
        GmmGenerator(PAIR).fit(**arguments, rng=np.random.default_rng(0))


def test_bad_arguments_of_samples_and_states_are_refused(rng: np.random.Generator) -> None:
    """No fit, counts below 1, biases outside (0, 1], labels, and arrays of other options are InputErrors."""
    fitted = fit(pair())
    for bias in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="sampling_bias: got"):
            fitted.sample(1, sampling_bias=bias, rng=rng)
    with pytest.raises(InputError, match="n: got 0"):
        fitted.sample(0, rng=rng)
    with pytest.raises(InputError, match="labels: got some"):
        fitted.sample(1, labels=np.zeros(1, int), rng=rng)
    acts: list[Callable[[], object]] = [lambda: GmmGenerator().sample(1, rng=rng), GmmGenerator().state]
    for act in acts:
        with pytest.raises(InputError, match="generator: got one not fitted"):
            act()
    with pytest.raises(InputError, match="state: got no converged, weights"):
        fitted.restore({name: fitted.state()[name] for name in ("means", "covariances")})
    with pytest.raises(InputError, match="state: got shapes"):
        GmmGenerator(replace(PAIR, n_components=3)).restore(fitted.state())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("n_init", 0),
        ("max_iterations", 0),
        ("covariance", "tied"),
        ("tolerance", -1.0),
        ("floor", float("nan")),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float | str) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"^{name}: got"):
        replace(GmmSpec(), **{name: value})
