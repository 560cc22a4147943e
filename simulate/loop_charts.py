"""Charts of a loop of trained generators: each figure over the generations, and the effective size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from poolproof.curves import MOST_CURVES, Curve, curve_chart
from poolproof.simulate.figures import FIGURES, PANELS, Figure
from poolproof.simulate.study_page import Chart

if TYPE_CHECKING:
    import pandas as pd

_COLOURS: Final = (
    ("real", False),
    ("synthetic", False),
    ("real", True),
    ("synthetic", True),
    ("ink", False),
    ("pool", True),
)
"""Colour and dash of the arms of a chart, in order."""

BETWEEN: Final = " \u00b7 "
"""Between a chart's figure and its group of arms, in its heading."""

_MANIFOLD: Final = 10.0
"""Largest over least value from which a logarithmic axis is taken."""


@final
@dataclass(frozen=True)
class Group:
    """Arms that share the charts of a figure: full labels, and what the chart calls them."""

    name: str
    arms: tuple[str, ...]
    labels: tuple[str, ...]


def draw_panels(document: Mapping[str, Any], summary: pd.DataFrame) -> dict[str, dict[str, Chart]]:
    """Charts by file name, by part of the page."""
    panels: dict[str, dict[str, Chart]] = {panel: {} for panel in PANELS}
    groups = group_arms(list(dict.fromkeys(summary["arm"])))
    lines = _reference_lines(document.get("reference") or {})
    if summary["generation"].nunique() > 1:
        for name, figure in FIGURES.items():
            rows = summary[(summary["figure"] == name) & (summary["n"] > 0)]
            if figure.is_charted and not rows.empty:
                panels[figure.panel] |= _figure_charts(
                    name, figure, rows, summary, groups, lines.get(name, [])
                )
    panels["size"] |= _size_charts(document.get("effective_size"))
    return panels


