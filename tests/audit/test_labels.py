"""Labels by people: the draw, the file, the share, and audits that take them in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_pools import add_evidence, write_class, write_mixed
from label_runs import PAGE, label_truly, make_run, open_session, spec
from scipy import stats

from poolproof.audit.label_draw import (
    PARTS,
    Candidates,
    DrawnPart,
    allocate,
    draw_simple,
    guess_rates,
    make_rng,
)
from poolproof.audit.label_session import NotShown
from poolproof.audit.label_share import LabelAnswer, answer_labels, open_draw
from poolproof.audit.labels import Header, Label, LabelFile, read_labels, start_labels
from poolproof.audit.run import audit_pool
from poolproof.detectors.labelled import labelled_share
from poolproof.detectors.prevalence import Interval
from poolproof.detectors.strata import Stratum
from poolproof.errors import InputError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))


def candidates(*sizes: int, seed: int = 0) -> Candidates:
    """Items of which so many are hits, flagged, and neither, in any order."""
    parts = np.repeat(np.arange(3), sizes).astype(np.int8)
    return Candidates(np.arange(len(parts)) * 3, np.random.default_rng(seed).permutation(parts))


def by_part(items: Candidates, seed: int = 0, rates: tuple[float, float, float] = (0.95, 0.5, 0.1)) -> Header:
    """The header of a draw by part."""
    allocation = allocate(items.sizes, rates)
    parts = tuple(
        DrawnPart(name, size, allocation[name]) for name, size in zip(PARTS, items.sizes, strict=True) if size
    )
    return Header("a1" * 32, "detector", seed, len(items), parts, items.parts_sha256)


class Memory:
    """A label file that was never written: many draws are labelled in a test."""

    def __init__(self, header: Header, items: Candidates) -> None:
        self.header = header
        self.items = items
        draw = open_draw(header, items)
        assert draw is not None
        self.draw = draw
        self.file: Any = object.__new__(LabelFile)
        self.file.header, self.file.latest = header, {}

    def label(self, n: int, say: Callable[[int], str | None]) -> None:
        """Labels the first n items; `say` gives the label of a candidate."""
        for position in self.draw.order[:n]:
            part = PARTS[self.items.parts[position]] if self.header.parts else None
            row, place = int(self.items.rows[position]), int(self.draw.places[position])
            said = say(int(position))
            self.file.latest[row] = Label(row, "k", "0" * 64, said, "now", part, place, PAGE)

    def answer(self) -> LabelAnswer:
        """The share."""
        found = answer_labels(self.file, self.items, self.draw, level=0.95)
        assert found is not None
        return found


# --- the draw


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(0, 60)] * 3).filter(any), st.integers(0, 2**32 - 1))
def test_draws_are_permutations(sizes: tuple[int, int, int], seed: int) -> None:
    """Each item is shown once; places count up within the whole, or within each part, in the order shown."""
    items = candidates(*sizes)
    simple = draw_simple(len(items), rng=make_rng(seed))
    assert sorted(simple.order) == list(range(len(items)))
    assert simple.places[simple.order].tolist() == list(range(len(items)))
    header = by_part(items, seed)
    drawn = open_draw(header, items)
    assert drawn is not None
    assert sorted(drawn.order) == list(range(len(items)))
    for index in range(3):
        shown = [p for p in drawn.order if items.parts[p] == index]
        assert drawn.places[shown].tolist() == list(range(sizes[index]))


def test_draw_is_the_same_in_every_release() -> None:
    """An order that a label file was begun with is found again: it is pinned here."""
    assert draw_simple(12, rng=make_rng(7)).order.tolist() == PINNED


PINNED = [6, 3, 11, 4, 10, 9, 0, 2, 8, 7, 5, 1]


@pytest.mark.theory
def test_every_item_is_as_likely_to_come_early() -> None:
    """Over seeds the first items of a draw, simple or within a part, are uniform over their part."""
    items, simple, flagged = candidates(5, 20, 40), Counter(), Counter()
    for seed in range(3000):
        simple[int(draw_simple(65, rng=make_rng(seed)).order[0])] += 1
        drawn = open_draw(by_part(items, seed), items)
        assert drawn is not None
        flagged[next(int(p) for p in drawn.order if items.parts[p] == 1)] += 1
    assert stats.chisquare([simple[i] for i in range(65)]).pvalue > 1e-3
    assert stats.chisquare([flagged[int(i)] for i in np.flatnonzero(items.parts == 1)]).pvalue > 1e-3


def test_parts_come_by_their_allocation() -> None:
    """At any point each part has its share of the labels to within one or so, and none waits for its first."""
    items = candidates(8, 300, 2000)
    header = by_part(items)
    drawn = open_draw(header, items)
    assert drawn is not None
    assert {int(items.parts[p]) for p in drawn.order[:3]} == {0, 1, 2}
    shown = Counter(int(items.parts[p]) for p in drawn.order[:300])
    for part in header.parts:
        assert abs(shown[PARTS.index(part.name)] - 300 * part.allocation) < 2.5


@pytest.mark.theory
@pytest.mark.parametrize("truth", [(1.0, 0.9, 0.01), (0.5, 0.5, 0.5), (0.0, 0.02, 0.6)])
@pytest.mark.parametrize("guess", [(0.95, 0.9, 0.02), (0.95, 0.1, 0.5)])
def test_a_wrong_guess_costs_at_most_twice(
    truth: tuple[float, ...], guess: tuple[float, float, float]
) -> None:
    """Whatever the rates in truth, the variance is at most twice that of a draw in proportion to the parts."""
    sizes = np.array([100, 500, 4000])
    p = np.array(truth)
    shares = np.array(list(allocate(sizes.tolist(), guess).values()))
    weight = sizes / sizes.sum()
    variance = (weight**2 * p * (1 - p) / shares).sum()
    assert variance <= 2 * (weight * p * (1 - p)).sum() + 1e-12
    assert shares.sum() == pytest.approx(1)


def test_rates_are_guessed_from_the_run() -> None:
    """With the detector's rates the parts' shares follow by arithmetic; without them they are one half."""
    detected: dict[str, Any] = {"tpr": {"x": 80, "n": 100}, "fpr": {"x": 10, "n": 100}}
    report = {"tiers": {"detected": detected}}
    # of 1000 items 300 are synthetic: 240 + 70 are flagged
    assert guess_rates(report, (0, 310, 690)) == pytest.approx((0.95, 240 / 310, 60 / 690))
    detected["tpr"] = None
    assert guess_rates(report, (0, 310, 690)) == (0.95, 0.5, 0.5)


# --- the file


def header(n: int = 10) -> Header:
    """The header of a simple draw."""
    return Header("a1" * 32, "random", 5, n)


def line(row: int, label: str | None, place: int = 0) -> Label:
    """A label."""
    return Label(row, "a <b>\u202e.png", "c3" * 32, label, "2026-01-01T00:00:00+00:00", None, place, PAGE)


def test_later_labels_replace_earlier_ones(tmp_path: Path) -> None:
    """Of an item's lines the last one counts, and one without a label takes it back; reading gives the same."""
    file = start_labels(tmp_path / "l.jsonl", header())
    for label in (line(1, "real"), line(2, "real", 1), line(1, "synthetic"), line(2, None, 1)):
        file.append(label)
    again = read_labels(tmp_path / "l.jsonl")
    assert again.header == header()
    assert again.labels == file.labels == {1: line(1, "synthetic")}
    assert set(again.latest) == {1, 2}


