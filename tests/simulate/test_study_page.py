"""What a study leaves on disk: files that agree, pictures that stand alone, and a page that shows them safely."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import pandas as pd
import pytest
from chart_pages import SCREENS, headless_browser
from chart_svgs import HOSTILE, check_drawings, check_ids, svgs, words
from playwright.sync_api import Browser, Page

from poolproof.curves import MOST_CURVES
from poolproof.simulate.grid import Cell, Effort
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.placing import MeasuredPool
from poolproof.simulate.spec import Arm, CurveSpec, CurvesSpec, LoopSpec, MapSpec
from poolproof.simulate.study import Study, run_study
from poolproof.simulate.study_page import Chart, draw_charts, write_study

EFFORT = Effort(tolerance=0.05)
MAP = MapSpec("Map", (10,), (40, 10), (1.0, 0.5), dim=2, effort=EFFORT)
CURVES = CurvesSpec(
    "Curves",
    "n_synthetic",
    "ratio",
    (
        CurveSpec("ten", "p", (20.0, 5.0), (Cell(10, 20, dim=2), Cell(10, 5, dim=2))),
        CurveSpec("more", "q", (5.0,), (Cell(30, 5, dim=2),)),
    ),
    dim=2,
    effort=EFFORT,
)
FRESH = Arm("fresh", Mixing.fresh(10, 30), initial=5)
LOOP = LoopSpec(
    "Loop",
    (FRESH, Arm("marked", Mixing.augmentation(10, 30), mark=0.2)),
    dim=2,
    n_generations=5,
    n_paths=20,
)
POOL = MeasuredPool(25, 0.4, 0.8, 0.6, 0.95)


SVG = "{http://www.w3.org/2000/svg}"


class Document(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Notes text."""
        if self.tags[-1:] != ["style"]:
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """All words of the page."""
        return " ".join(filter(None, self.words))

    def check(self) -> None:
        """Checks that nothing can run, nothing is fetched, and no id stands twice."""
        assert {"script", "iframe", "object", "embed", "img", "a", "form"}.isdisjoint(self.tags)
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        links = [value or "" for name, value in self.attributes if name in ("href", "src", "action")]
        assert all(link == "data:," or link.startswith("#") for link in links)
        ids = [value for name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        assert not re.search("[\u202a-\u202e\u2066-\u2069\0]", self.text)


def check_picture(path: Path) -> ElementTree.Element:
    """Checks that an SVG file stands alone and refers to nothing outside; gives its root."""
    data = path.read_bytes()
    root = ElementTree.fromstring(data)
    assert root.tag == f"{SVG}svg"
    assert all(element.tag.startswith(SVG) for element in root.iter())
    assert {"script", "a", "image", "foreignObject"}.isdisjoint(e.tag.removeprefix(SVG) for e in root.iter())
    own = {element.get("id") for element in root.iter()}
    assert set(re.findall(rb'(?:href="|url\()([^")]+)', data)) <= {
        f"#{each}".encode() for each in own if each
    }
    assert b"@import" not in data
    assert data.count(b"http") == 1
    assert all(float(root.get(side, "0")) > 0 for side in ("width", "height"))
    return root


@dataclass(frozen=True)
class Written:
    """A study and what was written of it."""

    study: Study
    paths: list[Path]
    page: Document

    @functools.cached_property
    def charts(self) -> dict[str, Chart]:
        """The study's charts, drawn again."""
        return draw_charts(self.study)

    def words(self, name: str) -> list[str]:
        """The words of one of its pictures."""
        root = ElementTree.parse(self.paths[0].with_name(f"{name}.svg"))
        return [text.text or "" for text in root.iter(f"{SVG}text")]

    @property
    def table(self) -> pd.DataFrame:
        """The study's table, its rows numbered."""
        return self.study.table.reset_index(drop=True)


Make = Callable[[str], Written]


def write(study: Study, out: Path) -> Written:
    """Writes a study, and checks its pictures and that nothing can run on its page."""
    paths = write_study(study, out)
    for path in paths:
        if path.suffix == ".svg":
            check_picture(path)
    page = Document(paths[-1])
    page.check()
    return Written(study, paths, page)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Gives the study of a kind, made once; the map has a pool and thresholds."""

    @functools.cache
    def make(kind: str) -> Written:
        folder = tmp_path_factory.mktemp(kind)
        if kind == "map":
            command = "poolproof simulate admissible --out 'my <dir>'"
            options = {"pool": POOL, "thresholds": True, "command": command, "cache": folder / "cache"}
            return write(run_study(MAP, **options), folder / "deep" / "out")
        return write(run_study(CURVES if kind == "curves" else LOOP), folder / "deep" / "out")

    return make


@pytest.fixture(params=["map", "curves", "loop"])
def each(kinds: Make, request: pytest.FixtureRequest) -> Written:
    """One of the kinds."""
    return kinds(request.param)


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("map", ["admissible.parquet", "admissible.csv", "admissible.json", "map.svg", "admissible.html"]),
        pytest.param(
            "curves",
            [
                "admissible.parquet",
                "admissible.csv",
                "admissible.json",
                "curves-1.svg",
                "curves-2.svg",
                "admissible.html",
            ],
            marks=pytest.mark.slow,
        ),
        (
            "loop",
            [
                "generations.parquet",
                "generations.csv",
                "loop.json",
                "squared-w2.svg",
                "drift.svg",
                "loop.html",
            ],
        ),
    ],
)
def test_files_are_named_after_what_they_hold(kinds: Make, kind: str, names: list[str]) -> None:
    """Tables, document, pictures and page are written, the page last, into a folder that is made."""
    paths = kinds(kind).paths
    assert [path.name for path in paths] == names
    assert sorted(paths) == sorted(paths[0].parent.iterdir())


def test_files_agree(each: Written) -> None:
    """Parquet, CSV and JSON hold the study's table to the last digits, and the page has its rows and figures."""
    parquet, csv, document = each.paths[:3]
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), each.table)
    told = json.loads(document.read_text("utf-8"))
    assert told == each.study.document
    rows = pd.DataFrame(told["rows"], columns=told["columns"])
    pd.testing.assert_frame_equal(rows, each.table, check_dtype=False, check_exact=True)
    read, whole = (
        table.astype(object).where(table.notna(), None) for table in (pd.read_csv(csv), each.table)
    )
    pd.testing.assert_frame_equal(read, whole, rtol=1e-14)
    loop = each.study.name == "loop"
    shown = each.table[each.table["generation"] == 5] if loop else each.table
    assert f"{len(shown)} rows" in each.page.text
    for value in shown["mean" if loop else "ratio"]:
        assert f"{value:.4g}" in each.page.words


