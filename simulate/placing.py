"""Where an audited pool lies in the admissible region, over the interval of its share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.simulate.admissible import admissible_threshold
from poolproof.simulate.cache import remember
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.grid import Cell, Effort, evaluate_rows
from poolproof.simulate.montecarlo import with_error
from poolproof.simulate.spec import MapSpec

THRESHOLD_METHOD: Final = "gaussian-threshold/3"
"""Names the computation in the cache; a change that moves figures takes another number."""

_PLACES: Final = 9
"""Places of the interval, with its limits, evenly spaced, that a verdict rests on."""

_APART: Final = 2.0
"""Ratio of the real images at neighbouring places, at most: the verdict rests on places between where it is more."""


@final
@dataclass(frozen=True)
class MeasuredPool:
    """A pool with the interval of its synthetic share.

    Attributes:
        n_items: images that the share is of, 2 or more.
        lower: lower limit of the share, in [0, 1].
        upper: upper limit, at least `lower`.
        point: estimate between them, or None where it is withheld.
        level: confidence level of the interval, or None where it is not known.
    """

    n_items: int
    lower: float | int
    upper: float | int
    point: float | int | None = None
    level: float | int | None = None

    def __post_init__(self) -> None:
        check_count("items", self.n_items, least=2)
        check_range("share", self.lower, 0.0, 1.0)
        check_range("share", self.upper, 0.0, 1.0)
        if self.lower > self.upper:
            raise InputError(
                f"share: got limits {self.lower} and {self.upper}, allowed lower <= upper; swap them"
            )
        point = self.lower if self.point is None else self.point
        if not self.lower <= point <= self.upper:
            raise InputError(
                f"share: got {point} within {self.lower} to {self.upper}, allowed lower <= point <= upper"
            )

    def counts(self, share: float | int) -> tuple[int, int]:
        """Real and synthetic images at a share."""
        n_synthetic = round(share * self.n_items)
        return self.n_items - n_synthetic, n_synthetic

    def path(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Real and synthetic images along the interval."""
        shares = np.linspace(self.lower, self.upper, 60)
        return (1 - shares) * self.n_items, shares * self.n_items


def pool_of_report(path: Path) -> MeasuredPool:
    """The pool that an audit's `report.json` speaks of.

    Raises:
        InputError: no such file, not a report, or one that does not tell the share.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
        pool, share, why = report["pool"], report["share"], report.get("why")
        # an audited sample stands for the whole pool
        n_items = round(pool["status"]["scored"] * pool["items"] / pool["audited"])
        figures = None if share is None else [share[name] for name in ("lower", "upper", "point", "level")]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: not the report of an audit ({error}); give the folder it wrote") from error
    if figures is None:
        raise InputError(f"{path}: the share cannot be told: {why}")
    return MeasuredPool(n_items, *figures)


def surroundings(pool: MeasuredPool) -> dict[str, tuple[int, ...]]:
    """Numbers of real and synthetic images, 8 of each, that hold the pool's interval in their middle."""
    ends = [pool.counts(share) for share in (pool.upper, pool.lower)]
    lists: dict[str, tuple[int, ...]] = {}
    real = sorted(each[0] for each in ends)
    synthetic = sorted(each[1] for each in ends)
    for name, (low, high), least in (("n_real", real, 2), ("n_synthetic", synthetic, 1)):
        grid = np.geomspace(max(least, low / 4), max(least, high) * 4, 8)
        lists[name] = tuple(sorted({int(n) for n in grid.round()}))
    return lists