def test_two_that_write_see_each_other(tmp_path: Path) -> None:
    """What another process adds is taken in, before reading and before writing."""
    one = start_labels(tmp_path / "l.jsonl", header())
    other = LabelFile(tmp_path / "l.jsonl")
    one.append(line(1, "real"))
    other.append(line(2, "unsure", 1))
    one.refresh()
    assert set(one.labels) == set(other.labels) == {1, 2}
    assert len((tmp_path / "l.jsonl").read_bytes().splitlines()) == 3


def test_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    """After a crash in the middle of a line the others stand; an audit refuses, the next label mends it."""
    path = tmp_path / "l.jsonl"
    start_labels(path, header()).append(line(1, "real"))
    with path.open("ab") as handle:
        handle.write(b'{"row": 2, "key"')
    with pytest.raises(InputError, match="not finished"):
        read_labels(path)
    LabelFile(path).append(line(3, "synthetic", 1))
    assert set(read_labels(path).labels) == {1, 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no header"),
        (b"\xff\xfe\n", "line 1: it is no JSON"),
        (b"[1]\n", "line 1: it is no JSON object"),
        (b'{"kind": "poolproof-labels", "schema_version": 2}\n', "allowed is 1"),
        (b'{"kind": "other"}\n', "no label file"),
        (b'{"kind": "poolproof-labels", "schema_version": 1}\n', "lacks fields"),
        ({"draw": "best"}, "does not describe a draw"),
        ({"seed": -1}, "does not describe a draw"),
        ({"size": 1.5}, "does not describe a draw"),
        ({"parts": [{"name": "hit", "size": 3, "allocation": 1.0}]}, "does not describe a draw"),
        ({"parts": [{"name": "hit"}]}, "does not describe a draw"),
        ({"parts": 3}, "does not describe a draw"),
        (
            {
                "draw": "detector",
                "parts_sha256": "x",
                "parts": [{"name": "hit", "size": 3, "allocation": 1.0}],
            },
            "draw",
        ),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, text: bytes | dict[str, Any], message: str) -> None:
    """A file that is not one of labels is one line that says why."""
    path = tmp_path / "l.jsonl"
    if isinstance(text, dict):
        start_labels(path, header())
        text = json.dumps(json.loads(path.read_bytes()) | text).encode() + b"\n"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "fake"},
        {"row": -1},
        {"row": True},
        {"place": "0"},
        {"sha256": "zz"},
        {"part": "some"},
        {"key": None},
        {"more": 1},
    ],
)
def test_damaged_labels_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """A label out of range is one line that names the line."""
    path = tmp_path / "l.jsonl"
    start_labels(path, header()).append(line(1, "real"))
    lines = path.read_text("ascii").splitlines()
    path.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | change)]) + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_labels(path)


