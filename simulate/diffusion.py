"""A class-conditional diffusion model of small images, in pixel space, that trains in seconds on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.errors import InputError
from poolproof.simulate.denoiser import (
    initial_weights,
    predict,
    threads,
    torch_generator,
    unpack,
    weight_shapes,
)
from poolproof.simulate.generator import AbstractGenerator, Images

if TYPE_CHECKING:
    import torch

TARGETS: Final[Mapping[str, str]] = {"image": "sample", "noise": "epsilon", "velocity": "v_prediction"}
"""What the denoiser predicts, and the schedulers' word for it."""

SAMPLING_BATCH: Final = 2048
"""Images that are denoised together; bounds memory."""

WARM_UP: Final = 50
"""Training steps over which the learning rate rises to its value; it then falls along a half cosine."""


@dataclass(frozen=True)
class DiffusionSpec:
    """Options of a diffusion model. The defaults suit a thousand images of 8 x 8 pixels.

    Attributes:
        n_timesteps: levels of noise in training, 2 or more.
        target: what the denoiser predicts: `image`, `noise` or `velocity`. On small sets `image` gives the
            cleanest samples, and `velocity` more varied ones.
        n_sampling_steps: denoising steps per sample, 1 to `n_timesteps`.
        width: units per hidden layer of the denoiser.
        n_blocks: residual blocks of the denoiser.
        n_steps: training steps.
        batch_size: images per training step, drawn with replacement.
        learning_rate: peak step size of AdamW.
        ema_decay: in [0, 1); share of the running mean of the weights that a step leaves in place. Samples
            use the running mean.
        condition_dropout: in [0, 1); share of training labels that are hidden, which is what guidance needs.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
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

    def __post_init__(self) -> None:
        for name in ("n_sampling_steps", "width", "n_blocks", "n_steps", "batch_size", "n_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, allowed 1 or more")
        if self.target not in TARGETS:
            raise InputError(f"target: got {self.target!r}, allowed {', '.join(TARGETS)}; choose one")
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


@final
@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A fitted diffusion model.

    Attributes:
        spec: its options.
        shape: of one image, without the count.
        label_shares: frequency of each class among the training labels; None if there were no labels.
        weights: running means of the denoiser's weights by name.
        loss: mean training loss over the last tenth of the steps (squared error per pixel of the target).
    """

    spec: DiffusionSpec
    shape: tuple[int, ...]
    label_shares: Float[np.ndarray, " k"] | None
    weights: dict[str, Float32[np.ndarray, " *shape"]]
    loss: float

    def draw_labels(self, n: int, *, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Labels at the frequencies of the training labels.

        Raises:
            InputError: the model was fitted without labels.
        """
        if self.label_shares is None:
            raise InputError("labels: this model was fitted without labels, so it has none to draw")
        return rng.choice(len(self.label_shares), size=n, p=self.label_shares)

    def sample(
        self,
        labels: int | Int[np.ndarray, " n"],
        *,
        sampling_bias: float = 1.0,
        rng: np.random.Generator,
    ) -> Float32[np.ndarray, " n *shape"]:
        """New images with pixels in [-1, 1].

        Args:
            labels: class of each image, or the number of images: their classes are then drawn at the
                frequencies of the training labels.
            sampling_bias: lambda in (0, 1]. Classifier-free guidance of weight w = 1 / lambda - 1; 1 is none.
            rng: seeds the noise.

        Raises:
            InputError: an unknown label, a bias outside (0, 1], or one below 1 for a model without labels.

        Source: Song, Meng and Ermon, "Denoising diffusion implicit models", 2021 (sampler without noise); Ho
            and Salimans, "Classifier-free diffusion guidance", 2022, equation 6; lambda = 1 / (1 + w) as in
            Alemohammad et al., "Self-consuming generative models go MAD", 2023.
        """
        if not 0 < sampling_bias <= 1:
            raise InputError(
                f"sampling_bias: got {sampling_bias}, allowed above 0 up to 1; 1 samples what was learnt"
            )
        if self.label_shares is None and sampling_bias < 1:
            raise InputError(
                f"sampling_bias: got {sampling_bias}, allowed 1 without labels; fit the model with labels"
            )
        classes = self._classes(labels, rng)
        import torch

        with torch.no_grad(), threads(self.spec.n_threads):
            generator = torch_generator(rng)
            # torch.tensor copies to aligned memory: kernels may round differently at other alignments
            weights = {name: torch.tensor(value) for name, value in self.weights.items()}
            batches = []
            for conditions in torch.split(torch.tensor(classes, dtype=torch.int64), SAMPLING_BATCH):
                noise = torch.randn(
                    (len(conditions), math.prod(self.shape)), generator=generator, dtype=torch.float32
                )
                batches.append(_denoise(self.spec, weights, noise, conditions, 1 / sampling_bias))
            images = torch.cat(batches).numpy()
        return images.reshape(-1, *self.shape)

    def _classes(
        self, labels: int | Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> Int[np.ndarray, " n"]:
        """Row of the class table for each image; the last row stands for no class."""
        n_classes = 0 if self.label_shares is None else len(self.label_shares)
        if isinstance(labels, int):
            if labels < 1:
                raise InputError(f"n: got {labels}, allowed 1 or more")
            return self.draw_labels(labels, rng=rng) if n_classes else np.zeros(labels, np.int64)
        if len(labels) == 0:
            raise InputError("labels: got none, allowed 1 or more")
        if labels.min() < 0 or labels.max() >= n_classes:
            raise InputError(
                f"labels: got {labels.min()} to {labels.max()}, allowed 0 to {n_classes - 1} as in training"
                if n_classes
                else "labels: got some, allowed none for a model fitted without; give the number of images"
            )
        return labels


@final
@dataclass(frozen=True, eq=False)
class DiffusionGenerator(AbstractGenerator):
    """The diffusion model as a generator of a loop.

    Attributes:
        spec: its options.
        model: what was fitted; None before.
        is_bytes: whether the training images were bytes, so that samples are too.
    """

    spec: DiffusionSpec = DiffusionSpec()
    model: DiffusionModel | None = None
    is_bytes: bool = False

    def fit(
        self, images: Images, labels: Int[np.ndarray, " n"] | None, *, rng: np.random.Generator
    ) -> DiffusionGenerator:
        """A generator fitted to the images from scratch; see `fit_diffusion`."""
        is_bytes = images.dtype == np.uint8
        pixels = images / np.float32(127.5) - np.float32(1) if is_bytes else images
        return DiffusionGenerator(self.spec, fit_diffusion(pixels, labels, self.spec, rng=rng), is_bytes)

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Images, Int[np.ndarray, " n"] | None]:
        """New images and their labels; see `DiffusionModel.sample`.

        Raises:
            InputError: the generator was not fitted, or there are not `n` labels.
        """
        if self.model is None:
            raise InputError("generator: not fitted yet; call fit first and sample from what it returns")
        if labels is None and self.model.label_shares is not None:
            labels = self.model.draw_labels(n, rng=rng)
        if labels is not None and len(labels) != n:
            raise InputError(f"labels: got {len(labels)}, allowed n = {n}, one per image")
        pixels = self.model.sample(n if labels is None else labels, sampling_bias=sampling_bias, rng=rng)
        return np.rint((pixels + 1) * 127.5).astype(np.uint8) if self.is_bytes else pixels, labels


def fit_diffusion(
    images: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
    spec: DiffusionSpec,
    *,
    rng: np.random.Generator,
    on_step: Callable[[int, float], None] | None = None,
) -> DiffusionModel:
    """A diffusion model fitted to the images from scratch.

    The same images, options, state of `rng` and versions of libraries give the same bytes on one kind of
    processor, whatever number of threads is set elsewhere. No global random state is read or changed.

    Args:
        images: pixels in [-1, 1]: n h w, or n h w c.
        labels: class of each image, from 0; None trains without classes.
        spec: options.
        rng: seeds the weights, the noise and the order of the images.
        on_step: called after each training step with its number, from 1, and its loss.

    Raises:
        InputError: no images, pixels outside [-1, 1], negative labels, or a learning rate that is too large.

    Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020; noise schedule of Nichol
        and Dhariwal, "Improved denoising diffusion probabilistic models", 2021, equation 17; targets of
        Salimans and Ho, "Progressive distillation for fast sampling of diffusion models", 2022, section 4.
    """
    _check_data(images, labels)
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    shape = images.shape[1:]
    counts = None if labels is None else np.bincount(labels)
    n_classes = 0 if counts is None else len(counts)
    shapes = weight_shapes(math.prod(shape), spec.width, spec.n_blocks, n_classes)
    with torch.enable_grad(), threads(spec.n_threads):
        generator = torch_generator(rng)
        pixels = torch.tensor(images.reshape(len(images), -1), dtype=torch.float32)
        classes = torch.tensor(np.zeros(len(images)) if labels is None else labels, dtype=torch.int64)
        scheduler = DDPMScheduler(**_schedule(spec))
        # one vector for all weights: one call per update instead of one per layer
        vector = initial_weights(shapes, generator).requires_grad_()
        mean = vector.detach().clone()
        optimizer = torch.optim.AdamW(
            [vector], lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        losses = []
        for step in range(1, spec.n_steps + 1):
            optimizer.param_groups[0]["lr"] = spec.learning_rate * _rate(step, spec.n_steps)
            rows = torch.randint(len(pixels), (spec.batch_size,), generator=generator)
            noise = torch.randn((spec.batch_size, pixels.shape[1]), generator=generator, dtype=torch.float32)
            # the schedulers take whole numbers of any width; annotations of theirs ask for one width
            times: Any = torch.randint(spec.n_timesteps, (spec.batch_size,), generator=generator)
            hidden = torch.rand(spec.batch_size, generator=generator) < spec.condition_dropout
            conditions = torch.where(hidden, n_classes, classes[rows])
            noisy = scheduler.add_noise(pixels[rows], noise, times)
            found = predict(unpack(vector, shapes), noisy, times, conditions)
            if spec.target == "velocity":
                target = scheduler.get_velocity(pixels[rows], noise, times)
            else:
                target = noise if spec.target == "noise" else pixels[rows]
            loss = torch.nn.functional.mse_loss(found, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # early on a slow mean would hold on to the initial weights
            keep = min(spec.ema_decay, (1 + step) / (10 + step))
            mean.lerp_(vector.detach(), 1 - keep)
            losses.append(loss.item())
            if on_step is not None:
                on_step(step, losses[-1])
        weights = {name: value.numpy().copy() for name, value in unpack(mean, shapes).items()}
    if not bool(torch.isfinite(mean).all()):
        raise InputError(
            f"learning_rate: got {spec.learning_rate}, at which training diverged; use a smaller one"
        )
    last = losses[-max(1, spec.n_steps // 10) :]
    shares = None if counts is None else counts / counts.sum()
    return DiffusionModel(spec, shape, shares, weights, float(np.mean(last)))


def _check_data(images: Float[np.ndarray, " n *shape"], labels: Int[np.ndarray, " n"] | None) -> None:
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


def _schedule(spec: DiffusionSpec) -> dict[str, Any]:
    """Options that the training and the sampling scheduler share."""
    return {
        "num_train_timesteps": spec.n_timesteps,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": TARGETS[spec.target],
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }


def _rate(step: int, n_steps: int) -> float:
    return min(1.0, step / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * (step - 1) / n_steps))


def _denoise(
    spec: DiffusionSpec,
    weights: dict[str, torch.Tensor],
    noise: torch.Tensor,
    conditions: torch.Tensor,
    guidance: float,
) -> torch.Tensor:
    """Images from noise. Guidance 1 + w mixes predictions with and without class; 1 needs only the former."""
    import torch
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(**_schedule(spec), timestep_spacing="trailing")
    scheduler.set_timesteps(spec.n_sampling_steps)
    no_class = torch.full_like(conditions, len(weights["class"]) - 1)
    state = noise
    for time in scheduler.timesteps:
        times = time.expand(len(state))
        found = predict(weights, state, times, conditions)
        if guidance != 1:
            without = predict(weights, state, times, no_class)
            # at a fixed noisy image all targets are affine in each other, so mixing any is mixing the noise
            found = without + guidance * (found - without)
        step: Any = scheduler.step(found, int(time), state)
        state = step.prev_sample
    return state.clamp(-1, 1)
