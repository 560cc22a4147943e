"""Maps and curves: every cell is drawn, lines cross where they should, and a browser shows them whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jaxtyping
import matplotlib
import numpy as np
import pytest
from markupsafe import Markup
from playwright.sync_api import Browser, sync_playwright

from poolproof.charts import COLOURS
from poolproof.curves import MOST_CURVES, Curve, curve_chart
from poolproof.maps import Mark, Panel, heat_map
from poolproof.page import render_page

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
HOSTILE = "</text><script>alert(1)</script> costs $5$ \u202e\u5b57\n" + "x" * 200
SIZES = np.geomspace(100, 100_000, 10)


def ratio(n: int = 10, title: str = "Ratio", **more: Any) -> Panel:
    """The field x/y over n sizes each way, which is 1 on the diagonal."""
    sizes = np.geomspace(100, 100_000, n)
    return Panel(title, sizes, sizes, sizes[None, :] / sizes[:, None], **more)


def draw_map(*panels: Panel, **more: Any) -> Markup:
    """A map of panels, of the ratio unless told otherwise."""
    words: dict[str, Any] = {"x_label": "real images", "y_label": "synthetic images", "colour_label": "ratio"}
    words |= {"name": "map", "title": "Map"}
    return heat_map(panels or [ratio()], **(words | more))


def draw_curves(*curves: Curve, **more: Any) -> Markup:
    """A chart of curves, of two straight ones unless told otherwise."""
    x = np.arange(1.0, 6)
    straight = (Curve("up", x, x, colour="real"), Curve("down", x, 6 - x, colour="synthetic", dashed=True))
    words: dict[str, Any] = {
        "x_label": "generation",
        "y_label": "recall",
        "name": "curves",
        "title": "Curves",
    }
    return curve_chart(curves or straight, **(words | more))


def every_part() -> list[Markup]:
    """A map and curves with all that can be drawn on them."""
    known = ratio(6).values.copy()
    known[0, :2] = np.nan
    own = Mark("own pool", 3000, 5000, np.array([2000.0, 4000]), np.array([1000.0, np.inf]))
    errors = np.full_like(known, 0.3)
    panels = [
        ratio(6, "First", marks=(own,)),
        Panel("Second", ratio(6).x, ratio(6).y, known, errors),
        ratio(30),
    ]
    x = np.arange(1.0, 6)
    curves = [
        Curve("band", x, x, x / 2, x * 2, colour="real", markers=True),
        Curve("bars", x, 6 - x, error=np.full(5, 0.5), colour="synthetic", dashed=True),
    ]
    return [
        draw_map(*panels, marks=[Mark("far", 1e9, 0)]),
        draw_curves(*curves, log_y=True, reference=[(2.0, "floor")]),
    ]


def svgs(markup: Markup) -> list[ElementTree.Element]:
    """The drawings for both screens."""
    return list(ElementTree.fromstring(f"<p>{markup}</p>"))


def words(drawing: ElementTree.Element) -> list[str]:
    """All words drawn."""
    return [text.text or "" for text in drawing.iter("text")]


def points(path: ElementTree.Element) -> np.ndarray:
    """The corners of a path."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def paths(drawing: ElementTree.Element, *styles: str, corners: int | None = None) -> list[np.ndarray]:
    """The corners of each path that has all the styles."""
    found = []
    for path in drawing.iter("path"):
        if all(style in path.get("style", "") for style in styles):
            found.append(points(path))
    return [each for each in found if corners is None or len(each) == corners]


def cells(drawing: ElementTree.Element) -> list[tuple[str, float, np.ndarray]]:
    """Colour, opacity and corners of each cell; the bars of the colour scale are flat and left out."""
    found = []
    for path in drawing.iter("path"):
        style = path.get("style", "")
        matched = re.search(
            r"fill: var\(--(real|synthetic)\); fill-opacity: ([\d.]+)|fill: var\(--(\w+)\)", style
        )
        corners = points(path)
        if matched and matched[1] and len(corners) == 4 and np.ptp(corners[:, 1]) > 12.5:
            found.append((matched[1], float(matched[2]), corners))
    return found


