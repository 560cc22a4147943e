"""Metadata blocks against files that Pillow wrote and Pillow's own readings, and against hostile bytes."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, segment, with_chunks, with_segments
from PIL import Image, PngImagePlugin, features

from poolproof.detectors.containers import (
    MAX_BLOCKS,
    MAX_ENTRIES,
    MAX_INFLATED,
    read_metadata,
)
from poolproof.detectors.exif import MAX_TEXT, exif_text

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>text \xc3\xa9</rdf:RDF></x:xmpmeta>'


def picture() -> Image.Image:
    """A small noisy picture, so that its compressed data are not trivial."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))


def encoded(container: str, **options: object) -> bytes:
    """The picture as a file of the given Pillow format."""
    out = io.BytesIO()
    picture().save(out, container, **options)
    return out.getvalue()


def some_exif() -> Image.Exif:
    """EXIF with one text in the first directory and one in the Exif directory."""
    exif = Image.Exif()
    exif[0x0131] = "Some Software 1.2"
    exif[0x010F] = "Mk"  # short enough to lie inside the directory entry
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    return exif


def rich_files() -> dict[str, bytes]:
    """One file per container, each with as many kinds of metadata as Pillow writes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("plain", "a b c")
    info.add_text("packed", "d e f" * 50, zip=True)
    info.add_itxt("wide", "ü 漢字", zip=True)
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    exif = some_exif()
    gif = encoded("GIF", comment=b"words" * 80)
    trailer = bytes((1, *range(255, -1, -1), 0))  # lets a reader that knows no XMP step over the packet
    return {
        "jpeg": encoded("JPEG", exif=exif, xmp=XMP, comment=b"words"),
        "png": encoded("PNG", exif=exif, pnginfo=info),
        "webp": encoded("WEBP", exif=exif, xmp=XMP),
        "gif": gif[:-1] + b"!\xff\x0bXMP DataXMP" + XMP + trailer + gif[-1:],
        "tiff": encoded("TIFF", tiffinfo={271: "Mk", 305: "Some Software 1.2", 700: XMP}),
    }


FILES = rich_files()


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "GIF"])
def test_plain_file_has_no_metadata(container: str) -> None:
    """A file without metadata gives its container and nothing else, not even a note."""
    metadata = read_metadata(encoded(container))
    assert metadata.kind == container.lower()
    assert metadata.mime == f"image/{container.lower()}"
    blocks = (metadata.exif, metadata.xmp, metadata.text, metadata.comments, metadata.iptc)
    assert not any(blocks)
    assert not metadata.has_jumbf
    assert metadata.notes == ()


@pytest.mark.reference
@pytest.mark.parametrize("container", ["jpeg", "png", "webp", "tiff"])
def test_exif_texts_equal_pillow(container: str) -> None:
    """Texts of the EXIF block are those that Pillow reads from the same file."""
    read = Image.open(io.BytesIO(FILES[container])).getexif()
    expected = {"Software": read[0x0131], "Make": read[0x010F]}
    if container != "tiff":  # Pillow writes no Exif directory into a TIFF file
        expected["UserComment"] = read.get_ifd(0x8769)[0x9286].removeprefix(b"ASCII\0\0\0").decode()
    assert exif_text(read_metadata(FILES[container]).exif) == expected


@pytest.mark.parametrize("container", ["jpeg", "png", "webp", "gif", "tiff"])
def test_xmp_is_found_in_every_container(container: str) -> None:
    """The XMP packet comes back as text, whatever the container."""
    xmp = read_metadata(FILES[container]).xmp
    assert "<rdf:RDF>text é</rdf:RDF>" in xmp


@pytest.mark.reference
def test_png_texts_equal_pillow() -> None:
    """Plain, packed and international PNG texts are those that Pillow reads, XMP apart."""
    image = Image.open(io.BytesIO(FILES["png"]))
    assert isinstance(image, PngImagePlugin.PngImageFile)
    expected = {key: str(value) for key, value in image.text.items() if key != "XML:com.adobe.xmp"}
    assert dict(read_metadata(FILES["png"]).text) == expected
    assert len(expected) == 3


@pytest.mark.parametrize("container", ["jpeg", "gif"])
def test_comments_come_back(container: str) -> None:
    """A JPEG or GIF comment comes back whole, also over several sub-blocks."""
    assert read_metadata(FILES[container]).comments == ("words" * (80 if container == "gif" else 1),)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_searched() -> None:
    """EXIF and XMP of an AVIF file are found without walking its boxes."""
    metadata = read_metadata(encoded("AVIF", exif=some_exif(), xmp=XMP))
    assert (metadata.kind, metadata.mime) == ("isobmff", "image/avif")
    assert exif_text(metadata.exif)["Software"] == "Some Software 1.2"
    assert "text é" in metadata.xmp


def test_png_text_behind_the_pixels_is_found() -> None:
    """A text chunk behind the image data counts like one in front."""
    data = with_chunks(chunk(b"tEXt", b"key\0value"), last=True)
    assert read_metadata(data).text == (("key", "value"),)


def test_animated_png_is_walked() -> None:
    """Frames of an animated PNG do not hide its texts."""
    info = PngImagePlugin.PngInfo()
    info.add_text("key", "value")
    frame = picture()
    out = io.BytesIO()
    frame.save(out, "PNG", save_all=True, append_images=[frame.rotate(90)], pnginfo=info)
    assert b"fdAT" in out.getvalue()
    assert read_metadata(out.getvalue()).text == (("key", "value"),)


def test_texts_between_and_behind_frames_are_found() -> None:
    """Texts of an animated PNG behind its first frame are read, also in ComfyUI's chunk."""
    info = PngImagePlugin.PngInfo()
    info.add(b"comf", b"prompt\0{}", after_idat=True)
    info.add(b"tEXt", b"late\0text", after_idat=True)
    frame = picture()
    out = io.BytesIO()
    frame.save(out, "PNG", save_all=True, append_images=[frame.rotate(90)], pnginfo=info)
    data = out.getvalue()
    assert data.index(b"IDAT") < data.index(b"comf")
    last = data.rindex(b"IEND") - 4
    data = data[:last] + chunk(b"zTXt", b"last\0\0" + zlib.compress(b"words")) + data[last:]
    assert set(read_metadata(data).text) == {("prompt", "{}"), ("late", "text"), ("last", "words")}


