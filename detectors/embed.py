"""Embeddings of images by a pretrained model, from weights that lie on this machine.

Nothing is downloaded here. Weights come from the local cache of open_clip and the Hugging Face hub, or from a
file, and are read as tensors alone: a file that holds code is refused.
"""

from __future__ import annotations

import abc
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float32, UInt8

from poolproof.errors import InputError

DEFAULT_EMBEDDER: Final = "clip:ViT-B-32/laion2b_s34b_b79k"
"""What `auto` stands for where its weights are in the local cache."""

FORENSIC: Final = "forensic"
"""The spec of a run without an embedding model: the weight-free features alone."""

_DEFAULT_REPOSITORY: Final = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
_SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".bin")
_BATCH: Final = 32


class AbsentWeights(InputError):
    """A pretrained tag is known, and its weights are not on this machine."""


class AbstractEmbedder(abc.ABC):
    """A map from images to unit vectors.

    Attributes:
        name: the spec that loads it.
        dim: length of the vectors.
        weights_sha256: digest of the file of weights in hexadecimal digits, None without weights.
    """

    name: str
    dim: int
    weights_sha256: str | None

    @abc.abstractmethod
    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[np.ndarray, "n d"]:
        """Vectors of length 1, one row per image in the given order.

        Args:
            images: RGB, of any sizes.
        """


def resolve_embedder(spec: str) -> tuple[str, str | None]:
    """The spec that a run works with, and a note of one line where that costs something, else None.

    `auto` becomes `DEFAULT_EMBEDDER` where its weights are in the local cache, else `forensic`. Other specs
    are returned as they are, once it is sure that their weights are here.

    Args:
        spec: `auto`, `forensic`, or `clip:MODEL/WEIGHTS` as for `load_embedder`.

    Raises:
        InputError: an unknown form, model or tag, or weights that are not on this machine.
    """
    if spec == FORENSIC:
        return spec, None
    if spec == "auto":
        if _hub_file(_DEFAULT_REPOSITORY, "") is not None:
            return DEFAULT_EMBEDDER, None
        return FORENSIC, (
            f"The weights of {DEFAULT_EMBEDDER} are not in the local cache, so the weight-free features are used: "
            "they see texture, colour and layout but no meaning, and miss synthetic images that match in those. "
            f"Remedy: poolproof models pull {DEFAULT_EMBEDDER}"
        )
    _locate(spec)
    return spec, None


def load_embedder(spec: str, *, bfloat16: bool | None = None) -> AbstractEmbedder | None:
    """The model of a resolved spec, or None for `forensic`.

    Args:
        spec: `forensic`, or `clip:MODEL/WEIGHTS`: an architecture of open_clip, and a pretrained tag of it
            whose weights are in the local cache, or the path of a checkpoint (.safetensors, .pt, .pth,
            .bin).
        bfloat16: whether to compute in bfloat16 instead of float32; None does so where the processor
            multiplies in it, which is more than twice as fast there. The cosine of such vectors with those in
            float32 is about 0.9999.

    Raises:
        InputError: an unknown form, model or tag; weights that are not on this machine, hold anything but
            tensors, or belong to another architecture.
    """
    if spec == FORENSIC:
        return None
    return _load_clip(spec, _locate(spec), _has_bfloat16() if bfloat16 is None else bfloat16)


def find_weights(spec: str) -> Path | None:
    """The file that holds a spec's weights, None where it is not on this machine.

    Raises:
        InputError: an unknown form, model or tag.
    """
    try:
        return None if spec == FORENSIC else _locate(spec).path
    except AbsentWeights:
        return None


@final
@dataclass(frozen=True)
class _Located:
    """Where a spec's weights lie, and how their model wants its input."""

    model: str
    dim: int
    path: Path
    training: dict[str, Any]


def _locate(spec: str) -> _Located:
    kind, _, rest = spec.partition(":")
    model, _, weights = rest.partition("/")
    if kind != "clip" or not model or not weights:
        raise InputError(
            f"embedder: got {spec!r}, allowed auto, forensic or clip:MODEL/WEIGHTS; for example {DEFAULT_EMBEDDER}"
        )
    if spec == DEFAULT_EMBEDDER and _hub_file(_DEFAULT_REPOSITORY, "") is None:
        raise _absent(spec)  # known without the import below, which takes seconds
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        raise InputError(
            f"embedder: got {spec!r} with the model {model!r}, allowed the names of open_clip.list_models(); "
            f"for example {DEFAULT_EMBEDDER}"
        )
    if "hf_model_name" in config["text_cfg"]:
        raise InputError(
            f"embedder: got {spec!r}, allowed models whose text part open_clip holds itself; this one would be "
            f"fetched from the network, use for example {DEFAULT_EMBEDDER}"
        )
    training = open_clip.get_pretrained_cfg(model, weights)
    if training:
        path = _cached_weights(training)
        if path is None:
            raise _absent(spec)
        return _Located(model, config["embed_dim"], path, dict(training))
    path = Path(weights).expanduser()
    if path.suffix in _SUFFIXES and path.is_file():
        return _Located(model, config["embed_dim"], path, {})
    if path.suffix in _SUFFIXES or "/" in weights:
        raise InputError(
            f"embedder: got {spec!r}, allowed a file with the suffix {', '.join(_SUFFIXES)}; check the path"
        )
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
    raise InputError(
        f"embedder: got {spec!r} with the tag {weights!r}, allowed {tags}, or the path of a checkpoint; choose one"
    )


