"""What a loop of trained generators leaves on disk: tables, document, pictures, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from markupsafe import Markup

from poolproof.curves import MOST_CURVES, Curve, curve_chart
from poolproof.files import replace_file, write_json
from poolproof.page import counted, number, percent, render_page, shorten, visible, write_page
from poolproof.simulate.strips import fit_window, strip_uri
from poolproof.simulate.study_page import Chart
from poolproof.simulate.summary import FIGURES, PANELS, Figure, summarise_generations, tell_findings

if TYPE_CHECKING:
    import pandas as pd

Strips = Mapping[str, Sequence[tuple[int, np.ndarray]]]
"""Samples of some generations by arm, of one seed: images as bytes (n, h, w, c), or points (n, 2)."""

MOST_ROWS: Final = 8
"""Generations of an arm whose samples are shown."""

_COLOURS: Final = (
    ("real", False),
    ("synthetic", False),
    ("real", True),
    ("synthetic", True),
    ("ink", False),
    ("pool", True),
)
"""Colour and dash of the arms of a chart, in order."""

_DECADES: Final = 50.0
"""Largest over least value from which a logarithmic axis is taken."""


@final
@dataclass(frozen=True)
class _Group:
    """Arms that share the charts of a figure: full labels, and what the chart calls them."""

    name: str
    arms: tuple[str, ...]
    labels: tuple[str, ...]


def draw_loop_charts(document: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Chart]:
    """The charts of a loop by file name, without ending, in the order of the page.

    Each figure has one chart, or one per group of arms where they are more than `MOST_CURVES`. A loop of one
    generation has no charts over generations; its page has a table.

    Args:
        document: the loop's document; gives the reference lines and the effective size.
        table: one row per arm, seed and generation.
    """
    panels = _draw_panels(document, summarise_generations(table))
    return {name: chart for charts in panels.values() for name, chart in charts.items()}


def write_loop(document: Mapping[str, Any], table: pd.DataFrame, strips: Strips, out: Path) -> list[Path]:
    """The files written to `out`: Parquet, CSV, JSON, a picture per chart, and last the page.

    Args:
        document: the loop's document, JSON throughout.
        table: one row per arm, seed and generation.
        strips: samples of some generations by arm, of one seed.
        out: folder, made where it is missing. Files of an earlier run of the same name are replaced.

    Raises:
        InputError: a table without the columns of a loop, or samples that are neither images nor points.
    """
    summary = summarise_generations(table)
    panels = _draw_panels(document, summary)
    page = _render(document, table, summary, panels, strips)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "generations.parquet", out / "generations.csv", out / "loop.json"]
    with replace_file(paths[0]) as temporary:
        table.to_parquet(temporary, index=False)
    with replace_file(paths[1]) as temporary:
        table.to_csv(temporary, index=False)
    write_json(paths[2], document)
    for name, chart in ((name, chart) for charts in panels.values() for name, chart in charts.items()):
        paths.append(out / f"{name}.svg")
        with replace_file(paths[-1]) as temporary:
            temporary.write_bytes(chart.picture)
    return [*paths, write_page(page, out / "loop.html")]


# --- charts ---------------------------------------------------------------------------------------------


def _draw_panels(document: Mapping[str, Any], summary: pd.DataFrame) -> dict[str, dict[str, Chart]]:
    """Charts by file name, by part of the page."""
    panels: dict[str, dict[str, Chart]] = {panel: {} for panel in PANELS}
    groups = group_arms(list(dict.fromkeys(summary["arm"])))
    lines = _reference_lines(document.get("reference") or {})
    if summary["generation"].nunique() > 1:
        for name, figure in FIGURES.items():
            rows = summary[(summary["figure"] == name) & (summary["n"] > 0)]
            if not rows.empty:
                panels[figure.panel] |= _figure_charts(name, figure, rows, summary, groups, lines.get(name, []))
    panels["size"] |= _size_charts(document.get("effective_size"))
    return panels


def group_arms(arms: Sequence[str]) -> list[_Group]:
    """The arms in groups of at most `MOST_CURVES`: by what stands before the first colon, else in order.

    >>> [group.labels for group in group_arms(["fresh: all", "fresh: none"])]
    [('fresh: all', 'fresh: none')]
    """
    if len(arms) <= MOST_CURVES:
        return [_Group("", tuple(arms), tuple(arms))] if arms else []
    families: dict[str, list[str]] = {}
    for arm in arms:
        families.setdefault(arm.split(":", 1)[0].strip() if ":" in arm else "", []).append(arm)
    # families of one would be charts of one line each
    if "" in families or 2 * len(families) > len(arms):
        families = {"": list(arms)}
    groups = []
    for family, members in families.items():
        n_parts = -(-len(members) // MOST_CURVES)
        for part, chunk in enumerate(np.array_split(np.array(members, object), n_parts), 1):
            first = members.index(chunk[0]) + 1
            words = f"arms {first} to {first + len(chunk) - 1}"
            name = words if not family else f"{family}, {words}" if n_parts > 1 else family
            labels = tuple(arm.split(":", 1)[1].strip() or arm if family else arm for arm in chunk)
            groups.append(_Group(name, tuple(chunk), labels))
    return groups


def _reference_lines(reference: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """Values with words by figure."""
    halves = {name: value for name, value in (reference.get("halves") or {}).items() if value is not None}
    lines = {name: [(float(value), "two halves of the real data")] for name, value in halves.items()}
    accuracy = reference.get("classifier_accuracy")
    if accuracy is not None:
        lines["class_accuracy"] = [(float(accuracy), "the classifier on real images")]
        lines["trained_accuracy"] = [(float(accuracy), "trained on real images")]
    lines["mark_detected"] = [(0.01, "without a mark")]
    lines["mark_bit_accuracy"] = [(0.5, "guessing")]
    lines["mark_strength"] = [(1.0, "as written")]
    lines["ratio"] = [(1.0, "real data alone")]
    return lines


def _figure_charts(
    name: str,
    figure: Figure,
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    groups: Sequence[_Group],
    lines: Sequence[tuple[float, str]],
) -> dict[str, Chart]:
    """The charts of a figure over generations, one per group that has it."""
    means = rows["mean"].to_numpy(float)
    above = means[means > 0]
    log = figure.log and above.size > 0 and bool(above.max() > _DECADES * above.min() and means.min() >= 0)
    charts = {}
    having = [group for group in groups if rows["arm"].isin(group.arms).any()]
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
        heading = f"{figure.heading} \u00b7 {group.name}" if len(having) > 1 else figure.heading
        charts[name.replace("_", "-") + suffix] = Chart(
            heading=heading,
            words=f"{figure.meaning} {_seed_words(rows[rows['arm'].isin(group.arms)])}"
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
    if figure.is_share and not log:
        return -0.02, 1.04
    means = rows["mean"].to_numpy(float)
    errors = 2 * np.nan_to_num(rows["stderr"].to_numpy(float))
    values = np.concatenate([means, means + errors, [value for value, _ in lines]])
    if log:
        values = values[values > 0]
        return float(values.min()) / 1.2, float(values.max()) * 1.2
    low, high = min(0.0, float(values.min()), float((means - errors).min())), max(0.0, float(values.max()))
    return (low - 0.06 * (high - low) if low < 0 else 0.0, high + 0.08 * (high - low)) if high > low else None


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
            heading="Distance by number of real images" + (f" \u00b7 part {part}" if n_charts > 1 else ""),
            words="The black line is a generator trained once on that many real images. Each arm stands where its "
            "distance meets that line, at its n_e, between the ends of its interval.",
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


# --- page -----------------------------------------------------------------------------------------------


def _render(
    document: Mapping[str, Any],
    table: pd.DataFrame,
    summary: pd.DataFrame,
    panels: Mapping[str, Mapping[str, Chart]],
    strips: Strips,
) -> bytes:
    last = _last_generations(summary)
    failed = document.get("failed") or []
    done = table[table["status"] == "done"]
    return render_page(
        Path(__file__).with_name("loop.html"),
        loop_document=document,
        told=tell_findings(summary, document),
        ran=", ".join(
            (
                counted(table["arm"].nunique(), "arm"),
                counted(table["seed"].nunique(), "seed"),
                counted(int(done["generation"].max()) if len(done) else 0, "generation"),
            )
        ),
        panels=[(name, heading, list(panels[name].values())) for name, heading in PANELS.items()],
        policy=_policy_rows(table, last),
        sizes=_size_rows(document.get("effective_size")),
        strips=_strip_rows(strips),
        failed=failed,
        figures=_figure_rows(last),
        reference=_reference_rows(document.get("reference") or {}),
        spec=_lines(json.dumps(document.get("spec", {}), indent=2, ensure_ascii=False)),
        is_single=summary["generation"].nunique() == 1,
    )


def _lines(text: str) -> Markup:
    """Text of several lines, each made visible and escaped by itself."""
    return Markup("\n").join(visible(line) for line in text.split("\n"))


def _last_generations(summary: pd.DataFrame) -> pd.DataFrame:
    """The figures of each arm's last generation that has any."""
    known = summary[summary["n"] > 0]
    return known[known["generation"] == known.groupby("arm")["generation"].transform("max")]


