"""The game of the style-based GAN: its options, and the training of generator against discriminator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.errors import InputError
from poolproof.simulate.augmentation import adjust, augment
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.denoiser import unpack
from poolproof.simulate.device import find_device
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.style_networks import (
    GROUP,
    Layout,
    discriminator_shapes,
    generator_shapes,
    initial_weights,
    map_latents,
    normal,
    render,
    score,
    to_arrays,
    to_vector,
)

if TYPE_CHECKING:
    import torch

DEVICES: Final = ("auto", "cpu", "cuda")
PRECISIONS: Final = ("float32", "bfloat16")

ADJUST_INTERVAL: Final = 4
"""Steps between changes of the probability of augmentation."""

GENERATOR_RATE: Final = 0.2
"""Learning rate of the generator, as a share of the discriminator's: in short runs one as fast drops the latents."""


@dataclass(frozen=True)
class GanSpec:
    """Options of a style-based GAN. The defaults suit a thousand images of 8 x 8 pixels.

    Attributes:
        latent_dim: length of latent vectors and styles.
        n_mapping: layers of the mapping network.
        width: channels of the layers up to 16 x 16 pixels; each doubling beyond halves them.
        n_steps: training steps; each updates discriminator and generator once.
        batch_size: images per training step, drawn with replacement; a multiple of 4.
        learning_rate: step size of Adam for the discriminator, over the first half of the steps, and a fifth of it for
            the generator; both then fall in a line.
        r1_gamma: weight of the penalty on the discriminator's slope at training images, 0 or more.
        r1_interval: steps between penalties; each then counts as many times.
        ema_decay: in [0, 1); share of the running mean of the generator's weights that a step leaves in place.
            Samples use the running mean.
        augment_target: mean sign of the discriminator's logits of training images that augmentation aims at,
            in [0, 1]; 0 is no augmentation. Lower targets augment more.
        augment_speed: change of the probability of augmentation per thousand training images, above 0.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
        device: `cpu`, `cuda`, or `auto` for `cuda` where there is one. Bytes are promised to repeat on `cpu` alone.
        precision: `float32`, or `bfloat16` for mixed precision, which `cuda` alone uses.
    """

    latent_dim: int = 64
    n_mapping: int = 2
    width: int = 32
    n_steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-2
    r1_gamma: float = 0.3
    r1_interval: int = 4
    ema_decay: float = 0.99
    augment_target: float = 0.6
    augment_speed: float = 0.05
    n_threads: int = 1
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        counts = ("latent_dim", "n_mapping", "width", "n_steps", "batch_size", "r1_interval", "n_threads")
        for name in counts:
            check_count(name, getattr(self, name), 1)
        if self.batch_size % GROUP:
            raise InputError(f"batch_size: got {self.batch_size}, allowed multiples of {GROUP}; round it up")
        check_range("learning_rate", self.learning_rate, 0, 1, above=True)
        check_range("r1_gamma", self.r1_gamma, 0, 1e6)
        check_range("augment_target", self.augment_target, 0, 1)
        check_range("augment_speed", self.augment_speed, 0, 1000, above=True)
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay: got {self.ema_decay}, allowed from 0 to below 1; 0.99 is usual")
        if self.device not in DEVICES:
            raise InputError(f"device: got {self.device!r}, allowed {', '.join(DEVICES)}; choose one")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision: got {self.precision!r}, allowed {', '.join(PRECISIONS)}; choose one"
            )
        if self.precision == "bfloat16" and self.device == "cpu":
            raise InputError("precision: got 'bfloat16', allowed 'float32' on device 'cpu'; choose that")


@final
@dataclass(frozen=True, eq=False)
class Networks:
    """What training ends with, and can go on from.

    Attributes:
        mean: running means of the generator's weights by name; samples use these.
        generator: the generator's weights after the last step.
        discriminator: the discriminator's weights after the last step.
        augment_p: probability of augmentation after the last step.
    """

    mean: Mapping[str, Float32[np.ndarray, " *_"]]
    generator: Mapping[str, Float32[np.ndarray, " *_"]]
    discriminator: Mapping[str, Float32[np.ndarray, " *_"]]
    augment_p: float


@final
@dataclass(frozen=True, eq=False)
class _Player:
    """One network in training: all weights in one vector, so that an update is one call instead of one per layer."""

    shapes: Mapping[str, tuple[int, ...]]
    vector: torch.Tensor
    rate: float
    adam: torch.optim.Optimizer

    def net(self, *, learns: bool = True) -> dict[str, torch.Tensor]:
        return unpack(self.vector if learns else self.vector.detach(), dict(self.shapes))

    def update(self, loss: torch.Tensor) -> None:
        self.adam.zero_grad()
        loss.backward(inputs=[self.vector])
        self.adam.step()


@final
@dataclass(frozen=True)
class _Rows:
    """Draws of rows with probabilities in the ratios of their weights; rows of weight 0 are never drawn."""

    sums: torch.Tensor

    def draw(self, n: int, random: torch.Generator) -> torch.Tensor:
        import torch

        places = torch.rand(n, generator=random, dtype=torch.float64) * self.sums[-1]
        # rounding could reach the end, and so rows of weight 0 behind the last that counts
        last = int(torch.searchsorted(self.sums, self.sums[-1:]))
        return torch.searchsorted(self.sums, places, right=True).clamp(max=last)


