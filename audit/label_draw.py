"""Which items people are asked to label, and in what order: a random draw, simple or by the detector's flags.

Every item has a random priority, so the order is a random permutation, and within any part of the pool it is one
too. A simple draw shows it as it is: whoever stops has labelled a simple random draw. A draw by part takes the
next item of one part or another, so that within each part the labelled ones are a simple random draw of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64, Int8, Int64

from poolproof.errors import InputError

DRAWS: Final = ("random", "detector")
"""How items are drawn: all alike, or by part."""

PARTS: Final = ("hit", "flagged", "rest")
"""Parts of a pool: with a signed, declared or marked finding; of the others, those the detector flags; the rest."""

RATES: Final = (0.05, 0.95)
"""A part's share of synthetic items is not taken to lie beyond these before anybody looked."""


@dataclass(frozen=True)
class Candidates:
    """The items that can be labelled: readable and distinct.

    Attributes:
        rows: in the pool, ascending.
        parts: index into `PARTS`, by what the run says of each.
    """

    rows: Int64[np.ndarray, " n"]
    parts: Int8[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Items of each part, in the order of `PARTS`."""
        return tuple(int(n) for n in np.bincount(self.parts, minlength=len(PARTS)))

    @property
    def parts_sha256(self) -> str:
        """A digest of which item is in which part."""
        return hashlib.sha256(self.parts.tobytes()).hexdigest()


@dataclass(frozen=True)
class DrawnPart:
    """A part as it was when items were drawn.

    Attributes:
        name: one of `PARTS`.
        size: its items.
        allocation: the share of labels that it gets.
    """

    name: str
    size: int
    allocation: float


@dataclass(frozen=True)
class Draw:
    """An order in which items are shown.

    Attributes:
        order: positions among the candidates.
        places: of each candidate, its place in the order of its part; in a simple draw in the whole order.
    """

    order: Int64[np.ndarray, " n"]
    places: Int64[np.ndarray, " n"]


def read_candidates(items: Path) -> Candidates:
    """The items of a run that can be labelled.

    Args:
        items: `items.parquet` of a run.

    Raises:
        InputError: the file cannot be read.
    """
    columns = ["row", "signed", "declared", "marked", "flagged"]
    try:
        table = pq.read_table(items, columns=columns, filters=pc.field("status") == "scored").sort_by("row")
    except FileNotFoundError as error:
        raise InputError(
            f"run has no {items.name}: {items.parent}; the audit did not finish, give its command again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{items} is damaged ({message}); give the audit's command again") from error
    signed, declared, marked, flagged = (
        table[name].fill_null(False).to_numpy() for name in ("signed", "declared", "marked", "flagged")
    )
    parts = np.where(signed | declared | marked, 0, np.where(flagged, 1, 2))
    return Candidates(table["row"].to_numpy().astype(np.int64), parts.astype(np.int8))


def make_rng(seed: int) -> np.random.Generator:
    """The generator that a draw begins with: its raw words are the same in every release of numpy."""
    return np.random.Generator(np.random.PCG64(seed))


def draw_simple(n: int, *, rng: np.random.Generator) -> Draw:
    """A random permutation of the items.

    Args:
        n: number of candidates.
        rng: gives each item its priority.
    """
    order = _permutation(n, rng)
    places = np.empty(n, np.int64)
    places[order] = np.arange(n)
    return Draw(order, places)


def draw_by_part(
    parts: Int8[np.ndarray, " n"], allocation: Mapping[str, float], *, rng: np.random.Generator
) -> Draw:
    """A random permutation within each part, the parts interleaved.

    After any number of items each part has about its share of them: the next one goes to the part with the
    largest a / sqrt(k (k + 1)), k being the number it has. Each part gets one before any gets a second: a part
    without a label would leave its share open.

    Args:
        parts: index into `PARTS` of each candidate.
        allocation: share of the items that each part gets, for every part that occurs.
        rng: gives each item its priority.

    Source: Huntington's method of equal proportions, in Wright, The American Statistician 66 (2012) 217-224,
        who shows that it is the exact form of Neyman's allocation.
    """
    permutation = _permutation(len(parts), rng)
    places, due = np.empty(len(parts), np.int64), np.empty(len(parts))
    for index, name in enumerate(PARTS):
        members = permutation[parts[permutation] == index]
        if len(members):
            rank = np.arange(len(members))
            places[members] = rank
            due[members] = np.sqrt(rank * (rank + 1.0)) / allocation[name]
    return Draw(np.lexsort((parts, due)).astype(np.int64), places)


def allocate(sizes: Sequence[int], rates: Sequence[float]) -> dict[str, float]:
    """The share of labels for each part that has items.

    Half of them in proportion to the parts' sizes, half by Neyman's rule, in proportion to size times the
    standard deviation of a label. Whatever the true rates are, the variance of the share is then at most twice
    that of a proportional draw; where they are as guessed, at most twice the least that is possible.

    >>> {name: round(a, 2) for name, a in allocate([0, 100, 900], [0.5, 0.5, 0.05]).items()}
    {'flagged': 0.15, 'rest': 0.85}

    Args:
        sizes: items of each part, in the order of `PARTS`.
        rates: guesses of their synthetic shares.

    Source: Neyman, Journal of the Royal Statistical Society 97 (1934) 558-625, section IV.
    """
    size = np.asarray(sizes, np.float64)
    p = np.clip(np.asarray(rates, np.float64), *RATES)
    spread = size * np.sqrt(p * (1 - p))
    shares: Float64[np.ndarray, " parts"] = 0.5 * size / size.sum() + 0.5 * spread / spread.sum()
    return {name: float(a) for name, a, n in zip(PARTS, shares, sizes, strict=True) if n}


def guess_rates(report: Mapping[str, Any], sizes: Sequence[int]) -> tuple[float, float, float]:
    """Synthetic shares of the parts by what the run says; one half where it does not say.

    With T and F the detector's rates of hits and false alarms and q the flagged share of the items without a
    finding, these have the share s = (q - F) / (T - F), the flagged ones s T / q, the rest s (1 - T) / (1 - q).

    Args:
        report: the content of `report.json`.
        sizes: items of each part, in the order of `PARTS`.
    """
    detected = report["tiers"]["detected"]
    tpr, fpr = (_rate(detected[name]) for name in ("tpr", "fpr"))
    _, flagged, rest = sizes
    if tpr is None or fpr is None or tpr <= fpr or not flagged or not rest:
        return RATES[1], 0.5, 0.5
    q = flagged / (flagged + rest)
    share = min(max((q - fpr) / (tpr - fpr), 0.0), 1.0)
    return RATES[1], min(share * tpr / q, 1.0), min(share * (1 - tpr) / (1 - q), 1.0)


def _rate(counts: Mapping[str, int] | None) -> float | None:
    return counts["x"] / counts["n"] if counts and counts["n"] else None


def _permutation(n: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Items by their random priority. The raw words of a generator never change, its permutations may."""
    priorities = np.asarray(rng.bit_generator.random_raw(n), np.uint64)
    return np.argsort(priorities, kind="stable").astype(np.int64)
