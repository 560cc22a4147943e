"""Pictures without a mark that resemble what a pool holds, and every scheme that marks them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from poolproof.watermark.dwt import VARIANTS
from poolproof.watermark.key import Key
from poolproof.watermark.payloads import Payload
from poolproof.watermark.peers import PEERS, load_peer
from poolproof.watermark.schemes import AbstractScheme, DwtScheme, SpreadScheme


def landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured clouds of all scales with falling power, a light slope, and sensor noise."""
    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.fftfreq(width)[None, :]
    falling = 1 / (np.hypot(rows, columns) + 1 / max(height, width))
    planes = []
    shared = rng.normal(size=(height, width))
    for spread in (40, 36, 44):
        noise = 0.8 * shared + 0.6 * rng.normal(size=(height, width))
        field = np.fft.ifft2(np.fft.fft2(noise) * falling).real
        planes.append(128 + spread * field / field.std())
    slope = np.linspace(-50, 50, height)[:, None, None] * rng.normal(size=3)
    noisy = np.stack(planes, axis=2) + slope + rng.normal(scale=3, size=(height, width, 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def page(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured lines of text and boxes on a flat ground."""
    ground, *inks = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(6))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    for top in range(0, height, 16):
        text = "".join(chr(int(c)) for c in rng.integers(33, 127, width // 6))
        draw.text((4, top), text, fill=inks[top // 16 % 5])
    for ink in inks:
        x, y = int(rng.integers(0, width - 80)), int(rng.integers(0, height - 80))
        draw.rectangle((x, y, x + int(rng.integers(8, 80)), y + int(rng.integers(8, 80))), fill=ink)
    return np.asarray(image)


def stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Upright coloured stripes whose pattern repeats after a multiple of 64 pixels, the rhythm of letters."""
    period = int(rng.choice([8, 16, 24, 32]))
    pattern = rng.integers(0, 256, (period, 3), dtype=np.uint8).repeat(8, axis=0)
    row = np.tile(pattern, (-(-width // len(pattern)), 1))[:width]
    return np.broadcast_to(row, (height, width, 3)).copy()


@pytest.fixture(scope="session")
def landscapes() -> list[np.ndarray]:
    """Twelve natural-looking pictures of different shapes."""
    rng = np.random.default_rng(20)
    shapes = [(256, 256), (320, 384), (384, 512), (301, 347)] * 3
    return [landscape(rng, *shape) for shape in shapes]


@pytest.fixture(scope="session")
def clean_images(landscapes: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures without a mark of many kinds: landscapes, their flips, pages, slopes, noise, stripes."""
    rng = np.random.default_rng(21)
    images = [*landscapes, *(image[:, ::-1].copy() for image in landscapes)]
    images += [page(rng, 320, width) for width in (256, 320, 512, 520)]
    images += [stripes(rng, 256, width) for width in (256, 320, 512, 576, 512, 512, 768, 256)]
    for _ in range(4):
        start, stop = rng.uniform(0, 255, (2, 3))
        ramp = np.linspace(0, 1, 512)[None, :, None] * (stop - start) + start
        images.append(np.broadcast_to(np.rint(ramp), (256, 512, 3)).astype(np.uint8).copy())
        images.append(rng.integers(0, 256, (288, 256, 3), dtype=np.uint8))
    return images


KEY = Key(bytes(range(16)))
BITS = tuple(int(c) for c in "10110011111011001001000001111011")

ALL_SCHEMES: dict[str, Callable[[], AbstractScheme]] = {
    "spread": lambda: SpreadScheme(KEY),
    "spread-32": lambda: SpreadScheme(KEY, BITS),
    **{
        str(variant): lambda variant=variant: DwtScheme(
            Payload("own", BITS, (True,) * len(BITS), variant.algorithm), variant
        )
        for variant in VARIANTS
    },
    **{name: lambda name=name: load_peer(name, BITS) for name in PEERS},
}
"""Every scheme, by name: what the contract tests go through."""


@pytest.fixture(params=ALL_SCHEMES)
def scheme(request: pytest.FixtureRequest) -> AbstractScheme:
    """Each scheme in turn."""
    return ALL_SCHEMES[request.param]()


@pytest.fixture(scope="session")
def large_landscapes() -> list[np.ndarray]:
    """Natural-looking pictures with room for a long payload."""
    rng = np.random.default_rng(22)
    return [landscape(rng, *shape) for shape in ((512, 512), (512, 640))]
