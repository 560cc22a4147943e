"""What a spec gives: a table in its order, a document that is JSON, and the same figures however they are run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolproof.errors import InputError
from poolproof.simulate import grid, placing, study
from poolproof.simulate.grid import Cell, Effort
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.placing import MeasuredPool
from poolproof.simulate.spec import Arm, CurveSpec, CurvesSpec, LoopSpec, MapSpec, Spec
from poolproof.simulate.study import Study, count_steps, run_study
from poolproof.simulate.theory import fresh_moments

MAP = MapSpec("Map", (10,), (40, 10), (1.0, 0.5), dim=2, effort=Effort(tolerance=0.05))
CURVES = CurvesSpec(
    "Curves",
    "n_synthetic",
    "ratio",
    (
        CurveSpec("ten", "p", (20.0, 5.0), (Cell(10, 20, dim=2), Cell(10, 5, dim=2))),
        CurveSpec("more", "q", (0.0,), (Cell(30, 0, dim=2),)),
    ),
    dim=2,
    effort=Effort(tolerance=0.05),
)
LOOP = LoopSpec(
    "Loop",
    (
        Arm("fresh", Mixing.fresh(10, 30), initial=5),
        Arm("fixed", Mixing.augmentation(10, 30), sampling_bias=(1.0, 0.9), mark=0.2),
        Arm("synthetic", Mixing.fully_synthetic(4), initial="data"),
    ),
    dim=3,
    n_generations=4,
    n_paths=20,
    seed=5,
)
SPECS: dict[str, Spec] = {"map": MAP, "curves": CURVES, "loop": LOOP}


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> Spec:
    """One spec of each kind."""
    return SPECS[request.param]


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes every further computation fail."""

    def never(*_: object, **__: object) -> None:
        pytest.fail("computed again")

    def make() -> None:
        monkeypatch.setattr(grid, "_compute", never)
        monkeypatch.setattr(study, "trace_loop", never)
        monkeypatch.setattr(placing, "admissible_threshold", never)

    return make


def rebuilt(kind: str, spec: dict[str, Any]) -> Spec:
    """The spec that a document's JSON stands for."""
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()}
    if kind == "loop":
        arms = []
        for arm in spec.pop("arms"):
            bias = arm["sampling_bias"]
            arm |= {"sampling_bias": tuple(bias) if isinstance(bias, list) else bias}
            arms.append(Arm(mixing=Mixing(**arm.pop("mixing")), **arm))
        return LoopSpec(arms=tuple(arms), **spec)
    effort = Effort(**spec.pop("effort"))
    if kind == "map":
        return MapSpec(effort=effort, **spec)
    curves = tuple(
        CurveSpec(one["label"], one["panel"], tuple(one["x"]), tuple(Cell(**cell) for cell in one["cells"]))
        for one in spec.pop("curves")
    )
    return CurvesSpec(effort=effort, curves=curves, **spec)


# --- table and document ---------------------------------------------------------------------------------


def test_map_rows_follow_the_spec() -> None:
    """There is a row for each combination, by bias, n_real and n_synthetic as given, with sound figures."""
    table = run_study(replace(MAP, n_real=(20, 10)), n_workers=2).table
    asked = [(bias, real, synthetic) for bias in (1.0, 0.5) for real in (20, 10) for synthetic in (40, 10)]
    assert list(zip(table["sampling_bias"], table["n_real"], table["n_synthetic"], strict=True)) == asked
    assert (table["ratio"] * table["n_real"]).tolist() == pytest.approx(table["n_e"].tolist())
    assert table["converged"].all()
    assert (table["ratio_stderr"] < 0.05 * table["ratio"]).all()
    assert table.loc[table["sampling_bias"] == 1, "admissible"].all()


