"""Training of the flow by maximum likelihood, and its options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.coupling import normalise_layers, standard_log_density, to_latent
from poolproof.simulate.denoiser import threads, unpack
from poolproof.simulate.device import find_device
from poolproof.simulate.frame import Frame
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.rows import resample

if TYPE_CHECKING:
    import torch

BATCH: Final = 4096
"""Samples that go through the network together outside training; bounds memory."""

WARM_UP: Final = 0.05
"""Share of the training steps over which the learning rate rises to its value; it then falls along a half cosine."""

LONGEST_STEP: Final = 1.0
"""Norm of the gradient beyond which it is shortened: single outliers make likelihoods steep."""


@dataclass(frozen=True)
class FlowSpec:
    """Options of a flow. The defaults suit ten thousand points of the plane.

    For a thousand images of 8 x 8 pixels with 17 grey levels, take hidden 128, n_epochs 60, batch_size 128,
    weight_decay 3 and n_levels 17.

    Attributes:
        n_layers: of normalisation, mixing and coupling.
        hidden: units per hidden layer of a coupling's network.
        n_epochs: passes over the training samples.
        batch_size: samples per training step, at most.
        learning_rate: peak step size of AdamW.
        weight_decay: of AdamW, 0 or more.
        n_levels: grey levels that images have, 2 to 256; noise of the size of a step makes them continuous. With more
            than they have, the density turns into spikes.
        n_threads: processor threads. Sums depend on how work is split, so another number gives other bytes.
        device: `cpu`, `cuda`, or `auto` for the latter where there is one. They round differently.
    """

    n_layers: int = 8
    hidden: int = 64
    n_epochs: int = 20
    batch_size: int = 256
    learning_rate: float | int = 5e-3
    weight_decay: float | int = 0.0
    n_levels: int = 256
    n_threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("n_layers", "hidden", "n_epochs", "batch_size", "n_threads"):
            check_count(name, getattr(self, name), 1)
        check_range("learning_rate", self.learning_rate, 0.0, math.inf, above=True)
        check_range("weight_decay", self.weight_decay, 0.0, math.inf)
        check_count("n_levels", self.n_levels, 2)
        check_range("n_levels", self.n_levels, 2, 256)
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device: got {self.device!r}, allowed auto, cpu or cuda; name one of them")


def train_flow(
    frame: Frame,
    rows: Float64[np.ndarray, "n d"],
    classes: Int[np.ndarray, " n"] | None,
    shares: Float[np.ndarray, " n"],
    first: dict[str, Float32[np.ndarray, " *shape"]],
    is_new: bool,
    spec: FlowSpec,
    *,
    rng: np.random.Generator,
) -> tuple[dict[str, Float32[np.ndarray, " *shape"]], float]:
    """Weights after training, and the mean negative log-likelihood per coordinate over the last pass.

    Args:
        frame: how rows become coordinates.
        rows: as `read_rows` gives them.
        classes: of each row, from 0; None without classes.
        shares: weights of the rows, with sum 1.
        first: weights to start from.
        is_new: whether the layers' normalisations are still to be set.
        spec: options.
        rng: order of the rows, and noise between grey levels.

    Raises:
        InputError: a device that is not there.
        GeneratorDiverged: the weights became infinite or NaN.
    """
    import torch

    device = find_device(spec.device)
    shapes = {name: value.shape for name, value in first.items()}
    units = None if classes is None else np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]

    def load(chosen: Int[np.ndarray, " m"]) -> tuple[torch.Tensor, torch.Tensor | None]:
        coordinates = torch.tensor(frame.encode(rows[chosen], rng=rng), dtype=torch.float32, device=device)
        return coordinates, None if units is None else torch.tensor(units[chosen], device=device)

    n, losses = len(rows), list[torch.Tensor]()
    n_batches = math.ceil(n / spec.batch_size)
    n_steps = spec.n_epochs * n_batches
    with torch.enable_grad(), threads(spec.n_threads):
        # one vector for all weights: one call per update instead of one per array
        vector = torch.tensor(
            np.concatenate([value.ravel() for value in first.values()]), dtype=torch.float32, device=device
        ).requires_grad_()
        if is_new:
            with torch.no_grad():
                some = rng.permutation(resample(shares, n, rng=rng))[:BATCH]
                normalise_layers(unpack(vector, shapes), load(some)[0])
        optimizer = torch.optim.AdamW(
            [vector], lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=spec.weight_decay, fused=True
        )
        step = 0
        for _ in range(spec.n_epochs):
            order = rng.permutation(resample(shares, n, rng=rng))
            losses = []
            for batch in np.array_split(order, n_batches):
                optimizer.param_groups[0]["lr"] = spec.learning_rate * _rate(step, n_steps)
                points, given = load(batch)
                latent, log_det = to_latent(unpack(vector, shapes), points, given)
                loss = -(standard_log_density(latent) + log_det).mean() / frame.dim
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([vector], LONGEST_STEP)
                optimizer.step()
                losses.append(loss.detach())
                step += 1
        last = float(torch.stack(losses).mean())
        trained = {name: w.cpu().numpy().copy() for name, w in unpack(vector.detach(), shapes).items()}
    if not (math.isfinite(last) and all(np.isfinite(w).all() for w in trained.values())):
        raise GeneratorDiverged(
            f"learning_rate: training at {spec.learning_rate} ended in values that are not finite; use a smaller one"
        )
    return trained, last


def _rate(step: int, n_steps: int) -> float:
    return min(1.0, (step + 1) / (WARM_UP * n_steps)) * (0.5 + 0.5 * math.cos(math.pi * step / n_steps))
