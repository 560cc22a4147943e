"""An audited pool in the admissible region: what reports say, what surrounds it, and which verdict it gets."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.simulate import grid, placing
from poolproof.simulate.grid import Effort
from poolproof.simulate.placing import (
    MeasuredPool,
    border_text,
    find_threshold,
    place_pool,
    pool_of_report,
    surroundings,
    verdict,
)
from poolproof.simulate.spec import MapSpec


def small_map(*biases: float) -> MapSpec:
    """A map in two dimensions that gives biases and precision."""
    return MapSpec("Map", (10,), (10,), biases, dim=2, effort=Effort(tolerance=0.05))


@st.composite
def pools(draw: st.DrawFn) -> MeasuredPool:
    """Pools of any size with any interval, with and without a point."""
    lower, point, upper = sorted(draw(st.lists(st.floats(0, 1), min_size=3, max_size=3)))
    return MeasuredPool(draw(st.integers(2, 10**9)), lower, upper, draw(st.sampled_from([point, None])))


# --- pools ----------------------------------------------------------------------------------------------


@pytest.mark.property
@given(pools(), st.floats(0, 1))
def test_counts_add_up(pool: MeasuredPool, share: float) -> None:
    """At any share the real and synthetic images are whole, as near as can be, and all there are."""
    n_real, n_synthetic = pool.counts(share)
    assert n_real + n_synthetic == pool.n_items
    assert min(n_real, n_synthetic) >= 0
    assert abs(n_synthetic - share * pool.n_items) <= 0.5


def test_counts_at_known_shares() -> None:
    """A tenth of 1,000 images are 100, none are none, and all are all."""
    pool = MeasuredPool(1000, 0.0, 1.0)
    assert [pool.counts(share) for share in (0.0, 0.1, 1.0)] == [(1000, 0), (900, 100), (0, 1000)]


@pytest.mark.property
@given(pools())
def test_path_runs_along_the_interval(pool: MeasuredPool) -> None:
    """From the lower to the upper limit the images stay as many, the synthetic ones growing."""
    real, synthetic = pool.path()
    np.testing.assert_allclose(real + synthetic, pool.n_items, rtol=1e-9)
    assert [synthetic[0], synthetic[-1]] == pytest.approx(
        [pool.lower * pool.n_items, pool.upper * pool.n_items]
    )
    assert (np.diff(synthetic) >= -1e-6).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1, 0.1, 0.2), r"items: got 1, allowed a whole number from 2"),
        ((True, 0.1, 0.2), r"items: got True"),
        ((100, -0.1, 0.2), r"share: got -0\.1, allowed finite numbers from 0 to 1"),
        ((100, 0.1, 1.2), r"share: got 1\.2"),
        ((100, 10.0, 20.0), r"share: got 10\.0"),
        ((100, math.nan, 0.2), r"share: got nan"),
        ((100, 0.1, math.nan), r"share: got nan"),
        ((100, 0.3, 0.2), r"share: got limits 0\.3 and 0\.2, allowed lower <= upper; swap them"),
        ((100, 0.1, 0.2, 0.3), r"share: got .*allowed lower <= point <= upper"),
        ((100, 0.1, 0.2, 0.05), r"share: got .*allowed lower <= point <= upper"),
        ((100, 0.1, 0.2, math.nan), r"share: got .*"),
    ],
)
def test_pools_that_cannot_be(values: tuple[Any, ...], message: str) -> None:
    """Too few images, limits that are no shares, and points outside are refused by name."""
    with pytest.raises(InputError, match=f"^{message}"):
        MeasuredPool(*values)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(pools())
def test_surroundings_hold_the_interval(pool: MeasuredPool) -> None:
    """The lists are ascending numbers that a map takes, and reach beyond both limits, within a few cells."""
    lists = surroundings(pool)
    limits = [pool.counts(share) for share in (pool.lower, pool.upper)]
    for position, (name, least) in enumerate((("n_real", 2), ("n_synthetic", 1))):
        known = [max(least, limit[position]) for limit in limits]
        assert list(lists[name]) == sorted(set(lists[name]))
        assert 2 <= len(lists[name]) <= 8
        assert least <= lists[name][0] <= min(known)
        assert max(known) < lists[name][-1]
    MapSpec("Map", lists["n_real"], lists["n_synthetic"], (1.0,))


def test_surroundings_have_the_pool_in_their_middle() -> None:
    """A narrow interval has as much room on one side as on the other."""
    lists = surroundings(MeasuredPool(10_000, 0.2, 0.21))
    assert lists["n_synthetic"][0] * lists["n_synthetic"][-1] == pytest.approx(2000 * 2100, rel=0.01)
    assert lists["n_real"][0] * lists["n_real"][-1] == pytest.approx(7900 * 8000, rel=0.01)


# --- reports --------------------------------------------------------------------------------------------

SHARE = {"lower": 0.1, "upper": 0.2, "point": 0.15, "level": 0.95, "why": None}


def write_report(folder: Path, **changes: Any) -> Path:
    """A report.json that holds as little as can be placed."""
    path = folder / "report.json"
    pool = {"items": 403, "audited": 403, "status": {"scored": 400, "unreadable": 3}}
    path.write_text(json.dumps({"pool": pool, "share": SHARE} | changes))
    return path


@pytest.mark.parametrize("point", [0.15, None])
def test_report_is_read(tmp_path: Path, point: float | None) -> None:
    """Images scored, limits, point and level are those of the report; a withheld point stays away."""
    path = write_report(tmp_path, share=SHARE | {"point": point})
    assert pool_of_report(path) == MeasuredPool(400, 0.1, 0.2, point, 0.95)


def test_report_without_share_says_why(tmp_path: Path) -> None:
    """Where the audit could not tell the share, its reason is passed on."""
    path = write_report(tmp_path, share=None, why="no reference pools were given")
    with pytest.raises(
        InputError, match=r"report\.json: .*share cannot be told: no reference pools were given$"
    ):
        pool_of_report(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"report"', "{}", '{"pool": null}', '{"pool": {"status": []}}', "\udcff"],
)
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    """Other JSON, broken JSON and no text at all are refused in one line with the path and the remedy."""
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"^[^\n]*report\.json: not the report of an audit[^\n]*$"):
        pool_of_report(path)


def test_missing_report_is_said(tmp_path: Path) -> None:
    """A folder without a report, and no folder at all, are refused alike."""
    for path in (tmp_path / "report.json", tmp_path / "none" / "report.json", tmp_path):
        with pytest.raises(InputError, match="not the report of an audit"):
            pool_of_report(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": {"items": 1, "audited": 1, "status": {"scored": 1}}},
        {"share": SHARE | {"lower": -0.5}},
        {"share": SHARE | {"upper": 0.12}},
    ],
)
def test_reports_out_of_range_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A report with one image, or with limits that cannot be, places no pool."""
    path = write_report(tmp_path, **changes)
    with pytest.raises(InputError, match=r"^(items|share): got"):
        pool_of_report(path)


