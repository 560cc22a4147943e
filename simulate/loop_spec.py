"""What a loop of trained generators is to do, as a value: read from TOML, checked once, written beside the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, final

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.classifier import ClassifierSpec
from poolproof.simulate.fields import read_fields
from poolproof.simulate.flaggers import MarkFlags
from poolproof.simulate.generator import AbstractGenerator
from poolproof.simulate.generators import read_generator
from poolproof.simulate.mixing import Mixing, bias_schedule
from poolproof.simulate.policies import AbstractPolicy, KeepAll, read_policy
from poolproof.simulate.real_data import LAWS, DataSpec

MOST_SAMPLES: Final = 1_000_000
"""Samples that a generation is measured by at most."""

MOST_SEEDS: Final = 1000

MIXING_KEYS: Final = (
    "n_fresh",
    "n_fixed",
    "n_synthetic",
    "n_models",
    "n_kept",
    "n_subsample",
    "weight_fresh",
    "weight_fixed",
    "weight_synthetic",
)


@final
@dataclass(frozen=True)
class MarkSpec:
    """The mark of a loop. Which arms write it is said there; every arm is searched for it.

    Attributes:
        scheme: `presence` (images of 8 x 8 pixels and more), `spread` (64 and more), the name of a public payload
            (256 and more), or `shift` for points: each moves along the first coordinate.
        amplitude: of `presence` in grey levels, root mean square; of `shift` in units of the data.
        seed: the key is made from it, so that a loop can be repeated.
        level: images with a p-value below it count as detected alone.
    """

    scheme: str = "presence"
    amplitude: float | int = 4.0
    seed: int = 0
    level: float | int = 0.01

    def __post_init__(self) -> None:
        check_range("amplitude", self.amplitude, 0.0, 1e6, above=True)
        check_count("seed", self.seed, least=0)
        check_range("level", self.level, 0.0, 1.0, above=True)


@final
@dataclass(frozen=True)
class MeasureSpec:
    """How generations are measured.

    Attributes:
        features: `classifier` (of a small network trained on the real supply), `identity` (the values themselves), or
            an embedder such as `clip:MODEL/FILE` or `forensic`.
        n_samples: samples drawn of each generation to be measured; None takes as many as the reference has, at
            most 10,000. Distances of different numbers do not compare.
        k: nearest neighbour that sets the radii of precision and recall.
        trained_accuracy: whether a classifier is trained on each generation's samples and tested on real images.
        classifier: options of both classifiers.
    """

    features: str = "classifier"
    n_samples: int | None = None
    k: int = 5
    trained_accuracy: bool = False
    classifier: ClassifierSpec = field(default_factory=ClassifierSpec)

    def __post_init__(self) -> None:
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples, least=10)
            if self.n_samples > MOST_SAMPLES:
                raise InputError(f"n_samples: got {self.n_samples}, allowed up to {MOST_SAMPLES:,}; lower it")
        check_count("k", self.k, least=1)


@final
@dataclass(frozen=True)
class EffectiveSizeSpec:
    """The real-only curve, of the first arm's generator, by which distances are told as numbers of real samples.

    Attributes:
        n_real: sizes of the real sets that a model each is trained on.
        last: generations at the end of a loop whose distances are averaged as its limit.
    """

    n_real: tuple[int, ...]
    last: int = 3

    def __post_init__(self) -> None:
        for n in self.n_real:
            check_count("n_real", n, least=2)
        if len(set(self.n_real)) < max(2, len(self.n_real)):
            raise InputError(f"n_real: got {list(self.n_real)}, allowed two different sizes or more")
        check_count("last", self.last, least=1)


@final
@dataclass(frozen=True)
class TrainedArm:
    """One of the loops that a `TrainedLoopSpec` compares.

    Attributes:
        label: its name. A part before a colon groups arms on the page.
        mixing: what each generation from the second on trains on.
        generator: what is trained.
        sampling_bias: in (0, 1]; one value, or one per generation of which the last holds on: that of the samples
            drawn from this generation, to be measured and to be trained on.
        n_initial: real samples of the first model; None takes the real data of the mixing or, without any, as many
            as there are synthetic samples later.
        warm_start: whether a generation goes on from the weights of the one before.
        mark_share: share of synthetic samples that the mark is written into, in [0, 1].
        mark_generations: generations whose samples are marked when they are trained on; None marks those of all.
        policy: what it does to each generation's pool.
        is_measured_real_only: whether this is a point of the real-only curve, not a loop.
    """

    label: str
    mixing: Mixing
    generator: AbstractGenerator
    sampling_bias: float | int | tuple[float | int, ...] = 1.0
    n_initial: int | None = None
    warm_start: bool = False
    mark_share: float | int = 0.0
    mark_generations: tuple[int, ...] | None = None
    policy: AbstractPolicy = field(default_factory=KeepAll)
    is_measured_real_only: bool = False

    def __post_init__(self) -> None:
        for bias in bias_schedule(self.sampling_bias):
            check_range("sampling_bias", float(bias), 0.0, 1.0, above=True)
        check_range("mark_share", self.mark_share, 0.0, 1.0)
        if self.n_initial is not None:
            check_count("n_initial", self.n_initial, least=2)
        for generation in self.mark_generations or ():
            check_count("mark_generations", generation, least=1)

    def bias(self, generation: int) -> float:
        """The sampling bias of a generation's samples, counted from 1."""
        biases = bias_schedule(self.sampling_bias)
        return float(biases[min(generation - 1, len(biases) - 1)])

    def marks(self, generation: int) -> bool:
        """Whether samples of a generation are marked when they are trained on."""
        return self.mark_share > 0 and (self.mark_generations is None or generation in self.mark_generations)

    @property
    def first_size(self) -> int:
        """Real samples of generation 1."""
        mixing = self.mixing
        return self.n_initial or mixing.n_fixed + mixing.n_fresh or mixing.n_synthetic

    def options(self) -> dict[str, Any]:
        """All that decides what the loop gives, as JSON; the label is left out."""
        return {
            "mixing": self.mixing.options(),
            "generator": describe(self.generator),
            "sampling_bias": self.sampling_bias,
            "n_initial": self.first_size,
            "warm_start": self.warm_start,
            "mark_share": self.mark_share,
            "mark_generations": self.mark_generations,
            "policy": describe(self.policy),
        }


