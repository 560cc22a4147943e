"""Tables of rates: every cell is drawn as strong as its rate, with its number, whatever the labels hold."""

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
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from poolproof.rates import RateTable, rate_table

VALUES = np.array([[0.0, 0.25, 1.0], [0.5, np.nan, 0.994]])


def draw(values: np.ndarray = VALUES, **more: Any) -> Markup:
    """A table with plain labels, unless told otherwise."""
    rows = more.pop("rows", [f"row {i}" for i in range(len(values))])
    columns = more.pop("columns", [f"column {i}" for i in range(values.shape[-1])])
    return rate_table(RateTable(rows, columns, values), **({"name": "rates", "title": "Rates"} | more))


def borders(drawing: ElementTree.Element) -> list[np.ndarray]:
    """Corners of each cell's border."""
    return [box for box in paths(drawing, "fill: none", "stroke: var(--line)") if len(box) >= 4]


def strengths(drawing: ElementTree.Element) -> list[float]:
    """Opacity of each coloured cell."""
    styles = (path.get("style", "") for path in drawing.iter("path"))
    found = (re.fullmatch(r"fill: var\(--real\); opacity: ([\d.]+)", style) for style in styles)
    return [float(matched[1]) for matched in found if matched]


@pytest.fixture(scope="module")
def plain() -> Markup:
    """The plain table, drawn once."""
    return draw()


def test_svg_is_fit_for_a_page(plain: Markup) -> None:
    """Both screens have a drawing that is named aloud, in colours of the page and in the page's font."""
    check_drawings(plain)


def test_ids_are_unique_on_a_page(plain: Markup) -> None:
    """Tables side by side share no id, and each reference finds its target within its own drawing."""
    check_ids([plain, draw(name="other")])


def test_same_table_same_bytes(plain: Markup) -> None:
    """Drawing again gives the same bytes and leaves matplotlib's settings and the table as they were."""
    before, values = dict(matplotlib.rcParams), VALUES.copy()
    assert draw() == plain
    assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(VALUES, values)


def test_numbers_stand_in_their_places(plain: Markup) -> None:
    """Percent without digits behind the point, a dash for what is not known, and all labels."""
    for drawing in svgs(plain):
        found = words(drawing)
        assert [word for word in found if re.fullmatch(r"\d+|-", word)] == ["0", "25", "100", "50", "-", "99"]
        assert {"row 0", "row 1"} <= set(found)
        assert "column 0" in " ".join(found)


def test_colour_is_as_strong_as_the_rate(plain: Markup) -> None:
    """Opacity is proportional to the rate; cells without a rate, or of 0, have a border alone."""
    for drawing in svgs(plain):
        np.testing.assert_allclose(strengths(drawing), 0.62 * np.array([0.25, 1, 0.5, 0.994]), atol=1e-3)
        assert len(borders(drawing)) == 6


def test_cells_lie_in_rows_and_columns(plain: Markup) -> None:
    """Cells of a row share their height, those of a column their width, and none overlap or leave the drawing."""
    for drawing in svgs(plain):
        width = float(drawing.get("viewBox", "").split()[2])
        boxes = borders(drawing)
        lefts, tops = ([round(float(box[:, axis].min())) for box in boxes] for axis in (0, 1))
        assert lefts[:3] == lefts[3:] == sorted(lefts[:3])
        assert len({*tops[:3]}) == len({*tops[3:]}) == 1
        assert tops[0] < tops[3]
        assert max(float(box[:, 0].max()) for box in boxes) <= width
        assert all(boxes[i][:, 0].max() <= boxes[i + 1][:, 0].min() for i in (0, 1, 3, 4))


def test_words_for_the_blind_hold_the_means(plain: Markup) -> None:
    """The description gives the size of the table and the mean of each column over what is known."""
    for drawing in svgs(plain):
        (description,) = (element.text or "" for element in drawing.iter("desc"))
        assert "2 rows by 3 columns, in percent" in description
        assert (
            "column 0: 25 % on average; column 1: 25 % on average; column 2: 100 % on average." in description
        )


@settings(deadline=None, max_examples=5, phases=[Phase.explicit, Phase.generate])
@pytest.mark.property
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_cell_is_drawn(rows: int, columns: int, seed: int) -> None:
    """Tables of any size have one border for each cell and one colour for each rate."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((rows, columns)) < 0.2, np.nan, rng.random((rows, columns)))
    for drawing in svgs(draw(values)):
        assert len(borders(drawing)) == rows * columns
        assert len(strengths(drawing)) == np.isfinite(values).sum()


def test_a_table_without_any_rate_is_drawn() -> None:
    """All dashes, with a description that ends as it should and no warning."""
    for drawing in svgs(draw(np.full((2, 2), np.nan))):
        assert words(drawing).count("-") == 4
        (description,) = (element.text or "" for element in drawing.iter("desc"))
        assert description == "2 rows by 2 columns, in percent."


def test_empty_and_long_labels_keep_within_the_drawing() -> None:
    """Labels without words leave their place empty; endless ones are cut; the numbers are all there."""
    for labels in ([""] * 3, ["x" * 300] * 3, ["jpeg:50:420 and more words"] * 3):
        for drawing in svgs(draw(columns=labels, rows=labels[:2])):
            assert {"0", "25", "100", "50", "-", "99"} <= set(words(drawing))
            assert max(map(len, words(drawing))) <= 60


def test_hostile_words_stay_text() -> None:
    """Markup, formulas, overrides and endless words from outside are drawn as cut, visible text."""
    check_hostile_words([draw(rows=["<script>", HOSTILE], columns=["<script>", HOSTILE, "c"], title=HOSTILE)])


@pytest.mark.parametrize("value", [-0.01, 1.01, np.inf, -np.inf])
def test_what_is_no_rate_is_refused(value: float) -> None:
    """Values outside [0, 1]."""
    with pytest.raises(ValueError, match="values: rates"):
        draw(np.array([[0.5, value]]))


def test_sizes_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many labels as rows and columns, at least one of each, where no shape checker runs, too."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="values: one per row and column"):
        draw(rows=["a"])
    with pytest.raises(ValueError, match="values: one per row and column"):
        draw(VALUES[0], rows=["a"], columns=["a"] * 3)
    for shape in ((0, 2), (2, 0), (0, 0)):
        with pytest.raises(ValueError, match="table: at least one"):
            draw(np.empty(shape))


@pytest.mark.slow
@pytest.mark.browser
def test_page_is_quiet_and_fits(plain: Markup, tmp_path: Path) -> None:
    """No message; nothing wider than the screen; of each table one drawing, with words inside the screen."""
    wide = draw(np.random.default_rng(0).random((4, 12)), name="wide")
    hostile = draw(rows=[HOSTILE] * 2, columns=[HOSTILE] * 3, name="hostile")
    check_page([plain, wide, hostile], tmp_path, more_words_than=40)
