"""Gaussian Shading: a payload in the signs of a diffusion model's initial noise, which stays white.

Every bit of the payload is written many times over, and a pad of fair coins from the secret and the image's
own nonce is added to the copies. The signs of the noise are then those of white noise to whoever lacks the
secret, and so is the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int8, Int64, UInt8
from scipy import special

from poolproof.errors import InputError
from poolproof.watermark.latent import check_noise, check_secret, check_shape, floor_pvalues, keyed_bits

MAX_BITS: Final = 4096
"""Most bits of a payload; bounds the time of the exact law of the best payload's fit."""


@final
@dataclass(frozen=True)
class ShadingKey:
    """Who can read the payload, and where its copies stand.

    Args:
        secret: bytes or an integer from 0. Whoever has it can read and write marks; take 16 random bytes.
        shape: channels, height, width of the model's noise.
        n_bits: length of the payload, up to `capacity`.
        channel_copies: channels with the same bits (f_c); divides the channels.
        space_copies: copies along either side (f_hw); divides height and width.
    """

    secret: int | bytes = field(repr=False)
    shape: tuple[int, int, int]
    n_bits: int
    channel_copies: int = 1
    space_copies: int = 8

    def __post_init__(self) -> None:
        check_secret(self.secret)
        check_shape(self.shape)
        channels, height, width = self.shape
        for name, sides in (("channel_copies", (channels,)), ("space_copies", (height, width))):
            copies = getattr(self, name)
            if copies < 1 or any(side % copies for side in sides):
                raise InputError(f"{name}: got {copies}, allowed divisors of {sides}; 1 always is one")
        if not 1 <= self.n_bits <= min(self.capacity, MAX_BITS):
            raise InputError(
                f"n_bits: got {self.n_bits}, allowed 1 to {min(self.capacity, MAX_BITS)} for this shape with "
                f"{self.channel_copies} x {self.space_copies} x {self.space_copies} copies; write fewer copies or bits"
            )

    @property
    def capacity(self) -> int:
        """Bits that have this many copies. A shorter payload is repeated to so many bits first."""
        channels, height, width = self.shape
        return channels * height * width // (self.channel_copies * self.space_copies**2)


@final
@dataclass(frozen=True, eq=False)
class ShadingReading:
    """What the signs of noise say without a known payload, one row or value per image.

    Attributes:
        bits: the payload that fits best, by a vote of the copies weighted with their magnitude.
        p_values: in (0, 1]. Chance that any payload at all fits the signs as well, over random secrets.
        nonces: which nonce was used, as the place in the list of those that were tried.
    """

    bits: UInt8[np.ndarray, "n k"]
    p_values: Float64[np.ndarray, " n"]
    nonces: Int64[np.ndarray, " n"]


def embed_shading(
    payload: Sequence[int] | Int[np.ndarray, " k"],
    key: ShadingKey,
    nonces: Sequence[int | bytes],
    *,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "n c h w"]:
    """Initial noise of marked images, one per nonce; over random secrets each is exactly white and normal.

    A bit chooses the half of the normal law that a value is drawn from.

    Args:
        payload: `key.n_bits` zeros and ones.
        key: of the mark.
        nonces: one per image, never used before with this secret: a running number, or the image's name.
            The pad depends on it. Two images with one pad share all signs, and whoever has a few of them can
            average the mark out of the images or copy it into others.
        rng: draws the magnitudes.

    Raises:
        InputError: a payload of another length or with other values, no nonces, or one of them twice.

    Source: Yang et al., "Gaussian Shading: provable performance-lossless image watermarking for diffusion
        models", CVPR 2024 (arXiv 2404.04956), section 3.3 with one bit per value (l = 1). On fixed pads,
        which their program uses: arXiv 2503.11404. The stream cipher is `keyed_bits` instead of ChaCha20,
        which is likewise a pseudorandom function of secret and nonce and needs no package.
    """
    bits = _check_payload(payload, key)
    _check_nonces(nonces)
    if len(set(nonces)) < len(nonces):
        raise InputError("nonces: got one of them twice, allowed different ones; number the images")
    magnitudes = np.abs(rng.standard_normal((len(nonces), *key.shape)))
    signs = _pads(key, nonces) * (2 * bits[_layout(key)].astype(np.int8) - 1)
    return (magnitudes * signs.reshape(-1, *key.shape)).astype(np.float32)


def read_shading(
    noise: Float[np.ndarray, "n c h w"],
    key: ShadingKey,
    nonces: Sequence[int | bytes],
    *,
    search: bool = False,
) -> ShadingReading:
    """The payloads of recovered noise, and whether there is one at all.

    The p-value is that of the best of all payloads: the sum over the bits of the larger number of copies
    that agree has an exactly known law, since the pad makes every sign of unmarked noise a fair coin.

    Args:
        noise: from `poolproof.watermark.inversion`, or that of the sampler.
        key: of the mark.
        nonces: that of each image; with `search` those that images may have, at least one.
        search: tries all nonces on each image; p-values are multiplied by their number.

    Raises:
        InputError: noise of another shape than the key's or that is not finite, or not one nonce per image.

    Assumes: secret and nonce were chosen without regard to the image. Nothing is assumed about the noise.
    """
    signs = _signs(noise, key)
    _check_nonces(nonces, None if search else len(noise))
    pads = _pads(key, nonces)
    chosen = np.arange(len(noise))
    votes = np.empty((len(noise), key.n_bits), np.int64)
    for image, row in enumerate(signs):
        tried = _sums(row * (pads if search else pads[image : image + 1]), key)
        best = int(np.abs(tried).sum(axis=1).argmax())
        votes[image] = tried[best]
        if search:
            chosen[image] = best
    flat = noise.reshape(len(noise), -1).astype(np.float64)
    bits = (_sums(flat * pads[chosen], key) > 0).astype(np.uint8)
    tail = _tail_of_best(np.bincount(_layout(key)))
    p_values = tail[np.abs(votes).sum(axis=1)] * (len(nonces) if search else 1)
    return ShadingReading(bits, floor_pvalues(p_values), chosen)


