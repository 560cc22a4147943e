"""Models of the detection benchmark, trained on the spot and kept in a folder: generators and a backbone.

All are small, since they must be trained in minutes on one processor core: a diffusion model (a UNet of diffusers on
blocks of 2 x 2 pixels), two convolutional autoencoders whose last component stands for that of a latent generator, and
a residual network of timm that learns the labels of photographs and digits and then serves as an embedding model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float32, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import nn

from poolproof.files import replace_file

BACKBONE: Final = "resnet10t"
"""Architecture of the embedding model, a name of timm."""

SIDE: Final = 32
"""Of the backbone's input in pixels."""

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
_SCHEDULE: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def keep_model(path: Path, model: nn.Module, train: Callable[[Any], None]) -> nn.Module:
    """Return the model with the weights that lie at the path, or trained and then written there."""
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        train(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as new:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, new)
    return model.eval().requires_grad_(False)


def fit(
    model: nn.Module,
    loss: Callable[[Int[np.ndarray, " b"]], torch.Tensor],
    n: int,
    steps: int,
    *,
    batch: int,
    rate: float,
    decay: float = 0.0,
    rng: np.random.Generator,
) -> None:
    """Trains the model on random rows of n; the weights become their running mean with this decay.

    Args:
        model: to train, in place.
        loss: of the rows it is given.
        n: training images.
        steps: of AdamW, the rate rising over the first 50 and falling along half a cosine.
        batch: rows of a step.
        rate: peak learning rate.
        decay: of the running mean; 0 keeps the last weights.
        rng: draws the rows.
    """
    model.train()
    mean = [value.detach().clone() for value in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    lately = []
    for step in range(1, steps + 1):
        fall = 0.5 + 0.5 * np.cos(np.pi * step / steps)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / 50) * fall
        value = loss(rng.integers(n, size=batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        lately = [*lately[-49:], value.item()]
        for kept, weight in zip(mean, model.parameters(), strict=True):
            kept.lerp_(weight.detach(), 1 - min(decay, (1 + step) / (10 + step)))
        if step % 100 == 0 or step == steps:
            print(f"  step {step} of {steps}, loss {np.mean(lately):.4f}", flush=True)
    with torch.no_grad():
        for kept, weight in zip(mean, model.parameters(), strict=True):
            weight.copy_(kept)


class Diffusion(nn.Module):
    """A UNet over blocks of 2 x 2 pixels: a quarter of the places, four times the channels.

    Args:
        side: of an image in pixels, a multiple of 4.
        channels: of an image.
    """

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.shape = (channels, side, side)
        self.unet = UNet2DModel(
            sample_size=side // 2,
            in_channels=4 * channels,
            out_channels=4 * channels,
            layers_per_block=1,
            block_out_channels=(32, 64),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, noisy: torch.Tensor, times: Any) -> torch.Tensor:
        """Return the velocity at a noisy image."""
        blocks = nn.functional.pixel_unshuffle(noisy, 2)
        return nn.functional.pixel_shuffle(self.unet(blocks, times).sample, 2)

    def train_on(
        self, images: UInt8[np.ndarray, "n h w c"], steps: int, *, batch: int = 32, rng: np.random.Generator
    ) -> None:
        """Trains on images."""
        scheduler = DDIMScheduler(**_SCHEDULE)

        def loss(rows: Int[np.ndarray, " b"]) -> torch.Tensor:
            clean = to_tensor(images[rows])
            noise = torch.randn_like(clean)
            times: Any = torch.randint(1000, (len(clean),))
            found = self(scheduler.add_noise(clean, noise, times), times)
            return nn.functional.mse_loss(found, scheduler.get_velocity(clean, noise, times))

        fit(self, loss, len(images), steps, batch=batch, rate=2e-3, decay=0.99, rng=rng)

    def draw(self, n: int, *, steps: int = 20) -> UInt8[np.ndarray, "n h w c"]:
        """Return new images, by DDIM."""
        scheduler = DDIMScheduler(**_SCHEDULE, clip_sample=True, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        parts = []
        for start in range(0, n, 250):
            state = torch.randn(min(250, n - start), *self.shape)
            for time in scheduler.timesteps:
                found = self(state, time)
                state = scheduler.step(found, int(time), state).prev_sample  # pyright: ignore
            parts.append(to_pixels(state))
            print(f"  {start + len(state)} of {n} drawn", flush=True)
        return np.concatenate(parts)


class Autoencoder(nn.Module):
    """Halves the image twice, keeps 8 numbers a place, and doubles it twice.

    Args:
        kind: `nearest` repeats pixels and convolves, as the decoders of latent diffusion models do; `transposed` has
            transposed convolutions, as older generators.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind == "nearest":
            self.net = nn.Sequential(
                *_conv(3, 32),
                *_conv(32, 48, stride=2),
                *_conv(48, 64, stride=2),
                nn.Conv2d(64, 8, 1),
                *_conv(8, 64),
                nn.Upsample(scale_factor=2),
                *_conv(64, 48),
                nn.Upsample(scale_factor=2),
                *_conv(48, 32),
                nn.Conv2d(32, 3, 3, padding=1),
            )
        else:
            self.net = nn.Sequential(
                nn.Conv2d(3, 48, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(48, 96, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(96, 8, 3, padding=1),
                nn.Conv2d(8, 96, 3, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(96, 48, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(48, 3, 4, stride=2, padding=1),
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images as they come back."""
        return self.net(images)

    def train_on(self, images: UInt8[np.ndarray, "n h w c"], steps: int, *, rng: np.random.Generator) -> None:
        """Trains on images, half of them mirrored."""

        def loss(rows: Int[np.ndarray, " b"]) -> torch.Tensor:
            clean = to_tensor(images[rows][:, :, :: rng.choice([-1, 1])])
            return nn.functional.l1_loss(self(clean), clean)

        fit(self, loss, len(images), steps, batch=32, rate=3e-3, rng=rng)

    def pass_through(self, images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w c"]:
        """Return what becomes of images whose sides are multiples of 4."""
        parts = [images[start : start + 250] for start in range(0, len(images), 250)]
        return np.concatenate([to_pixels(self(to_tensor(part))) for part in parts])


def _conv(inside: int, outside: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inside, outside, 3, stride=stride, padding=1), nn.SiLU()


def make_backbone(n_classes: int) -> nn.Module:
    """Return the embedding model with its classifier, untrained."""
    import timm

    return timm.create_model(BACKBONE, num_classes=n_classes)


def train_backbone(
    model: nn.Module,
    images: UInt8[np.ndarray, "n h w 3"],
    labels: Int[np.ndarray, " n"],
    steps: int,
    *,
    rng: np.random.Generator,
) -> None:
    """Trains a classifier on images of `SIDE` pixels a side, shifted by up to 3 pixels.

    Args:
        model: to train, in place.
        images: as the loader gives them before it takes off mean and spread.
        labels: from 0.
        steps: of 64 images.
        rng: draws images and shifts.
    """
    edge = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    classes = torch.from_numpy(labels.astype(np.int64))

    def loss(rows: Int[np.ndarray, " b"]) -> torch.Tensor:
        top, left = rng.integers(7, size=2)
        part = edge[rows, top : top + SIDE, left : left + SIDE]
        return nn.functional.cross_entropy(model(normalise(part)), classes[rows], label_smoothing=0.1)

    fit(model, loss, len(images), steps, batch=64, rate=3e-3, rng=rng)


def normalise(images: UInt8[np.ndarray, "n h w 3"]) -> torch.Tensor:
    """Return images as the backbone takes them."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (_MEAN, _STD))
    return ((to_tensor(images) + 1) / 2 - mean) / std


def to_tensor(images: UInt8[np.ndarray, "n h w c"]) -> torch.Tensor:
    """Return images as n c h w in [-1, 1]."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
    return torch.from_numpy(planes / np.float32(127.5) - np.float32(1))


def to_pixels(images: torch.Tensor) -> UInt8[np.ndarray, "n h w c"]:
    """Return n c h w in [-1, 1] as bytes."""
    values: Float32[np.ndarray, "n c h w"] = images.clamp(-1, 1).numpy()
    return np.rint((values.transpose(0, 2, 3, 1) + 1) * 127.5).astype(np.uint8)
