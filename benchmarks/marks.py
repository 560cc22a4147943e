"""Marks beside the packages that write them: `python benchmarks/marks.py [--data DIR] [--size 512] [--repeats 7]`.

Times, in turn and in one process, our reading and writing of public marks and those of invisible-watermark, and our
keyed mark beside blind-watermark, on pictures from a folder or on smooth noise. Prints medians and ratios; nothing
is asserted. The floor is what the pixels cost to touch: the conversion to U and one Haar level, without a vote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from poolproof.watermark.chroma import gather_quads, u_of_bytes
from poolproof.watermark.dwt import Variant, block_votes, decode_bits
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.key import Key
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.peers import load_peer
from poolproof.watermark.public_marks import plan_search, read_marks
from poolproof.watermark.spread import detect_spread, embed_spread


def pictures(folder: Path | None, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Upper left squares of the folder's pictures, at most eight, or smooth noise."""
    if folder is not None:
        found = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
        squares = [pixels[:size, :size].copy() for pixels in found if min(pixels.shape[:2]) >= size]
        return squares[:8]
    coarse = rng.integers(0, 256, size=(4, 24, 24, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]


def milliseconds(work: Callable[[np.ndarray], object], images: list[np.ndarray], repeats: int) -> float:
    """The median over repeats of the mean time per image; the first round warms up."""
    rounds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for pixels in images:
            work(pixels)
        rounds.append(1000 * (time.perf_counter() - start) / len(images))
    return statistics.median(rounds[1:])


def haar_floor(pixels: np.ndarray) -> np.ndarray:
    """U and its low band, in strips that stay in the cache."""
    rows = []
    for start in range(0, pixels.shape[0], 64):
        u, _ = u_of_bytes(gather_quads(pixels[start : start + 64]), "BGR")
        rows.append(u[0, 0] + u[0, 1] + u[1, 0] + u[1, 1])
    return np.concatenate(rows)


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of PNG pictures")
    parser.add_argument("--size", type=int, default=512, help="side of the squares, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images = pictures(options.data, options.size, rng)
    payloads = load_payloads()
    sdxl = next(payload for payload in payloads if payload.name == "sdxl")
    bits = sdxl.bits

    def timed(work: Callable[[np.ndarray], object]) -> float:
        return milliseconds(work, images, options.repeats)

    decode: dict[str, float] = {}
    print(f"{len(images)} images of {options.size} x {options.size}, one thread, milliseconds an image")
    for algorithm in ("dwtDct", "dwtDctSvd"):
        peer = load_peer(f"invisible-watermark:{algorithm}", bits)
        variant = Variant(algorithm)
        marked = [embed_dwt(pixels, bits, variant) for pixels in images]
        same = [np.array_equal(m, peer.embed(p)) for m, p in zip(marked, images, strict=True)]
        ours = timed(lambda pixels, v=variant: embed_dwt(pixels, bits, v))
        theirs = timed(peer.embed)
        print(
            f"write {algorithm:10} {ours:8.2f}  package {theirs:8.2f}  ratio {theirs / ours:6.1f}"
            f"  same pixels {all(same)}"
        )
        ours = timed(lambda pixels, v=variant: decode_bits(block_votes(pixels, v), 48))
        theirs = decode[algorithm] = timed(peer.read)
        print(f"read  {algorithm:10} {ours:8.2f}  package {theirs:8.2f}  ratio {theirs / ours:6.1f}")
    everything = timed(lambda pixels: read_marks(pixels, payloads))
    n_tests = len(plan_search(payloads))
    print(
        f"read all {n_tests} tests with p-values {everything:8.2f}  package, one dwtDct payload {decode['dwtDct']:8.2f}"
        f"  share of its time {everything / decode['dwtDct']:.2f}"
    )
    single = timed(lambda pixels: block_votes(pixels))
    floor = timed(haar_floor)
    print(
        f"floor (U and one Haar level) {floor:8.2f}  votes of one variant {single:8.2f}, {single / floor:.2f} of it"
    )
    key, peer = Key(bytes(range(16))), load_peer("blind-watermark", bits)
    payload = list(bits)
    ours, theirs = timed(lambda pixels: embed_spread(pixels, key, payload)), timed(peer.embed)
    print(f"write spread     {ours:8.2f}  blind-watermark {theirs:8.2f}  ratio {theirs / ours:6.1f}")
    ours = timed(lambda pixels: detect_spread(pixels, key, 48, scales=(1.0,)))
    theirs = timed(peer.read)
    print(
        f"read  spread     {ours:8.2f}  blind-watermark {theirs:8.2f}  ratio {theirs / ours:6.1f}  (one scale)"
    )


if __name__ == "__main__":
    main()
