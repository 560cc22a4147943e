"""Stability under noise: the number of the paper, from noise that belongs to the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from model_files import TINY, known_to_open_clip, pictures

from poolproof.detectors import rigid
from poolproof.detectors.embed import find_weights, load_embedder, resolve_embedder
from poolproof.detectors.rigid import RigidEmbedder, fit_rigid
from poolproof.errors import InputError

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A backbone at random."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**TINY).state_dict(), folder / "tiny.pt")
    with known_to_open_clip(folder, {"rigid-test": TINY}):
        yield f"clip:rigid-test/{folder / 'tiny.pt'}"


def load(spec: str) -> RigidEmbedder:
    """The stability reader of a spec."""
    embedder = load_embedder(spec)
    assert isinstance(embedder, RigidEmbedder)
    return embedder


@pytest.mark.reference
@pytest.mark.parametrize("draws", [1, 3])
def test_numbers_are_those_of_the_published_code(
    spec: str, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same noise, 1 less torch's cosine of the vectors of x and of x + 0.05 noise, x normalised."""
    drawn: list[np.ndarray] = []
    made = rigid._content_generator

    class Recorder:
        def __init__(self, pixels: np.ndarray) -> None:
            self.source = made(pixels)

        def standard_normal(self, *arguments: Any) -> np.ndarray:
            drawn.append(self.source.standard_normal(*arguments))
            return drawn[-1]

    monkeypatch.setattr(rigid, "_content_generator", Recorder)
    images = pictures(4)
    embedder = load(f"rigid:{spec}@{draws}draws")
    found = embedder.embed(images)
    data = embedder.backbone.prepare(images)
    similarities = []
    with torch.no_grad():
        features = embedder.backbone.encode(data)
        for i in range(draws):
            noise = torch.from_numpy(np.stack(drawn[4 * i : 4 * i + 4]))
            noisy = embedder.backbone.encode(data + noise * 0.05)
            similarities.append(torch.nn.functional.cosine_similarity(features, noisy, dim=-1).numpy())
    assert found.shape == (4, 1)
    np.testing.assert_allclose(found[:, 0], 1 - np.mean(similarities, axis=0), atol=1e-6)
    assert (found > 1e-6).all()


def test_a_number_belongs_to_its_image(spec: str) -> None:
    """It repeats, in any company, up to rounding of the backbone; other pixels have other noise."""
    images = pictures(40)
    embedder = load(f"rigid:{spec}")
    together = embedder.embed(images)
    np.testing.assert_array_equal(embedder.embed(images), together)
    np.testing.assert_array_equal(load(f"rigid:{spec}").embed(images), together)
    np.testing.assert_allclose(embedder.embed(images[::-1])[::-1], together, rtol=1e-3)
    np.testing.assert_allclose(embedder.embed([images[37]])[0], together[37], rtol=1e-3)
    changed = images[1].copy()
    changed[0, 0, 0] ^= 1
    assert embedder.embed([changed])[0, 0] != pytest.approx(together[1, 0], rel=1e-6)
    assert embedder.embed([]).shape == (0, 1)


def test_more_noises_vary_less(spec: str) -> None:
    """Over images that differ by a grain, the average of 16 noises spreads less than one noise does."""
    images = []
    for i in range(24):
        images.append(pictures(2)[1])
        images[i][i, 0, 0] ^= 1
    one, many = (load(f"rigid:{spec}@{n}draws").embed(images).std() for n in (1, 16))
    assert many < one / 2


def test_the_spec_is_that_of_the_backbone_with_a_prefix(spec: str) -> None:
    """Weights, digest and name are those of the backbone; it computes in single precision unless told otherwise."""
    backbone, embedder = load_embedder(spec), load(f"rigid:{spec}@2draws")
    assert backbone is not None
    assert (embedder.name, embedder.dim) == (f"rigid:{spec}@2draws", 1)
    assert embedder.weights_sha256 == backbone.weights_sha256
    assert embedder.precision == "float32"
    assert resolve_embedder(f"rigid:{spec}") == (f"rigid:{spec}", None)
    assert find_weights(f"rigid:{spec}") == find_weights(spec)
    half = load_embedder(f"rigid:{spec}", bfloat16=True)
    assert half is not None
    assert half.precision == "bfloat16"


def test_numbers_survive_half_precision(spec: str) -> None:
    """Stored in half precision, as audits do, numbers keep a thousandth or 3e-8, whichever is coarser."""
    numbers = load(f"rigid:{spec}").embed(pictures(10))
    np.testing.assert_allclose(numbers.astype(np.float16), numbers, rtol=1e-3, atol=3e-8)


def test_the_threshold_is_a_quantile_of_real_references(rng: np.random.Generator) -> None:
    """A twentieth of the real references lies above the default threshold."""
    real = rng.random((200, 1)).astype(np.float32)
    detector = fit_rigid(real)
    scores = detector.score(real)
    np.testing.assert_array_equal(scores.values, real[:, 0])
    assert np.mean(scores.values > detector.threshold) == pytest.approx(0.05, abs=0.006)
    for quantile in (0.0, 1.0, np.nan):
        with pytest.raises(InputError, match="quantile"):
            fit_rigid(real, quantile=quantile)
