"""Policies inside a loop: what of each generation's pool is trained on, and with what weight."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Bool, Float, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_range
from poolproof.simulate.fields import read_fields
from poolproof.simulate.flaggers import AbstractFlagger, Rates, Witness, read_flagger
from poolproof.simulate.generator import Samples
from poolproof.simulate.theory import optimal_real_weight
from poolproof.simulate.training_pool import TrainingPool

LEAST_KEPT: Final = 10
"""Samples that a policy must leave to train on."""


@final
@dataclass(frozen=True, eq=False)
class Decision:
    """What a policy answers.

    Attributes:
        weights: of each sample in training; 0 drops it.
        flagged: samples it took for synthetic; None where it does not flag.
        note: what the reader of the record should know; empty for nothing.
    """

    weights: Float[np.ndarray, " n"]
    flagged: Bool[np.ndarray, " n"] | None = None
    note: str = ""


class AbstractPolicy(abc.ABC):
    """Decides what of a pool is kept. Called once for each generation from the second on."""

    @abc.abstractmethod
    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """A weight for each sample; 0 drops it.

        Args:
            pool: samples that would be trained on.
            witness: known samples, readers of features and marks.
            rng: all randomness.
        """


@final
@dataclass(frozen=True)
class KeepAll(AbstractPolicy):
    """Trains on everything."""

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """Weight 1 for all."""
        del witness, rng
        return Decision(np.ones(len(pool)))


@final
@dataclass(frozen=True)
class DropFlagged(AbstractPolicy):
    """Leaves out what is flagged.

    Attributes:
        flags: who flags.
    """

    flags: AbstractFlagger

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """Weight 0 for flagged samples."""
        flagged, _ = self.flags.flag(pool, witness, rng=rng)
        return Decision((~flagged).astype(np.float64), flagged)


@final
@dataclass(frozen=True)
class RatioCap(AbstractPolicy):
    """Leaves out flagged samples, at random and no more than needed, until the synthetic ones are few enough.

    How many there are is estimated from the number of flagged samples and the flagger's rates, never from the truth.

    Attributes:
        flags: who flags.
        max_ratio: synthetic per real sample that may stay, 0 or more: the border of the admissible region over n_real.

    Source: Rogan and Gladen, "Estimating prevalence from the results of a screening test", 1978 (the estimate).
    """

    flags: AbstractFlagger
    max_ratio: float | int

    def __post_init__(self) -> None:
        check_range("max_ratio", self.max_ratio, 0.0, 1e6)

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """Weight 0 for flagged samples drawn at random; a note where dropping all of them is not enough."""
        flagged, rates = self.flags.flag(pool, witness, rng=rng)
        n_dropped, enough = count_to_drop(len(pool), int(flagged.sum()), rates, self.max_ratio)
        weights = np.ones(len(pool))
        weights[rng.permutation(np.flatnonzero(flagged))[:n_dropped]] = 0
        return Decision(
            weights, flagged, "" if enough else "cap not reached with all flagged samples dropped"
        )


def count_to_drop(n: int, n_flagged: int, rates: Rates, max_ratio: float | int) -> tuple[int, bool]:
    """Flagged samples to drop so that at most `max_ratio` synthetic ones per real one stay, and whether that does.

    >>> count_to_drop(200, 100, Rates(1.0, 0.0), 0.5)
    (50, True)

    Args:
        n: samples.
        n_flagged: of them flagged.
        rates: of the flagger; it knows nothing where they are equal.
        max_ratio: 0 or more.

    Assumes: the rates hold for this pool; expected numbers.
    """
    if rates.tpr <= rates.fpr or n_flagged == 0:
        return n_flagged, n_flagged == 0 and rates.tpr > rates.fpr
    synthetic = min(n, max(0.0, (n_flagged - rates.fpr * n) / (rates.tpr - rates.fpr)))
    real = n - synthetic
    # of the flagged ones this part is synthetic; dropping m leaves synthetic - m p over real - m (1 - p)
    part = min(1.0, rates.tpr * synthetic / n_flagged)
    excess = synthetic - max_ratio * real
    if excess <= 0:
        return 0, True
    gain = part - max_ratio * (1 - part)
    # a gain next to nothing would need more than there are, or more than a float holds
    enough = gain > 0 and excess <= gain * (n_flagged + 1)
    needed = math.ceil(excess / gain - 1e-9) if enough else n_flagged + 1
    return min(needed, n_flagged), needed <= n_flagged


@final
@dataclass(frozen=True)
class WeighFlagged(AbstractPolicy):
    """Trains on flagged samples with another weight than on the rest.

    Attributes:
        flags: who flags.
        weight: of a flagged sample, 0 or more; None takes the golden weight, at which the flagged samples together
            count 1 - w where the rest count w.

    Source: He, Xu and Cheng, arXiv 2502.18049 (the golden weight, for means of fresh-data loops without bias).
    """

    flags: AbstractFlagger
    weight: float | int | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            check_range("weight", self.weight, 0.0, 1e6)

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """Weight 1 for what is not flagged, another one for what is."""
        flagged, _ = self.flags.flag(pool, witness, rng=rng)
        n, m = int((~flagged).sum()), int(flagged.sum())
        weight = 1.0
        if self.weight is not None:
            weight = self.weight
        elif n and m:
            w = optimal_real_weight(n / m)
            weight = (1 - w) / m / (w / n)
        return Decision(np.where(flagged, weight, 1.0), flagged)


@final
@dataclass(frozen=True)
class KeepBest(AbstractPolicy):
    """Keeps the samples that look best, biased on purpose: those nearest to a centre of the real features.

    Centres are ten k-means of them.

    Attributes:
        share: of the pool to keep, in (0, 1].

    Source: selection by quality as a sampling bias: Alemohammad et al., arXiv 2307.01850, section 2; Ferbach et al.,
        arXiv 2407.09499.
    """

    share: float | int = 0.5

    def __post_init__(self) -> None:
        check_range("share", self.share, 0.0, 1.0, above=True)

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """Weight 1 for the best, ties broken at random, within each class so that classes keep their shares."""
        quality = _closeness(pool.images, witness) + 1e-9 * rng.random(len(pool))
        labels = np.zeros(len(pool), np.int64) if pool.labels is None else pool.labels
        weights = np.zeros(len(pool))
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            best = rows[np.argsort(-quality[rows], kind="stable")]
            weights[best[: max(1, round(self.share * len(rows)))]] = 1
        return Decision(weights)


def _closeness(images: Samples, witness: Witness) -> Float[np.ndarray, " n"]:
    """Minus the distance of each sample to the nearest centre of the real features, in units of their spread."""
    from scipy.spatial.distance import cdist
    from sklearn.cluster import KMeans

    real = witness.read_features(witness.real)
    n_centres = min(10, len(real) // 2)
    means: Any = KMeans
    centres = means(n_centres, n_init=3, random_state=0).fit(real).cluster_centers_
    return -cdist(witness.read_features(images), centres).min(axis=1) / float(real.std() or 1.0)


POLICIES: Final[Mapping[str, type[AbstractPolicy]]] = {
    "keep-all": KeepAll,
    "drop-flagged": DropFlagged,
    "ratio-cap": RatioCap,
    "weigh-flagged": WeighFlagged,
    "keep-best": KeepBest,
}
"""The closed list of policies, by the names that specs use."""


def read_policy(table: object) -> AbstractPolicy:
    """The policy that a table describes by its `kind` and options.

    Raises:
        InputError: an unknown kind or key, or a value out of range.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"policy: got {table!r:.60}, allowed a table such as {{kind = 'keep-all'}}")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in POLICIES:
        raise InputError(f"policy.kind: got {kind!r:.60}, allowed {', '.join(POLICIES)}; choose one")
    options: dict[str, Any] = {key: value for key, value in table.items() if key != "kind"}
    if "flags" in options:
        options["flags"] = read_flagger(options["flags"])
    return read_fields(POLICIES[kind], options, "policy")


