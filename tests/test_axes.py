"""Axes: ticks are round and do not overlap, numbers are plain, and everything is drawn at its place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from poolproof.axes import (
    ChartAxis,
    LegendEntry,
    arrange_legend,
    dense_line,
    draw_legend,
    finish_axes,
    pixel_axes,
    place_values,
    plain_number,
    require,
    text_width,
    write_x_label,
)
from poolproof.charts import new_figure, place_axes, theme

WIDTH, HEIGHT = 400, 300


def value_of(label: str) -> float:
    """The number that a label stands for."""
    units = {"k": 1e3, "M": 1e6}
    text = label.replace(",", "").replace("\u2212", "-")
    return float(text.rstrip("kM")) * units.get(text[-1], 1)


def is_round(value: float) -> bool:
    """Whether the value has four digits at most."""
    return float(f"{value:.4g}") == pytest.approx(value, rel=1e-12)


@pytest.fixture
def pixels() -> Iterator[Axes]:
    """Axes in pixels over an empty figure."""
    with theme():
        yield pixel_axes(new_figure(WIDTH, HEIGHT))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01, "0.01"),
        (2.50, "2.5"),
        (-3, "\u22123"),
        (9999, "9,999"),
        (10_000, "10k"),
        (-20_000, "\u221220k"),
        (250_000.0, "250k"),
        (1_000_000, "1M"),
        (2_500_000, "2.5M"),
        (10**9, "1,000M"),
    ],
)
def test_numbers_are_plain(value: float, text: str) -> None:
    """In full up to 9,999, then in k and M, with a true minus sign and no needless zeros."""
    assert plain_number(value) == text
    assert value_of(text) == value


def test_places_are_values_or_their_logarithms() -> None:
    """A logarithmic axis has 0 at minus infinity, without a warning."""
    values = np.array([0.0, 0.1, 1000.0])
    np.testing.assert_array_equal(place_values(values, False), values)
    np.testing.assert_allclose(place_values(values, True), [-np.inf, -1, 3])
    assert place_values(100, True) == 2
    assert place_values(np.zeros(0), True).size == 0
    assert ChartAxis(0, 3, True).place(10) == 1
    assert ChartAxis(0, 3, False).place(10) == 10


@pytest.mark.parametrize(
    ("axis", "pixels", "labels"),
    [
        (ChartAxis(0, 1, False), 300, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (ChartAxis(-3, 3, False), 300, ["\u22123", "\u22122", "\u22121", "0", "1", "2", "3"]),
        (ChartAxis(0, 123_456, False), 120, ["0", "50k", "100k"]),
        (ChartAxis(2, 5, True), 500, ["100", "300", "1,000", "3,000", "10k", "30k", "100k"]),
        (ChartAxis(2, 5, True), 300, ["100", "1,000", "10k", "100k"]),
        (ChartAxis(2, 5, True), 120, ["100", "10k"]),
        (ChartAxis(-2, 6, True), 300, ["0.01", "1", "100", "10k", "1M"]),
        (ChartAxis(0, 0.1, True), 300, ["1", "1.05", "1.1", "1.15", "1.2", "1.25"]),
    ],
)
def test_ticks_are_as_many_as_have_room(axis: ChartAxis, pixels: int, labels: list[str]) -> None:
    """Steps of 1, 2, 2.5 or 5, on logarithmic axes decades, parts of decades or several at once."""
    places, found = axis.ticks(pixels)
    assert found == labels
    np.testing.assert_allclose(places, axis.place([value_of(label) for label in labels]), atol=1e-12)


def check_ticks(axis: ChartAxis, places: list[float], labels: list[str], pixels: int, upright: bool) -> None:
    """Checks that ticks are two to nine round values inside the axis, with labels that are true and apart."""
    assert 2 <= len(places) <= 9
    assert axis.low - 1e-9 <= places[0]
    assert places[-1] <= axis.high + 1e-9
    values = [value_of(label) for label in labels]
    assert all(map(is_round, values))
    np.testing.assert_allclose(axis.place(values), places, atol=1e-6 * (axis.high - axis.low))
    needed = 24 if upright else 12 + max(map(text_width, labels))
    assert np.diff(places).min() * pixels / (axis.high - axis.low) >= needed


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(-100, 100), st.floats(5, 200), st.integers(-6, 6), st.integers(300, 800), st.booleans())
def test_linear_ticks_are_round(start: float, length: float, power: int, pixels: int, upright: bool) -> None:
    """Two to nine round values inside the axis, at steps of 1, 2, 2.5 or 5, whose labels are apart."""
    axis = ChartAxis(start * 10.0**power, (start + length) * 10.0**power, False)
    places, labels = axis.ticks(pixels, upright=upright)
    check_ticks(axis, places, labels, pixels, upright)
    steps = np.diff(places)
    assert np.ptp(steps) < 1e-6 * (axis.high - axis.low)
    assert f"{steps[0]:.6e}".split("e")[0].rstrip("0").rstrip(".") in {"1", "2", "2.5", "5"}


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(-3, 5), st.floats(0.05, 6), st.integers(300, 800), st.booleans())
def test_logarithmic_ticks_are_round(low: float, decades: float, pixels: int, upright: bool) -> None:
    """Two to nine round values inside the axis, whose labels are apart."""
    axis = ChartAxis(low, low + decades, True)
    check_ticks(axis, *axis.ticks(pixels, upright=upright), pixels, upright)


def test_pixels_count_from_the_upper_left_corner(pixels: Axes) -> None:
    """Axes in pixels cover the figure, with (0, 0) in its upper left corner."""
    corners = pixels.transData.transform([(0, 0), (WIDTH, HEIGHT), (100, 60)])
    np.testing.assert_allclose(corners, [(0, HEIGHT), (WIDTH, 0), (100, HEIGHT - 60)], atol=1e-9)
    assert not pixels.axison


@pytest.mark.parametrize("named", [True, False])
def test_finished_axes_have_limits_and_ticks(pixels: Axes, named: bool) -> None:
    """Ends and ticks of both directions; labels of the vertical one beside its middle, or none at all."""
    figure = pixels.get_figure(root=True)
    assert figure is not None
    axes = place_axes(figure, 60, 20, 300, 200)
    x, y = ChartAxis(2, 5, True), ChartAxis(0, 1, False)
    finish_axes(axes, pixels, x, y, 20, (300, 200), ["synthetic", "images"] if named else [])
    assert (axes.get_xlim(), axes.get_ylim()) == ((2, 5), (0, 1))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "1,000", "10k", "100k"]
    up = ["0", "0.2", "0.4", "0.6", "0.8", "1"] if named else []
    assert [label.get_text() for label in axes.get_yticklabels()] == up
    written = [(text.get_text(), text.get_position()) for text in pixels.texts]
    assert written == ([("synthetic", (9, 120)), ("images", (26, 120))] if named else [])


def test_last_label_stays_inside(pixels: Axes) -> None:
    """A label that would stick out to the right ends at its tick instead."""
    figure = pixels.get_figure(root=True)
    assert figure is not None
    axes = place_axes(figure, 60, 20, 300, 200)
    finish_axes(axes, pixels, ChartAxis(2, 5, True), ChartAxis(0, 1, False), 20, (300, 200), ["y"])
    assert [label.get_horizontalalignment() for label in axes.get_xticklabels()] == ["center"] * 3 + ["right"]
    axes = place_axes(figure, 60, 20, 300, 200)
    finish_axes(axes, pixels, ChartAxis(2, 5.4, True), ChartAxis(0, 1, False), 20, (300, 200), ["y"])
    assert {label.get_horizontalalignment() for label in axes.get_xticklabels()} == {"center"}


@pytest.mark.parametrize("middle", [200, 60, 340])
def test_label_below_has_the_room_beside_it(pixels: Axes, middle: int) -> None:
    """The label of the horizontal axis is cut to what fits around its middle."""
    write_x_label(pixels, "generation " * 20, middle, 280, WIDTH)
    [text] = pixels.texts
    assert text.get_position() == (middle, 280)
    half = text_width(text.get_text()) / 2
    assert half <= min(middle, WIDTH - middle) + 1
    assert "\u2026" in text.get_text()


def entries(*words: str) -> list[LegendEntry]:
    """Entries of a legend, each with a short line."""
    return [(text, lambda axes, x, y: axes.plot([x, x + 26], [y, y])) for text in words]


def test_legend_is_side_by_side_while_there_is_room() -> None:
    """Entries stand in a row, those without room in the next; none overlap, and the height holds all."""
    assert arrange_legend([], 300) == ([], 0)
    row, height = arrange_legend(entries("one", "two"), 300)
    assert [(y, words) for _, y, words in row] == [(0, "one"), (0, "two")]
    assert row[0][0] + 34 + text_width("one") < row[1][0]
    stacked, taller = arrange_legend(entries("one", "two"), 100)
    assert [x for x, *_ in stacked] == [0, 0]
    assert stacked[1][1] == height
    assert taller == 2 * height


def test_long_entries_are_wrapped() -> None:
    """Words wider than the legend go on in a line below, and the next entry starts below all of them."""
    (first, second), height = arrange_legend(entries("the field has this value " * 3, "next"), 200)
    lines = first[2].split("\n")
    assert len(lines) > 1
    assert all(34 + text_width(line) <= 200 for line in lines)
    assert second[:2] == (0, 8 + 17 * len(lines))
    assert height == second[1] + 8 + 17


def test_legend_is_drawn_where_it_was_placed(pixels: Axes) -> None:
    """Samples and words stand at their places from the legend's upper left corner."""
    two = entries("one", "two")
    draw_legend(pixels, two, [(0, 0, "one"), (5, 30, "two\nlines")], 100, 50)
    assert [np.asarray(line.get_xdata())[0] for line in pixels.lines] == [100, 105]
    assert [np.asarray(line.get_ydata())[0] for line in pixels.lines] == [50, 80]
    assert [(text.get_text(), text.get_position()) for text in pixels.texts] == [
        ("one", (134, 50)),
        ("two", (139, 80)),
        ("lines", (139, 97)),
    ]


