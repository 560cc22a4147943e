"""Where a loop ends (Eq. 3), and how far models of real data alone are from the truth, by simulation.

Both are estimated from blocks of independent loops until the asked error is reached or the budget is spent.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError, UnreliableEstimate
from poolproof.simulate.checks import check_count, check_sampling_bias
from poolproof.simulate.gaussian import Gaussian, Models, generations
from poolproof.simulate.mixing import LONGEST_MEMORY, Mixing
from poolproof.simulate.montecarlo import MonteCarlo
from poolproof.simulate.scatter import bartlett
from poolproof.simulate.threads import one_blas_thread
from poolproof.simulate.wasserstein import squared_w2

MAX_BLOCKS: Final = 64
"""Blocks of loops that an estimate may use unless told otherwise."""

MAX_GENERATIONS: Final = 5000
"""Generations of one loop unless told otherwise."""

DECIDED: Final = 2.0
"""Standard errors that a ratio must lie from 1 to be called admissible or not."""

_MEASURES: Final = 8
"""Generations of each loop that are measured; two full relaxation times lie between first and last."""

_DRIFT: Final = 5.0
"""The start shows where the halves of the measured generations differ by so many standard errors."""

_NOISY: Final = 0.01
"""Excess of the expected variance from which on a loop is given the time of its plain rate."""

_FORGOTTEN: Final = 0.005
"""Tolerance that the start is forgotten to at least: a loose one is often undercut by the first block's error."""

_LEAST_WEIGHT: Final = 1e-15
"""Weight of the real data below which rounding is larger than what they do."""

_SPACING: Final = 1.2
"""Ratio of neighbouring sample sizes at which the real-only curve is computed."""