def test_curves_rows_follow_the_spec() -> None:
    """Each curve has its points in the order given, with panel, name and place; real data alone are worth 1."""
    table = run_study(CURVES, n_workers=2).table
    assert table[["panel", "curve", "x"]].to_numpy().tolist() == [
        ["p", "ten", 20.0], ["p", "ten", 5.0], ["q", "more", 0.0]
    ]  # fmt: skip
    assert table["n_synthetic"].tolist() == [20, 5, 0]
    assert table["ratio"].iloc[0] > table["ratio"].iloc[1] > table["ratio"].iloc[2] == 1


def test_loop_holds_all_arms_and_generations() -> None:
    """Each arm has each figure in each generation, and drift where it has a mark."""
    table = run_study(LOOP, n_workers=2).table
    assert list(dict.fromkeys(table["arm"])) == ["fresh", "fixed", "synthetic"]
    for arm, rows in table.groupby("arm"):
        figures = {"squared_w2", "w2", "mean_part", "covariance_part", "variance", "log_determinant"}
        figures |= {"drift"} if arm == "fixed" else set()
        assert set(rows["figure"]) == figures
        assert len(rows) == 4 * len(figures)
        assert set(rows["generation"]) == {1, 2, 3, 4}
    assert (table["n"] == 20).all()


@pytest.mark.theory
def test_loop_is_that_of_the_closed_form() -> None:
    """The mean error of a fresh-data loop is that of theory in each generation, within its standard errors."""
    spec = replace(LOOP, arms=(Arm("a", Mixing.fresh(10, 30), initial=10),), n_paths=2000, n_generations=5)
    table = run_study(spec).table
    rows = table[table["figure"] == "mean_part"]
    expected = 3 * fresh_moments(10, 30, 1.0, 5, n_initial=10).mean_error[1:]
    np.testing.assert_array_less(np.abs(rows["mean"] - expected) / rows["mean_stderr"], 4)


def test_document_is_the_table_as_json(spec: Spec) -> None:
    """The document is JSON without NaN, holds all rows of the table, and tells its versions and command."""
    done = run_study(spec, n_workers=2, command="poolproof simulate it")
    document = json.loads(json.dumps(done.document, allow_nan=False))
    assert document == done.document
    assert document["kind"] == next(kind for kind, each in SPECS.items() if each is spec)
    assert (document["schema_version"], document["title"]) == (1, spec.title)
    assert document["manifest"]["command"] == "poolproof simulate it"
    assert document["manifest"]["versions"]["numpy"] == version("numpy")
    assert document["manifest"]["seconds"] >= 0
    read = pd.DataFrame(document["rows"], columns=document["columns"])
    assert list(read.columns) == list(done.table.columns)
    pd.testing.assert_frame_equal(read, done.table.reset_index(drop=True), check_dtype=False)


def test_document_holds_the_spec(spec: Spec) -> None:
    """The spec can be made again from the document alone."""
    document = json.loads(json.dumps(run_study(spec, n_workers=2).document))
    assert rebuilt(document["kind"], document["spec"]) == spec


def test_missing_figures_are_null() -> None:
    """A loop worth less than two real samples has no ratio: null with a reason, and it is not admissible."""
    spec = MapSpec("Map", (2,), (100_000,), (0.0,), dim=1, effort=Effort(tolerance=0.05))
    done = run_study(spec)
    row = dict(zip(done.document["columns"], done.document["rows"][0], strict=True))
    assert [row[name] for name in ("n_e", "n_e_stderr", "ratio", "ratio_stderr")] == [None] * 4
    assert row["admissible"] is False
    assert "below 2" in row["why"]
    assert done.table["ratio"].isna().all()


def test_singular_covariances_are_null() -> None:
    """A covariance without a determinant is counted, its summaries are null, and the distance is told."""
    spec = LoopSpec("Loop", (Arm("a", Mixing.fully_synthetic(2)),), dim=3, n_generations=3, n_paths=8)
    document = run_study(spec).document
    json.dumps(document, allow_nan=False)
    rows = [dict(zip(document["columns"], row, strict=True)) for row in document["rows"]]
    singular = [row for row in rows if row["figure"] == "log_determinant"]
    assert [(row["n_infinite"], row["mean"]) for row in singular] == [(8, None)] * 3
    assert all(row["mean"] > 0 for row in rows if row["figure"] == "squared_w2")


