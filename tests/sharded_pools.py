"""Pools of small images in small shards, and what an engine left of them."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poolproof.audit.plan import Plan, make_plan
from poolproof.audit.pool import open_pool

HOOK = """
import os, signal, sys, time

def hook(event, args):
    if event == "open" and str(args[0]).endswith("deadly.jpg"):
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "open" and str(args[0]).endswith("slow.jpg"):
        time.sleep(0.3)

sys.addaudithook(hook)
"""
"""Ends a process that opens one file, and slows one that opens another."""


def write_pool(folder: Path, n: int, *, damaged: bool = False) -> Path:
    """A folder of n small images of varied content; some damaged on request."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    for i in range(n):
        coarse = rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((96 + i % 5, 80), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80 + i % 15)
        data = buffer.getvalue()
        if damaged and i % 7 == 3:
            data = data[: len(data) // 3]
        if damaged and i % 7 == 5:
            data = b""
        (folder / f"{i:04d}.jpg").write_bytes(data)
    return folder


def plan_of(pool: Path, out: Path, shard_size: int = 8) -> Plan:
    """A plan with small shards."""
    return make_plan(
        open_pool(pool), out / "plan.parquet", rng=np.random.default_rng(0), shard_size=shard_size
    )


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def digest(folder: Path) -> dict[str, str]:
    """The hash of every file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def plant_hook(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Puts the hook into processes that start from now on."""
    (folder / "sitecustomize.py").write_text(HOOK)
    patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
