"""A small convolutional network that gives images features and classes: what LeNet is to the MAD paper.

Its features are meant for distances between sets of images of the kind that it was trained on. They have a scale of
their own, so figures of two classifiers do not compare. No global random state is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt8

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.denoiser import threads, torch_generator
from poolproof.simulate.device import find_device
from poolproof.simulate.generator import GeneratorDiverged, State
from poolproof.simulate.lenet import hidden, initial_weights, scores, shift_images, weight_shapes

if TYPE_CHECKING:
    import torch

Pixels = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]
"""Images as bytes, or as floats in [-1, 1]."""

SIDES: Final = (8, 64)
"""Least and most pixels a side."""

MOST_CHANNELS: Final = 4

SMALLEST_CLASS: Final = 2
"""Images of a class, at least."""

READING_BATCH: Final = 1024
"""Images that are read together; bounds memory, and is part of the bytes that come out."""

DEVICES: Final = ("auto", "cpu", "cuda")
"""What a classifier may be told to run on."""


@dataclass(frozen=True)
class ClassifierSpec:
    """Options of a classifier. The defaults suit a thousand images of 8 x 8 pixels.

    Attributes:
        width: channels of the first layer; deeper ones have twice as many.
        n_features: units of the last layer but one, whose values are the features.
        n_epochs: how often training goes through the images.
        batch_size: images per training step.
        learning_rate: peak step size of AdamW; it rises over the first tenth of the steps, then falls to 0.
        dropout: in [0, 1); share of the features that are hidden in a training step.
        shift: pixels by which training images are moved each way, at most; 0 for images whose place matters.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
        device: `cpu`, `cuda`, or `auto` for a graphics processor where there is one. The same bytes come out again
            on the processor alone.
    """

    width: int = 32
    n_features: int = 64
    n_epochs: int = 60
    batch_size: int = 64
    learning_rate: float | int = 3e-3
    dropout: float | int = 0.25
    shift: int = 1
    n_threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("width", "n_features", "n_epochs", "batch_size", "n_threads"):
            check_count(name, getattr(self, name), 1)
        check_count("shift", self.shift, 0)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate: got {self.learning_rate}, allowed above 0; 0.003 is usual")
        check_range("dropout", self.dropout, 0, 0.95)
        if self.device not in DEVICES:
            raise InputError(f"device: got {self.device!r}, allowed {', '.join(DEVICES)}; choose one")


@final
@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
        spec: its options.
        shape: height, width and channels of an image.
        weights: of the network by name.
    """

    spec: ClassifierSpec
    shape: tuple[int, int, int]
    weights: dict[str, Float32[np.ndarray, " *shape"]]

    @property
    def n_classes(self) -> int:
        """Classes that are told apart, numbered from 0."""
        return len(self.weights["class.bias"])

    def features(self, images: Pixels) -> Float32[np.ndarray, "n d"]:
        """The values of the last layer but one, 0 or more.

        Raises:
            InputError: images of another shape, or pixels that are not finite or out of range.
        """
        return self._read(images)[0]

    def probabilities(self, images: Pixels) -> Float64[np.ndarray, "n k"]:
        """The probability of each class, as the network sees it; they add up to 1 and are not calibrated.

        Raises:
            InputError: as `features`.
        """
        from scipy.special import softmax

        return np.asarray(softmax(self._read(images)[1].astype(np.float64), axis=1))

    def predict(self, images: Pixels) -> Int64[np.ndarray, " n"]:
        """The class of highest probability.

        Raises:
            InputError: as `features`.
        """
        return self._read(images)[1].argmax(axis=1)

    def accuracy(self, images: Pixels, labels: Int[np.ndarray, " m"]) -> float:
        """The share of images that are given their label, in [0, 1].

        Raises:
            InputError: as `features`, or not one label per image.
        """
        if len(labels) != len(images):
            raise InputError(
                f"labels: got {len(labels)}, allowed {len(images)}, one per image; give all of them"
            )
        return float((self.predict(images) == labels).mean())

    def state(self) -> State:
        """The weights, and the shape of an image."""
        return {"shape": np.array(self.shape, np.int64), **self.weights}

    def _read(self, images: Pixels) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "n k"]]:
        _check_images(images)
        if images.shape[1:] != self.shape:
            raise InputError(
                f"images: got shape {images.shape[1:]}, allowed {self.shape} as in training; resize them alike"
            )
        import torch

        device = find_device(self.spec.device)
        with torch.no_grad(), threads(self.spec.n_threads):
            # torch.tensor copies to aligned memory: kernels may round differently at other alignments
            weights = {name: torch.tensor(value, device=device) for name, value in self.weights.items()}
            parts = []
            for start in range(0, len(images), READING_BATCH):
                pixels = _to_tensor(images[start : start + READING_BATCH]).to(device)
                features = hidden(weights, pixels)
                parts.append((features.cpu().numpy(), scores(weights, features).cpu().numpy()))
        features, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features, found


