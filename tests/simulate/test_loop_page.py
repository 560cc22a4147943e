"""What a loop of trained generators leaves on disk: files that agree, charts of every figure, a page that is safe."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from chart_pages import headless_browser
from chart_svgs import HOSTILE, check_drawings, check_ids, svgs, words
from fake_loops import FOUR, fake_document, fake_strips, fake_table
from playwright.sync_api import Browser, Page

from poolproof.curves import MOST_CURVES
from poolproof.simulate.figures import FIGURES
from poolproof.simulate.loop_charts import group_arms
from poolproof.simulate.loop_page import MOST_ROWS, draw_loop_charts, write_loop
from poolproof.simulate.study_page import Chart
from poolproof.simulate.summary import summarise_generations, tell_findings

KEYS = ["arm", "seed", "generation", "status", "why", "n_fresh", "n_fixed", "n_synthetic"]
KEPT = ["n_marked", "kept_real", "kept_synthetic"]
TWELVE = [
    f"{kind}: {policy}"
    for kind in ("replace", "fixed", "fresh")
    for policy in ("all", "flagged", "half", "none")
]
NAMES = [
    "<script>alert(1)</script>",
    "cat\u202egnp.exe",
    "x" * 2000,
    "{{ 7 * 7 }}",
    "a\nb\0c",
    "$\\frac{1}{0}$",
]
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
        """Checks that nothing can run, nothing is fetched, every picture has words, and no id stands twice."""
        assert {"script", "iframe", "object", "embed", "a", "form"}.isdisjoint(self.tags)
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        links = [value or "" for name, value in self.attributes if name in ("href", "src", "action")]
        assert all(link == "data:," or link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert self.tags.count("img") == sum(name == "alt" for name, _ in self.attributes)
        ids = [value for name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        assert not re.search("[\u202a-\u202e\u2066-\u2069\0]", self.text)
        assert "nan" not in re.split(r"\W+", self.text)
        assert "None" not in re.split(r"\W+", self.text)


@dataclass(frozen=True)
class Written:
    """A loop and what was written of it."""

    table: pd.DataFrame
    document: dict[str, Any]
    paths: list[Path]
    page: Document

    @functools.cached_property
    def charts(self) -> dict[str, Chart]:
        """The loop's charts, drawn again."""
        return draw_loop_charts(self.document, self.table)

    def pictures(self) -> list[str]:
        """Names of the pictures, in order."""
        return [path.stem for path in self.paths if path.suffix == ".svg"]


def write(table: pd.DataFrame, out: Path, strips: Any = None, **changes: Any) -> Written:
    """Writes a loop and checks its page."""
    document = fake_document(table) | changes
    paths = write_loop(document, table, fake_strips(table) if strips is None else strips, out)
    page = Document(paths[-1])
    page.check()
    return Written(table, document, paths, page)


def narrow(table: pd.DataFrame, *figures: str) -> pd.DataFrame:
    """The table with these figures alone, which is drawn faster."""
    return table[[*KEYS, *KEPT, *figures]]


SOME = (
    "frechet_distance",
    "kernel_distance",
    "recall",
    "mark_bit_accuracy",
    "mark_p_value",
    "flag_tpr",
    "ratio",
)
"""Figures that a page is tested with; drawing all takes longer."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A loop with all that a page can show, and a failed generation."""
    return write(narrow(fake_table(failing=True), *SOME), tmp_path_factory.mktemp("whole") / "deep" / "out")


# --- files ----------------------------------------------------------------------------------------------


def test_files_are_named_after_what_they_hold(whole: Written) -> None:
    """Tables, document, a picture per chart and last the page are written into a folder that is made."""
    names = [path.name for path in whole.paths]
    assert names[:4] == ["generations.parquet", "generations.csv", "loop.json", "frechet-distance.svg"]
    assert names[-1] == "loop.html"
    assert sorted(whole.paths) == sorted(whole.paths[0].parent.iterdir())
    charted = [name.replace("_", "-") for name in SOME if FIGURES[name].is_charted]
    assert whole.pictures() == [*charted, "effective-size"]
    assert list(whole.charts) == whole.pictures()


@pytest.mark.slow
def test_every_figure_has_a_chart(tmp_path: Path) -> None:
    """All figures of a table are drawn, on a page that holds them all."""
    table = fake_table(n_seeds=2, n_generations=3)
    table["squared_w2"] = table["frechet_distance"]
    done = write(table, tmp_path)
    charted = [name.replace("_", "-") for name in FIGURES if FIGURES[name].is_charted]
    assert sorted(done.pictures()) == sorted([*charted, "effective-size"])
    check_ids(chart.markup for chart in done.charts.values())
    assert all(figure.heading in done.page.text for figure in FIGURES.values())


