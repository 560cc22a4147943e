"""From a diffusion model's images back to the initial noise they came from, where latent marks lie.

`sample` makes images from given noise, without further randomness, and `invert` walks the same steps
backwards. For Stable Diffusion pass the marked noise as `latents` to the pipeline itself, and read images
with `invert_pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, Float32

from poolproof.errors import InputError

if TYPE_CHECKING:
    import torch
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

Denoiser = Callable[[Any, Any], Any]
"""A tensor of noisy images and one of their timesteps, to the prediction: a tensor, or an object that holds it
as `sample`, such as a `UNet2DModel` of diffusers returns."""

PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")

_BYSTANDERS: Final = {"safety_checker", "feature_extractor", "image_encoder"}


def sample(
    noise: Float[np.ndarray, "n c h w"],
    model: Denoiser,
    scheduler: Any,
    *,
    n_steps: int = 50,
    batch_size: int = 64,
) -> Float32[np.ndarray, "n c h w"]:
    """Images from the given noise by DDIM sampling without randomness, in the scale of the model's images.

    The pipelines of diffusers for pixels draw their noise themselves; this takes it. Clipping of predicted
    images follows the scheduler's configuration. It cannot be inverted, so leave it off (`clip_sample=False`)
    where the images are good without it.

    Args:
        noise: marked or not, standard normal.
        model: a `UNet2DModel` of diffusers, or any function of noisy images and timesteps.
        scheduler: of diffusers, with the noise levels that the model was trained with; any kind whose
            configuration a `DDIMScheduler` takes.
        n_steps: denoising steps, 1 to the number of the scheduler's noise levels.
        batch_size: images at a time; bounds memory.

    Raises:
        InputError: no such number of steps, or a prediction of another kind.

    Source: Song, Meng and Ermon, "Denoising diffusion implicit models", 2021, equation 12 with sigma = 0.
    """
    ddim = _ddim(scheduler, n_steps)

    def denoise(state: torch.Tensor) -> torch.Tensor:
        for time in ddim.timesteps:
            found = _predict(model, state, int(time))
            step: Any = ddim.step(found, int(time), state)
            state = step.prev_sample
        return state

    return _by_batches(noise, denoise, model, batch_size)


def invert(
    images: Float[np.ndarray, "n c h w"],
    model: Denoiser,
    scheduler: Any,
    *,
    n_steps: int = 50,
    n_refinements: int = 0,
    batch_size: int = 64,
) -> Float32[np.ndarray, "n c h w"]:
    """Noise from which the model makes these images, approximately: standard normal where all goes well.

    Each step of DDIM without randomness is turned round. The exact inverse needs the predicted noise at the
    noisier image, which is what is sought; it is taken at the cleaner one instead, and each refinement takes
    it anew at the last result. The other steps, the other model and lost information (rounding to bytes,
    clipping, compression) add errors that no refinement removes.

    Args:
        images: in the scale of the model's images, as a rule [-1, 1], or the latents of a latent model.
        model: as for `sample`.
        scheduler: as for `sample`. Clipping is ignored.
        n_steps: steps of the inversion; best as many as in sampling, and with the same spacing.
        n_refinements: further evaluations of the model per step, each a step of a fixed-point iteration. It
            converges where the predictions change slowly from step to step. For images that were rounded,
            clipped or compressed 0 is often best: they lie where the model was not trained, and an exact
            inverse magnifies that.
        batch_size: images at a time; bounds memory.

    Raises:
        InputError: no such number of steps, a prediction of another kind, or images that are not finite.

    Source: Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis", 2021, appendix F (inverse
        of DDIM), as used by Wen et al., "Tree-Ring watermarks", 2023; the refinement: Pan et al., "Effective
        real image editing with accelerated iterative diffusion inversion", ICCV 2023.
    """
    if n_refinements < 0:
        raise InputError(f"n_refinements: got {n_refinements}, allowed from 0; 0 is the usual inversion")
    if not np.isfinite(images).all():
        raise InputError("images: got values that are not finite, allowed finite ones; look at the images")
    ddim = _ddim(scheduler, n_steps)
    kind = _prediction(ddim)

    def add_noise(state: torch.Tensor) -> torch.Tensor:
        for time, level, cleaner in reversed(_steps(ddim, n_steps)):
            signal, spread = level**0.5, (1 - level) ** 0.5
            shrink = signal / cleaner**0.5
            noisier = state
            for _ in range(1 + n_refinements):
                found = _as_noise(_predict(model, noisier, time), noisier, kind, signal, spread)
                noisier = shrink * state + (spread - shrink * (1 - cleaner) ** 0.5) * found
            state = noisier
        return state

    return _by_batches(images, add_noise, model, batch_size)


def invert_pipeline(
    images: Float[np.ndarray, "n c h w"],
    pipeline: Any,
    *,
    n_steps: int = 50,
    n_refinements: int = 0,
    batch_size: int = 8,
) -> Float32[np.ndarray, "n d a b"]:
    """Noise from which a pipeline of diffusers makes these images, approximately.

    Pixel pipelines consist of a UNet and a scheduler. Pipelines like `StableDiffusionPipeline` also have an
    autoencoder, a tokenizer and a text encoder; the images are encoded first, and as the prompt is unknown
    the empty one is used, without guidance. Marks go in with

        pipeline(prompt, latents=torch.from_numpy(noise), ...)

    and pixel pipelines, which take no noise, are replaced by `sample(noise, pipeline.unet, ...)`.

    Args:
        images: RGB in [-1, 1], of the size that the pipeline generates.
        pipeline: of one of these two kinds.
        n_steps: steps of the inversion; need not be those of the generation, which may use another sampler
            that ends at the same images, such as DPM-Solver.
        n_refinements: as for `invert`.
        batch_size: images at a time; bounds memory.

    Raises:
        InputError: another kind of pipeline, or as for `invert`.

    Source: Wen et al., "Tree-Ring watermarks", 2023, section 3.4 (empty prompt, guidance 1).
    """
    parts: dict[str, Any] = pipeline.components
    needed = {name for name, part in parts.items() if part is not None} - _BYSTANDERS
    options = {"n_steps": n_steps, "n_refinements": n_refinements, "batch_size": batch_size}
    if images.size and np.abs(images).max() > 1:
        raise InputError(
            f"images: got values in [{images.min():g}, {images.max():g}], allowed [-1, 1]; "
            "from bytes compute pixels / 127.5 - 1"
        )
    if needed == {"unet", "scheduler"}:
        return invert(images, parts["unet"], parts["scheduler"], **options)
    if needed != {"unet", "scheduler", "vae", "text_encoder", "tokenizer"}:
        raise InputError(
            f"pipeline: got one of {', '.join(sorted(needed))}, allowed unet and scheduler, with or without vae, "
            "text_encoder and tokenizer; call encode_latents and invert with a function for other models"
        )
    unet = parts["unet"]
    import torch

    with torch.no_grad():
        condition, _ = pipeline.encode_prompt("", _home(unet)[0], 1, False)

    # a module, so that its device, precision and mode are found and set as for a plain UNet
    class Unprompted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, noisy: torch.Tensor, times: torch.Tensor) -> Any:
            repeated = condition.expand(len(noisy), -1, -1)
            return self.unet(noisy, times, encoder_hidden_states=repeated)

    latents = encode_latents(images, parts["vae"], batch_size=batch_size)
    return invert(latents, Unprompted(), parts["scheduler"], **options)


def encode_latents(
    images: Float[np.ndarray, "n c h w"], vae: Any, *, batch_size: int = 8
) -> Float32[np.ndarray, "n d a b"]:
    """Latents of images in the scale that the diffusion model works in: the mode of the encoder's law.

    Args:
        images: RGB in [-1, 1].
        vae: an `AutoencoderKL` of diffusers.
        batch_size: images at a time; bounds memory.
    """
    shift = vae.config.shift_factor or 0.0

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        _, kind = _home(vae)
        latents = vae.encode(pixels.to(kind)).latent_dist.mode().float()
        return (latents - shift) * vae.config.scaling_factor

    return _by_batches(images, encode, vae, batch_size)


def _ddim(scheduler: Any, n_steps: int) -> DDIMScheduler:
    """A scheduler of its own with the configuration of the given one, set to the steps."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if "beta_schedule" not in scheduler.config:
        raise InputError(
            f"scheduler: got {type(scheduler).__name__}, allowed those of diffusion with noise levels by "
            "beta_schedule; flow matching has no DDIM inversion here"
        )
    # without a word on clipping the given scheduler does none; a DDIMScheduler would by default
    clips = scheduler.config.get("clip_sample", False)
    ddim: Any = DDIMScheduler.from_config(scheduler.config, clip_sample=clips)
    levels = len(ddim.alphas_cumprod)
    if not 1 <= n_steps <= levels:
        raise InputError(
            f"n_steps: got {n_steps}, allowed 1 to {levels} as the model was trained; 50 is usual"
        )
    _prediction(ddim)
    ddim.set_timesteps(n_steps)
    return ddim


