"""Regions of real and synthetic numbers that a pool may be held in: the admissible one, or a ratio."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, final

from poolproof.errors import InputError
from poolproof.simulate.checks import check_range
from poolproof.simulate.grid import Effort
from poolproof.simulate.placing import find_threshold
from poolproof.simulate.theory import surrogate_limit, surrogate_real_only

MANY: Final = 10
"""Real images per dimension from which on the border is taken from the closed form for many samples: there it lies 1 to
5 % below the simulated one, on the safe side, and simulation takes ever longer."""

_STEPS: Final = 8
"""Places per factor of ten at which the border is simulated; between two of them the lower one counts."""

_MOST: Final = 10**12


class AbstractRegion(abc.ABC):
    """Says how many synthetic images may be among real ones."""

    inside: ClassVar[str] = "admissible"
    outside: ClassVar[str] = "not admissible"

    @abc.abstractmethod
    def border(self, fewest_real: int, most_real: int) -> float:
        """The synthetic images that are inside for every number of real ones in the range; infinite for any number.

        Args:
            fewest_real: least number of real images, 0 or more.
            most_real: largest number, at least as many.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """The region as JSON has it."""

    def holds(self, n_kept: int, fewest_synthetic: int, most_synthetic: int) -> bool:
        """Whether a pool is inside, however many of its images are synthetic between the two numbers.

        A pool that may be without a single real image is not.
        """
        fewest_real = n_kept - most_synthetic
        return fewest_real >= 1 and most_synthetic <= self.border(fewest_real, n_kept - fewest_synthetic)

    def verdict(self, n_kept: int, fewest_synthetic: int, most_synthetic: int) -> str:
        """The word for inside or outside, or `undecided` where some of the numbers are inside."""
        if self.holds(n_kept, fewest_synthetic, most_synthetic):
            return self.inside
        ends = [self.holds(n_kept, n, n) for n in (fewest_synthetic, most_synthetic)]
        return "undecided" if any(ends) else self.outside


@final
@dataclass(frozen=True)
class RatioRegion(AbstractRegion):
    """At most so many synthetic images per real one.

    Attributes:
        max_ratio: 0 or more.
    """

    inside = "within the cap"
    outside = "above the cap"
    max_ratio: float | int

    def __post_init__(self) -> None:
        check_range("max_ratio", self.max_ratio, 0.0, 1e9)

    def border(self, fewest_real: int, most_real: int) -> float:
        """Set by the fewest real images."""
        del most_real
        return self.max_ratio * fewest_real * (1 + 1e-12)  # a share given as 0.1 is not to fail by rounding

    def describe(self) -> dict[str, Any]:
        """Kind and ratio."""
        return {"kind": "ratio", "max_ratio": self.max_ratio}


@final
@dataclass(frozen=True)
class GaussianRegion(AbstractRegion):
    """The admissible region of the Gaussian fresh-data loop: synthetic images cost no effective real samples.

    With few real images the border is simulated at set places, eight to a factor of ten, and the lower of the
    neighbouring ones counts, less two standard errors; with many it follows from the closed form.

    Attributes:
        sampling_bias: lambda in [0, 1], one or the two ends of a range, of which the worst counts.
        dim: dimensions of the normal data.
        cache: folder that remembers borders; None remembers none.

    Source: Alemohammad et al., arXiv 2307.01850, section 5: n_e / n_real of 1 or more.
    Assumes: the pool is used as a generation of a fresh-data loop uses its data. Trained generators do worse than
        the Gaussian map, see docs/results/loops.md.
    """

    sampling_bias: tuple[float | int, ...]
    dim: int = 100
    cache: Path | None = None

    def __post_init__(self) -> None:
        if len(self.sampling_bias) not in (1, 2):
            raise InputError(
                f"sampling_bias: got {len(self.sampling_bias)} values, allowed one, or the two ends of a range"
            )
        for bias in self.sampling_bias:
            check_range("sampling_bias", bias, 0.0, 1.0)
        check_range("dim", self.dim, 1, 10_000)

    @cached_property
    def _biases(self) -> tuple[float, ...]:
        """Those that are tried: both ends and the middle, but for 1, at which there is no border."""
        low, high = min(self.sampling_bias), max(self.sampling_bias)
        return tuple(sorted({bias for bias in (low, (low + high) / 2, high) if bias < 1}))

    @cached_property
    def _known(self) -> dict[int, float]:
        return {}

    def border(self, fewest_real: int, most_real: int) -> float:
        """The lowest border of the places around the range."""
        if fewest_real < 1:
            return 0.0
        if not self._biases:
            return math.inf
        if fewest_real < 2:
            return 0.0
        many = MANY * self.dim
        lowest = math.inf
        if most_real > many:
            # it rises with the number of real images
            lowest = min(_closed_border(max(fewest_real, many), bias, self.dim) for bias in self._biases)
        if fewest_real < many:
            first = math.floor(_STEPS * math.log10(fewest_real) + 1e-9)
            last = math.ceil(_STEPS * math.log10(min(most_real, many)) - 1e-9)
            places = {max(2, round(10 ** (step / _STEPS))) for step in range(first, max(first, last) + 1)}
            lowest = min(lowest, *(self._simulated(place) for place in sorted(places)))
        return lowest

    def _simulated(self, n_real: int) -> float:
        if n_real not in self._known:
            self._known[n_real] = min(self._at(n_real, bias) for bias in self._biases)
        return self._known[n_real]

    def _at(self, n_real: int, bias: float) -> float:
        found = find_threshold(n_real, bias, self.dim, Effort(tolerance=0.01, seed=0), cache=self.cache)
        if found["n_synthetic"] is None:
            return math.inf
        if found["stderr"] is None:  # nothing around the border could be measured
            return min(found["n_synthetic"], _closed_border(n_real, bias, self.dim))
        return max(0.0, found["n_synthetic"] - 2 * found["stderr"])

    def describe(self) -> dict[str, Any]:
        """Kind, biases and dimensions."""
        return {"kind": "gaussian", "sampling_bias": list(self.sampling_bias), "dim": self.dim}


def _closed_border(n_real: int, bias: float, dim: int) -> float:
    """The largest number of synthetic images at which the loop, to first order, does no worse than its real data."""
    alone = surrogate_real_only(n_real, dim=dim)

    def costs(n_synthetic: int) -> bool:
        return surrogate_limit(n_real, n_synthetic, bias, dim=dim) > alone

    inside, outside = 0, 1
    while not costs(outside):
        if outside >= _MOST:
            return math.inf
        inside, outside = outside, 2 * outside
    while outside - inside > max(1, inside // 1000):
        middle = (inside + outside) // 2
        inside, outside = (inside, middle) if costs(middle) else (middle, outside)
    return float(inside)
