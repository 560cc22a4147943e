"""Measures of a generation: those of other implementations, exact for known laws, and on digits as they should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from refusals import assert_refused
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from poolproof.detectors.backbone import AbstractEmbedder
from poolproof.detectors.distance import kernel_distance
from poolproof.detectors.prdc import prdc
from poolproof.errors import UnreliableEstimate
from poolproof.simulate.classifier import Classifier, ClassifierSpec, fit_classifier
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.measures import (
    COLUMNS,
    extrapolated_frechet_distance,
    halves_measures,
    measure_samples,
    squared_w2_of_points,
    trained_accuracy,
)
from poolproof.simulate.yardstick import (
    Yardstick,
    classifier_yardstick,
    embedder_yardstick,
    point_yardstick,
)

QUICK = ClassifierSpec(width=16, n_epochs=15)


class MeanColours(AbstractEmbedder):
    """An embedder of the mean of each channel and of the spread of the image."""

    name = "mean-colours"
    dim = 4
    weights_sha256 = None

    def embed(self, images: Any) -> Float32[np.ndarray, "n d"]:
        """Three means and a deviation an image."""
        rows = [[*image.mean(axis=(0, 1)), image.std()] for image in images]
        return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real digits as bytes in a random order, and their classes."""
    found: Any = load_digits()
    rows = np.random.default_rng(0).permutation(len(found.target))
    return np.rint(found.images * (255 / 16)).astype(np.uint8)[rows, :, :, None], found.target[rows]


@pytest.fixture(scope="module")
def classifier(digits: tuple[np.ndarray, np.ndarray]) -> Classifier:
    """A classifier of a third of the digits."""
    return fit_classifier(digits[0][:600], digits[1][:600], QUICK, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def yardstick(digits: tuple[np.ndarray, np.ndarray], classifier: Classifier) -> Yardstick:
    """The last third of the digits as the reference."""
    return classifier_yardstick(digits[0][1200:], classifier)


def points(n: int, d: int = 3, seed: int = 0, scale: float = 1.0, gap: float = 0.0) -> np.ndarray:
    """Normal points."""
    return np.random.default_rng(seed).normal(gap, scale, (n, d))


def number(measures: dict[str, float | None], name: str) -> float:
    """A figure that is there."""
    value = measures[name]
    assert value is not None
    return value


@pytest.mark.reference
@pytest.mark.parametrize(("n", "d"), [(30, 4), (60, 4)])
def test_frechet_distance_is_that_of_scipy(n: int, d: int) -> None:
    """The distance of points is the one that SciPy's matrix root gives."""
    real, samples = points(50, d), points(n, d, seed=1, scale=1.5, gap=0.3)
    found = measure_samples(samples, None, point_yardstick(real))["frechet_distance"]
    a, b = np.cov(real.T), np.cov(samples.T)
    shift = real.mean(axis=0) - samples.mean(axis=0)
    expected = shift @ shift + np.trace(a + b - 2 * np.real(np.asarray(sqrtm(a @ b))))
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.reference
def test_shares_are_those_of_all_pairs() -> None:
    """Precision, recall, density and coverage are what full distance matrices give, and what `prdc` gives."""
    real, samples = points(60), points(40, seed=1, scale=0.7, gap=0.5)
    found = measure_samples(samples, None, point_yardstick(real))

    def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(x[:, None] - y[None]).sum(axis=2))

    # row 0 of the sorted distances within a set is a point itself
    real_radius = np.sort(apart(real, real), axis=0)[5]
    sample_radius = np.sort(apart(samples, samples), axis=0)[5]
    across = apart(real, samples)
    in_real = across <= real_radius[:, None]
    expected = {
        "precision": in_real.any(axis=0).mean(),
        "recall": (across <= sample_radius).any(axis=1).mean(),
        "density": in_real.sum() / (5 * len(samples)),
        "coverage": in_real.any(axis=1).mean(),
    }
    direct = prdc(real, samples, 5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value)
        assert found[name] == getattr(direct, name)
    kernel = kernel_distance(real, samples)
    assert found["kernel_distance"] == kernel.value
    assert found["kernel_distance_stderr"] == kernel.standard_error


