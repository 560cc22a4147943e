"""A class-conditional diffusion model of small images, in pixel space: in seconds on a CPU, or as a U-Net on a GPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float, Float32, Int

from poolproof.errors import InputError
from poolproof.simulate.denoiser import AbstractDenoiser, Perceptron, threads, torch_generator
from poolproof.simulate.diffusion_spec import NETWORK, DiffusionSpec
from poolproof.simulate.diffusion_training import check_data, check_weights, train
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Images, State
from poolproof.simulate.guidance import denoise, guide, repel
from poolproof.simulate.unet import UNet

SAMPLING_BATCH: Final = 2048
"""Images that are denoised together; bounds memory."""


def make_denoiser(spec: DiffusionSpec, shape: tuple[int, ...], n_classes: int) -> AbstractDenoiser:
    """The network that the options ask for.

    Args:
        spec: options.
        shape: of one image.
        n_classes: 0 without classes.

    Raises:
        InputError: images of a shape that the network cannot take.
    """
    if spec.denoiser == "unet":
        return UNet(shape, spec.width, spec.n_blocks, n_classes, spec.precision, spec.compile)
    return Perceptron(math.prod(shape), spec.width, spec.n_blocks, n_classes)


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

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 without. Also the class that stands for none."""
        return 0 if self.label_shares is None else len(self.label_shares)

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
        auxiliary: DiffusionModel | None = None,
        auxiliary_weight: float | int = 0.0,
        rng: np.random.Generator,
    ) -> Float32[np.ndarray, " n *shape"]:
        """New images with pixels in [-1, 1].

        Args:
            labels: class of each image, or the number of images: their classes are then drawn at the
                frequencies of the training labels.
            sampling_bias: lambda in (0, 1]. Classifier-free guidance of weight w = 1 / lambda - 1; 1 is none.
            auxiliary: a model of the same options, shape and classes that samples are led away from; see
                `guidance.repel`. Guidance towards the class applies to each of the two.
            auxiliary_weight: w of that, 0 or more.
            rng: seeds the noise.

        Raises:
            InputError: an unknown label, a bias outside (0, 1], or one below 1 for a model without labels.
            GeneratorDiverged: samples that are not finite.

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

        device = torch.device(self.spec.device_name())
        with torch.no_grad(), threads(self.spec.n_threads):
            generator = torch_generator(rng)
            predict = guide(self.predictor(device.type), self.n_classes, 1 / sampling_bias)
            if auxiliary is not None:
                other = guide(auxiliary.predictor(device.type), self.n_classes, 1 / sampling_bias)
                predict = repel(predict, other, auxiliary_weight)
            batches = []
            for conditions in torch.split(torch.tensor(classes, dtype=torch.int64), SAMPLING_BATCH):
                # drawn by the processor on every device, so that equal seeds give like samples
                noise = torch.randn(
                    (len(conditions), math.prod(self.shape)), generator=generator, dtype=torch.float32
                )
                denoised = denoise(
                    predict,
                    noise.to(device),
                    conditions.to(device),
                    self.spec.schedule(),
                    self.spec.n_sampling_steps,
                    is_led=sampling_bias < 1 or (auxiliary is not None and auxiliary_weight > 0),
                )
                batches.append(denoised.cpu())
            images = torch.cat(batches).numpy()
        if not np.isfinite(images).all():
            raise GeneratorDiverged(
                f"learning_rate: got {self.spec.learning_rate}, whose model draws samples that are not finite; "
                "use a smaller one"
            )
        return images.reshape(-1, *self.shape)

    def predictor(self, device: str) -> Callable[..., Any]:
        """The denoiser with these weights: from noisy images, noise levels and classes to the target."""
        import torch

        # torch.tensor copies to aligned memory: kernels may round differently at other alignments
        weights = {name: torch.tensor(value, device=device) for name, value in self.weights.items()}
        return functools.partial(make_denoiser(self.spec, self.shape, self.n_classes).predict, weights)

    def _classes(
        self, labels: int | Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> Int[np.ndarray, " n"]:
        """Row of the class table for each image; the last row stands for no class."""
        n_classes = self.n_classes
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

    spec: DiffusionSpec = field(default_factory=DiffusionSpec)
    model: DiffusionModel | None = None
    is_bytes: bool = False

    def fit(
        self,
        images: Images,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> DiffusionGenerator:
        """A generator fitted to the images; see `fit_diffusion`."""
        model = None
        if start is not None:
            if not isinstance(start, DiffusionGenerator) or start.model is None:
                raise InputError(
                    f"start: got {type(start).__name__}, allowed a fitted DiffusionGenerator; fit one first"
                )
            model = start.model
        is_bytes = images.dtype == np.uint8
        pixels = images / np.float32(127.5) - np.float32(1) if is_bytes else images
        fitted = fit_diffusion(pixels, labels, self.spec, weights=weights, start=model, rng=rng)
        return DiffusionGenerator(self.spec, fitted, is_bytes)

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
        return self.sample_against(None, 0.0, n, sampling_bias=sampling_bias, labels=labels, rng=rng)

    def sample_against(
        self,
        auxiliary: DiffusionModel | None,
        weight: float | int,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Images, Int[np.ndarray, " n"] | None]:
        """As `sample`, led away from an auxiliary model; see `guidance.repel`."""
        if self.model is None:
            raise InputError("generator: not fitted yet; call fit first and sample from what it returns")
        if labels is None and self.model.label_shares is not None:
            labels = self.model.draw_labels(n, rng=rng)
        if labels is not None and len(labels) != n:
            raise InputError(f"labels: got {len(labels)}, allowed n = {n}, one per image")
        pixels = self.model.sample(
            n if labels is None else labels,
            sampling_bias=sampling_bias,
            auxiliary=auxiliary,
            auxiliary_weight=weight,
            rng=rng,
        )
        return np.rint((pixels + 1) * 127.5).astype(np.uint8) if self.is_bytes else pixels, labels

    def state(self) -> State:
        """The weights by name, the shape of an image, label shares, the loss, and whether images are bytes."""
        if self.model is None:
            raise InputError(
                "generator: not fitted yet; call fit first and take the state of what it returns"
            )
        arrays: dict[str, np.ndarray] = {
            "shape": np.array(self.model.shape, np.int64),
            "is_bytes": np.array([self.is_bytes], np.uint8),
            "loss": np.array([self.model.loss], np.float64),
        }
        if self.model.label_shares is not None:
            arrays["label_shares"] = self.model.label_shares.copy()
        return arrays | {f"weight.{name}": value.copy() for name, value in self.model.weights.items()}

    def restore(self, state: State) -> DiffusionGenerator:
        """A generator of these options with the model that the state holds."""
        missing = {"shape", "is_bytes", "loss"} - set(state)
        if missing:
            raise InputError(
                f"state: got none of {', '.join(sorted(missing))}, allowed what `state` gave; use that"
            )
        shape = tuple(int(size) for size in state["shape"])
        shares = state.get("label_shares")
        found = {
            name.removeprefix("weight."): value for name, value in state.items() if name.startswith("weight.")
        }
        asked = make_denoiser(self.spec, shape, 0 if shares is None else len(shares)).shapes()
        for name in sorted(asked.keys() | found.keys()):
            got = found[name].shape if name in found else "none"
            if got != asked.get(name, "none"):
                raise InputError(
                    f"state: got weight.{name} of shape {got}, allowed {asked.get(name, 'none')}; "
                    "restore with the options that it was fitted with"
                )
        weights = {name: np.array(found[name], np.float32) for name in asked}
        copied = None if shares is None else np.array(shares, np.float64)
        model = DiffusionModel(self.spec, shape, copied, weights, float(state["loss"][0]))
        return DiffusionGenerator(self.spec, model, bool(state["is_bytes"][0]))


def fit_diffusion(
    images: Float[np.ndarray, " n *shape"],
    labels: Int[np.ndarray, " n"] | None,
    spec: DiffusionSpec,
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    start: DiffusionModel | None = None,
    rng: np.random.Generator,
    on_step: Callable[[int, float], None] | None = None,
) -> DiffusionModel:
    """A diffusion model fitted to the images.

    The same images, options, state of `rng` and versions of libraries give the same bytes on one kind of
    processor, whatever number of threads is set elsewhere; other devices and compiled networks promise less. No
    global random state is read or changed.

    Args:
        images: pixels in [-1, 1]: n h w, or n h w c.
        labels: class of each image, from 0; None trains without classes.
        spec: options.
        weights: of each image in training, 0 or more; None weighs all alike. Images of weight 0 might as well
            not be there, and the label shares are weighted too.
        start: a model of the same denoiser, target, levels of noise, size and classes to go on from, from its
            running means; None starts from random weights. Options of the training may differ.
        rng: seeds the weights, the noise and the order of the images.
        on_step: called after each training step with its number, from 1, and its loss.

    Raises:
        InputError: no images, pixels outside [-1, 1], negative labels, weights to draw nothing by, or a start
            of another kind.
        GeneratorDiverged: a learning rate that is too large.

    Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020; noise schedule of Nichol
        and Dhariwal, "Improved denoising diffusion probabilistic models", 2021, equation 17; targets of
        Salimans and Ho, "Progressive distillation for fast sampling of diffusion models", 2022, section 4.
    """
    check_data(images, labels)
    if weights is not None:
        check_weights(weights, len(images))
        used = weights > 0
        images, weights = images[used], weights[used].astype(np.float64)
        labels = None if labels is None else labels[used]
    shape = images.shape[1:]
    n_classes = 0 if labels is None else int(labels.max()) + 1
    if start is not None:
        _check_start(start, spec, shape, labels)
        n_classes = start.n_classes
    counts = None if labels is None else np.bincount(labels, weights, minlength=n_classes)
    with threads(spec.n_threads):
        found, loss = train(
            make_denoiser(spec, shape, n_classes),
            images,
            np.zeros(len(images), np.int64) if labels is None else labels,
            weights,
            spec,
            n_classes=n_classes,
            start=None if start is None else start.weights,
            rng=rng,
            on_step=on_step,
        )
    return DiffusionModel(spec, shape, None if counts is None else counts / counts.sum(), found, loss)


def _check_start(
    start: DiffusionModel,
    spec: DiffusionSpec,
    shape: tuple[int, ...],
    labels: Int[np.ndarray, " n"] | None,
) -> None:
    for name in NETWORK:
        if getattr(start.spec, name) != getattr(spec, name):
            raise InputError(
                f"start: got {name} {getattr(start.spec, name)}, allowed {getattr(spec, name)} as in these options"
            )
    if start.shape != shape:
        raise InputError(
            f"start: got a model of images of shape {start.shape}, allowed {shape} as these have"
        )
    if (labels is None) != (start.n_classes == 0) or (labels is not None and labels.max() >= start.n_classes):
        got = "none" if labels is None else f"up to {labels.max()}"
        raise InputError(
            f"labels: got {got}, allowed those of the start, which has {start.n_classes} classes; start from scratch"
        )
