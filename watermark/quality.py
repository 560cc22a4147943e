"""How much a mark changes an image: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Num, UInt8

from poolproof.errors import InputError

_SIGMA: Final = 1.5
_TRUNCATE: Final = 3.5
_LUMA: Final = np.array([0.299, 0.587, 0.114])


def psnr(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Peak signal-to-noise ratio in decibels over all channels; infinite for equal images.

    Args:
        first: one image.
        second: another of the same shape.

    Raises:
        InputError: the shapes differ.
    """
    _check_shapes(first, second)
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> float:
    """Structural similarity of the luma of two images, in [-1, 1]; 1 for equal images.

    Args:
        first: one image, from 11 pixels a side.
        second: another of the same shape.

    Raises:
        InputError: the shapes differ, or are too small.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, with
        its Gaussian window of 11 pixels.
    """
    from scipy.ndimage import gaussian_filter

    _check_shapes(first, second)
    reach = round(_TRUNCATE * _SIGMA)
    if min(first.shape[:2]) < 2 * reach + 1:
        raise InputError(
            f"image: got {first.shape[0]}x{first.shape[1]}, allowed from {2 * reach + 1} a side for this measure; "
            "take a larger one"
        )

    def smooth(plane: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "a b"]:
        return gaussian_filter(plane, _SIGMA, truncate=_TRUNCATE)[reach:-reach, reach:-reach]

    x, y = first @ _LUMA, second @ _LUMA
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def _check_shapes(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise InputError(
            f"images: got shapes {first.shape} and {second.shape}, allowed equal ones; resize one"
        )