@pytest.mark.theory
def test_variance_is_a_ratio() -> None:
    """Points of half the deviation have a quarter of the variance; others of one value have none, and no recall."""
    yardstick = point_yardstick(points(4000))
    half = measure_samples(points(4000, seed=1, scale=0.5), None, yardstick)
    assert number(half, "variance") == pytest.approx(0.25, rel=0.06)
    collapsed = measure_samples(np.zeros((20, 3)), None, yardstick)
    assert collapsed["variance"] == 0
    assert collapsed["recall"] == 0
    assert collapsed["precision"] == 1
    # the distance of a point from the fitted law is its second moment about the point
    second = np.square(yardstick.reference.mean(axis=0)).sum() + np.trace(np.cov(yardstick.reference.T))
    assert number(collapsed, "frechet_distance") == pytest.approx(second)


@pytest.mark.theory
@pytest.mark.parametrize("n", [2, 3, 500])
def test_squared_w2_is_that_of_eigenvalues(n: int) -> None:
    """From N(0, I) it is the squared mean and the sum of (1 - root of an eigenvalue)^2, singular or not."""
    samples = points(n, 4, scale=1.3, gap=0.2)
    values = np.linalg.eigvalsh(np.cov(samples.T)).clip(0)
    expected = np.square(samples.mean(axis=0)).sum() + np.square(1 - np.sqrt(values)).sum()
    assert squared_w2_of_points(samples, Gaussian.standard(4)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.theory
def test_squared_w2_in_one_dimension() -> None:
    """In one dimension it is the squared differences of mean and deviation; a yardstick with the law measures it."""
    samples = points(50, 1, scale=2.0)
    law = Gaussian.from_moments(np.array([1.0]), np.array([[9.0]]))
    expected = (samples.mean() - 1) ** 2 + (samples.std(ddof=1) - 3) ** 2
    assert squared_w2_of_points(samples, law) == pytest.approx(expected)
    found = measure_samples(samples, None, point_yardstick(points(30, 1, seed=1), law=law))
    assert found["squared_w2"] == pytest.approx(expected)
    assert_refused(lambda: squared_w2_of_points(samples[:1], law), "points")
    assert_refused(lambda: squared_w2_of_points(points(9, 2), law), "points")


@pytest.mark.theory
@pytest.mark.parametrize(
    ("n", "m", "d", "gap"), [(600, 600, 10, 0.0), (900, 500, 10, 0.3), (800, 800, 40, 0.0)]
)
def test_extrapolation_takes_off_the_bias(n: int, m: int, d: int, gap: float) -> None:
    """On average it is the known distance of two normal laws, below the plain distance."""
    rng = np.random.default_rng(3)
    truth = d * gap**2 + d * 0.2**2
    values, plain = [], []
    for seed in range(12):
        a, b = points(n, d, seed), points(m, d, 100 + seed, scale=1.2, gap=gap)
        found = extrapolated_frechet_distance(a, b, n_cuts=2, rng=rng)
        values.append(found.value)
        plain.append(found.finite)
        assert found.stderr is not None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth) < max(4.5 * error, 0.02 * truth)
    assert all(np.array(plain) > values)
    if gap == 0:  # elsewhere chance moves both by more than the bias
        assert np.mean(plain) - truth > 5 * abs(np.mean(values) - truth)


