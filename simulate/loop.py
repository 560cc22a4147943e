"""A loop of trained generators: one generation after the other, from what the one before left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Int

from poolproof.detectors.distance import frechet_distance
from poolproof.errors import InputError
from poolproof.simulate.flaggers import Witness
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, OtherSamples, Samples
from poolproof.simulate.laws import count_modes
from poolproof.simulate.loop_pool import History, Labels, gather_pool, stream
from poolproof.simulate.loop_spec import TrainedArm
from poolproof.simulate.measures import measure_samples, trained_accuracy
from poolproof.simulate.policies import KeepAll, apply_policy
from poolproof.simulate.setting import Setting
from poolproof.simulate.training_pool import Part, TrainingPool

SHOWN: Final = 100
"""Images of each generation that are kept to be looked at; of points ten times as many."""

LEAST_WITNESSES: Final = 50
"""Known synthetic samples that flaggers learn from, at least; otherwise as many as real ones."""

OUT_OF_MEMORY: Final = "out of memory"
"""What the reason of such a failed generation begins with."""


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