def test_writing_again_replaces(each: Written, tmp_path: Path) -> None:
    """A study takes the place of an earlier one, and the same study gives the same bytes."""
    for path in each.paths:
        (tmp_path / path.name).write_text("old")
    again = write_study(each.study, tmp_path)
    assert sorted(again) == sorted(tmp_path.iterdir())
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in each.paths]


# --- page and pictures ----------------------------------------------------------------------------------


def test_page_says_what_there_is(each: Written) -> None:
    """The page has title, dimensions, source and versions, and a heading above each picture."""
    page = each.page
    assert page.tags.count("h1") == 1
    for text in (each.study.spec.title, "2 dimensions", "arXiv 2307.01850", "numpy", "same figures"):
        assert text in page.text
    for chart in each.charts.values():
        assert chart.heading in page.text
        assert chart.words in page.text
    assert page.tags.count("svg") == 2 * len(each.charts)
    assert "nan" not in page.text.split()


def test_map_page_tells_pool_and_thresholds(kinds: Make) -> None:
    """Verdicts, share, thresholds and command are on the page as they are in the document."""
    page, document = kinds("map").page, kinds("map").study.document
    assert "25 images" in page.text
    assert re.search(r"60.0\s% of them synthetic, 40.0 to 80.0\s% \(95 % interval\)", page.text)
    for row in document["pool"]["by_sampling_bias"]:
        assert row["verdict"] in page.words
        assert f"{row['ratio']['point']['ratio']:.3f}" in page.text
    for row in document["thresholds"]:
        if row["n_synthetic"] is not None:
            assert f"{row['n_synthetic']:,.0f}" in page.text
    assert "any number" in page.text
    assert "poolproof simulate admissible --out 'my <dir>'" in page.words
    assert "Your pool is admissible at sampling bias 1" in page.text
    assert "Sampling bias 1: 2 of 2 cells are admissible" in page.text