def place_pool(
    pool: MeasuredPool, spec: MapSpec, *, n_workers: int | None = None, cache: Path | None = None
) -> dict[str, Any]:
    """For each sampling bias the pool's ratio at point and limits and over the interval, threshold, and verdict.

    The pool is taken as what each generation trains on: its real images as fresh, its synthetic ones as samples of the
    generation before. The ratio may rise and fall along the interval, so the verdict rests on places of it: nine of
    evenly spaced shares, and, as the ratio turns where real images are few, others that double these; without bias
    it stays above 1 and needs none.

    Args:
        pool: what an audit said.
        spec: gives biases, dimensions, precision and seed.
        n_workers: threads; None takes one per core.
        cache: folder that remembers results; None remembers nothing.

    Raises:
        InputError: fewer than two real images even at the lower limit, or a value out of range.
    """
    shares = {"lower": pool.lower, "point": pool.point, "upper": pool.upper}
    known = {name: pool.counts(share) for name, share in shares.items() if share is not None}
    check_placeable(pool)
    even = [pool.counts(float(share)) for share in np.linspace(pool.lower, pool.upper, _PLACES)[1:-1]]
    biases = []
    for bias in spec.sampling_bias:
        inside = even if bias == 1 else list(dict.fromkeys([*even, *_doubled(pool)]))
        places = known | {f"inside {i}": counts for i, counts in enumerate(inside)}
        cells = {
            name: Cell(real, synthetic, bias, dim=spec.dim)
            for name, (real, synthetic) in places.items()
            if real >= 2
        }
        rows = evaluate_rows(list(cells.values()), spec.effort, n_workers=n_workers, cache=cache)
        told = ("n_real", "n_synthetic", "ratio", "ratio_stderr", "admissible")
        by_place = dict(zip(cells, rows, strict=True))
        ratios = {name: {key: by_place[name][key] for key in told} for name in known if name in by_place}
        values = [row["ratio"] for row in rows if row["ratio"] is not None]
        admissible: list[bool | None] = [row["admissible"] for row in rows]
        if len(cells) < len(places):
            admissible.append(False)  # next to no real images there
        middle = "point" if "point" in cells else "lower"
        biases.append(
            {
                "sampling_bias": bias,
                "ratio": ratios,
                "lowest": min(values, default=None),
                "highest": max(values, default=None),
                "threshold": find_threshold(cells[middle].n_real, bias, spec.dim, spec.effort, cache=cache),
                "verdict": verdict(admissible),
            }
        )
    return {
        "n_items": pool.n_items,
        "share": {**shares, "level": pool.level},
        "dim": spec.dim,
        "by_sampling_bias": biases,
    }


def _doubled(pool: MeasuredPool) -> list[tuple[int, int]]:
    """Real and synthetic images at places within the interval whose real images at most double from one to the next."""
    most, least = (max(2, pool.counts(share)[0]) for share in (pool.lower, pool.upper))
    n_places = 2 + math.ceil(math.log(most / least, _APART))
    return [(round(n), pool.n_items - round(n)) for n in np.geomspace(least, most, n_places)[:-1].tolist()]


def check_placeable(pool: MeasuredPool) -> None:
    """Raises InputError where fewer than two real images are left even at the lower limit."""
    if pool.counts(pool.lower)[0] < 2:
        raise InputError(
            f"share: got {pool.lower} or more of {pool.n_items} images, allowed one that leaves 2 real ones"
        )


def verdict(admissible: Sequence[bool | None]) -> str:
    """The verdict on an interval from those on places in it: `admissible`, `not admissible` or `undecided`.

    >>> verdict([True, True]), verdict([True, None]), verdict([False])
    ('admissible', 'undecided', 'not admissible')
    """
    if all(value is True for value in admissible):
        return "admissible"
    return "not admissible" if all(value is False for value in admissible) else "undecided"


def find_threshold(
    n_real: int, sampling_bias: float | int, dim: int, effort: Effort, *, cache: Path | None = None
) -> dict[str, Any]:
    """The border of the region as JSON has it, see `Threshold`: None for what is infinite.

    Args:
        n_real: new real samples per generation.
        sampling_bias: lambda.
        dim: dimensions.
        effort: seed and budget of its loops; their precision follows from that of the border.
        cache: folder that remembers results; None remembers nothing.
    """
    budget = {"max_paths": effort.max_paths, "max_generations": effort.max_generations}
    content = {
        "method": THRESHOLD_METHOD,
        "n_real": n_real,
        "sampling_bias": sampling_bias,
        "dim": dim,
        "seed": effort.seed,
        **budget,
    }

    def compute() -> dict[str, Any]:
        rng = np.random.default_rng([effort.seed, n_real, dim])
        found = admissible_threshold(n_real, sampling_bias, dim=dim, **budget, rng=rng)
        told = {
            name: None if value in (math.inf, -math.inf) else value for name, value in asdict(found).items()
        }
        return {"n_real": n_real, "sampling_bias": sampling_bias, **told}

    return remember(cache, content, compute)


def border_text(border: Mapping[str, Any]) -> str:
    """A threshold in words, as `find_threshold` gives it.

    >>> border_text({"n_synthetic": None, "stderr": 0.0}), border_text({"n_synthetic": 32.1, "stderr": 0.12})
    ('any number of', '32.10 ± 0.12')
    """
    if border["n_synthetic"] is None:
        return "any number of"
    if border["stderr"] is None:
        return f"about {border['n_synthetic']:,.0f} (not measured)"
    return with_error(border["n_synthetic"], border["stderr"])
