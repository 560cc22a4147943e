"""A keyed mark of our own for whole images: additive spread spectrum with its own synchronisation.

A tile of 128 x 128 pixels is repeated over the image's luma. Its Fourier coefficients in a band of middle
frequencies have a fixed magnitude; their signs are the message. A quarter of them, chosen by the key, carry signs
that the key alone decides: they say that the mark is there, and where its tiles begin, whichever way the image was
cropped, turned or mirrored. The others carry a payload with error correction.

Presence is tested exactly. At one alignment the fit is a sum of the key's signs with weights that the image alone
decides; of all keys, the share that would fit as well is counted, and multiplied by the number of alignments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, final

import numpy as np
from jaxtyping import Complex128, Float, Float32, Float64, Int64, UInt8

from poolproof.errors import InputError
from poolproof.watermark.key import Key
from poolproof.watermark.message import decode_message, encode_message, message_length
from poolproof.watermark.significance import sign_tail

TILE: Final = 128
"""Side of the tile in pixels."""

MIN_SIDE: Final = 64
"""Pixels a side of the smallest image that is written. For smaller ones there is `presence.py`."""

PSNR: Final = 41.0
"""Decibels between the image and its marked copy."""

SCALES: Final = (1.0, 2.0, 4 / 3, 1.5, 0.5, 0.75, 2 / 3)
"""Enlargements that are tried to undo a change of size: 2 finds a copy of half the size."""

# Cycles per pixel. Lower ones belong to the picture; higher ones are lost in compression and at half the size.
_LOW, _HIGH = 0.06, 0.30
_SYNC_SHARE: Final = 0.25
_WEIGHT: Final = 15
"""Largest weight of a coefficient, in whole numbers, for the exact count."""

_MAGNITUDE_POWER: Final = 0.3
_WINDOW: Final = 7
_FLAT: Final = 15.0
_BUSY: Final = 3.0
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


@final
@dataclass(frozen=True)
class SpreadReading:
    """What was read of a keyed mark.

    Args:
        p_value: of its presence, in (0, 1], corrected for all alignments that were tried.
        bits: the payload; None where there is none, or where it cannot be recovered with certainty.
        scale: enlargement at which it fits best.
        quarter_turns: turns of the image at which it fits best, 0 to 3, counter-clockwise.
        mirrored: whether it fits the mirror image.
    """

    p_value: float
    bits: tuple[int, ...] | None
    scale: float
    quarter_turns: int
    mirrored: bool


def embed_spread(
    pixels: UInt8[np.ndarray, "h w 3"], key: Key, bits: Sequence[int] = (), *, psnr: float | int = PSNR
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with the key's mark, stronger where the picture is busy.

    Args:
        pixels: RGB, from `MIN_SIDE` a side.
        key: decides the mark.
        bits: payload of up to 64 bits, none for presence alone.
        psnr: decibels between the two images, from 30 to 60. At 41, presence alone survives what `attacks.py` lists
            but for turns by other than right angles from about 256 pixels a side, and 64 bits do from about 512.

    Raises:
        InputError: too small an image, too long a payload, or a value out of range.

    Source: Cox et al., "Secure spread spectrum watermarking for multimedia", 1997, for the additive form; Kutter,
        "Watermarking resistant to translation, rotation and scaling", 1998, for synchronisation by repetition.
    """
    height, width, _ = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"pixels: got {height}x{width}, allowed from {MIN_SIDE} a side; mark smaller images by presence alone"
        )
    check_psnr(psnr)
    tile = _tile(key, bits)
    original = pixels.astype(np.float32)
    repeats = (-(-height // TILE), -(-width // TILE))
    change = np.tile(tile, repeats)[:height, :width] * _visibility(original @ _LUMA)
    wanted = 255 * 10 ** (-psnr / 20)
    # rounding and clipping take some of the change away, so its size is found in a few steps
    size = wanted / max(float(np.sqrt(np.mean(change**2))), 1e-12)
    marked = pixels
    for _ in range(3):
        marked = np.clip(np.rint(original + size * change[:, :, None]), 0, 255)
        reached = float(np.sqrt(np.mean((marked - original) ** 2)))
        size *= wanted / max(reached, 1e-12)
    return marked.astype(np.uint8)


def check_psnr(psnr: float | int) -> None:
    """Refuses a faintness out of range.

    Raises:
        InputError: it is not from 30 to 60 decibels.
    """
    if not 30 <= psnr <= 60:
        raise InputError(f"psnr: got {psnr}, allowed 30 to 60 decibels; leave it out for {PSNR:g}")


def detect_spread(
    pixels: UInt8[np.ndarray, "h w 3"],
    key: Key,
    n_bits: int = 0,
    *,
    scales: Sequence[float | int] = SCALES,
) -> SpreadReading:
    """Whether the image carries the key's mark, and its payload.

    An image without the mark has a p-value below a level with at most that probability, whatever it shows:
    level 1e-6 gives one false alarm in a million images per key, or fewer.

    Args:
        pixels: RGB.
        key: whose mark.
        n_bits: length of the payload, 0 for presence alone. It must be that of the writer.
        scales: enlargements that are tried.

    Raises:
        InputError: a length or scale out of range.

    Assumes: the key was drawn at random, without regard to the image.
    """
    if n_bits:
        message_length(n_bits)
    if not scales or not all(0.1 <= scale <= 8 for scale in scales):
        raise InputError(f"scales: got {scales!r}, allowed one or more from 0.1 to 8; leave them out")
    band = _band()
    places, signs = _sync(key, with_payload=n_bits > 0)
    pattern = signs * band.phases[places]
    best: tuple[float, float, Complex128[np.ndarray, " k"], int, bool] | None = None
    for scale in scales:
        folded = _fold(_whitened(_enlarged(pixels, scale)))
        for quarter_turns, mirrored in _orientations():
            turned = np.rot90(folded[:, ::-1] if mirrored else folded, quarter_turns)
            spectrum = _weighted(np.fft.rfft2(turned)[band.rows, band.columns])
            fit = np.fft.irfft2(band.spread(np.conj(pattern) * spectrum[places], places), (TILE, TILE))
            top = int(np.argmax(fit))
            # fits of different scales have different spreads under the null
            spread = float(np.sqrt(np.mean(np.abs(spectrum[places]) ** 2)))
            height = float(fit.flat[top]) / max(spread, 1e-12)
            if best is None or height > best[0]:
                aligned = spectrum * band.shifts(*divmod(top, TILE))
                best = (height, scale, aligned, quarter_turns, mirrored)
    assert best is not None
    _, scale, aligned, quarter_turns, mirrored = best
    weights = np.real(aligned * np.conj(band.phases))
    whole = _whole_weights(weights[places])
    n_alignments = len(scales) * 8 * TILE * TILE
    p_value = min(1.0, n_alignments * sign_tail(whole * signs))
    bits = _payload(weights, key, n_bits) if n_bits else None
    return SpreadReading(p_value, bits, scale, quarter_turns, mirrored)


def _payload(weights: Float64[np.ndarray, " k"], key: Key, n_bits: int) -> tuple[int, ...] | None:
    places, signs, owner = _carriers(key, n_bits)
    soft = np.bincount(owner, weights=weights[places] * signs, minlength=message_length(n_bits))
    return decode_message(soft, n_bits)


@final
class _Band:
    """The tile's Fourier coefficients that carry the mark, one of each conjugate pair."""

    def __init__(self) -> None:
        down, right = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
        radius = np.hypot(down, right)
        inside = (radius >= _LOW) & (radius < _HIGH) & ~((right == 0) & (down <= 0))
        self.rows, self.columns = np.nonzero(inside)
        self.down, self.right = down[inside], right[inside]
        self.n = len(self.rows)
        # Phases are public and the same for all keys: they keep the tile from having a peak. A quadratic in the
        # coefficient's number is as good as random and the same on every machine.
        number = np.arange(self.n)
        self.phases = np.exp(2j * np.pi * ((number * number * 0.6180339887498949) % 1.0))

    def spread(
        self, values: Complex128[np.ndarray, " m"], places: Int64[np.ndarray, " m"]
    ) -> Complex128[np.ndarray, "a b"]:
        """The values at their places in the half plane that `irfft2` takes."""
        out = np.zeros((TILE, TILE // 2 + 1), np.complex128)
        out[self.rows[places], self.columns[places]] = values
        out[:, 0] += np.conj(np.roll(out[::-1, 0], 1))  # the first column holds both of a conjugate pair
        return out

    def shifts(self, down: int, right: int) -> Complex128[np.ndarray, " n"]:
        """Factors that move the tile's origin to the place where the fit is best."""
        return np.exp(2j * np.pi * (self.down * down + self.right * right))


@cache
def _band() -> _Band:
    return _Band()


def _sync(key: Key, *, with_payload: bool) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Places and signs of the coefficients that the key alone decides; all of them without a payload."""
    n = _band().n
    order = key.order("spread/places", n)
    places = np.sort(order[: round(_SYNC_SHARE * n)]) if with_payload else np.arange(n)
    return places, key.signs("spread/signs", n)[places].astype(np.int64)


def _carriers(
    key: Key, n_bits: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Places and signs of the coefficients of the payload, and the coded bit that each of them carries."""
    n = _band().n
    places = key.order("spread/places", n)[round(_SYNC_SHARE * n) :]
    signs = key.signs("spread/signs", n)[places].astype(np.int64)
    return places, signs, np.arange(len(places)) % message_length(n_bits)


def _tile(key: Key, bits: Sequence[int]) -> Float32[np.ndarray, "a b"]:
    """The tile that is repeated, of unit variance."""
    band = _band()
    signs = np.empty(band.n, np.int64)
    places, own = _sync(key, with_payload=len(bits) > 0)
    signs[places] = own
    if len(bits):
        coded = encode_message(bits).astype(np.int64)
        places, own, owner = _carriers(key, len(bits))
        signs[places] = own * (2 * coded[owner] - 1)
    tile = np.fft.irfft2(band.spread(signs * band.phases, np.arange(band.n)), (TILE, TILE))
    return (tile / tile.std()).astype(np.float32)


def _visibility(luma: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """How much change a place can take: its local contrast plus a floor, within bounds."""
    from scipy.ndimage import uniform_filter

    variance = uniform_filter((luma - uniform_filter(luma, _WINDOW)) ** 2, 2 * _WINDOW + 1)
    contrast = np.sqrt(np.maximum(variance, 0)) + np.float32(_FLAT)  # running sums can end below 0
    return np.minimum(contrast, np.float32(_BUSY) * np.median(contrast))


def _whitened(luma: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The picture less its surroundings, over its local contrast: edges and texture count like flat areas."""
    from scipy.ndimage import uniform_filter

    residual = luma - uniform_filter(luma, _WINDOW)
    return residual / np.sqrt(np.maximum(uniform_filter(residual**2, _WINDOW), 0) + 4)


def _enlarged(pixels: UInt8[np.ndarray, "h w 3"], scale: float | int) -> Float32[np.ndarray, "a b"]:
    """Luma at another size."""
    from PIL import Image

    luma = pixels.astype(np.float32) @ _LUMA
    if scale == 1:
        return luma
    height, width = (max(1, round(side * scale)) for side in luma.shape)
    return np.asarray(Image.fromarray(luma).resize((width, height), Image.Resampling.BICUBIC))


def _fold(plane: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "a b"]:
    """The sum of all tiles, missing parts counting nothing."""
    height, width = plane.shape
    down, right = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((down * TILE, right * TILE), np.float32)
    padded[:height, :width] = plane
    return padded.reshape(down, TILE, right, TILE).sum(axis=(0, 2), dtype=np.float64)


def _orientations() -> Iterator[tuple[int, bool]]:
    for mirrored in (False, True):
        for quarter_turns in range(4):
            yield quarter_turns, mirrored


def _weighted(spectrum: Complex128[np.ndarray, " n"]) -> Complex128[np.ndarray, " n"]:
    """Coefficients with their magnitudes drawn together: what stands out belongs to the picture."""
    magnitude = np.abs(spectrum)
    return spectrum / np.maximum(magnitude, 1e-9) ** (1 - _MAGNITUDE_POWER)


def _whole_weights(weights: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    largest = float(np.quantile(np.abs(weights), 0.99)) if weights.size else 0.0
    scaled = weights * (_WEIGHT / max(largest, 1e-12))
    return np.clip(np.rint(scaled), -_WEIGHT, _WEIGHT).astype(np.int64)
