"""The share from counts: what is counted where, and what is withheld."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from poolproof.audit.estimate import Calibration, calibrate, estimate_share
from poolproof.audit.items import N_BINS, Detector, Tally
from poolproof.audit.references import Reference
from poolproof.detectors.prevalence import interval

EDGES = np.linspace(-1, 1, N_BINS + 1)


def calibration(true: tuple[int, int] | None = (90, 100), false: tuple[int, int] = (10, 100)) -> Calibration:
    """A detector of known error counts."""
    detector = Detector("probe", lambda features, folds: features[:, 0], None, 0.0, 5, EDGES)
    return Calibration(detector, true, false, 0.95, np.zeros(N_BINS, np.int64), None)


def tally(scored: int, hits: int, flagged_rest: int) -> Tally:
    """Counts of a pool."""
    counts = Tally(hits=hits, flagged_rest=flagged_rest)
    counts.status["scored"] = scored
    return counts


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
