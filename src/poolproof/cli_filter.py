"""The `poolproof filter` command. Heavy packages load inside the functions that use them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.cli_gates import EXIT_GATE
from poolproof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolproof.audit.decide import Judged, Verdict
    from poolproof.audit.policy import AbstractPolicy
    from poolproof.audit.progress import AbstractProgress
    from poolproof.audit.region import GaussianRegion

_POLICIES = ("found", "threshold", "fdr", "admissible", "ratio-cap", "budget", "weights")

_OPTIONS: dict[str, tuple[str, ...]] = {
    "found": ("tiers",),
    "threshold": ("threshold", "max-fpr"),
    "fdr": ("rate",),
    "admissible": (),
    "ratio-cap": ("max-share",),
    "budget": ("budget",),
    "weights": ("weight",),
}
"""Options that belong to one policy; each picks it where `--policy` is left out."""


def filter_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `poolproof audit` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the filtered pool; the same command continues."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="found (signed, declared, marked), threshold, fdr, admissible, ratio-cap, budget or weights. "
            "[default: found, or what the options below say]",
            show_default=False,
        ),
    ] = None,
    sampling_bias: Annotated[
        str | None,
        typer.Option(
            metavar="L[,L]",
            help="Of what the pool trains, for admissible: 1 samples without bias, guidance of weight w is 1/(1+w); "
            "two values are a range. For other policies it adds the verdict.",
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(help="Dimensions of the Gaussian loop. [default: 100]", show_default=False),
    ] = None,
    max_share: Annotated[
        float | None, typer.Option(metavar="X", help="ratio-cap: share that may be synthetic afterwards.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="Q",
            help="fdr: share of those removed by score that may be real. [default: 0.1]",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="T", help="threshold: score. [default: the detector's]", show_default=False),
    ] = None,
    max_fpr: Annotated[
        float | None, typer.Option(metavar="RATE", help="threshold: share of the real images that may go.")
    ] = None,
    budget: Annotated[int | None, typer.Option(metavar="N", help="budget: images to keep at most.")] = None,
    tiers: Annotated[
        str | None,
        typer.Option(
            metavar="T,T", help="found: of signed, declared, marked. [default: all]", show_default=False
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            help="weights: of what was found or flagged. [default: the best for a loop]",
            show_default=False,
        ),
    ] = None,
    decision: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Apply the decision that --dry-run --out DIR left, instead of a policy."
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="folder, webdataset, parquet, dataset, uids (DataComp) or keys. [default: as the pool]",
            show_default=False,
        ),
    ] = "auto",
    link: Annotated[
        str,
        typer.Option(
            metavar="HOW", help="Images of folders: copy, or hard (links; changing one changes the original)."
        ),
    ] = "copy",
    duplicates: Annotated[
        str, typer.Option(metavar="WHAT", help="Copies of an earlier item: drop, or keep with the first.")
    ] = "drop",
    unread: Annotated[
        str, typer.Option(metavar="WHAT", help="Items that could not be judged: drop or keep.")
    ] = "drop",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write the pool where the policy's aim is out of reach.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Only say what would be done; without a policy, compare them. No image is written.",
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that remembers borders. [default: ~/.cache/poolproof]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the limits.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Decide what of an audited pool stays, say what that costs, and write the filtered pool. No original is changed.

    Writes DIR/pool, with kept images byte for byte, decision.parquet with a reason per item, decision.json and a data
    set card. Exits with 3 where the policy's aim is out of reach.
    """
    from poolproof.audit.decide import decide, judge_run, save_decision, state
    from poolproof.audit.progress import choose_progress
    from poolproof.simulate.cache import default_cache

    given = {
        "max-share": max_share,
        "rate": rate,
        "threshold": threshold,
        "max-fpr": max_fpr,
        "budget": budget,
        "tiers": tiers,
        "weight": weight,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if out is None and not dry_run:
        raise InputError(
            "--out: got none, allowed a folder for the filtered pool; or look first with --dry-run"
        )
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more")
    if out is not None and (decision is None or decision.resolve() != out.resolve()):
        _check_apart(out, run)
    progress = choose_progress(quiet=quiet)
    command = shlex.join(["poolproof", *sys.argv[1:]])
    region = _region(sampling_bias, dim, default_cache() if cache is None else cache)
    if decision is not None:
        others = policy is not None or given or dry_run or region is not None
        if others or (duplicates, unread) != ("drop", "drop"):
            raise InputError(
                "--decision: got it beside options that decide, allowed --out, --format, --link and --anyway"
            )
        assert out is not None
        _apply(run, decision, out, format, link, progress, anyway=anyway)
        return
    name = _choose(policy, given, sampling_bias)
    with progress.stage("reading the run"):
        judged = judge_run(run, seed=seed)
    if dry_run and policy is None and not given:
        with progress.stage("comparing policies"):
            table = _compare(judged, region)
        typer.echo(table)
        return
    with progress.stage("deciding"):
        verdict = decide(judged, _policy(name, given, region), region)
    _print(state(judged, verdict))
    if out is not None and (dry_run or verdict.reached or anyway):
        with progress.stage("writing the decision"):
            _, told = save_decision(
                judged, verdict, out, duplicates=duplicates, unread=unread, command=command
            )
        _print_items(told)
    if not verdict.reached and not anyway:
        if not dry_run:
            typer.echo("nothing was written; --anyway writes the closest there is", err=True)
        raise typer.Exit(EXIT_GATE)
    if out is not None and not dry_run:
        _write(run, out, out, format, link, progress)


def _check_apart(out: Path, run: Path) -> None:
    from poolproof.audit.decide import check_out
    from poolproof.audit.filter import check_apart
    from poolproof.audit.run_folder import RunFolder

    if out.resolve() == run.resolve():
        raise InputError(f"--out is {str(out)!r}, the run itself; give another folder")
    folder = RunFolder(run)
    folder.settings()
    check_apart(out, folder.plan(), folder)
    check_out(out)


def _choose(policy: str | None, given: Mapping[str, Any], sampling_bias: str | None) -> str:
    """The policy by name, or by the options that belong to one."""
    if policy is not None and policy not in _POLICIES:
        raise InputError(f"--policy: got {policy!r}, allowed {', '.join(_POLICIES)}")
    owners = {option: name for name, options in _OPTIONS.items() for option in options}
    name = policy
    for option in given:
        name = name or owners[option]
        if owners[option] != name:
            raise InputError(f"--{option}: got it for the policy {name}, allowed for {owners[option]} alone")
    if name == "admissible" and sampling_bias is None:
        raise InputError(
            "--policy admissible: got no --sampling-bias, which no audit can tell; allowed 1 for plain samples, "
            "1/(1+w) for guidance of weight w, or a range such as 0.3,1"
        )
    for name_, option in (("ratio-cap", "max-share"), ("budget", "budget")):
        if name == name_ and option not in given:
            raise InputError(f"--policy {name}: got no --{option}, allowed with it; add it")
    return name or "found"


def _region(sampling_bias: str | None, dim: int | None, cache: Path) -> GaussianRegion | None:
    from poolproof.audit.region import GaussianRegion

    if sampling_bias is None:
        if dim is not None:
            raise InputError(f"--dim: got {dim} without --sampling-bias, allowed both")
        return None
    try:
        biases = tuple(float(part) for part in sampling_bias.split(","))
    except ValueError:
        raise InputError(
            f"--sampling-bias: got {sampling_bias!r}, allowed a number from 0 to 1, or two for a range, such as 0.3,1"
        ) from None
    return GaussianRegion(biases, 100 if dim is None else dim, cache)


def _policy(name: str, given: Mapping[str, Any], region: GaussianRegion | None) -> AbstractPolicy:
    from poolproof.audit.policy import (
        CapRatio,
        ControlDiscoveries,
        DropAbove,
        DropFound,
        HoldAdmissible,
        KeepBudget,
        Weigh,
    )

    if name == "found":
        tiers = given.get("tiers")
        return DropFound() if tiers is None else DropFound(tuple(tiers.split(",")))
    if name == "threshold":
        return DropAbove(given.get("threshold"), given.get("max-fpr"))
    if name == "fdr":
        return ControlDiscoveries(given.get("rate", 0.1))
    if name == "ratio-cap":
        share = given["max-share"]
        if not 0 <= share < 1:
            raise InputError(f"--max-share is {share}; it must be 0 or more and below 1")
        return CapRatio(share / (1 - share))
    if name == "budget":
        return KeepBudget(given["budget"])
    if name == "weights":
        return Weigh(given.get("weight"))
    assert region is not None
    return HoldAdmissible(region)


def _compare(judged: Judged, region: GaussianRegion | None) -> str:
    """What each policy that needs no option would do, a line each."""
    from poolproof.audit.decide import decide
    from poolproof.audit.policy import ControlDiscoveries, DropAbove, DropFound, HoldAdmissible
    from poolproof.audit.statement import count_text, policy_text

    policies: list[AbstractPolicy] = [DropFound()]
    if judged.pool.standing.threshold is not None:
        policies.append(DropAbove())
        if judged.pool.standing.real_doubt is None:
            policies += [DropAbove(max_fpr=0.05), ControlDiscoveries(0.1)]
    if region is not None:
        policies.append(HoldAdmissible(region))
    rows = [("policy", "removed", "real lost", "synthetic left", "verdict")]
    for policy in policies:
        try:
            verdict: Verdict = decide(judged, policy, region)
        except ValueError as error:  # too few references for this one
            rows.append((policy_text(policy.describe()), "-", "-", "-", str(error)))
            continue
        told = verdict.balance.describe()
        after = "out of reach" if not verdict.reached else verdict.after or ""
        rows.append(
            (
                policy_text(policy.describe()),
                f"{told['removed']:,}",
                count_text(told["real_lost"]),
                count_text(told["synthetic_left"]),
                after,
            )
        )
    if region is None:
        rows = [row[:4] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    n = judged.ledger.n
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [
            f"{n:,} images; numbers are expected ones, with {100 * judged.pool.standing.level:g} % intervals",
            *lines,
        ]
    )


def _print(told: Mapping[str, Any]) -> None:
    from poolproof.audit.statement import describe_decision

    for label, text in describe_decision(told):
        typer.echo(f"{label:<12} {text}")


def _print_items(told: Mapping[str, Any]) -> None:
    items = told["items"]
    others = ", ".join(f"{n:,} {reason}" for reason, n in items["by_reason"].items() if reason != "kept")
    typer.echo(f"{'items':<12} {items['kept']:,} of {items['pool']:,} kept{'; ' + others if others else ''}")


def _apply(
    run: Path, decision: Path, out: Path, format: str, link: str, progress: AbstractProgress, *, anyway: bool
) -> None:
    """Says what a decision states, and writes the pool that it leaves."""
    import json

    from poolproof.audit.decide import check_decision

    check_decision(run, decision)  # before anything is said of it
    told = json.loads((decision / "decision.json").read_text("utf-8"))
    _print(told)
    _print_items(told)
    if not told["statement"]["reached"] and not anyway:
        typer.echo("nothing was written; --anyway writes the closest there is", err=True)
        raise typer.Exit(EXIT_GATE)
    _write(run, decision, out, format, link, progress)


def _write(run: Path, decision: Path, out: Path, format: str, link: str, progress: AbstractProgress) -> None:
    """Writes the pool that a decision leaves."""
    from poolproof.audit.decide import check_decision
    from poolproof.audit.filter import FilterSpec, filter_pool
    from poolproof.audit.run_folder import RunFolder

    file = check_decision(run, decision)
    filter_pool(RunFolder(run), file, FilterSpec(out, format=format, link=link), progress=progress)
    typer.echo(f"{'pool':<12} {out / 'pool'}")
