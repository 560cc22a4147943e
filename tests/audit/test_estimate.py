"""The share from counts: what is counted where, and what is withheld."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import stats

from poolproof.audit.calibration import Calibration, calibrate
from poolproof.audit.checks import Alarm, Checks, Preflight
from poolproof.audit.estimate import estimate_share
from poolproof.audit.items import N_BINS, Detector, Tally
from poolproof.audit.matched import Matched
from poolproof.audit.references import Reference
from poolproof.detectors.comparability import Comparability, Match, ReferenceMatch
from poolproof.detectors.detector import Scores
from poolproof.detectors.mixture import GoodnessOfFit
from poolproof.detectors.preflight import Confounding
from poolproof.detectors.prevalence import Interval, interval, lower_bound
from poolproof.detectors.soft import Moments

Verdict = Literal["clean", "undecided", "confounded"]

EDGES = np.linspace(-1, 1, N_BINS + 1)


def calibration(true: tuple[int, int] | None = (90, 100), false: tuple[int, int] = (10, 100)) -> Calibration:
    """A detector of known error counts."""

    def answer(features: np.ndarray, folds: np.ndarray) -> Scores:
        return Scores(features[:, 0], np.zeros(len(features), bool))

    detector = Detector("probe", answer, None, 0.0, 5, EDGES)
    scores = None if true is None else np.linspace(-0.2, 1, 100)
    return Calibration(detector, true, false, None, np.linspace(-1, 0.2, 100), scores)


def tally(scored: int, hits: int, flagged_rest: int) -> Tally:
    """Counts of a pool."""
    rest = scored - hits
    counts = Tally(hits=hits, answered_rest=rest, flagged_rest=flagged_rest, soft=Moments(rest, 0.5, 0.04))
    counts.status["scored"] = scored
    return counts


def preflight(verdict: Verdict, real: Match = "comparable", synthetic: Match = "comparable") -> Preflight:
    """What the check of files found."""
    area = (
        Interval(0.9, 0.85, 0.95, 0.95, "auc")
        if verdict == "confounded"
        else Interval(0.5, 0.4, 0.6, 0.95, "auc")
    )
    words = ("Nine in ten are JPEG.",)
    match = Comparability(
        ReferenceMatch(1.0, 1.0, real), ReferenceMatch(1.0, 1.0, synthetic), 0.0, real, words
    )
    return Preflight(Confounding(area, area, (), verdict, words), match, None)


def alarm(fires: bool) -> Alarm:
    """What the check of scores found."""
    fit = GoodnessOfFit(0.3, 40.0, 0.001 if fires else 0.5, 0.95, fires, np.zeros(20))
    return Alarm(fit, "no mix explains the scores" if fires else "a mix explains the scores")


def matched(share: Interval | None) -> Matched:
    """The estimate on files made alike."""
    return Matched("64 x 64 pixels", share, 100, 100, 100, 0.8, None if share else "too small")


def test_hits_are_a_floor_and_the_rest_is_estimated() -> None:
    """The share is the hits plus the melded share of the others, over all scored items."""
    share = estimate_share(tally(1000, 100, 270), calibration(), None, sample=None, level=0.95)
    rest = interval(270, 900, 90, 100, 10, 100)
    assert share is not None
    assert rest.point is not None
    assert share.interval.point == pytest.approx((100 + 900 * rest.point) / 1000)
    assert share.interval.lower == pytest.approx((100 + 900 * rest.lower) / 1000)
    assert share.interval.upper == pytest.approx((100 + 900 * rest.upper) / 1000)
    assert share.why is None


def test_useless_detector_withholds_the_point() -> None:
    """Where real references are flagged as often as synthetic ones, there is no point, and the limits are wide."""
    share = estimate_share(
        tally(1000, 50, 300), calibration((30, 100), (40, 100)), None, sample=None, level=0.95
    )
    assert share is not None
    assert share.interval.point is None
    assert share.interval.lower >= 0.05
    assert share.interval.upper == 1.0
    assert share.why is not None
    assert "as often" in share.why


def test_no_calibration_gives_the_floor_and_the_reason() -> None:
    """Without references the share lies between the floor and 1, and the reason is passed on."""
    share = estimate_share(tally(200, 30, 0), None, "because", sample=None, level=0.95)
    assert share is not None
    assert (share.interval.point, share.interval.lower, share.interval.upper) == (None, 0.15, 1.0)
    assert share.why == "because"


def test_sampled_floor_is_exact_binomial() -> None:
    """In a sample without references the lower limit is Clopper and Pearson's of the hits, at half the error."""
    share = estimate_share(tally(200, 30, 0), None, "because", sample=200, level=0.95)
    assert share is not None
    expected = stats.binomtest(30, 200).proportion_ci(0.975, method="exact").low
    assert share.interval.lower == pytest.approx(expected, rel=1e-9)
    assert any("random sample" in sentence for sentence in share.assumes)


