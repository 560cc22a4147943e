"""A feature vector of one image that needs no weights: residuals, spectrum, colour, and a coarse view of the content.

All pixel statistics come from a crop at native resolution. Resizing would replace the fine residual, in which generators
and cameras differ, by the residual of the resampling filter. Only the thumbnail looks at the whole image.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, UInt8

from poolproof.errors import InputError

FORENSIC_NAME = "forensic/1"
"""Name and version of the features. Any change of a value changes the version."""

CROP = 256
"""Largest side of the crop, in pixels."""

GRID = 32
"""Sides of the crop are multiples of this: five halvings stay whole, and the transform lengths stay short."""

MIN_SIDE = 8
"""Smallest side of an image, in pixels: one pixel per cell of the thumbnail."""

LEVELS = 5
SPECTRUM_BINS = 16
HISTOGRAM_BINS = 32
THUMBNAIL = 8

FORENSIC_BLOCKS: tuple[tuple[str, int], ...] = (
    ("luma_bands", LEVELS * 9),  # per level and band: log mean magnitude, log root mean square, log kurtosis
    ("chroma_bands", LEVELS),  # log root mean square of both chroma residuals
    ("cooccurrence", 50),  # 5 x 5 horizontal, 5 x 5 vertical, square roots of frequencies
    ("spectrum", SPECTRUM_BINS),  # log power of the residual by spatial frequency
    ("colour", 13),  # spread, chroma means, correlations, clipped shares
    ("histogram", HISTOGRAM_BINS),  # luma, square roots of frequencies
    ("thumbnail", THUMBNAIL**2),  # luma area means of the whole image, row by row
    ("thumbnail_sorted", THUMBNAIL**2 // 4),  # the same values in ascending order, averaged by fours
    ("thumbnail_cosines", 15),  # magnitudes of the lowest 4 x 4 cosine coefficients without the mean
)
"""Names and lengths of the parts, in the order of the vector."""

FORENSIC_DIM = sum(length for _, length in FORENSIC_BLOCKS)
"""Length of the feature vector."""

# Added to every magnitude before its logarithm. A hundredth of a grey level lies below what 8-bit pixels can hold,
# so it only keeps flat regions finite.
FLOOR = 0.01


def forensic_features(pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "d"]:
    """Forensic features of one image, `FORENSIC_DIM` finite numbers in the order of `FORENSIC_BLOCKS`.

    The parts have different scales: standardise each number with the mean and spread over a reference pool before
    distances or penalised fits.

    Args:
        pixels: RGB, at least 8 pixels a side. The crop is the centre, at most 256 pixels a side and a multiple of 32,
            its corner on the 8-pixel grid of JPEG and of latent decoders. Images under 32 pixels are extended by their
            edge pixels. The thumbnail skips rows and columns of images above 2048 pixels a side.

    Raises:
        InputError: a side is shorter than 8 pixels.

    Source: co-occurrence of truncated differences after Pevny, Bas and Fridrich, "Steganalysis by subtractive pixel
        adjacency matrix", 2010; moments of wavelet bands after Farid and Lyu, "Higher-order wavelet statistics and
        their application to digital forensics", 2003; azimuthal spectrum after Durall, Keuper and Keuper, "Watch your
        up-convolution", 2020.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"pixels: got {height}x{width}, allowed sides from {MIN_SIDE} pixels; leave this image out"
        )
    crop = _centre_crop(pixels)
    luma, planes = _luma_and_chroma(crop)
    bands = _haar_bands(planes)
    thumbnail = _thumbnail(pixels)
    parts = (
        *_band_statistics(bands),
        _cooccurrence(luma),
        _spectrum(planes[0]),
        _colour(planes, bands[0][2], crop),
        np.sqrt(np.bincount((luma >> 3).ravel(), minlength=HISTOGRAM_BINS) / luma.size),
        thumbnail.ravel(),
        np.sort(thumbnail.ravel()).reshape(-1, 4).mean(axis=1),
        _low_cosines(thumbnail),
    )
    return np.concatenate(parts).astype(np.float32)


