"""Readers of images by spec: embedding models from weights that lie on this machine, and what is built on them.

Nothing is downloaded here. Weights come from the local cache of open_clip, timm and the Hugging Face hub, or from
a file, and are read as tensors alone: a file that holds code is refused. `detectors/reader_spec.py` has the form
of a spec.
"""

from __future__ import annotations

from pathlib import Path

from poolproof.detectors.backbone import AbsentWeights, AbstractEmbedder, VisionEmbedder, pick_precision
from poolproof.detectors.clip_models import ClipWeights, default_is_cached, load_clip, locate_clip
from poolproof.detectors.reader_spec import DEFAULT_EMBEDDER, FORENSIC, ReaderSpec, parse_reader
from poolproof.detectors.rigid import RigidEmbedder
from poolproof.detectors.timm_models import TimmWeights, load_timm, locate_timm

__all__ = [
    "DEFAULT_EMBEDDER",
    "FORENSIC",
    "AbsentWeights",
    "AbstractEmbedder",
    "find_weights",
    "load_embedder",
    "resolve_embedder",
]


def resolve_embedder(spec: str) -> tuple[str, str | None]:
    """The spec that a run works with, and a note of one line where that costs something, else None.

    `auto` becomes `DEFAULT_EMBEDDER` where its weights are in the local cache, else `forensic`. A preset becomes
    what it stands for. Other specs are returned with their options in order, once it is sure that their weights
    are here.

    Args:
        spec: `auto`, `forensic`, or as for `load_embedder`.

    Raises:
        InputError: an unknown form, model or tag, or weights that are not on this machine.
    """
    if spec == FORENSIC:
        return spec, None
    if spec == "auto":
        if default_is_cached():
            return DEFAULT_EMBEDDER, None
        return FORENSIC, (
            f"The weights of {DEFAULT_EMBEDDER} are not in the local cache, so the weight-free features are used: "
            "they see texture, colour and layout but no meaning, and miss synthetic images that match in those. "
            f"Remedy: poolproof models pull {DEFAULT_EMBEDDER}"
        )
    reader = parse_reader(spec)
    _locate(reader)
    return str(reader), None


def load_embedder(spec: str, *, bfloat16: bool | None = None) -> AbstractEmbedder | None:
    """The model of a resolved spec, or None for `forensic`.

    Args:
        spec: `forensic`; `clip:MODEL/WEIGHTS` or `timm:MODEL/WEIGHTS`, an architecture of open_clip or timm with a
            pretrained tag of it whose weights are in the local cache, or with the path of a checkpoint
            (.safetensors, .pt, .pth, .bin), and with options such as `@raw,crop`; `rigid:` and one of these, for
            one number an image: how far noise moves its vector; or a name of `PRESETS`.
        bfloat16: whether to compute in bfloat16 instead of float32; None does so where the processor
            multiplies in it, which is more than twice as fast there. The cosine of such vectors with those in
            float32 is about 0.9999. For `rigid:`, which measures differences of that size, None is float32.

    Raises:
        InputError: an unknown form, model, tag or option; weights that are not on this machine, hold anything
            but tensors, or belong to another architecture.
    """
    if spec == FORENSIC:
        return None
    reader = parse_reader(spec)
    backbone = reader.backbone
    precision = pick_precision(False if reader.draws and bfloat16 is None else bfloat16)
    found = _locate(backbone)
    if isinstance(found, ClipWeights):
        embedder: VisionEmbedder = load_clip(backbone, found, precision)
    else:
        embedder = load_timm(backbone, found, precision)
    if not reader.draws:
        return embedder
    return RigidEmbedder(str(reader), embedder, embedder.weights_sha256, precision, reader.draws)


def find_weights(spec: str) -> Path | None:
    """The file that holds a spec's weights, None where it is not on this machine.

    Raises:
        InputError: an unknown form, model or tag.
    """
    try:
        return None if spec == FORENSIC else _locate(parse_reader(spec)).path
    except AbsentWeights:
        return None


def _locate(reader: ReaderSpec) -> ClipWeights | TimmWeights:
    return locate_clip(reader) if reader.library == "clip" else locate_timm(reader)
