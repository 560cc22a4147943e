"""Charts for the page, drawn by matplotlib and put into it as SVG.

The SVG stands inside the HTML and takes its colours from the CSS variables of `page.css`, so it follows light
and dark; its text stays text, in the page's font. Each chart is drawn for a computer's screen and for a
phone's, of which the page shows one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from poolproof.page import number, percent, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = {
    "ink": "#010a01",
    "muted": "#020a02",
    "line": "#030a03",
    "surface": "#040a04",
    "pool": "#050a05",
    "real": "#060a06",
    "synthetic": "#070a07",
}
"""Stand-in colours to draw with, by the CSS variable of `page.css` that replaces each in the SVG."""

WIDE: Final = 816
"""Width in CSS pixels of a chart on a computer's screen."""

NARROW: Final = 342
"""Width in CSS pixels of a chart on a phone; a wide chart shrunk to it would have unreadable text."""

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def theme() -> AbstractContextManager[Any]:
    """A context in which matplotlib draws in the page's style; draw figures and embed them inside it."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "figure.dpi": 72,  # one unit of the SVG is one CSS pixel
            "font.family": "sans-serif",
            "font.size": 13,
            "text.color": COLOURS["ink"],
            "text.parse_math": False,
            "axes.edgecolor": COLOURS["line"],
            "axes.facecolor": "none",
            "axes.labelcolor": COLOURS["muted"],
            "axes.labelsize": 13,
            "axes.spines.left": False,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.unicode_minus": True,
            "figure.facecolor": "none",
            "patch.linewidth": 0,
            "svg.fonttype": "none",
            "svg.hashsalt": "poolproof",
            "xtick.color": COLOURS["line"],
            "xtick.labelcolor": COLOURS["muted"],
            "xtick.labelsize": 13,
            "ytick.color": COLOURS["line"],
            "ytick.labelcolor": COLOURS["muted"],
            "ytick.labelsize": 13,
        }
    )


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of the given size in CSS pixels, to be drawn on inside `theme`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    return figure


def figure_svg(figure: Figure, *, name: str, title: str, description: str, screen: str = "any") -> Markup:
    """A figure as SVG to stand inside HTML: scales to its column, coloured by the page's CSS variables.

    The same figure gives the same bytes. Text stays text, in the font of the page.

    Args:
        figure: drawn with `COLOURS`; any other colour is kept as it is.
        name: lower-case letters, digits and hyphens; prefix of the ids inside, one per chart of a page.
        title: read out by screen readers in place of the picture.
        description: what the picture shows, in a sentence, for those who do not see it.
        screen: `wide` or `narrow` to be shown on such screens only, `any` otherwise.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"name is {name!r}; allowed are lower-case letters, digits and hyphens")
    buffer = io.BytesIO()
    with theme():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    # matplotlib's style element would apply to the whole page; page.css says the same of `.chart` alone.
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{_SVG}style"]:
            parent.remove(child)
    markup = "".join(ElementTree.tostring(root, encoding="unicode"))
    referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', markup))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = element.text.strip() if element.text else None
        element.tail = None
        _rewrite(element.attrib, f"{name}-", referred)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.clear()
    root.attrib |= {
        "class": f"chart {screen}",
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}-{'title' if tag == 'title' else 'description'}")
        element.text = visible(text)
        root.insert(position, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rewrite(attributes: dict[str, str], prefix: str, referred: set[str]) -> None:
    """Make ids unique to the page, colours those of the page, and the font that of the page."""
    identity = attributes.pop("id", None)
    if identity in referred:
        attributes["id"] = prefix + identity
    if _HREF in attributes:
        attributes["href"] = "#" + prefix + attributes.pop(_HREF).removeprefix("#")
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    for key, value in attributes.items():
        attributes[key] = value.replace("url(#", f"url(#{prefix}")
    if "style" in attributes:
        style = re.sub(r"font-family: [^;]*(; )?", "", attributes["style"])
        for variable, colour in COLOURS.items():
            style = style.replace(colour, f"var(--{variable})")
        attributes["style"] = style


def responsive_chart(draw: Callable[[int], Figure], *, name: str, title: str, description: str) -> Markup:
    """A chart drawn twice, for wide and for narrow screens, of which the page shows the fitting one.

    Args:
        draw: gives the figure for a width in CSS pixels; called inside `theme`.
        name: unique on the page, as in `figure_svg`.
        title: see `figure_svg`.
        description: see `figure_svg`.
    """
    svgs = []
    for screen, width in (("wide", WIDE), ("narrow", NARROW)):
        with theme():
            figure = draw(width)
        svgs.append(
            figure_svg(figure, name=f"{name}-{screen}", title=title, description=description, screen=screen)
        )
    return Markup("\n").join(svgs)


def standalone_svg(chart: Markup) -> bytes:
    """The wide drawing of a chart as an SVG file of its own; it follows light and dark where its viewer does."""
    root = ElementTree.fromstring(f"<charts>{chart}</charts>")[0]
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height}
    css = Path(__file__).with_name("page.css").read_text("utf-8")
    light, dark, *_ = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    style = ElementTree.Element("style")
    style.text = (
        f":root {{{light}}} @media (prefers-color-scheme: dark) {{:root {{{dark}}}}} "
        ".chart {font-family: var(--text)} .chart * {stroke-linejoin: round; stroke-linecap: butt}"
    )
    root.insert(0, style)
    return ElementTree.tostring(root, encoding="utf-8")


