"""What happens to images on their way: compression, resizing, cropping, and attempts to remove a mark."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from poolproof.errors import InputError

Pixels = UInt8[np.ndarray, "_ _ 3"]
Apply = Callable[[Pixels, np.random.Generator], Pixels]

_SUBSAMPLING: Final = {"444": 0, "422": 1, "420": 2}


@final
@dataclass(frozen=True)
class Attack:
    """A change of an image.

    Args:
        name: as `parse_attack` reads it.
        apply: takes pixels and a source of randomness, and leaves its input alone.
    """

    name: str
    apply: Apply


STANDARD: Final = (
    "none",
    "jpeg:95:444",
    "jpeg:95:420",
    "jpeg:90:420",
    "jpeg:75:420",
    "jpeg:50:420",
    "webp:80",
    "webp:50",
    "resize:0.5",
    "resize-back:0.5",
    "crop:0.1",
    "rotate:90",
    "rotate:2",
    "flip",
    "noise:5",
    "blur:1",
    "brightness:1.2",
)
"""The attacks of a bench where none are named."""


def parse_attack(text: str, *, regenerate: Apply | None = None) -> Attack:
    """The attack that a text names.

    `none`, `flip`, `jpeg:QUALITY:SUBSAMPLING`, `webp:QUALITY`, `resize:FACTOR` (left at that size),
    `resize-back:FACTOR`, `crop:SHARE` (of each side, half at either end), `rotate:DEGREES`, `noise:SIGMA` (in grey
    levels), `blur:SIGMA` (in pixels), `brightness:FACTOR`, `regenerate`.

    Args:
        text: name and parameters.
        regenerate: does what `regenerate` asks for, from `regeneration.load_regenerator`.

    Raises:
        InputError: an unknown name, or a parameter that is missing or out of range.
    """
    name, *values = text.split(":")
    if name == "regenerate" and not values:
        if regenerate is None:
            raise InputError(
                "attack regenerate: got no model, allowed with one; name a local pipeline for it"
            )
        return Attack(text, regenerate)
    if name in _PLAIN and not values:
        return Attack(text, _PLAIN[name])
    if name == "jpeg" and len(values) == 2 and values[1] in _SUBSAMPLING:
        quality = round(_number(text, values[0], 1, 100))
        return Attack(text, lambda pixels, rng: jpeg(pixels, quality, values[1]))
    if name in _SCALED and len(values) == 1:
        low, high, make = _SCALED[name]
        return Attack(text, make(_number(text, values[0], low, high)))
    forms = "none, flip, jpeg:75:420 (or 444, 422), regenerate, " + ", ".join(f"{n}:NUMBER" for n in _SCALED)
    raise InputError(f"attack: got {text!r}, allowed {forms}; correct it")


def jpeg(pixels: Pixels, quality: int, subsampling: str = "420") -> Pixels:
    """The image after JPEG.

    Args:
        pixels: RGB.
        quality: 1 to 100.
        subsampling: of chroma: `444`, `422` or `420`.
    """
    return _encoded(pixels, "JPEG", quality=quality, subsampling=_SUBSAMPLING[subsampling])


def webp(pixels: Pixels, quality: int) -> Pixels:
    """The image after lossy WebP, whose chroma always has half the resolution.

    Args:
        pixels: RGB.
        quality: 0 to 100.
    """
    return _encoded(pixels, "WEBP", quality=quality)


def resize(pixels: Pixels, factor: float | int) -> Pixels:
    """The image at another size, by cubic interpolation with antialiasing, from one pixel a side.

    Args:
        pixels: RGB.
        factor: of each side.
    """
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def resize_back(pixels: Pixels, factor: float | int) -> Pixels:
    """The image after a way to another size and back."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(resize(pixels, factor))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def crop(pixels: Pixels, share: float | int) -> Pixels:
    """The middle of the image.

    Args:
        pixels: RGB.
        share: of each side that is cut off, half at either end, in [0, 1).
    """
    height, width = pixels.shape[:2]
    top, left = round(height * share / 2), round(width * share / 2)
    return pixels[top : max(top + 1, height - top), left : max(left + 1, width - left)].copy()


def rotate(pixels: Pixels, degrees: float | int) -> Pixels:
    """The image turned about its middle, counter-clockwise; right angles are exact, others keep the size."""
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90)))
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC))


def flip(pixels: Pixels) -> Pixels:
    """The mirror image, left for right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def noise(pixels: Pixels, sigma: float | int, *, rng: np.random.Generator) -> Pixels:
    """The image with normal noise, independent by pixel and channel.

    Args:
        pixels: RGB.
        sigma: standard deviation in grey levels.
        rng: all randomness.
    """
    noisy = pixels + rng.normal(scale=sigma, size=pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur(pixels: Pixels, sigma: float | int) -> Pixels:
    """The image after a Gaussian blur.

    Args:
        pixels: RGB.
        sigma: standard deviation in pixels.
    """
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def brightness(pixels: Pixels, factor: float | int) -> Pixels:
    """The image with all values times a factor, cut at white."""
    return np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)


def _encoded(pixels: Pixels, form: str, **options: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _number(text: str, value: str, low: float | int, high: float | int) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise InputError(f"attack: got {text!r}, allowed {low:g} to {high:g} for {value!r}; correct it")
    return number


_PLAIN: Final[dict[str, Apply]] = {
    "none": lambda pixels, rng: pixels,
    "flip": lambda pixels, rng: flip(pixels),
}
_SCALED: Final[dict[str, tuple[float | int, float | int, Callable[[float], Apply]]]] = {
    "webp": (0, 100, lambda value: lambda pixels, rng: webp(pixels, round(value))),
    "resize": (0.05, 4, lambda value: lambda pixels, rng: resize(pixels, value)),
    "resize-back": (0.05, 4, lambda value: lambda pixels, rng: resize_back(pixels, value)),
    "crop": (0, 0.95, lambda value: lambda pixels, rng: crop(pixels, value)),
    "rotate": (-360, 360, lambda value: lambda pixels, rng: rotate(pixels, value)),
    "noise": (0, 255, lambda value: lambda pixels, rng: noise(pixels, value, rng=rng)),
    "blur": (0, 50, lambda value: lambda pixels, rng: blur(pixels, value)),
    "brightness": (0, 10, lambda value: lambda pixels, rng: brightness(pixels, value)),
}
