"""What every detector is: features in, scores out, larger = more synthetic, and no answer where there is none.

A detector stands on two legs. A *reader* of images makes a vector of each (`detectors/embed.py`: an embedding
model, the weight-free features, or the stability of an embedding under noise); a *head* makes a score of the
vector. A detector here is a head, which names the reader it belongs to. So evidence is read once, whatever
heads are tried on it, and a head is small enough to be saved as a few tensors and a page of JSON.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Bool, Float, Float32

from poolproof.errors import InputError

STATE_VERSION: Final = 1
"""Of saved detectors; raised when one that was saved before would score differently or not load."""


@final
@dataclass(frozen=True)
class Scores:
    """What a detector says of some items.

    Attributes:
        values: larger = more synthetic; 0 where the detector abstains, which means nothing.
        abstained: items without an answer: their features are missing or not finite.
    """

    values: Float32[np.ndarray, " n"]
    abstained: Bool[np.ndarray, " n"]


@final
@dataclass(frozen=True)
class DetectorState:
    """All that a fitted detector consists of.

    Attributes:
        kind: its name in the table of detectors.
        tensors: arrays by name, float32, float64 or int64.
        settings: JSON values by name.
    """

    kind: str
    tensors: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]


class AbstractDetector(abc.ABC):
    """A fitted head: scores feature vectors and knows which reader they must come from.

    Subclasses are frozen dataclasses. Scoring is row by row: the score of an item does not depend on the
    items beside it.

    Attributes:
        kind: its name in the table of detectors (`detectors/kinds.py`).
        reader: the spec of what makes its features, as in `load_embedder`; empty where the caller has not said.
        threshold: an item with a score above it is flagged.
    """

    kind: str
    reader: str
    threshold: float

    @abc.abstractmethod
    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the score of each item, larger = more synthetic; rows that are not finite are abstained from.

        Args:
            features: of the detector's reader.

        Raises:
            InputError: the width is not that of the detector's features.
        """

    @abc.abstractmethod
    def state(self) -> DetectorState:
        """Return what rebuilds the detector, threshold and reader among the settings."""


def split_finite(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "m d"], Bool[np.ndarray, " n"]]:
    """Return the rows that are finite, and which those are; what a detector abstains from is left out."""
    finite = np.asarray(np.isfinite(features).all(axis=1))
    return features[finite], finite


def fill_scores(values: Float[np.ndarray, " m"], finite: Bool[np.ndarray, " n"]) -> Scores:
    """Return the scores of all items from those of the finite ones; one that overflows is no answer either."""
    full = np.zeros(len(finite), np.float32)
    with np.errstate(over="ignore"):
        full[finite] = values
    answered = finite & np.isfinite(full)
    full[~answered] = 0
    return Scores(full, ~answered)


def score_rows(
    features: Float[np.ndarray, "n d"],
    width: int,
    score: Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, " m"]],
) -> Scores:
    """Return the scores of all items by a function of the finite ones.

    Args:
        features: as the detector was given them.
        width: that they must have.
        score: is called with one row or more, none otherwise.

    Raises:
        InputError: another width.
    """
    if features.ndim != 2 or features.shape[1] != width:
        got = f"width {features.shape[1]}" if features.ndim == 2 else f"shape {features.shape}"
        raise InputError(
            f"features: got {got}, allowed width {width} as in the references: use the detector's reader"
        )
    rows, finite = split_finite(features)
    return fill_scores(score(rows) if len(rows) else np.zeros(0), finite)


def check_varied(name: str, features: Float[np.ndarray, "n d"]) -> None:
    """Raise InputError where all items have the same features: nothing can be learnt of them."""
    if (features == features[:1]).all():
        raise InputError(
            f"{name}: got {len(features)} items with the same features, allowed features that vary: "
            "check the references and the reader"
        )


def take_tensor(state: DetectorState, name: str, *shape: int | None, dtype: type = np.float64) -> np.ndarray:
    """Return a tensor of a saved detector, finite and of a floating type.

    Args:
        state: as saved.
        name: of the tensor.
        shape: expected lengths, None for any of 1 or more.
        dtype: that it gets.

    Raises:
        InputError: it is missing, has another shape, or holds NaN or infinity.
    """
    tensor = state.tensors.get(name)
    wanted = " x ".join("n" if side is None else str(side) for side in shape)
    if tensor is None:
        found = ", ".join(sorted(state.tensors)) or "none"
        raise InputError(f"detector {state.kind}: got the tensors {found}, allowed with {name}: save it anew")
    fits = tensor.ndim == len(shape) and all(
        length >= 1 if side is None else length == side
        for length, side in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"detector {state.kind}: got {name} of shape {tensor.shape}, allowed {wanted}: save it anew"
        )
    if tensor.dtype.kind not in "fiu" or not np.isfinite(tensor).all():
        raise InputError(f"detector {state.kind}: got NaN or no number in {name}, allowed finite numbers")
    return tensor.astype(dtype)


def take_setting(state: DetectorState, name: str, kind: type) -> Any:
    """Return a setting of a saved detector, of the given type.

    Raises:
        InputError: it is missing, of another type, or not finite.
    """
    value: Any = state.settings.get(name)
    value = float(value) if kind is float and type(value) is int else value
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise InputError(
            f"detector {state.kind}: got {name} = {value!r}, allowed a finite {kind.__name__}: save it anew"
        )
    return value
