"""Readers on timm models, with tiny architectures and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from model_files import Planted, pictures, plant_in_cache
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from poolproof.detectors.backbone import VisionEmbedder
from poolproof.detectors.embed import find_weights, load_embedder, resolve_embedder
from poolproof.errors import InputError

pytestmark = pytest.mark.usefixtures("no_network")


def random_model(name: str, **options: Any) -> Any:
    """A model of timm with weights at random."""
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def load(spec: str) -> VisionEmbedder:
    """The reader of a spec in single precision."""
    embedder = load_embedder(spec, bfloat16=False)
    assert isinstance(embedder, VisionEmbedder)
    return embedder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of test_vit: with 1000 classes, with 7, without a classifier."""
    folder = tmp_path_factory.mktemp("timm")
    model = random_model("test_vit")
    save_file(model.state_dict(), folder / "classes.safetensors")
    torch.save({"state_dict": random_model("test_vit", num_classes=7).state_dict()}, folder / "seven.pth")
    model.reset_classifier(0)
    torch.save(model.state_dict(), folder / "bare.pt")
    return folder


@pytest.mark.reference
def test_vectors_are_those_of_timm(weights: Path) -> None:
    """In full precision they equal timm's own transform and model without its classifier."""
    model = random_model("test_vit")
    model.reset_classifier(0)
    transform: Any = create_transform(**resolve_data_config(model=model))  # type: ignore[arg-type]
    images = pictures(7)
    with torch.inference_mode():
        expected = model(torch.stack([transform(Image.fromarray(image)) for image in images])).numpy()
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    for name in ("classes.safetensors", "bare.pt"):
        embedder = load(f"timm:test_vit/{weights / name}")
        assert embedder.dim == 64
        np.testing.assert_allclose(embedder.embed(images), unit, atol=1e-5)
    raw = load(f"timm:test_vit/{weights / 'bare.pt'}@raw").embed(images)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    half = load_embedder(f"timm:test_vit/{weights / 'bare.pt'}", bfloat16=True)
    assert half is not None
    assert 0.99 < np.sum(half.embed(images) * unit, axis=1).min() < 1 - 1e-7


def test_a_file_with_other_classes_loads_without_them(weights: Path) -> None:
    """A classifier of any size is left out."""
    assert load(f"timm:test_vit/{weights / 'seven.pth'}").embed(pictures(2)).shape == (2, 64)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_tag_loads_from_the_cache(weights: Path, tmp_path: Path, name: str) -> None:
    """A tag is found under either name of the hub; elsewhere the remedy is named."""
    spec = "timm:test_vit/r160_in1k"
    for ask in (load_embedder, resolve_embedder):
        with pytest.raises(InputError, match=f"poolproof models pull {spec}"):
            ask(spec)
    assert find_weights(spec) is None
    file = weights / ("classes.safetensors" if name.endswith("safetensors") else "seven.pth")
    plant_in_cache(tmp_path / "hub", "timm/test_vit.r160_in1k", name, file)
    assert resolve_embedder(spec) == (spec, None)
    assert find_weights(spec) is not None
    tagged = load(spec)
    np.testing.assert_array_equal(
        tagged.embed(pictures(2)), load(f"timm:test_vit.r160_in1k/{file}").embed(pictures(2))
    )
    assert tagged.name == spec


def test_inputs_may_be_cropped_squashed_and_of_another_size(weights: Path) -> None:
    """Options change what the model sees, and position embeddings are resampled to another size."""
    spec = f"timm:test_vit/{weights / 'bare.pt'}"
    images = pictures(4)
    vectors = [
        load(f"{spec}@{options}").embed(images) for options in ("resize", "crop", "squash", "crop,96px")
    ]
    for i, one in enumerate(vectors):
        assert all(np.abs(one - other).max() > 1e-3 for other in vectors[:i])
    assert load(f"{spec}@96px").prepare(images).shape == (4, 3, 96, 96)


def test_convolutions_take_any_size(tmp_path: Path) -> None:
    """A model without an input size of its own is given other sizes as they are."""
    torch.save(random_model("test_resnet").state_dict(), tmp_path / "r.pt")
    embedder = load(f"timm:test_resnet/{tmp_path / 'r.pt'}@96px")
    assert embedder.embed(pictures(2)).shape == (2, embedder.dim)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:no_such_model/x", "timm.list_models"),
        ("timm:test_vit/no_tag", "allowed r160_in1k, or the path"),
        ("timm:test_vit/gone/w.pt", "check the path"),
        ("timm:test_vit//etc/hostname", "check the path"),
        ("timm:test_vit", "timm:MODEL/WEIGHTS"),
    ],
)
def test_unusable_specs_are_refused_in_one_line(spec: str, message: str) -> None:
    """Unknown models, tags and paths give one line with the spec in it."""
    for ask in (load_embedder, resolve_embedder):
        with pytest.raises(InputError, match=message) as caught:
            ask(spec)
        assert spec in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_files_are_refused(weights: Path, tmp_path: Path) -> None:
    """Another architecture, a part of the weights, code and damage give one line, and no weight is left at random."""
    state = torch.load(weights / "bare.pt", weights_only=True)
    trace = tmp_path / "trace"
    contents: dict[str, Any] = {
        "other.pt": random_model("test_vit2").state_dict(),
        "part.pt": dict(list(state.items())[:-2]),
        "more.pt": state | {"another.weight": torch.zeros(2)},
        "empty.pt": {},
        "list.pt": [1, 2],
        "hostile.pt": {"state_dict": Planted(trace)},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "page.safetensors").write_bytes(b"<html>")
    (tmp_path / "none.pth").write_bytes(b"")
    for name in (*contents, "page.safetensors", "none.pth"):
        with pytest.raises(InputError, match="does not load") as caught:
            load_embedder(f"timm:test_vit/{tmp_path / name}")
        assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_dino_models_load_at_the_size_of_rigid(tmp_path: Path, name: str) -> None:
    """The smallest DINOv2 and DINOv3 load from a file with all their weights, and at 224 pixels."""
    torch.save(random_model(name, num_classes=0).state_dict(), tmp_path / "w.pt")
    embedder = load(f"timm:{name}/{tmp_path / 'w.pt'}@squash,bilinear,224px")
    vectors = embedder.embed(pictures(2))
    assert vectors.shape == (2, 384)
    assert np.isfinite(vectors).all()
