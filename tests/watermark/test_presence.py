"""Presence: exact p-values over keys, strength in the right units, and sizes down to 8 x 8."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from scipy import fft, stats
from sklearn.datasets import load_digits

from poolproof.watermark.key import Key
from poolproof.watermark.presence import (
    MAX_COEFFICIENTS,
    embed_presence,
    measure_presence,
    presence_pattern,
    presence_pvalues,
)

KEY = Key(bytes(range(16)))


def drawn(n: int, seed: int) -> list[Key]:
    """Random keys."""
    rng = np.random.default_rng(seed)
    return [Key(rng.bytes(16)) for _ in range(n)]


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Handwritten digits of 8 x 8, grey, from 0 to 16."""
    images: np.ndarray = np.asarray(load_digits(return_X_y=True)[0])
    return images.reshape(-1, 8, 8, 1)


@pytest.fixture(scope="module")
def coloured() -> np.ndarray:
    """Smooth coloured pictures of 32 x 32 with noise, as bytes."""
    rng = np.random.default_rng(12)
    coarse = rng.normal(scale=60, size=(200, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(np.rint(128 + coarse + rng.normal(scale=6, size=coarse.shape)), 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=25)
@pytest.mark.theory
@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 4), st.binary(min_size=16, max_size=64))
def test_pattern_has_unit_power_and_equal_coefficients(h: int, w: int, c: int, secret: bytes) -> None:
    """Mean 0 in every channel, mean square 1, and cosine coefficients of one size at the key's places."""
    pattern = presence_pattern((h, w, c), Key(secret))
    np.testing.assert_allclose(pattern.mean(axis=(0, 1)), 0, atol=1e-12)
    assert np.mean(pattern**2) == pytest.approx(1)
    sizes = np.abs(np.asarray(fft.dctn(pattern, axes=(0, 1), norm="ortho")))
    used = sizes > 1e-9
    assert used.sum() == min(MAX_COEFFICIENTS, (h * w - 1) * c)
    assert np.ptp(sizes[used]) < 1e-9


@pytest.mark.parametrize(("kind", "amplitude"), [("float", 1.5), ("float32", 1.5), ("uint8", 2.0)])
def test_digits_of_eight_by_eight_carry_the_mark(digits: np.ndarray, kind: str, amplitude: float) -> None:
    """The smallest images, as floats and as bytes: the set is found, its strength is the amplitude, others are not."""
    images = (digits + (100 if kind == "uint8" else 0)).astype(kind)
    marked = embed_presence(images, KEY, amplitude)
    assert (marked.dtype, marked.shape) == (images.dtype, images.shape)
    found = measure_presence(marked, KEY, reference=images)
    assert found.p_value < 1e-12
    assert found.strength == pytest.approx(amplitude, rel=0.05)
    assert found.stderr < 0.2 * amplitude
    assert measure_presence(marked, KEY).p_value < 1e-6
    assert min(measure_presence(marked, key).p_value for key in drawn(20, 1)) > 1e-4
    assert measure_presence(images, KEY).p_value > 1e-3
    single = presence_pvalues(marked[:300], KEY)
    assert np.median(single) < 1e-3


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (9, 31, 2), (64, 64, 3), (8, 500, 1)], ids=str)
@pytest.mark.parametrize("kind", ["uint8", "float64", "float32", "float16"])
def test_single_images_carry_the_mark(shape: tuple[int, int, int], kind: str) -> None:
    """One image on easy ground is enough, in every shape and type; the input stays as it is."""
    rng = np.random.default_rng(13)
    images = rng.normal(128, 1.0, (1, *shape)).astype(kind)
    before = images.copy()
    marked = embed_presence(images, KEY, 4)
    np.testing.assert_array_equal(images, before)
    assert marked.dtype == images.dtype
    (p_value,) = presence_pvalues(marked, KEY)
    assert 0 < p_value < 1e-6
    assert measure_presence(marked, KEY).p_value == p_value


@pytest.mark.slow
@pytest.mark.theory
def test_set_p_values_are_valid_and_near_uniform_over_keys(digits: np.ndarray, coloured: np.ndarray) -> None:
    """On fixed unmarked sets, one, few and many images, with a reference or none, each level keeps its share."""
    sets = [digits[:1], digits[:20], digits, coloured[:1], coloured, np.repeat(coloured[:1], 40, axis=0)]
    p_values = [measure_presence(images, key).p_value for images in sets for key in drawn(150, 2)]
    p_values += [measure_presence(digits[:900], key, reference=digits[900:]).p_value for key in drawn(150, 3)]
    for level in (0.5, 0.05, 0.01, 0.001):
        count = sum(p <= level for p in p_values)
        assert stats.binomtest(count, len(p_values), level).pvalue > 1e-3, level


@pytest.mark.theory
def test_p_values_of_single_images_are_valid_and_near_uniform_over_keys(
    digits: np.ndarray, coloured: np.ndarray
) -> None:
    """Each unmarked image alone; one key for several images makes them depend on each other, so it changes."""
    p_values = np.concatenate(
        [
            presence_pvalues(images[i : i + 1], key)
            for images in (digits, coloured)
            for i, key in enumerate(drawn(200, 4))
        ]
    )
    for level in (0.5, 0.05, 0.01, 0.001):
        count = int((p_values <= level).sum())
        assert stats.binomtest(count, p_values.size, level).pvalue > 1e-3, level


