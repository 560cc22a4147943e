"""The table of generators, by the names that specs use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

from poolproof.errors import InputError
from poolproof.simulate.diffusion import DiffusionGenerator, DiffusionSpec
from poolproof.simulate.fields import read_fields
from poolproof.simulate.flow import FlowGenerator, FlowSpec
from poolproof.simulate.gan import GanGenerator, GanSpec
from poolproof.simulate.generator import AbstractGenerator
from poolproof.simulate.gmm import GmmGenerator, GmmSpec
from poolproof.simulate.normal import NormalGenerator, NormalSpec, make_normal
from poolproof.simulate.sims import NegativeGuidanceGenerator, NegativeGuidanceSpec


@final
@dataclass(frozen=True)
class Kind:
    """A kind of generator.

    Attributes:
        spec: the class of its options.
        generator: its class.
        make: a generator of these options, not fitted.
        fits: what it learns from: `images`, `points` or both.
        needs_classes: whether a sampling bias below 1 needs classes.
    """

    spec: type
    generator: type[AbstractGenerator]
    make: Callable[[Any], AbstractGenerator]
    fits: tuple[str, ...]
    needs_classes: bool


GENERATORS: Final[Mapping[str, Kind]] = {
    "diffusion": Kind(DiffusionSpec, DiffusionGenerator, DiffusionGenerator, ("images",), True),
    "negative-guidance": Kind(
        NegativeGuidanceSpec, NegativeGuidanceGenerator, NegativeGuidanceGenerator, ("images",), True
    ),
    "gan": Kind(GanSpec, GanGenerator, GanGenerator, ("images",), False),
    "flow": Kind(FlowSpec, FlowGenerator, FlowGenerator, ("images", "points"), False),
    "gmm": Kind(GmmSpec, GmmGenerator, GmmGenerator, ("points",), False),
    "normal": Kind(NormalSpec, NormalGenerator, make_normal, ("points",), False),
}
"""The closed list of generators."""


def read_generator(table: object) -> AbstractGenerator:
    """The generator, not fitted, that a table describes by its `kind` and options.

    Raises:
        InputError: an unknown kind or key, or a value that the generator refuses.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"generator: got {table!r:.60}, allowed a table headed [generator]")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in GENERATORS:
        raise InputError(f"generator.kind: got {kind!r:.60}, allowed {', '.join(GENERATORS)}; choose one")
    options = {key: value for key, value in table.items() if key != "kind"}
    return GENERATORS[kind].make(read_fields(GENERATORS[kind].spec, options, "generator"))


def kind_of(generator: AbstractGenerator) -> Kind | None:
    """The row of the table that a generator belongs to; None for one that is not in the table."""
    return next((kind for kind in GENERATORS.values() if kind.generator is type(generator)), None)


def with_device(generator: AbstractGenerator, device: str) -> AbstractGenerator:
    """The same generator to be trained elsewhere; those that only know the processor stay as they are.

    Args:
        generator: not fitted.
        device: `cpu`, `cuda` or `auto`.
    """
    spec: Any = getattr(generator, "spec", None)
    if spec is None:
        return generator
    whole: Any = generator
    if isinstance(spec, NegativeGuidanceSpec):
        spec = replace(spec, diffusion=replace(spec.diffusion, device=device))
    elif hasattr(spec, "device"):
        spec = replace(spec, device=device)
    return replace(whole, spec=spec)
