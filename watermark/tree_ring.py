"""Tree-Ring: a keyed pattern in the low frequencies of a diffusion model's initial noise.

The published form writes a complex pattern and takes the real part of the inverse transform, which loses
half of it, and tests every coefficient together with its mirror image. Here the pattern is Hermitian, so
nothing is lost, and only independent coefficients are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy import special, stats

from poolproof.errors import InputError
from poolproof.watermark.latent import (
    check_noise,
    check_secret,
    check_shape,
    floor_pvalues,
    keyed_normals,
)

PATTERNS: Final = ("random", "rings", "zeros")

DEFAULT_RADIUS: Final = 10 / 64
"""Radius of the pattern by default, as a share of the shorter side: 10 for latents of 64 x 64."""


@final
@dataclass(frozen=True)
class TreeRingKey:
    """Which pattern stands where.

    The coefficients are those of the orthonormal Fourier transform, in which white noise of variance 1 has
    coefficients of mean square 1.

    Args:
        secret: bytes or an integer from 0. Equal secrets give equal patterns; for security take 16 random
            bytes.
        shape: channels, height, width of the model's noise.
        pattern: `random`: independent values, distributed as those of white noise, so that over all secrets
            marked noise is exactly white. `rings`: one real standard normal value for each channel and ring
            of one cycle's width, which survives rotations better; marked noise has variance 1 on average
            over all secrets, but is not normal. `zeros`: no power; the variance of a marked channel falls by
            the share of its coefficients in the pattern, and the secret plays no part.
        radius: of the pattern, in cycles along the shorter side, up to half of that side; None for
            `DEFAULT_RADIUS` times the side.
        channels: that carry the pattern; None for the last of four (Stable Diffusion's latents), else all.
    """

    secret: int | bytes = field(repr=False)
    shape: tuple[int, int, int]
    pattern: str = "random"
    radius: float | None = None
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_secret(self.secret)
        check_shape(self.shape)
        if self.pattern not in PATTERNS:
            raise InputError(f"pattern: got {self.pattern!r}, allowed {', '.join(PATTERNS)}; choose one")
        side = min(self.shape[1:])
        if self.radius is not None and not 0 <= self.radius <= side / 2:
            raise InputError(
                f"radius: got {self.radius}, allowed 0 to {side / 2:g}; {side * 10 / 64:g} is usual"
            )
        if self.channels is not None:
            chosen = set(self.channels)
            if not chosen or len(chosen) < len(self.channels) or not chosen <= set(range(self.shape[0])):
                raise InputError(
                    f"channels: got {self.channels}, allowed different ones of 0 to {self.shape[0] - 1}, "
                    "at least one; leave them out for the usual ones"
                )

    @property
    def marked_channels(self) -> tuple[int, ...]:
        """Channels that carry the pattern."""
        if self.channels is not None:
            return self.channels
        return (3,) if self.shape[0] == 4 else tuple(range(self.shape[0]))

    @property
    def marked_radius(self) -> float:
        """Radius of the pattern in cycles along the shorter side."""
        return DEFAULT_RADIUS * min(self.shape[1:]) if self.radius is None else self.radius

    @property
    def n_values(self) -> int:
        """Independent real values of white noise that the pattern replaces."""
        return len(self.marked_channels) * _plan(self.shape[1:], self.marked_radius).ring.size


@final
@dataclass(frozen=True, eq=False)
class TreeRingReading:
    """What was found in noise, one value per image.

    Attributes:
        distances: mean squared distance from the pattern per value, in units of the noise's variance; near 0
            in noise that is fully recovered.
        p_values: in (0, 1]. Chance of a distance as small, if the recovered noise of an unmarked image is
            white and normal with the stated deviation.
        key_p_values: in (0, 1]. Share of secrets whose pattern points as nearly in the direction of the
            noise. Nothing is assumed of the noise. None for zeros, where no secret plays a part.
    """

    distances: Float64[np.ndarray, " n"]
    p_values: Float64[np.ndarray, " n"]
    key_p_values: Float64[np.ndarray, " n"] | None


def embed_tree_ring(n: int, key: TreeRingKey, *, rng: np.random.Generator) -> Float32[np.ndarray, "n c h w"]:
    """Initial noise of n marked images: white but for the pattern.

    Args:
        n: images.
        key: of the mark.
        rng: draws the noise around the pattern.

    Raises:
        InputError: n below 1.

    Source: Wen, Kirchenbauer, Geiping and Goldstein, "Tree-Ring watermarks", 2023 (arXiv 2305.20030),
        section 3.3, with the pattern made Hermitian.
    """
    if n < 1:
        raise InputError(f"n: got {n}, allowed from 1; give the number of images")
    noise = rng.standard_normal((n, *key.shape))
    noise[:, key.marked_channels] += _field(_pattern(key) - _values(noise, key), key)
    return noise.astype(np.float32)


def detect_tree_ring(
    noise: Float[np.ndarray, "n c h w"], key: TreeRingKey, *, sigma: float = 1.0
) -> TreeRingReading:
    """Distance of recovered noise from the pattern, and how surprising it would be without the mark.

    With z the independent values of the spectrum in units of sigma, and k those of the pattern, the squared
    distance of white noise is noncentral chi-square with one degree of freedom per value and noncentrality
    |k|^2: central for zeros. Coefficients that are their own mirror image (mean and Nyquist) are real and
    count once, all others give a real and an imaginary value, and their mirror images none.

    The share of secrets uses only the angle between the noise and the pattern's normal values, whose
    direction is uniform over the sphere whatever the noise is. A pattern of few rings has few values, so
    its share cannot be small: random patterns have many.

    Args:
        noise: from `poolproof.watermark.inversion`, or that of the sampler.
        key: of the mark.
        sigma: standard deviation of recovered noise without the mark. Inverted photographs are not white:
            where their low frequencies are weak, `p_values` are too small, and `key_p_values` are not.

    Raises:
        InputError: noise of another shape than the key's or that is not finite, or sigma outside
            1e-6 to 1e6.

    Source: Wen et al., "Tree-Ring watermarks", 2023, section 3.4, corrected: their sum runs over mirror
        images too and divides by a deviation that is estimated from the same values.
    Assumes: `p_values`: white normal noise of deviation sigma without the mark. `key_p_values`: the secret
        was drawn without regard to the image.
    """
    check_noise(noise, key.shape)
    if not 1e-6 <= sigma <= 1e6:
        raise InputError(
            f"sigma: got {sigma}, allowed 1e-6 to 1e6; 1 is the deviation of the sampler's noise"
        )
    values = _values(noise.astype(np.float64), key) / sigma
    pattern = _pattern(key) / sigma
    squares = np.square(values - pattern).sum(axis=(1, 2))
    centre = float(np.square(pattern).sum())
    n_values = key.n_values
    # scipy's noncentral law has no central case
    law = stats.ncx2(n_values, centre) if centre > 0 else stats.chi2(n_values)
    return TreeRingReading(
        distances=squares / n_values,
        p_values=floor_pvalues(np.asarray(law.cdf(squares))),
        key_p_values=None if key.pattern == "zeros" else floor_pvalues(_share_of_secrets(values, key)),
    )


def _share_of_secrets(values: Float64[np.ndarray, "n c d"], key: TreeRingKey) -> Float64[np.ndarray, " n"]:
    """Share of secrets with a smaller angle between their normal values and what the noise says of them."""
    secret = _keyed_values(key)
    if key.pattern == "rings":
        ring, weight = _rings(key)
        found = np.stack([np.bincount(ring, weight * row) for row in values.reshape(-1, ring.size)])
        # least squares, pulled to 0 as for errors of deviation 1: small rings are measured badly
        found = (found / (np.bincount(ring, weight**2) + 1)).reshape(len(values), -1)
    else:
        found = values.reshape(len(values), -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(secret)
    # noise without a direction is as near to every secret: share 1
    cosine = np.divide(found @ secret.ravel(), lengths, out=np.full(len(values), -1.0), where=lengths > 0)
    if secret.size == 1:  # two directions
        return np.where(cosine > 0, 0.5, 1.0)
    # (1 + cosine) / 2 of a uniform direction in d dimensions is Beta((d - 1)/2, (d - 1)/2)
    half = (secret.size - 1) / 2
    return special.betainc(half, half, np.clip((1 - cosine) / 2, 0, 1))


@final
@dataclass(frozen=True, eq=False)
class _Plan:
    """Which coefficients of one channel are independent: first the m real ones, then the p complex ones.

    Attributes:
        real: flat places of coefficients that are their own mirror image.
        half: flat places of one of each pair of other coefficients.
        mirror: flat places of its mirror image.
        ring: number of the ring of each value: m real, p real parts, p imaginary parts.
    """

    real: Int64[np.ndarray, " m"]
    half: Int64[np.ndarray, " p"]
    mirror: Int64[np.ndarray, " p"]
    ring: Int64[np.ndarray, " d"]


@cache
def _plan(size: tuple[int, int], radius: float) -> _Plan:
    height, width = size
    cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]) * min(size)
    row, column = np.nonzero(cycles <= radius + 1e-9)
    place = row * width + column
    mirror = -row % height * width + -column % width
    real, half = place == mirror, place < mirror
    ring = np.rint(cycles[row, column]).astype(np.int64)
    return _Plan(
        real=place[real],
        half=place[half],
        mirror=mirror[half],
        ring=np.concatenate([ring[real], ring[half], ring[half]]),
    )


def _values(noise: Float64[np.ndarray, "n c h w"], key: TreeRingKey) -> Float64[np.ndarray, "n m d"]:
    """The independent values of the spectrum inside the pattern; white noise of variance 1 has white ones."""
    plan = _plan(key.shape[1:], key.marked_radius)
    spectrum = np.fft.fft2(noise[:, key.marked_channels], norm="ortho")
    spectrum = spectrum.reshape(*spectrum.shape[:2], -1)
    pairs = np.sqrt(2) * spectrum[:, :, plan.half]
    return np.concatenate([spectrum[:, :, plan.real].real, pairs.real, pairs.imag], axis=2)


def _field(values: Float64[np.ndarray, "n m d"], key: TreeRingKey) -> Float64[np.ndarray, "n m h w"]:
    """The real field with these values and no other coefficients: the inverse of `_values`."""
    height, width = key.shape[1:]
    plan = _plan(key.shape[1:], key.marked_radius)
    real, parts, imaginary = np.split(values, [plan.real.size, plan.real.size + plan.half.size], axis=2)
    spectrum = np.zeros((*values.shape[:2], height * width), np.complex128)
    spectrum[:, :, plan.real] = real
    spectrum[:, :, plan.half] = (parts + 1j * imaginary) / np.sqrt(2)
    spectrum[:, :, plan.mirror] = (parts - 1j * imaginary) / np.sqrt(2)
    # Hermitian by construction: the imaginary part that is dropped is rounding
    return np.fft.ifft2(spectrum.reshape(*values.shape[:2], height, width), norm="ortho").real


def _pattern(key: TreeRingKey) -> Float64[np.ndarray, "m d"]:
    """The pattern's values in the order of `_values`."""
    size = (len(key.marked_channels), _plan(key.shape[1:], key.marked_radius).ring.size)
    if key.pattern == "zeros":
        return np.zeros(size)
    if key.pattern == "random":
        return _keyed_values(key)
    ring, weight = _rings(key)
    return weight * _keyed_values(key)[:, ring]


def _keyed_values(key: TreeRingKey) -> Float64[np.ndarray, "m v"]:
    """The secret's normal values: one for each ring, or for each value of the spectrum."""
    ring = _plan(key.shape[1:], key.marked_radius).ring
    channels = len(key.marked_channels)
    n = int(ring.max()) + 1 if key.pattern == "rings" else ring.size
    return keyed_normals(channels * n, b"tree ring", key.secret, key.pattern.encode()).reshape(channels, n)


def _rings(key: TreeRingKey) -> tuple[Int64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """Ring of each value of a channel, and what the ring's real value is multiplied by there."""
    plan = _plan(key.shape[1:], key.marked_radius)
    # a pattern that depends on the radius alone equals its mirror image, so it has no imaginary parts
    ones = (np.ones(plan.real.size), np.full(plan.half.size, np.sqrt(2)), np.zeros(plan.half.size))
    return plan.ring, np.concatenate(ones)
