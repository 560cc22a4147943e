"""How much synthetic data is too much: the limit of the fresh-data loop, n_e, and the admissible region.

In the fresh-data loop every generation trains on `n_real` new real samples and `n_synthetic` samples of the
model before. It ends at a distance from the truth. n_e is the number of real samples that alone would end
there; synthetic data are admissible where n_e is at least n_real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import numpy as np

from poolproof.errors import InputError
from poolproof.simulate.border import REACH, Sample, bracket_border, fit_border
from poolproof.simulate.checks import check_count, check_dim, check_samples, check_sampling_bias
from poolproof.simulate.grid import Cell, Effort, evaluate_cells
from poolproof.simulate.limit import (
    DECIDED,
    MAX_GENERATIONS,
    RealOnlyCurve,
    block_size,
    can_settle,
    check_budget,
    fresh_mixing,
    loop_limit,
    real_only_limit,
)
from poolproof.simulate.montecarlo import MonteCarlo
from poolproof.simulate.theory import phase_line, surrogate_limit, surrogate_real_only

if TYPE_CHECKING:
    import pandas as pd

_ROUNDS: Final = 8
"""Times that the threshold's neighbourhood is sampled again, each time with twice the precision in variance."""

_MOST: Final = 1e12
"""Synthetic samples beyond which no threshold is looked for."""

MAX_STEPS: Final = 50_000
"""Generations of blocks of loops that one threshold may use: about five minutes in a hundred dimensions."""


def limit_distance(
    n_real: int,
    n_synthetic: int,
    sampling_bias: float | int = 1.0,
    *,
    dim: int = 100,
    tolerance: float | int = 0.005,
    max_paths: int | None = None,
    max_generations: int = MAX_GENERATIONS,
    rng: np.random.Generator,
) -> MonteCarlo:
    """Where the fresh-data loop ends: the expected squared W2 between late models and N(0, I).

    Args:
        n_real: new real samples per generation, 2 or more.
        n_synthetic: samples of the model before per generation, 0 or more.
        sampling_bias: lambda in [0, 1]; synthetic samples have this times the covariance of their model.
        dim: dimensions, 1 or more.
        tolerance: relative standard error to stop at, in (0, 1).
        max_paths: independent loops at most, 16 or more; None stands for 64 blocks.
        max_generations: of each loop, 20 or more.
        rng: all randomness.

    Returns:
        The estimate with its standard error; `converged` and `why` say whether the budget met the tolerance.

    Raises:
        InputError: a value out of range.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, equation 3; squared distance,
        unbiased covariance of the pooled samples.

    >>> estimate = limit_distance(10, 5, 1.0, dim=2, tolerance=0.05, rng=np.random.default_rng(0))
    >>> estimate.converged, abs(estimate.value - 0.25) < 0.05
    (True, True)
    """
    mixing = fresh_mixing(n_real, n_synthetic)
    return loop_limit(
        mixing,
        sampling_bias,
        dim=dim,
        tolerance=tolerance,
        max_paths=max_paths,
        max_generations=max_generations,
        rng=rng,
    )


def real_only_distance(
    n: int,
    *,
    dim: int = 100,
    tolerance: float | int = 0.001,
    max_paths: int | None = None,
    rng: np.random.Generator,
) -> MonteCarlo:
    """How far a model of `n` real samples is from the truth: the expected squared W2 to N(0, I).

    Args:
        n: samples, 2 or more. With `dim` or fewer the covariance is singular and the distance still defined.
        dim: dimensions, 1 or more.
        tolerance: relative standard error to stop at, in (0, 1).
        max_paths: draws at most, 16 or more; None stands for 64 blocks.
        rng: all randomness.

    Raises:
        InputError: a value out of range.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, equation 4 (its left side).

    >>> estimate = real_only_distance(100, dim=1, rng=np.random.default_rng(0))
    >>> abs(estimate.value - 0.015) < 0.0002
    True
    """
    check_samples("n", n, least=2)
    check_dim(dim)
    check_budget(tolerance, max_paths, MAX_GENERATIONS)
    return real_only_limit(n, dim=dim, tolerance=tolerance, max_paths=max_paths, rng=rng)


@final
@dataclass(frozen=True)
class EffectiveSampleSize:
    """How many real samples a loop is worth.

    Attributes:
        n_e: real samples that alone give the loop's distance.
        ratio: n_e over the fresh real samples of a generation; 1 or more is admissible.
        stderr: standard error of `n_e`.
        ratio_stderr: standard error of `ratio`.
        limit: the loop's distance.
    """

    n_e: float
    ratio: float | int
    stderr: float | int
    ratio_stderr: float
    limit: MonteCarlo

    @property
    def admissible(self) -> bool | None:
        """Whether the ratio is at least 1; None within two standard errors of 1, or where the loop's start shows."""
        if self.ratio_stderr == 0:  # real data alone
            return self.ratio >= 1
        if self.limit.start_shows or abs(self.ratio - 1) < DECIDED * self.ratio_stderr:
            return None
        return self.ratio >= 1


