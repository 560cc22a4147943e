"""What the audit's pass costs beyond its kernels: `python benchmarks/audit_overhead.py [--data DIR]`.

Runs, in turn and in one process tree, the pass (`run_shards`: plan, reading, hashing, status, evidence, commits)
and a bare loop that does nothing but the same decode and kernels file by file. Both start spawned processes with
one thread each, and both pay for the start. Prints images per second and ratios; nothing is asserted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.audit.engine import one_thread_each, run_shards
from poolproof.audit.plan import make_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.score import Scorer
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.provenance import read_provenance
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.public_marks import read_marks


def make_images(folder: Path, n: int, source: Path | None, rng: np.random.Generator) -> None:
    """Writes n JPEGs of 256 to 512 pixels: crops of the source's pictures, or smooth noise without one."""
    pictures = []
    if source is not None:
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(source.glob("*.png"))]
    for i in range(n):
        height, width = rng.integers(256, 513, size=2)
        if pictures:
            picture = pictures[i % len(pictures)]
            top = rng.integers(0, max(1, picture.shape[0] - height))
            left = rng.integers(0, max(1, picture.shape[1] - width))
            pixels = picture[top : top + height, left : left + width]
        else:
            coarse = rng.integers(0, 256, size=(24, 24, 3), dtype=np.uint8)
            size = (int(width), int(height))
            pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(folder / f"{i:05d}.jpg", quality=90)


def bare_loop(paths: list[Path]) -> None:
    """Decode and kernels, nothing else."""
    payloads = load_payloads()
    for path in paths:
        data = path.read_bytes()
        read_provenance(data)
        pixels = decode_image(data).pixels
        assert pixels is not None
        read_marks(pixels, payloads)
        forensic_features(pixels)


def time_bare(paths: list[Path], workers: int) -> float:
    """Seconds of the bare loop, its paths dealt out to spawned processes."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    with one_thread_each():
        processes = [context.Process(target=bare_loop, args=(paths[i::workers],)) for i in range(workers)]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def time_pass(pool: Path, workers: int) -> float:
    """Seconds of listing, planning and scoring the pool."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        plan = make_plan(open_pool(pool), Path(out) / "plan.parquet", rng=np.random.default_rng(0))
        run_shards(plan, Scorer(), Path(out) / "evidence", "0" * 64, workers=workers)
        return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The audit's pass beside its bare kernels.")
    parser.add_argument("--data", type=Path, help="folder with kodak/*.png; without it, smooth noise")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    source = options.data / "kodak" if options.data else None
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder)
        make_images(pool, options.images, source, np.random.default_rng(0))
        paths = sorted(pool.iterdir())
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.repeats):
            for workers in (1, 2):
                rates.setdefault(("bare", workers), []).append(len(paths) / time_bare(paths, workers))
                rates.setdefault(("pass", workers), []).append(len(paths) / time_pass(pool, workers))
    median = {key: statistics.median(values) for key, values in rates.items()}
    for (what, workers), rate in sorted(median.items()):
        spread = ", ".join(f"{value:.0f}" for value in rates[what, workers])
        print(f"{what:5} {workers} worker{'s' * (workers > 1)}  {rate:7.1f} images/s   ({spread})")
    for workers in (1, 2):
        ratio = median["pass", workers] / median["bare", workers]
        print(f"pass / bare loop, {workers} worker{'s' * (workers > 1)}: {ratio:.3f}")
    print(f"2 workers / 1 worker, pass: {median['pass', 2] / median['pass', 1]:.3f}")
    print(f"2 workers / 1 worker, bare: {median['bare', 2] / median['bare', 1]:.3f}")


if __name__ == "__main__":
    main()
