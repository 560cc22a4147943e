"""The GAN as a generator of a loop: contract, truncation, reproducibility, weights, states, and real digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.gan import GanGenerator, GanSpec, fit_gan
from poolproof.simulate.generator import GeneratorDiverged

TINY = GanSpec(latent_dim=8, width=4, n_steps=6, batch_size=8, device="cpu")


def plates(shape: tuple[int, ...] = (8, 8, 1), n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of images that are dark or bright all over, with a little noise, as bytes."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 40, (n, *shape))
    return (labels.reshape(-1, *(1 for _ in shape)) * 160 + noise).astype(np.uint8), labels


def fit(spec: GanSpec = TINY, seed: int = 0, **options: Any) -> GanGenerator:
    """A generator of the plates."""
    return GanGenerator(spec).fit(*plates(), **options, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def tiny() -> GanGenerator:
    """A generator of the plates, hardly trained."""
    return fit()


def draw(generator: GanGenerator, n: int = 6, seed: int = 1, **options: Any) -> np.ndarray:
    """Samples with a fresh random state."""
    return generator.sample(n, **options, rng=np.random.default_rng(seed))[0]


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize(
    ("shape", "as_bytes"),
    [
        ((8, 8, 1), True),
        ((8, 8, 1), False),
        ((16, 16, 3), True),
        ((8, 8), False),
        ((28, 28, 1), True),
        ((4, 6, 2), False),
    ],
)
def test_generator_keeps_to_the_contract_of_a_loop(
    shape: tuple[int, ...], as_bytes: bool, with_labels: bool
) -> None:
    """Samples have the kind and shape of the training images, with labels where there were some."""
    images, labels = plates(shape)
    training = images if as_bytes else images / 127.5 - 1
    blank = GanGenerator(replace(TINY, n_steps=2))
    fitted = blank.fit(training, labels if with_labels else None, rng=np.random.default_rng(0))
    samples, drawn = fitted.sample(5, sampling_bias=0.7, rng=np.random.default_rng(1))
    assert blank.model is None
    assert samples.shape == (5, *shape)
    assert samples.dtype == (np.uint8 if as_bytes else np.float32)
    if not as_bytes:
        assert -1 <= samples.min() <= samples.max() <= 1
    assert (drawn is None) == (not with_labels)
    if drawn is not None:
        assert drawn.shape == (5,)
        assert set(drawn) <= {0, 1}


def test_same_seed_gives_the_same_bytes(tiny: GanGenerator) -> None:
    """Two fits and draws from equal random states agree in every byte; other seeds differ."""
    again = fit()
    states = tiny.state(), again.state()
    assert all(states[0][name].tobytes() == states[1][name].tobytes() for name in states[0])
    assert draw(tiny).tobytes() == draw(again).tobytes()
    assert draw(tiny).tobytes() != draw(tiny, seed=2).tobytes()
    assert draw(tiny).tobytes() != draw(fit(seed=3)).tobytes()


def test_no_global_state_is_read_or_changed(tiny: GanGenerator, capfd: pytest.CaptureFixture[str]) -> None:
    """Threads, global generators and gradients stay as they were set, change nothing, and nothing is printed."""
    import torch

    torch.manual_seed(5)
    state, before = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.no_grad():
            again = fit()
            assert not torch.is_grad_enabled()
        samples = draw(again)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert samples.tobytes() == draw(tiny).tobytes()
    assert capfd.readouterr() == ("", "")


def test_restored_state_gives_the_same_samples(tiny: GanGenerator) -> None:
    """A generator restored from arrays draws and trains on as the one it was taken of."""
    copied = {name: value.copy() for name, value in tiny.state().items()}
    restored = GanGenerator(TINY).restore(copied)
    assert draw(restored, sampling_bias=0.6).tobytes() == draw(tiny, sampling_bias=0.6).tobytes()
    on, also = fit(start=tiny, seed=4), fit(start=restored, seed=4)
    assert draw(on).tobytes() == draw(also).tobytes()
    assert draw(on).tobytes() != draw(fit(seed=4)).tobytes()


def test_state_is_of_types_that_safetensors_knows(tiny: GanGenerator) -> None:
    """A state goes through safetensors' bytes and back unchanged."""
    from safetensors.numpy import load, save

    state = load(save(dict(tiny.state())))
    assert draw(GanGenerator(TINY).restore(state)).tobytes() == draw(tiny).tobytes()


def test_state_of_a_generator_without_labels_is_restored() -> None:
    """Without labels there are no shares, and none are asked for."""
    fitted = GanGenerator(TINY).fit(plates()[0], None, rng=np.random.default_rng(0))
    restored = GanGenerator(TINY).restore(fitted.state())
    assert draw(restored, sampling_bias=0.5).tobytes() == draw(fitted, sampling_bias=0.5).tobytes()


