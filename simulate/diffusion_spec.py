"""Options of a diffusion model, and the noise that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poolproof.errors import InputError
from poolproof.simulate.device import find_device

TARGETS: Final[Mapping[str, str]] = {"image": "sample", "noise": "epsilon", "velocity": "v_prediction"}
"""What the denoiser predicts, and the schedulers' word for it."""

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "target": tuple(TARGETS),
    "denoiser": ("mlp", "unet"),
    "precision": ("float32", "bfloat16"),
    "device": ("auto", "cpu", "cuda"),
}
"""Options that are one of a few words."""

NETWORK: Final = ("denoiser", "target", "n_timesteps", "width", "n_blocks")
"""Options that say what weights mean; two models of which these agree can lend each other theirs."""


@dataclass(frozen=True)
class DiffusionSpec:
    """Options of a diffusion model. The defaults suit a thousand images of 8 x 8 pixels.

    Attributes:
        n_timesteps: levels of noise in training, 2 or more.
        target: what the denoiser predicts: `image`, `noise` or `velocity`. On a few hundred images the mlp
            comes nearest to their spread with `image`, and keeps further from single ones with `velocity`.
        n_sampling_steps: denoising steps per sample, 1 to `n_timesteps`.
        width: units per hidden layer of the denoiser; of the U-Net, channels at full size, a multiple of 8.
        n_blocks: residual blocks of the denoiser; of the U-Net, at each of its sizes.
        n_steps: training steps.
        batch_size: images per training step, drawn with replacement.
        learning_rate: peak step size of AdamW.
        ema_decay: in [0, 1); share of the running mean of the weights that a step leaves in place. Samples
            use the running mean.
        condition_dropout: in [0, 1); share of training labels that are hidden, which is what guidance needs.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
        denoiser: `mlp`, a residual network over all pixels at once for images of about 8 x 8; or `unet`.
        precision: of the U-Net's products: `float32`, or `bfloat16`, which is faster where the hardware has it
            (much slower on most processors). Weights and sums stay in float32.
        compile: whether torch.compile translates the U-Net: minutes once per process, then faster steps.
        device: `cpu`, `cuda`, or `auto`: the mlp, whose steps are too small to gain, on the processor, and the
            U-Net on a CUDA device if there is one. Only the processor gives the same bytes again.
    """

    n_timesteps: int = 500
    target: str = "image"
    n_sampling_steps: int = 50
    width: int = 256
    n_blocks: int = 3
    n_steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 2e-3
    ema_decay: float = 0.995
    condition_dropout: float = 0.1
    n_threads: int = 1
    denoiser: str = "mlp"
    precision: str = "float32"
    compile: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("n_sampling_steps", "width", "n_blocks", "n_steps", "batch_size", "n_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, allowed 1 or more")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name}: got {getattr(self, name)!r}, allowed {', '.join(allowed)}; choose one"
                )
        if self.n_timesteps < 2:
            raise InputError(f"n_timesteps: got {self.n_timesteps}, allowed 2 or more; 500 is usual")
        if self.n_sampling_steps > self.n_timesteps:
            raise InputError(
                f"n_sampling_steps: got {self.n_sampling_steps}, allowed to n_timesteps = {self.n_timesteps}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate: got {self.learning_rate}, allowed above 0; 0.002 is usual")
        for name in ("ema_decay", "condition_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, allowed from 0 to below 1")
        if self.denoiser == "unet" and self.width % 8:
            raise InputError(f"width: got {self.width}, allowed multiples of 8 for the U-Net; 64 is usual")
        if self.denoiser == "mlp" and self.precision != "float32":
            raise InputError(
                f"precision: got {self.precision}, allowed float32 for denoiser mlp; it is for unet"
            )
        if self.denoiser == "mlp" and self.compile:
            raise InputError("compile: got true, allowed false for denoiser mlp; it is for unet")

    def device_name(self) -> str:
        """The device that `device` comes to on this machine.

        Raises:
            InputError: `cuda` is asked for and not there.
        """
        # the mlp is small: a graphics processor would only wait
        name = "cpu" if self.device == "auto" and self.denoiser == "mlp" else self.device
        return find_device(name)

    def schedule(self) -> dict[str, Any]:
        """Options that the training and the sampling scheduler share."""
        return {
            "num_train_timesteps": self.n_timesteps,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": TARGETS[self.target],
            "clip_sample": True,
            "clip_sample_range": 1.0,
        }
