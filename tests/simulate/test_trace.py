"""The table of a loop, generation by generation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poolproof.errors import InputError
from poolproof.simulate.gaussian import Gaussian, Models
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.theory import fresh_moments, fully_synthetic_w2_1d, mark_drift
from poolproof.simulate.trace import FIGURES, trace_loop


def rows(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows of a figure, by generation."""
    return table[table["figure"] == figure].set_index("generation")


@pytest.mark.theory
def test_table_tells_the_closed_form() -> None:
    """Means of the distance and its mean, within their own errors, are the theory's in every generation."""
    table = trace_loop(
        Mixing.fully_synthetic(50),
        law=Gaussian.standard(1),
        n_generations=21,
        n_paths=10_000,
        initial="truth",
        rng=np.random.default_rng(0),
    )
    found = rows(table, "squared_w2")
    expected = fully_synthetic_w2_1d(50, 1, 20)
    assert list(found.index) == list(range(21))
    later = found.loc[1:]
    assert (np.abs(later["mean"] - expected[1:]) < 4.5 * later["mean_stderr"]).all()


def test_figures_belong_together() -> None:
    """Parts add up to the squared distance, and the root is its root."""
    mark = np.array([0.1, 0.0])
    table = trace_loop(
        Mixing.fresh(20, 30),
        law=Gaussian.standard(2),
        n_generations=4,
        n_paths=300,
        mark=mark,
        rng=np.random.default_rng(1),
    )
    assert set(table["figure"]) == set(FIGURES)
    parts = rows(table, "mean_part")["mean"] + rows(table, "covariance_part")["mean"]
    assert parts.to_numpy() == pytest.approx(rows(table, "squared_w2")["mean"].to_numpy())
    squared_median = rows(table, "w2")["median"] ** 2
    assert squared_median.to_numpy() == pytest.approx(
        rows(table, "squared_w2")["median"].to_numpy(), rel=0.01
    )


@pytest.mark.theory
def test_drift_and_variance_follow_the_recursion() -> None:
    """Drift is told in lengths of the mark, variance against that of the truth, for any law."""
    law = Gaussian.from_moments(np.array([5.0, 5.0]), np.diag([4.0, 4.0]))
    mark = np.array([0.0, 1.5])
    table = trace_loop(
        Mixing.fresh(10, 30),
        law=law,
        n_generations=9,
        n_paths=9000,
        initial="truth",
        mark=mark,
        rng=np.random.default_rng(2),
    )
    drift, variance = rows(table, "drift"), rows(table, "variance")
    assert (np.abs(drift["mean"] - mark_drift(10, 30, 1.0, 8)) <= 4.5 * drift["mean_stderr"] + 1e-12).all()
    expected = fresh_moments(10, 30, 1.0, 8).variance
    # the mark moves real and synthetic samples apart, which the pooled covariance counts
    assert (variance["mean"].to_numpy()[2:] > expected[2:]).all()


def test_singular_loops_withhold_the_log_determinant() -> None:
    """Where covariances are singular the log-determinant has no summary, only the count of such loops."""
    table = trace_loop(
        Mixing.fully_synthetic(2),
        law=Gaussian.standard(3),
        n_generations=2,
        n_paths=10,
        rng=np.random.default_rng(0),
    )
    found = rows(table, "log_determinant")
    assert (found["n_infinite"] == 10).all()
    assert found["mean"].isna().all()
    assert rows(table, "squared_w2")["mean"].notna().all()


def test_subsamples_and_policies_use_points() -> None:
    """A subsample or a policy is traced with single samples, without being asked to."""
    mixing = Mixing(n_fixed=6, n_synthetic=6, n_kept=None, n_subsample=6)
    table = trace_loop(
        mixing, law=Gaussian.standard(1), n_generations=3, n_paths=50, rng=np.random.default_rng(0)
    )
    assert rows(table, "squared_w2")["n"].tolist() == [50, 50, 50]
    kept = trace_loop(
        Mixing.fresh(20, 60),
        law=Gaussian.standard(1),
        n_generations=4,
        n_paths=400,
        sampling_bias=0.05,
        policy=lambda points, is_synthetic, rng: ~is_synthetic,
        rng=np.random.default_rng(0),
    )
    assert rows(kept, "variance")["mean"].to_numpy() == pytest.approx(1, abs=0.08)


def test_blocks_do_not_lose_loops() -> None:
    """Loops beyond one block are all counted, and progress runs to the end."""
    ticks: list[int] = []
    table = trace_loop(
        Mixing.fresh(5, 5),
        law=Gaussian.standard(40),
        n_generations=2,
        n_paths=35,
        on_generation=ticks.append,
        rng=np.random.default_rng(0),
    )
    assert (table["n"] == 35).all()
    assert ticks == [1, 2, 3, 4, 5, 6]


def test_few_loops_have_columns_of_numbers() -> None:
    """With so few loops that no error of a quantile is told, its column is missing numbers, not objects."""
    table = trace_loop(
        Mixing.fresh(5, 5),
        law=Gaussian.standard(1),
        n_generations=2,
        n_paths=4,
        rng=np.random.default_rng(0),
    )
    assert table["q05_stderr"].dtype == table["log_sd_stderr"].dtype == np.float64
    assert table["q05_stderr"].isna().all()
    assert table["log_sd_stderr"].isna().all()
    assert rows(table, "squared_w2")["q25_stderr"].notna().all()


def test_marks_may_be_lists() -> None:
    """A list is the mark that an array of its numbers is."""
    one, other = (
        trace_loop(
            Mixing.fresh(5, 5),
            law=Gaussian.standard(2),
            n_generations=2,
            n_paths=5,
            mark=mark,
            rng=np.random.default_rng(0),
        )
        for mark in ([0.5, 0.0], np.array([0.5, 0.0]))
    )
    pd.testing.assert_frame_equal(one, other)


FLAT = Gaussian.from_moments(np.zeros(2), np.zeros((2, 2)))
THREE = Models(1, np.zeros((6, 2)), np.zeros((6, 2, 2)))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"mark": np.zeros(2)}, "mark: got zeros"),
        ({"mark": [1.0, float("nan")]}, "mark: got a value that is not finite"),
        ({"mark": [1.0]}, "mark: got shape"),
        ({"law": FLAT}, "law: got one without variance"),
        ({"initial": THREE}, "initial: got models of shapes"),
    ],
)
def test_what_cannot_be_traced_is_named(options: dict, name: str) -> None:
    """A mark without length, a law without variance, and more models than loops are refused."""
    given = {"law": Gaussian.standard(2), "n_generations": 2, "n_paths": 5} | options
    with pytest.raises(InputError) as caught:
        trace_loop(Mixing.fresh(5, 5), rng=np.random.default_rng(0), **given)
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize(
    ("options", "name"), [({"n_generations": 0}, "n_generations: got 0"), ({"n_paths": 2}, "n_paths: got 2")]
)
def test_bad_options_are_named(options: dict, name: str) -> None:
    """Too few generations or loops are refused."""
    counts = {"n_generations": 2, "n_paths": 5} | options
    with pytest.raises(InputError) as caught:
        trace_loop(
            Mixing.fresh(5, 5),
            law=Gaussian.standard(1),
            n_generations=counts["n_generations"],
            n_paths=counts["n_paths"],
            rng=np.random.default_rng(0),
        )
    assert str(caught.value).startswith(name)