def test_nothing_scored_has_no_share() -> None:
    """Without a readable item there is nothing to say."""
    assert estimate_share(tally(0, 0, 0), calibration(), None, sample=None, level=0.95) is None


def test_all_hits_is_certain() -> None:
    """A pool of declared items alone has the share 1, with or without a detector."""
    for found in (calibration(), None):
        share = estimate_share(tally(5, 5, 0), found, None, sample=None, level=0.95)
        assert share is not None
        assert (share.interval.point, share.interval.lower, share.interval.upper) == (1.0, 1.0, 1.0)


def test_synthetic_reference_alone_is_not_enough() -> None:
    """A synthetic reference without a real one calibrates nothing and says what is missing."""
    digests = np.arange(40, dtype=np.uint64).reshape(20, 2)
    synthetic = Reference("s", np.zeros((20, 3), np.float32), digests, 20, 20, 0, np.arange(20), ("",) * 20)
    found, why = calibrate(None, synthetic, rng=np.random.default_rng(0))
    assert found is None
    assert why is not None
    assert "--real" in why


@pytest.mark.coverage
def test_interval_covers_with_hits_and_detector() -> None:
    """Over seeded pools with hits and an imperfect detector, the interval holds the truth at its level."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(120):
        truth, n = 0.3, 1000
        synthetic = int(rng.binomial(n, truth))
        hits = int(rng.binomial(synthetic, 0.2))
        flagged = int(rng.binomial(synthetic - hits, 0.8) + rng.binomial(n - synthetic, 0.1))
        found = calibration((int(rng.binomial(150, 0.8)), 150), (int(rng.binomial(150, 0.1)), 150))
        share = estimate_share(tally(n, hits, flagged), found, None, sample=None, level=0.95)
        assert share is not None
        held += share.interval.lower <= synthetic / n <= share.interval.upper
    assert held >= stats.binom.ppf(0.001, 120, 0.95)


def test_every_method_is_told_beside_the_answer() -> None:
    """The estimates are melded, its closed form, soft scores and the lower bound, all over the whole pool."""
    share = estimate_share(tally(1000, 100, 270), calibration(), None, sample=None, level=0.95)
    assert share is not None
    assert [each.method for each in share.estimates] == [
        "melded",
        "lang-reiczigel",
        "pacc-fieller",
        "melded-lower",
    ]
    assert share.estimates[0].point == share.interval.point
    assert all(each.lower >= 0.1 for each in share.estimates)


def test_alarm_withholds_the_point_and_gives_the_lower_bound() -> None:
    """Where no mix explains the pool, the point is withheld and the real-only bound, over the floor, remains."""
    share = estimate_share(
        tally(1000, 100, 270), calibration(), None, sample=None, level=0.95, checks=Checks(alarm=alarm(True))
    )
    assert share is not None
    bound = lower_bound(270, 900, 10, 100)
    assert (share.interval.point, share.interval.upper) == (None, 1.0)
    assert share.interval.lower == pytest.approx((100 + 900 * bound.lower) / 1000)
    assert share.method == "lower-bound+floor"
    assert share.why is not None
    assert "unknown generator" in share.why


def test_checks_that_pass_change_nothing() -> None:
    """A quiet alarm and clean files leave the headline as it is."""
    plain = estimate_share(tally(1000, 100, 270), calibration(), None, sample=None, level=0.95)
    checks = Checks(preflight("clean"), alarm(False))
    assert (
        estimate_share(tally(1000, 100, 270), calibration(), None, sample=None, level=0.95, checks=checks)
        == plain
    )


def test_a_synthetic_reference_of_other_files_leaves_the_lower_bound() -> None:
    """Real references that compare still bound the share from below."""
    checks = Checks(preflight("clean", synthetic="incomparable"))
    share = estimate_share(tally(1000, 0, 270), calibration(), None, sample=None, level=0.95, checks=checks)
    assert share is not None
    assert share.method == "lower-bound+floor"
    assert share.why is not None
    assert "synthetic reference cannot be compared" in share.why


@pytest.mark.parametrize("true", [(90, 100), None])
def test_a_real_reference_of_other_files_leaves_the_floor(true: tuple[int, int] | None) -> None:
    """Without comparable real references not even false alarms are known."""
    checks = Checks(preflight("clean", real="incomparable"))
    share = estimate_share(
        tally(1000, 50, 270), calibration(true), None, sample=None, level=0.95, checks=checks
    )
    assert share is not None
    assert share.method == "floor"
    assert (share.interval.point, share.interval.lower, share.interval.upper) == (None, 0.05, 1.0)
    assert share.why is not None
    assert "Nine in ten" in share.why


@pytest.mark.parametrize(
    ("again", "method", "told"),
    [
        (None, "floor", False),
        (matched(None), "floor", False),
        (matched(Interval(0.25, 0.2, 0.5, 0.95, "melded")), "hull+floor", True),
        (matched(Interval(0.02, 0.0, 0.05, 0.95, "melded")), "hull+floor", False),
        (matched(Interval(None, 0.0, 1.0, 0.95, "melded")), "hull+floor", False),
    ],
)
def test_confounded_files_need_a_second_estimate_that_agrees(
    again: Matched | None, method: str, told: bool
) -> None:
    """Where files give the classes away, the share stands only if it survives making them alike.

    The limits hold both estimates, so a second one that leaves everything open confirms nothing.
    """
    checks = Checks(preflight("confounded"), alarm(False), matched=again)
    share = estimate_share(tally(1000, 0, 300), calibration(), None, sample=None, level=0.95, checks=checks)
    assert share is not None
    assert share.method == method
    assert (share.interval.point is not None) == told
    assert (share.why is None) == told
    if again is not None and again.share is not None:
        first = interval(300, 1000, 90, 100, 10, 100)
        assert share.interval.lower == pytest.approx(min(first.lower, again.share.lower))
        assert share.interval.upper == pytest.approx(max(first.upper, again.share.upper))
        assert share.estimates[-1].method == "matched"


def test_items_without_a_score_are_assumed_like_the_others() -> None:
    """Abstentions are left out of the flags, and the assumption is told."""
    counts = tally(1000, 0, 270)
    counts.answered_rest = 900
    share = estimate_share(counts, calibration(), None, sample=None, level=0.95)
    assert share is not None
    assert share.interval.point == pytest.approx(interval(270, 900, 90, 100, 10, 100).point)
    assert any("no score" in sentence for sentence in share.assumes)


def test_alarm_on_confounded_files_leaves_what_holds_for_both() -> None:
    """With a generator that no reference holds, the lower bound counts only as far as matched files allow."""
    again = matched(Interval(0.02, 0.0, 0.05, 0.95, "melded"))
    checks = Checks(preflight("confounded"), alarm(True), matched=again)
    share = estimate_share(tally(1000, 0, 300), calibration(), None, sample=None, level=0.95, checks=checks)
    assert share is not None
    assert (share.interval.point, share.interval.lower, share.interval.upper) == (None, 0.0, 1.0)
    assert share.why is not None
    assert "files alone" in share.why
    assert "unknown generator" in share.why
