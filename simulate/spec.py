"""What a simulation is to do, as a value: read from TOML, checked once, written beside the results."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final, get_args

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_dim, check_range
from poolproof.simulate.gaussian import Start
from poolproof.simulate.grid import Cell, Effort
from poolproof.simulate.loop_spec import TrainedLoopSpec, parse_trained_loop
from poolproof.simulate.mixing import SOURCES, Covariance, Estimator, Mixing, bias_schedule

PRESETS: Final = Path(__file__).with_name("presets")
"""Folder of the specs that come with the package."""

PANELS: Final = ("sampling_bias", "n_real")
X_AXES: Final = ("n", "n_real", "n_synthetic", "n_models", "sampling_bias")
Y_AXES: Final = ("squared_w2", "ratio", "n_e")


@final
@dataclass(frozen=True)
class Arm:
    """One of the loops that a `LoopSpec` compares.

    Attributes:
        label: its name, unlike that of the others.
        mixing: what each generation trains on.
        sampling_bias: one value in [0, 1], or one per generation.
        initial: `data`, `truth`, or the number of real samples of the first model.
        mark: what a watermark adds to each synthetic sample along one axis, in standard deviations of the real
            data; 0 adds nothing.
    """

    label: str
    mixing: Mixing
    sampling_bias: float | int | tuple[float | int, ...] = 1.0
    initial: Start | int = "data"
    mark: float | int = 0.0

    def __post_init__(self) -> None:
        check_range("mark", self.mark, -math.inf, math.inf)
        bias_schedule(self.sampling_bias)
        if not isinstance(self.initial, str):
            check_count("initial", self.initial, least=2)
        elif self.initial not in ("data", "truth"):
            raise InputError(f"initial: got {self.initial!r}, allowed data, truth or a number of samples")


@final
@dataclass(frozen=True)
class LoopSpec:
    """Gaussian loops side by side, generation by generation.

    Attributes:
        title: of the page.
        arms: the loops.
        dim: dimensions.
        n_generations: generations to run.
        n_paths: independent repetitions of each loop, 3 or more.
        seed: of all randomness; every arm starts from the same stream.
    """

    title: str
    arms: tuple[Arm, ...]
    dim: int = 100
    n_generations: int = 40
    n_paths: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_dim(self.dim)
        check_count("n_generations", self.n_generations, least=1)
        check_count("n_paths", self.n_paths, least=3)
        check_count("seed", self.seed, least=0)
        _check_labels([arm.label for arm in self.arms], "arms")


@final
@dataclass(frozen=True)
class MapSpec:
    """The map of n_e / n_real over every combination of three lists.

    Attributes:
        title: of the page.
        n_real: new real samples per generation.
        n_synthetic: synthetic samples per generation.
        sampling_bias: lambda.
        dim: dimensions.
        panel: what differs between the pictures, `sampling_bias` or `n_real`; the other one is an axis.
        effort: precision and seed.
    """

    title: str
    n_real: tuple[int, ...]
    n_synthetic: tuple[int, ...]
    sampling_bias: tuple[float | int, ...]
    dim: int = 100
    panel: str = "sampling_bias"
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        if self.panel not in PANELS:
            raise InputError(f"panel: got {self.panel!r}, allowed {', '.join(PANELS)}; choose one")
        for name in ("n_real", "n_synthetic", "sampling_bias"):
            values = getattr(self, name)
            if not values:
                raise InputError(f"{name}: got an empty list, allowed one value or more")
            twice = [value for position, value in enumerate(values) if value in values[:position]]
            if twice:
                raise InputError(f"{name}: got {twice[0]} twice, allowed different ones; leave one out")
        self.cells()

    def cells(self) -> list[Cell]:
        """The loops of the map, ordered by bias, n_real and n_synthetic."""
        return [
            Cell(real, synthetic, bias, dim=self.dim)
            for bias in self.sampling_bias
            for real in self.n_real
            for synthetic in self.n_synthetic
        ]


@final
@dataclass(frozen=True)
class CurveSpec:
    """One curve of a `CurvesSpec`.

    Attributes:
        label: its name in its panel.
        panel: the picture it belongs to.
        x: places along the axis.
        cells: one loop for each.
    """

    label: str
    panel: str
    x: tuple[float, ...]
    cells: tuple[Cell, ...]


@final
@dataclass(frozen=True)
class CurvesSpec:
    """Limits of fresh-data loops along one of their options.

    Attributes:
        title: of the page.
        x: the option along the axis; `n` is the size of the whole training set.
        y: what is told: `squared_w2`, `ratio` or `n_e`.
        curves: the curves.
        dim: dimensions.
        effort: precision and seed.
    """

    title: str
    x: str
    y: str
    curves: tuple[CurveSpec, ...]
    dim: int = 100
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        if self.x not in X_AXES:
            raise InputError(f"x: got {self.x!r}, allowed {', '.join(X_AXES)}; choose one")
        if self.y not in Y_AXES:
            raise InputError(f"y: got {self.y!r}, allowed {', '.join(Y_AXES)}; choose one")
        _check_labels([f"{curve.panel}: {curve.label}" for curve in self.curves], "curves")

    def cells(self) -> list[Cell]:
        """The loops of all curves, one after the other."""
        return [cell for curve in self.curves for cell in curve.cells]


GaussianSpec = LoopSpec | MapSpec | CurvesSpec
"""What the exact Gaussian engine computes."""

Spec = GaussianSpec | TrainedLoopSpec

_EFFORT: Final = tuple(Effort.__dataclass_fields__)


def list_presets() -> list[str]:
    """Names of the specs that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_spec(name: str) -> Spec:
    """The spec of a preset's name, or of a TOML file.

    Raises:
        InputError: neither a preset nor a readable file, an unknown key, a missing one, or a value out of range.
    """
    path = PRESETS / f"{name}.toml" if name in list_presets() else Path(name)
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(
            f"spec: got {name!r} ({reason}), allowed a TOML file or one of {', '.join(list_presets())}"
        ) from error
    try:
        return parse_spec(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not valid TOML: {error}") from error
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def parse_spec(table: Mapping[str, Any]) -> Spec:
    """The spec that a table describes.

    Raises:
        InputError: see `read_spec`.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"kind: got {kind!r}, allowed {', '.join(KINDS)}; choose one")
    options = {key: value for key, value in table.items() if key != "kind"}
    return KINDS[kind](options)


def _parse_loop(options: dict[str, Any]) -> LoopSpec | TrainedLoopSpec:
    if "generator" in options or "data" in options:
        return parse_trained_loop(options)
    _check_keys(
        "loop", options, ("title", "arms", "dim", "n_generations", "n_paths", "seed"), required=["arms"]
    )
    arms = []
    known = (*Mixing.__dataclass_fields__, "label", "sampling_bias", "initial", "mark")
    for table in _tables("arms", options.pop("arms")):
        _check_keys("arms", table, known, required=["label"], lists=["sampling_bias"])
        own = {key: table.pop(key) for key in ("label", "sampling_bias", "initial", "mark") if key in table}
        for key in ("n_models", "n_kept"):  # TOML has no null; "all" stands for every generation so far
            if table.get(key) == "all":
                table[key] = None
        if isinstance(own.get("sampling_bias"), list):
            own["sampling_bias"] = tuple(own["sampling_bias"])
        arms.append(Arm(mixing=Mixing(**table), **own))
    return LoopSpec(title=options.pop("title", "Loops"), arms=tuple(arms), **options)


def _parse_map(options: dict[str, Any]) -> MapSpec:
    axes = ("n_real", "n_synthetic", "sampling_bias")
    _check_keys("map", options, ("title", *axes, "dim", "panel", *_EFFORT), required=axes, lists=axes)
    effort = _effort(options)
    lists = {name: _values(name, options.pop(name)) for name in axes}
    return MapSpec(title=options.pop("title", "Admissible region"), effort=effort, **lists, **options)


def _parse_curves(options: dict[str, Any]) -> CurvesSpec:
    known = ("title", "x", "y", "curves", "dim", *_EFFORT)
    _check_keys("curves", options, known, required=["x", "y", "curves"])
    effort, dim = _effort(options), options.pop("dim", 100)
    if options["x"] not in X_AXES:
        raise InputError(f"x: got {options['x']!r}, allowed {', '.join(X_AXES)}; choose one")
    tables = _tables("curves", options.pop("curves"))
    curves = [_curve(table, options["x"], dim) for table in tables]
    title = options.pop("title", "Limits")
    return CurvesSpec(title=title, curves=tuple(curves), dim=dim, effort=effort, **options)


def _curve(table: dict[str, Any], x: str, dim: int) -> CurveSpec:
    options = ("n", "real_share", "n_real", "n_synthetic", "n_models", "sampling_bias")
    _check_keys("curves", table, ("label", "panel", *options), required=["label", x], lists=[x])
    places = _values(x, table[x])
    if not places:
        raise InputError(f"{x}: got an empty list, allowed one value or more; add one or drop the curve")
    cells = []
    for place in places:
        row = {key: table[key] for key in options if key in table} | {x: place}
        if ("n" in row) != ("real_share" in row) or ("n" in row) == ("n_real" in row):
            raise InputError(
                f"curves: got {', '.join(sorted(row))}, allowed n with real_share, or n_real with n_synthetic"
            )
        if "n" in row:
            mixing = Mixing.from_real_share(row.pop("n"), row.pop("real_share"))
            row |= {"n_real": mixing.n_fresh, "n_synthetic": mixing.n_synthetic}
        elif "n_synthetic" not in row:
            raise InputError("n_synthetic: got none, allowed a count; say 0 for real data alone")
        cells.append(Cell(**row, dim=dim))
    return CurveSpec(table["label"], table.get("panel", ""), tuple(map(float, places)), tuple(cells))


KINDS: Final[Mapping[str, Callable[[dict[str, Any]], Spec]]] = {
    "loop": _parse_loop,
    "map": _parse_map,
    "curves": _parse_curves,
}
"""The closed list of kinds of specs."""


def _effort(options: dict[str, Any]) -> Effort:
    return Effort(**{name: options.pop(name) for name in _EFFORT if name in options})


def _tables(name: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise InputError(f"{name}: got {value!r}, allowed one table or more, each headed [[{name}]]")
    return [dict(each) for each in value]


def _values(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"{name}: got {value!r}, allowed a list such as [100, 1000]")
    return tuple(value)


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "estimator": get_args(Estimator),
    "covariance": get_args(Covariance),
    "initial": get_args(Start),
    "n_models": ("all",),
    "n_kept": ("all",),
}
_TEXTS: Final = ("title", "label", "panel", "x", "y")
_NUMBERS: Final = (
    "sampling_bias",
    "real_share",
    "tolerance",
    "mark",
    *(f"weight_{name}" for name in SOURCES),
)


def _check_keys(
    where: str,
    table: Mapping[str, Any],
    known: Sequence[str],
    *,
    required: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> None:
    """Raises InputError at an unknown or missing key, or a value of a kind that its key cannot have."""
    for key in table:
        if key not in known:
            raise InputError(f"{where}: got unknown key {key!r}, allowed {', '.join(known)}")
    for key in required:
        if key not in table:
            raise InputError(f"{where}: got no {key}, allowed keys are {', '.join(known)}; add it")
    for key, value in table.items():
        if key not in ("arms", "curves"):
            for each in value if isinstance(value, list) and key in lists else [value]:
                _check_kind(key, each)


def _check_kind(key: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    choices = _CHOICES.get(key, ())
    if key in _TEXTS:
        fits, allowed = isinstance(value, str), ["a text"]
    elif key in _NUMBERS:
        fits, allowed = is_number, ["a number"]
    elif key in ("estimator", "covariance"):
        fits, allowed = value in choices, list(choices)
    else:
        fits = (is_number and isinstance(value, int)) or (isinstance(value, str) and value in choices)
        allowed = ["a whole number", *choices]
    if not fits:
        raise InputError(f"{key}: got {value!r}, allowed {' or '.join(allowed)}")


def _check_labels(labels: Sequence[str], name: str) -> None:
    if not labels:
        raise InputError(f"{name}: got none, allowed one or more")
    for label in labels:
        if not isinstance(label, str):
            raise InputError(f"label: got {label!r}, allowed a text in {name}")
        if labels.count(label) > 1:
            raise InputError(f"label: got {label!r} twice, allowed different names in {name}")
