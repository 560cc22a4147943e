"""The share of a pool from a label file: parts of the pool, what was labelled in each, and limits that hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from poolproof.audit.label_draw import PARTS, Candidates, Draw, draw_by_part, draw_simple, make_rng
from poolproof.audit.labels import Header, Label, LabelFile
from poolproof.detectors.labelled import EXPECTED, LabelledShare, LabelPlan, labelled_share, plan_labels
from poolproof.detectors.strata import Stratum
from poolproof.errors import InputError

HALF_WIDTHS: Final = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Half widths worth a next step, in shares."""


@dataclass(frozen=True)
class PartCount:
    """Labels in a part of the pool.

    Attributes:
        names: the parts of `PARTS` that it holds.
        stratum: its size and its counts.
    """

    names: tuple[str, ...]
    stratum: Stratum


@dataclass(frozen=True)
class LabelAnswer:
    """The share from labels, and what more of them are worth.

    Attributes:
        found: the share.
        draw: `random` or `detector`.
        parts: the labels, part by part.
        left: items that could still be labelled.
        hits_real: items labelled real that have a signed, declared or marked finding.
    """

    found: LabelledShare
    draw: str
    parts: tuple[PartCount, ...]
    left: int
    hits_real: int

    @cached_property
    def plan(self) -> LabelPlan:
        """How many more labels narrow it by a step worth it."""
        now = (self.found.interval.upper - self.found.interval.lower) / 2
        step = next((step for step in HALF_WIDTHS if step < 0.9 * now), HALF_WIDTHS[-1])
        return plan_labels(self.found, half_width=step)

    @property
    def synthetic(self) -> int:
        """Items labelled synthetic."""
        return sum(part.stratum.synthetic for part in self.parts)

    def describe_plan(self) -> str:
        """The plan in a sentence, which never asks for more than there is."""
        now = f"±{100 * self.plan.current_half_width:.2g} points"
        if self.left == 0:
            return f"all are labelled: {now}"
        if self.plan.n_more >= self.left:
            return f"label the {self.left:,} that are left for the most there is (now {now})"
        return self.plan.describe()


def open_draw(header: Header, candidates: Candidates) -> Draw | None:
    """The order in which a label file's items were shown; None where the detector's flags have changed since.

    Raises:
        InputError: the file is of another run, or of another state of it.
    """
    if header.size != len(candidates):
        raise InputError(
            f"labels: got a draw from {header.size:,} items, allowed {len(candidates):,}, those that the run could "
            "read; give labels of this run"
        )
    rng = make_rng(header.seed)
    if header.draw == "random":
        return draw_simple(len(candidates), rng=rng)
    if header.parts_sha256 != candidates.parts_sha256:
        return None
    return draw_by_part(candidates.parts, {part.name: part.allocation for part in header.parts}, rng=rng)


def check_labels(labels: Iterable[Label], header: Header, candidates: Candidates, draw: Draw | None) -> None:
    """Refuses labels that are not those of the draw.

    Args:
        labels: the latest of each item.
        header: of their file.
        candidates: of the run.
        draw: what `open_draw` gave.

    Raises:
        InputError: an item was not scored, or it has another place in the draw.
    """
    sizes = {part.name: part.size for part in header.parts}
    seen: set[tuple[str | None, int]] = set()
    for label in labels:
        position = find_row(candidates, label.row)
        if position is None:
            raise InputError(
                f"labels: got row {label.row}, allowed rows of readable, distinct items; give labels of this run"
            )
        fits = label.part in sizes if sizes else label.part is None
        if draw is not None:
            fits = fits and label.place == draw.places[position]
            fits = fits and (not sizes or label.part == PARTS[candidates.parts[position]])
        fits = fits and label.place < sizes.get(label.part or "", header.size)
        if not fits or (label.part, label.place) in seen:
            raise InputError(
                f"labels: row {label.row} is not where the draw has it; restore the file, or label again into another"
            )
        seen.add((label.part, label.place))


def find_row(candidates: Candidates, row: int) -> int | None:
    """The position of a row among the candidates, or None."""
    position = int(np.searchsorted(candidates.rows, row))
    found = position < len(candidates) and candidates.rows[position] == row
    return position if found else None


