"""The U-Net of the diffusion model, for images of 8 to 64 pixels, as a function of named weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from poolproof.errors import InputError
from poolproof.simulate.denoiser import AbstractDenoiser

if TYPE_CHECKING:
    import torch

GROWTH: Final[Mapping[int, tuple[int, ...]]] = {8: (1, 2), 16: (1, 2, 2), 32: (1, 2, 2), 64: (1, 2, 2, 2)}
"""Channels at each size that the network works at, from the full one down by halves, in multiples of its width."""

PADDED: Final[Mapping[int, int]] = {8: 8, 16: 16, 28: 32, 32: 32, 64: 64}
"""Size of the images, and the size the network works at: 28 cannot be halved three times."""

HEAD: Final = 32
"""Channels per attention head, where the width is that large."""


@final
@dataclass(frozen=True)
class UNet(AbstractDenoiser):
    """The U-Net of diffusers with a class embedding, and attention at its smallest size.

    Attributes:
        shape: of an image: h w or h w c.
        width: channels at full size, a multiple of 8.
        n_blocks: residual blocks at each size.
        n_classes: 0 without classes. One more class stands for none.
        precision: `float32` or `bfloat16`.
        compile: whether torch.compile translates it.

    Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020, appendix B; output and second
        convolutions start at 0 as in Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis", 2021.
    """

    shape: tuple[int, ...]
    width: int
    n_blocks: int
    n_classes: int
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        square = len(self.shape) in (2, 3) and self.shape[0] == self.shape[1] and self.shape[0] in PADDED
        if not (square and self.shape[2:] in ((), (1,), (3,))):
            raise InputError(
                f"images: got shape {self.shape}, allowed for the U-Net squares of "
                f"{', '.join(map(str, PADDED))} pixels with 1 or 3 channels; resize or pad them"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by name."""
        return {name: tuple(value.shape) for name, value in self._module().named_parameters()}

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Random weights, all in one vector; each residual block starts as the identity, and the output as 0."""
        import torch

        shapes = self.shapes()
        parts = []
        for name, shape in shapes.items():
            kind, _, layer = name.rpartition(".")
            part = torch.zeros(shape, dtype=torch.float32)
            if name == "class_embedding.weight":
                part.normal_(0, 1, generator=generator)
            elif layer == "weight" and len(shape) == 1:  # a normalisation
                part.fill_(1)
            elif layer == "weight" and not kind.endswith(("conv_out", "conv2", "to_out.0")):
                reach = math.prod(shape[1:]) ** -0.5
                part.uniform_(-reach, reach, generator=generator)
            parts.append(part.flatten())
        return torch.cat(parts)

    def predict(
        self,
        weights: dict[str, torch.Tensor],
        noisy: torch.Tensor,
        times: torch.Tensor,
        conditions: torch.Tensor,
    ) -> torch.Tensor:
        """The target at noisy images, padded to the size the network works at and cropped back."""
        import torch

        size = self.shape[0]
        margin = (PADDED[size] - size) // 2
        images = noisy.view(len(noisy), size, size, self._channels()).permute(0, 3, 1, 2)
        images = torch.nn.functional.pad(images, (margin,) * 4)
        call = _call(self._key(), self.compile)
        with torch.autocast(noisy.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            found = call(weights, images, times, conditions)
        found = found[:, :, margin : margin + size, margin : margin + size]
        return found.permute(0, 2, 3, 1).reshape(len(noisy), -1).float()

    def _channels(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else 1

    def _key(self) -> tuple[int, int, int, int, int]:
        return PADDED[self.shape[0]], self._channels(), self.width, self.n_blocks, self.n_classes

    def _module(self) -> torch.nn.Module:
        return _module(*self._key())


@functools.lru_cache(maxsize=8)
def _module(size: int, channels: int, width: int, n_blocks: int, n_classes: int) -> torch.nn.Module:
    """The network without weights: on the meta device nothing is stored, and no random state is touched."""
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel

    growth = GROWTH[size]
    with torch.device("meta"):
        return UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=n_blocks,
            block_out_channels=tuple(width * factor for factor in growth),
            down_block_types=("DownBlock2D",) * len(growth),
            up_block_types=("UpBlock2D",) * len(growth),
            norm_num_groups=math.gcd(width, 32),
            attention_head_dim=math.gcd(width, HEAD),
            num_class_embeds=n_classes + 1,
        )


@functools.lru_cache(maxsize=8)
def _call(key: tuple[int, int, int, int, int], compiled: bool) -> Callable[..., Any]:
    """The network as a function of its weights; translated once for all generations of a loop."""
    import torch

    module = _module(*key)
    options: dict[str, Any] = {"return_dict": False}
    # a lambda, since checks of types around a function would be translated with it
    return (torch.compile if compiled else _same)(
        lambda weights, images, times, conditions: torch.func.functional_call(
            module, weights, (images, times), options | {"class_labels": conditions}
        )[0]
    )


def _same(call: Callable[..., Any]) -> Callable[..., Any]:
    return call
