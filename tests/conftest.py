"""Pools to read and files to stumble over, made on the spot."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

MARKUP_NAME = "<img src=x onerror=alert(1)>.png"


@dataclass(frozen=True)
class HostileFile:
    """A file that a pool may hold, and what should become of it.

    Attributes:
        name: a path relative to the pool; bytes where it is not text.
        content: its bytes, or what makes it at the path it is given.
        status: of its row in the evidence.
        code: what the reason begins with, up to the colon; None where it is scored.
    """

    name: str | bytes
    content: bytes | Callable[[Path], None]
    status: str
    code: str | None = None

    def write(self, folder: Path) -> Path:
        """Puts the file into a folder; returns where it is."""
        path = folder / os.fsdecode(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20260725)


@pytest.fixture
def make_image() -> Callable[..., Image.Image]:
    """Draws an RGB image: blurred patches of colour under fine noise."""
    return _draw


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The bytes of an image in a format, with the options of Pillow's `save`."""
    return _encode


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of n small images, JPEG and PNG in turn."""

    def make(n: int, name: str = "folder", seed: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i, data in enumerate(_encoded(n, seed)):
            (folder / f"{i:04d}{_ending(data)}").write_bytes(data)
        return folder

    return make


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[..., Path]:
    """Writes a WebDataset tar: n images with captions, or the members given as (name, bytes)."""

    def make(
        n: int = 0,
        name: str = "pool.tar",
        seed: int = 0,
        members: Sequence[tuple[str, bytes]] | None = None,
        kind: int = tarfile.GNU_FORMAT,
    ) -> Path:
        if members is None:
            members = [
                member
                for i, data in enumerate(_encoded(n, seed))
                for member in ((f"{i:06d}{_ending(data)}", data), (f"{i:06d}.txt", f"caption {i}".encode()))
            ]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=kind) as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.fixture
def make_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Parquet file: n images as structs of bytes and path with keys, or the columns given."""

    def make(
        n: int = 0,
        name: str = "pool.parquet",
        seed: int = 0,
        columns: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        if columns is None:
            images = _encoded(n, seed)
            columns = {
                "image": [{"bytes": d, "path": f"{i:04d}{_ending(d)}"} for i, d in enumerate(images)],
                "key": [f"key-{i:04d}" for i in range(n)],
                "caption": [f"caption {i}" for i in range(n)],
            }
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(columns)), path, **options)
        return path

    return make


@pytest.fixture
def hostile_files() -> Callable[[], list[HostileFile]]:
    """Lists files that readers stumble over, with the status and the reason's code that each should get."""

    def make() -> list[HostileFile]:
        return [*_damaged(), *_unsupported(), *_unusual(), *_no_files()]

    return make


@pytest.fixture
def make_png16() -> Callable[[np.ndarray], bytes]:
    """A PNG of 16-bit values, gray or RGB: Pillow writes no such RGB."""
    return _png16


