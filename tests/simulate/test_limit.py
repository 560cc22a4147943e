"""Limits by simulation: right, with errors that are as large as they say, and honest about a short budget."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from poolproof.errors import InputError, UnreliableEstimate
from poolproof.simulate.gaussian import Gaussian, generations
from poolproof.simulate.limit import RealOnlyCurve, _near_limit, block_size, loop_limit, real_only_limit
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.theory import fresh_fixed_point, surrogate_limit, surrogate_real_only
from poolproof.simulate.wasserstein import squared_w2


def exact_one_dimensional(n: int) -> float:
    """E W2^2 of one fit to n normal numbers: 1/n + 2 - 2 E sigma."""
    alpha = math.sqrt(2 / (n - 1)) * math.exp(special.gammaln(n / 2) - special.gammaln((n - 1) / 2))
    return 1 / n + 2 - 2 * alpha


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 3, 10, 100, 10**4])
def test_real_only_is_exact_in_one_dimension(n: int, rng: np.random.Generator) -> None:
    """In one dimension the estimate is the closed form within its error, and that error is small."""
    estimate = real_only_limit(n, dim=1, tolerance=0.001, rng=rng)
    assert abs(estimate.value - exact_one_dimensional(n)) < 4.5 * estimate.stderr
    assert estimate.converged
    assert estimate.stderr <= 0.001 * estimate.value


@pytest.mark.reference
@pytest.mark.parametrize(("n", "dim"), [(4, 6), (7, 6), (60, 6), (30, 100)])
def test_real_only_is_that_of_sampled_points(n: int, dim: int, rng: np.random.Generator) -> None:
    """Fits to sampled points, with SciPy-free NumPy, are as far from the truth on average, singular or not."""
    distances = []
    for _ in range(300 if dim > 10 else 3000):
        points = rng.standard_normal((n, dim))
        values = np.linalg.eigvalsh(np.cov(points.T)).clip(0)
        distances.append(np.square(points.mean(axis=0)).sum() + np.square(1 - np.sqrt(values)).sum())
    error = np.std(distances) / math.sqrt(len(distances))
    estimate = real_only_limit(n, dim=dim, tolerance=0.002, rng=rng)
    assert abs(estimate.value - np.mean(distances)) < 4.5 * math.hypot(error, estimate.stderr)


@pytest.mark.theory
def test_real_only_nears_its_expansion() -> None:
    """Far above the dimension it is d/n + d(d + 1)/(4n)."""
    estimate = real_only_limit(10**6, dim=20, tolerance=0.001, rng=np.random.default_rng(0))
    assert estimate.value == pytest.approx(surrogate_real_only(10**6, dim=20), rel=0.002)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("bias", "n_models"), [(1.0, 1), (0.6, 1), pytest.param(1.0, 3, marks=pytest.mark.slow)]
)
def test_limit_is_that_of_a_long_plain_loop(bias: float, n_models: int) -> None:
    """A long loop from an ordinary start, averaged, ends where the estimate says, whatever the start."""
    mixing = Mixing(n_fresh=12, n_synthetic=40, n_models=n_models)
    law = Gaussian.standard(4)
    estimate = loop_limit(mixing, bias, dim=4, tolerance=0.003, rng=np.random.default_rng(1))
    for initial in ("data", 400):
        loops = generations(
            mixing,
            law=law,
            n_paths=1500,
            sampling_bias=bias,
            initial=initial,  # pyright: ignore[reportArgumentType]
            rng=np.random.default_rng(2),
        )
        late = np.mean([squared_w2(models, law) for models in itertools.islice(loops, 80, 120, 4)], axis=0)
        error = math.hypot(float(late.std() / math.sqrt(len(late))), estimate.stderr)
        assert abs(late.mean() - estimate.value) < 4.5 * error
    assert estimate.converged
    assert not estimate.start_shows


@pytest.mark.theory
@pytest.mark.parametrize(
    ("n_real", "n_synthetic", "bias"), [(3, 30, 1.0), (3, 300, 1.0), (1, 50, 0.9), (50, 70, 0.8)]
)
def test_loops_start_with_the_moments_of_the_limit(n_real: int, n_synthetic: int, bias: float) -> None:
    """The models that loops start from have, on average, the variance and mean error where the recursion rests."""
    models = _near_limit(
        Mixing.fresh(n_real, n_synthetic), bias, Gaussian.standard(2), 60_000, rng=np.random.default_rng(3)
    )
    point = fresh_fixed_point(n_real, n_synthetic, bias)
    assert np.square(models.factor).sum() / 120_000 == pytest.approx(point.variance, rel=0.015)
    assert np.square(models.mean).mean() == pytest.approx(point.mean_error, rel=0.015)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(
    ("options", "dim", "expected", "error"),
    [
        ({"n_fresh": 3, "n_synthetic": 30}, 2, 0.7412, 0.0008),
        ({"n_fresh": 10, "n_synthetic": 30, "n_kept": 3}, 3, 0.43479, 0.00076),
        ({"n_fresh": 10, "n_synthetic": 100, "n_models": 10}, 5, 0.23788, 0.00048),
        ({"n_fresh": 3, "n_synthetic": 30, "covariance": "mle"}, 2, 0.51976, 0.00067),
    ],
)
def test_limit_of_few_real_samples(options: dict, dim: int, expected: float, error: float) -> None:
    """With few real samples, and any memory, the start is forgotten: plain loops from the truth, run long, end there.

    The expected distances come from `gaussian.generations` with `initial="truth"`, seed 987: 14 relaxation times and
    more thrown away, 24 generations half a relaxation time apart averaged, thousands of loops.
    """
    estimate = loop_limit(Mixing(**options), dim=dim, rng=np.random.default_rng(0))
    assert estimate.converged
    assert abs(estimate.value - expected) < 3 * math.hypot(error, estimate.stderr)


@pytest.mark.reference
def test_fixed_data_at_a_loose_tolerance() -> None:
    """A loose tolerance is no licence to start at the fit to the fixed data and stay there."""
    mixing, law = Mixing.augmentation(5, 20), Gaussian.standard(3)
    loops = generations(mixing, law=law, n_paths=8000, rng=np.random.default_rng(2))
    late = np.mean([squared_w2(models, law) for models in itertools.islice(loops, 60, 100, 8)], axis=0)
    estimates = [
        loop_limit(mixing, dim=3, tolerance=0.1, rng=np.random.default_rng(seed)) for seed in range(8)
    ]
    values = np.array([estimate.value for estimate in estimates])
    error = math.hypot(values.std(ddof=1) / math.sqrt(8), float(late.std() / math.sqrt(len(late))))
    assert abs(values.mean() - late.mean()) < 3.5 * error
    assert all(estimate.n_generations > 25 for estimate in estimates)


@pytest.mark.parametrize("weight", [1e-20, 1e-90])
def test_weights_that_rounding_swallows_are_refused(weight: float) -> None:
    """Where real data weigh less than rounding there is no limit that could be computed."""
    mixing = Mixing(n_fresh=10, n_synthetic=10, weight_fresh=weight)
    with pytest.raises(InputError, match="mixing: got Mixing"):
        loop_limit(mixing, dim=1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("memory", [{"n_models": 10**6}, {"n_kept": 10**6}])
def test_too_long_a_memory_is_refused(memory: dict) -> None:
    """A memory of a million models is refused instead of filling the machine's."""
    with pytest.raises(InputError, match="n_models, n_kept: got"):
        loop_limit(Mixing(n_fresh=10, n_synthetic=10, **memory), dim=1, rng=np.random.default_rng(0))


