"""What a study leaves on disk: tables, document, pictures, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from markupsafe import Markup

from poolproof.charts import standalone_svg
from poolproof.curves import MOST_CURVES, Curve, curve_chart
from poolproof.files import replace_file, write_json
from poolproof.maps import Mark, Panel, heat_map
from poolproof.page import render_page, write_page
from poolproof.simulate.montecarlo import with_error
from poolproof.simulate.placing import MeasuredPool, border_text
from poolproof.simulate.spec import CurvesSpec, LoopSpec, MapSpec
from poolproof.simulate.study import Study

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
"""Colour and dash of the curves of a chart, in order."""

_AXIS: Final = {
    "n": "training set, images per generation",
    "n_real": "fresh real images per generation",
    "n_synthetic": "synthetic images per generation",
    "n_models": "earlier models that the synthetic images come from",
    "sampling_bias": "sampling bias (1 = unbiased)",
    "squared_w2": "squared W2 distance from the truth",
    "ratio": "n_e / n_real",
    "n_e": "n_e, real images that do as well",
}


@final
@dataclass(frozen=True)
class Chart:
    """A picture on the page and as a file of its own.

    Attributes:
        heading: above it.
        words: below the heading, what it shows.
        markup: for the page.
    """

    heading: str
    words: str
    markup: Markup

    @property
    def picture(self) -> bytes:
        """The wide drawing as an SVG file."""
        return standalone_svg(self.markup)


def draw_charts(study: Study) -> dict[str, Chart]:
    """The charts of a study by file name, without ending."""
    if isinstance(study.spec, LoopSpec):
        return _loop_charts(study.spec, study.table)
    if isinstance(study.spec, MapSpec):
        # a logarithmic axis has no 0; the ratio is 1 there
        synthetic = study.table[study.table["n_synthetic"] > 0]
        return {} if synthetic.empty else {"map": _map_chart(study.spec, synthetic, study.document["pool"])}
    return _curves_charts(study.spec, study.table)


def render_study(study: Study, charts: Mapping[str, Chart], path: Path) -> Path:
    """The path of the page, written there in one step.

    Args:
        study: what a spec gave.
        charts: from `draw_charts`.
        path: of the page.
    """
    page = render_page(
        Path(__file__).with_name("study.html"),
        study=study.document,
        border_text=border_text,
        charts=list(charts.values()),
        kind=study.name,
        told=_words(study),
        columns=_columns(study),
        rows=_rows(study),
    )
    return write_page(page, path)


def write_study(study: Study, out: Path) -> list[Path]:
    """The files written to `out`: Parquet, CSV, JSON, and the page and its pictures.

    Args:
        study: what a spec gave.
        out: folder, made where it is missing. Files of an earlier run of the same name are replaced.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = "generations" if study.name == "loop" else study.name
    paths = [out / f"{table}.parquet", out / f"{table}.csv", out / f"{study.name}.json"]
    with replace_file(paths[0]) as temporary:
        study.table.to_parquet(temporary, index=False)
    with replace_file(paths[1]) as temporary:
        study.table.to_csv(temporary, index=False)
    write_json(paths[2], study.document)
    charts = draw_charts(study)
    for name, chart in charts.items():
        path = out / f"{name}.svg"
        with replace_file(path) as temporary:
            temporary.write_bytes(chart.picture)
        paths.append(path)
    return [*paths, render_study(study, charts, out / f"{study.name}.html")]


# --- maps -----------------------------------------------------------------------------------------------


