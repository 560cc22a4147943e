"""Tests of shares of parts of a pool and of unknown generators: level over all parts, range, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from poolproof.detectors.prevalence import interval, with_floor
from poolproof.detectors.subgroups import GroupCounts, subgroup_shares, unknown_generator_interval
from poolproof.errors import InputError

REFERENCES = 180, 200, 10, 200


def test_one_part_is_the_pool() -> None:
    """A single part gets the interval of a pool, hits as its floor."""
    found = subgroup_shares({"all": GroupCounts(230, 1000, 50)}, *REFERENCES)
    assert found.shares["all"] == with_floor(50, interval(230, 1000, *REFERENCES), 1000)
    assert (found.level, found.single_level) == (0.95, 0.95)


def test_more_parts_are_wider() -> None:
    """The same counts among ten parts have wider limits, at a hundredth less error each of a tenth."""
    part = GroupCounts(230, 1000, 0)
    one = subgroup_shares({"a": part}, *REFERENCES).shares["a"]
    many = subgroup_shares({str(i): part for i in range(10)}, *REFERENCES)
    assert many.single_level == pytest.approx(0.995)
    assert many.shares["3"].lower < one.lower < one.upper < many.shares["3"].upper


def test_a_part_of_hits_alone_is_all_synthetic() -> None:
    """Where every item is known to be synthetic nothing is estimated."""
    found = subgroup_shares({"signed": GroupCounts(0, 0, 9), "rest": GroupCounts(5, 100, 0)}, *REFERENCES)
    assert (found.shares["signed"].lower, found.shares["signed"].upper) == (1.0, 1.0)


@pytest.mark.coverage
def test_all_parts_hold_their_shares_together() -> None:
    """With three parts and shared references, all three intervals hold in 95 % of runs."""
    rng, (t, f), held, runs = np.random.default_rng(8), (0.85, 0.08), 0, 20
    shares = (0.0, 0.1, 0.6)
    for _ in range(runs):
        groups = {str(s): GroupCounts(int(rng.binomial(2000, s * t + (1 - s) * f)), 2000, 0) for s in shares}
        references = int(rng.binomial(150, t)), 150, int(rng.binomial(150, f)), 150
        found = subgroup_shares(groups, *references).shares
        held += all(found[str(s)].lower <= s <= found[str(s)].upper for s in shares)
    assert held / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


def test_one_generator_is_the_plain_interval() -> None:
    """With a single known generator the limits are those of the melded interval, without its point."""
    plain, found = (
        interval(230, 1000, *REFERENCES),
        unknown_generator_interval(230, 1000, {"a": (180, 200)}, 10, 200),
    )
    assert (found.point, found.lower, found.upper) == (
        None,
        pytest.approx(plain.lower, abs=1e-6),
        pytest.approx(plain.upper, abs=1e-6),
    )


def test_the_range_is_from_the_best_to_the_worst() -> None:
    """The lower limit is that of the best caught generator, the upper that of the worst."""
    generators = {"easy": (195, 200), "mid": (150, 200), "hard": (90, 200)}
    found = unknown_generator_interval(230, 1000, generators, 10, 200)
    assert found.lower == pytest.approx(interval(230, 1000, 195, 200, 10, 200).lower, abs=1e-6)
    assert found.upper == pytest.approx(interval(230, 1000, 90, 200, 10, 200).upper, abs=1e-6)


def test_a_generator_that_is_never_caught_leaves_the_share_open() -> None:
    """One generator caught no more often than real images makes the upper limit 1."""
    found = unknown_generator_interval(230, 1000, {"easy": (195, 200), "none": (2, 200)}, 10, 200)
    assert found.upper == 1.0
    assert found.lower > 0.1


@pytest.mark.coverage
@pytest.mark.parametrize("t", [0.5, 0.7, 0.95])
def test_any_generator_within_the_range_is_held(t: float) -> None:
    """Whatever the unknown rate between the known ones, the limits hold the share in 95 % of runs."""
    rng, share, f, held, runs = np.random.default_rng(9), 0.2, 0.05, 0, 12
    for _ in range(runs):
        flagged = int(rng.binomial(20_000, share * t + (1 - share) * f))
        known = {str(rate): (int(rng.binomial(100, rate)), 100) for rate in (0.5, 0.8, 0.95)}
        found = unknown_generator_interval(flagged, 20_000, known, int(rng.binomial(100, f)), 100)
        held += found.lower <= share <= found.upper
    assert held / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


def test_bad_input_is_named() -> None:
    """No parts, an empty part, flags without items, no generators and bad counts are refused by name."""
    with pytest.raises(InputError, match=r"^groups: "):
        subgroup_shares({}, *REFERENCES)
    with pytest.raises(InputError, match="rest_size"):
        subgroup_shares({"a": GroupCounts(0, 0, 0)}, *REFERENCES)
    with pytest.raises(InputError, match=r"^a: got 3 flagged"):
        subgroup_shares({"a": GroupCounts(3, 0, 2)}, *REFERENCES)
    with pytest.raises(InputError, match=r"^level: "):
        subgroup_shares({"a": GroupCounts(3, 10, 2)}, *REFERENCES, level=95.0)
    with pytest.raises(InputError, match=r"^generators: "):
        unknown_generator_interval(1, 10, {}, 1, 10)
    with pytest.raises(InputError, match=r"^hard, caught: "):
        unknown_generator_interval(1, 10, {"hard": (11, 10)}, 1, 10)
