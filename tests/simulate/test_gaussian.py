"""The exact engine against the closed forms, and the symmetries it must keep."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import law_pvalue, two_sample_pvalue
from scipy import stats

from poolproof.errors import InputError
from poolproof.simulate.accumulation import accumulate_moments
from poolproof.simulate.collapse import fully_synthetic_log_determinant, variance_law_1d
from poolproof.simulate.gaussian import Gaussian, Models, generations
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.survival import gaussian_survival_bound
from poolproof.simulate.theory import (
    Moments,
    augmentation_moments,
    fresh_fixed_point,
    fresh_moments,
    fully_synthetic_moments,
    fully_synthetic_second_moments,
    fully_synthetic_w2_1d,
    mark_drift,
    mark_drift_limit,
    optimal_real_weight,
    weighted_mean_error,
)
from poolproof.simulate.wasserstein import log_determinant, squared_w2


def run(
    mixing: Mixing,
    n_models: int,
    *,
    dim: int = 2,
    n_paths: int = 20_000,
    bias: float = 1.0,
    initial: object = "truth",
    mark: np.ndarray | None = None,
    law: Gaussian | None = None,
    seed: int = 0,
) -> list[Models]:
    """The first models of many loops."""
    loops = generations(
        mixing,
        law=Gaussian.standard(dim) if law is None else law,
        n_paths=n_paths,
        sampling_bias=bias,
        initial=initial,  # pyright: ignore[reportArgumentType]
        mark=mark,
        rng=np.random.default_rng(seed),
    )
    return list(itertools.islice(loops, n_models))


def variance(models: Models) -> np.ndarray:
    """Trace of the covariance per dimension, by loop."""
    return np.square(models.factor).sum(axis=(1, 2)) / models.mean.shape[1]


def agree(values: np.ndarray, expected: float, errors: float = 4.5) -> None:
    """The mean of the values is the expected one within so many of its standard errors."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= errors * error + 1e-12, (values.mean(), expected, error)


def agree_with(loops: list[Models], moments: Moments) -> None:
    """Variance and mean error of each generation are the theory's; generation 0 is the truth."""
    for models in loops:
        agree(variance(models), moments.variance[models.generation])
        agree(np.square(models.mean).mean(axis=1), moments.mean_error[models.generation])


# --- against closed forms -------------------------------------------------------------------------------


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.7])
@pytest.mark.parametrize("covariance", ["unbiased", "mle"])
def test_fully_synthetic_moments(bias: float, covariance: str) -> None:
    """Mean and variance of a fully synthetic loop follow the martingale formulas, under either estimator."""
    mixing = Mixing.fully_synthetic(12, covariance=covariance)  # pyright: ignore[reportArgumentType]
    expected = fully_synthetic_moments(12, bias, 6, covariance=covariance)  # pyright: ignore[reportArgumentType]
    agree_with(run(mixing, 7, bias=bias), expected)


@pytest.mark.theory
@pytest.mark.parametrize(
    ("n", "bias", "generation"), [(3, 1.0, 1), (3, 0.8, 6), (20, 1.0, 20), (50, 0.9, 40)]
)
def test_one_dimensional_variance_has_its_exact_law(n: int, bias: float, generation: int) -> None:
    """The whole distribution of the variance is the product of chi-squares, by Kolmogorov and Smirnov."""
    models = run(Mixing.fully_synthetic(n), generation + 1, dim=1, bias=bias)[-1]
    law = variance_law_1d(n, bias, generation)
    assert law_pvalue(variance(models), law.cdf) > 1e-3


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.9])
def test_one_dimensional_distance(bias: float) -> None:
    """The expected squared distance of a fully synthetic loop is the closed form in every generation."""
    expected = fully_synthetic_w2_1d(50, bias, 20)
    for models in run(Mixing.fully_synthetic(50), 21, dim=1, bias=bias, n_paths=40_000):
        agree(squared_w2(models, Gaussian.standard(1)), float(expected[models.generation]))


@pytest.mark.theory
def test_first_generation_distance_has_its_exact_law_in_one_dimension() -> None:
    """The squared distance of one fit is a normal square plus that of a chi deviation from 1, as a whole law."""
    n, rng = 10, np.random.default_rng(9)
    found = squared_w2(run(Mixing.fully_synthetic(n), 2, dim=1)[-1], Gaussian.standard(1))
    deviation = np.sqrt(stats.chi2(n - 1).rvs(20_000, random_state=rng) / (n - 1))
    expected = stats.chi2(1).rvs(20_000, random_state=rng) / n + np.square(1 - deviation)
    assert two_sample_pvalue(found, expected) > 1e-3