@pytest.mark.theory
def test_truncation_scales_deviations_of_styles_and_one_is_none(tiny: GanGenerator) -> None:
    """Where the centre plays no part the bias is 1; below, moving the centre moves the samples."""
    model = tiny.model
    assert model is not None
    other = replace(tiny, model=replace(model, centre=model.centre + 1))
    labels = np.array([0, 1, 1, 0, 1, 0])
    assert draw(tiny, labels=labels).tobytes() == draw(tiny, labels=labels, sampling_bias=1.0).tobytes()
    assert draw(tiny, labels=labels).tobytes() == draw(other, labels=labels).tobytes()
    biased = draw(tiny, labels=labels, sampling_bias=0.5)
    assert biased.tobytes() != draw(other, labels=labels, sampling_bias=0.5).tobytes()


@pytest.mark.theory
def test_truncation_reduces_variance() -> None:
    """Within a class the variance of samples falls with the bias, and vanishes with it."""
    images, labels = plates()
    fitted = GanGenerator(TINY).fit(images / 127.5 - 1, labels, rng=np.random.default_rng(0))
    model = fitted.model
    assert model is not None
    # noise inputs are not truncated; an untrained generator has almost none, and this leaves it none
    silent = {n: v * 0 if n.endswith("noise.bias") else v for n, v in model.networks.mean.items()}
    fitted = replace(fitted, model=replace(model, networks=replace(model.networks, mean=silent)))
    ones = np.ones(200, np.int64)
    variances = [
        float(draw(fitted, 200, labels=ones, sampling_bias=b).var(axis=0).sum())
        for b in (1.0, 0.7, 0.4, 1e-4)
    ]
    assert variances[0] > variances[1] > variances[2] > variances[3]
    assert variances[3] < 1e-4 * variances[0]


@pytest.mark.theory
def test_centre_is_the_mean_style_of_each_class(tiny: GanGenerator) -> None:
    """Fresh latent vectors have the centre as their mean style, within five standard errors."""
    import torch

    from poolproof.simulate.style_networks import map_latents, normal, to_tensors

    model = tiny.model
    assert model is not None
    net = to_tensors(model.networks.mean, torch.device("cpu"))
    for kind in (0, 1):
        latents = normal(4096, 8, torch.Generator().manual_seed(9))
        styles = map_latents(net, latents, torch.full((4096,), kind)).numpy()
        errors = styles.std(axis=0) * np.sqrt(2 / 4096)
        assert (np.abs(styles.mean(axis=0) - model.centre[kind]) < 5 * errors + 1e-6).all()


def test_weights_count_in_ratios_and_in_the_labels_that_are_drawn(tiny: GanGenerator) -> None:
    """Equal weights are none; a class whose rows weigh nothing is never drawn."""
    assert draw(fit(weights=np.full(24, 2.0))).tobytes() == draw(tiny).tobytes()
    labels = plates()[1]
    only = fit(weights=(labels == 1).astype(float))
    drawn = only.sample(50, rng=np.random.default_rng(0))[1]
    assert drawn is not None
    assert set(drawn) == {1}


def test_labels_are_drawn_at_training_frequencies() -> None:
    """A class that makes up a quarter of the training images makes up a quarter of the drawn labels."""
    images, _ = plates()
    labels = (np.arange(len(images)) % 4 == 0).astype(int)
    fitted = GanGenerator(replace(TINY, n_steps=1)).fit(images, labels, rng=np.random.default_rng(0))
    drawn = fitted.sample(2000, rng=np.random.default_rng(0))[1]
    assert drawn is not None
    # 5 standard deviations of a share of 2000
    assert abs((drawn == 1).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_warm_start_keeps_classes_that_later_samples_lack(tiny: GanGenerator) -> None:
    """A start with more classes than the labels goes on, and the missing class is no longer drawn."""
    images, labels = plates()
    fitted = GanGenerator(TINY).fit(
        images[labels == 0], labels[labels == 0], start=tiny, rng=np.random.default_rng(0)
    )
    assert fitted.model is not None
    assert fitted.model.layout.n_classes == 2
    assert draw(fitted, 2, labels=np.array([1, 0])).shape == (2, 8, 8, 1)
    drawn = fitted.sample(50, rng=np.random.default_rng(0))[1]
    assert drawn is not None
    assert set(drawn) == {0}


def test_progress_is_told_after_every_step() -> None:
    """The callback sees steps 1 to n with finite losses."""
    images, labels = plates()
    seen: list[tuple[int, float, float]] = []
    fit_gan(
        images / 127.5 - 1, labels, TINY, rng=np.random.default_rng(0), on_step=lambda *now: seen.append(now)
    )
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(seen).all()


def test_samples_that_are_not_finite_are_an_error(tiny: GanGenerator) -> None:
    """Weights that were spoilt give a GeneratorDiverged and no samples."""
    state = dict(tiny.state())
    state["mean.constant"] = state["mean.constant"] * np.nan
    with pytest.raises(GeneratorDiverged, match="not finite"):
        draw(GanGenerator(TINY).restore(state))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images, labels: (images[:0], labels[:0], None), "images: got shape"),
        (lambda images, labels: (images[0, :, :, 0], None, None), "images: got shape"),
        (lambda images, labels: (images * 2, labels, None), "rescale them"),
        (lambda images, labels: (images * np.nan, labels, None), "rescale them"),
        (lambda images, labels: (np.zeros((4, 2000, 2)), None, None), "shrink them"),
        (lambda images, labels: (images, labels - 1, None), "number the classes from 0"),
        (lambda images, labels: (images, labels, np.zeros(24)), "weights: got"),
        (lambda images, labels: (images, labels, np.full(24, -1.0)), "weights: got"),
        (lambda images, labels: (images, labels, np.full(24, np.inf)), "weights: got"),
    ],
)
def test_bad_training_data_are_refused(spoil: Callable[..., tuple], message: str) -> None:
    """Images, labels and weights that cannot be trained on are InputErrors."""
    images, labels = plates()
    images, labels, weights = spoil(images / 127.5 - 1, labels)
    with pytest.raises(InputError, match=message):
        GanGenerator(TINY).fit(images, labels, weights=weights, rng=np.random.default_rng(0))


