"""What specs may say: the presets hold the paper's settings, and what cannot be meant is refused by its name."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.simulate.grid import Cell, Effort
from poolproof.simulate.loop_spec import TrainedLoopSpec
from poolproof.simulate.mixing import Mixing
from poolproof.simulate.spec import (
    KINDS,
    Arm,
    CurvesSpec,
    LoopSpec,
    MapSpec,
    list_presets,
    parse_spec,
    read_spec,
)

BASES: dict[str, dict[str, Any]] = {
    "loop": {"kind": "loop", "arms": [{"label": "a", "n_fresh": 10, "n_synthetic": 20}, {"label": "b", "n_fixed": 5}]},
    "map": {"kind": "map", "n_real": [10, 20], "n_synthetic": [0, 30], "sampling_bias": [0.5, 1.0]},
    "curves": {
        "kind": "curves",
        "x": "n_synthetic",
        "y": "ratio",
        "curves": [
            {"label": "a", "n_real": 10, "n_synthetic": [5, 6]},
            {"label": "b", "n_real": 9, "n_synthetic": [5]},
        ],
    },
}  # fmt: skip
GONE = object()


def changed(kind: str, key: str, value: Any) -> dict[str, Any]:
    """A valid table with one key changed; `arms.mark` is that of the first arm, and GONE takes the key away."""
    table = copy.deepcopy(BASES[kind])
    *inner, key = key.split(".")
    place = table[inner[0]][0] if inner else table
    place[key] = value
    if value is GONE:
        del place[key]
    return table


def refusal(table: dict[str, Any]) -> str:
    """The one line with which a table is refused."""
    with pytest.raises(InputError) as caught:
        parse_spec(table)
    message = str(caught.value)
    assert "\n" not in message
    assert "got " in message
    assert "allowed" in message
    return message


# --- presets --------------------------------------------------------------------------------------------


def test_presets_are_listed() -> None:
    """The presets are those of the paper's figures, of marks and of policies, in alphabetical order."""
    assert list_presets() == [
        "digits-admissible",
        "digits-augmentation",
        "digits-flow",
        "digits-fresh",
        "digits-gan",
        "digits-mark-once",
        "digits-marks",
        "digits-policies",
        "digits-synthetic",
        "fig10-left",
        "fig11",
        "fig12",
        "grid-25",
        "mark-drift",
        "memory",
        "mnist-augmentation",
        "mnist-fresh",
        "mnist-synthetic",
        "real-share",
        "rosenbrock",
    ]


def steps(values: tuple[int, ...]) -> list[float]:
    """Ratios of neighbours."""
    return [after / before for before, after in pairwise(values)]


@pytest.mark.reference
def test_fig11_is_the_papers_map() -> None:
    """Three biases by ten geometric steps each way, in 100 dimensions."""
    spec = read_spec("fig11")
    assert isinstance(spec, MapSpec)
    assert spec.sampling_bias == (0.7, 0.85, 1.0)
    assert (spec.dim, spec.panel, spec.effort) == (100, "sampling_bias", Effort(tolerance=0.01, seed=0))
    assert (spec.n_real[0], spec.n_real[-1], len(spec.n_real)) == (100, 1000, 10)
    assert (spec.n_synthetic[0], spec.n_synthetic[-1], len(spec.n_synthetic)) == (100, 10_000, 10)
    assert steps(spec.n_real) == pytest.approx([10 ** (1 / 9)] * 9, rel=0.01)
    assert steps(spec.n_synthetic) == pytest.approx([100 ** (1 / 9)] * 9, rel=0.01)
    assert len(set(spec.cells())) == 300


@pytest.mark.reference
def test_fig12_is_the_papers_map() -> None:
    """Three panels of real samples, over ten biases and ten geometric steps of synthetic ones."""
    spec = read_spec("fig12")
    assert isinstance(spec, MapSpec)
    assert (spec.n_real, spec.panel, spec.dim) == ((100, 250, 1000), "n_real", 100)
    assert spec.sampling_bias == pytest.approx([k / 10 for k in range(1, 11)])
    assert (spec.n_synthetic[0], spec.n_synthetic[-1], len(spec.n_synthetic)) == (10, 10_000, 10)
    assert steps(spec.n_synthetic) == pytest.approx([1000 ** (1 / 9)] * 9, rel=0.03)
    assert spec.effort == Effort(tolerance=0.01, seed=0)


