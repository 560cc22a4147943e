"""Maps of many loops: the same figures in any order, on any number of threads, from the cache or anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poolproof.errors import InputError
from poolproof.simulate import grid
from poolproof.simulate.admissible import admissible_region, effective_sample_size
from poolproof.simulate.grid import Cell, Effort, evaluate_cells, evaluate_rows

CELLS = [Cell(n, m, bias, dim=2) for bias in (0.5, 1.0) for n in (5, 20) for m in (2, 40)]
EFFORT = Effort(tolerance=0.05, seed=3)


def test_region_has_a_row_for_every_combination() -> None:
    """Rows come in the order of the lists, and hold ratio, errors and verdict."""
    table = admissible_region([5, 20], [2, 40], [0.5, 1], dim=2, tolerance=0.05, rng=np.random.default_rng(0))
    assert list(table[["sampling_bias", "n_real", "n_synthetic"]].itertuples(index=False, name=None)) == [
        (bias, n, m) for bias in (0.5, 1.0) for n in (5, 20) for m in (2, 40)
    ]
    assert table["ratio"].to_numpy() == pytest.approx((table["n_e"] / table["n_real"]).to_numpy())
    assert (table["squared_w2_stderr"] <= 0.05 * table["squared_w2"]).all()
    assert table["converged"].all()
    assert table.loc[table["sampling_bias"] == 1, "admissible"].all()


def test_cells_are_those_of_single_calls() -> None:
    """A cell of the map agrees with the function for one loop, within their errors."""
    table = evaluate_cells([Cell(12, 30, 0.6, dim=3)], Effort(tolerance=0.01))
    alone = effective_sample_size(12, 30, 0.6, dim=3, tolerance=0.01, rng=np.random.default_rng(9))
    error = np.hypot(table["n_e_stderr"][0], alone.stderr)
    assert abs(table["n_e"][0] - alone.n_e) < 5 * error


@pytest.mark.slow
def test_figures_do_not_depend_on_company() -> None:
    """One thread or three, alone or among others, in whatever order: the same figures."""
    whole = evaluate_cells(CELLS, EFFORT, n_workers=1)
    pd.testing.assert_frame_equal(whole, evaluate_cells(CELLS, EFFORT, n_workers=3))
    turned = evaluate_cells(CELLS[::-1], EFFORT)
    pd.testing.assert_frame_equal(whole, turned[::-1].reset_index(drop=True))
    pd.testing.assert_frame_equal(whole[:1], evaluate_cells(CELLS[:1], EFFORT))


def test_another_seed_gives_other_figures() -> None:
    """The seed decides."""
    one, other = (evaluate_cells(CELLS[:2], Effort(tolerance=0.05, seed=s)) for s in (1, 2))
    assert (one["squared_w2"] != other["squared_w2"]).all()


def test_cells_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed once is read from the cache, also among new cells; another effort is computed anew."""
    computed: list[Cell] = []
    original = grid._compute

    def counting(cell: Cell, effort: Effort) -> dict:
        computed.append(cell)
        return original(cell, effort)

    monkeypatch.setattr(grid, "_compute", counting)
    first = evaluate_cells(CELLS[:4], EFFORT, cache=tmp_path)
    assert sorted(computed, key=repr) == sorted(CELLS[:4], key=repr)
    computed.clear()
    again = evaluate_cells(CELLS, EFFORT, cache=tmp_path)
    assert sorted(computed, key=repr) == sorted(CELLS[4:], key=repr)
    pd.testing.assert_frame_equal(first, again[:4])
    computed.clear()
    evaluate_cells(CELLS[:1], Effort(tolerance=0.06, seed=3), cache=tmp_path)
    assert computed == CELLS[:1]


def test_progress_counts_every_cell() -> None:
    """The tick rises by one to the number of different cells."""
    ticks: list[int] = []
    evaluate_cells([*CELLS, CELLS[0]], EFFORT, on_cell=ticks.append)
    assert ticks == list(range(1, len(CELLS) + 1))


