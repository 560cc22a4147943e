"""Gaussian Shading: noise that stays white, payloads that come back, and p-values that are exactly right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import law_pvalue
from refusals import assert_refused
from scipy import stats

from poolproof.watermark.gaussian_shading import ShadingKey, embed_shading, read_shading, shading_pvalues

KEY = ShadingKey(b"secret", (3, 32, 32), n_bits=48)


@pytest.fixture
def payload(rng: np.random.Generator) -> np.ndarray:
    """Forty-eight bits."""
    return rng.integers(0, 2, 48)


def test_the_published_sizes() -> None:
    """Latents of Stable Diffusion hold 256 bits in 64 copies, pixels of 3 x 32 x 32 hold 48."""
    assert ShadingKey(b"hidden", (4, 64, 64), n_bits=256).capacity == 256
    assert KEY.capacity == 48
    assert "hidden" not in repr(ShadingKey(b"hidden", (4, 64, 64), n_bits=256))


@pytest.mark.theory
def test_marked_noise_is_white_and_normal(payload: np.ndarray, rng: np.random.Generator) -> None:
    """With one payload in all images, values are normal, and neither neighbours, copies nor images correlate."""
    noise = embed_shading(payload, KEY, range(40), rng=rng).astype(np.float64)
    assert law_pvalue(noise.ravel()[:20_000], stats.norm.cdf) > 0.001
    size = noise.size
    # values of a bit's copies stand 4 apart (32 / 8), in either direction
    for shifted in (np.roll(noise, 4, axis=3), np.roll(noise, 4, axis=2), np.roll(noise, 1, axis=3)):
        assert abs((noise * shifted).mean()) < 4 / np.sqrt(size)
    assert abs((noise[0::2] * noise[1::2]).mean()) < 4 / np.sqrt(size / 2)
    assert abs(noise.mean()) < 4 / np.sqrt(size)


def test_payload_comes_back_from_noisy_signs(payload: np.ndarray, rng: np.random.Generator) -> None:
    """With three times as much error as noise nearly all bits return, and without error all."""
    noise = embed_shading(payload, KEY, range(20), rng=rng)
    read = read_shading(noise, KEY, range(20))
    assert (read.bits == payload).all()
    assert read.p_values.max() < 1e-300
    assert read.nonces.tolist() == list(range(20))
    hurt = noise + 3 * rng.standard_normal(noise.shape)
    read = read_shading(hurt, KEY, range(20))
    assert (read.bits == payload).mean() > 0.97
    assert read.p_values.max() < 1e-6
    known = shading_pvalues(hurt, payload[None], KEY, range(20))[:, 0]
    assert (known < read.p_values).all()


@pytest.mark.reference
def test_pvalues_equal_the_binomial_tail(payload: np.ndarray, rng: np.random.Generator) -> None:
    """The p-value of a payload is the upper tail from the number of copies that agree, 0 and all included."""
    noise = embed_shading(payload, KEY, [b"a", 7], rng=rng)
    hurt = noise + 2 * rng.standard_normal(noise.shape)
    agreeing = (np.sign(hurt) == np.sign(noise)).reshape(2, -1).sum(axis=1)
    found = shading_pvalues(hurt, payload[None], KEY, [b"a", 7])[:, 0]
    np.testing.assert_allclose(found, stats.binom.sf(agreeing - 1, 3072, 0.5), rtol=1e-9)
    assert shading_pvalues(-noise, payload[None], KEY, [b"a", 7]).tolist() == [[1.0], [1.0]]


@pytest.mark.reference
@pytest.mark.parametrize("n_bits", [1, 2, 3])
def test_pvalues_are_shares_of_all_signs(n_bits: int) -> None:
    """On all sign patterns of a small noise each p-value is the share of patterns that fit as well."""
    key = ShadingKey(4, (1, 2, 5), n_bits=n_bits, space_copies=1)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=10))).reshape(-1, 1, 2, 5)
    nonces = [3] * len(signs)  # reading under one nonce is no misuse
    payload = np.arange(n_bits) % 2
    known = shading_pvalues(signs, payload[None], key, nonces)[:, 0]
    blind = read_shading(signs, key, nonces).p_values
    for p_values in (known, blind):
        shares = (p_values[None, :] <= p_values[:, None] * (1 + 1e-9)).mean(axis=1)
        np.testing.assert_allclose(p_values, shares, rtol=1e-9)
    # the blind p-value orders patterns as the best of all payloads does
    every = np.array(list(itertools.product([0, 1], repeat=n_bits)))
    best = shading_pvalues(signs, every, key, nonces).min(axis=1)
    assert (stats.rankdata(best, "dense") == stats.rankdata(blind, "dense")).all()


@pytest.mark.coverage
def test_unmarked_noise_of_any_kind_keeps_the_level(payload: np.ndarray, rng: np.random.Generator) -> None:
    """On white noise, and on constants and slopes too, at most the stated share of p-values is small."""
    n = 1000
    slope = np.linspace(-1, 2, 32) * np.ones((n, 3, 32, 1))
    for noise in (rng.standard_normal((n, 3, 32, 32)), np.ones((n, 3, 32, 32)), slope):
        for p_values in (
            read_shading(noise, KEY, range(n)).p_values,
            shading_pvalues(noise, payload[None], KEY, range(n))[:, 0],
        ):
            for level in (0.5, 0.1, 0.01):
                hits = int((p_values <= level).sum())
                assert stats.binom.sf(hits - 1, n, level) > 0.001


def test_search_finds_the_nonce_and_pays_for_it(payload: np.ndarray, rng: np.random.Generator) -> None:
    """Among many nonces the image's own is found, and p-values are multiplied by their number."""
    noise = embed_shading(payload, KEY, [5, 17], rng=rng)
    noise = (noise + 3 * rng.standard_normal(noise.shape)).astype(np.float32)
    known = read_shading(noise, KEY, [5, 17])
    read = read_shading(noise, KEY, range(100), search=True)
    assert read.nonces.tolist() == [5, 17]
    np.testing.assert_allclose(read.p_values, 100 * known.p_values)
    assert (read.bits == known.bits).all()
    plain = rng.standard_normal((100, 3, 32, 32))
    assert (read_shading(plain, KEY, range(100), search=True).p_values < 0.05).sum() < 14