def test_animated_webp_is_walked() -> None:
    """EXIF and XMP of an animated WebP stand behind its frames and are read."""
    frame = picture()
    out = io.BytesIO()
    frame.save(out, "WEBP", save_all=True, append_images=[frame.rotate(90)], exif=some_exif(), xmp=XMP)
    data = out.getvalue()
    assert data.rindex(b"ANMF") < data.index(b"EXIF") < data.index(b"XMP ")
    metadata = read_metadata(data)
    assert exif_text(metadata.exif)["Software"] == "Some Software 1.2"
    assert "text é" in metadata.xmp


def test_gif_comments_are_found_anywhere() -> None:
    """Comments before, between and behind the frames of a GIF come back, and none from its pixels."""
    frame = picture()
    out = io.BytesIO()
    frame.save(out, "GIF", save_all=True, append_images=[frame.rotate(90)], comment=b"one")
    data = out.getvalue()
    second = data.rindex(b"!\xf9")  # the graphic control of the last frame
    assert read_metadata(data).comments == ("one",)
    data = data[:second] + b"!\xfe\3two\0" + data[second:-1] + b"!\xfe\2th\3ree\0" + data[-1:]
    assert read_metadata(data).comments == ("one", "two", "three")
    still = data.replace(b"!\xfe\3one\0", b"")
    pixels = still.index(b",", 13 + 768) + 11
    assert b"!\xfe" in (hidden := still[: pixels + 9] + b"!\xfe\3bad\0" + still[pixels + 16 :])
    assert "bad" not in read_metadata(hidden).comments


@pytest.mark.parametrize("container", ["jpeg", "png", "webp"])
def test_xmp_megabytes_into_the_file_is_found(container: str) -> None:
    """A packet behind ten megabytes of other blocks is read like one in front."""
    blocks = {
        "png": chunk(b"IDAT", bytes(5 << 20)) * 2 + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        "jpeg": segment(0xEB, b"JP" + bytes(65000)) * 160
        + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        "webp": (b"VP8 " + struct.pack("<I", 5 << 20) + bytes(5 << 20)) * 2
        + b"XMP "
        + struct.pack("<I", len(XMP))
        + XMP,
    }
    data = {
        "png": with_chunks(blocks["png"], last=True),
        "jpeg": with_segments(blocks["jpeg"]),
        "webp": encoded("WEBP") + blocks["webp"],
    }[container]
    assert data.index(XMP) > 10_000_000
    assert "text é" in read_metadata(data).xmp


