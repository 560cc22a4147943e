"""Regeneration: an image is noised and denoised by a diffusion model, which removes many marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from poolproof.errors import InputError
from poolproof.watermark.attacks import Apply

STRENGTH: Final = 0.1
"""Share of the model's noise that is put in and taken out."""

_STEPS: Final = 50


def load_regenerator(path: Path | str, *, strength: float | int = STRENGTH) -> Apply:
    """An attack that sends images through a diffusion model kept on this machine.

    A model of pixels (such as `DDPMPipeline` or `DDIMPipeline` with an unconditional network of three channels) works
    on squares of its own size, laid edge to edge over the image and flush with its ends. A model of latents is
    used as image-to-image pipeline with an empty prompt. Nothing is fetched, and weights are read from
    safetensors alone.

    Args:
        path: folder that a diffusers pipeline was saved to.
        strength: share of the noise, in (0, 1].

    Raises:
        InputError: no pipeline there, one that cannot do this, or a strength out of range.

    Source: Zhao et al., "Invisible image watermarks are provably removable using generative AI", 2024; DDIM of Song
        et al., 2021, takes the noise out.
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength: got {strength}, allowed above 0 to 1; 0.1 hardly changes a picture")
    if not (Path(path) / "model_index.json").is_file():
        raise InputError(
            f"regenerate: got {str(path)!r}, allowed a folder that a diffusers pipeline was saved to; save one"
        )
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            path, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, AttributeError, ImportError, KeyError, TypeError) as error:
        # a folder from elsewhere can be wrong in many ways, and diffusers has an error of its own for each
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"regenerate: got {str(path)!r} ({reason}), allowed a whole diffusers pipeline; save it again"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline, "vae"):
        return _latent(pipeline, strength)
    unet = getattr(pipeline, "unet", None)
    if hasattr(pipeline, "vqvae") or not isinstance(unet, UNet2DModel) or not _takes_pixels(unet.config):
        raise InputError(
            f"regenerate: got {type(pipeline).__name__}, allowed a pipeline with a `vae`, or with a "
            "square `unet` of pixels in three channels and no classes; choose another"
        )
    return _pixelwise(unet, pipeline.scheduler.config, strength)


def _takes_pixels(config: Any) -> bool:
    """Whether a network takes and gives squares of three channels, and nothing beside."""
    size = config["sample_size"]
    square = isinstance(size, int) or (isinstance(size, list | tuple) and len(set(size)) == 1)
    unconditional = config.get("class_embed_type") is None and config.get("num_class_embeds") is None
    return square and unconditional and config["in_channels"] == config["out_channels"] == 3


def _latent(pipeline: Any, strength: float | int) -> Apply:
    import torch
    from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image
    from PIL import Image

    try:
        image_to_image = AutoPipelineForImage2Image.from_pipe(pipeline)
    except ValueError as error:
        raise InputError(
            f"regenerate: got {type(pipeline).__name__}, allowed a pipeline from image to image; choose another"
        ) from error
    image_to_image.set_progress_bar_config(disable=True)

    def apply(pixels: UInt8[np.ndarray, "_ _ 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "_ _ 3"]:
        height, width = pixels.shape[:2]
        factor = 8 * max(1, getattr(image_to_image, "vae_scale_factor", 8) // 8)
        size = (max(factor, width // factor * factor), max(factor, height // factor * factor))
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        made = image_to_image(
            prompt="",
            image=image,
            strength=strength,
            num_inference_steps=max(_STEPS, round(1 / strength)),
            guidance_scale=1.0,
            generator=generator,
        ).images[0]
        return np.asarray(made.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))

    return apply


def _pixelwise(unet: Any, scheduler_config: Any, strength: float | int) -> Apply:
    import torch
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    side = unet.config["sample_size"]
    side = side if isinstance(side, int) else side[0]
    scheduler: Any = DDIMScheduler.from_config(scheduler_config)
    n_train = scheduler.config["num_train_timesteps"]
    scheduler.set_timesteps(min(n_train, max(_STEPS, round(1 / strength))))
    steps = [step for step in scheduler.timesteps.tolist() if step <= strength * n_train] or [
        int(scheduler.timesteps[-1])
    ]

    def apply(pixels: UInt8[np.ndarray, "_ _ 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "_ _ 3"]:
        height, width = pixels.shape[:2]
        if min(height, width) < side:
            raise InputError(
                f"regenerate: got {height}x{width} pixels, allowed from {side} a side for this model; enlarge it"
            )
        corners = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
        squares = np.stack([pixels[top : top + side, left : left + side] for top, left in corners])
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        out = pixels.copy()
        with torch.inference_mode():
            for start in range(0, len(squares), 16):
                sample = torch.from_numpy(squares[start : start + 16]).permute(0, 3, 1, 2).float() / 127.5 - 1
                noise = torch.randn(sample.shape, generator=generator)
                sample = scheduler.add_noise(sample, noise, torch.tensor([steps[0]]))
                for step in steps:
                    sample = scheduler.step(unet(sample, step).sample, step, sample).prev_sample
                made = ((sample.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
                for (top, left), square in zip(corners[start : start + 16], made, strict=True):
                    out[top : top + side, left : left + side] = square
        return out

    return apply


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin that cover a length, the last flush with its end."""
    return sorted({*range(0, length - side + 1, side), length - side})
