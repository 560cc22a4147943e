"""A check before any share is believed: are the references made of files that the pool holds too?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from poolproof.detectors.metadata import (
    NO_QUALITY,
    Columns,
    check_columns,
    numbers,
    percent,
    quality_bands,
    size_bands,
)
from poolproof.errors import InputError

RARE: Final = 0.001
"""Share of the pool from which on a kind of file occurs in it, so that one stray file does not count."""

COMPARABLE: Final = 0.9
"""Share of a reference whose kind of file occurs in the pool, from which on the two can be compared."""

INCOMPARABLE: Final = 0.5
"""The same share, below which they cannot."""

Match = Literal["comparable", "partly", "incomparable"]


@dataclass(frozen=True)
class ReferenceMatch:
    """How a reference's files go with the pool's. A kind of file: format, band of quality, band of size.

    Attributes:
        share_in_pool: share of the reference whose kind of file occurs in the pool.
        overlap: sum over kinds of the smaller of the two shares; 1 for equal mixtures, 0 for disjoint ones.
        verdict: "comparable", "partly" or "incomparable".
    """

    share_in_pool: float
    overlap: float
    verdict: Match


@dataclass(frozen=True)
class Comparability:
    """How the references' files go with the pool's.

    Attributes:
        real: of the real reference; None without one.
        synthetic: of the synthetic reference; None without one.
        pool_unmatched: share of the pool whose kind of file neither reference holds.
        verdict: the worst of the references' and of the pool's, by the same bounds.
        words: the findings in sentences.
    """

    real: ReferenceMatch | None
    synthetic: ReferenceMatch | None
    pool_unmatched: float
    verdict: Match
    words: tuple[str, ...]


def comparable(real: Columns | None, synthetic: Columns | None, pool: Columns) -> Comparability:
    """Return whether the references consist of files that the pool holds too, and the pool of theirs.

    Args:
        real: metadata of the real reference, None without one.
        synthetic: metadata of the synthetic reference, None without one.
        pool: metadata of the pool.

    Raises:
        InputError: there is no reference, a column is missing, lengths differ, or a size is not above 0.

    Assumes: nothing of pictures. Half of a reference in kinds of files that the pool lacks is called
        incomparable, a tenth partly so; a pool is judged likewise by what neither reference holds.
    """
    if real is None and synthetic is None:
        raise InputError("real, synthetic: got neither, allowed one or both: give a reference")
    given = {
        name: columns
        for name, columns in (("real reference", real), ("synthetic reference", synthetic))
        if columns is not None
    }
    pool_kinds = _kinds("pool", pool)
    pool_shares = _shares(pool_kinds)
    occurring = {kind for kind, share in pool_shares.items() if share >= RARE}
    matches: dict[str, ReferenceMatch] = {}
    words: list[str] = []
    held: set[tuple[str, str, int]] = set()
    for name, columns in given.items():
        kinds = _kinds(name, columns)
        shares = _shares(kinds)
        held |= set(shares)
        inside = _total(share for kind, share in shares.items() if kind in occurring)
        overlap = _total(min(share, pool_shares.get(kind, 0.0)) for kind, share in shares.items())
        matches[name] = ReferenceMatch(inside, overlap, _verdict(inside))
        if matches[name].verdict != "comparable":
            words.append(_mismatch(name, columns, kinds, shares, pool_shares, occurring, "pool"))
            words.append(f"The pool holds the kinds of file of {percent(inside)} of the {name}.")
    unmatched = _total(share for kind, share in pool_shares.items() if kind not in held)
    verdicts = [*(match.verdict for match in matches.values()), _verdict(1 - unmatched)]
    if verdicts[-1] != "comparable":
        other = "neither reference holds" if len(given) == 2 else f"the {next(iter(given))} does not hold"
        words.append(f"{percent(unmatched)} of the pool are kinds of file that {other}.")
        words.append(_mismatch("pool", pool, pool_kinds, pool_shares, {}, held, "references"))
    worst: Match = "partly" if "partly" in verdicts else "comparable"
    worst = "incomparable" if "incomparable" in verdicts else worst
    if worst == "incomparable":
        words.append("Rates measured on these references say little of this pool.")
    if not words:
        words.append("References and pool consist of the same kinds of file.")
    return Comparability(
        matches.get("real reference"), matches.get("synthetic reference"), unmatched, worst, tuple(words)
    )


def _kinds(name: str, columns: Columns) -> list[tuple[str, str, int]]:
    """Return each item's kind of file: format, band of quality, band of size."""
    check_columns(name, columns)
    bands = zip(
        map(str, columns["format"]),
        quality_bands(numbers(columns["quality"])),
        size_bands(numbers(columns["width"]), numbers(columns["height"])),
        strict=True,
    )
    return list(bands)


def _shares(kinds: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], float]:
    """Return the share of each kind of file."""
    return {kind: count / len(kinds) for kind, count in Counter(kinds).items()}


def _total(shares: Iterable[float]) -> float:
    """Return a sum of shares, rounding of their sum taken off."""
    return round(math.fsum(shares), 12)


def _verdict(share: float) -> Match:
    """Return what a share of matched files means."""
    return "comparable" if share >= COMPARABLE else "partly" if share >= INCOMPARABLE else "incomparable"


def _mismatch(
    name: str,
    columns: Columns,
    kinds: list[tuple[str, str, int]],
    shares: dict[tuple[str, str, int], float],
    others: dict[tuple[str, str, int], float],
    matched: set[tuple[str, str, int]],
    against: str,
) -> str:
    """Return the sentence on the most common kind of file of a set that the other side lacks."""
    kind = max((kind for kind in shares if kind not in matched), key=lambda kind: (shares[kind], kind))
    mine = [i for i, other in enumerate(kinds) if other == kind]
    sizes = Counter((int(columns["width"][i]), int(columns["height"][i])) for i in mine)
    (width, height), most = sizes.most_common(1)[0]
    about = "" if most == len(mine) else "about "
    size = (
        f"{about}{width} x {height}"
        if 2 * most > len(mine)
        else f"about {2 ** (kind[2] / 2):.0f} pixels a side"
    )
    quality = "" if kind[1] == NO_QUALITY else f" with {kind[1]}"
    return (
        f"{percent(shares[kind])} of the {name} are {kind[0]}{quality} of {size}; "
        f"{percent(others.get(kind, 0.0))} of the {against} are."
    )