def test_there_must_be_a_file(tmp_path: Path) -> None:
    """A file that is not there, one that is there already, and one that cannot be made are refused."""
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "none")
    start_labels(tmp_path / "l.jsonl", header())
    with pytest.raises(InputError, match="there is such a file"):
        start_labels(tmp_path / "l.jsonl", header())
    with pytest.raises(InputError, match="cannot be written"):
        start_labels(tmp_path / "no" / "l.jsonl", header())


# --- the share


def test_share_of_a_draw_by_part_is_that_of_its_strata() -> None:
    """The limits are those of the parts' counts, as sizes were when items were drawn."""
    items = candidates(20, 200, 800)
    memory = Memory(by_part(items), items)
    memory.label(150, lambda at: "synthetic" if items.parts[at] < 2 else "real")
    found = memory.answer()
    shown = Counter(int(items.parts[p]) for p in memory.draw.order[:150])
    strata = [
        Stratum(20, shown[0], shown[0]),
        Stratum(200, shown[1], shown[1]),
        Stratum(800, shown[2], 0),
    ]
    assert found.found.interval == labelled_share(strata).interval
    assert found.found.interval.method == "labels-strata"
    assert found.found.interval.point == pytest.approx(220 / 1020)


def test_flags_that_change_later_do_not_move_a_draw_by_part() -> None:
    """Labels drawn by earlier flags keep the parts of then."""
    items = candidates(20, 200, 800)
    memory = Memory(by_part(items), items)
    memory.label(100, lambda at: "synthetic" if items.parts[at] == 1 else "real")
    other = replace(items, parts=np.zeros(1020, np.int8))
    assert open_draw(memory.header, other) is None
    later = answer_labels(memory.file, other, None, level=0.95)
    assert later is not None
    assert later.found == memory.answer().found


