"""Encoded bytes to pixels: once, at full resolution, and strict about damage."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from poolproof.audit.frames import count_frames
from poolproof.audit.jpeg import estimate_quality, find_scan_fault
from poolproof.audit.pool import one_line

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
"""Formats that are decoded; Pillow's others are rare in pools and a larger target for hostile files. JPEG
takes in MPO, the several JPEGs in one file that cameras write."""

MIN_SIDE: Final = 8
"""Pixels; below this no feature or mark is defined."""

MAX_PIXELS: Final = 178_956_970
"""Above this an image is not decoded (twice Pillow's limit against decompression bombs, 512 MiB as RGB)."""

_SUBSAMPLING: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}

_CONVERTED_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})

_NEW_SUBFILE_TYPE: Final = 254
_DNG_VERSION: Final = 50706

_OWN_STARTS: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"jP  \r\n", "JPEG 2000"),
)
_FOREIGN_STARTS: Final = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypcrx", "camera raw"),
    (0, b"8BPS", "PSD"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"#?R", "Radiance HDR"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
)


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
    exif: bool


@dataclass(frozen=True)
class Decoded:
    """The outcome of decoding: pixels, or a status and a reason of the form `code: detail`.

    `alpha` is the alpha plane as stored where the file has one, for text hidden in it.
    """

    header: Header | None
    pixels: UInt8[np.ndarray, "h w 3"] | None
    status: str
    reason: str | None
    alpha: UInt8[np.ndarray, "h w"] | None = None


def decode_image(data: bytes) -> Decoded:
    """The first frame's pixels as RGB, at full resolution; alpha is kept apart, never composited.

    Marks and residuals live in the stored values, so nothing is resampled or blended. CMYK and palettes are
    converted by Pillow. Of 16 bits the high byte is kept; where a gray image has no value above 255, the low
    one. Never raises: what cannot be decoded ends in a status and a reason.

    Damage shows where the format carries a check (PNG) or a structure that random bytes break (JPEG, GIF).
    WebP, AVIF, TIFF and BMP have neither: bytes changed in their body decode to wrong pixels.
    """
    if not data:
        return Decoded(None, None, "unreadable", "empty: no bytes")
    header = None
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images and of odd metadata; both are settled by what follows
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                header = _read_header(image, data)
                refusal = _refusal(header, image)
                if refusal is not None:
                    return Decoded(header, None, "unsupported", refusal)
                # two kinds of damage that Pillow passes over: this, and that of JPEGs behind it
                fault = _find_strip_fault(image) if header.format == "TIFF" else None
                pixels = _to_rgb(image, data) if fault is None else None
                alpha = _read_alpha(image) if fault is None else None
        if header.format in ("JPEG", "MPO"):
            fault = find_scan_fault(data)
        if fault is not None:
            return Decoded(header, None, "unreadable", f"damaged: {fault}")
        return Decoded(header, pixels, "scored", None, alpha)
    except UnidentifiedImageError:
        return Decoded(None, None, *_name_stranger(data))
    except Image.DecompressionBombError as error:
        return Decoded(header, None, "unsupported", f"too-large: {one_line(error)}")
    except MemoryError:
        return Decoded(header, None, "unsupported", "too-large: not enough memory to decode it")
    except Exception as error:  # a hostile file can make a decoder raise anything; it costs its own row
        if "MAX_TEXT" in str(error):
            bare = _without_text(data)
            if len(bare) < len(data):
                return decode_image(bare)
        return Decoded(header, None, "unreadable", f"{_code(error, data)}: {one_line(error)}")


def _read_header(image: Image.Image, data: bytes) -> Header:
    quality, subsampling = None, None
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        quality = estimate_quality(image.quantization)
        if image.layers > 1:
            subsampling = _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "other")
    frames = count_frames(data, image)
    return Header(
        str(image.format),
        image.mode,
        image.width,
        image.height,
        frames,
        quality,
        subsampling,
        bool(image.info.get("exif")),
    )