@pytest.mark.reference
def test_memory_is_the_papers_curve() -> None:
    """Unbiased samples of up to 100 models, with 1,000 real and 10,000 synthetic samples."""
    spec = read_spec("memory")
    assert isinstance(spec, CurvesSpec)
    assert (spec.x, spec.y, spec.dim, len(spec.curves)) == ("n_models", "ratio", 100, 1)
    [curve] = spec.curves
    assert curve.x == tuple(map(float, (1, 2, 3, 5, 8, 13, 21, 34, 55, 100)))
    assert curve.cells == tuple(Cell(1000, 10_000, 1.0, n_models=int(k)) for k in curve.x)


@pytest.mark.reference
def test_real_share_is_the_papers_curves() -> None:
    """Five shares without bias and five biases at a tenth, over training sets of up to 100,000."""
    spec = read_spec("real-share")
    assert isinstance(spec, CurvesSpec)
    assert (spec.x, spec.y, spec.dim) == ("n", "squared_w2", 100)
    assert [curve.panel for curve in spec.curves] == ["sampling bias 1"] * 5 + ["10 % real"] * 5
    shares = [1.0, 0.1, 0.03, 0.01, 0.003] + [0.1] * 5
    biases = [1.0] * 6 + [0.97, 0.95, 0.93, 0.9]
    for curve, share, bias in zip(spec.curves, shares, biases, strict=True):
        assert (curve.x[0], curve.x[-1], len(curve.x)) == (1000, 100_000, 9)
        for x, cell in zip(curve.x, curve.cells, strict=True):
            assert cell.n_real + cell.n_synthetic == x
            assert cell.n_real == round(share * x)
            assert (cell.sampling_bias, cell.n_models, cell.dim) == (bias, 1, 100)


@pytest.mark.reference
def test_fig10_left_is_the_papers_loop() -> None:
    """Two biases from two starts each, with 100 fresh and 900 synthetic samples."""
    spec = read_spec("fig10-left")
    assert isinstance(spec, LoopSpec)
    assert (spec.dim, spec.n_generations, spec.n_paths, spec.seed) == (100, 60, 256, 0)
    assert {arm.mixing for arm in spec.arms} == {Mixing.fresh(100, 900)}
    assert [(arm.sampling_bias, arm.initial) for arm in spec.arms] == [
        (1.0, 100), (1.0, 1000), (0.8, 100), (0.8, 1000)
    ]  # fmt: skip


def test_mark_drift_holds_the_three_families() -> None:
    """A mark of 0.05 in a fully synthetic loop, with fixed and with fresh real data."""
    spec = read_spec("mark-drift")
    assert isinstance(spec, LoopSpec)
    assert (spec.dim, spec.n_generations, {arm.mark for arm in spec.arms}) == (10, 40, {0.05})
    assert [arm.mixing for arm in spec.arms] == [
        Mixing.fully_synthetic(1000), Mixing.augmentation(100, 900), Mixing.fresh(100, 900), Mixing.fresh(500, 500)
    ]  # fmt: skip


# --- what is read ---------------------------------------------------------------------------------------


def test_map_has_defaults_and_order() -> None:
    """A map needs its lists alone; its cells run through bias, then n_real, then n_synthetic."""
    spec = parse_spec(BASES["map"])
    assert spec == MapSpec("Admissible region", (10, 20), (0, 30), (0.5, 1.0))
    assert isinstance(spec, MapSpec)
    assert (spec.dim, spec.panel, spec.effort) == (100, "sampling_bias", Effort())
    assert [(cell.sampling_bias, cell.n_real, cell.n_synthetic) for cell in spec.cells()] == [
        (bias, real, synthetic) for bias in (0.5, 1.0) for real in (10, 20) for synthetic in (0, 30)
    ]


def test_effort_is_read() -> None:
    """Precision, budget and seed of a map or of curves stand beside the other keys."""
    effort = {"tolerance": 0.2, "max_paths": 64, "max_generations": 50, "seed": 7}
    for kind in ("map", "curves"):
        spec = parse_spec(BASES[kind] | effort)
        assert isinstance(spec, MapSpec | CurvesSpec)
        assert spec.effort == Effort(0.2, 64, 50, 7)


def test_curves_by_counts_and_by_share() -> None:
    """A curve is given by counts or by a share of all; options that are not its axis hold for each of its cells."""
    by_counts = parse_spec(BASES["curves"] | {"dim": 3})
    assert isinstance(by_counts, CurvesSpec)
    assert by_counts.cells() == [Cell(10, 5, dim=3), Cell(10, 6, dim=3), Cell(9, 5, dim=3)]
    table = {
        "label": "a",
        "panel": "p",
        "n": [10, 20],
        "real_share": 0.5,
        "sampling_bias": 0.9,
        "n_models": 4,
    }
    by_share = parse_spec({"kind": "curves", "x": "n", "y": "n_e", "curves": [table]})
    assert isinstance(by_share, CurvesSpec)
    assert by_share.cells() == [Cell(5, 5, 0.9, 4), Cell(10, 10, 0.9, 4)]
    assert (by_share.curves[0].panel, by_share.curves[0].x) == ("p", (10.0, 20.0))