def test_names_and_steps(spec: Spec) -> None:
    """A study is named after its command, and as many steps are ticked off as are counted before."""
    ticks: list[int] = []
    done = run_study(spec, n_workers=2, on_step=ticks.append)
    assert done.name == ("loop" if isinstance(spec, LoopSpec) else "admissible")
    assert ticks == list(range(1, count_steps(spec) + 1))


def test_steps_are_counted_once_each() -> None:
    """A loop that several curves share is one step."""
    twice = replace(CURVES, curves=(CURVES.curves[0], replace(CURVES.curves[0], label="again")))
    assert count_steps(twice) == 2
    assert [count_steps(each) for each in (MAP, CURVES, LOOP)] == [4, 3, 3]
    table = run_study(twice, n_workers=1).table
    assert table["ratio"].iloc[:2].tolist() == table["ratio"].iloc[2:].tolist()


# --- pools and thresholds -------------------------------------------------------------------------------


@pytest.mark.slow
def test_pool_and_thresholds_stand_in_the_document(tmp_path: Path, forbid: Callable[[], None]) -> None:
    """A placed pool has a row per bias, thresholds one per bias and n_real, and both are remembered."""
    asked: dict[str, Any] = {"pool": MeasuredPool(11, 0.1, 0.2, 0.1, 0.95), "thresholds": True}
    done = run_study(MAP, **asked, cache=tmp_path)
    json.dumps(done.document, allow_nan=False)
    assert [row["sampling_bias"] for row in done.document["pool"]["by_sampling_bias"]] == [1.0, 0.5]
    assert [(row["sampling_bias"], row["n_real"]) for row in done.document["thresholds"]] == [
        (1.0, 10), (0.5, 10)
    ]  # fmt: skip
    assert [row["n_synthetic"] is None for row in done.document["thresholds"]] == [True, False]
    forbid()
    plain = run_study(MAP, cache=tmp_path)
    assert plain.document["pool"] is plain.document["thresholds"] is None
    pd.testing.assert_frame_equal(plain.table, done.table)
    same(run_study(MAP, **asked, cache=tmp_path), done)


@pytest.mark.parametrize("kind", ["curves", "loop"])
def test_pools_and_thresholds_need_a_map(kind: str, forbid: Callable[[], None]) -> None:
    """A pool or thresholds beside curves or a loop are refused before anything is computed."""
    forbid()
    options: list[dict[str, Any]] = [{"pool": MeasuredPool(40, 0.1, 0.2)}, {"thresholds": True}]
    for asked in options:
        with pytest.raises(InputError, match=r"^spec: got one that is no map, allowed a map"):
            run_study(SPECS[kind], **asked)


# --- the same figures, however they are run -------------------------------------------------------------


def same(one: Study, other: Study) -> None:
    """Checks that two studies agree in all but the time they took."""
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    for document in (one.document, other.document):
        document["manifest"]["seconds"] = 0
    assert one.document == other.document


def test_figures_do_not_depend_on_workers(spec: Spec) -> None:
    """One thread and three give the same digits."""
    same(run_study(spec, n_workers=1), run_study(spec, n_workers=3))


def test_cells_do_not_depend_on_each_other() -> None:
    """A cell has the same figures alone, among others, and in another order."""
    whole = run_study(MAP).table
    alone = run_study(replace(MAP, n_synthetic=(40,), sampling_bias=(0.5,))).table
    row = whole[(whole["n_synthetic"] == 40) & (whole["sampling_bias"] == 0.5)]
    pd.testing.assert_frame_equal(row.reset_index(drop=True), alone, check_exact=True)
    turned = run_study(replace(MAP, n_synthetic=(10, 40), sampling_bias=(0.5, 1.0))).table
    order = ["sampling_bias", "n_synthetic"]
    one, other = (table.sort_values(order).reset_index(drop=True) for table in (whole, turned))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_arms_do_not_depend_on_each_other() -> None:
    """An arm has the same figures alone and under another name."""
    whole = run_study(LOOP).table
    alone = run_study(replace(LOOP, arms=(replace(LOOP.arms[1], label="other"),))).table
    rows = whole[whole["arm"] == "fixed"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows.drop(columns="arm"), alone.drop(columns="arm"), check_exact=True)


