"""The items that a decision keeps, in the order of the pool, and the check that their bytes are those judged."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from poolproof.audit.decision import DecisionFile
from poolproof.audit.plan import Plan, open_reader
from poolproof.audit.pool import AbstractReader, ItemRef, Unread
from poolproof.errors import InputError

_COLUMNS: Final = ["row", "keep", "weight", "sha256"]


@dataclass(frozen=True)
class KeptItem:
    """An item that stays.

    Attributes:
        ref: where it lies in the pool.
        sha256: of the bytes that were judged, None where none were read.
        weight: of it in training.
    """

    ref: ItemRef
    sha256: bytes | None
    weight: float | int


@dataclass(frozen=True)
class Kept:
    """The kept items of a plan; position i is the i-th that stays."""

    plan: Plan
    decision: DecisionFile

    @property
    def kind(self) -> str:
        """How the pool is stored."""
        return self.plan.meta["reader"]["kind"]

    @cached_property
    def reader(self) -> AbstractReader:
        """Reads the pool's items."""
        return open_reader(self.plan.meta["reader"])

    @cached_property
    def bounds(self) -> list[int]:
        """Position of the first kept item of each shard of the plan, and at the end how many there are."""
        counts = [int(t.column("keep").to_numpy().sum()) for t in self.decision.shards(["keep"])]
        return [0, *itertools.accumulate(counts)]

    @cached_property
    def weighted(self) -> bool:
        """Whether any kept item weighs other than 1."""
        return any(
            (table.column("weight").to_numpy()[table.column("keep").to_numpy()] != 1).any()
            for table in self.decision.shards(["keep", "weight"])
        )

    def __len__(self) -> int:
        return self.bounds[-1]

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[KeptItem]:
        """The kept items from one position up to another; memory holds one shard of the plan.

        Raises:
            InputError: the decision is about other rows than the plan.
        """
        stop = len(self) if stop is None else stop
        for shard in range(self.plan.n_shards):
            first, last = self.bounds[shard], self.bounds[shard + 1]
            if first < last and first < stop and last > start:
                yield from itertools.islice(
                    self._shard(shard), max(start - first, 0), min(stop, last) - first
                )

    def read_keys(self) -> Iterator[str]:
        """The keys of the kept items."""
        for table in self.decision.shards(["key", "keep"]):
            yield from table.filter(table.column("keep")).column("key").to_pylist()

    def count_reasons(self) -> dict[str, dict[str, int]]:
        """How many items are `kept` and `dropped` for each reason's code."""
        counts: dict[str, Counter[str]] = {"kept": Counter(), "dropped": Counter()}
        for table in self.decision.shards(["keep", "reason"]):
            for keep, reason in zip(*(table.column(i).to_pylist() for i in (0, 1)), strict=True):
                counts["kept" if keep else "dropped"][reason.partition(":")[0]] += 1
        return {name: dict(sorted(counter.items())) for name, counter in counts.items()}

    def _shard(self, index: int) -> Iterator[KeptItem]:
        table = self.decision.shard(index)
        refs = self.plan.shard(index).refs
        if table.column("row").to_pylist() != [ref.row for ref in refs]:
            raise InputError(
                f"decision {str(self.decision.path)!r}: its rows of shard {index} are not the plan's; decide again"
            )
        columns = (table.column(name).to_pylist() for name in _COLUMNS[1:])
        for ref, keep, weight, digest in zip(refs, *columns, strict=True):
            if keep:
                yield KeptItem(ref, digest, weight)


def open_kept(plan: Plan, decision: DecisionFile) -> Kept:
    """The kept items.

    Raises:
        InputError: the decision is about another plan, or keeps nothing.
    """
    if decision.header.get("plan_sha256") != plan.sha256 or decision.sizes != plan.sizes:
        raise InputError(
            f"decision {str(decision.path)!r} was made on another run than {str(plan.path.parent)!r}; decide again"
        )
    kept = Kept(plan, decision)
    if len(kept) == 0:
        raise InputError(
            f"decision {str(decision.path)!r} keeps none of {plan.n_items} items; choose another policy"
        )
    return kept


def check_bytes(item: KeptItem, data: bytes | Unread) -> bytes:
    """The bytes, where they are those that were judged.

    Raises:
        InputError: the item is gone, cannot be read, has other bytes, or was never read.
    """
    if item.sha256 is None:
        raise InputError(
            f"the decision keeps {item.ref.key!r}, of which no bytes were read; drop what could not be read"
        )
    if isinstance(data, Unread):
        raise changed(item, data.reason)
    if hashlib.sha256(data).digest() != item.sha256:
        raise changed(item, "it has other bytes")
    return data


def changed(item: KeptItem, why: str) -> InputError:
    """The error that stops the writing where the pool is not what was audited."""
    return InputError(f"the pool changed since the audit: {item.ref.key!r} ({why}); audit it again")


def read_kept(reader: AbstractReader, items: Sequence[KeptItem]) -> Iterator[tuple[KeptItem, bytes]]:
    """Each item with its checked bytes."""
    for item, data in zip(items, reader.read([item.ref for item in items]), strict=True):
        yield item, check_bytes(item, data)
