"""Readers on open_clip models: layers, lengths and sizes, on tiny architectures of each family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from model_files import TINY, TINY_TEXT, known_to_open_clip, pictures
from PIL import Image
from torchvision import transforms

from poolproof.detectors.backbone import VisionEmbedder
from poolproof.detectors.embed import load_embedder
from poolproof.detectors.preprocess import make_transform
from poolproof.detectors.reader_spec import PRESETS, parse_reader
from poolproof.detectors.weights import SUGGESTED
from poolproof.errors import InputError

pytestmark = pytest.mark.usefixtures("no_network")

_VIT = {"image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False}
FAMILIES: dict[str, dict[str, Any]] = {
    "clip-test": TINY,
    # like MetaCLIP 2: a tokenizer of the hub, which features of images do not need, and another pooling of text
    "worldwide-test": TINY
    | {"text_cfg": TINY_TEXT | {"hf_tokenizer_name": "someone/tokens", "pool_type": "eos", "eos_id": 2}},
    # like Perception Encoder: a timm tower whose own classifier is the projection
    "pe-test": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _VIT | {"timm_pool": "token", "timm_proj": None},
        "text_cfg": TINY_TEXT,
    },
    # like SigLIP 2: a timm tower without a projection
    "siglip-test": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": _VIT | {"timm_pool": "avg", "timm_proj": "none"},
        "text_cfg": TINY_TEXT | {"hf_tokenizer_name": "someone/tokens", "pool_type": "last"},
    },
    # a timm tower with a projection of open_clip
    "linear-test": {
        "embed_dim": 24,
        "vision_cfg": _VIT | {"timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": TINY_TEXT,
    },
    "resnet-test": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": TINY_TEXT,
    },
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a checkpoint NAME.pt of every family."""
    folder = tmp_path_factory.mktemp("families")
    with known_to_open_clip(folder, FAMILIES):
        for name in FAMILIES:
            torch.manual_seed(0)
            model: Any = open_clip.create_model(name)
            torch.save(model.state_dict(), folder / f"{name}.pt")
        yield folder


def load(folder: Path, name: str, options: str = "") -> VisionEmbedder:
    """The reader of a family in single precision."""
    embedder = load_embedder(f"clip:{name}/{folder / name}.pt{options}", bfloat16=False)
    assert isinstance(embedder, VisionEmbedder)
    return embedder


def tower(folder: Path, name: str) -> tuple[Any, Any]:
    """open_clip's own model and transform."""
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(folder / f"{name}.pt"))
    return model.eval(), transform


@pytest.mark.reference
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_open_clips_vectors(weights: Path, name: str) -> None:
    """Vectors are those of open_clip's own transform and encoder, with length 1, or as they come if raw."""
    model, transform = tower(weights, name)
    images = pictures(5)
    batch = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        expected = model.encode_image(batch).numpy()
    embedder = load(weights, name, "@raw")
    assert embedder.dim == expected.shape[1] == FAMILIES[name]["embed_dim"]
    np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-4 * np.abs(expected).max())
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(load(weights, name).embed(images), unit, atol=1e-4)


@pytest.mark.reference
def test_univfd_is_read_as_published(weights: Path) -> None:
    """Raw and cropped, vectors are `encode_image` after UnivFD's own transform."""
    model, _ = tower(weights, "clip-test")
    visual: Any = model.visual
    published = transforms.Compose(
        [
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(visual.image_mean, visual.image_std),
        ]
    )
    images = pictures(5)
    with torch.inference_mode():
        batch = torch.stack([published(Image.fromarray(image)) for image in images])  # type: ignore[misc]
        expected = model.encode_image(batch).numpy()
    found = load(weights, "clip-test", "@raw,crop").embed(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.reference
def test_clipdet_is_read_as_published(weights: Path) -> None:
    """Penultimate, vectors are those of open_clip with `proj` removed, normalised, after ClipDet's transform."""
    model, _ = tower(weights, "clip-test")
    visual: Any = model.visual
    visual.proj = None
    transform = make_transform("resize", 32, visual.image_mean, visual.image_std, "bicubic")
    images = pictures(5)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image)) for image in images])
        expected = model.encode_image(batch, normalize=True).numpy()
    embedder = load(weights, "clip-test", "@penultimate,resize,bicubic,32px")
    assert embedder.dim == expected.shape[1] == 32
    np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-5)


