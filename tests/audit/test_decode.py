"""Decoding gives every file exactly one outcome, the stored pixels where it is whole, and never raises."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from poolproof.audit.decode import MAX_PIXELS, MIN_SIDE, Decoded, decode_image

Encode = Callable[..., bytes]
MakeImage = Callable[..., Image.Image]


def code(decoded: Decoded) -> str:
    """The reason's code."""
    return (decoded.reason or "").partition(":")[0]


def pixels_of(decoded: Decoded) -> np.ndarray:
    """The pixels of what must have been decoded."""
    assert decoded.status == "scored", decoded.reason
    assert decoded.pixels is not None
    return decoded.pixels


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims a size that its data do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_stored_values_come_back(make_image: MakeImage, encode: Encode, kind: str) -> None:
    """Formats without loss give the pixels that were saved, and a header that is right."""
    image = make_image(37, 21)
    image = image.quantize(200) if kind == "GIF" else image
    decoded = decode_image(encode(image, kind))
    assert np.array_equal(pixels_of(decoded), np.asarray(image.convert("RGB")))
    assert decoded.header is not None
    header = decoded.header
    assert (header.format, header.width, header.height, header.frames) == (kind, 37, 21, 1)
    assert header.quality is None
    assert header.subsampling is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_formats_with_loss(make_image: MakeImage, encode: Encode, kind: str) -> None:
    """Formats with loss give what Pillow decodes, and near what was saved."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = make_image(64, 48, noise=0)
    data = encode(image, kind)
    found = pixels_of(decode_image(data))
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(found.astype(int) - np.asarray(image, int)).mean() < 8


@pytest.mark.parametrize(
    "kind",
    [
        ("JPEG", {"subsampling": 0}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.reference
def test_pixels_are_those_of_opencv(
    make_image: MakeImage, encode: Encode, kind: tuple[str, dict[str, Any]]
) -> None:
    """OpenCV, which has its own decoders, sees the same pixels."""
    import cv2

    data = encode(make_image(120, 90), kind[0], **kind[1])
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert other is not None
    difference = np.abs(pixels_of(decode_image(data)).astype(int) - other[:, :, ::-1].astype(int))
    assert difference.max() <= 3


def test_nothing_is_empty() -> None:
    """No bytes are unreadable."""
    assert decode_image(b"") == Decoded(None, None, "unreadable", "empty: no bytes")


@pytest.mark.parametrize(
    ("data", "status", "expected"),
    [
        (b"<!DOCTYPE html><html><body>404", "unreadable", "not-an-image"),
        (b"\xef\xbb\xbf\r\n <HTML>", "unreadable", "not-an-image"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "unreadable", "not-an-image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "unreadable", "not-an-image"),
        (b"\0" * 1000, "unreadable", "not-an-image"),
        (b"\xff", "unreadable", "not-an-image"),
        (b'<?xml version="1.0"?>\n<!-- drawn --><svg viewBox="0 0 1 1"/>', "unsupported", "format"),
        (b"  <svg/>", "unsupported", "format"),
        (b"8BPS\0\1", "unsupported", "format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported", "format"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported", "format"),
        (b"\xff\xd8\xff" + b"x" * 300, "unreadable", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 300, "unreadable", "truncated"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + b"x" * 300, "unreadable", "damaged"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, status: str, expected: str) -> None:
    """Web pages, text and zeros are unreadable, formats that are not decoded are unsupported."""
    decoded = decode_image(data)
    assert (decoded.status, code(decoded)) == (status, expected)
    assert decoded.pixels is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.34, 0.6, 0.9])
def test_cut_files_are_unreadable(make_image: MakeImage, encode: Encode, kind: str, share: float) -> None:
    """A file that ends too early is unreadable in every format, never half an image."""
    data = encode(make_image(160, 120), kind)
    decoded = decode_image(data[: int(len(data) * share)])
    assert decoded.status == "unreadable"
    assert code(decoded) in ("truncated", "damaged")
    if kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        assert code(decoded) == "truncated"


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0.0, 0.98),
    options=st.sampled_from([{}, {"progressive": True}, {"restart_marker_blocks": 2}]),
)
def test_a_jpeg_cut_anywhere_is_unreadable(share: float, options: dict[str, Any]) -> None:
    """Wherever a JPEG is cut, it is not taken for an image."""
    data = samples()[str(options)]
    assert decode_image(data[: int(len(data) * share)]).status == "unreadable"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}], ids=str)
@pytest.mark.parametrize("side", [64, 256])
def test_a_jpeg_whose_second_half_is_garbage(
    make_image: MakeImage, encode: Encode, rng: np.random.Generator, options: dict[str, Any], side: int
) -> None:
    """Random bytes in the place of the second half are seen, but for the rare ones that spell an end at once."""
    n_scored = 0
    for seed in range(40):
        data = encode(make_image(side, side, seed), "JPEG", **options)
        half = len(data) // 2
        n_scored += decode_image(data[:half] + rng.bytes(len(data) - half)).status == "scored"
    assert n_scored <= 1


def test_a_png_with_one_changed_byte(make_image: MakeImage, encode: Encode) -> None:
    """A PNG's checksum tells any change of its pixel data."""
    data = encode(make_image(40, 40), "PNG")
    for position in range(60, len(data) - 20, 97):
        changed = bytearray(data)
        changed[position] ^= 0x10
        assert decode_image(bytes(changed)).status == "unreadable"


