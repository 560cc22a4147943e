"""The ways from an image to an input, against the published ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model_files import pictures
from PIL import Image
from torchvision import transforms

from poolproof.detectors.preprocess import make_transform
from poolproof.errors import InputError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def assert_same(found: Any, expected: Any) -> None:
    """Checks that both make the same tensors of images of several sizes, bit by bit."""
    for pixels in pictures(5):
        image = Image.fromarray(pixels)
        np.testing.assert_array_equal(found(image).numpy(), expected(image).numpy())


@pytest.mark.reference
def test_crop_is_the_evaluation_of_univfd() -> None:
    """A centre crop at native resolution, black around smaller images, with CLIP's colours."""
    published = transforms.Compose(
        [transforms.CenterCrop(48), transforms.ToTensor(), transforms.Normalize(list(MEAN), list(STD))]
    )
    assert_same(make_transform("crop", 48, MEAN, STD, "bicubic"), published)


@pytest.mark.reference
def test_resize_is_the_evaluation_of_clipdet() -> None:
    """The shorter side is resized by a bicubic filter and the centre taken, with CLIP's colours."""
    published = transforms.Compose(
        [
            transforms.Resize(48, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop((48, 48)),
            transforms.ToTensor(),
            transforms.Normalize(mean=MEAN, std=STD),  # type: ignore[arg-type]
        ]
    )
    assert_same(make_transform("resize", 48, MEAN, STD, "bicubic"), published)


@pytest.mark.reference
def test_squash_is_the_evaluation_of_rigid() -> None:
    """Both sides are resized by torchvision's default filter."""
    published = transforms.Compose(
        [transforms.Resize((48, 48)), transforms.ToTensor(), transforms.Normalize(list(MEAN), list(STD))]
    )
    assert_same(make_transform("squash", 48, MEAN, STD, "bilinear"), published)


@pytest.mark.reference
def test_open_clip_does_the_same() -> None:
    """`resize` and `squash` are open_clip's modes shortest and squash."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    for fit, mode in (("resize", "shortest"), ("squash", "squash")):
        for filter_ in ("bicubic", "bilinear"):
            config = PreprocessCfg(size=40, mean=MEAN, std=STD, interpolation=filter_, resize_mode=mode)
            assert_same(
                make_transform(fit, 40, MEAN, STD, filter_), image_transform_v2(config, is_train=False)
            )


def test_unknown_filters_are_refused() -> None:
    """A filter that torchvision does not have gives one line."""
    with pytest.raises(InputError, match="interpolation: got 'sharp'"):
        make_transform("resize", 8, MEAN, STD, "sharp")
