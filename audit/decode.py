"""Encoded bytes to pixels: once, at full resolution, and strict about damage."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "MPO")
"""Formats that are decoded; Pillow's others are rare in pools and a larger target for hostile files."""

MIN_SIDE: Final = 8
"""Pixels; below this no feature or mark is defined."""

MAX_PIXELS: Final = 178_956_970
"""Above this an image is not decoded (Pillow's own limit against decompression bombs, 512 MiB as RGB)."""

_SUBSAMPLING: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}

_LUMA_SUM_AT_50: Final = 3688
"""Sum of the luminance table of ITU-T T.81 annex K, which encoders scale by their quality setting."""


@dataclass(frozen=True)
class Header:
    """What the file says of itself, read without its pixels."""

    format: str
    mode: str
    width: int
    height: int
    frames: int
    quality: int | None
    subsampling: str | None


@dataclass(frozen=True)
class Decoded:
    """The outcome of decoding: pixels, or a status and a reason of the form `code: detail`."""

    header: Header | None
    pixels: UInt8[np.ndarray, "h w 3"] | None
    status: str
    reason: str | None


def decode_image(data: bytes) -> Decoded:
    """The first frame's pixels as RGB, at full resolution; alpha is dropped, never composited.

    Marks and residuals live in the stored values, so nothing is resampled or blended: 16-bit values lose their
    low byte, CMYK and palettes are converted by Pillow.
    """
    if not data:
        return Decoded(None, None, "unreadable", "empty: no bytes")
    header = None
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images and of odd metadata; both are settled by what follows
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                header = _read_header(image)
                refusal = _refusal(header)
                if refusal is not None:
                    return Decoded(header, None, "unsupported", refusal)
                return Decoded(header, _to_rgb(image), "scored", None)
    except UnidentifiedImageError:
        return Decoded(None, None, *_name_stranger(data))
    except Image.DecompressionBombError as error:
        return Decoded(header, None, "unsupported", f"too-large: {_line(error)}")
    except MemoryError:
        return Decoded(header, None, "unsupported", "too-large: not enough memory to decode it")
    except Exception as error:  # a hostile file can make a decoder raise anything; it costs its own row
        code = "truncated" if "truncat" in str(error).lower() or isinstance(error, EOFError) else "damaged"
        return Decoded(header, None, "unreadable", f"{code}: {_line(error)}")


def _read_header(image: Image.Image) -> Header:
    quality, subsampling = None, None
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        quality = _jpeg_quality(image)
        subsampling = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "other")
    frames = int(getattr(image, "n_frames", 1))
    return Header(str(image.format), image.mode, image.width, image.height, frames, quality, subsampling)


def _jpeg_quality(image: JpegImagePlugin.JpegImageFile) -> int | None:
    """The setting from 1 to 100 whose standard table has the same sum; None without a luminance table."""
    tables = image.quantization
    if 0 not in tables or len(tables[0]) != 64:
        return None
    scale = 100 * sum(tables[0]) / _LUMA_SUM_AT_50
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return int(np.clip(round(quality), 1, 100))


def _refusal(header: Header) -> str | None:
    if min(header.width, header.height) < MIN_SIDE:
        return f"too-small: {header.width}x{header.height} pixels; the least side is {MIN_SIDE}"
    if header.width * header.height > MAX_PIXELS:
        return f"too-large: {header.width}x{header.height} pixels; the limit is {MAX_PIXELS}"
    if header.mode == "F":
        return "float-pixels: no agreed range to read them in"
    return None


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        gray = (values >> 8 if values.max(initial=0) > 255 else values).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _name_stranger(data: bytes) -> tuple[str, str]:
    """Status and reason for bytes that no decoder claims."""
    start = data[:64].lstrip().lower()
    if b"ftyphei" in data[:16] or b"ftypmif1" in data[:16]:
        return "unsupported", "format: HEIC"
    if data.startswith(b"8BPS"):
        return "unsupported", "format: PSD"
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096]:
        return "unsupported", "format: SVG"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "unreadable", "not-an-image: HTML or XML text"
    return "unreadable", f"not-an-image: begins with {data[:8].hex(' ')}"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:160]
    return text or type(error).__name__
