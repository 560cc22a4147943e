"""Features of one image without weights: residuals, spectrum, colour and a coarse view of the content.

All pixel statistics come from a crop at native resolution. Resizing would replace the fine residual, in which
generators and cameras differ, by the residual of the resampling filter. Only the thumbnail sees all pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, Float64, Int, UInt8

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

# Added to every magnitude before its logarithm. A hundredth of a grey level lies below what 8-bit pixels can
# hold, so it only keeps flat regions finite.
FLOOR = 0.01


def forensic_features(pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, " d"]:
    """Forensic features of one image, `FORENSIC_DIM` finite numbers in the order of `FORENSIC_BLOCKS`.

    The parts have different scales: standardise each number with the mean and spread over a reference pool
    before distances or penalised fits.

    Args:
        pixels: RGB, at least 8 pixels a side. The crop is the centre, at most 256 pixels a side, a multiple
            of 32, its corner on the 8-pixel grid of JPEG and of latent decoders. Images under 32 pixels are
            extended by their edge pixels. The thumbnail skips rows and columns from 2048 pixels a side.

    Raises:
        InputError: a side is shorter than 8 pixels.

    Source: co-occurrence of truncated differences after Pevny, Bas and Fridrich, "Steganalysis by subtractive
        pixel adjacency matrix", 2010; moments of wavelet bands after Farid and Lyu, "Higher-order wavelet
        statistics and their application to digital forensics", 2003; azimuthal spectrum after Durall, Keuper
        and Keuper, "Watch your up-convolution", 2020.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"pixels: got {height}x{width}, allowed sides from {MIN_SIDE} pixels; leave this image out"
        )
    crop = _centre_crop(pixels)
    luma, planes = _luma_and_chroma(crop)
    levels = _haar_levels(planes)
    thumbnail = _thumbnail(pixels)
    parts = (
        _luma_bands([level[1:, 0] for level in levels]),
        _chroma_bands(planes[1:], [level[0, 1:] for level in levels]),
        _cooccurrence(luma),
        _spectrum(planes[0]),
        _colour(levels[0], [np.count_nonzero(crop == value) / crop.size for value in (0, 255)]),
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

    Whole numbers keep sums and Haar bands exact, so results do not depend on the order of summation.
    """
    red, green, blue = (crop[:, :, channel].astype(np.int32) for channel in range(3))
    luma = 38470 * green
    luma += 19595 * red
    luma += 7471 * blue
    luma += 32768
    luma >>= 16
    planes = np.empty((3, *luma.shape), np.float32)
    planes[0] = luma
    np.subtract(blue, luma, out=planes[1], casting="unsafe")
    np.subtract(red, luma, out=planes[2], casting="unsafe")
    return luma, planes


def _haar_levels(planes: Float32[np.ndarray, "3 a b"]) -> list[Float32[np.ndarray, "4 3 _ _"]]:
    """Orthonormal Haar bands (low, across, down, diagonal) of the planes per level, finest first."""
    levels = []
    low = planes
    for _ in range(LEVELS):
        top, bottom = low[:, 0::2], low[:, 1::2]
        total, change = top + bottom, top - bottom
        left, right = total[:, :, 0::2], total[:, :, 1::2]
        change_left, change_right = change[:, :, 0::2], change[:, :, 1::2]
        bands = np.empty((4, *left.shape), np.float32)
        np.add(left, right, out=bands[0])
        np.subtract(left, right, out=bands[1])
        np.add(change_left, change_right, out=bands[2])
        np.subtract(change_left, change_right, out=bands[3])
        bands *= np.float32(0.5)
        levels.append(bands)
        low = bands[0]
    return levels


def _luma_bands(levels: list[Float32[np.ndarray, "3 _ _"]]) -> Float64[np.ndarray, " luma"]:
    """Log mean magnitude, log root mean square and log kurtosis of every detail band."""
    values = []
    for level, bands in enumerate(levels, start=1):
        # An orthonormal level doubles smooth content. Dividing brings all levels to grey levels.
        flat = bands.reshape(3, -1).astype(np.float64) * 0.5**level
        square = np.square(flat)
        power = square.mean(axis=1)
        fourth = np.square(square).mean(axis=1)
        statistics = (
            np.log(np.abs(flat).mean(axis=1) + FLOOR),
            np.log(np.sqrt(power) + FLOOR),
            np.log((fourth + FLOOR**4) / np.square(power + FLOOR**2)),
        )
        values.append(np.stack(statistics, axis=1).ravel())
    return np.concatenate(values)


def _chroma_bands(
    chroma: Float32[np.ndarray, "2 a b"], lows: list[Float32[np.ndarray, "2 _ _"]]
) -> Float64[np.ndarray, " levels"]:
    """Log root mean square of the detail of both chroma planes per level."""
    # The transform is orthonormal: a level's detail is the energy its low band lost. The sums are exact.
    energies = np.array([np.square(plane, dtype=np.float64).sum() for plane in (chroma, *lows)])
    # 6 detail bands, each with a fourth of the samples of a plane at the level above, in grey levels.
    samples = np.array([1.5 * plane.size for plane in (chroma, *lows[:-1])])
    power = (energies[:-1] - energies[1:]) / samples * 0.25 ** np.arange(1, LEVELS + 1) * 2
    return np.log(np.sqrt(power) + FLOOR)


def _cooccurrence(luma: Int[np.ndarray, "a b"]) -> Float64[np.ndarray, " 50"]:
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


def _spectrum(luma: Float32[np.ndarray, "a b"]) -> Float64[np.ndarray, " bins"]:
    """Log mean power of the Laplacian residual in rings of frequency, from 0 to the Nyquist frequency."""
    from scipy.fft import rfft2

    padded = np.pad(luma, 1, mode="edge")
    residual = 4 * luma - padded[:-2, 1:-1] - padded[2:, 1:-1] - padded[1:-1, :-2] - padded[1:-1, 2:]
    coefficients = np.asarray(rfft2(residual), dtype=np.complex64)
    power = np.square(coefficients.real) + np.square(coefficients.imag)
    rings, counts = _rings(*luma.shape)
    mean = np.bincount(rings, weights=power.ravel(), minlength=SPECTRUM_BINS) / (counts * luma.size)
    return np.log(mean + FLOOR)


@cache
def _rings(height: int, width: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " bins"]]:
    """Ring of every coefficient of a real transform, and counts per ring; corners join the last ring."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    rings = np.minimum((radius * 2 * SPECTRUM_BINS).astype(np.int64), SPECTRUM_BINS - 1).ravel()
    return rings, np.bincount(rings, minlength=SPECTRUM_BINS)


def _colour(finest: Float32[np.ndarray, "4 3 a b"], clipped: list[float]) -> Float64[np.ndarray, " 13"]:
    """Statistics of luma, chroma and their correlations over 2 x 2 means, then of the diagonal residual."""
    flat = finest[[0, 3]].reshape(2, 3, -1).astype(np.float64) * 0.5
    coarse, fine = flat
    mean = coarse.mean(axis=1)
    covariance = _products(coarse) - np.outer(mean, mean)
    spread = np.sqrt(np.diag(covariance).clip(0))
    fine[1:] += fine[0]  # back from differences to luma, blue, red
    return np.array(
        [
            spread[0] / 64,
            *(mean[1:] / 128),
            *(spread[1:] / 64),
            *_correlations(covariance),
            *_correlations(_products(fine)),
            *clipped,
        ]
    )


def _products(rows: Float64[np.ndarray, "3 n"]) -> Float64[np.ndarray, "3 3"]:
    """Mean products of all pairs of rows; five times as fast as one matrix product of this shape."""
    return np.array([[np.dot(a, b) for b in rows] for a in rows]) / rows.shape[1]


def _correlations(covariance: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, " 3"]:
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
    strips = np.split(view, edges[0][1:-1], axis=0)
    rows = np.stack([strip.sum(axis=0, dtype=np.uint32) for strip in strips])
    sums = np.add.reduceat(rows, edges[1][:-1], axis=1).astype(np.float64)
    areas = np.diff(edges[0])[:, None] * np.diff(edges[1])[None, :]
    luma = 0.299 * sums[:, :, 0] + 0.587 * sums[:, :, 1] + 0.114 * sums[:, :, 2]
    return luma / (255 * areas)


def _low_cosines(thumbnail: Float64[np.ndarray, "8 8"]) -> Float64[np.ndarray, " 15"]:
    """Magnitudes of the lowest orthonormal cosine coefficients without the mean; flips do not change them."""
    basis = _cosine_rows()
    return np.abs(basis @ thumbnail @ basis.T).ravel()[1:]


@cache
def _cosine_rows() -> Float64[np.ndarray, "4 8"]:
    order, place = np.arange(4)[:, None], np.arange(THUMBNAIL)[None, :]
    rows = np.cos(np.pi * order * (2 * place + 1) / (2 * THUMBNAIL)) * np.sqrt(2 / THUMBNAIL)
    rows[0] /= np.sqrt(2)
    return rows
