"""The report page: it says what report.json says, and nothing of a stranger's acts."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from poolproof.audit.evidence import ITEMS
from poolproof.audit.gallery import GALLERY_SIZE, galleries, lost_items
from poolproof.audit.report import accounts, checks, headline, render_report, tiers
from poolproof.errors import InputError

KINDS = ("both-references", "labelled", "real-only", "no-references", "nothing-scored")
DOCS = Path(__file__).parents[2] / "docs"


class Reader(HTMLParser):
    """Collects what a browser would see: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags = [""]
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Notes words, but for the style sheet."""
        if self.tags[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def read(page: Path) -> Reader:
    """The page, read."""
    return Reader(page.read_text("utf-8"))


def load(run: Any) -> dict[str, Any]:
    """The run's report.json."""
    return json.loads((run.path / "report.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_fixtures_meet_the_published_schema(make_run: Callable[[str], Any], kind: str) -> None:
    """The runs that these tests render are what the schema promises to others."""
    schema = json.loads((DOCS / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(load(make_run(kind)), schema)


def test_schema_refuses_what_is_not_promised(make_run: Callable[[str], Any]) -> None:
    """A field too many, a field too few, a share out of range and another version are not valid."""
    validator = jsonschema.Draft202012Validator(json.loads((DOCS / "report.schema.json").read_text()))
    report = load(make_run("both-references"))
    for change in (
        {"more": 1},
        {"schema_version": 2},
        {"share": report["share"] | {"upper": 1.2}},
        {"share": report["share"] | {"p": 1}},
        {"pool": report["pool"] | {"items": -1}},
        {"scores": report["scores"] | {"real": [0.5]}},
        {"manifest": report["manifest"] | {"plan_sha256": "zz"}},
    ):
        assert not validator.is_valid(report | change), change
    for name in report:
        assert not validator.is_valid({key: value for key, value in report.items() if key != name})


def test_every_field_is_documented() -> None:
    """Each field of the schema is named in the page that explains it."""
    schema = json.loads((DOCS / "report.schema.json").read_text())
    explained = (DOCS / "report-schema.md").read_text()

    def names(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = set(node.get("properties", {}))
            return own.union(*(names(child) for child in node.values()))
        return set().union(*(names(child) for child in node)) if isinstance(node, list) else set()

    missing = {name for name in names(schema) if f"`{name}`" not in explained}
    assert not missing


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "both-references",
            "30.2 % synthetic 95 % interval 26.1 to 34.8 % , about 174 images (150 to 200)",
        ),
        ("labelled", "27.1 % synthetic 95 % interval 23.1 to 31.4 % , about 156 images (132 to 181)"),
        ("real-only", "at least 20.7 % synthetic 95 % interval 20.7 to 100 % , 119 to 575 images"),
        ("no-references", "at least 16.9 % synthetic 95 % interval 16.9 to 100 % , 97 to 575 images"),
        ("nothing-scored", "No figure for the synthetic share Nothing can be said"),
    ],
)
def test_headline_says_how_sure(rendered: Callable[[str], Path], kind: str, words: str) -> None:
    """The page opens with the share and its interval, with the lower bound alone, or with no figure."""
    text = read(rendered(kind)).text
    assert words in text
    assert text.index(words) < 250


@pytest.mark.parametrize(
    ("kind", "basis"),
    [
        (
            "both-references",
            "575 images, corrected for the detector's misses and false alarms measured",
        ),
        ("labelled", "what people said of 200 images drawn at random; the detector's flags make it narrower"),
        ("real-only", "575 images the detector flags beyond its false alarms on real references, and on 97"),
        ("no-references", "97 images whose own signature, metadata or mark says synthetic, and nothing else"),
    ],
)
def test_headline_says_what_it_rests_on(make_run: Callable[[str], Any], kind: str, basis: str) -> None:
    """One sentence names the method's evidence, and where the point is withheld another says why."""
    report = load(make_run(kind))
    said = headline(report)
    assert basis in said.basis
    assert (said.why is None) == (kind in ("both-references", "labelled"))


def test_labels_are_shown_by_part(rendered: Callable[[str], Path]) -> None:
    """Each part has its counts, with their sum, what more are worth, the worst case, and labels against findings."""
    text = read(rendered("labelled")).text
    assert "Flagged by the detector 110 9 51 3 All others 390 107 9 0 sum 575 118 82 4" in text
    assert "Label 96 more for ±3 points (now ±4.2 points)." in text
    assert "Whatever the unsure ones are, the share lies between 22.4 % and 32.7 %." in text
    assert "2 images labelled real are signed, declared or marked as synthetic" in text
    assert "labels by people, part by part" in text
    assert "Labels by people" not in read(rendered("both-references")).text


def test_report_from_before_labels_is_rendered(make_run: Callable[[str], Any]) -> None:
    """A report.json without the section, of an earlier release, is shown as it was."""
    run = make_run("both-references")
    report = load(run)
    del report["labels"]
    (run.path / "report.json").write_text(json.dumps(report))
    assert "30.2 %" in read(render_report(run.path, read_images=run.read_images)).text


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "passed"),
        ({"lower": 0.0, "point": 0.1, "upper": 0.2}, "failed"),
        ({"lower": 0.0, "point": None, "upper": 1.0}, "unsure"),
    ],
)
def test_files_made_alike_are_held_against_the_first_estimate(
    make_run: Callable[[str], Any], change: dict[str, float | None], outcome: str
) -> None:
    """The second estimate passes where it agrees with the first, and confirms nothing where it tells nothing."""
    report = load(make_run("both-references"))
    report["estimates"][-1] |= change
    report["checks"]["matched"]["share"] |= change
    assert checks(report)[-1].outcome == outcome


