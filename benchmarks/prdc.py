"""Precision, recall, density and coverage beside peers: `python benchmarks/prdc.py [--n 10000 --d 512 --k 5 --large]`.

Each candidate runs in a process of its own, on one thread, over the same normal features in single precision:
ours, `prdc` 0.2 and `torch-fidelity` 0.4 (precision and recall only). Prints CPU seconds, the peak of memory
over what the process held with libraries loaded and inputs made, the figures, and ratios; whether our figures
are those of a double-precision matrix; and the floor, the matrix products alone. Nothing is asserted.

The peers are installed with `pip install --no-deps prdc==0.2 torch-fidelity==0.4.0`; one that is missing is
left out. `--large` runs ours alone on 50,000 against 50,000.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

Features = Float32[np.ndarray, "n d"]
Figures = dict[str, float]

BLOCK: Final = 500
"""Rows of a double-precision matrix that the check holds at a time."""


def make_features(n: int, d: int) -> tuple[Features, Features]:
    """Real and synthetic features: normal, of one law."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d), dtype=np.float32), rng.standard_normal((n, d), dtype=np.float32)


def run_ours(real: Features, synthetic: Features, k: int) -> Figures:
    """Ours, with `<`, the rule of prdc."""
    from poolproof.detectors.prdc import prdc

    found = prdc(real, synthetic, k, ties="<")
    return {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}


def run_prdc(real: Features, synthetic: Features, k: int) -> Figures:
    """The package prdc."""
    compute: Callable[..., dict[str, Any]] = importlib.import_module("prdc").compute_prdc
    return {name: float(value) for name, value in compute(real, synthetic, k).items()}


def run_torch_fidelity(real: Features, synthetic: Features, k: int) -> Figures:
    """The function of torch-fidelity that takes features: its first argument is the synthetic set."""
    import torch

    module: Any = importlib.import_module("torch_fidelity.metric_prc")
    sets = torch.from_numpy(synthetic), torch.from_numpy(real)
    precision, recall = module.calculate_precision_recall_full(*sets, k)
    return {"precision": precision, "recall": recall}


def run_floor(real: Features, synthetic: Features, k: int) -> Figures:
    """The products of the three matrices alone, in tiles of ours' size: half of the two symmetric ones."""
    from poolproof.detectors.tiles import TILE, blocks

    buffer = np.empty((TILE, TILE), np.float32)
    for x, y in ((real, real), (synthetic, synthetic), (synthetic, real)):
        for rows in blocks(len(x), TILE):
            for columns in blocks(len(y), TILE):
                if x is y and columns.start < rows.start:
                    continue
                left, right = x[rows], y[columns]
                np.matmul(left, right.T, out=buffer[: len(left), : len(right)])
    return {}


def run_check(real: Features, synthetic: Features, k: int) -> Figures:
    """All four from full matrices in double precision, with `<`; ties within 1e-9 decided by differences."""
    x, y = real.astype(np.float64), synthetic.astype(np.float64)
    radius_x, radius_y = exact_radii(x, k), exact_radii(y, k)
    covered, recalled = np.zeros(len(x), bool), np.zeros(len(x), bool)
    balls = precise = 0
    for start in range(0, len(y), BLOCK):
        rows = slice(start, start + BLOCK)
        squares = squared_distances(y[rows], x)
        in_real = inside(squares, radius_x[None, :], y[rows], x)
        in_synthetic = inside(squares, radius_y[rows, None], y[rows], x)
        balls += int(in_real.sum())
        precise += int(in_real.any(axis=1).sum())
        covered |= in_real.any(axis=0)
        recalled |= in_synthetic.any(axis=0)
    return {
        "precision": precise / len(y),
        "recall": float(recalled.mean()),
        "density": balls / (k * len(y)),
        "coverage": float(covered.mean()),
    }


def squared_distances(
    a: Float64[np.ndarray, "m d"], b: Float64[np.ndarray, "n d"]
) -> Float64[np.ndarray, "m n"]:
    """Squared distances by the expanded square."""
    return np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T