def test_arms_hold_mixing_and_schedule() -> None:
    """An arm has the mixing's keys beside its own; `all` stands for every generation, a list for a schedule."""
    mixing = {"n_fresh": 4, "n_synthetic": 6, "n_models": "all", "n_kept": "all", "estimator": "grouped"}
    arm = {"label": "a", "sampling_bias": [1.0, 0.5], "initial": "truth", "mark": -0.5} | mixing
    spec = parse_spec({"kind": "loop", "arms": [arm], "seed": 3})
    assert isinstance(spec, LoopSpec)
    grown = Mixing(n_fresh=4, n_synthetic=6, n_models=None, n_kept=None, estimator="grouped")
    assert spec.arms == (Arm("a", grown, (1.0, 0.5), "truth", -0.5),)
    assert (spec.title, spec.dim, spec.n_generations, spec.n_paths, spec.seed) == ("Loops", 100, 40, 256, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_table_is_left_alone(kind: str) -> None:
    """Reading a table takes nothing out of it, so it can be read again."""
    table = copy.deepcopy(BASES[kind]) | {"title": "Mine"}
    before = copy.deepcopy(table)
    first = parse_spec(table)
    assert table == before
    assert parse_spec(table) == first
    assert first.title == "Mine"


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value", "named", "got"),
    [
        ("map", "kind", GONE, "kind", "None"),
        ("map", "kind", "maps", "kind", "'maps'"),
        ("map", "kind", ["map"], "kind", "['map']"),
        ("map", "title", 3, "title", "3"),
        ("curves", "x", 3, "x", "3"),
        ("curves", "x", ["n"], "x", "['n']"),
        ("map", "colour", 1, "map", "'colour'"),
        ("map", "arms", [], "map", "'arms'"),
        ("map", "n_real", GONE, "map", "no n_real"),
        ("map", "n_synthetic", GONE, "map", "no n_synthetic"),
        ("map", "sampling_bias", GONE, "map", "no sampling_bias"),
        ("map", "n_real", [], "n_real", "empty"),
        ("map", "sampling_bias", [], "sampling_bias", "empty"),
        ("map", "n_real", 10, "n_real", "10"),
        ("map", "n_real", "10", "n_real", "'10'"),
        ("map", "n_real", ["10"], "n_real", "'10'"),
        ("map", "n_real", [10.0], "n_real", "10.0"),
        ("map", "n_real", [True], "n_real", "True"),
        ("map", "n_real", [1], "n_real", "1"),
        ("map", "n_real", [10, 10], "n_real", "twice"),
        ("map", "n_synthetic", [-1], "n_synthetic", "-1"),
        ("map", "sampling_bias", ["1"], "sampling_bias", "'1'"),
        ("map", "sampling_bias", [1.2], "sampling_bias", "1.2"),
        ("map", "sampling_bias", [math.nan], "sampling_bias", "nan"),
        ("map", "sampling_bias", [True], "sampling_bias", "True"),
        ("map", "sampling_bias", [1, 1.0], "sampling_bias", "twice"),
        ("map", "panel", "n_synthetic", "panel", "'n_synthetic'"),
        ("map", "panel", 1, "panel", "1"),
        ("map", "dim", 0, "dim", "0"),
        ("map", "dim", "100", "dim", "'100'"),
        ("map", "dim", True, "dim", "True"),
        ("map", "tolerance", 0, "tolerance", "0"),
        ("map", "tolerance", 1.0, "tolerance", "1.0"),
        ("map", "tolerance", "0.1", "tolerance", "'0.1'"),
        ("map", "tolerance", math.nan, "tolerance", "nan"),
        ("map", "tolerance", True, "tolerance", "True"),
        ("map", "max_paths", 8, "max_paths", "8"),
        ("map", "max_generations", 2.5, "max_generations", "2.5"),
        ("map", "seed", -1, "seed", "-1"),
        ("loop", "arms", GONE, "loop", "no arms"),
        ("loop", "arms", [], "arms", "[]"),
        ("loop", "arms", {}, "arms", "{}"),
        ("loop", "arms", ["a"], "arms", "['a']"),
        ("loop", "tolerance", 0.1, "loop", "'tolerance'"),
        ("loop", "n_paths", 2, "n_paths", "2"),
        ("loop", "n_paths", "many", "n_paths", "'many'"),
        ("loop", "n_generations", 0, "n_generations", "0"),
        ("loop", "seed", 0.0, "seed", "0.0"),
        ("loop", "arms.label", GONE, "arms", "no label"),
        ("loop", "arms.label", 1, "label", "1"),
        ("loop", "arms.label", "b", "label", "'b'"),
        ("loop", "arms.n_real", 5, "arms", "'n_real'"),
        ("loop", "arms.n_fresh", "5", "n_fresh", "'5'"),
        ("loop", "arms.n_fresh", True, "n_fresh", "True"),
        ("loop", "arms.n_models", "some", "n_models", "'some'"),
        ("loop", "arms.n_kept", 0, "n_kept", "0"),
        ("loop", "arms.n_subsample", 1, "n_subsample", "1"),
        ("loop", "arms.weight_fresh", -1.0, "weight_fresh", "-1.0"),
        ("loop", "arms.weight_fresh", math.nan, "weight_fresh", "nan"),
        ("loop", "arms.weight_fresh", "1", "weight_fresh", "'1'"),
        ("loop", "arms.estimator", "mean", "estimator", "'mean'"),
        ("loop", "arms.covariance", ["mle"], "covariance", "['mle']"),
        ("loop", "arms.sampling_bias", -0.1, "sampling_bias", "-0.1"),
        ("loop", "arms.sampling_bias", "1", "sampling_bias", "'1'"),
        ("loop", "arms.sampling_bias", [1.0, "1"], "sampling_bias", "'1'"),
        ("loop", "arms.sampling_bias", [], "sampling_bias", "no value"),
        ("loop", "arms.initial", "zero", "initial", "'zero'"),
        ("loop", "arms.initial", 1, "initial", "1"),
        ("loop", "arms.initial", 2.5, "initial", "2.5"),
        ("loop", "arms.mark", "0.1", "mark", "'0.1'"),
        ("loop", "arms.mark", math.inf, "mark", "inf"),
        ("curves", "x", GONE, "curves", "no x"),
        ("curves", "y", GONE, "curves", "no y"),
        ("curves", "y", "w2", "y", "'w2'"),
        ("curves", "y", ["ratio"], "y", "['ratio']"),
        ("curves", "curves", GONE, "curves", "no curves"),
        ("curves", "curves", [], "curves", "[]"),
        ("curves", "panel", "a", "curves", "'panel'"),
        ("curves", "curves.label", GONE, "curves", "no label"),
        ("curves", "curves.label", "b", "label", "b"),
        ("curves", "curves.dim", 3, "curves", "'dim'"),
        ("curves", "curves.n_synthetic", GONE, "curves", "no n_synthetic"),
        ("curves", "curves.n_synthetic", 5, "n_synthetic", "5"),
        ("curves", "curves.n_synthetic", ["5"], "n_synthetic", "'5'"),
        ("curves", "curves.n_real", [10], "n_real", "[10]"),
        ("curves", "curves.n_real", GONE, "curves", "n_synthetic"),
        ("curves", "curves.real_share", 0.1, "curves", "real_share"),
        ("curves", "curves.n", 100, "curves", "n, n_real"),
        ("curves", "curves.sampling_bias", 2, "sampling_bias", "2"),
        ("curves", "curves.n_models", 0, "n_models", "0"),
    ],
)  # fmt: skip
def test_refusals_name_the_key(kind: str, key: str, value: Any, named: str, got: str) -> None:
    """What a table gets wrong is one line with the key, what was got, and what is allowed."""
    message = refusal(changed(kind, key, value))
    assert message.startswith(f"{named}: got ")
    assert got in message.removeprefix(f"{named}: got ").split("allowed")[0]


