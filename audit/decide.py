"""The decision on an audited pool: a policy's choice, what it costs and leaves, and a reason for every item."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolproof.audit.decision import DECISION, DECISION_VERSION, DecisionFile, read_decision, write_decision
from poolproof.audit.evidence import STATUSES
from poolproof.audit.ledger import Balance, Ledger
from poolproof.audit.policy import AbstractPolicy, CapRatio, Choice, HoldAdmissible
from poolproof.audit.pool import one_line
from poolproof.audit.region import AbstractRegion, RatioRegion
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.scored_pool import TIERS, ScoredPool, read_scored_pool, read_standing
from poolproof.audit.write_place import is_leftover
from poolproof.errors import InputError
from poolproof.files import hash_file, write_json

UNREAD: Final = ("unreadable", "unsupported")
"""Statuses of items that are there but were not judged."""

DUPLICATE: Final = STATUSES.index("duplicate")


@dataclass(frozen=True, eq=False)
class Judged:
    """An audited pool that is ready to be decided on.

    Attributes:
        run: the audit.
        pool: its items.
        ledger: accounts for any cut.
        plan_sha256: of the run's plan.
        items_sha256: of its answer per item.
    """

    run: RunFolder
    pool: ScoredPool
    ledger: Ledger
    plan_sha256: str
    items_sha256: str


@dataclass(frozen=True, eq=False)
class Verdict:
    """A policy's choice and what follows from it.

    Attributes:
        policy: that chose.
        choice: what it chose.
        balance: what that costs and leaves.
        region: that the pool is held against; None for none.
        before: the region's word for the pool before the cut, or `undecided`; None without a region.
        after: the same after it.
    """

    policy: AbstractPolicy
    choice: Choice
    balance: Balance
    region: AbstractRegion | None
    before: str | None
    after: str | None

    @property
    def reached(self) -> bool:
        """Whether the policy's aim was met."""
        return self.choice.shortfall is None


def judge_run(path: Path, *, seed: int = 0) -> Judged:
    """The pool of a finished run, ready to be decided on.

    Args:
        path: the run's folder.
        seed: of the bands that limits rest on.

    Raises:
        InputError: no run, not finished, damaged, or a run of a sample.
    """
    run = RunFolder(path)
    run.settings()
    plan = run.plan()
    sample = plan.meta["sample"]
    if sample is not None:
        raise InputError(
            f"run {str(path)!r} audited a sample of {sample:,} of {plan.n_pool:,} items; a decision needs evidence of "
            "every item: audit into another folder without --sample"
        )
    if not run.items.is_file() or not run.report.is_file():
        raise InputError(f"run {str(path)!r} is not finished; give its audit command again")
    standing = read_standing(run.calibration, plan.sha256)
    _check_whole(run)
    pool = read_scored_pool(run.items, standing)
    if len(pool) != plan.n_items:
        raise InputError(
            f"run {str(path)!r}: items.parquet holds {len(pool):,} items and the plan {plan.n_items:,}; audit again"
        )
    ledger = Ledger(pool, rng=np.random.default_rng([seed, 0xDEC1DE]))
    return Judged(run, pool, ledger, plan.sha256, hash_file(run.items))


def _check_whole(run: RunFolder) -> None:
    """Refuses files that are not those of the report: an audit was stopped between them, or they were changed."""
    try:
        written = json.loads(run.report.read_text("utf-8"))["manifest"].get("files", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{str(run.report)!r} cannot be read ({one_line(error)}); give the audit command again"
        ) from error
    for file in (run.items, run.calibration):
        if written.get(file.name) not in (None, hash_file(file)):
            raise InputError(
                f"run {str(run.path)!r}: {file.name} is not the one that the report is of; give the audit command again"
            )


def decide(judged: Judged, policy: AbstractPolicy, region: AbstractRegion | None = None) -> Verdict:
    """A policy's choice for a pool, with what it costs and leaves.

    Args:
        judged: the pool.
        policy: that chooses.
        region: that the pool is held against before and after; None takes the policy's own, if it has one.

    Raises:
        InputError: the audit does not carry what the policy needs.
    """
    if isinstance(policy, HoldAdmissible):
        region = policy.region
    elif region is None and isinstance(policy, CapRatio):
        region = RatioRegion(policy.max_ratio)
    choice = policy.choose(judged.ledger)
    balance = judged.ledger.balance(choice.cut)
    before = after = None
    if region is not None:
        found, rest = judged.ledger.n_found, judged.ledger.rest
        before = region.verdict(balance.n, found + rest.lower, found + rest.upper)
        after = region.verdict(balance.kept, balance.synthetic_left.lower, balance.synthetic_left.upper)
    return Verdict(policy, choice, balance, region, before, after)


