"""Regeneration by tiny random networks: the sampler by hand, whole pictures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import assert_refused

from poolproof.watermark.quality import psnr
from poolproof.watermark.regeneration import load_regenerator

SIDE = 16


def network(**options: Any) -> Any:
    """A tiny network with random weights."""
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": SIDE,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return UNet2DModel(**(config | options))


def save(folder: Path, **options: Any) -> Path:
    """A pipeline of a tiny network, on disk."""
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler: Any = DDPMScheduler()
    DDPMPipeline(network(**options), scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that can be used."""
    return save(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def pixels(landscapes: list[np.ndarray]) -> np.ndarray:
    """A picture whose sides are no multiples of the network's."""
    return np.ascontiguousarray(landscapes[3][:41, :70])


@pytest.mark.reference
def test_one_square_goes_through_the_paper_s_sampler(saved: Path, landscapes: list[np.ndarray]) -> None:
    """DDIM without noise of its own, equation 12 with eta 0, written out for a single square."""
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel

    square = np.ascontiguousarray(landscapes[0][:SIDE, :SIDE])
    made = load_regenerator(saved, strength=0.1)(square, np.random.default_rng(7))
    unet: Any = UNet2DModel.from_pretrained(saved / "unet")
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    seed = int(np.random.default_rng(7).integers(2**63))
    noise = torch.randn((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)).numpy()
    x = square.transpose(2, 0, 1)[None] / 127.5 - 1.0
    x = np.sqrt(kept[100]) * x + np.sqrt(1 - kept[100]) * noise
    for step in range(100, -1, -20):
        with torch.inference_mode():
            guess = unet(torch.from_numpy(x).float(), step).sample.numpy()
        clean = np.clip((x - np.sqrt(1 - kept[step]) * guess) / np.sqrt(kept[step]), -1, 1)
        before = kept[step - 20] if step else 1.0
        x = np.sqrt(before) * clean + np.sqrt(1 - before) * guess
    expected = np.rint((np.clip(x, -1, 1) + 1) * 127.5)[0].transpose(1, 2, 0)
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert np.mean(made != expected) < 0.01


def test_pictures_keep_their_shape_and_change_everywhere(saved: Path, pixels: np.ndarray) -> None:
    """Every square of the picture is regenerated, the last ones flush with its ends; the input is left alone."""
    before = pixels.copy()
    pixels.setflags(write=False)
    made = load_regenerator(saved, strength=0.5)(pixels, np.random.default_rng(1))
    assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
    np.testing.assert_array_equal(pixels, before)
    changed = (made != pixels).any(axis=2)
    for top in range(0, 40, 8):
        for left in range(0, 64, 8):
            assert changed[top : top + 8, left : left + 8].mean() > 0.5


def test_the_seed_decides(saved: Path, pixels: np.ndarray) -> None:
    """The same seed gives the same picture, whatever torch's own generator did; another seed another."""
    import torch

    regenerate = load_regenerator(saved)
    one = regenerate(pixels, np.random.default_rng(2))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(regenerate(pixels, np.random.default_rng(2)), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(regenerate(pixels, np.random.default_rng(3)), one)


def test_more_strength_changes_more(saved: Path, pixels: np.ndarray) -> None:
    """From next to nothing to all of the noise, whole numbers included."""
    ratios = [
        psnr(pixels, load_regenerator(saved, strength=strength)(pixels, np.random.default_rng(4)))
        for strength in (1e-6, 0.02, 0.2, 1)
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 30 > 12 > ratios[-1]


@pytest.mark.parametrize("shape", [(SIDE - 1, 40), (40, SIDE - 1), (1, 1)], ids=str)
def test_images_smaller_than_the_model_are_refused(saved: Path, shape: tuple[int, int]) -> None:
    """By name, in one line."""
    regenerate = load_regenerator(saved)
    image = np.zeros((*shape, 3), np.uint8)
    assert_refused(lambda: regenerate(image, np.random.default_rng(0)), "regenerate")


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_strengths_out_of_range_are_refused(saved: Path, strength: float) -> None:
    """Before anything is loaded."""
    assert_refused(lambda: load_regenerator(saved, strength=strength), "strength")


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 1, "out_channels": 1},
        {"out_channels": 6},
        {"num_class_embeds": 10},
        {"class_embed_type": "timestep"},
        {"sample_size": (16, 32)},
    ],
    ids=str,
)
def test_networks_that_cannot_do_this_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """One channel, learned variances, classes, and oblong squares."""
    save(tmp_path, **options)
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")