def _measured(rows: pd.DataFrame, name: str) -> str:
    row = rows[rows["figure"] == name]
    return "\u2013" if row.empty else _with_bar(row.iloc[0]["mean"], row.iloc[0]["stderr"])


def _with_bar(mean: float | int, stderr: float | int) -> str:
    """A mean with two standard errors, where there are any."""
    return number(mean) + (f" \u00b1 {number(float(f'{2 * stderr:.2g}'))}" if np.isfinite(stderr) else "")


def _policy_rows(table: pd.DataFrame, last: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Column headings and a row per arm: what its last generation measures and what its policy took away."""
    named = {
        "frechet_distance": "Fréchet distance",
        "squared_w2": "squared W2",
        "precision": "precision",
        "recall": "recall",
        "ratio": "n_e / n_real",
        "flag_tpr": "TPR",
        "flag_fpr": "FPR",
    }
    named = {name: heading for name, heading in named.items() if (last["figure"] == name).any()}
    rows = []
    for arm, mine in last.groupby("arm", sort=False):
        generation = mine["generation"].iloc[0]
        pool = table[
            (table["arm"] == arm) & (table["generation"] == generation) & (table["status"] == "done")
        ]
        figures = [_measured(mine, name) for name in named]
        rows.append([str(arm), str(generation), *figures, *_kept_words(pool)])
    return ["arm", "generation", *named.values(), "real images lost", "synthetic kept"], rows


def _kept_words(pool: pd.DataFrame) -> tuple[str, str]:
    """How many of a generation's real images were lost and of its synthetic ones kept, on average over seeds."""
    counts = {
        name: float(pool[name].astype(float).mean()) if name in pool else np.nan
        for name in ("n_fresh", "n_fixed", "n_synthetic", "kept_real", "kept_synthetic")
    }
    n_real = counts["n_fresh"] + counts["n_fixed"]
    return (
        _count_words(n_real - counts["kept_real"], n_real),
        _count_words(counts["kept_synthetic"], counts["n_synthetic"]),
    )


def _count_words(part: float, whole: float) -> str:
    if not np.isfinite(part) or not whole > 0:
        return "\u2013"
    return f"{part:,.0f} of {whole:,.0f}" + (f" ({percent(part / whole)})" if 0 < part < whole else "")


def _size_rows(size: Mapping[str, Any] | None) -> list[list[str]]:
    verdicts = {True: "admissible", False: "not admissible", None: "open"}
    rows = []
    for arm in (size or {}).get("arms", []):
        ratio, n_real, ends = arm.get("ratio"), arm.get("n_real"), (arm.get("lower"), arm.get("upper"))
        known = ratio is not None and n_real is not None
        rows.append(
            [
                arm["arm"],
                verdicts[arm.get("admissible")],
                "\u2013" if n_real is None else number(n_real),
                f"{ratio * n_real:,.0f}" if known else "\u2013",
                "\u2013" if ratio is None else number(ratio),
                " to ".join("open" if end is None else number(end) for end in ends) if any(ends) else "\u2013",
                arm.get("why") or "",
            ]
        )
    return rows


def _strip_rows(strips: Strips) -> list[dict[str, Any]]:
    """Each arm's pictures: `MOST_ROWS` generations, with the first and the last, points all in one window."""
    shown = []
    clouds = [each for rows in strips.values() for _, each in rows if each.ndim == 2]
    window = fit_window(clouds) if clouds else None
    for arm, rows in strips.items():
        rows = sorted(rows, key=lambda row: row[0])
        spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).round().astype(int))
        pictures = [
            {
                "generation": rows[i][0],
                "uri": strip_uri(rows[i][1], window=window if rows[i][1].ndim == 2 else None),
                "alt": f"samples of {shorten(arm)} in generation {rows[i][0]}",
            }
            for i in spread
            if len(rows[i][1])
        ]
        is_cloud = any(each.ndim == 2 for _, each in rows)
        shown.append({"arm": arm, "n": len(rows), "pictures": pictures, "is_cloud": is_cloud})
    return [strip for strip in shown if strip["pictures"]]


def _figure_rows(last: pd.DataFrame) -> list[list[str]]:
    rows = []
    for row in last.itertuples(index=False):
        values = [getattr(row, name) for name in ("mean", "stderr", "least", "greatest")]
        told = [f"{value:.4g}" if np.isfinite(value) else "\u2013" for value in values]
        rows.append([row.arm, str(row.generation), FIGURES[str(row.figure)].heading, str(row.n), *told])
    return rows


def _reference_rows(reference: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the real data, as pairs of words."""
    rows = []
    if reference.get("n") is not None:
        rows.append(("real images to compare with", number(reference["n"])))
    if reference.get("features"):
        n_features = reference.get("n_features")
        words = f", {counted(n_features, 'number')} an image" if n_features else ""
        rows.append(("features", f"{reference['features']}{words}"))
    if reference.get("classifier_accuracy") is not None:
        rows.append(("accuracy of the classifier on real images", percent(reference["classifier_accuracy"])))
    for name, value in (reference.get("halves") or {}).items():
        if name in FIGURES and value is not None:
            rows.append((f"{FIGURES[name].heading}, two halves", number(value)))
    return rows