def train(
    images: Float[np.ndarray, "n h w c"],
    classes: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    spec: GanSpec,
    layout: Layout,
    *,
    start: Networks | None,
    random: torch.Generator,
    on_step: Callable[[int, float, float], None] | None = None,
) -> Networks:
    """Both networks after the game.

    Args:
        images: pixels in [-1, 1].
        classes: of each image; not read where the layout has none.
        weights: of each image, 0 or more.
        spec: options.
        layout: of the networks.
        start: networks to go on from; None starts from scratch.
        random: all randomness.
        on_step: called after each step with its number, from 1, and the losses of discriminator and generator.

    Raises:
        GeneratorDiverged: the weights became infinite or NaN.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020 (lazy regularisation in
        section 3.1); Goodfellow et al., "Generative adversarial nets", 2014 (loss that does not saturate); Heusel et
        al., "GANs trained by a two time-scale update rule", 2017 (two learning rates).
    """
    import torch
    from torch.nn.functional import softplus

    device = torch.device(find_device(spec.device))
    batch = spec.batch_size
    data = torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2).contiguous()
    kinds_of = torch.tensor(classes, dtype=torch.int64)
    rows_of = _Rows(torch.tensor(np.cumsum(weights, dtype=np.float64)))
    shapes = generator_shapes(layout)
    first = None if start is None else start.generator
    g = _player(shapes, GENERATOR_RATE * spec.learning_rate, first, random, device)
    first = None if start is None else start.discriminator
    d = _player(discriminator_shapes(layout), spec.learning_rate, first, random, device)
    mean = g.vector.detach().clone() if start is None else to_vector(start.mean, shapes).to(device)
    p = 0.0 if start is None or spec.augment_target == 0 else start.augment_p
    signs = torch.zeros((), device=device)

    def imitate(net: dict[str, torch.Tensor], kinds: torch.Tensor) -> torch.Tensor:
        latents = normal(batch, layout.latent_dim, random).to(device)
        found = render(net, layout, map_latents(net, latents, kinds), random)
        return augment(found.float(), p, random)

    for step in range(1, spec.n_steps + 1):
        # the rates fall in a line over the second half: at full rate the networks keep circling each other
        for player in (g, d):
            player.adam.param_groups[0]["lr"] = player.rate * min(1.0, 2 - 2 * (step - 1) / spec.n_steps)
        rows = rows_of.draw(batch, random)
        real, kinds = data[rows].to(device), kinds_of[rows].to(device)
        real = augment(real, p, random)
        net = d.net()
        with autocast(spec, device):
            with torch.no_grad():
                synthetic = imitate(g.net(), kinds)
            logits = score(net, layout, torch.cat([real, synthetic]), kinds.repeat(2)).float()
        loss_d = softplus(-logits[:batch]).mean() + softplus(logits[batch:]).mean()
        signs += logits[:batch].detach().sign().mean()
        penalty: Any = 0
        if spec.r1_gamma > 0 and (step - 1) % spec.r1_interval == 0:
            # in full precision: squared slopes are small
            slopes = r1_penalty(lambda x, net=net, kinds=kinds: score(net, layout, x, kinds), real)
            penalty = spec.r1_gamma / 2 * spec.r1_interval * slopes
        d.update(loss_d + penalty)

        with autocast(spec, device):
            logits = score(d.net(learns=False), layout, imitate(g.net(), kinds), kinds).float()
        loss_g = softplus(-logits).mean()
        g.update(loss_g)

        # early on a slow mean would hold on to the initial weights
        keep = min(spec.ema_decay, (1 + step) / (10 + step)) if start is None else spec.ema_decay
        mean.lerp_(g.vector.detach(), 1 - keep)
        if spec.augment_target > 0 and step % ADJUST_INTERVAL == 0:
            change = spec.augment_speed * batch * ADJUST_INTERVAL / 1000
            p = adjust(p, signs.item() / ADJUST_INTERVAL, target=spec.augment_target, change=change)
            signs.zero_()
        if on_step is not None:
            on_step(step, loss_d.item(), loss_g.item())
    if not all(bool(torch.isfinite(vector).all()) for vector in (mean, g.vector, d.vector)):
        raise GeneratorDiverged(f"weights of the GAN are not finite at learning_rate {spec.learning_rate}")
    return Networks(to_arrays(unpack(mean, shapes)), to_arrays(g.net()), to_arrays(d.net()), p)


def r1_penalty(logits: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Mean over images of the squared norm of the logits' gradient with respect to the image, differentiable.

    Source: Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9, without
        gamma / 2.
    """
    import torch

    images = images.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(logits(images).sum(), images, create_graph=True)
    return slopes.square().flatten(1).sum(dim=1).mean()


def autocast(spec: GanSpec, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision inside, where the options ask for it and the device has it."""
    import torch

    mixed = spec.precision == "bfloat16" and device.type == "cuda"
    return torch.autocast("cuda", dtype=torch.bfloat16) if mixed else contextlib.nullcontext()


def _player(
    shapes: Mapping[str, tuple[int, ...]],
    rate: float | int,
    first: Mapping[str, np.ndarray] | None,
    random: torch.Generator,
    device: torch.device,
) -> _Player:
    import torch

    vector = initial_weights(shapes, random) if first is None else to_vector(first, shapes)
    vector = vector.to(device).requires_grad_()
    adam = torch.optim.Adam([vector], lr=rate, betas=(0.0, 0.99), eps=1e-8, fused=True)
    return _Player(shapes, vector, float(rate), adam)
