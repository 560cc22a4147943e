"""A decision in words: what goes, what that costs, what is left, and whether the aim was met."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def describe_decision(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a decision, each with a label, as `decide.state` has it.

    Args:
        told: of `decision.json`.
    """
    stated = told["statement"]
    level = f"{100 * stated['level']:g} %"
    lines = [("policy", policy_text(told["policy"]))]
    found = stated["removed_found"]
    by_score = stated["removed"] - found
    detail = f": {found:,} by findings, {by_score:,} by score" if stated["removed"] else ""
    lines.append(("removed", f"{stated['removed']:,} of {stated['n']:,} images{detail}"))
    if stated["removed"]:
        lines.append(("real lost", f"{count_text(stated['real_lost'])}, {level} interval"))
    lines.append(
        (
            "left",
            f"{stated['kept']:,} images, synthetic: {count_text(stated['synthetic_left'])}, {level} interval",
        )
    )
    if stated["region"] is not None:
        lines.append(
            (
                "verdict",
                f"{stated['before']} before, {stated['after']} after ({region_text(stated['region'])})",
            )
        )
    if stated["shortfall"] is not None:
        lines += [
            ("out of reach" if not i else "", line)
            for i, line in enumerate(shortfall_lines(stated["shortfall"]))
        ]
    lines += [("doubt", doubt) for doubt in stated["doubts"]]
    lines += [("note", note) for note in stated["notes"]]
    return lines


def shortfall_lines(shortfall: Mapping[str, Any]) -> list[str]:
    """What is missing for an aim that is out of reach, a sentence each."""
    lines = [shortfall["why"]]
    if shortfall["tpr"] is None:
        return lines
    cost = (
        ""
        if shortfall["fpr"] is None
        else f", at the cost of {100 * shortfall['fpr']:.1f} % of the real images"
    )
    lines.append(
        f"this one finds {100 * shortfall['tpr']:.1f} % of its references there ({100 * shortfall['proven_tpr']:.1f} % "
        f"are proven for the pool){cost}"
    )
    needed = shortfall["needed_references"]
    if needed is None:
        lines.append("more references alone would not do: it takes a better detector")
    else:
        lines.append(f"with about {needed:,} synthetic references it would do, if it stays as good")
    return lines


def count_text(count: Mapping[str, Any]) -> str:
    """A number of images with its limits, such as `21 (3 to 51)`.

    >>> count_text({"point": 21.3, "lower": 3, "upper": 51}), count_text({"point": None, "lower": 0, "upper": 9})
    ('21 (3 to 51)', '0 to 9')
    """
    limits = f"{count['lower']:,} to {count['upper']:,}"
    return limits if count["point"] is None else f"{round(count['point']):,} ({limits})"


def policy_text(policy: Mapping[str, Any]) -> str:
    """A policy and its options in words.

    >>> policy_text({"kind": "found", "tiers": ["signed", "marked"]}), policy_text({"kind": "fdr", "rate": 0.1})
    ('found (signed, marked)', 'fdr (rate 0.1)')
    """
    options = {
        name: value for name, value in policy.items() if name not in ("kind", "region") and value is not None
    }
    tiers = options.pop("tiers", ())  # which findings: the kind says that it is about them
    told = ", ".join([*tiers, *(f"{name.replace('_', ' ')} {value:.6g}" for name, value in options.items())])
    return f"{policy['kind']} ({told})" if told else policy["kind"]


def region_text(region: Mapping[str, Any]) -> str:
    """A region in words."""
    if region["kind"] == "ratio":
        ratio = region["max_ratio"]
        share = 1.0 if math.isinf(ratio) else ratio / (1 + ratio)
        return f"at most {100 * share:.3g} % synthetic"
    bias = " to ".join(f"{each:g}" for each in region["sampling_bias"])
    return f"Gaussian loop, sampling bias {bias}, {region['dim']} dimensions"
