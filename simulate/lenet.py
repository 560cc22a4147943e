"""The network of the classifier, as functions of named weights. No global random state is used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_GRID: Final = 8
"""Images are halved until a side is below this: 8 and 15 pixels become 4 and 7."""


def shift_images(pixels: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """The images moved by up to so many pixels each way; what comes in repeats the edge."""
    import torch

    if most == 0:
        return pixels
    n, _, height, width = pixels.shape
    moves = torch.randint(-most, most + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1)
    places = torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
    return pixels.permute(0, 2, 3, 1)[places].permute(0, 3, 1, 2).contiguous()


def _n_halvings(height: int, width: int) -> int:
    """Stages of the network: each halves the sides, until the shorter one is below `_GRID`."""
    return max(1, math.floor(math.log2(min(height, width) / _GRID)) + 1)


def weight_shapes(
    shape: tuple[int, int, int], width: int, n_features: int, n_classes: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by name.

    Args:
        shape: height, width and channels of an image.
        width: channels of the first layer; deeper ones have twice as many.
        n_features: units of the last layer but one.
        n_classes: scores.
    """
    rows, columns, channels = shape
    shapes: dict[str, tuple[int, ...]] = {}
    n_halvings = _n_halvings(rows, columns)
    for stage in range(n_halvings):
        n_out = width if stage == 0 else 2 * width
        shapes[f"stage{stage}.weight"] = (n_out, channels, 3, 3)
        shapes[f"stage{stage}.bias"] = (n_out,)
        channels = n_out
    shapes["last.weight"] = (2 * width, channels, 3, 3)
    shapes["last.bias"] = (2 * width,)
    n_inputs = 2 * width * (rows >> n_halvings) * (columns >> n_halvings)
    return shapes | {
        "features.weight": (n_features, n_inputs),
        "features.bias": (n_features,),
        "class.weight": (n_classes, n_features),
        "class.bias": (n_classes,),
    }


def initial_weights(
    shapes: dict[str, tuple[int, ...]], generator: torch.Generator, device: str
) -> dict[str, torch.Tensor]:
    """Random weights that keep the size of signals; biases of 0."""
    import torch

    weights = {}
    for name, shape in shapes.items():
        weight = torch.zeros(shape, dtype=torch.float32)
        if name.endswith("weight"):
            gain = 1.0 if name.startswith("class") else 2.0
            weight.normal_(0, math.sqrt(gain / math.prod(shape[1:])), generator=generator)
        weights[name] = weight.to(device).requires_grad_()
    return weights


def hidden(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The features: convolutions with halving in between, then all places of the grid at once."""
    from torch.nn.functional import conv2d, linear, max_pool2d, relu

    state = pixels
    stage = 0
    while (name := f"stage{stage}") + ".weight" in weights:
        state = relu(conv2d(state, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))
        state = max_pool2d(state, 2)
        stage += 1
    state = relu(conv2d(state, weights["last.weight"], weights["last.bias"], padding=1))
    return relu(linear(state.flatten(1), weights["features.weight"], weights["features.bias"]))


def scores(weights: dict[str, torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """The logarithm of each class's probability, up to a constant of the image."""
    from torch.nn.functional import linear

    return linear(features, weights["class.weight"], weights["class.bias"])