# --- verdicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([True], "admissible"),
        ([True, True, True], "admissible"),
        ([True, None], "undecided"),
        ([True, False], "undecided"),
        ([None, None], "undecided"),
        ([False, None], "undecided"),
        ([False, False], "not admissible"),
        ([False], "not admissible"),
    ],
)
def test_verdict_needs_all_limits(limits: list[bool | None], expected: str) -> None:
    """An interval is admissible or not where all of it is, and undecided otherwise."""
    assert verdict(limits) == verdict(limits[::-1]) == expected


@pytest.fixture
def no_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the search for thresholds, which takes longer than the ratios."""
    monkeypatch.setattr(placing, "find_threshold", lambda *_, **__: {"n_synthetic": None})


def placed_at(pool: MeasuredPool, bias: float) -> dict[str, Any]:
    """What is told of a pool at one bias, in two dimensions."""
    placed = place_pool(pool, small_map(bias), n_workers=1)
    [row] = placed["by_sampling_bias"]
    assert row["sampling_bias"] == bias
    return row


def test_pool_inside_is_admissible() -> None:
    """Unbiased samples are worth something in any number, so the pool is worth more than its real images."""
    row = placed_at(MeasuredPool(100, 0.1, 0.3, 0.2), 1.0)
    assert row["verdict"] == "admissible"
    ratios = {name: row["ratio"][name] for name in ("lower", "point", "upper")}
    assert [(each["n_real"], each["n_synthetic"]) for each in ratios.values()] == [
        (90, 10),
        (80, 20),
        (70, 30),
    ]
    assert 1 < ratios["lower"]["ratio"] < ratios["point"]["ratio"] < ratios["upper"]["ratio"]
    assert all(each["admissible"] is True and each["ratio_stderr"] < 0.05 for each in ratios.values())
    assert row["threshold"]["n_synthetic"] is None
    assert "any number" in row["threshold"]["why"]


@pytest.mark.slow
def test_pool_outside_is_not_admissible() -> None:
    """Many strongly biased samples beside few real ones cost more than they bring, at both limits."""
    row = placed_at(MeasuredPool(100, 0.8, 0.9), 0.3)
    assert row["verdict"] == "not admissible"
    assert set(row["ratio"]) == {"lower", "upper"}
    assert all(each["ratio"] < 0.6 and each["admissible"] is False for each in row["ratio"].values())
    assert row["threshold"]["n_real"] == 20
    assert 2 < row["threshold"]["n_synthetic"] < 80


@pytest.mark.usefixtures("no_thresholds")
def test_interval_across_the_border_is_undecided() -> None:
    """Where the lower limit is admissible and the upper one is not, nothing is said of the whole."""
    row = placed_at(MeasuredPool(100, 0.1, 0.8), 0.3)
    assert row["verdict"] == "undecided"
    assert row["ratio"]["lower"]["admissible"] is True
    assert row["ratio"]["upper"]["admissible"] is False


@pytest.mark.usefixtures("no_thresholds")
def test_pool_without_synthetic_images_is_worth_itself() -> None:
    """A share of exactly 0 has a ratio of exactly 1 at any bias, and is admissible."""
    placed = place_pool(MeasuredPool(20, 0.0, 0.0, 0.0, 0.95), small_map(0.3, 1.0), n_workers=1)
    assert [row["verdict"] for row in placed["by_sampling_bias"]] == ["admissible"] * 2
    for row in placed["by_sampling_bias"]:
        assert {each["ratio"] for each in row["ratio"].values()} == {1.0}
        assert {each["ratio_stderr"] for each in row["ratio"].values()} == {0.0}


@pytest.mark.slow
@pytest.mark.usefixtures("no_thresholds")
def test_pool_that_may_be_all_synthetic() -> None:
    """Where the upper limit leaves no two real images, it has no ratio and the pool is not called admissible."""
    for bias, expected in ((1.0, {"undecided"}), (0.3, {"undecided", "not admissible"})):
        row = placed_at(MeasuredPool(50, 0.5, 1.0, 0.6), bias)
        assert set(row["ratio"]) == {"lower", "point"}
        assert row["verdict"] in expected


@pytest.mark.parametrize("pool", [MeasuredPool(50, 1.0, 1.0, 1.0), MeasuredPool(50, 0.98, 1.0)])
def test_pool_without_real_images_is_refused(pool: MeasuredPool) -> None:
    """A pool with fewer than two real images at best has no place on a map."""
    with pytest.raises(InputError, match=r"^share: got .* of 50 images, allowed one that leaves 2 real ones"):
        place_pool(pool, small_map(1.0), n_workers=1)


@pytest.mark.slow
def test_placed_pool_is_plain_json() -> None:
    """What is told has the pool's own figures beside one row per bias, without NaN."""
    pool = MeasuredPool(40, 0.1, 0.2, 0.15, 0.9)
    placed = place_pool(pool, small_map(0.5, 1.0), n_workers=1)
    assert json.loads(json.dumps(placed, allow_nan=False)) == placed
    assert placed["share"] == {"lower": 0.1, "point": 0.15, "upper": 0.2, "level": 0.9}
    assert (placed["n_items"], placed["dim"]) == (40, 2)
    assert [row["sampling_bias"] for row in placed["by_sampling_bias"]] == [0.5, 1.0]
    assert [row["threshold"]["n_real"] for row in placed["by_sampling_bias"]] == [34, 34]


