"""Axes, ticks and legends that maps and curves share.

Everything is drawn at its place: the value, or on a logarithmic axis its decimal logarithm.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from poolproof.charts import COLOURS, place_axes, responsive_chart
from poolproof.page import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LegendEntry = tuple[str, Callable[["Axes", float, float], object]]
"""Words of a legend, and what draws their sample."""


def require(condition: bool | np.bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class ChartAxis:
    """One direction of a chart, from the place `low` to the place `high`."""

    low: float | int
    high: float | int
    log: bool
    whole: bool = False
    """Whether only whole numbers are marked: half a generation means nothing."""

    def place(self, values: Any) -> np.ndarray:
        """Where the values are drawn."""
        return place_values(values, self.log)

    def ticks(self, pixels: float | int, *, upright: bool = False) -> tuple[list[float], list[str]]:
        """Places and labels of as many round values as have room on an axis of that length."""
        best: tuple[float, list[float], list[str]] = (-1.0, [], [])
        for values in self._round_values():
            inside = [
                (float(self.place(value)), plain_number(value)) for value in values if value or not self.log
            ]
            inside = [pair for pair in inside if self.low - 1e-9 <= pair[0] <= self.high + 1e-9]
            places, labels = [place for place, _ in inside], [label for _, label in inside]
            if not (1 if self.whole else 2) <= len(places) <= 9 or len(set(labels)) < len(labels):
                continue
            needed = 24 if upright else 12 + max(map(text_width, labels))
            apart = float(np.diff(places).min()) if len(places) > 1 else self.high - self.low
            room = apart * pixels / (self.high - self.low) / needed
            if room > best[0]:
                best = (room, places, labels)
            if room >= 1:
                break
        return best[1], best[2]

    def _round_values(self) -> Iterator[Sequence[float]]:
        from matplotlib.ticker import MaxNLocator

        if self.log:
            decades = range(int(np.floor(self.low)), int(np.ceil(self.high)) + 1)
            for steps, jump in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 4)):
                yield [step * 10.0**decade for decade in decades if decade % jump == 0 for step in steps]
        ends = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        for most in range(7, 0, -1):
            values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
            yield [value for value in values if not self.whole or abs(value - round(value)) < 1e-9]


def place_values(values: Any, log: bool) -> np.ndarray:
    """The values, or their decimal logarithms; minus infinity for 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(values) if log else values, dtype=np.float64)


def plain_number(value: float | int) -> str:
    """A round value: in full up to 9,999, then in k and M."""
    divisor, unit = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e4 else (1, "")
    return f"{value / divisor:,.6g}{unit}".replace("-", "\u2212")


def text_width(text: str, size: float | int = 13) -> float:
    """About the width of a text in pixels, in whichever font the reader has."""
    return 0.57 * size * len(text)


def pixel_axes(figure: Figure) -> Axes:
    """Invisible axes over the whole figure, in pixels from its upper left corner."""
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    axes = place_axes(figure, 0, 0, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def finish_axes(
    axes: Axes,
    pixels: Axes,
    x: ChartAxis,
    y: ChartAxis,
    top: int,
    size: tuple[int, int],
    y_label: Sequence[str],
) -> None:
    """Limits and ticks of axes of a size in pixels; without a y_label, the axes to the left speak for them."""
    width, height = size
    axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high))
    axes.set_xticks(*x.ticks(width))
    axes.set_yticks(*(y.ticks(height, upright=True) if y_label else ([], [])))
    axes.tick_params(length=4, pad=4)
    for label in axes.get_xticklabels():
        right = (label.get_position()[0] - x.low) / (x.high - x.low) * width + text_width(
            label.get_text()
        ) / 2
        if right > width + 8:
            label.set_horizontalalignment("right")  # else it would stick out of the figure
    style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center", "color": COLOURS["muted"]}
    for position, line in enumerate(y_label):
        pixels.text(9 + 17 * position, top + height / 2, line, **style)


def write_x_label(pixels: Axes, label: str, middle: float | int, down: float | int, width: int) -> None:
    """Writes what the horizontal axis measures, `down` pixels from the top."""
    words = shorten(label, int(2 * min(middle, width - middle) / 7.4))
    pixels.text(middle, down, words, color=COLOURS["muted"], ha="center")


def arrange_legend(
    entries: Sequence[LegendEntry], width: float | int
) -> tuple[list[tuple[float | int, float | int, str]], float]:
    """Places and lines of a legend's entries, side by side while there is room; and its height."""
    placed, x, y, deepest = [], 0.0, 0.0, 0
    for words, _ in entries:
        lines = textwrap.wrap(shorten(words, 120), max(int((width - 34) / 7.8), 8)) or [""]
        needed = 34 + max(map(text_width, lines))
        if x and x + needed > width:
            x, y, deepest = 0.0, y + 8 + 17 * deepest, 0
        placed.append((x, y, "\n".join(lines)))
        x, deepest = x + needed + 22, max(deepest, len(lines))
    return placed, y + 8 + 17 * deepest if entries else 0.0


def draw_legend(
    pixels: Axes,
    entries: Sequence[LegendEntry],
    placed: Sequence[tuple[float | int, float | int, str]],
    x: float | int,
    y: float | int,
) -> None:
    """Draws a legend that `arrange_legend` has placed, from its upper left corner."""
    for (_, sample), (right, down, words) in zip(entries, placed, strict=True):
        sample(pixels, x + right, y + down)
        for line, text in enumerate(words.split("\n")):
            pixels.text(x + right + 34, y + down + 17 * line, text, va="center_baseline")


def draw_chart(draw: Callable[[int], Figure], name: str, title: str, description: str) -> Markup:
    """The chart of `responsive_chart`, without warnings about fonts that the reader has and this machine lacks."""
    with warnings.catch_warnings():
        # The reader's fonts draw the text, so what matplotlib's own lack does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        return responsive_chart(draw, name=name, title=title, description=description)


def dense_line(line: np.ndarray) -> np.ndarray:
    """Points along a line of pixels, about one apart."""
    if len(line) < 2:
        return line
    steps = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(line, axis=0)).max(axis=1))])
    along = np.linspace(0, steps[-1], min(int(steps[-1]) + 2, 20_000))
    return np.stack([np.interp(along, steps, each) for each in line.T], axis=1)