def restore_classifier(state: State, spec: ClassifierSpec) -> Classifier:
    """The classifier that `state` was taken of.

    Args:
        state: from `Classifier.state`.
        spec: the options of that classifier.

    Raises:
        InputError: arrays are missing, or have shapes that these options do not make.
    """
    missing = {"shape", "class.bias"} - set(state)
    if missing:
        raise InputError(
            f"state: got none of {', '.join(sorted(missing))}, allowed a classifier's arrays; give all of them"
        )
    height, width, channels = (int(size) for size in state["shape"])
    shapes = weight_shapes((height, width, channels), spec.width, spec.n_features, len(state["class.bias"]))
    found = {name: tuple(value.shape) for name, value in state.items() if name != "shape"}
    if found != shapes:
        wrong = next(name for name in {**shapes, **found} if found.get(name) != shapes.get(name))
        raise InputError(
            f"state: got {wrong} of shape {found.get(wrong)}, allowed {shapes.get(wrong)}; "
            "give the options that it was fitted with"
        )
    weights = {name: np.array(state[name], np.float32) for name in shapes}
    return Classifier(spec, (height, width, channels), weights)


def fit_classifier(
    images: Pixels, labels: Int[np.ndarray, " m"], spec: ClassifierSpec, *, rng: np.random.Generator
) -> Classifier:
    """A classifier trained on the images from scratch.

    The same images, options, state of `rng` and versions of libraries give the same bytes on one kind of processor,
    whatever number of threads is set elsewhere.

    Args:
        images: n h w c, sides of 8 to 64 pixels, 1 to 4 channels.
        labels: class of each image, from 0. A number in between that no image has is a class that is never learnt.
        spec: options.
        rng: seeds the weights, the order of the images, their shifts and the dropout.

    Raises:
        InputError: images of another form, less than two classes, or a class of one image.
        GeneratorDiverged: the weights became infinite or NaN.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998 (the kind of network);
        Alemohammad et al., arXiv 2307.01850, which takes LeNet's features in place of Inception's and does not state
        layer or training; He et al., arXiv 1502.01852 (initial weights); Srivastava et al., 2014 (dropout).
    """
    _check_images(images)
    _check_labels(labels, len(images))
    import torch

    height, width, channels = images.shape[1:]
    shape = (height, width, channels)
    device = find_device(spec.device)
    with torch.enable_grad(), threads(spec.n_threads):
        generator = torch_generator(rng)
        pixels = _to_tensor(images)
        classes = torch.tensor(labels, dtype=torch.int64)
        weights = initial_weights(
            weight_shapes(shape, spec.width, spec.n_features, int(labels.max()) + 1), generator, device
        )
        optimizer = torch.optim.AdamW(
            list(weights.values()), lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        n_steps = spec.n_epochs * math.ceil(len(pixels) / spec.batch_size)
        step = 0
        for _ in range(spec.n_epochs):
            order = torch.randperm(len(pixels), generator=generator)
            for rows in torch.split(order, spec.batch_size):
                optimizer.param_groups[0]["lr"] = spec.learning_rate * _rate(step, n_steps)
                step += 1
                moved = shift_images(pixels[rows], spec.shift, generator)
                # the global generator is what torch's own dropout draws from
                kept = torch.rand((len(rows), spec.n_features), generator=generator) >= spec.dropout
                features = hidden(weights, moved.to(device)) * (kept / (1 - spec.dropout)).to(device)
                loss = torch.nn.functional.cross_entropy(scores(weights, features), classes[rows].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in weights.items()}
    if not all(np.isfinite(value).all() for value in arrays.values()):
        raise GeneratorDiverged(
            f"classifier: training at learning_rate {spec.learning_rate} ended in NaN or infinity; use a smaller one"
        )
    return Classifier(spec, shape, arrays)


def _check_images(images: Pixels) -> None:
    n, height, width, channels = images.shape
    low, high = SIDES
    sides_fit = low <= min(height, width) and max(height, width) <= high
    if n == 0 or not sides_fit or not 1 <= channels <= MOST_CHANNELS:
        raise InputError(
            f"images: got shape {images.shape}, allowed 1 or more of {low} to {high} pixels a side and 1 to "
            f"{MOST_CHANNELS} channels, as n h w c; resize or reshape them"
        )
    if images.dtype == np.uint8:
        return
    if not np.isfinite(images).all():
        raise InputError("images: got NaN or infinity, allowed finite pixels; leave such images out")
    if max(-images.min(), images.max()) > 1 + 1e-3:
        raise InputError(
            f"images: got pixels in [{images.min():g}, {images.max():g}], allowed [-1, 1]; rescale or clip them"
        )


def _check_labels(labels: Int[np.ndarray, " m"], n_images: int) -> None:
    if len(labels) != n_images:
        raise InputError(f"labels: got {len(labels)}, allowed {n_images}, one per image; give all of them")
    if labels.min() < 0:
        raise InputError(f"labels: got {labels.min()}, allowed 0 or more; number the classes from 0")
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise InputError(
            f"labels: got class {present[0]} alone, allowed two classes or more; give images of another class"
        )
    if counts.min() < SMALLEST_CLASS:
        raise InputError(
            f"labels: got {counts.min()} image of class {present[counts.argmin()]}, allowed {SMALLEST_CLASS} or "
            "more of each; add images or leave the class out"
        )


def _to_tensor(images: Pixels) -> torch.Tensor:
    """Pixels in [-1, 1] as n c h w."""
    import torch

    pixels = images / np.float32(127.5) - np.float32(1) if images.dtype == np.uint8 else images
    return torch.tensor(pixels.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _rate(step: int, n_steps: int) -> float:
    """Share of the peak learning rate: a rise over a tenth of the steps, then half a cosine."""
    rise = max(1, n_steps // 10)
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise))) / 2
