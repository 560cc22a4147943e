"""Exact tails against enumeration and scipy; calibration on clean pictures; recall on marked ones."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolproof.watermark.dwt import block_votes, embed_dwt
from poolproof.watermark.payloads import Payload, load_payloads
from poolproof.watermark.significance import DETECTION_LEVEL, payload_pvalue, read_marks, sign_tail


def payload_of(bits: list[int], name: str = "test") -> Payload:
    """A payload whose bits are all free."""
    return Payload(name=name, bits=tuple(bits), free=(True,) * len(bits))


@settings(deadline=None, max_examples=80)
@pytest.mark.reference
@pytest.mark.property
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=10))
def test_tail_equals_the_count_over_all_signs(support: list[int]) -> None:
    """For few weights the share equals a plain count over all choices of signs."""
    weights = np.array(support)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(support))))
    expected = np.mean(signs @ np.abs(weights) >= weights.sum())
    assert sign_tail(weights) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.reference
@pytest.mark.parametrize("k", [1, 7, 46, 48, 136, 1000])
@pytest.mark.parametrize("weight", [1, 13])
def test_tail_of_equal_weights_is_binomial(k: int, weight: int) -> None:
    """With equal weights the tail is that of fair coins, as far out as scipy goes."""
    for against in sorted({0, 1, k // 4, k // 2, k - 1, k}):
        support = np.full(k, weight)
        support[:against] *= -1
        expected = stats.binom.cdf(against, k, 0.5)
        assert sign_tail(support) == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.theory
def test_smallest_tail_is_two_to_the_minus_number_of_weights() -> None:
    """A perfect fit has one choice of signs, without any loss of digits; zeros double the count."""
    rng = np.random.default_rng(0)
    for k in (20, 48, 136, 1000):
        support = rng.integers(1, 50, k)
        assert sign_tail(support) == 2.0**-k
        assert sign_tail(-support) == 1.0
        assert sign_tail(np.append(support, [0, 0])) == 2.0**-k
        support[support.argmin()] *= -1
        assert sign_tail(support) > 2.0**-k
    assert sign_tail(np.zeros(48, np.int64)) == 1.0
    assert sign_tail(np.array([1] * 47 + [-1])) == (1 + comb(48, 1)) / 2**48


@settings(deadline=None, max_examples=60)
@pytest.mark.property
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=60), st.randoms())
def test_tail_depends_on_the_weights_as_it_should(support: list[int], random: object) -> None:
    """Order does not matter, both directions cover all signs, and flipping a bit against grows the share."""
    weights = np.array(support)
    tail = sign_tail(weights)
    assert 0 < tail <= 1
    assert sign_tail(weights[::-1].copy()) == pytest.approx(tail, rel=1e-12)
    assert tail + sign_tail(-weights) >= 1 - 1e-12
    worse = weights.copy()
    place = int(np.abs(worse).argmax())
    worse[place] = -abs(worse[place])
    better = weights.copy()
    better[place] = abs(better[place])
    assert sign_tail(better) <= sign_tail(worse) + 1e-15


@pytest.mark.theory
def test_tail_is_a_valid_p_value_under_random_signs() -> None:
    """Over random signs of fixed weights no level is exceeded more often than it says."""
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 30, 24)
    tails = np.array([sign_tail(weights * rng.choice([-1, 1], 24)) for _ in range(2000)])
    for level in (0.5, 0.1, 0.01, 0.001):
        above = stats.binomtest(int((tails <= level).sum()), 2000, level, alternative="greater")
        assert above.pvalue > 1e-3


@pytest.mark.theory
def test_p_values_are_valid_for_random_payloads_on_any_votes(clean_images: list[np.ndarray]) -> None:
    """With payloads drawn at random, correlated and nearly constant votes give uniform or larger p-values."""
    rng = np.random.default_rng(2)
    votes = [block_votes(image) for image in clean_images]
    p_values = np.array(
        [payload_pvalue(v, payload_of(rng.integers(0, 2, 48).tolist())) for v in votes for _ in range(15)]
    )
    for level in (0.1, 0.01, 0.001):
        above = stats.binomtest(int((p_values <= level).sum()), p_values.size, level, alternative="greater")
        assert above.pvalue > 1e-3


def test_no_public_payload_is_found_in_clean_pictures(clean_images: list[np.ndarray]) -> None:
    """Landscapes, pages, stripes, slopes and noise keep family-wise p-values far above the level."""
    payloads = load_payloads()
    readings = [read_marks(block_votes(image), payloads) for image in clean_images]
    smallest = min(reading.p_value for reading in readings if reading is not None)
    assert smallest > 1e-4 > DETECTION_LEVEL


def test_stripes_in_the_rhythm_of_letters_match_no_text() -> None:
    """Block patterns that repeat every 8, 16, 24 or 32 blocks, as letters do, stay above the level."""
    rng = np.random.default_rng(3)
    payloads = load_payloads()
    smallest = 1.0
    for period in (8, 16, 24, 32):
        for _ in range(50):
            votes = np.resize(rng.choice(np.array([-1, 1], np.int8), period), 4096)
            reading = read_marks(votes, payloads)
            assert reading is not None
            smallest = min(smallest, reading.p_value)
    assert smallest > 1e-4


@pytest.mark.parametrize("value", [0, 37, 128, 255])
def test_constant_pictures_are_never_detected(value: int) -> None:
    """Where all votes agree nothing speaks for any payload: the p-value is 1."""
    reading = read_marks(block_votes(np.full((512, 512, 3), value, np.uint8)), load_payloads())
    assert reading is not None
    assert reading.p_value == 1.0
    assert reading.matched == 0.5


@pytest.mark.parametrize("payload", load_payloads(), ids=lambda payload: payload.name)
def test_marked_pictures_are_found_and_named(payload: Payload, landscapes: list[np.ndarray]) -> None:
    """At the level, the right payload is read from at least 11 of 12 pictures that carry it."""
    readings = [read_marks(block_votes(embed_dwt(p, payload.bits)), load_payloads()) for p in landscapes]
    found = [r for r in readings if r is not None and r.p_value < DETECTION_LEVEL]
    assert len(found) >= 11
    assert {reading.payload for reading in found} == {payload.name}
    assert min(reading.matched for reading in found) > 0.8


def test_other_payloads_and_the_inverse_do_not_fit_a_marked_picture(landscapes: list[np.ndarray]) -> None:
    """A marked picture gives p-values near 1 for the inverted payload and no detection for random ones."""
    rng = np.random.default_rng(4)
    sdxl = next(p for p in load_payloads() if p.name == "sdxl")
    votes = block_votes(embed_dwt(landscapes[0], sdxl.bits))
    assert payload_pvalue(votes, payload_of([1 - bit for bit in sdxl.bits])) > 0.999
    others = [payload_pvalue(votes, payload_of(rng.integers(0, 2, 48).tolist())) for _ in range(200)]
    assert min(others) > 1e-5


def test_p_value_is_corrected_for_the_payloads_tried(landscapes: list[np.ndarray]) -> None:
    """The family-wise value is the smallest of the single ones times their number, at most 1."""
    payloads = load_payloads()
    for pixels in landscapes[:4]:
        votes = block_votes(pixels)
        reading = read_marks(votes, payloads)
        singles = [payload_pvalue(votes, payload) for payload in payloads]
        assert reading is not None
        assert reading.p_value == min(1.0, 5 * min(singles))
        assert reading.payload == payloads[int(np.argmin(singles))].name
        assert reading.n_votes == votes.size


def test_fixed_bits_take_no_part() -> None:
    """A payload's value at bits that are not free does not change its p-value."""
    rng = np.random.default_rng(5)
    votes = rng.choice(np.array([-1, 1], np.int8), 2000)
    bits = rng.integers(0, 2, 40)
    free = tuple(place % 8 != 0 for place in range(40))
    flipped = bits.copy()
    flipped[::8] ^= 1
    values = [payload_pvalue(votes, Payload("a", tuple(b.tolist()), free)) for b in (bits, flipped)]
    assert values[0] == values[1]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31])