def test_users_are_told_apart(rng: np.random.Generator) -> None:
    """Of a thousand payloads the image's own has by far the smallest p-value, also times their number."""
    payloads = rng.integers(0, 2, (1000, 48))
    noise = embed_shading(payloads[123], KEY, [9], rng=rng) + 3 * rng.standard_normal((1, 3, 32, 32))
    p_values = shading_pvalues(noise, payloads, KEY, [9])
    assert p_values.shape == (1, 1000)
    assert p_values[0].argmin() == 123
    assert 1000 * p_values[0, 123] < 1e-6


def test_other_secrets_and_nonces_read_nothing(payload: np.ndarray, rng: np.random.Generator) -> None:
    """Under another secret or nonce marked noise is ordinary."""
    noise = embed_shading(payload, KEY, range(200), rng=rng)
    other = ShadingKey(b"Secret", KEY.shape, n_bits=48)
    for key, nonces in ((other, range(200)), (KEY, range(200, 400))):
        read = read_shading(noise, key, nonces)
        assert (read.p_values < 0.01).sum() <= 8
        assert 0.45 < (read.bits == payload).mean() < 0.55


@pytest.mark.property
@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.data(),
)
def test_any_layout_returns_its_payload(
    channels: int, height: int, width: int, f_c: int, f_hw: int, secret: int, data: st.DataObject
) -> None:
    """For all shapes, copies and lengths the payload of unhurt noise comes back."""
    shape = (channels * f_c, height * f_hw, width * f_hw)
    n_bits = data.draw(st.integers(1, channels * height * width))
    key = ShadingKey(secret, shape, n_bits, channel_copies=f_c, space_copies=f_hw)
    payload = data.draw(st.lists(st.integers(0, 1), min_size=n_bits, max_size=n_bits))
    noise = embed_shading(payload, key, [1, b"x"], rng=np.random.default_rng(0))
    read = read_shading(noise, key, [1, b"x"])
    assert (read.bits == payload).all()
    known = shading_pvalues(noise, np.array([payload]), key, [1, b"x"])
    np.testing.assert_allclose(known, 2.0 ** -np.prod(shape), rtol=1e-9)
    assert (read.p_values >= known[:, 0] * (1 - 1e-9)).all()


def test_unusable_input_is_refused(payload: np.ndarray, rng: np.random.Generator) -> None:
    """Keys, payloads, nonces and noise that cannot be used are refused in one line."""
    shape = (3, 32, 32)
    assert_refused(lambda: ShadingKey(-5, shape, 48), "secret")
    assert_refused(lambda: ShadingKey(5, (3, 0, 32), 48), "shape")
    for n_bits in (0, 49):
        assert_refused(lambda n_bits=n_bits: ShadingKey(5, shape, n_bits), "n_bits")
    assert_refused(lambda: ShadingKey(5, shape, 48, space_copies=5), "space_copies")
    assert_refused(lambda: ShadingKey(5, shape, 48, channel_copies=2), "channel_copies")
    long = np.zeros(49, np.int64)
    assert_refused(lambda: embed_shading(long, KEY, [1], rng=rng), "payload")
    assert_refused(lambda: embed_shading(payload + 1, KEY, [1], rng=rng), "payload")
    for nonces in ([], [1, 1], [b""], [-1]):
        assert_refused(lambda nonces=nonces: embed_shading(payload, KEY, nonces, rng=rng), "nonces")
    noise = np.zeros((2, *shape))
    assert_refused(lambda: read_shading(noise, KEY, [1]), "nonces")
    assert_refused(lambda: read_shading(noise, KEY, [], search=True), "nonces")
    assert_refused(lambda: read_shading(noise[:, :2], KEY, [1, 2]), "noise")
    assert_refused(lambda: shading_pvalues(noise, long[None], KEY, [1, 2]), "payload")
