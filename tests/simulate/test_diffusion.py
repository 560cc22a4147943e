"""The diffusion model: reproducible, conditional, guided by the stated rule, and without traces elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.diffusion import (
    TARGETS,
    DiffusionGenerator,
    DiffusionModel,
    DiffusionSpec,
    fit_diffusion,
)

TINY = DiffusionSpec(n_timesteps=50, n_sampling_steps=5, width=32, n_blocks=2, n_steps=30, batch_size=16)


def plates(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 4 x 5 images that are dark or bright all over, with a little noise."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(scale=0.02, size=(n, 4, 5))
    return (labels * 1.2 - 0.6)[:, None, None] + noise, labels


def fit(spec: DiffusionSpec = TINY, seed: int = 0) -> DiffusionModel:
    """A model of the plates."""
    return fit_diffusion(*plates(), spec, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def tiny() -> DiffusionModel:
    """A model of the plates, hardly trained."""
    return fit()


def draw(model: DiffusionModel, labels: int | np.ndarray, bias: float = 1.0, seed: int = 1) -> np.ndarray:
    """Samples with a fresh random state."""
    return model.sample(labels, sampling_bias=bias, rng=np.random.default_rng(seed))


def test_same_seed_gives_the_same_bytes(tiny: DiffusionModel) -> None:
    """Two fits and draws from equal random states agree in every byte; other seeds differ."""
    again = fit()
    assert all(np.array_equal(tiny.weights[name], again.weights[name]) for name in tiny.weights)
    assert draw(tiny, 7).tobytes() == draw(again, 7).tobytes()
    assert draw(tiny, 7).tobytes() != draw(tiny, 7, seed=2).tobytes()
    assert draw(tiny, 7).tobytes() != draw(fit(seed=3), 7).tobytes()


def test_threads_set_elsewhere_change_nothing(tiny: DiffusionModel) -> None:
    """The number of threads of torch neither enters the result nor is changed by it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = fit()
        samples = draw(again, 7)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert samples.tobytes() == draw(tiny, 7).tobytes()


def test_no_global_state_is_read_or_changed(tiny: DiffusionModel, capfd: pytest.CaptureFixture[str]) -> None:
    """Global generators keep their state, gradients stay as they were set, and nothing is printed."""
    import torch

    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.no_grad():
        model = fit()
        assert not torch.is_grad_enabled()
    draw(model, 3)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(tiny.weights[name], model.weights[name]) for name in tiny.weights)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("trailing", [(), (1,), (3,)])
def test_samples_have_the_shape_and_range_of_the_images(trailing: tuple[int, ...]) -> None:
    """Samples are float32 in [-1, 1], of the shape of the training images with or without channels."""
    images, labels = plates()
    images = np.broadcast_to(
        images.reshape(*images.shape, *(1 for _ in trailing)), (*images.shape, *trailing)
    )
    model = fit_diffusion(images, labels, TINY, rng=np.random.default_rng(0))
    samples = draw(model, 6)
    assert samples.shape == (6, 4, 5, *trailing)
    assert samples.dtype == np.float32
    assert -1 <= samples.min() <= samples.max() <= 1


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_learns_what_each_class_looks_like(target: str) -> None:
    """After a few hundred steps dark and bright plates come out as asked for, with every target."""
    spec = replace(TINY, n_steps=600, width=64, learning_rate=4e-3, batch_size=32, n_sampling_steps=25)
    model = fit(replace(spec, target=target))
    samples = draw(model, np.array([0, 1] * 10))
    np.testing.assert_allclose(samples[0::2].mean(), -0.6, atol=0.1)
    np.testing.assert_allclose(samples[1::2].mean(), 0.6, atol=0.1)


def test_bias_of_one_uses_no_guidance(tiny: DiffusionModel) -> None:
    """At 1 the prediction without class plays no part; below 1 it does."""
    table = tiny.weights["class"].copy()
    table[-1] += 10
    other = replace(tiny, weights=tiny.weights | {"class": table})
    labels = np.array([0, 1, 1])
    assert draw(tiny, labels).tobytes() == draw(other, labels).tobytes()
    assert draw(tiny, labels, 0.5).tobytes() != draw(other, labels, 0.5).tobytes()


@pytest.mark.theory
@pytest.mark.parametrize("bias", [0.8, 0.66, 0.5])
def test_guidance_follows_its_formula(tiny: DiffusionModel, bias: float) -> None:
    """One step gives (1 + w) times the prediction with class less w times that without, w = 1 / bias - 1."""
    step = replace(tiny, spec=replace(tiny.spec, n_sampling_steps=1))
    table = step.weights["class"]
    unconditional = replace(step, weights=step.weights | {"class": table[[2, 2, 2]]})
    labels = np.array([0, 1, 1, 0])
    w = 1 / bias - 1
    expected = (1 + w) * draw(step, labels) - w * draw(unconditional, labels)
    assert np.abs(expected).max() < 1
    np.testing.assert_allclose(draw(step, labels, bias), expected, atol=1e-5)


