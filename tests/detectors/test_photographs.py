"""Metadata as cameras, telephones, scanners and editors leave them: none of it states a synthetic image."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping

import pytest
from image_files import encoded, packet, png_with, source_type, trailer, with_credit, with_exif, with_xmp
from PIL import Image

from poolproof.detectors.provenance import read_provenance


def camera(make: str, model: str, software: str, **options: object) -> bytes:
    """A JPEG with what a camera writes: three tags, an exposure, a position, a thumbnail's directory."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = make, model, software
    exif[0x0132], exif[0x013B], exif[0x8298] = "2024:06:01 12:00:00", "Jane Doe", "(c) Jane Doe"
    details = exif.get_ifd(0x8769)
    details[0x829A], details[0x829D], details[0x8827] = 0.004, 2.8, 100
    details[0x9003], details[0x927C] = "2024:06:01 12:00:00", b"Nikon\0\2\x10\0\0MM\0*\0\0\0\x08\0\0"
    details[0x9286], details[0xA433], details[0xA434] = b"ASCII\0\0\0" + b" " * 36, make, "24-70mm f/2.8"
    exif.get_ifd(0x8825)[1] = "N"
    return encoded("JPEG", 0, exif=exif, **options)


def exif_of(data: bytes) -> Image.Exif:
    """The EXIF block of a file, to be written into another."""
    return Image.open(io.BytesIO(data)).getexif()


LIGHTROOM = packet(
    "<dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>prompt</rdf:li><rdf:li>synthetic fibre</rdf:li></rdf:Bag>"
    "</dc:subject><xmpMM:History><rdf:Seq><rdf:li stEvt:action='saved' "
    "stEvt:softwareAgent='Adobe Photoshop Lightroom Classic 13.2'/></rdf:Seq></xmpMM:History>",
    "xmlns:crs='http://ns.adobe.com/camera-raw-settings/1.0/' xmp:CreatorTool='Adobe Photoshop 25.5 (Macintosh)' "
    "crs:Version='16.2' crs:LuminanceNoiseReduction='20' photoshop:Credit='Agency' "
    "Iptc4xmpExt:DigImageGUID='1b4e28ba-2fa1-11d2-883f-0016d3cca427'",
).encode()
PIXEL = packet(
    "<Container:Directory><rdf:Seq><rdf:li rdf:parseType='Resource'><Container:Item Item:Semantic='Primary'/>"
    "</rdf:li></rdf:Seq></Container:Directory>",
    "GCamera:MotionPhoto='1' GCamera:hdrPlusMakernote='SERSUAP' hdrgm:Version='1.0' "
    "Device:Manufacturer='Google' xmp:CreatorTool='HDR+ 1.0.585804401zd'",
).encode()
MATPLOTLIB = {"Software": "Matplotlib version3.9.0, https://matplotlib.org/"}
SAMSUNG: Mapping[str, str] = {
    "Image_UTC_Data": "1717243200000",
    "MCC_Data": "310",
    "PhotoEditor_Re_Edit_Data": '{"originalPath":"/DCIM/1.jpg","isScaleAI":false,"genAIType":0}',
}

PHOTOGRAPHS: dict[str, Callable[[], bytes]] = {
    "Canon": lambda: camera("Canon", "Canon EOS R5", "Firmware Version 1.8.1"),
    "Nikon": lambda: camera("NIKON CORPORATION", "NIKON Z 9", "Ver.04.10"),
    "Sony": lambda: camera("SONY", "ILCE-7M4", "ILCE-7M4 v2.01"),
    "Fujifilm": lambda: camera("FUJIFILM", "X-T5", "Digital Camera X-T5 Ver3.01"),
    "Leica": lambda: camera("LEICA CAMERA AG", "LEICA M11-P", "2.0.1", xmp=packet("").encode()),
    "iPhone": lambda: camera("Apple", "iPhone 15 Pro", "17.5.1", xmp=PIXEL.replace(b"HDR+", b"17.5.1")),
    "Pixel": lambda: camera("Google", "Pixel 8 Pro", "HDR+ 1.0.585804401zd", xmp=PIXEL),
    "Samsung": lambda: camera("samsung", "SM-S928B", "S928BXXU1AXB5") + trailer(**SAMSUNG),
    "drone": lambda: camera(
        "DJI", "FC3582", "10.02.31.14", xmp=packet("", "drone-dji:Version='1.5'").encode()
    ),
    "Lightroom": lambda: camera("Canon", "Canon EOS R5", "Adobe Lightroom Classic 13.2", xmp=LIGHTROOM),
    "Photoshop": lambda: camera("NIKON", "D850", "Adobe Photoshop 25.5 (Windows)", comment=b"flux=2; steps"),
    "agency": lambda: with_credit(b"Agency / Jane Doe, made with Google Pixel"),
    "scanner": lambda: with_exif({0x010F: "EPSON", 0x0110: "Perfection V850", 0x010E: "Label: 3, prompt"}),
    "stated capture": lambda: with_xmp(source_type("digitalCapture")),
    "computational capture": lambda: with_xmp(source_type("computationalCapture")),
    "scanned film": lambda: with_xmp(source_type("negativeFilm")),
    "edited by a human": lambda: with_xmp(source_type("humanEdits")),
    "panorama": lambda: with_xmp(source_type("compositeCapture")),
    "GIMP": lambda: png_with(Comment="Created with GIMP", Software="GIMP 2.10.36", Title="a cat"),
    "screenshot": lambda: png_with(Software="gnome-screenshot", **{"Creation Time": "2024-06-01"}),
    "plot": lambda: png_with(**MATPLOTLIB),
    "Wikimedia": lambda: png_with(
        Source="https://commons.wikimedia.org", Author="J. Doe", Description="Job 7"
    ),
    "WebP of a site": lambda: encoded(
        "WEBP", exif=exif_of(camera("Canon", "EOS R5", "Firmware 1.8.1")), xmp=LIGHTROOM
    ),
    "GIF": lambda: encoded("GIF", comment=b"Created with GIMP"),
    "TIFF": lambda: encoded("TIFF", tiffinfo={271: "Hasselblad", 272: "X2D 100C", 305: "Phocus 3.8"}),
    "several pictures": lambda: (
        camera("SONY", "DSC-RX100M7", "1.0") + struct.pack(">I", 7) + camera("SONY", "x", "y")
    ),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_state_nothing_synthetic(name: str) -> None:
    """A photograph's metadata give no synthetic finding, not even a weak one."""
    findings = read_provenance(PHOTOGRAPHS[name]())
    assert not any(finding.synthetic for finding in findings)
    assert bool(findings) == ("capture" in name)
