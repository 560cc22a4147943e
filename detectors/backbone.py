"""What makes a vector of an image: the contract of embedders, and the one that runs a vision model."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float32, UInt8

from poolproof.errors import InputError

READER_VERSION: Final = 1
"""Raised when the same spec and weights give other vectors than before; cached ones are then not used."""

SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".bin")
"""Of files of weights."""

HALF_LIMIT: Final = 65_520.0
"""Magnitude from which half precision, in which vectors are stored, has no number."""

_BATCH: Final = 32


class AbsentWeights(InputError):
    """A pretrained tag is known, and its weights are not on this machine."""


class AbstractEmbedder(abc.ABC):
    """A map from images to vectors.

    Attributes:
        name: the spec that loads it.
        dim: length of the vectors.
        weights_sha256: digest of the file of weights in hexadecimal digits, None without weights.
        precision: of the computation, `float32` or `bfloat16`.
    """

    name: str
    dim: int
    weights_sha256: str | None
    precision: str = "float32"

    @abc.abstractmethod
    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[np.ndarray, "n d"]:
        """Vectors, one row per image in the given order: of Euclidean length 1 unless the spec says `raw`.

        A row that half precision cannot hold is NaN, and detectors abstain from it.

        Args:
            images: RGB, of any sizes.
        """


@final
@dataclass(frozen=True, eq=False)
class VisionEmbedder(AbstractEmbedder):
    """The image tower of a model, on the processor.

    The same images in the same order give the same vectors on the same machine. They differ a little between
    processors with and without bfloat16.

    Args:
        name: the spec that loads it.
        dim: length of the vectors.
        weights_sha256: digest of the file of weights.
        encode: from a batch of transformed images to features.
        transform: from a PIL image to a tensor.
        precision: in which the tower computes, `float32` or `bfloat16`.
        unit: whether vectors get length 1.
    """

    name: str
    dim: int
    weights_sha256: str | None
    encode: Callable[..., Any]
    transform: Callable[..., Any]
    precision: str = "float32"
    unit: bool = True

    def prepare(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Any:
        """The batch of transformed images, a tensor in single precision."""
        import torch
        from PIL import Image

        return torch.stack([self.transform(Image.fromarray(pixels)) for pixels in images])

    def features(self, batch: Any) -> Float32[np.ndarray, "n d"]:
        """The tower's vectors of a batch, as they come."""
        import torch

        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        with torch.inference_mode():
            return self.encode(batch.to(dtype)).float().numpy()

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[np.ndarray, "n d"]:
        """Vectors, one row per image in the given order: of Euclidean length 1 unless the spec says `raw`."""
        vectors = np.zeros((len(images), self.dim), np.float32)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            features = self.features(self.prepare(part))
            vectors[start : start + len(part)] = unit_rows(features) if self.unit else features
        return mark_overflow(vectors)


def unit_rows(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Return the vectors with Euclidean length 1; zeros stay zeros."""
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)


def mark_overflow(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Return the vectors, with rows of NaN where half precision cannot hold a number or there is none."""
    held = (np.abs(vectors) < HALF_LIMIT).all(axis=1, keepdims=True)  # false for NaN
    return np.where(held, vectors, np.float32(np.nan))


def pick_precision(bfloat16: bool | None) -> str:
    """Return what to compute in; None takes bfloat16 where the processor multiplies in it."""
    import torch

    if bfloat16 is None:
        flags = getattr(torch.cpu, "get_capabilities", dict)()
        bfloat16 = any(flags.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if bfloat16 else "float32"


def hash_weights(path: Path) -> str:
    """Return the SHA-256 of a file of weights in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of some files of a repository in the local Hugging Face cache; looks at files alone."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str) and Path(path).is_file():
            return Path(path)
    return None


def absent(spec: str) -> AbsentWeights:
    """Return the error for a known tag whose weights are not here."""
    return AbsentWeights(
        f"embedder: got {spec!r}, allowed weights in the local cache, and these are not; "
        f"fetch them with: poolproof models pull {spec}"
    )


def find_file(spec: str, weights: str, tags: Sequence[str]) -> Path:
    """Return the file that a spec names where it is not a tag.

    Raises:
        InputError: no such file, another suffix, or neither a tag nor a path.
    """
    path = Path(weights).expanduser()
    if path.suffix in SUFFIXES and path.is_file():
        return path
    if path.suffix in SUFFIXES or "/" in weights:
        raise InputError(
            f"embedder: got {spec!r}, allowed a file with the suffix {', '.join(SUFFIXES)}; check the path"
        )
    listed = ", ".join(tags) or "none"
    raise InputError(
        f"embedder: got {spec!r} with the tag {weights!r}, allowed {listed}, or the path of a checkpoint; choose one"
    )


def load_failed(spec: str, path: Path, model: str, error: Exception) -> InputError:
    """Return the error of a file that does not load: a stranger's file can fail in any way, each costs one line."""
    line = " ".join(str(error).split())[:160]
    return InputError(
        f"embedder: got {spec!r}, whose file {path} does not load ({type(error).__name__}: {line}), "
        f"allowed a checkpoint of {model} that holds tensors alone; choose its file or architecture"
    )
