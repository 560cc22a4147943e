"""Tests of matching: one size and codec for all, nothing enlarged, and a grid that can be seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from file_metadata import file_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from PIL import Image

from poolproof.detectors.matching import Target, blockiness, match_image, match_target
from poolproof.errors import InputError


def picture(rng: np.random.Generator, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return a smooth picture with some noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: UInt8[np.ndarray, "h w 3"], quality: int, subsampling: str = "4:2:0") -> np.ndarray:
    """Return the pixels after a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return np.array(Image.open(stream).convert("RGB"))


def test_target_is_the_smallest_side_and_the_lowest_quality() -> None:
    """Over all sets, after the lowest hundredth of each; lossless sets alone are not encoded."""
    rng = np.random.default_rng(1)
    real = file_metadata(rng, 300, sides=[700, 800], qualities=[85, 95])
    synthetic = file_metadata(rng, 300, formats=["PNG"], sides=[512, 1024])
    real["width"][0] = 40  # an icon must not decide
    real["quality"][0] = 5
    assert match_target(real, synthetic) == Target(512, 85, "lanczos")
    assert match_target(synthetic, resampling="crop") == Target(512, None, "crop")
    webp = file_metadata(rng, 30, formats=["WEBP"], sides=[512])
    assert match_target(webp, synthetic).quality == 75
    sides = np.array([40, 512]), np.array([600, 512])
    assert Target(512, 85).holds(*sides).tolist() == [False, True]


@pytest.mark.property
@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    quality=st.sampled_from([None, 30, 90]),
    way=st.sampled_from(["lanczos", "area", "crop"]),
)
def test_every_image_comes_to_the_same_size(height: int, width: int, quality: int | None, way: str) -> None:
    """Whatever its shape, an image becomes the target's square, the same each time."""
    pixels = picture(np.random.default_rng(2), height, width)
    target = Target(16, quality, way)  # pyright: ignore[reportArgumentType]
    found = match_image(pixels, target)
    assert found.shape == (16, 16, 3)
    np.testing.assert_array_equal(match_image(pixels, target), found)


@pytest.mark.reference
def test_steps_are_those_of_pillow() -> None:
    """The centre is cut, shrunk and encoded; at the target's size and without a codec nothing changes."""
    pixels = picture(np.random.default_rng(3), 100, 160)
    square = pixels[:, 30:130]
    np.testing.assert_array_equal(match_image(square, Target(100, None)), square)
    np.testing.assert_array_equal(
        match_image(pixels, Target(100, 60)), jpeg(np.ascontiguousarray(square), 60)
    )
    np.testing.assert_array_equal(match_image(pixels, Target(40, None, "crop")), pixels[30:70, 60:100])
    halves = square.reshape(50, 2, 50, 2, 3).mean(axis=(1, 3))
    assert np.abs(match_image(pixels, Target(50, None, "area")) - halves).max() <= 1


def test_codecs_are_alike_after_matching() -> None:
    """A JPEG and a lossless picture of one scene differ in their grid before and hardly after."""
    rng, before, after = np.random.default_rng(4), [], []
    target = Target(96, 80)
    for _ in range(6):
        scene = picture(rng, 160, 160)
        coded = jpeg(scene, 50)
        before.append(blockiness(coded) - blockiness(scene))
        after.append(blockiness(match_image(coded, target)) - blockiness(match_image(scene, target)))
    assert min(before) > 0.05
    assert np.abs(after).mean() < np.mean(before) / 3


@pytest.mark.theory
def test_blockiness_sees_the_grid_alone() -> None:
    """Tiles of 8 pixels have it, their shifted copies less than none, noise and flat images none."""
    rng = np.random.default_rng(5)
    tiles = np.kron(rng.integers(0, 256, (8, 8, 1)), np.ones((8, 8, 3))).astype(np.uint8)
    assert blockiness(tiles) > 3
    assert blockiness(np.roll(tiles, (3, 3), (0, 1))) < 0
    assert blockiness(np.full((32, 32, 3), 77, np.uint8)) == 0
    assert abs(blockiness(rng.integers(0, 256, (256, 256, 3), np.uint8))) < 0.02
    scene = picture(rng, 256, 256)
    levels = [blockiness(jpeg(scene, quality)) for quality in (95, 75, 40, 15)]
    assert levels == sorted(levels)


def test_bad_input_is_named() -> None:
    """Images that would have to be enlarged, broken targets, tiny sets and unknown ways are refused."""
    rng = np.random.default_rng(6)
    pixels = picture(rng, 30, 60)
    with pytest.raises(InputError, match=r"^pixels: got 60 x 30, allowed 32 or more"):
        match_image(pixels, Target(32, 75))
    for broken in (Target(0, 75), Target(16, 0), Target(16, 101)):
        with pytest.raises(InputError, match=r"^target: "):
            match_image(pixels, broken)
    with pytest.raises(InputError, match=r"^pixels: got 60 x 15"):
        blockiness(pixels[:15])
    with pytest.raises(InputError, match=r"^sets: got none"):
        match_target()
    with pytest.raises(InputError, match=r"^sets: got a shorter side of 9"):
        match_target(file_metadata(rng, 20, sides=[9]))
    with pytest.raises(InputError, match=r"^sets\[1\]: got columns"):
        match_target(file_metadata(rng, 20), {"format": ["PNG"]})
