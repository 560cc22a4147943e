"""Where an embedding model computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from poolproof.detectors.backbone import AbstractEmbedder, VisionEmbedder
from poolproof.detectors.rigid import RigidEmbedder


def place_embedder(embedder: AbstractEmbedder, device: str) -> AbstractEmbedder:
    """The embedder with its model on a device. Vectors differ in the last digits from those of another device.

    Args:
        embedder: one without a model comes back as it is.
        device: as torch names it, for example `cuda`. The model moves there for good.
    """
    if isinstance(embedder, RigidEmbedder):
        backbone = place_embedder(embedder.backbone, device)
        return replace(embedder, backbone=backbone)  # pyright: ignore[reportArgumentType]
    if not isinstance(embedder, VisionEmbedder):
        return embedder
    encode: Any = embedder.encode
    getattr(encode, "__self__", encode).to(device)  # a model, or one of its methods

    def encode_there(batch: Any) -> Any:
        return encode(batch.to(device)).cpu()

    return replace(embedder, encode=encode_there)