def save_decision(
    judged: Judged,
    verdict: Verdict,
    out: Path,
    *,
    duplicates: str = "drop",
    unread: str = "drop",
    command: str = "",
) -> tuple[DecisionFile, dict[str, Any]]:
    """The decision as written to `out/decision.parquet`, and its statement, as written to `out/decision.json`.

    Args:
        judged: the pool.
        verdict: of the policy.
        out: folder, made if needed.
        duplicates: what becomes of items whose bytes occurred before: `drop`, or `keep` to let them go with the first.
        unread: what becomes of items that are there but were not judged: `drop` or `keep`.
        command: that asked for it, for the record.

    Raises:
        InputError: an option is unknown.
    """
    for name, value in (("duplicates", duplicates), ("unread", unread)):
        if value not in ("drop", "keep"):
            raise InputError(f"--{name}: got {value!r}, allowed drop or keep")
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    options = {"policy": verdict.policy.describe(), "duplicates": duplicates, "unread": unread}
    header = {"plan_sha256": judged.plan_sha256, "items_sha256": judged.items_sha256, **options}
    reasons: Counter[str] = Counter()
    shards = _shards(judged, verdict, duplicates == "keep", unread == "keep", reasons)
    path = out / "decision.parquet"
    fresh = write_decision(out / ".decision.parquet", header, shards).path
    if path.is_file() and hash_file(path) != hash_file(fresh):
        fresh.unlink()
        raise InputError(
            f"--out {str(out)!r} holds another decision; give another folder, or the options it was made with"
        )
    if path.is_file() and (out / "filter.json").is_file() and (out / "decision.json").is_file():
        fresh.unlink()  # what was written with this decision keeps its statement
        return read_decision(path), json.loads((out / "decision.json").read_text("utf-8"))
    told = state(judged, verdict) | {
        "items": {
            "pool": len(judged.pool),
            "kept": reasons["kept"],
            "by_reason": dict(sorted(reasons.items())),
        },
        "decision_sha256": hash_file(fresh),
        "duplicates": duplicates,
        "unread": unread,
        "command": command,
    }
    uncounted = reasons["kept"] - verdict.balance.kept
    if uncounted:
        told["statement"]["notes"].append(
            f"{uncounted:,} kept copies and items that were not judged are not in these numbers"
        )
    write_json(out / "decision.json", told)
    fresh.replace(path)
    return read_decision(path), told


def check_out(out: Path) -> None:
    """Raises InputError where a folder holds other files than those of a decision."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {str(out)!r}, a file; give a folder")
    if not out.is_dir() or (out / "decision.parquet").is_file():
        return
    # a call that was killed may have left the statement, which is written before the decision
    if any(each.name != "decision.json" and not is_leftover(each.name) for each in out.iterdir()):
        raise InputError(f"--out {str(out)!r} holds other files; give a new folder")


def state(judged: Judged, verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON has it."""
    standing, shortfall = judged.pool.standing, verdict.choice.shortfall
    share = standing.share
    return {
        "schema_version": DECISION_VERSION,
        "run": {
            "path": str(judged.run.path),
            "plan_sha256": judged.plan_sha256,
            "items_sha256": judged.items_sha256,
        },
        "policy": verdict.policy.describe(),
        "statement": {
            **verdict.balance.describe(),
            "share_before": vars(share),
            "region": None if verdict.region is None else verdict.region.describe(),
            "before": verdict.before,
            "after": verdict.after,
            "threshold": None if np.isinf(verdict.choice.cut.above) else float(verdict.choice.cut.above),
            "reached": verdict.reached,
            "shortfall": None if shortfall is None else vars(shortfall),
            "doubts": [
                doubt
                for doubt in dict.fromkeys((standing.real_doubt, standing.synthetic_doubt))
                if doubt is not None
            ],
            "notes": list(verdict.choice.notes),
        },
    }


def _shards(
    judged: Judged, verdict: Verdict, keep_duplicates: bool, keep_unread: bool, reasons: Counter[str]
) -> Iterator[pa.Table]:
    """The decision on each shard's items in turn; counts reasons on the way."""
    gone, weights, above = verdict.choice.cut.gone, verdict.choice.weights, verdict.choice.cut.above
    firsts = _first_weights(judged, gone, weights) if keep_duplicates else {}
    evidence = judged.run.evidence()
    start = 0
    with pq.ParquetFile(judged.run.items) as items:
        for index, digests in enumerate(evidence.parts(["row", "sha256"])):
            columns = ["row", "key", "source", "status", "reason", "evidence", "score", *TIERS]
            table = items.read_row_group(index, columns=columns)
            if not table.column("row").equals(digests.column("row")):
                raise InputError(
                    f"run {str(judged.run.path)!r}: items.parquet and the evidence of shard {index} are of different "
                    "items; give the audit command again"
                )
            here = slice(start, start + table.num_rows)
            start += table.num_rows
            told, keep, copied = _tell(
                table, digests.column("sha256"), gone[here], above, firsts, keep_duplicates, keep_unread
            )
            for reason in told:
                reasons[reason.partition(":")[0]] += 1
            weight = np.ones(len(keep), np.float32) if weights is None else weights[here].copy()
            for position, of_first in copied.items():
                weight[position] = of_first
            yield pa.table(
                {
                    "row": table.column("row"),
                    "key": table.column("key"),
                    "source": table.column("source"),
                    "sha256": digests.column("sha256"),
                    "keep": keep,
                    "weight": np.where(keep, weight, np.float32(0)),
                    "reason": told,
                },
                schema=DECISION,
            )


