"""The networks of the diffusion model, as functions of named weights. No global random state is used."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

if TYPE_CHECKING:
    import torch

EMBEDDING: Final = 128
"""Length of the embedding of noise level and class."""


class AbstractDenoiser(abc.ABC):
    """What a denoiser is: shapes of weights, random weights to begin with, and a prediction from them."""

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name."""

    @abc.abstractmethod
    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Random weights, all in one vector in the order of `shapes`, on the processor."""

    @abc.abstractmethod
    def predict(
        self,
        weights: dict[str, torch.Tensor],
        noisy: torch.Tensor,
        times: torch.Tensor,
        conditions: torch.Tensor,
    ) -> torch.Tensor:
        """The target (image, noise or velocity) at noisy images, in float32.

        Args:
            weights: by name, on the device of the images.
            noisy: images, one per row, pixels in the order rows, columns, channels.
            times: noise level of each image, 0 to the number of levels less 1.
            conditions: class of each image; the number of classes stands for none.
        """


@final
@dataclass(frozen=True)
class Perceptron(AbstractDenoiser):
    """A residual network over all pixels at once, which suits images of about 8 x 8.

    Attributes:
        n_pixels: of an image, all channels together.
        width: units per hidden layer.
        n_blocks: residual blocks.
        n_classes: 0 without classes.
    """

    n_pixels: int
    width: int
    n_blocks: int
    n_classes: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name."""
        return weight_shapes(self.n_pixels, self.width, self.n_blocks, self.n_classes)

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Random weights; see `initial_weights`."""
        return initial_weights(self.shapes(), generator)

    def predict(
        self,
        weights: dict[str, torch.Tensor],
        noisy: torch.Tensor,
        times: torch.Tensor,
        conditions: torch.Tensor,
    ) -> torch.Tensor:
        """The target at noisy images; see `predict` of this module."""
        return predict(weights, noisy, times, conditions)


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A generator of random tensors, seeded from `rng`."""
    import torch

    return torch.Generator().manual_seed(int(rng.integers(2**63)))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch runs on `n` threads inside, and on as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weight_shapes(n_pixels: int, width: int, n_blocks: int, n_classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by name. The class table has one more row, for no class."""
    shapes: dict[str, tuple[int, ...]] = {
        "class": (n_classes + 1, EMBEDDING),
        "time": (EMBEDDING, EMBEDDING),
        "enter.weight": (width, n_pixels),
        "enter.bias": (width,),
    }
    for block in range(n_blocks):
        shapes |= {
            f"block{block}.weight": (width, width),
            f"block{block}.bias": (width,),
            f"block{block}.condition": (width, EMBEDDING),
            f"block{block}.back": (width, width),
        }
    return shapes | {"leave.weight": (n_pixels, width), "leave.bias": (n_pixels,)}


def initial_weights(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> torch.Tensor:
    """Random weights, all in one vector; blocks start as the identity and the output as 0."""
    import torch

    parts = []
    for name, shape in shapes.items():
        part = torch.zeros(shape, dtype=torch.float32)
        if not name.endswith(("bias", "back", "leave.weight")):
            scale = 1.0 if name == "class" else shape[1] ** -0.5
            part.normal_(0, scale, generator=generator)
        parts.append(part.flatten())
    return torch.cat(parts)


def unpack(vector: torch.Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The weights by name, as views of the vector that holds them all."""
    parts = vector.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def predict(
    weights: dict[str, torch.Tensor], noisy: torch.Tensor, times: torch.Tensor, conditions: torch.Tensor
) -> torch.Tensor:
    """The target (image, noise or velocity) at noisy images, by a residual network over all pixels at once.

    Args:
        weights: by name, see `weight_shapes`.
        noisy: images, one per row.
        times: noise level of each image, 0 to the number of levels less 1.
        conditions: row of the class table for each image.
    """
    import torch
    from torch.nn.functional import layer_norm, linear, silu

    half = EMBEDDING // 2
    steps = torch.arange(half, dtype=torch.float32, device=noisy.device)
    frequencies = torch.exp(steps * (-math.log(1000) / half))
    angles = times[:, None].to(torch.float32) * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    condition = silu(linear(waves, weights["time"]) + weights["class"][conditions])
    state = linear(noisy, weights["enter.weight"], weights["enter.bias"])
    size = (state.shape[1],)
    block = 0
    while (name := f"block{block}") + ".weight" in weights:
        inner = linear(layer_norm(state, size), weights[f"{name}.weight"], weights[f"{name}.bias"])
        inner = silu(inner + linear(condition, weights[f"{name}.condition"]))
        state = state + linear(inner, weights[f"{name}.back"])
        block += 1
    return linear(layer_norm(state, size), weights["leave.weight"], weights["leave.bias"])