def _map_chart(spec: MapSpec, table: pd.DataFrame, placed: Mapping[str, Any] | None) -> Chart:
    x_name = "n_real" if spec.panel == "sampling_bias" else "sampling_bias"
    x, y = (np.unique(table[name].to_numpy(float)) for name in (x_name, "n_synthetic"))
    panels = []
    for value in getattr(spec, spec.panel):
        rows = table[table[spec.panel] == value].set_index([x_name, "n_synthetic"])
        ratios = rows["ratio"].unstack(0).sort_index().sort_index(axis=1).to_numpy(float)
        errors = rows["ratio_stderr"].astype(float).unstack(0).sort_index().sort_index(axis=1).to_numpy(float)
        title = f"sampling bias {value:g}" if spec.panel == "sampling_bias" else f"{value:,} fresh real"
        panels.append(Panel(title, x, y, ratios, 2 * np.nan_to_num(errors)))
    marks = [] if placed is None or spec.panel != "sampling_bias" else [_pool_mark(placed)]
    return Chart(
        heading="n_e / n_real",
        words="How many real images a fresh-data loop is worth, over the real images that it uses. "
        "On the blue side of the line the synthetic images help or do no harm, on the orange side they cost "
        "more than they bring. A dot marks cells within two standard errors of 1.",
        markup=heat_map(
            panels,
            x_label=_AXIS[x_name],
            y_label=_AXIS["n_synthetic"],
            colour_label="n_e / n_real",
            contour_label="n_e = n_real, the border of the admissible region",
            log_x=x_name != "sampling_bias",
            marks=marks,
            name="map",
            title="Admissible region",
        ),
    )


def _pool_mark(placed: Mapping[str, Any]) -> Mark:
    share = placed["share"]
    pool = MeasuredPool(placed["n_items"], share["lower"], share["upper"], share["point"], share["level"])
    path_x, path_y = pool.path()
    middle = share["lower"] if share["point"] is None else share["point"]
    n_real, n_synthetic = pool.counts(middle)
    level = "" if share["level"] is None else f", {100 * share['level']:g} % interval"
    return Mark(f"your pool{level}", float(n_real), float(n_synthetic), path_x, path_y)


# --- curves ---------------------------------------------------------------------------------------------


def _curves_charts(spec: CurvesSpec, table: pd.DataFrame) -> dict[str, Chart]:
    charts = {}
    for number, panel in enumerate(dict.fromkeys(curve.panel for curve in spec.curves), 1):
        curves = []
        labels = [curve.label for curve in spec.curves if curve.panel == panel]
        for label, (colour, dashed) in zip(labels[:MOST_CURVES], _COLOURS, strict=False):
            rows = table[(table["panel"] == panel) & (table["curve"] == label)].sort_values("x")
            if spec.x != "sampling_bias":  # a logarithmic axis has no 0
                rows = rows[rows["x"] > 0]
            if rows.empty:
                continue
            curves.append(
                Curve(
                    label,
                    rows["x"].to_numpy(float),
                    rows[spec.y].to_numpy(float),
                    error=2 * rows[f"{spec.y}_stderr"].astype(float).to_numpy(float),
                    colour=colour,
                    dashed=dashed,
                    markers=True,
                )
            )
        if not curves:
            continue
        left = len(labels) - len(curves)
        charts[f"curves-{number}"] = Chart(
            heading=panel or spec.title,
            words="Bars are two standard errors of the simulation, often smaller than the dots."
            + (f" {left} more are in the table." if left else ""),
            markup=curve_chart(
                curves,
                x_label=_AXIS[spec.x],
                y_label=_AXIS[spec.y],
                log_x=spec.x != "sampling_bias",
                log_y=spec.y != "ratio",
                name=f"curves-{number}",
                title=panel or spec.title,
                reference=[(1.0, "real data alone")] if spec.y == "ratio" else (),
            ),
        )
    return charts


# --- loops ----------------------------------------------------------------------------------------------