def _centre_crop(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
    rows, columns = (_centre(side) for side in pixels.shape[:2])
    crop = pixels[rows, columns]
    missing = [(0, max(0, GRID - side)) for side in crop.shape[:2]]
    return np.pad(crop, [*missing, (0, 0)], mode="edge") if any(m for _, m in missing) else crop


def _centre(side: int) -> slice:
    if side < GRID:
        return slice(0, side)
    length = min(CROP, side // GRID * GRID)
    start = (side - length) // 2 // 8 * 8
    return slice(start, start + length)


def _luma_and_chroma(
    crop: UInt8[np.ndarray, "a b 3"],
) -> tuple[Int[np.ndarray, "a b"], Float32[np.ndarray, "3 a b"]]:
    """Luma as integers, and luma, blue minus luma, red minus luma as float32 planes of whole numbers.

    Whole numbers keep sums and Haar bands exact, so results do not depend on the order of summation or on threads.
    """
    red, green, blue = (crop[:, :, channel].astype(np.int32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    planes = np.empty((3, *luma.shape), np.float32)
    planes[0] = luma
    planes[1] = blue - luma
    planes[2] = red - luma
    return luma, planes


Bands = tuple[Float32[np.ndarray, "3 a b"], Float32[np.ndarray, "3 a b"], Float32[np.ndarray, "3 a b"]]


def _haar_bands(planes: Float32[np.ndarray, "3 a b"]) -> list[Bands]:
    """Orthonormal Haar detail bands (across, down, diagonal) per level, finest first."""
    levels = []
    low = planes
    for _ in range(LEVELS):
        halves = low * np.float32(0.5)
        top, bottom = halves[:, 0::2], halves[:, 1::2]
        total, change = top + bottom, top - bottom
        left, right = total[:, :, 0::2], total[:, :, 1::2]
        change_left, change_right = change[:, :, 0::2], change[:, :, 1::2]
        low = left + right
        levels.append((left - right, change_left + change_right, change_left - change_right))
    return levels


def _band_statistics(
    levels: list[Bands],
) -> tuple[Float64[np.ndarray, "luma"], Float64[np.ndarray, "chroma"]]:
    luma, chroma = [], []
    for level, bands in enumerate(levels):
        # An orthonormal level doubles smooth content. Dividing brings all levels to grey levels.
        scale = 0.5 ** (level + 1)
        chroma_power = 0.0
        for band in bands:
            square = np.square(band)
            power = square.mean(axis=(1, 2), dtype=np.float64) * scale**2
            fourth = float(np.square(square[0]).mean(dtype=np.float64)) * scale**4
            magnitude = float(np.abs(band[0]).mean(dtype=np.float64)) * scale
            luma += [
                np.log(magnitude + FLOOR),
                np.log(np.sqrt(power[0]) + FLOOR),
                np.log((fourth + FLOOR**4) / (power[0] + FLOOR**2) ** 2),
            ]
            chroma_power += float(power[1] + power[2])
        chroma.append(np.log(np.sqrt(chroma_power / 6) + FLOOR))
    return np.array(luma), np.array(chroma)


def _cooccurrence(luma: Int[np.ndarray, "a b"]) -> Float64[np.ndarray, "50"]:
    """Square roots of the frequencies of neighbouring truncated differences, across and then down."""
    plane = luma.astype(np.int16)
    halves = []
    for axis in (1, 0):
        # Steps of two grey levels: sensor noise then fills all five classes instead of the outer two.
        step = np.clip((np.diff(plane, axis=axis) + 1) >> 1, -2, 2) + 2
        first, second = (step[:, :-1], step[:, 1:]) if axis == 1 else (step[:-1], step[1:])
        pairs = (first * 5 + second).ravel()
        halves.append(np.bincount(pairs, minlength=25) / pairs.size)
    return np.sqrt(np.concatenate(halves))


def _spectrum(luma: Float32[np.ndarray, "a b"]) -> Float64[np.ndarray, "bins"]:
    """Log mean power of the Laplacian residual in rings of spatial frequency, from 0 to the Nyquist frequency."""
    padded = np.pad(luma, 1, mode="edge")
    residual = 4 * luma - padded[:-2, 1:-1] - padded[2:, 1:-1] - padded[1:-1, :-2] - padded[1:-1, 2:]
    coefficients = np.fft.rfft2(residual)
    power = np.square(coefficients.real) + np.square(coefficients.imag)
    rings, counts = _rings(*luma.shape)
    mean = np.bincount(rings, weights=power.ravel(), minlength=SPECTRUM_BINS) / (counts * luma.size)
    return np.log(mean + FLOOR)


@cache
def _rings(height: int, width: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "bins"]]:
    """Ring number of every coefficient of a real transform, and coefficients per ring. Corners join the last ring."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    rings = np.minimum((radius * 2 * SPECTRUM_BINS).astype(np.int64), SPECTRUM_BINS - 1).ravel()
    return rings, np.bincount(rings, minlength=SPECTRUM_BINS)


def _colour(
    planes: Float32[np.ndarray, "3 a b"],
    diagonal: Float32[np.ndarray, "3 c d"],
    crop: UInt8[np.ndarray, "a b 3"],
) -> Float64[np.ndarray, "13"]:
    flat = planes.reshape(3, -1).astype(np.float64)
    mean = flat.mean(axis=1)
    covariance = flat @ flat.T / flat.shape[1] - np.outer(mean, mean)
    spread = np.sqrt(np.diag(covariance).clip(0))
    fine = diagonal.reshape(3, -1).astype(np.float64)
    fine[1:] += fine[0]  # back from differences to luma, blue, red
    fine_covariance = fine @ fine.T / fine.shape[1]
    clipped = [np.count_nonzero(crop == value) / crop.size for value in (0, 255)]
    return np.array(
        [
            spread[0] / 64,
            *(mean[1:] / 128),
            *(spread[1:] / 64),
            *_correlations(covariance),
            *_correlations(fine_covariance),
            *clipped,
        ]
    )


def _correlations(covariance: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3"]:
    """The three correlations, shrunk towards 0 where a plane hardly varies."""
    variance = np.diag(covariance).clip(0) + FLOOR
    rows, columns = np.triu_indices(3, k=1)
    return covariance[rows, columns] / np.sqrt(variance[rows] * variance[columns])


def _thumbnail(pixels: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "8 8"]:
    """Luma area means of the whole image on an 8 x 8 grid, in [0, 1]."""
    height, width = pixels.shape[:2]
    # Every stride keeps more than 1024 samples a side: enough for a mean, and the time stays bounded.
    view = pixels[:: max(1, height // 1024), :: max(1, width // 1024)]
    edges = [np.arange(THUMBNAIL + 1) * side // THUMBNAIL for side in view.shape[:2]]
    rows = np.stack([view[a:b].sum(axis=0, dtype=np.uint32) for a, b in zip(edges[0], edges[0][1:], strict=False)])
    sums = np.add.reduceat(rows, edges[1][:-1], axis=1).astype(np.float64)
    areas = np.diff(edges[0])[:, None] * np.diff(edges[1])[None, :]
    luma = 0.299 * sums[:, :, 0] + 0.587 * sums[:, :, 1] + 0.114 * sums[:, :, 2]
    return luma / (255 * areas)


def _low_cosines(thumbnail: Float64[np.ndarray, "8 8"]) -> Float64[np.ndarray, "15"]:
    """Magnitudes of the lowest orthonormal cosine coefficients, without the mean; they ignore flips of the image."""
    basis = _cosine_rows()
    return np.abs(basis @ thumbnail @ basis.T).ravel()[1:]


@cache
def _cosine_rows() -> Float64[np.ndarray, "4 8"]:
    order, place = np.arange(4)[:, None], np.arange(THUMBNAIL)[None, :]
    rows = np.cos(np.pi * order * (2 * place + 1) / (2 * THUMBNAIL)) * np.sqrt(2 / THUMBNAIL)
    rows[0] /= np.sqrt(2)
    return rows
