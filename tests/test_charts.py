"""Charts as SVG inside the page: sound, alone with their ids, coloured by the page, and drawn to scale."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from chart_svgs import check_ids
from markupsafe import Markup

from poolproof.charts import (
    COLOURS,
    Counts,
    figure_svg,
    histogram_chart,
    interval_chart,
    new_figure,
    responsive_chart,
    standalone_svg,
    theme,
)


def scores(threshold: float | None = 0.6) -> Markup:
    """Two histograms of ten bins."""
    edges = np.linspace(0, 1, 11)
    rows = [
        Counts("Pool", np.arange(10), "pool", ("45 images", "40 % above threshold")),
        Counts("Real reference", np.arange(10)[::-1].copy(), "real"),
    ]
    return histogram_chart(edges, rows, axis="score", threshold=threshold, name="scores", title="Scores")


@pytest.fixture(params=["interval", "histogram"])
def chart(request: pytest.FixtureRequest) -> Markup:
    """One of the two charts."""
    if request.param == "histogram":
        return scores()
    return interval_chart(0.3, 0.2, 0.4, floor=0.1, floor_label="proven")


def svgs(markup: Markup) -> list[ElementTree.Element]:
    """The drawings for both screens."""
    return list(ElementTree.fromstring(f"<p>{markup}</p>"))


def bars(chart: ElementTree.Element, variable: str) -> list[tuple[float, float, float]]:
    """Left edge, right edge and opacity of what is filled with a colour."""
    found = []
    for element in chart.iter("path"):
        style = element.get("style", "")
        if f"fill: var(--{variable})" in style and "stroke" not in style:
            xs = [float(x) for x in re.findall(r"[ML] (-?[\d.]+) ", element.get("d", ""))]
            opacity = re.search(r"opacity: ([\d.]+)", style)
            found.append((min(xs), max(xs), float(opacity[1]) if opacity else 1.0))
    return found


def test_svg_is_fit_for_a_page(chart: Markup) -> None:
    """Two drawings, each an image that scales and is named aloud, without styles of its own."""
    drawings = svgs(chart)
    assert [drawing.get("class") for drawing in drawings] == ["chart wide", "chart narrow"]
    for drawing in drawings:
        assert set(drawing.attrib) == {"class", "viewBox", "role", "aria-labelledby"}
        assert drawing.get("role") == "img"
        spoken = [drawing.find(f".//*[@id='{name}']") for name in drawing.get("aria-labelledby", "").split()]
        assert [element.tag for element in spoken if element is not None] == ["title", "desc"]
        tags = {element.tag for element in drawing.iter()}
        assert tags <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clipPath", "rect"}
    assert "xmlns" not in chart
    assert "font-family" not in chart


def test_colours_are_the_pages(chart: Markup) -> None:
    """Every colour is a variable of the page, so none stays behind when light turns to dark."""
    assert not re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r"(href=\"|url\()#[^\")]+", "", chart))
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(COLOURS)
    for drawing in svgs(chart):
        assert all("fill: var(" in text.get("style", "") for text in drawing.iter("text"))


def test_ids_are_unique_on_a_page() -> None:
    """Charts side by side share no id, and each reference finds its target within its own drawing."""
    check_ids([interval_chart(0.3, 0.2, 0.4), interval_chart(0.3, 0.2, 0.4, name="other"), scores()])


def test_same_chart_same_bytes() -> None:
    """Drawing again gives the same bytes, so that the same run gives the same report."""
    assert scores() == scores()


def test_matplotlib_is_left_as_it_was() -> None:
    """Drawing changes no setting of the program that uses the package."""
    before = dict(matplotlib.rcParams)
    scores()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("upper", [0.004, 0.04, 0.34, 0.7, 1.0])
def test_interval_is_drawn_to_scale(upper: float) -> None:
    """Solid to the lower bound, pale to the upper one, and neither leaves the axis."""
    lower = upper / 2
    for drawing in svgs(interval_chart((lower + upper) / 2, lower, upper)):
        (left, pale, paleness), (start, solid, full) = bars(drawing, "synthetic")
        [(_, whole, _)] = bars(drawing, "line")
        assert left == pytest.approx(start, abs=1e-5)
        assert paleness < full == 1.0
        assert (solid - left) / (pale - left) == pytest.approx(0.5, abs=1e-5)
        reach = upper * (whole - left) / (pale - left)
        labels = [text.text or "" for text in drawing.iter("text")]
        assert f"{100 * reach:.4g}\u00a0%" in labels
        assert pale <= whole + 1e-5


def test_interval_says_its_figures() -> None:
    """The words for those who do not see the chart hold the estimate, both bounds and the floor."""
    chart = interval_chart(0.302, 0.261, 0.348, floor=0.17, floor_label="17.0 % proven")
    [description, _] = [element.text for drawing in svgs(chart) for element in drawing.iter("desc")]
    assert description == (
        "A bar from 0 to 50\u00a0%: estimate 30.2\u00a0%, interval 26.1 to 34.8\u00a0%. 17.0 % proven."
    )


def test_no_point_no_line() -> None:
    """A share without a point estimate is drawn without the line that marks one."""
    described = str(interval_chart(None, 0.2, 1.0))
    assert "no point estimate" in described
    with_line = sum(1 for drawing in svgs(interval_chart(0.5, 0.2, 1.0)) for _ in drawing.iter("path"))
    without = sum(1 for drawing in svgs(interval_chart(None, 0.2, 1.0)) for _ in drawing.iter("path"))
    assert with_line == without + 2


@pytest.mark.parametrize("share", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (None, 0.0, 0.003)])
def test_interval_at_the_ends(share: tuple[float | None, float, float]) -> None:
    """Shares of 0 and 1, and intervals of no width, can be drawn."""
    point, lower, upper = share
    assert len(svgs(interval_chart(point, lower, upper, floor=lower, floor_label="proven"))) == 2


@pytest.mark.parametrize("threshold", [None, 0.6, 0.0, 1.0, 7.0])
def test_histogram_marks_the_threshold(threshold: float | None) -> None:
    """A dashed line stands in every row where the threshold lies on the axis, and nowhere else."""
    lines = scores(threshold).count("stroke-dasharray")
    assert lines == (2 * 2 if threshold is not None and threshold <= 1 else 0)


def test_histogram_of_nothing() -> None:
    """Empty counts are drawn flat instead of dividing by zero."""
    row = Counts("Pool", np.zeros(3, dtype=np.int64), "pool")
    assert svgs(histogram_chart(np.linspace(0, 1, 4), [row], axis="score", name="none", title="None"))


def test_words_are_escaped_and_visible() -> None:
    """Titles and labels are text: markup is escaped, a dollar starts no formula, an override is shown."""
    with theme():
        figure = new_figure(100, 50)
        figure.text(0, 0.5, "a <b> costs $5$")
    svg = figure_svg(figure, name="x", title="</title><script>\u202e", description="d")
    [drawing] = svgs(svg)
    assert drawing.findtext("title") == "</title><script>\\u202e"
    assert drawing.findtext(".//text") == "a <b> costs $5$"


@pytest.mark.parametrize("name", ["", "Share", "a b", "1a", 'x"'])
def test_name_must_be_an_id(name: str) -> None:
    """A name that is no plain id is refused."""
    with pytest.raises(ValueError, match="name is"):
        responsive_chart(lambda width: new_figure(width, 9), name=name, title="t", description="d")


# --- files of their own ---------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def test_standalone_picture_is_the_wide_drawing(chart: Markup) -> None:
    """The file is an SVG document of its own size with the words and shapes of the wide drawing."""
    root = ElementTree.fromstring(standalone_svg(chart))
    wide = svgs(chart)[0]
    assert all(element.tag.startswith(SVG) for element in root.iter())
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == wide.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert [text.text for text in root.iter(f"{SVG}text")] == [text.text for text in wide.iter("text")]
    shapes = [path.get("d") for path in root.iter(f"{SVG}path")]
    assert shapes == [path.get("d") for path in wide.iter("path")]
    spoken = [root.findtext(f".//{SVG}{tag}") for tag in ("title", "desc")]
    assert spoken == [wide.findtext(tag) for tag in ("title", "desc")]


def test_standalone_picture_refers_to_nothing_outside(chart: Markup) -> None:
    """The file names no address but that of the SVG language, and each reference finds its target in it."""
    data = standalone_svg(chart).decode()
    own = {element.get("id") for element in ElementTree.fromstring(data).iter()}
    assert {target.removeprefix("#") for target in re.findall(r'(?:href="|url\()([^")]+)', data)} <= own
    assert re.findall(r"\w+://[^\s\"]+", data) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in data


def test_standalone_picture_has_its_colours(chart: Markup) -> None:
    """The file defines every variable it uses, for light and for dark, and both differ."""
    root = ElementTree.fromstring(standalone_svg(chart))
    [style] = [element.text or "" for element in root.iter(f"{SVG}style")]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    used = {
        name for element in root.iter() for name in re.findall(r"var\(--(\w+)\)", element.get("style", ""))
    }
    for colours in (light, dark):
        assert used <= set(re.findall(r"--(\w+):", colours))
    assert light != dark
    assert "@media (prefers-color-scheme: dark)" in style
    assert re.findall(r"font-family: var\(--(\w+)\)", style)[0] in re.findall(r"--(\w+):", light)


def test_standalone_picture_has_the_same_bytes(chart: Markup) -> None:
    """The same chart gives the same file, and stays as it was."""
    before = str(chart)
    assert standalone_svg(chart) == standalone_svg(chart)
    assert str(chart) == before


def test_standalone_picture_keeps_words_text() -> None:
    """Markup in a title is escaped in the file, too, and an override is shown."""
    chart = histogram_chart(
        np.linspace(0, 1, 3),
        [Counts("Pool", np.arange(2), "pool")],
        axis="score",
        name="hostile",
        title="</title><script>alert(1)</script>\u202e & <b>",
    )
    root = ElementTree.fromstring(standalone_svg(chart))
    assert root.findtext(f"{SVG}title") == "</title><script>alert(1)</script>\\u202e & <b>"
    assert not list(root.iter(f"{SVG}script"))