def test_few_votes_say_nothing(n: int) -> None:
    """Fewer votes than bits give p-value 1, and no votes no reading."""
    votes = np.resize(np.array([1, -1, -1], np.int8), n)
    payloads = load_payloads()
    assert all(payload_pvalue(votes, payload) == 1.0 for payload in payloads)
    reading = read_marks(votes, payloads)
    assert (reading is None) == (n == 0)
    assert read_marks(np.ones(4096, np.int8), ()) is None


@settings(deadline=None, max_examples=40)
@pytest.mark.property
@given(st.integers(24, 90), st.integers(0, 2**32 - 1), st.floats(0, 0.25), st.floats(-0.45, 0.45))
def test_votes_of_a_payload_with_errors_and_drift_are_found(
    period: int, seed: int, errors: float, drift: float
) -> None:
    """Votes with a quarter of random errors and a slow drift towards one value still give a tiny p-value."""
    rng = np.random.default_rng(seed)
    payload = payload_of(rng.permuted(np.resize([0, 1], period)).tolist())
    votes = np.resize(2 * np.array(payload.bits) - 1, 4096)
    wrong = rng.random(4096) < errors
    votes = np.where(wrong, rng.choice([-1, 1], 4096), votes)
    pulled = rng.random(4096) < abs(drift)
    votes = np.where(pulled, np.sign(drift), votes).astype(np.int8)
    assert payload_pvalue(votes, payload) < 2.0 ** -(0.7 * period)
