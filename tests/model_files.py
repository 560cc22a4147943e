"""Checkpoints of tiny models, made on the spot, and a cache that looks like the hub's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

TINY_TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
TINY_VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TINY: dict[str, Any] = {"embed_dim": 16, "vision_cfg": TINY_VISION, "text_cfg": TINY_TEXT}
"""A CLIP of open_clip with an input of 32 pixels, 32 features before and 16 after its projection."""


class Planted:
    """An object whose unpickling leaves a trace: what a hostile checkpoint would do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@contextmanager
def known_to_open_clip(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Architectures that open_clip knows by name until the block ends; their configurations lie in the folder."""
    import open_clip

    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield
    for name in configs:
        del open_clip.factory._MODEL_CONFIGS[name]
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)


def plant_in_cache(hub: Path, repository: str, name: str, content: Path) -> None:
    """Puts a file into a Hugging Face cache as the hub's client lays it out."""
    root = hub / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123abc")
    (snapshot / name).write_bytes(content.read_bytes())


def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    """Noise of several sizes, some smaller than the inputs of the tiny models."""
    rng = np.random.default_rng(seed)
    shapes = [(8, 8), (32, 32), (57, 40), (120, 33), (64, 256)]
    return [rng.integers(0, 256, (*shapes[i % 5], 3), dtype=np.uint8) for i in range(n)]
