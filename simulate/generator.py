"""What every image generator of a loop can do: learn from images, and draw new ones."""

from __future__ import annotations

import abc

import numpy as np
from jaxtyping import Float, Int, UInt8

Images = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]
"""Pixels in 0..255 as bytes, or in [-1, 1] as floats."""


class AbstractGenerator(abc.ABC):
    """A generator as a value: options before fitting, options and weights after.

    Fitting returns a new value and leaves this one as it is: every generation of a loop starts from scratch.
    """

    @abc.abstractmethod
    def fit(
        self, images: Images, labels: Int[np.ndarray, " n"] | None, *, rng: np.random.Generator
    ) -> AbstractGenerator:
        """A generator fitted to the images from scratch.

        Args:
            images: training images, all of one shape.
            labels: class of each image, from 0; None for a generator without classes.
            rng: all randomness of the fit.
        """

    @abc.abstractmethod
    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Images, Int[np.ndarray, " n"] | None]:
        """New images of the kind (bytes or floats) and shape of the training images, and their labels.

        Args:
            n: number of images.
            sampling_bias: in (0, 1]; 1 samples what was learnt, smaller values trade diversity for quality.
            labels: class of each image; None draws them at the frequencies of the training labels.
            rng: all randomness of the draw.
        """