@pytest.mark.parametrize("which", [0, 1], ids=["map", "curves"])
def test_svg_is_fit_for_a_page(which: int) -> None:
    """Both screens have a drawing that is named aloud, in colours of the page and in the page's font."""
    chart = every_part()[which]
    drawings = svgs(chart)
    assert [drawing.get("class") for drawing in drawings] == ["chart wide", "chart narrow"]
    for drawing in drawings:
        spoken = [drawing.find(f".//*[@id='{name}']") for name in drawing.get("aria-labelledby", "").split()]
        assert [element.tag for element in spoken if element is not None] == ["title", "desc"]
        tags = {element.tag for element in drawing.iter()}
        assert tags <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clipPath", "rect"}
        assert all("fill: var(" in text.get("style", "") for text in drawing.iter("text"))
    assert "font-family" not in chart
    assert not re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r"(href=\"|url\()#[^\")]+", "", chart))
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(COLOURS)


def test_ids_are_unique_on_a_page() -> None:
    """Charts side by side share no id, and each reference finds its target within its own drawing."""
    page = Markup("").join([*every_part(), draw_map(name="other")])
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for drawing in svgs(page):
        own = {element.get("id") for element in drawing.iter()}
        inside = ElementTree.tostring(drawing, encoding="unicode")
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', inside)) <= own