def test_small_parts_of_a_simple_draw_are_not_set_apart() -> None:
    """A part that expects fewer than five labels joins the next weaker one, by sizes alone."""
    items = candidates(10, 190, 800)
    memory = Memory(header(1000), items)
    memory.label(100, lambda at: "real")
    assert [part.names for part in memory.answer().parts] == [("hit", "flagged"), ("rest",)]
    memory.label(15, lambda at: "real")
    few = Memory(header(1000), items)
    few.label(4, lambda at: "synthetic")
    assert [part.names for part in few.answer().parts] == [PARTS]
    assert few.answer().found.interval.method == "labels-survey"


def test_items_without_a_label_count_as_unsure() -> None:
    """Unsure items, items passed over and labels taken back widen the worst case alone."""
    items = candidates(0, 0, 100)
    memory = Memory(header(100), items)
    said: list[str | None] = ["real"] * 20
    said[3], said[19] = "unsure", None
    order = {int(p): i for i, p in enumerate(memory.draw.order)}
    memory.label(20, lambda at: said[order[at]])
    del memory.file.latest[int(items.rows[memory.draw.order[5]])]
    found = memory.answer().found
    assert (found.labelled, found.unsure) == (17, 3)
    assert found.interval == labelled_share([Stratum(100, 17, 0, 3)]).interval
    assert found.worst_case.upper > found.interval.upper


def test_labels_that_are_not_of_the_draw_are_refused() -> None:
    """An item that was picked by hand, one that was not scored, and a place taken twice are refused."""
    items = candidates(0, 0, 100)
    memory = Memory(header(100), items)
    memory.label(5, lambda at: "real")
    row, label = next(iter(memory.file.latest.items()))
    for change, message in (({"place": 40}, "not where the draw"), ({"row": 1}, "got row 1")):
        memory.file.latest = {row: replace(label, **change)}
        with pytest.raises(InputError, match=message):
            memory.answer()
    with pytest.raises(InputError, match="draw from 100 items"):
        open_draw(header(100), candidates(0, 0, 99))


def test_hits_labelled_real_are_counted() -> None:
    """A finding that a person contradicts is told, and the label is what counts."""
    items = candidates(40, 0, 40)
    memory = Memory(header(80), items)
    memory.label(80, lambda at: "real")
    found = memory.answer()
    assert found.hits_real == 40
    assert (found.found.interval.point, found.found.interval.upper) == (0, 0)
    assert found.describe_plan() == "all are labelled: ±0 points"


def test_plan_never_asks_for_more_than_there_is() -> None:
    """Where all that is left does not do it the plan says so; else it names a number."""
    items = candidates(0, 0, 60)
    memory = Memory(header(60), items)
    memory.label(59, lambda at: "synthetic" if at % 2 else "real")
    assert "the 1 that are left" in memory.answer().describe_plan()
    large = Memory(header(5000), candidates(0, 0, 5000))
    large.label(50, lambda at: "synthetic" if at % 2 else "real")
    assert large.answer().describe_plan().startswith("label ")


