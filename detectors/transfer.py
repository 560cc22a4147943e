"""What becomes of a detector when a generator comes that it was not fitted on: each is left out in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from poolproof.detectors.crossfit import fit_default
from poolproof.detectors.detector import AbstractDetector, Scores, split_finite
from poolproof.detectors.folds import FEWEST, Fit, above, deal, finite_references, read, threshold_of
from poolproof.detectors.neighbours import check_pair
from poolproof.detectors.prevalence import Interval, clopper_pearson
from poolproof.detectors.probe import LinearProbe
from poolproof.detectors.roc import area_under_curve
from poolproof.errors import InputError, UnreliableEstimate


@dataclass(frozen=True)
class GeneratorTransfer:
    """One generator, by detectors that know it and by one that does not.

    Attributes:
        name: of the generator.
        known: its items flagged by detectors fitted on others of its items, and their number.
        left_out: its items flagged by the detector fitted without any of them, and their number.
        left_out_fpr: real references flagged by that detector, held out from it, and their number.
        known_auc: area under the curve of the first scores, level 0.95.
        left_out_auc: area under the curve of the second.
    """

    name: str
    known: tuple[int, int]
    left_out: tuple[int, int]
    left_out_fpr: tuple[int, int]
    known_auc: Interval
    left_out_auc: Interval


@dataclass(frozen=True)
class Transfer:
    """Each generator with and without it among the fitted ones.

    Attributes:
        generators: those with 10 items or more, in the given order.
        too_few: items of the others, which are fitted on always and never counted.
        fpr: real references flagged by detectors that know all generators, held out, and their number.
        worst: the one whose true positive rate, left out, has the lowest lower limit. Its `left_out`, put into
            `interval` for the true positives, gives an upper limit of the share for a generator that is
            as strange as the strangest of these.
        best: the one whose true positive rate, left out, has the highest upper limit.
    """

    generators: tuple[GeneratorTransfer, ...]
    too_few: Mapping[str, int]
    fpr: tuple[int, int]
    worst: GeneratorTransfer
    best: GeneratorTransfer


def transfer(
    real: Float[np.ndarray, "r d"],
    generators: Mapping[str, Float[np.ndarray, "_ d"]],
    *,
    fit: Fit | None = None,
    folds: int = 5,
    rng: np.random.Generator,
) -> Transfer:
    """Return how well each generator is found when it was fitted on, and when it was left out.

    `folds` fits know every generator; each generator is dealt into folds of its own. One more fit per generator
    leaves it out, and one fold of real references, on which that fit's false positives are counted.

    Args:
        real: features of real references, at least 10 of them finite.
        generators: features of synthetic references by generator, 10 finite ones or more in two of them.
        fit: fits a detector, as in `cross_fit`; None for the linear probe.
        folds: number of folds, at least 2; lowered until every fold holds 2 items of every class out.
        rng: deals the references into folds and into fits.

    Raises:
        InputError: folds is out of range, a set has no columns, or the widths differ.
        UnreliableEstimate: fewer than 10 real references, or fewer than two generators with 10 items.

    Assumes: independent references without copies. A future generator is no draw from these: the range from
        worst to best is what was seen, not a confidence interval for it.
    """
    if folds < 2:
        raise InputError(f"folds: got {folds}, allowed 2 or more: 5 is usual")
    real = finite_references("real", real)
    for name, features in generators.items():
        if len(features):
            check_pair("real", real[:1], f"generators[{name!r}]", np.nan_to_num(features[:1]))
    finite = {name: split_finite(features)[0] for name, features in generators.items()}
    names = [name for name, rows in finite.items() if len(rows) >= FEWEST]
    too_few = {name: len(rows) for name, rows in finite.items() if name not in names}
    if len(names) < 2:
        got = f"{len(names)} with {FEWEST} finite items or more"
        raise UnreliableEstimate(
            f"generators: got {got}, allowed 2 or more: without a second one none can be left out"
        )
    parts = [finite[name] for name in (*names, *(n for n in too_few if too_few[n]))]
    items = np.concatenate(parts)
    member = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    folds = min([folds, len(real) // 2, *(len(finite[name]) // 2 for name in names)])
    real_fold = deal(len(real), folds, rng)
    fold = np.concatenate([deal(len(part), folds, rng) for part in parts])
    streams = rng.spawn(folds + len(names))
    fit = fit or fit_default
    known_real, known = np.zeros(len(real), np.float32), np.zeros(len(items), np.float32)
    told_real, told = np.zeros(len(real), bool), np.zeros(len(items), bool)
    for i in range(folds):
        detector = fit(real[real_fold != i], items[fold != i], streams[i])
        mine, scores = real_fold == i, _heights(detector, real[real_fold == i])
        known_real[mine], told_real[mine] = scores.values, ~scores.abstained
        mine, scores = fold == i, _heights(detector, items[fold == i])
        known[mine], told[mine] = scores.values, ~scores.abstained
    low = known_real[told_real]
    found = []
    for g, name in enumerate(names):
        hold, mine = real_fold == g % folds, member == g
        detector = fit(real[~hold], items[~mine], streams[folds + g])
        others, new = _answered(_heights(detector, real[hold])), _answered(_heights(detector, items[mine]))
        seen = known[mine & told]
        if not (len(low) and len(others) and len(new) and len(seen)):
            raise UnreliableEstimate(f"generators[{name!r}]: got no answer by the detector, allowed some")
        found.append(
            GeneratorTransfer(
                name=name,
                known=_flagged(seen),
                left_out=_flagged(new),
                left_out_fpr=_flagged(others),
                known_auc=area_under_curve(low, seen),
                left_out_auc=area_under_curve(others, new),
            )
        )
    limits = [clopper_pearson(*each.left_out) for each in found]
    return Transfer(
        generators=tuple(found),
        too_few=too_few,
        fpr=_flagged(low),
        worst=found[int(np.argmin([limit.lower for limit in limits]))],
        best=found[int(np.argmax([limit.upper for limit in limits]))],
    )


def _heights(detector: AbstractDetector | LinearProbe, features: Float[np.ndarray, "n d"]) -> Scores:
    """Return how far each item lies above the detector's threshold."""
    return above(read(detector, features), threshold_of(detector))


def _answered(scores: Scores) -> Float32[np.ndarray, " m"]:
    """Return the scores of the items that the detector answers for."""
    return scores.values[~scores.abstained]


def _flagged(scores: Float32[np.ndarray, " n"]) -> tuple[int, int]:
    """Return the number of items above the threshold, and of all."""
    return int((scores > 0).sum()), len(scores)
