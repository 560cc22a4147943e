"""The network of the flow, as functions of named weights. No global random state is used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, Float32

if TYPE_CHECKING:
    import torch

Weights = dict[str, "torch.Tensor"]

MOST_STRETCH: Final = 1.0
"""Bound on the logarithm of the factor of a coupling, so that no layer can blow a coordinate up."""


def weight_shapes(d: int, n_layers: int, hidden: int, n_classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of all layers, by name; without classes there is no class table."""
    kept, moved = split_sizes(d)
    one: dict[str, tuple[int, ...]] = {
        "shift": (d,),
        "log_scale": (d,),
        "lower": (d, d),
        "upper": (d, d),
        "log_diagonal": (d,),
        "enter.weight": (kept, hidden),
        "enter.bias": (hidden,),
        "middle.weight": (hidden, hidden),
        "middle.bias": (hidden,),
        "leave.weight": (hidden, 2 * moved),
        "leave.bias": (2 * moved,),
    }
    if n_classes:
        one |= {
            "class": (n_classes, hidden),
            "class_shift": (n_classes, d),
            "class_log_scale": (n_classes, d),
        }
    return {name: (n_layers, *shape) for name, shape in one.items()}


def split_sizes(d: int) -> tuple[int, int]:
    """Coordinates that a coupling leaves as they are, and coordinates that it moves."""
    return d - d // 2, d // 2


def initial_weights(
    shapes: dict[str, tuple[int, ...]], *, rng: np.random.Generator
) -> dict[str, Float32[np.ndarray, " *shape"]]:
    """Random weights by name: mixings are rotations, couplings the identity, normalisations still to be set."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("enter.weight", "middle.weight"):
        weights[name] += rng.normal(0, shapes[name][1] ** -0.5, shapes[name])
    if "class" in shapes:
        weights["class"] += rng.normal(0, 1, shapes["class"])
    for layer in range(len(weights["lower"])):
        lower, upper, log_diagonal = _rotation(weights["lower"].shape[1], rng=rng)
        weights["lower"][layer], weights["upper"][layer] = lower, upper
        weights["log_diagonal"][layer] = log_diagonal
    return weights


def _rotation(
    d: int, *, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
    """The strict triangles of an orthogonal matrix L U, and the logarithm of the diagonal of U."""
    from scipy.linalg import lu, qr

    rotation = qr(rng.standard_normal((d, d)))[0]
    # rows in the order of the pivots and with signs that make the diagonal of U positive: orthogonal again
    factors: Any = lu(rotation)
    _, lower, upper = factors
    sign = np.sign(np.diag(upper))
    lower, upper = lower * np.outer(sign, sign), upper * sign[:, None]
    return np.tril(lower, -1), np.triu(upper, 1), np.log(np.diag(upper))


def to_latent(
    weights: Weights, points: torch.Tensor, classes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent points, and the logarithm of the absolute Jacobian determinant of the map at each point.

    Args:
        weights: by name, see `weight_shapes`.
        points: one per row.
        classes: of each point, as rows of a unit matrix; None without classes.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions", 2018, table 1 (normalisation,
        mixing by triangles, coupling); Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017.
    """
    import torch

    lower, upper = _triangles(weights)
    mixings = (lower @ upper).mT.unbind()
    scales, shifts = weights["log_scale"].exp().unbind(), weights["shift"].unbind()
    couplings = _couplings(weights)
    state, stretches = points, []
    for layer, mixing in enumerate(mixings):
        state = (state + shifts[layer]) * scales[layer]
        if classes is not None:
            log_scale = classes @ weights["class_log_scale"][layer]
            state = (state + classes @ weights["class_shift"][layer]) * log_scale.exp()
            stretches.append(log_scale)
        state = state @ mixing
        kept, moved = state.split(split_sizes(state.shape[1]), dim=1)
        stretch, shift = _couple(couplings[layer], kept, classes)
        state = torch.cat([kept, torch.addcmul(shift, moved, stretch.exp())], dim=1)
        stretches.append(stretch)
    constant = weights["log_scale"].sum() + weights["log_diagonal"].sum()
    return state, torch.cat(stretches, dim=1).sum(dim=1) + constant


def from_latent(weights: Weights, latent: torch.Tensor, classes: torch.Tensor | None) -> torch.Tensor:
    """The points of latent points: the inverse of `to_latent`."""
    import torch
    from torch.linalg import solve_triangular

    lower, upper = _triangles(weights)
    couplings = _couplings(weights)
    state = latent
    for layer in reversed(range(len(couplings))):
        kept, moved = state.split(split_sizes(state.shape[1]), dim=1)
        stretch, shift = _couple(couplings[layer], kept, classes)
        state = torch.cat([kept, (moved - shift) * (-stretch).exp()], dim=1)
        state = solve_triangular(lower[layer], state.T, upper=False, unitriangular=True)
        state = solve_triangular(upper[layer], state, upper=True).T
        if classes is not None:
            state = state * (classes @ -weights["class_log_scale"][layer]).exp()
            state = state - classes @ weights["class_shift"][layer]
        state = state * (-weights["log_scale"][layer]).exp() - weights["shift"][layer]
    return state


def normalise_layers(weights: Weights, points: torch.Tensor) -> None:
    """Sets shifts and scales, in place, so that what enters each mixing has mean 0 and variance 1 on the points.

    Couplings have to be the identity still.

    Source: Kingma and Dhariwal, 2018, section 3.1 (activation normalisation, initialised from data).
    """
    lower, upper = _triangles(weights)
    state = points
    for layer, mixing in enumerate((lower @ upper).mT):
        weights["shift"][layer] = -state.mean(dim=0)
        # a coordinate without spread stays as it is
        spread = state.std(dim=0, correction=0)
        weights["log_scale"][layer] = -spread.where(spread > 1e-6, spread.new_ones(1)).log()
        state = ((state + weights["shift"][layer]) * weights["log_scale"][layer].exp()) @ mixing


def standard_log_density(latent: torch.Tensor) -> torch.Tensor:
    """The logarithm of the density of N(0, I) at each row."""
    return -0.5 * (latent**2).sum(dim=1) - 0.5 * math.log(2 * math.pi) * latent.shape[1]


def _triangles(weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """The two factors of each mixing; the free entries of the first are below the diagonal, which is 1."""
    import torch

    lower, upper = weights["lower"], weights["upper"]
    unit = torch.eye(lower.shape[1], dtype=lower.dtype, device=lower.device)
    return lower.tril(-1) + unit, upper.triu(1) + torch.diag_embed(weights["log_diagonal"].exp())


def _couplings(weights: Weights) -> list[Weights]:
    """The weights of the couplings' networks, by layer."""
    names = [name for name in weights if name.startswith(("enter", "middle", "leave")) or name == "class"]
    parts = zip(*(weights[name].unbind() for name in names), strict=True)
    return [dict(zip(names, part, strict=True)) for part in parts]


def _couple(
    layer: Weights, kept: torch.Tensor, classes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounded logarithms of the factors, and the shifts, of the coordinates that are moved."""
    from torch import addmm
    from torch.nn.functional import silu

    inner = addmm(layer["enter.bias"], kept, layer["enter.weight"])
    if classes is not None:
        # a product with unit vectors adds up in a fixed order on every device; looking rows up does not
        inner = inner.addmm(classes, layer["class"])
    inner = silu(addmm(layer["middle.bias"], silu(inner), layer["middle.weight"]))
    stretch, shift = addmm(layer["leave.bias"], inner, layer["leave.weight"]).chunk(2, dim=1)
    return MOST_STRETCH * (stretch / MOST_STRETCH).tanh(), shift
