"""What the writer of public marks puts into pixels, against the package that it follows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.errors import InputError
from poolproof.watermark.dwt import MIN_PIXELS, Variant, block_votes, variants_of
from poolproof.watermark.dwt_encoder import embed_dwt

ALL = (*variants_of("dwtDct"), *variants_of("dwtDctSvd"))
BITS = [int(c) for c in "101100111110110010010000011110111011000110011110"]


def package_marked(pixels: np.ndarray, variant: Variant) -> np.ndarray:
    """The picture as the package marks it, floats rounded as its callers do."""
    from imwatermark.dwtDctSvd import EmbedDwtDctSvd
    from imwatermark.maxDct import EmbedMaxDct

    encoder = EmbedMaxDct if variant.algorithm == "dwtDct" else EmbedDwtDctSvd
    ordered = pixels[:, :, ::-1] if variant.channels == "BGR" else pixels
    marked = encoder(BITS, wmLen=len(BITS)).encode(np.ascontiguousarray(ordered).astype(variant.array))
    rounded = np.clip(np.rint(marked), 0, 255).astype(np.uint8)
    return rounded[:, :, ::-1] if variant.channels == "BGR" else rounded


@pytest.mark.reference
@pytest.mark.parametrize("variant", ALL, ids=str)
def test_marked_pixels_are_the_packages(variant: Variant, landscapes: list[np.ndarray]) -> None:
    """On bytes every pixel is the same; on floats the package's own rounding decides ties of a few blocks."""
    noise = np.random.default_rng(7).integers(0, 256, (261, 303, 3), dtype=np.uint8)
    white = np.full((256, 264, 3), 255, np.uint8)
    for pixels in (*landscapes[:4], noise, white):
        marked, expected = embed_dwt(pixels, BITS, variant), package_marked(pixels, variant)
        different = (marked != expected).any(axis=2)
        if variant.array == "uint8":
            assert not different.any()
        else:
            assert different.mean() < 0.005
        assert np.array_equal(embed_dwt(pixels[None], BITS, variant)[0], marked)


@pytest.mark.parametrize("variant", ALL, ids=str)
def test_marks_read_back_in_their_own_variant(variant: Variant, landscapes: list[np.ndarray]) -> None:
    """Most blocks of a natural picture carry their bit."""
    votes = block_votes(embed_dwt(landscapes[2], BITS, variant), variant)
    expected = 2 * np.resize(np.array(BITS), votes.size) - 1
    assert np.mean(votes == expected) > 0.7


@settings(deadline=None, max_examples=20)
@pytest.mark.property
@given(st.lists(st.integers(0, 1), min_size=1, max_size=80), st.integers(95, 160), st.integers(0, 2**32 - 1))
def test_bits_written_into_flat_pictures_read_back(bits: list[int], level: int, seed: int) -> None:
    """On a nearly flat grey ground the mark is clear: at least 19 of 20 votes are the bits written."""
    rng = np.random.default_rng(seed)
    pixels = (level + rng.integers(-1, 2, (256, 264, 1))).repeat(3, axis=2).astype(np.uint8)
    votes = block_votes(embed_dwt(pixels, bits))
    expected = 2 * np.resize(np.array(bits), votes.size) - 1
    assert np.mean(votes == expected) > 0.9


def test_writing_leaves_the_input_alone_and_changes_little(landscapes: list[np.ndarray]) -> None:
    """The input keeps its values, the change is faint, and luma and V move by rounding alone."""
    pixels = np.clip(landscapes[1][:, :, :1].repeat(3, axis=2), 70, 185)
    before = pixels.copy()
    marked = embed_dwt(pixels, [1, 0, 1])
    np.testing.assert_array_equal(pixels, before)
    error = np.mean((marked.astype(float) - pixels) ** 2)
    assert 10 * np.log10(255**2 / error) > 37
    planes = (cv2.cvtColor(np.ascontiguousarray(p[:, :, ::-1]), cv2.COLOR_BGR2YUV) for p in (pixels, marked))
    first, second = (plane.astype(int) for plane in planes)
    change = np.abs(second - first).max(axis=(0, 1))
    assert change[0] <= 1
    assert change[1] >= 5
    assert change[2] <= 2


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
        embed_dwt(np.zeros((*shape, 3), np.uint8), bits, step=step)
