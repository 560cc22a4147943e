"""A loop of trained generators: one generation after the other, from what the one before left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from jaxtyping import Int

from poolproof.detectors.distance import frechet_distance
from poolproof.errors import InputError
from poolproof.simulate.flaggers import Witness
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, OtherSamples, Samples
from poolproof.simulate.laws import count_modes
from poolproof.simulate.loop_marks import AbstractLoopMark, make_mark
from poolproof.simulate.loop_spec import TrainedArm, TrainedLoopSpec
from poolproof.simulate.measures import measure_samples, trained_accuracy
from poolproof.simulate.mixing import bias_schedule
from poolproof.simulate.policies import KeepAll, apply_policy
from poolproof.simulate.real_data import MOST_REFERENCE, RealData
from poolproof.simulate.training_pool import FIXED, FRESH, SYNTHETIC, Part, TrainingPool, make_pool, unmarked
from poolproof.simulate.yardstick import Yardstick

Labels = Int[np.ndarray, " n"] | None

SHOWN: Final = 100
"""Images of each generation that are kept to be looked at; of points ten times as many."""

MOST_WITNESSES: Final = 1000
"""Known real samples that flaggers learn from."""

LEAST_WITNESSES: Final = 50
"""Known synthetic samples that flaggers learn from, at least; otherwise as many as real ones."""

OUT_OF_MEMORY: Final = "out of memory"
"""What the reason of such a failed generation begins with."""

BLOCK: Final = 4096
"""Items that a law is drawn in at a time, so that an item's place decides its value."""

PURPOSES: Final = (
    "data",
    "pick",
    "draw",
    "mark",
    "policy",
    "fit",
    "measure",
    "witness",
    "classifier",
    "model",
)
"""What a loop draws random numbers for; each has its own stream in each generation of each seed."""


def stream(seed: int, generation: int, purpose: str) -> np.random.Generator:
    """The random numbers for a purpose in a generation: the same for all arms of a seed, before and after a stop."""
    key = (generation, PURPOSES.index(purpose))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


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
        return self.spec.measure.n_samples or min(len(self.data.reference), MOST_REFERENCE)


@final
@dataclass(frozen=True, eq=False)
class History:
    """What earlier generations left for the next.

    Attributes:
        models: fitted generators, newest first.
        kept: synthetic samples that stay in the pool, oldest first.
        witness: samples of generation 1, for flaggers; None where no policy needs them.
    """

    models: tuple[AbstractGenerator, ...] = ()
    kept: tuple[Part, ...] = ()
    witness: Samples | None = None