def test_placing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache the second call computes neither ratios nor thresholds, and says the same."""
    pool, spec = MeasuredPool(40, 0.1, 0.2), small_map(0.5)
    first = place_pool(pool, spec, n_workers=1, cache=tmp_path)

    def never(*_: object, **__: object) -> None:
        pytest.fail("computed again")

    monkeypatch.setattr(grid, "_compute", never)
    monkeypatch.setattr(placing, "admissible_threshold", never)
    assert place_pool(pool, spec, n_workers=2, cache=tmp_path) == first


@pytest.mark.slow
def test_threshold_is_a_border() -> None:
    """The ratio is above 1 with half of the threshold's synthetic samples, and below with twice as many."""
    border = find_threshold(20, 0.5, 2, Effort(seed=1))
    assert (border["n_real"], border["sampling_bias"], border["converged"]) == (20, 0.5, True)
    assert border["stderr"] <= 0.03 * border["n_synthetic"]
    cells = [grid.Cell(20, round(times * border["n_synthetic"]), 0.5, dim=2) for times in (0.5, 2)]
    rows = grid.evaluate_rows(cells, Effort(tolerance=0.05), n_workers=1)
    assert [row["admissible"] for row in rows] == [True, False]
    assert find_threshold(20, 0.5, 2, Effort(seed=1)) == border


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.integers(2, 10**6))
def test_unbiased_samples_have_no_threshold(n_real: int) -> None:
    """At a bias of 1 the border is None, with a reason, whatever the number of real samples."""
    border = find_threshold(n_real, 1.0, 2, Effort())
    assert border["n_synthetic"] is None
    assert border["why"]


