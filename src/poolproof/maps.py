"""Maps for the pages of simulations, drawn like the charts of `poolproof.charts`.

A map has one colour on each side of a value and opacity for the distance from it, so it follows light and dark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from poolproof.axes import (
    ChartAxis,
    LegendEntry,
    arrange_legend,
    dense_line,
    draw_chart,
    draw_legend,
    finish_axes,
    pixel_axes,
    place_values,
    require,
    text_width,
    write_x_label,
)
from poolproof.charts import COLOURS, new_figure, place_axes
from poolproof.page import number, shorten, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STRONGEST: Final = 0.62  # opacity at the ends of the colour range: ink on it stays readable, light and dark
_SHAPES: Final = "osD^pX"


@dataclass(frozen=True)
class Mark:
    """A point on a map with the line it is known to lie on. 0 and infinity are places beyond the edge."""

    label: str
    x: float | int
    y: float | int
    path_x: Float[np.ndarray, " path"] = field(default_factory=lambda: np.empty(0))
    path_y: Float[np.ndarray, " path"] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Panel:
    """One map of `heat_map`: a value for each cell of a grid, whose x and y are the cells' centres."""

    title: str
    x: Float[np.ndarray, " nx"]
    y: Float[np.ndarray, " ny"]
    values: Float[np.ndarray, "ny nx"]
    """NaN where not known."""
    errors: Float[np.ndarray, "ny nx"] | None = None
    """Half-widths of the values' intervals; a dot marks the cells whose interval holds the contour value."""
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class _Map:
    """What all panels of a map share."""

    x: ChartAxis
    y: ChartAxis
    low: float | int
    high: float | int
    contour: float | int
    shapes: dict[str, str]

    def opacity(self, values: np.ndarray) -> np.ndarray:
        """Next to nothing at the contour, and `_STRONGEST` at the ends of the colour range and beyond them."""
        end = np.where(values < self.contour, self.low, self.high)
        return _STRONGEST * np.clip((values - self.contour) / (end - self.contour), 0.003, 1)

    def colour(self, value: float | int) -> str:
        return COLOURS["synthetic" if value < self.contour else "real"]

    def is_beyond(self, mark: Mark) -> bool:
        ends = ((self.x, mark.x), (self.y, mark.y))
        return not all(axis.low <= axis.place(value) <= axis.high for axis, value in ends)