def place_axes(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Axes at a place given in CSS pixels from the figure's upper left corner."""
    whole_width, whole_height = 72 * figure.get_size_inches()
    return figure.add_axes(
        (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    )


def interval_chart(
    point: float | int | None,
    lower: float | int,
    upper: float | int,
    *,
    floor: float | int = 0,
    floor_label: str = "",
    name: str = "share",
) -> Markup:
    """A bar of the share axis: solid up to the lower bound, pale up to the upper one, a line at the point.

    Args:
        point: share in [0, 1]; None draws no line.
        lower: lower bound of the share, in [0, 1].
        upper: upper bound of the share, in [0, 1].
        floor: part of the share that is proven, in [0, 1]; marked below the bar where not 0.
        floor_label: words at that mark.
        name: unique on the page.
    """
    reach = next(edge for edge in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if upper * 1.1 <= edge or edge == 1)
    words = f"{percent(lower, sign=False)} to {percent(upper)}"

    def draw(width: int) -> Figure:
        figure = new_figure(width, 144 if floor else 106)
        axes = place_axes(figure, 1, 0, width - 2, 106 - 26)
        axes.set(xlim=(0, reach), ylim=(-30, 50), yticks=[])
        ticks = np.linspace(0, reach, 5 if reach > 0.5 or reach in (0.02, 0.2) else 6)
        axes.set_xticks(ticks, [f"{100 * tick:g}{chr(0xA0) + '%' if tick else ''}" for tick in ticks])
        axes.tick_params(length=5)
        labels = axes.get_xticklabels()
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")
        axes.barh(0, reach, height=34, color=COLOURS["line"], alpha=0.55)
        axes.barh(0, upper, height=34, color=COLOURS["synthetic"], alpha=0.32)
        axes.barh(0, lower, height=34, color=COLOURS["synthetic"])
        if point is not None:
            axes.plot([point, point], [-22, 22], color=COLOURS["ink"], linewidth=3, solid_capstyle="butt")
        per_pixel = reach / (width - 2)
        axes.plot([lower, lower, upper, upper], [22, 27, 27, 22], color=COLOURS["muted"], linewidth=1.25)
        axes.text(
            _kept_inside((lower + upper) / 2, 4.2 * len(words) * per_pixel, reach),
            40,
            words,
            ha="center",
            va="center_baseline",
            fontweight="bold",
        )
        if floor:
            mark = place_axes(figure, 1, 104, width - 2, 40)
            mark.set(xlim=(0, reach), ylim=(0, 40))
            mark.set_axis_off()
            mark.plot([floor], [33], marker="^", markersize=8, color=COLOURS["ink"], clip_on=False)
            mark.text(
                _kept_inside(floor, 3.9 * len(floor_label) * per_pixel, reach),
                14,
                floor_label,
                ha="center",
                va="center_baseline",
                color=COLOURS["muted"],
            )
        return figure

    told = "no point estimate" if point is None else f"estimate {percent(point)}"
    proven = f" {floor_label}." if floor else ""
    return responsive_chart(
        draw,
        name=name,
        title="Synthetic share of the pool",
        description=f"A bar from 0 to {100 * reach:g}\u00a0%: {told}, interval {words}.{proven}",
    )


def _kept_inside(centre: float | int, half: float, reach: float) -> float | int:
    return min(max(centre, half), max(reach - half, half))


@dataclass(frozen=True)
class Counts:
    """One row of `histogram_chart`."""

    label: str
    """What was counted; drawn by matplotlib, so words of ours, never of a pool."""
    counts: Int[np.ndarray, " bins"]
    colour: str
    """A key of `COLOURS`."""
    notes: tuple[str, ...] = ()
    """Short lines beside the label."""


def histogram_chart(
    edges: Float[np.ndarray, " edges"],
    rows: Sequence[Counts],
    *,
    axis: str,
    threshold: float | int | None = None,
    name: str,
    title: str,
) -> Markup:
    """Histograms one below the other on one axis, each scaled to its own largest bar.

    Args:
        edges: bin edges, ascending, one more than the counts of a row.
        rows: one histogram each.
        axis: what the horizontal axis measures.
        threshold: where a dashed line crosses all rows.
        name: unique on the page.
        title: of the chart, for screen readers.
    """
    low, high = float(edges[0]), float(edges[-1])

    def draw(width: int) -> Figure:
        narrow = width < 500
        left, head = (1, 44) if narrow else (190, 0)
        row_height = head + (72 if narrow else 86)
        figure = new_figure(width, 24 + row_height * len(rows) + 48)
        span = width - left - 14
        for position, row in enumerate(rows):
            axes = place_axes(figure, left, 24 + row_height * position + head, span, row_height - head - 10)
            tallest = max(1, int(row.counts.max(initial=0)))
            axes.set(xlim=(low, high), ylim=(0, 1.04), yticks=[], xticks=[])
            axes.stairs(row.counts / tallest, edges, fill=True, color=COLOURS[row.colour], alpha=0.3)
            axes.stairs(row.counts / tallest, edges, color=COLOURS[row.colour], linewidth=1.75)
            if threshold is not None and low <= threshold <= high:
                axes.axvline(threshold, color=COLOURS["ink"], linewidth=1.25, dashes=(4, 3))
            _row_label(figure, row, 24 + row_height * position, narrow=narrow)
        scale = place_axes(figure, left, 24, span, row_height * len(rows) - 4)
        scale.set(xlim=(low, high), ylim=(0, 1), yticks=[], xlabel=axis)
        scale.locator_params(axis="x", nbins=4 if narrow else 8)
        if threshold is not None and low <= threshold <= high:
            words = f"threshold {number(threshold)}"
            half = 4 * len(words) * (high - low) / span
            centre = low + _kept_inside(threshold - low, half, high - low)
            scale.text(centre, 1, words, ha="center", va="bottom", color=COLOURS["ink"])
        return figure

    described = "; ".join(", ".join((row.label, *row.notes)) for row in rows)
    line = "" if threshold is None else f" Threshold at {number(threshold)}."
    return responsive_chart(draw, name=name, title=title, description=f"{described}.{line}")


def _row_label(figure: Figure, row: Counts, top: int, *, narrow: bool) -> None:
    height = 72 * figure.get_figheight()
    lines = [row.label, " · ".join(row.notes)] if narrow else [row.label, *row.notes]
    start = top + (16 if narrow else 30)
    for position, line in enumerate(lines):
        figure.text(
            0,
            1 - (start + 19 * position) / height,
            line,
            fontweight="normal" if position else "bold",
            color=COLOURS["muted" if position else "ink"],
        )
