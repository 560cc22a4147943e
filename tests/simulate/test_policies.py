"""Policies and flaggers of a loop: whom they flag, what they drop, and at what rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.simulate.flaggers import DetectorFlags, MarkFlags, Rates, SetRates, Witness, read_flagger
from poolproof.simulate.policies import (
    POLICIES,
    AbstractPolicy,
    CallablePolicy,
    DropFlagged,
    KeepAll,
    KeepBest,
    RatioCap,
    WeighFlagged,
    apply_policy,
    count_to_drop,
    read_policy,
)
from poolproof.simulate.theory import optimal_real_weight
from poolproof.simulate.training_pool import FRESH, SYNTHETIC, Part, TrainingPool, make_pool, unmarked

ALL_POLICIES = [
    KeepAll(),
    DropFlagged(SetRates(0.9, 0.05)),
    RatioCap(SetRates(0.9, 0.05), 0.3),
    WeighFlagged(SetRates(0.9, 0.05)),
    WeighFlagged(SetRates(0.9, 0.05), 0.25),
    KeepBest(0.5),
    DropFlagged(DetectorFlags(0.1)),
    CallablePolicy("half", lambda pool, witness, rng: rng.random(len(pool)) < 0.5),
]


def make_points(
    n_real: int, n_synthetic: int, rng: np.random.Generator, shift: float = 3.0
) -> tuple[TrainingPool, Witness]:
    """A pool of points whose synthetic ones lie apart, and a witness of the same kinds."""

    def draw(n: int, is_synthetic: bool) -> np.ndarray:
        return rng.standard_normal((n, 4)) + shift * is_synthetic

    labels = rng.integers(3, size=n_real + n_synthetic)
    parts = [
        (FRESH, Part(draw(n_real, False), labels[:n_real], unmarked(n_real))),
        (SYNTHETIC, Part(draw(n_synthetic, True), labels[n_real:], unmarked(n_synthetic))),
    ]
    pool = make_pool(parts, (1.0, 1.0, 1.0))
    witness = Witness(lambda samples: samples, None, draw(300, False), draw(300, True))
    return pool, witness


@pytest.mark.parametrize("policy", ALL_POLICIES, ids=lambda policy: type(policy).__name__)
def test_every_policy_answers_alike_for_the_same_stream(
    policy: AbstractPolicy, rng: np.random.Generator
) -> None:
    """Weights are finite, 0 or more, one per sample, and follow from `rng` alone."""
    pool, witness = make_points(200, 300, rng)
    first, second = (apply_policy(policy, pool, witness, rng=np.random.default_rng(5))[0] for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.weights, second.weights)
    assert (first.weights > 0).all()
    assert len(pool) == 500
    assert (pool.weights == 1).all()


@pytest.mark.coverage
def test_set_rates_are_kept_on_average(rng: np.random.Generator) -> None:
    """Flags at set rates have these rates within what chance allows."""
    pool, witness = make_points(20_000, 20_000, rng)
    flagged, rates = SetRates(0.7, 0.1).flag(pool, witness, rng=rng)
    assert rates == Rates(0.7, 0.1)
    assert flagged[pool.is_synthetic].mean() == pytest.approx(0.7, abs=4 * np.sqrt(0.7 * 0.3 / 20_000))
    assert flagged[~pool.is_synthetic].mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 20_000))


def test_drop_flagged_leaves_the_rest_as_it_is(rng: np.random.Generator) -> None:
    """A perfect flagger leaves the real samples, in their order and with their weights."""
    pool, witness = make_points(30, 40, rng)
    kept, decision = apply_policy(DropFlagged(SetRates(1.0, 0.0)), pool, witness, rng=rng)
    np.testing.assert_array_equal(kept.images, pool.images[:30])
    assert decision.flagged is not None
    assert decision.flagged.sum() == 40


def test_keep_all_reduces_to_the_plain_loop(rng: np.random.Generator) -> None:
    """A policy without effect gives back every sample with weight 1."""
    pool, witness = make_points(30, 40, rng)
    for policy in (KeepAll(), DropFlagged(SetRates(0.0, 0.0)), RatioCap(SetRates(0.9, 0.1), 1e6)):
        kept, _ = apply_policy(policy, pool, witness, rng=rng)
        np.testing.assert_array_equal(kept.images, pool.images)
        assert (kept.weights == 1).all()


@pytest.mark.theory
@pytest.mark.parametrize(("tpr", "fpr"), [(1.0, 0.0), (0.95, 0.01), (0.95, 0.1), (0.7, 0.01)])
def test_cap_holds_the_ratio_on_average(tpr: float, fpr: float, rng: np.random.Generator) -> None:
    """After the cap there are as many synthetic samples per real one as it allows, and no fewer than needed."""
    pool, witness = make_points(2000, 2000, rng)
    ratios = []
    for _ in range(60):
        kept, decision = apply_policy(RatioCap(SetRates(tpr, fpr), 0.5), pool, witness, rng=rng)
        ratios.append(kept.is_synthetic.sum() / (~kept.is_synthetic).sum())
        assert decision.note == ""
    error = np.std(ratios, ddof=1) / np.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 0.5) < 4 * error + 0.002


def test_cap_that_no_filter_reaches_says_so(rng: np.random.Generator) -> None:
    """Where dropping all flagged samples leaves too many synthetic ones, the decision says it."""
    pool, witness = make_points(100, 900, rng)
    kept, decision = apply_policy(RatioCap(SetRates(0.5, 0.01), 0.5), pool, witness, rng=rng)
    assert "cap not reached" in decision.note
    assert decision.flagged is not None
    assert len(kept) == 1000 - decision.flagged.sum()


@pytest.mark.property
@given(
    n=st.integers(1, 10_000),
    part=st.floats(0, 1),
    tpr=st.floats(0, 1),
    fpr=st.floats(0, 1),
    ratio=st.floats(0, 100),
)
def test_count_to_drop_stays_within_what_is_flagged(
    n: int, part: float, tpr: float, fpr: float, ratio: float
) -> None:
    """No more than the flagged are dropped, for any rates, and a higher cap never drops more."""
    n_flagged = int(part * n)
    dropped, _ = count_to_drop(n, n_flagged, Rates(tpr, fpr), ratio)
    assert 0 <= dropped <= n_flagged
    more, _ = count_to_drop(n, n_flagged, Rates(tpr, fpr), ratio + 1)
    assert more <= dropped


def test_cap_with_next_to_no_gain_drops_what_is_flagged() -> None:
    """Where each dropped sample gains next to nothing, all flagged ones go and the cap is not reached."""
    rates = Rates(5e-324, 0.0)
    assert count_to_drop(1000, 10, rates, 0.0) == (10, False)
    part = 0.5 + 1e-17
    dropped, enough = count_to_drop(1000, 600, Rates(1.0, 0.5), part / (1 - part) * (1 - 1e-16))
    assert (0 <= dropped <= 600, isinstance(enough, bool)) == (True, True)


@pytest.mark.reference
def test_golden_weights_give_the_sources_their_best_shares(rng: np.random.Generator) -> None:
    """With a perfect flagger the real samples together weigh what the closed form says is best."""
    pool, witness = make_points(100, 300, rng)
    kept, _ = apply_policy(WeighFlagged(SetRates(1.0, 0.0)), pool, witness, rng=rng)
    real = kept.weights[~kept.is_synthetic].sum() / kept.weights.sum()
    assert real == pytest.approx(optimal_real_weight(100 / 300))


def test_keep_best_prefers_what_lies_near_the_real_samples(rng: np.random.Generator) -> None:
    """Selection by closeness keeps its share of every class and drops outliers first."""
    pool, witness = make_points(300, 300, rng, shift=8.0)
    kept, _ = apply_policy(KeepBest(0.5), pool, witness, rng=rng)
    assert len(kept) == pytest.approx(300, abs=3)
    assert kept.is_synthetic.mean() < 0.06
    assert pool.labels is not None
    assert kept.labels is not None
    np.testing.assert_allclose(np.bincount(kept.labels), np.bincount(pool.labels) / 2, atol=1)


def test_detector_knows_its_own_rates(rng: np.random.Generator) -> None:
    """The probe's rates, counted on samples it has not seen, agree with those on the pool."""
    pool, witness = make_points(2000, 2000, rng, shift=1.0)
    flagged, rates = DetectorFlags(0.05).flag(pool, witness, rng=rng)
    assert rates.fpr == pytest.approx(0.05, abs=0.01)
    assert flagged[~pool.is_synthetic].mean() == pytest.approx(0.05, abs=0.06)
    assert flagged[pool.is_synthetic].mean() == pytest.approx(rates.tpr, abs=0.12)
    assert rates.tpr > 0.5