@pytest.mark.parametrize("x", ["real_share", "label", "colour"])
def test_axis_must_be_known(x: str) -> None:
    """A curves spec over what is no axis is refused, whatever its curves hold."""
    message = refusal(changed("curves", "x", x))
    assert repr(x) in message
    assert "n_models, sampling_bias" in message


@pytest.mark.parametrize("real_share", ["0.1", 1.5, math.nan, True, [0.1]])
def test_real_share_must_be_a_share(real_share: object) -> None:
    """The share of a curve is one number from 0 to 1."""
    curve = {"label": "a", "n": [100], "real_share": real_share}
    message = refusal({"kind": "curves", "x": "n", "y": "ratio", "curves": [curve]})
    assert message.startswith(f"real_share: got {real_share!r}")


def test_unknown_keys_list_the_known() -> None:
    """A misspelt key is answered with all keys that its table may have."""
    assert "n_real, n_synthetic, sampling_bias, dim, panel, tolerance" in refusal(
        changed("map", "n_reel", [1])
    )
    assert "n_fresh, n_fixed, n_synthetic, n_models, n_kept" in refusal(changed("loop", "arms.n_real", 3))
    assert "n, real_share, n_real, n_synthetic, n_models" in refusal(changed("curves", "curves.share", 3))


def test_same_label_may_stand_in_two_panels() -> None:
    """Curves of different panels may share a name, those of one panel may not."""
    curve = {"label": "a", "n_real": 10, "n_synthetic": [5]}
    table = {"kind": "curves", "x": "n_synthetic", "y": "ratio"}
    spec = parse_spec(table | {"curves": [curve | {"panel": "p"}, curve | {"panel": "q"}]})
    assert isinstance(spec, CurvesSpec)
    assert len(spec.curves) == 2
    assert "twice" in refusal(table | {"curves": [curve, curve]})


