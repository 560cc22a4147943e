"""Checks before any share is believed: do files give the classes away, and do references look like the pool?

A detector that was fitted on JPEG photographs and PNG samples may have learnt to tell JPEG from PNG. Nothing
in its error rates would show it. So the metadata alone are tried as a detector (`confounding`), and the
references' files are compared with the pool's (`comparable`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64, Int64

from poolproof.detectors.folds import check_enough, deal
from poolproof.detectors.metadata import (
    Columns,
    check_columns,
    item_facts,
    join_columns,
    metadata_features,
    numbers,
    quality_band,
    size_band,
    take_columns,
)
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.roc import area_under_curve
from poolproof.errors import InputError

BOUND: Final = 0.6
"""Area under the curve up to which metadata are no explanation of a detector's rates.

An area of A at one threshold is a true positive rate that exceeds the false positive rate by 2 A - 1, so 0.2
here. A usual detector has 0.8 between the two; a quarter of that could then come from the files, and the
share of a pool with other files could be off by a quarter of itself. More is no evidence."""

MOST: Final = 2_500
"""Items of a set that `confounding` looks at: the area is then known to 0.015."""

TREES: Final = 10
"""Of the forest; more find no more in so few facts."""

FOLDS: Final = 5
"""Of cross-fitting."""

RARE: Final = 0.001
"""Share of the pool from which on a kind of file occurs in it, so that one stray file does not count."""

COMPARABLE: Final = 0.9
"""Share of a reference whose kind of file occurs in the pool, from which on the two can be compared."""

INCOMPARABLE: Final = 0.5
"""The same share, below which they cannot."""

Match = Literal["comparable", "partly", "incomparable"]


@dataclass(frozen=True)
class Fact:
    """One fact of files, as a detector by itself.

    Attributes:
        name: format, mode, size, multiples, quality, subsampling or exif.
        auc: cross-fitted area under the curve, level 0.95.
        words: how the sets differ in it.
    """

    name: str
    auc: Interval
    words: str


@dataclass(frozen=True)
class Confounding:
    """How well two sets of images are told apart without a look at the images.

    Attributes:
        auc: of a classifier that sees the container's facts, cross-fitted, level 0.95.
        auc_with_content: of one that sees the bytes per pixel too, which the picture has a say in; no verdict
            rests on it.
        facts: those with an area surely above one half, the most telling first.
        verdict: "clean": the area lies below `BOUND`; "confounded": it lies above; "undecided": the limits
            hold `BOUND`, more items would tell.
        words: the findings in sentences.
    """

    auc: Interval
    auc_with_content: Interval
    facts: tuple[Fact, ...]
    verdict: Literal["clean", "undecided", "confounded"]
    words: tuple[str, ...]


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


def confounding(
    first: Columns,
    second: Columns,
    *,
    names: tuple[str, str] = ("real reference", "synthetic reference"),
    rng: np.random.Generator,
) -> Confounding:
    """Return how well files alone tell two sets apart: references from each other, or one from the pool.

    A small forest of random trees on the container's facts is cross-fitted in five folds. Its area under the
    curve is what a detector could reach that never looks at a picture.

    Args:
        first: metadata of the real reference, or of any set; at least 10 items.
        second: metadata of the synthetic reference, or of any other set; at least 10 items.
        names: of both, for the sentences.
        rng: draws at most 2,500 items of each and deals them into folds.

    Raises:
        InputError: a column is missing, lengths differ, or a size is not above 0.
        UnreliableEstimate: a set has fewer than 10 items.

    Source: Grommelt et al., arXiv 2403.17608, for the trap; the bound is derived at `BOUND`.
    Assumes: independent items. An area near one half clears the container's facts alone, not content or the
        pixels' history: a PNG made from a JPEG looks clean here.
    """
    sets = []
    for name, columns in zip(names, (first, second), strict=True):
        n = check_columns(name, columns)
        check_enough(name, n, what="items")
        sets.append(take_columns(columns, rng.permutation(n)[:MOST] if n > MOST else np.arange(n)))
    m, n = (len(columns["format"]) for columns in sets)
    label = np.repeat([0, 1], [m, n])
    folds = min(FOLDS, m // 2, n // 2)
    fold = np.concatenate([deal(m, folds, rng), deal(n, folds, rng)])
    joined = join_columns(*sets)
    features = metadata_features(joined)
    auc = _area(features.values, label, fold)
    with_content = _area(np.concatenate([features.values, features.content], axis=1), label, fold)
    described, of_column = item_facts(joined), np.array(features.facts)
    facts = []
    for name in dict.fromkeys(features.facts):
        alone = _area(features.values[:, of_column == name], label, fold, trees=1)
        if alone.lower > 0.5:
            facts.append(Fact(name, alone, _difference(name, described[name], joined, m, names)))
    facts.sort(key=lambda fact: -(fact.auc.point or 0.0))
    # Chance can push a cross-fitted area far below one half; that clears nothing.
    upper = max(auc.upper, area_under_curve(np.zeros(m), np.zeros(n)).upper)
    verdict = "clean" if upper <= BOUND else "confounded" if auc.lower > BOUND else "undecided"
    return Confounding(auc, with_content, tuple(facts), verdict, _words(auc, facts, verdict, names))


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
        inside = sum(share for kind, share in shares.items() if kind in occurring)
        overlap = sum(min(share, pool_shares.get(kind, 0.0)) for kind, share in shares.items())
        matches[name] = ReferenceMatch(min(inside, 1.0), min(overlap, 1.0), _verdict(inside))
        if matches[name].verdict != "comparable":
            words.append(_mismatch(name, columns, kinds, shares, pool_shares, occurring, "pool"))
            words.append(f"The pool holds the kinds of file of {_percent(inside)} of the {name}.")
    unmatched = sum(share for kind, share in pool_shares.items() if kind not in held)
    verdicts = [*(match.verdict for match in matches.values()), _verdict(1 - unmatched)]
    if verdicts[-1] != "comparable":
        other = "neither reference" if len(given) == 2 else f"the {next(iter(given))} does not"
        words.append(
            f"{_percent(unmatched)} of the pool are kinds of file that "
            + (f"{other} holds." if len(given) == 2 else f"{other} hold.")
        )
        words.append(_mismatch("pool", pool, pool_kinds, pool_shares, {}, held, "references"))
    ranks = {"comparable": 0, "partly": 1, "incomparable": 2}
    worst: Match = max(verdicts, key=lambda verdict: ranks[verdict])
    if worst == "incomparable":
        words.append("Rates measured on these references say little of this pool.")
    if not words:
        words.append("References and pool consist of the same kinds of file.")
    return Comparability(
        matches.get("real reference"), matches.get("synthetic reference"), unmatched, worst, tuple(words)
    )


def _area(
    values: Float64[np.ndarray, "n d"],
    label: Int64[np.ndarray, " n"],
    fold: Int64[np.ndarray, " n"],
    trees: int = TREES,
) -> Interval:
    """Return the cross-fitted area of a small forest, or of one tree."""
    from sklearn.tree import DecisionTreeClassifier

    scores = np.zeros(len(label))
    for i in range(int(fold.max()) + 1):
        seen = fold != i
        for seed in range(trees):
            # No bootstrap and equal classes: what tells nothing scores one half in every fold, but for rounding.
            tree = DecisionTreeClassifier(
                splitter="best" if trees == 1 else "random",
                min_samples_leaf=max(2, min(10, int(seen.sum()) // 40)),
                max_depth=8,
                class_weight="balanced",
                random_state=seed,
            )
            tree.fit(values[seen], label[seen])
            scores[~seen] += np.asarray(tree.predict_proba(values[~seen]))[:, 1]
    return area_under_curve(np.round(scores[label == 0], 6), np.round(scores[label == 1], 6))


def _difference(name: str, values: list[str], joined: Columns, m: int, names: tuple[str, str]) -> str:
    """Return how two sets differ in a fact: the value whose shares differ most, or the medians of sizes."""
    n = len(values) - m
    first, second = Counter(values[:m]), Counter(values[m:])
    gaps = {value: first[value] / m - second[value] / n for value in (*first, *second)}
    value = max(gaps, key=lambda key: (abs(gaps[key]), key))
    if name == "size" and abs(gaps[value]) < 0.2:
        side = np.sqrt(numbers(joined["width"]) * numbers(joined["height"]))
        low, high = np.median(side[:m]), np.median(side[m:])
        return f"The median side is {low:.0f} pixels in the {names[0]}, {high:.0f} in the {names[1]}."
    shares = _percent(first[value] / m), _percent(second[value] / n)
    return f"{shares[0]} of the {names[0]} are {value}, {shares[1]} of the {names[1]}."


def _words(auc: Interval, facts: list[Fact], verdict: str, names: tuple[str, str]) -> tuple[str, ...]:
    """Return the findings of `confounding` in sentences."""
    area = f"area under the curve {auc.point:.2f}, {auc.lower:.2f} to {auc.upper:.2f}"
    told = {
        "clean": f"Files alone hardly tell the {names[0]} from the {names[1]} ({area}).",
        "undecided": f"Whether files alone tell the {names[0]} from the {names[1]} is open ({area}).",
        "confounded": f"Files alone tell the {names[0]} from the {names[1]} ({area}).",
    }[verdict]
    words = [told, *(fact.words for fact in facts[:3])]
    if verdict == "confounded":
        words.append("A detector may have learnt that: what it gets right of these sets is no evidence.")
    return tuple(words)


def _kinds(name: str, columns: Columns) -> list[tuple[str, str, int]]:
    """Return each item's kind of file: format, band of quality, band of size."""
    check_columns(name, columns)
    bands = zip(
        map(str, columns["format"]),
        map(quality_band, numbers(columns["quality"])),
        map(size_band, numbers(columns["width"]), numbers(columns["height"])),
        strict=True,
    )
    return list(bands)


def _shares(kinds: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], float]:
    """Return the share of each kind of file."""
    return {kind: count / len(kinds) for kind, count in Counter(kinds).items()}


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
    quality = f" with {kind[1]}" if kind[1].startswith("JPEG") else ""
    return (
        f"{_percent(shares[kind])} of the {name} are {kind[0]}{quality} of {about}{width} x {height}; "
        f"{_percent(others.get(kind, 0.0))} of the {against} are."
    )


def _percent(share: float) -> str:
    """Return a share in percent, never rounded to all or to nothing where it is neither."""
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"