@pytest.mark.parametrize("prefix", ["x", "xap", "a.b-c"])
def test_searched_packets_may_have_any_prefix(prefix: str) -> None:
    """In a container that is searched, the packet is found whatever its namespace prefix."""
    packet = XMP.replace(b"x:xmpmeta", prefix.encode() + b":xmpmeta")
    metadata = read_metadata(encoded("GIF") + packet + b"trailing")
    assert "<rdf:RDF>text é</rdf:RDF>" in metadata.xmp
    assert "trailing" not in metadata.xmp
    assert metadata.notes == ()


def test_extended_xmp_follows_the_main_packet() -> None:
    """Pieces of JPEG's extended XMP are put in order behind the main packet."""
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32
    pieces = [head + struct.pack(">II", 10, at) + piece for at, piece in ((5, b"world"), (0, b"hello"))]
    main = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<main/>")
    data = with_segments(main, *(segment(0xE1, piece) for piece in pieces))
    assert read_metadata(data).xmp == "<main/>\nhelloworld"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-16"])
def test_utf16_xmp_is_decoded(codec: str) -> None:
    """A packet in UTF-16 is decoded by its first bytes."""
    body = b"http://ns.adobe.com/xap/1.0/\0" + "<x:xmpmeta>ü</x:xmpmeta>".encode(codec)
    assert "<x:xmpmeta>ü</x:xmpmeta>" in read_metadata(with_segments(segment(0xE1, body))).xmp


def test_profiles_in_png_text_are_unpacked() -> None:
    """EXIF and XMP that ImageMagick wrote as hexadecimal text are read like their own chunks."""
    exif = some_exif().tobytes()
    bodies = {
        "exif": exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif,
        "xmp": XMP,
    }
    chunks = [
        chunk(
            b"zTXt",
            f"Raw profile type {name}".encode()
            + b"\0\0"
            + zlib.compress(f"\n{name}\n{len(body):8d}\n{body.hex()}\n".encode()),
        )
        for name, body in bodies.items()
    ]
    metadata = read_metadata(with_chunks(*chunks))
    assert exif_text(metadata.exif)["Software"] == "Some Software 1.2"
    assert "text é" in metadata.xmp
    assert metadata.text == ()


def test_iptc_credit_is_read() -> None:
    """The credit line of an IPTC-IIM block in a JPEG comes back."""
    field = b"\x1c\x02\x6e" + struct.pack(">H", 5) + b"Maker" + b"\x1c\x02\x78\0\1x"
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(field)) + field
    assert read_metadata(with_segments(segment(0xED, block))).iptc == (("Credit", "Maker"),)


def test_manifest_store_is_told_by_its_block() -> None:
    """The words of a manifest store count in its own block of JPEG, PNG and WebP, and nowhere else."""
    words = b"\0\0\0\x20jumb...jumdc2pa"
    assert read_metadata(with_segments(segment(0xEB, b"JP\0\1" + words))).has_jumbf
    assert read_metadata(with_chunks(chunk(b"caBX", words))).has_jumbf
    webp = encoded("WEBP") + b"C2PA" + struct.pack("<I", len(words)) + words
    assert read_metadata(webp).has_jumbf
    assert read_metadata(encoded("GIF") + words).has_jumbf
    assert not read_metadata(with_segments(segment(0xFE, words))).has_jumbf
    assert not read_metadata(with_chunks(chunk(b"IDAT", words), chunk(b"tEXt", b"k\0" + words))).has_jumbf
    assert not read_metadata(with_segments(segment(0xEB, b"JP\0\1jumb"))).has_jumbf


@pytest.mark.parametrize("container", list(FILES))
def test_truncated_files_are_read(container: str) -> None:
    """Cutting a file anywhere gives what stood before the cut, and no exception."""
    data = FILES[container]
    for stop in range(0, len(data), 97):
        metadata = read_metadata(data[:stop])
        exif_text(metadata.exif)
    assert read_metadata(data[:-1]).kind == container


@pytest.mark.parametrize("container", list(FILES))
def test_random_bytes_behind_a_header_are_read(container: str) -> None:
    """Noise behind a container's first bytes is not an error."""
    rng = np.random.default_rng(1)
    for size in (0, 1, 7, 64, 4096):
        for _ in range(20):
            metadata = read_metadata(FILES[container][:20] + rng.bytes(size))
            exif_text(metadata.exif)