@pytest.mark.theory
def test_large_images_choose_coefficients_without_regard_to_signs() -> None:
    """Where the key chooses among more coefficients than it takes, p-values stay uniform, on slopes too."""
    slope = np.broadcast_to(np.linspace(0, 255, 40)[None, :, None, None], (1, 40, 40, 1)).copy()
    p_values = [float(presence_pvalues(slope, key)[0]) for key in drawn(1500, 5)]
    for level in (0.3, 0.05, 0.01):
        count = sum(p <= level for p in p_values)
        assert stats.binomtest(count, len(p_values), level, alternative="greater").pvalue > 1e-3, level


@pytest.mark.coverage
def test_strength_errs_by_its_standard_error(digits: np.ndarray) -> None:
    """Over keys the strength is the amplitude, 0 without a mark, with the stated standard error."""
    images, reference = digits[:300], digits[1000:]
    for amplitude in (0.0, 0.5):
        scores = []
        for key in drawn(200, 6):
            marked = embed_presence(images, key, amplitude) if amplitude else images
            found = measure_presence(marked, key, reference=reference)
            scores.append((found.strength - amplitude) / found.stderr)
        assert abs(np.mean(scores)) < 4 / np.sqrt(200)
        assert 0.8 < np.std(scores) < 1.25


@pytest.mark.property
def test_strength_is_linear_and_units_do_not_matter(digits: np.ndarray) -> None:
    """Twice the amplitude is twice the strength; images in other units give the same p-value."""
    one, two = (
        measure_presence(embed_presence(digits, KEY, a), KEY, reference=digits).strength for a in (1, 2)
    )
    assert two == pytest.approx(2 * one)
    marked = embed_presence(digits, KEY, 0.3)
    base = measure_presence(marked, KEY)
    for scale in (1e-3, 1e6):
        other = measure_presence(marked * scale, KEY)
        assert other.strength == pytest.approx(base.strength * scale, rel=1e-6)
        assert np.log(other.p_value) == pytest.approx(np.log(base.p_value), rel=0.02)


@pytest.mark.parametrize("value", [0, 255, 7])
@pytest.mark.parametrize("n", [1, 29, 30])
def test_constant_images_say_nothing(value: int, n: int) -> None:
    """Black, white and grey have p-value 1 or next to it, and can be marked without a warning."""
    images = np.full((n, 16, 12, 3), value, np.uint8)
    found = measure_presence(images, KEY)
    assert found.p_value > 0.01
    assert abs(found.strength) < 1e-6
    assert np.isfinite(found.stderr)
    marked = embed_presence(images, KEY, 3)
    assert marked.dtype == np.uint8
    assert measure_presence(marked, KEY).p_value < 1e-6


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e100])
def test_images_with_one_coefficient_are_measured(size: float) -> None:
    """Of any size: nothing overflows."""
    coefficients = np.zeros((1, 40, 40, 1))
    coefficients[0, 3, 2, 0] = size
    images = fft.idctn(coefficients, axes=(1, 2), norm="ortho")
    assert 0 < presence_pvalues(np.asarray(images), KEY)[0] <= 1


def test_what_cannot_be_marked_or_measured_is_refused(
    digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amplitudes, shapes, types, empty sets, values that are no numbers, and references of another shape."""
    for amplitude in (0, -1.0, float("nan"), float("inf")):
        assert_refused(lambda a=amplitude: embed_presence(digits, KEY, a), "amplitude")
    assert_refused(lambda: embed_presence(digits.astype(np.int32), KEY, 1), "images")
    for shape in ((7, 8, 1), (8, 7, 1), (8, 8, 0), (1, 1, 1)):
        images = np.zeros((2, *shape))
        assert_refused(lambda images=images: embed_presence(images, KEY, 1), "images")
        assert_refused(lambda images=images: measure_presence(images, KEY), "images")
        assert_refused(lambda shape=shape: presence_pattern(shape, KEY), "images")
    assert_refused(lambda: measure_presence(digits[:0], KEY), "images")
    assert_refused(lambda: presence_pvalues(digits[:0], KEY), "images")
    assert_refused(lambda: measure_presence(digits, KEY, reference=digits[:0]), "reference")
    for value in (float("nan"), float("inf")):
        broken = digits[:3].copy()
        broken[1, 2, 3, 0] = value
        assert_refused(lambda broken=broken: embed_presence(broken, KEY, 1), "images")
        assert_refused(lambda broken=broken: measure_presence(broken, KEY), "images")
        assert_refused(lambda broken=broken: presence_pvalues(broken, KEY), "images")
        assert_refused(lambda broken=broken: measure_presence(digits, KEY, reference=broken), "reference")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert_refused(lambda: measure_presence(digits, KEY, reference=np.zeros((3, 9, 8, 1))), "reference")
