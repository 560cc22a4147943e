"""Every detector, fitted on small references, for the contract that all of them keep."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.forensic import FORENSIC_DIM
from poolproof.detectors.kinds import fit_detector
from poolproof.detectors.linear_head import load_linear_head

N_REAL, N_SYNTHETIC = 60, 45


@dataclass(frozen=True)
class FittedDetector:
    """A detector to test, and features of each class that it did not see.

    Attributes:
        detector: fitted.
        real: features of real items.
        synthetic: features of synthetic items.
    """

    detector: AbstractDetector
    real: np.ndarray
    synthetic: np.ndarray


def draw_classes(d: int, gap: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """References and held-out items, real and synthetic in turn: normal classes, `gap` deviations apart in all."""
    rng = np.random.default_rng(d)
    sizes = (N_REAL, 0.0), (N_SYNTHETIC, gap), (30, 0.0), (30, gap)
    classes = [(rng.normal(size=(n, d)) + centre).astype(np.float32) for n, centre in sizes]
    return classes[0], classes[1], classes[2], classes[3]


def _fitted(kind: str, d: int, reader: str = "", **settings: Any) -> Callable[[], FittedDetector]:
    def make() -> FittedDetector:
        real, synthetic, new_real, new_synthetic = draw_classes(d)
        detector = fit_detector(
            kind, real, synthetic, reader=reader, rng=np.random.default_rng(0), **settings
        )
        return FittedDetector(detector, new_real, new_synthetic)

    return make


def _rigid() -> FittedDetector:
    real, _, new_real, new_synthetic = (np.exp(x / 2 - 6) for x in draw_classes(1, gap=6))
    reader = "rigid:clip:ViT-B-32/laion2b_s34b_b79k"
    return FittedDetector(
        fit_detector("rigid", real, reader=reader, rng=np.random.default_rng(0)), new_real, new_synthetic
    )


def _public(kind: str, d: int, gap: float = 0.5) -> Callable[[], FittedDetector]:
    def make() -> FittedDetector:
        import tempfile

        _, _, new_real, new_synthetic = draw_classes(d, gap=gap)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "head.npz"
            np.savez(path, W=np.full((1, d), 0.1, np.float32), b=np.array([-0.05 * gap * d], np.float32))
            return FittedDetector(load_linear_head(path, kind=kind), new_real, new_synthetic)

    return make


_MAKERS: dict[str, Callable[[], FittedDetector]] = {
    "probe": _fitted("probe", 6, "clip:ViT-B-32/laion2b_s34b_b79k"),
    "knn": _fitted("knn", 6),
    "knn-cosine": _fitted("knn", 6, metric="cosine", k=3),
    "forensic": _fitted("forensic", FORENSIC_DIM),
    "real-distance": _fitted("real-distance", 6),
    "rigid": _rigid,
    "univfd": _public("univfd", 768),
    "clipdet": _public("clipdet", 1024),
    "linear": _public("linear", 5, gap=2.0),
}

ALL_DETECTORS = list(_MAKERS)
"""Names of the detectors that the contract is tested on; at least one of every kind."""


@cache
def make_fitted(name: str) -> FittedDetector:
    """The detector of that name, fitted once."""
    return _MAKERS[name]()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection can be opened, and the caches are empty."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a connection was attempted")

    from huggingface_hub import constants

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def all_detectors() -> tuple[str, ...]:
    """The names of `ALL_DETECTORS`."""
    return tuple(ALL_DETECTORS)


@pytest.fixture(params=ALL_DETECTORS)
def fitted(request: pytest.FixtureRequest) -> FittedDetector:
    """One detector after another."""
    return make_fitted(request.param)
