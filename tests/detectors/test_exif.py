"""EXIF texts of blocks that are odd, damaged, or noise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded
from PIL import Image

from poolproof.detectors.containers import read_metadata
from poolproof.detectors.exif import exif_text


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_unicode_comment_is_decoded_in_either_byte_order(codec: str) -> None:
    """A UserComment marked UNICODE is decoded in the byte order that it is written in, not the block's."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 20, ü".encode(codec)
    data = encoded("JPEG", exif=exif)
    assert exif_text(read_metadata(data).exif) == {"UserComment": "Steps: 20, ü"}


@pytest.mark.parametrize(
    "block",
    [
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08",  # the Exif directory is this directory
        b"II*\0\x08\0\0\0\1\0\x31\x01\2\0\xff\xff\xff\xff\xff\xff\xff\xff",  # endless text, nowhere
        b"II*\0\x08\0\0",
        b"II+\0\x08\0\0\0\0\0\0\0",
        b"",
    ],
)
def test_damaged_exif_gives_no_text(block: bytes) -> None:
    """A damaged EXIF block is empty, not an exception and not a loop."""
    assert exif_text(block) == {}


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(block=st.binary(max_size=200), order=st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_arbitrary_exif_never_raises(block: bytes, order: bytes) -> None:
    """Arbitrary bytes behind a TIFF header are read to some texts, or to none."""
    assert isinstance(exif_text(order + block), dict)
