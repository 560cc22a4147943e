"""What every scheme keeps to, ours and other packages': the contract."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import assert_refused

from poolproof.errors import InputError
from poolproof.watermark.key import Key
from poolproof.watermark.quality import psnr
from poolproof.watermark.schemes import AbstractScheme, SpreadScheme
from poolproof.watermark.significance import DETECTION_LEVEL

TINY = [(1, 1), (8, 8), (20, 20), (1, 300), (300, 1)]


def test_a_marked_copy_is_found_and_read(scheme: AbstractScheme, landscapes: list[np.ndarray]) -> None:
    """The copy has the image's shape and type, comes out the same twice, is no wreck, and carries the payload."""
    pixels = landscapes[2]
    before = pixels.copy()
    marked = scheme.embed(pixels)
    np.testing.assert_array_equal(pixels, before)
    assert (marked.shape, marked.dtype) == (pixels.shape, np.uint8)
    np.testing.assert_array_equal(scheme.embed(pixels), marked)
    assert 25 < psnr(pixels, marked) < 60
    reading = scheme.read(marked)
    assert 0 < reading.p_value < DETECTION_LEVEL
    assert reading == scheme.read(marked)
    if scheme.bits:
        assert reading.bits is not None
        assert np.mean(np.equal(reading.bits, scheme.bits)) > 0.9
    else:
        assert reading.bits is None


def test_images_without_the_mark_are_not_found(
    scheme: AbstractScheme, clean_images: list[np.ndarray]
) -> None:
    """Landscapes, pages, stripes, slopes and noise keep p-values above the level."""
    assert all(DETECTION_LEVEL < scheme.read(pixels).p_value <= 1 for pixels in clean_images[::5])


def test_other_schemes_marks_are_not_taken_for_the_own(
    scheme: AbstractScheme, landscapes: list[np.ndarray]
) -> None:
    """A keyed mark of another key is no mark of this scheme."""
    marked = SpreadScheme(Key(b"another key, 16+")).embed(landscapes[0])
    assert scheme.read(marked).p_value > DETECTION_LEVEL


@pytest.mark.parametrize("shape", TINY, ids=str)
def test_tiny_images_are_read_and_not_written(scheme: AbstractScheme, shape: tuple[int, int]) -> None:
    """Reading says nothing of an image without room, and writing refuses in one line that names a remedy."""
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert scheme.read(pixels).p_value > DETECTION_LEVEL
    assert f"{shape[0]}x{shape[1]}" in assert_refused(lambda: scheme.embed(pixels), "pixels")


@pytest.mark.parametrize("shape", [(64, 64), (70, 300), (1, 70_000), (70_000, 1), (7, 12_000)], ids=str)
def test_odd_shapes_are_written_and_found_or_refused(scheme: AbstractScheme, shape: tuple[int, int]) -> None:
    """An image is marked in its own shape or refused; reading raises for neither."""
    pixels = np.random.default_rng(4).integers(100, 150, (*shape, 3), dtype=np.uint8)
    assert scheme.read(pixels).p_value > DETECTION_LEVEL
    try:
        marked = scheme.embed(pixels)
    except InputError:
        assert_refused(lambda: scheme.embed(pixels), "pixels")
    else:
        assert marked.shape == pixels.shape
        assert 0 < scheme.read(marked).p_value <= 1


@pytest.mark.parametrize("shape", [(4000, 20), (20, 4000)], ids=str)
def test_strips_are_read(scheme: AbstractScheme, shape: tuple[int, int]) -> None:
    """Long strips give a p-value without a warning."""
    pixels = np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert scheme.read(pixels).p_value > DETECTION_LEVEL


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_hold_no_mark(scheme: AbstractScheme, value: int) -> None:
    """Black, grey and white say nothing, and can be written without a warning."""
    pixels = np.full((256, 264, 3), value, np.uint8)
    assert scheme.read(pixels).p_value > DETECTION_LEVEL
    assert scheme.embed(pixels).shape == pixels.shape
