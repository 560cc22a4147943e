"""What a loop of trained generators leaves on disk: tables, document, pictures, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from markupsafe import Markup

from poolproof.files import replace_file, write_json
from poolproof.page import counted, number, percent, render_page, shorten, visible, write_page
from poolproof.simulate.figures import FIGURES, PANELS
from poolproof.simulate.loop_charts import BETWEEN, draw_panels
from poolproof.simulate.strips import fit_window, strip_uri
from poolproof.simulate.study_page import Chart
from poolproof.simulate.summary import summarise_generations, tell_findings

if TYPE_CHECKING:
    import pandas as pd

Strips = Mapping[str, Sequence[tuple[int, np.ndarray]]]
"""Samples of some generations by arm, of one seed: images as bytes (n, h, w, c), or points (n, 2)."""

MOST_ROWS: Final = 8
"""Generations of an arm whose samples are shown."""


def draw_loop_charts(document: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Chart]:
    """The charts of a loop by file name, without ending, in the order of the page.

    Each figure has one chart, or one per group of arms where they are more than one chart can keep apart. A loop of one
    generation has no charts over generations; its page has a table.

    Args:
        document: the loop's document; gives the reference lines and the effective size.
        table: one row per arm, seed and generation.
    """
    panels = draw_panels(document, summarise_generations(table))
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
    panels = draw_panels(document, summary)
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
        panels=[(name, heading, _arrange(panels[name])) for name, heading in PANELS.items()],
        policy=_policy_rows(table, last),
        sizes=_size_rows(document.get("effective_size")),
        strips=_strip_rows(strips),
        failed=failed,
        figures=_figure_rows(last),
        reference=_reference_rows(document.get("reference") or {}),
        spec=_lines(json.dumps(document.get("spec", {}), indent=2, ensure_ascii=False)),
        has_errors=bool(last["stderr"].notna().any()),
        is_single=summary["generation"].nunique() == 1,
    )


def _arrange(charts: Mapping[str, Chart]) -> list[dict[str, Any]]:
    """Blocks of charts: one over the whole width, or several side by side, those of one figure under its heading."""
    blocks: list[dict[str, Any]] = []
    for name, chart in charts.items():
        heading, _, part = chart.heading.partition(BETWEEN)
        wide = name in ("frechet-distance", "squared-w2") and not blocks
        wide = wide or name.startswith("effective-size")
        block = {"wide": wide, "heading": heading if part else "", "words": chart.words if part else ""}
        if wide or not blocks or any(blocks[-1][key] != block[key] for key in ("wide", "heading")):
            blocks.append(block | {"charts": []})
        blocks[-1]["charts"].append((part if part and not wide else chart.heading, chart))
    # the curve that n_e is read from comes before n_e
    return sorted(blocks, key=lambda block: not block["wide"])


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
    """A mean with two standard errors, where there are any, to the digits that they leave sure."""
    if not np.isfinite(stderr):
        return number(mean)
    places = 3 if stderr == 0 else int(min(max(0, np.ceil(-np.log10(2 * stderr))), 4))
    return f"{mean:,.{places}f} \u00b1\u00a0{2 * stderr:,.{places}f}"


def _policy_rows(table: pd.DataFrame, last: pd.DataFrame) -> tuple[list[str], list[list[str]], int | None]:
    """Column headings; a row per arm, what its last generation measures and its policy took; and the generation.

    The generation is None where the arms end at different ones; it is then a column.
    """
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
    ends = sorted({int(each) for each in last["generation"]})
    rows = []
    for arm, mine in last.groupby("arm", sort=False):
        generation = mine["generation"].iloc[0]
        at = (table["arm"] == arm) & (table["generation"] == generation) & (table["status"] == "done")
        when = [str(generation)] if len(ends) > 1 else []
        rows.append([str(arm), *when, *(_measured(mine, name) for name in named), *_kept_words(table[at])])
    headings = ["arm", *(["generation"] if len(ends) > 1 else []), *named.values()]
    return [*headings, "real images lost", "synthetic kept"], rows, ends[0] if len(ends) == 1 else None


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
    return f"{part:,.0f}\u00a0of\u00a0{whole:,.0f}" + (
        f" {percent(part / whole)}" if 0 < part < whole else ""
    )


def _size_rows(size: Mapping[str, Any] | None) -> list[list[str]]:
    verdicts = {True: "admissible", False: "not admissible", None: "open"}
    rows = []
    for arm in (size or {}).get("arms", []):
        ratio, n_real, ends = arm.get("ratio"), arm.get("n_real"), (arm.get("lower"), arm.get("upper"))
        rows.append(
            [
                arm["arm"],
                verdicts[arm.get("admissible")],
                "\u2013" if n_real is None else number(n_real),
                "\u2013" if ratio is None or n_real is None else f"{ratio * n_real:,.0f}",
                "\u2013" if ratio is None else number(ratio),
                " to ".join("open" if end is None else number(end) for end in ends)
                if any(ends)
                else "\u2013",
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
            rows.append((f"{FIGURES[name].heading}, real against real", number(value)))
    return rows
