"""Weight-free features against scipy, PyWavelets and images whose statistics are known."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poolproof.detectors.forensic import (
    FLOOR,
    FORENSIC_BLOCKS,
    FORENSIC_DIM,
    FORENSIC_NAME,
    LEVELS,
    forensic_features,
)
from poolproof.errors import InputError


def part(features: np.ndarray, name: str) -> np.ndarray:
    """The named part of a feature vector."""
    start = 0
    for block, length in FORENSIC_BLOCKS:
        if block == name:
            return features[start : start + length].astype(np.float64)
        start += length
    raise KeyError(name)


def luma_of(pixels: np.ndarray) -> np.ndarray:
    """Rounded luma of RGB pixels, in floating point."""
    return np.floor(pixels.astype(np.float64) @ np.array([19595, 38470, 7471]) / 65536 + 0.5)


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture with content at all scales and some noise."""
    falling = rng.normal(size=(3, side, side)) / (1 + np.hypot(*np.indices((side, side))))
    field = np.asarray(scipy.fft.idctn(falling, axes=(1, 2), norm="ortho"))
    field = 128 + 50 * (field - field.mean()) / field.std() + rng.normal(scale=2, size=field.shape)
    return np.clip(np.rint(field), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def test_length_and_name_are_those_announced() -> None:
    """The vector has 256 float32 numbers, the parts add up, and the name carries a version."""
    features = forensic_features(smooth(np.random.default_rng(0), 96))
    assert features.shape == (FORENSIC_DIM,) == (256,)
    assert features.dtype == np.float32
    assert FORENSIC_NAME == "forensic/1"


@settings(deadline=None, max_examples=60)
@pytest.mark.property
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(8, 70), st.integers(8, 70), st.just(3)),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
    )
)
def test_features_are_finite_and_repeatable_for_any_image(pixels: np.ndarray) -> None:
    """Any image from 8 x 8 pixels gives finite numbers of moderate size, twice the same."""
    features = forensic_features(pixels)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 30
    np.testing.assert_array_equal(features, forensic_features(pixels))


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(8, 8), (8, 400), (33, 31), (256, 256), (300, 517)])
def test_constant_images_have_finite_features_without_residual(value: int, shape: tuple[int, int]) -> None:
    """A constant image has a residual of zero at every level, a flat thumbnail and one histogram bin."""
    features = forensic_features(np.full((*shape, 3), value, np.uint8))
    assert np.isfinite(features).all()
    bands = part(features, "luma_bands").reshape(LEVELS, 3, 3)
    np.testing.assert_allclose(bands[:, :, :2], np.log(FLOOR), rtol=1e-6)
    np.testing.assert_allclose(bands[:, :, 2], 0, atol=1e-6)
    np.testing.assert_allclose(part(features, "thumbnail"), value / 255, atol=1e-6)
    assert part(features, "histogram")[value // 8] == 1


@pytest.mark.parametrize("pattern", [(1, 2), (2, 1), (1, 1)])
def test_one_pixel_patterns_are_finite_and_told_apart(pattern: tuple[int, int]) -> None:
    """Black and white lines or squares of one pixel land in their own detail band."""
    rows, columns = np.indices((64, 64))
    lines = (rows * (pattern[0] % 2) + columns * (pattern[1] % 2)) % 2 * 255
    features = forensic_features(np.repeat(lines[..., None], 3, axis=2).astype(np.uint8))
    assert np.isfinite(features).all()
    finest = part(features, "luma_bands").reshape(LEVELS, 3, 3)[0, :, 1]
    expected = {(2, 1): 0, (1, 2): 1, (1, 1): 2}[pattern]
    assert int(finest.argmax()) == expected
    assert np.exp(finest[expected]) == pytest.approx(127.5, rel=1e-3)


@pytest.mark.reference
def test_band_statistics_agree_with_pywavelets() -> None:
    """Level statistics of luma and chroma are those of PyWavelets' Haar transform."""
    pixels = smooth(np.random.default_rng(1), 256)
    luma = luma_of(pixels)
    features = forensic_features(pixels)
    got = part(features, "luma_bands").reshape(LEVELS, 3, 3)
    decomposition = pywt.wavedec2(luma, "haar", level=LEVELS)[:0:-1]
    chroma = [
        pywt.wavedec2(pixels[:, :, c].astype(float) - luma, "haar", level=LEVELS)[:0:-1] for c in (0, 2)
    ]
    for level in range(LEVELS):
        down, across, diagonal = decomposition[level]
        for band, values in enumerate((across, down, diagonal)):
            flat = values.ravel() / 2 ** (level + 1)
            power = np.mean(flat**2)
            expected = [
                np.log(np.mean(np.abs(flat)) + FLOOR),
                np.log(np.sqrt(power) + FLOOR),
                np.log((np.mean(flat**4) + FLOOR**4) / (power + FLOOR**2) ** 2),
            ]
            np.testing.assert_allclose(got[level, band], expected, rtol=1e-5)
        power = np.mean([np.mean((band / 2 ** (level + 1)) ** 2) for c in chroma for band in c[level]])
        assert part(features, "chroma_bands")[level] == pytest.approx(
            np.log(np.sqrt(power) + FLOOR), rel=1e-5
        )


@pytest.mark.reference
def test_spectrum_of_white_noise_follows_the_laplacian() -> None:
    """White noise gives ring powers of its variance times the Laplacian's squared response."""
    rng = np.random.default_rng(2)
    grey = np.clip(np.rint(rng.normal(128, 20, (256, 256))), 0, 255).astype(np.uint8)
    got = np.exp(part(forensic_features(np.repeat(grey[..., None], 3, axis=2)), "spectrum"))
    rows = np.fft.fftfreq(256)[:, None]
    columns = np.fft.rfftfreq(256)[None, :]
    response = (4 - 2 * np.cos(2 * np.pi * rows) - 2 * np.cos(2 * np.pi * columns)) ** 2
    ring = np.minimum((np.hypot(rows, columns) * 32).astype(int), 15)
    expected = np.array([response[ring == r].mean() for r in range(16)]) * grey.astype(float).var()
    # The lowest ring holds some hundred coefficients next to edge effects; the others thousands.
    np.testing.assert_allclose(got[1:], expected[1:], rtol=0.15)


@pytest.mark.reference
def test_thumbnail_is_the_area_mean_of_luma_and_its_cosines_are_scipys() -> None:
    """Cells of sides that 8 does not divide are plain means, and the cosine part is an orthonormal DCT."""
    pixels = smooth(np.random.default_rng(3), 110)[:, :101]
    luma = pixels.astype(float) @ np.array([0.299, 0.587, 0.114]) / 255
    rows, columns = np.arange(9) * 110 // 8, np.arange(9) * 101 // 8
    cells = [np.split(band, columns[1:-1], axis=1) for band in np.split(luma, rows[1:-1], axis=0)]
    expected = np.array([[cell.mean() for cell in row] for row in cells])
    features = forensic_features(pixels)
    np.testing.assert_allclose(part(features, "thumbnail"), expected.ravel(), rtol=1e-6)
    np.testing.assert_allclose(
        part(features, "thumbnail_sorted"), np.sort(expected.ravel()).reshape(16, 4).mean(1), rtol=1e-6
    )
    cosines = np.abs(np.asarray(scipy.fft.dctn(expected, norm="ortho")))[:4, :4].ravel()[1:]
    np.testing.assert_allclose(part(features, "thumbnail_cosines"), cosines, rtol=1e-4, atol=1e-6)


@pytest.mark.reference
def test_cooccurrence_counts_pairs_of_truncated_steps() -> None:
    """Square-rooted frequencies equal a plain count over all neighbouring triples, across and down."""
    pixels = smooth(np.random.default_rng(4), 64)
    luma = luma_of(pixels)
    expected = []
    for plane in (luma, luma.T):
        counts = np.zeros((5, 5))
        step = np.clip(np.floor((np.diff(plane, axis=1) + 1) / 2), -2, 2).astype(int) + 2
        np.add.at(counts, (step[:, :-1].ravel(), step[:, 1:].ravel()), 1)
        expected.append(np.sqrt(counts / counts.sum()).ravel())
    np.testing.assert_allclose(
        part(forensic_features(pixels), "cooccurrence"), np.concatenate(expected), atol=1e-6
    )


def test_correlations_of_grey_and_of_independent_channels() -> None:
    """Grey pictures have no chroma; correlations of free channels are those of plain numpy."""
    rng = np.random.default_rng(5)
    grey = np.repeat(rng.integers(0, 256, (128, 128, 1), dtype=np.uint8), 3, axis=2)
    colour = part(forensic_features(grey), "colour")
    np.testing.assert_allclose(colour[1:5], 0, atol=1e-6)
    np.testing.assert_allclose(colour[8:11], 1, atol=1e-4)
    free = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    luma = luma_of(free)
    planes = [luma, free[:, :, 2].astype(float), free[:, :, 0].astype(float)]
    fine = [p[::2, ::2] - p[1::2, ::2] - p[::2, 1::2] + p[1::2, 1::2] for p in planes]
    expected = [
        np.mean(fine[i] * fine[j]) / np.sqrt(np.mean(fine[i] ** 2) * np.mean(fine[j] ** 2))
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    np.testing.assert_allclose(part(forensic_features(free), "colour")[8:11], expected, atol=1e-3)


def test_crop_is_native_and_stays_on_the_grid_of_eight() -> None:
    """Pixels outside the centre crop change the thumbnail alone; the crop's corner is a multiple of 8."""
    rng = np.random.default_rng(6)
    pixels = smooth(rng, 300)
    altered = pixels.copy()
    altered[:16] = rng.integers(0, 256, altered[:16].shape, dtype=np.uint8)
    altered[:, 16 + 256 :] = 0
    before, after = forensic_features(pixels), forensic_features(altered)
    for name, _ in FORENSIC_BLOCKS:
        same = np.array_equal(part(before, name), part(after, name))
        assert same != name.startswith("thumbnail")
    altered[16, 16] ^= 64
    assert not np.array_equal(part(forensic_features(altered), "histogram"), part(before, "histogram"))


def test_enlarged_tiny_images_stay_told_apart() -> None:
    """8 x 8 pictures, themselves or enlarged to 256 x 256, are separated by the coarse parts."""
    rng = np.random.default_rng(7)
    tiny = rng.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8).repeat(3, axis=3)
    large = tiny.repeat(32, axis=1).repeat(32, axis=2)
    for a, b in zip(tiny, large, strict=True):
        np.testing.assert_allclose(
            part(forensic_features(a), "thumbnail"), part(forensic_features(b), "thumbnail"), atol=1e-6
        )
    first, second = (forensic_features(image) for image in large)
    for name in ("thumbnail", "thumbnail_sorted", "thumbnail_cosines", "histogram"):
        assert np.abs(part(first, name) - part(second, name)).max() > 0.05


def test_large_images_take_bounded_samples_and_keep_their_thumbnail() -> None:
    """A side above 2048 pixels is sampled for the thumbnail, and a smooth picture's means hardly move."""
    ramp = np.linspace(0, 255, 4096)[:, None, None] * np.ones((1, 64, 3))
    thumbnail = part(forensic_features(np.rint(ramp).astype(np.uint8)), "thumbnail").reshape(8, 8)
    np.testing.assert_allclose(thumbnail[:, 0], (np.arange(8) + 0.5) / 8, atol=2e-3)


@pytest.mark.parametrize("shape", [(7, 8), (8, 1), (0, 20)])
def test_images_below_eight_pixels_are_refused(shape: tuple[int, int]) -> None:
    """Too small an image gives an InputError that states its size."""
    with pytest.raises(InputError, match=f"{shape[0]}x{shape[1]}"):
        forensic_features(np.zeros((*shape, 3), np.uint8))


def test_noise_and_resampling_move_the_fine_parts() -> None:
    """Added noise raises the finest bands, and smoothing lowers them."""
    rng = np.random.default_rng(8)
    pixels = smooth(rng, 256)
    noisy = np.clip(pixels + rng.normal(0, 30, pixels.shape), 0, 255).astype(np.uint8)
    shifted = [np.roll(pixels, move, (0, 1)).astype(int) for move in ((0, 0), (0, 1), (1, 0), (1, 1))]
    blurred = (sum(shifted[1:], shifted[0]) // 4).astype(np.uint8)
    finest = [
        part(forensic_features(image), "luma_bands").reshape(LEVELS, 3, 3)[0, :, 1].mean()
        for image in (blurred, pixels, noisy)
    ]
    assert finest[0] < finest[1] - 0.3 < finest[2] - 0.6
