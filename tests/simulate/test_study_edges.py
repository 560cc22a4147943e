"""Simulations at the edge of what can be asked: nothing known, nothing synthetic, nothing writable."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolproof.errors import InputError
from poolproof.simulate.cache import remember
from poolproof.simulate.grid import Cell, Effort, evaluate_rows
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.placing import MeasuredPool, place_pool, pool_of_report
from poolproof.simulate.spec import Arm, CurveSpec, CurvesSpec, LoopSpec, MapSpec, parse_spec
from poolproof.simulate.study import run_study
from poolproof.simulate.study_page import draw_charts, write_study

EFFORT = Effort(tolerance=0.05)
MAP = MapSpec("Map", (10,), (40, 10), (1.0, 0.5), dim=2, effort=EFFORT)
CURVES = CurvesSpec(
    "Curves",
    "n_synthetic",
    "ratio",
    (CurveSpec("ten", "", (5.0,), (Cell(10, 5, dim=2),)),),
    dim=2,
    effort=EFFORT,
)
FRESH = Arm("fresh", Mixing.fresh(10, 30))
LOOP = LoopSpec("Loop", (FRESH,), dim=2, n_generations=5, n_paths=20)


@pytest.mark.parametrize("key", ["n_fresh", "n_fixed", "n_synthetic"])
def test_numbers_beyond_floats_are_refused(key: str) -> None:
    """A count that no float holds is refused instead of overflowing later."""
    with pytest.raises(InputError, match=rf"^{key}: got .*allowed"):
        parse_spec({"kind": "loop", "arms": [{"label": "a", key: 10**400}]})


@pytest.mark.parametrize(
    "curve",
    [{"n": [10**400], "real_share": 0.1}, {"n": [10**400], "real_share": 1}, {"n": [], "real_share": 0.1}],
)
def test_curves_without_sizes_are_refused(curve: dict[str, Any]) -> None:
    """A curve without places, or with places that no float holds, is refused."""
    with pytest.raises(InputError, match=r"^n: got"):
        parse_spec({"kind": "curves", "x": "n", "y": "ratio", "curves": [{"label": "a", **curve}]})


def test_threads_may_ask_for_the_same(tmp_path: Path) -> None:
    """Threads that ask for one thing at once all get it, without stumbling over each other's files."""
    failed: list[BaseException] = []

    def ask(n: int) -> None:
        try:
            assert remember(tmp_path, {"n": n}, lambda: n) == n
        except BaseException as error:
            failed.append(error)

    for n in range(20):
        threads = [threading.Thread(target=ask, args=[n]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A cache that is a file is refused in one line that names the options."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        InputError, match=r"^cache: got .*file.*allowed a folder that can be written.*--no-cache"
    ):
        remember(tmp_path / "file", {"n": 1}, lambda: 1)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_wide_interval_with_a_trough_is_not_admissible() -> None:
    """Where both limits are admissible but shares between them are not, the interval is not called so."""
    spec = MapSpec("Map", (10,), (10,), (0.3,), dim=10, effort=EFFORT)
    [row] = place_pool(MeasuredPool(100, 0.02, 0.98), spec)["by_sampling_bias"]
    assert row["ratio"]["lower"]["admissible"] is row["ratio"]["upper"]["admissible"] is True
    [middle] = evaluate_rows([Cell(50, 50, 0.3, dim=10)], EFFORT)
    assert middle["admissible"] is False
    assert row["verdict"] == "undecided"


def test_sample_stands_for_the_whole_pool(tmp_path: Path) -> None:
    """The audit of a sample of 25 out of 60 images places 60."""
    share = {"lower": 0.1, "upper": 0.2, "point": 0.15, "level": 0.95}
    pool = {"items": 60, "audited": 25, "sample": 25, "status": {"scored": 25}}
    (tmp_path / "report.json").write_text(json.dumps({"pool": pool, "share": share}))
    assert pool_of_report(tmp_path / "report.json").n_items == 60


@pytest.mark.parametrize("share", [{}, {"lower": 0.1}, [], 3, "all"])
def test_report_with_half_a_share_is_refused(tmp_path: Path, share: object) -> None:
    """A share without its figures is not the report of an audit."""
    pool = {"items": 60, "audited": 60, "status": {"scored": 60}}
    (tmp_path / "report.json").write_text(json.dumps({"pool": pool, "share": share}))
    with pytest.raises(InputError, match="not the report of an audit"):
        pool_of_report(tmp_path / "report.json")


def test_whole_numbers_and_numpys_are_the_same_cell(tmp_path: Path) -> None:
    """A bias of 1 and of 1.0 give the same digits."""
    rows = [evaluate_rows([Cell(10, 10, bias, dim=2)], EFFORT)[0] for bias in (1, 1.0)]
    assert rows[0]["ratio"] == rows[1]["ratio"]


@pytest.mark.slow
def test_equal_arms_may_share_a_cache(tmp_path: Path) -> None:
    """Arms that differ in name alone run at once, and give the same."""
    arms = tuple(replace(FRESH, label=f"arm {n}") for n in range(8))
    for n in range(10):
        table = run_study(
            replace(LOOP, arms=arms, n_generations=1), n_workers=4, cache=tmp_path / str(n)
        ).table
        assert table.groupby("figure")["mean"].nunique().max() == 1


def test_loop_rows_are_numbered() -> None:
    """The rows of a loop's table are numbered through."""
    table = run_study(replace(LOOP, arms=(FRESH, replace(FRESH, label="other")))).table
    assert table.index.tolist() == list(range(len(table)))


def test_impossible_pool_is_refused_before_anything_is_computed() -> None:
    """A pool without two real images is refused at once."""
    ticks: list[int] = []
    with pytest.raises(InputError, match="leaves 2 real ones"):
        run_study(MAP, pool=MeasuredPool(50, 1.0, 1.0), on_step=ticks.append)
    assert ticks == []


def page(study: Any, out: Path) -> str:
    """The page of a study."""
    return write_study(study, out)[-1].read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "pool",
    [MeasuredPool(40, 0.1, 0.2), MeasuredPool(40, 0.1, 1.0, 0.5), MeasuredPool(40, 0.0, 1.0)],
)
def test_pool_without_point_or_upper_ratio_has_a_page(pool: MeasuredPool, tmp_path: Path) -> None:
    """Where the point is withheld, or the upper limit leaves no real images, the page shows a dash."""
    assert "\u2013" in page(run_study(MAP, pool=pool), tmp_path)