def test_mark_flags_by_pvalue(rng: np.random.Generator) -> None:
    """Samples whose p-value is below the level are flagged, and the rates come from the witness."""
    pool, witness = make_points(50, 50, rng)
    pvalues: Callable[[np.ndarray], np.ndarray] = lambda samples: np.where(samples[:, 0] > 1.5, 0.001, 0.5)  # noqa: E731
    seen = Witness(witness.read_features, pvalues, witness.real, witness.synthetic)
    flagged, rates = MarkFlags(0.01).flag(pool, seen, rng=rng)
    np.testing.assert_array_equal(flagged, pool.images[:, 0] > 1.5)
    assert rates.tpr == pytest.approx((witness.synthetic[:, 0] > 1.5).mean())
    with pytest.raises(InputError, match="'mark' in a loop without one"):
        MarkFlags(0.01).flag(pool, witness, rng=rng)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda pool, witness, rng: np.ones(3), r"weights of shape \(3,\)"),
        (lambda pool, witness, rng: np.full(len(pool), np.nan), "finite and 0 or more"),
        (lambda pool, witness, rng: -np.ones(len(pool)), "finite and 0 or more"),
        (lambda pool, witness, rng: np.arange(len(pool)) < 5, "got 5 of 100 samples kept"),
    ],
)
def test_answers_that_cannot_be_trained_on_are_refused(
    answer: Callable[..., np.ndarray], message: str, rng: np.random.Generator
) -> None:
    """A policy of the user's own is checked like ours."""
    pool, witness = make_points(50, 50, rng)
    with pytest.raises(InputError, match=message):
        apply_policy(CallablePolicy("own", answer), pool, witness, rng=rng)