def test_files_agree(whole: Written) -> None:
    """Parquet, CSV and JSON hold the table and the document as they were given."""
    parquet, csv, document = whole.paths[:3]
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), whole.table)
    read = pd.read_csv(csv)
    assert list(read.columns) == list(whole.table.columns)
    np.testing.assert_allclose(read["frechet_distance"], whole.table["frechet_distance"], rtol=1e-14)
    assert json.loads(document.read_text("utf-8")) == whole.document


def test_writing_again_replaces(tmp_path: Path) -> None:
    """A loop takes the place of an earlier one, and the same loop gives the same bytes."""
    table = narrow(fake_table(n_seeds=2, n_generations=2), "frechet_distance")
    paths = write(table, tmp_path, effective_size=None).paths
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_text("old")
    assert [path.read_bytes() for path in write(table, tmp_path, effective_size=None).paths] == before
    assert sorted(paths) == sorted(tmp_path.iterdir())


# --- page and charts ------------------------------------------------------------------------------------


def test_page_says_what_there_is(whole: Written) -> None:
    """Title, counts, findings, verdicts, failures, reference, spec, command and versions are on the page."""
    page = whole.page
    assert page.tags.count("h1") == 1
    told = tell_findings(summarise_generations(whole.table), whole.document)
    shown = page.text.replace("\u00a0", " ")
    for sentence in told:
        assert " ".join(sentence.split()).replace("\u00a0", " ") in shown
    for text in (
        "Digits, four kinds of loop",
        "4 arms, 3 seeds, 6 generations",
        "fully synthetic, seed 0, generation 6: the loss is not finite after 312 steps",
        "forensic features without weights, 128 numbers an image",
        "the distance lies above that of the fewest real images",
        "poolproof simulate loop digits.toml --out 'my <loop>'",
        "arXiv 2307.01850",
        '"kind": "denoiser",',
        "431.3 s",
        "torch",
    ):
        assert text in shown
    for chart in whole.charts.values():
        assert chart.heading in page.text
        assert chart.words in page.text
    assert page.tags.count("svg") == 2 * len(whole.charts)
    assert page.tags.count("img") == 4 * 6


def test_policies_stand_side_by_side(whole: Written) -> None:
    """The table has each arm's figures at the last generation, what its policy took, and dashes for the rest."""
    text = whole.page.text.replace("\u00a0", " ")
    assert "Each arm at generation 6." in text
    cells = text[text.index("real images lost synthetic kept") :].split("Synthetic images flagged")[0]
    assert cells.count("1,000 of 1,000") == 3
    assert "15 of 500 3.0 % 120 of 1,000 12.0 %" in cells
    rows = whole.table[(whole.table["arm"] == FOUR[3]) & (whole.table["generation"] == 6)]
    assert f"{rows['flag_tpr'].mean():.2f}" in cells
    assert cells.count("\u2013") == 3 + 1


def test_charts_are_fit_for_a_page(whole: Written) -> None:
    """Each chart has a drawing for both screens in the page's colours, and no two share an id."""
    for chart in whole.charts.values():
        check_drawings(chart.markup)
    check_ids(chart.markup for chart in whole.charts.values())


def test_charts_have_their_lines_and_errors(whole: Written) -> None:
    """Real data against real data stand on the charts that they have a figure for; bars are said to be there."""
    for name in ("frechet-distance", "recall"):
        assert "real data against real data" in words(svgs(whole.charts[name].markup)[0])
    assert "guessing" in words(svgs(whole.charts["mark-bit-accuracy"].markup)[0])
    assert "Bars are two standard errors over 2 to 3 seeds." in whole.charts["recall"].words
    wide = words(svgs(whole.charts["frechet-distance"].markup)[0])
    assert set(FOUR) <= set(wide)
    assert {"0.5", "10"} <= set(wide)  # a logarithmic axis


def test_pictures_stand_alone(whole: Written) -> None:
    """An SVG file has a size, the colours of light and dark, and refers to nothing outside."""
    for path in whole.paths[3:-1]:
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        assert float(root.get("width", "0")) > 700
        assert b"prefers-color-scheme: dark" in path.read_bytes()
        assert path.read_bytes().count(b"http") == 1