@pytest.mark.theory
@pytest.mark.parametrize(("n", "dim"), [(5, 3), (30, 4)])
def test_log_determinants(n: int, dim: int) -> None:
    """The mean log-determinant falls on the straight line of the digammas, far past underflow."""
    loops = run(Mixing.fully_synthetic(n), 41, dim=dim, n_paths=2000, bias=0.9)
    expected = fully_synthetic_log_determinant(n, 0.9, 40, dim=dim)
    for models in loops[1::8]:
        agree(log_determinant(models), float(expected[models.generation]))


@pytest.mark.theory
def test_second_moments_explode_while_medians_fall() -> None:
    """The mean of tr S^2 grows as the theory says, although the typical loop collapses."""
    n, dim = 12, 2
    loops = run(Mixing.fully_synthetic(n), 6, dim=dim, n_paths=60_000)
    expected = fully_synthetic_second_moments(n, 1.0, 5, dim=dim)
    for models in loops[1:]:
        covariance = models.covariance()
        agree(np.square(covariance).sum(axis=(1, 2)), float(expected.trace_of_square[models.generation]))
        agree(np.square(dim * variance(models)), float(expected.square_of_trace[models.generation]))
    medians = [float(np.median(variance(models))) for models in loops[1:]]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.theory
def test_survival_stays_below_its_bound() -> None:
    """Fewer loops keep a deviation above a threshold than the published bound allows."""
    bound = gaussian_survival_bound(4, 0.5, 40)
    for models in run(Mixing.fully_synthetic(4), 41, dim=1, n_paths=4000)[1:]:
        assert (np.sqrt(variance(models)) > 0.5).mean() <= bound[models.generation] + 0.02


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.6])
@pytest.mark.parametrize("n_initial", [None, 5])
def test_fresh_recursion(bias: float, n_initial: int | None) -> None:
    """Variance and mean error of the fresh loop follow the two-by-two recursion from either start."""
    expected = fresh_moments(10, 25, bias, 8, n_initial=n_initial)
    loops = run(Mixing.fresh(10, 25), 8, bias=bias, initial="truth" if n_initial is None else n_initial)
    agree_with(loops, expected)


@pytest.mark.theory
def test_fresh_loop_settles_at_the_fixed_point() -> None:
    """Late models have the moments of the fixed point."""
    point = fresh_fixed_point(10, 90, 0.9)
    late = run(Mixing.fresh(10, 90), 90, bias=0.9)[-1]
    agree(variance(late), point.variance)
    agree(np.square(late.mean).mean(axis=1), point.mean_error)


@pytest.mark.theory
def test_augmentation_recursion() -> None:
    """With fixed real data the moments follow their recursion, generation 1 being the fit to these data."""
    agree_with(run(Mixing.augmentation(10, 40), 9, initial="data"), augmentation_moments(10, 40, 1.0, 9))


@pytest.mark.theory
def test_accumulation() -> None:
    """Keeping all data, with maximum likelihood, gives the product of 1 - 1/(n i^2)."""
    mixing = Mixing(n_fixed=8, n_synthetic=8, n_kept=None, covariance="mle")
    agree_with(run(mixing, 9, dim=1, n_paths=60_000, initial="data"), accumulate_moments(8, 9))


@pytest.mark.theory
@pytest.mark.parametrize(
    "weight",
    [
        optimal_real_weight(0.5),
        pytest.param(0.3, marks=pytest.mark.slow),
        pytest.param(0.9, marks=pytest.mark.slow),
    ],
)
def test_weighted_sources(weight: float) -> None:
    """The limiting mean error of weighted sources is He, Xu and Cheng's, with its minimum at their weight."""
    late = run(Mixing.weighted(10, 20, weight), 60)[-1]
    expected = weighted_mean_error(weight, 0.5) / 10
    agree(np.square(late.mean).mean(axis=1), expected)
    assert expected >= weighted_mean_error(optimal_real_weight(0.5), 0.5) / 10


@pytest.mark.theory
def test_marks_drift() -> None:
    """A mark on synthetic samples drifts by t times its strength without real data, and to n_s/n_r times with."""
    mark = np.array([0.3, 0.0])
    for models in run(Mixing.fully_synthetic(30), 9, mark=mark):
        agree(models.mean[:, 0], 0.3 * models.generation)
    for models in run(Mixing.fresh(10, 30), 9, mark=mark):
        agree(models.mean[:, 0], float(mark_drift(10, 30, 0.3, 8)[models.generation]))
    limit = mark_drift_limit(10, 30, 0.3)
    agree(run(Mixing.fresh(10, 30), 60, mark=mark)[-1].mean[:, 0], limit)
    agree(run(Mixing.augmentation(10, 30), 60, mark=mark, initial="data")[-1].mean[:, 0], limit)


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_samples_than_dimensions(n: int) -> None:
    """Covariances of n samples in 5 dimensions have rank n - 1, the right trace, and no finite log-determinant."""
    loops = run(Mixing.fully_synthetic(n), 4, dim=5, n_paths=4000)
    for models in loops[1:]:
        assert (np.linalg.matrix_rank(models.factor[:20]) == n - 1).all()
        assert (log_determinant(models) == -np.inf).all()
    agree(variance(loops[1]), 1.0)
    mixed = run(Mixing.fresh(2, 2), 3, dim=5, n_paths=4000)
    assert (np.linalg.matrix_rank(mixed[-1].factor[:20]) == 3).all()


