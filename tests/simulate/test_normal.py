"""The normal law as a generator: the moments of the theory, point by point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.normal import NormalGenerator
from poolproof.simulate.points import scatter_of
from poolproof.simulate.rows import read_weights
from poolproof.simulate.scatter import estimate
from poolproof.simulate.theory import Moments, fresh_moments, fully_synthetic_moments


def fit(points: np.ndarray, **options: Any) -> NormalGenerator:
    """A law fitted to points, unbiased."""
    return NormalGenerator().fit(points, None, rng=np.random.default_rng(0), **options)


def covariance(law: NormalGenerator) -> np.ndarray:
    """The covariance of a fitted law."""
    assert law.factor is not None
    return law.factor @ law.factor.T


@pytest.mark.reference
@pytest.mark.parametrize("divisor", ["unbiased", "mle"])
def test_fit_is_that_of_numpy(divisor: Literal["unbiased", "mle"], rng: np.random.Generator) -> None:
    """Mean and covariance are numpy's, and weights that are counts act like repeated rows for mle."""
    points = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3)) + 5
    law = NormalGenerator(divisor).fit(points, None, rng=rng)
    np.testing.assert_allclose(law.state()["mean"], points.mean(axis=0))
    np.testing.assert_allclose(covariance(law), np.cov(points.T, bias=divisor == "mle"))
    counts = rng.integers(0, 4, 30)
    weighted = NormalGenerator(divisor).fit(points, None, weights=counts * 0.5, rng=rng)
    np.testing.assert_allclose(weighted.state()["mean"], np.repeat(points, counts, axis=0).mean(axis=0))
    np.testing.assert_allclose(
        covariance(weighted), np.cov(points.T, aweights=counts, bias=divisor == "mle"), atol=1e-12
    )


@pytest.mark.reference
@pytest.mark.parametrize("divisor", ["unbiased", "mle"])
def test_weights_are_those_of_the_exact_engine(
    divisor: Literal["unbiased", "mle"], rng: np.random.Generator
) -> None:
    """A weight per source gives the fit of the engine's statistics with the same weights."""
    real, synthetic = rng.normal(size=(8, 2)), rng.normal(1, 2, size=(11, 2))
    mixing = Mixing(n_fresh=8, n_synthetic=11, weight_fresh=2.5, covariance=divisor)
    sources = {
        name: scatter_of(part[None], np.ones((1, len(part)), bool))
        for name, part in (("fresh", real), ("synthetic", synthetic))
    }
    mean, factor = estimate(sources, mixing)
    law = NormalGenerator(divisor).fit(
        np.concatenate([real, synthetic]), None, weights=np.repeat([2.5, 1.0], [8, 11]), rng=rng
    )
    np.testing.assert_allclose(law.state()["mean"], mean[0])
    np.testing.assert_allclose(covariance(law), factor[0] @ factor[0].T)


def run_loops(n_real: int, n_synthetic: int, bias: float, divisor: Literal["unbiased", "mle"]) -> np.ndarray:
    """Variance and squared mean error per coordinate, by loop, of generations 1 to 5 of 300 loops."""
    found = []
    for seed in range(300):
        rng = np.random.default_rng([17, seed])
        law = NormalGenerator(divisor, np.zeros(2), np.eye(2))
        path = []
        for _ in range(5):
            synthetic, labels = law.sample(n_synthetic, sampling_bias=bias, rng=rng)
            pool = np.concatenate([rng.standard_normal((n_real, 2)), synthetic])
            law = law.fit(pool, labels, rng=rng)
            assert law.mean is not None
            path.append((np.trace(covariance(law)) / 2, (law.mean**2).sum() / 2))
        found.append(path)
    return np.array(found)


def assert_moments(found: np.ndarray, moments: Moments) -> None:
    """Means over loops are within 4 standard errors of the theory."""
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    asked = np.stack([moments.variance, moments.mean_error], axis=1)[1:]
    assert (np.abs(found.mean(axis=0) - asked) < 4 * errors).all()


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.8])
@pytest.mark.parametrize("divisor", ["unbiased", "mle"])
def test_fully_synthetic_loop_has_the_moments_of_the_theory(
    bias: float, divisor: Literal["unbiased", "mle"]
) -> None:
    """Variance and mean error of 300 loops from the truth follow their closed forms for five generations."""
    found = run_loops(0, 20, bias, divisor)
    assert_moments(found, fully_synthetic_moments(20, bias, 5, covariance=divisor))


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.7])
def test_fresh_loop_has_the_moments_of_the_theory(bias: float) -> None:
    """With fresh real data, too, both moments follow their recursion."""
    assert_moments(run_loops(10, 15, bias, "unbiased"), fresh_moments(10, 15, bias, 5))


@pytest.mark.theory
def test_bias_scales_the_covariance_of_samples_exactly(rng: np.random.Generator) -> None:
    """From one random state, deviations from the mean are sqrt(bias) times those without bias."""
    law = fit(rng.normal(3, 2, size=(50, 4)))
    plain = law.sample(100, rng=np.random.default_rng(1))[0] - law.mean
    biased = law.sample(100, sampling_bias=0.3, rng=np.random.default_rng(1))[0] - law.mean
    np.testing.assert_allclose(biased, np.sqrt(0.3) * plain, rtol=1e-12, atol=1e-12)


