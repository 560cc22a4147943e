"""A style-based GAN of small images, with or without classes, that trains in half a minute on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.errors import InputError
from poolproof.simulate.adversary import GanSpec, Networks, autocast, train
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.denoiser import threads, torch_generator
from poolproof.simulate.device import find_device
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Samples, State
from poolproof.simulate.style_networks import (
    Layout,
    discriminator_shapes,
    generator_shapes,
    map_latents,
    normal,
    render,
    to_tensors,
)

if TYPE_CHECKING:
    import torch

SAMPLING_BATCH: Final = 512
"""Images that are rendered together; bounds memory."""

CENTRE_DRAWS: Final = 4096
"""Latent vectors per class whose mean style is the centre of truncation."""

LARGEST: Final = 1024
"""Height and width of the largest images."""


@final
@dataclass(frozen=True, eq=False)
class GanModel:
    """A fitted GAN: all that sampling, and training on from here, need.

    Attributes:
        layout: sizes of the networks.
        shape: of one image, without the count.
        networks: generator, its running mean, and discriminator.
        centre: mean style of each class, one row in all without labels; truncation pulls styles there.
        label_shares: frequency of each class in training, by weight; None if there were no labels.
    """

    layout: Layout
    shape: tuple[int, ...]
    networks: Networks
    centre: Float32[np.ndarray, "k d"]
    label_shares: Float[np.ndarray, " k"] | None


@final
@dataclass(frozen=True, eq=False)
class GanGenerator(AbstractGenerator):
    """The style-based GAN as a generator of a loop.

    Attributes:
        spec: its options.
        model: what was fitted; None before.
        is_bytes: whether the training images were bytes, so that samples are too.
    """

    spec: GanSpec = field(default_factory=GanSpec)
    model: GanModel | None = None
    is_bytes: bool = False

    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> GanGenerator:
        """A generator fitted to images n h w or n h w c; see `fit_gan`.

        `start` hands on both networks, the running mean and the probability of augmentation; the optimisers
        begin anew.

        Raises:
            InputError: images, labels or weights that cannot be trained on, or a start of another kind.
            GeneratorDiverged: the weights became infinite or NaN.
        """
        before = None
        if start is not None:
            if not isinstance(start, GanGenerator):
                raise InputError(
                    f"start: got a {type(start).__name__}, allowed a GanGenerator; give one or None"
                )
            before = start._fitted("start")
        is_bytes = images.dtype == np.uint8
        pixels = images / np.float32(127.5) - np.float32(1) if is_bytes else images
        model = fit_gan(pixels, labels, self.spec, weights=weights, start=before, rng=rng)
        return GanGenerator(self.spec, model, is_bytes)

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, Int[np.ndarray, " n"] | None]:
        """New images and their labels; see the base class, and `draw_images` for the meaning of the bias."""
        model = self._fitted("generator")
        check_count("n", n, 1)
        check_range("sampling_bias", sampling_bias, 0, 1, above=True)
        if labels is None and model.label_shares is not None:
            labels = rng.choice(len(model.label_shares), size=n, p=model.label_shares)
        classes = np.zeros(n, np.int64) if labels is None else _check_labels(model, labels, n)
        pixels = draw_images(model, classes, self.spec, sampling_bias=sampling_bias, rng=rng)
        return np.rint((pixels + 1) * 127.5).astype(np.uint8) if self.is_bytes else pixels, labels

    def state(self) -> State:
        """Running mean, both networks, centres and shares by name: what sampling and a warm start need."""
        model = self._fitted("generator")
        networks = {
            f"{part}.{name}": value
            for part in ("mean", "generator", "discriminator")
            for name, value in getattr(model.networks, part).items()
        }
        state = networks | {
            "augment_p": np.array([model.networks.augment_p]),
            "centre": model.centre,
            "shape": np.array(model.shape, np.int64),
            "is_bytes": np.array([self.is_bytes], np.uint8),
        }
        return state if model.label_shares is None else state | {"label_shares": model.label_shares}

    def restore(self, state: State) -> GanGenerator:
        """A generator of these options, fitted as the one that `state` was taken of.

        Raises:
            InputError: arrays are missing or have shapes that these options do not make.
        """
        shape = tuple(int(side) for side in _take(state, "shape"))
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise InputError(f"state: got images of shape {shape}, allowed h w or h w c; take it anew")
        shares = state.get("label_shares")
        layout = _layout(self.spec, shape, 0 if shares is None else len(shares))
        shapes = generator_shapes(layout)

        def network(part: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
            return {name: _take(state, f"{part}.{name}", at) for name, at in shapes.items()}

        networks = Networks(
            network("mean", shapes),
            network("generator", shapes),
            network("discriminator", discriminator_shapes(layout)),
            float(_take(state, "augment_p", (1,))[0]),
        )
        centre = _take(state, "centre", (max(1, layout.n_classes), layout.latent_dim))
        is_bytes = bool(_take(state, "is_bytes", (1,))[0])
        return GanGenerator(self.spec, GanModel(layout, shape, networks, centre, shares), is_bytes)

    def _fitted(self, name: str) -> GanModel:
        if self.model is None:
            raise InputError(f"{name}: got one that was not fitted, allowed what fit returns; call fit first")
        return self.model


def fit_gan(
    pixels: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
    spec: GanSpec,
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    start: GanModel | None = None,
    rng: np.random.Generator,
    on_step: Callable[[int, float, float], None] | None = None,
) -> GanModel:
    """A GAN fitted to images.

    The same images, options, state of `rng` and versions of libraries give the same bytes on one kind of processor,
    whatever number of threads is set elsewhere. No global random state is read or changed.

    Args:
        pixels: in [-1, 1]: n h w, or n h w c.
        labels: class of each image, from 0; None trains without classes.
        spec: options.
        weights: of each image, 0 or more: images are drawn into batches with probabilities in these ratios.
        start: a model of the same layout to go on from. It may have more classes than the labels.
        rng: seeds weights, latent vectors, noise, augmentation and the order of the images.
        on_step: called after each step with its number, from 1, and the losses of discriminator and generator.

    Raises:
        InputError: images, labels, weights, a start or a device that cannot be used.
        GeneratorDiverged: the weights became infinite or NaN.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020, and "Training generative
        adversarial networks with limited data", 2020; see `train` and the networks.
    """
    _check_images(pixels)
    weights = _check_weights(weights, len(pixels))
    n_classes = 0 if labels is None else _count_classes(labels, len(pixels), start)
    layout = _layout(spec, pixels.shape[1:], n_classes)
    if start is not None and start.layout != layout:
        raise InputError(f"start: got a model of {start.layout}, allowed one of {layout}; start from scratch")
    classes = np.zeros(len(pixels), np.int64) if labels is None else labels
    counts = np.bincount(classes, weights, minlength=n_classes)
    import torch

    images = pixels.reshape(len(pixels), layout.height, layout.width, layout.n_channels)
    before = None if start is None else start.networks
    with torch.enable_grad(), threads(spec.n_threads):
        random = torch_generator(rng)
        found = train(images, classes, weights, spec, layout, start=before, random=random, on_step=on_step)
        centre = _centre(found, layout, torch.device(find_device(spec.device)), random)
    shares = None if labels is None else counts / counts.sum()
    return GanModel(layout, pixels.shape[1:], found, centre, shares)


def draw_images(
    model: GanModel,
    classes: Int[np.ndarray, " n"],
    spec: GanSpec,
    *,
    sampling_bias: float = 1.0,
    rng: np.random.Generator,
) -> Float32[np.ndarray, " n *shape"]:
    """New images with pixels in [-1, 1].

    Args:
        model: a fitted GAN.
        classes: of each image; 0 without labels.
        spec: threads, device and precision.
        sampling_bias: psi in (0, 1]. The style w of an image becomes m + psi (w - m), m the mean style of its class
            (of all without labels); 1 is no truncation.
        rng: seeds latent vectors and noise.

    Raises:
        GeneratorDiverged: samples that are not finite.

    Source: Karras et al., "A style-based generator architecture for GANs", 2019, appendix B; psi as the sampling
        bias lambda as in Alemohammad et al., "Self-consuming generative models go MAD", 2023, section 2.
    """
    import torch

    device = torch.device(find_device(spec.device))
    with torch.no_grad(), threads(spec.n_threads):
        random = torch_generator(rng)
        mean = to_tensors(model.networks.mean, device)
        centre = torch.tensor(model.centre, device=device)
        batches = []
        for part in torch.split(torch.tensor(classes, dtype=torch.int64), SAMPLING_BATCH):
            kinds = part.to(device)
            latents = normal(len(part), model.layout.latent_dim, random).to(device)
            with autocast(spec, device):
                styles = map_latents(mean, latents, kinds).float()
                if sampling_bias != 1:
                    styles = torch.lerp(centre[kinds], styles, sampling_bias)
                batches.append(render(mean, model.layout, styles, random).float().cpu())
        pixels = torch.cat(batches)
        if not bool(torch.isfinite(pixels).all()):
            raise GeneratorDiverged("samples of the GAN are not finite")
        return pixels.permute(0, 2, 3, 1).reshape(len(pixels), *model.shape).numpy()


def _centre(
    networks: Networks, layout: Layout, device: torch.device, random: torch.Generator
) -> Float32[np.ndarray, "k d"]:
    """Mean style of each class.

    It is drawn after training, not carried along: a mean over the steps lags behind the network that samples.
    """
    import torch

    mean = to_tensors(networks.mean, device)
    rows = []
    with torch.no_grad():
        for kind in range(max(1, layout.n_classes)):
            kinds = torch.full((CENTRE_DRAWS,), kind, device=device)
            latents = normal(CENTRE_DRAWS, layout.latent_dim, random).to(device)
            rows.append(map_latents(mean, latents, kinds).mean(dim=0))
    return torch.stack(rows).cpu().numpy()


def _check_images(pixels: Float[np.ndarray, " n *shape"]) -> None:
    if pixels.ndim not in (3, 4) or pixels.size == 0:
        raise InputError(f"images: got shape {pixels.shape}, allowed n h w or n h w c with none of them 0")
    if not (np.isfinite(pixels).all() and pixels.min() >= -1 and pixels.max() <= 1):
        raise InputError(
            f"images: got pixels in [{pixels.min():g}, {pixels.max():g}], allowed [-1, 1]; rescale them"
        )


def _check_weights(weights: Float[np.ndarray, " n"] | None, n: int) -> Float[np.ndarray, " n"]:
    """The weights, all 1 where none were given."""
    if weights is None:
        return np.ones(n)
    if len(weights) != n:
        raise InputError(f"weights: got {len(weights)}, allowed {n}, one per image")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and 0 < weights.sum() < np.inf):
        raise InputError("weights: got values or a sum out of range, allowed finite, 0 or more, not all 0")
    return weights


def _count_classes(labels: Int[np.ndarray, " n"], n: int, start: GanModel | None) -> int:
    """Classes of the labels, or of the start where it has more: later samples may lack a class."""
    if len(labels) != n:
        raise InputError(f"labels: got {len(labels)}, allowed {n}, one per image")
    if labels.min() < 0:
        raise InputError(f"labels: got {labels.min()}, allowed 0 or more; number the classes from 0")
    return max(int(labels.max()) + 1, 0 if start is None else start.layout.n_classes)


def _check_labels(model: GanModel, labels: Int[np.ndarray, " n"], n: int) -> Int[np.ndarray, " n"]:
    """The labels, one per image and all known to the model."""
    n_classes = model.layout.n_classes
    if len(labels) != n:
        raise InputError(f"labels: got {len(labels)}, allowed n = {n}, one per image")
    if n_classes == 0:
        raise InputError("labels: got some, allowed None for a model fitted without; leave them out")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(
            f"labels: got {labels.min()} to {labels.max()}, allowed 0 to {n_classes - 1} as in training"
        )
    return labels


def _layout(spec: GanSpec, shape: tuple[int, ...], n_classes: int) -> Layout:
    if max(shape[:2]) > LARGEST:
        raise InputError(f"images: got {shape[0]} x {shape[1]} pixels, allowed to {LARGEST}; shrink them")
    n_channels = shape[2] if len(shape) == 3 else 1
    return Layout(shape[0], shape[1], n_channels, n_classes, spec.latent_dim, spec.n_mapping, spec.width)


def _take(state: State, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array of the state."""
    if name not in state:
        raise InputError(f"state: got no {name!r}, allowed what a GAN's state holds; take it anew")
    if shape is not None and state[name].shape != shape:
        raise InputError(
            f"state: got {name!r} of shape {state[name].shape}, allowed {shape}; use the options it was fitted with"
        )
    return state[name]