# --- symmetries and special cases -----------------------------------------------------------------------


def test_memory_of_one_is_the_fresh_loop() -> None:
    """Drawing from the last 1 model, and keeping 1 generation, is the plain fresh loop, byte for byte."""
    plain = run(Mixing.fresh(10, 20), 5, n_paths=50)
    memory = run(Mixing(n_fresh=10, n_synthetic=20, n_models=1, n_kept=1), 5, n_paths=50)
    for one, other in zip(plain, memory, strict=True):
        assert (one.mean == other.mean).all()
        assert (one.factor == other.factor).all()


@pytest.mark.theory
def test_all_real_is_real_only() -> None:
    """A real share of 1 gives, in every generation, the law of one fit to real data."""
    loops = run(Mixing.from_real_share(15, 1.0), 5, initial="data", n_paths=4000)
    once = run(Mixing.fully_synthetic(15), 1, initial="data", n_paths=4000, seed=1)[0]
    law = Gaussian.standard(2)
    for models in loops:
        assert two_sample_pvalue(squared_w2(models, law), squared_w2(once, law)) > 1e-4


@pytest.mark.property
@settings(deadline=None, max_examples=25)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 1000))
def test_scaling_and_shifting_the_data_scales_and_shifts_the_models(
    scale: float, shift: float, seed: int
) -> None:
    """Data times c plus b give models times c plus b: one and the same loop."""
    root = np.random.default_rng(seed).standard_normal((2, 2))
    plain = Gaussian(np.zeros(2), root)
    moved = Gaussian(np.full(2, shift), scale * root)
    for mixing in (Mixing.fresh(5, 9), Mixing.augmentation(4, 3), Mixing.fully_synthetic(6)):
        ours = run(mixing, 4, n_paths=3, law=plain, initial="data", seed=seed)[-1]
        theirs = run(mixing, 4, n_paths=3, law=moved, initial="data", seed=seed)[-1]
        size = scale * (1 + np.abs(ours.mean).max()) + abs(shift)
        assert theirs.mean == pytest.approx(scale * ours.mean + shift, rel=1e-7, abs=1e-9 * size)
        assert theirs.covariance() == pytest.approx(
            scale**2 * ours.covariance(), rel=1e-7, abs=1e-9 * scale**2
        )


@pytest.mark.property
@pytest.mark.parametrize("kind", ["rotation", "permutation"])
def test_turning_the_data_does_not_change_the_distances(kind: str, rng: np.random.Generator) -> None:
    """Rotated or permuted data give the same law of the squared distance in late generations."""
    covariance = np.diag([1.0, 4.0, 0.25])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] if kind == "rotation" else np.eye(3)[[2, 0, 1]]
    plain = Gaussian.from_moments(np.zeros(3), covariance)
    turned = Gaussian.from_moments(np.zeros(3), turn @ covariance @ turn.T)
    ours, theirs = (
        squared_w2(run(Mixing.fresh(6, 20), 8, dim=3, n_paths=6000, law=law, seed=seed)[-1], law)
        for law, seed in ((plain, 1), (turned, 2))
    )
    assert two_sample_pvalue(ours, theirs) > 1e-3


def test_a_bias_per_generation_is_used_in_its_turn() -> None:
    """A schedule applies one value after the other, and its last value from then on."""
    loops = run(Mixing.fully_synthetic(20), 5, bias=[0.5, 1.0, 0.25])  # pyright: ignore[reportArgumentType]
    for models, expected in zip(loops, [1, 0.5, 0.5, 0.125, 0.03125], strict=True):
        agree(variance(models), expected)