def test_sixteen_bits_keep_their_high_byte(make_png16: Callable[[np.ndarray], bytes]) -> None:
    """Gray and RGB of 16 bits lose their low byte and nothing else."""
    gray = (np.arange(64 * 64, dtype=np.uint32) * 16).reshape(64, 64).astype(np.uint16)
    colour = np.stack([gray, gray[::-1], gray.T], axis=2)
    assert np.array_equal(pixels_of(decode_image(make_png16(gray))), np.stack([gray >> 8] * 3, axis=2))
    assert np.array_equal(pixels_of(decode_image(make_png16(colour))), colour >> 8)


def test_eight_bits_in_sixteen(make_png16: Callable[[np.ndarray], bytes]) -> None:
    """A gray image of 16 bits that uses eight keeps the eight."""
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(pixels_of(decode_image(make_png16(gray)))[:, :, 0], gray)


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 255], [0, 255]), ([0, 65535], [0, 255]), ([-5, 70000], [0, 255])]
)
def test_wide_integers_are_clipped(encode: Encode, values: list[int], expected: list[int]) -> None:
    """A TIFF of 32-bit integers is read as 16 bits at most, and stays in range."""
    image = Image.fromarray(np.repeat(np.array([values], np.int32), 8, axis=0).repeat(8, axis=1))
    found = pixels_of(decode_image(encode(image, "TIFF")))
    assert found[0, 0, 0] == expected[0]
    assert found[0, -1, 0] == expected[1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(make_image: MakeImage, encode: Encode, mode: str) -> None:
    """Bits, gray, palettes, alpha and inks become RGB as Pillow converts them."""
    image = make_image(32, 24).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    decoded = decode_image(encode(image, kind))
    assert np.array_equal(pixels_of(decoded), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_comes_back_beside_the_pixels(encode: Encode, rng: np.random.Generator, kind: str) -> None:
    """The alpha plane of a file that has one comes back as stored, and is None where there is none."""
    values = rng.integers(0, 256, (21, 16, 4), np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = decode_image(encode(Image.fromarray(values), kind, **options))
    assert found.alpha is not None
    assert np.array_equal(found.alpha, values[:, :, 3])
    assert np.array_equal(pixels_of(found), values[:, :, :3])
    assert decode_image(encode(Image.fromarray(values[:, :, :3]), kind)).alpha is None
    if kind == "PNG":
        gray = decode_image(encode(Image.fromarray(values[:, :, 2:]), kind))
        assert gray.alpha is not None
        assert np.array_equal(gray.alpha, values[:, :, 3])
        palette = Image.fromarray(values[:, :, :3]).quantize(16)
        assert decode_image(encode(palette, kind, transparency=3)).alpha is None


def test_alpha_is_dropped_and_not_composited(encode: Encode) -> None:
    """Pixels under full transparency keep their colours: marks live there too."""
    values = np.full((16, 16, 4), (200, 10, 30, 0), np.uint8)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        found = pixels_of(decode_image(encode(Image.fromarray(values), kind, **options)))
        assert np.array_equal(found, values[:, :, :3])


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 256, 4))])
def test_palettes_with_transparency(make_image: MakeImage, encode: Encode, transparency: int | bytes) -> None:
    """Transparent entries of a palette keep their colours."""
    image = make_image(40, 30).quantize(64)
    found = pixels_of(decode_image(encode(image, "PNG", transparency=transparency)))
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg(make_image: MakeImage, encode: Encode) -> None:
    """Inks become colours near those that were printed; the header says what was stored."""
    image = make_image(64, 48, noise=0)
    decoded = decode_image(encode(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels_of(decoded).astype(int) - np.asarray(image, int)).mean() < 5
    assert decoded.header is not None
    assert (decoded.header.mode, decoded.header.subsampling) == ("CMYK", "other")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_animated_files_give_their_first_frame(make_image: MakeImage, encode: Encode, kind: str) -> None:
    """The first frame is decoded, and all are counted."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    frames = [make_image(64, 48, seed, 0) for seed in range(5)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    decoded = decode_image(data)
    assert decoded.header is not None
    assert (decoded.header.format, decoded.header.frames) == (kind, 5)
    assert np.abs(pixels_of(decoded).astype(int) - np.asarray(frames[0], int)).mean() < 12


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 100), (100, 7)])
def test_tiny_images_are_unsupported(make_image: MakeImage, encode: Encode, width: int, height: int) -> None:
    """Below the least side no feature is defined; the header is kept."""
    decoded = decode_image(encode(make_image(width, height), "PNG"))
    assert (decoded.status, code(decoded)) == ("unsupported", "too-small")
    assert decoded.header is not None
    assert (decoded.header.width, decoded.header.height) == (width, height)
    assert decode_image(encode(make_image(MIN_SIDE, MIN_SIDE), "PNG")).status == "scored"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_very_wide_image_is_scored(make_image: MakeImage, encode: Encode, kind: str) -> None:
    """Twenty thousand pixels wide is unusual and fine."""
    assert pixels_of(decode_image(encode(make_image(20_000, 10), kind))).shape == (10, 20_000, 3)


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (20_000, 10_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 8)]
)
def test_decompression_bombs_are_refused(width: int, height: int) -> None:
    """A header that claims too many pixels is unsupported at once, and no memory is asked for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    decoded = decode_image(png_claiming(width, height))
    assert (decoded.status, code(decoded)) == ("unsupported", "too-large")
    assert time.monotonic() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_bomb_of_frames(make_image: MakeImage, encode: Encode) -> None:
    """A GIF's canvas beyond the limit costs its own row."""
    gif = bytearray(encode(make_image(16, 16).quantize(8), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    assert code(decode_image(bytes(gif))) == "too-large"


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_of_text_leaves_the_pixels(make_image: MakeImage, encode: Encode, kind: bytes) -> None:
    """Text or a profile that unpacks to 128 MiB is passed over, and the image is decoded."""
    image = make_image(16, 16)
    png = encode(image, "PNG")
    bomb = chunk(kind, b"Comment\0\0" + zlib.compress(bytes(1 << 27)))
    found = pixels_of(decode_image(png[:33] + bomb + png[33:]))
    assert np.array_equal(found, np.asarray(image))


def test_a_tiff_whose_strips_cover_a_part(make_image: MakeImage, encode: Encode) -> None:
    """A header that claims more rows than there are strips for is damage, not a black image."""
    data = bytearray(encode(make_image(32, 24), "TIFF", tiffinfo={278: 24}))
    at = data.index(struct.pack("<HHI", 257, 4, 1))  # the entry of the height
    assert decode_image(bytes(data)).status == "scored"
    data[at + 8 : at + 12] = struct.pack("<I", 2400)
    decoded = decode_image(bytes(data))
    assert (decoded.status, code(decoded)) == ("unreadable", "damaged")
    assert "768 of 76800" in (decoded.reason or "")


def test_claimed_pixels_below_the_limit_are_truncated() -> None:
    """A header that claims much, within the limit, with little behind it, is cut short."""
    assert decode_image(png_claiming(4000, 4000)).status == "unreadable"
    assert MAX_PIXELS < 20_000 * 10_000


def test_float_pixels_are_unsupported(encode: Encode) -> None:
    """Floating-point values have no agreed range."""
    image = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    decoded = decode_image(encode(image, "TIFF"))
    assert (decoded.status, code(decoded)) == ("unsupported", "float-pixels")
    assert decoded.header is not None
    assert decoded.header.mode == "F"


def test_modes_without_a_way_to_rgb_are_unsupported(encode: Encode) -> None:
    """Lab colours are not guessed at."""
    image = Image.merge("LAB", [Image.new("L", (16, 16), value) for value in (128, 100, 90)])
    decoded = decode_image(encode(image, "TIFF"))
    assert (decoded.status, code(decoded)) == ("unsupported", "mode")


@pytest.mark.parametrize("tag", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_previews_of_camera_raw_are_unsupported(
    make_image: MakeImage, encode: Encode, tag: dict[int, Any]
) -> None:
    """A raw file's small preview is not taken for the picture."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    for number, value in tag.items():
        tags[number] = value
    decoded = decode_image(encode(make_image(32, 32), "TIFF", tiffinfo=tags))
    assert (decoded.status, code(decoded)) == ("unsupported", "format")


def test_orientation_is_not_applied(make_image: MakeImage, encode: Encode) -> None:
    """A JPEG's pixels come as stored, however the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(make_image(64, 32), "JPEG", exif=exif)
    assert pixels_of(decode_image(data)).shape == (32, 64, 3)


def test_metadata_do_not_stop_the_pixels(
    make_image: MakeImage, encode: Encode, rng: np.random.Generator
) -> None:
    """Damaged EXIF, a damaged colour profile and odd text leave the image readable."""
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 100_000)
    image = make_image(32, 32)
    assert decode_image(encode(image, "PNG", pnginfo=text, icc_profile=rng.bytes(300))).status == "scored"
    exif = b"Exif\0\0II*\0" + rng.bytes(200)
    assert decode_image(encode(image, "JPEG", exif=exif, icc_profile=rng.bytes(300))).status == "scored"


@pytest.mark.parametrize(
    ("subsampling", "name"), [("4:4:4", "4:4:4"), ("4:2:2", "4:2:2"), ("4:2:0", "4:2:0")]
)
def test_subsampling_is_named(make_image: MakeImage, encode: Encode, subsampling: str, name: str) -> None:
    """The chroma subsampling is that which was asked for; gray has none."""
    decoded = decode_image(encode(make_image(), "JPEG", subsampling=subsampling))
    assert decoded.header is not None
    assert decoded.header.subsampling == name
    gray = decode_image(encode(make_image().convert("L"), "JPEG"))
    assert gray.header is not None
    assert gray.header.subsampling is None


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_quality_is_that_of_the_encoder(make_image: MakeImage, encode: Encode, quality: int) -> None:
    """The quality read off the tables is Pillow's setting."""
    decoded = decode_image(encode(make_image(), "JPEG", quality=quality))
    assert decoded.header is not None
    assert decoded.header.quality == quality


def test_the_header_is_kept_where_the_pixels_are_damaged(make_image: MakeImage, encode: Encode) -> None:
    """A cut file still says what it was."""
    data = encode(make_image(200, 150), "JPEG", quality=80)
    decoded = decode_image(data[: len(data) // 2])
    assert decoded.header is not None
    assert (decoded.header.width, decoded.header.height, decoded.header.quality) == (200, 150, 80)


def test_reasons_are_one_short_line(hostile_files: Callable[[], list[Any]]) -> None:
    """Whatever a decoder says, the reason is a code, a colon and a line."""
    for file in hostile_files():
        if isinstance(file.content, bytes):
            decoded = decode_image(file.content)
            assert (decoded.reason is None) == (decoded.status == "scored")
            reason = decoded.reason or "x: y"
            assert "\n" not in reason
            assert len(reason) < 300
            assert ": " in reason


@cache
def samples() -> dict[str, bytes]:
    """Small files of every format, by name, and JPEGs by their options."""
    source = np.random.default_rng(3)
    image = Image.fromarray(source.integers(0, 256, (24, 32, 3), np.uint8))
    frames = [Image.fromarray(source.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(2)]
    files: dict[str, bytes] = {}
    for name, kind, options in [
        ("{}", "JPEG", {}),
        ("{'progressive': True}", "JPEG", {"progressive": True}),
        ("{'restart_marker_blocks': 2}", "JPEG", {"restart_marker_blocks": 2}),
        ("png", "PNG", {}),
        ("apng", "PNG", {"save_all": True, "append_images": frames}),
        ("webp", "WEBP", {}),
        ("animated webp", "WEBP", {"save_all": True, "append_images": frames}),
        ("gif", "GIF", {"save_all": True, "append_images": frames}),
        ("tiff", "TIFF", {}),
        ("pages", "TIFF", {"save_all": True, "append_images": frames}),
        ("deflated", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("bmp", "BMP", {}),
        ("ppm", "PPM", {}),
        ("jp2", "JPEG2000", {}),
        ("mpo", "MPO", {"save_all": True, "append_images": frames}),
    ]:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    if features.check("avif"):
        buffer = io.BytesIO()
        image.save(buffer, "AVIF")
        files["avif"] = buffer.getvalue()
    return files


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(sorted(samples())),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    cut=st.floats(0, 1),
    tail=st.binary(max_size=16),
)
def test_decoding_never_raises(name: str, changes: list[tuple[float, int]], cut: float, tail: bytes) -> None:
    """Changed, cut and lengthened files of every format end in one outcome, with pixels exactly if scored."""
    data = bytearray(samples()[name])
    for place, value in changes:
        # half of the changes near the start, where the structure is
        data[int(place * (len(data) - 1) if value % 2 else place * min(len(data) - 1, 80))] = value
    decoded = decode_image(bytes(data[: max(1, int(len(data) * (1 - cut * cut)))]) + tail)
    assert decoded.status in ("scored", "unreadable", "unsupported")
    assert (decoded.pixels is not None) == (decoded.status == "scored")
    assert (decoded.reason is None) == (decoded.status == "scored")
    if decoded.pixels is not None and decoded.header is not None:
        assert decoded.pixels.dtype == np.uint8
        assert decoded.pixels.shape == (decoded.header.height, decoded.header.width, 3)
        assert 0 < decoded.header.width < 2**31
        assert 0 < decoded.header.frames < 2**31


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    """Bytes without any meaning are unreadable or unsupported."""
    assert decode_image(data).status in ("unreadable", "unsupported")


def test_warnings_and_settings_of_the_process_are_left_alone(make_image: MakeImage, encode: Encode) -> None:
    """Decoding in a process that turns warnings into errors works, and leaves its settings."""
    program = (
        "import sys, warnings; from PIL import Image; from poolproof.audit.decode import decode_image\n"
        "before = list(warnings.filters), Image.MAX_IMAGE_PIXELS\n"
        "print(decode_image(sys.stdin.buffer.read()).status)\n"
        "assert before == (list(warnings.filters), Image.MAX_IMAGE_PIXELS)"
    )
    data = encode(make_image(40, 30).quantize(64), "PNG", transparency=bytes(64))
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], input=data, capture_output=True, check=False
    )
    assert (found.stdout.strip(), found.returncode) == (b"scored", 0), found.stderr