def block_size(dim: int) -> int:
    """Loops that are simulated together: enough to keep the processor busy, few enough for its cache.

    >>> block_size(1), block_size(100)
    (4096, 16)
    """
    return int(np.clip(2**14 // dim**2, 16, 4096))


def check_budget(tolerance: float | int, max_paths: int | None, max_generations: int) -> None:
    """Raises InputError where a budget cannot be meant."""
    if not (isinstance(tolerance, (int, float)) and 0 < tolerance < 1):
        raise InputError(f"tolerance: got {tolerance!r}, allowed between 0 and 1; 0.01 is one per cent")
    if max_paths is not None:
        check_count("max_paths", max_paths, least=16)
    check_count("max_generations", max_generations, least=20)


def fresh_mixing(n_real: int, n_synthetic: int, *, n_models: int = 1) -> Mixing:
    """The mixing of a fresh-data loop that has a limit.

    Raises:
        InputError: fewer than two real samples, or another count out of range.
    """
    check_count("n_real", n_real, least=2)
    check_count("n_synthetic", n_synthetic, least=0)
    mixing = Mixing(n_fresh=n_real, n_synthetic=n_synthetic, n_models=n_models)
    check_limit(mixing)
    return mixing


def check_limit(mixing: Mixing) -> None:
    """Raises InputError where a loop has no limit, or none that could be computed."""
    if mixing.n_models is None or mixing.n_kept is None or mixing.real_weight() == 0:
        raise InputError(
            f"mixing: got {mixing}, allowed one with real data and a finite memory; others settle nowhere"
        )
    if mixing.n_models + mixing.n_kept > LONGEST_MEMORY:
        raise InputError(
            f"n_models, n_kept: got {mixing.n_models} and {mixing.n_kept}, allowed {LONGEST_MEMORY} together"
        )
    if mixing.real_weight() < _LEAST_WEIGHT:
        raise InputError(
            f"mixing: got {mixing}, allowed one whose real data weigh {_LEAST_WEIGHT:g} of all or more; raise n_fresh"
        )


def can_settle(
    mixing: Mixing, sampling_bias: float | int, *, tolerance: float | int, max_generations: int
) -> bool:
    """Whether a loop forgets its start within so many generations, by the rate of its recursion.

    Where not, `loop_limit` says that the start shows.
    """
    return not _schedule(mixing, sampling_bias, tolerance, max_generations).is_cut


@one_blas_thread()
def loop_limit(
    mixing: Mixing,
    sampling_bias: float | int = 1.0,
    *,
    dim: int = 100,
    tolerance: float | int = 0.005,
    max_paths: int | None = None,
    max_generations: int = MAX_GENERATIONS,
    max_steps: int | None = None,
    rng: np.random.Generator,
) -> MonteCarlo:
    """The expected squared W2 between late models of a loop and the truth N(0, I).

    Loops start near where they will end: the first moments come from the recursion of expectations, the spread
    from its noise. They run until, by the recursion's rate, little of the start is left beside `tolerance`, and are
    then measured over two relaxation times. Whether the measured halves still differ is tested; if so, the loops run
    longer. What is left of the start is no part of `stderr`.

    Args:
        mixing: what each generation trains on. Some of its weight must lie on real data, and its memory be
            finite, or there is no limit.
        sampling_bias: lambda in [0, 1].
        dim: dimensions, 1 or more.
        tolerance: relative standard error to stop at, in (0, 1).
        max_paths: independent loops at most, 16 or more; None stands for 64 blocks of `block_size(dim)`.
        max_generations: of each loop, 20 or more.
        max_steps: generations of all blocks together at most; one block is always run. None sets no such limit.
        rng: all randomness.

    Returns:
        The estimate. Where the budget does not reach the tolerance, `converged` is False, `stderr` is what
        was reached, and `why` says what would help.

    Raises:
        InputError: a value out of range, or a loop that has no limit.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, equation 3.
    Assumes: that the loop has forgotten its start, which is tested.
    """
    check_sampling_bias(sampling_bias)
    check_budget(tolerance, max_paths, max_generations)
    law = Gaussian.standard(dim)
    check_limit(mixing)
    size = block_size(dim) if max_paths is None else min(block_size(dim), max_paths)
    schedule = _schedule(mixing, sampling_bias, tolerance, max_generations)
    most = MAX_BLOCKS if max_paths is None else max(1, max_paths // size)
    while True:
        n_blocks = most if max_steps is None else max(1, min(most, max_steps // schedule.last))
        blocks: list[Float[np.ndarray, "measures paths"]] = []
        for stream in rng.spawn(n_blocks):
            # with fixed data the limit depends on them, and their own fit is the nearest start
            near = None if mixing.n_fixed else _near_limit(mixing, sampling_bias, law, size, rng=stream)
            loops = generations(
                mixing, law=law, n_paths=size, sampling_bias=sampling_bias, initial=near or "data", rng=stream
            )
            blocks.append(np.stack([squared_w2(models, law) for models in schedule.late(loops)]))
            value, stderr = _mean(np.hstack(blocks).mean(axis=0))
            if stderr <= tolerance * value:
                break
        measured = np.hstack(blocks)
        halves = measured[: _MEASURES // 2].mean(axis=0) - measured[_MEASURES // 2 :].mean(axis=0)
        drift, drift_error = _mean(halves)
        drifts = abs(drift) > _DRIFT * drift_error
        if not drifts or schedule.is_cut:
            break
        schedule = schedule.doubled()
    value, stderr = _mean(measured.mean(axis=0))
    start_shows = drifts or schedule.is_cut
    n_paths = measured.shape[1]
    reasons = []
    if stderr > tolerance * value:
        short = f"max_paths above {n_paths}" if n_blocks == most else f"max_steps above {max_steps}"
        reasons.append(
            f"relative error is {stderr / value:.2g}, asked was {tolerance:g}; raise {short} or the tolerance"
        )
    if start_shows:
        reasons.append(f"the start may still show; raise max_generations above {max_generations}")
    return MonteCarlo(
        value=value,
        stderr=stderr,
        tolerance=tolerance,
        converged=not reasons,
        start_shows=start_shows,
        n_paths=n_paths,
        n_generations=schedule.last,
        why="; ".join(reasons) or None,
    )


@final
@dataclass(frozen=True)
class _Schedule:
    """Which generations of a loop are measured: `wanted` ones pass first, as far as `longest` allows."""

    wanted: int
    stride: int
    longest: int

    @property
    def burn_in(self) -> int:
        return min(self.wanted, self.longest - self.stride * _MEASURES)

    @property
    def is_cut(self) -> bool:
        return self.burn_in < self.wanted

    @property
    def last(self) -> int:
        return self.burn_in + self.stride * _MEASURES

    def doubled(self) -> _Schedule:
        return _Schedule(2 * self.wanted, self.stride, self.longest)

    def late(self, loops: Iterator[Models]) -> Iterator[Models]:
        return itertools.islice(loops, self.burn_in + self.stride, self.last + 1, self.stride)


def _schedule(
    mixing: Mixing, sampling_bias: float | int, tolerance: float | int, max_generations: int
) -> _Schedule:
    """How long to run, and when to measure.

    Loops start with about the right mean errors and, on average, covariances, so that the spread of the covariances
    is what has to settle, at the squared rate. Where real samples are so few that the sources lying apart shows in the
    variance, laws are far from normal; with fixed data loops start at the fit to these. The plain rate counts there.
    """
    squared = min(max(mixing.relaxation(sampling_bias) ** 2, 1e-12), 1 - _LEAST_WEIGHT)
    rate = squared
    plain = mixing.real_weight() / (1 - (1 - mixing.real_weight()) * sampling_bias)
    if mixing.n_fixed or mixing.expected_variance(sampling_bias) > (1 + _NOISY) * plain:
        rate = max(mixing.relaxation(sampling_bias), mixing.relaxation(1.0) ** 2, squared)
        rate = min(rate, 1 - _LEAST_WEIGHT)
    scale = -1 / math.log(rate)
    memory = (mixing.n_models or 1) + (mixing.n_kept or 1)
    stride = min(max(1, round(-1 / math.log(squared) / 4)), max_generations // (2 * _MEASURES))
    # The start is off by a quarter or less where real samples are not far fewer than dimensions; the average over
    # the measured generations halves what is left of it.
    wanted = 2 * memory + math.ceil(scale * max(0.0, math.log(0.5 / min(tolerance, _FORGOTTEN))))
    return _Schedule(wanted, stride, max_generations)


def _near_limit(
    mixing: Mixing, sampling_bias: float | int, law: Gaussian, n_paths: int, *, rng: np.random.Generator
) -> Models:
    """Models drawn from a normal and a Wishart law with about the moments of the limit."""
    variance = mixing.expected_variance(sampling_bias)
    if not math.isfinite(variance):
        variance = 1.0
    mean_noise, noise = mixing.noise(sampling_bias, variance)
    mean_error = mean_noise * mixing.persistence()
    dof = max(1, round(variance**2 / (noise * mixing.persistence(sampling_bias))))
    triangle = bartlett(n_paths, law.dim, dof, rng=rng)
    return Models(
        generation=0,
        mean=rng.standard_normal((n_paths, law.dim)) * math.sqrt(mean_error),
        factor=triangle * math.sqrt(variance / dof),
    )


def _mean(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


# --- real data alone ------------------------------------------------------------------------------------


@one_blas_thread()
def real_only_limit(
    n: int,
    *,
    dim: int,
    tolerance: float | int,
    max_paths: int | None = None,
    rng: np.random.Generator,
) -> MonteCarlo:
    """The expected squared W2 between N(0, I) and the normal fitted to `n` samples of it.

    The part of the mean is dim / n exactly. The part of the covariance is averaged over Wishart draws and regressed
    on the traces of the covariance and of its square, whose expectations are known; that leaves little noise
    where n is above dim.

    Args:
        n: samples, 2 or more.
        dim: dimensions.
        tolerance: relative standard error to stop at.
        max_paths: draws at most; None stands for 64 blocks.
        rng: all randomness.

    Source: Alemohammad et al., "Self-consuming generative models go MAD", 2023, equation 4 (its left side).
    """
    size = max(64, block_size(dim)) if max_paths is None else min(max(64, block_size(dim)), max_paths)
    n_blocks = MAX_BLOCKS if max_paths is None else max(1, max_paths // size)
    dof = n - 1
    expected = np.array([dim, dim + dim * (dim + 1) / dof])
    parts: list[Float[np.ndarray, "3 n"]] = []
    value = stderr = math.nan
    n_paths = 0
    for _ in range(n_blocks):
        (stream,) = rng.spawn(1)
        triangle = bartlett(size, dim, dof, rng=stream) / math.sqrt(dof)
        covariance = triangle @ triangle.transpose(0, 2, 1)
        roots = np.sqrt(np.linalg.eigvalsh(covariance).clip(0))
        bures = np.square(1 - roots).sum(axis=1)
        traces = [np.square(triangle).sum(axis=(1, 2)), np.square(covariance).sum(axis=(1, 2))]
        parts.append(np.stack([bures, *traces]))
        sample = np.concatenate(parts, axis=1)
        n_paths = sample.shape[1]
        controls = (sample[1:] - expected[:, None]).T
        coefficients, *_ = np.linalg.lstsq(
            controls - controls.mean(axis=0), sample[0] - sample[0].mean(), rcond=None
        )
        corrected = sample[0] - controls @ coefficients
        mean, stderr = _mean(corrected)
        value = dim / n + mean
        if stderr <= tolerance * value:
            break
    short = stderr > tolerance * value
    why = f"relative error is {stderr / value:.2g}, asked was {tolerance:g}; raise max_paths above {n_paths}"
    return MonteCarlo(value, stderr, tolerance, not short, False, n_paths, 1, why if short else None)


@final
@dataclass(frozen=True)
class RealOnlyCurve:
    """The real-only distance as a function of the sample size, to be inverted.

    It is computed at sizes a fifth apart, each with randomness of its own that depends on seed, dimension and
    size alone, and interpolated between four of them by a cubic in logarithms.

    Attributes:
        dim: dimensions.
        seed: of all its randomness.
        tolerance: relative standard error at each size.
    """

    dim: int
    seed: int
    tolerance: float | int = 0.001

    def at(self, n: int) -> MonteCarlo:
        """The distance at one size."""
        return _curve_point(self, n)

    def invert(self, distance: float | int, stderr: float | int) -> tuple[float, float]:
        """The size at which real data alone reach the distance, and its standard error.

        The error holds that of the distance and that of the curve.

        Raises:
            UnreliableEstimate: two real samples already do better, or more than 8e14 do worse; it carries the
                interval that the size is in for all distances within two standard errors.
        """
        from scipy.optimize import brentq

        sizes = _lattice()
        if distance >= self.at(2).value:
            nearest = max(distance - DECIDED * stderr, self.at(sizes[-2]).value)
            raise UnreliableEstimate(
                f"n_e: the distance {distance:.4g} is larger than with 2 real samples, so it is below 2",
                (0.0, 2.0 if nearest >= self.at(2).value else self.invert(nearest, 0.0)[0]),
            )
        guess = (self.dim + self.dim * (self.dim + 1) / 4) / distance
        upper = int(np.clip(np.searchsorted(sizes, guess), 2, len(sizes) - 2))
        while self.at(sizes[upper]).value > distance:
            upper += 1
            if upper > len(sizes) - 2:
                furthest = distance + DECIDED * stderr
                raise UnreliableEstimate(
                    f"n_e: the distance {distance:.4g} is below that of {sizes[-2]} real samples",
                    (float(sizes[-2]) if furthest < self.at(sizes[-2]).value else 0.0, math.inf),
                )
        while upper > 1 and self.at(sizes[upper - 1]).value <= distance:
            upper -= 1
        first = max(0, upper - 2)
        around = sizes[first : first + 4]
        points = [self.at(n) for n in around]
        logs = np.log(around)
        values = np.log([point.value for point in points])
        errors = np.array([point.stderr / point.value for point in points])

        def gap(x: float) -> float:
            return float(_lagrange(logs, x) @ values - math.log(distance))

        low, high = math.log(sizes[upper - 1]), math.log(sizes[upper])
        root = float(brentq(gap, low, high, full_output=False))  # pyright: ignore[reportArgumentType]
        step = 1e-4
        slope = (gap(root + step) - gap(root - step)) / (2 * step)
        variance = (stderr / distance) ** 2 + float(np.square(_lagrange(logs, root) * errors).sum())
        n_e = math.exp(root)
        return n_e, n_e * math.sqrt(variance) / abs(slope)


@functools.cache
def _lattice() -> list[int]:
    """Sample sizes from 2 to 10^15, neighbours `_SPACING` apart or 1."""
    sizes = [2]
    while sizes[-1] < 10**15:
        sizes.append(max(sizes[-1] + 1, round(sizes[-1] * _SPACING)))
    return sizes


def _lagrange(nodes: Float[np.ndarray, " n"], x: float) -> Float[np.ndarray, " n"]:
    """Weights of the values at the nodes in the polynomial's value at x."""
    weights = np.ones(len(nodes))
    for i, j in itertools.permutations(range(len(nodes)), 2):
        weights[i] *= (x - nodes[j]) / (nodes[i] - nodes[j])
    return weights


@functools.lru_cache(maxsize=4096)
def _curve_point(curve: RealOnlyCurve, n: int) -> MonteCarlo:
    rng = np.random.default_rng([curve.seed, curve.dim, n])
    return real_only_limit(n, dim=curve.dim, tolerance=curve.tolerance, rng=rng)
