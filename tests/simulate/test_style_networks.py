"""The networks of the GAN: each part against its definition, and shapes for every size of image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolproof.simulate.denoiser import unpack
from poolproof.simulate.style_networks import (
    Layout,
    discriminator_shapes,
    generator_shapes,
    initial_weights,
    map_latents,
    minibatch_deviation,
    modulated_convolution,
    normal,
    render,
    score,
)


def layout(height: int = 8, width: int = 8, n_channels: int = 1, n_classes: int = 3) -> Layout:
    """A tiny layout."""
    return Layout(height, width, n_channels, n_classes, latent_dim=6, n_mapping=2, n_features=4)


def random(seed: int = 0) -> torch.Generator:
    """A generator of random tensors."""
    return torch.Generator().manual_seed(seed)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Initial weights by name."""
    return unpack(initial_weights(shapes, random()), shapes)


@pytest.mark.reference
@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_modulated_convolution_is_a_convolution_by_each_image_s_own_kernel(
    size: int, demodulate: bool
) -> None:
    """Scaling images and results agrees with scaling and normalising the kernel of every image, one by one."""
    generator = random()
    images, style = torch.randn(5, 3, 7, 6, generator=generator), torch.randn(5, 3, generator=generator)
    weight = torch.randn(4, 3, size, size, generator=generator)
    found = modulated_convolution(images, weight, style, demodulate=demodulate)
    for image, scale, result in zip(images, style, found, strict=True):
        kernel = weight * scale[None, :, None, None]
        if demodulate:
            kernel = kernel / kernel.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        expected = torch.nn.functional.conv2d(image[None], kernel, padding=size // 2)[0]
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.theory
def test_demodulation_gives_results_of_unit_variance() -> None:
    """White noise of any scale per channel comes out with variance 1 where no border is near."""
    generator = random()
    images = torch.randn(20, 8, 40, 40, generator=generator)
    weight = torch.randn(3, 8, 3, 3, generator=generator)
    style = torch.randn(20, 8, generator=generator) * 5
    found = modulated_convolution(images, weight, style, demodulate=True)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(found.var(dim=(0, 2, 3)), torch.ones(3), rtol=0.05, atol=0)


@pytest.mark.theory
def test_deviation_is_the_mean_standard_deviation_of_a_group() -> None:
    """Groups of four consecutive images get the mean over pixels of numpy's deviation over the four."""
    images = torch.randn(8, 3, 2, 2, generator=random())
    found = minibatch_deviation(images)
    assert found.shape == (8, 1, 2, 2)
    for first in (0, 4):
        expected = images[first : first + 4].numpy().std(axis=0).mean()
        np.testing.assert_allclose(found[first : first + 4].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        minibatch_deviation(images[:3]).numpy(), images[:3].numpy().std(axis=0).mean(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("height", "width", "n_channels", "full"),
    [(8, 8, 1, 8), (4, 4, 1, 4), (16, 16, 3, 16), (28, 28, 1, 32), (5, 9, 2, 16)],
)
def test_networks_fit_images_of_any_size(height: int, width: int, n_channels: int, full: int) -> None:
    """Images have the size asked for, in [-1, 1], and the discriminator reads one logit per image."""
    sizes = layout(height, width, n_channels)
    assert sizes.resolutions[-1] == full
    net, judge = weights(generator_shapes(sizes)), weights(discriminator_shapes(sizes))
    kinds = torch.arange(4) % 3
    images = render(net, sizes, map_latents(net, normal(4, 6, random(1)), kinds), random(2))
    assert images.shape == (4, n_channels, height, width)
    assert float(images.abs().max()) <= 1
    logits = score(judge, sizes, images, kinds)
    assert logits.shape == (4,)
    assert float(logits.std()) > 0


def test_channels_halve_beyond_sixteen_pixels() -> None:
    """Width holds up to 16 x 16 and halves at each doubling, but never falls below one channel."""
    wide = Layout(128, 128, 3, 0, 8, 1, 32)
    assert [wide.features(n) for n in (4, 8, 16, 32, 64, 128)] == [32, 32, 32, 16, 8, 4]
    assert Layout(128, 128, 3, 0, 8, 1, 2).features(128) == 1


def test_the_scale_of_latent_vectors_is_of_no_account() -> None:
    """Latent vectors are brought to one length, so a multiple gives the same style."""
    net = weights(generator_shapes(layout()))
    latents, kinds = normal(5, 6, random(1)), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(map_latents(net, 3 * latents, kinds), map_latents(net, latents, kinds))


def test_classes_change_styles_and_logits() -> None:
    """Another class gives another style; logits differ by the projection of the class, which starts at 0."""
    sizes = layout()
    net, judge = weights(generator_shapes(sizes)), weights(discriminator_shapes(sizes))
    latents = normal(4, 6, random(1))
    zero, one = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert not torch.allclose(map_latents(net, latents, zero), map_latents(net, latents, one))
    images = torch.rand(4, 1, 8, 8, generator=random(2))
    torch.testing.assert_close(score(judge, sizes, images, zero), score(judge, sizes, images, one))
    judge["projection"][1] += 1
    assert not torch.allclose(score(judge, sizes, images, zero), score(judge, sizes, images, one))


def test_noise_enters_layers_by_its_learned_strength() -> None:
    """At strength 0, where training starts, the noise changes nothing; above it does."""
    sizes = layout()
    net = weights(generator_shapes(sizes))
    styles = map_latents(net, normal(2, 6, random(1)), torch.tensor([0, 1]))
    torch.testing.assert_close(render(net, sizes, styles, random(2)), render(net, sizes, styles, random(3)))
    net["8.a.noise.bias"] += 1
    assert not torch.allclose(render(net, sizes, styles, random(2)), render(net, sizes, styles, random(3)))
