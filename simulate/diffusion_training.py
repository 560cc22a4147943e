"""The training loop of the diffusion model, one for every denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, Int

from poolproof.errors import InputError
from poolproof.simulate.denoiser import AbstractDenoiser, torch_generator, unpack
from poolproof.simulate.diffusion_spec import DiffusionSpec
from poolproof.simulate.generator import GeneratorDiverged

if TYPE_CHECKING:
    import torch

WARM_UP: Final = 50
"""Training steps over which the learning rate rises to its value; it then falls along a half cosine."""

LOOK_EVERY: Final = 200
"""Training steps after which a loss that is not finite ends the training."""


def train(
    denoiser: AbstractDenoiser,
    images: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None,
    spec: DiffusionSpec,
    *,
    n_classes: int,
    start: dict[str, np.ndarray] | None,
    rng: np.random.Generator,
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[dict[str, np.ndarray], float]:
    """The running means of the denoiser's weights by name, and the mean loss of the last tenth of the steps.

    Args:
        denoiser: what is trained.
        images: pixels in [-1, 1].
        labels: class of each image; all 0 where there are no classes.
        weights: of each image, above 0; None draws all alike.
        spec: options.
        n_classes: the class that stands for none.
        start: weights to go on from; None draws them.
        rng: seeds the weights, the noise and the order of the images.
        on_step: called after each training step with its number, from 1, and its loss.

    Raises:
        GeneratorDiverged: weights or losses that are not finite.
    """
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    device = torch.device(spec.device_name())
    generator = torch_generator(rng)
    shapes = denoiser.shapes()
    if start is None:
        vector = denoiser.initial(generator).to(device)
    else:
        vector = torch.cat([torch.tensor(start[name]).flatten() for name in shapes]).to(device)
    if device.type != "cpu":
        # the processor's draws would keep a fast device waiting
        generator = torch.Generator(device).manual_seed(generator.initial_seed())
    pixels = torch.tensor(images.reshape(len(images), -1), dtype=torch.float32, device=device)
    classes = torch.tensor(labels, dtype=torch.int64, device=device)
    shares = None if weights is None else torch.tensor(weights / weights.max(), device=device)
    scheduler = DDPMScheduler(**spec.schedule())
    # one vector for all weights and one for all gradients: one call per update instead of one per layer
    vector.requires_grad_()
    vector.grad = torch.zeros_like(vector)
    leaves = unpack(vector.detach(), shapes)
    for leaf, gradient in zip(leaves.values(), unpack(vector.grad, shapes).values(), strict=True):
        leaf.requires_grad_()
        leaf.grad = gradient
    mean = vector.detach().clone()
    optimizer = torch.optim.AdamW(
        [vector], lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    size = (spec.batch_size,)
    losses: list[torch.Tensor] = []
    with torch.enable_grad():
        for step in range(1, spec.n_steps + 1):
            optimizer.param_groups[0]["lr"] = spec.learning_rate * _rate(step, spec.n_steps)
            if shares is None:
                rows = torch.randint(len(pixels), size, generator=generator, device=device)
            else:
                rows = torch.multinomial(shares, spec.batch_size, replacement=True, generator=generator)
            noise = torch.randn(
                (spec.batch_size, pixels.shape[1]), generator=generator, dtype=torch.float32, device=device
            )
            # the schedulers take whole numbers of any width; annotations of theirs ask for one width
            times: Any = torch.randint(spec.n_timesteps, size, generator=generator, device=device)
            hidden = torch.rand(size, generator=generator, device=device) < spec.condition_dropout
            conditions = torch.where(hidden, n_classes, classes[rows])
            clean = pixels[rows]
            noisy = scheduler.add_noise(clean, noise, times)
            found = denoiser.predict(leaves, noisy, times, conditions)
            if spec.target == "velocity":
                target = scheduler.get_velocity(clean, noise, times)
            else:
                target = noise if spec.target == "noise" else clean
            loss = torch.nn.functional.mse_loss(found, target)
            vector.grad.zero_()
            loss.backward()
            optimizer.step()
            # early on a slow mean would hold on to the initial weights
            keep = min(spec.ema_decay, (1 + step) / (10 + step))
            mean.lerp_(vector.detach(), 1 - keep)
            losses.append(loss.detach())
            if on_step is not None:
                on_step(step, loss.item())
            if step % LOOK_EVERY == 0 and not math.isfinite(loss.item()):
                break
    last = float(np.mean(torch.stack(losses[-max(1, spec.n_steps // 10) :]).tolist()))
    if not (math.isfinite(last) and bool(torch.isfinite(mean).all())):
        raise GeneratorDiverged(
            f"learning_rate: got {spec.learning_rate}, at which training diverged; use a smaller one"
        )
    return {name: value.cpu().numpy().copy() for name, value in unpack(mean, shapes).items()}, last


def check_data(images: Float[np.ndarray, " n *shape"], labels: Int[np.ndarray, " n"] | None) -> None:
    """Raises InputError where the images or labels cannot be trained on."""
    if images.ndim not in (3, 4) or images.size == 0:
        raise InputError(f"images: got shape {images.shape}, allowed n h w or n h w c with none of them 0")
    if not (np.isfinite(images).all() and images.min() >= -1 and images.max() <= 1):
        raise InputError(
            f"images: got pixels in [{images.min():g}, {images.max():g}], allowed [-1, 1]; rescale them"
        )
    if labels is not None and len(labels) != len(images):
        raise InputError(f"labels: got {len(labels)}, allowed {len(images)}, one per image")
    if labels is not None and labels.min() < 0:
        raise InputError(f"labels: got {labels.min()}, allowed 0 or more; number the classes from 0")


def check_weights(weights: Float[np.ndarray, " n"], n_images: int) -> None:
    """Raises InputError where samples cannot be drawn by the weights."""
    if len(weights) != n_images:
        raise InputError(f"weights: got {len(weights)}, allowed {n_images}, one per image")
    if not (np.isfinite(weights).all() and weights.min(initial=0) >= 0 and weights.max(initial=0) > 0):
        raise InputError(
            "weights: got negative, infinite or no positive ones; allowed 0 or more, one above 0"
        )


def _rate(step: int, n_steps: int) -> float:
    return min(1.0, step / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * (step - 1) / n_steps))
