"""The Gaussian loop beside plain point sampling in NumPy, and the time and memory of a whole map.

    python benchmarks/gaussian.py [--repeats 5] [--map]

Both sides run the same fresh-data loop (an eleventh of the data real, no bias, 100 dimensions) on one thread, in turn
in one process, and the median over the repeats counts. That they have one law is checked on the way: the mean squared
W2 of both after the same generations is printed with its error. The floor is the time of the random numbers, matrix
products and factorisations that a generation cannot do without.
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from poolproof.simulate.gaussian import Gaussian, generations
from poolproof.simulate.limit import block_size
from poolproof.simulate.mixing import Mixing

DIM = 100


def plain_loop(
    n_real: int, n_synthetic: int, n_generations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the last model, by sampling every point."""
    pool = rng.standard_normal((n_real, DIM))
    mean, covariance = pool.mean(axis=0), np.cov(pool, rowvar=False)
    for _ in range(n_generations - 1):
        root = np.linalg.cholesky(covariance)
        synthetic = mean + rng.standard_normal((n_synthetic, DIM)) @ root.T
        pool = np.concatenate([rng.standard_normal((n_real, DIM)), synthetic])
        mean, covariance = pool.mean(axis=0), np.cov(pool, rowvar=False)
    return mean, covariance


def distance(mean: np.ndarray, covariance: np.ndarray) -> float:
    """Squared W2 from N(0, I)."""
    return float(mean @ mean + np.square(1 - np.sqrt(np.linalg.eigvalsh(covariance).clip(0))).sum())


def time_plain(
    n_real: int, n_synthetic: int, n_generations: int, rng: np.random.Generator
) -> tuple[float, list[float]]:
    """Seconds per generation, and the distance of the last model."""
    started = time.perf_counter()
    mean, covariance = plain_loop(n_real, n_synthetic, n_generations, rng)
    return (time.perf_counter() - started) / n_generations, [distance(mean, covariance)]


def time_ours(
    n_real: int, n_synthetic: int, n_generations: int, rng: np.random.Generator
) -> tuple[float, list[float]]:
    """Seconds per generation of one loop, in a block of loops, and the distances of the last models."""
    size = block_size(DIM)
    loops = generations(Mixing.fresh(n_real, n_synthetic), law=Gaussian.standard(DIM), n_paths=size, rng=rng)
    started = time.perf_counter()
    *_, last = itertools.islice(loops, n_generations)
    seconds = (time.perf_counter() - started) / n_generations / size
    return seconds, [distance(m, c) for m, c in zip(last.mean, last.covariance(), strict=True)]


def time_floor(rng: np.random.Generator) -> dict[str, float]:
    """Seconds per generation of one loop that its random numbers, products and factorisation take alone."""
    size = block_size(DIM)
    square = rng.standard_normal((size, DIM, DIM))
    positive = square @ square.transpose(0, 2, 1) + DIM * np.eye(DIM)
    work = {
        "random numbers": lambda: rng.standard_normal((size, DIM * (DIM + 1))),
        "matrix products": lambda: [square @ square for _ in range(3)],
        "factorisation": lambda: np.linalg.cholesky(positive),
    }
    seconds = {}
    for name, call in work.items():
        runs = []
        for _ in range(15):
            started = time.perf_counter()
            call()
            runs.append((time.perf_counter() - started) / size)
        seconds[name] = statistics.median(runs)
    return seconds


def compare(n: int, repeats: int, n_generations: int, rng: np.random.Generator) -> float:
    """Prints one line for a size of the training set; returns our seconds per generation."""
    n_real = n // 11
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    distances: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(repeats):
        for name, run in (("plain", time_plain), ("ours", time_ours)):
            spent, told = run(n_real, n - n_real, n_generations, rng)
            seconds[name].append(spent)
            distances[name] += told
    plain, ours = (statistics.median(seconds[name]) for name in ("plain", "ours"))
    told = []
    for name, values in distances.items():
        error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        told.append(f"{name} {np.mean(values):.5g} \u00b1 {error:.1g}")
    print(
        f"n = {n:>9,}: plain {1e3 * plain:9.2f} ms, ours {1e3 * ours:6.3f} ms per generation, "
        f"ratio {plain / ours:8.0f}   squared W2: {', '.join(told)}",
        flush=True,
    )
    return ours


def time_map() -> None:
    """Prints time, CPU time and peak memory of the map of figure 11, computed anew in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "poolproof",
            "simulate",
            "admissible",
            "fig11",
            "--no-cache",
            "--quiet",
        ]
        started = time.perf_counter()
        subprocess.run([*command, "--out", folder], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        import pandas as pd

        table = pd.read_parquet(Path(folder) / "admissible.parquet")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    worst = float((table["ratio_stderr"] / table["ratio"]).max())
    print(
        f"figure 11, {len(table)} cells: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time, "
        f"{used.ru_maxrss / 1e6:.2f} GB at most, largest relative standard error {worst:.4f}, "
        f"{int((~table['converged']).sum())} not converged"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The Gaussian loop beside plain point sampling in NumPy.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--map", action="store_true", help="also time the whole map of figure 11")
    options = parser.parse_args()
    if options.map:  # first: a child's peak memory counts what it inherits from this process
        time_map()
    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        ours = [
            compare(n, max(2, options.repeats // (1 + (n > 100_000))), n_generations, rng)
            for n, n_generations in ((2_200, 40), (11_000, 20), (110_000, 6), (1_000_000, 3))
        ]
        floor = time_floor(rng)
    print(f"ours at the largest n / at the smallest: {ours[-1] / ours[0]:.2f}")
    parts = ", ".join(f"{name} {1e3 * spent:.3f} ms" for name, spent in floor.items())
    total = sum(floor.values())
    print(f"floor {1e3 * total:.3f} ms ({parts}); ours at n = 11,000 is {ours[1] / total:.2f} times it")


if __name__ == "__main__":
    main()
