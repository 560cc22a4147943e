"""What all arms and seeds of a loop share, checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

from poolproof.errors import InputError
from poolproof.simulate.generator import OtherSamples, Samples
from poolproof.simulate.loop_marks import AbstractLoopMark, make_mark
from poolproof.simulate.loop_spec import TrainedLoopSpec
from poolproof.simulate.mixing import bias_schedule
from poolproof.simulate.real_data import MOST_REFERENCE, RealData
from poolproof.simulate.yardstick import Yardstick

MOST_WITNESSES: Final = 1000
"""Known real samples that flaggers learn from."""


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """What all arms and seeds of a spec share.

    Attributes:
        spec: what to do.
        data: real items; the reference is what generations are measured against.
        yardstick: what generations are measured by.
        mark: what is written and searched for; None without.
        witness: real items that policies may learn from, neither trained on nor measured against.
    """

    spec: TrainedLoopSpec
    data: RealData
    yardstick: Yardstick
    mark: AbstractLoopMark | None
    witness: OtherSamples

    @property
    def n_measured(self) -> int:
        """Samples that each generation is measured by."""
        return _count_measured(self.spec, self.data)


def set_witness_apart(spec: TrainedLoopSpec, data: RealData) -> tuple[RealData, Samples]:
    """The data with a smaller reference, and the real items that policies may learn from.

    A policy that chose by the items which generations are measured against would look better than it is. Where no
    arm has a policy, the reference stays whole.

    Args:
        spec: what to do.
        data: real items.
    """
    n = min(len(data.reference) // 4, MOST_WITNESSES) if spec.has_policies else 0
    labels = None if data.reference_labels is None else data.reference_labels[n:]
    return replace(data, reference=data.reference[n:], reference_labels=labels), data.reference[:n]


def prepare_setting(
    spec: TrainedLoopSpec, data: RealData, yardstick: Yardstick, witness: OtherSamples | None = None
) -> Setting:
    """The setting of a spec, checked against its data.

    Args:
        spec: what to do.
        data: real items, from `set_witness_apart`.
        yardstick: of the data's reference.
        witness: real items that policies may learn from.

    Raises:
        InputError: see `check_data`.
    """
    check_data(spec, data)
    mark = None if spec.mark is None else make_mark(spec.mark, data.reference.shape[1:])
    return Setting(spec, data, yardstick, mark, data.reference[:0] if witness is None else witness)


def check_data(spec: TrainedLoopSpec, data: RealData) -> None:
    """Refuses data that a spec cannot be played with, before anything is trained on them.

    Args:
        spec: what to do.
        data: real items, from `set_witness_apart`.

    Raises:
        InputError: generators for another kind of data, a mark that does not fit, or counts that the data cannot give.
    """
    from poolproof.simulate.generators import kind_of

    if spec.mark is not None:
        make_mark(spec.mark, data.reference.shape[1:])
    kind = "points" if data.reference.ndim == 2 else "images"
    for arm in (*spec.arms, *spec.real_only()):
        known = kind_of(arm.generator)
        if known is not None and kind not in known.fits:
            raise InputError(
                f"generator: got {type(arm.generator).__name__} in {arm.label!r} for {kind}, allowed one that "
                f"learns from {kind}; see the table of generators"
            )
        if known is not None and known.needs_classes and data.supply_labels is None:
            biased = [bias for bias in bias_schedule(arm.sampling_bias) if bias < 1]
            if biased:
                raise InputError(
                    f"sampling_bias: got {biased[0]} in {arm.label!r} for data without classes, allowed 1: guidance "
                    "leads towards a class; put each class into a sub-folder, or choose gan or flow"
                )
        needed = max(arm.first_size, arm.mixing.n_fixed + arm.mixing.n_fresh)
        if data.draw is None and needed > len(data.supply):
            where = (
                "effective_size.n_real"
                if arm.is_measured_real_only
                else "n_initial, n_fixed, n_fresh or n_synthetic"
            )
            raise InputError(
                f"arms: got {needed} real samples for a model of {arm.label!r}, allowed up to the "
                f"{len(data.supply)} of the supply; lower {where}"
            )
    n_measured = _count_measured(spec, data)
    others = n_measured if data.draw is not None else len(data.supply)
    least = min(n_measured, others)
    if least <= max(spec.measure.k, 3):
        raise InputError(
            f"measure.k: got {spec.measure.k} for {least} samples, allowed fewer; lower it, or raise n_samples"
        )
    if spec.measure.trained_accuracy and data.reference_labels is None:
        raise InputError("measure.trained_accuracy: got true for data without classes, allowed with classes")


def _count_measured(spec: TrainedLoopSpec, data: RealData) -> int:
    return spec.measure.n_samples or min(len(data.reference), MOST_REFERENCE)