def test_fewer_points_than_dimensions_give_a_singular_law(rng: np.random.Generator) -> None:
    """Samples stay in the flat through the points; a loop on them goes on; equal points give copies."""
    points = rng.normal(size=(3, 6))
    law = fit(points)
    samples, _ = law.sample(40, rng=rng)
    assert np.linalg.matrix_rank(samples - points[0], tol=1e-8) == 2
    assert np.linalg.matrix_rank(np.concatenate([samples, points]) - points[0], tol=1e-8) == 2
    again = law.fit(samples, None, rng=rng)
    assert np.linalg.matrix_rank(again.sample(9, rng=rng)[0] - points[0], tol=1e-8) == 2
    still = fit(np.ones((4, 2)))
    np.testing.assert_array_equal(still.sample(3, rng=rng)[0], np.ones((3, 2)))


def test_equal_random_states_give_equal_bytes(rng: np.random.Generator) -> None:
    """Samples depend on the random state alone, and a state laid down and taken up gives the same ones."""
    law = fit(rng.normal(size=(20, 3)))
    first = law.sample(9, rng=np.random.default_rng(4))[0]
    assert first.tobytes() == law.sample(9, rng=np.random.default_rng(4))[0].tobytes()
    assert first.tobytes() != law.sample(9, rng=np.random.default_rng(5))[0].tobytes()
    restored = NormalGenerator().restore(law.state())
    assert first.tobytes() == restored.sample(9, rng=np.random.default_rng(4))[0].tobytes()


@pytest.mark.property
def test_rows_of_weight_zero_change_nothing(rng: np.random.Generator) -> None:
    """Rows without weight, whatever they hold, change no byte; nor does the size of all weights."""
    points, weights = rng.normal(size=(12, 2)), rng.uniform(0.1, 2, 12)
    law = fit(points, weights=weights)
    spoilt = np.concatenate([points, [[np.nan, np.inf]]])
    other = fit(spoilt, weights=np.append(weights, 0.0))
    huge = fit(points, weights=weights * 5e307)
    assert covariance(law).tobytes() == covariance(other).tobytes()
    np.testing.assert_allclose(covariance(law), covariance(huge))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda points: {"images": points[:1]}, "images: got 1 rows"),
        (lambda points: {"images": points[:0]}, "images: got no rows"),
        (lambda points: {"images": points * np.nan}, "images: got a value that is not finite"),
        (lambda points: {"images": points[:, None]}, "images: got float64 of shape"),
        (lambda points: {"images": np.zeros((3, 2, 2, 1), np.uint8)}, "images: got uint8"),
        (lambda points: {"labels": np.zeros(5, int)}, "labels: got some"),
        (lambda points: {"weights": -np.ones(5)}, "weights: got a negative one"),
        (lambda points: {"weights": np.full(5, np.nan)}, "weights: got a negative one"),
        (lambda points: {"weights": np.zeros(5)}, "weights: got none above 0"),
        (lambda points: {"weights": np.array([1.0, 0, 0, 0, 1e-12])}, "weights: got next to all"),
    ],
)
def test_bad_training_data_are_refused(spoil: Callable[..., dict], message: str) -> None:
    """Every argument names itself when it cannot be trained on."""
    points = np.arange(10.0).reshape(5, 2)
    arguments = {"images": points, "labels": None} | spoil(points)
    with pytest.raises(InputError, match=message):
        NormalGenerator().fit(**arguments, rng=np.random.default_rng(0))


def test_bad_arguments_of_samples_and_states_are_refused(rng: np.random.Generator) -> None:
    """No fit, counts below 1, biases outside (0, 1], labels, and arrays that are no law are InputErrors."""
    law = fit(rng.normal(size=(5, 2)))
    for bias in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="sampling_bias: got"):
            law.sample(1, sampling_bias=bias, rng=rng)
    with pytest.raises(InputError, match="n: got 0"):
        law.sample(0, rng=rng)
    with pytest.raises(InputError, match="labels: got some"):
        law.sample(1, labels=np.zeros(1, int), rng=rng)
    for act in (lambda: NormalGenerator().sample(1, rng=rng), NormalGenerator().state):
        with pytest.raises(InputError, match="generator: got one not fitted"):
            act()
    with pytest.raises(InputError, match="state: got mean"):
        law.restore({"mean": np.zeros(2)})
    with pytest.raises(InputError, match="state: got shapes"):
        law.restore({"mean": np.zeros(2), "factor": np.eye(3)})
    with pytest.raises(InputError, match="covariance: got"):
        replace(law, covariance="ml")
    with pytest.raises(InputError, match="weights: got 4, allowed 5"):
        read_weights(np.ones(4), 5)


def test_variances_beyond_the_largest_float_are_a_failed_generation() -> None:
    """Finite points whose squares overflow raise GeneratorDiverged, without a warning."""
    with pytest.raises(GeneratorDiverged, match="largest float"):
        fit(np.array([[1e200], [-1e200], [0.0]]))
