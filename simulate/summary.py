"""The figures of a loop of trained generators: their means over seeds, and what they say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.page import counted, number, percent
from poolproof.simulate.figures import FIGURES

if TYPE_CHECKING:
    import pandas as pd

CLEAR: Final = 2.0
"""Standard errors that a difference has to exceed before it is called one."""

KEYS: Final = ("arm", "seed", "generation", "status")
"""Columns that every table of a loop has."""


def summarise_generations(table: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, generation and figure that the arm has: its mean over seeds and how sure that is.

    Args:
        table: one row per arm, seed and generation, with `KEYS` and any columns of `FIGURES`.

    Returns:
        arm, generation, figure, n (seeds with the figure), mean, stderr (standard deviation over the root of n;
        missing below two seeds), least, greatest, n_failed (seeds whose generation failed, which are left out).
        A value that is not finite counts as missing; where no seed has the figure, n is 0 and the rest missing.

    Raises:
        InputError: a column is missing, or a seed has a generation of an arm twice.

    Assumes: independent seeds. Seeds that failed are not like the others, so later means may look too good.
    """
    import pandas as pd

    _check_table(table)
    done = table["status"].to_numpy() == "done"
    present = [name for name in FIGURES if name in table.columns]
    values = {name: np.where(done, _floats(table[name]), np.nan) for name in present}
    rows = []
    places = table.groupby(["arm", "generation"], sort=False).indices
    for arm in dict.fromkeys(table["arm"]):
        mine = table["arm"].to_numpy() == arm
        names = [name for name in present if np.isfinite(values[name][mine]).any()]
        for generation in sorted({int(each) for each in table["generation"][mine]}):
            at = places[arm, generation]
            n_failed = int((~done[at]).sum())
            for name in names:
                given = values[name][at]
                rows.append(
                    (arm, generation, name, *_summary(given[np.isfinite(given)]), n_failed),
                )
    columns = ["arm", "generation", "figure", "n", "mean", "stderr", "least", "greatest", "n_failed"]
    return pd.DataFrame(rows, columns=columns)