def test_loop_page_tells_each_arm(kinds: Make) -> None:
    """The page says where each arm ends, with its mean and median."""
    table = kinds("loop").table
    for arm, row in (
        table[(table["generation"] == 5) & (table["figure"] == "squared_w2")].set_index("arm").iterrows()
    ):
        assert f"squared W2 {row['mean']:.3g}" in kinds("loop").page.text
        assert f"{arm}: squared W2" in kinds("loop").page.text.replace("Fresh", "fresh").replace(
            "Marked", "marked"
        )


def test_charts_are_fit_for_a_page(each: Written) -> None:
    """Each chart has a drawing for both screens in the page's colours, and no two share an id."""
    for chart in each.charts.values():
        check_drawings(chart.markup)
    check_ids(chart.markup for chart in each.charts.values())


def test_pictures_hold_the_wide_drawing(each: Written) -> None:
    """An SVG file has the words of the chart's wide drawing, with light and dark colours of its own."""
    for name, chart in each.charts.items():
        root = check_picture(each.paths[0].with_name(f"{name}.svg"))
        drawn = [text.text or "" for text in root.iter(f"{SVG}text")]
        assert drawn == words(svgs(chart.markup)[0])
        assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_pool_stands_on_the_map(kinds: Make) -> None:
    """The map has the pool's mark with its level, as the legend says on both screens."""
    for drawing in svgs(kinds("map").charts["map"].markup):
        assert "your pool, 95 % interval" in " ".join(words(drawing))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_synthetic": (10,), "sampling_bias": (1.0,)},
        {"n_real": (20, 10), "n_synthetic": (10,), "sampling_bias": (1.0,)},
        {"n_synthetic": (40, 10), "sampling_bias": (0.5, 0.0)},
        {"n_real": (20, 10), "n_synthetic": (10,), "sampling_bias": (0.5,), "panel": "n_real"},
    ],
)
def test_small_maps_are_drawn(changes: dict[str, Any], tmp_path: Path) -> None:
    """One cell, one row, one column and one panel are drawn with a picture for each value of the panel."""
    spec = replace(MAP, **changes)
    done = write(run_study(spec), tmp_path)
    n_panels = len(getattr(spec, spec.panel))
    assert done.page.text.count("cells are admissible") == n_panels
    drawn = done.words("map")
    assert len([text for text in drawn if re.search(r"^sampling bias \d|fresh real$", text)]) == n_panels
    assert "your pool" not in " ".join(drawn)


def test_missing_ratios_are_shown_as_such(tmp_path: Path) -> None:
    """Where a loop is worth less than two real images the map has a stroke, and the table a dash and the reason."""
    done = write(run_study(MapSpec("Map", (2,), (10, 100_000), (0.0,), dim=1, effort=EFFORT)), tmp_path)
    assert done.table["ratio"].isna().tolist() == [False, True]
    assert "below 2" in done.page.text
    assert "\u2013" in done.page.words
    assert "not known" in done.words("map")


@pytest.mark.parametrize("y", ["squared_w2", "ratio", "n_e"])
def test_curves_with_missing_figures_are_drawn(y: str, tmp_path: Path) -> None:
    """A curve of which a point, or all, have no n_e is drawn as far as it is known."""
    cells = (Cell(2, 10, 0.0, dim=1), Cell(2, 100_000, 0.0, dim=1))
    some = CurveSpec("some", "p", (10.0, 100_000.0), cells)
    none = CurveSpec("none", "q", some.x[1:], cells[1:])
    done = write(run_study(replace(CURVES, y=y, curves=(some, none), dim=1)), tmp_path)
    assert "below 2" in done.page.text
    assert [path.name for path in done.paths[3:-1]] == ["curves-1.svg", "curves-2.svg"]