# --- files ----------------------------------------------------------------------------------------------


def test_file_is_read_like_its_table(tmp_path: Path) -> None:
    """A TOML file gives the spec of its table; a refusal begins with the file's name."""
    path = tmp_path / "mine.toml"
    path.write_text('kind = "map"\nn_real = [10, 20]\nn_synthetic = [0, 30]\nsampling_bias = [0.5, 1.0]\n')
    assert read_spec(str(path)) == parse_spec(BASES["map"])
    path.write_text('kind = "map"\nn_real = [1]\nn_synthetic = [0]\nsampling_bias = [1.0]\n')
    with pytest.raises(InputError, match=r"^.*mine\.toml: n_real: got 1, allowed"):
        read_spec(str(path))


@pytest.mark.parametrize("text", ["kind = ", "kind = map", "[map\n", "a = 1\na = 2\n", "= 3"])
def test_invalid_toml_tells_where(tmp_path: Path, text: str) -> None:
    """What is no TOML is refused with file, reason and place."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]*mine\.toml: not valid TOML: [^\n]*(line|end of)[^\n]*$"):
        read_spec(str(path))


def test_not_utf8_is_said(tmp_path: Path) -> None:
    """A file in another encoding is refused as such."""
    path = tmp_path / "mine.toml"
    path.write_bytes('title = "é"'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_spec(str(path))


def test_unknown_names_list_the_presets(tmp_path: Path) -> None:
    """A name that is neither preset nor file, or a folder, is answered with the presets."""
    for name in ("fig13", str(tmp_path / "none.toml"), str(tmp_path)):
        with pytest.raises(InputError) as caught:
            read_spec(name)
        assert str(caught.value).startswith(f"spec: got {name!r} (")
        assert ", ".join(list_presets()) in str(caught.value)


# --- whatever a table holds -----------------------------------------------------------------------------

_KEYS = sorted(
    {"kind", "title", "dim", "panel", "x", "y", "tolerance", "max_paths", "max_generations", "seed"}
    | {"n_generations", "n_paths", "label", "initial", "mark", "n", "real_share", "n_real", "sampling_bias"}
    | {"arms", "curves", *Mixing.__dataclass_fields__}
)
_WORDS = ["all", "data", "truth", "pooled", "mle", "loop", "map", "curves", "n", "ratio", "n_real"]
_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.sampled_from(_WORDS)
    | st.text(max_size=5)
)
_JSON = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged_tables(draw: st.DrawFn) -> dict[str, Any]:
    """Valid tables with up to three values put in or taken out, at the top or in an arm or curve."""
    table = copy.deepcopy(BASES[draw(st.sampled_from(sorted(BASES)))])
    for _ in range(draw(st.integers(0, 3))):
        rows = [row for key in ("arms", "curves") for row in _dicts(table.get(key))]
        place = draw(st.sampled_from([table, *rows]))
        key = draw(st.sampled_from(_KEYS) | st.text(max_size=3))
        place[key] = draw(_JSON)
        if draw(st.integers(0, 4)) == 0:
            del place[key]
    return table


def _dicts(value: object) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(damaged_tables() | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), _JSON, max_size=5))
def test_tables_give_a_spec_or_a_refusal(table: dict[str, Any]) -> None:
    """Whatever a table holds, it gives a spec of plain finite values or one line that says what is amiss."""
    try:
        spec = parse_spec(table)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = [json.dumps(asdict(spec), allow_nan=False)]
        assert isinstance(spec.title, str)
        assert isinstance(spec, LoopSpec | TrainedLoopSpec) or all(
            isinstance(cell, Cell) for cell in spec.cells()
        )
    assert len(lines) == 1
