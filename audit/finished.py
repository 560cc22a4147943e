"""A finished run as it lies on disk: the report, the answers per item, and what each item's bytes were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, UInt64

from poolproof.audit.references import find_duplicates, find_members, read_digests
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.summary import SCHEMA_VERSION
from poolproof.errors import InputError

_COLUMNS: Final = ["key", "status", "signed", "declared", "marked", "evidence", "score", "flagged"]


@dataclass(frozen=True)
class FinishedRun:
    """A run that was audited to its end.

    Attributes:
        folder: where it lies.
        report: the content of `report.json`.
        items: the answers per item, with `sha256` of their bytes; null where there were none to read.
    """

    folder: RunFolder
    report: Mapping[str, Any]
    items: pa.Table

    @cached_property
    def scored(self) -> Bool[np.ndarray, " n"]:
        """Which items were read and are distinct."""
        return _mask(pc.equal(self.items["status"], "scored"))  # pyright: ignore[reportAttributeAccessIssue]

    @cached_property
    def hit(self) -> Bool[np.ndarray, " n"]:
        """Which of them carry a signed, declared or marked finding."""
        found = [_mask(self.items[name]) for name in ("signed", "declared", "marked")]
        return self.scored & np.logical_or.reduce(found)

    @cached_property
    def answered(self) -> Bool[np.ndarray, " n"]:
        """Which of them the detector has a score for."""
        return self.scored & _mask(pc.is_valid(self.items["score"]))  # pyright: ignore[reportAttributeAccessIssue]

    @cached_property
    def flagged(self) -> Bool[np.ndarray, " n"]:
        """Which of them it flags."""
        return self.answered & _mask(self.items["flagged"])

    @property
    def sampled(self) -> bool:
        """Whether a draw of the pool was audited."""
        return self.report["pool"]["sample"] is not None

    @cached_property
    def digests(self) -> UInt64[np.ndarray, "n 2"]:
        """The first 16 bytes of the hash of each item; zeros where there were no bytes."""
        return read_digests(self.folder.evidence())[0]

    def reference_digests(self, role: str) -> UInt64[np.ndarray, "n 2"]:
        """Hashes of the items of a reference that the audit could use, in its order; none without one."""
        if self.report["references"][role] is None:
            return np.zeros((0, 2), np.uint64)
        digests, scored = read_digests(self.folder.evidence(role))
        keep = scored & ~find_duplicates(digests, scored) & ~find_members(digests, self.digests)
        return digests[keep]


def read_run(path: Path) -> FinishedRun:
    """A run that was audited to its end.

    Raises:
        InputError: the folder is not a run, its audit did not finish, or another version wrote it.
    """
    folder = RunFolder(path)
    folder.settings()
    try:
        report = json.loads(folder.report.read_text("utf-8"))
        items = pq.read_table(folder.items, columns=_COLUMNS)
        sha256 = folder.evidence().column("sha256")
    except FileNotFoundError as error:
        raise InputError(
            f"{str(path)!r} has no {Path(str(error.filename or error)).name}; the audit did not finish, "
            "give its command again"
        ) from error
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{str(path)!r} is damaged ({error}); audit the pool again") from error
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{str(path)!r}: schema_version is {version}, allowed is {SCHEMA_VERSION}; audit again"
        )
    if len(sha256) != items.num_rows:
        raise InputError(
            f"{str(path)!r} has evidence of {len(sha256)} items and answers for {items.num_rows}; "
            "give its audit command again"
        )
    return FinishedRun(folder, report, items.append_column("sha256", sha256))


def _mask(column: Any) -> Bool[np.ndarray, " n"]:
    """A column of truth values, null as false."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), bool)  # pyright: ignore[reportAttributeAccessIssue]
