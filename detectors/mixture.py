"""The pool's scores as a mix of the two references' scores: a point estimate, and an alarm where none fits.

Scores are counted in bins, and each sample is a vector of counts. Where the pool is a mix, its shares of the
bins are `share * p1 + (1 - share) * p0`, with p1 and p0 those of synthetic and real items. An unseen generator,
or real images of another kind, puts items where no such mix has them. The alarm tests for that.

What it can and cannot see: it needs references enough to know p1 and p0 well, and a change that is itself a
mix of the two (a generator half of whose images pass for real) looks like another share and raises none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from poolproof.detectors.prevalence import check_level
from poolproof.errors import InputError, UnreliableEstimate

N_BINS: Final = 14
"""Bins of the alarm. Fewer see broad shifts better, more see narrow ones: of pools half a deviation off towards
the real scores, 14 bins see 96 % and 20 bins 93 % (2,000 references, 100,000 items)."""

ITEMS_PER_BIN: Final = 10
"""References, both classes together, that a bin of the alarm has at least."""

STEPS: Final = 3
"""Rounds in which the best share and the variance at it settle."""

SEED_ERROR: Final = 0.05
"""Chance at most that an alarm is owed to the draw of the resamples."""

PRIOR: Final = 1.0
"""Items added to each bin of a reference where its noise is judged: a bin without items is not known to be empty."""

NULL_PRIOR: Final = 0.25
"""Items added to each bin of either class in the mix that resamples are drawn from."""

BISECTIONS: Final = 30
"""Halvings of [0, 1] in the search for a share: an accuracy of 1e-9."""

Counts = Int[np.ndarray, "_"]


@dataclass(frozen=True)
class GoodnessOfFit:
    """Whether some mix of the two references explains the pool.

    Attributes:
        share: share of synthetic items in the mix that fits best; no estimate where the alarm fires.
        statistic: sum of squared residuals.
        p_value: share of resamples of the best mix that fit no better, in (0, 1].
        level: an alarm in at most 1 - level of pools that are mixes.
        fires: whether p_value is below 1 - level by more than the chance of the resamples, so that other
            resamples would say so too.
        residuals: of each bin, items beyond the best mix in standard errors of pool and references; where no
            sample has an item it is 0.
    """

    share: float
    statistic: float
    p_value: float
    level: float
    fires: bool
    residuals: Float64[np.ndarray, " bins"]

    @property
    def excess(self) -> tuple[int, ...]:
        """Bins with more items than the best mix has, at the level over all bins (Bonferroni)."""
        from scipy.special import ndtri

        limit = float(ndtri(1 - (1 - self.level) / len(self.residuals)))
        return tuple(int(place) for place in np.flatnonzero(self.residuals > limit))

    def describe(self, edges: Float[np.ndarray, " edges"]) -> str:
        """Return in words what the alarm says; `edges` are the inner edges the scores were counted by."""
        if len(edges) != len(self.residuals) - 1:
            raise InputError(
                f"edges: got {len(edges)}, allowed {len(self.residuals) - 1}: give those of the counts"
            )
        if not self.fires:
            return f"a mix of the two references explains the pool's scores (p = {self.p_value:.2g})"
        bins = self.excess or (int(np.argmax(self.residuals)),)
        ends = [-math.inf, *(float(edge) for edge in edges), math.inf]
        runs: list[list[int]] = []
        for place in bins:
            if runs and place == runs[-1][1] + 1:
                runs[-1][1] = place
            else:
                runs.append([place, place])
        where = " and ".join(_span(ends[first], ends[last + 1]) for first, last in runs)
        return (
            f"no mix of the two references explains the pool's scores (p = {self.p_value:.2g}): "
            f"more items than any mix has at scores {where}"
        )


def _span(low: float, high: float) -> str:
    """Return a range of scores in words."""
    if math.isinf(low):
        return f"below {high:.3g}"
    return f"from {low:.3g} up" if math.isinf(high) else f"between {low:.3g} and {high:.3g}"


def alarm_edges(
    real_scores: Float[np.ndarray, " n"], synthetic_scores: Float[np.ndarray, " m"], n_bins: int = N_BINS
) -> Float64[np.ndarray, " edges"]:
    """Return inner edges that cut the two references, mixed half and half, into bins of equal mass.

    Scores that repeat make fewer edges, since no bin can hold a part of a score. So do few references: a bin
    gets 10 at least, of both classes together.

    Args:
        real_scores: of real references, finite.
        synthetic_scores: of synthetic references, finite.
        n_bins: bins that are wanted, at least 2; `goodness_of_fit` needs 3.

    Raises:
        InputError: a reference is empty or has scores that are not finite, or there are fewer than 2 bins.
        UnreliableEstimate: all scores are equal.
    """
    if n_bins < 2:
        raise InputError(f"n_bins: got {n_bins}, allowed 2 or more: {N_BINS} is usual")
    for name, scores in (("real_scores", real_scores), ("synthetic_scores", synthetic_scores)):
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise InputError(
                f"{name}: got {len(scores)} scores, allowed 1 or more, all finite: leave gaps out"
            )
    both = np.concatenate([real_scores, synthetic_scores]).astype(np.float64)
    mass = np.repeat(
        [0.5 / len(real_scores), 0.5 / len(synthetic_scores)], [len(real_scores), len(synthetic_scores)]
    )
    values, place = np.unique(both, return_inverse=True)
    if len(values) < 2:
        raise UnreliableEstimate("scores: all references have one score, which no bins can part")
    n_bins = min(n_bins, max(len(both) // ITEMS_PER_BIN, 3))
    below = np.cumsum(np.bincount(place, mass))
    # The edge after which a bin's mass is reached lies between that value and the next.
    cuts = np.unique(np.searchsorted(below, np.arange(1, n_bins) / n_bins - 1e-12))
    cuts = cuts[cuts < len(values) - 1]
    if len(cuts) == 0:
        cuts = np.array([len(values) - 2])
    middle = (values[cuts] + values[cuts + 1]) / 2
    # Neighbouring doubles have no middle: an edge belongs to the bin above it.
    return np.where(middle > values[cuts], middle, values[cuts + 1])


def bin_counts(
    scores: Float[np.ndarray, " n"], edges: Float[np.ndarray, " edges"]
) -> Int64[np.ndarray, " bins"]:
    """Return how many scores lie in each bin between the inner edges; a score on an edge counts above it.

    >>> bin_counts(np.array([0.0, 0.5, 2.0]), np.array([0.5, 1.0]))
    array([1, 1, 1])
    """
    if not np.isfinite(scores).all():
        raise InputError("scores: got some that are not finite, allowed finite: leave abstentions out")
    return np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1).astype(
        np.int64
    )


def fit_mixture(pool_counts: Counts, real_counts: Counts, synthetic_counts: Counts) -> float:
    """Return the share of highest likelihood, the references' shares of the bins taken as they are.

    The log likelihood, sum of pool_counts * log(share p1 + (1 - share) p0), is concave in the share, so its
    slope is bisected. A point estimate alone: intervals from it cover too rarely below some thousand references
    of each class (`docs/methods.md`), and no share is right where `goodness_of_fit` fires.

    Args:
        pool_counts: items of the pool in each bin.
        real_counts: real references in each bin.
        synthetic_counts: synthetic references in each bin.

    Raises:
        InputError: numbers of bins differ, a count is negative, or a sample is empty.
        UnreliableEstimate: the references have the same shares of all bins.

    Source: Hasselblad, Technometrics 8 (1966) 431-444, with known components.
    Assumes: label shift alone: both classes of the pool are distributed over the bins as their references.
    """
    pool, real, synthetic = _check(pool_counts, real_counts, synthetic_counts)
    p0, p1 = _proportions(real), _proportions(synthetic)
    if np.array_equal(real * synthetic.sum(), synthetic * real.sum()):
        raise UnreliableEstimate("counts: both references have the same shares of the bins: use other edges")
    return float(_likely_share(pool, p0, p1)[0])


def goodness_of_fit(
    pool_counts: Counts,
    real_counts: Counts,
    synthetic_counts: Counts,
    *,
    rng: np.random.Generator,
    n_resamples: int = 400,
    level: float = 0.95,
) -> GoodnessOfFit:
    """Return whether some mix of the two references explains the pool, the noise of all three counted.

    The statistic is the least over shares of the sum of (O - N m)^2 / V over the bins, with O the pool's
    counts, m = share p1 + (1 - share) p0, and V = N m + N^2 (share^2 p1/n1 + (1 - share)^2 p0/n0): Pearson's,
    with the references' own noise in the variance. Its law is found by drawing all three samples anew
    from the mix of highest likelihood given all three, and fitting each anew, all at once.

    Args:
        pool_counts: items of the pool in each bin.
        real_counts: real references in each bin, other ones than the detector was fitted on.
        synthetic_counts: synthetic references in each bin, likewise.
        rng: source of the resamples.
        n_resamples: 400 tell a level of 0.95 well.
        level: in (0, 1); pools that are mixes raise an alarm in at most about 1 - level of cases.

    Raises:
        InputError: numbers of bins differ, a count is negative, a sample is empty, the level is outside
            (0, 1), or the resamples are too few for it.
        UnreliableEstimate: there are fewer than 3 bins with references, which any pool between them fits.

    Source: Pearson, Philos. Mag. 50 (1900) 157-175; Efron and Tibshirani, An Introduction to the Bootstrap
        (1993), chapter 16 (tests by resampling of the fitted null).
    Assumes: the samples are independent and the references are not those the detector learnt from. Edges
        were set without regard to the pool.
    """
    from scipy.special import betaincinv

    pool, real, synthetic = _check(pool_counts, real_counts, synthetic_counts)
    alpha = 1.0 - check_level(level)
    least = math.ceil(math.log(SEED_ERROR) / math.log(level))
    if n_resamples < least:
        raise InputError(
            f"n_resamples: got {n_resamples}, allowed {least} or more at this level: 400 is usual"
        )
    seen = np.flatnonzero(pool + real + synthetic)
    if len(seen) < 3:
        raise UnreliableEstimate(
            f"counts: {len(seen)} bins have items, and any pool is a mix in fewer than 3"
        )
    counts = [sample[seen] for sample in (pool, real, synthetic)]
    share, p0, p1 = _joint_fit(*counts)
    mix = share * p1 + (1 - share) * p0
    drawn = [
        rng.multinomial(int(sample.sum()), law / law.sum(), n_resamples).astype(np.float64)
        for sample, law in zip(counts, (mix, p0, p1), strict=True)
    ]
    both = [np.concatenate([sample[None], more]) for sample, more in zip(counts, drawn, strict=True)]
    shares, residuals = _best_fit(*both)
    statistics = np.square(residuals).sum(axis=1)
    worse = int(np.count_nonzero(statistics[1:] >= statistics[0]))
    fires = worse < n_resamples and float(betaincinv(worse + 1, n_resamples - worse, 1 - SEED_ERROR)) <= alpha
    full = np.zeros(len(pool))
    full[seen] = residuals[0]
    p_value = (1 + worse) / (1 + n_resamples)
    return GoodnessOfFit(float(shares[0]), float(statistics[0]), p_value, level, fires, full)


def _best_fit(
    pool: Float64[np.ndarray, "s bins"],
    real: Float64[np.ndarray, "s bins"],
    synthetic: Float64[np.ndarray, "s bins"],
) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "s bins"]]:
    """Return the share of the least statistic and its residuals for many samples at once.

    For a given V the best share is a weighted regression of O/N - p0 on p1 - p0. In V, p1 and p0 are the means
    of what the references alone say and what the pool says, parted by expectation maximisation. Edges that
    give each bin the same number of references make their counts less random than resamples of them, and the
    pool's more so; in the mean the two offset each other.
    """
    p0, p1 = _smooth(real), _smooth(synthetic)
    size, n0, n1 = (sample.sum(axis=1, keepdims=True) for sample in (pool, real, synthetic))
    share, gap, rest = _likely_share(pool, p0, p1)[:, None], p1 - p0, pool / size - p0
    from_pool, from_references = (p0, p1), (_smooth(real, PRIOR), _smooth(synthetic, PRIOR))
    variance = np.ones_like(pool)
    for round_ in range(STEPS + 1):
        v0, v1 = ((a + b) / 2 for a, b in zip(from_pool, from_references, strict=True))
        variance = (share * v1 + (1 - share) * v0) / size + share**2 * v1 / n1 + (1 - share) ** 2 * v0 / n0
        if round_ == STEPS:
            break
        information = (gap * gap / variance).sum(axis=1, keepdims=True)
        move = (gap * rest / variance).sum(axis=1, keepdims=True)
        share = np.clip(move / np.maximum(information, 1e-300), 0.0, 1.0)
        from_pool = _part(share, *from_pool, pool, real, synthetic)[:2]
    return share[:, 0], (rest - share * gap) / np.sqrt(variance)


def _part(
    share: Float64[np.ndarray, "*s 1"],
    p0: Float64[np.ndarray, "*s bins"],
    p1: Float64[np.ndarray, "*s bins"],
    pool: Float64[np.ndarray, "*s bins"],
    real: Float64[np.ndarray, "*s bins"],
    synthetic: Float64[np.ndarray, "*s bins"],
) -> tuple[Float64[np.ndarray, "*s bins"], Float64[np.ndarray, "*s bins"], Float64[np.ndarray, "*s 1"]]:
    """Return p0, p1 and the share after one step of expectation maximisation on all three samples.

    Source: Dempster, Laird and Rubin, J. R. Stat. Soc. B 39 (1977) 1-38, section 4.3.
    """
    part = share * p1
    part = pool * (part / (part + (1 - share) * p0))
    moved = part.sum(axis=-1, keepdims=True) / pool.sum(axis=-1, keepdims=True)
    return _smooth(real + pool - part, NULL_PRIOR), _smooth(synthetic + part, NULL_PRIOR), moved


def _likely_share(
    pool: Float64[np.ndarray, "*s bins"],
    p0: Float64[np.ndarray, "*s bins"],
    p1: Float64[np.ndarray, "*s bins"],
) -> Float64[np.ndarray, " s"]:
    """Return the share of highest likelihood for many pools at once, by bisection of the slope."""
    pool, p0, p1 = (np.atleast_2d(values) for values in (pool, p0, p1))
    low, high = np.zeros(len(pool)), np.ones(len(pool))
    # Where neither reference has an item the mix is 0 for any share, and the bin says nothing of it.
    known = (p0 + p1) > 0
    gap, weight = np.where(known, p1 - p0, 0.0), np.where(known, pool, 0.0)
    p0 = np.where(known, p0, 1.0)
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        rising = (weight * gap / (p0 + share[:, None] * gap)).sum(axis=1) > 0
        low, high = np.where(rising, share, low), np.where(rising, high, share)
    # The slope at the ends decides whether a limit is reached exactly.
    share = (low + high) / 2
    return np.where(share < 1e-8, 0.0, np.where(share > 1 - 1e-8, 1.0, share))


def _joint_fit(
    pool: Float64[np.ndarray, " bins"],
    real: Float64[np.ndarray, " bins"],
    synthetic: Float64[np.ndarray, " bins"],
) -> tuple[float, Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
    """Return share, p0 and p1 of highest likelihood given all three samples, a little smoothed."""
    p0, p1 = _smooth(real), _smooth(synthetic)
    share = np.clip(_likely_share(pool, p0, p1), 1e-6, 1 - 1e-6)
    for _ in range(1000):
        before = share
        p0, p1, share = _part(share, p0, p1, pool, real, synthetic)
        if abs(float(share[0] - before[0])) < 1e-9:
            break
    return float(share[0]), p0, p1


def _smooth(
    counts: Float64[np.ndarray, "*s bins"], extra: float | None = None
) -> Float64[np.ndarray, "*s bins"]:
    """Return the shares of the bins, `extra` items added to each; by default half an item over all of them."""
    more = 0.5 / counts.shape[-1] if extra is None else extra
    return (counts + more) / (counts.sum(axis=-1, keepdims=True) + more * counts.shape[-1])


def _proportions(counts: Float64[np.ndarray, " bins"]) -> Float64[np.ndarray, " bins"]:
    """Return the shares of the bins."""
    return counts / counts.sum()


def _check(*samples: Counts) -> tuple[Float64[np.ndarray, " bins"], ...]:
    """Return pool, real and synthetic counts as doubles; raise InputError where they are no counts."""
    names = ("pool_counts", "real_counts", "synthetic_counts")
    for name, counts in zip(names, samples, strict=True):
        if len(counts) != len(samples[0]):
            raise InputError(
                f"{name}: got {len(counts)} bins, allowed {len(samples[0])}: count with the same edges"
            )
        if counts.min(initial=0) < 0:
            raise InputError(f"{name}: got {counts.min()}, allowed 0 or more: give counts of items")
        if counts.sum() < 1:
            raise InputError(f"{name}: got no items, allowed 1 or more: give scores")
    return tuple(counts.astype(np.float64) for counts in samples)
