"""Means over seeds of a loop's figures, and the sentences that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_loops import FOUR, arm_options, fake_document, fake_table
from scipy import stats

from poolproof.errors import InputError
from poolproof.simulate.figures import FIGURES, PANELS
from poolproof.simulate.summary import kept_shares, summarise_generations, tell_findings


def rows_of(
    values: Mapping[tuple[str, int, int], float | None], name: str = "frechet_distance"
) -> pd.DataFrame:
    """A table of one figure, by arm, seed and generation."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "generation": generation, "status": "done", name: value}
            for (arm, seed, generation), value in values.items()
        ]
    )


def told_of(table: pd.DataFrame, **changes: Any) -> list[str]:
    """The findings of a table whose document has nothing else but the options of its arms."""
    columns, rows = list(table.columns), table.astype(object).where(table.notna(), None).to_numpy().tolist()
    document = {"columns": columns, "rows": rows, "reference": {}, "failed": []} | changes
    document["spec"] = {"arms": [arm_options(arm) for arm in dict.fromkeys(table["arm"])]}
    return tell_findings(summarise_generations(table), document)


# --- figures --------------------------------------------------------------------------------------------


def test_every_figure_is_told() -> None:
    """Each figure has words, a part of the page, and a sentence that ends."""
    assert list(FIGURES)[:2] == ["frechet_distance", "kernel_distance"]
    for figure in FIGURES.values():
        assert figure.panel in PANELS
        assert min(len(figure.heading), len(figure.axis)) > 2
        assert figure.meaning.endswith(".")
    assert {figure.panel for figure in FIGURES.values()} == set(PANELS)


# --- summary --------------------------------------------------------------------------------------------


@pytest.mark.reference
def test_means_and_errors_agree_with_scipy() -> None:
    """Mean, standard error and ends of each figure are those of numpy and scipy over the seeds."""
    table = fake_table(n_seeds=4, n_generations=3)
    summary = summarise_generations(table)
    assert len(summary) > 100
    for row in summary[summary["n"] > 0].to_dict("records"):
        at = (table["arm"] == row["arm"]) & (table["generation"] == row["generation"])
        values = table[at][row["figure"]].to_numpy(float)
        assert (row["n"], row["n_failed"]) == (4, 0)
        np.testing.assert_allclose(row["mean"], np.mean(values), rtol=1e-12)
        np.testing.assert_allclose(row["stderr"], stats.sem(values), rtol=1e-9, atol=1e-300)
        assert (row["least"], row["greatest"]) == (values.min(), values.max())


def test_failed_generations_are_left_out_and_counted() -> None:
    """A failed row gives no figure, even where it has some, and is counted at its generation."""
    table = rows_of({("a", seed, generation): 1.0 + seed for seed in range(3) for generation in (1, 2)})
    table.loc[(table["seed"] == 2) & (table["generation"] == 2), ["status", "frechet_distance"]] = (
        "failed",
        99.0,
    )
    summary = summarise_generations(table)
    assert summary["n"].tolist() == [3, 2]
    assert summary["n_failed"].tolist() == [0, 1]
    assert summary["mean"].tolist() == [2.0, 1.5]


@pytest.mark.parametrize("missing", [None, np.nan, np.inf])
def test_missing_values_leave_a_gap(missing: float | None) -> None:
    """Where no seed has a figure its row is kept with n = 0; an arm that never has it gets no row."""
    table = rows_of({("a", 0, 1): 1.0, ("a", 0, 2): missing, ("a", 0, 3): 3.0, ("b", 0, 1): missing})
    summary = summarise_generations(table)
    assert summary["arm"].tolist() == ["a"] * 3
    assert summary["n"].tolist() == [1, 0, 1]
    assert np.isnan(summary["mean"][1])
    assert summary["stderr"].isna().all()


def test_only_figures_that_are_there_are_summarised() -> None:
    """Absent and empty columns have no rows, and a table of failures alone has none at all."""
    table = fake_table(n_seeds=2, n_generations=2)
    assert "squared_w2" not in set(summarise_generations(table)["figure"])
    summary = summarise_generations(table.assign(status="failed"))
    assert summary.empty
    assert {"arm", "generation", "figure", "mean"} <= set(summary.columns)


@pytest.mark.property
def test_order_of_rows_does_not_matter() -> None:
    """The same rows in another order give the same figures."""
    table = fake_table(n_seeds=3, n_generations=3)
    other = table.sample(frac=1.0, random_state=np.random.RandomState(0))
    keys = ["arm", "generation", "figure"]
    one, two = (summarise_generations(each).sort_values(keys, ignore_index=True) for each in (table, other))
    pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-12)


def test_bad_tables_are_refused() -> None:
    """A missing column and a generation told twice are named."""
    table = rows_of({("a", 0, 1): 1.0})
    with pytest.raises(InputError, match="table: got no column seed"):
        summarise_generations(table.drop(columns="seed"))
    with pytest.raises(InputError, match="generation 1 of seed 0 of arm 'a' twice"):
        summarise_generations(pd.concat([table, table]))


# --- findings -------------------------------------------------------------------------------------------