def exact_radii(x: Float64[np.ndarray, "n d"], k: int) -> Float64[np.ndarray, " n"]:
    """Distances to the k-th nearest other point: k + 3 candidates by expanded squares, then by differences."""
    radii = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        squares = squared_distances(block, x)
        squares[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        near = np.argpartition(squares, k + 2, axis=1)[:, : k + 3]
        exact = np.sqrt(np.square(x[near] - block[:, None]).sum(axis=2))
        radii[start : start + BLOCK] = np.partition(exact, k - 1, axis=1)[:, k - 1]
    return radii


def inside(
    squares: Float64[np.ndarray, "m n"],
    radius: Float64[np.ndarray, "#m #n"],
    a: Float64[np.ndarray, "m d"],
    b: Float64[np.ndarray, "n d"],
) -> Bool[np.ndarray, "m n"]:
    """Whether pairs are nearer than a radius."""
    limit = np.square(radius)
    found = squares < limit
    i, j = np.nonzero(np.abs(squares - limit) <= 1e-9 * limit)
    bound = np.broadcast_to(radius, squares.shape)[i, j]
    found[i, j] = np.sqrt(np.square(a[i] - b[j]).sum(axis=1)) < bound
    return found


CANDIDATES: Final = {
    "ours": run_ours,
    "prdc": run_prdc,
    "torch-fidelity": run_torch_fidelity,
    "floor": run_floor,
    "check": run_check,
}


def measure(name: str, n: int, d: int, k: int) -> None:
    """Runs one candidate in this process and prints what it took as JSON."""
    from threadpoolctl import threadpool_limits

    if name in ("torch-fidelity", "prdc"):
        importlib.import_module(name.replace("-", "_"))
    if name == "torch-fidelity":
        import torch

        torch.set_num_threads(1)
    real, synthetic = make_features(n, d)
    with threadpool_limits(1):
        # A small run first: libraries load and set up their memory.
        CANDIDATES[name](real[: 2 * k + 20], synthetic[: 2 * k + 20], k)
        before = held_bytes()
        started, wall = time.process_time(), time.perf_counter()
        figures = CANDIDATES[name](real, synthetic, k)
        taken = {"cpu": time.process_time() - started, "wall": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**taken, "extra": (peak - before) / 1e6, "figures": figures}))


def held_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def run_child(name: str, n: int, d: int, k: int) -> dict[str, Any]:
    """What a candidate took in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-P", __file__, "--measure", name]
    command += ["--n", str(n), "--d", str(d), "--k", str(k)]
    done = subprocess.run(command, env={**os.environ, **threads}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_runs(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints a candidate's runs; gives its least CPU time, its largest memory and its figures."""
    seconds = sorted(run["cpu"] for run in runs)
    extra = max(run["extra"] for run in runs)
    figures = "  ".join(f"{key} {value:.4f}" for key, value in runs[0]["figures"].items())
    print(f"{name:15} {seconds[0]:7.2f} to {seconds[-1]:6.2f} CPU s {extra:8.1f} MB over inputs  {figures}")
    return {"cpu": seconds[0], "extra": extra, "figures": runs[0]["figures"]}


def is_installed(module: str) -> bool:
    """Whether a package can be imported; this file's own name is not mistaken for it."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0


def compare(n: int, d: int, k: int, repeats: int) -> None:
    """Runs all candidates in turn, and prints the least CPU times and their ratios."""
    print(
        f"{n} real against {n} synthetic, d = {d}, k = {k}, single precision, one thread, {repeats} runs each"
    )
    names = ["ours", "floor"]
    for name in ("prdc", "torch-fidelity"):
        if is_installed(name.replace("-", "_")):
            names.append(name)
        else:
            print(f"{name:15} is not installed")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            runs[name].append(run_child(name, n, d, k))
    taken = {name: print_runs(name, runs[name]) for name in names}
    check = print_runs("check", [run_child("check", n, d, k)])
    ours = taken["ours"]
    print(f"figures identical with double precision: {ours['figures'] == check['figures']}")
    print(f"CPU time over that of the bare products: {ours['cpu'] / taken['floor']['cpu']:.2f}")
    for name in names[2:]:
        peer = taken[name]
        print(
            f"of {name}: CPU time 1/{peer['cpu'] / ours['cpu']:.1f}, memory 1/{peer['extra'] / ours['extra']:.1f}"
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000, help="points of each set")
    parser.add_argument("--d", type=int, default=512, help="features")
    parser.add_argument("--k", type=int, default=5, help="which neighbour sets the radius")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each, in turn; the least CPU time counts"
    )
    parser.add_argument("--large", action="store_true", help="ours alone, 50,000 against 50,000")
    parser.add_argument("--measure", choices=tuple(CANDIDATES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.n, options.d, options.k)
    elif options.large:
        print_runs("ours", [run_child("ours", 50_000, options.d, options.k)])
    else:
        compare(options.n, options.d, options.k, options.repeats)


if __name__ == "__main__":
    main()
