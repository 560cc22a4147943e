"""The engine with single samples: the same law as the one without, and what only it can do."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from laws import two_sample_pvalue

from poolproof.errors import InputError
from poolproof.simulate.accumulation import subsample_moments
from poolproof.simulate.gaussian import Gaussian, generations
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.points import choose, point_generations
from poolproof.simulate.theory import mark_drift_limit
from poolproof.simulate.wasserstein import squared_w2

LAW = Gaussian.from_moments(np.array([1.0, -1.0]), np.array([[1.0, 0.5], [0.5, 2.0]]))


@pytest.mark.reference
@pytest.mark.parametrize(
    "mixing",
    [
        Mixing.fully_synthetic(6),
        Mixing.augmentation(5, 7),
        Mixing.fresh(5, 7),
        Mixing(n_fresh=3, n_fixed=4, n_synthetic=9, n_models=3),
        Mixing(n_fixed=4, n_synthetic=6, n_kept=None, covariance="mle"),
        Mixing(n_fresh=4, n_synthetic=6, n_kept=2, weight_fresh=2.0),
        Mixing.weighted(5, 7, 0.6),
    ],
    ids=str,
)
@pytest.mark.parametrize("initial", ["data", "truth", 4])
def test_both_engines_have_one_law(mixing: Mixing, initial: object) -> None:
    """Distances in generation 5 have the same distribution with and without samples, biased and marked."""
    found = []
    for engine, seed in ((generations, 1), (point_generations, 2)):
        loops = engine(
            mixing,
            law=LAW,
            n_paths=3000,
            sampling_bias=0.8,
            initial=initial,  # pyright: ignore[reportArgumentType]
            mark=np.array([0.2, 0.1]),
            rng=np.random.default_rng(seed),
        )
        models = next(models for models in loops if models.generation == 5)
        found.append((squared_w2(models, LAW), models.mean[:, 0], models.covariance()[:, 0, 1]))
    for ours, theirs in zip(*found, strict=True):
        assert two_sample_pvalue(ours, theirs) > 1e-4


@pytest.mark.theory
def test_subsamples_of_all_data() -> None:
    """Accumulate-and-subsample gives the variance and mean error of its recursion."""
    mixing = Mixing(n_fixed=6, n_synthetic=6, n_kept=None, n_subsample=6, covariance="mle")
    loops = point_generations(mixing, law=Gaussian.standard(1), n_paths=60_000, rng=np.random.default_rng(0))
    expected = subsample_moments(6, 6)
    for models in itertools.islice(loops, 6):
        for values, moment in (
            (np.square(models.factor[:, 0, 0]), expected.variance),
            (np.square(models.mean[:, 0]), expected.mean_error),
        ):
            error = values.std() / math.sqrt(len(values))
            assert abs(values.mean() - moment[models.generation]) < 4.5 * error


@pytest.mark.theory
def test_a_filter_by_mark_lowers_the_drift() -> None:
    """Dropping a share of the synthetic and of the real samples gives the drift of the closed form."""
    true_positive_rate, false_positive_rate = 0.6, 0.1

    def policy(points: np.ndarray, is_synthetic: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del points
        rate = np.where(is_synthetic, true_positive_rate, false_positive_rate)
        return rng.random(len(rate)) >= rate

    loops = point_generations(
        Mixing.fresh(200, 600),
        law=Gaussian.standard(1),
        n_paths=600,
        mark=np.array([0.5]),
        policy=policy,
        rng=np.random.default_rng(1),
    )
    late = next(itertools.islice(loops, 25, None)).mean[:, 0]
    expected = mark_drift_limit(
        200, 600, 0.5, true_positive_rate=true_positive_rate, false_positive_rate=false_positive_rate
    )
    assert late.mean() == pytest.approx(expected, abs=5 * late.std() / math.sqrt(len(late)) + 0.01)


def test_a_policy_that_keeps_all_is_the_plain_loop() -> None:
    """A policy of no effect gives the loop without a policy, byte for byte."""
    plain, kept = (
        next(
            itertools.islice(
                point_generations(
                    Mixing.fresh(5, 6), law=LAW, n_paths=4, policy=policy, rng=np.random.default_rng(3)
                ),
                4,
                None,
            )
        )
        for policy in (None, lambda points, is_synthetic, rng: np.ones(len(points), bool))
    )
    assert (plain.mean == kept.mean).all()
    assert (plain.factor == kept.factor).all()


def test_policies_are_told_which_samples_are_synthetic() -> None:
    """A policy that keeps real samples only gives models of real data alone."""
    loops = point_generations(
        Mixing.fresh(30, 60),
        law=Gaussian.standard(1),
        n_paths=500,
        sampling_bias=0.1,
        policy=lambda points, is_synthetic, rng: ~is_synthetic,
        rng=np.random.default_rng(4),
    )
    late = next(itertools.islice(loops, 4, None))
    assert np.square(late.factor).mean() == pytest.approx(1, abs=0.05)


def test_subsamples_have_their_size() -> None:
    """Each loop draws its own subsample, of the asked size; a larger one than the pool takes all."""
    pool = np.zeros((3, 10, 1))
    keep = choose(pool, np.zeros(10, bool), 4, None, rng=np.random.default_rng(0))
    assert (keep.sum(axis=1) == 4).all()
    assert len({tuple(row) for row in keep.tolist()}) > 1
    assert choose(pool, np.zeros(10, bool), 40, None, rng=np.random.default_rng(0)).all()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda points, is_synthetic, rng: np.ones(3, bool), "shape"),
        (lambda points, is_synthetic, rng: np.ones(len(points)), "float64"),
        (lambda points, is_synthetic, rng: np.zeros(len(points), bool), "n: got 0"),
        (lambda points, is_synthetic, rng: np.arange(len(points)) == 0, "n: got 1"),
    ],
)
def test_bad_answers_of_a_policy(policy: object, message: str) -> None:
    """An answer of another shape or kind, or one that leaves too little, is refused in one line."""
    loops = point_generations(
        Mixing.fresh(5, 6),
        law=LAW,
        n_paths=2,
        policy=policy,  # pyright: ignore[reportArgumentType]
        rng=np.random.default_rng(0),
    )
    with pytest.raises(InputError, match=message):
        next(itertools.islice(loops, 2, None))