def heat_map(
    panels: Sequence[Panel],
    *,
    x_label: str,
    y_label: str,
    colour_label: str,
    colour_range: tuple[float | int, float | int] = (0.0, 2.5),
    contour: float | int = 1.0,
    contour_label: str | None = None,
    log_x: bool = True,
    log_y: bool = True,
    marks: Sequence[Mark] = (),
    name: str,
    title: str,
    description: str | None = None,
) -> Markup:
    """Maps of a value over two sizes, side by side in the same colours, with a line where it has one value.

    Cells whose value is not known have a stroke through them. Figures stand in the cells that have room.

    Args:
        panels: one map each, in reading order; they share their axes.
        x_label: what the horizontal axis measures.
        y_label: what the vertical axis measures.
        colour_label: what the values are.
        colour_range: values of the strongest colours; those beyond look the same.
        contour: inside that range; its two sides have different colours, and a line runs between them,
            interpolated between the centres of cells.
        contour_label: words for that line; by default the colour's label and the value.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic.
        marks: drawn on every panel, beside the panel's own. The axes extend to those up to a decade beyond the
            cells (half the length of a linear axis); others stand at the edge, with an arrow.
        name: unique on the page, as in `poolproof.charts.figure_svg`.
        title: of the chart, for screen readers.
        description: by default how many cells of each panel reach the contour value, and where the marks lie.
    """
    low, high = colour_range
    require(low < contour < high, f"contour is {contour}; allowed are values inside {low} to {high}")
    require(len(panels) > 0, "panels is empty; give at least one")
    every = [*marks, *(mark for panel in panels for mark in panel.marks)]
    marked = list({id(mark): mark for mark in every}.values())
    for panel in panels:
        _check_panel(panel, log_x, log_y)
    for mark in marked:
        _check_mark(mark, log_x, log_y)
    labels = dict.fromkeys(mark.label for mark in marked)
    shared = _Map(
        _map_axis([p.x for p in panels], [np.append(m.path_x, m.x) for m in marked], log_x),
        _map_axis([p.y for p in panels], [np.append(m.path_y, m.y) for m in marked], log_y),
        float(low),
        float(high),
        float(contour),
        {label: _SHAPES[position % len(_SHAPES)] for position, label in enumerate(labels)},
    )
    line = f"{colour_label} = {number(contour)}" if contour_label is None else contour_label
    entries = _map_entries(panels, marked, shared, line)
    steep = max(len(panel.y) for panel in panels) / max(len(panel.x) for panel in panels)
    head = 26 if any(panel.title for panel in panels) else 6

    def draw(width: int) -> Figure:
        across = 1 if width < 500 else 4 if len(panels) in (4, 7, 8) else min(len(panels), 3)
        lines = textwrap.wrap(shorten(y_label, 46), 24) or [""]
        left = round(
            17 * len(lines) + 12 + max(map(text_width, shared.y.ticks(250, upright=True)[1]), default=0)
        )
        span = min((width - left - 9 - 20 * (across - 1)) // across, 420)
        height = round(max(span * min(max(steep, 0.6), 1.1), 160))
        block = head + height + 60
        bottom = block * -(-len(panels) // across)
        bar_x, bar_y = (left + span + 44, head) if across == 1 and width >= 500 else (1, bottom + 4)
        length = min(300, width - bar_x - 16)
        legend_x, legend_y = (bar_x + length + 44, bar_y + 8) if across > 1 else (bar_x, bar_y + 78)
        placed, depth = arrange_legend(entries, width - legend_x)
        figure = new_figure(width, round(max(bottom, bar_y + 62, legend_y + depth)))
        pixels = pixel_axes(figure)
        for position, panel in enumerate(panels):
            row, column = divmod(position, across)
            at, top = left + column * (span + 20), row * block + head
            pixels.text(at, top - 11, shorten(panel.title, span // 8), fontweight="bold")
            axes = place_axes(figure, at, top, span, height)
            finish_axes(axes, pixels, shared.x, shared.y, top, (span, height), [] if column else lines)
            if not column:
                middle = left + (min(across, len(panels) - position) * (span + 20) - 20) / 2
                write_x_label(pixels, x_label, middle, top + height + 42, width)
            _draw_panel(axes, panel, [*marks, *panel.marks], shared, np.array([span, height]))
        pixels.text(bar_x, bar_y + 8, visible(colour_label), color=COLOURS["muted"], va="center_baseline")
        _colour_bar(place_axes(figure, bar_x, bar_y + 24, length, 12), shared, length, panels)
        draw_legend(pixels, entries, placed, legend_x, legend_y)
        return figure

    told = _map_description(panels, marked, shared, colour_label) if description is None else description
    return draw_chart(draw, name, title, told)


def _check_panel(panel: Panel, log_x: bool, log_y: bool) -> None:
    shape = (len(panel.y), len(panel.x))
    for what, got in (("values", panel.values), ("errors", panel.errors)):
        if got is not None:
            require(got.shape == shape, f"{what} have shape {got.shape}; y and x ask for {shape}")
    require(not np.isinf(panel.values).any(), "values hold infinity; allowed are finite ones, and NaN")
    for axis, centres, log in (("x", panel.x, log_x), ("y", panel.y, log_y)):
        fit = len(centres) > 0 and np.isfinite(centres).all() and (np.diff(centres) > 0).all()
        require(fit, f"{axis} is {centres}; allowed are one or more finite values, ascending")
        require(
            not log or centres[0] > 0,
            f"{axis} begins at {centres[0]}; a logarithmic axis needs values above 0",
        )


def _check_mark(mark: Mark, log_x: bool, log_y: bool) -> None:
    shapes = mark.path_x.shape, mark.path_y.shape
    require(
        shapes[0] == shapes[1], f"path_x and path_y of {mark.label!r} have shapes {shapes}; give equal ones"
    )
    for axis, values, log in (("x", [mark.x, *mark.path_x], log_x), ("y", [mark.y, *mark.path_y], log_y)):
        fit = not np.isnan(values).any() and (not log or min(values) >= 0)
        bound = " from 0 up on a logarithmic axis" if log else ""
        require(fit, f"{axis} of mark {mark.label!r} has {min(values)}; allowed are numbers{bound}")


def _edges(centres: np.ndarray, log: bool) -> np.ndarray:
    """Places of the cells' edges: halfway between centres, which is geometric on a logarithmic axis."""
    places = place_values(centres, log)
    steps = np.diff(places) if len(places) > 1 else np.array([0.3 if log else 1.0])
    return np.concatenate(
        [[places[0] - steps[0] / 2], places[:-1] + np.diff(places) / 2, [places[-1] + steps[-1] / 2]]
    )


def _map_axis(centres: Sequence[np.ndarray], marked: Sequence[np.ndarray], log: bool) -> ChartAxis:
    """The axis over all cells, and over those marks and parts of paths that lie near enough."""
    edges = np.concatenate([_edges(each, log) for each in centres])
    low, high = edges.min(), edges.max()
    reach, room = 1.0 if log else (high - low) / 2, 0.05 * (high - low)
    near = np.concatenate([np.empty(0), *(place_values(each, log) for each in marked)])
    near = near[(near >= low - reach) & (near <= high + reach)]
    first, last = near.min(initial=low), near.max(initial=high)
    return ChartAxis(float(first - room * (first < low)), float(last + room * (last > high)), log)


def _draw_panel(axes: Axes, panel: Panel, marks: Sequence[Mark], shared: _Map, size: np.ndarray) -> None:
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import to_rgba

    axes.spines[:].set(visible=True, linewidth=1)
    x, y = shared.x, shared.y
    pixel = np.array([x.high - x.low, y.high - y.low]) / size
    across, up = _edges(panel.x, x.log), _edges(panel.y, y.log)
    gap = pixel / 2 * (min(np.diff(across).min() / pixel[0], np.diff(up).min() / pixel[1]) >= 6)
    opacity = shared.opacity(panel.values)
    cells, colours, strokes = [], [], []
    for row, column in np.ndindex(panel.values.shape):
        (left, bottom), (right, top) = (
            np.array([across[column], up[row]]) + gap,
            np.array([across[column + 1], up[row + 1]]) - gap,
        )
        value = float(panel.values[row, column])
        if np.isnan(value):
            strokes.append([(left, bottom), (right, top)])
        else:
            cells.append([(left, bottom), (left, top), (right, top), (right, bottom)])
            colours.append(to_rgba(shared.colour(value), round(float(opacity[row, column]), 3)))
    if cells:
        axes.add_collection(PolyCollection(cells, facecolors=colours, linewidths=0), autolim=False)
    axes.add_collection(LineCollection(strokes, colors=COLOURS["muted"], linewidths=0.75), autolim=False)
    if panel.errors is not None:
        rows, columns = np.nonzero(np.abs(panel.values - shared.contour) <= panel.errors)
        _dots(axes, across[columns + 1] - 4 * pixel[0], up[rows] + 4 * pixel[1])
    drawn = _draw_contour(axes, panel, shared)
    drawn += [each for mark in marks for each in _draw_mark(axes, mark, shared, pixel)]
    _write_values(axes, panel, across, up, drawn, pixel)


def _draw_contour(axes: Axes, panel: Panel, shared: _Map) -> list[np.ndarray]:
    """The lines where the field has the contour value, drawn; ratios are interpolated as ratios."""
    known = panel.values[np.isfinite(panel.values)]
    ratio = shared.contour > 0 and known.min(initial=np.inf) > 0
    level = np.log(panel.values / shared.contour) if ratio else panel.values - shared.contour
    if min(level.shape) < 2 or not known.min(initial=np.inf) < shared.contour < known.max(initial=-np.inf):
        return []
    places = shared.x.place(panel.x), shared.y.place(panel.y)
    contours = axes.contour(*places, np.ma.masked_invalid(level), levels=[0.0])
    lines = [np.asarray(line) for line in contours.allsegs[0] if len(line) > 1]
    contours.remove()
    for colour, width, order in (("surface", 4.5, 2.1), ("ink", 2, 2.2)):
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color=COLOURS[colour], linewidth=width, zorder=order)
    return lines


def _draw_mark(axes: Axes, mark: Mark, shared: _Map, pixel: np.ndarray) -> list[np.ndarray]:
    """A mark and its path, drawn; at the edge with an arrow where it lies beyond. Gives what they cover."""
    x, y = shared.x, shared.y
    low, high = np.array([x.low, y.low]), np.array([x.high, y.high])
    path = np.stack([x.place(mark.path_x), y.place(mark.path_y)], axis=1)
    path = np.clip(path, low - 9 * (high - low), high + 9 * (high - low))  # infinite ends leave the panel
    point = np.array([float(x.place(mark.x)), float(y.place(mark.y))])
    side = (point > high).astype(float) - (point < low)
    at = np.clip(point, low, high) - 16 * side * pixel
    tip = np.clip(point, low, high) - 5 * side * pixel
    _mark_sample(axes, path, at, shared.shapes[mark.label])
    if side.any():
        angle = float(np.degrees(np.arctan2(side[1], side[0]))) - 90
        axes.plot(tip[:1], tip[1:], marker=(3, 0, angle), markersize=9, color=COLOURS["ink"], zorder=4)
    box = np.stack(np.meshgrid([-7, 0, 7], [-7, 0, 7]), axis=-1).reshape(-1, 2) * pixel
    return [path, *(each[None] for each in [*(at + box), *(tip + box)])]


def _mark_sample(axes: Axes, path: np.ndarray, at: np.ndarray, shape: str) -> None:
    if len(path):
        axes.plot(path[:, 0], path[:, 1], color=COLOURS["surface"], linewidth=5.5, zorder=3)
        axes.plot(path[:, 0], path[:, 1], color=COLOURS["ink"], linewidth=2.25, dashes=(2.5, 1), zorder=3)
    for colour, size, edge in (("surface", 12, 0), ("ink", 7.5, 2.25)):
        style = {
            "markersize": size,
            "markeredgewidth": edge,
            "markeredgecolor": COLOURS[colour],
            "clip_on": False,
        }
        axes.plot(at[:1], at[1:], marker=shape, color=COLOURS["surface"], zorder=4.1, **style)


def _dots(axes: Axes, x: Any, y: Any) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 3, "markeredgewidth": 0, "linestyle": "none"}
    axes.plot(x, y, color=COLOURS["ink"], **style)


def _write_values(
    axes: Axes, panel: Panel, across: np.ndarray, up: np.ndarray, drawn: list[np.ndarray], pixel: np.ndarray
) -> None:
    """Values in the cells that have room, moved up or down from lines, left out where those fill the cell."""
    width, height = np.diff(across).min() / pixel[0], np.diff(up).min() / pixel[1]
    if width < 23 or height < 17:
        return
    size = min(10.0, 0.4 * width)
    covered = np.concatenate([np.empty((0, 2)), *(dense_line(line / pixel) for line in drawn)])
    for (row, column), value in np.ndenumerate(panel.values):
        text = (
            f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}" if abs(value) < 9.95 else f"{value:,.0f}"
        )
        half = np.array([text_width(text, size) / 2 + 1, size / 2 + 0.5])
        if np.isnan(value) or 2 * half[0] > width + 2:
            continue
        for shift in np.array([0, 0.5, -0.5, 1, -1]) * (height / 2 - 6):
            at = np.array([across[column : column + 2].mean(), up[row : row + 2].mean() + shift * pixel[1]])
            if not (np.abs(covered - at / pixel) < half).all(axis=1).any():
                axes.text(at[0], at[1], text, fontsize=size, ha="center", va="center_baseline", zorder=2.5)
                break


def _map_entries(
    panels: Sequence[Panel], marks: Sequence[Mark], shared: _Map, line: str
) -> list[LegendEntry]:
    """The legend: the contour, the marks, and what else is drawn on some panel."""

    def mark_entry(label: str, shape: str) -> LegendEntry:
        same = [mark for mark in marks if mark.label == label]
        words = f"{label} (beyond the edge)" if any(map(shared.is_beyond, same)) else label
        ends = np.array([[0, 0], [26, 0]] if any(mark.path_x.size for mark in same) else np.empty((0, 2)))
        return words, lambda axes, x, y: _mark_sample(
            axes, ends + np.array([x, y]), np.array([x + 13, y]), shape
        )

    def stroke(axes: Axes, x: float | int, y: float | int) -> None:
        axes.plot([x + 6, x + 20], [y + 6, y - 6], color=COLOURS["muted"], linewidth=0.75)

    entries: list[LegendEntry] = [
        (line, lambda axes, x, y: axes.plot([x, x + 26], [y, y], color=COLOURS["ink"], linewidth=2)),
        *(mark_entry(label, shape) for label, shape in shared.shapes.items()),
    ]
    if any(np.isnan(panel.values).any() for panel in panels):
        entries.append(("not known", stroke))
    if any(panel.errors is not None for panel in panels):
        words = f"interval holds {number(shared.contour)}"
        entries.append((words, lambda axes, x, y: _dots(axes, [x + 13], [y])))
    return entries


def _colour_bar(axes: Axes, shared: _Map, length: int, panels: Sequence[Panel]) -> None:
    """The scale of colours: bars laid over one another, as bars side by side would show seams."""
    axes.set(xlim=(shared.low, shared.high), ylim=(0, 1), yticks=[])
    axes.spines[:].set(visible=True, linewidth=1)
    for end in (shared.low, shared.high):
        starts, below = np.linspace(shared.contour, end, 33), 0.0
        for start, opacity in zip(starts, shared.opacity((starts[1:] + starts[:-1]) / 2), strict=False):
            alpha = 1 - (1 - opacity) / (1 - below)
            axes.barh(0.5, end - start, left=start, height=1, color=shared.colour(end), alpha=round(alpha, 4))
            below = opacity
    axes.plot([shared.contour] * 2, [-0.25, 1.25], color=COLOURS["ink"], linewidth=2, clip_on=False)
    places, labels = ChartAxis(shared.low, shared.high, False).ticks(length)
    if places[0] == shared.low and any((panel.values < shared.low).any() for panel in panels):
        labels[0] = f"\u2264\u00a0{labels[0]}"
    if places[-1] == shared.high and any((panel.values > shared.high).any() for panel in panels):
        labels[-1] = f"\u2265\u00a0{labels[-1]}"
    axes.set_xticks(places, labels)
    axes.tick_params(length=4, pad=4)
    if places[0] == shared.low:
        axes.get_xticklabels()[0].set_horizontalalignment("left")


def _map_description(panels: Sequence[Panel], marks: Sequence[Mark], shared: _Map, colour_label: str) -> str:
    told = []
    for panel in panels:
        known = int(np.isfinite(panel.values).sum())
        words = f"{int((panel.values >= shared.contour).sum())} of {known} cells at {number(shared.contour)} or above"
        missing = f", {panel.values.size - known} not known" if known < panel.values.size else ""
        told.append(f"{panel.title}: {words}{missing}." if panel.title else f"{words}{missing}.")
    for mark in marks:
        beyond = ", beyond the edge" if shared.is_beyond(mark) else ""
        told.append(f"Marked: {mark.label} at {number(mark.x)} across, {number(mark.y)} up{beyond}.")
    return f"Colour: {colour_label}. {' '.join(told)}"
