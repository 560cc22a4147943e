"""Attacks against Pillow and NumPy by hand, and the texts that name them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from refusals import assert_refused

from poolproof.errors import InputError
from poolproof.watermark.attacks import STANDARD, Attack, parse_attack
from poolproof.watermark.quality import psnr


def apply(name: str, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The image after a named attack."""
    return parse_attack(name).apply(pixels, np.random.default_rng(seed))


def saved(pixels: np.ndarray, kind: str, **options: int) -> np.ndarray:
    """The image after a way through a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.reference
@pytest.mark.parametrize(("name", "number"), [("444", 0), ("422", 1), ("420", 2)])
def test_jpeg_is_pillows_at_its_quality_and_subsampling(
    name: str, number: int, landscapes: list[np.ndarray]
) -> None:
    """The same pixels as a file with these settings, and the settings matter."""
    pixels = landscapes[0]
    for quality in (1, 50, 95, 100):
        expected = saved(pixels, "JPEG", quality=quality, subsampling=number)
        np.testing.assert_array_equal(apply(f"jpeg:{quality}:{name}", pixels), expected)
    assert psnr(pixels, apply(f"jpeg:95:{name}", pixels)) > psnr(pixels, apply(f"jpeg:50:{name}", pixels))


@pytest.mark.reference
def test_other_attacks_are_pillows_and_numpys(landscapes: list[np.ndarray]) -> None:
    """WebP, resizing, blur, turns, crops, flips, noise and brightness, each by hand."""
    pixels = landscapes[3]  # 301 x 347
    image = Image.fromarray(pixels)
    half = image.resize((174, 150), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(5).normal(scale=7.5, size=pixels.shape)
    expected = {
        "none": pixels,
        "webp:50": saved(pixels, "WEBP", quality=50),
        "resize:0.5": np.asarray(half),
        "resize-back:0.5": np.asarray(half.resize(image.size, Image.Resampling.BICUBIC)),
        "blur:1.5": np.asarray(image.filter(ImageFilter.GaussianBlur(1.5))),
        "rotate:2": np.asarray(image.rotate(2, Image.Resampling.BICUBIC)),
        "rotate:90": np.rot90(pixels),
        "rotate:-90": np.rot90(pixels, 3),
        "rotate:360": pixels,
        "crop:0.1": pixels[15:286, 17:330],
        "crop:0": pixels,
        "flip": pixels[:, ::-1],
        "noise:7.5": np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8),
        "brightness:1.2": np.minimum(np.rint(pixels * 1.2), 255).astype(np.uint8),
        "brightness:0": np.zeros_like(pixels),
        "noise:0": pixels,
        "blur:0": pixels,
    }
    for name, wanted in expected.items():
        np.testing.assert_array_equal(apply(name, pixels, seed=5), wanted, err_msg=name)


@pytest.mark.property
@pytest.mark.parametrize("name", [*STANDARD, "crop:0.95", "resize:0.05", "resize:4", "rotate:45", "blur:50"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (48, 31)], ids=str)
def test_every_attack_takes_every_shape(name: str, shape: tuple[int, int]) -> None:
    """Bytes in three channels come out, at least one pixel; the input stays; the same seed gives the same."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = pixels.copy()
    pixels.setflags(write=False)
    out = apply(name, pixels)
    assert out.dtype == np.uint8
    assert out.shape[2] == 3
    assert min(out.shape) > 0
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(apply(name, pixels), out)


def test_noise_depends_on_the_seed_alone(landscapes: list[np.ndarray]) -> None:
    """Other seeds give other noise of the named size."""
    grey = np.full((200, 200, 3), 128, np.uint8)
    one, other = apply("noise:5", grey, 1), apply("noise:5", grey, 2)
    assert not np.array_equal(one, other)
    assert np.std(one.astype(float)) == pytest.approx(np.hypot(5, 12**-0.5), rel=0.02)


def test_regeneration_is_what_it_is_given() -> None:
    """The attack takes the model's function as it is, and is refused without one."""

    def invert(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 255 - pixels

    assert parse_attack("regenerate", regenerate=invert) == Attack("regenerate", invert)
    assert_refused(lambda: parse_attack("regenerate"), "attack regenerate")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "jpeg",
        "jpeg:75",
        "jpeg:75:411",
        "jpeg:0:420",
        "jpeg:101:420",
        "jpeg:x:420",
        "jpeg:75:420:1",
        "webp:-1",
        "webp:101",
        "webp",
        "resize:0",
        "resize:5",
        "resize:nan",
        "resize:inf",
        "resize:1:2",
        "crop:1",
        "crop:-0.1",
        "rotate:361",
        "rotate",
        "noise:-1",
        "noise:256",
        "blur:-1",
        "blur:51",
        "blur:",
        "brightness:-1",
        "brightness:11",
        "none:1",
        "flip:2",
        "JPEG:75:420",
        "noise:5,",
        "regenerate:0.5",
        "a\nb",
        "noise:\n",
        "noise:\nx",
        "jpeg:\n:420",
        "x" * 10_000,
    ],
)
def test_what_names_no_attack_is_refused(text: str) -> None:
    """Unknown names, missing, superfluous and impossible parameters are refused in one line."""
    assert_refused(lambda: parse_attack(text), "attack")


@given(st.text(max_size=30))
def test_any_text_is_an_attack_or_refused(text: str) -> None:
    """No text makes anything else of itself."""
    try:
        attack = parse_attack(text)
    except InputError:
        assert_refused(lambda: parse_attack(text), "attack")
    else:
        assert attack.name == text
