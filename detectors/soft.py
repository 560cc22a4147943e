"""The share of synthetic items from the means of soft scores: tighter than flags, and nothing kept but sums.

With bounded scores whose means are m1 on synthetic and m0 on real items, a pool of share p has the mean
`(1 - p) m0 + p m1`. Only the count, mean and variance of each of the three samples are needed, so pools of any
size are read once, part by part, and the parts are merged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from poolproof.detectors.prevalence import Interval, check_level
from poolproof.errors import InputError

SoftMethod = Literal["fieller", "delta"]


@dataclass(frozen=True)
class Moments:
    """Count, mean and variance of a sample of scores.

    Attributes:
        n: number of scores; 0 for a sample not begun.
        mean: their mean; 0 where n = 0, which means nothing.
        variance: their mean squared deviation (divided by n, not n - 1), which a single score has too.
    """

    n: int
    mean: float
    variance: float

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both samples together, in any order the same but for rounding.

        Source: Chan, Golub and LeVeque, The American Statistician 37 (1983) 242-247, eq. 1.5.
        """
        n = self.n + other.n
        if n == 0:
            return self
        gap, part = other.mean - self.mean, other.n / n
        within = (1 - part) * self.variance + part * other.variance
        return Moments(n, self.mean + part * gap, within + part * (1 - part) * gap * gap)

    @property
    def error(self) -> float:
        """Estimated variance of the mean; n is at least 2."""
        return self.variance / (self.n - 1)


EMPTY = Moments(0, 0.0, 0.0)
"""The moments of no scores: where a stream begins."""


def moments(scores: Float[np.ndarray, " n"]) -> Moments:
    """Return the moments of scores, computed in double precision.

    >>> moments(np.array([0.0, 1.0])).merge(moments(np.array([0.0, 1.0])))
    Moments(n=4, mean=0.5, variance=0.25)

    Raises:
        InputError: a score is not finite.
    """
    if len(scores) == 0:
        return EMPTY
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise InputError(f"scores: got {bad} that are not finite, allowed finite: leave abstentions out")
    return Moments(len(values), float(values.mean()), float(values.var()))


def soft_interval(
    pool: Moments,
    synthetic: Moments,
    real: Moments,
    *,
    level: float = 0.95,
    method: SoftMethod = "fieller",
) -> Interval:
    """Return the share of synthetic items from mean scores, with the noise of all three samples in the limits.

    The point is (mean_pool - m0)/(m1 - m0), clipped to [0, 1]. `fieller` keeps every share p whose residual
    D(p) = mean_pool - (1 - p) m0 - p m1 is within the quantile times its standard error, the root of
    V(p) = v_pool/N + p^2 v1/n1 + (1 - p)^2 v0/n0. This holds its level for poor detectors too. `delta` takes V
    at the point alone, so it is symmetric and covers too rarely where m1 - m0 is few standard errors wide; it
    is here to compare with. The quantile is Student's, with Welch and Satterthwaite's degrees of freedom.

    The point is None and the limits are 0 and 1 unless m1 - m0 exceeds the quantile times its own standard
    error: below that, Fieller's set is not an interval and the delta method breaks down.

    Args:
        pool: moments of the pool's scores.
        synthetic: of synthetic references.
        real: of real references.
        level: confidence level in (0, 1).
        method: "fieller" or "delta".

    Raises:
        InputError: a sample has fewer than 2 scores, the level is outside (0, 1), or the method is unknown.

    Source: Bella et al., ICDM 2010 (probabilistic adjusted count); Fieller, J. R. Stat. Soc. B 16 (1954)
        175-185; Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
    Assumes: as `interval` in `detectors/prevalence.py`: label shift alone and independent samples; besides,
        means that are close to normal: bounded scores and some dozens of references of each class.
    """
    from scipy.special import stdtrit

    alpha = 1.0 - check_level(level)
    for name, sample in (("pool", pool), ("synthetic", synthetic), ("real", real)):
        if sample.n < 2:
            raise InputError(f"{name}.n: got {sample.n}, allowed 2 or more: give more scores")
    if method not in ("fieller", "delta"):
        raise InputError(f"method: got {method!r}, allowed fieller or delta: use method='fieller'")
    gap = synthetic.mean - real.mean
    freedom = _freedom((1.0, synthetic), (1.0, real))
    if gap <= 0 or gap <= stdtrit(freedom, 1 - alpha / 2) * math.sqrt(synthetic.error + real.error):
        return Interval(None, 0.0, 1.0, level, f"pacc-{method}")
    point = min(max((pool.mean - real.mean) / gap, 0.0), 1.0)
    freedom = _freedom((1.0, pool), (point**2, synthetic), ((1 - point) ** 2, real))
    quantile = float(stdtrit(freedom, 1 - alpha / 2))
    if method == "fieller":
        lower, upper = _fieller(pool, synthetic, real, quantile)
    else:
        share = (pool.mean - real.mean) / gap
        variance = pool.error + share**2 * synthetic.error + (1 - share) ** 2 * real.error
        half = quantile * math.sqrt(variance) / gap
        lower, upper = min(max(share - half, 0.0), 1.0), min(max(share + half, 0.0), 1.0)
    return Interval(point, lower, upper, level, f"pacc-{method}")


def _fieller(pool: Moments, synthetic: Moments, real: Moments, quantile: float) -> tuple[float, float]:
    """Return the ends of the shares in [0, 1] with D(p)^2 <= quantile^2 V(p); a set outside is its nearer end."""
    gap, above = synthetic.mean - real.mean, pool.mean - real.mean
    square = quantile * quantile
    # a p^2 - 2 b p + c <= 0; a > 0 for a gap that exceeds its quantile of standard errors.
    a = gap * gap - square * (synthetic.error + real.error)
    b = gap * above - square * real.error
    c = above * above - square * (pool.error + real.error)
    if a <= 0:  # the two quantiles differ by their degrees of freedom
        return 0.0, 1.0
    root = math.sqrt(max(b * b - a * c, 0.0))
    return min(max((b - root) / a, 0.0), 1.0), min(max((b + root) / a, 0.0), 1.0)


def _freedom(*parts: tuple[float, Moments]) -> float:
    """Return Satterthwaite's degrees of freedom of a weighted sum of estimated variances of means."""
    total = sum(weight * sample.error for weight, sample in parts)
    spread = sum((weight * sample.error) ** 2 / (sample.n - 1) for weight, sample in parts)
    return total * total / spread if spread > 0 else math.inf