def test_every_policy_is_read_from_a_table() -> None:
    """The table of kinds covers each policy, with nested flags."""
    flags = {"kind": "set", "tpr": 0.9, "fpr": 0.05}
    found = [
        read_policy({"kind": "keep-all"}),
        read_policy({"kind": "drop-flagged", "flags": flags}),
        read_policy({"kind": "ratio-cap", "flags": flags, "max_ratio": 0.3}),
        read_policy({"kind": "weigh-flagged", "flags": flags}),
        read_policy({"kind": "keep-best", "share": 0.5}),
    ]
    assert [type(policy) for policy in found] == list(POLICIES.values())
    assert found[2] == RatioCap(SetRates(0.9, 0.05), 0.3)
    assert read_flagger({"kind": "mark", "level": 0.001}) == MarkFlags(0.001)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("keep-all", "^policy: got 'keep-all', allowed a table"),
        ({"kind": "keep"}, "^policy.kind: got 'keep', allowed keep-all, drop-flagged"),
        ({"kind": "drop-flagged"}, "^policy: got no flags"),
        ({"kind": "drop-flagged", "flags": "set"}, "^policy.flags: got 'set', allowed a table"),
        (
            {"kind": "drop-flagged", "flags": {"kind": "x"}},
            "^policy.flags.kind: got 'x', allowed set, mark, detector",
        ),
        ({"kind": "drop-flagged", "flags": {"kind": "set", "tpr": 2, "fpr": 0}}, "^policy.flags.tpr: got 2"),
        ({"kind": "ratio-cap", "flags": {"kind": "mark"}, "max_ratio": -1}, "^policy.max_ratio: got -1"),
        ({"kind": "keep-best", "share": 0}, "^policy.share: got 0"),
    ],
)
def test_policies_that_cannot_be_are_refused(table: object, message: str) -> None:
    """One line says what is wrong with a policy's table."""
    with pytest.raises(InputError, match=message):
        read_policy(table)
