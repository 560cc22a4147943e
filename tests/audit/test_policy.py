"""Policies on audited pools: what they remove, what they promise, and how often the promise holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_pools import DrawnPool, draw_pool

from poolproof.audit.ledger import Ledger
from poolproof.audit.policy import (
    POLICIES,
    AbstractPolicy,
    CapRatio,
    ControlDiscoveries,
    DropAbove,
    DropFound,
    HoldAdmissible,
    KeepBudget,
    Weigh,
)
from poolproof.audit.region import GaussianRegion, RatioRegion
from poolproof.audit.removal import cut_above, smallest_cut
from poolproof.audit.scored_pool import TIERS, ShareLimits
from poolproof.errors import InputError

ALL_POLICIES: list[AbstractPolicy] = [
    DropFound(),
    DropFound(("signed", "marked")),
    DropAbove(),
    DropAbove(threshold=0.7),
    DropAbove(max_fpr=0.05),
    ControlDiscoveries(0.1),
    HoldAdmissible(RatioRegion(0.2)),
    CapRatio(0.1),
    CapRatio(0.0),
    KeepBudget(100),
    Weigh(),
    Weigh(0.25),
]


def ledger_of(drawn: DrawnPool) -> Ledger:
    """Accounts of a drawn pool."""
    return Ledger(drawn.pool, draws=4000, rng=np.random.default_rng(7))


@pytest.mark.parametrize("policy", ALL_POLICIES, ids=lambda policy: str(policy.describe()))
def test_every_policy_keeps_its_contract(policy: AbstractPolicy) -> None:
    """A policy removes scored items alone, by score from a threshold on, says the same twice, and is listed."""
    drawn = draw_pool(np.random.default_rng(3), n_unanswered=5)
    pool = drawn.pool
    status = pool.status.copy()
    status[:20] = np.arange(20) % 4 + 1  # items that were not scored
    pool = replace(pool, status=status)
    first, second = (policy.choose(Ledger(pool, draws=2000, rng=np.random.default_rng(0))) for _ in range(2))
    gone = first.cut.gone
    assert np.array_equal(gone, second.cut.gone)
    assert not (gone & ~pool.scored).any()
    assert np.array_equal(gone & pool.answered, pool.answered & (pool.scores > first.cut.above))
    if first.weights is not None:
        assert first.weights.shape == gone.shape
        assert (first.weights >= 0).all()
    assert POLICIES[policy.kind] is type(policy)
    assert policy.describe()["kind"] == policy.kind


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("policy", ALL_POLICIES[2:8], ids=lambda policy: str(policy.describe()))
def test_limits_of_what_is_left_and_lost_hold(policy: AbstractPolicy) -> None:
    """In 95 of 100 pools and more, the true synthetic images left and real ones lost lie within their limits."""
    rng = np.random.default_rng(11)
    held = np.zeros(3)
    for _ in range(100):
        drawn = draw_pool(rng, n=400, share=float(rng.choice([0.1, 0.3, 0.6])), n_reference=150)
        ledger = Ledger(drawn.pool, draws=3000, rng=rng)
        cut = policy.choose(ledger).cut
        told = ledger.balance(cut)
        held += (
            told.synthetic_left.lower <= drawn.left(cut.gone) <= told.synthetic_left.upper,
            told.real_lost.lower <= drawn.lost(cut.gone) <= told.real_lost.upper,
            told.removed == drawn.lost(cut.gone) + int((drawn.is_synthetic & cut.gone).sum()),
        )
    assert (held >= 95).all(), held
    assert held[2] == 100


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize(("share", "n_reference"), [(0.1, 400), (0.3, 400), (0.6, 3200)])
def test_pool_is_inside_the_region_after_the_smallest_removal(share: float, n_reference: int) -> None:
    """Of 100 pools of 600 images, 95 or more are inside the region by their true counts, and are said to be."""
    rng = np.random.default_rng(round(100 * share))
    region = RatioRegion(0.08)
    inside = reached = 0
    for _ in range(100):
        drawn = draw_pool(rng, share=share, separation=2.6, n_reference=n_reference)
        cut, shortfall = smallest_cut(Ledger(drawn.pool, draws=5000, rng=rng), region)
        left = drawn.left(cut.gone)
        n_real = int((~cut.gone).sum()) - left
        reached += shortfall is None
        inside += shortfall is not None or left <= 0.08 * n_real
    assert inside >= 95
    assert reached >= 95


@pytest.mark.slow
@pytest.mark.coverage
def test_more_references_bring_pools_inside_that_fell_short() -> None:
    """Where 400 references are too few for a pool of 60 %, with as many as are asked for most such pools are inside."""
    rng = np.random.default_rng(60)
    region = RatioRegion(0.08)
    short = helped = 0
    for _ in range(60):
        drawn = draw_pool(rng, share=0.6, separation=2.6)
        shortfall = smallest_cut(Ledger(drawn.pool, draws=5000, rng=rng), region)[1]
        if shortfall is None:
            continue
        assert shortfall.most_left > shortfall.allowed
        assert shortfall.needed_references is not None
        more = draw_pool(rng, share=0.6, separation=2.6, n_reference=shortfall.needed_references)
        short += 1
        helped += smallest_cut(Ledger(more.pool, draws=5000, rng=rng), region)[1] is None
    assert 20 <= short <= 50
    assert helped > 0.6 * short


def test_smallest_cut_removes_nothing_from_a_pool_inside() -> None:
    """A pool that is inside the region as it is stays whole."""
    drawn = draw_pool(np.random.default_rng(0), share=0.1)
    cut, shortfall = smallest_cut(ledger_of(drawn), RatioRegion(1.0))
    assert shortfall is None
    assert not cut.gone.any()


def test_smallest_cut_takes_the_strongest_findings_first_and_no_more_than_needed() -> None:
    """Where some findings are enough, the signed go before the marked, and with one fewer the pool would be outside."""
    drawn = draw_pool(np.random.default_rng(1), share=0.3, found_share=0.8)
    ledger = ledger_of(drawn)
    most = ledger.n_found + ledger.rest.upper
    allowed = most - ledger.n_found // 2
    region = RatioRegion(allowed / (ledger.n - ledger.n_found // 2 - allowed))
    cut, shortfall = smallest_cut(ledger, region)
    assert shortfall is None
    assert math.isinf(cut.above)
    n_gone = int(cut.gone.sum())
    assert 0 < n_gone < ledger.n_found
    tiers_gone, tiers_kept = drawn.pool.tier[cut.gone], drawn.pool.tier[drawn.pool.found & ~cut.gone]
    assert tiers_gone.max() <= tiers_kept.min()
    left = ledger.n_found - n_gone + 1
    assert not region.holds(ledger.n - n_gone + 1, left + ledger.rest.lower, left + ledger.rest.upper)


def test_smallest_cut_by_score_is_the_smallest() -> None:
    """No threshold above the chosen one brings the pool inside."""
    drawn = draw_pool(np.random.default_rng(2), share=0.3)
    ledger, region = ledger_of(drawn), RatioRegion(0.1)
    cut, shortfall = smallest_cut(ledger, region)
    assert shortfall is None
    for above in ledger.scores[ledger.scores > cut.above]:
        kept = int((ledger.scores <= above).sum()) + ledger.n_unanswered
        assert not region.holds(kept, ledger.fewest_left(float(above)), ledger.most_left(float(above)))


def test_shortfall_says_what_is_missing() -> None:
    """A weak detector cannot get there: it needs a higher rate than proven, and more references would not do."""
    drawn = draw_pool(np.random.default_rng(3), share=0.3, separation=0.3, n_reference=200)
    _, shortfall = smallest_cut(ledger_of(drawn), RatioRegion(0.02))
    assert shortfall is not None
    assert shortfall.needed_tpr > shortfall.proven_tpr
    assert shortfall.needed_references is None
    assert "would have to find" in shortfall.why


def test_shortfall_counts_the_references_that_would_do() -> None:
    """A good detector with few references is told how many more it takes, and with so many it gets there."""
    rng = np.random.default_rng(4)
    drawn = draw_pool(rng, share=0.3, separation=6, n_reference=40)
    _, shortfall = smallest_cut(ledger_of(drawn), RatioRegion(0.01))
    assert shortfall is not None
    assert shortfall.needed_references is not None
    more = draw_pool(
        np.random.default_rng(5), share=0.3, separation=6, n_reference=2 * shortfall.needed_references
    )
    assert smallest_cut(ledger_of(more), RatioRegion(0.01))[1] is None


def test_without_trust_in_the_detector_only_findings_count() -> None:
    """Where the synthetic references do not stand for the pool, nothing is promised of scores."""
    drawn = draw_pool(np.random.default_rng(6), share=0.3)
    pool = replace(drawn.pool, standing=replace(drawn.pool.standing, synthetic_doubt="another generator"))
    ledger = Ledger(pool, rng=np.random.default_rng(0))
    cut, shortfall = smallest_cut(ledger, RatioRegion(0.05))
    assert shortfall is not None
    assert "another generator" in shortfall.why
    assert np.array_equal(cut.gone, pool.found)
    strict = ledger.balance(cut_above(ledger, 0.0))
    assert strict.synthetic_left.upper >= min(ledger.rest.upper, strict.kept)


def test_removing_all_is_no_way_into_a_region() -> None:
    """A pool without a real image left is outside of every region."""
    assert not RatioRegion(0.5).holds(0, 0, 0)
    assert RatioRegion(0.5).verdict(10, 0, 2) == "within the cap"
    assert RatioRegion(0.5).verdict(10, 1, 9) == "undecided"
    assert RatioRegion(0.5).verdict(10, 8, 9) == "above the cap"


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_discoveries_are_mostly_synthetic(share: float) -> None:
    """The share of real images among those removed by score is at most the rate, in the mean of 200 pools."""
    rng = np.random.default_rng(8)
    false = []
    for _ in range(200):
        drawn = draw_pool(rng, n=300, share=share, n_reference=300, separation=2.0)
        gone = ControlDiscoveries(0.2).choose(Ledger(drawn.pool, rng=rng)).cut.gone & drawn.pool.answered
        false.append((gone & ~drawn.is_synthetic).sum() / max(1, gone.sum()))
    assert np.mean(false) <= 0.2 + 2 * np.std(false) / math.sqrt(200)


def test_too_few_references_for_any_discovery_are_told() -> None:
    """With ten real references nothing goes at a rate of 0.01, and the note says how many it takes."""
    drawn = draw_pool(np.random.default_rng(9), separation=8, n_reference=10)
    choice = ControlDiscoveries(0.01).choose(ledger_of(drawn))
    assert not (choice.cut.gone & drawn.pool.answered).any()
    assert "references allow no removal" in choice.notes[0]


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(0, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_budget_is_never_exceeded(n_kept: int, n_unanswered: int, seed: int, rounded: bool) -> None:
    """At most the budget stays, findings go before scores, and with distinct scores exactly the budget."""
    drawn = draw_pool(np.random.default_rng(seed), n=60, n_reference=20, n_unanswered=n_unanswered)
    pool = replace(drawn.pool, scores=np.round(drawn.pool.scores)) if rounded else drawn.pool
    cut = KeepBudget(n_kept).choose(Ledger(pool, rng=np.random.default_rng(0))).cut
    stays = int((~cut.gone).sum())
    assert stays <= n_kept
    assert np.array_equal(cut.gone & pool.answered, pool.answered & (pool.scores > cut.above))
    if (cut.gone & ~pool.found).any():
        assert cut.gone[pool.found].all()
    if not rounded:
        assert stays == min(60, n_kept)


def test_only_asked_findings_go() -> None:
    """Tiers that are not named stay."""
    drawn = draw_pool(np.random.default_rng(0), found_share=0.7)
    gone = DropFound(("signed",)).choose(ledger_of(drawn)).cut.gone
    assert np.array_equal(gone, drawn.pool.tier == TIERS.index("signed") + 1)


def test_golden_weight_balances_found_and_other_images() -> None:
    """Equal numbers of both kinds give the found ones 0.618 of the weight of the others."""
    drawn = draw_pool(np.random.default_rng(0), n=400, share=0.5, separation=40.0)
    choice = Weigh().choose(ledger_of(drawn))
    assert choice.weights is not None
    light = np.unique(choice.weights[drawn.is_synthetic])
    assert np.allclose(light, (math.sqrt(5) - 1) / 2, atol=1e-6)
    assert (choice.weights[~drawn.is_synthetic] == 1).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DropFound(("other",)), "tiers"),
        (lambda: DropAbove(1.0, 0.1), "one of the two"),
        (lambda: DropAbove(max_fpr=1.5), "max_fpr"),
        (lambda: ControlDiscoveries(0.0), "rate"),
        (lambda: CapRatio(-1.0), "max_ratio"),
        (lambda: KeepBudget(0), "budget"),
        (lambda: Weigh(-1.0), "weight"),
        (lambda: GaussianRegion((0.1, 0.2, 0.3)), "sampling_bias"),
        (lambda: GaussianRegion((1.5,)), "sampling_bias"),
    ],
)
def test_options_out_of_range_are_named(make, words: str) -> None:
    """An option that cannot be used is named."""
    with pytest.raises(InputError, match=words):
        make()


def test_policies_by_score_need_a_detector() -> None:
    """Without references a policy that goes by scores says so."""
    drawn = draw_pool(np.random.default_rng(0))
    nothing = np.zeros(0)
    standing = replace(
        drawn.pool.standing, threshold=None, real_scores=nothing, synthetic_scores=nothing, real_doubt="none"
    )
    pool = replace(drawn.pool, standing=standing, scores=np.full(len(drawn.pool), np.nan, np.float32))
    ledger = Ledger(pool, rng=np.random.default_rng(0))
    for policy in (DropAbove(), ControlDiscoveries()):
        with pytest.raises(InputError, match="without a detector"):
            policy.choose(ledger)
    assert np.array_equal(DropFound().choose(ledger).cut.gone, pool.found)


def test_ties_at_the_top_stay_within_the_budget() -> None:
    """Where the highest scores are equal they all go, and images without a score stay."""
    drawn = draw_pool(np.random.default_rng(0), n=10, share=0.0, n_reference=20)
    scores = np.array([0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, np.nan, np.nan], np.float32)
    pool = replace(drawn.pool, scores=scores, tier=np.zeros(10, np.uint8))
    gone = KeepBudget(9).choose(Ledger(pool, rng=np.random.default_rng(0))).cut.gone
    assert np.flatnonzero(gone).tolist() == [0, 1]


def test_unbiased_samples_with_an_open_share_are_out_of_reach() -> None:
    """Where not one image is known to be real and scores say nothing, no sampling bias makes the pool admissible."""
    drawn = draw_pool(np.random.default_rng(0))
    standing = replace(
        drawn.pool.standing, share=ShareLimits(None, 0.0, 1.0, 0.975), synthetic_doubt="another generator"
    )
    ledger = Ledger(replace(drawn.pool, standing=standing), draws=2000, rng=np.random.default_rng(0))
    for bias in (1.0, 0.5):
        choice = HoldAdmissible(GaussianRegion((bias,), dim=4)).choose(ledger)
        assert choice.shortfall is not None
        assert (choice.shortfall.allowed, choice.shortfall.needed_tpr) == (0, 1.0)


def test_a_threshold_compares_as_scores_are_stored() -> None:
    """Scores equal to a threshold that single precision rounds stay, and so do references in the account."""
    drawn = draw_pool(np.random.default_rng(0), found_share=0.0)
    tied = np.full(len(drawn.pool), 0.1, np.float32)
    same = np.full(50, np.float32(0.1), np.float64)
    standing = replace(drawn.pool.standing, synthetic_scores=same, real_scores=same)
    ledger = Ledger(
        replace(drawn.pool, scores=tied, standing=standing), draws=2000, rng=np.random.default_rng(0)
    )
    cut = DropAbove(threshold=0.1).choose(ledger).cut
    assert not cut.gone.any()
    assert ledger.balance(cut).tpr == (0, 50)


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_is_a_number(threshold: float) -> None:
    """NaN and infinity are no thresholds."""
    with pytest.raises(InputError, match="threshold"):
        DropAbove(threshold=threshold)
