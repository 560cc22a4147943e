"""The two networks of the style-based GAN, as functions of named weights. No global random state is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np
from jaxtyping import Float32

if TYPE_CHECKING:
    import torch

START: Final = 4
"""Height and width of the learned constant that images grow from."""

FULL_WIDTH: Final = 16
"""Resolution up to which layers have all channels; each doubling beyond halves them."""

GROUP: Final = 4
"""Images whose spread one value of the minibatch deviation tells."""

SLOPE: Final = 0.2
"""Of the leaky rectifier below 0."""

Weights = Mapping[str, "torch.Tensor"]
"""Tensors by name."""


@final
@dataclass(frozen=True)
class Layout:
    """What fixes the shapes of all weights.

    Attributes:
        height: of an image, in pixels.
        width: of an image, in pixels.
        n_channels: of an image.
        n_classes: classes of images; 0 without labels.
        latent_dim: length of latent vectors and of styles.
        n_mapping: layers of the mapping network.
        n_features: channels of the widest layers.
    """

    height: int
    width: int
    n_channels: int
    n_classes: int
    latent_dim: int
    n_mapping: int
    n_features: int

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Doubling from `START` to the first that holds an image; images are cut out of its middle."""
        doublings = max(0, math.ceil(math.log2(max(self.height, self.width) / START)))
        return tuple(START * 2**i for i in range(doublings + 1))

    def features(self, resolution: int) -> int:
        """Channels of the layers at a resolution."""
        return max(1, self.n_features * FULL_WIDTH // max(FULL_WIDTH, resolution))


def generator_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Shapes of the generator's weights by name."""
    d = layout.latent_dim
    conditions = d if layout.n_classes else 0
    shapes: dict[str, tuple[int, ...]] = {"embed": (layout.n_classes, d)} if conditions else {}
    for i in range(layout.n_mapping):
        shapes |= {f"map{i}.weight": (d, d + (conditions if i == 0 else 0)), f"map{i}.bias": (d,)}
    before = layout.features(START)
    shapes["constant"] = (before, START, START)
    for resolution in layout.resolutions:
        n = layout.features(resolution)
        layers = [("a", before, n, 3), ("b", n, n, 3), ("image", n, layout.n_channels, 1)]
        for name, entering, leaving, size in layers[1 if resolution == START else 0 :]:
            layer = f"{resolution}.{name}"
            shapes |= {
                f"{layer}.weight": (leaving, entering, size, size),
                f"{layer}.bias": (leaving,),
                f"{layer}.style.weight": (entering, d),
                f"{layer}.style.bias": (entering,),
            }
            if name != "image":
                shapes[f"{layer}.noise.bias"] = (1,)
        before = n
    return shapes


def discriminator_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Shapes of the discriminator's weights by name."""
    n = layout.features(layout.resolutions[-1])
    shapes: dict[str, tuple[int, ...]] = {"enter.weight": (n, layout.n_channels, 1, 1), "enter.bias": (n,)}
    for resolution in layout.resolutions[:0:-1]:
        after = layout.features(resolution // 2)
        shapes |= {
            f"{resolution}.a.weight": (n, n, 3, 3),
            f"{resolution}.a.bias": (n,),
            f"{resolution}.b.weight": (after, n, 3, 3),
            f"{resolution}.b.bias": (after,),
            f"{resolution}.skip.weight": (after, n, 1, 1),
        }
        n = after
    shapes |= {
        "last.weight": (n, n + 1, 3, 3),
        "last.bias": (n,),
        "dense.weight": (n, n * START * START),
        "dense.bias": (n,),
        "leave.weight": (1, n),
        "leave.bias": (1,),
    }
    return shapes | ({"projection": (layout.n_classes, n)} if layout.n_classes else {})


def initial_weights(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> torch.Tensor:
    """Weights all in one vector: normal draws of variance 1, scales of styles 1, other biases 0.

    Layers divide by the root of the number of their inputs when they are used, so that one learning rate suits all.

    Source: Karras et al., "Progressive growing of GANs", 2018, section 4.1.
    """
    import torch

    parts = []
    for name, shape in shapes.items():
        part = torch.zeros(shape, dtype=torch.float32)
        if name.endswith("style.bias"):
            part.fill_(1)
        elif not name.endswith(("bias", "projection")):
            part.normal_(generator=generator)
        parts.append(part.flatten())
    return torch.cat(parts)


def map_latents(weights: Weights, latents: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Styles w of latent vectors z.

    Args:
        weights: of the generator.
        latents: normal draws, one per row.
        classes: of each row; read only where the weights have an embedding of classes.

    Source: Karras et al., "A style-based generator architecture for GANs", 2019, section 2; classes as in
        Karras et al., "Training generative adversarial networks with limited data", 2020, appendix D.
    """
    import torch

    state = _normalize(latents)
    if "embed" in weights:
        state = torch.cat([state, _normalize(weights["embed"][classes])], dim=1)
    i = 0
    while f"map{i}.weight" in weights:
        state = _activate(_dense(weights, f"map{i}", state))
        i += 1
    return state


def modulated_convolution(
    images: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, *, demodulate: bool
) -> torch.Tensor:
    """Each image convolved with its own kernel: the weight, its inputs scaled by the image's style.

    With `demodulate` the kernel is then divided by its norm per output. Both are linear, so images and results are
    scaled instead of kernels, and one convolution serves all images.

    Args:
        images: n c h w.
        weight: k c s s with odd s; borders are filled with 0.
        style: scale of each input channel, n c.
        demodulate: whether outputs get unit variance for inputs of unit variance.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020, equations 1 to 3.
    """
    import torch

    found = torch.nn.functional.conv2d(
        images * style[:, :, None, None], weight, padding=weight.shape[-1] // 2
    )
    if demodulate:
        norms = style.square() @ weight.square().sum(dim=(2, 3)).T
        found = found * torch.rsqrt(norms + 1e-8)[:, :, None, None]
    return found


def render(
    weights: Weights, layout: Layout, styles: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Images n c h w of styles n d, with pixels in [-1, 1].

    A hyperbolic tangent bounds pixels: without it flat black or white would have to be met exactly.

    Args:
        weights: of the generator.
        layout: its shapes.
        styles: from `map_latents`.
        generator: draws the noise that enters each layer.

    Source: Karras et al., StyleGAN2, 2020, figures 2c and 7 (output skips).
    """
    import torch

    state = weights["constant"].expand(len(styles), -1, -1, -1)
    image = None
    for resolution in layout.resolutions:
        if resolution > START:
            state = _layer(weights, f"{resolution}.a", _double(state), styles, generator)
        state = _layer(weights, f"{resolution}.b", state, styles, generator)
        name = f"{resolution}.image"
        weight = _scaled(weights[f"{name}.weight"])
        style = _dense(weights, f"{name}.style", styles)
        part = modulated_convolution(state, weight, style, demodulate=False)
        part = part + weights[f"{name}.bias"][:, None, None]
        image = part if image is None else _double(image) + part
    assert isinstance(image, torch.Tensor)
    top, left = _margins(layout)
    return torch.tanh(image[:, :, top : top + layout.height, left : left + layout.width])


def score(weights: Weights, layout: Layout, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Logit that each image is a training image, by a residual network and the projection of its class.

    Args:
        weights: of the discriminator.
        layout: its shapes.
        images: n c h w.
        classes: of each image; read only where the weights have an embedding of classes.

    Source: Karras et al., StyleGAN2, 2020, figure 7 (residual); Miyato and Koyama, "cGANs with projection
        discriminator", 2018, equation 5.
    """
    import torch
    from torch.nn.functional import avg_pool2d, conv2d, pad

    top, left = _margins(layout)
    full = layout.resolutions[-1]
    edges = (left, full - layout.width - left, top, full - layout.height - top)
    state = pad(images, edges) if any(edges) else images
    state = _activate(_convolve(weights, "enter", state))
    for resolution in layout.resolutions[:0:-1]:
        short = conv2d(avg_pool2d(state, 2), _scaled(weights[f"{resolution}.skip.weight"]))
        state = avg_pool2d(_activate(_convolve(weights, f"{resolution}.a", state)), 2)
        state = _activate(_convolve(weights, f"{resolution}.b", state))
        state = (state + short) * math.sqrt(0.5)
    state = torch.cat([state, minibatch_deviation(state)], dim=1)
    state = _activate(_convolve(weights, "last", state))
    state = _activate(_dense(weights, "dense", state.flatten(1)))
    logits = _dense(weights, "leave", state)[:, 0]
    if "projection" in weights:
        logits = logits + (weights["projection"][classes] * state).sum(dim=1)
    return logits


def minibatch_deviation(images: torch.Tensor) -> torch.Tensor:
    """Standard deviation over a group of images, averaged over channels and pixels, as a channel n 1 h w.

    Groups have `GROUP` images where that divides their number, and else all of them.

    Source: Karras et al., "Progressive growing of GANs", 2018, section 3.
    """
    n, _, height, width = images.shape
    size = GROUP if n % GROUP == 0 else n
    groups = images.reshape(n // size, size, -1)
    spread = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=1)
    return spread.repeat_interleave(size)[:, None, None, None].expand(n, 1, height, width)


def normal(n: int, d: int, random: torch.Generator) -> torch.Tensor:
    """Latent vectors, n d."""
    import torch

    return torch.randn((n, d), generator=random, dtype=torch.float32)


def to_tensors(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """The weights as tensors, copied to aligned memory: kernels may round differently at other alignments."""
    import torch

    return {name: torch.tensor(value, device=device) for name, value in arrays.items()}


def to_vector(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    """The weights all in one vector, in the order of the shapes."""
    import torch

    return torch.cat([torch.tensor(arrays[name]).flatten() for name in shapes])


def to_arrays(tensors: Weights) -> dict[str, Float32[np.ndarray, " *_"]]:
    """The weights as arrays of their own memory."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


def _layer(
    weights: Weights, name: str, state: torch.Tensor, styles: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """One modulated convolution with noise, bias and rectifier."""
    import torch

    style = _dense(weights, f"{name}.style", styles)
    state = modulated_convolution(state, _scaled(weights[f"{name}.weight"]), style, demodulate=True)
    n, _, height, width = state.shape
    noise = torch.randn((n, 1, height, width), generator=generator, dtype=torch.float32).to(state.device)
    return _activate(state + weights[f"{name}.noise.bias"] * noise + weights[f"{name}.bias"][:, None, None])


def _margins(layout: Layout) -> tuple[int, int]:
    full = layout.resolutions[-1]
    return (full - layout.height) // 2, (full - layout.width) // 2


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    import torch

    return vectors * torch.rsqrt(vectors.square().mean(dim=1, keepdim=True) + 1e-8)


def _scaled(weight: torch.Tensor) -> torch.Tensor:
    return weight * math.prod(weight.shape[1:]) ** -0.5


def _dense(weights: Weights, name: str, state: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import linear

    return linear(state, _scaled(weights[f"{name}.weight"]), weights[f"{name}.bias"])


def _convolve(weights: Weights, name: str, state: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import conv2d

    weight = _scaled(weights[f"{name}.weight"])
    return conv2d(state, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)


def _activate(state: torch.Tensor) -> torch.Tensor:
    """A leaky rectifier; its factor makes up for what it takes from the variance."""
    from torch.nn.functional import leaky_relu

    return leaky_relu(state, SLOPE) * math.sqrt(2)


def _double(images: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
