"""Exact tails against enumeration and scipy, and p-values of payloads that are valid whatever the blocks say."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolproof.watermark.dwt import STRENGTH, VARIANTS, block_remainders, strengths_of
from poolproof.watermark.payloads import Payload, load_payloads
from poolproof.watermark.significance import payload_pvalue, sign_tail, whiten


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
@pytest.mark.parametrize("k", [1, 7, 46, 48, 136, 1000, 1100, 2500])
@pytest.mark.parametrize("weight", [1, 13])
def test_tail_of_equal_weights_is_binomial(k: int, weight: int) -> None:
    """With equal weights the tail is that of fair coins, as far out as scipy goes."""
    for against in sorted({0, 1, k // 4, k // 2, k - 1, k}):
        support = np.full(k, weight)
        support[:against] *= -1
        expected = max(stats.binom.cdf(against, k, 0.5), 5e-324)
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


@pytest.mark.theory
def test_long_tails_keep_within_floats() -> None:
    """Thousands of weights neither overflow nor give 0, and agree with the normal law in the middle."""
    rng = np.random.default_rng(6)
    weights = rng.integers(1, 16, 2500)
    assert sign_tail(weights) == 5e-324
    assert sign_tail(-weights) == 1.0
    for _ in range(5):
        signed = weights * rng.choice([-1, 1], 2500)
        z = signed.sum() / np.sqrt((weights**2).sum())
        assert sign_tail(signed) == pytest.approx(stats.norm.sf(z), abs=3e-3)
        assert sign_tail(signed) + sign_tail(-signed) == pytest.approx(1, abs=2e-3)


@pytest.mark.reference
@pytest.mark.parametrize("share", [0.05, 0.2, 0.35])
def test_long_tails_are_those_of_whole_numbers(share: float) -> None:
    """Two thousand unlike weights give the same digits as a count in whole numbers without end."""
    rng = np.random.default_rng(8)
    weights = rng.integers(0, 4, 2000)
    signed = np.where(rng.random(2000) < share, -weights, weights)
    limit = int(weights[signed < 0].sum())
    counts, mask = 1, (1 << 2048 * (limit + 1)) - 1  # counts side by side in the digits of one number
    for weight in weights.tolist():
        counts = (counts + (counts << 2048 * weight)) & mask
    total = sum(int.from_bytes(part) for part in _words(counts, limit + 1))
    expected = Fraction(total, 1 << 2000)
    smallest = Fraction(5e-324)
    assert sign_tail(signed) == pytest.approx(float(max(expected, smallest)), rel=1e-9, abs=0)


def _words(number: int, n: int) -> list[bytes]:
    data = number.to_bytes(256 * n)
    return [data[256 * i : 256 * (i + 1)] for i in range(n)]


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
    strengths = [
        strengths_of(block_remainders(image)[variant]).reshape(-1, image.shape[1] // 8)
        for image in clean_images
        for variant in VARIANTS[:5]
    ]
    p_values = np.array(
        [payload_pvalue(s, payload_of(rng.integers(0, 2, 48).tolist())) for s in strengths for _ in range(4)]
    )
    for level in (0.1, 0.01, 0.001):
        above = stats.binomtest(int((p_values <= level).sum()), p_values.size, level, alternative="greater")
        assert above.pvalue > 1e-3


def test_fixed_bits_take_no_part() -> None:
    """A payload's value at bits that are not free does not change its p-value."""
    rng = np.random.default_rng(5)
    votes = rng.integers(-STRENGTH, STRENGTH + 1, (40, 50)).astype(np.int8)
    bits = rng.integers(0, 2, 40)
    free = tuple(place % 8 != 0 for place in range(40))
    flipped = bits.copy()
    flipped[::8] ^= 1
    values = [payload_pvalue(votes, Payload("a", tuple(b.tolist()), free)) for b in (bits, flipped)]
    assert values[0] == values[1]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31])
def test_few_blocks_say_nothing(n: int) -> None:
    """Fewer blocks than bits give p-value 1."""
    strengths = np.resize(np.array([8, -8, -8], np.int8), (1, n))
    assert all(payload_pvalue(strengths, payload) == 1.0 for payload in load_payloads())


@settings(deadline=None, max_examples=30)
@pytest.mark.property
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_whitened_blocks_have_one_scale_and_no_mean(rows: int, columns: int, seed: int) -> None:
    """Whatever the blocks say, their weights have mean 0 and mean magnitude 1, or are all 0 for equal blocks."""
    strengths = np.random.default_rng(seed).integers(-8, 9, (rows, columns)).astype(np.int8)
    white = whiten(strengths)
    if (strengths == strengths[0, 0]).all():
        assert not white.any()
    else:
        assert np.abs(white).mean() == pytest.approx(1)
        assert white.mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.theory
def test_whitening_takes_off_what_neighbours_have_in_common() -> None:
    """Blocks with strong correlation to their neighbours come out with next to none."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(8)
    smooth = gaussian_filter(rng.normal(size=(64, 64)), 1.0)
    strengths = np.clip(np.rint(8 * smooth / np.abs(smooth).max()), -8, 8).astype(np.int8)
    white = whiten(strengths).reshape(64, 64)

    def correlation(grid: np.ndarray) -> float:
        return float(np.corrcoef(grid[:, 1:].ravel(), grid[:, :-1].ravel())[0, 1])

    assert correlation(strengths) > 0.6
    assert abs(correlation(white)) < 0.15


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
    assert payload_pvalue(STRENGTH * votes.reshape(64, 64), payload) < 2.0 ** -(0.7 * period)