def test_square_sizes_may_be_written_as_pairs(tmp_path: Path, pixels: np.ndarray) -> None:
    """A pair of equal sides is a square."""
    regenerate = load_regenerator(save(tmp_path, sample_size=(SIDE, SIDE)))
    assert regenerate(pixels, np.random.default_rng(0)).shape == pixels.shape


def test_a_model_of_latents_without_a_vae_is_no_model_of_pixels(tmp_path: Path) -> None:
    """Latents can have three channels too."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond import (
        LDMPipeline,
    )
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    vqvae: Any = VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=8, latent_channels=3)
    scheduler: Any = DDIMScheduler()
    LDMPipeline(vqvae, network(), scheduler).save_pretrained(tmp_path)
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")


@pytest.mark.parametrize("index", [None, "", "{", "[]", "{}", '{"_class_name": "Nothing"}'])
def test_folders_without_a_whole_pipeline_are_refused(tmp_path: Path, index: str | None) -> None:
    """An empty folder, and one whose index is no index."""
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")


def test_damaged_pipelines_are_refused(tmp_path: Path) -> None:
    """Without weights, with weights cut short, and with a part of a library that is not there."""
    save(tmp_path)
    index = tmp_path / "model_index.json"
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    content, listed = weights.read_bytes(), json.loads(index.read_text())
    weights.write_bytes(content[:100])
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")
    weights.unlink()
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")
    weights.write_bytes(content)
    index.write_text(json.dumps(listed | {"unet": ["nowhere_at_all", "UNet2DModel"]}))
    assert_refused(lambda: load_regenerator(tmp_path), "regenerate")


def test_paths_that_are_no_folders_are_refused(tmp_path: Path) -> None:
    """A file, nothing, and a name on a hub, which is not fetched."""
    (tmp_path / "file").write_text("{}")
    for path in (tmp_path / "file", tmp_path / "nothing", "google/ddpm-cifar10-32", ""):
        assert_refused(lambda path=path: load_regenerator(path), "regenerate")


class StandInPipeline:
    """What a pipeline of latents takes, and gives back: the picture it was handed, inverted."""

    vae_scale_factor = 16

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def set_progress_bar_config(self, **options: Any) -> None:
        """Does nothing."""

    def __call__(self, **options: Any) -> Any:
        """Remembers what it was asked."""
        self.calls.append(options)
        image = Image.fromarray(255 - np.asarray(options["image"]))
        return SimpleNamespace(images=[image])


def test_latent_models_get_whole_tiles_and_give_the_size_back(
    monkeypatch: pytest.MonkeyPatch, landscapes: list[np.ndarray]
) -> None:
    """A picture is brought to multiples of the latents' factor, and back; an empty prompt; seeds from the generator."""
    from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image

    from poolproof.watermark import regeneration

    stand_in = StandInPipeline()
    monkeypatch.setattr(AutoPipelineForImage2Image, "from_pipe", lambda pipeline: pipeline)
    regenerate = regeneration._latent(stand_in, 0.1)
    made = regenerate(landscapes[3], np.random.default_rng(5))  # 301 x 347
    assert made.shape == landscapes[3].shape
    assert psnr(255 - landscapes[3], made) > 20
    assert regenerate(landscapes[3][:5, :3], np.random.default_rng(5)).shape == (5, 3, 3)
    first, tiny = stand_in.calls
    assert (first["image"].size, tiny["image"].size) == ((336, 288), (16, 16))
    assert (first["prompt"], first["strength"], first["num_inference_steps"]) == ("", 0.1, 50)
    seeds = {call["generator"].initial_seed() for call in stand_in.calls}
    assert seeds == {int(np.random.default_rng(5).integers(2**63))}


def test_latent_models_that_take_no_image_are_refused() -> None:
    """A pipeline that diffusers has no image-to-image form of."""
    from poolproof.watermark import regeneration

    pipeline = SimpleNamespace(config={})
    assert_refused(lambda: regeneration._latent(pipeline, 0.1), "regenerate")