def _refusal(header: Header, image: Image.Image) -> str | None:
    """Why the pixels are not decoded, as `code: detail`; None where they are."""
    if min(header.width, header.height) < MIN_SIDE:
        return f"too-small: {header.width}x{header.height} pixels; the least side is {MIN_SIDE}"
    if header.width * header.height > MAX_PIXELS:
        return f"too-large: {header.width}x{header.height} pixels; the limit is {MAX_PIXELS}"
    if header.mode == "F":
        return "float-pixels: no agreed range to read them in"
    if header.mode != "RGB" and not header.mode.startswith("I") and header.mode not in _CONVERTED_MODES:
        return f"mode: no agreed way from {header.mode} to RGB"
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if _DNG_VERSION in tags or _is_preview(tags.get(_NEW_SUBFILE_TYPE)):
            return "format: camera raw; only its preview could be decoded"
    return None


def _find_strip_fault(image: Image.Image) -> str | None:
    """What is wrong where the strips of a TIFF do not cover it; asked before the pixels are decoded."""
    boxes = [tile[1] for tile in getattr(image, "tile", []) if tile[1] is not None]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    n = image.width * image.height
    return f"its strips hold {covered} of {n} pixels" if covered < n else None


def _is_preview(subfile_type: object) -> bool:
    """Whether a TIFF's first directory is a reduced copy of another one, as in camera raw files."""
    return isinstance(subfile_type, int) and bool(subfile_type & 1)


def _decode_fast(image: Image.Image, data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """A JPEG's pixels by simplejpeg where that is installed and content with the file, else None.

    Both decoders are libjpeg-turbo with its exact transform, so the pixels are the same; this one takes two
    thirds of the time. What it complains of is left to Pillow, so that the status does not depend on it.
    """
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    try:
        import simplejpeg
    except ImportError:
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None


def _to_rgb(image: Image.Image, data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    fast = _decode_fast(image, data)
    if fast is not None:
        return fast
    if image.mode.startswith("I"):
        values = np.asarray(image)
        gray = values >> 8 if values.max(initial=0) > 255 else values
        return np.repeat(gray.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    # converting RGB to RGB copies it, a twentieth of the time that decoding takes
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _read_alpha(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """The alpha plane of a decoded image, None where it has none of its own (a palette's does not count)."""
    return np.asarray(image.getchannel("A")) if image.mode in ("RGBA", "LA", "PA") else None


def _name_stranger(data: bytes) -> tuple[str, str]:
    """Status and reason for bytes that no decoder claims."""
    for offset, start, name in _OWN_STARTS:
        if data.startswith(start, offset):
            return "unreadable", f"damaged: begins as {name}, but its header cannot be read"
    for offset, start, name in _FOREIGN_STARTS:
        if data.startswith(start, offset):
            return "unsupported", f"format: {name}"
    text = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text:
        return "unsupported", "format: SVG"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--")):
        return "unreadable", "not-an-image: HTML or XML text"
    return "unreadable", f"not-an-image: begins with {data[:8].hex(' ')}"


def _without_text(data: bytes) -> bytes:
    """A PNG without its text and colour profile, which Pillow refuses with the pixels where they are large."""
    kept, position = [data[:8]], 8
    while position + 8 <= len(data):
        stop = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(data[position:stop])
        position = stop
    return b"".join(kept)


def _code(error: Exception, data: bytes) -> str:
    """`truncated` where the file ends too early, `damaged` otherwise."""
    early = "truncat" in str(error).lower() or isinstance(error, EOFError)
    # Pillow's WebP and AVIF decoders name no cause; their containers state the size
    return "truncated" if early or _stated_size(data) > len(data) else "damaged"


def _stated_size(data: bytes) -> int:
    """Bytes that a RIFF or ISO base media file should have by its own account; 0 for others."""
    if data.startswith(b"RIFF"):
        return 8 + int.from_bytes(data[4:8], "little")
    if data[4:8] != b"ftyp":
        return 0
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        if size < 8:  # 0: to the end of the file; 1: a 64-bit size, which no still image needs
            return 0
        position += size
    return position
