"""What the latent marks share: random streams made from a secret, and checks of keys and noise.

A latent mark lies in the initial noise of a diffusion model, `tree_ring` in its spectrum and
`gaussian_shading` in its signs. `inversion` brings the noise back from an image.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, UInt8
from scipy import special

from poolproof.errors import InputError

MAX_VALUES: Final = 1 << 24
"""Most values of one image's noise; 64 times those of a latent of 4 x 256 x 256."""

MAX_MAGNITUDE: Final = 1e30
"""Noise beyond this is refused: its squares may overflow."""

_TINY: Final = sys.float_info.min

_DOMAIN: Final = b"poolproof latent mark 1"


def keyed_bits(n: int, *parts: int | bytes) -> UInt8[np.ndarray, " n"]:
    """Zeros and ones of a stream that the parts fix: the same on all machines and in all versions.

    Without the parts the bits cannot be told from fair coins.

    Args:
        n: number of bits.
        parts: the secret, and what tells its streams apart. 5 and b"5" are different.

    Source: SHAKE-256 (FIPS 202). A sponge keyed by a prefix is a pseudorandom function, as in KMAC (NIST SP
        800-185); every part is preceded by its kind and length, so no two lists of parts give one input.
    """
    return np.unpackbits(np.frombuffer(_keyed_bytes(-(-n // 8), parts), np.uint8), count=n)


def keyed_normals(n: int, *parts: int | bytes) -> Float64[np.ndarray, " n"]:
    """Standard normal values of a stream that the parts fix: the same on all machines but for rounding.

    Args:
        n: number of values.
        parts: as for `keyed_bits`.
    """
    whole = np.frombuffer(_keyed_bytes(8 * n, parts), "<u8") >> np.uint64(11)
    return special.ndtri((whole.astype(np.float64) + 0.5) / 2**53)


def floor_pvalues(values: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """The values, where they are too small for a double the smallest normal one, at most 1.

    A p-value of 0 would claim that an event cannot happen.
    """
    return np.clip(values, _TINY, 1.0)


def check_secret(secret: int | bytes, name: str = "secret") -> None:
    """Raises InputError unless the secret is bytes that are not empty, or an integer from 0."""
    if isinstance(secret, bytes) and secret:
        return
    if isinstance(secret, int) and not isinstance(secret, bool) and secret >= 0:
        return
    got = "empty bytes" if secret == b"" else "a negative integer" if isinstance(secret, int) else secret
    got = type(secret).__name__ if got is secret or isinstance(secret, bool) else got
    raise InputError(
        f"{name}: got {got}, allowed bytes or an integer from 0; for a new secret call secrets.token_bytes(16)"
    )


def check_shape(shape: tuple[int, int, int]) -> None:
    """Raises InputError unless the shape is that of one image's noise: channels, height, width."""
    if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] > MAX_VALUES:
        raise InputError(
            f"shape: got {shape}, allowed (channels, height, width) of at most {MAX_VALUES} values; "
            "it is the shape of the model's noise without the batch, for example (4, 64, 64)"
        )


def check_noise(noise: Float[np.ndarray, "n c h w"], shape: tuple[int, int, int]) -> None:
    """Raises InputError unless the noise is finite, of no absurd size, and of the key's shape."""
    if noise.shape[1:] != shape:
        raise InputError(
            f"noise: got shape {noise.shape}, allowed (n, {', '.join(str(side) for side in shape)}) as in the "
            "key; resize images to what the model generates before they are inverted"
        )
    # a comparison with NaN is false
    if not (np.abs(noise) < MAX_MAGNITUDE).all():
        raise InputError(
            f"noise: got values that are not finite or beyond {MAX_MAGNITUDE:g}, allowed finite ones near "
            "standard normal; look at the inversion"
        )


def _keyed_bytes(n: int, parts: tuple[int | bytes, ...]) -> bytes:
    stream = hashlib.shake_256()
    for part in (_DOMAIN, *parts):
        kind, data = (b"b", part) if isinstance(part, bytes) else (b"i", _integer_bytes(part))
        stream.update(kind + len(data).to_bytes(8, "big") + data)
    return stream.digest(n)


def _integer_bytes(value: int) -> bytes:
    return value.to_bytes(-(-value.bit_length() // 8), "big")