def effective_sample_size(
    n_real: int,
    n_synthetic: int,
    sampling_bias: float | int = 1.0,
    *,
    dim: int = 100,
    n_models: int = 1,
    tolerance: float | int = 0.005,
    max_paths: int | None = None,
    max_generations: int = MAX_GENERATIONS,
    rng: np.random.Generator,
) -> EffectiveSampleSize:
    """How many real samples the fresh-data loop is worth, with the error of loop and real-only curve.

    Args:
        n_real: new real samples per generation, 2 or more.
        n_synthetic: synthetic samples per generation, 0 or more.
        sampling_bias: lambda in [0, 1].
        dim: dimensions, 1 or more.
        n_models: models before that the synthetic samples come from in equal parts, 1 or more.
        tolerance: relative standard error of the loop's distance to stop at; n_e has about the same.
        max_paths: independent loops at most, 16 or more; None stands for 64 blocks.
        max_generations: of each loop, 20 or more.
        rng: all randomness.

    Raises:
        InputError: a value out of range.
        UnreliableEstimate: the loop does worse than two real samples, or better than 8e14; it carries the interval
            that n_e lies in.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, equation 4; appendix G for
        `n_models`.
    """
    mixing = fresh_mixing(n_real, n_synthetic, n_models=n_models)
    curve = RealOnlyCurve(dim, int(rng.integers(2**63)), tolerance=min(0.001, tolerance / 3))
    limit = loop_limit(
        mixing,
        sampling_bias,
        dim=dim,
        tolerance=tolerance,
        max_paths=max_paths,
        max_generations=max_generations,
        rng=rng,
    )
    if n_synthetic == 0:
        return EffectiveSampleSize(float(n_real), 1.0, 0.0, 0.0, limit)
    n_e, stderr = curve.invert(limit.value, limit.stderr)
    return EffectiveSampleSize(n_e, n_e / n_real, stderr, stderr / n_real, limit)


