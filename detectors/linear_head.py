"""Linear heads that were trained elsewhere, UnivFD and ClipDet among them, from files of tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.detector import (
    AbstractDetector,
    DetectorState,
    Scores,
    score_rows,
    take_setting,
    take_tensor,
)
from poolproof.detectors.probe import head_settings
from poolproof.errors import InputError

NAMES: Final = (("weight", "bias"), ("fc.weight", "fc.bias"), ("head.weight", "head.bias"), ("W", "b"))
"""Under which files hold the weights and the bias of a head."""

SUFFIXES: Final = (".pth", ".pt", ".bin", ".safetensors", ".npz")

WIDTHS: Final = {"univfd": 768, "clipdet": 1024}
"""Features of the public heads, by kind."""

_NESTS: Final = ("state_dict", "model", "net")


@final
@dataclass(frozen=True, eq=False)
class LinearHead(AbstractDetector):
    """One linear layer on a reader's features as they come.

    Attributes:
        reader: spec of what makes its features.
        weight: of each feature.
        bias: added at the end.
        threshold: a score above it is flagged.
        kind: `univfd`, `clipdet`, or `linear` for any other.
    """

    reader: str
    weight: Float64[np.ndarray, " d"]
    bias: float
    threshold: float = 0.0
    kind: str = "linear"

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the layer's output, a logit or log-likelihood ratio; larger = more synthetic."""

        def apply(rows: np.ndarray) -> np.ndarray:
            return np.einsum("nd,d->n", rows.astype(np.float64), self.weight) + self.bias

        return score_rows(features, len(self.weight), apply)

    def state(self) -> DetectorState:
        """Return what rebuilds the detector."""
        tensors = {"weight": self.weight, "bias": np.array([self.bias])}
        return DetectorState(self.kind, tensors, head_settings(self))


def load_linear_head(
    path: str | Path, *, kind: str = "linear", reader: str = "", threshold: float = 0.0
) -> LinearHead:
    """Return a linear head from a file; nothing but tensors is read, and no code is run.

    A head of two outputs, real and synthetic in this order, becomes their difference.

    Args:
        path: `.pth`, `.pt`, `.bin`, `.safetensors` or `.npz`, with the names of `NAMES`, perhaps inside
            `state_dict`, `model` or `net`.
        kind: `univfd` (768 features), `clipdet` (1024) or `linear` (any number).
        reader: spec of what makes its features.
        threshold: 0 is even odds for the public heads.

    Raises:
        InputError: the file is missing, damaged, holds anything but tensors, other names, another width or NaN.

    Source: UnivFD: Ojha, Li and Lee, arXiv 2302.10174. ClipDet: Cozzolino et al., arXiv 2312.00195.
    """
    path = Path(path)
    tensors = _read_tensors(path)
    for weight_name, bias_name in NAMES:
        if weight_name in tensors and bias_name in tensors:
            weight, bias = tensors[weight_name], tensors[bias_name].reshape(-1)
            break
    else:
        found = ", ".join(sorted(tensors)[:6]) or "nothing"
        allowed = ", ".join(" with ".join(names) for names in NAMES)
        raise InputError(f"head {path}: got {found}, allowed {allowed}: choose the file of a linear head")
    if weight.ndim == 1:
        weight = weight[None]
    if weight.ndim != 2 or len(weight) not in (1, 2) or len(bias) != len(weight):
        got = f"weights of shape {weight.shape} and {len(bias)} biases"
        raise InputError(f"head {path}: got {got}, allowed 1 or 2 outputs: choose the file of a linear head")
    width = WIDTHS.get(kind)
    if width is not None and weight.shape[1] != width:
        got = f"{weight.shape[1]} features"
        raise InputError(f"head {path}: got {got}, allowed {width} for {kind}: this is another head's file")
    wide, offset = weight.astype(np.float64), bias.astype(np.float64)
    if not (np.isfinite(wide).all() and np.isfinite(offset).all()):
        raise InputError(f"head {path}: got NaN or infinity, allowed finite weights: fetch the file anew")
    if len(wide) == 2:
        wide, offset = wide[1:] - wide[:1], offset[1:] - offset[:1]
    return LinearHead(reader, wide[0], float(offset[0]), threshold, kind)


def restore_linear(state: DetectorState) -> LinearHead:
    """Return the detector that was saved."""
    weight = take_tensor(state, "weight", WIDTHS.get(state.kind))
    bias = float(take_tensor(state, "bias", 1)[0])
    reader, threshold = take_setting(state, "reader", str), take_setting(state, "threshold", float)
    return LinearHead(reader, weight, bias, threshold, state.kind)


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name."""
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"head {path}: got the suffix {path.suffix!r}, allowed {', '.join(SUFFIXES)}: check the path"
        )
    if not path.is_file():
        raise InputError(f"head {path}: got no file, allowed a file of weights: check the path")
    try:
        content = _read_file(path)
    except Exception as error:  # a stranger's file can fail in any way, and each costs one line
        line = " ".join(str(error).split())[:120]
        raise InputError(
            f"head {path}: does not load ({type(error).__name__}: {line}), allowed a file that holds tensors "
            "alone: fetch it anew or save its weights as safetensors"
        ) from error
    for name in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        got = type(content).__name__
        raise InputError(f"head {path}: got one {got}, allowed tensors by name: save a state dict")
    arrays = {str(name).removeprefix("module."): _as_array(value) for name, value in content.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def _read_file(path: Path) -> Any:
    if path.suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise ValueError("not an archive of arrays")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _as_array(value: Any) -> np.ndarray | None:
    """Numbers as an array in double precision, None for anything else."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to(torch.float64).numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value.astype(np.float64)
    return None
