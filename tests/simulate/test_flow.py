"""The flow: an exact density, an exact inverse, classes, and samples that follow the stated bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from poolproof.errors import InputError
from poolproof.simulate.coupling import (
    from_latent,
    initial_weights,
    normalise_layers,
    to_latent,
    weight_shapes,
)
from poolproof.simulate.flow import FlowGenerator, FlowModel, FlowSpec
from poolproof.simulate.frame import measure_frame, read_rows
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.laws import rosenbrock, rosenbrock_log_density
from poolproof.simulate.normal import NormalGenerator

TINY = FlowSpec(n_layers=3, hidden=16, n_epochs=6, batch_size=64, device="cpu")
SMALL = replace(TINY, n_layers=4, hidden=32, n_epochs=30)


def banana(n: int = 400) -> np.ndarray:
    """Points along a parabola, far from 0 and of unlike scales."""
    return rosenbrock(n, a=0.5, b=2.0, rng=np.random.default_rng(0)) * [1.0, 100.0] + [50.0, 0.0]


def plates(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 3 x 4 images of bytes that are dark or bright all over, with a little noise."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(scale=12, size=(n, 3, 4, 1))
    return np.rint((60 + 130 * labels)[:, None, None, None] + noise).clip(0, 255).astype(np.uint8), labels


def fit(
    points: np.ndarray, labels: np.ndarray | None = None, spec: FlowSpec = TINY, seed: int = 0, **options: Any
) -> FlowGenerator:
    """A flow fitted to samples."""
    return FlowGenerator(spec).fit(points, labels, rng=np.random.default_rng(seed), **options)


def draw(generator: FlowGenerator, n: int, seed: int = 1, **options: Any) -> np.ndarray:
    """Samples with a fresh random state."""
    return generator.sample(n, rng=np.random.default_rng(seed), **options)[0]


def model_of(generator: FlowGenerator) -> FlowModel:
    """What was fitted."""
    assert generator.model is not None
    return generator.model


@pytest.fixture(scope="module")
def tiny() -> FlowGenerator:
    """A flow of the banana, hardly trained."""
    return fit(banana())


@pytest.fixture(scope="module")
def small() -> FlowGenerator:
    """A flow of the banana, trained."""
    return fit(banana(1000), None, SMALL)


@pytest.fixture(scope="module")
def classy() -> FlowGenerator:
    """A flow of the plates with their classes."""
    return fit(*plates(), replace(SMALL, n_levels=32))


def random_weights(d: int, n_classes: int) -> dict[str, Any]:
    """Weights of a network that is far from the identity, in double precision."""
    import torch

    rng = np.random.default_rng(3)
    weights = initial_weights(weight_shapes(d, 3, 8, n_classes), rng=rng)
    return {name: torch.tensor(w + 0.3 * rng.normal(size=w.shape)) for name, w in weights.items()}


@pytest.mark.reference
@pytest.mark.parametrize(("d", "n_classes"), [(2, 0), (3, 0), (5, 4)])
def test_jacobian_is_that_of_automatic_differentiation(d: int, n_classes: int) -> None:
    """The log-determinant at a point is that of the matrix of all derivatives, and the inverse leads back."""
    import torch

    weights = random_weights(d, n_classes)
    points = torch.tensor(np.random.default_rng(0).normal(size=(6, d)))
    classes = torch.eye(n_classes, dtype=torch.float64)[torch.arange(6) % n_classes] if n_classes else None
    latent, log_det = to_latent(weights, points, classes)
    for row in range(6):
        given = None if classes is None else classes[row : row + 1]

        def image(point: torch.Tensor, given: torch.Tensor | None = given) -> torch.Tensor:
            return to_latent(weights, point[None], given)[0][0]

        jacobian: Any = torch.autograd.functional.jacobian(image, points[row])
        assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(float(log_det[row]), abs=1e-9)
    np.testing.assert_allclose(from_latent(weights, latent, classes), points, atol=1e-9)


@pytest.mark.theory
def test_first_weights_are_rotations_between_normalised_coordinates() -> None:
    """Before training the map is affine, and whitens nothing but the scale of each coordinate."""
    import torch

    weights = {
        name: torch.tensor(w)
        for name, w in initial_weights(weight_shapes(6, 4, 8, 0), rng=np.random.default_rng(0)).items()
    }
    rotation = (weights["lower"] + torch.eye(6)) @ (
        weights["upper"] + torch.diag_embed(weights["log_diagonal"].exp())
    )
    np.testing.assert_allclose(rotation @ rotation.mT, np.tile(np.eye(6), (4, 1, 1)), atol=1e-5)
    points = torch.tensor(np.random.default_rng(1).normal(2, 3, (500, 6)), dtype=torch.float32)
    normalise_layers(weights, points)
    latent, log_det = to_latent(weights, points, None)
    assert float(log_det.std()) < 1e-5
    np.testing.assert_allclose(latent.mean(dim=0), 0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.theory
def test_density_integrates_to_one(small: FlowGenerator) -> None:
    """Over a fine grid in the plane the density of the trained flow sums to 1."""
    x, y = np.linspace(44, 57, 401), np.linspace(-1500, 4500, 801)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    density = np.exp(small.log_density(grid.reshape(-1, 2))).reshape(grid.shape[:2])
    total = float(integrate.trapezoid(integrate.trapezoid(density, y), x))
    assert total == pytest.approx(1, abs=0.02)


def test_learns_the_banana_better_than_a_normal_law(small: FlowGenerator) -> None:
    """On new points it is nearer to the true density than half the way from the best normal law."""
    new = rosenbrock(2000, a=0.5, b=2.0, rng=np.random.default_rng(9))
    truth = rosenbrock_log_density(new, a=0.5, b=2.0).mean() - np.log(100)
    normal = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov((new * [1, 100]).T))[1]
    assert small.log_density(new * [1.0, 100.0] + [50.0, 0.0]).mean() > (truth + normal) / 2 + 0.1


@pytest.mark.theory
def test_samples_have_the_density_told(small: FlowGenerator) -> None:
    """The mean of exp(g - log p) over samples is the integral of exp(g), for a normal density exp(g) on the mass."""
    samples = draw(small, 20_000)
    law = NormalGenerator().fit(samples[:2000], None, rng=np.random.default_rng(0))
    assert law.mean is not None
    assert law.factor is not None
    # half as wide as the samples, and so within their reach
    z = 2 * np.linalg.solve(law.factor, (samples - np.median(samples, axis=0)).T).T
    log_g = (
        -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) + 2 * np.log(2) - np.log(abs(np.linalg.det(law.factor)))
    )
    ratios = np.exp(np.minimum(log_g - small.log_density(samples), 50))
    assert abs(ratios.mean() - 1) < max(5 * ratios.std() / np.sqrt(len(ratios)), 0.02)


@pytest.mark.theory
def test_bias_scales_the_latent_points(small: FlowGenerator) -> None:
    """From one random state, a smaller bias gives the images of latent points scaled by sqrt(bias)."""
    import torch

    model = model_of(small)
    weights = {name: torch.tensor(w, dtype=torch.float64) for name, w in model.weights.items()}

    def latent(points: np.ndarray) -> np.ndarray:
        coordinates = (points - model.frame.centre) / model.frame.scale
        return to_latent(weights, torch.tensor(coordinates), None)[0].numpy()

    plain, biased = latent(draw(small, 50)), latent(draw(small, 50, sampling_bias=0.3))
    np.testing.assert_allclose(biased, np.sqrt(0.3) * plain, atol=1e-6)
    spreads = [draw(small, 1000, sampling_bias=bias).std(axis=0) for bias in (1.0, 0.5, 0.1)]
    assert (np.diff(spreads, axis=0) < 0).all()


def test_equal_random_states_give_equal_bytes(tiny: FlowGenerator) -> None:
    """Fits and samples depend on the random state alone: not on threads, and nothing global is changed."""
    import torch

    torch.manual_seed(5)
    state, before = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.no_grad():
            again = fit(banana())
        samples = draw(again, 9)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert samples.tobytes() == draw(tiny, 9).tobytes()
    assert samples.tobytes() != draw(tiny, 9, seed=2).tobytes()
    assert samples.tobytes() != draw(fit(banana(), seed=4), 9).tobytes()


def test_a_state_laid_down_and_taken_up_gives_the_same_samples(
    tiny: FlowGenerator, classy: FlowGenerator
) -> None:
    """With and without classes, for points and images, through the file format of the loop."""
    from safetensors.numpy import load, save

    for fitted in (tiny, classy):
        state = load(save({name: np.ascontiguousarray(value) for name, value in fitted.state().items()}))
        restored = FlowGenerator(fitted.spec).restore(state)
        assert draw(restored, 9).tobytes() == draw(fitted, 9).tobytes()
        assert model_of(restored).loss == model_of(fitted).loss


def test_classes_come_out_as_asked_for(classy: FlowGenerator) -> None:
    """Dark and bright plates are bytes of the right shape, of the class that was named or drawn."""
    labels = np.arange(60) % 2
    images = draw(classy, 60, labels=labels)
    assert (images.shape, images.dtype) == ((60, 3, 4, 1), np.uint8)
    np.testing.assert_allclose([images[labels == k].mean() for k in (0, 1)], [60, 190], atol=12)
    drawn, given = classy.sample(400, rng=np.random.default_rng(0))
    assert given is not None
    assert abs(given.mean() - 0.5) < 5 * 0.5 / np.sqrt(400)
    assert drawn[given == 0].mean() < 90 < 160 < drawn[given == 1].mean()


def test_float_images_stay_floats_in_range() -> None:
    """Images in [-1, 1], with or without channels, come back as float32 in that range."""
    images, labels = plates()
    pixels = (images[..., 0] / 127.5 - 1).astype(np.float32)
    samples = draw(fit(pixels, labels), 5)
    assert (samples.shape, samples.dtype) == ((5, 3, 4), np.float32)
    assert -1 <= samples.min() <= samples.max() <= 1


@pytest.mark.property
@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_grey_levels_survive_the_frame(n_levels: int, rng: np.random.Generator) -> None:
    """Bytes of so many levels come back exactly, whatever the noise, and rows have mean 0 and variance 1."""
    levels = rng.integers(0, n_levels, (200, 2, 3, 1))
    images = np.rint(levels * (255 / (n_levels - 1))).astype(np.uint8)
    kind, rows = read_rows(images, np.ones(200, bool), n_levels)
    frame = measure_frame(kind, (2, 3, 1), rows, np.full(200, 1 / 200), n_levels, rng=rng)
    coordinates = frame.encode(rows, rng=rng)
    np.testing.assert_allclose(coordinates.std(axis=0), 1, atol=0.2)
    np.testing.assert_array_equal(frame.decode(coordinates), images)


def test_weights_act_like_repeated_rows() -> None:
    """Rows of weight 0 change no byte; a class of three times the weight is drawn three times as often."""
    points, labels = banana(), np.arange(400) % 2
    spoilt = np.concatenate([points, [[np.nan, 0.0]]])
    other = fit(spoilt, weights=np.append(np.ones(400), 0.0))
    assert draw(other, 9).tobytes() == draw(fit(points), 9).tobytes()
    weighted = fit(points, labels, weights=np.where(labels == 1, 3.0, 1.0))
    np.testing.assert_allclose(weighted.state()["label_shares"], [0.25, 0.75])
    left = points[:, 0] < np.median(points[:, 0])
    shifted = fit(points, None, SMALL, weights=np.where(left, 1.0, 1e-3))
    assert (draw(shifted, 300)[:, 0] < np.median(points[:, 0]) + 0.3).mean() > 0.9


def test_warm_start_goes_on_from_what_it_is_given(small: FlowGenerator) -> None:
    """A short fit from a trained flow is as good as that one, and better than one from scratch."""
    points = banana(1000)
    brief = replace(SMALL, n_epochs=1, learning_rate=1e-4)
    warm, cold = fit(points, None, brief, start=small), fit(points, None, brief)
    reached = small.log_density(points).mean()
    assert warm.log_density(points).mean() > reached - 0.05
    assert cold.log_density(points).mean() < reached - 0.2
    assert model_of(warm).frame is model_of(small).frame


def test_training_that_diverges_is_a_failed_generation() -> None:
    """A learning rate that ruins the weights raises GeneratorDiverged."""
    with pytest.raises(GeneratorDiverged, match="smaller one"):
        fit(banana(), None, replace(TINY, learning_rate=1e38))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": banana()[:0], "labels": None}, "images: got no rows"),
        ({"images": banana() * np.nan}, "images: got a value that is not finite"),
        ({"images": banana()[:, :1]}, "images: got points of 1 coordinate"),
        ({"images": banana() * [1.0, 0.0]}, "images: got variance 0 in coordinate 1"),
        ({"images": banana() * 1e200}, "images: got variance (inf|nan)"),
        ({"images": np.full((400, 2, 2), 1.5)}, "images: got pixels to 1.5"),
        ({"images": np.full((400, 2, 2), np.nan)}, "images: got pixels to nan"),
        ({"images": np.zeros((400, 1, 1), np.float32)}, "images: got shape"),
        ({"labels": np.arange(400) - 1}, "labels: got -1"),
        ({"weights": np.full(400, -1.0)}, "weights: got a negative one"),
        ({"start": FlowGenerator(TINY)}, "start: got no fitted flow"),
        ({"start": fit(*plates())}, "start: got a flow of bytes"),
    ],
)
def test_bad_training_data_are_refused(change: dict[str, Any], message: str) -> None:
    """Every argument names itself when it cannot be trained on."""
    arguments = {"images": banana(), "labels": None} | change
    with pytest.raises(InputError, match=message):
        FlowGenerator(TINY).fit(**arguments, rng=np.random.default_rng(0))


def test_bad_arguments_of_samples_and_states_are_refused(
    tiny: FlowGenerator, classy: FlowGenerator, rng: np.random.Generator
) -> None:
    """No fit, counts below 1, biases outside (0, 1], unknown labels and foreign arrays are InputErrors."""
    for bias in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="sampling_bias: got"):
            tiny.sample(1, sampling_bias=bias, rng=rng)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: tiny.sample(0, rng=rng), "n: got 0"),
        (lambda: tiny.sample(1, labels=np.zeros(1, int), rng=rng), "labels: got some"),
        (lambda: tiny.log_density(np.zeros((1, 3))), "points: got shape"),
        (lambda: classy.log_density(np.zeros((1, 12))), "points: got shape"),
        (lambda: classy.sample(2, labels=np.zeros(1, int), rng=rng), "labels: got 1, allowed n = 2"),
        (lambda: classy.sample(1, labels=np.array([2]), rng=rng), "labels: got 2 to 2"),
        (lambda: classy.sample(1, labels=np.array([-1]), rng=rng), "labels: got -1 to -1"),
        (lambda: FlowGenerator().sample(1, rng=rng), "generator: got one not fitted"),
        (FlowGenerator().state, "generator: got one not fitted"),
        (lambda: FlowGenerator().log_density(np.zeros((1, 2))), "generator: got one not fitted"),
        (lambda: FlowGenerator(SMALL).restore(tiny.state()), "state: got weights of other shapes"),
        (lambda: tiny.restore({"shape": np.array([2])}), "state: got no centre"),
    ]
    for call, message in calls:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 0),
        ("hidden", 0),
        ("n_epochs", 0),
        ("batch_size", 0),
        ("n_threads", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("n_levels", 1),
        ("n_levels", 257),
        ("device", "tpu"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float | str) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"^{name}: got"):
        replace(FlowSpec(), **{name: value})


@pytest.mark.slow
def test_digits_are_recognised_by_a_classifier_of_real_digits() -> None:
    """Two in three samples read as meant, more with bias, and they lie nearer to real digits than a normal law's."""
    from sklearn.datasets import load_digits
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from poolproof.detectors.distance import frechet_distance

    bunch: Any = load_digits()
    images, labels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None], bunch.target
    rows = np.random.default_rng(0).permutation(len(images))
    train, rest = rows[:900], rows[900:]
    spec = replace(
        FlowSpec(), hidden=128, n_epochs=60, batch_size=128, weight_decay=3.0, n_levels=17, device="cpu"
    )
    fitted = fit(images[train], labels[train], spec)
    reader = make_pipeline(StandardScaler(), SVC()).fit(images[rest].reshape(-1, 64) / 255, labels[rest])
    meant = np.arange(900) % 10
    scores, samples = [], []
    for bias in (1.0, 0.5):
        samples.append(draw(fitted, 900, labels=meant, sampling_bias=bias).reshape(-1, 64) / 255)
        scores.append(reader.score(samples[-1], meant))
    assert scores[0] > 0.6
    assert scores[1] > 0.8
    real = [images[part].reshape(-1, 64) / 255 for part in (train, rest)]
    distance = frechet_distance(samples[0], real[1]) / frechet_distance(*real)
    assert 1 < distance < 5
    assert not (samples[0][:, None] == real[0]).all(axis=-1).any()
