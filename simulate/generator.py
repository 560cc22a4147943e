"""What every generator of a loop can do: learn from samples, draw new ones, and be laid down and taken up again."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, UInt8

Samples = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, " n *shape"]
"""Images as bytes, images as floats in [-1, 1], or points of d coordinates as floats."""

OtherSamples = UInt8[np.ndarray, "m h w c"] | Float[np.ndarray, " m *shape"]
"""A second set of samples of the same shape beside the first, of another number."""

Images = Samples

State = Mapping[str, np.ndarray]
"""Arrays by name, of types that safetensors knows."""


class GeneratorDiverged(ArithmeticError):
    """Training or sampling ended in values that are not finite; the loop records a failed generation."""


class AbstractGenerator(abc.ABC):
    """A generator as a value: options before fitting, options and weights after.

    Subclasses are frozen dataclasses. Fitting returns a new value and leaves this one as it is: every generation of a
    loop starts from scratch, unless it is told where to start.
    """

    @abc.abstractmethod
    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> AbstractGenerator:
        """A generator fitted to the samples.

        Args:
            images: training samples, all of one shape.
            labels: class of each sample, from 0; None for a generator without classes.
            weights: of each sample in training, 0 or more; None weighs all alike. Only their ratios count.
            start: a fitted generator of the same options and shape to go on from; None starts from scratch.
            rng: all randomness of the fit.

        Raises:
            InputError: samples, labels or weights that cannot be trained on.
            GeneratorDiverged: the weights became infinite or NaN.
        """

    @abc.abstractmethod
    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, Int[np.ndarray, " n"] | None]:
        """New samples of the kind (bytes or floats) and shape of the training samples, and their labels.

        Args:
            n: number of samples.
            sampling_bias: in (0, 1]; 1 samples what was learnt, smaller values trade diversity for quality.
            labels: class of each sample; None draws them at the frequencies of the training labels.
            rng: all randomness of the draw.

        Raises:
            InputError: the generator was not fitted, or an argument is out of range.
            GeneratorDiverged: samples that are not finite.
        """

    @abc.abstractmethod
    def state(self) -> State:
        """All that was fitted, so that `restore` gives a generator whose samples are the same bytes.

        Raises:
            InputError: the generator was not fitted.
        """

    @abc.abstractmethod
    def restore(self, state: State) -> AbstractGenerator:
        """A generator of these options, fitted as the one that `state` was taken of.

        Raises:
            InputError: arrays are missing or have shapes that these options do not make.
        """