@pytest.mark.reference
def test_the_public_presets_have_the_published_backbones() -> None:
    """open_clip has both tags, with CLIP's colours and bicubic filter, QuickGELU for OpenAI's weights alone."""
    for name, width, quick in (("univfd", 768, True), ("clipdet", 1024, False)):
        reader = parse_reader(name)
        training = open_clip.get_pretrained_cfg(reader.model, reader.weights)
        assert training["interpolation"] == "bicubic"
        assert training["mean"] == (0.48145466, 0.4578275, 0.40821073)
        assert training["std"] == (0.26862954, 0.26130258, 0.27577711)
        assert training.get("quick_gelu", False) == quick
        config: Any = open_clip.get_model_config(reader.model)
        assert config["vision_cfg"]["image_size"] == 224
        assert (config["vision_cfg"]["width"] if reader.penultimate else config["embed_dim"]) == width
    assert list(PRESETS) == ["univfd", "clipdet", "rigid"]


@pytest.mark.parametrize(("name", "width"), [("clip-test", 32), ("pe-test", 64), ("linear-test", 64)])
def test_the_layer_before_the_projection(weights: Path, name: str, width: int) -> None:
    """The projection takes penultimate vectors to the usual ones."""
    images = pictures(4)
    before, after = (
        load(weights, name, f"@{options}").embed(images) for options in ("penultimate,raw", "raw")
    )
    assert before.shape[1] == width
    state = torch.load(weights / f"{name}.pt", weights_only=True)
    if name == "clip-test":
        expected = before @ state["visual.proj"].numpy()
    elif name == "pe-test":
        expected = (
            before @ state["visual.trunk.head.weight"].numpy().T + state["visual.trunk.head.bias"].numpy()
        )
    else:
        expected = before @ state["visual.head.proj.weight"].numpy().T
    np.testing.assert_allclose(after, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["siglip-test", "resnet-test"])
def test_without_a_projection_there_is_no_layer_before_it(weights: Path, name: str) -> None:
    """Models that do not end in a projection refuse the option in one line."""
    with pytest.raises(InputError, match="leave it out") as caught:
        load(weights, name, "@penultimate")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["clip-test", "pe-test"])
def test_the_input_may_have_another_size(weights: Path, name: str) -> None:
    """Position embeddings are resampled; with the model's own size nothing changes."""
    images = pictures(4)
    own = load(weights, name)
    side = FAMILIES[name]["vision_cfg"]["image_size"]
    np.testing.assert_allclose(load(weights, name, f"@{side}px").embed(images), own.embed(images), atol=1e-5)
    larger = load(weights, name, f"@{2 * side}px,squash")
    assert larger.prepare(images).shape == (4, 3, 2 * side, 2 * side)
    assert np.isfinite(larger.embed(images)).all()


def test_vectors_too_long_for_half_precision_are_nan(weights: Path, tmp_path: Path) -> None:
    """Raw vectors that half precision cannot hold are NaN in the whole row; with length 1 nothing is lost."""
    state = torch.load(weights / "clip-test.pt", weights_only=True)
    state["visual.proj"] *= 1e6
    torch.save(state, tmp_path / "clip-test.pt")
    assert np.isnan(load(tmp_path, "clip-test", "@raw").embed(pictures(2))).all()
    np.testing.assert_allclose(
        load(tmp_path, "clip-test").embed(pictures(3)),
        load(weights, "clip-test").embed(pictures(3)),
        atol=1e-5,
    )


@pytest.mark.reference
def test_suggested_models_are_known() -> None:
    """Every suggested spec is a tag of its library."""
    import timm

    for spec in SUGGESTED:
        reader = parse_reader(spec)
        if reader.library == "clip":
            assert open_clip.get_pretrained_cfg(reader.model, reader.weights), spec
        else:
            assert f"{reader.model}.{reader.weights}" in timm.list_pretrained(), spec
