"""Pictures of a generation's samples for a page: images in a grid, points as a cloud."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from poolproof.errors import InputError

TILE: Final = 56
"""Pixels to which the longer side of a small image is enlarged, by whole factors."""

CLOUD: Final = 160
"""Side in pixels of a picture of points."""

_INK: Final = (111, 128, 158)
"""Colour of points: the page's pool colour between light and dark, seen on both grounds."""

Window = tuple[float | int, float | int, float | int, float | int]
"""Left, right, lower and upper end of what a picture of points shows."""


def sample_grid(images: UInt8[np.ndarray, "n h w c"], columns: int) -> bytes:
    """Images side by side as a PNG, enlarged so that each pixel is a square, with gaps of one pixel.

    The gaps and what a last row lacks are transparent, so that the picture fits light and dark pages.

    Args:
        images: 1 (grey) or 3 (colour) channels.
        columns: images in a row, at least 1.

    Raises:
        InputError: no images, other channels, or no columns.
    """
    if not len(images) or 0 in images.shape or images.shape[3] not in (1, 3):
        raise InputError(
            f"images: got shape {images.shape}, allowed (n, h, w, 1 or 3) without a 0; give images of bytes"
        )
    if columns < 1:
        raise InputError(f"columns: got {columns}, allowed 1 or more; give more")
    n, height, width, channels = images.shape
    columns, factor = min(columns, n), max(1, TILE // max(height, width))
    opaque = np.concatenate([images, np.full((n, height, width, 1), 255, np.uint8)], axis=3)
    large = opaque.repeat(factor, axis=1).repeat(factor, axis=2)
    high, wide = factor * height + 1, factor * width + 1
    rows = -(-n // columns)
    sheet = np.zeros((rows * high, columns * wide, channels + 1), np.uint8)
    for position, tile in enumerate(large):
        row, column = divmod(position, columns)
        sheet[row * high : (row + 1) * high - 1, column * wide : (column + 1) * wide - 1] = tile
    return _png(sheet[:-1, :-1])


def point_cloud(points: Float[np.ndarray, "n 2"], window: Window) -> bytes:
    """Points in the plane as a PNG: a histogram whose opacity is their density, on a transparent ground.

    Args:
        points: those that are not finite, or outside the window, are not drawn.
        window: ends of both directions; the same for pictures that are compared.

    Raises:
        InputError: a window without area.
    """
    left, right, low, high = window
    if not (np.isfinite(window).all() and left < right and low < high):
        raise InputError(f"window: got {window}, allowed left < right and lower < upper; give finite ends")
    finite = points[np.isfinite(points).all(axis=1)].astype(np.float64)
    cells = CLOUD // 2
    counts, _, _ = np.histogram2d(finite[:, 1], finite[:, 0], bins=cells, range=((low, high), (left, right)))
    # the root lets single points be seen beside a crowd
    shade = np.sqrt(counts / max(float(counts.max(initial=0.0)), 1.0))
    opacity = np.where(counts > 0, 110 + 145 * shade, 0).astype(np.uint8)[::-1]
    sheet = np.empty((cells, cells, 4), np.uint8)
    sheet[..., :3], sheet[..., 3] = _INK, opacity
    return _png(sheet.repeat(2, axis=0).repeat(2, axis=1))


def fit_window(clouds: Sequence[Float[np.ndarray, "_ 2"]]) -> Window:
    """The window that holds the middle of all clouds, with room around; one stray point does not stretch it.

    Args:
        clouds: at least one point in all.

    Raises:
        InputError: no finite point.
    """
    points = np.concatenate([cloud[np.isfinite(cloud).all(axis=1)] for cloud in clouds] or [np.empty((0, 2))])
    if not len(points):
        raise InputError("clouds: got no finite point, allowed at least one; leave the pictures out")
    ends = np.quantile(points.astype(np.float64), [0.001, 0.999], axis=0)
    middle, half = ends.mean(axis=0), 0.55 * float(np.ptp(ends, axis=0).max()) or 1.0
    left, low = (middle - half).tolist()
    right, high = (middle + half).tolist()
    return left, right, low, high


def strip_uri(samples: np.ndarray, *, columns: int = 12, window: Window | None = None) -> str:
    """The picture of samples as a `data:` address for a page: one row of images, or the cloud of points.

    Args:
        samples: images as bytes, (n, h, w, 1 or 3), of which the first `columns` are shown; or points, (n, 2) floats.
        columns: images in the row, at least 1.
        window: of points; by default it fits them.

    Raises:
        InputError: samples of another shape or type, or none.
    """
    if samples.ndim == 4 and samples.dtype == np.uint8:
        picture = sample_grid(samples[: max(columns, 1)], columns)
    elif samples.ndim == 2 and samples.shape[1] == 2 and samples.dtype.kind == "f":
        picture = point_cloud(samples, fit_window([samples]) if window is None else window)
    else:
        raise InputError(
            f"samples: got {samples.dtype} of shape {samples.shape}, allowed bytes (n, h, w, 1 or 3) or floats "
            "(n, 2); give one of these"
        )
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def _png(sheet: UInt8[np.ndarray, "h w c"]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
