"""Loading and running embedding models, with a tiny architecture and no network."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from model_files import TINY, TINY_VISION, Planted, known_to_open_clip, pictures, plant_in_cache

from poolproof.detectors.backbone import AbstractEmbedder, VisionEmbedder
from poolproof.detectors.embed import DEFAULT_EMBEDDER, load_embedder, resolve_embedder
from poolproof.errors import InputError

OTHER = TINY | {"vision_cfg": TINY_VISION | {"width": 48}}
FETCHED = TINY | {"text_cfg": {"hf_model_name": "someone/some-text-model"}}

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with checkpoints of the tiny architecture, which open_clip then knows by name."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    state = open_clip.CLIP(**TINY).state_dict()
    torch.save({"state_dict": state}, folder / "tiny.pt")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "tiny.safetensors")
    with known_to_open_clip(folder, {"tiny-test": TINY, "other-test": OTHER, "fetched-test": FETCHED}):
        yield folder


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Pictures of several sizes, more than one batch."""
    return pictures(40)


def load(spec: str) -> VisionEmbedder:
    """The embedder of a spec that has one."""
    embedder = load_embedder(spec)
    assert isinstance(embedder, VisionEmbedder)
    return embedder


def test_vectors_have_length_one_and_repeat(weights: Path, images: list[np.ndarray]) -> None:
    """Rows are float32 unit vectors in the order of the images, and the same call gives the same bytes."""
    embedder = load(f"clip:tiny-test/{weights / 'tiny.safetensors'}")
    vectors = embedder.embed(images)
    assert vectors.shape == (40, embedder.dim) == (40, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, embedder.embed(images))
    np.testing.assert_array_equal(vectors, load(embedder.name).embed(images))
    alone = embedder.embed([images[37]])[0]
    assert float(alone @ vectors[37]) > 0.999
    assert embedder.embed([]).shape == (0, 16)


@pytest.mark.reference
def test_vectors_are_those_of_open_clip(weights: Path, images: list[np.ndarray]) -> None:
    """In full precision they equal open_clip's own transform and encoder; in bfloat16 they are close."""
    import open_clip
    import torch
    from PIL import Image

    path = str(weights / "tiny.pt")
    model, _, transform = open_clip.create_model_and_transforms("tiny-test", pretrained=path)
    model.eval()
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image)) for image in images])  # type: ignore[operator]
        expected = model.encode_image(batch, normalize=True).numpy()  # type: ignore[operator]
    full, half = (load_embedder(f"clip:tiny-test/{path}", bfloat16=choice) for choice in (False, True))
    assert full is not None
    assert half is not None
    np.testing.assert_allclose(full.embed(images), expected, atol=1e-5)
    cosines = np.sum(half.embed(images) * expected, axis=1)
    assert 0.99 < cosines.min() < cosines.max() < 1 - 1e-7


def test_both_file_formats_give_the_same_vectors_and_their_own_digest(
    weights: Path, images: list[np.ndarray]
) -> None:
    """Checkpoint and safetensors agree, and the digest is that of the file."""
    first, second = (load(f"clip:tiny-test/{weights / name}") for name in ("tiny.pt", "tiny.safetensors"))
    np.testing.assert_array_equal(first.embed(images[:3]), second.embed(images[:3]))
    assert first.weights_sha256 == hashlib.sha256((weights / "tiny.pt").read_bytes()).hexdigest()
    assert first.weights_sha256 != second.weights_sha256
    assert isinstance(first, AbstractEmbedder)