def answer_labels(
    file: LabelFile,
    candidates: Candidates,
    draw: Draw | None,
    *,
    level: float,
    sampled_from: int | None = None,
) -> LabelAnswer | None:
    """The share of a pool from the labels in a file; None where none is sure.

    Within each part the labels are those of a random draw without replacement, so the limits are exact whatever
    the detector gets wrong. A simple draw is looked at by parts afterwards, where a part expects five labels or
    more by its size. Items that were shown and have no label count as unsure.

    Where the run audits a sample, a simple draw from it is one from the pool: the whole is then one part, as large
    as it can be, since how many of the unread items are readable is not known.

    Args:
        file: the label file.
        candidates: of the run.
        draw: what `open_draw` gave.
        level: confidence level of the limits.
        sampled_from: items of the pool that the audit's sample stands for, at most; None for a full audit.

    Raises:
        InputError: labels are not those of the draw.

    Assumes: labels are right; the number of labels does not depend on what they say.
    """
    check_labels(file.latest.values(), file.header, candidates, draw)
    counts = (
        _drawn_counts(file) if file.header.parts else _simple_counts(file, candidates, draw, sampled_from)
    )
    if not any(part.stratum.labelled for part in counts):
        return None
    found = labelled_share([part.stratum for part in counts], level=level)
    labels = file.labels.values()
    real = [find_row(candidates, label.row) for label in labels if label.label == "real"]
    return LabelAnswer(
        found,
        file.header.draw,
        counts,
        len(candidates) - len(labels),
        sum(position is not None and int(candidates.parts[position]) == 0 for position in real),
    )


def count_at_most(n_pool: int, n_audited: int, n_scored: int) -> int:
    """Readable, distinct items that a pool can have, of which a sample was audited.

    Args:
        n_pool: items of the pool.
        n_audited: items of the sample.
        n_scored: those that are readable and distinct.
    """
    return n_pool - (n_audited - n_scored)


def _drawn_counts(file: LabelFile) -> tuple[PartCount, ...]:
    """Counts by the parts of the draw, as they were then."""
    counts = []
    for part in file.header.parts:
        lines = [label for label in file.latest.values() if label.part == part.name]
        shown = max((label.place + 1 for label in lines), default=0)
        stratum = _count(part.size, shown, [label.label for label in lines])
        counts.append(PartCount((part.name,), stratum))
    return tuple(counts)


def _simple_counts(
    file: LabelFile, candidates: Candidates, draw: Draw | None, sampled_from: int | None
) -> tuple[PartCount, ...]:
    """Counts of a simple draw, by parts where these are large enough."""
    assert draw is not None
    shown = draw.order[: max((label.place + 1 for label in file.latest.values()), default=0)]
    if sampled_from is not None:
        labels = [label.label for label in file.latest.values()]
        return (PartCount(PARTS, _count(sampled_from, len(shown), labels)),)
    parts, of_row = candidates.parts, {label.row: label.label for label in file.latest.values()}
    counts = []
    for indices in _merge_small(candidates.sizes, len(shown)):
        members = [int(position) for position in shown if parts[position] in indices]
        size = sum(candidates.sizes[index] for index in indices)
        labels = [of_row.get(int(candidates.rows[position])) for position in members]
        counts.append(PartCount(tuple(PARTS[i] for i in indices), _count(size, len(members), labels)))
    return tuple(counts)


def _merge_small(sizes: tuple[int, ...], shown: int) -> list[tuple[int, ...]]:
    """Parts that expect enough of the labels, by their sizes alone; a smaller one goes to the next weaker part."""
    total, groups, small = sum(sizes), [], ()
    for index, size in enumerate(sizes):
        if size:
            small = (*small, index)
            if sum(sizes[i] for i in small) * shown >= EXPECTED * total:
                groups, small = [*groups, small], ()
    if small:
        groups = [*groups[:-1], (*groups[-1], *small)] if groups else [small]
    return groups


def _count(size: int, shown: int, labels: list[str | None]) -> Stratum:
    sure = [label for label in labels if label in ("real", "synthetic")]
    return Stratum(size, len(sure), sum(label == "synthetic" for label in sure), shown - len(sure))