@final
@dataclass(frozen=True, eq=False)
class Generation:
    """One finished generation.

    Attributes:
        number: from 1.
        row: figures and counts, as in the table; `status` is `done` or `failed`.
        model: what was fitted; None where that failed.
        part: synthetic samples drawn to train it on; None in generation 1.
        shown: some of its samples.
        shown_labels: their classes; None without.
        witness: samples for flaggers, of generation 1 where a policy needs them.
    """

    number: int
    row: dict[str, Any]
    model: AbstractGenerator | None = None
    part: Part | None = None
    shown: Samples | None = None
    shown_labels: Labels = None
    witness: OtherSamples | None = None


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
        InputError: a mark that does not fit, generators for another kind of data, or counts that the data cannot give.
    """
    from poolproof.simulate.generators import kind_of

    mark = None if spec.mark is None else make_mark(spec.mark, data.reference.shape[1:])
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
    setting = Setting(spec, data, yardstick, mark, data.reference[:0] if witness is None else witness)
    others = setting.n_measured if data.draw is not None else len(data.supply)
    least = min(setting.n_measured, others)
    if least <= max(spec.measure.k, 3):
        raise InputError(
            f"measure.k: got {spec.measure.k} for {least} samples, allowed fewer; lower it, or raise n_samples"
        )
    if spec.measure.trained_accuracy and data.reference_labels is None:
        raise InputError("measure.trained_accuracy: got true for data without classes, allowed with classes")
    return setting


def generations(setting: Setting, arm: TrainedArm, seed: int) -> Iterator[Generation]:
    """Yields the generations of an arm for one seed; ends early after one that failed.

    >>> import numpy as np  # doctest: +SKIP
    >>> [each.row["frechet_distance"] for each in generations(setting, setting.spec.arms[0], 0)]  # doctest: +SKIP

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 2.
    """
    history = History()
    for number in range(1, 2 if arm.is_measured_real_only else setting.spec.n_generations + 1):
        generation = run_generation(setting, arm, seed, number, history)
        yield generation
        if generation.model is None:
            return
        history = extend_history(history, generation, arm)


def extend_history(history: History, generation: Generation, arm: TrainedArm) -> History:
    """The history after one more generation, without what no later one needs."""
    assert generation.model is not None
    models = (generation.model, *history.models)[: arm.mixing.n_models]
    kept = (*history.kept, generation.part) if generation.part is not None else history.kept
    if arm.mixing.n_kept is not None:
        kept = kept[len(kept) - min(len(kept), arm.mixing.n_kept - 1) :]
    return History(models, kept, history.witness if generation.witness is None else generation.witness)


def run_generation(setting: Setting, arm: TrainedArm, seed: int, number: int, history: History) -> Generation:
    """One generation: gather its pool, filter it, train on it, sample, measure.

    A generator that diverges, memory that does not suffice, or a policy that leaves too little is recorded as a failed
    generation. In the first one, wrong options are the user's and raise.

    Args:
        setting: what all arms share.
        arm: the loop.
        seed: the repetition.
        number: of the generation, from 1.
        history: of the generations before.

    Raises:
        InputError: options that do not fit, in generation 1.
    """
    row: dict[str, Any] = {
        "arm": arm.label,
        "seed": seed,
        "generation": number,
        "status": "done",
        "why": None,
    }
    try:
        return _run(setting, arm, seed, number, history, row)
    except InputError as error:
        if number == 1:
            raise
        why = str(error)
    except GeneratorDiverged as error:
        why = f"diverged: {error}"
    except MemoryError:
        why = f"{OUT_OF_MEMORY}: use a smaller model or fewer samples; the same command tries again"
    except RuntimeError as error:  # how torch says that memory is short
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        why = f"{OUT_OF_MEMORY}: use a smaller model or fewer samples; the same command tries again"
    return Generation(number, row | {"status": "failed", "why": " ".join(why.split())})


def _run(
    setting: Setting, arm: TrainedArm, seed: int, number: int, history: History, row: dict[str, Any]
) -> Generation:
    spec = setting.spec
    pool, part, n_repeated = gather_pool(setting, arm, seed, number, history)
    row |= {f"n_{name}": n for name, n in pool.counts().items()}
    row |= {"n_repeated": n_repeated, "n_marked": int(pool.is_marked.sum())}
    if number > 1 and not isinstance(arm.policy, KeepAll):
        pool, figures = _filter_pool(setting, arm, seed, number, history, pool)
        row |= figures
    row |= {
        "kept_real": int((~pool.is_synthetic).sum()),
        "kept_synthetic": int(pool.is_synthetic.sum()),
    }
    started = time.monotonic()
    even = bool(np.ptp(pool.weights) == 0)
    model = arm.generator.fit(
        pool.images,
        pool.labels,
        weights=None if even else pool.weights,
        start=history.models[0] if arm.warm_start and history.models else None,
        rng=stream(seed, number, "fit"),
    )
    row["fit_seconds"] = round(time.monotonic() - started, 3)
    started = time.monotonic()
    n_shown = SHOWN if setting.data.draw is None else 10 * SHOWN
    n = max(setting.n_measured, n_shown)
    samples, labels = model.sample(n, sampling_bias=arm.bias(number), rng=stream(seed, number, "measure"))
    row["sample_seconds"] = round(time.monotonic() - started, 3)
    if not np.isfinite(samples).all():
        raise GeneratorDiverged("samples that are not finite")
    shown, shown_labels = samples[:n_shown], None if labels is None else labels[:n_shown]
    measured = samples[: setting.n_measured]
    measured_labels = None if labels is None else labels[: setting.n_measured]
    row |= measure_samples(measured, measured_labels, setting.yardstick)
    test_labels = setting.data.reference_labels
    if spec.measure.trained_accuracy and labels is not None and test_labels is not None:
        row["trained_accuracy"] = _accuracy_or_none(
            setting, measured, labels[: setting.n_measured], test_labels, stream(seed, number, "classifier")
        )
    if spec.effective_size is not None and arm.bias(number) < 1:
        # n_e compares models, and a bias of measuring is none of the model's
        plain, _ = model.sample(setting.n_measured, rng=stream(seed, number, "model"))
        row["model_distance"] = frechet_distance(setting.yardstick.reference, setting.yardstick.read(plain))
    if spec.data.kind == "grid":
        found = count_modes(measured)
        row |= {
            "n_modes": found.n_modes,
            "high_quality": found.high_quality,
            "mode_variance": found.within_variance,
        }
    if setting.mark is not None and spec.mark is not None:
        row |= setting.mark.measure(measured, setting.data.reference, spec.mark.level)
    witness = None
    if number == 1 and not isinstance(arm.policy, KeepAll):
        witness = _draw_witness(setting, arm, seed, model)
    return Generation(number, row, model, part, shown, shown_labels, witness)


def _accuracy_or_none(
    setting: Setting,
    samples: Samples,
    labels: Int[np.ndarray, " n"],
    test_labels: Int[np.ndarray, " m"],
    rng: np.random.Generator,
) -> float | None:
    """The accuracy on real images of a classifier of the samples; None where these cannot be learnt from.

    A class that hardly occurs any more is no reason to end a loop.
    """
    try:
        return trained_accuracy(
            samples, labels, setting.data.reference, test_labels, setting.spec.measure.classifier, rng=rng
        )
    except InputError:
        return None


# --- what a generation trains on ------------------------------------------------------------------------


def gather_pool(
    setting: Setting, arm: TrainedArm, seed: int, number: int, history: History
) -> tuple[TrainingPool, Part | None, int]:
    """What a generation could train on, the synthetic part drawn for it, and how many real items come again.

    Generation 1 has real items alone. Fixed ones are the first of the seed's order; fresh ones are those that follow,
    and when a data set is used up, its items come again in a new order.

    Args:
        setting: what all arms share.
        arm: the loop.
        seed: the repetition.
        number: of the generation, from 1.
        history: of the generations before.
    """
    mixing, data = arm.mixing, setting.data
    weights = (float(mixing.weight_fresh), float(mixing.weight_fixed), float(mixing.weight_synthetic))
    first = arm.first_size
    if number == 1:
        images, labels = take_real(data, seed, 0, first)
        return make_pool([(FRESH, Part(images, labels, unmarked(first)))], (1.0, 1.0, 1.0)), None, 0
    parts = []
    start = max(first, mixing.n_fixed) + (number - 2) * mixing.n_fresh
    n_repeated = 0
    if mixing.n_fresh:
        images, labels = take_real(data, seed, start, mixing.n_fresh)
        parts.append((FRESH, Part(images, labels, unmarked(mixing.n_fresh))))
        if data.draw is None:
            n_repeated = min(mixing.n_fresh, max(0, start + mixing.n_fresh - len(data.supply)))
    if mixing.n_fixed:
        images, labels = take_real(data, seed, 0, mixing.n_fixed)
        parts.append((FIXED, Part(images, labels, unmarked(mixing.n_fixed))))
    part = draw_synthetic(setting, arm, seed, number, history.models) if mixing.n_synthetic else None
    parts += [(SYNTHETIC, each) for each in (*history.kept, *([] if part is None else [part]))]
    pool = make_pool(parts, weights)
    if mixing.n_subsample is not None and mixing.n_subsample < len(pool):
        rows = stream(seed, number, "pick").permutation(len(pool))[: mixing.n_subsample]
        pool = pool.take(np.sort(rows))
    return pool, part, n_repeated


def take_real(data: RealData, seed: int, start: int, n: int) -> tuple[Samples, Labels]:
    """Real items `start` to `start + n` of the endless order that a seed gives to the supply.

    Args:
        data: real items.
        seed: of the order.
        start: place of the first, from 0.
        n: how many.
    """
    size = BLOCK if data.draw is not None else len(data.supply)
    places = np.arange(start, start + n)
    images, labels = [], []
    for block in range(start // size, (start + max(n, 1) - 1) // size + 1):
        inside = places[places // size == block] % size
        rng = stream(seed, block, "data")
        if data.draw is not None:
            images.append(data.draw(size, rng)[inside])
            continue
        rows = rng.permutation(size)[inside]
        images.append(data.supply[rows])
        if data.supply_labels is not None:
            labels.append(data.supply_labels[rows])
    return np.concatenate(images), np.concatenate(labels) if labels else None


def draw_synthetic(
    setting: Setting, arm: TrainedArm, seed: int, number: int, models: Sequence[AbstractGenerator]
) -> Part:
    """The samples of earlier models that a generation trains on, marked as the arm says.

    Args:
        setting: what all arms share.
        arm: the loop.
        seed: the repetition.
        number: of the generation that will be trained, 2 or more.
        models: newest first.
    """
    counts = arm.mixing.synthetic_counts(len(models))
    streams = stream(seed, number, "draw").spawn(len(counts))
    chosen = stream(seed, number, "mark")
    parts: list[Part] = []
    for age, (model, n, rng) in enumerate(zip(models, counts, streams, strict=False), 1):
        if n == 0:
            continue
        images, labels = model.sample(n, sampling_bias=arm.bias(number - age), rng=rng)
        is_marked = unmarked(n)
        if setting.mark is not None and arm.marks(number - age):
            is_marked[chosen.permutation(n)[: round(arm.mark_share * n)]] = True
            images = images.copy()
            images[is_marked] = setting.mark.write(images[is_marked])
        parts.append(Part(images, labels, is_marked))
    labels = [part.labels for part in parts if part.labels is not None]
    return Part(
        np.concatenate([part.images for part in parts]),
        np.concatenate(labels) if labels else None,
        np.concatenate([part.is_marked for part in parts]),
    )


# --- policies -------------------------------------------------------------------------------------------


def _filter_pool(
    setting: Setting, arm: TrainedArm, seed: int, number: int, history: History, pool: TrainingPool
) -> tuple[TrainingPool, dict[str, Any]]:
    assert history.witness is not None
    mark = setting.mark
    pvalues: Callable[[Samples], np.ndarray] | None = None if mark is None else mark.pvalues
    witness = Witness(setting.yardstick.read, pvalues, setting.witness, history.witness)
    kept, decision = apply_policy(arm.policy, pool, witness, rng=stream(seed, number, "policy"))
    figures: dict[str, Any] = {"note": decision.note or None}
    if decision.flagged is not None:
        synthetic, real = decision.flagged[pool.is_synthetic], decision.flagged[~pool.is_synthetic]
        figures["flag_tpr"] = float(synthetic.mean()) if synthetic.size else None
        figures["flag_fpr"] = float(real.mean()) if real.size else None
    return kept, figures


def _draw_witness(setting: Setting, arm: TrainedArm, seed: int, model: AbstractGenerator) -> Samples:
    """Samples of generation 1 that nothing trains on, marked in the share in which the arm marks."""
    n = max(len(setting.witness), LEAST_WITNESSES)
    images, _ = model.sample(n, sampling_bias=arm.bias(1), rng=stream(seed, 1, "witness"))
    if setting.mark is not None and arm.marks(1):
        n_marked = round(arm.mark_share * n)
        images = images.copy()
        images[:n_marked] = setting.mark.write(images[:n_marked])
    return images