def shading_pvalues(
    noise: Float[np.ndarray, "n c h w"],
    payloads: Int[np.ndarray, "u k"],
    key: ShadingKey,
    nonces: Sequence[int | bytes],
) -> Float64[np.ndarray, "n u"]:
    """Chance that the signs of unmarked noise fit a payload as well, for each image and payload; in (0, 1].

    With m of d signs that agree, it is the upper tail of Binomial(d, 1/2) from m, I_{1/2}(m, d - m + 1). All
    copies count: a test of the voted bits, as published, has the same law with fewer coins. To find out
    whose of u payloads an image carries, take the smallest p-value times u (Bonferroni).

    Args:
        noise: from `poolproof.watermark.inversion`, or that of the sampler.
        payloads: one per row, for example one per user.
        key: of the mark.
        nonces: that of each image; where it is unknown, ask `read_shading` with `search` first.

    Raises:
        InputError: noise of another shape than the key's or that is not finite, not one nonce per image, or
            payloads of another length or with other values.

    Source: Yang et al., "Gaussian Shading", 2024, equations 8 and 9.
    Assumes: secret and nonce were chosen without regard to the image. Nothing is assumed about the noise.
    """
    signs = _signs(noise, key)
    _check_nonces(nonces, len(noise))
    wanted = np.stack([2 * _check_payload(row, key).astype(np.int64) - 1 for row in payloads])
    n_values = signs.shape[1]
    agreeing = (n_values + _sums(signs * _pads(key, nonces), key) @ wanted.T) // 2
    # at 0 the beta function is not defined, and the chance is 1
    tail = special.betainc(np.maximum(agreeing, 1), n_values - agreeing + 1, 0.5)
    return floor_pvalues(np.where(agreeing == 0, 1.0, tail))


def _tail_of_best(copies: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " d"]:
    """Chance that the sum over bits of |agreeing - disagreeing copies| reaches 0, 1, ..., for fair coins."""
    law = np.ones(1)
    for n in copies.tolist():
        places = np.arange(n + 1)
        coins = np.exp(special.gammaln(n + 1) - special.gammaln(places + 1) - special.gammaln(n - places + 1))
        one = np.bincount(np.abs(2 * places - n), coins * 2.0**-n, minlength=n + 1)
        # term by term: all are positive, so that small chances keep their digits
        law = np.convolve(law, one)
    return np.cumsum(law[::-1])[::-1]


def _layout(key: ShadingKey) -> Int64[np.ndarray, " d"]:
    """Bit of the payload at each value of the noise. A tile of all bits is repeated, so copies are spread."""
    channels, height, width = key.shape
    f_c, f_hw = key.channel_copies, key.space_copies
    tile = np.arange(key.capacity) % key.n_bits
    tile = tile.reshape(channels // f_c, height // f_hw, width // f_hw)
    return np.tile(tile, (f_c, f_hw, f_hw)).ravel()


def _sums(values: Float64[np.ndarray, "n d"] | Int8[np.ndarray, "n d"], key: ShadingKey) -> np.ndarray:
    """Sums over the copies of each bit, one row per image; exact for integers."""
    layout = _layout(key)
    order = np.argsort(layout, kind="stable")
    starts = np.searchsorted(layout[order], np.arange(key.n_bits))
    kind = np.int64 if values.dtype == np.int8 else np.float64
    return np.add.reduceat(values[:, order], starts, axis=1, dtype=kind)


def _signs(noise: Float[np.ndarray, "n c h w"], key: ShadingKey) -> Int8[np.ndarray, "n d"]:
    check_noise(noise, key.shape)
    return np.where(noise.reshape(len(noise), -1) > 0, 1, -1).astype(np.int8)


def _pads(key: ShadingKey, nonces: Sequence[int | bytes]) -> Int8[np.ndarray, "n d"]:
    size = key.shape[0] * key.shape[1] * key.shape[2]
    bits = np.stack([keyed_bits(size, b"gaussian shading", key.secret, nonce) for nonce in nonces])
    return 2 * bits.astype(np.int8) - 1


def _check_nonces(nonces: Sequence[int | bytes], n: int | None = None) -> None:
    if not nonces or (n is not None and len(nonces) != n):
        allowed = "at least one" if n is None else f"{n}, one per image"
        raise InputError(f"nonces: got {len(nonces)}, allowed {allowed}; give those of embed_shading")
    for nonce in nonces:
        check_secret(nonce, "nonces")


def _check_payload(
    payload: Sequence[int] | Int[np.ndarray, " k"], key: ShadingKey
) -> UInt8[np.ndarray, " k"]:
    bits = np.asarray(payload)
    if bits.shape != (key.n_bits,):
        raise InputError(
            f"payload: got {bits.size} bits, allowed {key.n_bits} as in the key; change one of the two"
        )
    if not np.isin(bits, (0, 1)).all():
        raise InputError("payload: got other values than 0 and 1, allowed these; write one per bit")
    return bits.astype(np.uint8)
