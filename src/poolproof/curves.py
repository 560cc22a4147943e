"""Curves for the pages of simulations, drawn like the charts of `poolproof.charts`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
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

MOST_CURVES: Final = 6
"""Curves that colour and dash keep apart on one chart."""


@dataclass(frozen=True)
class Curve:
    """One line of `curve_chart`, with a band from lower to upper, or error bars, or neither."""

    label: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    """NaN where not known; the line has a gap there."""
    lower: Float[np.ndarray, " n"] | None = None
    upper: Float[np.ndarray, " n"] | None = None
    error: Float[np.ndarray, " n"] | None = None
    colour: str = "ink"
    """A key of `COLOURS`."""
    dashed: bool = False
    markers: bool = False


def curve_chart(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    name: str,
    title: str,
    description: str | None = None,
    y_range: tuple[float | int, float | int] | None = None,
    reference: Sequence[tuple[float | int, str]] = (),
) -> Markup:
    """Lines over one axis, named at their ends where there is room, else in a legend below.

    Args:
        curves: one to `MOST_CURVES`, each of its own colour and dash.
        x_label: what the horizontal axis measures.
        y_label: what the vertical axis measures.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic; bands and bars that reach 0 run out of the chart.
        name: unique on the page, as in `poolproof.charts.figure_svg`.
        title: of the chart, for screen readers.
        description: by default where each curve begins and ends.
        y_range: ends of the vertical axis; by default all that is drawn fits.
        reference: values with words, drawn as horizontal lines.
    """
    _check_curves(curves, log_x, log_y)
    require(
        y_range is None or (y_range[0] < y_range[1] and (y_range[0] > 0 or not log_y)),
        f"y_range is {y_range}; allowed are two ascending values, above 0 on a logarithmic axis",
    )
    require(
        not log_y or all(value > 0 for value, _ in reference),
        f"reference is {reference}; a logarithmic axis needs values above 0",
    )
    x = _fit([curve.x for curve in curves], log_x, 0.012)
    if not log_x and all((curve.x == curve.x.round()).all() for curve in curves):
        x = replace(x, whole=True)
    drawn = [np.array([value for value, _ in reference], np.float64)]
    drawn += [each for curve in curves for each in (curve.y, *_bounds(curve))]
    y = _fit(drawn, log_y, 0.06)
    if y_range is not None:
        y = ChartAxis(*place_values(y_range, log_y).tolist(), log=log_y)
    entries: list[LegendEntry] = [(curve.label, partial(_curve_sample, curve)) for curve in curves]

    def draw(width: int) -> Figure:
        height = 240 if width < 500 else 300
        lines = textwrap.wrap(shorten(y_label, 60), height // 7) or [""]
        left = round(17 * len(lines) + 12 + max(map(text_width, y.ticks(height, upright=True)[1]), default=0))
        beside = round(max(text_width(curve.label) for curve in curves) + 20)
        ends = None if width < 500 or beside > 240 else _label_ends(curves, x, y, height)
        span = width - left - (9 if ends is None else beside)
        legend_x = 1 if width < 500 else left
        placed, depth = arrange_legend(entries if ends is None else [], width - legend_x)
        figure = new_figure(width, round(8 + height + 50 + depth + (10 if depth else 0)))
        pixels, axes = pixel_axes(figure), place_axes(figure, left, 8, span, height)
        finish_axes(axes, pixels, x, y, 8, (span, height), lines)
        write_x_label(pixels, x_label, left + span / 2, height + 50, width)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color=COLOURS["line"], linewidth=0.75, alpha=0.7)
        axes.set_axisbelow(True)
        for curve in curves:
            _draw_curve(axes, curve, x, y)
        _draw_references(axes, curves, reference, x, y, np.array([span, height]))
        for curve, (end, at) in zip(curves, ends or [], strict=False):
            right, colour = left + span, COLOURS[curve.colour]
            if abs(end - at) > 3:
                pixels.plot([right, right + 11], [8 + end, 8 + at], color=colour, linewidth=1)
            pixels.text(right + 14, 8 + at, visible(curve.label), color=colour, va="center_baseline")
        if ends is None:
            draw_legend(pixels, entries, placed, legend_x, height + 74)
        return figure

    told = _curve_description(curves, reference) if description is None else description
    return draw_chart(draw, name, title, told)


def _check_curves(curves: Sequence[Curve], log_x: bool, log_y: bool) -> None:
    most = f"curves are {len(curves)}; allowed are 1 to {MOST_CURVES} on one chart"
    require(1 <= len(curves) <= MOST_CURVES, most)
    looks = {(curve.colour, curve.dashed) for curve in curves}
    require(len(looks) == len(curves), "two curves have the same colour and dash; give each its own")
    for curve in curves:
        whose, shape = f"of curve {curve.label!r}", curve.x.shape
        allowed = f"colour {whose} is {curve.colour!r}; allowed are {', '.join(COLOURS)}"
        require(curve.colour in COLOURS, allowed)
        given = [each is not None for each in (curve.lower, curve.upper, curve.error)]
        allowed = f"interval {whose} is unclear; give lower and upper, or error, or none of them"
        require(given in ([True, True, False], [False, False, True], [False] * 3), allowed)
        for what in ("y", "lower", "upper", "error"):
            got = getattr(curve, what)
            fit = got is None or got.shape == shape
            require(fit, f"{what} {whose} does not have the shape of x, {shape}")
        require(
            shape[0] > 0 and np.isfinite(curve.x).all(), f"x {whose} is {curve.x}; allowed are finite values"
        )
        for axis, values, log in (("x", curve.x, log_x), ("y", curve.y, log_y)):
            fit = not (log and (values <= 0).any())
            require(fit, f"{axis} {whose} has {values.min()}; a logarithmic axis needs values above 0")


def _bounds(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of a curve's band or bars; the curve itself where it has none."""
    if curve.lower is not None and curve.upper is not None:
        return curve.lower, curve.upper
    half = 0.0 if curve.error is None else curve.error
    return curve.y - half, curve.y + half


