"""The limit, n_e and the border of the admissible region, against published and independent figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError, UnreliableEstimate
from poolproof.simulate.admissible import (
    admissible_threshold,
    effective_sample_size,
    limit_distance,
    real_only_distance,
)
from poolproof.simulate.theory import phase_line


def generator() -> np.random.Generator:
    """The same randomness for every test."""
    return np.random.default_rng(11)


@pytest.mark.reference
def test_reference_distances() -> None:
    """In 100 dimensions: 12.3 at (100, 900) without bias, and about 32 for 100 real samples alone."""
    limit = limit_distance(100, 900, 1, rng=generator())
    assert limit.converged
    assert abs(limit.value - 12.3) < 0.1 + 2 * limit.stderr
    alone = real_only_distance(100, rng=generator())
    assert abs(alone.value - 32.2) < 0.01 * 32.2
    assert alone.stderr < 0.001 * alone.value


@pytest.mark.reference
@pytest.mark.parametrize(
    ("n_synthetic", "bias", "ratio"),
    [
        (10, 1, 1.10),
        (100, 1, 1.62),
        (1000, 1, 2.27),
        (10, 0.7, 1.11),
        (100, 0.7, 1.71),
        (1000, 0.7, 1.09),
        (3000, 0.7, 0.73),
    ],
)
def test_reference_ratios(n_synthetic: int, bias: float, ratio: float) -> None:
    """n_e / n_r at n_r = 100 in 100 dimensions is the known one, to the per cent it is known to."""
    found = effective_sample_size(100, n_synthetic, bias, rng=generator())
    assert abs(found.ratio - ratio) < 0.012 * ratio + 2 * found.ratio_stderr
    assert found.n_e == pytest.approx(100 * found.ratio)
    assert found.stderr == pytest.approx(100 * found.ratio_stderr)
    assert found.admissible is (ratio > 1)


@pytest.mark.reference
def test_distance_is_that_of_a_loop_of_sampled_points(rng: np.random.Generator) -> None:
    """A plain NumPy loop with sampled points ends at the distance that the estimate says."""
    n_real, n_synthetic, bias, dim = 12, 30, 0.8, 3
    finals = []
    for _ in range(400):
        mean, root = np.zeros(dim), np.eye(dim)
        for generation in range(60):
            synthetic = mean + math.sqrt(bias) * rng.standard_normal((n_synthetic, dim)) @ root.T
            pool = np.concatenate([rng.standard_normal((n_real, dim)), synthetic])
            mean, covariance = pool.mean(axis=0), np.cov(pool.T)
            root = np.linalg.cholesky(covariance)
            if generation in (39, 49, 59):
                values = np.linalg.eigvalsh(covariance)
                finals.append(mean @ mean + np.square(1 - np.sqrt(values)).sum())
    error = np.std(finals) / math.sqrt(len(finals))
    estimate = limit_distance(n_real, n_synthetic, bias, dim=dim, rng=generator())
    assert abs(estimate.value - np.mean(finals)) < 4.5 * math.hypot(error, estimate.stderr)


def test_without_synthetic_data_nothing_changes() -> None:
    """At n_synthetic = 0 the loop is real-only: n_e is n_real exactly, and the distances agree."""
    found = effective_sample_size(40, 0, 0.7, dim=3, rng=generator())
    assert (found.n_e, found.ratio, found.stderr, found.admissible) == (40.0, 1.0, 0.0, True)
    alone = real_only_distance(40, dim=3, rng=generator())
    assert abs(found.limit.value - alone.value) < 4.5 * math.hypot(found.limit.stderr, alone.stderr)


def test_unbiased_samples_are_always_admissible() -> None:
    """Without bias the ratio is above 1 for any number of synthetic samples, and rises with it."""
    ratios = [effective_sample_size(30, n, 1, dim=5, rng=generator()).ratio for n in (3, 30, 300)]
    assert 1 < ratios[0] < ratios[1] < ratios[2] < 3


@pytest.mark.slow
def test_a_longer_memory_is_worth_more() -> None:
    """Samples from more models before give a higher n_e."""
    ratios = [
        effective_sample_size(30, 300, 1, dim=5, n_models=k, tolerance=0.03, rng=generator()).ratio
        for k in (1, 3, 8)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 1.5 * ratios[0]


def test_too_close_to_call() -> None:
    """Next to 1 the verdict is withheld rather than guessed."""
    found = effective_sample_size(10_000, 2, 0.5, dim=2, tolerance=0.01, rng=generator())
    assert abs(found.ratio - 1) < 3 * found.ratio_stderr
    assert found.admissible is None or abs(found.ratio - 1) >= 2 * found.ratio_stderr


def test_worse_than_two_samples() -> None:
    """A loop that does worse than two real samples has no n_e, and says so."""
    with pytest.raises(UnreliableEstimate, match="below 2"):
        effective_sample_size(2, 100_000, 0.0, dim=1, rng=generator())


def test_same_seed_same_figures() -> None:
    """The same generator gives the same estimate, another one another."""
    one, other = (limit_distance(10, 20, 0.9, dim=4, rng=generator()) for _ in range(2))
    assert one == other
    assert limit_distance(10, 20, 0.9, dim=4, rng=np.random.default_rng(12)).value != one.value


# --- the border -----------------------------------------------------------------------------------------


@pytest.mark.reference
def test_reference_threshold() -> None:
    """At n_r = 100, bias 0.7 and 100 dimensions the border lies at about 1,200 synthetic samples."""
    found = admissible_threshold(100, 0.7, rng=generator())
    assert found.converged
    assert found.n_synthetic == pytest.approx(1206, abs=6 + 4 * found.stderr)
    assert found.stderr <= 0.03 * found.n_synthetic


@pytest.mark.slow
@pytest.mark.theory
def test_threshold_nears_the_phase_line() -> None:
    """With many real samples the border goes to the closed form."""
    found = admissible_threshold(1000, 0.5, dim=3, tolerance=0.05, rng=generator())
    assert found.n_synthetic == pytest.approx(
        phase_line(0.5, dim=3), rel=0.1 + 4 * found.stderr / found.n_synthetic
    )


@pytest.mark.parametrize(
    ("n_real", "bias", "dim"),
    [
        (30, 0.6, 4),
        pytest.param(8, 0.9, 4, marks=pytest.mark.slow),
        pytest.param(200, 0.2, 2, marks=pytest.mark.slow),
    ],
)
def test_ratio_is_one_at_the_threshold(n_real: int, bias: float, dim: int) -> None:
    """Below the border the ratio is above 1, beyond it below, and at it 1 within errors."""
    found = admissible_threshold(n_real, bias, dim=dim, rng=generator())
    ratios = [
        effective_sample_size(
            n_real, max(1, round(found.n_synthetic * factor)), bias, dim=dim, tolerance=0.003, rng=generator()
        )
        for factor in (0.7, 1.0, 1.5)
    ]
    assert ratios[0].ratio > 1 > ratios[2].ratio
    assert ratios[1].ratio == pytest.approx(1, abs=0.02)


def test_no_border_without_bias() -> None:
    """Unbiased samples have no border, and the reason is given."""
    found = admissible_threshold(100, 1, rng=generator())
    assert found.n_synthetic == math.inf
    assert found.converged
    assert found.why is not None


def test_no_border_for_a_handful_of_samples() -> None:
    """Ten samples in a hundred dimensions are worse than a point, so anything is admissible beside them."""
    found = admissible_threshold(10, 0.7, rng=generator())
    assert found.n_synthetic == math.inf
    assert found.why is not None
    assert "without any variance" in found.why


def test_a_threshold_that_is_not_reached_says_so() -> None:
    """Too few rounds for the tolerance leave an honest error and a reason."""
    found = admissible_threshold(50, 0.7, dim=3, tolerance=1e-5, n_rounds=1, rng=generator())
    assert not found.converged
    assert found.stderr > 1e-5 * found.n_synthetic
    assert found.why is not None
    assert "n_rounds" in found.why


def test_a_border_that_cannot_be_found_is_not_made_up() -> None:
    """Where the ratio is next to 1 everywhere the error is infinite and the reason is given, never a lucky root."""
    found = admissible_threshold(10**6, 0.5, dim=1, n_rounds=1, rng=generator())
    assert not found.converged
    assert found.stderr == math.inf or abs(found.n_synthetic - phase_line(0.5, dim=1)) < 5 * found.stderr
    assert found.why is not None


def test_a_border_next_to_no_bias_is_not_called_infinite() -> None:
    """Where the closed form lies beyond what is searched, the search starts within, and what it cannot tell it says."""
    found = admissible_threshold(10, 0.999999, dim=1, rng=generator())
    assert not found.converged
    assert found.stderr == math.inf
    assert found.n_synthetic < 1e9
    assert found.why is not None
    assert "do not forget" in found.why


@pytest.mark.parametrize(
    ("budget", "named"), [({"max_generations": 20}, "max_generations"), ({"max_steps": 5}, "max_steps")]
)
def test_a_spent_budget_ends_the_search(budget: dict[str, int], named: str) -> None:
    """Loops that cannot settle, or too few steps, give a guess of unknown error and the option to raise."""
    found = admissible_threshold(20, 0.95, dim=1, **budget, rng=generator())
    assert not found.converged
    assert found.stderr == math.inf
    assert found.why is not None
    assert named in found.why


def test_a_few_paths_give_a_larger_error() -> None:
    """With few loops for each sample the border is found all the same, with the error that they have."""
    few = admissible_threshold(30, 0.6, dim=4, tolerance=0.2, n_rounds=2, max_paths=200, rng=generator())
    many = admissible_threshold(30, 0.6, dim=4, rng=generator())
    assert 2 * many.stderr < few.stderr < 0.3 * many.n_synthetic
    assert abs(few.n_synthetic - many.n_synthetic) < 4.5 * few.stderr


def test_a_start_that_shows_withholds_the_verdict() -> None:
    """Where the loop did not forget its start there is a figure but no verdict."""
    found = effective_sample_size(20, 2000, 1, dim=2, tolerance=0.1, max_generations=20, rng=generator())
    assert found.limit.start_shows
    assert abs(found.ratio - 1) > 2 * found.ratio_stderr
    assert found.admissible is None


@pytest.mark.slow
@pytest.mark.coverage
def test_threshold_errors_are_honest() -> None:
    """Eight estimates of one border spread about as much as they say."""
    found = [admissible_threshold(40, 0.6, dim=6, rng=np.random.default_rng(seed)) for seed in range(8)]
    values = np.array([each.n_synthetic for each in found])
    errors = np.array([each.stderr for each in found])
    assert 0.4 < np.std((values - values.mean()) / errors, ddof=1) < 2.2


# --- bad input ------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"n_real": 1}, "n_real: got 1"),
    ({"n_real": -5}, "n_real: got -5"),
    ({"n_synthetic": -1}, "n_synthetic: got -1"),
    ({"sampling_bias": 1.01}, "sampling_bias: got 1.01"),
    ({"sampling_bias": -0.2}, "sampling_bias: got -0.2"),
    ({"sampling_bias": math.nan}, "sampling_bias: got nan"),
    ({"dim": 0}, "dim: got 0"),
    ({"tolerance": 0.0}, "tolerance: got 0.0"),
    ({"tolerance": 1.0}, "tolerance: got 1.0"),
    ({"max_paths": 3}, "max_paths: got 3"),
    ({"max_generations": 3}, "max_generations: got 3"),
]


@pytest.mark.parametrize(("options", "name"), BAD)
@pytest.mark.parametrize("function", [limit_distance, effective_sample_size])
def test_bad_input_is_named(function: Callable[..., object], options: dict[str, Any], name: str) -> None:
    """What is out of range is refused by name, with what was got and what is allowed, in one line."""
    with pytest.raises(InputError) as caught:
        function(
            **(
                {"n_real": 10, "n_synthetic": 10, "sampling_bias": 0.5, "dim": 2, "rng": generator()}
                | options
            )
        )
    assert str(caught.value).startswith(name)
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: real_only_distance(1, rng=generator()), "n: got 1"),
        (lambda: real_only_distance(10, dim=0, rng=generator()), "dim: got 0"),
        (lambda: real_only_distance(10, tolerance=2, rng=generator()), "tolerance: got 2"),
        (lambda: admissible_threshold(1, 0.5, rng=generator()), "n_real: got 1"),
        (lambda: admissible_threshold(10, 1.5, rng=generator()), "sampling_bias: got 1.5"),
        (lambda: admissible_threshold(10, 0.5, dim=-1, rng=generator()), "dim: got -1"),
        (lambda: admissible_threshold(10, 0.5, n_rounds=0, rng=generator()), "n_rounds: got 0"),
        (lambda: admissible_threshold(10, 0.5, max_steps=0, rng=generator()), "max_steps: got 0"),
        (lambda: admissible_threshold(10, 0.5, max_paths=3, rng=generator()), "max_paths: got 3"),
        (lambda: admissible_threshold(10, 0.5, dim=10**6, rng=generator()), "dim: got 1000000"),
    ],
)
def test_other_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    """Real-only distance and threshold check what they are given alike."""
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(name)
