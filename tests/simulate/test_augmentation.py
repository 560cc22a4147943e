"""Augmentation of what a discriminator sees: what it changes, how often, and how its probability moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolproof.simulate.augmentation import MOST, adjust, augment, translate


def random(seed: int = 0) -> torch.Generator:
    """A generator of random tensors."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.reference
def test_translation_is_that_of_a_mirrored_image() -> None:
    """Each image moves by its own whole pixels, as a crop of numpy's reflected padding."""
    images = torch.randn(4, 2, 6, 5, generator=random())
    down, right = torch.tensor([0, 2, -3, 1]), torch.tensor([0, -1, 2, 4])
    found = translate(images, down, right)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    for i in range(4):
        top, left = 4 - int(down[i]), 4 - int(right[i])
        np.testing.assert_array_equal(found[i].numpy(), padded[i, :, top : top + 6, left : left + 5])


def test_images_of_one_pixel_cannot_move() -> None:
    """A side of one pixel stays what it is."""
    images = torch.randn(2, 1, 1, 1, generator=random())
    torch.testing.assert_close(translate(images, torch.tensor([0, 0]), torch.tensor([0, 0])), images)


def test_probability_zero_leaves_images_and_generator_alone() -> None:
    """Without augmentation images are the same and no random number is used."""
    images, generator = torch.randn(3, 1, 8, 8, generator=random()), random(1)
    before = generator.get_state()
    assert augment(images, 0.0, generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.theory
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_images_are_left_alone_as_often_as_four_changes_miss(p: float) -> None:
    """An image stays as it is with probability (1 - p)^4, or a little more: some moves are by no pixel."""
    images = torch.rand(4000, 1, 16, 16, generator=random()) + 0.5
    found = augment(images, p, random(1))
    same = float((found == images).all(dim=(1, 2, 3)).float().mean())
    # a move of each side by -2..2 is by none with probability 1/4, so both with 1/16
    expected = (1 - p) ** 3 * (1 - p * 15 / 16)
    assert abs(same - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)


def test_gradients_pass_through_twice() -> None:
    """A loss on augmented images has slopes at the images, and slopes of these slopes."""
    images = torch.randn(8, 1, 8, 8, generator=random()).requires_grad_()
    found = augment(images, 0.8, random(1))
    (slopes,) = torch.autograd.grad(found.square().sum(), images, create_graph=True)
    slopes.square().sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize(("signs", "expected"), [(0.9, 0.31), (0.3, 0.29), (0.6, 0.3)])
def test_probability_moves_towards_the_target(signs: float, expected: float) -> None:
    """It rises while the discriminator is too sure of the training images, falls when it is not, else stays."""
    assert adjust(0.3, signs, target=0.6, change=0.01) == pytest.approx(expected)


def test_probability_stays_in_its_range() -> None:
    """It never leaves 0 to the bound beyond which changes would be learnt."""
    assert adjust(0.0, -1.0, target=0.6, change=0.5) == 0
    assert adjust(MOST, 1.0, target=0.6, change=0.5) == MOST