@final
@dataclass(frozen=True)
class TrainedLoopSpec:
    """Loops of trained generators side by side, for several seeds.

    Attributes:
        title: of the page.
        data: the real data.
        arms: the loops.
        n_generations: generations to run.
        seeds: one independent repetition each; all arms of a seed share their real data.
        measure: how generations are measured.
        mark: the mark that is searched for, and written where an arm says so; None for none.
        effective_size: the real-only curve; None for none.
    """

    title: str
    data: DataSpec
    arms: tuple[TrainedArm, ...]
    n_generations: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    mark: MarkSpec | None = None
    effective_size: EffectiveSizeSpec | None = None

    def __post_init__(self) -> None:
        check_count("n_generations", self.n_generations, least=1)
        for seed in self.seeds:
            check_count("seeds", seed, least=0)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds: got {list(self.seeds)}, allowed one or more, all different")
        labels = [arm.label for arm in self.arms]
        for label in labels:
            if not label.strip() or labels.count(label) > 1:
                raise InputError(f"label: got {label!r}, allowed different names that are not empty in arms")
        if self.effective_size is not None and self.effective_size.last >= self.n_generations:
            raise InputError(
                f"effective_size.last: got {self.effective_size.last} of {self.n_generations} generations, allowed "
                "fewer, as the first learns from real data alone; lower it, or raise n_generations"
            )
        points = self.data.kind in LAWS
        if points and self.measure.features != "identity":
            raise InputError(
                f"measure.features: got {self.measure.features!r}, allowed 'identity' for points"
            )
        for arm in self.arms:
            flags = getattr(arm.policy, "flags", None)
            if isinstance(flags, MarkFlags) and (self.mark is None or self.mark.scheme == "shift"):
                raise InputError(
                    f"policy.flags: got 'mark' in {arm.label!r}, allowed with a mark of images; add a table [mark]"
                )
            late = [each for each in arm.mark_generations or () if each >= self.n_generations]
            if late:
                raise InputError(
                    f"mark_generations: got {late[0]} in {arm.label!r}, allowed 1 to {self.n_generations - 1}: samples "
                    "of later generations are trained on by none; raise n_generations"
                )
            if arm.mark_share and self.mark is None:
                raise InputError(
                    f"mark_share: got {arm.mark_share} in {arm.label!r} without a mark, allowed 0; add a table [mark]"
                )
        if self.mark is not None and (self.mark.scheme == "shift") != points:
            allowed = "'shift' for points" if points else "presence, spread or a public payload for images"
            raise InputError(f"mark.scheme: got {self.mark.scheme!r}, allowed {allowed}")

    @property
    def has_policies(self) -> bool:
        """Whether any arm does more than keep everything."""
        return any(not isinstance(arm.policy, KeepAll) for arm in self.arms)

    def real_only(self) -> tuple[TrainedArm, ...]:
        """The points of the real-only curve, as arms of one generation, of the first arm's generator."""
        if self.effective_size is None:
            return ()
        generator = self.arms[0].generator
        return tuple(
            TrainedArm(f"{n} real alone", Mixing(n_fresh=n), generator, is_measured_real_only=True)
            for n in self.effective_size.n_real
        )

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON."""
        return {
            "title": self.title,
            "n_generations": self.n_generations,
            "seeds": list(self.seeds),
            "data": asdict(self.data),
            "measure": asdict(self.measure),
            "mark": None if self.mark is None else asdict(self.mark),
            "effective_size": None if self.effective_size is None else asdict(self.effective_size),
            "arms": [{"label": arm.label, **arm.options()} for arm in self.arms],
        }


def describe(value: object) -> dict[str, Any]:
    """The options of a generator or policy as JSON, with the name of its class as `kind`."""
    options: dict[str, Any] = {"kind": type(value).__name__}
    for each in fields(value):  # pyright: ignore[reportArgumentType]
        held = getattr(value, each.name)
        if hasattr(held, "__dataclass_fields__"):
            options[each.name] = describe(held)
        elif isinstance(held, (bool, int, float, str, tuple)) or held is None:
            options[each.name] = list(held) if isinstance(held, tuple) else held
        elif not callable(held):
            raise InputError(
                f"{type(value).__name__}.{each.name}: got {type(held).__name__}, allowed numbers, texts and "
                "dataclasses, which name the folder of what they give"
            )
    return options


_LOOP_KEYS: Final = (
    "title", "data", "generator", "arms", "n_generations", "seeds", "measure", "mark", "effective_size"
)  # fmt: skip


@final
@dataclass(frozen=True)
class _ArmKeys:
    """The keys of a table headed [[arms]]; the class of what comes of it is `TrainedArm`."""

    label: str
    n_fresh: int = 0
    n_fixed: int = 0
    n_synthetic: int = 0
    n_models: int | Literal["all"] = 1
    n_kept: int | Literal["all"] = 1
    n_subsample: int | None = None
    weight_fresh: float | int = 1.0
    weight_fixed: float | int = 1.0
    weight_synthetic: float | int = 1.0
    sampling_bias: float | int | tuple[float | int, ...] = 1.0
    n_initial: int | None = None
    warm_start: bool = False
    mark_share: float | int = 0.0
    mark_generations: tuple[int, ...] | None = None
    policy: Mapping[str, Any] | None = None
    generator: Mapping[str, Any] | None = None


def parse_trained_loop(table: Mapping[str, Any]) -> TrainedLoopSpec:
    """The spec that a table describes.

    Raises:
        InputError: an unknown or missing key, or a value of a wrong kind or out of range.
    """
    for key in table:
        if key not in _LOOP_KEYS:
            raise InputError(f"loop: got unknown key {key!r}, allowed {', '.join(_LOOP_KEYS)}")
    for key in ("data", "generator", "arms"):
        if key not in table:
            raise InputError(f"loop: got no {key}, allowed keys are {', '.join(_LOOP_KEYS)}; add it")
    arms = table["arms"]
    if not isinstance(arms, list) or not arms:
        raise InputError(f"arms: got {arms!r:.60}, allowed one table or more, each headed [[arms]]")
    title = table.get("title", "Loops")
    if not isinstance(title, str):
        raise InputError(f"title: got {title!r:.60}, allowed a text")
    seeds = table.get("seeds", 3)
    options: dict[str, Any] = {"n_generations": table.get("n_generations", 8)}
    if "measure" in table:
        options["measure"] = read_fields(MeasureSpec, table["measure"], "measure")
    if "mark" in table:
        options["mark"] = read_fields(MarkSpec, table["mark"], "mark")
    if "effective_size" in table:
        options["effective_size"] = read_fields(EffectiveSizeSpec, table["effective_size"], "effective_size")
    return TrainedLoopSpec(
        title=title,
        data=read_fields(DataSpec, table["data"], "data"),
        arms=tuple(_parse_arm(arm, table["generator"]) for arm in arms),
        seeds=read_seeds(seeds),
        **options,
    )


def read_seeds(value: object) -> tuple[int, ...]:
    """Seeds from a number of them, which counts from 0, or a list.

    Raises:
        InputError: neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        if value > MOST_SEEDS:
            raise InputError(f"seeds: got {value}, allowed up to {MOST_SEEDS}; lower it")
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return tuple(value)
    raise InputError(f"seeds: got {value!r:.60}, allowed a number from 1, or a list of whole numbers")


def _parse_arm(table: object, shared: object) -> TrainedArm:
    keys = read_fields(_ArmKeys, table, "arms")
    mixing = {name: getattr(keys, name) for name in MIXING_KEYS}
    mixing |= {name: None for name in ("n_models", "n_kept") if mixing[name] == "all"}
    generator = shared
    if keys.generator is not None:  # options of the arm replace those that all arms share
        if not isinstance(shared, Mapping):
            raise InputError(f"generator: got {shared!r:.60}, allowed a table headed [generator]")
        same = keys.generator.get("kind", shared.get("kind")) == shared.get("kind")
        generator = {**(shared if same else {}), **keys.generator}
    try:
        return TrainedArm(
            label=keys.label,
            mixing=Mixing(**mixing),
            generator=read_generator(generator),
            policy=KeepAll() if keys.policy is None else read_policy(keys.policy),
            **{
                name: getattr(keys, name)
                for name in ("sampling_bias", "n_initial", "warm_start", "mark_share", "mark_generations")
            },
        )
    except InputError as error:
        raise InputError(f"arms {keys.label!r}: {error}") from error
