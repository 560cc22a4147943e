"""What the Ray engine costs beside the local one: `python benchmarks/engines.py [--images N] [--repeats N]`.

Makes small JPEGs on the spot and reads them with both engines in turn, in one process tree. Processor seconds are those
of all processes: this one, the workers, and everything that Ray starts. Each engine pays for the start of its workers;
the start of Ray itself is told apart. Evidence is compared byte by byte; the exit code is 1 where it differs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from poolproof.audit.engine import run_shards
from poolproof.audit.plan import Plan, make_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.ray_cluster import connect, descendants
from poolproof.audit.ray_engine import run_on_ray
from poolproof.audit.score import Scorer

BAR = 1.1
"""Processor seconds of Ray over those of the local engine, at most."""


@dataclass(frozen=True)
class Cost:
    """Seconds of all processes, and of the clock."""

    processor: float
    clock: float


def make_images(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Writes n JPEGs of 96 to 160 pixels a side."""
    for i in range(n):
        coarse = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        width, height = (int(side) for side in rng.integers(96, 161, size=2))
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:05d}.jpg", quality=90)


def processor_seconds() -> float:
    """Of this process, of what it started and still runs, and of what ended and was waited for."""
    total = sum(os.times()[:4])
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # it ended meanwhile, and counts with its parent
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


@contextlib.contextmanager
def measure(costs: list[Cost]) -> Iterator[None]:
    """Appends what the block costs."""
    processor, clock = processor_seconds(), time.perf_counter()
    yield
    costs.append(Cost(processor_seconds() - processor, time.perf_counter() - clock))


def read(
    engine: Callable[..., None], plan: Plan, out: Path, workers: int, costs: list[Cost]
) -> dict[str, bytes]:
    """The evidence that an engine leaves."""
    with measure(costs):
        engine(plan, Scorer(), out, "0" * 64, workers=workers)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The Ray engine beside the local one.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    n, costs = options.images, dict[str, list[Cost]](local=[], start=[], ray=[])
    same = True
    with tempfile.TemporaryDirectory() as folder:
        (pool := Path(folder) / "pool").mkdir()
        make_images(pool, n, np.random.default_rng(0))
        plan = make_plan(open_pool(str(pool)), Path(folder) / "plan.parquet", rng=np.random.default_rng(0))
        for i in range(options.repeats):
            local = read(run_shards, plan, Path(folder) / f"local{i}", options.workers, costs["local"])
            with contextlib.ExitStack() as stack:
                with measure(costs["start"]):
                    stack.enter_context(connect(None, options.workers))
                ray = read(
                    functools.partial(run_on_ray, inherited=True),
                    plan,
                    Path(folder) / f"ray{i}",
                    options.workers,
                    costs["ray"],
                )
            same = same and local == ray
            print(
                f"repeat {i + 1}: {len(local)} files, {'the same bytes' if local == ray else 'BYTES DIFFER'}"
            )
    each = {name: statistics.median(cost.processor for cost in found) for name, found in costs.items()}
    for name in ("local", "ray"):
        clock = statistics.median(cost.clock for cost in costs[name])
        print(f"{name:6} {1000 * each[name] / n:7.2f} ms of a processor an image   {n / clock:7.1f} images/s")
    clock = statistics.median(cost.clock for cost in costs["start"])
    print(f"start of Ray: {each['start']:.1f} s of a processor, {clock:.1f} s of the clock")
    ratio = each["ray"] / each["local"]
    print(f"ray / local: {ratio:.3f} (bar: at most {BAR}; {'met' if ratio <= BAR else 'NOT met'})")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