def test_loading_is_silent(
    weights: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No warning is logged and nothing is printed."""
    with caplog.at_level(logging.WARNING):
        load(f"clip:tiny-test/{weights / 'tiny.pt'}")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_tag_loads_from_the_cache_with_its_own_transform(
    weights: Path, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag is found in the local cache, and its colours and resizing differ from the default ones."""
    import open_clip

    spec = "clip:tiny-test/some_tag"
    tag = {"hf_hub": "someone/tiny/", "mean": (0.5,) * 3, "std": (0.1,) * 3, "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-test", {"some_tag": tag})
    for ask in (load_embedder, resolve_embedder):
        with pytest.raises(InputError, match=f"poolproof models pull {spec}"):
            ask(spec)
    plant_in_cache(
        tmp_path / "hub", "someone/tiny", "open_clip_model.safetensors", weights / "tiny.safetensors"
    )
    assert resolve_embedder(spec) == (spec, None)
    tagged = load(spec).embed(images)
    plain = load(f"clip:tiny-test/{weights / 'tiny.safetensors'}").embed(images)
    assert np.abs(tagged - plain).max() > 0.01


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_auto_takes_the_default_model_where_its_weights_are_cached(
    weights: Path, tmp_path: Path, name: str
) -> None:
    """Either file name of the hub counts, and taking CLIP needs no note."""
    plant_in_cache(tmp_path / "hub", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", name, weights / "tiny.pt")
    assert resolve_embedder("auto") == (DEFAULT_EMBEDDER, None)


@pytest.mark.reference
def test_the_default_repository_is_the_one_open_clip_names() -> None:
    """The short cut to the default's cache agrees with open_clip's table."""
    import open_clip

    from poolproof.detectors.clip_models import DEFAULT_REPOSITORY

    tag = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    assert tag["hf_hub"] == f"{DEFAULT_REPOSITORY}/"


def test_auto_without_weights_falls_back_and_says_what_it_costs() -> None:
    """Without cached weights the weight-free features are taken, with a note of one line and the remedy."""
    spec, note = resolve_embedder("auto")
    assert spec == "forensic"
    assert note is not None
    assert "\n" not in note
    assert "poolproof models pull" in note
    assert resolve_embedder("forensic") == ("forensic", None)
    assert load_embedder("forensic") is None


def test_absent_weights_name_the_spec_and_the_remedy() -> None:
    """The default model without weights, and a tag whose file would come from a plain address, are refused."""
    for spec in (DEFAULT_EMBEDDER, "clip:RN50/yfcc15m"):
        with pytest.raises(InputError) as caught:
            load_embedder(spec)
        assert f"poolproof models pull {spec}" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet", "clip:MODEL/WEIGHTS"),
        ("auto:", "clip:MODEL/WEIGHTS"),
        ("clip:", "clip:MODEL/WEIGHTS"),
        ("clip:ViT-B-32", "clip:MODEL/WEIGHTS"),
        ("clip:ViT-B-99/openai", "ViT-B-99"),
        ("clip:tiny-test/no_such_tag", "no_such_tag"),
        ("clip:tiny-test/gone/weights.pt", "check the path"),
        ("clip:tiny-test//etc/hostname", "check the path"),
        ("clip:fetched-test/weights.pt", "network"),
    ],
)
def test_unusable_specs_are_refused_in_one_line(weights: Path, spec: str, message: str) -> None:
    """Unknown forms, models, tags and paths give an InputError with the spec in it, at both entrances."""
    for ask in (load_embedder, resolve_embedder):
        with pytest.raises(InputError, match=message) as caught:
            ask(spec)
        assert spec in str(caught.value)
        assert "\n" not in str(caught.value)


def test_checkpoints_of_another_architecture_are_refused(weights: Path) -> None:
    """Weights that do not fit give one line that names the file."""
    with pytest.raises(InputError, match=r"tiny\.pt does not load") as caught:
        load_embedder(f"clip:other-test/{weights / 'tiny.pt'}")
    assert "\n" not in str(caught.value)


def test_checkpoints_with_code_are_refused_and_not_run(weights: Path, tmp_path: Path) -> None:
    """A pickle that calls a function on loading is refused, and the function is not called."""
    import torch

    trace = tmp_path / "trace"
    path = tmp_path / "hostile.pt"
    torch.save({"state_dict": Planted(trace)}, path)
    with pytest.raises(InputError, match="tensors alone"):
        load_embedder(f"clip:tiny-test/{path}")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + bytes(100)])
def test_damaged_checkpoints_are_refused(weights: Path, tmp_path: Path, suffix: str, content: bytes) -> None:
    """Empty files, web pages and cut archives give an InputError, whatever their suffix says."""
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not load"):
        load_embedder(f"clip:tiny-test/{path}")


def test_empty_and_foreign_dictionaries_are_refused(weights: Path, tmp_path: Path) -> None:
    """Files that hold no weights at all, or numbers, give an InputError."""
    import torch

    for content in ({}, {"state_dict": {}}, [1, 2], {"epoch": 3}):
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(InputError, match="does not load"):
            load_embedder(f"clip:tiny-test/{tmp_path / 'odd.pt'}")