def _loop_charts(spec: LoopSpec, table: pd.DataFrame) -> dict[str, Chart]:
    figures = {
        "squared_w2": (
            "Distance from the truth",
            _AXIS["squared_w2"],
            "Median over independent loops of the squared W2 distance; the band holds nine tenths of them.",
        ),
        "drift": (
            "Drift along the mark",
            "mean along the mark, in lengths of the mark",
            "How far the mark has moved the models: median over independent loops; the band holds nine tenths.",
        ),
    }
    charts = {}
    for figure, (heading, y_label, words) in figures.items():
        curves = []
        for arm, (colour, dashed) in zip(spec.arms[:MOST_CURVES], _COLOURS, strict=False):
            rows = table[(table["arm"] == arm.label) & (table["figure"] == figure)]
            if rows.empty:
                continue
            columns = {name: rows[name].astype(float).to_numpy(float) for name in ("median", "q05", "q95")}
            curves.append(
                Curve(
                    arm.label,
                    rows["generation"].to_numpy(float),
                    columns["median"],
                    lower=columns["q05"],
                    upper=columns["q95"],
                    colour=colour,
                    dashed=dashed,
                )
            )
        if not curves:
            continue
        values = np.concatenate([curve.y[curve.y > 0] for curve in curves])
        log = figure == "squared_w2" and values.size > 0 and bool(values.max() > 50 * values.min())
        if log:  # the truth itself, at distance 0, has no place on a logarithmic axis
            curves = [replace(curve, y=np.where(curve.y > 0, curve.y, np.nan)) for curve in curves]
        free = log or figure == "drift" or not values.size
        left = len(spec.arms) - len(curves) if figure == "squared_w2" else 0
        charts[figure.replace("_", "-")] = Chart(
            heading=heading,
            words=words + (f" {left} more are in the table." if left > 0 else ""),
            markup=curve_chart(
                curves,
                x_label="generation",
                y_label=y_label,
                log_y=log,
                y_range=None if free else (0.0, float(1.1 * values.max())),
                name=figure.replace("_", "-"),
                title=heading,
            ),
        )
    return charts


# --- words and tables -----------------------------------------------------------------------------------


def _words(study: Study) -> list[str]:
    """What the figures say, a sentence each."""
    table = study.table
    if isinstance(study.spec, LoopSpec):
        rows = table[table["figure"] == "squared_w2"]
        last = _last_generations(rows)
        return [
            f"{row['arm']}: squared W2 {with_error(row['mean'], row['mean_stderr'])} on average in generation "
            f"{row['generation']}, median {row['median']:.3g}."
            for _, row in last.iterrows()
            if np.isfinite(row["mean"])
        ]
    told = []
    if study.document["pool"]:
        biases = study.document["pool"]["by_sampling_bias"]
        for verdict in dict.fromkeys(row["verdict"] for row in biases):
            at = ", ".join(f"{row['sampling_bias']:g}" for row in biases if row["verdict"] == verdict)
            words = "Whether your pool is admissible is" if verdict == "undecided" else "Your pool is"
            told.append(f"{words} {verdict} at sampling bias {at}.")
    if isinstance(study.spec, MapSpec):
        for value in getattr(study.spec, study.spec.panel):
            rows = table[table[study.spec.panel] == value]
            n = int(rows["admissible"].eq(True).sum())
            open_ = int(rows["admissible"].isna().sum())
            words = (
                f"sampling bias {value:g}" if study.spec.panel == "sampling_bias" else f"{value:,} fresh real"
            )
            best = rows["ratio"].max()
            told.append(
                f"{words}: {n} of {len(rows)} cells are admissible"
                + (f", {open_} undecided" if open_ else "")
                + (f"; the best is worth {best:.2f} times its real images." if np.isfinite(best) else ".")
            )
    short = int((~table["converged"].astype(bool)).sum())
    if short:
        told.append(f"{short} of {len(table)} cells did not reach the asked precision; the table says why.")
    return [sentence[0].upper() + sentence[1:] for sentence in told]


def _last_generations(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each arm's last generation, which is earlier where the truth counts as generation 0."""
    return table[table["generation"] == table.groupby("arm")["generation"].transform("max")]


def _columns(study: Study) -> list[str]:
    if isinstance(study.spec, LoopSpec):
        return ["arm", "generation", "figure", "mean", "mean_stderr", "median", "q05", "q95"]
    first = ["panel", "curve"] if isinstance(study.spec, CurvesSpec) else []
    cell = ["n_real", "n_synthetic", "sampling_bias", "n_models"]
    return [*first, *cell, "squared_w2", "squared_w2_stderr", "ratio", "ratio_stderr", "admissible", "why"]


def _rows(study: Study) -> list[list[str]]:
    """The table as text: of a loop, its last generation alone."""
    table = study.table
    if isinstance(study.spec, LoopSpec):
        table = _last_generations(table)
    return [[_cell(value) for value in row] for row in table[_columns(study)].itertuples(index=False)]


def _cell(value: Any) -> str:
    if value is True or value is False or isinstance(value, (str, np.bool)):
        return {"True": "yes", "False": "no"}.get(str(value), str(value))
    if value is None or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        return "\u2013"
    return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:.4g}"