def test_findings_tell_each_arm() -> None:
    """The floor, each arm's way, the mark, the policy, the verdicts and the failures are told in this order."""
    table = fake_table(failing=True)
    told = tell_findings(summarise_generations(table), fake_document(table))
    assert (
        told[0]
        == "The best to be had, real data against real data: Fréchet distance 0.31, precision 0.97, recall 0.96."
    )
    for arm, sentence in zip(FOUR, told[1:5], strict=True):
        assert sentence.startswith(f"{arm}, generation 1 → 6: Fréchet distance ")
        assert all(each in sentence for each in ("precision", "recall", "times that of real data"))
    assert told[5].startswith("Strength of the mark, generation 1 → 6: fully synthetic 0.")
    lost = "lost 3.0\u00a0% of the real images and kept 12.0\u00a0% of the synthetic ones"
    assert told[6].startswith(f"fresh: drop flagged: the policy {lost}; ")
    assert told[6].endswith("of fresh: keep all (lower).")
    assert told[7:10] == [
        "Admissible: fresh: drop flagged (n_e / n_real 1.6).",
        "Not admissible: fully synthetic, fixed real data (n_e / n_real 0.6).",
        "Whether admissible is open: fresh: keep all (n_e / n_real 1.02).",
    ]
    assert told[10:] == ["1 generation failed and is left out."]


def test_changes_are_paired_over_seeds() -> None:
    """Seeds that differ much but all move the same way have changed; where they move apart there is no change."""
    starts = {0: 1.0, 1: 5.0, 2: 9.0}
    moved = rows_of(
        {("a", s, g): start + (g - 1) * (0.5 + 0.01 * s) for s, start in starts.items() for g in (1, 2)}
    )
    assert told_of(moved) == ["a, generation 1 → 2: Fréchet distance 5 → 5.51 (1.1 times)."]
    apart = rows_of({("a", s, g): start + (g - 1) * (s - 1) for s, start in starts.items() for g in (1, 2)})
    assert told_of(apart) == ["a, generation 1 → 2: Fréchet distance 5 → 5 (no clear change)."]
    # without the seeds the means' own errors hide the first change
    assert "no clear change" in told_of(moved, rows=[], columns=None)[0]


def test_seeds_without_a_partner_are_compared_by_their_means() -> None:
    """Where no seed has both ends the two means and their errors decide."""
    near = {("a", s, 1): 1.0 + 0.1 * s for s in range(3)} | {
        ("a", s + 3, 2): 1.05 + 0.1 * s for s in range(3)
    }
    assert "no clear change" in told_of(rows_of(near))[0]
    far = near | {("a", s + 3, 2): 9.0 + 0.1 * s for s in range(3)}
    assert "8.3 times" in told_of(rows_of(far))[0]


def test_one_seed_and_one_generation_are_told_plainly() -> None:
    """One seed has no error, so its change is told as it is; one generation has no change."""
    assert told_of(rows_of({("a", 0, 1): 1.2, ("a", 0, 5): 8.4})) == [
        "a, generation 1 → 5: Fréchet distance 1.2 → 8.4 (7.0 times)."
    ]
    assert told_of(rows_of({("a", 0, 1): 0.5}, "recall")) == ["a, generation 1: recall 0.50."]
    assert told_of(rows_of({("a", 0, 1): None})) == []


@pytest.mark.slow
@pytest.mark.coverage
def test_no_clear_change_is_said_where_there_is_none() -> None:
    """Without a change, two standard errors over eight seeds call one as often as Student's t exceeds 2."""
    rng = np.random.default_rng(3)
    n_arms, n_seeds = 300, 8
    level = rng.standard_normal((n_arms, n_seeds))
    values = {
        (f"arm {arm}", seed, generation): 9 + level[arm, seed] + rng.standard_normal()
        for arm in range(n_arms)
        for seed in range(n_seeds)
        for generation in (1, 2)
    }
    told = told_of(rows_of(values))
    assert len(told) == n_arms
    called = sum("no clear change" not in sentence for sentence in told)
    low, high = stats.binom.interval(0.999, n_arms, 2 * stats.t.sf(2.0, n_seeds - 1))
    assert low <= called <= high


def test_policies_are_compared_with_the_same_pool_alone() -> None:
    """A policy that drops nothing is not told, and one without a like arm is not compared."""
    table = fake_table(n_seeds=2, n_generations=3)
    alone = table[table["arm"] != "fresh: keep all"]
    sentences = [each for each in told_of(alone) if "policy" in each]
    assert len(sentences) == 1
    assert "against" not in sentences[0]
    assert kept_shares("fresh: keep all", table) == (1.0, 1.0)
    assert kept_shares("fresh: drop flagged", table) == (0.97, 0.12)
    assert kept_shares("fully synthetic", table.drop(columns="kept_real")) == (None, 1.0)
    assert kept_shares("fresh: keep all", table[table["generation"] == 1]) == (None, None)


def test_equal_policies_are_not_told_apart() -> None:
    """Two arms of the same distances differ by no more than their errors."""
    table = fake_table(n_seeds=3, n_generations=2)
    same = table["arm"] == "fresh: keep all"
    noise = np.tile([-0.1, 0.0, 0.1], 2)
    flagged = table["arm"] == "fresh: drop flagged"
    table.loc[flagged, "frechet_distance"] = table.loc[same, "frechet_distance"].to_numpy() + noise
    assert any(each.endswith("of fresh: keep all (no clear difference).") for each in told_of(table))
