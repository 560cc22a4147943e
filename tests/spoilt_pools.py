"""Images, tars and tables with something wrong in them, drawn at random from a seed."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import image_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Rng = np.random.Generator

SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)
"""Numbers that lengths and sides are replaced by."""


@cache
def whole_images() -> tuple[tuple[str, bytes], ...]:
    """Ending and bytes of small images: all formats that are decoded, and metadata of all kinds that are read."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(pixels)

    def save(container: str, drawn: Image.Image = image, **options: object) -> bytes:
        buffer = io.BytesIO()
        drawn.save(buffer, container, **options)
        return buffer.getvalue()

    frames = [Image.fromarray(np.roll(pixels, i, axis=0)) for i in range(3)]
    several = {"save_all": True, "append_images": frames}
    ycck = image.convert("CMYK")
    return (
        ("jpg", save("JPEG")),
        ("jpg", save("JPEG", progressive=True)),
        ("jpg", save("JPEG", ycck)),
        ("jpg", save("JPEG", image.convert("L"))),
        ("png", save("PNG")),
        ("png", save("PNG", image.convert("RGBA"))),
        ("png", save("PNG", image.quantize(16))),
        (
            "png",
            save("PNG", image.convert("I;16") if image.mode == "L" else image.convert("L").convert("I;16")),
        ),
        ("png", save("PNG", **several)),
        ("webp", save("WEBP")),
        ("webp", save("WEBP", lossless=True)),
        ("webp", save("WEBP", **several)),
        ("gif", save("GIF")),
        ("gif", save("GIF", **several)),
        ("bmp", save("BMP")),
        ("tif", save("TIFF")),
        ("tif", save("TIFF", compression="tiff_lzw")),
        ("tif", save("TIFF", compression="tiff_adobe_deflate")),
        ("avif", save("AVIF")),
        ("jp2", save("JPEG2000")),
        ("ppm", save("PPM")),
        ("png", image_files.png_with(parameters=image_files.A1111, workflow=image_files.WORKFLOW)),
        ("png", image_files.png_with(prompt=image_files.GRAPH)),
        ("jpg", image_files.with_exif({0x9286: b"UNICODE\0" + image_files.A1111.encode("utf-16-be")})),
        ("webp", image_files.with_exif({0x10F: image_files.GRAPH}, "WEBP")),
        ("jpg", image_files.with_xmp(image_files.source_type("trainedAlgorithmicMedia"))),
        ("webp", image_files.with_xmp(image_files.source_type("trainedAlgorithmicMedia"), container="WEBP")),
        ("jpg", image_files.with_credit(b"Made with a generator")),
        ("jpg", image_files.encoded("JPEG") + image_files.trailer(PhotoEditor_Re_Edit_Data="{}")),
    )


def spoil(data: bytes, rng: Rng, others: tuple[bytes, ...] = ()) -> bytes:
    """Bytes with one to three things wrong."""
    for _ in range(int(rng.integers(1, 4))):
        data = WRONGS[int(rng.integers(len(WRONGS)))](data, rng, others)
    return data


