"""A table of rates as a picture, drawn like the charts of `poolproof.charts`: fuller cells for higher rates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from poolproof.axes import draw_chart, pixel_axes, require
from poolproof.charts import COLOURS, new_figure
from poolproof.page import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STRONGEST: Final = 0.62  # opacity of a full cell: ink on it stays readable, light and dark
_ROW: Final = 26
_HEAD_LINE: Final = 17


@dataclass(frozen=True)
class RateTable:
    """Rates in [0, 1] by row and column; NaN where there is none.

    Attributes:
        rows: labels from top to bottom.
        columns: labels from left to right.
        values: rates.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Float[np.ndarray, "rows columns"]


def rate_table(table: RateTable, *, name: str, title: str) -> Markup:
    """A picture of the table: a cell's colour is as strong as its rate, and the rate stands in it in percent.

    Args:
        table: what is shown, from one row and column.
        name: unique on the page.
        title: of the chart, for screen readers.
    """
    known = table.values[~np.isnan(table.values)]
    require(table.values.shape == (len(table.rows), len(table.columns)), "values: one per row and column")
    require(bool(table.rows) and bool(table.columns), "table: at least one row and column")
    require(bool(((known >= 0) & (known <= 1)).all()), "values: rates in [0, 1]")

    def draw(width: int) -> Figure:
        from matplotlib.patches import Rectangle

        left = 100 if width < 500 else 170
        cell = (width - left) / len(table.columns)
        size = 10 if cell < 90 else 12
        heads = [
            textwrap.wrap(shorten(label, 48), max(6, int(cell / (0.6 * size)))) for label in table.columns
        ]
        head = _HEAD_LINE * max(map(len, heads)) + 8
        figure = new_figure(width, head + _ROW * len(table.rows) + 4)
        axes = pixel_axes(figure)
        for column, lines in enumerate(heads):
            for line, words in enumerate(lines):
                down = head - 10 - _HEAD_LINE * (len(lines) - 1 - line)
                middle = left + (column + 0.5) * cell
                axes.text(middle, down, words, ha="center", color=COLOURS["muted"], fontsize=size)
        for row, label in enumerate(table.rows):
            top = head + _ROW * row
            axes.text(0, top + _ROW / 2, shorten(label, int(left / 7)), va="center_baseline", fontsize=12)
            for column, value in enumerate(table.values[row]):
                corner = (left + column * cell + 1, top + 1)
                axes.add_patch(
                    Rectangle(
                        corner,
                        cell - 2,
                        _ROW - 2,
                        facecolor="none",
                        edgecolor=COLOURS["line"],
                        linewidth=1,
                    )
                )
                words = "-" if np.isnan(value) else f"{100 * value:.0f}"
                if not np.isnan(value):
                    axes.add_patch(
                        Rectangle(
                            corner,
                            cell - 2,
                            _ROW - 2,
                            facecolor=COLOURS["real"],
                            alpha=_STRONGEST * value,
                            linewidth=0,
                        )
                    )
                middle = left + (column + 0.5) * cell
                axes.text(middle, top + _ROW / 2, words, ha="center", va="center_baseline", fontsize=12)
        return figure

    best = [
        f"{column}: {100 * np.nanmean(values):.0f} % on average"
        for column, values in zip(table.columns, table.values.T, strict=True)
        if not np.isnan(values).all()
    ]
    size = f"{len(table.rows)} rows by {len(table.columns)} columns, in percent."
    return draw_chart(draw, name, title, f"{size} {'; '.join(best)}." if best else size)
