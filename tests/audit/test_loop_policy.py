"""Policies for pools inside a loop: they audit each generation's pool without looking at the truth."""

from __future__ import annotations

import numpy as np
import pytest

from poolproof.audit.loop_policy import as_loop_policy, audit_samples
from poolproof.audit.policy import CapRatio, DropAbove, KeepBudget, Weigh
from poolproof.errors import UnreliableEstimate
from poolproof.simulate.flaggers import Witness
from poolproof.simulate.policies import apply_policy
from poolproof.simulate.training_pool import FRESH, SYNTHETIC, Part, TrainingPool, make_pool, unmarked


def draw_points(n_real: int, n_synthetic: int, rng: np.random.Generator) -> tuple[TrainingPool, Witness]:
    """Points in four dimensions, the synthetic ones three apart, and a witness of the same kinds."""

    def draw(n: int, is_synthetic: bool) -> np.ndarray:
        return rng.standard_normal((n, 4)) + 1.5 * is_synthetic

    parts = [
        (FRESH, Part(draw(n_real, False), None, unmarked(n_real))),
        (SYNTHETIC, Part(draw(n_synthetic, True), None, unmarked(n_synthetic))),
    ]
    witness = Witness(lambda samples: samples, None, draw(200, False), draw(200, True))
    return make_pool(parts, (1.0, 1.0, 1.0)), witness


@pytest.mark.coverage
def test_a_capped_generation_is_within_the_cap() -> None:
    """The cap holds by true counts in each of three generations, and real samples stay in number."""
    rng = np.random.default_rng(0)
    policy = as_loop_policy(CapRatio(0.25))
    for _ in range(3):
        pool, witness = draw_points(300, 200, rng)
        kept, _ = apply_policy(policy, pool, witness, rng=rng)
        counts = kept.counts()
        assert counts["synthetic"] <= 0.25 * counts["fresh"]
        assert counts["fresh"] > 150


def test_weights_reach_the_loop() -> None:
    """A policy of weights keeps every sample and lowers most of the synthetic ones'."""
    rng = np.random.default_rng(1)
    pool, witness = draw_points(200, 200, rng)
    weighed, _ = apply_policy(as_loop_policy(Weigh(0.25)), pool, witness, rng=rng)
    assert len(weighed) == 400
    assert weighed.weights[weighed.is_synthetic].mean() < 0.4 < weighed.weights[~weighed.is_synthetic].mean()


def test_the_truth_is_not_looked_at() -> None:
    """The same samples with other origins give the same decision."""
    pool, witness = draw_points(100, 100, np.random.default_rng(2))
    others = TrainingPool(pool.images, None, pool.source[::-1].copy(), pool.is_marked, pool.weights)
    first, second = (
        as_loop_policy(DropAbove()).decide(each, witness, rng=np.random.default_rng(3)).weights
        for each in (pool, others)
    )
    assert np.array_equal(first, second)
    assert 0 < first.sum() < 200


def test_share_of_a_generation_holds_the_truth() -> None:
    """The limits that decisions rest on hold the pool's share."""
    pool, witness = draw_points(300, 100, np.random.default_rng(4))
    share = audit_samples(pool, witness, rng=np.random.default_rng(5)).standing.share
    assert share.lower <= 0.25 <= share.upper


def test_names_tell_policies_apart_and_few_known_samples_are_refused() -> None:
    """Options are in the name, since finished generations are found by it; a witness of three samples is too small."""
    assert as_loop_policy(KeepBudget(10)).name != as_loop_policy(KeepBudget(20)).name
    assert as_loop_policy(KeepBudget(10), name="mine").name == "mine"
    pool, witness = draw_points(20, 20, np.random.default_rng(6))
    few = Witness(witness.read_features, None, witness.real[:3], witness.synthetic[:3])
    with pytest.raises(UnreliableEstimate):
        as_loop_policy(DropAbove()).decide(pool, few, rng=np.random.default_rng(0))