def group_arms(arms: Sequence[str]) -> list[Group]:
    """The arms in groups of at most `MOST_CURVES`: by what stands before the first colon, else in order.

    >>> [group.labels for group in group_arms(["fresh: all", "fresh: none"])]
    [('fresh: all', 'fresh: none')]
    """
    if len(arms) <= MOST_CURVES:
        return [Group("", tuple(arms), tuple(arms))] if arms else []
    families: dict[str, list[str]] = {}
    for arm in arms:
        families.setdefault(arm.split(":", 1)[0].strip() if ":" in arm else "", []).append(arm)
    # families of one would be charts of one line each
    if "" in families or 2 * len(families) > len(arms):
        families = {"": list(arms)}
    groups = []
    for family, members in families.items():
        n_parts = -(-len(members) // MOST_CURVES)
        for chunk in np.array_split(np.array(members, object), n_parts):
            first = members.index(chunk[0]) + 1
            words = f"arms {first} to {first + len(chunk) - 1}"
            name = words if not family else f"{family}, {words}" if n_parts > 1 else family
            labels = tuple(arm.split(":", 1)[1].strip() or arm if family else arm for arm in chunk)
            groups.append(Group(name, tuple(chunk), labels))
    return groups


def _reference_lines(reference: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """Values with words by figure."""
    halves = {name: value for name, value in (reference.get("halves") or {}).items() if value is not None}
    lines = {name: [(float(value), "real data against real data")] for name, value in halves.items()}
    accuracy = reference.get("classifier_accuracy")
    if accuracy is not None:
        lines["class_accuracy"] = [(float(accuracy), "the classifier on real images")]
        lines["trained_accuracy"] = [(float(accuracy), "trained on real images")]
    lines["mark_detected"] = []
    lines["mark_bit_accuracy"] = [(0.5, "guessing")]
    lines["mark_strength"] = [(1.0, "as written")]
    lines["ratio"] = [(1.0, "real data alone")]
    return lines


def _figure_charts(
    name: str,
    figure: Figure,
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    groups: Sequence[Group],
    lines: Sequence[tuple[float, str]],
) -> dict[str, Chart]:
    """The charts of a figure over generations, one per group that has it."""
    means = rows["mean"].to_numpy(float)
    above = means[means > 0]
    log = figure.log and above.size > 0 and bool(above.max() > _MANIFOLD * above.min() and means.min() >= 0)
    arms = [arm for group in groups for arm in group.arms if (rows["arm"] == arm).any()]
    having = [group for group in groups if rows["arm"].isin(group.arms).any()]
    if len(groups) > 1 and len(arms) <= MOST_CURVES:  # few arms have it: one chart after all
        having = [Group("", tuple(arms), tuple(arms))]
    charts = {}
    span = _span(figure, rows, lines, log)
    for position, group in enumerate(having, 1):
        curves = []
        looks = zip(group.arms, group.labels, _COLOURS, strict=False)
        for arm, label, (colour, dashed) in looks:
            mine = rows[rows["arm"] == arm].set_index("generation")
            if mine.empty:
                continue
            # a generation that failed in all seeds is a gap in the line
            generations = np.sort(summary["generation"].unique())
            y = mine["mean"].reindex(generations).to_numpy(float)
            y = np.where(y > 0, y, np.nan) if log else y
            errors = 2 * mine["stderr"].reindex(generations).to_numpy(float)
            curves.append(
                Curve(
                    label,
                    generations.astype(float),
                    y,
                    error=errors if np.isfinite(errors).any() else None,
                    colour=colour,
                    dashed=dashed,
                    markers=True,
                )
            )
        suffix = f"-{position}" if len(having) > 1 else ""
        heading = figure.heading + BETWEEN + group.name if len(having) > 1 else figure.heading
        charts[name.replace("_", "-") + suffix] = Chart(
            heading=heading,
            words=f"{figure.meaning} {_seed_words(rows)}"
            + (" Values of 0 have no place on this axis." if log and (means == 0).any() else ""),
            markup=curve_chart(
                curves,
                x_label="generation",
                y_label=figure.axis,
                log_y=log,
                y_range=span,
                name=name.replace("_", "-") + suffix,
                title=heading,
                reference=[line for line in lines if line[0] > 0 or not log],
            ),
        )
    return charts


def _span(
    figure: Figure, rows: pd.DataFrame, lines: Sequence[tuple[float, str]], log: bool
) -> tuple[float, float] | None:
    """Ends of the vertical axis, the same for all groups so that their charts can be compared."""
    means = rows["mean"].to_numpy(float)
    errors = 2 * np.nan_to_num(rows["stderr"].to_numpy(float))
    marked = [value for value, _ in lines]
    values = np.concatenate([means, means + errors, marked])
    if log:
        below = means - errors  # a bar that would stretch the axis by more than half a value runs out of it
        values = np.concatenate([values, below[2 * below > means]])
        places = np.log10(values[values > 0])
        room = 0.06 * max(float(np.ptp(places)), 1.0)
        return float(10 ** (places.min() - room)), float(10 ** (places.max() + 2 * room))
    # the words of a line near the top stand above it, out of the curves' way
    if figure.is_share:
        return -0.02, 1.14 if max(marked, default=0.0) > 0.85 else 1.04
    low, high = min(0.0, float(values.min()), float((means - errors).min())), max(0.0, float(values.max()))
    above = 0.16 if max(marked, default=low) > low + 0.8 * (high - low) else 0.08
    return (
        (low - 0.06 * (high - low) if low < 0 else 0.0, high + above * (high - low)) if high > low else None
    )


def _seed_words(rows: pd.DataFrame) -> str:
    least, most = int(rows["n"].min()), int(rows["n"].max())
    if most == 1:
        return "One seed, so no error bars."
    seeds = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    return f"Bars are two standard errors over {seeds}" + (", none with one seed." if least == 1 else ".")


def _size_charts(size: Mapping[str, Any] | None) -> dict[str, Chart]:
    """The distance that real data alone give by their number, with each arm where its n_e lies on that curve."""
    points = [point for point in (size or {}).get("curve", []) if (point.get("mean") or 0) > 0]
    points = sorted((point for point in points if point["n"] > 0), key=lambda point: point["n"])
    if not points:
        return {}
    n, mean = (np.array([point[name] for point in points], float) for name in ("n", "mean"))
    stderr = np.array([np.nan if point.get("stderr") is None else point["stderr"] for point in points], float)
    real = Curve("real data alone", n, mean, error=2 * stderr, colour="ink", markers=True)
    placed = [arm for arm in (size or {})["arms"] if arm.get("ratio") and arm.get("n_real")]
    looks = [look for look in _COLOURS if look != ("ink", False)]
    n_charts = max(1, -(-len(placed) // len(looks)))
    charts = {}
    for part, chunk in enumerate(np.array_split(np.array(placed, object), n_charts), 1):
        curves = [real]
        for arm, (colour, dashed) in zip(chunk, looks, strict=False):
            ratios = [arm[name] for name in ("lower", "ratio", "upper") if arm.get(name)]
            at = np.array(ratios, float) * arm["n_real"]
            height = float(np.exp(np.interp(np.log(arm["ratio"] * arm["n_real"]), np.log(n), np.log(mean))))
            curves.append(
                Curve(arm["arm"], at, np.full(len(at), height), colour=colour, dashed=dashed, markers=True)
            )
        name = "effective-size" + (f"-{part}" if n_charts > 1 else "")
        charts[name] = Chart(
            heading="Distance by number of real images" + (f"{BETWEEN}part {part}" if n_charts > 1 else ""),
            words="Real data alone: a generator trained once on that many real images. Each arm stands where its "
            "distance meets that curve, at its n_e, between the ends of its interval.",
            markup=curve_chart(
                curves,
                x_label="real images",
                y_label=FIGURES["frechet_distance"].axis,
                log_x=True,
                log_y=True,
                name=name,
                title="Effective size",
            ),
        )
    return charts
