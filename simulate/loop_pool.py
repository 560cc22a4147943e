"""What a generation of a loop trains on: real items in one order, and samples of the models before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Int

from poolproof.simulate.generator import AbstractGenerator, Samples
from poolproof.simulate.loop_spec import TrainedArm
from poolproof.simulate.real_data import RealData
from poolproof.simulate.setting import Setting
from poolproof.simulate.training_pool import FIXED, FRESH, SYNTHETIC, Part, TrainingPool, make_pool, unmarked

Labels = Int[np.ndarray, " n"] | None

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