def cover(
    *,
    kind: str,
    n: int,
    truth: tuple[float, float, float],
    sizes: tuple[int, int, int],
    runs: int,
    **options: Any,
) -> float:
    """How often the limits hold the true share; options stop early where the interval is narrow enough."""
    stop, held = options.get("stop"), 0
    rng = np.random.default_rng(11)
    items = candidates(*sizes)
    synthetic = np.zeros(len(items), bool)
    for index, rate in enumerate(truth):
        members = np.flatnonzero(items.parts == index)
        synthetic[members[: round(rate * len(members))]] = True
    share = synthetic.mean()
    for _ in range(runs):
        seed = int(rng.integers(2**32))
        memory = Memory(header(len(items)) if kind == "random" else by_part(items, seed), items)
        if kind == "random":
            memory = Memory(replace(memory.header, seed=seed), items)
        say = lambda at: "synthetic" if synthetic[at] else "real"  # noqa: E731
        sizes_seen = range(stop[0], n + 1, stop[1]) if stop else [n]
        found = Interval(None, 0.0, 1.0, 0.95, "none")
        for size in sizes_seen:
            memory.label(size, say)
            found = memory.answer().found.interval
            if stop and found.upper - found.lower < 2 * stop[2]:
                break
        held += found.lower <= share <= found.upper
    return held / runs


TRUTHS = {"good detector": (1.0, 0.9, 0.02), "useless": (0.3, 0.3, 0.3), "wrong findings": (0.1, 0.05, 0.4)}


@pytest.mark.coverage
@pytest.mark.parametrize("kind", ["random", "detector"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if i else []) for i, name in enumerate(TRUTHS)]
)
def test_share_covers_whatever_the_detector_errs(kind: str, name: str) -> None:
    """The limits hold the true share at least as often as they say, with flags good, useless or perverse."""
    rate = cover(kind=kind, n=90, truth=TRUTHS[name], sizes=(60, 400, 1540), runs=150)
    assert rate >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / 150)


@pytest.mark.coverage
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "detector"])
def test_who_stops_when_the_interval_is_narrow_is_still_covered(kind: str) -> None:
    """Looking every ten labels and stopping at ±6 points takes no more than two points off the level."""
    options = {"truth": TRUTHS["good detector"], "sizes": (60, 400, 1540), "runs": 200}
    rate = cover(kind=kind, n=400, stop=(30, 10, 0.06), **options)
    assert rate >= 0.93 - 2.6 * np.sqrt(0.95 * 0.05 / 200)


