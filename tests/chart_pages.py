"""Pages of charts in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest
from markupsafe import Markup
from playwright.sync_api import Browser, sync_playwright

from poolproof.page import render_page

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENS: Final[tuple[tuple[int, Literal["light", "dark"]], ...]] = ((1280, "light"), (390, "dark"))


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """A headless chromium. Its absence is a skip at a desk and a failure in continuous integration."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "no chromium found"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def write_page(charts: Sequence[Markup], folder: Path) -> Path:
    """A page of charts, one card each."""
    template = folder / "charts.html"
    template.write_text(
        '{% extends "page.html" %}{% block main %}{% for chart in charts %}'
        '<section class="card">{{ chart }}</section>{% endfor %}{% endblock %}'
    )
    path = folder / "written.html"
    path.write_bytes(render_page(template, charts=charts))
    return path


def check_page(charts: Sequence[Markup], folder: Path, *, more_words_than: int) -> None:
    """Checks a page of charts on a wide light screen and on a narrow dark one.

    No message; nothing wider than the screen; of each chart one drawing, with words inside the screen.
    """
    path = write_page(charts, folder)
    with headless_browser() as browser:
        for width, scheme in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            events: list[str] = []
            page.on("console", lambda message, events=events: events.append(message.text))
            page.on("pageerror", lambda error, events=events: events.append(str(error)))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert page.locator(".chart:visible").count() == len(charts)
            boxes = page.eval_on_selector_all(
                ".chart text",
                """all => all.filter(one => one.getClientRects().length).map(one => {
                    const box = one.getBoundingClientRect();
                    return [box.left, box.right];
                })""",
            )
            assert len(boxes) > more_words_than
            assert all(left >= 0 and right <= width for left, right in boxes), width
            page.close()
            assert events == []
