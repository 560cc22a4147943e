"""The report in a real browser: quiet, alone, readable on a desk and on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chart_pages import headless_browser
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SCREENS = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless chromium for all tests here."""
    with headless_browser() as browser:
        yield browser


class Visit:
    """A page opened in a browser, and everything it did besides showing itself."""

    def __init__(self, browser: Browser, path: Path, screen: str, scheme: Any = "light") -> None:
        width, height = SCREENS[screen]
        self.events: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page.on("console", lambda message: self.events.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.events.append(f"error: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self._note(request.url, path))
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("networkidle")

    def _dismiss(self, dialog: Any) -> None:
        self.events.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, url: str, path: Path) -> None:
        if url != path.as_uri() and not url.startswith("data:"):
            self.events.append(f"request: {url}")


@pytest.fixture
def visit(browser: Browser, rendered: Callable[[str], Path]) -> Iterator[Callable[..., Visit]]:
    """Opens the page of a run of the given kind."""
    visits: list[Visit] = []

    def make(kind: str, screen: str, scheme: str = "light") -> Visit:
        visits.append(Visit(browser, rendered(kind), screen, scheme))
        return visits[-1]

    yield make
    for each in visits:
        each.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_page_is_quiet_and_fits(visit: Callable[..., Visit], screen: str, scheme: str) -> None:
    """No message, dialog or request; nothing wider than the screen; the headline is seen at once."""
    opened = visit("both-references", screen, scheme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in ("h1 .figure", ".interval", f".chart.{'wide' if screen == 'desk' else 'narrow'}"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < SCREENS[screen][1]
    assert page.locator("h1").inner_text().split() == ["30.2", "%", "synthetic"]
    assert opened.events == []


@pytest.mark.parametrize(
    "kind",
    [
        "labelled",
        "nothing-scored",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("real-only", "no-references")),
    ],
)
@pytest.mark.parametrize("screen", SCREENS)
def test_pages_with_less_to_say(visit: Callable[..., Visit], kind: str, screen: str) -> None:
    """Reports by labels, and without references or scores, are as quiet, and fit as well."""
    opened = visit(kind, screen)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.page.locator("h1 .figure").is_visible()
    assert opened.events == []


def test_names_stay_text(visit: Callable[..., Visit]) -> None:
    """A file named like an image tag is shown by its name, and the page has no script or handler."""
    opened = visit("both-references", "desk")
    caption = opened.page.locator(".key").first
    assert caption.inner_text() == "<img src=x onerror=alert(1)>.png"
    assert opened.page.locator("script, [onerror], [onclick], iframe").count() == 0
    assert opened.events == []


def test_pictures_are_shown(visit: Callable[..., Visit]) -> None:
    """Each picture decodes in the browser, and each placeholder is as large as a picture."""
    page = visit("both-references", "phone").page
    widths = page.eval_on_selector_all(".gallery img", "all => all.map(one => one.naturalWidth)")
    assert len(widths) > 60
    assert all(0 < width <= 128 for width in widths)
    sizes = page.eval_on_selector_all(
        ".frame", "all => all.map(one => [one.clientWidth, one.clientHeight].join())"
    )
    assert len(set(sizes)) == 1


def test_charts_follow_the_scheme(visit: Callable[..., Visit]) -> None:
    """The same page has dark words on light ground and light words on dark, in charts too."""

    def brightness(colour: str) -> float:
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    opened = visit("both-references", "desk")
    page = opened.page
    script = """() => [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector('.chart.wide text')).fill]"""
    ground, words = map(brightness, page.evaluate(script))
    assert ground > 200
    assert words < 128
    page.emulate_media(color_scheme="dark")
    ground, words = map(brightness, page.evaluate(script))
    assert ground < 50
    assert words > 128


@pytest.mark.parametrize("screen", SCREENS)
def test_chart_words_stay_in_their_column(visit: Callable[..., Visit], screen: str) -> None:
    """One drawing of each chart is shown, its letters are of reading size and inside the card."""
    page = visit("both-references", screen).page
    shown = page.locator(".chart:visible")
    assert shown.count() == 2
    boxes = page.eval_on_selector_all(
        ".chart text",
        """all => all.filter(one => one.getClientRects().length).map(one => {
            const box = one.getBoundingClientRect();
            return [box.left, box.right, box.height];
        })""",
    )
    assert len(boxes) > 10
    for left, right, height in boxes:
        assert left >= 0
        assert right <= SCREENS[screen][0]
        assert height >= 12