def test_lying_lengths_end_the_walk() -> None:
    """A length beyond the file, or too short for itself, ends the walk with a note."""
    png = encoded("PNG")[:33] + struct.pack(">I", 0xFFFFFFFF) + b"tEXtkey\0value"
    assert read_metadata(png).text == (("key", "value"),)
    assert read_metadata(png).notes == ("file ends before its IEND chunk",)
    assert read_metadata(b"\xff\xd8\xff\xe1\0\1rest of it").notes == (
        "segment of impossible length at byte 2",
    )
    assert read_metadata(b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0").exif == b"II*\0"
    webp = encoded("WEBP")[:12] + b"EXIF" + struct.pack("<I", 0x7FFFFFFF) + b"II*\0"
    assert read_metadata(webp).exif == b"II*\0"
    assert read_metadata(webp).notes == ("chunk at byte 12 is longer than the file",)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_inflated_text_is_bounded(kind: bytes) -> None:
    """A text that inflates to a gigabyte is cut, and many of them share one budget."""
    squeeze = zlib.compressobj(9)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    head = b"key\0\0" if kind == b"zTXt" else b"key\0\1\0\0\0"
    started = time.process_time()
    metadata = read_metadata(with_chunks(*[chunk(kind, head + bomb)] * 40))
    assert time.process_time() - started < 1
    assert max(len(text) for _, text in metadata.text) <= MAX_TEXT
    assert sum(len(text) for _, text in metadata.text) <= MAX_INFLATED
    assert any("unreadable" in note for note in metadata.notes)


def test_large_xmp_is_cut() -> None:
    """50 MB of XMP give the first MAX_TEXT bytes and a note, in less than a second."""
    big = b"<x:xmpmeta>" + b"<a/>" * 12_500_000
    png = with_chunks(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + big))
    pieces = [b"http://ns.adobe.com/xap/1.0/\0" + big[at : at + 65000] for at in range(0, len(big), 65000)]
    jpeg = with_segments(*(segment(0xE1, piece) for piece in pieces))
    webp = encoded("WEBP") + b"XMP " + struct.pack("<I", len(big)) + big
    gif = encoded("GIF") + big
    started = time.process_time()
    for data in (png, jpeg, webp, gif):
        metadata = read_metadata(data)
        assert MAX_TEXT <= len(metadata.xmp) <= MAX_TEXT + 1000
        assert any("XMP" in note for note in metadata.notes)
    assert time.process_time() - started < 1


def test_many_blocks_are_bounded() -> None:
    """A file of a million empty chunks, texts or fill bytes is walked up to the bound only."""
    texts = read_metadata(with_chunks(chunk(b"tEXt", b"k\0v") * 100_000))
    assert len(texts.text) == MAX_ENTRIES
    assert any("texts" in note for note in texts.notes)
    empty = read_metadata(with_chunks(chunk(b"abCD", b"") * 1_000_000))
    assert empty.notes == (f"more than {MAX_BLOCKS} chunks; the rest was not read",)
    started = time.process_time()
    subblocks = read_metadata(encoded("GIF")[:-1] + b"!\xfe" + b"\1a" * 20_000_000)
    assert len(subblocks.comments[0]) <= 1 << 20
    comments = read_metadata(encoded("GIF")[:-1] + b"!\xfe\1a\0" * 5_000_000)
    assert len(comments.comments) == MAX_ENTRIES
    assert time.process_time() - started < 1
    fill = read_metadata(b"\xff\xd8" + b"\xff" * 1_000_000)
    assert fill.notes == (f"more than {MAX_BLOCKS} segments; the rest was not read",)


def test_unknown_bytes_are_unknown() -> None:
    """Bytes of no known container are not searched."""
    metadata = read_metadata(b"BM" + XMP + b"jumb c2pa")
    assert metadata.kind == "unknown"
    assert metadata.xmp == ""
    assert not metadata.has_jumbf


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(
    container=st.sampled_from(sorted(FILES)),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), max_size=6),
    stop=st.integers(0, 10_000),
)
def test_mutated_files_never_raise(container: str, edits: list[tuple[int, bytes]], stop: int) -> None:
    """Whatever bytes of a file are overwritten, reading it gives metadata."""
    data = bytearray(FILES[container])
    for at, new in edits:
        start = at % len(data)
        data[start : start + len(new)] = new
    metadata = read_metadata(bytes(data[: len(data) - stop % len(data) // 4]))
    assert all(isinstance(text, str) for text in exif_text(metadata.exif).values())
