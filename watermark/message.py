"""Payload bits with a checksum and error correction, as the keyed mark carries them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64, UInt8

from poolproof.errors import InputError

MAX_BITS: Final = 64
"""Bits of a payload at most."""

_CHECK_BYTES: Final = 2
_PARITY_BYTES: Final = 5


def message_length(n_bits: int) -> int:
    """Coded bits of a message with so many payload bits.

    Args:
        n_bits: 1 to `MAX_BITS`.

    Raises:
        InputError: another number.
    """
    if not 1 <= n_bits <= MAX_BITS:
        raise InputError(f"payload: got {n_bits} bits, allowed 1 to {MAX_BITS}; shorten it")
    return 8 * (-(-n_bits // 8) + _CHECK_BYTES + _PARITY_BYTES)


def encode_message(bits: Sequence[int]) -> UInt8[np.ndarray, " m"]:
    """Coded bits: the payload filled up to bytes, a checksum of two, and five bytes of Reed-Solomon parity.

    Args:
        bits: 1 to `MAX_BITS` of 0 and 1.

    Raises:
        InputError: another number of bits, or other values.
    """
    from reedsolo import RSCodec

    message_length(len(bits))
    payload = np.asarray(bits)
    if not np.isin(payload, (0, 1)).all():
        raise InputError(f"payload: got {bits!r}, allowed 0 and 1; give them as a sequence of ints")
    data = np.packbits(payload.astype(np.uint8)).tobytes()
    coded = RSCodec(_PARITY_BYTES).encode(data + _checksum(data))
    return np.unpackbits(np.frombuffer(bytes(coded), np.uint8))


def decode_message(soft: Float64[np.ndarray, " m"], n_bits: int) -> tuple[int, ...] | None:
    """The payload bits, or None where they cannot be recovered with certainty.

    Bytes are decided by sign; the least reliable ones are erased, from none to all that the code can fill in.
    Of the candidates whose checksum and filling bits are right, the one that fits best counts. Noise passes with
    probability below 1e-4.

    Args:
        soft: coded bits, positive for 1, larger where surer.
        n_bits: of the payload.

    Source: Forney, "Generalized minimum distance decoding", 1966.
    """
    from reedsolo import ReedSolomonError, RSCodec

    n_bytes = message_length(n_bits) // 8
    by_byte = soft.reshape(n_bytes, 8)
    received = bytearray(np.packbits(by_byte > 0, axis=1)[:, 0].tobytes())
    doubtful = np.argsort(np.abs(by_byte).min(axis=1), kind="stable").tolist()
    codec = RSCodec(_PARITY_BYTES)
    best: tuple[float, tuple[int, ...]] | None = None
    for n_erased in range(_PARITY_BYTES + 1):
        try:
            message, full, _ = codec.decode(bytearray(received), erase_pos=doubtful[:n_erased])
        except (ReedSolomonError, ZeroDivisionError):
            continue
        data = bytes(message[:-_CHECK_BYTES])
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        if bytes(message[-_CHECK_BYTES:]) != _checksum(data) or bits[n_bits:].any():
            continue
        coded = np.unpackbits(np.frombuffer(bytes(full), np.uint8)).astype(np.float64)
        fit = float((2 * coded - 1) @ soft)
        if best is None or fit > best[0]:
            best = fit, tuple(bits[:n_bits].tolist())
    return None if best is None else best[1]


def _checksum(data: bytes) -> bytes:
    return (zlib.crc32(data) & 0xFFFF).to_bytes(_CHECK_BYTES)
