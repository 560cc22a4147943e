"""Curves: they are drawn to scale, named where there is room, and a browser shows them whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jaxtyping
import matplotlib
import numpy as np
import pytest
from chart_pages import check_page
from chart_svgs import HOSTILE, check_drawings, check_hostile_words, check_ids, paths, svgs, words
from markupsafe import Markup

from poolproof.curves import MOST_CURVES, Curve, curve_chart
from poolproof.maps import Panel, heat_map

SIZES = np.geomspace(100, 100_000, 10)


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


def full_curves() -> Markup:
    """Curves with all that can be drawn on them."""
    x = np.arange(1.0, 6)
    curves = [
        Curve("band", x, x, x / 2, x * 2, colour="real", markers=True),
        Curve("bars", x, 6 - x, error=np.full(5, 0.5), colour="synthetic", dashed=True),
    ]
    return draw_curves(*curves, log_y=True, reference=[(2.0, "floor")])


@pytest.fixture(scope="module")
def full() -> Markup:
    """The full chart, drawn once."""
    return full_curves()


def test_svg_is_fit_for_a_page(full: Markup) -> None:
    """Both screens have a drawing that is named aloud, in colours of the page and in the page's font."""
    check_drawings(full)


def test_ids_are_unique_on_a_page(full: Markup) -> None:
    """Charts side by side, a map among them, share no id, and references stay within their own drawing."""
    panel = Panel("Map", SIZES[:2], SIZES[:2], np.array([[0.5, 2], [2, np.nan]]))
    beside = heat_map([panel], x_label="x", y_label="y", colour_label="ratio", name="map", title="Map")
    check_ids([beside, full, draw_curves(name="other")])


def test_same_chart_same_bytes(full: Markup) -> None:
    """Drawing again gives the same bytes and leaves matplotlib's settings as they were."""
    before = dict(matplotlib.rcParams)
    assert full_curves() == full
    assert dict(matplotlib.rcParams) == before


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


def test_description_says_what_is_seen() -> None:
    """Without words of the caller, the description follows the curves from end to end."""
    told = svgs(draw_curves(reference=[(3, "floor")]))[1].findtext("desc")
    assert told == "up: 1 at 1 to 5 at 5. down: 5 at 1 to 1 at 5. Line at 3: floor."
    assert svgs(draw_curves(description="Two lines."))[0].findtext("desc") == "Two lines."


def test_ticks_are_round() -> None:
    """A logarithmic axis is labelled with plain numbers."""
    assert {"1M", "0.01"} <= set(
        words(svgs(draw_curves(Curve("a", np.array([1e-2, 1e6]), np.ones(2)), log_x=True))[0])
    )


@pytest.mark.parametrize(
    ("n", "marked"), [(1, ["1"]), (2, ["1", "2"]), (4, ["1", "2", "3", "4"]), (16, ["5", "10", "15"])]
)
def test_whole_numbers_are_marked_by_whole_numbers(n: int, marked: list[str]) -> None:
    """An axis of counts, such as generations, has no mark between two of them."""
    x = np.arange(1.0, n + 1)
    for drawing in svgs(draw_curves(Curve("a", x, 700 + x), y_range=(700, 750))):
        numbers = [text for text in words(drawing) if re.fullmatch(r"[\d.]+", text)]
        assert [text for text in numbers if float(text) < 700] == marked


def test_hostile_words_stay_text() -> None:
    """Markup, formulas, overrides and endless words from outside are drawn as cut, visible text."""
    x = np.arange(1.0, 6)
    check_hostile_words(
        [
            draw_curves(Curve(HOSTILE, x, x), reference=[(2.0, HOSTILE)], title=HOSTILE, x_label=HOSTILE),
            draw_curves(Curve("<script>", x, x), y_label="<script>"),
        ]
    )


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
    with pytest.raises(ValueError, match="upper of curve 'a'"):
        draw_curves(Curve("a", SIZES, SIZES, SIZES, SIZES[:3]))


@pytest.mark.slow
@pytest.mark.browser
def test_page_is_quiet_and_fits(full: Markup, tmp_path: Path) -> None:
    """No message; nothing wider than the screen; of each chart one drawing, with words inside the screen."""
    x = np.arange(1.0, 6)
    hostile = draw_curves(
        Curve(HOSTILE, x, x), reference=[(2.0, HOSTILE)], x_label=HOSTILE, y_label=HOSTILE, name="hostile"
    )
    check_page([full, hostile], tmp_path, more_words_than=20)
