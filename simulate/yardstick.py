"""What the generations of a loop are measured against: real references, and what reads features off samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float, Float64

from poolproof.detectors.backbone import AbstractEmbedder
from poolproof.detectors.neighbours import check_features
from poolproof.errors import InputError
from poolproof.simulate.checks import check_count
from poolproof.simulate.classifier import Classifier, Pixels
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.generator import Samples

K: Final = 5
"""Neighbour that sets the radius of a ball: that of the MAD paper throughout."""

Reader = Callable[[Any], Float[np.ndarray, "n d"]]
"""From samples to their features."""


@final
@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the generations of a loop are measured against; made by `classifier_yardstick` and its like.

    Attributes:
        reference: features of real samples that no generation is trained on, more than k.
        read: takes samples to features.
        k: neighbour that sets the radius of a ball.
        classifier: tells the classes of samples; None where there are none.
        law: of the real data, where samples are points and it is normal; None otherwise.
    """

    reference: Float[np.ndarray, "n d"]
    read: Reader
    k: int = K
    classifier: Classifier | None = None
    law: Gaussian | None = None

    def __post_init__(self) -> None:
        check_count("k", self.k, 1)
        check_features("reference", self.reference)
        least = max(self.k, 3)
        if len(self.reference) <= least:
            raise InputError(
                f"reference: got {len(self.reference)}, allowed more than {least}; give more samples"
            )
        if not self.reference.var(axis=0).any():
            raise InputError("reference: got samples that are all alike, allowed ones that vary; give others")
        if self.law is not None and self.law.dim != self.reference.shape[1]:
            raise InputError(
                f"law: got {self.law.dim} dimensions, allowed {self.reference.shape[1]} as the reference; "
                "give the law of these points"
            )

    @property
    def n_features(self) -> int:
        """Length of a sample's features."""
        return self.reference.shape[1]


def classifier_yardstick(reference: Pixels, classifier: Classifier, *, k: int = K) -> Yardstick:
    """A yardstick of a classifier's features, for images like those that it was trained on.

    Args:
        reference: real images that neither a generation nor the classifier was trained on.
        classifier: gives the features, and the classes of samples.
        k: neighbour that sets the radius of a ball.

    Raises:
        InputError: images that the classifier does not read, or k or fewer of them.
    """
    return Yardstick(classifier.features(reference), classifier.features, k, classifier)


def point_yardstick(reference: Samples, *, k: int = K, law: Gaussian | None = None) -> Yardstick:
    """A yardstick of the samples' own numbers, for points.

    Args:
        reference: real samples that no generation is trained on.
        k: neighbour that sets the radius of a ball.
        law: of the real data where it is known and normal: then `squared_w2` is measured too.

    Raises:
        InputError: k or fewer samples, or a law of other dimensions.
    """
    shape = reference.shape[1:]
    return Yardstick(_flatten(reference, shape), lambda samples: _flatten(samples, shape), k, None, law)


def embedder_yardstick(
    reference: Pixels,
    embedder: AbstractEmbedder | None,
    *,
    k: int = K,
    classifier: Classifier | None = None,
) -> Yardstick:
    """A yardstick of the vectors of a vision model, or of weight-free features, for natural images.

    Args:
        reference: real images that no generation is trained on, of 1 or 3 channels.
        embedder: from `poolproof.detectors.embed.load_embedder`; None takes the weight-free features, each less its
            mean and over its deviation in the reference.
        k: neighbour that sets the radius of a ball.
        classifier: tells the classes of samples; None leaves `class_accuracy` out.

    Raises:
        InputError: images of another form, or k or fewer of them.
    """
    if embedder is not None:
        return Yardstick(
            embedder.embed(_to_rgb(reference)), lambda images: embedder.embed(_to_rgb(images)), k, classifier
        )
    found = _forensic(reference)
    mean, deviation = found.mean(axis=0), found.std(axis=0)
    # what never varies in real images says nothing in units of its variation
    kept = deviation > 1e-6 * np.abs(found).max()

    def standardise(features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n e"]:
        return (features[:, kept] - mean[kept]) / deviation[kept]

    return Yardstick(standardise(found), lambda images: standardise(_forensic(images)), k, classifier)


def _flatten(samples: Samples, shape: tuple[int, ...]) -> Float64[np.ndarray, "n d"]:
    if samples.shape[1:] != shape:
        raise InputError(
            f"samples: got shape {samples.shape[1:]}, allowed {shape} as the reference; reshape them"
        )
    return samples.reshape(len(samples), -1).astype(np.float64)


def _forensic(images: Pixels) -> Float64[np.ndarray, "n d"]:
    from poolproof.detectors.forensic import forensic_features

    return np.stack([forensic_features(image) for image in _to_rgb(images)]).astype(np.float64)


def _to_rgb(images: Pixels) -> list[np.ndarray]:
    """The images as bytes of three channels."""
    if images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) == 0:
        raise InputError(
            f"samples: got shape {images.shape}, allowed images n h w c of 1 or 3 channels; reshape them"
        )
    pixels = images
    if images.dtype != np.uint8:
        pixels = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return list(np.ascontiguousarray(np.broadcast_to(pixels, (*images.shape[:3], 3))))