def admissible_region(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    sampling_bias: Sequence[float | int],
    *,
    dim: int = 100,
    tolerance: float | int = 0.01,
    n_workers: int | None = None,
    cache: Path | None = None,
    on_cell: Callable[[int], None] | None = None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The map of n_e / n_real: one row per combination of the three lists, with errors and verdicts.

    Args:
        n_real: new real samples per generation, 2 or more each.
        n_synthetic: synthetic samples per generation.
        sampling_bias: lambda, in [0, 1].
        dim: dimensions.
        tolerance: relative standard error of each distance.
        n_workers: threads; None takes one per core. The figures do not depend on it.
        cache: folder that remembers cells by their content; None remembers nothing.
        on_cell: called with the number of cells done, as they end.
        rng: seeds everything.

    Returns:
        Columns as in `grid.evaluate_cells`, ordered by bias, n_real and n_synthetic as given.

    Raises:
        InputError: an empty list, or a value out of range.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, figures 11 and 12.
    """
    for name, values in (("n_real", n_real), ("n_synthetic", n_synthetic), ("sampling_bias", sampling_bias)):
        if not len(values):
            raise InputError(f"{name}: got an empty list, allowed one value or more")
    cells = [
        Cell(real, synthetic, bias, dim=dim)
        for bias in sampling_bias
        for real in n_real
        for synthetic in n_synthetic
    ]
    effort = Effort(tolerance=tolerance, seed=int(rng.integers(2**63)))
    return evaluate_cells(cells, effort, n_workers=n_workers, cache=cache, on_cell=on_cell)


# --- the border of the region ---------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Threshold:
    """The number of synthetic samples up to which a loop is admissible.

    Attributes:
        n_synthetic: where n_e / n_real falls through 1; infinite where it never does, 0 where it starts below.
        stderr: its standard error; 0 where it is infinite or 0.
        tolerance: the relative standard error that was asked for.
        converged: whether it was reached.
        why: what is amiss, or why there is no border; None otherwise.
    """

    n_synthetic: float
    stderr: float | int
    tolerance: float | int
    converged: bool
    why: str | None = None


class _Unsettled(Exception):
    """A sample of the curve that would not be one of the limit, or that no budget is left for."""


def admissible_threshold(
    n_real: int,
    sampling_bias: float | int,
    *,
    dim: int = 100,
    tolerance: float | int = 0.03,
    n_rounds: int = _ROUNDS,
    max_paths: int | None = None,
    max_generations: int = MAX_GENERATIONS,
    max_steps: int = MAX_STEPS,
    rng: np.random.Generator,
) -> Threshold:
    """The largest number of synthetic samples per generation that costs no effective real samples.

    n_e / n_real first rises with n_synthetic and then, for a sampling bias below 1, falls through 1. The fall is
    bracketed by steps of two, from the closed form for many samples on. Around it the logarithm of (loop distance /
    real-only distance) is sampled at fresh loops, a cubic fitted in log n_synthetic, and its root taken; this is
    repeated with more loops until the root's error is small enough. Loops that cannot forget their start end the
    search: their distance is not that of the limit.

    Args:
        n_real: new real samples per generation, 2 or more.
        sampling_bias: lambda in [0, 1].
        dim: dimensions, 1 or more.
        tolerance: relative standard error of the threshold to stop at, in (0, 1).
        n_rounds: rounds of sampling at most, 1 or more; each doubles the work.
        max_paths: independent loops of each sample at most, 16 or more; None stands for 64 blocks.
        max_generations: of each loop, 20 or more.
        max_steps: generations of all blocks of loops together at most, 1 or more.
        rng: all randomness.

    Returns:
        The threshold; infinite at a bias of 1, and for so few real samples that even a model without any variance
        would do better than them alone. Where the budget ends the search, `converged` is False and `why` names it;
        `stderr` is infinite where nothing around the border was measured, and the value no more than a guess.

    Raises:
        InputError: a value out of range.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 5 and figures 11, 12.
    """
    fresh_mixing(n_real, 0)
    check_dim(dim)
    check_sampling_bias(sampling_bias)
    check_budget(tolerance, max_paths, max_generations)
    check_count("n_rounds", n_rounds, least=1)
    check_count("max_steps", max_steps, least=1)
    if sampling_bias == 1:
        return Threshold(math.inf, 0.0, tolerance, True, "unbiased samples are admissible in any number")
    alone = real_only_limit(n_real, dim=dim, tolerance=0.0005, rng=rng)
    if alone.value >= dim:
        why = f"{n_real} real samples in {dim} dimensions do worse than a model without any variance"
        return Threshold(math.inf, 0.0, tolerance, True, why)
    size = block_size(dim) if max_paths is None else min(block_size(dim), max_paths)
    n_spent = 0

    def sample(x: float, precision: float) -> Sample:
        nonlocal n_spent
        n_synthetic = max(1, round(math.exp(x)))
        mixing = fresh_mixing(n_real, n_synthetic)
        slow = (
            f"loops with {n_synthetic:.4g} synthetic samples do not forget their start within "
            f"{max_generations} generations; raise max_generations"
        )
        if not can_settle(mixing, sampling_bias, tolerance=precision, max_generations=max_generations):
            raise _Unsettled(slow)
        if n_spent >= max_steps:
            raise _Unsettled(f"the budget is spent; raise max_steps above {max_steps}")
        limit = loop_limit(
            mixing,
            sampling_bias,
            dim=dim,
            tolerance=precision,
            max_paths=max_paths,
            max_generations=max_generations,
            max_steps=max_steps - n_spent,
            rng=rng,
        )
        n_spent += math.ceil(limit.n_paths / size) * limit.n_generations
        if limit.start_shows:
            raise _Unsettled(slow)
        return Sample(math.log(n_synthetic), math.log(limit.value / alone.value), limit.stderr / limit.value)

    common_error = alone.stderr / alone.value
    x = _first_guess(n_real, sampling_bias, dim)
    error = math.inf
    samples: list[Sample] = []
    why = None
    try:
        x = bracket_border(x, sample, common_error, highest=math.log(_MOST))
        if x == -math.inf:
            return Threshold(0.0, 0.0, tolerance, True, "a single synthetic sample already costs real ones")
        if x == math.inf:
            why = f"admissible up to {_MOST:.0e} synthetic samples"
            return Threshold(math.inf, 0.0, tolerance, True, why)
        for round_ in range(n_rounds):
            precision = 0.003 * 2 ** (-round_ / 2)
            places = x + REACH * np.array([1.0, 0.5, 0.0, -0.5, -1.0])  # the slowest loops first
            samples += [sample(float(place), precision) for place in places if place >= 0]
            centre = x
            x, error = fit_border(samples, centre, common_error)
            if error <= tolerance and abs(x - centre) <= REACH / 2:  # a cubic is good near its middle
                break
    except _Unsettled as stop:
        why = str(stop)
    value = math.exp(x)
    if error <= tolerance:
        return Threshold(value, value * error, tolerance, True)
    if why is None and error == math.inf:
        why = "around the border the ratio is too close to 1 to find it; raise n_rounds, or see theory.phase_line"
    if why is None:
        more = "n_rounds" if max_paths is None else "n_rounds or max_paths"
        why = f"relative error is {error:.2g}, asked was {tolerance:g}; raise {more}"
    return Threshold(value, value * error, tolerance, False, why)


def _first_guess(n_real: int, sampling_bias: float | int, dim: int) -> float:
    """Logarithm of the threshold by the closed forms for many samples."""
    alone = surrogate_real_only(n_real, dim=dim)
    most = min(max(2.0, phase_line(sampling_bias, dim=dim)), _MOST)
    for x in np.arange(0.0, math.log(most), math.log(2)).tolist():
        if surrogate_limit(n_real, round(math.exp(x)), sampling_bias, dim=dim) > alone:
            return x
    return math.log(most)
