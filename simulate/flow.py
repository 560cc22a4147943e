"""A normalising flow of points or small images: a density that is known exactly, and samples from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count
from poolproof.simulate.coupling import (
    from_latent,
    initial_weights,
    standard_log_density,
    to_latent,
    weight_shapes,
)
from poolproof.simulate.denoiser import threads
from poolproof.simulate.device import find_device
from poolproof.simulate.frame import KINDS, Frame, measure_frame, read_rows
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Samples, State
from poolproof.simulate.likelihood import BATCH, FlowSpec, train_flow
from poolproof.simulate.rows import check_bias, read_weights

_DEFAULTS: Final = FlowSpec()


@final
@dataclass(frozen=True, eq=False)
class FlowModel:
    """A fitted flow.

    Attributes:
        frame: how samples become coordinates.
        label_shares: weighted frequency of each class among the training labels; None if there were no labels.
        weights: of the network, by name.
        loss: mean negative log-likelihood per standardised coordinate over the last pass, in nats.
    """

    frame: Frame
    label_shares: Float64[np.ndarray, " k"] | None
    weights: dict[str, Float32[np.ndarray, " *shape"]]
    loss: float


@final
@dataclass(frozen=True, eq=False)
class FlowGenerator(AbstractGenerator):
    """The flow as a generator of a loop.

    Attributes:
        spec: its options.
        model: what was fitted; None before.
    """

    spec: FlowSpec = _DEFAULTS
    model: FlowModel | None = None

    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> FlowGenerator:
        """A flow of great likelihood.

        The same samples, options, state of `rng` and versions of libraries give the same bytes on one kind of
        processor, whatever number of threads is set elsewhere.

        Args:
            images: points n x d of any range, d 2 or more; or images, as bytes or as floats in [-1, 1].
            labels: class of each sample, from 0; None trains without classes.
            weights: of each sample. In each pass a sample comes as often as its weight says, rounded up or down at
                random (see `rows.resample`).
            start: a fitted flow of the same layers, shape and classes to go on from; its frame is kept.
            rng: seeds the weights, the order of the samples and the noise between grey levels.

        Raises:
            InputError: samples, labels, weights or a start that cannot be used, or a device that is not there.
            GeneratorDiverged: the weights became infinite or NaN.

        Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018. Alemohammad et
            al., "Self-consuming generative models go MAD", 2023, figure 17, for the default options but the learning
            rate, which they do not state.
        """
        counts, shares = read_weights(weights, len(images))
        kind, rows = read_rows(images, counts, self.spec.n_levels)
        classes = None if labels is None else _read_labels(labels)[counts]
        label_shares = None if classes is None else np.bincount(classes, shares)
        n_classes = 0 if label_shares is None else len(label_shares)
        if start is None:
            frame = measure_frame(kind, images.shape[1:], rows, shares, self.spec.n_levels, rng=rng)
            first = initial_weights(self._shapes(frame.dim, n_classes), rng=rng)
        else:
            frame, first = self._read_start(start, kind, images.shape[1:], n_classes)
        trained, loss = train_flow(frame, rows, classes, shares, first, start is None, self.spec, rng=rng)
        return FlowGenerator(self.spec, FlowModel(frame, label_shares, trained, loss))

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, Int[np.ndarray, " n"] | None]:
        """New samples and their labels, from latent points N(0, sampling_bias x I).

        Source: Alemohammad et al., 2023, section 2, sampling bias of normalising flows.
        """
        model = self._fitted()
        check_count("n", n, 1)
        check_bias(sampling_bias)
        if labels is None and model.label_shares is not None:
            labels = rng.choice(len(model.label_shares), size=n, p=model.label_shares)
        if labels is not None and len(labels) != n:
            raise InputError(f"labels: got {len(labels)}, allowed n = {n}; give one per sample")
        latent = rng.standard_normal((n, model.frame.dim)) * math.sqrt(sampling_bias)
        coordinates = _sample_coordinates(self.spec, model, latent, self._unit_rows(model, labels))
        if not np.isfinite(coordinates).all():
            raise GeneratorDiverged(
                "samples: some are not finite; train longer or with a smaller learning rate"
            )
        return model.frame.decode(coordinates), labels

    def log_density(
        self, points: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"] | None = None
    ) -> Float64[np.ndarray, " n"]:
        """The logarithm of the fitted density at points, in nats; given their classes if there are classes.

        Raises:
            InputError: the generator was not fitted to points of this size, or labels do not suit it.

        Source: change of variables; Dinh, Krueger and Bengio, "NICE", 2015, equation 2.
        """
        model = self._fitted()
        if model.frame.kind != "points" or points.shape[1:] != model.frame.shape:
            raise InputError(
                f"points: got shape {points.shape} for a flow of {model.frame.kind} of {model.frame.shape}, allowed "
                "points as in training; fit it to such points"
            )
        coordinates = (points - model.frame.centre) / model.frame.scale
        found = _log_densities(self.spec, model, coordinates, self._unit_rows(model, labels))
        return found - np.log(model.frame.scale).sum()

    def state(self) -> State:
        """The weights, the frame, the frequencies of the classes and the last loss."""
        model = self._fitted()
        shares = np.zeros(0) if model.label_shares is None else model.label_shares
        return {f"weight.{name}": value for name, value in model.weights.items()} | {
            "kind": np.array([KINDS.index(model.frame.kind)]),
            "shape": np.array(model.frame.shape, np.int64),
            "n_levels": np.array([model.frame.n_levels]),
            "centre": model.frame.centre,
            "scale": model.frame.scale,
            "label_shares": shares,
            "loss": np.array([model.loss]),
        }

    def restore(self, state: State) -> FlowGenerator:
        """A generator of these options with the flow that `state` was taken of."""
        names = {"kind", "shape", "n_levels", "centre", "scale", "label_shares", "loss"}
        if names - state.keys():
            raise InputError(
                f"state: got no {', '.join(sorted(names - state.keys()))}, allowed all; give them"
            )
        shape = tuple(int(size) for size in state["shape"])
        shares = state["label_shares"] if len(state["label_shares"]) else None
        shapes = self._shapes(math.prod(shape), len(state["label_shares"]))
        found = {name[7:]: value for name, value in state.items() if name.startswith("weight.")}
        if {name: value.shape for name, value in found.items()} != shapes:
            raise InputError(
                "state: got weights of other shapes, allowed those of these options; use its options"
            )
        frame = Frame(
            KINDS[int(state["kind"][0])], shape, int(state["n_levels"][0]), state["centre"], state["scale"]
        )
        return FlowGenerator(self.spec, FlowModel(frame, shares, found, float(state["loss"][0])))

    def _fitted(self) -> FlowModel:
        if self.model is None:
            raise InputError(
                "generator: got one not fitted, allowed a fitted one; call fit and use its result"
            )
        return self.model

    def _shapes(self, d: int, n_classes: int) -> dict[str, tuple[int, ...]]:
        return weight_shapes(d, self.spec.n_layers, self.spec.hidden, n_classes)

    def _read_start(
        self, start: AbstractGenerator, kind: str, shape: tuple[int, ...], n_classes: int
    ) -> tuple[Frame, dict[str, Float32[np.ndarray, " *shape"]]]:
        """Frame and weights of a flow to go on from."""
        if not isinstance(start, FlowGenerator) or start.model is None:
            raise InputError(
                "start: got no fitted flow, allowed a fitted FlowGenerator or None; fit one first"
            )
        frame, shapes = start.model.frame, {name: w.shape for name, w in start.model.weights.items()}
        same = (frame.kind, frame.shape, frame.n_levels) == (kind, shape, self.spec.n_levels)
        if not same or shapes != self._shapes(frame.dim, n_classes):
            raise InputError(
                f"start: got a flow of {frame.kind} of {frame.shape}, allowed one of the same layers, levels and "
                f"classes, of {kind} of {shape}; start without"
            )
        return frame, start.model.weights

    def _unit_rows(
        self, model: FlowModel, labels: Int[np.ndarray, " n"] | None
    ) -> Float32[np.ndarray, " *shape"] | None:
        """Labels as rows of a unit matrix."""
        n_classes = 0 if model.label_shares is None else len(model.label_shares)
        if labels is None and n_classes == 0:
            return None
        if labels is None or n_classes == 0:
            got, asked = ("none", "some") if labels is None else ("some", "none")
            raise InputError(
                f"labels: got {got}, allowed {asked} as in training; fit with labels to use them"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
            raise InputError(
                f"labels: got {labels.min()} to {labels.max()}, allowed 0 to {n_classes - 1}; use those of training"
            )
        return np.eye(n_classes, dtype=np.float32)[labels]


def _read_labels(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    if labels.min() < 0:
        raise InputError(f"labels: got {labels.min()}, allowed 0 or more; number the classes from 0")
    return labels


def _sample_coordinates(
    spec: FlowSpec,
    model: FlowModel,
    latent: Float64[np.ndarray, "n d"],
    units: Float32[np.ndarray, " *shape"] | None,
) -> Float64[np.ndarray, "n d"]:
    parts = _apply(from_latent, spec, model, latent, units)
    return np.concatenate([part.cpu().numpy() for part in parts])


def _log_densities(
    spec: FlowSpec,
    model: FlowModel,
    points: Float64[np.ndarray, "n d"],
    units: Float32[np.ndarray, " *shape"] | None,
) -> Float64[np.ndarray, " n"]:
    parts = _apply(to_latent, spec, model, points, units)
    return np.concatenate([(standard_log_density(z) + change).cpu().numpy() for z, change in parts])


def _apply(
    act: Callable[..., Any],
    spec: FlowSpec,
    model: FlowModel,
    rows: Float64[np.ndarray, "n d"],
    units: Float32[np.ndarray, " *shape"] | None,
) -> list[Any]:
    """What the network makes of the rows, batch by batch, in double precision: inverses lose digits."""
    import torch

    device = find_device(spec.device)
    with torch.no_grad(), threads(spec.n_threads):
        # torch.tensor copies to aligned memory: kernels may round differently at other alignments
        weights = {
            name: torch.tensor(w, dtype=torch.float64, device=device) for name, w in model.weights.items()
        }
        parts = []
        for begin in range(0, len(rows), BATCH):
            chosen = slice(begin, begin + BATCH)
            given = None if units is None else torch.tensor(units[chosen], dtype=torch.float64, device=device)
            parts.append(act(weights, torch.tensor(rows[chosen], device=device), given))
        return parts