def test_seed_changes_the_figures() -> None:
    """Another seed gives other figures, that agree within their errors."""
    spec = replace(MAP, n_synthetic=(10,), sampling_bias=(1.0,))
    one, other = (run_study(replace(spec, effort=replace(spec.effort, seed=seed))).table for seed in (1, 2))
    difference = abs(one["ratio"] - other["ratio"]).item()
    assert 0 < difference < 4 * np.hypot(one["ratio_stderr"].item(), other["ratio_stderr"].item())
    loops = [run_study(replace(LOOP, seed=seed)).table for seed in (1, 2)]
    assert (loops[0]["mean"] != loops[1]["mean"]).any()


# --- going on -------------------------------------------------------------------------------------------


def test_second_run_computes_nothing(spec: Spec, tmp_path: Path, forbid: Callable[[], None]) -> None:
    """With the same cache a second run reads everything, and gives the same table and document."""
    first = run_study(spec, n_workers=2, cache=tmp_path)
    forbid()
    same(first, run_study(spec, n_workers=1, cache=tmp_path))
    same(first, run_study(replace(spec, title=spec.title), cache=tmp_path))


class Stop(BaseException):
    """Ends a run from outside, like Ctrl-C."""


def test_stopped_run_goes_on(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished when a run was stopped is not computed again, and the whole is as if it had not been."""
    calls: list[object] = []
    for module, name in ((grid, "_compute"), (study, "trace_loop")):
        true = getattr(module, name)

        def count(*arguments: Any, true: Callable[..., Any] = true, **options: Any) -> Any:
            calls.append(arguments)
            return true(*arguments, **options)

        monkeypatch.setattr(module, name, count)

    def stop(n_done: int) -> None:
        if n_done == 2:
            raise Stop

    with pytest.raises(Stop):
        run_study(spec, n_workers=1, cache=tmp_path, on_step=stop)
    for thread in threading.enumerate():  # a step that had begun runs to its end
        if thread is not threading.current_thread() and "ThreadPoolExecutor" in thread.name:
            thread.join()
    finished = len(list(tmp_path.rglob("*.json")))
    assert 2 <= finished <= len(calls)
    calls.clear()
    whole = run_study(spec, n_workers=1, cache=tmp_path)
    assert len(calls) <= count_steps(spec) - 2
    same(whole, run_study(spec, n_workers=1))


def test_stopped_run_starts_nothing_more(tmp_path: Path) -> None:
    """Loops that wait for a thread when the run is stopped are dropped."""
    spec = replace(MAP, n_synthetic=tuple(range(5, 35)))

    def stop(n_done: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        run_study(spec, n_workers=1, cache=tmp_path, on_step=stop)
    assert 1 <= len(list(tmp_path.rglob("*.json"))) < count_steps(spec) / 2


def test_other_options_are_not_mistaken(tmp_path: Path) -> None:
    """A cache filled at one seed, precision or dimension gives nothing to a run with another."""
    spec = replace(MAP, n_synthetic=(10,), sampling_bias=(1.0,))
    others = [
        replace(spec, dim=3),
        replace(spec, effort=replace(spec.effort, seed=4)),
        replace(spec, effort=replace(spec.effort, tolerance=0.2)),
        replace(spec, effort=replace(spec.effort, max_paths=64)),
    ]
    for n, each in enumerate([spec, *others], 1):
        run_study(each, cache=tmp_path)
        assert len(list(tmp_path.rglob("*.json"))) == n
    for n, each in enumerate([LOOP, replace(LOOP, n_paths=21), replace(LOOP, n_generations=5)], 1):
        run_study(each, cache=tmp_path / "loops")
        assert len(list((tmp_path / "loops").rglob("*.json"))) == 3 * n
