"""The Gaussian loop with single samples: slower, for subsamples and for policies that look at each of them."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from poolproof.errors import InputError
from poolproof.simulate.gaussian import (
    Gaussian,
    Models,
    Start,
    Vector,
    check_start,
    first_fit,
    read_mark,
    truth_models,
)
from poolproof.simulate.mixing import SOURCES, Mixing, bias_schedule
from poolproof.simulate.scatter import Scatter, estimate

Policy = Callable[
    [Float[np.ndarray, "n d"], Bool[np.ndarray, " n"], np.random.Generator], Bool[np.ndarray, " n"]
]
"""Decides what of a pool is kept: takes samples, which of them are synthetic, and a generator of randomness."""

Points = Float[np.ndarray, "paths n d"]


def point_generations(
    mixing: Mixing,
    *,
    law: Gaussian,
    n_paths: int,
    sampling_bias: float | int | Sequence[float | int] = 1.0,
    initial: Start | int | Models = "data",
    mark: Vector | None = None,
    policy: Policy | None = None,
    rng: np.random.Generator,
) -> Iterator[Models]:
    """Yields the models of generation after generation, like `gaussian.generations`, by way of samples.

    Without a policy and a subsample it has the law of that function. Time and memory grow with the number
    of samples.

    Args:
        mixing: what each generation trains on; a subsample is allowed.
        law: of the real data.
        n_paths: independent loops.
        sampling_bias: see `gaussian.generations`.
        initial: see `gaussian.generations`.
        mark: see `gaussian.generations`.
        policy: called for each loop and generation from the second model on, with the samples that would be trained
            on; those it keeps are. None keeps all.
        rng: all randomness.

    Raises:
        InputError: a value out of range; or, during the loop, a policy that answers with another shape or keeps
            fewer than two samples.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 3.1 and equation 1.
    """
    check_start(law, n_paths, initial)
    biases, shift = bias_schedule(sampling_bias), read_mark(mark, law.dim)
    return _generations(mixing, law, n_paths, biases, initial, shift, policy, rng)


def _generations(
    mixing: Mixing,
    law: Gaussian,
    n_paths: int,
    biases: Float[np.ndarray, " t"],
    initial: Start | int | Models,
    mark: Float[np.ndarray, " d"] | None,
    policy: Policy | None,
    rng: np.random.Generator,
) -> Iterator[Models]:
    truth = truth_models(law, n_paths)
    fixed = draw_points(truth, mixing.n_fixed, rng=rng)
    if isinstance(initial, Models):
        models = initial
    elif initial == "truth":
        models = truth
    else:
        if initial != "data":
            real = draw_points(truth, int(initial), rng=rng)
        elif mixing.n_fixed + mixing.n_fresh:
            real = np.concatenate([fixed, draw_points(truth, mixing.n_fresh, rng=rng)], axis=1)
        else:
            real = draw_points(truth, mixing.n_synthetic, rng=rng)
        models = first_fit(scatter_of(real, np.ones(real.shape[:2], bool)), mixing)
    yield models
    history = deque([models], maxlen=mixing.n_models)
    kept: deque[Points] = deque(maxlen=mixing.n_kept)
    for step in itertools.count():
        bias = float(biases[min(step, len(biases) - 1)])
        fresh = draw_points(truth, mixing.n_fresh, rng=rng)
        counts = mixing.synthetic_counts(len(history))
        synthetic = np.concatenate(
            [draw_points(model, n, bias, rng=rng) for model, n in zip(history, counts, strict=False)], axis=1
        )
        kept.append(synthetic if mark is None else synthetic + mark)
        pool = np.concatenate([fresh, fixed, *kept], axis=1)
        sizes = (mixing.n_fresh, mixing.n_fixed, sum(part.shape[1] for part in kept))
        source = np.repeat(np.arange(len(SOURCES)), sizes)
        keep = choose(pool, source == SOURCES.index("synthetic"), mixing.n_subsample, policy, rng=rng)
        sources = {name: scatter_of(pool, keep & (source == i)) for i, name in enumerate(SOURCES)}
        models = Models(models.generation + 1, *estimate(sources, mixing))
        history.appendleft(models)
        yield models


def draw_points(
    models: Models, n: int, sampling_bias: float | int = 1.0, *, rng: np.random.Generator
) -> Points:
    """`n` samples from each model, their covariance multiplied by the bias in [0, 1]."""
    n_paths, dim = models.mean.shape
    noise = rng.standard_normal((n_paths, n, dim)) * math.sqrt(sampling_bias)
    return models.mean[:, None, :] + noise @ models.factor.transpose(0, 2, 1)


def choose(
    pool: Points,
    is_synthetic: Bool[np.ndarray, " n"],
    n_subsample: int | None,
    policy: Policy | None,
    *,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "paths n"]:
    """Which samples of each loop's pool are trained on.

    Args:
        pool: samples by loop.
        is_synthetic: which of them are synthetic, the same in every loop.
        n_subsample: samples drawn without replacement, or None for all.
        policy: asked about these.
        rng: all randomness.

    Raises:
        InputError: the policy answers with something else than one truth value per sample.
    """
    n_paths, n = pool.shape[:2]
    keep = np.ones((n_paths, n), bool)
    if n_subsample is not None and n_subsample < n:
        ranks = rng.permuted(np.tile(np.arange(n), (n_paths, 1)), axis=1)
        keep = ranks < n_subsample
    if policy is not None:
        for path in range(n_paths):
            asked = np.flatnonzero(keep[path])
            answer = np.asarray(policy(pool[path, asked], is_synthetic[asked], rng))
            if answer.shape != asked.shape or answer.dtype != np.bool_:
                raise InputError(
                    f"policy: got an answer of type {answer.dtype} and shape {answer.shape}, allowed bool and "
                    f"{asked.shape}, one per sample"
                )
            keep[path, asked] = answer
    return keep


def scatter_of(points: Points, keep: Bool[np.ndarray, "paths n"]) -> Scatter:
    """Statistics of the kept samples of each loop."""
    weight = keep.astype(np.float64)
    n = weight.sum(axis=1)
    mean = (weight[:, None, :] @ points)[:, 0] / np.maximum(n, 1)[:, None]
    apart = (points - mean[:, None, :]) * weight[:, :, None]
    return Scatter(n, mean, apart.transpose(0, 2, 1) @ apart)
