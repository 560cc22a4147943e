"""Coded payloads against reedsolo and the checksum by hand, and what noise does to them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reedsolo import RSCodec
from refusals import assert_refused

from poolproof.watermark.message import MAX_BITS, decode_message, encode_message, message_length

PAYLOADS = st.lists(st.integers(0, 1), min_size=1, max_size=MAX_BITS)


def soft_of(coded: np.ndarray) -> np.ndarray:
    """Full confidence in every bit."""
    return 2.0 * coded - 1.0


@pytest.mark.reference
@given(PAYLOADS)
def test_coded_bits_are_reed_solomon_over_payload_and_checksum(bits: list[int]) -> None:
    """Bytes of the payload filled with 0, two of CRC-32, five of parity, as reedsolo has them."""
    filled = bits + [0] * (-len(bits) % 8)
    data = bytes(int("".join(map(str, filled[i : i + 8])), 2) for i in range(0, len(filled), 8))
    expected = RSCodec(5).encode(data + zlib.crc32(data).to_bytes(4)[2:])
    coded = encode_message(bits)
    assert coded.size == message_length(len(bits))
    assert np.packbits(coded).tobytes() == bytes(expected)


@settings(deadline=None, max_examples=60)
@pytest.mark.property
@given(PAYLOADS, st.data())
def test_two_wrong_bytes_are_corrected(bits: list[int], data: st.DataObject) -> None:
    """Whatever two bytes turn into, and however sure they look, the payload comes back."""
    soft = soft_of(encode_message(bits))
    n_bytes = soft.size // 8
    for place in data.draw(st.lists(st.integers(0, n_bytes - 1), max_size=2, unique=True)):
        flips = data.draw(st.integers(1, 255))
        soft[8 * place : 8 * place + 8] *= [-1.0 if flips >> bit & 1 else 1.0 for bit in range(8)]
    assert decode_message(soft, len(bits)) == tuple(bits)


@settings(deadline=None, max_examples=60)
@pytest.mark.property
@given(PAYLOADS, st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_five_doubtful_bytes_are_filled_in(bits: list[int], seed: int, n: int) -> None:
    """Bytes that say little can all be wrong, as many as there is parity."""
    rng = np.random.default_rng(seed)
    soft = soft_of(encode_message(bits)).reshape(-1, 8)
    soft[rng.permutation(len(soft))[:n]] *= -0.1
    assert decode_message(soft.ravel(), len(bits)) == tuple(bits)


@settings(deadline=None, max_examples=30)
@pytest.mark.property
@given(PAYLOADS, st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_size_of_confidence_does_not_matter(bits: list[int], scale: float, seed: int) -> None:
    """Soft bits count relative to each other."""
    rng = np.random.default_rng(seed)
    soft = soft_of(encode_message(bits)) + rng.normal(scale=0.6, size=message_length(len(bits)))
    assert decode_message(soft, len(bits)) == decode_message(soft * scale, len(bits))


@pytest.mark.coverage
@pytest.mark.parametrize(("sigma", "least"), [(0.35, 0.95), (0.5, 0.5), (0.8, 0.0), (1.5, 0.0), (1e9, 0.0)])
def test_noisy_payloads_are_right_or_none(sigma: float, least: float) -> None:
    """In noise of any strength a payload is recovered or not; a wrong one does not come out."""
    rng = np.random.default_rng(6)
    recovered = 0
    for _ in range(400):
        bits = rng.integers(0, 2, 64)
        soft = soft_of(encode_message(bits.tolist())) + rng.normal(scale=sigma, size=message_length(64))
        found = decode_message(soft, 64)
        assert found in (None, tuple(bits.tolist()))
        recovered += found is not None
    assert recovered >= 400 * least


@pytest.mark.slow
@pytest.mark.coverage
@pytest.mark.parametrize("n_bits", [1, 8, 64])
def test_noise_is_hardly_ever_taken_for_a_payload(n_bits: int) -> None:
    """Of 20,000 random inputs the bound of 1e-4 lets two pass on average; eight or more are rarer than 1e-3."""
    rng = np.random.default_rng(7)
    passed = sum(
        decode_message(rng.normal(size=message_length(n_bits)), n_bits) is not None for _ in range(20_000)
    )
    assert passed < 8


@pytest.mark.parametrize("n_bits", [1, 7, 64])
def test_silence_holds_no_payload(n_bits: int) -> None:
    """All zero soft bits are read as zeros, which carry the checksum of zeros, only where that is right."""
    soft = np.zeros(message_length(n_bits))
    assert decode_message(soft, n_bits) is None


@pytest.mark.parametrize("n_bits", [-1, 0, 65, 10**9])
def test_lengths_out_of_range_are_refused(n_bits: int) -> None:
    """A payload has 1 to 64 bits."""
    assert_refused(lambda: message_length(n_bits), "payload")
    assert_refused(lambda: decode_message(np.zeros(120), n_bits), "payload")


@pytest.mark.parametrize("bits", [[], [0] * 65, [0, 2], [-1], [255], [0, 1, 256]])
def test_what_is_no_payload_is_refused(bits: list[int]) -> None:
    """Too few, too many, and other values than 0 and 1."""
    assert_refused(lambda: encode_message(bits), "payload")
