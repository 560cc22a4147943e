"""Block remainders and votes against OpenCV, PyWavelets and the package that writes the public marks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.watermark.dwt import (
    STEP,
    STRENGTH,
    VARIANTS,
    Variant,
    block_remainders,
    block_votes,
    decode_bits,
    strengths_of,
    variants_of,
    votes_of,
)


def reference_votes(pixels: np.ndarray) -> np.ndarray:
    """The scheme step by step with OpenCV's conversion and PyWavelets' transform, one block at a time."""
    rows, columns = (side // 4 * 4 for side in pixels.shape[:2])
    yuv = cv2.cvtColor(np.ascontiguousarray(pixels[:, :, ::-1]), cv2.COLOR_BGR2YUV)
    low, _ = pywt.dwt2(yuv[:rows, :columns, 1], "haar")
    votes = []
    for i in range(low.shape[0] // 4):
        for j in range(low.shape[1] // 4):
            tile = low[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].ravel()
            value = abs(tile[1 + np.argmax(np.abs(tile[1:]))])
            votes.append(1 if value % 36 > 18 else -1)
    return np.array(votes, np.int8)


@pytest.mark.reference
def test_votes_equal_the_step_by_step_decoder_on_pictures(clean_images: list[np.ndarray]) -> None:
    """Every vote of every kind of picture equals the reference, flat areas and ties included."""
    for pixels in clean_images:
        np.testing.assert_array_equal(block_votes(pixels), reference_votes(pixels))


@pytest.mark.reference
@pytest.mark.parametrize("shape", [(256, 256), (257, 263), (260, 300), (259, 301), (8, 8192), (8195, 9)])
def test_votes_equal_the_reference_on_sides_that_8_does_not_divide(shape: tuple[int, int]) -> None:
    """Rows and columns beyond whole blocks are left out as in the scheme."""
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    votes = block_votes(pixels)
    assert votes.size == (shape[0] // 8) * (shape[1] // 8)
    np.testing.assert_array_equal(votes, reference_votes(pixels))


@pytest.mark.reference
def test_votes_equal_the_reference_where_remainders_tie() -> None:
    """Flat blocks of every colour that U can take, and blocks of few values, read as in floating point."""
    rng = np.random.default_rng(4)
    blue = np.arange(256, dtype=np.uint8).repeat(256).reshape(256, 256)
    colours = np.stack([blue.T, np.full_like(blue, 90), blue], axis=2)
    flat = colours[::2, ::2].repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_array_equal(block_votes(flat), reference_votes(flat))
    for low in (0, 60, 180, 250):
        few = rng.integers(low, low + 5, (256, 512, 3), dtype=np.uint8)
        np.testing.assert_array_equal(block_votes(few), reference_votes(few))


@settings(deadline=None, max_examples=15)
@pytest.mark.reference
@pytest.mark.property
@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(1, 256))
def test_votes_equal_the_reference_for_any_colours(seed: int, low: int, span: int) -> None:
    """Blocks of any range of colours read as in the reference."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(low, min(256, low + span), (256, 256, 3)).astype(np.uint8)
    np.testing.assert_array_equal(block_votes(pixels), reference_votes(pixels))


def test_large_images_read_only_their_first_rows_of_blocks(landscapes: list[np.ndarray]) -> None:
    """With a limit the votes are the beginning of all votes, whole rows of them and at least one."""
    pixels = landscapes[2]
    votes = block_votes(pixels)
    part = block_votes(pixels, max_pixels=100_000)
    width = pixels.shape[1] // 8
    assert part.size == 100_000 // (8 * pixels.shape[1]) * width
    np.testing.assert_array_equal(part, votes[: part.size])
    assert block_votes(pixels, max_pixels=1).size == width
    with pytest.raises(InputError, match="max_pixels"):
        block_votes(pixels, max_pixels=0)


@pytest.mark.parametrize("shape", [(255, 256), (1, 1), (0, 10), (7, 20000), (30000, 7)])
def test_images_without_blocks_or_below_the_schemes_size_have_no_votes(shape: tuple[int, int]) -> None:
    """Fewer than 65536 pixels, or a side under 8, give an empty array."""
    votes = block_votes(np.zeros((*shape, 3), np.uint8))
    assert votes.shape == (0,)
    assert votes.dtype == np.int8