def test_headline_without_any_bound(make_run: Callable[[str], Any]) -> None:
    """An interval from 0 to 1 is called not known, never 0 %."""
    report = load(make_run("no-references"))
    report["share"] |= {"lower": 0, "upper": 1, "count": {"point": None, "lower": 0, "upper": 575}}
    said = headline(report)
    assert (said.figure, said.told) == ("Not known", False)
    assert said.interval == "95\u00a0% interval 0 to 100\u00a0%"


def test_headline_of_a_known_zero(make_run: Callable[[str], Any]) -> None:
    """An estimated share of 0 is a figure and is shown with its interval."""
    report = load(make_run("both-references"))
    report["share"] |= {"point": 0.0, "lower": 0.0, "upper": 0.0004}
    said = headline(report)
    assert (said.figure, said.told, said.qualifier) == ("0\u00a0%", True, "")
    assert said.interval == "95\u00a0% interval 0 to 0.04\u00a0%"


@pytest.mark.parametrize("kind", KINDS)
def test_tiers_stay_apart(make_run: Callable[[str], Any], kind: str) -> None:
    """Four kinds of evidence with the counts of report.json; an absent detector has no count, not 0."""
    report = load(make_run(kind))
    rows = tiers(report)
    assert [row.name for row in rows] == ["Signed", "Declared", "Marked", "Detected"]
    assert [row.count for row in rows] == [report["tiers"][row.name.lower()]["count"] for row in rows]
    assert (rows[3].count is None) == (kind in ("no-references", "nothing-scored"))
    assert list(rows[1].counts.values()) == sorted(rows[1].counts.values(), reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_is_accounted_for(
    make_run: Callable[[str], Any], rendered: Callable[[str], Path], kind: str
) -> None:
    """The five statuses add up to the audited items and the reasons never exceed their status."""
    run = make_run(kind)
    rows = accounts(load(run))
    assert len(rows) == 5
    assert sum(row.count for row in rows) == pq.read_table(run.path / "items.parquet").num_rows
    for row in rows:
        assert sum(count for _, count in row.reasons) <= row.count
    text = read(rendered(kind)).text
    for row in rows:
        assert f"{row.status} {row.meaning}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_stranger_acts(rendered: Callable[[str], Path], kind: str) -> None:
    """The page has no script, no handler, and no address but data: and its own ids."""
    page = read(rendered(kind))
    assert not set(page.tags) & {"script", "iframe", "object", "embed", "form", "base", "b-onclick"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value is not None
            assert value.startswith(("data:image/webp;base64,", "data:,", "#")), value


def test_strangers_names_are_shown_as_text(rendered: Callable[[str], Path]) -> None:
    """Hostile keys, tools and paths are readable, with what is unseen written as escapes."""
    text = read(rendered("both-references")).text
    for name in (
        "<img src=x onerror=alert(1)>.png",
        '"><script>alert(2)</script>.jpg',
        "{{ 7 * 7 }}{% raw %}.jpg",
        "holiday\\u202egpj.exe",
        "bell\\x07\\x1b[31m\\x00\\n.png",
        "crawl-2026-03 <b onclick=alert(3)>\\udc80",
        "</style><script>alert(4)</script>\\udcff",
        "gone: <b>no such file</b>",
        "…",
    ):
        assert name in text, name
    assert "longlong" * 10 not in text


def test_ids_and_labels_fit(rendered: Callable[[str], Path]) -> None:
    """No id occurs twice and every label reference has its target."""
    attributes = read(rendered("both-references")).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in attributes:
        if name == "aria-labelledby":
            assert set((value or "").split()) <= set(ids)


def test_same_run_same_page(make_run: Callable[[str], Any], rendered: Callable[[str], Path]) -> None:
    """Rendering again gives the same bytes and leaves one file."""
    run = make_run("both-references")
    page = render_report(run.path, read_images=run.read_images)
    assert page.read_bytes() == rendered("both-references").read_bytes()
    assert sorted(path.name for path in run.path.iterdir()) == ["items.parquet", "report.html", "report.json"]


def test_page_can_be_mailed(rendered: Callable[[str], Path]) -> None:
    """Nearly a hundred pictures and three charts stay under two megabytes."""
    assert rendered("both-references").stat().st_size < 2_000_000


def test_galleries_hold_the_strongest(make_run: Callable[[str], Any]) -> None:
    """The first gallery has the highest scores in order; the others hold images of their kind alone."""
    run = make_run("both-references")
    table = pq.read_table(run.path / "items.parquet")
    best, *others = galleries(run.path / "items.parquet", run.read_images)
    scores = sorted((score for score in table["score"].to_pylist() if score is not None), reverse=True)
    assert [tile.score for tile in best.tiles] == scores[:GALLERY_SIZE]
    assert [gallery.title for gallery in others] == ["Signed", "Declared", "Marked"]
    for gallery in others:
        having = table.filter(pc.field(gallery.title.lower()))
        assert gallery.total == having.num_rows
        assert len(gallery.tiles) == min(GALLERY_SIZE, gallery.total)
        assert {tile.key for tile in gallery.tiles} <= set(having["key"].to_pylist())


def test_galleries_without_a_probe_rank_by_neighbours(make_run: Callable[[str], Any]) -> None:
    """With a real reference alone the neighbour scores rank; without any score there is no such gallery."""
    run = make_run("real-only")
    best = galleries(run.path / "items.parquet", run.read_images)[0]
    known = pq.read_table(run.path / "items.parquet")["knn_score"].drop_null().to_pylist()
    assert [tile.score for tile in best.tiles] == sorted(known, reverse=True)[:GALLERY_SIZE]
    run = make_run("no-references")
    titles = [gallery.title for gallery in galleries(run.path / "items.parquet", run.read_images)]
    assert titles == ["Signed", "Declared", "Marked"]
    run = make_run("nothing-scored")
    assert galleries(run.path / "items.parquet", run.read_images) == []


def test_images_are_asked_for_sparingly(make_run: Callable[[str], Any]) -> None:
    """At most one gallery of images is read at a time, and none is read twice."""
    run = make_run("both-references")
    asked: list[list[int]] = []

    def read_images(rows: Sequence[int]) -> Mapping[int, bytes | None]:
        asked.append(list(rows))
        return run.read_images(rows)

    galleries(run.path / "items.parquet", read_images)
    rows = [row for batch in asked for row in batch]
    assert len(rows) == len(set(rows))
    assert max(map(len, asked)) <= GALLERY_SIZE


def test_placeholder_where_there_is_no_picture(make_run: Callable[[str], Any]) -> None:
    """Damaged and absent bytes leave a placeholder and a caption, even where no image can be read."""
    run = make_run("both-references")
    best = galleries(run.path / "items.parquet", run.read_images)[0]
    assert [tile.key for tile in best.tiles if tile.picture is None] == [
        "crawl-2026-03/portraits/000009.jpg",
        "crawl-2026-03/landscapes/000010.jpg",
        "stock/000011.jpg",
    ]
    page = render_report(run.path, read_images=lambda rows: {}).read_text()
    assert page.count("no preview") == len(re.findall(r"<figcaption>", page)) > 60
    assert "<img" not in page


def test_lost_items_are_named(make_run: Callable[[str], Any]) -> None:
    """Items that could not be scored are listed with their reason; duplicates are no loss."""
    lost = lost_items(make_run("both-references").path / "items.parquet")
    assert [entry["row"] for entry in lost] == [100, 101, 102, 103, 104]
    assert lost[3]["reason"] == "format: HEIC"


def test_key_that_is_no_utf8(make_run: Callable[[str], Any]) -> None:
    """Bytes that another program put into the key column are shown as escapes."""
    run = make_run("nothing-scored")
    path = run.path / "items.parquet"
    table = pq.read_table(path)
    broken = pa.array([b"caf\xe9.jpg", b"b", b"c", b"d"]).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("key"), ITEMS.field("key"), broken), path)
    assert "caf\\xe9.jpg" in read(render_report(run.path, read_images=run.read_images)).text


def test_bad_runs_are_refused(make_run: Callable[[str], Any], tmp_path: Path) -> None:
    """An empty folder, broken JSON, another version and counts that do not add up are named as such."""
    run = make_run("both-references")
    report = load(run)
    with pytest.raises(InputError, match=r"report\.json cannot be read"):
        render_report(tmp_path / "nowhere", read_images=run.read_images)
    other = copy.deepcopy(report)
    other["pool"]["status"]["missing"] += 1
    for text, message in (
        ("{", r"cannot be read"),
        ("[]", r"schema_version is None"),
        (json.dumps(report | {"schema_version": 9}), r"schema_version is 9, allowed is 1"),
        (json.dumps(other), r"add up to 601, audited are 600"),
    ):
        (run.path / "report.json").write_text(text)
        with pytest.raises(InputError, match=message):
            render_report(run.path, read_images=run.read_images)
    (run.path / "report.json").write_text(json.dumps(report))
    (run.path / "items.parquet").unlink()
    with pytest.raises(InputError, match=r"no items\.parquet"):
        render_report(run.path, read_images=run.read_images)
    assert not (run.path / "report.html").exists()
