"""A keyed mark of one bit for images of any size from 8 x 8 and any number of channels: is it there, and how strong.

A pattern of the image's own size is added. Its cosine coefficients have one magnitude and the key's signs. A model
trained on marked images can learn such a pattern, which is the same in all of them, and put it into its own samples:
this is the mark that loops use. There is no synchronisation, so images must keep their size and place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64, Int64, Num

from poolproof.errors import InputError
from poolproof.watermark.key import Key
from poolproof.watermark.significance import sign_tail

MIN_SIDE: Final = 8
"""Pixels a side of the smallest image."""

MAX_COEFFICIENTS: Final = 1000
"""Coefficients that carry the mark at most; the key chooses them among all but the mean."""

_WEIGHT: Final = 15
"""Largest weight of a coefficient, in whole numbers, for the exact count."""

_ENOUGH: Final = 30
"""Images from which on their own spread tells how to weigh coefficients."""


@final
@dataclass(frozen=True)
class Presence:
    """How strongly a set of images carries a mark.

    Args:
        strength: of the pattern in the mean of the images, in its root mean square; about 0 without the mark.
        stderr: standard error of the strength over keys.
        p_value: of the set as a whole, in (0, 1], exact over keys.
    """

    strength: float
    stderr: float
    p_value: float


def presence_pattern(shape: tuple[int, int, int], key: Key) -> Float64[np.ndarray, "h w c"]:
    """The key's pattern for images of a shape: mean 0, mean square 1.

    Args:
        shape: height, width and channels; sides from 8, channels from 1.
        key: decides the signs.

    Raises:
        InputError: a shape out of range.
    """
    from scipy.fft import idctn

    places, signs, _ = _carriers(shape, key)
    coefficients = np.zeros(int(np.prod(shape)))
    coefficients[places] = signs * _magnitude(shape)
    return np.asarray(idctn(coefficients.reshape(shape), axes=(0, 1), norm="ortho"))


def embed_presence(
    images: Num[np.ndarray, "n h w c"], key: Key, amplitude: float | int
) -> Num[np.ndarray, "n h w c"]:
    """Copies of the images with the pattern added, in the type they came in.

    Bytes are rounded and cut to 0..255; floats are left as they come out.

    Args:
        images: bytes, or floats of any range.
        key: decides the pattern.
        amplitude: root mean square of the change, in the units of the images, above 0.

    Raises:
        InputError: an amplitude or shape out of range, or images of another type or with values that are not
            finite.
    """
    if not (np.isfinite(amplitude) and amplitude > 0):
        raise InputError(f"amplitude: got {amplitude}, allowed above 0; 2 to 4 suit bytes")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images: got {images.dtype}, allowed uint8 or floats; convert them first")
    _check_finite(images, "images")
    _, height, width, channels = images.shape
    marked = images + amplitude * presence_pattern((height, width, channels), key)
    if images.dtype == np.uint8:
        marked = np.clip(np.rint(marked), 0, 255)
    return marked.astype(images.dtype)


def measure_presence(
    images: Num[np.ndarray, "n h w c"], key: Key, *, reference: Num[np.ndarray, "m h w c"] | None = None
) -> Presence:
    """The strength of the key's pattern in the mean of the images, with its p-value.

    A matched filter: coefficients count by their inverse variance over the images. What the images show in common
    is no noise of this test, since the key was drawn without regard to it, but it does widen the error; the mean of
    unmarked images of the same kind takes it off.

    Args:
        images: bytes, or floats of any range.
        key: whose pattern.
        reference: unmarked images of the same kind, such as samples of a model trained without marks.

    Raises:
        InputError: no images, or a shape out of range.

    Assumes: the key was drawn at random, without regard to the images.
    Source: Turin, "An introduction to matched filters", 1960; radioactive data, Sablayrolles et al., 2020, for the
        use of a mark that passes through training.
    """
    shape, values, signs, weights = _projections(images, key)
    mean = values.mean(axis=0)
    if reference is not None:
        if reference.shape[1:] != images.shape[1:] or len(reference) == 0:
            raise InputError(
                f"reference: got shape {reference.shape}, allowed images of {images.shape[1:]}; resize them alike"
            )
        _check_finite(reference, "reference")
        mean = mean - _coefficients(reference)[:, _carriers(shape, key)[0]].mean(axis=0)
    scale = _magnitude(shape) * weights.sum()
    strength = float((weights * mean) @ signs / scale)
    rest = mean - strength * _magnitude(shape) * signs
    stderr = float(np.sqrt(np.sum((weights * rest) ** 2)) / scale)
    return Presence(strength, stderr, sign_tail(_whole(weights * mean) * signs))


def presence_pvalues(images: Num[np.ndarray, "n h w c"], key: Key) -> Float64[np.ndarray, " n"]:
    """A p-value for each image alone, in (0, 1], exact over keys.

    Args:
        images: bytes, or floats of any range.
        key: whose pattern.

    Raises:
        InputError: no images, or a shape out of range.

    Assumes: as `measure_presence`.
    """
    _, values, signs, weights = _projections(images, key)
    return np.array([sign_tail(_whole(weights * row) * signs) for row in values])


def _projections(
    images: Num[np.ndarray, "n h w c"], key: Key
) -> tuple[
    tuple[int, int, int], Float64[np.ndarray, "n k"], Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]
]:
    """The images' coefficients at the mark's places, the key's signs, and the places' weights."""
    if len(images) == 0:
        raise InputError("images: got none, allowed one or more; give at least one image")
    _check_finite(images, "images")
    _, height, width, channels = images.shape
    shape = (height, width, channels)
    places, signs, radius = _carriers(shape, key)
    values = _coefficients(images)[:, places]
    # Natural pictures have coefficients that fall off as the inverse frequency; a set of them tells its own.
    variance = values.var(axis=0) if len(images) >= _ENOUGH else radius**-2.0
    floor = 1e-6 * float(variance.mean())
    return shape, values, signs, 1 / (variance + (floor if floor > 0 else 1.0))


def _coefficients(images: Num[np.ndarray, "n h w c"]) -> Float64[np.ndarray, "n m"]:
    from scipy.fft import dctn

    transformed = dctn(images.astype(np.float64), axes=(1, 2), norm="ortho")
    return np.asarray(transformed).reshape(len(images), -1)


def _carriers(
    shape: tuple[int, int, int], key: Key
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Places of the coefficients that carry the mark, their signs, and their frequencies."""
    height, width, channels = shape
    if min(height, width) < MIN_SIDE or channels < 1:
        raise InputError(
            f"images: got {height}x{width} with {channels} channels, allowed from {MIN_SIDE} a side; enlarge them"
        )
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width)
    radius = np.broadcast_to(radius[:, :, None], shape).ravel()
    free = np.flatnonzero(radius)
    purpose = f"presence/{height}x{width}x{channels}"
    chosen = np.sort(key.order(purpose, len(free))[:MAX_COEFFICIENTS])
    places = free[chosen]
    return places, key.signs(purpose, len(free))[chosen].astype(np.int64), radius[places]


def _magnitude(shape: tuple[int, int, int]) -> float:
    """Of the pattern's coefficients."""
    n = int(np.prod(shape))
    return float(np.sqrt(n / min(MAX_COEFFICIENTS, n - shape[2])))


def _whole(weights: Float[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    largest = float(np.quantile(np.abs(weights), 0.99)) or float(np.abs(weights).max()) or 1.0
    return np.rint(np.clip(weights, -largest, largest) / largest * _WEIGHT).astype(np.int64)


def _check_finite(images: Num[np.ndarray, "n h w c"], name: str) -> None:
    if not np.isfinite(images).all():
        raise InputError(
            f"{name}: got values that are not finite, allowed finite ones; leave such images out"
        )
