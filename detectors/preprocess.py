"""From an image to the input of a backbone, in the ways that published detectors did it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from poolproof.errors import InputError


def make_transform(
    fit: str, side: int, mean: Sequence[float], std: Sequence[float], interpolation: str
) -> Callable[..., Any]:
    """Return the map from a PIL image to a normalised tensor of 3 x side x side.

    Args:
        fit: `resize` brings the shorter side to the input's and takes the centre; `squash` brings both; `crop`
            takes the centre as it is, black where the image is smaller.
        side: of the input in pixels.
        mean: by channel, of values in [0, 1].
        std: by channel.
        interpolation: filter of the resizing, as torchvision calls it.
    """
    from torchvision import transforms

    by_name = {mode.value: mode for mode in transforms.InterpolationMode}
    if interpolation not in by_name:
        raise InputError(f"interpolation: got {interpolation!r}, allowed {', '.join(by_name)}: choose one")
    steps: dict[str, list[Any]] = {
        "crop": [transforms.CenterCrop(side)],
        "resize": [transforms.Resize(side, by_name[interpolation]), transforms.CenterCrop(side)],
        "squash": [transforms.Resize((side, side), by_name[interpolation])],
    }
    normalise = transforms.Normalize(mean=list(mean), std=list(std))
    return transforms.Compose([*steps[fit], transforms.ToTensor(), normalise])
