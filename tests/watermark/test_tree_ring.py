"""Tree-Ring: exact p-values, patterns that nothing is lost of, and keys that do not read each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import law_pvalue
from refusals import assert_refused
from scipy import special, stats

from poolproof.watermark.tree_ring import PATTERNS, TreeRingKey, detect_tree_ring, embed_tree_ring

SHAPES = [(1, 4, 4), (3, 8, 8), (4, 16, 16), (2, 7, 10)]


def uniform(values: np.ndarray) -> float:
    """The p-value of the hypothesis that p-values are uniform."""
    return law_pvalue(values, stats.uniform.cdf)


@pytest.mark.theory
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_white_noise_has_uniform_pvalues(pattern: str, shape: tuple[int, int, int]) -> None:
    """P-values of unmarked white noise are uniform, with the mean and the Nyquist frequencies in the pattern."""
    rng = np.random.default_rng(1)
    for radius in (None, min(shape[1:]) / 2):
        key = TreeRingKey(b"a", shape, pattern, radius=radius)
        noise = 2.5 * rng.standard_normal((4000, *shape))
        if pattern == "zeros":
            assert uniform(detect_tree_ring(noise, key, sigma=2.5).p_values) > 0.001
        else:  # scaled by a power of 2 the pattern is another one, the law the same
            assert uniform(detect_tree_ring(noise / 2.5, key).p_values) > 0.001
            assert uniform(detect_tree_ring(noise, key, sigma=2.5).p_values) > 0.001


@pytest.mark.reference
def test_independent_values_are_the_rank_of_the_spectrum() -> None:
    """The count equals the rank of the map from noise to all coefficients within the radius."""
    for height, width, radius in [(4, 4, 2.0), (5, 8, 2.5), (8, 6, 1.0), (9, 9, 0.0), (8, 8, 4.0)]:
        basis = np.eye(height * width).reshape(-1, height, width)
        cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * min(height, width)
        inside = np.fft.fft2(basis)[:, cycles <= radius + 1e-9]
        rank = np.linalg.matrix_rank(np.concatenate([inside.real, inside.imag], axis=1))
        assert TreeRingKey(0, (1, height, width), radius=radius).n_values == rank


@pytest.mark.reference
@pytest.mark.parametrize(("hermitian", "level"), [(False, 0.0226), (True, 0.077)])
def test_the_published_form_is_not_uniform(hermitian: bool, level: float) -> None:
    """Counting mirror images and estimating sigma gives .0226 below .05 for a complex pattern.

    It errs on the safe side only since half of such a pattern is lost; with a Hermitian one it is unsafe. The
    corrected form holds its level on the same noise.
    """
    rng = np.random.default_rng(2)
    side, radius, n = 32, 5.0, 8000
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) * side
    inside = cycles <= radius
    kept, lost = np.fft.fft2(rng.standard_normal((2, side, side)))[:, inside]
    donor = kept / np.linalg.norm(kept)
    if not hermitian:  # half of the power is that of an imaginary field
        donor = (donor + 1j * lost / np.linalg.norm(lost)) / np.sqrt(2)
    target = np.concatenate([donor.real, donor.imag]) * side * np.sqrt(donor.size)  # power of white noise
    published = np.empty(n)
    corrected = np.empty(n)
    key = TreeRingKey(3, (1, side, side), radius=radius)
    for start in range(0, n, 400):
        noise = rng.standard_normal((400, 1, side, side))
        found = np.fft.fft2(noise[:, 0])[:, inside]
        found = np.concatenate([found.real, found.imag], axis=1)
        sigma = found.std(axis=1, ddof=1)
        squares = np.square((found - target) / sigma[:, None]).sum(axis=1)
        centre = np.square(target).sum() / sigma**2
        published[start : start + 400] = stats.ncx2.cdf(squares, target.size, centre)
        corrected[start : start + 400] = detect_tree_ring(noise, key).p_values
    assert abs((published < 0.05).mean() - level) < 0.006
    assert abs((corrected < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / n)
    assert abs((corrected < 0.001).mean() - 0.001) < 4 * np.sqrt(0.001 / n)


@pytest.mark.reference
def test_the_published_form_cannot_see_zeros() -> None:
    """With zeros the published p-value stays near one half even for marked noise; here it is tiny."""
    rng = np.random.default_rng(3)
    key = TreeRingKey(0, (1, 32, 32), "zeros", radius=5.0)
    noise = embed_tree_ring(50, key, rng=rng) + 0.5 * rng.standard_normal((50, 1, 32, 32))
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32))) * 32
    found = np.fft.fft2(noise[:, 0])[:, cycles <= 5]
    found = np.concatenate([found.real, found.imag], axis=1)
    published = stats.chi2.cdf(
        np.square(found / found.std(axis=1, keepdims=True)).sum(axis=1), found.shape[1]
    )
    assert published.min() >= 0.49
    assert detect_tree_ring(noise, key).p_values.max() < 1e-6


@pytest.mark.reference
def test_small_pvalues_keep_their_digits() -> None:
    """Far down the p-value equals the mixture of central laws that defines the noncentral one."""
    rng = np.random.default_rng(4)
    key = TreeRingKey(9, (3, 16, 16))
    noise = embed_tree_ring(20, key, rng=rng) + rng.uniform(0.2, 0.9, (20, 1, 1, 1)) * rng.standard_normal(
        (20, 3, 16, 16)
    )
    read = detect_tree_ring(noise, key)
    # the pattern's square from two distances: that of the pattern itself is 0, that of 0 is the square
    centre = detect_tree_ring(np.zeros((1, 3, 16, 16)), key).distances[0] * key.n_values
    terms = np.arange(2000)
    for distance, p_value in zip(read.distances * key.n_values, read.p_values, strict=True):
        parts = stats.poisson.logpmf(terms, centre / 2)
        parts = parts + stats.chi2.logcdf(distance, key.n_values + 2 * terms)
        np.testing.assert_allclose(np.log(p_value), special.logsumexp(parts), rtol=1e-6)
    assert read.p_values.min() < 1e-20


@pytest.mark.parametrize("pattern", PATTERNS)
def test_marked_noise_holds_the_whole_pattern(pattern: str) -> None:
    """Noise from the sampler is at distance 0, with the least p-values, and repeats with its generator."""
    key = TreeRingKey(b"secret", (4, 64, 64), pattern)
    noise = embed_tree_ring(3, key, rng=np.random.default_rng(5))
    read = detect_tree_ring(noise, key)
    assert read.distances.max() < 1e-10
    assert read.p_values.max() < 1e-100
    if pattern == "zeros":
        assert read.key_p_values is None
    else:
        assert read.key_p_values is not None
        assert read.key_p_values.max() < (1e-100 if pattern == "random" else 1e-8)
    again = embed_tree_ring(3, key, rng=np.random.default_rng(5))
    assert noise.tobytes() == again.tobytes()
    assert noise.dtype == np.float32
    assert not np.array_equal(noise[0], noise[1])


@pytest.mark.property
@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 4),
    st.integers(2, 12),
    st.integers(2, 12),
    st.floats(0, 1),
    st.sampled_from(PATTERNS),
    st.integers(0, 2**64),
    st.data(),
)
def test_only_the_pattern_is_replaced(
    channels: int, height: int, width: int, share: float, pattern: str, secret: int, data: st.DataObject
) -> None:
    """For any shape and radius the pattern is written exactly and all other coefficients stay."""
    chosen = data.draw(st.permutations(range(channels)))[: data.draw(st.integers(1, channels))]
    radius = share * min(height, width) / 2
    key = TreeRingKey(secret, (channels, height, width), pattern, radius=radius, channels=tuple(chosen))
    noise = embed_tree_ring(2, key, rng=np.random.default_rng(6))
    assert detect_tree_ring(noise, key).distances.max() < 1e-9
    plain = np.random.default_rng(6).standard_normal(noise.shape)
    change = np.fft.fft2(noise - plain, norm="ortho")
    cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * min(height, width)
    others = [channel for channel in range(channels) if channel not in chosen]
    assert np.abs(change[:, others]).max(initial=0) < 1e-5
    assert np.abs(change[:, :, cycles > radius + 1e-9]).max(initial=0) < 1e-5


@pytest.mark.theory
def test_random_patterns_leave_the_noise_white() -> None:
    """Over secrets, values and coefficients of marked noise are standard normal, and rings keep the power."""
    rng = np.random.default_rng(7)
    shape = (1, 16, 16)
    noise = np.concatenate([embed_tree_ring(1, TreeRingKey(s, shape), rng=rng) for s in range(600)])
    assert law_pvalue(noise[:, 0, 3, 5], stats.norm.cdf) > 0.001
    inside = np.fft.fft2(noise[:, 0], norm="ortho")[:, 1, 2]
    assert law_pvalue(np.sqrt(2) * inside.imag, stats.norm.cdf) > 0.001
    rings = np.concatenate([embed_tree_ring(1, TreeRingKey(s, shape, "rings"), rng=rng) for s in range(600)])
    power = np.square(np.abs(np.fft.fft2(rings[:, 0], norm="ortho"))).mean(axis=0)
    assert abs(power[1, 2] - 1) < 4 * np.sqrt(2 / 600)
    zeros = embed_tree_ring(600, TreeRingKey(0, shape, "zeros"), rng=rng)
    expected = 1 - TreeRingKey(0, shape, "zeros").n_values / 256
    assert abs(zeros.var() - expected) < 0.02


@pytest.mark.theory
@pytest.mark.parametrize("pattern", ["random", "rings"])
def test_shares_of_secrets_hold_for_any_noise(pattern: str) -> None:
    """Over secrets `key_p_values` are uniform on any fixed noise: a slope, weak noise, or white noise."""
    rng = np.random.default_rng(8)
    slope = np.broadcast_to(np.linspace(-9, 3, 16), (2, 16, 16))
    weak = 0.01 * rng.standard_normal((2, 16, 16)) + 0.2
    noise = np.stack([slope, weak, rng.standard_normal((2, 16, 16))])
    shares = []
    for secret in range(700):
        read = detect_tree_ring(noise, TreeRingKey(secret, (2, 16, 16), pattern))
        assert read.key_p_values is not None
        shares.append(read.key_p_values)
    for one in np.transpose(shares):
        assert uniform(one) > 0.001


def test_noise_without_power_is_near_a_pattern_but_points_nowhere() -> None:
    """Empty noise is surprisingly near for `p_values`, whose assumption it breaks, and not in direction."""
    read = detect_tree_ring(np.zeros((1, 3, 32, 32)), TreeRingKey(b"k", (3, 32, 32)))
    assert read.p_values[0] < 1e-6
    assert read.key_p_values is not None
    assert read.key_p_values[0] == 1.0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_noise_of_any_size_has_pvalues(pattern: str) -> None:
    """From nothing to huge values every p-value lies in (0, 1], and huge noise is far from the pattern."""
    rng = np.random.default_rng(11)
    for size in (0.0, 1e-30, 1.0, 1e4, 1e29):
        noise = size * rng.standard_normal((2, 3, 8, 8))
        read = detect_tree_ring(noise, TreeRingKey(1, (3, 8, 8), pattern))
        shares = read.p_values if read.key_p_values is None else read.key_p_values
        assert min(read.p_values.min(), shares.min()) > 0
        assert max(read.p_values.max(), shares.max()) <= 1
        assert size < 10 or read.p_values.min() > 0.999


@pytest.mark.parametrize("pattern", ["random", "rings"])
def test_other_secrets_see_nothing(pattern: str) -> None:
    """Noise marked with one secret has ordinary p-values under another."""
    rng = np.random.default_rng(9)
    p_values, shares = [], []
    for n in range(300):
        noise = embed_tree_ring(1, TreeRingKey(n, (3, 16, 16), pattern), rng=rng)
        read = detect_tree_ring(noise, TreeRingKey(10**6 + n, (3, 16, 16), pattern))
        assert read.key_p_values is not None
        p_values.append(read.p_values[0])
        shares.append(read.key_p_values[0])
    assert uniform(np.array(shares)) > 0.001
    # over secrets noise with rings has the power of white noise, and not its law
    if pattern == "random":
        assert uniform(np.array(p_values)) > 0.001


def test_rings_survive_a_quarter_turn() -> None:
    """A turn about the origin leaves rings in place, and not a random pattern."""
    rng = np.random.default_rng(10)
    found = {}
    for pattern in ("rings", "random"):
        key = TreeRingKey(b"a", (1, 32, 32), pattern)
        noise = embed_tree_ring(4, key, rng=rng)
        turned = np.roll(np.rot90(noise, axes=(2, 3)), 1, axis=2)
        found[pattern] = detect_tree_ring(turned, key).p_values
    assert found["rings"].max() < 1e-12
    assert found["random"].min() > 1e-6


def test_defaults_follow_the_shape_and_the_secret_stays_hidden() -> None:
    """Latents of Stable Diffusion are marked in channel 3 up to 10 cycles, pixels in all up to 5 of 32."""
    latent = TreeRingKey(b"hidden", (4, 64, 64))
    assert (latent.marked_channels, latent.marked_radius, latent.n_values) == ((3,), 10.0, 317)
    pixels = TreeRingKey(b"hidden", (3, 32, 32))
    assert (pixels.marked_channels, pixels.marked_radius, pixels.n_values) == ((0, 1, 2), 5.0, 243)
    assert "hidden" not in repr(latent)


def test_unusable_input_is_refused() -> None:
    """Keys, counts and noise that cannot be used are refused in one line."""
    shape = (3, 8, 8)
    assert_refused(lambda: TreeRingKey(b"", shape), "secret")
    assert_refused(lambda: TreeRingKey(1, (3, 8, 0)), "shape")
    assert_refused(lambda: TreeRingKey(1, shape, "stars"), "pattern")
    for radius in (-1.0, 4.5, float("nan")):
        assert_refused(lambda radius=radius: TreeRingKey(1, shape, radius=radius), "radius")
    for channels in ((), (3,), (0, 0), (-1,)):
        assert_refused(lambda channels=channels: TreeRingKey(1, shape, channels=channels), "channels")
    key = TreeRingKey(1, shape)
    assert_refused(lambda: embed_tree_ring(0, key, rng=np.random.default_rng()), "n")
    assert_refused(lambda: detect_tree_ring(np.zeros((1, 3, 8, 9)), key), "noise")
    for sigma in (0.0, -1.0, 1e-200, float("inf"), float("nan")):
        assert_refused(lambda sigma=sigma: detect_tree_ring(np.zeros((1, *shape)), key, sigma=sigma), "sigma")
