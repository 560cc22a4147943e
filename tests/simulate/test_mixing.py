"""What a generation trains on: families, counts, weights, and how fast a loop forgets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.simulate.gaussian import Gaussian, generations
from poolproof.simulate.mixing import Mixing, bias_schedule
from poolproof.simulate.theory import fresh_fixed_point


def test_families_name_their_sources() -> None:
    """Each family of the paper sets the counts that define it, and nothing else."""
    assert Mixing.fully_synthetic(50) == Mixing(n_synthetic=50)
    assert Mixing.augmentation(50, 20) == Mixing(n_fixed=50, n_synthetic=20)
    assert Mixing.fresh(50, 20) == Mixing(n_fresh=50, n_synthetic=20)
    assert Mixing.fresh(50, 20).options() == {"n_fresh": 50, "n_synthetic": 20}


def test_real_share_splits_the_total() -> None:
    """A share of 1 is real data alone, one of 0 is fully synthetic, and counts always add up."""
    assert Mixing.from_real_share(100, 1.0) == Mixing(n_fresh=100)
    assert Mixing.from_real_share(100, 0.0) == Mixing.fully_synthetic(100)
    for share in np.linspace(0, 1, 31):
        mixing = Mixing.from_real_share(997, float(share))
        assert mixing.n_fresh + mixing.n_synthetic == 997
        assert mixing.real_weight() == pytest.approx(share, abs=1 / 997)


def test_weights_are_those_asked_for() -> None:
    """The weighted family gives its real samples together the asked weight, whatever the counts."""
    assert Mixing.weighted(10, 90, 0.618).real_weight() == pytest.approx(0.618)
    assert Mixing.weighted(10, 90, 0.618).estimator == "grouped"


@pytest.mark.property
@given(n=st.integers(2, 10_000), n_models=st.integers(1, 30) | st.none(), n_available=st.integers(1, 40))
def test_synthetic_counts_are_even(n: int, n_models: int | None, n_available: int) -> None:
    """All synthetic samples are drawn, from no more models than there are, in parts that differ by one at most."""
    counts = Mixing(n_synthetic=n, n_models=n_models).synthetic_counts(n_available)
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    assert len(counts) == (n_available if n_models is None else min(n_models, n_available))


@pytest.mark.theory
@pytest.mark.parametrize(("n_models", "n_kept"), [(1, 1), (3, 1), (1, 4), (3, 4), (12, 1)])
@pytest.mark.parametrize("bias", [1.0, 0.6])
def test_relaxation_and_persistence_are_those_of_the_recursion(
    n_models: int, n_kept: int, bias: float
) -> None:
    """A simulated scalar recursion forgets at the stated rate and settles at the stated variance."""
    mixing = Mixing(n_fresh=200, n_synthetic=300, n_models=n_models, n_kept=n_kept)
    strength = (1 - mixing.real_weight()) * bias
    kernel = np.convolve(np.full(n_models, 1 / n_models), np.full(n_kept, 1 / n_kept))
    step = np.eye(len(kernel), k=-1)
    step[0] = strength * kernel
    state = np.linalg.matrix_power(step, 600) @ np.ones(len(kernel))
    later = step @ state
    assert later[0] / state[0] == pytest.approx(mixing.relaxation(bias), rel=1e-6)
    # stationary covariance of the state, by summing the powers of the step
    covariance, noise = np.zeros_like(step), np.zeros_like(step)
    noise[0, 0] = 1
    power = np.eye(len(kernel))
    for _ in range(4000):
        covariance += power @ noise @ power.T
        power = step @ power
    assert kernel @ covariance @ kernel == pytest.approx(mixing.persistence(bias), rel=1e-6)


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.9, 0.0])
@pytest.mark.parametrize(
    ("n_real", "n_synthetic"), [(1, 50), (3, 30), (3, 300), (100, 900), (10, 10**9), (7, 0)]
)
def test_expected_variance_is_the_fixed_point(n_real: int, n_synthetic: int, bias: float) -> None:
    """With a memory of one model variance and mean error are those where the recursion of moments rests."""
    mixing = Mixing.fresh(n_real, n_synthetic)
    point = fresh_fixed_point(n_real, n_synthetic, bias)
    variance = mixing.expected_variance(bias)
    assert variance == pytest.approx(point.variance, rel=1e-5)
    mean_noise, _ = mixing.noise(bias, variance)
    assert mean_noise * mixing.persistence() == pytest.approx(point.mean_error, rel=1e-5)


@pytest.mark.theory
@pytest.mark.parametrize(
    "options",
    [
        {"n_models": 3},
        {"n_kept": 3},
        {"covariance": "mle"},
        {"estimator": "grouped"},
        {"weight_fresh": 3.0},
    ],
)
def test_expected_variance_is_that_of_loops(options: dict, rng: np.random.Generator) -> None:
    """With memory, weights and either estimator, late models vary about as expected."""
    mixing = Mixing(n_fresh=20, n_synthetic=60, **options)
    loops = generations(mixing, law=Gaussian.standard(1), n_paths=3000, sampling_bias=0.95, rng=rng)
    late = [np.square(models.factor).mean() for models in itertools.islice(loops, 100, 300, 10)]
    assert np.mean(late) == pytest.approx(mixing.expected_variance(0.95), rel=0.015)


def test_variance_without_bound_is_infinite() -> None:
    """Where the sources of a pool lie ever further apart the expectation has no end."""
    runaway = Mixing(n_fresh=2, n_synthetic=2, weight_fresh=1e-6, n_models=40)
    assert runaway.expected_variance() == np.inf


@pytest.mark.parametrize("memory", [{"n_models": 10**6}, {"n_kept": 10**6}])
def test_endlessly_long_memories_are_refused(memory: dict) -> None:
    """The recursion of a memory of a million models is not solved."""
    with pytest.raises(InputError, match="n_models, n_kept: got"):
        Mixing(n_fresh=10, n_synthetic=10, **memory).relaxation()


@pytest.mark.parametrize("weight", [1e308, 1e-300])
@pytest.mark.parametrize("source", ["fresh", "synthetic"])
def test_weights_beyond_numbers_are_refused(source: str, weight: float) -> None:
    """Weights whose sums or squares no float holds are refused by name."""
    options: dict = {f"weight_{source}": weight}
    with pytest.raises(InputError, match=f"weight_{source}: got"):
        Mixing(n_fresh=10, n_synthetic=10, **options)


@pytest.mark.parametrize("options", [{"weight_synthetic": 1e-20}, {"weight_fresh": 1e20}])
def test_one_sample_that_outweighs_all_is_refused(options: dict) -> None:
    """Where next to all weight lies on one sample there is no covariance to fit."""
    with pytest.raises(InputError, match="weights: got next to all"):
        Mixing(n_fresh=1, n_synthetic=10, **options)


def test_endless_memory_never_forgets() -> None:
    """Loops that keep everything, or have no real data, have relaxation 1 and no final share."""
    assert Mixing(n_fixed=10, n_synthetic=10, n_kept=None).relaxation() == 1
    assert Mixing.fully_synthetic(10).relaxation() == pytest.approx(1)
    assert Mixing.fully_synthetic(10).persistence() == np.inf
    with pytest.raises(InputError, match="n_kept"):
        Mixing(n_fixed=10, n_synthetic=10, n_kept=None).real_weight()


def test_bias_schedule_holds_one_value_or_many() -> None:
    """One number is a schedule of one, a list is taken as it is."""
    assert bias_schedule(0.5).tolist() == [0.5]
    assert bias_schedule([1, 0.5]).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "n: got 0"),
        ({"n_fresh": 1}, "n: got 1"),
        ({"n_fresh": -1, "n_synthetic": 10}, "n_fresh: got -1"),
        ({"n_fresh": True, "n_synthetic": 9}, "n_fresh: got True"),
        ({"n_fresh": 10**20}, "n_fresh: got 1000"),
        ({"n_synthetic": 10, "n_models": 0}, "n_models: got 0"),
        ({"n_synthetic": 10, "n_kept": 0}, "n_kept: got 0"),
        ({"n_synthetic": 10, "n_subsample": 1}, "n_subsample: got 1"),
        ({"n_synthetic": 10, "weight_synthetic": -1.0}, "weight_synthetic: got -1.0"),
        ({"n_synthetic": 10, "weight_synthetic": float("nan")}, "weight_synthetic: got nan"),
        ({"n_synthetic": 10, "weight_synthetic": 0.0}, "weights: got 0"),
        ({"n_fresh": 1, "n_synthetic": 10, "estimator": "grouped"}, "n_fresh: got 1"),
    ],
)
def test_impossible_mixings_are_named(options: dict, name: str) -> None:
    """What cannot be trained on is refused by name, with what was got."""
    with pytest.raises(InputError) as caught:
        Mixing(**options)
    assert str(caught.value).startswith(name)
    assert "allowed" in str(caught.value)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_and_biases_lie_between_0_and_1(share: float) -> None:
    """A real share, a real weight or a sampling bias outside [0, 1] is refused."""
    with pytest.raises(InputError, match="real_share"):
        Mixing.from_real_share(100, share)
    with pytest.raises(InputError, match="real_weight"):
        Mixing.weighted(10, 10, share)
    with pytest.raises(InputError, match="sampling_bias"):
        bias_schedule([1.0, share])
    with pytest.raises(InputError, match="no value"):
        bias_schedule([])


@pytest.mark.property
@settings(max_examples=50)
@given(p=st.floats(0.01, 0.99), bias=st.floats(0, 1), k=st.integers(1, 8))
def test_a_longer_memory_forgets_more_slowly(p: float, bias: float, k: int) -> None:
    """More models before slow the forgetting down and damp what noise does."""
    n = 10_000
    short = Mixing(n_fresh=round(p * n), n_synthetic=n - round(p * n), n_models=k)
    long = Mixing(n_fresh=round(p * n), n_synthetic=n - round(p * n), n_models=k + 1)
    assert long.relaxation(bias) >= short.relaxation(bias) - 1e-9
    assert long.persistence(bias) <= short.persistence(bias) + 1e-9
