"""What may forbid a share: telling files, references of another kind, scores that nothing explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from poolproof.audit.calibration import Calibration
from poolproof.audit.items import Tally
from poolproof.audit.matched import Matched
from poolproof.audit.metadata import Facts
from poolproof.detectors.comparability import Comparability, comparable
from poolproof.detectors.mixture import GoodnessOfFit, bin_counts, goodness_of_fit
from poolproof.detectors.preflight import Confounding, confounding
from poolproof.errors import InputError, UnreliableEstimate


@dataclass(frozen=True)
class Preflight:
    """What the files say before any picture is looked at.

    Attributes:
        confounding: how well files alone tell the references apart; None without both, or with too few.
        comparability: how the references' files go with the pool's.
        why: why there is no confounding.
    """

    confounding: Confounding | None
    comparability: Comparability
    why: str | None

    @property
    def needs_matching(self) -> bool:
        """Whether the share should be estimated once more on files made alike."""
        confounded = self.confounding is not None and self.confounding.verdict == "confounded"
        return confounded or self.comparability.verdict == "incomparable"


@dataclass(frozen=True)
class Alarm:
    """Whether some mix of the two references explains the pool's scores.

    Attributes:
        fit: the test.
        words: what it says.
    """

    fit: GoodnessOfFit
    words: str


@dataclass(frozen=True)
class Checks:
    """All checks of an audit.

    Attributes:
        preflight: None without references, or with nothing scored.
        alarm: None without both references, or with too little to test.
        alarm_why: why there is no alarm.
        matched: None where it was not asked for, or nothing called for it.
    """

    preflight: Preflight | None = None
    alarm: Alarm | None = None
    alarm_why: str | None = None
    matched: Matched | None = None

    @property
    def confounded(self) -> bool:
        """Whether files alone tell the references apart."""
        found = self.preflight.confounding if self.preflight is not None else None
        return found is not None and found.verdict == "confounded"

    def incomparable(self, role: str) -> bool:
        """Whether a reference, or the `pool`, consists mostly of files that the other side lacks."""
        if self.preflight is None:
            return False
        found = self.preflight.comparability
        if role == "pool":
            return found.pool_unmatched > 0.5
        match = found.real if role == "real" else found.synthetic
        return match is not None and match.verdict == "incomparable"


def check_files(facts: Mapping[str, Facts], *, rng: np.random.Generator) -> Preflight | None:
    """What the files of pool and references say; None without a reference or without an item.

    Args:
        facts: of `pool`, `real` and `synthetic`, those that there are.
        rng: draws and deals.
    """
    real, synthetic, pool = (facts.get(role) for role in ("real", "synthetic", "pool"))
    if pool is None or not len(pool["format"]) or (real is None and synthetic is None):
        return None
    match = comparable(real, synthetic, pool)
    if real is None or synthetic is None:
        return Preflight(None, match, "it takes both references")
    try:
        return Preflight(confounding(real, synthetic, rng=rng), match, None)
    except UnreliableEstimate as error:
        return Preflight(None, match, str(error))


def check_scores(
    tally: Tally, calibration: Calibration | None, *, level: float, rng: np.random.Generator
) -> tuple[Alarm | None, str | None]:
    """Whether a mix of the references explains the scores of the items without a finding, or why that is not told.

    Args:
        tally: counts over the pool.
        calibration: scores of the references.
        level: of the test: a pool that is a mix raises an alarm in 1 - level of cases.
        rng: of the resamples.
    """
    if calibration is None or calibration.synthetic_scores is None:
        return None, "it takes both references"
    edges = calibration.detector.alarm_edges
    if edges is None or tally.alarm_counts is None:
        return None, "the references' scores are all equal, or the pool has none"
    counts = [bin_counts(scores, edges) for scores in (calibration.real_scores, calibration.synthetic_scores)]
    try:
        fit = goodness_of_fit(tally.alarm_counts, *counts, rng=rng, level=level)
    except (InputError, UnreliableEstimate) as error:
        return None, str(error)
    return Alarm(fit, fit.describe(edges)), None