def test_effective_size_places_each_arm(whole: Written) -> None:
    """Arms with an n_e stand on the curve, with the others the table says why."""
    drawn = words(svgs(whole.charts["effective-size"].markup)[0])
    assert {"real data alone", *FOUR[1:]} <= set(drawn)
    assert FOUR[0] not in drawn
    assert "open" in whole.page.words
    assert "0.48 to 0.72" in whole.page.words


def test_one_of_each_is_a_page(tmp_path: Path) -> None:
    """One arm, seed and generation have no chart over generations and no errors, and the figures stand open."""
    table = fake_table(FOUR[:1], n_seeds=1, n_generations=1)
    done = write(table, tmp_path, effective_size=None)
    assert done.pictures() == []
    assert "1 arm, 1 seed, 1 generation" in done.page.text
    assert "One seed, so no errors." in done.page.text
    assert ("open", None) in done.page.attributes
    assert f"{table['recall'][0]:.4g}" in done.page.words


def test_one_seed_has_no_bars(tmp_path: Path) -> None:
    """With one seed the charts say that they have no error bars."""
    table = narrow(fake_table(FOUR[:1], n_seeds=1, n_generations=3), "frechet_distance")
    done = write(table, tmp_path, effective_size=None)
    assert done.charts["frechet-distance"].words.endswith("One seed, so no error bars.")


def test_missing_values_leave_gaps() -> None:
    """A generation that failed in all seeds breaks the line, and is no point of it."""

    def corners(table: pd.DataFrame) -> list[int]:
        charts = draw_loop_charts({"reference": {}}, narrow(table, "recall"))
        drawing = svgs(charts["recall"].markup)[0]
        lines = [
            path.get("d", "") for path in drawing.iter("path") if "stroke-width: 2" in path.get("style", "")
        ]
        return [line.count("M") for line in lines if line.count("L") >= 2]

    table = fake_table(FOUR[:1], n_seeds=2, n_generations=6)
    assert corners(table) == [1]
    failed = table.assign(status=np.where(table["generation"] == 3, "failed", "done"))
    assert corners(failed) == [2]


def test_all_failed_is_a_page(tmp_path: Path) -> None:
    """A loop of which nothing was done still has a page, which says what failed."""
    table = fake_table(FOUR[:1], n_seeds=1, n_generations=1, failing=True)
    done = write(table, tmp_path, effective_size=None, reference={})
    assert "the loss is not finite" in done.page.text
    assert "0 generations" in done.page.text


@pytest.mark.slow
def test_many_arms_are_split_by_kind(tmp_path: Path) -> None:
    """Twelve arms give a chart per kind on one scale, named after the kind; a figure that few have stays one chart."""
    table = narrow(fake_table(TWELVE, n_seeds=2, n_generations=2), "frechet_distance", "flag_tpr")
    done = write(table, tmp_path, {}, effective_size=None)
    assert done.pictures()[:3] == [f"frechet-distance-{part}" for part in (1, 2, 3)]
    assert [name for name in done.pictures() if name.startswith("flag")] == ["flag-tpr"]
    assert done.charts["frechet-distance-2"].heading == "Fréchet distance \u00b7 fixed"
    assert done.page.tags.count("h4") == 3
    scales = []
    for part in (1, 2, 3):
        drawn = words(svgs(done.charts[f"frechet-distance-{part}"].markup)[1])
        assert {"all", "flagged", "half", "none"} <= set(drawn)
        scales.append([text for text in drawn if re.fullmatch(r"[\d.]+", text)])
    assert scales[0] == scales[1] == scales[2]
    assert {f"{TWELVE[3]}", "fresh: flagged"} <= set(done.page.words)


@pytest.mark.property
@pytest.mark.parametrize(
    ("arms", "sizes"),
    [
        ([], []),
        (["a"], [1]),
        ([f"k: {n}" for n in range(6)], [6]),
        ([f"arm {n}" for n in range(7)], [4, 3]),
        ([f"arm {n}: x" for n in range(13)], [5, 4, 4]),
        ([f"k: {n}" for n in range(7)] + ["l: a", "l: b"], [4, 3, 2]),
        (["k: a", "none"] * 3 + ["l: b"], [4, 3]),
        (TWELVE, [4, 4, 4]),
    ],
)
def test_groups_hold_every_arm_once(arms: list[str], sizes: list[int]) -> None:
    """Groups are no larger than a chart, hold all arms in order, and have names where there are several."""
    arms = [f"{arm}{'' if arms.count(arm) == 1 else position}" for position, arm in enumerate(arms)]
    groups = group_arms(arms)
    assert [len(group.arms) for group in groups] == sizes
    assert max(sizes, default=0) <= MOST_CURVES
    assert [arm for group in groups for arm in group.arms] == arms
    assert len({group.name for group in groups}) == len(groups)
    assert all(len(set(group.labels)) == len(group.arms) for group in groups)


