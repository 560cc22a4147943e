"""Shares of parts of a pool that hold together, and the share for a generator nobody has named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poolproof.detectors.melding import least_limit, lower_draw, upper_draw, upper_limit
from poolproof.detectors.prevalence import Interval, check_count, check_level, interval, with_floor
from poolproof.errors import InputError


@dataclass(frozen=True)
class GroupCounts:
    """What was found in one part of a pool.

    Attributes:
        flagged_rest: items above the threshold, hits left out.
        rest: scored items that are no hits.
        hits: items known to be synthetic (signed, declared, marked).
    """

    flagged_rest: int
    rest: int
    hits: int


@dataclass(frozen=True)
class SubgroupShares:
    """Shares of the parts of a pool.

    Attributes:
        shares: by part, each at `single_level`.
        level: that of all intervals together: the chance that every one holds its share.
        single_level: that of each by itself.
    """

    shares: Mapping[str, Interval]
    level: float
    single_level: float


def subgroup_shares(
    groups: Mapping[str, GroupCounts],
    true_positives: int,
    synthetic: int,
    false_positives: int,
    real: int,
    *,
    level: float = 0.95,
) -> SubgroupShares:
    """Return the share of each part of a pool, with limits that hold for all parts at once.

    Of m parts each interval gets the error (1 - level)/m. Bonferroni's correction needs no independence, which
    there is none of: all parts lean on the same references. Parts may overlap, and the largest share of all
    may be picked out afterwards: its limits still hold.

    Args:
        groups: counts by part, at least one part, each with items.
        true_positives: synthetic references above the threshold.
        synthetic: synthetic references, at least 1.
        false_positives: real references above the threshold.
        real: real references, at least 1.
        level: confidence level in (0, 1) of all intervals together.

    Raises:
        InputError: there is no part, a part has no items, a count or the level is out of range.

    Source: Bonferroni's inequality; each interval as `interval` and `with_floor` in `detectors/prevalence.py`.
    Assumes: as `interval`, within each part: t and f are the same in all of them. A part whose images have
        another size, codec or subject than the references breaks this before the whole pool does.
    """
    if not groups:
        raise InputError("groups: got none, allowed 1 or more: give the parts of the pool")
    single = 1 - (1 - check_level(level)) / len(groups)
    shares = {}
    for name, group in groups.items():
        rest = None
        if group.rest > 0:
            references = true_positives, synthetic, false_positives, real
            rest = interval(group.flagged_rest, group.rest, *references, level=single)
        elif group.flagged_rest:
            raise InputError(
                f"{name}: got {group.flagged_rest} flagged of {group.rest}, allowed 0: count again"
            )
        shares[name] = with_floor(group.hits, rest, group.rest)
    return SubgroupShares(shares, level, single)


def unknown_generator_interval(
    flagged: int,
    pool: int,
    generators: Mapping[str, tuple[int, int]],
    false_positives: int,
    real: int,
    *,
    level: float = 0.95,
) -> Interval:
    """Return limits of the share for an unknown generator that is caught as often as some known ones.

    That is, no more often than the best caught of them and no less often than the worst. For each generator,
    count what a detector catches of it that has not seen it (leave one generator out). The lower limit is
    the least of the melded ones over the generators, the upper limit the largest. If the unknown rate lies
    between those of the best and the worst, the lower limit of the best is valid, and so is anything below
    it, whichever generator the best is: no correction for their number is due.

    Args:
        flagged: items of the pool above the threshold.
        pool: items of the pool that were scored, at least 1.
        generators: by name, its images above the threshold and all of its images, each left out of fitting.
        false_positives: real references above the threshold.
        real: real references, at least 1.
        level: confidence level in (0, 1).

    Returns:
        An interval with no point.

    Raises:
        InputError: there is no generator, or a count or the level is out of range.

    Source: the melding of Bayer, Fay and Graubard, arXiv 2205.13494, at both ends of a range of sensitivities.
    Assumes: as `interval`, but for the generator: its true positive rate lies within the range of the known
        ones. One that is caught less often than all of them breaks the upper limit; `lower_bound` holds for any.
    """
    if not generators:
        raise InputError("generators: got none, allowed 1 or more: leave each known generator out in turn")
    check_count("flagged", flagged, "pool", pool)
    check_count("false_positives", false_positives, "real", real)
    error = (1.0 - check_level(level)) / 2
    q, f = (
        (lower_draw(flagged, pool), upper_draw(flagged, pool)),
        (lower_draw(false_positives, real), upper_draw(false_positives, real)),
    )
    lower, upper = 1.0, 0.0
    for name, (caught, images) in generators.items():
        check_count(f"{name}, caught", caught, f"{name}, images", images)
        lower = min(lower, least_limit(q[0], f[1], upper_draw(caught, images), error))
        upper = max(upper, upper_limit(q[1], f[0], lower_draw(caught, images), 1 - error))
    return Interval(None, lower, upper, level, "melded-generators")