def test_dense_line_has_a_point_per_pixel() -> None:
    """Points along the line are at most a pixel apart, from its start through its corners to its end."""
    line = np.array([[0.0, 0.0], [30.0, 10.0], [30.0, 50.0]])
    found = dense_line(line)
    assert np.abs(np.diff(found, axis=0)).max() <= 1
    np.testing.assert_allclose(found[[0, -1]], line[[0, -1]])
    assert np.hypot(*(found - line[1]).T).min() < 1
    assert np.all(np.isclose(found[:, 0], 30) | (found[:, 1] <= 10))
    np.testing.assert_array_equal(dense_line(line[:1]), line[:1])
    assert len(dense_line(np.array([[0.0, 0.0], [1e9, 0.0]]))) == 20_000


def test_text_width_grows_with_words_and_size() -> None:
    """An estimate per letter, in proportion to the size of the font."""
    assert text_width("") == 0
    assert text_width("abcd") == pytest.approx(2 * text_width("ab"))
    assert text_width("abcd", 26) == pytest.approx(2 * text_width("abcd"))


def test_require_says_what_is_wrong() -> None:
    """A condition that fails raises its message, one that holds nothing."""
    require(np.bool_(True), "never")
    with pytest.raises(ValueError, match=r"^low is 2; allowed is 1$"):
        require(np.bool_(False), "low is 2; allowed is 1")