def test_same_chart_same_bytes() -> None:
    """Drawing again gives the same bytes and leaves matplotlib's settings as they were."""
    before = dict(matplotlib.rcParams)
    assert every_part() == every_part()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_each_cell_is_drawn(count: int) -> None:
    """A panel has as many cells as values on each screen, side by side on wide ones and stacked on narrow."""
    wide, narrow = (cells(drawing) for drawing in svgs(draw_map(*[ratio(6)] * count)))
    assert len(wide) == len(narrow) == 36 * count
    tops = [len({round(corners[:, 1].min()) for *_, corners in each[::36]}) for each in (wide, narrow)]
    assert tops == [-(-count // 3) if count != 4 else 1, count]


def test_colours_tell_the_sides_apart() -> None:
    """Cells below the contour have one colour, others another, stronger the further from it."""
    values = np.array([[0.0, 0.5, 0.99, 1.0, 1.75, 2.5, 9.0]])
    panel = Panel("", np.arange(1.0, 8), np.array([1.0]), values)
    for drawing in svgs(draw_map(panel, log_x=False)):
        drawn = cells(drawing)
        assert [colour for colour, *_ in drawn] == ["synthetic"] * 3 + ["real"] * 4
        low, half, near, at, above, high, beyond = (opacity for _, opacity, _ in drawn)
        assert low > half > near > at
        assert 0.01 > at < above < high == beyond == low
        assert above == pytest.approx(high / 2, abs=1e-3)
        assert "\u2265\u00a02.5" in words(drawing)


def test_edges_are_geometric() -> None:
    """On a logarithmic axis, sizes in geometric progression have cells of one width that touch."""
    for drawing in svgs(draw_map(ratio(6))):
        row = [corners for *_, corners in cells(drawing)[:6]]
        assert np.ptp([np.ptp(corners[:, 0]) for corners in row]) < 1e-3
        gaps = [after[:, 0].min() - before[:, 0].max() for before, after in pairwise(row)]
        assert gaps == pytest.approx([1] * 5, abs=1e-3)


@pytest.mark.theory
@pytest.mark.parametrize("times", [1, 3, 30])
def test_contour_is_where_the_field_says(times: float) -> None:
    """The line where t x/y is 1 runs through the places with y = t x, to a hundredth of a decade."""
    panel = ratio()
    for drawing in svgs(draw_map(Panel("", panel.x, panel.y, times * panel.values))):
        corners = np.concatenate([corners for *_, corners in cells(drawing)])
        left, top = corners.min(axis=0)
        right, bottom = corners.max(axis=0)
        lines = paths(drawing, "stroke: var(--ink); stroke-width: 2")
        line = np.concatenate([line for line in lines if len(line) > 2])
        decades = 3 * 10 / 9  # nine steps between ten centres, and half a step on both sides
        x = 2 - decades / 20 + (line[:, 0] - left) / (right - left) * decades
        y = 2 - decades / 20 + (bottom - line[:, 1]) / (bottom - top) * decades
        assert np.abs(y - x - np.log10(times)).max() < 0.01
        assert np.ptp(x) == pytest.approx(3 - np.log10(times), abs=0.02)


@pytest.mark.parametrize("value", [0.5, 1.0, 2.0])
def test_no_contour_without_both_sides(value: float) -> None:
    """A field on one side of the contour value has no line, and matplotlib is not made to warn."""
    panel = Panel("", SIZES, SIZES, np.full((10, 10), value))
    for drawing in svgs(draw_map(panel)):
        lines = paths(drawing, "stroke: var(--ink); stroke-width: 2")
        assert max(map(len, lines)) == 2  # the sample in the legend, and the mark on the colour scale


def test_unknown_cells_have_a_stroke() -> None:
    """A cell whose value is not known has no colour but a stroke, which the legend explains."""
    values = ratio(6).values.copy()
    values[2, 3] = values[5, 5] = np.nan
    for drawing in svgs(draw_map(Panel("", ratio(6).x, ratio(6).y, values))):
        assert len(cells(drawing)) == 34
        assert len(paths(drawing, "stroke: var(--muted); stroke-width: 0.75")) == 3
        assert "not known" in words(drawing)
    assert all("not known" not in words(drawing) for drawing in svgs(draw_map()))
    assert len(cells(svgs(draw_map(Panel("", SIZES, SIZES, np.full((10, 10), np.nan))))[0])) == 0


def test_values_stand_in_large_cells_only() -> None:
    """Each cell of a coarse grid that no line crosses has its value; those of a fine grid have none."""
    coarse = Panel("", SIZES[:4], SIZES[:3], np.array([[0.123, 0.997, 1.04, 12.3]] * 3))
    for drawing in svgs(draw_map(coarse, contour=0.1)):
        drawn = words(drawing)
        assert [drawn.count(text) for text in ("0.12", "1.0", "12")] == [3, 6, 3]
    fine = draw_map(ratio(40))
    assert all(not [text for text in words(drawing) if text.startswith("0.0")] for drawing in svgs(fine))


def test_undecided_cells_have_a_dot() -> None:
    """Cells whose interval holds the contour value have a dot, and the legend one more."""
    values = np.array([[0.5, 0.9, 1.2]])
    panel = Panel("", SIZES[:3], SIZES[:1], values, np.full((1, 3), 0.25))
    for drawing in svgs(draw_map(panel)):
        assert len(list(drawing.iter("use"))) - len(svg_ticks(drawing)) == 3
        assert "interval holds 1" in words(drawing)


def svg_ticks(drawing: ElementTree.Element) -> list[ElementTree.Element]:
    """The tick marks of all axes."""
    return [use for use in drawing.iter("use") if "stroke: var(--line)" in use.get("style", "")]


def test_marks_lie_where_they_belong() -> None:
    """A mark at a cell's centre is drawn there, and its path from end to end."""
    x, y = SIZES[3], SIZES[6]
    mark = Mark("own pool", x, y, np.array([SIZES[2], SIZES[8]]), np.array([y, y]))
    for drawing in svgs(draw_map(marks=[mark])):
        drawn = cells(drawing)
        centres = np.array([corners.mean(axis=0) for *_, corners in drawn]).reshape(10, 10, 2)
        at = [
            (float(use.get("x", 0)), float(use.get("y", 0)))
            for use in drawing.iter("use")
            if "stroke: var(--ink)" in use.get("style", "")
        ]
        assert min(np.hypot(*(centres[6, 3] - point)) for point in at) < 0.01
        path = max(
            paths(drawing, "stroke: var(--ink)", "stroke-dasharray"), key=lambda path: np.ptp(path[:, 0])
        )
        assert path[:, 0] == pytest.approx([centres[6, 2, 0], centres[6, 8, 0]], abs=0.01)
        assert "own pool" in words(drawing)


@pytest.mark.parametrize(
    ("x", "y", "beyond"),
    [
        (1e3, 1e3, False),
        (9e5, 1e3, False),
        (1e3, 20.0, False),
        (1e9, 1e3, True),
        (1e3, 0, True),
        (0, 1e9, True),
    ],
)
def test_marks_beyond_the_edge(x: float, y: float, beyond: bool) -> None:
    """Axes extend to marks within a decade; a mark further off stays inside, and this is said in words."""
    chart = draw_map(marks=[Mark("own pool", x, y)])
    for drawing in svgs(chart):
        assert ("own pool (beyond the edge)" in words(drawing)) == beyond
        assert ("up, beyond the edge" in (drawing.findtext("desc") or "")) == beyond
        width, height = (float(side) for side in drawing.get("viewBox", "").split()[2:])
        for use in drawing.iter("use"):
            assert 0 <= float(use.get("x", 0)) <= width
            assert 0 <= float(use.get("y", 0)) <= height
        span = np.ptp(np.concatenate([corners for *_, corners in cells(drawing)]), axis=0)
        plain = svgs(draw_map())[drawing.get("class") != "chart wide"]
        whole = np.ptp(np.concatenate([corners for *_, corners in cells(plain)]), axis=0)
        shrunk = (span / whole).round(2).tolist()
        assert (min(shrunk) < 0.9) == (x == 9e5 or y == 20)


def test_descriptions_say_what_is_seen() -> None:
    """Without words of the caller, the description counts cells, places marks and follows curves."""
    values = ratio(4).values.copy()
    values[0, 0] = np.nan
    chart = draw_map(Panel("Bias 1", ratio(4).x, ratio(4).y, values), marks=[Mark("own pool", 1e9, 200)])
    assert svgs(chart)[0].findtext("desc") == (
        "Colour: ratio. Bias 1: 9 of 15 cells at 1 or above, 1 not known. "
        "Marked: own pool at 1,000,000,000 across, 200 up, beyond the edge."
    )
    told = svgs(draw_curves(reference=[(3, "floor")]))[1].findtext("desc")
    assert told == "up: 1 at 1 to 5 at 5. down: 5 at 1 to 1 at 5. Line at 3: floor."
    assert svgs(draw_curves(description="Two lines."))[0].findtext("desc") == "Two lines."


def test_ticks_are_round() -> None:
    """Logarithmic axes are labelled with plain numbers, none of which overlap."""
    for drawing in svgs(draw_map()):
        assert {"100", "1,000", "10k", "100k"} <= set(words(drawing))
    assert {"1M", "0.01"} <= set(
        words(svgs(draw_curves(Curve("a", np.array([1e-2, 1e6]), np.ones(2)), log_x=True))[0])
    )


def test_hostile_words_stay_text() -> None:
    """Markup, formulas, overrides and endless words from outside are drawn as cut, visible text."""
    x = np.arange(1.0, 6)
    charts = [
        draw_map(ratio(3, HOSTILE), marks=[Mark(HOSTILE, 1e3, 1e3)], x_label=HOSTILE, title=HOSTILE),
        draw_map(colour_label="<script>", contour_label=HOSTILE, y_label="<script>"),
        draw_curves(Curve(HOSTILE, x, x), reference=[(2.0, HOSTILE)], title=HOSTILE, x_label=HOSTILE),
        draw_curves(Curve("<script>", x, x), y_label="<script>"),
    ]
    for drawing in (drawing for chart in charts for drawing in svgs(chart)):
        assert {element.tag for element in drawing.iter()}.isdisjoint({"script", "a", "image"})
        assert any("script>" in text for text in words(drawing))
        assert not any("\u202e" in text or "\n" in text or len(text) > 110 for text in words(drawing))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"contour": 3.0}, "contour is 3.0"),
        ({"colour_range": (2.0, 0.0)}, "contour is 1.0"),
        ({"panels": []}, "panels is empty"),
        ({"panels": [Panel("", SIZES[:0], SIZES, np.empty((10, 0)))]}, "x is"),
        ({"panels": [Panel("", SIZES, SIZES[::-1].copy(), np.ones((10, 10)))]}, "y is"),
        ({"panels": [Panel("", SIZES - 100, SIZES, np.ones((10, 10)))]}, "x begins at 0"),
        ({"panels": [Panel("", SIZES, SIZES, np.full((10, 10), np.inf))]}, "values hold infinity"),
        ({"marks": [Mark("m", -1.0, 5)]}, "x of mark 'm'"),
        ({"marks": [Mark("m", 1.0, float("nan"))]}, "y of mark 'm'"),
        ({"marks": [Mark("m", 1.0, 1.0, np.array([1.0, -1]), np.ones(2))]}, "x of mark 'm'"),
    ],
)
def test_maps_that_cannot_be_drawn(more: dict[str, Any], message: str) -> None:
    """What does not fit a map is refused by name."""
    panels = more.pop("panels", [ratio()])
    fixed = {"x_label": "", "y_label": "", "colour_label": "", "name": "map", "title": ""}
    with pytest.raises(ValueError, match=message):
        heat_map(panels, **fixed, **more)


