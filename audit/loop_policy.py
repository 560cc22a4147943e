"""Policies for pools as policies inside a loop: the same decision on each generation's pool."""

from __future__ import annotations

import numpy as np

from poolproof.audit.ledger import Ledger
from poolproof.audit.policy import AbstractPolicy
from poolproof.audit.scored_pool import SCORED, ScoredPool, ShareLimits, Standing
from poolproof.detectors.calibrate import cross_fit
from poolproof.detectors.prevalence import interval, split_level
from poolproof.simulate.flaggers import Witness
from poolproof.simulate.policies import CallablePolicy
from poolproof.simulate.training_pool import TrainingPool


def as_loop_policy(
    policy: AbstractPolicy, *, name: str | None = None, level: float | int = 0.95
) -> CallablePolicy:
    """The policy for a loop: a probe audits each generation's pool, which is decided on as a pool on disk is.

    The probe is cross-fitted on the witness' real samples and samples of the first generation; the share of the
    generation's pool follows from its flags. Nothing is signed, declared or marked.

    Args:
        policy: for pools.
        name: tells it from others in the loop's record; None takes the policy's kind and options.
        level: confidence level of what the policy rests on.

    Raises:
        UnreliableEstimate: when the loop calls it with too few known samples.
    """

    def weigh(pool: TrainingPool, witness: Witness, rng: np.random.Generator) -> np.ndarray:
        judged = audit_samples(pool, witness, level=level, rng=rng)
        choice = policy.choose(Ledger(judged, rng=rng))
        weights = (
            np.ones(len(judged), np.float64) if choice.weights is None else choice.weights.astype(np.float64)
        )
        return np.where(choice.cut.gone, 0.0, weights)

    return CallablePolicy(name or f"{policy.kind} {policy.describe()}", weigh)


def audit_samples(
    pool: TrainingPool, witness: Witness, *, level: float | int = 0.95, rng: np.random.Generator
) -> ScoredPool:
    """A generation's pool as policies see it; where its samples came from is not looked at.

    Args:
        pool: the samples.
        witness: known samples and the reader of features.
        level: confidence level.
        rng: deals known samples into folds and the pool's to the models.
    """
    real = np.asarray(witness.read_features(witness.real), np.float32)
    synthetic = np.asarray(witness.read_features(witness.synthetic), np.float32)
    features = np.asarray(witness.read_features(pool.images), np.float32)
    fit = cross_fit(real, synthetic, rng=rng)
    answer = fit.answer(features, rng.integers(fit.folds, size=len(features)))
    scores = np.where(answer.abstained, np.float32(np.nan), answer.values).astype(np.float32)
    told = int((~answer.abstained).sum())
    at = split_level(level)
    limits = ShareLimits(None, 0.0, 1.0, at)
    if told:
        flagged = int((answer.values[~answer.abstained] > fit.threshold).sum())
        found = interval(flagged, told, *fit.tpr, *fit.fpr, level=at)
        limits = ShareLimits(found.point, found.lower, found.upper, at)
    standing = Standing(
        limits, level, float(fit.threshold), fit.real_scores, fit.synthetic_scores, None, None
    )
    n = len(features)
    return ScoredPool(np.full(n, SCORED, np.uint8), np.zeros(n, np.uint8), scores, standing)