def _prediction(ddim: DDIMScheduler) -> str:
    config: Any = ddim.config
    kind = str(config.prediction_type)
    if kind not in PREDICTIONS:
        raise InputError(
            f"scheduler: got the prediction type {kind!r}, allowed {', '.join(PREDICTIONS)}; use such a model"
        )
    return kind


def _steps(ddim: DDIMScheduler, n_steps: int) -> list[tuple[int, float, float]]:
    """Timestep, share of signal power there, and that of the next cleaner level, from noise to image."""
    config: Any = ddim.config
    levels = ddim.alphas_cumprod.double()
    width = config.num_train_timesteps // n_steps
    steps = []
    for time in ddim.timesteps.tolist():
        cleaner = levels[time - width] if time >= width else ddim.final_alpha_cumprod
        steps.append((time, float(levels[time]), float(cleaner)))
    return steps


def _predict(model: Denoiser, state: torch.Tensor, time: int) -> torch.Tensor:
    import torch

    _, kind = _home(model)
    times = torch.full((len(state),), time, dtype=torch.int64, device=state.device)
    found = model(state.to(kind), times)
    return (found if isinstance(found, torch.Tensor) else found.sample).float()


def _as_noise(
    found: torch.Tensor, state: torch.Tensor, kind: str, signal: float, spread: float
) -> torch.Tensor:
    """The predicted noise. All kinds are read at the level the model was told, so they give one inversion."""
    if kind == "epsilon":
        return found
    if kind == "v_prediction":
        return signal * found + spread * state
    return (state - signal * found) / spread