@pytest.mark.parametrize(
    ("curves", "more", "message"),
    [
        ([], {}, "curves are 0"),
        ([Curve(str(i), SIZES, SIZES) for i in range(MOST_CURVES + 1)], {}, "curves are 7"),
        ([Curve("a", SIZES, SIZES), Curve("b", SIZES, SIZES)], {}, "same colour and dash"),
        ([Curve("a", SIZES, SIZES, colour="red")], {}, "colour of curve 'a' is 'red'"),
        ([Curve("a", SIZES, SIZES, lower=SIZES)], {}, "interval of curve 'a'"),
        ([Curve("a", SIZES, SIZES, SIZES, SIZES, SIZES)], {}, "interval of curve 'a'"),
        ([Curve("a", SIZES[:0], SIZES[:0])], {}, "x of curve 'a'"),
        ([Curve("a", SIZES * np.nan, SIZES)], {}, "x of curve 'a'"),
        ([Curve("a", SIZES - 100, SIZES)], {"log_x": True}, "x of curve 'a' has 0"),
        ([Curve("a", SIZES, SIZES - 100)], {"log_y": True}, "y of curve 'a' has 0"),
        ([Curve("a", SIZES, SIZES)], {"y_range": (1.0, 1.0)}, "y_range is"),
        ([Curve("a", SIZES, SIZES)], {"y_range": (0.0, 1.0), "log_y": True}, "y_range is"),
        ([Curve("a", SIZES, SIZES)], {"reference": [(0.0, "none")], "log_y": True}, "reference is"),
    ],
)
def test_curves_that_cannot_be_drawn(curves: list[Curve], more: dict[str, Any], message: str) -> None:
    """What does not fit a chart of curves is refused by name."""
    with pytest.raises(ValueError, match=message):
        curve_chart(curves, x_label="", y_label="", name="curves", title="", **more)


