"""Vision models of timm without their classifier (DINOv2, DINOv3 and others), from weights on this machine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from poolproof.detectors.backbone import (
    VisionEmbedder,
    absent,
    cached_file,
    find_file,
    hash_weights,
    load_failed,
)
from poolproof.detectors.preprocess import make_transform
from poolproof.detectors.reader_spec import ReaderSpec
from poolproof.errors import InputError


@final
@dataclass(frozen=True)
class TimmWeights:
    """Where the weights lie, and the name under which timm has their configuration."""

    path: Path
    name: str


def locate_timm(reader: ReaderSpec) -> TimmWeights:
    """Return where a spec's weights lie.

    Raises:
        AbsentWeights: a known tag that is not in the local cache.
        InputError: an unknown model or tag, or no such file.
    """
    import timm

    spec, model, weights = str(reader), reader.model, reader.weights
    if not timm.is_model(model):
        raise InputError(
            f"embedder: got {spec!r} with the model {model!r}, allowed the names of timm.list_models(); "
            "for example timm:vit_small_patch16_dinov3/lvd1689m"
        )
    source = hub_source(model, weights)
    if source is None:
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
        return TimmWeights(find_file(spec, weights, tags), model)
    path = cached_file(*source)
    if path is None:
        raise absent(spec)
    return TimmWeights(path, f"{model}.{weights}")


def hub_source(model: str, tag: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the repository of a pretrained tag and the names its file may have, None for what is no tag."""
    import timm

    name = f"{model}.{tag}"
    if name not in timm.list_pretrained(f"{model}.*"):
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    names = (
        (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    )
    return config.hf_hub_id, names


def load_timm(reader: ReaderSpec, found: TimmWeights, precision: str) -> VisionEmbedder:
    """Return the model of a spec without its classifier.

    Raises:
        InputError: the file does not load, holds anything but tensors, or belongs to another architecture.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _create(found, reader.side)
    except Exception as error:  # a stranger's file can fail in any way, and each costs one line
        raise load_failed(str(reader), found.path, reader.model, error) from error
    model.eval().requires_grad_(False)
    transform = _transform(reader, model)
    if precision == "bfloat16":
        model.to(torch.bfloat16)
    return VisionEmbedder(
        name=str(reader),
        dim=int(getattr(model, "head_hidden_size", model.num_features)),
        weights_sha256=hash_weights(found.path),
        encode=model,
        transform=transform,
        precision=precision,
        unit=reader.unit,
    )


def _create(found: TimmWeights, side: int | None) -> Any:
    """The model with the file's weights, every one of them, and then without its classifier."""
    import timm
    from timm.models import load_state_dict

    state = load_state_dict(str(found.path), weights_only=True)
    if not state:
        raise ValueError("no tensors")
    config: Any = timm.get_pretrained_cfg(found.name)
    classifier = config.classifier if isinstance(config.classifier, str) else ""
    head = state.get(f"{classifier}.weight")
    # The model gets the classifier that the file has, since timm asks for a full match only then: a file of
    # another architecture would else leave weights at random.
    n_classes = 0 if head is None else int(head.shape[0])
    overlay = {"state_dict": state, "num_classes": n_classes, "custom_load": False}
    options: dict[str, Any] = {
        "pretrained": True,
        "pretrained_cfg_overlay": overlay,
        "num_classes": n_classes,
    }
    sized: dict[str, Any] = {"img_size": side} if side else {}
    try:
        model: Any = timm.create_model(found.name, **options, **sized)
    except TypeError:
        if not sized:
            raise
        model = timm.create_model(found.name, **options)  # convolutions take any size
    model.reset_classifier(0)
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _transform(reader: ReaderSpec, model: Any) -> Any:
    """The model's own way, or the one that the spec names."""
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    config: dict[str, Any] = resolve_data_config(model=model)
    if reader.side:
        config["input_size"] = (3, reader.side, reader.side)
    if reader.filter:
        config["interpolation"] = reader.filter
    if not reader.fit:
        return create_transform(**config)
    side = max(config["input_size"][1:])
    return make_transform(reader.fit, side, config["mean"], config["std"], config["interpolation"])
