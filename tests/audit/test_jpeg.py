"""Quality settings are read off tables exactly, and a sound JPEG is never taken for a damaged one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from poolproof.audit.jpeg import estimate_quality, find_scan_fault

Encode = Callable[..., bytes]
MakeImage = Callable[..., Image.Image]


def tables(data: bytes) -> dict[int, list[int]]:
    """A JPEG's quantisation tables."""
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return image.quantization


@pytest.mark.reference
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_quality_of_pillow_is_found(make_image: MakeImage, encode: Encode, mode: str) -> None:
    """All settings from 1 to 100 are read back exactly."""
    image = make_image(16, 16).convert(mode)
    for quality in range(1, 101):
        assert estimate_quality(tables(encode(image, "JPEG", quality=quality))) == quality


@pytest.mark.reference
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95, 100])
def test_every_quality_of_opencv_is_found(make_image: MakeImage, quality: int) -> None:
    """Another encoder's settings are read back too."""
    import cv2

    done, data = cv2.imencode(".jpg", np.asarray(make_image(32, 32)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    assert estimate_quality(tables(data.tobytes())) == quality


@pytest.mark.parametrize("found", [{}, {1: [1] * 64}, {0: []}, {0: [1] * 63}])
def test_without_a_luminance_table_there_is_no_quality(found: dict[int, list[int]]) -> None:
    """What cannot be told is None."""
    assert estimate_quality(found) is None


def test_other_tables_get_the_nearest_quality() -> None:
    """A table of an encoder of its own has the quality of the standard table with the nearest sum."""
    assert estimate_quality({0: [1] * 64}) == 100
    assert estimate_quality({0: [65535] * 64}) == 1
    assert estimate_quality({0: [58] * 64}) in range(48, 52)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"optimize": True, "quality": 100},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1, "progressive": True},
        {"subsampling": "4:2:2", "comment": b"\xff\xd9 \xff\xda"},
        {"exif": b"Exif\0\0" + bytes(range(256)) * 20, "icc_profile": b"\xff\xd8\xff\xd9" * 30_000},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_files_have_no_fault(
    make_image: MakeImage, encode: Encode, options: dict[str, object], mode: str
) -> None:
    """Every kind of JPEG that Pillow writes passes, with whatever stands in its comments and profiles."""
    for seed in range(6):
        image = make_image(30 + 17 * seed, 25 + 13 * seed, seed, noise=40).convert(mode)
        assert find_scan_fault(encode(image, "JPEG", **options)) is None


@pytest.mark.reference
def test_files_of_other_encoders_have_no_fault(make_image: MakeImage) -> None:
    """Baseline, progressive and restart-marked files of OpenCV pass."""
    import cv2

    pixels = np.asarray(make_image(133, 97, noise=40))
    for flags in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3]):
        done, data = cv2.imencode(".jpg", pixels, flags)
        assert done
        assert find_scan_fault(data.tobytes()) is None


def test_what_follows_the_end_is_no_fault(make_image: MakeImage, encode: Encode) -> None:
    """Cameras and telephones add videos and further images behind the end."""
    data = encode(make_image(), "JPEG")
    assert find_scan_fault(data + b"\xff\x02" * 100) is None
    assert find_scan_fault(data[:-2] + b"\xff\xff\xff\xd9") is None  # fill bytes before a marker
    assert (
        find_scan_fault(encode(make_image(), "MPO", save_all=True, append_images=[make_image(seed=1)]))
        is None
    )


@pytest.mark.parametrize(
    ("insert", "words"),
    [
        (b"\xff\x02", "code ff 02 inside the image data"),
        (b"\xff\xc0", "code ff c0 inside the image data"),
        (b"\xff\xd8", "code ff d8 inside the image data"),
        (b"\xff\xd3", "restart marker out of turn"),
        (b"\xff\xe1\x00\x04ab\x01", "no segment where one should begin"),
        (b"\xff\xfe\xff\xff", "no end of image"),
    ],
)
def test_codes_that_cannot_stand_in_image_data(
    make_image: MakeImage, encode: Encode, insert: bytes, words: str
) -> None:
    """A marker amid the image data is a fault, and the message says where."""
    data = encode(make_image(80, 80), "JPEG")
    middle = len(data) - 500
    while 0xFF in data[middle - 2 : middle + 2]:
        middle += 1
    fault = find_scan_fault(data[:middle] + insert + data[middle:])
    assert fault is not None
    assert words in fault


def test_restart_markers_out_of_turn(make_image: MakeImage, encode: Encode) -> None:
    """A restart marker that is missing or exchanged is a fault."""
    data = encode(make_image(160, 120), "JPEG", restart_marker_blocks=4)
    at = data.index(b"\xff\xd2")
    assert find_scan_fault(data[:at] + data[at + 2 :]) is not None
    assert find_scan_fault(data[:at] + b"\xff\xd5" + data[at + 2 :]) is not None


def test_a_file_without_an_end() -> None:
    """Bytes that never reach an end of image have a fault, and none is needed to say so."""
    assert find_scan_fault(b"") == "no end of image"
    assert find_scan_fault(b"\xff") == "no end of image"
    assert find_scan_fault(b"\xff\xd8\xff\xe0\x00\x00" * 3) is not None
