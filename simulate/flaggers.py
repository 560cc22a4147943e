"""Ways to tell the synthetic samples of a pool: at set rates, by a mark, or by a detector."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float

from poolproof.errors import InputError
from poolproof.simulate.checks import check_range
from poolproof.simulate.fields import read_fields
from poolproof.simulate.generator import OtherSamples, Samples
from poolproof.simulate.training_pool import TrainingPool


@final
@dataclass(frozen=True)
class Rates:
    """What a flagger does to samples of known kind.

    Attributes:
        tpr: share of synthetic samples that it flags, in [0, 1].
        fpr: share of real samples that it flags, in [0, 1].
    """

    tpr: float | int
    fpr: float | int


@final
@dataclass(frozen=True, eq=False)
class Witness:
    """What a flagger may know besides the pool.

    Attributes:
        read_features: features of samples, as generations are measured with.
        mark_pvalues: p-value of the loop's mark in each sample; None for a loop without one.
        real: real samples that no generation trains on.
        synthetic: samples of the first generation that no other trains on, marked as the loop marks.
    """

    read_features: Callable[[Samples], Float[np.ndarray, "n d"]]
    mark_pvalues: Callable[[Samples], Float[np.ndarray, " n"]] | None
    real: Samples
    synthetic: OtherSamples


class AbstractFlagger(abc.ABC):
    """Flags the samples of a pool that it takes for synthetic, and says at what rates it does so."""

    @abc.abstractmethod
    def flag(
        self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator
    ) -> tuple[Bool[np.ndarray, " n"], Rates]:
        """Which samples are taken for synthetic, and the rates as the flagger knows them.

        Args:
            pool: samples; only `SetRates` may look at where they came from.
            witness: known samples and readers.
            rng: all randomness.
        """


@final
@dataclass(frozen=True)
class SetRates(AbstractFlagger):
    """A detector that is not there: flags at random at the rates that it is given.

    Attributes:
        tpr: share of synthetic samples flagged, in [0, 1].
        fpr: share of real samples flagged, in [0, 1].
    """

    tpr: float | int
    fpr: float | int

    def __post_init__(self) -> None:
        check_range("tpr", self.tpr, 0.0, 1.0)
        check_range("fpr", self.fpr, 0.0, 1.0)

    def flag(
        self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator
    ) -> tuple[Bool[np.ndarray, " n"], Rates]:
        """Each sample by its own throw of a coin."""
        del witness
        return rng.random(len(pool)) < np.where(pool.is_synthetic, self.tpr, self.fpr), Rates(
            self.tpr, self.fpr
        )


@final
@dataclass(frozen=True)
class MarkFlags(AbstractFlagger):
    """Flags the samples in which the loop's mark is found.

    Attributes:
        level: a p-value below it flags, in (0, 1).
    """

    level: float | int = 0.01

    def __post_init__(self) -> None:
        check_range("level", self.level, 0.0, 1.0, above=True)

    def flag(
        self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator
    ) -> tuple[Bool[np.ndarray, " n"], Rates]:
        """By p-value; the rates are counted on the witness' samples."""
        del rng
        if witness.mark_pvalues is None:
            raise InputError("policy.flags: got 'mark' in a loop without one, allowed with a table [mark]")
        rates = Rates(
            float((witness.mark_pvalues(witness.synthetic) < self.level).mean()),
            float((witness.mark_pvalues(witness.real) < self.level).mean()),
        )
        return witness.mark_pvalues(pool.images) < self.level, rates


@final
@dataclass(frozen=True)
class DetectorFlags(AbstractFlagger):
    """A logistic probe on the loop's features, learnt from the first generation and real data held out.

    It never learns from later generations: how it fares with them is what one wants to see. Each time, other halves of
    the known samples are taken to learn from and to set threshold and rates.

    Attributes:
        fpr: share of real samples that it may flag; sets its threshold, in (0, 1).
    """

    fpr: float | int = 0.05

    def __post_init__(self) -> None:
        check_range("fpr", self.fpr, 0.0, 1.0, above=True)

    def flag(
        self, pool: TrainingPool, witness: Witness, *, rng: np.random.Generator
    ) -> tuple[Bool[np.ndarray, " n"], Rates]:
        """By score; threshold and rates are set on halves of the witness' samples that the probe has not seen."""
        from poolproof.detectors.kinds import fit_detector

        real, synthetic = witness.read_features(witness.real), witness.read_features(witness.synthetic)
        half = rng.permutation(len(real)) < len(real) // 2
        other = rng.permutation(len(synthetic)) < len(synthetic) // 2
        probe = fit_detector("probe", real[half], synthetic[other], rng=rng)
        clean = probe.score(real[~half]).values
        threshold = float(np.quantile(clean, 1 - self.fpr, method="higher"))
        rates = Rates(
            float((probe.score(synthetic[~other]).values > threshold).mean()),
            float((clean > threshold).mean()),
        )
        return probe.score(witness.read_features(pool.images)).values > threshold, rates


FLAGGERS: Final[Mapping[str, type[AbstractFlagger]]] = {
    "set": SetRates,
    "mark": MarkFlags,
    "detector": DetectorFlags,
}
"""The closed list of flaggers, by the names that specs use."""


def read_flagger(table: object) -> AbstractFlagger:
    """The flagger that a table describes by its `kind` and options.

    Raises:
        InputError: an unknown kind or key, or a value out of range.
    """
    if not isinstance(table, Mapping):
        raise InputError(
            f"policy.flags: got {table!r:.60}, allowed a table such as {{kind = 'set', tpr = 0.95, fpr = 0.01}}"
        )
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in FLAGGERS:
        raise InputError(f"policy.flags.kind: got {kind!r:.60}, allowed {', '.join(FLAGGERS)}; choose one")
    return read_fields(
        FLAGGERS[kind], {key: value for key, value in table.items() if key != "kind"}, "policy.flags"
    )
