"""The labelling page in a real browser: keys, buttons, undo, reload, restart, on a desk and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chart_pages import headless_browser
from image_pools import draw, write_class
from label_runs import make_run, open_session, spec
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from poolproof.audit.label_server import LabelServer, serving
from poolproof.audit.labels import read_labels
from poolproof.audit.run import audit_pool

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless chromium for all tests here."""
    with headless_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 items."""
    return make_run(tmp_path_factory.mktemp("seen"))


class Desk:
    """A browser before a labelling server; notes everything the page does besides showing itself."""

    def __init__(self, browser: Browser, run: Path, file: Path, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(**options)
        self.events: list[str] = []
        self.run, self.file = run, file
        self._stack = ExitStack()
        self.server = self._serve(0)
        self.page = self.open()

    def _serve(self, port: int, wanted: int = 20) -> LabelServer:
        session = open_session(self.run, path=self.file, seed=2, wanted=wanted)
        return self._stack.enter_context(serving(LabelServer(session, port=port)))

    def open(self) -> Page:
        """Another page of the same browser."""
        page = self.context.new_page()
        page.on("console", lambda message: self.events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.events.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.events.append(f"dialog: {dialog.message}") or dialog.dismiss())
        page.on("request", lambda request: self._note(request.url))
        page.goto(self.server.url)
        return page

    def _note(self, url: str) -> None:
        if not url.startswith(self.server.url) and not url.startswith("data:"):
            self.events.append(f"request: {url}")

    def restart(self, wanted: int = 20) -> None:
        """Ends the server and begins another one on the same port."""
        port = self.server.server_port
        self._stack.close()
        self.server = self._serve(port, wanted)

    def close(self) -> None:
        """Ends everything."""
        self.context.close()
        self._stack.close()

    def done(self, n: int, page: Page | None = None) -> None:
        """Waits until so many labels are made and the next picture is seen."""
        page = page or self.page
        expect(page.locator("#progress")).to_have_text(f"{n} of 20")
        expect(page.locator("#picture")).to_be_visible()
        expect(page.locator("button.real")).to_be_enabled()

    def labels(self) -> list[str | None]:
        """The labels on the disk, in the order in which they were made."""
        return [label.label for label in read_labels(self.file).labels.values()]


@pytest.fixture
def desk(browser: Browser, finished: Path, tmp_path: Path) -> Iterator[Desk]:
    """A page on an empty label file."""
    desk = Desk(browser, finished, tmp_path / "l.jsonl", viewport={"width": 1100, "height": 800})
    yield desk
    desk.close()


def test_keys_and_buttons_label(desk: Desk) -> None:
    """Each key and each button says what it says, and the file has it when the next picture is there."""
    desk.done(0)
    wanted = []
    keys = {"r": "real", "ArrowLeft": "real", "s": "synthetic", "ArrowRight": "synthetic"}
    for key, label in (keys | {"u": "unsure", "ArrowDown": "unsure", "S": "synthetic"}).items():
        desk.page.keyboard.press(key)
        wanted.append(label)
        desk.done(len(wanted))
        assert desk.labels() == wanted
    for label in ("real", "synthetic", "unsure"):
        desk.page.locator(f"button.{label}").click()
        wanted.append(label)
        desk.done(len(wanted))
        assert desk.labels() == wanted
    assert desk.page.locator("#n-synthetic").inner_text() == "4"
    assert "interval" in desk.page.locator("#share").inner_text()
    assert "±" in desk.page.locator("#plan").inner_text()
    assert desk.events == []


def test_other_keys_and_held_keys_do_nothing(desk: Desk) -> None:
    """Keys without a meaning, with a modifier, or held down label nothing."""
    desk.done(0)
    for key in ("x", "Control+s", "Alt+ArrowRight", "Meta+u", "Enter", "ArrowUp"):
        desk.page.keyboard.press(key)
    desk.page.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'r', repeat: true}))")
    desk.page.wait_for_timeout(150)
    desk.done(0)
    assert desk.labels() == []


def test_undo_brings_pictures_back(desk: Desk) -> None:
    """Undo, by key and by button, shows the earlier items again one by one, down to none."""
    desk.done(0)
    names = []
    for i in range(3):
        names.append(desk.page.locator("#key").inner_text())
        desk.page.keyboard.press("s")
        desk.done(i + 1)
    desk.page.keyboard.press("z")
    desk.done(2)
    assert desk.page.locator("#key").inner_text() == names[2]
    desk.page.locator("#undo").click()
    desk.done(1)
    assert desk.page.locator("#key").inner_text() == names[1]
    desk.page.keyboard.press("z")
    desk.done(0)
    assert desk.page.locator("#key").inner_text() == names[0]
    expect(desk.page.locator("#undo")).to_be_disabled()
    assert desk.labels() == []


def test_reload_and_restart_go_on(desk: Desk) -> None:
    """After a reload the same item is shown; after a restart the next one, and undo still works."""
    desk.done(0)
    for i in range(2):
        desk.page.keyboard.press("r")
        desk.done(i + 1)
    name = desk.page.locator("#key").inner_text()
    desk.page.reload()
    desk.done(2)
    assert desk.page.locator("#key").inner_text() == name
    desk.restart()
    desk.page.keyboard.press("r")
    expect(desk.page.locator("#trouble")).to_have_text("Not saved: open the address that the terminal shows")
    desk.page.goto(desk.server.url)
    desk.done(2)
    assert desk.page.locator("#key").inner_text() == name
    desk.page.keyboard.press("z")
    desk.done(1)
    assert desk.labels() == ["real"]


def test_ended_server_is_said(desk: Desk) -> None:
    """When the command has ended the page says that nothing is saved any more."""
    desk.done(0)
    desk._stack.close()
    desk.page.keyboard.press("r")
    expect(desk.page.locator("#trouble")).to_contain_text("has ended; nothing was saved since")


def test_two_pages_show_two_items(desk: Desk) -> None:
    """A second page shows another item, and both labels are saved."""
    desk.done(0)
    other = desk.open()
    desk.done(0, other)
    assert other.locator("#key").inner_text() != desk.page.locator("#key").inner_text()
    other.keyboard.press("s")
    desk.done(1, other)
    desk.page.keyboard.press("r")
    desk.done(2)
    assert sorted(map(str, desk.labels())) == ["real", "synthetic"]
    assert desk.events == []


def test_the_aim_is_reached_and_passed(desk: Desk) -> None:
    """At the number aimed for the page says what to do next; it goes on for who wants to, to the last item."""
    desk.restart(wanted=3)
    page = desk.page
    page.goto(desk.server.url)
    for i in range(3):
        expect(page.locator("button.real")).to_be_enabled()
        page.keyboard.press("r")
        expect(page.locator("#progress")).to_have_text(f"{i + 1} of 3")
    expect(page.locator("#reached-title")).to_have_text("That is the number you set out for")
    assert page.locator("#command").inner_text().endswith(f"--labels {desk.file}")
    expect(page.locator("button.real")).to_be_disabled()
    page.locator("#more").click()
    for i in range(3, 20):
        expect(page.locator("button.real")).to_be_enabled()
        page.keyboard.press("r")
        expect(page.locator("#progress")).to_have_text(f"{i + 1} of 3")
    expect(page.locator("#reached-title")).to_have_text("All are labelled")
    expect(page.locator("#more")).to_be_hidden()
    assert len(desk.labels()) == 20


def test_tiny_pictures_are_enlarged_in_whole_pixels(desk: Desk) -> None:
    """A picture of 64 pixels is shown a whole number of times as large, without blur; so is it after a resize."""
    desk.done(0)
    for width in (1100, 500):
        desk.page.set_viewport_size({"width": width, "height": 800})
        desk.page.wait_for_timeout(100)
        box = desk.page.locator("#picture").bounding_box()
        assert box is not None
        assert box["width"] == box["height"]
        assert box["width"] % 64 == 0
        assert box["width"] >= 256
    assert desk.page.locator("#picture").evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [
        (1100, 800, "light"),
        (390, 760, "dark"),
        pytest.param(1100, 800, "dark", marks=pytest.mark.slow),
        pytest.param(390, 760, "light", marks=pytest.mark.slow),
    ],
)
def test_any_picture_fits_the_screen(
    browser: Browser, tmp_path: Path, width: int, height: int, scheme: Any
) -> None:
    """Large, wide, damaged-since and strangely named images: all is on the screen, nothing stirs, names are text."""
    pool = write_class(tmp_path / "pool", 1, synthetic=False, seed=0)
    shutil.move(pool / "0000.png", pool / HOSTILE)
    rng = np.random.default_rng(0)
    large = draw(rng, synthetic=False, side=1600)
    Image.fromarray(large).save(pool / "large.jpg")
    Image.fromarray(large[:40]).save(pool / "wide.tif")
    Image.fromarray(draw(rng, synthetic=True, side=80)).save(pool / f"{'long' * 60}.png")
    audit_pool(spec(tmp_path))
    (pool / f"{'long' * 60}.png").write_bytes(b"")
    view: Any = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    desk = Desk(browser, tmp_path / "run", tmp_path / "l.jsonl", **view)
    try:
        seen = set()
        for i in range(4):
            expect(desk.page.locator("button.unsure")).to_be_enabled()
            seen.add(desk.page.locator("#key").get_attribute("title"))
            assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert desk.page.evaluate("document.documentElement.scrollHeight <= innerHeight")
            for selector in ("button.real", "#stage", "#share"):
                box = desk.page.locator(selector).bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
                assert box["y"] + box["height"] <= height
            if desk.page.locator("#size").inner_text().endswith("click for every pixel"):
                picture = desk.page.locator("#picture")
                picture.click()
                assert picture.evaluate("e => e.width === e.naturalWidth && e.height === e.naturalHeight")
                assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                desk.page.keyboard.press("f")
                assert picture.evaluate("e => e.width < e.naturalWidth")
                desk.page.keyboard.press("f")
                assert picture.evaluate("e => e.width === e.naturalWidth && e.height === e.naturalHeight")
                picture.click()
            if desk.page.locator("#no-picture").is_visible():
                assert "not those that were audited" in desk.page.locator("#no-picture-why").inner_text()
                expect(desk.page.locator("button.real")).to_be_disabled()
            desk.page.keyboard.press("u")
            expect(desk.page.locator("#progress")).to_have_text(f"{i + 1} of 4")
        assert HOSTILE in seen
        assert len(seen) == 4
        assert desk.labels() == 4 * ["unsure"]
        assert desk.events == []
    finally:
        desk.close()
