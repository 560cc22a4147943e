"""How many real samples a generator is worth: the real-only curve that was measured, and its inversion (Eq. 4).

For generators whose curve must be measured by training on n real samples, at a few n and with a few seeds each. That of
the Gaussian model is computed in `simulate/limit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range, check_samples

PRIOR_DOF: Final = 4
"""Degrees of freedom that the spread pooled over all sizes counts for, beside the spread at one size."""

_LEAST_SPREAD: Final = 1e-12
"""Relative standard error below which a mean counts as exact."""


@final
@dataclass(frozen=True)
class EffectiveSize:
    """Real samples that give the same distance, as far as the curve tells.

    Attributes:
        point: the estimate; None where the distance lies beyond the curve's ends.
        lower: limit of the interval; None where the curve does not reach far enough down to tell.
        upper: limit of the interval; None where the curve does not reach far enough up to tell.
        stderr: standard error of the point, from the middle 68 % of the draws; None where these pass the curve's ends.
        level: confidence of the interval.
        why: what could not be told and why; None where all was.
    """

    point: float | None
    lower: float | None
    upper: float | None
    stderr: float | None
    level: float
    why: str | None = None


@final
@dataclass(frozen=True, eq=False)
class RealOnlyCurve:
    """Distances of generators trained on real samples alone, by their number; made by `real_only_curve`.

    The mean curve falls with n: neighbouring sizes whose means rise are pooled. Between the sizes it is straight in
    the logarithms of n and of the distance, which is exact for powers of n; where a mean is not above 0 (a kernel
    distance), in log n and the distance itself.

    Attributes:
        sizes: numbers of real samples, rising.
        means: distance at each size, over the seeds.
        stderrs: standard error of each mean.
        dof: degrees of freedom of each standard error.
    """

    sizes: tuple[int, ...]
    means: Float64[np.ndarray, " k"]
    stderrs: Float64[np.ndarray, " k"]
    dof: Float64[np.ndarray, " k"]

    @property
    def is_logarithmic(self) -> bool:
        """Whether distances are interpolated by their logarithms."""
        return bool((self.means > 0).all())

    def at(self, n: float | int) -> float:
        """The distance at a size between the first and the last, by the falling curve.

        Raises:
            InputError: a size beyond the ends.
        """
        check_range("n", n, self.sizes[0], self.sizes[-1])
        heights = self._falling(self._heights()[None])[0]
        height = float(np.interp(math.log(n), np.log(self.sizes), heights))
        return math.exp(height) if self.is_logarithmic else height

    def invert(
        self,
        distance: float | int,
        stderr: float | int,
        *,
        dof: float | int | None = None,
        level: float | int = 0.95,
        n_draws: int = 4000,
        rng: np.random.Generator,
    ) -> EffectiveSize:
        """The number of real samples at which the curve has the distance, with its interval.

        The curve's means are drawn anew, each from a Student law about what was measured, and so is the distance, from
        a normal law, or a Student law where its error was estimated; every draw is made to fall and inverted. The
        limits are quantiles of what comes out. As the curve falls, "n_e below n" is the same as "the curve at n is
        below the distance", so they are the limits of the tests of each n.

        Args:
            distance: of the loop, in the units of the curve and from as many samples.
            stderr: its standard error, 0 or more. Generations of one loop are not independent.
            dof: degrees of freedom of that error, such as seeds less 1; None where it is known.
            level: of the interval.
            n_draws: of the curve and the distance.
            rng: draws them.

        Raises:
            InputError: a distance that is not finite, or another argument out of range.

        Source: Alemohammad et al., "Self-consuming generative models go MAD", arXiv 2307.01850, equation 4; Brunk et
            al., 1972 (isotonic means).
        Assumes: independent seeds, means about normal, and a true curve that falls and is about straight between
            the sizes.
        """
        if not math.isfinite(distance):
            raise InputError(f"distance: got {distance}, allowed finite numbers; count this loop as failed")
        check_range("stderr", stderr, 0, 1e300)
        check_range("level", level, 0.5, 0.999)
        check_count("n_draws", n_draws, 100)
        noise = rng.standard_t(self.dof, size=(n_draws, len(self.sizes)))
        heights, errors = self._heights(), self._height_errors()
        curves = self._falling(heights + noise * errors)
        errors_of_loop = rng.standard_normal(n_draws) if dof is None else rng.standard_t(dof, n_draws)
        targets = distance + stderr * errors_of_loop
        draws = self._cross(curves, targets)
        tail = (1 - level) / 2
        ends = np.quantile(draws, [tail, 0.1587, 0.8413, 1 - tail], method="inverted_cdf")
        lower, below, above, upper = (math.exp(x) for x in ends)
        point = math.exp(self._cross(self._falling(heights[None]), np.array([float(distance)]))[0])
        smallest, largest = self.sizes[0], self.sizes[-1]
        low = None if lower <= 0 else min(lower, float(largest))
        high = None if math.isinf(upper) else max(upper, float(smallest))
        inside = below > 0 and not math.isinf(above)
        if 0 < point < math.inf:
            ends_passed = [
                f"the {side} limit lies beyond {end} real samples, where the curve ends"
                for side, end, limit in (("lower", smallest, low), ("upper", largest, high))
                if limit is None
            ]
            spread = (above - below) / 2 if inside else None
            return EffectiveSize(point, low, high, spread, float(level), "; ".join(ends_passed) or None)
        if point > 0:
            known = f"more than {low:.4g}" if low is not None else "the interval holds the whole curve"
            why = f"below that of {largest} real samples, where the curve ends: {known}"
            high = None
        else:
            known = f"less than {high:.4g}" if high is not None else "the interval holds the whole curve"
            why = f"above that of {smallest} real samples, where the curve starts: {known}"
            low = None
        return EffectiveSize(None, low, high, None, float(level), f"the distance {distance:.4g} is {why}")

    def _heights(self) -> Float64[np.ndarray, " k"]:
        return np.log(self.means) if self.is_logarithmic else self.means

    def _height_errors(self) -> Float64[np.ndarray, " k"]:
        return self.stderrs / self.means if self.is_logarithmic else self.stderrs

    def _falling(self, heights: Float[np.ndarray, "draws k"]) -> Float64[np.ndarray, "draws k"]:
        """Least-squares falling curves: at i, the least over a <= i of the greatest mean of a to b over b >= i."""
        k = heights.shape[1]
        errors = self._height_errors()
        least = _LEAST_SPREAD * max(1.0, float(np.abs(self._heights()).max()))
        weights = 1 / np.maximum(errors, least) ** 2
        weights = weights / weights.sum()
        total = np.concatenate([[0.0], np.cumsum(weights)])
        sums = np.concatenate([np.zeros((len(heights), 1)), np.cumsum(heights * weights, axis=1)], axis=1)
        fitted = np.full(heights.shape, np.inf)
        for a in range(k):
            blocks = (sums[:, a + 1 :] - sums[:, a : a + 1]) / (total[a + 1 :] - total[a])
            greatest = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1]
            fitted[:, a:] = np.minimum(fitted[:, a:], greatest)
        return fitted

    def _cross(
        self, curves: Float[np.ndarray, "draws k"], distances: Float[np.ndarray, " draws"]
    ) -> Float64[np.ndarray, " draws"]:
        """Log sizes at which falling curves have the distances; infinite beyond the ends, midway where one is flat."""
        targets = distances
        if self.is_logarithmic:
            targets = np.full(len(distances), -np.inf)
            np.log(distances, out=targets, where=distances > 0)
        k = len(self.sizes)
        # the last place at or above the target, and the first at or below it: one unless the curve is flat there
        n_above = (curves > targets[:, None]).sum(axis=1)
        n_not_below = (curves >= targets[:, None]).sum(axis=1)
        last, first = (n_not_below - 1).clip(0), n_above.clip(max=k - 1)
        rows, logs = np.arange(len(targets)), np.log(self.sizes)
        high, low = curves[rows, last], curves[rows, first]
        share = np.full(len(targets), 0.5)
        np.divide(high - targets, high - low, out=share, where=high > low)
        found = logs[last] + share * (logs[first] - logs[last])
        found[n_not_below == 0] = -np.inf
        found[n_above == k] = np.inf
        return found


def real_only_curve(rows: Iterable[tuple[int, Sequence[float]]]) -> RealOnlyCurve:
    """The curve of distances that were measured at some sizes with some seeds each.

    A few seeds say little of their own spread. So the relative variance at a size (where distances are not above 0: the
    variance) is averaged with that of all sizes, which counts for `PRIOR_DOF` more seeds.

    Args:
        rows: number of real samples, and the distance for each seed. Two sizes or more; a size may come more than
            once; one of them must have two seeds.

    Raises:
        InputError: fewer sizes or seeds, a size below 2, or a distance that is not finite.

    >>> curve = real_only_curve([(100, [2.0, 2.0]), (200, [1.0, 1.0])])
    >>> round(curve.at(150), 3)
    1.333

    Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004), section 4, for the average of variances, with a fixed weight.
    Assumes: independent seeds: the real samples are drawn anew for each.
    """
    seeds: dict[int, list[float]] = {}
    for n, distances in rows:
        check_samples("n", n, 2)
        seeds.setdefault(int(n), []).extend(float(x) for x in distances)
    if len(seeds) < 2:
        raise InputError(
            f"rows: got {len(seeds)} sizes, allowed 2 or more; train on other numbers of samples too"
        )
    for n, distances in seeds.items():
        if not distances or not all(math.isfinite(x) for x in distances):
            raise InputError(
                f"rows: got {distances} for n = {n}, allowed finite distances; leave failed seeds out"
            )
    sizes = sorted(seeds)
    counts = np.array([len(seeds[n]) for n in sizes], np.float64)
    means = np.array([np.mean(seeds[n]) for n in sizes])
    squares = np.array([np.square(np.subtract(seeds[n], np.mean(seeds[n]))).sum() for n in sizes])
    own = counts - 1
    if own.sum() < 1:
        raise InputError(
            "rows: got one seed for each size, allowed two or more for one of them; train once more"
        )
    units = means**2 if (means > 0).all() else np.ones(len(sizes))
    squares = squares / units
    pooled = squares.sum() / own.sum()
    variances = (PRIOR_DOF * pooled + squares) / (PRIOR_DOF + own)
    # the average knows no more than all seeds together do
    dof = np.minimum(PRIOR_DOF + own, own.sum())
    return RealOnlyCurve(tuple(sizes), means, np.sqrt(variances * units / counts), dof)
