"""Small pools whose two classes differ in content alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import load_payloads

SIDE = 64


def draw(rng: np.random.Generator, *, synthetic: bool, side: int = SIDE) -> np.ndarray:
    """A smooth image with fine noise; the synthetic ones' noise is correlated between neighbours."""
    coarse = rng.integers(40, 216, size=(4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    noise = rng.normal(0, 6, size=smooth.shape)
    if synthetic:
        noise = (noise + np.roll(noise, 1, axis=0) + np.roll(noise, 1, axis=1)) / np.sqrt(3)
    return np.clip(smooth + noise, 0, 255).round().astype(np.uint8)


def encode(pixels: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """A PNG, with text chunks on request."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def write_class(folder: Path, n: int, *, synthetic: bool, seed: int, prefix: str = "") -> Path:
    """A folder of n images of one class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        (folder / f"{prefix}{i:04d}.png").write_bytes(encode(draw(rng, synthetic=synthetic)))
    return folder


def write_mixed(folder: Path, n_real: int, n_synthetic: int, *, seed: int) -> Path:
    """A pool of both classes; names do not tell them apart to the audit, `r` and `s` do to the tests."""
    write_class(folder, n_real, synthetic=False, seed=seed, prefix="r")
    return write_class(folder, n_synthetic, synthetic=True, seed=seed + 1, prefix="s")


def add_evidence(folder: Path, *, declared: int, marked: int, seed: int = 99) -> None:
    """Adds synthetic items that declare themselves, and items that carry a public mark."""
    rng = np.random.default_rng(seed)
    text = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
    for i in range(declared):
        data = encode(draw(rng, synthetic=True), {"parameters": text})
        (folder / f"d{i:04d}.png").write_bytes(data)
    payload = next(p for p in load_payloads() if len(p.bits) == 48)
    for i in range(marked):
        pixels = draw(rng, synthetic=True, side=512)
        (folder / f"m{i:04d}.png").write_bytes(encode(embed_dwt(pixels, payload.bits)))
