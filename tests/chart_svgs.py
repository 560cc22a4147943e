"""Reads what the SVG drawings of a chart hold, and checks what must be true of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

from poolproof.charts import COLOURS

HOSTILE = "</text><script>alert(1)</script> costs $5$ \u202e\u5b57\n" + "x" * 200


def svgs(markup: Markup) -> list[ElementTree.Element]:
    """The drawings for both screens."""
    return list(ElementTree.fromstring(f"<p>{markup}</p>"))


def words(drawing: ElementTree.Element) -> list[str]:
    """All words drawn."""
    return [text.text or "" for text in drawing.iter("text")]


def points(path: ElementTree.Element) -> np.ndarray:
    """The corners of a path."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def paths(drawing: ElementTree.Element, *styles: str, corners: int | None = None) -> list[np.ndarray]:
    """The corners of each path that has all the styles."""
    found = []
    for path in drawing.iter("path"):
        if all(style in path.get("style", "") for style in styles):
            found.append(points(path))
    return [each for each in found if corners is None or len(each) == corners]


def check_drawings(chart: Markup) -> None:
    """Checks that both screens have a drawing that is named aloud, in colours and the font of the page."""
    drawings = svgs(chart)
    assert [drawing.get("class") for drawing in drawings] == ["chart wide", "chart narrow"]
    for drawing in drawings:
        spoken = [drawing.find(f".//*[@id='{name}']") for name in drawing.get("aria-labelledby", "").split()]
        assert [element.tag for element in spoken if element is not None] == ["title", "desc"]
        tags = {element.tag for element in drawing.iter()}
        assert tags <= {"svg", "title", "desc", "g", "path", "text", "use", "defs", "clipPath", "rect"}
        assert all("fill: var(" in text.get("style", "") for text in drawing.iter("text"))
    assert "font-family" not in chart
    assert not re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r"(href=\"|url\()#[^\")]+", "", chart))
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(COLOURS)


def check_ids(charts: Iterable[Markup]) -> None:
    """Checks that charts side by side share no id, and that references stay within their own drawing."""
    page = Markup("").join(charts)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for drawing in svgs(page):
        own = {element.get("id") for element in drawing.iter()}
        inside = ElementTree.tostring(drawing, encoding="unicode")
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', inside)) <= own


def check_hostile_words(charts: Iterable[Markup]) -> None:
    """Checks that drawings of `HOSTILE` or of a tag show it as cut, visible text."""
    for drawing in (drawing for chart in charts for drawing in svgs(chart)):
        assert {element.tag for element in drawing.iter()}.isdisjoint({"script", "a", "image"})
        assert any("script>" in text for text in words(drawing))
        assert not any("\u202e" in text or "\n" in text or len(text) > 110 for text in words(drawing))