def test_loops_that_hardly_forget_are_cut() -> None:
    """Real data that are a millionth of a millionth give an estimate whose start may show, not a crash."""
    cut = loop_limit(
        Mixing.fresh(10, 10**13), 1.0, dim=1, tolerance=0.2, max_paths=16, max_generations=40,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert cut.start_shows
    assert cut.n_generations <= 40


def test_steps_are_counted() -> None:
    """With few steps for all blocks the error is what they reach, and the option to raise is named."""
    short = loop_limit(
        Mixing.fresh(10, 20), dim=30, tolerance=0.001, max_steps=60, rng=np.random.default_rng(0)
    )
    assert short.n_paths // block_size(30) * short.n_generations <= 60
    assert short.why is not None
    assert "raise max_steps above 60" in short.why


@pytest.mark.theory
def test_limit_nears_its_surrogate() -> None:
    """With many samples the limit is the first-order closed form."""
    estimate = loop_limit(
        Mixing.fresh(20_000, 60_000), 0.9, dim=5, tolerance=0.003, rng=np.random.default_rng(0)
    )
    assert estimate.value == pytest.approx(surrogate_limit(20_000, 60_000, 0.9, dim=5), rel=0.012)


@pytest.mark.coverage
def test_standard_errors_are_honest() -> None:
    """Forty estimates of one limit spread about their mean as much as their errors say."""
    estimates = [
        loop_limit(Mixing.fresh(10, 20), 0.8, dim=20, tolerance=0.01, rng=np.random.default_rng(seed))
        for seed in range(40)
    ]
    values = np.array([estimate.value for estimate in estimates])
    errors = np.array([estimate.stderr for estimate in estimates])
    scores = (values - values.mean()) / errors
    assert 0.6 < scores.std() < 1.5
    assert (errors <= 0.01 * values).all()


def test_a_short_budget_is_admitted() -> None:
    """Where the budget does not reach the tolerance the estimate says so and carries its true error."""
    short = loop_limit(
        Mixing.fresh(10, 20), 1.0, dim=1, tolerance=1e-5, max_paths=64, rng=np.random.default_rng(0)
    )
    assert not short.converged
    assert short.stderr > 1e-5 * short.value
    assert short.why is not None
    assert "max_paths" in short.why
    long = loop_limit(Mixing.fresh(10, 20), 1.0, dim=1, tolerance=0.005, rng=np.random.default_rng(1))
    assert abs(short.value - long.value) < 5 * short.stderr


def test_a_start_that_shows_is_admitted() -> None:
    """A slow loop that may not run long enough says that its start may show."""
    cut = loop_limit(
        Mixing.fresh(2, 4000), 1.0, dim=2, tolerance=0.1, max_generations=40, rng=np.random.default_rng(0)
    )
    assert cut.start_shows
    assert not cut.converged
    assert cut.why is not None
    assert "max_generations" in cut.why
    assert cut.n_generations <= 40


@pytest.mark.slow
@pytest.mark.reference
def test_fixed_real_data_have_a_limit() -> None:
    """Augmentation settles where a long plain loop does, above the distance of its real data alone."""
    mixing = Mixing.augmentation(20, 100)
    law = Gaussian.standard(20)
    estimate = loop_limit(mixing, dim=20, tolerance=0.004, rng=np.random.default_rng(0))
    loops = generations(mixing, law=law, n_paths=1000, rng=np.random.default_rng(2))
    late = np.mean([squared_w2(models, law) for models in itertools.islice(loops, 60, 90, 5)], axis=0)
    error = math.hypot(float(late.std() / math.sqrt(len(late))), estimate.stderr)
    assert abs(late.mean() - estimate.value) < 4 * error
    alone = real_only_limit(20, dim=20, tolerance=0.003, rng=np.random.default_rng(1))
    assert estimate.value > alone.value + 3 * estimate.stderr


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing.fully_synthetic(10),
        Mixing(n_fixed=5, n_synthetic=5, n_kept=None),
        Mixing(n_fresh=5, n_synthetic=5, n_models=None),
    ],
)
def test_loops_without_a_limit_are_refused(mixing: Mixing) -> None:
    """A loop that keeps everything, or has no real data, settles nowhere and says so."""
    with pytest.raises(InputError, match="mixing: got Mixing"):
        loop_limit(mixing, dim=2, rng=np.random.default_rng(0))


