"""Pictures of samples: every pixel in its place, and nothing where there is no sample."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from poolproof.errors import InputError
from poolproof.simulate.strips import CLOUD, TILE, fit_window, point_cloud, sample_grid, strip_uri


def pixels(picture: bytes) -> np.ndarray:
    """What a PNG holds."""
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
        return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "factor"), [(8, 8, 7), (28, 20, 2), (64, 64, 1)])
def test_grid_shows_every_image(channels: int, height: int, width: int, factor: int) -> None:
    """Each image stands in its cell, every pixel enlarged to a square; gaps and what a row lacks are transparent."""
    images = np.random.default_rng(0).integers(0, 256, (5, height, width, channels), np.uint8)
    assert factor == max(1, TILE // max(height, width))
    sheet = pixels(sample_grid(images, 3))
    high, wide = factor * height, factor * width
    assert sheet.shape == (2 * high + 1, 3 * wide + 2, channels + 1)
    for position, image in enumerate(images):
        top, left = (position // 3) * (high + 1), (position % 3) * (wide + 1)
        tile = sheet[top : top + high, left : left + wide]
        np.testing.assert_array_equal(tile[::factor, ::factor, :-1], image)
        np.testing.assert_array_equal(tile[factor - 1 :: factor, factor - 1 :: factor, :-1], image)
        assert (tile[..., -1] == 255).all()
    assert not sheet[high, :, -1].any()
    assert not sheet[:, wide, -1].any()
    assert not sheet[high + 1 :, 2 * wide + 2 :, -1].any()


def test_grid_of_few_images_is_no_wider_than_they_are() -> None:
    """Columns beyond the images are left out."""
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert pixels(sample_grid(images, 12)).shape == (56, 113, 2)


def test_same_samples_give_the_same_bytes() -> None:
    """A picture depends on its samples alone."""
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert strip_uri(images) == strip_uri(images.copy())


@pytest.mark.parametrize(
    ("shape", "columns", "words"),
    [
        ((0, 8, 8, 1), 3, "images: got shape"),
        ((2, 8, 8, 2), 3, "1 or 3"),
        ((2, 8, 8, 1), 0, "columns: got 0"),
    ],
)
def test_grids_that_cannot_be_are_refused(shape: tuple[int, ...], columns: int, words: str) -> None:
    """No images, other channels and no columns are named."""
    with pytest.raises(InputError, match=words):
        sample_grid(np.zeros(shape, np.uint8), columns)


def test_cloud_puts_points_where_they_are() -> None:
    """A point right and above stands right and above; a crowd is more opaque, the rest is transparent."""
    points = np.array([[0.9, 0.9]] * 50 + [[-0.9, -0.9]] + [[5.0, 0.0]] + [[np.nan, 0.0]])
    sheet = pixels(point_cloud(points, (-1, 1, -1, 1)))
    assert sheet.shape == (CLOUD, CLOUD, 4)
    opacity = sheet[..., 3]
    assert opacity[:16, -16:].max() == 255
    assert 0 < opacity[-16:, :16].max() < 255
    assert np.count_nonzero(opacity) == 2 * 4
    with pytest.raises(InputError, match="window: got"):
        point_cloud(points, (1, 1, -1, 1))


def test_cloud_without_points_is_empty() -> None:
    """Points that are all outside give a transparent picture."""
    assert not pixels(point_cloud(np.full((3, 2), 9.0), (-1, 1, -1, 1)))[..., 3].any()


def test_window_holds_all_clouds_but_strays() -> None:
    """The window is a square around all clouds that a single stray point does not stretch."""
    rng = np.random.default_rng(2)
    clouds = [rng.uniform(-1, 1, (4000, 2)), rng.uniform(2, 3, (4000, 2))]
    left, right, low, high = fit_window([*clouds, np.array([[1e6, np.inf], [0.0, 1e6]])])
    assert -1.4 < left < -1
    assert 3 < right < 3.4
    assert right - left == pytest.approx(high - low)
    left, right, low, high = fit_window([np.ones((3, 2))])
    assert (left, right, low, high) == (0.0, 2.0, 0.0, 2.0)
    with pytest.raises(InputError, match="no finite point"):
        fit_window([np.full((3, 2), np.nan)])


def test_strip_is_one_row_or_a_cloud() -> None:
    """Images give a row of the asked length, points a cloud; other samples are refused."""

    def read(uri: str) -> np.ndarray:
        head, body = uri.split(",", 1)
        assert head == "data:image/png;base64"
        return pixels(base64.b64decode(body))

    images = np.zeros((30, 8, 8, 1), np.uint8)
    assert read(strip_uri(images)).shape == (56, 12 * 57 - 1, 2)
    assert read(strip_uri(images, columns=4)).shape == (56, 4 * 57 - 1, 2)
    assert read(strip_uri(np.zeros((9, 2), np.float32))).shape == (CLOUD, CLOUD, 4)
    for samples in (images.astype(np.float32), np.zeros((9, 3)), np.zeros((9, 2), np.uint8), images[0]):
        with pytest.raises(InputError, match="samples: got"):
            strip_uri(samples)
    with pytest.raises(InputError, match="columns: got 0"):
        strip_uri(images, columns=0)
