"""SIMS: a diffusion model that is led away from what a model of its own samples would draw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from jaxtyping import Float, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.diffusion import DiffusionGenerator
from poolproof.simulate.diffusion_spec import DiffusionSpec
from poolproof.simulate.generator import AbstractGenerator, Images, State


@dataclass(frozen=True)
class NegativeGuidanceSpec:
    """Options of SIMS.

    Attributes:
        diffusion: options of both models. Its `n_steps` are the training steps of the two together, so that SIMS
            costs what a diffusion model of these options costs.
        weight: w, 0 or more; 0 samples the base model.
        base_share: in (0, 1); share of the training steps that the base model gets, on the pool. The rest
            fine-tunes a copy of it on its own samples.
        n_auxiliary: samples that the copy is fine-tuned on, 1 or more. They are drawn without guidance.
    """

    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)
    weight: float | int = 0.5
    base_share: float | int = 0.7
    n_auxiliary: int = 1000

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0, 1000)
        check_range("base_share", self.base_share, 0, 1, above=True)
        check_count("n_auxiliary", self.n_auxiliary, least=1)
        if min(self.steps()) < 1:
            raise InputError(
                f"base_share: got {self.base_share}, allowed what leaves each model a step of "
                f"n_steps = {self.diffusion.n_steps}; choose a share nearer 0.5 or more steps"
            )

    def steps(self) -> tuple[int, int]:
        """Training steps of the base model and of its fine-tuned copy."""
        base = round(self.base_share * self.diffusion.n_steps)
        return base, self.diffusion.n_steps - base


@final
@dataclass(frozen=True, eq=False)
class NegativeGuidanceGenerator(AbstractGenerator):
    """Diffusion with negative guidance by a model of the base model's own samples.

    The score sampled with is (1 + w) times that of the base model less w times that of the copy. With a sampling bias
    below 1, classifier-free guidance is applied to each of the two before.

    Attributes:
        spec: options.
        base: the model of the pool; unfitted before.
        auxiliary: the copy fine-tuned on samples of the base model.

    Source: Alemohammad, Humayun, Agarwal, Collomosse and Baraniuk, "Self-improving diffusion models with synthetic
        data", 2024, algorithm 1. The paper trains the copy on top of a full base model; here both share one budget.
    """

    spec: NegativeGuidanceSpec = field(default_factory=NegativeGuidanceSpec)
    base: DiffusionGenerator | None = None
    auxiliary: DiffusionGenerator | None = None

    def fit(
        self,
        images: Images,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> NegativeGuidanceGenerator:
        """A base model fitted to the images, and a copy fitted to its samples.

        The base model takes randomness from `rng` first, and all that it takes alone.
        """
        first = None
        if start is not None:
            if not isinstance(start, NegativeGuidanceGenerator) or start.base is None:
                raise InputError(
                    f"start: got {type(start).__name__}, allowed a fitted NegativeGuidanceGenerator; fit one first"
                )
            first = start.base
        n_base, n_rest = self.spec.steps()
        options = self.spec.diffusion
        base = DiffusionGenerator(replace(options, n_steps=n_base)).fit(
            images, labels, weights=weights, start=first, rng=rng
        )
        drawn, classes = base.sample(self.spec.n_auxiliary, rng=rng)
        auxiliary = DiffusionGenerator(replace(options, n_steps=n_rest)).fit(
            drawn, classes, start=base, rng=rng
        )
        return NegativeGuidanceGenerator(self.spec, base, auxiliary)

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Images, Int[np.ndarray, " n"] | None]:
        """New images, and their labels at the frequencies of the pool's."""
        base, auxiliary = self._fitted()
        return base.sample_against(
            auxiliary.model, self.spec.weight, n, sampling_bias=sampling_bias, labels=labels, rng=rng
        )

    def state(self) -> State:
        """Both models' states, their names led by `base.` and `auxiliary.`."""
        base, auxiliary = self._fitted()
        return {f"base.{name}": value for name, value in base.state().items()} | {
            f"auxiliary.{name}": value for name, value in auxiliary.state().items()
        }

    def restore(self, state: State) -> NegativeGuidanceGenerator:
        """A generator of these options with the two models that the state holds."""
        models = []
        for prefix, n_steps in zip(("base.", "auxiliary."), self.spec.steps(), strict=True):
            part = {
                name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
            }
            models.append(DiffusionGenerator(replace(self.spec.diffusion, n_steps=n_steps)).restore(part))
        return NegativeGuidanceGenerator(self.spec, *models)

    def _fitted(self) -> tuple[DiffusionGenerator, DiffusionGenerator]:
        if self.base is None or self.auxiliary is None:
            raise InputError("generator: not fitted yet; call fit first and go on with what it returns")
        return self.base, self.auxiliary