def _check_table(table: pd.DataFrame) -> None:
    for name in KEYS:
        if name not in table.columns:
            raise InputError(f"table: got no column {name}, allowed are {', '.join(KEYS)}; add it")
    twice = table.duplicated(["arm", "seed", "generation"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"table: got generation {row['generation']} of seed {row['seed']} of arm {row['arm']!r:.60} twice, "
            "allowed one row each; remove one"
        )


def _floats(column: pd.Series) -> Float[np.ndarray, " n"]:
    return np.array([np.nan if value is None else value for value in column], np.float64)


def _summary(values: Float[np.ndarray, " n"]) -> tuple[int, float, float, float, float]:
    n = len(values)
    if not n:
        return 0, np.nan, np.nan, np.nan, np.nan
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return n, float(values.mean()), error, float(values.min()), float(values.max())


# --- findings -------------------------------------------------------------------------------------------


def tell_findings(summary: pd.DataFrame, document: Mapping[str, Any]) -> list[str]:
    """What the figures say, a sentence each: the floor, each arm from first to last, marks, policies, failures.

    A change is one where it exceeds `CLEAR` standard errors: of the differences per seed where the document has two
    seeds with both values, else of the two means.

    Args:
        summary: from `summarise_generations`.
        document: the loop's document; `columns` and `rows` give the seeds.

    Assumes: independent seeds; with few of them two standard errors are less than a 95 % interval.
    """
    import pandas as pd

    table = pd.DataFrame(document.get("rows", []), columns=document.get("columns"))
    reference = document.get("reference") or {}
    floor = reference.get("halves") or {}
    told = _floor_words(floor)
    if reference.get("n_halves") != reference.get("n_measured"):  # distances of other numbers do not compare
        floor = {}
    arms = list(dict.fromkeys(summary["arm"]))
    told += [each for arm in arms for each in _arm_words(arm, summary, table, floor)]
    told += _mark_words(summary, table)
    if len(table):
        options = {each.get("label"): each for each in (document.get("spec") or {}).get("arms", [])}
        told += [each for arm in arms for each in _policy_words(arm, arms, table, options)]
    told += _size_words(document.get("effective_size"))
    told += _repeat_words(arms, table)
    n_failed = len(document.get("failed") or [])
    if n_failed:
        told.append(
            f"{counted(n_failed, 'generation')} failed and {'is' if n_failed == 1 else 'are'} left out."
        )
    return told


def _repeat_words(arms: Sequence[str], table: pd.DataFrame) -> list[str]:
    """Which arms' fresh real data are not all new."""
    if "n_repeated" not in table.columns:
        return []
    told = []
    for arm in arms:
        rows = table[table["arm"] == arm]
        most = float(np.nan_to_num(_floats(rows["n_repeated"])).max(initial=0))
        if most > 0:
            told.append(
                f"{arm}: real data ran out, and up to {number(most)} of a generation's fresh ones had been used before."
            )
    return told


def _floor_words(floor: Mapping[str, Any]) -> list[str]:
    words = [
        f"{_lower(FIGURES[name].heading)} {_value(name, floor[name])}"
        for name in ("frechet_distance", "precision", "recall")
        if floor.get(name) is not None
    ]
    return [f"The best to be had, real data against real data: {', '.join(words)}."] if words else []


def _arm_words(arm: str, summary: pd.DataFrame, table: pd.DataFrame, floor: Mapping[str, Any]) -> list[str]:
    """The arm's distance, precision and recall in its first and last generation that have them."""
    ends = {name: _ends(arm, name, summary) for name in _LED}
    known = {name: pair for name, pair in ends.items() if pair is not None}
    if not known:
        return []
    words = []
    for name, (first, last) in known.items():
        notes = _change_notes(arm, name, first, last, table)
        if name == "frechet_distance" and (floor.get(name) or 0) > 0:
            notes.append(f"{_times(last['mean'] / floor[name])} that of real data")
        words.append(f"{_lower(FIGURES[name].heading)} {_from_to(name, first, last, notes)}")
    return [f"{arm}, {_when(list(known.values()))}: {', '.join(words)}."]


_LED: Final = ("frechet_distance", "squared_w2", "precision", "recall", "n_modes")
"""Figures that the sentence of an arm names."""


def _mark_words(summary: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """How much of the mark each arm carries in its first and last generation."""
    name = "mark_strength"
    pairs = {arm: _ends(arm, name, summary) for arm in dict.fromkeys(summary["arm"])}
    known = {arm: pair for arm, pair in pairs.items() if pair is not None}
    words = [
        f"{arm} {_from_to(name, *pair, _change_notes(arm, name, *pair, table))}"
        for arm, pair in known.items()
    ]
    heading = f"{FIGURES[name].heading}, {_when(list(known.values()))}" if known else ""
    return [f"{heading}: {', '.join(words)}."] if words else []


def _ends(arm: str, name: str, summary: pd.DataFrame) -> tuple[pd.Series, pd.Series] | None:
    """The first and the last generation of an arm that have the figure."""
    rows = summary[(summary["arm"] == arm) & (summary["figure"] == name) & (summary["n"] > 0)]
    return None if rows.empty else (rows.iloc[0], rows.iloc[-1])


def _when(pairs: Sequence[tuple[pd.Series, pd.Series]]) -> str:
    begin = min(int(first["generation"]) for first, _ in pairs)
    end = max(int(last["generation"]) for _, last in pairs)
    return f"generation {begin}" if begin == end else f"generation {begin} → {end}"


def _from_to(name: str, first: pd.Series, last: pd.Series, notes: Sequence[str]) -> str:
    text = _value(name, first["mean"])
    if first["generation"] != last["generation"]:
        text += f" → {_value(name, last['mean'])}"
    return text + (f" ({', '.join(notes)})" if notes else "")


def _change_notes(arm: str, name: str, first: pd.Series, last: pd.Series, table: pd.DataFrame) -> list[str]:
    if first["generation"] == last["generation"]:
        return []
    change, error = _change(arm, name, first, last, table)
    if np.isfinite(error) and abs(change) <= CLEAR * error:
        return ["no clear change"]
    growth = FIGURES[name].panel == "distance" and first["mean"] > 0
    return [_times(last["mean"] / first["mean"])] if growth else []


def _value(name: str, value: float | int) -> str:
    return f"{value:.2f}" if FIGURES[name].is_share or name == "mark_strength" else number(value)


def _times(factor: float | int) -> str:
    return (
        f"{factor:,.0f} times"
        if factor >= 9.95
        else f"{factor:.1f} times"
        if factor >= 1
        else f"{factor:.2g} times"
    )


def _change(
    arm: str, name: str, first: pd.Series, last: pd.Series, table: pd.DataFrame
) -> tuple[float, float]:
    """The change of a figure and its standard error, which is NaN where one seed alone has it."""
    if name in table.columns:
        ends = [_by_seed(arm, name, int(end["generation"]), table) for end in (first, last)]
        change, error, n = _difference(*ends)
        if n > 1:
            return change, error
    return last["mean"] - first["mean"], float(np.hypot(first["stderr"], last["stderr"]))


def _by_seed(arm: str, name: str, generation: int, table: pd.DataFrame) -> dict[Any, float]:
    at = (table["arm"] == arm) & (table["generation"] == generation) & (table["status"] == "done")
    given = zip(table["seed"][at], _floats(table[name][at]), strict=True)
    return {seed: value for seed, value in given if np.isfinite(value)}


def _difference(before: Mapping[Any, float], after: Mapping[Any, float]) -> tuple[float, float, int]:
    """Mean of after - before over the seeds that have both, its standard error, and their number."""
    pairs = np.array([after[seed] - before[seed] for seed in before if seed in after], np.float64)
    n, mean, error, _, _ = _summary(pairs)
    return mean, error, n


def _policy_words(
    arm: str, arms: Sequence[str], table: pd.DataFrame, options: Mapping[Any, Mapping[str, Any]]
) -> list[str]:
    """What an arm's policy took away and what that did to the distance, against the same loop without it."""
    real, synthetic = kept_shares(arm, table)
    if (real is None and synthetic is None) or not {real, synthetic} - {None, 1.0}:
        return []
    parts = [] if real is None else [f"lost {percent(1 - real)} of the real images"]
    parts += [] if synthetic is None else [f"kept {percent(synthetic)} of the synthetic ones"]
    words = f"{arm}: the policy {' and '.join(parts)}"
    like = [
        other
        for other in arms
        if other != arm and _is_same_without_policy(options.get(arm), options.get(other))
    ]
    if len(like) != 1 or "frechet_distance" not in table.columns:
        return [f"{words}."]
    both = table[(table["status"] == "done") & table["arm"].isin([arm, like[0]])]
    generation = int(both.groupby("arm")["generation"].max().min())
    mine, theirs = (_by_seed(each, "frechet_distance", generation, table) for each in (arm, like[0]))
    if not mine or not theirs:
        return [f"{words}."]
    change, error, n = _difference(theirs, mine)
    if n < 2:
        means = [_summary(np.array(list(each.values()))) for each in (theirs, mine)]
        change, error = means[1][1] - means[0][1], float(np.hypot(means[0][2], means[1][2]))
    verdict = "lower" if change < 0 else "higher"
    if np.isfinite(error) and abs(change) <= CLEAR * error:
        verdict = "no clear difference"
    values = [number(float(np.mean(list(each.values())))) for each in (mine, theirs)]
    return [f"{words}; Fréchet distance {values[0]} against {values[1]} of {like[0]} ({verdict})."]


def kept_shares(arm: str, table: pd.DataFrame) -> tuple[float | None, float | None]:
    """Shares in [0, 1] of an arm's real and synthetic images that its policy kept, over all that was done.

    None where there were none.
    """
    # no policy acts in generation 1
    rows = table[(table["arm"] == arm) & (table["status"] == "done") & (table["generation"] > 1)]
    shares: list[float | None] = []
    for kept, before in (("kept_real", ("n_fresh", "n_fixed")), ("kept_synthetic", ("n_synthetic",))):
        if not {kept, *before} <= set(table.columns):
            shares.append(None)
            continue
        n = float(sum(np.nansum(_floats(rows[name])) for name in before))
        shares.append(float(np.nansum(_floats(rows[kept]))) / n if n else None)
    return shares[0], shares[1]


def _is_same_without_policy(mine: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether the second arm is the first one with everything kept."""
    if mine is None or other is None or (other.get("policy") or {}).get("kind") not in (None, "KeepAll"):
        return False
    left_out = ("label", "policy")
    return all(mine.get(key) == other.get(key) for key in {*mine, *other} if key not in left_out)


def _size_words(size: Mapping[str, Any] | None) -> list[str]:
    told = [f"The curve of real data alone: {size['why']}."] if size and size.get("why") else []
    for verdict, words in (
        (True, "Admissible"),
        (False, "Not admissible"),
        (None, "Whether admissible is open"),
    ):
        arms = [
            each["arm"]
            + (f" (n_e / n_real {number(each['ratio'])})" if each.get("ratio") is not None else "")
            for each in (size or {}).get("arms", [])
            if each.get("admissible") is verdict
        ]
        if arms:
            told.append(f"{words}: {', '.join(arms)}.")
    return told


def _lower(heading: str) -> str:
    """A heading inside a sentence: its first letter small, except that of a name."""
    return heading if heading.startswith("Fréchet") else heading[0].lower() + heading[1:]
