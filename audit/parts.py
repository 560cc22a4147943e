"""A run in parts: each process reads its share of the shards, as in a job array, and one writes the report.

Parts need no word with each other. The first one that comes pins plans and settings, the others read them, and a
shard belongs to exactly one part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poolproof.audit.engine import unfinished
from poolproof.audit.plan import Plan
from poolproof.errors import InputError


@dataclass(frozen=True)
class Part:
    """One of several parts of a run.

    Attributes:
        number: which one, from 1.
        of: how many there are.
    """

    number: int
    of: int

    def shards(self, plans: Mapping[str, Plan]) -> dict[str, list[int]]:
        """The part's shards by role: every `of`-th, counted through all plans, so that small ones are shared too."""
        mine, before = {}, 0
        for role, plan in plans.items():
            mine[role] = [i for i in range(plan.n_shards) if (before + i) % self.of == self.number - 1]
            before += plan.n_shards
        return mine


@dataclass(frozen=True)
class Progressed:
    """What a part has done.

    Attributes:
        part: which one.
        shards: its shards by role.
        items: how many items those hold, by role.
        missing: shards of other parts that were not done when it ended, by role.
    """

    part: Part
    shards: Mapping[str, Sequence[int]]
    items: Mapping[str, int]
    missing: Mapping[str, Sequence[int]]


def parse_part(text: str) -> Part:
    """The part that a text such as `2/16` names: the second of sixteen.

    Raises:
        InputError: another form, or a number that is not from 1 to N.

    >>> parse_part("2/16")
    Part(number=2, of=16)
    """
    found = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(
            f"--shards: got {text!r}, allowed I/N with I from 1 to N; for example 1/16, the first of sixteen parts"
        )
    return Part(int(found[1]), int(found[2]))


def find_missing(plans: Mapping[str, tuple[Plan, Path]], config_sha256: str) -> dict[str, list[int]]:
    """Shards without evidence by role, roles without such left out.

    Args:
        plans: plan and folder of the evidence by role.
        config_sha256: as in the markers.
    """
    missing = {role: unfinished(plan, evidence, config_sha256) for role, (plan, evidence) in plans.items()}
    return {role: shards for role, shards in missing.items() if shards}


def describe_shards(shards: Mapping[str, Sequence[int]]) -> str:
    """Shards by role in words.

    >>> describe_shards({"pool": [3, 7, 8, 9], "real": [0]})
    '3, 7-9 of the pool; 0 of the real reference'
    """
    return "; ".join(
        f"{_ranges(numbers)} of the {role if role == 'pool' else f'{role} reference'}"
        for role, numbers in shards.items()
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, neighbours drawn together; at most ten ranges are named."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges]
    rest = len(words) - 10
    return ", ".join(words[:10]) + (f" and {rest} more ranges" if rest > 0 else "")