@final
@dataclass(frozen=True)
class CallablePolicy(AbstractPolicy):
    """A function as a policy: takes the pool, the witness and `rng`, and answers with weights or a keep mask.

    Attributes:
        name: tells it from others; change it when the function changes, as finished generations are found by it.
        function: of the caller.
    """

    name: str
    function: Callable[[TrainingPool, Witness, np.random.Generator], np.ndarray]

    def decide(self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator) -> Decision:
        """The function's answer as weights."""
        return Decision(np.asarray(self.function(pool, witness, rng), np.float64))


def apply_policy(
    policy: AbstractPolicy, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator
) -> tuple[TrainingPool, Decision]:
    """The pool that is trained on, and the policy's decision.

    Raises:
        InputError: weights of another shape, below 0 or not finite, or fewer than `LEAST_KEPT` samples kept.
    """
    decision = policy.decide(pool, witness, rng=rng)
    weights = decision.weights
    if weights.shape != (len(pool),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(
            f"policy: got weights of shape {weights.shape}, allowed {(len(pool),)}, finite and 0 or more"
        )
    weighed = pool.weigh(weights)
    kept: Int[np.ndarray, " m"] = np.flatnonzero(weighed.weights > 0)
    if len(kept) < LEAST_KEPT:
        raise InputError(
            f"policy: got {len(kept)} of {len(pool)} samples kept, allowed {LEAST_KEPT} or more; let it drop fewer"
        )
    return weighed.take(kept), decision