def _by_batches(
    arrays: Float[np.ndarray, "n c h w"],
    function: Callable[[torch.Tensor], torch.Tensor],
    model: Any,
    batch_size: int,
) -> Float32[np.ndarray, "n d a b"]:
    """The function's values in float32, computed where the model is, without gradients or dropout."""
    import torch

    if batch_size < 1:
        raise InputError(f"batch_size: got {batch_size}, allowed from 1; 8 is usual")
    if arrays.ndim != 4 or arrays.size == 0:
        raise InputError(
            f"images: got shape {arrays.shape}, allowed (n, channels, height, width) with at least one image; "
            "move the channels to the front"
        )
    device, _ = _home(model)
    with torch.no_grad(), _resting(model):
        batches = torch.from_numpy(arrays.astype(np.float32)).split(batch_size)
        return torch.cat([function(batch.to(device)).cpu() for batch in batches]).numpy()


def _home(model: Any) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a model's weights; the processor and float32 for plain functions."""
    import torch

    if isinstance(model, torch.nn.Module):
        for weight in model.parameters():
            return weight.device, weight.dtype
    return torch.device("cpu"), torch.float32


@contextmanager
def _resting(model: Any) -> Iterator[None]:
    """The model is in the mode for use inside, and in its former one afterwards."""
    import torch

    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    active = [module for module in modules if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True
