"""What a policy sees of an audited pool: status, finding and score per item, and how far to trust the detector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, UInt8

from poolproof.audit.evidence import STATUSES
from poolproof.audit.pool import one_line
from poolproof.detectors.prevalence import Interval
from poolproof.errors import InputError
from poolproof.files import replace_file

TIERS: Final = ("signed", "declared", "marked")
"""Findings that say an item is synthetic, the strongest first."""

SCORED: Final = STATUSES.index("scored")

_META: Final = b"poolproof.calibration"
_SCORES: Final = pa.schema([pa.field("role", pa.string()), pa.field("score", pa.float64())])


@dataclass(frozen=True)
class ShareLimits:
    """The share among the scored items of a pool.

    Attributes:
        point: the estimate, None where it is withheld.
        lower: lower limit.
        upper: upper limit.
        level: of both limits together, in (0, 1).
    """

    point: float | int | None
    lower: float | int
    upper: float | int
    level: float | int

    @classmethod
    def of(cls, found: Interval) -> ShareLimits:
        """The limits of an interval."""
        return cls(found.point, found.lower, found.upper, found.level)


@dataclass(frozen=True, eq=False)
class Standing:
    """What an audit knows of the share and of its detector, as far as decisions rest on it.

    Attributes:
        share: at a level that leaves half of the error to what follows from it, see `split_level`.
        level: of statements that rest on it.
        threshold: above it the detector flags; None without a detector.
        real_scores: of real references that the detector did not learn from; empty without.
        synthetic_scores: the same of synthetic references.
        real_doubt: why the real references' scores do not stand for the pool's real images; None where they do.
        synthetic_doubt: the same of the synthetic ones.
    """

    share: ShareLimits
    level: float | int
    threshold: float | int | None
    real_scores: Float[np.ndarray, " r"]
    synthetic_scores: Float[np.ndarray, " s"]
    real_doubt: str | None
    synthetic_doubt: str | None


@dataclass(frozen=True, eq=False)
class ScoredPool:
    """An audited pool as policies see it.

    Attributes:
        status: of each item, as a place in `STATUSES`.
        tier: of each scored item's strongest finding, from 1 on as in `TIERS`; 0 for none.
        scores: by the detector; NaN where it has none.
        standing: what is known of the share and the detector.
    """

    status: UInt8[np.ndarray, " n"]
    tier: UInt8[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]
    standing: Standing

    def __len__(self) -> int:
        return len(self.status)

    @property
    def scored(self) -> Bool[np.ndarray, " n"]:
        """Distinct items that were read; the share is of these."""
        return self.status == SCORED

    @property
    def found(self) -> Bool[np.ndarray, " n"]:
        """Scored items with a finding that says they are synthetic."""
        return self.scored & (self.tier > 0)

    @property
    def answered(self) -> Bool[np.ndarray, " n"]:
        """Scored items without a finding that the detector has a score for."""
        return self.scored & (self.tier == 0) & ~np.isnan(self.scores)


def write_standing(path: Path, standing: Standing, plan_sha256: str) -> None:
    """Writes what decisions need of an audit to `path`."""
    told = {
        "plan_sha256": plan_sha256,
        "share": vars(standing.share),
        "level": standing.level,
        "threshold": standing.threshold,
        "real_doubt": standing.real_doubt,
        "synthetic_doubt": standing.synthetic_doubt,
    }
    sides = {"real": standing.real_scores, "synthetic": standing.synthetic_scores}
    table = pa.table(
        {
            "role": [role for role, scores in sides.items() for _ in range(len(scores))],
            "score": np.concatenate([_as_stored(scores) for scores in sides.values()]),
        },
        schema=_SCORES.with_metadata({_META: json.dumps(told, sort_keys=True).encode()}),
    )
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_standing(path: Path, plan_sha256: str) -> Standing:
    """What `write_standing` wrote.

    Raises:
        InputError: there is none, it is damaged, or the plan is another.
    """
    try:
        table = pq.read_table(path)
        told: dict[str, Any] = json.loads((table.schema.metadata or {})[_META])
        role, score = table.column("role").to_pylist(), table.column("score").to_numpy()
        is_real = np.array([name == "real" for name in role], bool)
        standing = Standing(
            ShareLimits(**told["share"]),
            told["level"],
            told["threshold"],
            score[is_real],
            score[~is_real],
            told["real_doubt"],
            told["synthetic_doubt"],
        )
    except FileNotFoundError as error:
        raise InputError(
            f"run {str(path.parent)!r} has no {path.name}: it is unfinished, of an earlier version, or "
            "not one image could be judged; "
            "give its audit command again"
        ) from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({one_line(error)}); give the audit command again"
        ) from error
    if told["plan_sha256"] != plan_sha256:
        raise InputError(f"{str(path)!r} belongs to another plan; give the audit command again")
    return standing


def read_scored_pool(items: Path, standing: Standing) -> ScoredPool:
    """The pool of an `items.parquet`, read row group by row group; 6 bytes an item are held.

    Raises:
        InputError: the file is gone or damaged.
    """
    status, tier, scores = [], [], []
    try:
        with pq.ParquetFile(items) as file:
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=["status", "score", *TIERS])
                place = pc.call_function(
                    "index_in", [table.column("status")], pc.SetLookupOptions(value_set=pa.array(STATUSES))
                )
                status.append(place.to_numpy().astype(np.uint8))
                here = np.zeros(table.num_rows, np.uint8)
                for number, name in reversed(list(enumerate(TIERS, start=1))):
                    here[pc.fill_null(table.column(name), False).to_numpy().astype(bool)] = number
                tier.append(np.where(status[-1] == SCORED, here, 0).astype(np.uint8))
                scores.append(pc.fill_null(table.column("score"), float("nan")).to_numpy().astype(np.float32))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{str(items)!r} cannot be read ({one_line(error)}); give the audit command again"
        ) from error
    return ScoredPool(np.concatenate(status), np.concatenate(tier), np.concatenate(scores), standing)


def _as_stored(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Scores rounded as those of items are, so that both compare alike."""
    return np.asarray(scores, np.float32).astype(np.float64)