def _absent(spec: str) -> AbsentWeights:
    return AbsentWeights(
        f"embedder: got {spec!r}, allowed weights in the local cache, and these are not; "
        f"fetch them with: poolproof models pull {spec}"
    )


def _cached_weights(training: dict[str, Any]) -> Path | None:
    """The file of a pretrained tag in the local cache."""
    if training.get("hf_hub"):
        repository, _, filename = training["hf_hub"].rpartition("/")
        return _hub_file(repository, filename)
    path = Path("~/.cache/clip").expanduser() / str(training.get("url", "")).rpartition("/")[2]
    return path if path.is_file() else None


def _hub_file(repository: str, filename: str) -> Path | None:
    """A repository's weights in the local Hugging Face cache, safetensors before others; looks at files alone."""
    from huggingface_hub import try_to_load_from_cache

    if filename:
        names = (str(Path(filename).with_suffix(".safetensors")), filename)
    else:
        names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    for name in names:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str) and Path(path).is_file():
            return Path(path)
    return None


def _load_clip(spec: str, found: _Located, bfloat16: bool) -> AbstractEmbedder:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    wanted = ("mean", "std", "interpolation", "resize_mode")
    try:
        with warnings.catch_warnings():
            # The loaders warn about their own dependencies; what concerns the user is raised below.
            warnings.simplefilter("ignore")
            model: Any = open_clip.create_model(
                found.model,
                pretrained=str(found.path),
                # Converted once. Autocast would convert all weights again for every batch.
                precision="bf16" if bfloat16 else "fp32",
                force_quick_gelu=bool(found.training.get("quick_gelu", False)),
                force_preprocess_cfg={key: found.training[key] for key in wanted if key in found.training},
                pretrained_image=False,
                pretrained_text=False,
                require_pretrained=True,
                weights_only=True,
            )
    except Exception as error:  # a stranger's file can fail in any way, and each costs one line
        line = " ".join(str(error).split())[:160]
        raise InputError(
            f"embedder: got {spec!r}, whose file {found.path} does not load ({type(error).__name__}: {line}), "
            f"allowed a checkpoint of {found.model} that holds tensors alone; choose its file or architecture"
        ) from error
    model.eval().requires_grad_(False)
    transform: Any = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    # Two towers stand side by side; only the one for images is kept in memory.
    is_plain = isinstance(model, (open_clip.CLIP, open_clip.CustomTextCLIP))
    with found.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ClipEmbedder(
        name=spec,
        dim=found.dim,
        weights_sha256=digest,
        encode=model.visual if is_plain else model.encode_image,
        transform=transform,
        bfloat16=bfloat16,
    )


def _has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    import torch

    flags = getattr(torch.cpu, "get_capabilities", dict)()
    return any(flags.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16"))


@final
@dataclass(frozen=True, eq=False)
class ClipEmbedder(AbstractEmbedder):
    """The image tower of an open_clip model, on the processor.

    The same images in the same order give the same vectors on the same machine. They differ a little between
    processors with and without bfloat16.

    Args:
        name: the spec that loads it.
        dim: length of the vectors.
        weights_sha256: digest of the file of weights.
        encode: from a batch of transformed images to features.
        transform: the model's own, from a PIL image to a tensor.
        bfloat16: whether the tower computes in bfloat16.
    """

    name: str
    dim: int
    weights_sha256: str | None
    encode: Callable[..., Any]
    transform: Callable[..., Any]
    bfloat16: bool

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[np.ndarray, "n d"]:
        """Vectors of length 1, one row per image in the given order."""
        import torch
        from PIL import Image

        vectors = np.zeros((len(images), self.dim), np.float32)
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                part = images[start : start + _BATCH]
                batch = torch.stack([self.transform(Image.fromarray(pixels)) for pixels in part])
                features = self.encode(batch.to(dtype)).float()
                unit = torch.nn.functional.normalize(features, dim=-1)
                vectors[start : start + len(part)] = unit.numpy()
        return vectors