def test_singular_loops_are_drawn(tmp_path: Path) -> None:
    """Two samples in three dimensions have no determinant: a dash in the table, and the distance is drawn."""
    spec = LoopSpec("Loop", (Arm("two", Mixing.fully_synthetic(2)),), dim=3, n_generations=8, n_paths=8)
    page = write(run_study(spec), tmp_path).page
    assert page.words[page.words.index("log_determinant") :][1:].count("\u2013") >= 4
    assert "wo: squared W2" in page.text
    assert (tmp_path / "squared-w2.svg").exists()
    assert not (tmp_path / "drift.svg").exists()


@pytest.mark.parametrize("over", [0, 2])
def test_curves_beyond_the_most_are_counted(over: int, tmp_path: Path) -> None:
    """A chart has as many curves as can be told apart, says how many are left out, and the table has all."""
    labels = [f"number {n}" for n in range(MOST_CURVES + over)]
    loop = replace(LOOP, arms=tuple(replace(FRESH, label=label) for label in labels), n_generations=2)
    curves = tuple(CurveSpec(label, "", (5.0,), (Cell(10, 5, dim=2),)) for label in labels)
    for spec, name in ((loop, "squared-w2"), (replace(CURVES, curves=curves), "curves-1")):
        done = write(run_study(spec), tmp_path / name)
        assert (f"{over} more are in the table" in done.page.text) == (over > 0)
        drawn = " ".join(done.words(name))
        assert [label in drawn for label in labels] == [True] * MOST_CURVES + [False] * over
        assert all(label in done.page.words for label in labels)


def test_one_generation_is_drawn(tmp_path: Path) -> None:
    """A loop of one generation has a page like any other."""
    assert "in generation 1" in write(run_study(replace(LOOP, n_generations=1)), tmp_path).page.text


def test_wide_ranges_are_drawn_on_a_logarithmic_axis(tmp_path: Path) -> None:
    """Where distances grow far, all arms are still drawn, over decades."""
    mixing = Mixing.fully_synthetic(5000)
    arms = (Arm("shrinking", mixing, 0.9), Arm("steady", mixing, 1.0))
    done = write(run_study(replace(LOOP, arms=arms, n_generations=40, dim=1)), tmp_path)
    assert {"0.001", "0.1", "shrinking", "steady"} <= set(done.words("squared-w2"))


# --- hostile words --------------------------------------------------------------------------------------

