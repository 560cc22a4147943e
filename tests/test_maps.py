"""Maps: every cell is drawn, lines and marks lie where they should, and a browser shows them whole."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jaxtyping
import matplotlib
import numpy as np
import pytest
from chart_pages import check_page
from chart_svgs import HOSTILE, check_drawings, check_hostile_words, check_ids, paths, points, svgs, words
from markupsafe import Markup

from poolproof.maps import Mark, Panel, heat_map

SIZES = np.geomspace(100, 100_000, 10)


def ratio(n: int = 10, title: str = "Ratio", **more: Any) -> Panel:
    """The field x/y over n sizes each way, which is 1 on the diagonal."""
    sizes = np.geomspace(100, 100_000, n)
    return Panel(title, sizes, sizes, sizes[None, :] / sizes[:, None], **more)


def draw_map(*panels: Panel, **more: Any) -> Markup:
    """A map of panels, of the ratio unless told otherwise."""
    words: dict[str, Any] = {"x_label": "real images", "y_label": "synthetic images", "colour_label": "ratio"}
    words |= {"name": "map", "title": "Map"}
    return heat_map(panels or [ratio(6)], **(words | more))


def full_map() -> Markup:
    """Panels with all that can be drawn on them."""
    known = ratio(6).values.copy()
    known[0, :2] = np.nan
    own = Mark("own pool", 3000, 5000, np.array([2000.0, 4000]), np.array([1000.0, np.inf]))
    errors = np.full_like(known, 0.3)
    panels = [
        ratio(6, "First", marks=(own,)),
        Panel("Second", ratio(6).x, ratio(6).y, known, errors),
        ratio(20),
    ]
    return draw_map(*panels, marks=[Mark("far", 1e9, 0)])


@pytest.fixture(scope="module")
def full() -> Markup:
    """The full map, drawn once."""
    return full_map()


@pytest.fixture(scope="module")
def plain() -> Markup:
    """The map of the ratio alone, drawn once."""
    return draw_map()


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


def test_svg_is_fit_for_a_page(full: Markup) -> None:
    """Both screens have a drawing that is named aloud, in colours of the page and in the page's font."""
    check_drawings(full)


def test_ids_are_unique_on_a_page(full: Markup) -> None:
    """Maps side by side share no id, and each reference finds its target within its own drawing."""
    check_ids([full, draw_map(name="other")])


def test_same_chart_same_bytes(full: Markup) -> None:
    """Drawing again gives the same bytes and leaves matplotlib's settings as they were."""
    before = dict(matplotlib.rcParams)
    assert full_map() == full
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


def test_edges_are_geometric(plain: Markup) -> None:
    """On a logarithmic axis, sizes in geometric progression have cells of one width that touch."""
    for drawing in svgs(plain):
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
    panel = Panel("", SIZES[:4], SIZES[:4], np.full((4, 4), value))
    for drawing in svgs(draw_map(panel)):
        lines = paths(drawing, "stroke: var(--ink); stroke-width: 2")
        assert max(map(len, lines)) == 2  # the sample in the legend, and the mark on the colour scale


def test_unknown_cells_have_a_stroke(plain: Markup) -> None:
    """A cell whose value is not known has no colour but a stroke, which the legend explains."""
    values = ratio(6).values.copy()
    values[2, 3] = values[5, 5] = np.nan
    for drawing in svgs(draw_map(Panel("", ratio(6).x, ratio(6).y, values))):
        assert len(cells(drawing)) == 34
        assert len(paths(drawing, "stroke: var(--muted); stroke-width: 0.75")) == 3
        assert "not known" in words(drawing)
    assert all("not known" not in words(drawing) for drawing in svgs(plain))
    assert len(cells(svgs(draw_map(Panel("", SIZES[:3], SIZES[:2], np.full((2, 3), np.nan))))[0])) == 0


def test_values_stand_in_large_cells_only() -> None:
    """Each cell of a coarse grid that no line crosses has its value; those of a fine grid have none."""
    coarse = Panel("", SIZES[:4], SIZES[:3], np.array([[0.123, 0.997, 1.04, 12.3]] * 3))
    for drawing in svgs(draw_map(coarse, contour=0.1)):
        drawn = words(drawing)
        assert [drawn.count(text) for text in ("0.12", "1.0", "12")] == [3, 6, 3]
    fine = draw_map(ratio(25))
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
    for drawing in svgs(draw_map(ratio(), marks=[mark])):
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
def test_marks_beyond_the_edge(plain: Markup, x: float, y: float, beyond: bool) -> None:
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
        unmarked = svgs(plain)[drawing.get("class") != "chart wide"]
        whole = np.ptp(np.concatenate([corners for *_, corners in cells(unmarked)]), axis=0)
        shrunk = (span / whole).round(2).tolist()
        assert (min(shrunk) < 0.9) == (x == 9e5 or y == 20)


def test_description_says_what_is_seen() -> None:
    """Without words of the caller, the description counts cells and places marks."""
    values = ratio(4).values.copy()
    values[0, 0] = np.nan
    chart = draw_map(Panel("Bias 1", ratio(4).x, ratio(4).y, values), marks=[Mark("own pool", 1e9, 200)])
    assert svgs(chart)[0].findtext("desc") == (
        "Colour: ratio. Bias 1: 9 of 15 cells at 1 or above, 1 not known. "
        "Marked: own pool at 1,000,000,000 across, 200 up, beyond the edge."
    )


def test_ticks_are_round(plain: Markup) -> None:
    """Logarithmic axes are labelled with plain numbers."""
    for drawing in svgs(plain):
        assert {"100", "1,000", "10k", "100k"} <= set(words(drawing))


def test_hostile_words_stay_text() -> None:
    """Markup, formulas, overrides and endless words from outside are drawn as cut, visible text."""
    check_hostile_words(
        [
            draw_map(ratio(3, HOSTILE), marks=[Mark(HOSTILE, 1e3, 1e3)], x_label=HOSTILE, title=HOSTILE),
            draw_map(colour_label="<script>", contour_label=HOSTILE, y_label="<script>"),
        ]
    )


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


def test_sizes_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of sizes that do not belong together are refused where no shape checker runs, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"values have shape \(2, 3\)"):
        draw_map(Panel("", SIZES[:2], SIZES[:3], np.ones((2, 3))))
    with pytest.raises(ValueError, match="errors have shape"):
        draw_map(Panel("", SIZES[:2], SIZES[:3], np.ones((3, 2)), np.ones((2, 3))))
    with pytest.raises(ValueError, match="path_x and path_y"):
        draw_map(marks=[Mark("m", 1.0, 1.0, np.ones(2), np.ones(3))])


@pytest.mark.slow
@pytest.mark.browser
def test_page_is_quiet_and_fits(full: Markup, tmp_path: Path) -> None:
    """No message; nothing wider than the screen; of each map one drawing, with words inside the screen."""
    hostile = draw_map(
        ratio(4, HOSTILE), marks=[Mark(HOSTILE, 1e3, 1e3)], contour_label=HOSTILE, name="hostile"
    )
    four = draw_map(*[ratio(10, "Ratio")] * 4, name="four")
    check_page([full, four, hostile], tmp_path, more_words_than=100)