@pytest.mark.slow
def test_a_part_that_is_not_admissible_is_seen() -> None:
    """Between two admissible ends the ratio may dip below 1: next to no real images, anything does as well as they."""
    spec = MapSpec("", (20,), (20,), (0.3,), dim=20, effort=Effort(tolerance=0.02))
    [row] = place_pool(MeasuredPool(200, 0.05, 0.96), spec)["by_sampling_bias"]
    assert row["ratio"]["lower"]["admissible"] is True
    assert row["ratio"]["upper"]["admissible"] is True
    assert row["lowest"] < 0.8
    assert row["verdict"] == "undecided"


@pytest.mark.slow
def test_a_part_next_to_no_real_images_is_seen() -> None:
    """A dip that evenly spaced shares step over, where a share of a few per cent is real, is found."""
    spec = MapSpec("", (20,), (20,), (0.9,), dim=2, effort=Effort(tolerance=0.02))
    [row] = place_pool(MeasuredPool(200, 0.05, 0.97), spec, n_workers=1)["by_sampling_bias"]
    assert row["ratio"]["lower"]["admissible"] is True
    assert row["lowest"] < 0.95
    assert row["verdict"] == "undecided"


@pytest.mark.property
@settings(max_examples=60)
@given(pools())
def test_places_leave_no_gap(pool: MeasuredPool) -> None:
    """From the upper limit to the lower one the real images of neighbouring places at most double."""
    places = placing._doubled(pool)
    assert all(n_real + n_synthetic == pool.n_items for n_real, n_synthetic in places)
    ends = {max(2, pool.counts(share)[0]) for share in (pool.lower, pool.upper)}
    real = sorted(ends | {n for n, _ in places})
    assert real[0] >= min(ends)
    assert all(b <= 2 * a + 1 for a, b in itertools.pairwise(real))


def test_budget_reaches_the_threshold(tmp_path: Path) -> None:
    """A map's budget holds for the border too, and stands in the cache beside the result."""
    cut = find_threshold(10, 0.99, 1, Effort(max_generations=50), cache=tmp_path)
    assert cut["converged"] is False
    assert cut["stderr"] is None
    assert "max_generations" in cut["why"]
    [path] = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["content"]["max_generations"] == 50


@pytest.mark.parametrize(
    ("n_synthetic", "stderr", "words"),
    [
        (None, 0.0, "any number of"),
        (32.1, 0.4, "32.10 \u00b1 0.40"),
        (1e6, None, "about 1,000,000 (not measured)"),
    ],
)
def test_borders_in_words(n_synthetic: float | None, stderr: float | None, words: str) -> None:
    """A border is told with two digits of its error, or as the guess that it is."""
    assert border_text({"n_synthetic": n_synthetic, "stderr": stderr}) == words
