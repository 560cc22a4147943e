"""The diffusion model: reproducible, conditional, guided by the stated rule, and without traces elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.diffusion import DiffusionGenerator, DiffusionModel, fit_diffusion
from poolproof.simulate.diffusion_spec import TARGETS, DiffusionSpec
from poolproof.simulate.diffusion_training import check_weights
from poolproof.simulate.generator import GeneratorDiverged

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
        ("denoiser", "transformer"),
        ("precision", "float16"),
        ("precision", "bfloat16"),
        ("compile", True),
        ("device", "tpu"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float | str) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"{name}: got"):
        replace(DiffusionSpec(), **{name: value})


def test_training_that_diverges_is_an_error() -> None:
    """A learning rate that ruins the weights is an error that names it, and no model."""
    with pytest.raises(GeneratorDiverged, match="learning_rate: got 1e\\+38"):
        fit(replace(TINY, learning_rate=1e38))


def test_training_that_diverges_stops_soon() -> None:
    """A loss that is not finite ends the training long before its last step."""
    seen: list[int] = []
    with pytest.raises(GeneratorDiverged):
        fit_diffusion(
            *plates(),
            replace(TINY, learning_rate=1e38, n_steps=10_000),
            rng=np.random.default_rng(0),
            on_step=lambda step, loss: seen.append(step),
        )
    assert len(seen) == 200


def test_samples_that_are_not_finite_are_an_error(tiny: DiffusionModel) -> None:
    """A model with a weight that is not a number gives no samples."""
    bad = tiny.weights["leave.bias"].copy()
    bad[0] = np.nan
    with pytest.raises(GeneratorDiverged, match="learning_rate: got"):
        draw(replace(tiny, weights=tiny.weights | {"leave.bias": bad}), 2)


def test_samples_of_weight_zero_never_matter() -> None:
    """Absurd images and classes of weight 0 leave every byte as if they were not there; small weights do not."""
    images, labels = plates()
    absurd = np.concatenate([images, np.full((3, 4, 5), -1.0)])
    classes = np.concatenate([labels, [7, 0, 7]])
    weights = np.concatenate([np.linspace(1, 2, 40), np.zeros(3)])

    def weighted(images: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> DiffusionModel:
        return fit_diffusion(images, labels, TINY, weights=weights, rng=np.random.default_rng(0))

    alone, beside = weighted(images, labels, weights[:40]), weighted(absurd, classes, weights)
    assert all(np.array_equal(alone.weights[name], beside.weights[name]) for name in alone.weights)
    assert draw(alone, 5).tobytes() == draw(beside, 5).tobytes()
    touched = weighted(absurd, classes, np.concatenate([weights[:40], [0, 1, 0]]))
    assert not np.array_equal(alone.weights["enter.weight"], touched.weights["enter.weight"])


def test_only_ratios_of_weights_count() -> None:
    """Weights times a power of two give the same bytes; whole weights are label shares."""
    images, labels = plates()
    weights = np.where(labels == 1, 3.0, 1.0)
    models = [
        fit_diffusion(images, labels, TINY, weights=w, rng=np.random.default_rng(0))
        for w in (weights, weights * 2.0**-900)
    ]
    assert draw(models[0], 5).tobytes() == draw(models[1], 5).tobytes()
    for model in models:
        assert model.label_shares is not None
        np.testing.assert_allclose(model.label_shares, [0.25, 0.75], rtol=1e-12)


@pytest.mark.theory
def test_weights_are_the_odds_of_being_trained_on() -> None:
    """Without classes, the best constant image is the weighted mean, which one hopeless noise level asks for."""
    images, labels = plates()
    weights = np.where(labels == 1, 3.0, 1.0)
    spec = replace(TINY, n_steps=300, learning_rate=4e-3, batch_size=64, n_sampling_steps=1)
    model = fit_diffusion(images, None, spec, weights=weights, rng=np.random.default_rng(0))
    expected = (weights[:, None, None] * images).sum(0) / weights.sum()
    np.testing.assert_allclose(draw(model, 200).mean(axis=0), expected, atol=0.08)


@pytest.mark.parametrize(
    "weights",
    [np.zeros(40), -np.ones(40), np.full(40, np.nan), np.full(40, np.inf)],
    ids=["none positive", "negative", "nan", "infinite"],
)
def test_weights_to_draw_nothing_by_are_refused(weights: np.ndarray) -> None:
    """Weights that are too few, negative, not finite or all 0 are an InputError."""
    with pytest.raises(InputError, match="weights: got"):
        fit_diffusion(*plates(), TINY, weights=weights, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="weights: got 39, allowed 40"):
        check_weights(np.ones(39), 40)


def test_a_warm_start_goes_on() -> None:
    """Training that starts from a fitted generator has a lower loss at once, and gives other bytes than scratch."""
    images, labels = plates()
    scratch = DiffusionGenerator(replace(TINY, n_steps=100)).fit(images, labels, rng=np.random.default_rng(0))
    short = DiffusionGenerator(replace(TINY, n_steps=5))
    cold = short.fit(images, labels, rng=np.random.default_rng(1))
    warm = short.fit(images, labels, start=scratch, rng=np.random.default_rng(1))
    assert cold.model is not None
    assert warm.model is not None
    assert warm.model.loss < 0.6 * cold.model.loss
    assert not np.array_equal(warm.model.weights["enter.weight"], cold.model.weights["enter.weight"])
    dark = short.fit(images[::2], labels[::2], start=scratch, rng=np.random.default_rng(1))
    assert dark.model is not None
    assert dark.model.label_shares is not None
    np.testing.assert_array_equal(dark.model.label_shares, [1, 0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"spec": replace(TINY, width=16)}, "start: got width 32, allowed 16"),
        ({"spec": replace(TINY, target="noise")}, "start: got target image, allowed noise"),
        ({"images": np.zeros((4, 5, 5))}, "start: got a model of images of shape"),
        ({"labels": None}, "labels: got none"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels: got up to 2"),
        ({"start": DiffusionGenerator(TINY)}, "start: got DiffusionGenerator, allowed a fitted"),
    ],
)
def test_a_start_of_another_kind_is_refused(
    tiny: DiffusionModel, spoil: dict[str, Any], message: str
) -> None:
    """Other networks, images or classes than those of the start, and an unfitted start, are InputErrors."""
    options: dict[str, Any] = {
        "spec": TINY,
        "images": np.zeros((4, 4, 5)),
        "labels": np.array([0, 1, 1, 0]),
        "start": DiffusionGenerator(TINY, tiny),
    } | spoil
    with pytest.raises(InputError, match=message):
        DiffusionGenerator(options["spec"]).fit(
            options["images"], options["labels"], start=options["start"], rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("labelled", [True, False])
def test_a_restored_generator_samples_the_same_bytes(labelled: bool, tmp_path: Path) -> None:
    """The state goes through a safetensors file, and what is restored draws the same samples and labels."""
    from safetensors.numpy import load_file, save_file

    images, labels = plates()
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)[..., None]
    blank = DiffusionGenerator(TINY)
    fitted = blank.fit(pixels, labels if labelled else None, rng=np.random.default_rng(0))
    save_file(dict(fitted.state()), tmp_path / "state.safetensors")
    restored = blank.restore(load_file(tmp_path / "state.safetensors"))
    assert restored.model is not None
    assert fitted.model is not None
    assert restored.model.loss == fitted.model.loss
    samples, classes = fitted.sample(5, rng=np.random.default_rng(1))
    others, other_classes = restored.sample(5, rng=np.random.default_rng(1))
    assert samples.dtype == others.dtype == np.uint8
    assert samples.tobytes() == others.tobytes()
    np.testing.assert_array_equal(np.array(classes), np.array(other_classes))


def test_a_state_that_does_not_fit_is_refused(tiny: DiffusionModel) -> None:
    """Missing arrays, other shapes, strange arrays and an unfitted generator are InputErrors."""
    state = dict(DiffusionGenerator(TINY, tiny).state())
    with pytest.raises(InputError, match="state: got none of shape"):
        DiffusionGenerator(TINY).restore({name: value for name, value in state.items() if name != "shape"})
    for other in (
        {name: value for name, value in state.items() if name != "weight.time"},
        state | {"weight.time": np.zeros((2, 2), np.float32)},
        state | {"weight.more": np.zeros(2, np.float32)},
        state | {"label_shares": np.ones(3) / 3},
    ):
        with pytest.raises(InputError, match="state: got weight"):
            DiffusionGenerator(TINY).restore(other)
    with pytest.raises(InputError, match=r"state: got weight\.block0"):
        DiffusionGenerator(replace(TINY, width=16)).restore(state)
    with pytest.raises(InputError, match="not fitted"):
        DiffusionGenerator(TINY).state()


@pytest.mark.slow
def test_guidance_trades_variance() -> None:
    """On digits, samples of one class vary less the smaller the bias."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    spec = replace(DiffusionSpec(), width=128, n_steps=800, target="velocity", n_sampling_steps=25)
    model = fit_diffusion(bunch.images[:900] / 8 - 1, bunch.target[:900], spec, rng=np.random.default_rng(0))
    meant = np.repeat(np.arange(10), 40)
    spreads = []
    for bias in (1.0, 0.8, 0.66):
        samples = draw(model, meant, bias).reshape(10, 40, 64)
        spreads.append(samples.var(axis=1).sum(axis=1).mean())
    assert spreads[0] > 1.03 * spreads[1] > 1.03**2 * spreads[2]


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