def test_zero_synthetic_images_are_left_out_of_the_picture(tmp_path: Path) -> None:
    """A map and a curve that begin at 0 synthetic images are drawn from the next number on."""
    study = run_study(replace(MAP, n_synthetic=(0, 10)))
    assert len(study.table) == 4
    assert "0" in page(study, tmp_path / "map")
    cells = (Cell(10, 0, dim=2), Cell(10, 5, dim=2))
    page(run_study(replace(CURVES, curves=(CurveSpec("ten", "", (0.0, 5.0), cells),))), tmp_path / "curves")
    page(run_study(replace(MAP, n_synthetic=(0,))), tmp_path / "none")


def test_map_without_any_ratio_has_no_best(tmp_path: Path) -> None:
    """Where no ratio is known, none is called the best."""
    told = page(run_study(MapSpec("Map", (2,), (100_000,), (0.0,), dim=1, effort=EFFORT)), tmp_path)
    assert "nan" not in told
    assert "0 of 1 cells are admissible." in told


@pytest.mark.parametrize("n_generations", [1, 40])
def test_loop_from_the_truth_is_drawn(n_generations: int, tmp_path: Path) -> None:
    """A loop that starts at the truth, at distance 0, is drawn, on a logarithmic axis too."""
    arm = Arm("true", Mixing.fully_synthetic(5000), 0.9, "truth")
    study = run_study(replace(LOOP, arms=(arm,), n_generations=n_generations, dim=1))
    assert "true" in page(study, tmp_path)
    both = run_study(
        replace(LOOP, arms=(arm, replace(arm, label="data", initial="data")), n_generations=40, dim=1)
    )
    for chart in draw_charts(both).values():
        assert ">true<" in chart.markup
        assert ">data<" in chart.markup


def test_loop_from_the_truth_has_a_last_generation(tmp_path: Path) -> None:
    """An arm that counts the truth as generation 0 ends one earlier, and stands on the page all the same."""
    arms = (FRESH, replace(FRESH, label="steady", initial="truth"))
    told = page(run_study(replace(LOOP, arms=arms)), tmp_path)
    assert "<td>steady</td>" in told
    assert "steady: squared W2" in told.replace("Steady", "steady")


def test_drift_alone_of_marked_arms(tmp_path: Path) -> None:
    """Many arms of which few are marked have both charts."""
    arms = tuple(replace(FRESH, label=f"arm {n}", mark=0.1 * (n == 7)) for n in range(8))
    page(run_study(replace(LOOP, arms=arms)), tmp_path)


def test_no_threads_are_refused() -> None:
    """Zero threads are refused for loops too."""
    with pytest.raises(InputError, match=r"^n_workers: got 0"):
        run_study(LOOP, n_workers=0)


def test_few_loops_are_written(tmp_path: Path) -> None:
    """Three loops, whose quantiles have no errors, have a table and a page."""
    study = run_study(replace(LOOP, n_paths=3))
    assert study.table["q05_stderr"].isna().all()
    assert "fresh" in page(study, tmp_path)


def test_the_repeated_value_is_named() -> None:
    """A list or a label that holds something twice is told which."""
    with pytest.raises(InputError, match=r"^n_synthetic: got 40 twice"):
        replace(MAP, n_synthetic=(10, 40, 40))
    with pytest.raises(InputError, match=r"^label: got 'fresh' twice"):
        replace(LOOP, arms=(FRESH, FRESH))


def test_dimensions_that_no_memory_holds_are_refused() -> None:
    """A million dimensions are refused in maps and loops."""
    for spec in (MAP, LOOP):
        with pytest.raises(InputError, match=r"^dim: got 1000000"):
            replace(spec, dim=10**6)
