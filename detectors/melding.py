"""Limits of a share from three melded confidence distributions, by quadrature: repeatable, no random draws.

A count x of n has two confidence distributions, those of the Clopper-Pearson limits: the lower draw
Beta(x, n - x + 1) and the upper draw Beta(x + 1, n - x), where Beta(0, .) is the point 0 and Beta(., 0) the
point 1. With flagged share q of the pool, false positive rate f and true positive rate t, the share is

    g(q, f, t) = 0 if q <= f, 1 if q >= t, else (q - f)/(t - f)        where t > f.

It grows with q and falls with f and t. The lower limit is therefore the alpha/2 quantile of
g(q_L, f_U, t_U), the upper limit the 1 - alpha/2 quantile of g(q_U, f_L, t_L). For 0 <= x < 1 and t > f,
g <= x means q <= f + x (t - f), so that

    P(g <= x) = P(t > f and q <= f + x (t - f))  [+ P(t <= f) for the lower limit].

Draws with t <= f carry nothing about the share. They count as g = 0 for the lower limit and as g = 1 for the
upper one, which can only widen the interval. The published convention keeps "0 if q <= f" there as well; with
it, a detector that ranks the classes the wrong way round would give a confident share of 0.

One of the three rates is integrated in closed form by its distribution function: the one that spreads the
result most, so that what is left is smooth on the scale of the other two. Those take a Gauss-Legendre rule
that is split where the integrand has a kink.

Source: Bayer, Fay and Graubard, arXiv 2205.13494; the quadrature is derived here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

NODES: Final = 16
"""Gauss-Legendre nodes in each smooth piece."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(NODES)

TAIL: Final = 1e-7
"""Probability left out at each end of a Beta density when it is integrated."""

TOLERANCE: Final = 1e-7
"""Absolute accuracy of the root search for a limit."""


