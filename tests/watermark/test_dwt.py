"""Block votes against OpenCV and PyWavelets, and what the writer puts in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.watermark.dwt import MIN_PIXELS, block_votes, embed_dwt


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


@settings(deadline=None, max_examples=20)
@pytest.mark.property
@given(st.lists(st.integers(0, 1), min_size=1, max_size=80), st.integers(95, 160), st.integers(0, 2**32 - 1))
def test_bits_written_into_flat_pictures_read_back(bits: list[int], level: int, seed: int) -> None:
    """On a nearly flat grey ground the mark is clear: at least 19 of 20 votes are the bits written."""
    rng = np.random.default_rng(seed)
    pixels = (level + rng.integers(-1, 2, (256, 264, 1))).repeat(3, axis=2).astype(np.uint8)
    votes = block_votes(embed_dwt(pixels, bits))
    expected = 2 * np.resize(np.array(bits), votes.size) - 1
    assert np.mean(votes == expected) > 0.95


def test_writing_leaves_the_input_and_the_rest_of_the_picture_alone(landscapes: list[np.ndarray]) -> None:
    """The input, its red and the border beyond whole blocks keep their values, and the change is faint."""
    pixels = landscapes[3]
    before = pixels.copy()
    marked = embed_dwt(pixels, [1, 0, 1])
    np.testing.assert_array_equal(pixels, before)
    rows, columns = (side // 8 * 8 for side in pixels.shape[:2])
    np.testing.assert_array_equal(marked[:, :, 0], pixels[:, :, 0])
    np.testing.assert_array_equal(marked[rows:], pixels[rows:])
    np.testing.assert_array_equal(marked[:, columns:], pixels[:, columns:])
    error = np.mean((marked.astype(float) - pixels) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    changed = (marked != pixels).any(axis=2)[:rows, :columns]
    per_block = changed.reshape(rows // 8, 8, columns // 8, 8).sum(axis=(1, 3))
    assert per_block.max() <= 4


@pytest.mark.reference
def test_writing_moves_u_and_keeps_luma_and_v(landscapes: list[np.ndarray]) -> None:
    """In OpenCV's terms the mark lies in U; luma and V move by rounding alone where nothing is clipped."""
    pixels = np.clip(landscapes[1], 70, 185)
    marked = embed_dwt(pixels, [1, 0, 0, 1, 1])
    before, after = (
        cv2.cvtColor(np.ascontiguousarray(p[:, :, ::-1]), cv2.COLOR_BGR2YUV).astype(int)
        for p in (pixels, marked)
    )
    change = np.abs(after - before).max(axis=(0, 1))
    assert change[0] <= 1
    assert change[1] >= 5
    assert change[2] <= 1


@pytest.mark.parametrize(
    ("shape", "bits", "step", "message"),
    [
        ((255, 256), [1, 0], 36, "65536"),
        ((7, 20000), [1, 0], 36, "8 a side"),
        ((256, 256), [], 36, "bits"),
        ((256, 256), [0, 2], 36, "bits"),
        ((256, 256), [0, 1], 0, "step"),
    ],
)
def test_unusable_input_of_the_writer_is_refused(
    shape: tuple[int, int], bits: list[int], step: float, message: str
) -> None:
    """Small images, other values than bits, and a step of zero give InputErrors."""
    assert MIN_PIXELS == 65536
    with pytest.raises(InputError, match=message):
        embed_dwt(np.zeros((*shape, 3), np.uint8), bits, step)