def _draw(width: int = 48, height: int = 40, seed: int = 0, noise: float = 12.0) -> Image.Image:
    source = np.random.default_rng(seed)
    coarse = source.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + source.normal(0, noise, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _encoded(n: int, seed: int) -> list[bytes]:
    return [
        _encode(_draw(40 + i % 9, 32 + i % 5, seed * 10_000 + i), "JPEG" if i % 2 == 0 else "PNG")
        for i in range(n)
    ]


def _ending(data: bytes) -> str:
    return ".jpg" if data.startswith(b"\xff\xd8") else ".png"


def _damaged() -> list[HostileFile]:
    source = np.random.default_rng(1)
    image = _draw(200, 160)
    jpeg, png, webp = _encode(image, "JPEG"), _encode(image, "PNG"), _encode(image, "WEBP")
    tiff = _encode(image, "TIFF")
    noise = source.bytes(len(jpeg))
    return [
        HostileFile("empty.jpg", b"", "unreadable", "empty"),
        HostileFile("page.jpg", b"<!DOCTYPE html><html>404</html>", "unreadable", "not-an-image"),
        HostileFile("text.png", b"just some words", "unreadable", "not-an-image"),
        HostileFile("third.jpg", jpeg[: len(jpeg) // 3], "unreadable", "truncated"),
        HostileFile("third.png", png[: len(png) // 3], "unreadable", "truncated"),
        HostileFile("third.webp", webp[: len(webp) // 3], "unreadable", "truncated"),
        HostileFile("third.tif", tiff[: len(tiff) // 3], "unreadable", "truncated"),
        HostileFile("header.jpg", jpeg[:20] + noise, "unreadable", "damaged"),
        HostileFile("header.png", png[:33] + noise, "unreadable", "damaged"),
        HostileFile("half.jpg", jpeg[: len(jpeg) // 2] + noise[: len(jpeg) // 2], "unreadable", "damaged"),
        HostileFile("half.png", png[: len(png) // 2] + noise[: len(png) // 2], "unreadable", "damaged"),
    ]


def _unsupported() -> list[HostileFile]:
    pixels = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    return [
        HostileFile("one.png", _encode(_draw(1, 1), "PNG"), "unsupported", "too-small"),
        HostileFile("bomb.png", _bomb(), "unsupported", "too-large"),
        HostileFile("float.tif", _encode(Image.fromarray(pixels), "TIFF"), "unsupported", "float-pixels"),
        HostileFile("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported", "format"),
        HostileFile("drawing.svg", b'<?xml version="1.0"?><svg xmlns="x"/>', "unsupported", "format"),
    ]


def _unusual() -> list[HostileFile]:
    image = _draw(64, 48)
    frames = [_draw(64, 48, seed) for seed in range(1, 4)]
    animated = {"save_all": True, "append_images": frames}
    gray16 = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    return [
        HostileFile("gray16.png", _png16(gray16), "scored"),
        HostileFile("rgb16.png", _png16(np.stack([gray16] * 3, axis=2)), "scored"),
        HostileFile("cmyk.jpg", _encode(image.convert("CMYK"), "JPEG"), "scored"),
        HostileFile("palette.png", _encode(image.quantize(16), "PNG", transparency=3), "scored"),
        HostileFile("bits.png", _encode(image.convert("1"), "PNG"), "scored"),
        HostileFile("alpha.png", _encode(image.convert("RGBA"), "PNG"), "scored"),
        HostileFile("animated.gif", _encode(image, "GIF", **animated), "scored"),
        HostileFile("animated.webp", _encode(image, "WEBP", **animated), "scored"),
        HostileFile("animated.png", _encode(image, "PNG", **animated), "scored"),
        HostileFile("wide.png", _encode(_draw(20_000, 16), "PNG"), "scored"),
        HostileFile("misnamed.png", _encode(image, "JPEG"), "scored"),
        HostileFile(MARKUP_NAME, _encode(image, "PNG"), "scored"),
        HostileFile(b"caf\xe9.png", _encode(_draw(64, 48, 9), "PNG"), "scored"),
        HostileFile("new\nline.png", _encode(_draw(64, 48, 10), "PNG"), "scored"),
    ]


def _no_files() -> list[HostileFile]:
    def deny(path: Path) -> None:
        path.write_bytes(_encode(_draw(), "PNG"))
        path.chmod(0)

    files = [
        HostileFile("dangling.jpg", lambda path: path.symlink_to("nowhere.jpg"), "missing", "no-file"),
        HostileFile("itself.jpg", lambda path: path.symlink_to(path.name), "unreadable", "read-error"),
        HostileFile("pipe.jpg", os.mkfifo, "unreadable", "not-a-file"),
    ]
    if os.geteuid() != 0:  # the superuser reads everything
        files.append(HostileFile("denied.png", deny, "unreadable", "denied"))
    return files


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png16(values: np.ndarray) -> bytes:
    height, width = values.shape[:2]
    colour = 2 if values.ndim == 3 else 0
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0: none
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b"")


def _bomb() -> bytes:
    """A PNG of a few kilobytes whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b"")