@dataclass(frozen=True)
class Rate:
    """A confidence distribution of a rate, Beta(a, b); a = 0 is the point 0, b = 0 the point 1.

    Attributes:
        a: first shape, 0 or at least 1.
        b: second shape, 0 or at least 1; a and b are not both 0.
        low: lower end of the effective support.
        high: upper end of the effective support.
    """

    a: int | float
    b: int | float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.a / (self.a + self.b)

    @property
    def spread(self) -> float:
        """Standard deviation; 0 for a point."""
        total = self.a + self.b
        return math.sqrt(self.a * self.b / (total * total * (total + 1)))

    def below(self, x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
        """P(rate <= x)."""
        from scipy.special import betainc

        if self.a == 0 or self.b == 0:
            return (x >= self.low).astype(np.float64)
        return betainc(self.a, self.b, np.clip(x, 0.0, 1.0))

    def above(self, x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
        """P(rate >= x)."""
        from scipy.special import betaincc

        if self.a == 0 or self.b == 0:
            return (x <= self.low).astype(np.float64)
        return betaincc(self.a, self.b, np.clip(x, 0.0, 1.0))

    def density(self, x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
        """Beta density at x; not for points."""
        from scipy.special import betaln, xlog1py, xlogy

        return np.exp(xlogy(self.a - 1, x) + xlog1py(self.b - 1, -x) - betaln(self.a, self.b))


def beta(a: int | float, b: int | float) -> Rate:
    """Return Beta(a, b) as a confidence distribution of a rate; a = 0 is the point 0, b = 0 the point 1."""
    from scipy.special import betaincinv

    if a == 0 or b == 0:
        point = 0.0 if a == 0 else 1.0
        return Rate(a, b, point, point)
    return Rate(a, b, float(betaincinv(a, b, TAIL)), 1.0 - float(betaincinv(b, a, TAIL)))


def lower_draw(x: int | float, n: int, *, part: float = 1.0) -> Rate:
    """Return the distribution whose alpha quantile is the lower Clopper-Pearson limit of x of n.

    Args:
        x: successes, 0 to n; a whole number but in searches over counts.
        n: trials.
        part: how much of the chance of x itself is counted against the limit. 1 is Clopper and Pearson; 0.5
            gives Jeffreys' law, close to mid-p; at x = 0 and x = n it is 1 always.
    """
    shift = 0.0 if x in (0, n) else 1.0 - part
    return beta(x + shift, n - x + 1 - shift)


def upper_draw(x: int | float, n: int, *, part: float = 1.0) -> Rate:
    """Return the distribution whose 1 - alpha quantile is the upper Clopper-Pearson limit of x of n.

    Args:
        x: as in `lower_draw`.
        n: as in `lower_draw`.
        part: as in `lower_draw`.
    """
    shift = 0.0 if x in (0, n) else 1.0 - part
    return beta(x + 1 - shift, n - x + shift)


CERTAIN: Final = Rate(1, 0, 1.0, 1.0)
"""The rate 1, known without error."""

NEVER: Final = Rate(0, 1, 0.0, 0.0)
"""The rate 0, known without error."""


def lower_limit(q: Rate, f: Rate, t: Rate, probability: float) -> float:
    """Return the `probability` quantile of g(q, f, t), useless draws (t <= f) counted as 0."""
    # P(t > f) is the same integral with a pool that flags nothing.
    useless = 1.0 - share_below(0.5, NEVER, f, t)
    return _quantile(lambda x: share_below(x, q, f, t) + useless, probability, *_guess(q, f, t))


def least_limit(q: Rate, f: Rate, t: Rate, probability: float) -> float:
    """Return the `probability` quantile of g(q, f, t), useless draws counted as 0 where q <= f and as 1 elsewhere.

    This is the published convention. It serves where the least of several limits is taken, one for each known
    t: a t that is surely below f must not pull the least down to 0. If t <= f is the truth, q <= f is true
    as well, and the limit is 0 but for the error it is allowed.
    """
    useless = share_below(0.0, q, f, CERTAIN) - share_below(0.0, q, f, t)
    return _quantile(lambda x: share_below(x, q, f, t) + useless, probability, *_guess(q, f, t))


def upper_limit(q: Rate, f: Rate, t: Rate, probability: float) -> float:
    """Return the `probability` quantile of g(q, f, t), useless draws (t <= f) counted as 1."""
    return _quantile(lambda x: share_below(x, q, f, t), probability, *_guess(q, f, t))


def _guess(q: Rate, f: Rate, t: Rate) -> tuple[float, float]:
    """Return centre and deviation of g by the delta method, where the search for a quantile starts."""
    gap = t.mean - f.mean
    if gap <= 0:
        return 0.5, 0.5
    x = min(max((q.mean - f.mean) / gap, 0.0), 1.0)
    return x, min(math.hypot(q.spread, x * t.spread, (1 - x) * f.spread) / gap, 0.5) + TOLERANCE


def _quantile(below: Callable[[float], float], probability: float, centre: float, deviation: float) -> float:
    """Return where the increasing `below` crosses `probability` in [0, 1], or the end it does not reach.

    Normal scores of the probabilities are close to a line in x, so secants on them meet the limit in a few
    steps; a step that leaves what is already known halves the bracket instead.
    """
    from scipy.special import ndtri

    target = float(ndtri(probability))
    low, high, at_low, at_high = 0.0, 1.0, False, False
    x, slope = min(max(centre + target * deviation, 0.0), 1.0), 1.0 / deviation
    last: tuple[float, float] | None = None
    for turn in itertools.count():
        y = float(ndtri(min(max(below(x), 1e-16), 1 - 1e-16))) - target
        if y >= 0:
            if x == 0.0:
                return 0.0
            high, at_high = x, True
        else:
            if x == 1.0:
                return 1.0
            low, at_low = x, True
        if last is not None and (y - last[1]) * (x - last[0]) > 0:
            slope = (y - last[1]) / (x - last[0])
        last, step = (x, y), -y / slope
        if abs(step) < TOLERANCE or high - low < TOLERANCE:
            return min(max(x + step, low), high)
        following = x + step
        if turn > 20:
            following = (low + high) / 2
        elif following <= low:
            following = (low + high) / 2 if at_low else low
        elif following >= high:
            following = (low + high) / 2 if at_high else high
        x = following
    raise AssertionError  # the bracket shrinks below the tolerance


def share_below(x: float, q: Rate, f: Rate, t: Rate) -> float:
    """Return P(t > f and q <= f + x (t - f)) for independent rates.

    Args:
        x: a share in [0, 1].
        q: flagged share of the pool.
        f: false positive rate.
        t: true positive rate.
    """
    # How much each rate moves q - (1 - x) f - x t. The sharpest is the outer variable, the widest is
    # integrated in closed form; ties keep this order.
    rates = {"t": t, "f": f, "q": q}
    weight = {"t": x, "f": 1 - x, "q": 1.0}
    outer, inner, last = sorted(rates, key=lambda name: rates[name].spread * weight[name])
    ends = [end for name in (inner, last) for end in (rates[name].low, rates[name].high)]
    u, weight_u = _rule(rates[outer], np.array([ends]))
    u, weight_u = u[weight_u > 0], weight_u[weight_u > 0]
    v, weight_v = _rule(rates[inner], np.stack(_kinks(x, outer, inner, u), axis=1))
    both = weight_u[:, None] * weight_v
    keep = both > 1e-10
    values = {outer: np.broadcast_to(u[:, None], v.shape)[keep], inner: v[keep]}
    return float(both[keep] @ _last(x, last, rates[last], values))


def _last(
    x: float, name: str, rate: Rate, at: dict[str, Float64[np.ndarray, " n"]]
) -> Float64[np.ndarray, " n"]:
    """Return the probability that the rate `name` completes the event, given the other two."""
    if name == "q":
        return np.where(at["t"] > at["f"], rate.below(at["f"] + x * (at["t"] - at["f"])), 0.0)
    if name == "t":
        return rate.above(at["f"] + np.maximum(at["q"] - at["f"], 0.0) / x)
    return np.maximum(rate.below(at["t"]) - rate.below((at["q"] - x * at["t"]) / (1 - x)), 0.0)


def _kinks(x: float, outer: str, inner: str, u: Float64[np.ndarray, " n"]) -> list[Float64[np.ndarray, " n"]]:
    """Return where, given the outer values u, the closed-form factor is not smooth in the inner rate.

    The first kink is where the order of the rates changes (t = f, q = f or q = t), the second where the last
    rate would have to leave [0, 1].
    """
    if outer + inner == "qf":
        return [u, (u - x) / (1 - x)]
    if outer + inner == "fq":
        return [u, u + x * (1 - u)]
    if outer + inner == "qt":
        return [u, u / x]
    if outer + inner == "tq":
        return [u, u * x]
    return [u]


def _rule(
    rate: Rate, kinks: Float64[np.ndarray, "m k"]
) -> tuple[Float64[np.ndarray, "m j"], Float64[np.ndarray, "m j"]]:
    """Return nodes and weights for an expectation over `rate`, split at the kinks of each row."""
    if rate.low == rate.high:
        shape = (len(kinks), 1)
        return np.full(shape, rate.low), np.ones(shape)
    ends = np.broadcast_to([rate.low, rate.high], (len(kinks), 2))
    edges = np.sort(np.concatenate([ends, np.clip(kinks, rate.low, rate.high)], axis=1), axis=1)
    width = np.diff(edges)[:, :, None]
    x = edges[:, :-1, None] + width * (_NODES + 1) / 2
    w = width * _WEIGHTS / 2 * rate.density(x)
    return x.reshape(len(kinks), -1), w.reshape(len(kinks), -1)
