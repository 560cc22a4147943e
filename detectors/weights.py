"""Weights of embedding models on this machine: which are here, and fetching those that the user asks for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolproof.detectors.embed import find_weights
from poolproof.detectors.reader_spec import DEFAULT_EMBEDDER, FORENSIC, ReaderSpec, parse_reader
from poolproof.detectors.timm_models import hub_source
from poolproof.errors import InputError

SUGGESTED: Final = (
    DEFAULT_EMBEDDER,
    "clip:ViT-L-14/openai",
    "clip:ViT-L-14/commonpool_xl_s13b_b90k",
    "clip:PE-Core-B-16/meta",
    "clip:PE-Core-L-14-336/meta",
    "clip:ViT-B-16-SigLIP2/webli",
    "clip:ViT-H-14-worldwide-quickgelu/metaclip2_worldwide",
    "timm:vit_small_patch16_dinov3/lvd1689m",
    "timm:vit_large_patch16_dinov3/lvd1689m",
    "timm:vit_large_patch14_dinov2/lvd142m",
)
"""Specs that are listed: small and quick first in each family. Any other of open_clip and timm works too."""


@dataclass(frozen=True)
class Weights:
    """A spec and the file that holds its weights, None where it is not on this machine."""

    spec: str
    path: Path | None


def list_weights() -> tuple[Weights, ...]:
    """The suggested specs, each with its file where it is here. Nothing is fetched."""
    return tuple(Weights(spec, find_weights(spec)) for spec in SUGGESTED)


def pull_weights(spec: str) -> Path:
    """The file of a spec's weights, fetched from their publisher where it is not in the local cache.

    This is the one place where poolproof uses the network, and it does so because the user asked.

    Raises:
        InputError: an unknown spec, or the publisher cannot be reached.
    """
    here = find_weights(spec)
    if here is not None:
        return here
    if spec == FORENSIC:
        raise InputError(f"models pull {spec!r}: needs no weights; for example {DEFAULT_EMBEDDER}")
    reader = parse_reader(spec)  # find_weights returned, so this is a tag
    try:
        return _fetch_timm(reader) if reader.library == "timm" else _fetch_clip(reader)
    except Exception as error:  # the clients under it raise dozens of kinds
        line = " ".join(str(error).split())[:160]
        raise InputError(
            f"models pull {spec!r}: could not be fetched ({type(error).__name__}: {line})"
        ) from error


def _fetch_clip(reader: ReaderSpec) -> Path:
    import open_clip
    from open_clip.pretrained import download_pretrained

    return Path(download_pretrained(open_clip.get_pretrained_cfg(reader.model, reader.weights)))


def _fetch_timm(reader: ReaderSpec) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    source = hub_source(reader.model, reader.weights)
    assert source is not None
    repository, names = source
    for name in names[:-1]:
        with contextlib.suppress(EntryNotFoundError):
            return Path(hf_hub_download(repository, name))
    return Path(hf_hub_download(repository, names[-1]))