def test_sizes_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of sizes that do not belong together are refused where no shape checker runs, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"values have shape \(2, 3\)"):
        draw_map(Panel("", SIZES[:2], SIZES[:3], np.ones((2, 3))))
    with pytest.raises(ValueError, match="errors have shape"):
        draw_map(Panel("", SIZES[:2], SIZES[:3], np.ones((3, 2)), np.ones((2, 3))))
    with pytest.raises(ValueError, match="path_x and path_y"):
        draw_map(marks=[Mark("m", 1.0, 1.0, np.ones(2), np.ones(3))])
    with pytest.raises(ValueError, match="upper of curve 'a'"):
        draw_curves(Curve("a", SIZES, SIZES, SIZES, SIZES[:3]))


def test_curves_are_named_at_their_ends_or_below() -> None:
    """Names stand beside the ends on wide screens, and in a legend where there is no room or no end."""
    wide, narrow = svgs(draw_curves())
    for drawing, legend in ((wide, 0), (narrow, 2)):
        assert {"up", "down"} <= set(words(drawing))
        coloured = [text for text in drawing.iter("text") if text.text in {"up", "down"}]
        assert sum("var(--ink)" in text.get("style", "") for text in coloured) == legend
    x = np.arange(1.0, 6)
    looks = [(colour, dashed) for colour in ("real", "synthetic", "ink") for dashed in (False, True)]
    same = [Curve(f"c{i}", x, x, colour=colour, dashed=dashed) for i, (colour, dashed) in enumerate(looks)]
    early = [Curve("a", x, x), Curve("b", x[:3], x[:3], colour="real")]
    for curves in (same, early):
        [drawing, _] = svgs(draw_curves(*curves))
        named = [text for text in drawing.iter("text") if text.text in {curve.label for curve in curves}]
        assert len(named) == len(curves)
        assert all("var(--ink)" in text.get("style", "") for text in named)


