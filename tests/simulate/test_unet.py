"""The U-Net: every size it takes, cropped as it was padded, conditional, and without traces elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.denoiser import unpack
from poolproof.simulate.diffusion import DiffusionGenerator, DiffusionModel, fit_diffusion
from poolproof.simulate.diffusion_spec import DiffusionSpec
from poolproof.simulate.unet import UNet, _call

TINY = DiffusionSpec(
    n_timesteps=20,
    n_sampling_steps=2,
    width=8,
    n_blocks=1,
    n_steps=4,
    batch_size=4,
    denoiser="unet",
    device="cpu",
)


def plates(size: int = 8, *channels: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of images that are dark or bright all over, with a little noise."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(scale=0.02, size=(n, size, size, *channels))
    return (labels * 1.2 - 0.6).reshape(-1, *(1,) * (noise.ndim - 1)) + noise, labels


def fit(spec: DiffusionSpec = TINY, seed: int = 0) -> DiffusionModel:
    """A model of small plates."""
    return fit_diffusion(*plates(), spec, rng=np.random.default_rng(seed))


def draw(model: DiffusionModel, labels: int | np.ndarray, bias: float = 1.0) -> np.ndarray:
    """Samples with a fresh random state."""
    return model.sample(labels, sampling_bias=bias, rng=np.random.default_rng(1))


@pytest.mark.parametrize("shape", [(8,), (8, 3), (16, 1), (28, 1), (32, 3), (64, 1)])
def test_samples_have_the_shape_and_range_of_the_images(shape: tuple[int, ...]) -> None:
    """Samples of every size, with and without channels, are float32 in [-1, 1] of the training shape."""
    images, labels = plates(*shape, n=4)
    model = fit_diffusion(images, labels, replace(TINY, n_steps=2), rng=np.random.default_rng(0))
    samples = draw(model, np.array([1, 0]), 0.5)
    assert samples.shape == (2, *images.shape[1:])
    assert samples.dtype == np.float32
    assert -1 <= samples.min() <= samples.max() <= 1


def test_same_seed_gives_the_same_bytes_and_no_global_state_is_used(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two fits agree in every byte whatever threads and global generators do, and other seeds differ."""
    import torch

    first = fit()
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        again = fit()
        assert draw(first, 3, 0.5).tobytes() == draw(again, 3, 0.5).tobytes()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert draw(first, 3).tobytes() != draw(fit(seed=1), 3).tobytes()
    assert capfd.readouterr() == ("", "")


@pytest.mark.reference
def test_starts_as_diffusers_would() -> None:
    """Weights that are not set to 0 spread as those of a network that diffusers fills itself."""
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel

    net = UNet((8, 8), 16, 1, 10)
    weights = unpack(net.initial(torch.Generator().manual_seed(0)), net.shapes())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            norm_num_groups=16,
            attention_head_dim=16,
            num_class_embeds=11,
        )
    asked = dict(other.named_parameters())
    assert list(weights) == list(asked)
    compared = 0
    for name, value in weights.items():
        if name.endswith("weight") and bool(value.any()) and value.numel() > 500:
            np.testing.assert_allclose(float(value.std()), float(asked[name].detach().std()), rtol=0.2)
            compared += 1
    assert compared > 20
    images = torch.zeros(2, 64)
    assert not net.predict(weights, images, torch.tensor([1, 2]), torch.tensor([0, 10])).any()


def test_cropping_undoes_padding() -> None:
    """At 28 pixels the prediction is that of the network at 32 on the image in a frame of 0, without the frame."""
    import torch

    small, large = UNet((28, 28, 3), 8, 1, 2), UNet((32, 32, 3), 8, 1, 2)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(small.initial(generator)), generator=generator) * 0.1
    weights = unpack(vector, small.shapes())
    images = torch.randn(2, 28, 28, 3, generator=generator)
    framed = torch.zeros(2, 32, 32, 3)
    framed[:, 2:30, 2:30] = images
    times, conditions = torch.tensor([3, 300]), torch.tensor([1, 2])
    with torch.no_grad():
        found = small.predict(weights, images.flatten(1), times, conditions)
        asked = large.predict(weights, framed.flatten(1), times, conditions).view(2, 32, 32, 3)
    assert bool(found.std() > 0.01)
    torch.testing.assert_close(found, asked[:, 2:30, 2:30].reshape(2, -1), rtol=1e-4, atol=1e-5)


def test_bias_of_one_uses_no_guidance() -> None:
    """At 1 the row for no class plays no part; below 1 it does."""
    model = fit(replace(TINY, n_steps=20))
    table = model.weights["class_embedding.weight"].copy()
    table[-1] += 10
    other = replace(model, weights=model.weights | {"class_embedding.weight": table})
    labels = np.array([0, 1])
    assert draw(model, labels).tobytes() == draw(other, labels).tobytes()
    assert draw(model, labels, 0.5).tobytes() != draw(other, labels, 0.5).tobytes()