def _tell(
    table: pa.Table,
    digests: pa.ChunkedArray,
    gone: np.ndarray,
    above: float | int,
    firsts: Mapping[bytes, float],
    keep_duplicates: bool,
    keep_unread: bool,
) -> tuple[list[str], np.ndarray, dict[int, float]]:
    """A reason for each item of a shard, which stay, and the weights of copies, which are those of the first."""
    copied: dict[int, float] = {}
    status = table.column("status").to_pylist()
    told, keep = ["kept"] * len(status), np.ones(len(status), bool)
    unread = np.array([each != "scored" for each in status], bool)
    rows = np.flatnonzero(gone | unread)
    wanted = table.take(pa.array(rows)).to_pylist()
    for position, row in zip(rows.tolist(), wanted, strict=True):
        if row["status"] == "duplicate":
            of_first = firsts.get(digests[position].as_py())
            stays = keep_duplicates and of_first is not None
            if stays and of_first is not None:
                copied[position] = of_first
            reason = "duplicate: of an image that goes" if keep_duplicates else f"{row['reason']}"
        elif row["status"] != "scored":
            stays = keep_unread and row["status"] in UNREAD
            reason = f"{row['status']}: {row['reason'] or 'no reason was recorded'}"
        else:
            stays, reason = False, _reason(row, above)
        if not stays:
            told[position], keep[position] = " ".join(reason.split()), False
    return told, keep, copied


def _reason(row: Mapping[str, Any], above: float | int) -> str:
    for tier in TIERS:
        if row[tier]:
            text = row["evidence"] or "no details"
            return text if text.startswith(f"{tier}:") else f"{tier}: {text}"
    if row["score"] is None:
        return "budget: no score"
    return f"score: {row['score']:.6g} above {above:.6g}"


def _first_weights(judged: Judged, gone: np.ndarray, weights: np.ndarray | None) -> dict[bytes, float]:
    """For the content of every duplicate whose first stays, the weight of that."""
    repeated: set[bytes] = set()
    for here, digests in _digests(judged):
        repeated.update(digests.filter(pa.array(judged.pool.status[here] == DUPLICATE)).to_pylist())
    kept: dict[bytes, float] = {}
    known = pc.SetLookupOptions(value_set=pa.array(list(repeated), pa.binary(32)))
    for here, digests in _digests(judged):
        wanted = pc.call_function("is_in", [digests], known).to_numpy().astype(bool)
        for position in np.flatnonzero(wanted & judged.pool.scored[here] & ~gone[here]).tolist():
            of_first = 1.0 if weights is None else float(weights[here][position])
            kept[digests[position].as_py()] = of_first
    return kept


def _digests(judged: Judged) -> Iterator[tuple[slice, pa.ChunkedArray]]:
    """The content hashes part by part, with the places of their items in the pool."""
    start = 0
    for part in judged.run.evidence().parts(["sha256"]):
        yield slice(start, start + part.num_rows), part.column("sha256")
        start += part.num_rows


def check_decision(path: Path, decision: Path) -> DecisionFile:
    """A decision, if it is of this run.

    Args:
        path: the run's folder.
        decision: folder that holds the decision.

    Raises:
        InputError: there is no decision, or it is unfinished or of another run.
    """
    run = RunFolder(path)
    run.settings()
    file = read_decision(decision / "decision.parquet")
    if not (decision / "decision.json").is_file():
        raise InputError(f"decision {str(decision)!r} is unfinished, without its decision.json; decide again")
    plan = run.plan()
    if file.header["plan_sha256"] != plan.sha256:
        raise InputError(
            f"decision {str(decision)!r} is of another run than {str(path)!r}; decide on this one"
        )
    if not run.items.is_file() or file.header["items_sha256"] != hash_file(run.items):
        raise InputError(
            f"decision {str(decision)!r} is of an earlier state of the run {str(path)!r}; decide again"
        )
    return file
