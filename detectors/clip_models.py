"""Image towers of open_clip, from weights that lie on this machine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from poolproof.detectors.backbone import (
    VisionEmbedder,
    absent,
    cached_file,
    find_file,
    hash_weights,
    load_failed,
)
from poolproof.detectors.preprocess import make_transform
from poolproof.detectors.reader_spec import DEFAULT_EMBEDDER, ReaderSpec
from poolproof.errors import InputError

DEFAULT_REPOSITORY: Final = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@final
@dataclass(frozen=True)
class ClipWeights:
    """Where the weights lie, and what open_clip knows of how they were trained."""

    path: Path
    training: dict[str, Any]


def locate_clip(reader: ReaderSpec) -> ClipWeights:
    """Return where a spec's weights lie.

    Raises:
        AbsentWeights: a known tag that is not in the local cache.
        InputError: an unknown model or tag, or no such file.
    """
    spec, model, weights = str(reader), reader.model, reader.weights
    if f"clip:{model}/{weights}" == DEFAULT_EMBEDDER and not default_is_cached():
        raise absent(spec)  # known without the import below, which takes seconds
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
    if not training:
        tags = open_clip.list_pretrained_tags_by_model(model)
        return ClipWeights(find_file(spec, weights, tags), {})
    path = _cached(training)
    if path is None:
        raise absent(spec)
    return ClipWeights(path, dict(training))


def default_is_cached() -> bool:
    """Return whether the weights of `DEFAULT_EMBEDDER` are in the local cache, without loading open_clip."""
    return cached_file(DEFAULT_REPOSITORY, _hub_names("")) is not None


def load_clip(reader: ReaderSpec, found: ClipWeights, precision: str) -> VisionEmbedder:
    """Return the tower of a spec.

    Raises:
        InputError: the file does not load, holds anything but tensors, or belongs to another architecture; the
            layer that is asked for does not exist.
    """
    import open_clip

    wanted = ("mean", "std", "interpolation", "resize_mode")
    try:
        with warnings.catch_warnings():
            # The loaders warn about their own dependencies; what concerns the user is raised below.
            warnings.simplefilter("ignore")
            model: Any = open_clip.create_model(
                reader.model,
                pretrained=str(found.path),
                # Converted once. Autocast would convert all weights again for every batch.
                precision="bf16" if precision == "bfloat16" else "fp32",
                force_quick_gelu=bool(found.training.get("quick_gelu", False)),
                force_image_size=reader.side,
                force_preprocess_cfg={key: found.training[key] for key in wanted if key in found.training},
                pretrained_image=False,
                pretrained_text=False,
                require_pretrained=True,
                weights_only=True,
            )
    except Exception as error:  # a stranger's file can fail in any way, and each costs one line
        raise load_failed(str(reader), found.path, reader.model, error) from error
    model.eval().requires_grad_(False)
    # Two towers stand side by side; only the one for images is kept in memory.
    is_plain = isinstance(model, (open_clip.CLIP, open_clip.CustomTextCLIP))
    dim = int(open_clip.get_model_config(reader.model)["embed_dim"])  # type: ignore[index]
    if reader.penultimate:
        dim = _drop_projection(model.visual, reader, is_plain)
    return VisionEmbedder(
        name=str(reader),
        dim=dim,
        weights_sha256=hash_weights(found.path),
        encode=model.visual if is_plain else model.encode_image,
        transform=_transform(reader, model.visual.preprocess_cfg),
        precision=precision,
        unit=reader.unit,
    )


def _transform(reader: ReaderSpec, trained: dict[str, Any]) -> Any:
    """The model's own way, or the one that the spec names."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = dict(trained)
    if reader.side:
        config["size"] = reader.side
    if reader.filter:
        config["interpolation"] = reader.filter
    if not reader.fit:
        return image_transform_v2(PreprocessCfg(**config), is_train=False)
    size = config["size"]
    side = int(size if isinstance(size, int) else max(size))
    filter_ = config["interpolation"] if config["interpolation"] != "random" else "bicubic"
    return make_transform(reader.fit, side, config["mean"], config["std"], filter_)


def _drop_projection(visual: Any, reader: ReaderSpec, is_plain: bool) -> int:
    """Takes the last projection off a tower; returns the length of what comes out then."""
    import torch
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if is_plain and isinstance(visual, VisionTransformer) and visual.proj is not None:
        width = int(visual.proj.shape[0])
        visual.proj = None
        return width
    if is_plain and isinstance(visual, TimmModel):
        trunk: Any = visual.trunk
        last = visual.head[-1] if len(visual.head) else trunk.get_classifier()
        if isinstance(last, torch.nn.Linear):
            width = int(last.in_features)
            if len(visual.head):
                visual.head = torch.nn.Sequential(*list(visual.head)[:-1])
            else:
                trunk.head = torch.nn.Identity()
            return width
    raise InputError(
        f"embedder: got {str(reader)!r}, allowed penultimate for models that end in a projection, and this one "
        "does not; leave it out"
    )


def _cached(training: dict[str, Any]) -> Path | None:
    """The file of a pretrained tag in the local cache."""
    if training.get("hf_hub"):
        repository, _, filename = training["hf_hub"].rpartition("/")
        return cached_file(repository, _hub_names(filename))
    path = Path("~/.cache/clip").expanduser() / str(training.get("url", "")).rpartition("/")[2]
    return path if path.is_file() else None


def _hub_names(filename: str) -> tuple[str, ...]:
    """Names under which a repository holds weights, safetensors before others."""
    if filename:
        return str(Path(filename).with_suffix(".safetensors")), filename
    return "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
