"""Seconds of one core per image, by what is read off it: `OMP_NUM_THREADS=1 python benchmarks/tiers.py [--clip]`.

Images are JPEGs of smooth colours under fine noise at two sizes, already in memory: what a disk or a network
takes is not in the figures. The tiers: bytes alone (hash and provenance), decoding (header and pixels), hidden
bits of pixels, weight-free features, public marks, control marks (one item in eight gets one), and with `--clip`
the vector of a CLIP ViT-B/32 in single precision, whose weights are made on the spot. Medians over the repeats.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.audit.marks import control_found
from poolproof.detectors.embed import load_embedder
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.provenance import read_provenance
from poolproof.detectors.stealth import read_stealth
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.public_marks import read_marks

CLIP_BATCH = 32


def draw_jpeg(side: int, rng: np.random.Generator) -> bytes:
    """A JPEG of quality 90, smooth colours under fine noise."""
    coarse = Image.fromarray(rng.integers(0, 256, size=(24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    pixels = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def milliseconds(task: Callable[[Any], object], inputs: Sequence[Any], repeats: int) -> float:
    """Processor time of a task per input: the median over the repeats, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        started = time.process_time()
        for value in inputs:
            task(value)
        found.append((time.process_time() - started) / len(inputs) * 1000)
    return statistics.median(found[1:])


def measure_tiers(side: int, n: int, repeats: int, rng: np.random.Generator) -> dict[str, float]:
    """Milliseconds per image by tier, at one size."""
    payloads = load_payloads()
    files = [draw_jpeg(side, rng) for _ in range(n)]
    decoded = [decode_image(data) for data in files]
    pixels = [each.pixels for each in decoded if each.pixels is not None]
    draws = np.random.default_rng(0)

    def control(number: int) -> bool | None:
        return control_found(pixels[number], decoded[number].header, payloads, number, rng=draws)

    return {
        "bytes": milliseconds(lambda data: (hashlib.sha256(data), read_provenance(data)), files, repeats),
        "decode": milliseconds(decode_image, files, repeats),
        "hidden bits": milliseconds(lambda array: read_stealth(array, None), pixels, repeats),
        "weight-free": milliseconds(forensic_features, pixels, repeats),
        "marks": milliseconds(lambda array: read_marks(array, payloads), pixels, repeats),
        "controls / 8": milliseconds(control, range(n), repeats) / 8,
    }


def measure_clip(n: int, repeats: int, rng: np.random.Generator) -> float:
    """Milliseconds per image of 512 pixels, in batches, with weights that are made on the spot."""
    import open_clip
    from safetensors.torch import save_file

    pixels = [decode_image(draw_jpeg(512, rng)).pixels for _ in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "made.safetensors"
        save_file(open_clip.create_model("ViT-B-32", pretrained=None).state_dict(), weights)
        model = load_embedder(f"clip:ViT-B-32/{weights}", bfloat16=False)
    assert model is not None
    batches = [pixels[start : start + CLIP_BATCH] for start in range(0, n, CLIP_BATCH)]
    return milliseconds(model.embed, batches, repeats) * len(batches) / n


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What each tier of evidence costs.")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clip", action="store_true")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    for side in (512, 1024):
        found = measure_tiers(side, options.images, options.repeats, rng)
        for name, each in (*found.items(), ("together", sum(found.values()))):
            print(f"{side:5} px  {name:13}{each:8.2f} ms  {1000 / each:9.1f} images/s a core", flush=True)
    if options.clip:
        each = measure_clip(options.images, options.repeats, rng)
        print(f"  512 px  CLIP ViT-B/32{each:8.2f} ms  {1000 / each:9.1f} images/s a core")


if __name__ == "__main__":
    main()