def test_starts_of_another_kind_are_refused(tiny: GanGenerator) -> None:
    """A start that was not fitted, or has other sizes or too few classes, is an InputError."""
    with pytest.raises(InputError, match="start: got one that was not fitted"):
        fit(start=GanGenerator(TINY))
    with pytest.raises(InputError, match="start: got a model of"):
        fit(replace(TINY, width=5), start=tiny)
    images, labels = plates()
    with pytest.raises(InputError, match="start: got a model of"):
        GanGenerator(TINY).fit(images, labels + 1, start=tiny, rng=np.random.default_rng(0))


@pytest.mark.parametrize("bias", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_bias_outside_its_range_is_refused(tiny: GanGenerator, bias: float) -> None:
    """A sampling bias that is not above 0 and up to 1 is an InputError."""
    with pytest.raises(InputError, match="sampling_bias: got"):
        draw(tiny, sampling_bias=bias)


def test_bad_samples_are_refused(tiny: GanGenerator) -> None:
    """No fit, no images, and labels the model does not know are InputErrors."""
    with pytest.raises(InputError, match="not fitted"):
        draw(GanGenerator(TINY))
    with pytest.raises(InputError, match="not fitted"):
        GanGenerator(TINY).state()
    with pytest.raises(InputError, match="n: got 0"):
        draw(tiny, 0)
    for labels in (np.array([0, 2]), np.array([-1, 0]), np.array([0])):
        with pytest.raises(InputError, match="labels: got"):
            draw(tiny, 2, labels=labels)
    unlabelled = GanGenerator(TINY).fit(plates()[0], None, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="labels: got some"):
        draw(unlabelled, 1, labels=np.array([0]))


def test_states_that_do_not_fit_are_refused(tiny: GanGenerator) -> None:
    """Missing arrays, other options and impossible shapes are InputErrors."""
    state = dict(tiny.state())
    with pytest.raises(InputError, match="state: got no 'centre'"):
        GanGenerator(TINY).restore({name: value for name, value in state.items() if name != "centre"})
    with pytest.raises(InputError, match="use the options it was fitted with"):
        GanGenerator(replace(TINY, width=5)).restore(state)
    with pytest.raises(InputError, match="allowed h w or h w c"):
        GanGenerator(TINY).restore(state | {"shape": np.array([8])})


@pytest.mark.slow
def test_digits_are_recognised_and_as_varied_as_they_should_be() -> None:
    """A classifier of real digits reads nine in ten samples as meant, and truncation narrows the digits."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    from poolproof.detectors.distance import frechet_distance

    bunch: Any = load_digits()
    pixels = np.rint(bunch.data / 16 * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    rows = np.random.default_rng(0).permutation(len(pixels))
    train, rest = rows[:898], rows[898:]
    fitted = GanGenerator(GanSpec(device="cpu")).fit(
        pixels[train], bunch.target[train], rng=np.random.default_rng(1)
    )
    real = pixels[rest].reshape(-1, 64) / 255
    meant = bunch.target[rest]
    reader = SVC().fit(real, meant)
    floor = frechet_distance(pixels[train].reshape(-1, 64) / 255, real)
    variances = []
    for bias in (1.0, 0.7, 0.5):
        found = draw(fitted, len(meant), labels=meant, sampling_bias=bias).reshape(-1, 64) / 255
        assert reader.score(found, meant) > 0.9
        variances.append(sum(found[meant == k].var(axis=0).sum() for k in range(10)))
        if bias == 1:
            assert frechet_distance(found, real) < 6 * floor
            # not copies of what it learnt from
            distances = np.linalg.norm(found[:, None] - pixels[train].reshape(1, -1, 64) / 255, axis=-1)
            assert distances.min() > 0
    assert variances[0] > variances[1] > variances[2]
