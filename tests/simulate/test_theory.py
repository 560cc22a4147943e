"""The closed forms against loops of sampled points, limits, and published numbers."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from refusals import assert_refused
from sampled_loops import agree, fit, mixed_loop, moments_agree, normal
from scipy import optimize

from poolproof.simulate import theory

sizes = st.integers(2, 3000)
biases = st.floats(0.0, 1.0)


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    outcome = doctest.testmod(theory)
    assert outcome.attempted >= 18
    assert not outcome.failed


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.7])
@pytest.mark.parametrize("mle", [False, True])
def test_fully_synthetic_moments_are_those_of_sampled_loops(bias: float, mle: bool) -> None:
    """Variance and mean error of a fully synthetic loop, for either divisor and with or without bias."""
    covariance = "mle" if mle else "unbiased"
    moments_agree(
        mixed_loop(0, 8, bias, 5, dim=2, mle=mle),
        theory.fully_synthetic_moments(8, bias, 5, covariance=covariance),
    )


@pytest.mark.theory
def test_mle_loop_keeps_the_second_moment() -> None:
    """With divisor n and no bias, variance and mean error always add up to 1."""
    moments = theory.fully_synthetic_moments(7, 1.0, 30, covariance="mle")
    np.testing.assert_allclose(moments.variance + moments.mean_error, 1.0, rtol=1e-13)


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.8])
def test_distance_in_one_dimension_is_that_of_sampled_loops(bias: float) -> None:
    """The expected squared distance is that of the fitted means and deviations."""
    means, covariances = mixed_loop(0, 10, bias, 6)
    distance = means[..., 0] ** 2 + (np.sqrt(covariances[..., 0, 0]) - 1) ** 2
    agree(distance, theory.fully_synthetic_w2_1d(10, bias, 6))


@pytest.mark.reference
def test_distance_in_one_dimension_has_the_known_numbers() -> None:
    """Two values after twenty generations of fifty samples."""
    assert theory.fully_synthetic_w2_1d(50, 1.0, 20)[-1] == pytest.approx(0.5940, abs=5e-5)
    assert theory.fully_synthetic_w2_1d(50, 0.9, 20)[-1] == pytest.approx(0.6500, abs=5e-5)


@pytest.mark.property
@settings(deadline=None)
@given(sizes, biases)
def test_distance_never_falls(n: int, bias: float) -> None:
    """More generations never bring a fully synthetic loop back, with or without bias."""
    distance = theory.fully_synthetic_w2_1d(n, bias, 40)
    assert distance[0] == 0
    assert np.all(np.diff(distance) >= -1e-12)


@pytest.mark.theory
@pytest.mark.parametrize(("dim", "bias"), [(1, 0.9), (2, 1.0), (3, 0.8)])
def test_second_moments_are_those_of_sampled_loops(dim: int, bias: float) -> None:
    """Expected trace of the square and square of the trace, in one to three dimensions."""
    _, covariances = mixed_loop(0, 16, bias, 3, dim=dim, loops=20_000)
    expected = theory.fully_synthetic_second_moments(16, bias, 3, dim=dim)
    agree(np.trace(covariances @ covariances, axis1=2, axis2=3), expected.trace_of_square)
    agree(np.trace(covariances, axis1=2, axis2=3) ** 2, expected.square_of_trace)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 50))
def test_square_of_the_covariance_explodes_while_it_collapses(n: int, dim: int) -> None:
    """Without bias the expected square grows by 1 + 2/(n - 1) in the long run, at the same mean."""
    found = theory.fully_synthetic_second_moments(n, 1.0, 40 * n, dim=dim).trace_of_square
    assert found[-1] / found[-2] == pytest.approx(1 + 2 / (n - 1), rel=1e-9)


@pytest.mark.theory
@pytest.mark.parametrize(
    ("n_real", "n_synthetic", "bias", "n_initial"),
    [(5, 15, 0.8, None), (3, 12, 1.0, None), (6, 6, 0.9, 3), (0, 9, 0.9, None), (8, 0, 0.5, None)],
)
def test_fresh_moments_are_those_of_sampled_loops(
    n_real: int, n_synthetic: int, bias: float, n_initial: int | None
) -> None:
    """Pooling fresh real data with samples of the last model, between-group term included."""
    moments_agree(
        mixed_loop(n_real, n_synthetic, bias, 5, dim=2, n_initial=n_initial, loops=20_000),
        theory.fresh_moments(n_real, n_synthetic, bias, 5, n_initial=n_initial),
    )


@pytest.mark.reference
def test_fresh_limit_has_the_known_numbers() -> None:
    """The limit at 100 real and 900 synthetic samples."""
    point = theory.fresh_fixed_point(100, 900, 1.0)
    assert (point.variance, point.mean_error) == pytest.approx((1.0048, 0.00529), abs=5e-5)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(0, 3000), biases)
def test_fresh_loop_ends_at_the_fixed_point_at_its_rate(n_real: int, n_synthetic: int, bias: float) -> None:
    """The fixed point is fixed, and the distance to it shrinks by the rate, from any first fit."""
    point = theory.fresh_fixed_point(n_real, n_synthetic, bias)
    assert 0 <= point.rate < 1
    end = np.array([point.variance, point.mean_error])
    for n_initial in (None, 2, 1000):
        moments = theory.fresh_moments(n_real, n_synthetic, bias, 60, n_initial=n_initial)
        gap = np.abs(np.stack([moments.variance, moments.mean_error]) - end[:, None]).sum(axis=0)
        assert gap[60] <= 2 * gap[1] * point.rate**59 * max(1.0, n_real + n_synthetic) + 1e-12
    many = theory.fresh_moments(n_real, n_synthetic, bias, 20_000 if point.rate > 0.99 else 3000)
    if point.rate**3000 < 1e-14:
        assert (many.variance[-1], many.mean_error[-1]) == pytest.approx(tuple(end), rel=1e-9)


@pytest.mark.theory
def test_rate_is_the_ratio_of_successive_distances() -> None:
    """Late in the loop each distance to the limit is the rate times the one before."""
    point = theory.fresh_fixed_point(40, 60, 0.9)
    gap = theory.fresh_moments(40, 60, 0.9, 30).mean_error - point.mean_error
    assert gap[25] / gap[24] == pytest.approx(point.rate, rel=1e-3)


@pytest.mark.property
@settings(deadline=None)
@given(sizes, biases)
def test_pools_of_one_kind_are_the_simple_loops(n: int, bias: float) -> None:
    """Without real data the fresh loop is the fully synthetic one, without synthetic data a single fit."""
    alone, fresh = theory.fully_synthetic_moments(n, bias, 6), theory.fresh_moments(0, n, bias, 6)
    np.testing.assert_allclose(fresh.variance, alone.variance, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(fresh.mean_error, alone.mean_error, rtol=1e-12, atol=1e-300)
    for point in (theory.fresh_fixed_point(n, 0, bias), theory.augmentation_fixed_point(n, 0, bias)):
        assert (point.variance, point.mean_error, point.rate) == pytest.approx((1.0, 1 / n, 0.0))
    assert theory.mean_effective_size(n, 0) == pytest.approx(n)
    assert theory.weighted_effective_size(n, 0) == pytest.approx(n)


@pytest.mark.theory
@pytest.mark.parametrize(("n_real", "n_synthetic"), [(10, 10), (4, 60)])
def test_mean_effective_size_is_that_of_sampled_means(n_real: int, n_synthetic: int) -> None:
    """A loop of pooled means with unit variance ends with the error of that many real samples."""
    rng = np.random.default_rng(1)
    mean, n = np.zeros(100_000), n_real + n_synthetic
    for _ in range(60 if n_real < 10 else 20):
        sums = rng.normal(0, math.sqrt(n_real), mean.size) + rng.normal(
            n_synthetic * mean, math.sqrt(n_synthetic)
        )
        mean = sums / n
    agree(mean[None] ** 2, np.array([1 / theory.mean_effective_size(n_real, n_synthetic)]))


@pytest.mark.property
@settings(deadline=None)
@given(sizes, st.integers(0, 10**7))
def test_mean_effective_size_is_at_most_twice_the_real_size(n_real: int, n_synthetic: int) -> None:
    """Pooling never loses mean accuracy without bias, and gains at most a factor of 2."""
    assert n_real <= theory.mean_effective_size(n_real, n_synthetic) * (1 + 1e-12) <= 2 * n_real * (1 + 1e-9)
    assert theory.mean_effective_size(n_real, n_synthetic) <= theory.weighted_effective_size(
        n_real, n_synthetic
    ) * (1 + 1e-9)


def squared_w2(
    means: Float64[np.ndarray, "m d"], covariances: Float64[np.ndarray, "m d d"]
) -> Float64[np.ndarray, " m"]:
    """Squared Wasserstein-2 distances to N(0, I)."""
    roots = np.sqrt(np.linalg.eigvalsh(covariances).clip(0))
    return np.square(means).sum(axis=1) + np.square(1 - roots).sum(axis=1)


@pytest.mark.theory
def test_surrogates_are_close_to_sampled_loops() -> None:
    """With samples far above the dimension, both surrogates and the noise V are right to a few per cent."""
    real = fit(np.random.default_rng(2).standard_normal((20_000, 150, 4)))
    assert squared_w2(*real).mean() == pytest.approx(theory.surrogate_real_only(150, dim=4), rel=0.02)
    means, covariances = mixed_loop(150, 150, 0.8, 8, dim=3, loops=3000)
    found = squared_w2(means[-1], covariances[-1]).mean()
    assert found == pytest.approx(theory.surrogate_limit(150, 150, 0.8, dim=3), rel=0.04)
    noise = np.square(covariances[-1][:, [0, 0, 1], [1, 2, 2]]).mean()
    assert noise == pytest.approx(theory.covariance_noise(150, 150, 0.8), rel=0.06)


@pytest.mark.reference
def test_surrogate_fails_as_documented_near_the_dimension() -> None:
    """At dimension 100 it is 12 % above the simulated 12.3, and the real-only one far below the simulated 32.2."""
    assert theory.surrogate_limit(100, 900, 1.0, dim=100) / 12.3 == pytest.approx(1.12, abs=0.02)
    assert theory.surrogate_real_only(100, dim=100) == pytest.approx(26.25)


@pytest.mark.reference
def test_phase_line_has_the_known_numbers() -> None:
    """Thresholds at dimension 100 for three biases; without bias there is none."""
    found = [theory.phase_line(bias, dim=100) for bias in (0.7, 0.85, 0.95)]
    assert found == pytest.approx([1247, 4929, 42989], abs=0.5)
    assert theory.phase_line(1.0, dim=100) == math.inf


@pytest.mark.theory
@pytest.mark.parametrize(("bias", "dim"), [(0.0, 1), (0.3, 2), (0.7, 10), (0.9, 100)])
def test_phase_line_is_where_the_surrogates_cross(bias: float, dim: int) -> None:
    """With ten million real samples the loop is better just below the line and worse just above."""
    n_real, line = 10**7, theory.phase_line(bias, dim=dim)
    alone = theory.surrogate_real_only(n_real, dim=dim)
    below, above = math.floor(line * 0.98), math.ceil(line * 1.02)
    assert theory.surrogate_limit(n_real, below, bias, dim=dim) < alone
    assert theory.surrogate_limit(n_real, above, bias, dim=dim) > alone


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(0.0, 0.99), st.floats(0.0, 0.99), st.integers(1, 500))
def test_phase_line_rises_with_dimension_and_with_weaker_bias(a: float, b: float, dim: int) -> None:
    """More dimensions and weaker bias allow more synthetic data."""
    low, high = sorted((a, b))
    assert theory.phase_line(low, dim=dim) <= theory.phase_line(high, dim=dim) * (1 + 1e-12)
    assert theory.phase_line(low, dim=dim) < theory.phase_line(low, dim=dim + 1)


@pytest.mark.theory
@pytest.mark.parametrize(("n_real", "n_synthetic", "bias"), [(6, 18, 1.0), (10, 10, 0.7)])
def test_augmentation_moments_are_those_of_sampled_loops(n_real: int, n_synthetic: int, bias: float) -> None:
    """The same real data in every pool: total mean error and variance from the first fit on."""
    moments_agree(
        mixed_loop(n_real, n_synthetic, bias, 5, dim=2, fixed=True, loops=20_000),
        theory.augmentation_moments(n_real, n_synthetic, bias, 5),
    )


@pytest.mark.reference
def test_augmentation_limit_has_the_known_numbers() -> None:
    """The limit at 50 real and 200 synthetic samples."""
    point = theory.augmentation_fixed_point(50, 200, 1.0)
    assert (point.mean_error, point.variance) == pytest.approx((0.0288, 0.991), abs=5e-5)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(2, 300), st.integers(0, 300), biases)
def test_augmentation_ends_at_the_fixed_point_and_never_helps(
    n_real: int, n_synthetic: int, bias: float
) -> None:
    """The mean error rises to its limit, and never falls below that of the real data alone."""
    point = theory.augmentation_fixed_point(n_real, n_synthetic, bias)
    moments = theory.augmentation_moments(n_real, n_synthetic, bias, 6000)
    assert 0 <= point.rate < 1
    assert np.all(moments.mean_error[1:] >= 1 / n_real)
    if point.rate**6000 < 1e-13:
        end = (moments.variance[-1], moments.mean_error[-1])
        assert end == pytest.approx((point.variance, point.mean_error), rel=1e-9)


@pytest.mark.theory
def test_arrays_start_at_the_truth() -> None:
    """Entry 0 is the truth, and zero generations leave it alone."""
    for moments in (
        theory.fully_synthetic_moments(5, 0.5, 0),
        theory.fresh_moments(5, 5, 0.5, 0),
        theory.fresh_moments(5, 5, 0.5, 0, n_initial=3),
        theory.augmentation_moments(5, 5, 0.5, 0),
    ):
        assert (moments.variance.tolist(), moments.mean_error.tolist()) == ([1.0], [0.0])


@pytest.mark.theory
@pytest.mark.parametrize(("weight", "n_real", "n_synthetic"), [(0.618, 12, 12), (0.3, 12, 48), (1.0, 9, 3)])
def test_weighted_mean_error_is_that_of_sampled_loops(weight: float, n_real: int, n_synthetic: int) -> None:
    """Weighted means and weighted group variances, run to their limit."""
    rng = np.random.default_rng(5)
    mean, variance = np.zeros((30_000, 1)), np.ones((30_000, 1, 1))
    for _ in range(15):
        real = fit(rng.standard_normal((len(mean), n_real, 1)))
        synthetic = fit(normal(mean, variance, n_synthetic, rng))
        mean = weight * real[0] + (1 - weight) * synthetic[0]
        variance = weight * real[1] + (1 - weight) * synthetic[1]
    expected = theory.weighted_mean_error(weight, n_real / n_synthetic) / n_real
    agree(np.square(mean[:, 0])[None], np.array([expected]))


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(1e-4, 1e4))
def test_optimal_weight_is_the_least_of_the_error(ratio: float) -> None:
    """The closed form is where a numerical search ends, and the error there equals the weight."""
    weight = theory.optimal_real_weight(ratio)
    least = theory.weighted_mean_error(weight, ratio)
    assert least == pytest.approx(weight, rel=1e-6)
    result = optimize.minimize_scalar(
        lambda w: theory.weighted_mean_error(float(w), ratio), bounds=(1e-9, 1.0), method="bounded"
    )
    assert least <= result.fun * (1 + 1e-9)


@pytest.mark.theory
@pytest.mark.parametrize(("n_real", "n_synthetic"), [(100, 100), (30, 700)])
def test_weights_by_size_are_pooling(n_real: int, n_synthetic: int) -> None:
    """The mean under weights by size has the effective size of the pooled mean; the best weight has more."""
    share, ratio = n_real / (n_real + n_synthetic), n_real / n_synthetic
    pooled = n_real / theory.weighted_mean_error(share, ratio)
    assert pooled == pytest.approx(theory.mean_effective_size(n_real, n_synthetic))
    best = theory.weighted_effective_size(n_real, n_synthetic)
    assert best == pytest.approx(n_real / theory.optimal_real_weight(ratio))
    assert best > pooled


@pytest.mark.reference
def test_equal_numbers_take_the_golden_weight() -> None:
    """As many real as synthetic samples: one over the golden ratio."""
    assert theory.optimal_real_weight(1.0) == pytest.approx((math.sqrt(5) - 1) / 2)
    assert theory.weighted_effective_size(100, 10**10) == pytest.approx(1e6, rel=1e-3)


@pytest.mark.theory
@pytest.mark.parametrize(("n_real", "n_synthetic"), [(4, 12), (0, 10), (7, 0)])
def test_mark_drift_is_that_of_sampled_loops(n_real: int, n_synthetic: int) -> None:
    """A mark moves the mean by so much per generation."""
    means, _ = mixed_loop(n_real, n_synthetic, 1.0, 5, strength=0.3, loops=20_000)
    agree(means[..., 0], theory.mark_drift(n_real, n_synthetic, 0.3, 5))


@pytest.mark.theory
def test_mark_drift_shifts_by_a_generation_under_fixed_real_data() -> None:
    """With fixed real data the first fit is free of the mark, and the drift is that of one generation less."""
    means, _ = mixed_loop(4, 12, 1.0, 5, strength=0.3, fixed=True, loops=20_000)
    agree(means[1:, :, 0], theory.mark_drift(4, 12, 0.3, 4))


@pytest.mark.theory
def test_filtered_drift_is_that_of_sampled_loops() -> None:
    """A filter that drops three quarters of the synthetic and a fifth of the real items leaves this limit."""
    rng = np.random.default_rng(6)
    mean = np.zeros((4000, 1))
    for _ in range(12):
        points = rng.standard_normal((len(mean), 400))
        points[:, 80:] += mean + 0.2
        kept = rng.random(points.shape) >= np.repeat([0.2, 0.75], [80, 320])
        mean = points.mean(axis=1, where=kept, keepdims=True)
    expected = theory.mark_drift_limit(80, 320, 0.2, true_positive_rate=0.75, false_positive_rate=0.2)
    assert expected == pytest.approx(0.25)
    assert mean.mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(-2, 2))
def test_mark_drift_has_its_limit(n_real: int, n_synthetic: int, strength: float) -> None:
    """The drift ends at strength times synthetic per real; without real data it grows for ever."""
    drift = theory.mark_drift(n_real, n_synthetic, strength, 30_000)
    assert drift[-1] == pytest.approx(theory.mark_drift_limit(n_real, n_synthetic, strength), rel=1e-9)
    alone = theory.mark_drift(0, 5, strength, 4)
    np.testing.assert_allclose(alone, strength * np.arange(5), rtol=1e-12)


@pytest.mark.reference
def test_drift_limit_has_the_known_number() -> None:
    """A mark of .05 at 100 real and 900 synthetic samples ends at .45."""
    assert theory.mark_drift_limit(100, 900, 0.05) == pytest.approx(0.45)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1e6))
def test_required_rate_leaves_the_threshold(n_synthetic: int, threshold: float) -> None:
    """The rate is a rate, and what it leaves is the threshold or, without filtering, less."""
    rate = theory.required_true_positive_rate(n_synthetic, threshold)
    assert 0 <= rate <= 1
    assert n_synthetic * (1 - rate) == pytest.approx(min(threshold, n_synthetic), abs=1e-6)
    assert theory.required_true_positive_rate(n_synthetic, math.inf) == 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: theory.fully_synthetic_moments(1, 1.0, 3), "n"),
        (lambda: theory.fully_synthetic_moments(5, 1.1, 3), "sampling_bias"),
        (lambda: theory.fully_synthetic_moments(5, math.nan, 3), "sampling_bias"),
        (lambda: theory.fully_synthetic_moments(5, 1.0, -1), "n_generations"),
        (lambda: theory.fully_synthetic_w2_1d(1, 1.0, 3), "n"),
        (lambda: theory.fully_synthetic_second_moments(5, 1.0, 3, dim=0), "dim"),
        (lambda: theory.fresh_moments(-1, 5, 1.0, 3), "n_real"),
        (lambda: theory.fresh_moments(5, -1, 1.0, 3), "n_synthetic"),
        (lambda: theory.fresh_moments(1, 0, 1.0, 3), "n_real + n_synthetic"),
        (lambda: theory.fresh_moments(5, 5, 1.0, -1), "n_generations"),
        (lambda: theory.fresh_moments(5, 5, 1.0, 3, n_initial=1), "n_initial"),
        (lambda: theory.fresh_fixed_point(0, 5, 0.5), "n_real"),
        (lambda: theory.mean_effective_size(0, 5), "n_real"),
        (lambda: theory.surrogate_real_only(1, dim=1), "n"),
        (lambda: theory.surrogate_real_only(5, dim=0), "dim"),
        (lambda: theory.surrogate_limit(0, 5, 1.0, dim=1), "n_real"),
        (lambda: theory.surrogate_limit(5, 5, 1.0, dim=0), "dim"),
        (lambda: theory.covariance_noise(0, 5, 1.0), "n_real"),
        (lambda: theory.phase_line(-0.1, dim=1), "sampling_bias"),
        (lambda: theory.phase_line(0.5, dim=0), "dim"),
        (lambda: theory.augmentation_moments(1, 5, 1.0, 3), "n_real"),
        (lambda: theory.augmentation_moments(5, 5, 1.0, -1), "n_generations"),
        (lambda: theory.augmentation_fixed_point(1, 5, 1.0), "n_real"),
        (lambda: theory.weighted_mean_error(0.0, 1.0), "real_weight"),
        (lambda: theory.weighted_mean_error(0.5, 0.0), "ratio"),
        (lambda: theory.optimal_real_weight(math.inf), "ratio"),
        (lambda: theory.weighted_effective_size(0, 5), "n_real"),
        (lambda: theory.mark_drift(1, 0, 0.1, 3), "n_real + n_synthetic"),
        (lambda: theory.mark_drift(5, 5, math.nan, 3), "strength"),
        (lambda: theory.mark_drift_limit(0, 5, 0.1), "n_real"),
        (lambda: theory.mark_drift_limit(5, 5, 0.1, true_positive_rate=1.5), "true_positive_rate"),
        (lambda: theory.mark_drift_limit(5, 5, 0.1, false_positive_rate=1.0), "false_positive_rate"),
        (lambda: theory.required_true_positive_rate(-1, 5.0), "n_synthetic"),
        (lambda: theory.required_true_positive_rate(5, math.nan), "threshold"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    """A value out of range raises one line that starts with the argument's name."""
    assert_refused(call, name)


def test_unknown_covariance_is_named() -> None:
    """A divisor that does not exist is refused, also where types are not checked."""
    with pytest.raises(Exception, match="covariance"):
        theory.fully_synthetic_moments(5, 1.0, 3, covariance="biased")  # pyright: ignore[reportArgumentType]
