"""Weights of embedding models on this machine: which are here, and fetching those that the user asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolproof.detectors.embed import DEFAULT_EMBEDDER, find_weights
from poolproof.errors import InputError

SUGGESTED: Final = (
    DEFAULT_EMBEDDER,
    "clip:ViT-L-14/openai",
    "clip:ViT-L-14/commonpool_xl_s13b_b90k",
    "clip:PE-Core-B-16/meta",
    "clip:PE-Core-L-14-336/meta",
)
"""Specs that are listed: small and quick first. Any other of open_clip works too."""


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
    import open_clip
    from open_clip.pretrained import download_pretrained

    here = find_weights(spec)
    if here is not None:
        return here
    model, _, tag = spec.removeprefix("clip:").partition("/")
    config = open_clip.get_pretrained_cfg(model, tag)
    if not config:
        raise InputError(
            f"models pull {spec!r}: not a pretrained tag of open_clip; for example {DEFAULT_EMBEDDER}"
        )
    try:
        path = download_pretrained(config)
    except Exception as error:  # the clients under it raise dozens of kinds
        line = " ".join(str(error).split())[:160]
        raise InputError(
            f"models pull {spec!r}: could not be fetched ({type(error).__name__}: {line})"
        ) from error
    return Path(path)
