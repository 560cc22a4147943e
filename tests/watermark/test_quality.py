"""Quality measures against their formulas, window by window."""

from __future__ import annotations

import math

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from poolproof.watermark.quality import psnr, ssim


def similarity_by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """Wang's formula in every window of 11 x 11 that lies inside the image, with its Gaussian weights."""
    reach = np.arange(-5, 6)
    weights = np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * 1.5**2))
    weights /= weights.sum()
    x, y = (image @ np.array([0.299, 0.587, 0.114]) for image in (first, second))
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (plane[top : top + 11, left : left + 11] for plane in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            cov = (weights * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * cov + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


@settings(deadline=None, max_examples=12)
@pytest.mark.reference
@given(st.integers(11, 24), st.integers(11, 24), st.integers(0, 120), st.integers(0, 2**32 - 1))
def test_similarity_is_wangs(height: int, width: int, change: int, seed: int) -> None:
    """The fast measure equals the formula with explicit windows, for small and large changes."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    second = np.clip(first + rng.integers(-change, change + 1, first.shape), 0, 255).astype(np.uint8)
    assert ssim(first, second) == pytest.approx(similarity_by_hand(first, second), abs=1e-9)


@settings(deadline=None, max_examples=20)
@pytest.mark.reference
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_noise_ratio_is_its_formula(height: int, width: int, channels: int, seed: int) -> None:
    """Ten times the logarithm of 255 squared over the mean squared difference, without overflow of bytes."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    second[0, 0, 0] = first[0, 0, 0] ^ 0x80
    total = sum((int(a) - int(b)) ** 2 for a, b in zip(first.flat, second.flat, strict=True))
    assert psnr(first, second) == pytest.approx(10 * math.log10(255**2 * first.size / total))


@pytest.mark.theory
def test_known_values() -> None:
    """Equal images are alike without end; black against white is 0 dB; one level everywhere is 48.13 dB."""
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, white) == 0.0
    assert psnr(black, black + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)
    assert ssim(black, black) == ssim(white, white) == pytest.approx(1.0)
    assert ssim(black, white) == pytest.approx(6.5025 / (255**2 + 6.5025), rel=1e-6)


@pytest.mark.property
def test_measures_are_symmetric(landscapes: list[np.ndarray]) -> None:
    """Which image comes first does not matter, and inverted detail is unlike."""
    first, second = landscapes[0], landscapes[4]
    assert psnr(first, second) == psnr(second, first)
    assert ssim(first, second) == pytest.approx(ssim(second, first))
    assert -1 <= ssim(first, 255 - first) < 0.2


def test_images_that_do_not_compare_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other shapes, where no shape checker runs too, and images smaller than a window."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    image = np.zeros((12, 12, 3), np.uint8)
    for measure in (psnr, ssim):
        assert_refused(lambda measure=measure: measure(image, image[:11]), "images")
    small = np.zeros((10, 40, 3), np.uint8)
    assert_refused(lambda: ssim(small, small), "image")
