"""Keyed streams: kept for ever, apart from each other, and fair."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from laws import law_pvalue
from refusals import assert_refused
from scipy import stats

from poolproof.watermark.latent import (
    check_noise,
    check_secret,
    check_shape,
    floor_pvalues,
    keyed_bits,
    keyed_normals,
)


@pytest.mark.reference
def test_the_stream_is_shake_256_of_the_parts() -> None:
    """Bits are those of SHAKE-256 over the domain, kinds, lengths and parts, so old marks stay readable."""
    parts = (b"poolproof latent mark 1", b"key", b"\x01\x00")
    kinds = (b"b", b"b", b"i")
    text = b"".join(
        kind + len(part).to_bytes(8, "big") + part for kind, part in zip(kinds, parts, strict=True)
    )
    expected = np.unpackbits(np.frombuffer(hashlib.shake_256(text).digest(3), np.uint8))[:20]
    assert keyed_bits(20, b"key", 256).tolist() == expected.tolist()
    assert np.packbits(keyed_bits(32, b"key", 256)).tobytes().hex() == "d3c76734"


def test_streams_of_different_parts_differ() -> None:
    """Kinds, borders and order of the parts count, and a longer stream continues a shorter one."""
    lists: list[tuple[int | bytes, ...]] = [
        (b"ab", b"c"),
        (b"a", b"bc"),
        (b"abc",),
        (b"c", b"ab"),
        (5,),
        (b"5",),
        (b"\x05",),
        (0,),
        (b"\x00",),
    ]
    streams = [keyed_bits(128, *parts).tobytes() for parts in lists]
    assert len(set(streams)) == len(lists)
    assert keyed_bits(200, b"abc")[:128].tobytes() == streams[2]


def test_bits_are_fair_and_values_normal() -> None:
    """A long stream has as many ones as zeros, no memory, and values of the standard normal law."""
    signs = 2.0 * keyed_bits(40_000, b"a secret") - 1
    assert abs(signs.mean()) < 4 / 200
    assert abs((signs[1:] * signs[:-1]).mean()) < 4 / 200
    assert law_pvalue(keyed_normals(20_000, b"a secret"), stats.norm.cdf) > 0.001


def test_pvalues_stay_above_zero() -> None:
    """What underflows is the smallest normal double, what exceeds 1 is 1."""
    values = floor_pvalues(np.array([0.0, 0.25, 3.0]))
    assert values[0] > 0
    assert values.tolist()[1:] == [0.25, 1.0]


@pytest.mark.parametrize("secret", [b"", -1, True])
def test_unusable_secrets_are_refused_without_being_shown(secret: int | bytes) -> None:
    """A secret must be bytes or an integer from 0; the message does not print it."""
    message = assert_refused(lambda: check_secret(secret), "secret")
    assert "-1" not in message
    check_secret(0)


def test_unusable_noise_and_shapes_are_refused() -> None:
    """Shapes have three sides from 1 and a limit; noise has the key's shape and finite values."""
    for shape in [(0, 8, 8), (1, 1 << 13, 1 << 13)]:
        assert_refused(lambda shape=shape: check_shape(shape), "shape")
    assert_refused(lambda: check_noise(np.zeros((2, 3, 8, 8)), (3, 8, 4)), "noise")
    for value in (np.nan, -np.inf, 1e200):
        assert_refused(lambda value=value: check_noise(np.full((1, 1, 2, 2), value), (1, 2, 2)), "noise")
