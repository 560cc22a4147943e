"""Stability under noise: how far a little noise moves an image's vector. Nothing is trained for it.

Real images are the more stable ones, so the reader makes one number an image, larger = more synthetic, and the
detector is that number with a threshold from real references.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from poolproof.detectors.backbone import AbstractEmbedder, VisionEmbedder
from poolproof.detectors.detector import (
    AbstractDetector,
    DetectorState,
    Scores,
    check_varied,
    score_rows,
    take_setting,
)
from poolproof.detectors.neighbours import check_features
from poolproof.errors import InputError

NOISE: Final = 0.05
"""Standard deviation of the noise, added to the normalised input as in the published code."""

QUANTILE: Final = 0.95
"""Of the scores of real references; the detector flags what lies above."""

_BATCH: Final = 32


@final
@dataclass(frozen=True, eq=False)
class RigidEmbedder(AbstractEmbedder):
    """One number an image: 1 less the cosine of its vector and of the vector under noise, averaged over noises.

    The noise is drawn from the image's own pixels, so a score repeats, and no other image has a part in it.

    Args:
        name: the spec that loads it.
        backbone: makes the vectors.
        weights_sha256: of the backbone.
        precision: of the backbone.
        draws: number of noises; the paper takes 1, more cost a pass each and lower the variance.
        dim: 1.

    Source: He, Chen and Ho, "RIGID", arXiv 2405.20112, equations 1 and 2.
    """

    name: str
    backbone: VisionEmbedder
    weights_sha256: str | None
    precision: str = "float32"
    draws: int = 1
    dim: int = 1

    def embed(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[np.ndarray, "n d"]:
        """One row of one number per image in the given order, from 0 (stable) to 2; NaN where there is none."""
        import torch

        values = np.zeros((len(images), 1), np.float32)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            batch = self.backbone.prepare(part)
            clean = _directions(self.backbone.features(batch))
            sources = [_content_generator(pixels) for pixels in part]
            moved = np.zeros(len(part))
            for _ in range(self.draws):
                noise = np.stack([s.standard_normal(batch.shape[1:], np.float32) for s in sources])
                noisy = _directions(self.backbone.features(batch + NOISE * torch.from_numpy(noise)))
                # 1 - cosine of unit vectors is half their squared distance, which does not cancel
                moved += np.square(clean - noisy).sum(axis=1) / 2
            values[start : start + len(part), 0] = moved / self.draws
        return values


@final
@dataclass(frozen=True, eq=False)
class RigidDetector(AbstractDetector):
    """The stability of an image against a threshold.

    Attributes:
        reader: a spec that begins with `rigid:`.
        threshold: a score above it is flagged.
    """

    reader: str
    threshold: float
    kind: str = field(default="rigid", init=False)

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the reader's numbers as they are; larger = less stable = more synthetic."""
        return score_rows(features, 1, lambda rows: rows[:, 0])

    def state(self) -> DetectorState:
        """Return the threshold, which is all."""
        return DetectorState(self.kind, {}, {"reader": self.reader, "threshold": self.threshold})


def fit_rigid(
    real: Float[np.ndarray, "r d"], *, reader: str = "", quantile: float = QUANTILE
) -> RigidDetector:
    """Return a detector that flags what is less stable than most real references.

    Args:
        real: of the stability reader, real references.
        reader: its spec.
        quantile: of the real references, in (0, 1); that share of them is not flagged. 0.95 as in the paper.

    Raises:
        InputError: no references, all alike, not finite, of another width, or a quantile out of range.

    Source: He, Chen and Ho, arXiv 2405.20112, section 3.
    """
    check_features("real", real)
    if real.shape[1] != 1:
        raise InputError(f"real: got width {real.shape[1]}, allowed 1: use a reader that begins with rigid:")
    check_quantile(quantile)
    check_varied("real", real)
    scores = real[:, 0].astype(np.float32)
    return RigidDetector(reader, float(np.quantile(scores, quantile, method="higher")))


def restore_rigid(state: DetectorState) -> RigidDetector:
    """Return the detector that was saved."""
    return RigidDetector(take_setting(state, "reader", str), take_setting(state, "threshold", float))


def check_quantile(quantile: float) -> None:
    """Raise InputError unless 0 < quantile < 1."""
    if not 0 < quantile < 1:
        raise InputError(f"quantile: got {quantile}, allowed above 0 and below 1: {QUANTILE} is usual")


def _directions(vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.sqrt(np.square(wide).sum(axis=1, keepdims=True)), 1e-300)


def _content_generator(pixels: UInt8[np.ndarray, "h w 3"]) -> np.random.Generator:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return np.random.default_rng(int.from_bytes(digest.digest()[:16]))