NAMES = [
    "<script>alert(1)</script>",
    "cat\u202egnp.exe",
    "x" * 2000,
    "{{ 7 * 7 }}",
    "a\nb\0c",
    "$\\frac{1}{0}$",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Gives the study of a kind whose every word is a stranger's, made once."""

    @functools.cache
    def make(kind: str) -> Written:
        if kind == "map":
            small = replace(MAP, title=HOSTILE, n_synthetic=(10,), sampling_bias=(1.0,))
            study = run_study(small, command=f"it {HOSTILE}")
        elif kind == "loop":
            arms = tuple(replace(FRESH, label=name, mark=0.1) for name in NAMES)
            study = run_study(replace(LOOP, title=HOSTILE, arms=arms))
        else:
            curves = tuple(CurveSpec(name, HOSTILE, (5.0,), (Cell(10, 5, dim=2),)) for name in NAMES)
            study = run_study(replace(CURVES, title=HOSTILE, curves=curves))
        return write(study, tmp_path_factory.mktemp("hostile") / kind)

    return make


@pytest.mark.parametrize("kind", ["map", "loop", "curves"])
def test_hostile_words_stay_text(hostile: Make, kind: str) -> None:
    """Markup, overrides and templates in titles and labels are shown as visible text, and cut in drawings."""
    done = hostile(kind)
    assert "<script>alert(1)</script> costs $5$ \\u202e\u5b57\\n" in done.page.text
    if kind != "map":
        assert {"cat\\u202egnp.exe", "{{ 7 * 7 }}", "a\\nb\\x00c", "$\\frac{1}{0}$"} <= set(done.page.words)
    for chart in done.charts.values():
        for drawing in svgs(chart.markup):
            assert {element.tag for element in drawing.iter()}.isdisjoint({"script", "a", "image"})
            assert not any("\u202e" in text or "\n" in text or len(text) > 130 for text in words(drawing))


def test_hostile_words_are_kept_in_the_tables(hostile: Make) -> None:
    """Tables and document hold names as they were given."""
    parquet, _, path = hostile("loop").paths[:3]
    assert list(dict.fromkeys(pd.read_parquet(parquet)["arm"])) == NAMES
    document = json.loads(path.read_text("utf-8"))
    assert list(dict.fromkeys(row[0] for row in document["rows"])) == NAMES
    assert [arm["label"] for arm in document["spec"]["arms"]] == NAMES
    assert document["title"] == HOSTILE


# --- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless chromium."""
    with headless_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Opens a page on a screen; gives it with all it did besides showing itself."""
    opened: list[Page] = []

    def open_page(path: Path, width: int, scheme: Literal["light", "dark"]) -> tuple[Page, list[str]]:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(page)
        events: list[str] = []
        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("request", lambda request: _note(request.url))

        def _note(url: str) -> None:
            if url != path.as_uri() and not url.startswith("data:"):
                events.append(f"request: {url}")

        page.goto(path.as_uri())
        return page, events

    yield open_page
    for page in opened:
        page.close()


def brightness(colour: str) -> float:
    """How bright a colour of the browser's is, from 0 to 255."""
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3


def check_fit(page: Page, width: int, n_charts: int) -> None:
    """Checks that nothing is wider than the screen, with the table open too, and one drawing of each chart shows."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    assert page.locator(".chart:visible").count() == n_charts
    boxes = page.eval_on_selector_all(
        ".chart text",
        """all => all.filter(one => one.getClientRects().length).map(one => {
            const box = one.getBoundingClientRect();
            return [box.left, box.right, box.height];
        })""",
    )
    assert len(boxes) > 5 * n_charts
    assert [box for box in boxes if box[0] < 0 or box[1] > width or box[2] < 10] == []
    page.locator("summary").click()
    assert page.locator("details tbody tr").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_page_is_quiet_and_fits(
    each: Written, visit: Callable[..., tuple[Page, list[str]]], width: int, scheme: str
) -> None:
    """No message and no request; nothing wider than the screen; one drawing of each chart, with words to read."""
    page, events = visit(each.paths[-1], width, scheme)
    assert page.locator("h1").inner_text() == each.study.spec.title
    check_fit(page, width, len(each.charts))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (brightness(ground) > 128) == (scheme == "light")
    assert events == []


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["map", "loop", "curves"])
def test_hostile_pages_are_quiet_and_fit(
    hostile: Make, visit: Callable[..., tuple[Page, list[str]]], kind: str
) -> None:
    """Pages of hostile words run nothing, ask for nothing and stay within a phone's screen."""
    page, events = visit(hostile(kind).paths[-1], 390, "dark")
    check_fit(page, 390, len(hostile(kind).charts))
    assert events == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_opens_in_a_browser(
    kinds: Make, visit: Callable[..., tuple[Page, list[str]]], scheme: str
) -> None:
    """An SVG file opened by itself is quiet, has its size, and follows light and dark."""
    page, events = visit(kinds("map").paths[3], 1280, scheme)
    colour = page.evaluate("getComputedStyle(document.querySelector('text')).fill")
    assert (brightness(colour) < 128) == (scheme == "light")
    assert page.evaluate("document.documentElement.getBoundingClientRect().width") > 700
    assert events == []