# --- sessions


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 items, 6 of them synthetic; tests keep their label files elsewhere."""
    return make_run(tmp_path_factory.mktemp("labels"))


def test_session_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    """A session that begins again shows what comes next in the same draw, until all have labels."""
    file = tmp_path / "l.jsonl"
    keys = label_truly(open_session(finished, path=file), 8)
    again = open_session(finished, path=file)
    keys += label_truly(again, 12)
    assert len(set(keys)) == 20
    assert again.show(PAGE) is None
    found = again.answer()
    assert found is not None
    assert found.found.interval.point == pytest.approx(0.3)
    assert again.counts() == {"real": 14, "synthetic": 6, "unsure": 0}


def test_pages_do_not_show_the_same_item(finished: Path, tmp_path: Path) -> None:
    """Two pages at once get different items; a label for an item that a page does not show is not taken."""
    session = open_session(finished, path=tmp_path / "l.jsonl")
    one, other = session.show("page0number1"), session.show("page0number2")
    assert one is not None
    assert other is not None
    assert one.row != other.row
    assert session.show("page0number1") == one
    with pytest.raises(NotShown):
        session.record("page0number1", other.row, "real")
    session.record("page0number1", one.row, "real")
    with pytest.raises(NotShown):
        session.record("page0number1", one.row, "synthetic")
    assert session.counts()["real"] == 1


def test_undo_shows_the_item_again(finished: Path, tmp_path: Path) -> None:
    """A label is taken back item by item, after a restart too; without any there is nothing to take back."""
    file = tmp_path / "l.jsonl"
    session = open_session(finished, path=file)
    assert not session.undo(PAGE)
    first, second = label_truly(session, 2)
    assert session.undo(PAGE)
    shown = session.show(PAGE)
    assert shown is not None
    assert shown.key == second
    assert session.counts()["real"] + session.counts()["synthetic"] == 1
    again = open_session(finished, path=file)
    assert again.undo("page0number2")
    shown = again.show("page0number2")
    assert shown is not None
    assert shown.key == first
    assert not read_labels(file).labels


def test_changed_bytes_are_not_shown(tmp_path: Path) -> None:
    """An item whose file is gone or was replaced has no picture, and says so."""
    run = make_run(tmp_path, 3, 0)
    (tmp_path / "pool" / "r0000.png").unlink()
    (tmp_path / "pool" / "r0001.png").write_bytes((tmp_path / "pool" / "r0002.png").read_bytes())
    session = open_session(run)
    told = {}
    for _ in range(3):
        shown = session.show(PAGE)
        assert shown is not None
        told[shown.key] = shown.picture if isinstance(shown.picture, str) else "shown"
        assert (session.picture(shown.row) is not None) == (told[shown.key] == "shown")
        session.record(PAGE, shown.row, "unsure")
    assert told == {
        "r0000.png": "its bytes are no longer there",
        "r0001.png": "its bytes are not those that were audited",
        "r0002.png": "shown",
    }


def test_sessions_refuse_what_does_not_fit(finished: Path, tmp_path: Path) -> None:
    """Other draws, seeds and runs, numbers out of range and runs that are none are one line each."""
    file = tmp_path / "l.jsonl"
    open_session(finished, path=file, seed=4)
    for options, message in (
        ({"by": "detector"}, "--by: got detector, allowed random"),
        ({"seed": 5}, "--seed: got 5, allowed 4"),
        ({"wanted": 0}, "--n: got 0"),
        ({"by": "best"}, "--by: got 'best'"),
        ({"seed": -1}, "--seed: got -1"),
    ):
        with pytest.raises(InputError, match=message):
            open_session(finished, path=file, **options)
    other = make_run(tmp_path, 3, 1)
    with pytest.raises(InputError, match="another run"):
        open_session(other, path=file)
    with pytest.raises(InputError, match="is not a run"):
        open_session(tmp_path / "pool")
    (other / "report.json").unlink()
    with pytest.raises(InputError, match=r"no report\.json"):
        open_session(other)


# --- audits


def audit(folder: Path, **options: Any) -> dict[str, Any]:
    """The report of an audit, which meets the schema."""
    report = audit_pool(spec(folder, **options))
    jsonschema.validate(report, SCHEMA)
    return report


def test_audit_tells_the_share_by_labels(tmp_path: Path) -> None:
    """Without references the labels are the answer, with limits, plan and assumptions; without them it is open."""
    run = make_run(tmp_path, 40, 20)
    session = open_session(run, seed=1)
    keys = label_truly(session, 30)
    report = audit(tmp_path, labels=str(session.file.path))
    share, labels = report["share"], report["labels"]
    k = sum(key.startswith("s") for key in keys)
    exact = labelled_share([Stratum(60, 30, k)]).interval
    assert (share["point"], share["lower"], share["upper"]) == (k / 30, exact.lower, exact.upper)
    assert (share["method"], share["why"]) == ("labels-survey", None)
    assert share["assumes"][0] == "The labels are right."
    assert report["estimates"][0]["method"] == "labels-survey"
    assert (labels["n"], labels["synthetic"], labels["unsure"], labels["draw"]) == (30, k, 0, "random")
    assert labels["plan"]["words"] == session.answer().describe_plan()  # pyright: ignore[reportOptionalMemberAccess]
    assert report["manifest"]["config"]["labels"] == str(session.file.path)
    without = audit(tmp_path)
    assert without["labels"] is None
    assert without["share"]["method"] == "floor"


@pytest.mark.slow
def test_labels_and_flags_make_it_narrower(tmp_path: Path) -> None:
    """With references the same labels are held against the flags; the detector's figures stay among the estimates."""
    add_evidence(write_mixed(tmp_path / "pool", 120, 50, seed=3), declared=12, marked=0)
    references = {
        "real": str(write_class(tmp_path / "real", 100, synthetic=False, seed=1)),
        "synthetic": str(write_class(tmp_path / "synthetic", 100, synthetic=True, seed=2)),
    }
    before = audit(tmp_path, **references)
    assert before["share"]["method"] == "melded+floor"
    session = open_session(tmp_path / "run", by="detector", seed=2)
    label_truly(session, 90)
    report = audit(tmp_path, labels=str(session.file.path), **references)
    share, labels = report["share"], report["labels"]
    assert share["method"] == "labels-strata"
    assert share["lower"] <= 62 / 182 <= share["upper"]
    assert [part["names"] for part in labels["parts"]] == [["hit"], ["flagged"], ["rest"]]
    alone = labelled_share([Stratum(182, labels["n"], labels["synthetic"])]).interval
    assert share["upper"] - share["lower"] < 0.8 * (alone.upper - alone.lower)
    assert [each["method"] for each in report["estimates"][:2]] == ["labels-strata", "melded"]
    assert report["estimates"][1:] == before["estimates"]
    assert report["groups"] == before["groups"]


