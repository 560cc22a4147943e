"""How many real and synthetic images a cut removes and leaves, with limits that hold for a cut chosen by looking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from poolproof.audit.scored_pool import ScoredPool
from poolproof.detectors.prevalence import split_level
from poolproof.detectors.rank_band import DRAWS, RankBand, rank_band


@dataclass(frozen=True, eq=False)
class Cut:
    """What is removed of a pool's scored items.

    Attributes:
        gone: items that go, in the order of the pool.
        above: items without a finding that score above it are gone, and no other that has a score; infinite where
            none is removed by its score.
    """

    gone: Bool[np.ndarray, " n"]
    above: float | int


@dataclass(frozen=True)
class Count:
    """A number of images.

    Attributes:
        point: expected number, None where it cannot be told.
        lower: least.
        upper: most.
    """

    point: float | None
    lower: int
    upper: int


@dataclass(frozen=True)
class Balance:
    """What a cut leaves and costs.

    Attributes:
        n: images before, scored and distinct.
        synthetic_before: of these.
        removed: images that go.
        removed_found: of these, with a finding that says synthetic.
        kept: images that stay.
        synthetic_left: of these.
        real_lost: real images among the removed.
        tpr: share of the synthetic references above the cut, and the counts; None without.
        fpr: the same of the real references.
        level: at which each of the three ranges holds.
    """

    n: int
    synthetic_before: Count
    removed: int
    removed_found: int
    kept: int
    synthetic_left: Count
    real_lost: Count
    tpr: tuple[int, int] | None
    fpr: tuple[int, int] | None
    level: float | int

    def describe(self) -> dict[str, Any]:
        """The balance as JSON has it."""
        told = dict(vars(self))
        for name in ("synthetic_before", "synthetic_left", "real_lost"):
            told[name] = vars(told[name])
        for name in ("tpr", "fpr"):
            told[name] = None if told[name] is None else {"x": told[name][0], "n": told[name][1]}
        return told


class Ledger:
    """Accounts for any cut of one pool.

    The synthetic images left are those of the pool less those removed. How many there are is the audit's interval,
    at a level that leaves half of the error; how many of them score below a threshold follows from the synthetic
    references by a rank band, which has the other half and holds for every threshold at once, also for one that was
    chosen because of it. Where the references do not stand for the pool, the interval alone bounds what is left.

    Args:
        pool: that is decided on.
        draws: of the rank bands; fewer make them wider.
        rng: draws them.

    Source: Bonferroni's inequality; `detectors.rank_band`.
    Assumes: findings are true; what the share assumes; scores of references and of the pool's images of the same class
        are exchangeable, but where the audit doubts it.
    """

    def __init__(self, pool: ScoredPool, *, draws: int = DRAWS, rng: np.random.Generator) -> None:
        self.pool = pool
        self._draws = draws
        self._streams = rng.spawn(4)
        self._bands: dict[str, RankBand] = {}
        standing = pool.standing
        self.n = int(pool.scored.sum())
        self.n_found = int(pool.found.sum())
        self.n_answered = int(pool.answered.sum())
        self.n_unanswered = self.n - self.n_found - self.n_answered
        rest = self.n - self.n_found
        self.rest = Count(
            None
            if standing.share.point is None
            else min(max(standing.share.point * self.n - self.n_found, 0.0), float(rest)),
            min(max(math.floor(standing.share.lower * self.n) - self.n_found, 0), rest),
            min(max(math.ceil(standing.share.upper * self.n) - self.n_found, 0), rest),
        )
        """Synthetic images without a finding."""
        self.real_references = np.sort(standing.real_scores) if standing.real_doubt is None else np.zeros(0)
        self.synthetic_references = (
            np.sort(standing.synthetic_scores) if standing.synthetic_doubt is None else np.zeros(0)
        )

    @cached_property
    def scores(self) -> Float32[np.ndarray, " m"]:
        """Of the items without a finding that have one, ascending."""
        return np.sort(self.pool.scores[self.pool.answered])

    @property
    def most_answered(self) -> int:
        """Most synthetic images among those without a finding that have a score."""
        return min(self.rest.upper, self.n_answered)

    @property
    def fewest_answered(self) -> int:
        """Fewest of them."""
        return max(0, self.rest.lower - self.n_unanswered)

    def _band(self, of: str) -> RankBand:
        """Of synthetic ones below a threshold, for the most or the fewest there may be, or of real ones above it."""
        if of not in self._bands:
            sizes = {
                "most synthetic": (self.most_answered, len(self.synthetic_references)),
                "fewest synthetic": (self.fewest_answered, len(self.synthetic_references)),
                "most real": (self.n_answered - self.fewest_answered, len(self.real_references)),
                "fewest real": (self.n_answered - self.most_answered, len(self.real_references)),
            }
            rng = self._streams[list(sizes).index(of)]
            level = split_level(self.pool.standing.level)
            self._bands[of] = rank_band(*sizes[of], level=level, draws=self._draws, rng=rng)
        return self._bands[of]

    def most_left(self, above: float | int) -> int:
        """Most synthetic images among those without a finding if scores above a threshold go, all findings removed."""
        return self._most(above, self._removed(above), self.n_unanswered)

    def fewest_left(self, above: float | int) -> int:
        """The fewest, as `most_left`."""
        return self._fewest(above, self._removed(above))

    def _removed(self, above: float | int) -> int:
        """Items that score above a threshold."""
        return self.n_answered - int(np.searchsorted(self.scores, above, "right"))

    def _below(self, above: float | int) -> int:
        """Synthetic references at or below a threshold."""
        return int(np.searchsorted(self.synthetic_references, above, "right"))

    def _most(self, above: float | int, removed: int, unanswered: int) -> int:
        """Most synthetic images without a finding when so many went by score and so many without a score stay."""
        most = min(
            self._band("most synthetic").limits(self._below(above))[1],
            self.n_answered - removed,
            self.most_answered,
        )
        return min(most + unanswered, self.rest.upper)

    def _fewest(self, above: float | int, removed: int) -> int:
        """The fewest; those without a score may all be real."""
        found = self._band("fewest synthetic").limits(self._below(above))[0]
        return max(found, self.fewest_answered - removed, 0)

    def balance(self, cut: Cut) -> Balance:
        """What a cut leaves and costs."""
        pool, standing = self.pool, self.pool.standing
        gone = cut.gone & pool.scored
        removed, removed_found = int(gone.sum()), int((gone & pool.found).sum())
        by_score = int((gone & pool.answered).sum())
        unanswered_gone = removed - removed_found - by_score
        unanswered_kept = self.n_unanswered - unanswered_gone
        found_kept = self.n_found - removed_found
        below = self._below(cut.above)
        above_real = len(self.real_references) - int(
            np.searchsorted(self.real_references, cut.above, "right")
        )
        fewest = self._fewest(cut.above, by_score)
        most_left = self._most(cut.above, by_score, unanswered_kept)
        # what an item without a score is nobody knows
        most_lost = (
            min(
                self._band("most real").limits(above_real)[1],
                by_score,
                self.n_answered - self.fewest_answered,
            )
            + unanswered_gone
        )
        fewest_lost = max(self._band("fewest real").limits(above_real)[0], by_score - self.most_answered, 0)
        n_synthetic, n_real = len(self.synthetic_references), len(self.real_references)
        left = lost = None
        rest = self.n - self.n_found
        if self.rest.point is not None and rest:
            share = self.rest.point / rest
            if n_synthetic or not by_score:
                staying = below / n_synthetic if n_synthetic else 1.0
                left = share * (self.n_answered * staying + unanswered_kept)
            if n_real or not by_score:
                going = above_real / n_real if by_score else 0.0
                lost = (1 - share) * (self.n_answered * going + unanswered_gone)
        elif not rest:
            left = lost = 0.0
        return Balance(
            n=self.n,
            synthetic_before=_shifted(self.rest.point, self.rest.lower, self.rest.upper, self.n_found),
            removed=removed,
            removed_found=removed_found,
            kept=self.n - removed,
            synthetic_left=_shifted(left, min(fewest, most_left), most_left, found_kept),
            real_lost=_shifted(lost, min(fewest_lost, most_lost), most_lost, 0),
            tpr=(n_synthetic - below, n_synthetic) if n_synthetic else None,
            fpr=(above_real, n_real) if n_real else None,
            level=standing.level,
        )


def _shifted(point: float | None, lower: int, upper: int, by: int) -> Count:
    """A count with so many certain ones added, its point inside its limits."""
    return Count(None if point is None else min(max(point, lower), upper) + by, lower + by, upper + by)