def test_names_at_ends_do_not_overlap() -> None:
    """Names of curves that end close together stand a line apart."""
    x = np.arange(1.0, 6)
    curves = [
        Curve("one", x, x * 0, colour="real"),
        Curve("two", x, x * 0 + 0.01, colour="synthetic"),
        Curve("three", x, x * 0.2, colour="pool"),
    ]
    [drawing, _] = svgs(draw_curves(*curves))
    heights = {}
    for text in drawing.iter("text"):
        moved = re.search(r"translate\([\d.]+ ([\d.]+)\)", text.get("transform", ""))
        heights[text.text] = float(moved[1]) if moved else float(text.get("y", "nan"))
    assert heights["three"] < heights["two"] <= heights["one"] - 17


def test_curves_are_drawn_to_scale() -> None:
    """A straight line is straight, keeps to the range asked for, and has a gap where nothing is known."""
    x = np.arange(5.0)
    y = np.array([0.0, 1, np.nan, 3, 4])
    for drawing in svgs(draw_curves(Curve("a", x, y, colour="real"), y_range=(0, 4))):
        [line] = paths(drawing, "stroke: var(--real); stroke-width: 2", corners=4)
        slopes = np.diff(line[:, 1]) / np.diff(line[:, 0])
        assert slopes == pytest.approx([slopes[0]] * 3, abs=1e-3)
        height = 240 if drawing.get("class") == "chart narrow" else 300
        assert np.ptp(line[:, 1]) == pytest.approx(height, abs=0.01)


def test_bands_that_reach_zero_on_a_logarithmic_axis() -> None:
    """A band or bar down to 0 is drawn as running out of the chart."""
    x = np.arange(1.0, 6)
    intervals: list[dict[str, Any]] = [{"lower": x * 0, "upper": x * 2}, {"error": x}]
    for more in intervals:
        for drawing in svgs(draw_curves(Curve("a", x, x, **more), log_y=True)):
            assert "nan" not in ElementTree.tostring(drawing, encoding="unicode").lower().replace("nant", "")


def test_reference_lines_have_words() -> None:
    """A reference inside the range has a dashed line and its words; one outside has neither."""
    for drawing in svgs(draw_curves(y_range=(0.0, 6.0), reference=[(3.0, "floor"), (9.0, "roof")])):
        assert "floor" in words(drawing)
        assert "roof" not in words(drawing)
        assert len(paths(drawing, "stroke: var(--muted)", "stroke-dasharray")) == 1


# --- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless chromium. Its absence is a skip at a desk and a failure in continuous integration."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "no chromium found"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[[list[Markup]], Path]:
    """Writes a page of charts."""

    def make(charts: list[Markup]) -> Path:
        template = tmp_path / "charts.html"
        template.write_text(
            '{% extends "page.html" %}{% block main %}{% for chart in charts %}'
            '<section class="card">{{ chart }}</section>{% endfor %}{% endblock %}'
        )
        (tmp_path / "written.html").write_bytes(render_page(template, charts=charts))
        return tmp_path / "written.html"

    return make


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_page_is_quiet_and_fits(
    browser: Browser, page_of: Callable[[list[Markup]], Path], width: int, scheme: Any
) -> None:
    """No message; nothing wider than the screen; of each chart one drawing, with words inside the screen."""
    hostile = draw_map(
        ratio(4, HOSTILE), marks=[Mark(HOSTILE, 1e3, 1e3)], contour_label=HOSTILE, name="hostile"
    )
    path = page_of([*every_part(), draw_map(*[ratio(10, "Ratio")] * 4, name="four"), hostile])
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    events: list[str] = []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".chart:visible").count() == 4
    boxes = page.eval_on_selector_all(
        ".chart text",
        """all => all.filter(one => one.getClientRects().length).map(one => {
            const box = one.getBoundingClientRect();
            return [box.left, box.right];
        })""",
    )
    assert len(boxes) > 100
    assert all(left >= 0 and right <= width for left, right in boxes)
    page.close()
    assert events == []