def test_extrapolation_needs_samples() -> None:
    """Too few samples for the features raise an error that carries the biased distance; one cut has no error."""
    a, b = points(100, 20), points(100, 20, 1)
    with pytest.raises(UnreliableEstimate) as caught:
        extrapolated_frechet_distance(a, b, rng=np.random.default_rng(0))
    assert caught.value.estimate == measure_samples(b, None, point_yardstick(a))["frechet_distance"]
    a, b = points(100), points(100, seed=1)
    one, again = (
        extrapolated_frechet_distance(a, b, n_cuts=1, rng=np.random.default_rng(0)) for _ in range(2)
    )
    assert one.stderr is None
    assert one == again
    assert_refused(
        lambda: extrapolated_frechet_distance(a, b, n_sizes=1, rng=np.random.default_rng(0)), "n_sizes"
    )
    assert_refused(
        lambda: extrapolated_frechet_distance(a, b, n_cuts=0, rng=np.random.default_rng(0)), "n_cuts"
    )


def test_real_digits_score_well(digits: tuple[np.ndarray, np.ndarray], yardstick: Yardstick) -> None:
    """Other real digits lie in the reference, are varied and of their class; noise on them shows in every figure."""
    images, labels = digits[0][600:1200], digits[1][600:1200]
    found = measure_samples(images, labels, yardstick)
    assert tuple(found) == COLUMNS
    assert number(found, "class_accuracy") > 0.9
    assert min(number(found, name) for name in ("precision", "recall", "coverage")) > 0.9
    assert number(found, "variance") == pytest.approx(1, abs=0.1)
    assert abs(number(found, "kernel_distance")) < 4 * number(found, "kernel_distance_stderr")
    assert found["squared_w2"] is None
    noise = np.random.default_rng(1).normal(0, 80, images.shape)
    noisy = measure_samples((images + noise).clip(0, 255).astype(np.uint8), labels, yardstick)
    for name in ("precision", "density", "coverage", "class_accuracy"):
        assert number(noisy, name) < number(found, name) - 0.05
    assert number(noisy, "frechet_distance") > 3 * number(found, "frechet_distance")


def test_shuffled_labels_fit_one_time_in_ten(
    digits: tuple[np.ndarray, np.ndarray], yardstick: Yardstick
) -> None:
    """Labels in any order agree with the classes by chance alone; without labels the share is None."""
    images = digits[0][600:1200]
    shuffled = np.random.default_rng(2).permutation(digits[1][600:1200])
    found = measure_samples(images, shuffled, yardstick)
    # 5 standard deviations of a share of 600
    assert abs(number(found, "class_accuracy") - 0.1) < 5 * np.sqrt(0.09 / 600)
    without = measure_samples(images, None, yardstick)
    assert without == found | {"class_accuracy": None}


def test_a_missing_class_costs_recall(digits: tuple[np.ndarray, np.ndarray], yardstick: Yardstick) -> None:
    """Digits below 5 alone keep their precision and lose about half of recall and coverage."""
    images, labels = digits[0][600:1200], digits[1][600:1200]
    found = measure_samples(images[labels < 5], labels[labels < 5], yardstick)
    assert number(found, "precision") > 0.9
    assert number(found, "recall") < 0.7
    assert number(found, "coverage") < 0.6


def test_real_halves_are_measured_at_the_same_size(
    digits: tuple[np.ndarray, np.ndarray], yardstick: Yardstick
) -> None:
    """The same random state draws the same real samples; their distance falls with their number."""
    images, labels = digits[0][600:1200], digits[1][600:1200]
    few, again, many = (
        halves_measures(images, labels, yardstick, n, rng=np.random.default_rng(0)) for n in (150, 150, 600)
    )
    assert few == again
    assert number(few, "frechet_distance") > 1.5 * number(many, "frechet_distance")
    assert number(many, "frechet_distance") == pytest.approx(
        number(measure_samples(images, labels, yardstick), "frechet_distance")
    )
    assert_refused(lambda: halves_measures(images, labels, yardstick, 601, rng=np.random.default_rng(0)), "n")