@pytest.mark.slow
def test_learns_what_each_class_looks_like() -> None:
    """After some steps dark and bright plates come out as asked for."""
    model = fit(
        replace(TINY, n_steps=150, learning_rate=4e-3, batch_size=16, n_sampling_steps=10, target="velocity")
    )
    samples = draw(model, np.array([0, 1] * 5))
    assert samples[0::2].mean() < -0.4
    assert samples[1::2].mean() > 0.4


def test_is_laid_down_taken_up_weighted_and_gone_on_with() -> None:
    """The U-Net keeps the contract: states, weights of 0, and warm starts at a lower loss."""
    images, labels = plates(n=16)
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)[..., None]
    blank = DiffusionGenerator(replace(TINY, n_steps=25))
    weights = (np.arange(16) < 12).astype(float)
    spoilt = pixels.copy()
    spoilt[12:] = 255
    fitted = blank.fit(pixels, labels, weights=weights, rng=np.random.default_rng(0))
    other = blank.fit(spoilt, labels, weights=weights, rng=np.random.default_rng(0))
    restored = blank.restore(dict(fitted.state()))
    drawn = [model.sample(3, rng=np.random.default_rng(1))[0] for model in (fitted, other, restored)]
    assert drawn[0].shape == (3, 8, 8, 1)
    assert drawn[0].tobytes() == drawn[1].tobytes() == drawn[2].tobytes()
    short = DiffusionGenerator(replace(TINY, n_steps=2))
    cold = short.fit(pixels, labels, rng=np.random.default_rng(2))
    warm = short.fit(pixels, labels, start=fitted, rng=np.random.default_rng(2))
    assert warm.model is not None
    assert cold.model is not None
    assert warm.model.loss < cold.model.loss


def test_bfloat16_changes_products_but_not_the_kind_of_anything() -> None:
    """With bfloat16 weights and samples stay float32, and differ a little from those of float32."""
    model, exact = fit(replace(TINY, precision="bfloat16")), fit()
    assert {value.dtype for value in model.weights.values()} == {np.dtype(np.float32)}
    samples, others = draw(model, 3), draw(exact, 3)
    assert samples.dtype == np.float32
    assert samples.tobytes() != others.tobytes()
    np.testing.assert_allclose(samples, others, atol=0.2)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile translates, but leaves the making of machine code, which takes minutes, to the eager kernels."""
    import torch

    _call.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    _call.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_compiled_network_predicts_the_same() -> None:
    """The translated network gives the eager prediction and gradients, up to rounding, and leaves no trace."""
    import torch

    plain = UNet((8, 8), 8, 1, 2)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(plain.initial(generator)), generator=generator) * 0.1
    images = torch.randn(4, 64, generator=generator)
    times, conditions = torch.tensor([3, 300, 5, 0]), torch.tensor([1, 2, 0, 0])
    state = torch.get_rng_state()
    results = []
    for net in (plain, replace(plain, compile=True)):
        leaves = unpack(vector.clone(), net.shapes())
        for leaf in leaves.values():
            leaf.requires_grad_()
        found = net.predict(leaves, images, times, conditions)
        found.square().mean().backward()
        results.append((found.detach(), [leaf.grad for leaf in leaves.values()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_compiled_network_is_translated_once_for_all_generations() -> None:
    """Training and sampling with a compiled network, again and again, translate no more than once per batch size."""
    from torch._dynamo.utils import counters

    counters.clear()
    spec = replace(TINY, compile=True, n_steps=2)
    for seed in range(10):
        assert np.isfinite(draw(fit(spec, seed), 3)).all()
    assert 0 < counters["stats"]["unique_graphs"] <= 4


@pytest.mark.parametrize("shape", [(4, 8, 9), (4, 10, 10), (4, 8, 8, 2), (4, 128, 128)])
def test_shapes_the_network_cannot_take_are_refused(shape: tuple[int, ...]) -> None:
    """Images that are not squares of a known size with 1 or 3 channels are an InputError."""
    with pytest.raises(InputError, match="images: got shape"):
        fit_diffusion(np.zeros(shape), None, TINY, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("name", "value"), [("width", 12), ("precision", "half"), ("device", "gpu")])
def test_options_out_of_range_are_refused(name: str, value: Any) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"{name}: got"):
        replace(TINY, **{name: value})


def test_a_device_that_is_not_there_is_refused() -> None:
    """Asking for cuda on a machine without is an InputError; auto is the processor there."""
    import torch

    if torch.cuda.is_available():
        assert replace(TINY, device="auto").device_name() == "cuda"
    else:
        with pytest.raises(InputError, match="device: got 'cuda'"):
            fit(replace(TINY, device="cuda"))
        assert replace(TINY, device="auto").device_name() == "cpu"
    assert DiffusionSpec().device_name() == "cpu"
