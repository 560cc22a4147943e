"""Secret keys of our own marks, and the pseudo-random choices that follow from them on every machine."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Int8, Int64

from poolproof.errors import InputError

MIN_BYTES: Final = 16
"""Bytes of a key at least: fewer could be guessed."""

MAX_BYTES: Final = 64


@final
@dataclass(frozen=True)
class Key:
    """A secret from which marks are made. Whoever has it can write, read and remove them.

    Args:
        secret: 16 to 64 random bytes.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not MIN_BYTES <= len(self.secret) <= MAX_BYTES:
            raise InputError(
                f"key: got {len(self.secret)} bytes, allowed {MIN_BYTES} to {MAX_BYTES}; "
                "make one with `poolproof watermark key`"
            )

    def signs(self, purpose: str, n: int) -> Int8[np.ndarray, " n"]:
        """Pseudo-random signs, +1 or -1; other purposes give others.

        Args:
            purpose: names what they are for.
            n: how many.
        """
        words = np.frombuffer(self._stream(f"signs/{purpose}", -(-n // 8)), np.uint8)
        return (2 * np.unpackbits(words, count=n).astype(np.int8) - 1).astype(np.int8)

    def order(self, purpose: str, n: int) -> Int64[np.ndarray, " n"]:
        """A pseudo-random permutation of 0..n-1.

        Args:
            purpose: names what it is for.
            n: how many.
        """
        words = np.frombuffer(self._stream(f"order/{purpose}", 8 * n), ">u8")
        return np.argsort(words, kind="stable").astype(np.int64)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell keys apart and say nothing of the secret."""
        return self._stream("digest", 8).hex()

    def _stream(self, purpose: str, n_bytes: int) -> bytes:
        # the secret's length is part of the input, so that no two pairs of secret and purpose run together
        head = bytes([len(self.secret)]) + self.secret
        return hashlib.shake_256(head + purpose.encode()).digest(n_bytes)


def new_key() -> Key:
    """A fresh key of 16 bytes from the operating system's source of randomness."""
    return Key(secrets.token_bytes(MIN_BYTES))


def parse_key(text: str) -> Key:
    """The key that a text holds: 32 to 128 hexadecimal digits, or the path of a file with nothing else in it.

    Args:
        text: digits, or a path.

    Raises:
        InputError: neither.
    """
    digits = text.strip()
    if not _is_key(digits):
        path = Path(text)
        try:
            found = path.is_file() and path.stat().st_size <= 4 * MAX_BYTES
            digits = path.read_text("ascii").strip() if found else ""
        except (OSError, ValueError) as error:
            # the text may be a secret with a slip in it, so it is not repeated, nor is the error, which has it too
            raise InputError(
                f"key: got {len(text)} characters ({type(error).__name__}), allowed a readable file of hexadecimal "
                "digits; check the path and what the file holds"
            ) from None
    if not _is_key(digits):
        raise InputError(
            f"key: got {len(text.strip())} characters, allowed {2 * MIN_BYTES} to {2 * MAX_BYTES} hexadecimal "
            "digits, an even number of them, or a file that holds them; make one with `poolproof watermark key`"
        )
    return Key(bytes.fromhex(digits))


def _is_key(text: str) -> bool:
    n = len(text)
    return (
        n % 2 == 0 and 2 * MIN_BYTES <= n <= 2 * MAX_BYTES and re.fullmatch("[0-9a-fA-F]+", text) is not None
    )