def test_accuracy_of_a_classifier_trained_on_samples(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Trained on real digits it is high and reproducible; on shuffled labels it is near chance."""
    images, labels = digits
    spec = replace(QUICK, n_epochs=10)
    test = images[900:], labels[900:]

    def accuracy(asked: np.ndarray) -> float:
        return trained_accuracy(images[:500], asked, *test, spec, rng=np.random.default_rng(0))

    assert accuracy(labels[:500]) > 0.85
    assert accuracy(labels[:500]) == accuracy(labels[:500])
    assert accuracy(np.random.default_rng(1).permutation(labels[:500])) < 0.3


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(st.integers(6, 30), st.integers(0, 10**6))
def test_order_does_not_matter(n: int, seed: int) -> None:
    """The samples in another order have the same figures, and each share is in [0, 1]."""
    samples = points(n, seed=seed)
    yardstick = point_yardstick(points(20, seed=seed + 1))
    one = measure_samples(samples, None, yardstick)
    other = measure_samples(np.random.default_rng(seed).permutation(samples), None, yardstick)
    for name in COLUMNS[:8]:
        assert one[name] == pytest.approx(number(other, name), rel=1e-9, abs=1e-9)
    assert all(0 <= number(one, name) <= 1 for name in ("precision", "recall", "coverage"))


def test_weight_free_features_measure_images(
    digits: tuple[np.ndarray, np.ndarray], classifier: Classifier
) -> None:
    """Without a model the features have mean 0 and deviation 1 in the reference; classes still come from one."""
    images, labels = digits[0][:60], digits[1][:60]
    yardstick = embedder_yardstick(digits[0][1200:1300], None, classifier=classifier)
    np.testing.assert_allclose(yardstick.reference.mean(axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(yardstick.reference.std(axis=0), 1)
    found = measure_samples(images, labels, yardstick)
    assert number(found, "class_accuracy") > 0.9
    assert number(found, "precision") > 0.8


@pytest.mark.parametrize("channels", [1, 3])
def test_embedders_see_bytes_of_three_channels(channels: int) -> None:
    """Gray images are repeated, floats become the bytes that they stand for, and other channels are refused."""
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 8, channels), np.uint8)
    yardstick = embedder_yardstick(images, MeanColours())
    expected = images.mean(axis=(1, 2)) * np.ones(3)
    np.testing.assert_allclose(yardstick.reference[:, :3], expected, rtol=1e-5)
    assert yardstick.n_features == 4
    floats = images / np.float32(127.5) - np.float32(1)
    assert measure_samples(floats, None, yardstick) == measure_samples(images, None, yardstick)
    assert measure_samples(images, None, yardstick)["class_accuracy"] is None
    odd = np.concatenate([images[..., :1]] * 2, axis=3)
    assert_refused(lambda: measure_samples(odd, None, yardstick), "samples")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: np.where(x > 1, np.nan, x), "samples"),
        (lambda x: np.where(x > 1, np.inf, x), "samples"),
        (lambda x: x[:5], "samples"),
        (lambda x: x[:, :2], "samples"),
    ],
)
def test_samples_that_cannot_be_measured_are_refused(change: Callable[..., Any], name: str) -> None:
    """NaN, infinity, k samples or fewer and another shape are refused by name."""
    yardstick = point_yardstick(points(30))
    assert_refused(lambda: measure_samples(change(points(30, seed=1)), None, yardstick), name)
    assert_refused(lambda: measure_samples(points(30), np.zeros(29, int), yardstick), "labels")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: point_yardstick(points(5)), "reference"),
        (lambda: point_yardstick(points(30), k=0), "k"),
        (lambda: point_yardstick(points(3), k=1), "reference"),
        (lambda: point_yardstick(np.ones((30, 3))), "reference"),
        (lambda: point_yardstick(points(30), law=Gaussian.standard(2)), "law"),
    ],
)
def test_references_that_measure_nothing_are_refused(call: Callable[[], object], name: str) -> None:
    """Few or equal references, a bad k and a law of other dimensions are refused by name."""
    assert_refused(call, name)
