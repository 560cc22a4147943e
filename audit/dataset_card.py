"""The data set card of a filtered pool: what it is made of, what was removed and why, and what that does not say."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from poolproof.audit.statement import describe_decision

_SIZES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
"""Size categories of the Hugging Face hub."""

_MOST_FIELDS: Final = 5
"""Kinds of samples that are named."""

_MARKUP: Final = frozenset("\\`*_{}[]<>#|~!&")


def render_card(
    manifest: Mapping[str, Any],
    data_files: Sequence[str],
    share: Mapping[str, Any] | None,
    stated: Mapping[str, Any],
) -> str:
    """The card, Markdown under a block of YAML.

    Args:
        manifest: of the filtered pool.
        data_files: patterns of the data for `datasets`; none where only a list was written.
        share: the report's share before filtering; None where the audit told none.
        stated: of `decision.json`; empty where there is none.
    """
    counts = manifest["counts"]
    # `datasets` takes the fields of all samples from the first ones, and refuses or loses what has others
    mixed = len(manifest["fields"]) > 1
    lines = [*_front(counts["kept"], [] if mixed else data_files), "", "# A filtered image pool", ""]
    lines.append(
        f"{counts['kept']:,} of {counts['audited']:,} audited images were kept and {counts['dropped']:,} removed "
        f"by poolproof, policy {_policy(manifest['policy'])}. "
        "The kept files have the bytes that were audited."
    )
    if counts["not_audited"]:
        lines += [
            "",
            f"The audit took a sample: {counts['not_audited']:,} more images were not judged and are not here.",
        ]
    lines += ["", "## Before", "", _share(share)]
    lines += ["", "## Removed, and why", "", "| reason | images |", "| --- | --- |"]
    lines += [f"| {escape(reason)} | {n:,} |" for reason, n in manifest["reasons"]["dropped"].items()]
    lines += [] if manifest["reasons"]["dropped"] else ["| nothing was removed | 0 |"]
    if stated:
        lines += ["", "## After", "", *_statement(stated)]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in _limits(manifest))]
    lines += ["", "## Files", ""]
    lines += [f"- {file}" for file in _files(manifest, data_files)]
    return "\n".join(lines) + "\n"


def escape(value: object) -> str:
    """Text of a stranger as Markdown shows it: one line, no markup."""
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(value))
    return "".join(f"\\{c}" if c in _MARKUP else c for c in " ".join(text.split()))


def _front(n_kept: int, data_files: Sequence[str]) -> list[str]:
    size = next((name for most, name in _SIZES if n_kept < most), "n>1B")
    lines = ["---", "license: unknown", "size_categories:", f"- {size}", "tags:", "- image", "- poolproof"]
    if data_files:
        lines += [
            "configs:",
            "- config_name: default",
            "  data_files:",
            *(f'  - "{name}"' for name in data_files),
        ]
    return [*lines, "---"]


def _policy(policy: object) -> str:
    kind = policy.get("kind", "unnamed") if isinstance(policy, Mapping) else policy
    return f"“{escape(kind)}”"


def _share(share: Mapping[str, Any] | None) -> str:
    if not share:
        return "The audit told no share of synthetic images."
    point = share.get("point")
    limits = f"{_percent(share['lower'])} to {_percent(share['upper'])}"
    told = f"{limits} (no estimate, limits alone)" if point is None else f"{_percent(point)} ({limits})"
    return (
        f"Synthetic share of the pool before filtering: {told}, level {_percent(share['level'])}, "
        f"method {escape(share['method'])}."
    )


def _percent(value: float | int) -> str:
    return f"{100 * value:.3g} %"


def _statement(stated: Mapping[str, Any]) -> list[str]:
    """The decision in words, or as JSON where it is of a form that is not known here."""
    try:
        return [f"- {escape(label)}: {escape(text)}" for label, text in describe_decision(stated)]
    except (KeyError, TypeError, AttributeError, ValueError):
        text = json.dumps(stated.get("statement"), indent=2, default=str)
        return ["```json", text, "```"]


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    counts = manifest["counts"]
    limits = [
        "That an image was kept does not say that it is real: detectors miss some, and whoever publishes images can "
        "remove marks and metadata.",
        "Some of the removed images were real. The intervals above hold under the assumptions of the audit's report.",
        "The licence of the images is not known to the tool that wrote this card; replace `unknown` by what holds.",
    ]
    if manifest["identity"]["link"] == "hard":
        limits.append("The files are hard links: to write into one is to write into the original.")
    if counts["weighted"]:
        limits.append(
            "The images have unequal weights in training, in `weights.parquet`; without them the policy is not met."
        )
    if counts["lost_sidecars"]:
        limits.append(
            f"{counts['lost_sidecars']:,} files beside the images could not be read and are missing."
        )
    if len(manifest["fields"]) > 1:
        told = [*map(escape, manifest["fields"][:_MOST_FIELDS])]
        told += ["..."] if len(manifest["fields"]) > _MOST_FIELDS else []
        limits.append(
            f"The samples are not alike ({'; '.join(told)}): `webdataset` "
            "reads them all, while `datasets` refuses tars of them or leaves images out; it reads what "
            "`--format parquet` writes."
        )
    if "names.parquet" in manifest["files"]:
        limits.append(
            "Items were renamed, since the format cannot hold their keys; `names.parquet` has both names."
        )
    return limits


def _files(manifest: Mapping[str, Any], data_files: Sequence[str]) -> list[str]:
    data = {"uids": "`subset.npy`: the uids, sorted, for DataComp's resharder", "keys": ""}
    first = "`pool/`: the data" if data_files else data.get(manifest["format"], "")
    rest = [
        "`decision.parquet`: keep, weight and reason of every audited item",
        "`kept.txt`: the keys that were kept, one a line; those in double quotes are JSON strings",
        "`croissant.json`: this card for machines",
        "`filter.json`: counts and hashes",
    ]
    return [first, *rest] if first else rest
