"""How far the samples of a generation are from reality: distances, precision and recall, classes, spread.

All figures of a loop are measured with one `Yardstick`: real reference samples, what reads features off samples, and
k. Squared Frechet distances of n samples are biased by about 1/n, precision and recall change with n too: keep n fixed
over generations, and see `halves_measures` for what real data score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Int, UInt8

from poolproof.detectors.distance import frechet_distance, kernel_distance
from poolproof.detectors.neighbours import check_features
from poolproof.detectors.prdc import prdc
from poolproof.errors import InputError, UnreliableEstimate
from poolproof.simulate.checks import check_count
from poolproof.simulate.classifier import ClassifierSpec, Pixels, fit_classifier
from poolproof.simulate.gaussian import Gaussian, Models
from poolproof.simulate.generator import Samples
from poolproof.simulate.scatter import factorise
from poolproof.simulate.wasserstein import squared_w2
from poolproof.simulate.yardstick import Yardstick

COLUMNS: Final = (
    "frechet_distance",
    "kernel_distance",
    "kernel_distance_stderr",
    "precision",
    "recall",
    "density",
    "coverage",
    "variance",
    "class_accuracy",
    "squared_w2",
)
"""Names of what `measure_samples` gives, in its order."""


def measure_samples(
    samples: Samples, labels: Int[np.ndarray, " m"] | None, yardstick: Yardstick
) -> dict[str, float | None]:
    """What a set of samples scores on a yardstick, by the names of `COLUMNS`.

    frechet_distance: squared, of normal laws fitted to the features; at least 0, biased upwards by about 1/n.
    kernel_distance: squared, with a cubic kernel, unbiased, with its kernel_distance_stderr.
    precision, recall, density, coverage: see `poolproof.detectors.prdc.prdc`.
    variance: total variance of the features over that of the reference; 1 is right, 0 is collapse.
    class_accuracy: share of samples in which the classifier sees the class they were asked for; None without labels or
        a classifier. For real samples it is the classifier's own accuracy.
    squared_w2: from the normal law fitted to the samples to the exact one; None where that is not known.

    Args:
        samples: of one generation, more than k and at least 4; as many for all generations.
        labels: class that each sample was asked for.
        yardstick: of the loop.

    Raises:
        InputError: samples of another form than the reference, that are not finite, or too few.

    Source: Alemohammad et al., arXiv 2307.01850 (k = 5; features of LeNet for digits); see `detectors.distance` and
        `detectors.prdc` for each figure.
    """
    n, least = len(samples), max(yardstick.k, 3)
    if n <= least:
        raise InputError(f"samples: got {n}, allowed more than {least}; draw more or lower k")
    if labels is not None and len(labels) != n:
        raise InputError(f"labels: got {len(labels)}, allowed {n}, one per sample; give all of them")
    features = _read(yardstick, samples)
    reference = yardstick.reference
    kernel = kernel_distance(reference, features)
    shares = prdc(reference, features, yardstick.k)
    spread = features.var(axis=0, ddof=1, dtype=np.float64).sum()
    usual = reference.var(axis=0, ddof=1, dtype=np.float64).sum()
    accuracy = None
    if labels is not None and yardstick.classifier is not None:
        accuracy = yardstick.classifier.accuracy(samples, labels)
    values = (
        frechet_distance(reference, features),
        kernel.value,
        kernel.standard_error,
        shares.precision,
        shares.recall,
        shares.density,
        shares.coverage,
        float(spread / usual),
        accuracy,
        None if yardstick.law is None else squared_w2_of_points(features, yardstick.law),
    )
    return dict(zip(COLUMNS, values, strict=True))


def halves_measures(
    supply: Samples,
    labels: Int[np.ndarray, " m"] | None,
    yardstick: Yardstick,
    n: int,
    *,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """What real samples score on the yardstick: the floor, or the ceiling, for what synthetic samples can.

    Args:
        supply: real samples that are not the reference; those that generations are trained on will do.
        labels: their classes.
        yardstick: of the loop.
        n: how many of them are drawn, without repeats; as many as each generation is measured by.
        rng: draws them.

    Raises:
        InputError: more than there are, or as `measure_samples`.
    """
    check_count("n", n, 1)
    if n > len(supply):
        raise InputError(
            f"n: got {n}, allowed up to the {len(supply)} real samples; draw fewer per generation"
        )
    rows = rng.choice(len(supply), n, replace=False)
    return measure_samples(supply[rows], None if labels is None else labels[rows], yardstick)


def trained_accuracy(
    samples: Pixels,
    labels: Int[np.ndarray, " m"],
    test_images: UInt8[np.ndarray, "t h w c"] | Float[np.ndarray, "t h w c"],
    test_labels: Int[np.ndarray, " k"],
    spec: ClassifierSpec,
    *,
    rng: np.random.Generator,
) -> float:
    """The accuracy on real images of a classifier that is trained on the samples from scratch, in [0, 1].

    Args:
        samples: of one generation.
        labels: classes that they were asked for.
        test_images: real images.
        test_labels: their classes.
        spec: options of the classifier.
        rng: all randomness of its training.

    Raises:
        InputError: samples that cannot be trained on; see `fit_classifier`.

    Source: Ravuri and Vinyals, "Classification accuracy score for conditional generative models", arXiv 1905.10887.
    """
    return fit_classifier(samples, labels, spec, rng=rng).accuracy(test_images, test_labels)


def squared_w2_of_points(points: Float[np.ndarray, "n d"], law: Gaussian) -> float:
    """The squared 2-Wasserstein distance of the normal law fitted to the points, without bias, from a given one.

    Args:
        points: 2 or more.
        law: of as many dimensions.

    Raises:
        InputError: fewer points, another number of dimensions, or values that are not finite.

    >>> round(squared_w2_of_points(np.array([[0.0], [2.0]]), Gaussian.standard(1)), 4)  # mean 1, variance 2
    1.1716
    """
    check_features("points", points)
    if len(points) < 2 or points.shape[1] != law.dim:
        raise InputError(
            f"points: got shape {points.shape}, allowed 2 or more of {law.dim} dimensions; give the law's own points"
        )
    exact = points.astype(np.float64)
    covariance = np.cov(exact.T).reshape(1, law.dim, law.dim)
    models = Models(1, exact.mean(axis=0)[None], factorise(covariance))
    return float(squared_w2(models, law)[0])


@final
@dataclass(frozen=True)
class Extrapolated:
    """A squared Frechet distance without most of its bias.

    Attributes:
        value: what it tends to with ever more samples; noise can take it below 0.
        stderr: spread of `value` over how the sets were cut, over the root of how often; None for one cut. The
            error from the samples themselves is not in it.
        finite: the distance of the whole sets, with its bias.
    """

    value: float
    stderr: float | None
    finite: float


def extrapolated_frechet_distance(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    *,
    n_sizes: int = 4,
    n_cuts: int = 4,
    rng: np.random.Generator,
) -> Extrapolated:
    """The squared Frechet distance of two feature sets at infinitely many samples.

    Both sets are cut at random into j parts, for j = 1 to `n_sizes`; the mean distance over pairs of parts is a
    straight line in j, that is in 1/n, and its value at j = 0 is the estimate. All samples are used at each size.

    Args:
        a: features.
        b: features.
        n_sizes: sizes to cut to, 2 or more. The parts of the smallest must hold more than 2 d samples, as below that
            the bias is no straight line.
        n_cuts: times that the sets are cut, 1 or more.
        rng: cuts them.

    Raises:
        InputError: sets that cannot be compared, or counts out of range.
        UnreliableEstimate: too few samples for so many features and sizes; it carries the biased distance.

    Source: Chong and Forsyth, "Effectively unbiased FID and Inception Score and where to find them", arXiv 1911.07023,
        section 4, which extrapolates over random subsets of one set and keeps the other as it is.
    Assumes: independent samples, and sets large enough for the bias to be linear in 1/n.
    """
    check_count("n_sizes", n_sizes, 2)
    check_count("n_cuts", n_cuts, 1)
    finite = frechet_distance(a, b)
    smallest, width = min(len(a), len(b)) // n_sizes, a.shape[1]
    if smallest <= 2 * width:
        raise UnreliableEstimate(
            f"frechet_distance: {n_sizes} sizes leave {smallest} samples in a part, and {width} features need more "
            f"than {2 * width}",
            finite,
        )
    parts = np.arange(1, n_sizes + 1)
    values = []
    for _ in range(n_cuts):
        first, second = rng.permutation(len(a)), rng.permutation(len(b))
        means = [finite]
        for j in range(2, n_sizes + 1):
            cuts = zip(np.array_split(first, j), np.array_split(second, j), strict=True)
            means.append(float(np.mean([frechet_distance(a[rows], b[others]) for rows, others in cuts])))
        # the mean over j parts has a variance of about the same size for all j, so all sizes weigh alike
        values.append(float(np.polyfit(parts, means, 1)[1]))
    stderr = float(np.std(values, ddof=1) / math.sqrt(n_cuts)) if n_cuts > 1 else None
    return Extrapolated(float(np.mean(values)), stderr, finite)


def _read(yardstick: Yardstick, samples: Samples) -> Float[np.ndarray, "n d"]:
    if samples.dtype != np.uint8 and not np.isfinite(samples).all():
        raise InputError(
            "samples: got NaN or infinity, allowed finite values; count this generation as failed"
        )
    features = yardstick.read(samples)
    check_features("samples", features)
    return features