@pytest.mark.parametrize("bias", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_bias_outside_its_range_is_refused(tiny: DiffusionModel, bias: float) -> None:
    """A sampling bias that is not above 0 and up to 1 is an InputError."""
    with pytest.raises(InputError, match="sampling_bias: got"):
        draw(tiny, 3, bias)


def test_labels_are_drawn_at_training_frequencies() -> None:
    """A class that makes up a quarter of the training images makes up a quarter of the drawn labels."""
    images, _ = plates()
    labels = (np.arange(len(images)) % 4 == 0).astype(int)
    model = fit_diffusion(images, labels, TINY, rng=np.random.default_rng(0))
    drawn = model.draw_labels(4000, rng=np.random.default_rng(0))
    # 5 standard deviations of a share of 4000
    assert abs((drawn == 1).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_model_without_labels_samples_but_takes_none() -> None:
    """Without labels there are samples, but no guidance, no labels, and nothing to draw them from."""
    model = fit_diffusion(plates()[0], None, TINY, rng=np.random.default_rng(0))
    assert draw(model, 3).shape == (3, 4, 5)
    with pytest.raises(InputError, match="allowed 1 without labels"):
        draw(model, 3, 0.5)
    with pytest.raises(InputError, match="fitted without"):
        draw(model, np.array([0]))
    with pytest.raises(InputError, match="none to draw"):
        model.draw_labels(3, rng=np.random.default_rng(0))


def test_progress_is_told_after_every_step() -> None:
    """The callback sees steps 1 to n, and losses that end in the model's own figure."""
    seen: list[tuple[int, float]] = []
    model = fit_diffusion(
        *plates(), TINY, rng=np.random.default_rng(0), on_step=lambda step, loss: seen.append((step, loss))
    )
    assert [step for step, _ in seen] == list(range(1, TINY.n_steps + 1))
    assert model.loss == pytest.approx(np.mean([loss for _, loss in seen[-3:]]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images, labels: (images[:0], labels[:0]), "images: got shape"),
        (lambda images, labels: (images[0], None), "images: got shape"),
        (lambda images, labels: (images * 2, labels), "rescale them"),
        (lambda images, labels: (images * np.nan, labels), "rescale them"),
        (lambda images, labels: (images, labels - 1), "number the classes from 0"),
    ],
)
def test_bad_training_data_are_refused(spoil: Callable[..., tuple], message: str) -> None:
    """No images, a missing axis, pixels out of range and negative labels are InputErrors."""
    images, labels = spoil(*plates())
    with pytest.raises(InputError, match=message):
        fit_diffusion(images, labels, TINY, rng=np.random.default_rng(0))


@pytest.mark.parametrize("labels", [np.array([2]), np.array([-1]), np.array([], int), 0, -3])
def test_labels_the_model_does_not_know_are_refused(tiny: DiffusionModel, labels: int | np.ndarray) -> None:
    """Classes beyond those of training, and no images at all, are InputErrors."""
    with pytest.raises(InputError, match="allowed"):
        draw(tiny, labels)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("n_steps", 0),
        ("n_threads", 0),
        ("n_timesteps", 1),
        ("n_sampling_steps", 501),
        ("target", "score"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("ema_decay", 1.0),
        ("condition_dropout", -0.1),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float | str) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"{name}: got"):
        replace(DiffusionSpec(), **{name: value})


def test_training_that_diverges_is_an_error() -> None:
    """A learning rate that ruins the weights is an InputError and no model."""
    with pytest.raises(InputError, match="diverged"):
        fit(replace(TINY, learning_rate=1e38))


def test_generator_keeps_to_the_contract_of_a_loop() -> None:
    """Fitting returns a new value; samples come with labels, as bytes where the training images were bytes."""
    images, labels = plates()
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)[..., None]
    blank = DiffusionGenerator(TINY)
    fitted = blank.fit(pixels, labels, rng=np.random.default_rng(0))
    samples, drawn = fitted.sample(5, rng=np.random.default_rng(1))
    assert blank.model is None
    assert drawn is not None
    assert (samples.shape, samples.dtype, drawn.shape) == ((5, 4, 5, 1), np.uint8, (5,))
    floats = blank.fit(images[..., None], labels, rng=np.random.default_rng(0))
    assert floats.sample(2, labels=np.array([0, 1]), rng=np.random.default_rng(1))[0].dtype == np.float32
    with pytest.raises(InputError, match="not fitted"):
        blank.sample(1, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="one per image"):
        fitted.sample(2, labels=np.array([0]), rng=np.random.default_rng(0))


@pytest.mark.slow
def test_digits_are_recognised_by_a_classifier_of_real_digits() -> None:
    """A support vector machine that never saw the model reads more than nine in ten samples as meant."""
    from sklearn.datasets import load_digits
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    bunch: Any = load_digits()
    digits, labels = bunch.data, bunch.target
    rows = np.random.default_rng(0).permutation(len(digits))
    train, rest = rows[:700], rows[700:]
    model = fit_diffusion(
        digits[train].reshape(-1, 8, 8) / 8 - 1, labels[train], DiffusionSpec(), rng=np.random.default_rng(0)
    )
    meant = np.arange(300) % 10
    samples = np.rint((draw(model, meant) + 1) * 8).reshape(300, 64)
    reader = make_pipeline(StandardScaler(), SVC()).fit(digits[rest], labels[rest])
    assert reader.score(samples, meant) > 0.9
    # not copies of what it learnt from either
    distances = np.linalg.norm(samples[:, None] - digits[train][None], axis=-1).min(axis=1)
    assert np.count_nonzero(distances == 0) == 0