def _fit(drawn: Sequence[np.ndarray], log: bool, room: float | int) -> ChartAxis:
    """The axis over all that can be drawn, with some of its length as room at both ends."""
    values = np.concatenate(drawn)
    places = place_values(values[values > 0] if log else values, log)
    places = places[np.isfinite(places)]
    low, high = (float(places.min()), float(places.max())) if places.size else (0.0, 1.0)
    room = room * (high - low) if high > low else 0.5
    return ChartAxis(low - room, high + room, log)


def _style(curve: Curve) -> dict[str, Any]:
    return {
        "color": COLOURS[curve.colour],
        "linewidth": 2,
        "linestyle": (0, (3, 1.5)) if curve.dashed else "-",
        "marker": "o" if curve.markers else "",
        "markersize": 6.5,
        "markeredgewidth": 1.5,
        "markeredgecolor": COLOURS["surface"],
        "zorder": 3,
    }


def _curve_sample(curve: Curve, axes: Axes, x: float | int, y: float | int) -> None:
    axes.plot([x, x + 13, x + 26], [y, y, y], markevery=[1], **_style(curve))


def _draw_curve(axes: Axes, curve: Curve, x: ChartAxis, y: ChartAxis) -> None:
    across, floor = x.place(curve.x), y.low - 9 * (y.high - y.low)
    low, high = (
        np.maximum(y.place(np.maximum(each, 0) if y.log else each), floor) for each in _bounds(curve)
    )
    if curve.lower is not None:
        axes.fill_between(across, low, high, color=COLOURS[curve.colour], alpha=0.16, linewidth=0)
    if curve.error is not None:
        axes.vlines(across, low, high, color=COLOURS[curve.colour], linewidth=1.25)
    axes.plot(across, y.place(curve.y), **_style(curve))


def _label_ends(
    curves: Sequence[Curve], x: ChartAxis, y: ChartAxis, height: int
) -> list[tuple[float | int, float | int]] | None:
    """Pixels from the top of each curve's end and of its label; None where labels would stray from the ends."""
    ends = []
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.y))
        if not known.size or x.place(curve.x[known[-1]]) < x.high - 0.04 * (x.high - x.low):
            return None
        ends.append(float((y.high - y.place(curve.y[known[-1]])) / (y.high - y.low) * height))
    order, at = np.argsort(ends).tolist(), list(ends)
    for upper, lower in pairwise(order):
        at[lower] = max(at[lower], at[upper] + 18)
    at[order[-1]] = min(at[order[-1]], height)
    for lower, upper in pairwise(order[::-1]):
        at[upper] = min(at[upper], at[lower] - 18)
    stray = min(at) < 0 or max(abs(end - each) for end, each in zip(ends, at, strict=True)) > 40
    return None if stray else list(zip(ends, at, strict=True))


def _draw_references(
    axes: Axes,
    curves: Sequence[Curve],
    reference: Sequence[tuple[float | int, str]],
    x: ChartAxis,
    y: ChartAxis,
    size: np.ndarray,
) -> None:
    """Horizontal lines, each with its words where the curves leave most room."""
    corner, pixel = np.array([x.low, y.low]), np.array([x.high - x.low, y.high - y.low]) / size
    lines = [np.stack([x.place(curve.x), y.place(curve.y)], axis=1) for curve in curves]
    covered = np.concatenate([dense_line((line[np.isfinite(line[:, 1])] - corner) / pixel) for line in lines])
    for value, words in reference:
        up = float(y.place(value) - y.low) / pixel[1]
        if not 0 <= up <= size[1]:
            continue
        axes.axhline(float(y.place(value)), color=COLOURS["muted"], linewidth=1, dashes=(4, 3))
        words = shorten(words, int(size[0] / 8))
        half = np.array([text_width(words) / 2 + 4, 9])
        heights = [each for each in (up + 11, up - 11) if 9 <= each <= size[1] - 9]
        spots = [np.array([a, b]) for b in heights for a in (half[0], size[0] - half[0], size[0] / 2)]
        crossed = [int((np.abs(covered - spot) < half).all(axis=1).sum()) for spot in spots]
        at = spots[int(np.argmin(crossed))] * pixel + corner
        axes.text(at[0], at[1], words, ha="center", va="center_baseline", color=COLOURS["muted"])


def _curve_description(curves: Sequence[Curve], reference: Sequence[tuple[float | int, str]]) -> str:
    told = []
    for curve in curves:
        known = np.flatnonzero(np.isfinite(curve.y))[[0, -1]] if np.isfinite(curve.y).any() else []
        ends = [f"{number(float(curve.y[i]))} at {number(float(curve.x[i]))}" for i in known]
        told.append(f"{curve.label}: {' to '.join(ends) or 'not known'}.")
    return " ".join([*told, *(f"Line at {number(value)}: {words}." for value, words in reference)])