def test_long_loops_show_some_generations(tmp_path: Path) -> None:
    """Of many generations the first, the last and some between are shown, and the page says so."""
    table = narrow(fake_table(FOUR[:1], n_seeds=1, n_generations=20), "recall")
    page = write(table, tmp_path, effective_size=None).page
    assert page.tags.count("img") == MOST_ROWS
    assert f"({MOST_ROWS} of 20 generations)" in page.text
    alts = [value for name, value in page.attributes if name == "alt"]
    assert alts[0] == "samples of fully synthetic in generation 1"
    assert alts[-1] == "samples of fully synthetic in generation 20"


def test_points_are_shown_as_clouds(tmp_path: Path) -> None:
    """Points have a picture per generation in one window."""
    table = narrow(fake_table(FOUR[:2], n_seeds=1, n_generations=2), "recall")
    rng = np.random.default_rng(0)
    strips = {arm: [(g, rng.standard_normal((50, 2)) / g) for g in (1, 2)] for arm in FOUR[:2]}
    page = write(table, tmp_path, strips, effective_size=None).page
    assert page.tags.count("img") == 4
    assert "shown in one window" in page.text
    empty = fake_table(FOUR[:1], n_seeds=1, n_generations=1)
    assert write(empty, tmp_path, {}, effective_size=None).page.tags.count("img") == 0


# --- hostile words --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A loop whose every word is a stranger's."""
    table = narrow(fake_table(NAMES, n_seeds=2, n_generations=3, failing=True), "frechet_distance", "ratio")
    table = table.assign(why=table["why"].where(table["why"].isna(), HOSTILE))
    document = fake_document(table, title=HOSTILE)
    document["spec"] |= {"name": HOSTILE}
    document["manifest"] |= {"command": f"it {HOSTILE}", "versions": {HOSTILE: HOSTILE}}
    document["reference"] |= {"features": HOSTILE}
    document["effective_size"]["arms"][0]["why"] = HOSTILE
    return write(table, tmp_path_factory.mktemp("hostile"), **document)


def test_hostile_words_stay_text(hostile: Written) -> None:
    """Markup, overrides and templates in titles, labels and reasons are shown as visible text, and cut in drawings."""
    assert "<script>alert(1)</script> costs $5$ \\u202e\u5b57\\n" in hostile.page.text
    assert {"cat\\u202egnp.exe", "{{ 7 * 7 }}", "a\\nb\\x00c", "$\\frac{1}{0}$"} <= set(hostile.page.words)
    for chart in hostile.charts.values():
        for drawing in svgs(chart.markup):
            assert {element.tag for element in drawing.iter()}.isdisjoint({"script", "a", "image"})
            assert not any("\u202e" in text or "\n" in text or len(text) > 130 for text in words(drawing))


def test_hostile_words_are_kept_in_the_tables(hostile: Written) -> None:
    """Table and document hold names as they were given."""
    assert list(dict.fromkeys(pd.read_parquet(hostile.paths[0])["arm"])) == NAMES
    assert json.loads(hostile.paths[2].read_text("utf-8"))["title"] == HOSTILE


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

        def note(url: str) -> None:
            if url != path.as_uri() and not url.startswith("data:"):
                events.append(f"request: {url}")

        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("request", lambda request: note(request.url))
        page.goto(path.as_uri())
        return page, events

    yield open_page
    for page in opened:
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
@pytest.mark.parametrize("which", ["whole", "hostile"])
def test_page_is_quiet_and_fits(
    which: str,
    visit: Callable[..., tuple[Page, list[str]]],
    width: int,
    scheme: str,
    request: pytest.FixtureRequest,
) -> None:
    """No message and no request; nothing wider than the screen, opened or not; one drawing of each chart."""
    done = request.getfixturevalue(which)
    page, events = visit(done.paths[-1], width, scheme)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.locator(".chart:visible").count() == len(done.charts)
    boxes = page.eval_on_selector_all(
        ".chart text",
        """all => all.filter(one => one.getClientRects().length).map(one => {
            const box = one.getBoundingClientRect();
            return [box.left, box.right, box.height];
        })""",
    )
    assert len(boxes) > 5 * len(done.charts)
    assert [box for box in boxes if box[0] < 0 or box[1] > width or box[2] < 10] == []
    images = page.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth, one.width])")
    assert images
    assert all(own > 0 and shown <= width for own, shown in images)
    assert events == []