def _flip(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    del others
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if found:
            found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _flip_early(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    return _flip(data[:64], rng, others) + data[64:]


def _cut(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    del others
    return data[: int(rng.integers(len(data) + 1))]


def _lose(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    del others
    start, stop = sorted(int(each) for each in rng.integers(0, len(data) + 1, 2))
    return data[:start] + data[min(stop, start + 64) :]


def _repeat(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    del others
    start, stop = sorted(int(each) for each in rng.integers(0, len(data) + 1, 2))
    return data[:stop] + data[start:stop] * int(rng.integers(1, 4)) + data[stop:]


def _splice(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    other = others[int(rng.integers(len(others)))] if others else rng.bytes(64)
    at, start = int(rng.integers(len(data) + 1)), int(rng.integers(len(other) + 1))
    return data[:at] + other[start : start + int(rng.integers(1, 400))] + data[at:]


def _declare(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    """Writes an extreme number over one of the file's, most often in its head."""
    del others
    width = int(rng.choice([2, 4]))
    number = int(rng.choice(SIZES)) & ((1 << 8 * width) - 1)
    written = struct.pack(("<" if rng.random() < 0.5 else ">") + {2: "H", 4: "I"}[width], number)
    at = int(rng.integers(max(1, min(len(data), 96 if rng.random() < 0.7 else len(data)))))
    return data[:at] + written + data[at + width :]


def _append(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    tails = (rng.bytes(100), b"\0" * 1000, b"PK\3\4" + rng.bytes(40), *others[:1], b"SEFT", b"\xff\xd9" * 9)
    return data + tails[int(rng.integers(len(tails)))]


def _overwrite(data: bytes, rng: Rng, others: tuple[bytes, ...]) -> bytes:
    del others
    at, n = int(rng.integers(len(data) + 1)), int(rng.integers(1, 80))
    return data[:at] + rng.bytes(n) + data[at + n :]


WRONGS: tuple[Callable[[bytes, Rng, tuple[bytes, ...]], bytes], ...] = (
    _flip,
    _flip_early,
    _cut,
    _lose,
    _repeat,
    _splice,
    _declare,
    _declare,
    _append,
    _overwrite,
)


def spoilt_image(rng: Rng) -> tuple[str, bytes]:
    """Ending and bytes of an image with something wrong."""
    images = whole_images()
    ending, data = images[int(rng.integers(len(images)))]
    others = (images[int(rng.integers(len(images)))][1],)
    return ending, spoil(data, rng, others)


NAMES = (
    "../out.png",
    "../../../../tmp/out.png",
    "/tmp/out.png",
    "a/../../out.png",
    "./a.png",
    "a//b.png",
    "..png",
    ".png",
    "con.png",
    "a" * 150 + ".png",
    "caf\udce9.png",
    "new\nline.png",
    "a\\..\\b.png",
    "x.png/",
    "-rf.png",
    "\u202egnp.png",
)
"""Names that a member may have and no file should be written under."""


def spoilt_tar(path: Path, rng: Rng) -> Path:
    """A tar of three items with hostile names, links and headers, or with bytes wrong after it was closed."""
    images = whole_images()
    kind = int(rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind, errors="surrogateescape") as tar:
        for i in range(3):
            ending, data = images[int(rng.integers(len(images)))]
            name = f"{i:03d}.{ending}"
            if rng.random() < 0.4:
                name = NAMES[int(rng.integers(len(NAMES)))]
            if kind == tarfile.USTAR_FORMAT:
                name = name[-90:]
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if kind == tarfile.PAX_FORMAT and rng.random() < 0.5:
                values = (
                    {"path": "../" + name[:60]},
                    {"size": "99999999999"},
                    {"GNU.sparse.size": "-1"},
                    {"x": "\n"},
                )
                info.pax_headers = values[int(rng.integers(len(values)))]
            if rng.random() < 0.15:
                info.type = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"S", b"V"][
                    int(rng.integers(5))
                ]
                info.linkname, info.size = "../../etc/passwd", 0
                tar.addfile(info)
            else:
                tar.addfile(info, io.BytesIO(data))
            beside = tarfile.TarInfo(name.rpartition(".")[0] + (".txt" if rng.random() < 0.8 else ".."))
            beside.size = 3
            tar.addfile(beside, io.BytesIO(b"cat"))
    data = buffer.getvalue()
    if rng.random() < 0.7:
        data = _spoil_header(data, rng) if rng.random() < 0.5 else spoil(data, rng)
    path.write_bytes(data)
    return path


def _spoil_header(data: bytes, rng: Rng) -> bytes:
    """One header with another size, type or name, its sum made right again."""
    starts = [i for i in range(0, len(data) - 511, 512) if data[i + 257 : i + 262] == b"ustar"]
    if not starts:
        return data
    at = starts[int(rng.integers(len(starts)))]
    header = bytearray(data[at : at + 512])
    turn = int(rng.integers(4))
    if turn == 0:
        sizes = (
            b"77777777777\0",
            b"\x80" + b"\xff" * 11,
            b"\xff" * 12,
            b"-1\0".ljust(12, b"\0"),
            b"9" * 12,
            b"\0" * 12,
        )
        header[124:136] = sizes[int(rng.integers(len(sizes)))]
    elif turn == 1:
        header[156] = int(rng.choice(list(b"0123456LKxgSDV\0\xff")))
    elif turn == 2:
        header[0:100] = (
            NAMES[int(rng.integers(len(NAMES)))].encode("utf-8", "surrogateescape")[:100].ljust(100, b"\0")
        )
    else:
        header[int(rng.integers(512))] = int(rng.integers(256))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def spoilt_table(path: Path, rng: Rng) -> Path:
    """A Parquet file of three items with hostile keys, paths and cells, or with bytes wrong after it was closed."""
    images = [whole_images()[int(i)][1] for i in rng.integers(len(whole_images()), size=3)]
    names = [NAMES[int(i)].encode("utf-8", "replace").decode() for i in rng.integers(len(NAMES), size=3)]
    cells: list[bytes | None] = list(images)
    if rng.random() < 0.3:
        cells[int(rng.integers(3))] = None
    pairs = [{"bytes": cell, "path": name} for cell, name in zip(cells, names, strict=True)]
    columns: dict[str, object] = {"image": pairs if rng.random() < 0.7 else cells}
    if rng.random() < 0.5:
        columns["key"] = names
    columns["caption"] = ["a", None, "c"]
    codec = str(rng.choice(["snappy", "zstd", "none"]))
    pq.write_table(
        pa.table(columns),
        path,
        row_group_size=int(rng.integers(1, 4)),
        compression=codec,
        use_dictionary=False,
    )
    if rng.random() < 0.8:
        data = path.read_bytes()
        if rng.random() < 0.4:  # the footer, where the lengths are
            n = min(len(data), 12 + int.from_bytes(data[-8:-4], "little"))
            data = data[:-n] + spoil(data[-n:-8], rng) + data[-8:]
        else:
            data = spoil(data, rng)
        path.write_bytes(data)
    return path