def test_views_read_like_copies(landscapes: list[np.ndarray]) -> None:
    """Flipped and cropped views without a copy give the votes of a contiguous copy."""
    view = landscapes[3][::-1, 5:, ::-1]
    np.testing.assert_array_equal(block_votes(view), block_votes(np.ascontiguousarray(view)))


def package_votes(pixels: np.ndarray, variant: Variant) -> np.ndarray:
    """Votes of the package's own decoder for the array that the variant stands for."""
    from imwatermark.dwtDctSvd import EmbedDwtDctSvd
    from imwatermark.maxDct import EmbedMaxDct

    decoder = EmbedMaxDct if variant.algorithm == "dwtDct" else EmbedDwtDctSvd
    n = pixels.shape[0] // 8 * (pixels.shape[1] // 8)
    ordered = pixels[:, :, ::-1] if variant.channels == "BGR" else pixels
    yuv = cv2.cvtColor(np.ascontiguousarray(ordered).astype(variant.array), cv2.COLOR_BGR2YUV)
    rows, columns = (side // 4 * 4 for side in pixels.shape[:2])
    low, _ = pywt.dwt2(yuv[:rows, :columns, 1], "haar")
    scores = decoder([], wmLen=n).decode_frame(low, STEP, [[] for _ in range(n)])
    return np.array([2 * score[0] - 1 for score in scores], np.int8)


@pytest.mark.reference
@pytest.mark.parametrize("variant", [*variants_of("dwtDct"), *variants_of("dwtDctSvd")], ids=str)
def test_votes_of_all_variants_equal_the_packages(variant: Variant, landscapes: list[np.ndarray]) -> None:
    """On bytes in its own scheme every vote is the same; elsewhere 1 in 1000 may fall on the other side of an edge."""
    noise = np.random.default_rng(5).integers(0, 256, (260, 300, 3), dtype=np.uint8)
    exact = (variant.algorithm, variant.array) == ("dwtDct", "uint8")
    for pixels in (*landscapes[:4], noise):
        different = np.mean(block_votes(pixels, variant) != package_votes(pixels, variant))
        assert different <= (0 if exact else 1e-3)


@pytest.mark.reference
def test_decoded_bits_are_the_packages() -> None:
    """The majority of the votes, and 1 where they tie, as in its decoder."""
    from imwatermark import WatermarkDecoder

    pixels = np.random.default_rng(6).integers(100, 140, (256, 320, 3), dtype=np.uint8)
    for n_bits in (8, 32, 48, 97):
        bits = WatermarkDecoder("bits", n_bits).decode(np.ascontiguousarray(pixels[:, :, ::-1]), "dwtDct")
        assert decode_bits(block_votes(pixels), n_bits) == tuple(int(bit) for bit in bits)
    with pytest.raises(InputError, match="n_bits"):
        decode_bits(np.ones(10, np.int8), 11)


def test_a_stack_of_images_reads_like_its_images(landscapes: list[np.ndarray]) -> None:
    """Several images of one size give the rows that they give alone, in every variant."""
    stack = np.stack([landscapes[0], landscapes[4]])
    together = block_remainders(stack)
    assert set(together) == set(VARIANTS)
    for n, pixels in enumerate(stack):
        for variant, remainders in block_remainders(pixels).items():
            np.testing.assert_array_equal(together[variant][n], remainders)


def test_swapped_channels_are_the_other_variant(landscapes: list[np.ndarray]) -> None:
    """Reading RGB for BGR is reading the picture with red and blue swapped."""
    swapped = np.ascontiguousarray(landscapes[1][:, :, ::-1])
    for array in ("uint8", "float32"):
        straight = block_remainders(landscapes[1], (Variant(array=array, channels="RGB"),))
        other = block_remainders(swapped, (Variant(array=array),))
        (first,), (second,) = straight.values(), other.values()
        np.testing.assert_array_equal(first, second)


def test_strengths_are_full_where_a_mark_puts_its_bits() -> None:
    """9 is bit 0 and 27 bit 1 with full strength; 0, half a step and the step say nothing."""
    remainders = np.array([0, 9, 18, 27, 36], np.float32)
    np.testing.assert_array_equal(strengths_of(remainders), [0, -STRENGTH, 0, STRENGTH, 0])
    np.testing.assert_array_equal(votes_of(remainders), [-1, -1, -1, 1, 1])