def test_labels_of_a_sample_stand_for_the_pool(tmp_path: Path) -> None:
    """A draw from a sample is one from the pool: one part as large as the pool, whatever was flagged in it."""
    run = make_run(tmp_path, 70, 30, sample=40)
    session = open_session(run, seed=1)
    keys = label_truly(session, 25)
    report = audit(tmp_path, sample=40, labels=str(session.file.path))
    k = sum(key.startswith("s") for key in keys)
    exact = labelled_share([Stratum(100, 25, k)]).interval
    assert (report["share"]["lower"], report["share"]["upper"]) == (exact.lower, exact.upper)
    assert report["labels"]["parts"][0]["items"] == 100
    with pytest.raises(InputError, match="--by: got 'detector'"):
        open_session(run, path=tmp_path / "other", by="detector")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "unknown.png"}, "allowed items of the run"),
        ({"row": 20}, "allowed items of the run"),
        ({"sha256": "0" * 64}, "were others when it was labelled"),
        ({"place": 7}, "not where the draw has it"),
        ({"label": "unsure"}, "no label that is sure"),
    ],
)
def test_audit_refuses_labels_that_do_not_fit(
    finished: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Unknown keys, items of other bytes or places, and files without a sure label are one line."""
    file = tmp_path / "l.jsonl"
    label_truly(open_session(finished, path=file, seed=3), 1)
    lines = file.read_text("ascii").splitlines()
    file.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | change)]) + "\n")
    with pytest.raises(InputError, match=message) as caught:
        audit(finished.parent, labels=str(file))
    assert "\n" not in str(caught.value)


def test_audit_refuses_labels_of_items_not_scored(tmp_path: Path) -> None:
    """A label of a duplicate is refused, by name."""
    pool = write_mixed(tmp_path / "pool", 6, 2, seed=3)
    (pool / "z.png").write_bytes((pool / "r0000.png").read_bytes())
    audit(tmp_path)
    session = open_session(tmp_path / "run", seed=3)
    label_truly(session, 8)
    lines = session.file.path.read_text("ascii").splitlines()
    changed = json.loads(lines[1]) | {"row": 8, "key": "z.png"}
    session.file.path.write_text("\n".join([lines[0], json.dumps(changed)]) + "\n")
    with pytest.raises(InputError, match=r"'z\.png', which is duplicate"):
        audit(tmp_path, labels=str(session.file.path))


def test_audit_refuses_a_file_of_another_run(finished: Path, tmp_path: Path) -> None:
    """Labels of another pool are refused before anything is read."""
    file = tmp_path / "l.jsonl"
    label_truly(open_session(finished, path=file), 2)
    write_mixed(tmp_path / "pool", 3, 1, seed=8)
    with pytest.raises(InputError, match="is of another run"):
        audit(tmp_path, labels=str(file))
    assert not (tmp_path / "run" / "evidence").exists()