@pytest.mark.slow
def test_longer_memories_draw_from_older_models() -> None:
    """With K models the mean error is lower than with one, and with all of them lower still."""
    errors = [
        np.square(run(Mixing(n_fresh=4, n_synthetic=40, n_models=k), 40, n_paths=4000)[-1].mean).mean()
        for k in (1, 4, None)
    ]
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_kept_generations_stay_in_the_pool() -> None:
    """Keeping the last two generations of synthetic samples lowers the noise of the means."""
    errors = [
        np.square(run(Mixing(n_fresh=4, n_synthetic=40, n_kept=k), 40, n_paths=4000)[-1].mean).mean()
        for k in (1, 3)
    ]
    assert errors[0] > errors[1]


def test_models_can_be_handed_on() -> None:
    """A loop goes on from given models, which come first, and counts from their generation."""
    first = run(Mixing.fresh(5, 5), 3, n_paths=4)[-1]
    later = run(Mixing.fresh(5, 5), 3, n_paths=4, initial=first)
    assert [models.generation for models in later] == [2, 3, 4]
    assert later[0] is first


def test_first_generation_is_one() -> None:
    """The first fit is generation 1; only the truth is generation 0."""
    assert [m.generation for m in run(Mixing.fresh(5, 5), 2, n_paths=2, initial="data")] == [1, 2]
    assert [m.generation for m in run(Mixing.fresh(5, 5), 2, n_paths=2, initial="truth")] == [0, 1]
    assert [m.generation for m in run(Mixing.fresh(5, 5), 2, n_paths=2, initial=7)] == [1, 2]


def test_same_seed_same_loops() -> None:
    """The same generator gives the same bytes."""
    one, other = (run(Mixing.fresh(5, 5), 4, n_paths=6, seed=3)[-1] for _ in range(2))
    assert (one.mean == other.mean).all()
    assert (one.factor == other.factor).all()


def test_singular_truth() -> None:
    """Data that do not vary along an axis give models that do not either."""
    law = Gaussian.from_moments(np.zeros(3), np.diag([1.0, 0.0, 2.0]))
    late = run(Mixing.fresh(6, 6), 5, dim=3, n_paths=10, law=law)[-1]
    assert np.abs(late.covariance()[:, 1]).max() < 1e-12
    assert np.isfinite(squared_w2(late, law)).all()


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_paths": 0}, "n_paths: got 0"),
        ({"initial": 1}, "n_initial: got 1"),
        ({"mark": np.zeros(3)}, "mark: got shape"),
        ({"bias": 1.5}, "sampling_bias: got 1.5"),
        ({"bias": -0.1}, "sampling_bias: got -0.1"),
        ({"bias": float("nan")}, "sampling_bias: got nan"),
    ],
)
def test_bad_options_are_named(options: dict, name: str) -> None:
    """A loop that cannot start says what was got and what is allowed."""
    with pytest.raises(InputError) as caught:
        run(Mixing.fresh(5, 5), 1, **options)
    assert str(caught.value).startswith(name)
    assert "allowed" in str(caught.value)


def test_subsamples_need_points() -> None:
    """The engine without samples refuses a subsample and names the one with samples."""
    with pytest.raises(InputError, match=r"simulate\.points"):
        run(Mixing(n_fresh=5, n_subsample=3), 1)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.diag([1.0, -0.5]), "positive semidefinite"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "not symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "not finite"),
    ],
)
def test_impossible_covariances(covariance: np.ndarray, message: str) -> None:
    """What is no covariance of the mean's dimension is refused."""
    with pytest.raises(InputError, match=message):
        Gaussian.from_moments(np.zeros(2), covariance)


def test_dimension_must_be_positive() -> None:
    """There is no normal law in zero dimensions."""
    with pytest.raises(InputError, match="dim: got 0"):
        Gaussian.standard(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("Gaussian.from_moments(np.float64(0), np.eye(1))", "covariance: got shape (1, 1) with a mean of ()"),
        (
            "generations(Mixing.fresh(5, 5), law=Gaussian.standard(2), n_paths=3, rng=rng, "
            "initial=Models(1, np.zeros((3, 2)), np.ones((3, 3, 3))))",
            "initial: got models of shapes (3, 2) and (3, 3, 3), allowed (3, 2) and (3, 2, 2)",
        ),
        (
            "generations(Mixing.fresh(5, 5), law=Gaussian.standard(2), n_paths=3, rng=rng, mark='left')",
            "mark: got 'left', allowed one number per dimension",
        ),
    ],
)
def test_shapes_are_refused_without_a_type_checker(call: str, message: str) -> None:
    """Arrays of another shape are refused in one line, where no type checker stands before the call."""
    code = (
        "import numpy as np\n"
        "from poolproof.errors import InputError\n"
        "from poolproof.simulate.gaussian import Gaussian, Models, generations\n"
        "from poolproof.simulate.mixing import Mixing\n"
        f"rng = np.random.default_rng(0)\ntry: {call}\nexcept InputError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.startswith(message)
