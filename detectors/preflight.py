"""A check before any share is believed: do the files give the classes away?

A detector that was fitted on JPEG photographs and PNG samples may have learnt to tell JPEG from PNG. Nothing
in its error rates would show it. So the metadata alone are tried as a detector. Whether the references' files
are of the pool's kinds is the other half of the check: `comparability.py`.
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
    percent,
    take_columns,
)
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.roc import area_under_curve

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
            hold `BOUND`, more items would tell (200 of each clear sets that are alike).
        words: the findings in sentences.
    """

    auc: Interval
    auc_with_content: Interval
    facts: tuple[Fact, ...]
    verdict: Literal["clean", "undecided", "confounded"]
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


def _area(
    values: Float64[np.ndarray, "n d"],
    label: Int64[np.ndarray, " n"],
    fold: Int64[np.ndarray, " n"],
    trees: int = TREES,
) -> Interval:
    """Return the cross-fitted area of a small forest, or of one tree."""
    from sklearn.tree import DecisionTreeClassifier

    rows = np.ascontiguousarray(values, np.float32)
    scores = np.zeros(len(label))
    for i in range(int(fold.max()) + 1):
        seen, held_out = fold != i, rows[fold == i]
        x, y = rows[seen], label[seen]
        # Both classes weigh the same and no row is drawn twice: what tells nothing scores one half in every fold.
        weight = 0.5 / np.bincount(y)[y]
        for seed in range(trees):
            tree = DecisionTreeClassifier(
                splitter="best" if trees == 1 else "random",
                min_samples_leaf=max(2, min(10, len(y) // 40)),
                max_depth=8,
                random_state=seed,
            )
            tree.fit(x, y, sample_weight=weight, check_input=False)
            scores[fold == i] += np.asarray(tree.predict_proba(held_out, check_input=False))[:, 1]
    # Rounding must not break ties.
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
    shares = percent(first[value] / m), percent(second[value] / n)
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
