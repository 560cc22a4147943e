"""Augmentation of what a discriminator sees, and how much of it there should be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

MOST: Final = 0.8
"""Probability of a change that is never exceeded: beyond it changed images are learnt as if they were real."""

SHIFT: Final = 0.125
"""Largest translation, as a share of height and width."""

CUT: Final = 0.5
"""Height and width of what is cut out, as a share of the image's."""


def adjust(p: float | int, signs: float | int, *, target: float | int, change: float | int) -> float:
    """The next probability of augmentation: up while the discriminator knows the training images too well.

    Args:
        p: probability now, in [0, 1].
        signs: mean sign of the discriminator's logits of training images, in [-1, 1]. Near 1 it overfits.
        target: of `signs`.
        change: how far p moves, above 0.

    Source: Karras et al., "Training generative adversarial networks with limited data", 2020, equation 1 (r_t)
        and section 3; the bound after their section 2.2.
    """
    step = math.copysign(change, signs - target) if signs != target else 0.0
    return min(MOST, max(0.0, p + step))


def augment(images: torch.Tensor, p: float | int, generator: torch.Generator) -> torch.Tensor:
    """Images n c h w, each changed in up to four ways: moved, brightened, of other contrast, partly cut out.

    Each change is made with probability p, independently, and lets gradients through. None mirrors or turns: a
    mirrored digit is no digit. At p = 0 nothing is drawn.

    Args:
        images: pixels in [-1, 1].
        p: probability of each change.
        generator: draws what is changed and how much.

    Source: Karras et al., "Training generative adversarial networks with limited data", 2020, appendix B
        (integer translation, brightness, contrast, cutout, with their standard deviations).
    """
    if p == 0:
        return images
    import torch

    n, _, height, width = images.shape

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand((n, *shape), generator=generator, dtype=torch.float32)

    def chosen(*shape: int) -> torch.Tensor:
        return (draw(*shape) < p).to(torch.float32)

    def normal() -> torch.Tensor:
        return torch.randn((n, 1, 1, 1), generator=generator, dtype=torch.float32)

    moved = chosen()
    shifts = [((2 * draw() - 1) * moved * round(SHIFT * size)).round().long() for size in (height, width)]
    contrast = torch.exp2(0.5 * normal() * chosen(1, 1, 1))
    brightness = 0.2 * normal() * chosen(1, 1, 1)
    cut = chosen(1, 1, 1)
    rows = (torch.arange(height) + 0.5 - draw(1) * height).abs() < CUT * height / 2
    columns = (torch.arange(width) + 0.5 - draw(1) * width).abs() < CUT * width / 2
    left = 1 - cut * (rows[:, None, :, None] & columns[:, None, None, :])
    device = images.device
    images = translate(images, shifts[0], shifts[1])
    return (images * contrast.to(device) + brightness.to(device)) * left.to(device)


def translate(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Images n c h w, each moved by its own whole numbers of pixels; what enters mirrors what is at the border.

    Args:
        images: to move.
        down: pixels, n; less than the height either way.
        right: pixels, n; less than the width either way.
    """
    # products with 0 and 1 instead of indices: their gradients are products again, the same on every run
    rows = _moves(images.shape[2], down).to(images)
    columns = _moves(images.shape[3], right).to(images)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _moves(size: int, shifts: torch.Tensor) -> torch.Tensor:
    """Matrices n h h with a 1 per row, where that row of the moved image comes from."""
    import torch

    if size == 1:
        return torch.ones((len(shifts), 1, 1))
    last = size - 1
    places = torch.arange(size) - shifts[:, None]
    places = last - (last - places.abs() % (2 * last)).abs()
    return torch.nn.functional.one_hot(places, size).to(torch.float32)