@pytest.mark.property
@settings(deadline=None, max_examples=15)
@given(n=st.integers(3, 5000), dim=st.sampled_from([1, 3, 10]))
def test_inverting_the_curve_gives_the_size_back(n: int, dim: int) -> None:
    """The distance of n real samples is that of n real samples, up to the errors of curve and distance."""
    curve = RealOnlyCurve(dim, seed=5)
    found = real_only_limit(n, dim=dim, tolerance=0.0005, rng=np.random.default_rng(n))
    n_e, error = curve.invert(found.value, found.stderr)
    assert abs(n_e - n) < 5 * error + 0.004 * n


def test_inversion_carries_both_errors() -> None:
    """The error of n_e grows with that of the distance, and is not 0 where the distance is exact."""
    curve = RealOnlyCurve(3, seed=0)
    exact, coarse = curve.invert(0.05, 0.0), curve.invert(0.05, 0.005)
    assert exact[0] == coarse[0]
    assert 0 < exact[1] < coarse[1]
    assert coarse[1] == pytest.approx(0.1 * coarse[0], rel=0.15)


def test_distances_that_no_sample_size_has() -> None:
    """A distance above that of two real samples cannot be inverted, and says so."""
    with pytest.raises(UnreliableEstimate, match="below 2"):
        RealOnlyCurve(1, seed=0).invert(0.95, 0.001)


def test_bounds_of_what_cannot_be_inverted() -> None:
    """Beyond the ends of the curve the interval that n_e is in is told, wider where the distance is not well known."""
    curve = RealOnlyCurve(1, seed=0)
    bounds = []
    for distance, stderr in [(0.95, 0.001), (0.95, 0.2), (1e-15, 1e-18), (1e-15, 1e-14)]:
        with pytest.raises(UnreliableEstimate) as caught:
            curve.invert(distance, stderr)
        bounds.append(caught.value.estimate)
    assert bounds[0] == (0.0, 2.0)
    assert bounds[1][0] == 0
    assert 2 < bounds[1][1] < 10
    assert 8e14 < bounds[2][0] < 1e15
    assert bounds[2][1] == math.inf
    assert bounds[3] == (0.0, math.inf)


def test_curve_is_the_same_in_any_order() -> None:
    """Points of the curve depend on seed, dimension and size alone."""
    first = [RealOnlyCurve(3, seed=1).at(n).value for n in (5, 50)]
    later = [RealOnlyCurve(3, seed=1).at(n).value for n in (50, 5)]
    assert first == later[::-1]
    assert RealOnlyCurve(3, seed=2).at(5).value != first[0]


def test_blocks_shrink_with_the_dimension() -> None:
    """A block holds at least sixteen loops and never too many."""
    assert [block_size(dim) for dim in (1, 2, 10, 32, 1000)] == [4096, 4096, 163, 16, 16]
