"""The checks of a run: what is read for them, in which order, and what calls for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Int

from poolproof.audit.calibration import Calibration, Choice, fit_of
from poolproof.audit.checks import Checks, check_files, check_scores
from poolproof.audit.digests import part_digests
from poolproof.audit.estimate import rest_level
from poolproof.audit.items import Tally
from poolproof.audit.matched import MatchedSet, draw_rows, estimate_matched
from poolproof.audit.metadata import Facts, read_facts
from poolproof.audit.progress import AbstractProgress
from poolproof.audit.references import Reference
from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.folds import FEWEST
from poolproof.detectors.transfer import Transfer, transfer
from poolproof.errors import UnreliableEstimate

if TYPE_CHECKING:
    from poolproof.audit.run import RunFolder

MOST_GENERATORS: Final = 20
"""Generators that are left out in turn, the largest; each takes a fit."""


@dataclass(frozen=True)
class Checker:
    """What a run has at hand for its checks.

    Attributes:
        run: the folder.
        references: that were read, by role.
        calibration: the detector, None without.
        tally: counts over the pool.
        embedder: the run's feature space.
        choice: the run's detector.
        level: of intervals and tests.
    """

    run: RunFolder
    references: Mapping[str, Reference]
    calibration: Calibration | None
    tally: Tally
    embedder: str
    choice: Choice
    level: float

    def check(self, match: str, *, rng: np.random.Generator, progress: AbstractProgress) -> Checks:
        """What the checks found.

        Args:
            match: when the share is estimated once more on files made alike, `auto`, `always` or `never`.
            rng: of draws, folds and resamples.
            progress: told of the items that are read again.
        """
        drawing, dealing, alarming, matching = rng.spawn(4)
        rest = np.concatenate(self.tally.rest) if self.tally.rest else np.zeros(0, bool)
        facts = self._facts(rest, drawing)
        preflight = check_files(facts, rng=dealing)
        alarm, why = check_scores(self.tally, self.calibration, level=self.level, rng=alarming)
        matched = None
        wanted = match == "always" or (match == "auto" and preflight is not None and preflight.needs_matching)
        if wanted and len(self.references) == 2 and self.calibration is not None and rest.any():
            sets = self._sets(rest, matching)
            total = sum(len(part.rows) for part in sets)
            with progress.items("reading again with files made alike", total, 0) as tick:
                matched = estimate_matched(
                    *sets,
                    [facts[role] for role in ("pool", "real", "synthetic")],
                    embedder=self.embedder,
                    choice=self.choice,
                    level=rest_level(self.level, self.run.plan().meta["sample"]),
                    rng=matching,
                    tick=tick,
                )
        return Checks(preflight, alarm, why, matched)

    def _facts(self, rest: Bool[np.ndarray, " n"], rng: np.random.Generator) -> dict[str, Facts]:
        facts = {"pool": read_facts(self.run.evidence(), rest, rng=rng)}
        for role, reference in self.references.items():
            keep = np.zeros(reference.n_items, bool)
            keep[reference.rows] = True
            facts[role] = read_facts(self.run.evidence(role), keep, rng=rng)
        return facts

    def _sets(
        self, rest: Bool[np.ndarray, " n"], rng: np.random.Generator
    ) -> tuple[MatchedSet, MatchedSet, MatchedSet]:
        places = draw_rows(np.flatnonzero(rest), rng)
        taken = self.run.evidence().take(["row", "sha256"], places)
        # any number that the content settles will do for a fold
        keys = (part_digests(taken)[:, 0] >> np.uint64(1)).astype(np.int64)
        pool = MatchedSet(self.run.plan(), taken.column("row").to_numpy(), keys)
        real, synthetic = (
            MatchedSet(self.run.plan(role), draw_rows(self.references[role].rows, rng))
            for role in ("real", "synthetic")
        )
        return pool, real, synthetic


def generators_of(synthetic: Reference | None) -> dict[str, Int[np.ndarray, " n"]] | None:
    """The reference's items by generator, where its folders name two or more; None where they do not.

    Args:
        synthetic: the synthetic reference. Tars and tables are no generators: only folders count.
    """
    if synthetic is None or not synthetic.named_by_folder:
        return None
    sizes = Counter(synthetic.origins)
    names = [name for name, n in sizes.most_common(MOST_GENERATORS) if n >= FEWEST]
    if len(names) < 2:
        return None
    origins = np.array(synthetic.origins)
    return {name: np.flatnonzero(origins == name) for name in sorted(names)}


def check_transfer(
    references: Mapping[str, Reference], choice: Choice, reader: str, *, rng: np.random.Generator
) -> Transfer | None:
    """How each generator of the synthetic reference is found with and without it among the fitted ones.

    None where the reference does not name its generators, or the detector was fitted elsewhere.

    Args:
        references: both, else None comes back.
        choice: the run's detector.
        reader: of the features.
        rng: deals the references.
    """
    named = generators_of(references.get("synthetic"))
    if named is None or "real" not in references or isinstance(choice, AbstractDetector):
        return None
    features = {name: references["synthetic"].features[rows] for name, rows in named.items()}
    try:
        return transfer(references["real"].features, features, fit=fit_of(choice, reader), rng=rng)
    except UnreliableEstimate:
        return None