def test_a_stop_keeps_what_is_done(tmp_path: Path) -> None:
    """An interruption ends the map at once, and the finished cells stay in the cache."""

    def stop(n_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_cells(CELLS, EFFORT, n_workers=1, cache=tmp_path, on_cell=stop)
    n_kept = len(list(tmp_path.rglob("*.json")))
    assert 1 <= n_kept < len(CELLS)


def test_no_figure_is_made_up() -> None:
    """Where two real samples do better, n_e and ratio are missing, with the reason."""
    row = evaluate_cells([Cell(2, 100_000, 0.0, dim=1)], Effort(tolerance=0.05)).iloc[0]
    assert np.isnan(row["ratio"])
    assert not row["admissible"]
    assert "below 2" in row["why"]


def test_a_start_that_shows_has_no_verdict() -> None:
    """A row whose loop may still remember its start has figures but is neither admissible nor not."""
    effort = Effort(tolerance=0.1, max_generations=20)
    row = evaluate_cells([Cell(20, 2000, 1.0, dim=2)], effort).iloc[0]
    assert row["start_shows"]
    assert row["ratio"] - 1 > 2 * row["ratio_stderr"]
    assert row["admissible"] is pd.NA


@pytest.mark.parametrize(("n_real", "expected"), [(8 * 10**14, True), (9 * 10**14, None)])
def test_beyond_the_longest_sample_is_not_a_refusal(n_real: int, expected: bool | None) -> None:
    """Where n_e lies above the sizes that are tabulated it is missing, and admissible as far as that is certain."""
    [row] = evaluate_rows([Cell(n_real, n_real, 1.0, dim=1)], Effort(tolerance=0.05))
    assert row["n_e"] is None
    assert "below that of" in row["why"]
    assert row["admissible"] is expected


def test_no_cells_and_no_threads_are_refused() -> None:
    """An empty list and a number of threads below 1 are refused by name."""
    with pytest.raises(InputError, match=r"^cells: got none"):
        evaluate_cells([], EFFORT)
    with pytest.raises(InputError, match=r"^n_workers: got 0"):
        evaluate_cells(CELLS[:1], EFFORT, n_workers=0)


def test_impossible_cells_are_refused_before_anything_runs() -> None:
    """A memory of a million models, or a million dimensions, is no cell."""
    with pytest.raises(InputError, match=r"^n_models, n_kept: got 1000000"):
        Cell(10, 10, n_models=10**6)
    with pytest.raises(InputError, match=r"^dim: got 1000000"):
        Cell(10, 10, dim=10**6)


def test_an_equal_loop_is_exactly_one() -> None:
    """Without synthetic samples the ratio is 1 without error, and admissible."""
    row = evaluate_cells([Cell(9, 0, 0.5, dim=1)], Effort(tolerance=0.05)).iloc[0]
    assert (row["ratio"], row["ratio_stderr"], row["admissible"]) == (1.0, 0.0, True)


@pytest.mark.parametrize(
    ("lists", "name"),
    [
        (([], [1], [1.0]), "n_real: got an empty list"),
        (([2], [], [1.0]), "n_synthetic: got an empty list"),
        (([2], [1], []), "sampling_bias: got an empty list"),
        (([1], [1], [1.0]), "n_real: got 1"),
        (([2], [1], [1.1]), "sampling_bias: got 1.1"),
    ],
)
def test_bad_lists_are_named(lists: tuple, name: str) -> None:
    """An empty list or a value out of range is refused before anything is computed."""
    with pytest.raises(InputError) as caught:
        admissible_region(*lists, dim=2, rng=np.random.default_rng(0))
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize(
    "options", [{"tolerance": 0}, {"tolerance": 1.5}, {"max_paths": 2}, {"max_generations": 1}, {"seed": -1}]
)
def test_impossible_efforts(options: dict) -> None:
    """A precision or seed that cannot be meant is refused by name."""
    with pytest.raises(InputError, match=f"{next(iter(options))}: got"):
        Effort(**options)
