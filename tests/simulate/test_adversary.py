"""The game of the GAN: its penalty in closed form, its draws of rows, its options, and the course of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poolproof.errors import InputError
from poolproof.simulate.adversary import GanSpec, Networks, autocast, r1_penalty, train
from poolproof.simulate.augmentation import MOST
from poolproof.simulate.device import find_device
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.style_networks import Layout

TINY = GanSpec(latent_dim=4, width=4, n_steps=8, batch_size=8, device="cpu")
LAYOUT = Layout(4, 4, 1, 0, 4, 2, 4)


def play(spec: GanSpec = TINY, start: Networks | None = None) -> Networks:
    """A short game over sixteen images of noise."""
    images = np.random.default_rng(0).uniform(-1, 1, (16, 4, 4, 1))
    return train(
        images,
        np.zeros(16, np.int64),
        np.ones(16),
        spec,
        LAYOUT,
        start=start,
        random=torch.Generator().manual_seed(0),
    )


@pytest.mark.theory
def test_penalty_of_a_linear_discriminator_is_the_square_of_its_slope() -> None:
    """For logits w.x + b the penalty is |w|^2 at any images, and its own slope in w is 2 w."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 2, 3, 3, generator=generator)
    slope = torch.randn(2, 3, 3, generator=generator).requires_grad_()
    found = r1_penalty(lambda x: (x * slope).sum(dim=(1, 2, 3)) + 7, images)
    torch.testing.assert_close(found, slope.square().sum())
    (gradient,) = torch.autograd.grad(found, slope)
    torch.testing.assert_close(gradient, 2 * slope)


@pytest.mark.theory
def test_penalty_of_a_quadratic_discriminator_is_the_mean_over_images() -> None:
    """For logits |x|^2 / 2 the slope at an image is the image, so the penalty is the mean squared norm."""
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = r1_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, images)
    torch.testing.assert_close(found, images.square().sum(dim=(1, 2, 3)).mean())


def test_penalty_holds_the_discriminator_back() -> None:
    """A heavy penalty leaves a discriminator that is flatter at the training images than one without."""
    from poolproof.simulate.denoiser import unpack
    from poolproof.simulate.style_networks import discriminator_shapes, score, to_vector

    slopes, kinds = [], torch.zeros(8, dtype=torch.int64)
    for gamma in (0.0, 100.0):
        spec = replace(TINY, r1_gamma=gamma, r1_interval=1, n_steps=40, augment_target=0.0)
        shapes = discriminator_shapes(LAYOUT)
        net = unpack(to_vector(play(spec).discriminator, shapes), shapes)
        images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
        slopes.append(r1_penalty(lambda x, net=net: score(net, LAYOUT, x, kinds), images).item())
    assert slopes[1] < 0.5 * slopes[0]


def test_rows_of_weight_zero_are_never_drawn() -> None:
    """Games that differ in the images of rows of weight 0 alone end in the same bytes; other rows do matter."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (12, 4, 4, 1))
    weights = np.array([0.0, 1, 2, 0, 0, 0.5, 1e-9, 3, 0, 1, 0, 0])

    def end(changed: np.ndarray) -> bytes:
        found = train(
            np.where(changed[:, None, None, None], -images, images), np.zeros(12, np.int64), weights, TINY, LAYOUT,
            start=None, random=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return b"".join(value.tobytes() for value in found.generator.values())

    nothing = end(np.zeros(12, bool))
    assert end(weights == 0) == nothing
    assert end(np.arange(12) == 7) != nothing


@pytest.mark.coverage
def test_rows_are_drawn_in_the_ratios_of_their_weights() -> None:
    """Of a white plate with weight 3 and a gray one with weight 1, three in four images in batches are white."""
    from poolproof.simulate.adversary import _Rows

    sums = torch.tensor(np.cumsum([0.0, 1.0, 0.0, 3.0, 0.0]))
    rows = _Rows(sums).draw(20_000, torch.Generator().manual_seed(0))
    counts = np.bincount(rows.numpy(), minlength=5) / 20_000
    assert counts[[0, 2, 4]].sum() == 0
    assert abs(counts[3] - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)


def test_augmentation_grows_only_where_it_is_asked_for() -> None:
    """With a target of 0 its probability stays 0; one far below what is seen drives it up to its bound."""
    assert play(replace(TINY, augment_target=0.0)).augment_p == 0
    quick = replace(TINY, augment_target=1e-9, augment_speed=1000.0, learning_rate=0.02)
    assert MOST in {play(replace(quick, n_steps=n)).augment_p for n in (4, 8, 12)}


def test_a_warm_start_goes_on_from_all_networks() -> None:
    """At a vanishing learning rate networks, running mean and probability end where they started."""
    start = replace(play(), augment_p=0.25)
    # the mean is told apart from the weights: it moves towards them
    found = play(replace(TINY, learning_rate=1e-30, n_steps=1, augment_speed=1e-9), start=start)
    for part in ("generator", "discriminator"):
        for name, value in getattr(start, part).items():
            np.testing.assert_array_equal(getattr(found, part)[name], value)
    for name, value in start.mean.items():
        expected = 0.99 * value + 0.01 * start.generator[name]
        np.testing.assert_allclose(found.mean[name], expected, rtol=1e-4, atol=1e-6)
    assert found.augment_p == pytest.approx(0.25)


def test_training_that_diverges_ends_the_fit() -> None:
    """Weights that are not finite are a GeneratorDiverged and no networks."""
    start = play()
    spoilt = {name: value * np.nan for name, value in start.generator.items()}
    with pytest.raises(GeneratorDiverged, match="not finite"):
        play(start=replace(start, generator=spoilt))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("n_mapping", 0),
        ("width", 0),
        ("n_steps", 0),
        ("batch_size", 0),
        ("batch_size", 6),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("r1_gamma", -1.0),
        ("r1_interval", 0),
        ("ema_decay", 1.0),
        ("augment_target", 1.5),
        ("augment_speed", 0.0),
        ("n_threads", 0),
        ("device", "tpu"),
        ("precision", "float16"),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float | str) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"{name}: got"):
        replace(GanSpec(), **{name: value})


def test_mixed_precision_is_for_cuda_alone() -> None:
    """It is refused on the processor by name, and `auto` on a machine without cuda runs in full precision."""
    with pytest.raises(InputError, match="precision: got"):
        GanSpec(device="cpu", precision="bfloat16")
    with autocast(GanSpec(precision="bfloat16"), torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.float32


def test_device_is_found_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes cuda where there is one; asking for one that is missing is an InputError."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == "cuda"
    assert find_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == "cpu"
    with pytest.raises(InputError, match="device: got 'cuda'"):
        find_device("cuda")
