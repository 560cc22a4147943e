"""Small image files with metadata as their writers leave it, made on the spot by Pillow."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image, PngImagePlugin

A1111 = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
GRAPH = json.dumps({"3": {"inputs": {"seed": 1}, "class_type": "KSampler"}})
WORKFLOW = json.dumps({"last_node_id": 9, "nodes": [{"id": 7, "type": "VAEDecode"}]})
SWARM = json.dumps({"sui_image_params": {"prompt": "a cat", "seed": 1}})
AIGC = json.dumps({"AIGC": {"Label": "1", "ContentProducer": "001", "ProduceID": "x"}})
AIGC_MAYBE = json.dumps({"Label": "3", "ContentProducer": "001", "ProduceID": "x"})
AIGC_SERVICE = json.dumps({"AIGC": {"Label": "1", "ServiceProvider": "some cloud", "ServiceUser": "u"}})
AIGC_UNLABELLED = json.dumps({"ServiceProvider": "some cloud", "ServiceUser": "u", "Time": "2025-10-01"})
FOOOCUS = json.dumps({"base_model": "x", "metadata_scheme": "fooocus", "version": "Fooocus v2.5.5"})
NOVELAI = json.dumps({"prompt": "a cat", "steps": 28, "sampler": "k_euler", "seed": 1, "uc": "lowres"})
UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def encoded(container: str, seed: int = 0, **options: object) -> bytes:
    """A small noisy picture as a file of the given Pillow format."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save(out, container, **options)
    return out.getvalue()


def png_with(**texts: str) -> bytes:
    """A PNG with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return encoded("PNG", pnginfo=info)


def with_exif(tags: Mapping[int, str | bytes], container: str = "JPEG") -> bytes:
    """A file with EXIF tags; UserComment goes into the Exif directory."""
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag == 0x9286:
            exif.get_ifd(0x8769)[tag] = value
        else:
            exif[tag] = value
    return encoded(container, exif=exif)


def packet(inside: str, attributes: str = "") -> str:
    """An XMP packet around one description."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}>{inside}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def with_xmp(inside: str, attributes: str = "", container: str = "JPEG") -> bytes:
    """A JPEG or WebP file with an XMP packet."""
    return encoded(container, xmp=packet(inside, attributes).encode())


def with_credit(credit: bytes) -> bytes:
    """A JPEG with an IPTC-IIM credit line."""
    field = b"\x1c\x02\x6e" + struct.pack(">H", len(credit)) + credit
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(field)) + field
    data = encoded("JPEG")
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:]


def source_type(term: str) -> str:
    """An element that gives the IPTC digital source type."""
    return f"<Iptc4xmpExt:DigitalSourceType>{TYPES}{term}</Iptc4xmpExt:DigitalSourceType>"


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(*chunks: bytes, last: bool = False) -> bytes:
    """A PNG with chunks behind its header, or behind its image data."""
    data = encoded("PNG")
    at = data.rindex(b"IEND") - 4 if last else 33
    return data[:at] + b"".join(chunks) + data[at:]


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with segments behind its first marker."""
    data = encoded("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def trailer(**entries: str) -> bytes:
    """A Samsung trailer: blocks, a directory that points back to them, its length, and `SEFT`."""
    blocks, spans = b"", []
    for name, text in entries.items():
        block = struct.pack("<HHI", 0, 0x0BA1, len(name)) + name.encode() + text.encode()
        spans.append((len(blocks), len(block)))
        blocks += block
    directory = b"SEFH" + struct.pack("<II", 107, len(spans))
    for start, size in spans:
        directory += struct.pack("<HHII", 0, 0x0BA1, len(blocks) - start, size)
    return blocks + directory + struct.pack("<I", len(directory)) + b"SEFT"
