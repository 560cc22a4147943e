"""Inversion: the same as the reference's, exact where it can be, and good enough to read marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from laws import law_pvalue
from refusals import assert_refused
from scipy import stats
from sklearn.datasets import load_digits

from poolproof.simulate.denoiser import predict
from poolproof.simulate.diffusion import DiffusionSpec, fit_diffusion
from poolproof.watermark.gaussian_shading import ShadingKey, embed_shading, read_shading, shading_pvalues
from poolproof.watermark.inversion import encode_latents, invert, invert_pipeline, sample
from poolproof.watermark.tree_ring import TreeRingKey, detect_tree_ring, embed_tree_ring

SHAPE = (3, 8, 8)


def ddim(**options: Any) -> DDIMScheduler:
    """A scheduler without clipping, where nothing else is said."""
    options = {"clip_sample": False} | options
    return DDIMScheduler(**options)


PLAIN = ddim()


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    """A small UNet with random weights."""
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        dropout=0.5,
    )
    return model.eval()


@pytest.fixture
def noise(rng: np.random.Generator) -> np.ndarray:
    """Initial noise of four images."""
    return rng.standard_normal((4, *SHAPE)).astype(np.float32)


def as_kind(unet: UNet2DModel, kind: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The same model with another kind of prediction: of the velocity, or of the image."""

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        found = unet(noisy, times).sample
        level = PLAIN.alphas_cumprod[times][:, None, None, None]
        image = (noisy - (1 - level).sqrt() * found) / level.sqrt()
        return image if kind == "sample" else level.sqrt() * found - (1 - level).sqrt() * image

    return predict


@pytest.mark.reference
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_inversion_equals_the_inverse_scheduler(unet: UNet2DModel, noise: np.ndarray, spacing: Any) -> None:
    """Without refinements the noise is that of the inverse scheduler of diffusers, for predictions of noise."""
    images = np.tanh(noise)
    scheduler = ddim(timestep_spacing=spacing)
    inverse = DDIMInverseScheduler(clip_sample=False, timestep_spacing=spacing)
    inverse.set_timesteps(20)
    state = torch.from_numpy(images)
    with torch.no_grad():
        for time in inverse.timesteps:
            step: Any = inverse.step(unet(state, time).sample, int(time), state)
            state = step.prev_sample
    found = invert(images, unet, scheduler, n_steps=20)
    np.testing.assert_allclose(found, state.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.reference
@pytest.mark.parametrize("clips", [False, True])
def test_sampling_equals_the_pipeline(unet: UNet2DModel, clips: bool) -> None:
    """From the pipeline's own noise come the pipeline's images, with and without clipping."""
    scheduler = ddim(clip_sample=clips)
    pipeline = DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    expected: Any = pipeline(
        2, generator=torch.Generator().manual_seed(3), num_inference_steps=10, output_type="np"
    )
    start = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(3)).numpy()
    images = sample(start, unet, scheduler, n_steps=10).transpose(0, 2, 3, 1) / 2 + 0.5
    np.testing.assert_allclose(images.clip(0, 1), expected.images, atol=1e-4)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_the_kind_of_prediction_changes_nothing(unet: UNet2DModel, noise: np.ndarray, kind: str) -> None:
    """One model gives the same images and the same inversion whatever it is written to predict."""
    other = ddim(prediction_type=kind)
    images = sample(noise, unet, PLAIN, n_steps=10)
    np.testing.assert_allclose(
        sample(noise, as_kind(unet, kind), other, n_steps=10), images, rtol=1e-3, atol=1e-2
    )
    for n_refinements in (0, 2):
        one = invert(images, unet, PLAIN, n_steps=10, n_refinements=n_refinements)
        two = invert(images, as_kind(unet, kind), other, n_steps=10, n_refinements=n_refinements)
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "spacing",
    ["leading", *(pytest.param(name, marks=pytest.mark.slow) for name in ("trailing", "linspace"))],
)
def test_refinements_make_the_inverse_exact(unet: UNet2DModel, noise: np.ndarray, spacing: str) -> None:
    """Each refinement brings the noise nearer to the sampler's, down to rounding, for every spacing."""
    scheduler = ddim(timestep_spacing=spacing, steps_offset=0)
    images = sample(noise, unet, scheduler, n_steps=20)
    errors = [
        float(np.abs(invert(images, unet, scheduler, n_steps=20, n_refinements=n) - noise).max())
        for n in (0, 1, 6)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-3


def test_marks_are_read_back_from_images(unet: UNet2DModel, rng: np.random.Generator) -> None:
    """Embed, sample, invert, detect: marked images have tiny p-values, others and other keys ordinary ones."""
    ring = TreeRingKey(b"a", SHAPE, radius=3.0)
    shading = ShadingKey(b"b", SHAPE, n_bits=12, space_copies=4)
    payload = rng.integers(0, 2, 12)
    nonces = range(40)

    def recover(start: np.ndarray) -> np.ndarray:
        return invert(sample(start, unet, PLAIN, n_steps=20), unet, PLAIN, n_steps=20)

    ringed = recover(embed_tree_ring(40, ring, rng=rng))
    shaded = recover(embed_shading(payload, shading, nonces, rng=rng))
    plain = recover(rng.standard_normal((40, *SHAPE)))
    read = detect_tree_ring(ringed, ring)
    assert read.key_p_values is not None
    assert max(read.p_values.max(), read.key_p_values.max()) < 1e-9
    assert shading_pvalues(shaded, payload[None], shading, nonces).max() < 1e-9
    assert (read_shading(shaded, shading, nonces).bits == payload).all()
    others = [
        detect_tree_ring(plain, ring).p_values,
        detect_tree_ring(shaded, ring).p_values,
        detect_tree_ring(ringed, TreeRingKey(b"c", SHAPE, radius=3.0)).key_p_values,
        read_shading(plain, shading, nonces).p_values,
        read_shading(shaded, ShadingKey(b"c", SHAPE, n_bits=12, space_copies=4), nonces).p_values,
    ]
    for p_values in others:
        assert p_values is not None
        assert p_values.min() > 1e-4
        assert 0.2 < np.median(p_values) < 0.85


@pytest.mark.slow
def test_a_trained_model_carries_marks_through_rounding(rng: np.random.Generator) -> None:
    """A model of the digits, images clipped and rounded to 17 greys: marks are read, and nothing else is."""
    digits: Any = load_digits()
    spec = DiffusionSpec(target="velocity")
    model = fit_diffusion(digits.images / 8 - 1, None, spec, rng=rng)
    weights = {name: torch.tensor(value) for name, value in model.weights.items()}
    scheduler = ddim(
        num_train_timesteps=spec.n_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
    )

    def denoise(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        no_class = torch.zeros(len(noisy), dtype=torch.int64)
        return predict(weights, noisy.flatten(1), times, no_class).view_as(noisy)

    def recover(start: np.ndarray) -> np.ndarray:
        images = sample(start, denoise, scheduler).clip(-1, 1)
        return invert(np.rint(images * 8) / 8, denoise, scheduler)

    shape = (1, 8, 8)
    ring = TreeRingKey(b"a", shape, radius=3.0)
    shading = ShadingKey(b"b", shape, n_bits=4, space_copies=4)
    payload, nonces = np.array([0, 1, 1, 0]), range(200)
    ringed = recover(embed_tree_ring(200, ring, rng=rng))
    shaded = recover(embed_shading(payload, shading, nonces, rng=rng))
    plain = recover(rng.standard_normal((200, *shape)))
    read = detect_tree_ring(ringed, ring)
    assert read.key_p_values is not None
    assert np.quantile(read.p_values, 0.95) < 1e-4
    assert np.quantile(read.key_p_values, 0.95) < 1e-4
    assert np.median(shading_pvalues(shaded, payload[None], shading, nonces)) < 1e-4
    assert (read_shading(shaded, shading, nonces).bits == payload).mean() > 0.95

    for noise in (plain, shaded):  # every image under a secret of its own: then the law is exact
        reads = [
            detect_tree_ring(one[None], TreeRingKey(n, shape, radius=3.0)) for n, one in enumerate(noise)
        ]
        shares = [found.key_p_values[0] for found in reads if found.key_p_values is not None]
        assert law_pvalue(np.array(shares), stats.uniform.cdf) > 0.001
    for noise in (plain, ringed):
        hits = (shading_pvalues(noise, payload[None], shading, nonces) < 0.05).sum()
        assert stats.binom.sf(hits - 1, 200, 0.05) > 0.001


def test_models_and_schedulers_are_left_as_they_were(unet: UNet2DModel, noise: np.ndarray) -> None:
    """Dropout is off inside and on again afterwards, gradients too, and the scheduler keeps its steps."""
    scheduler = ddim()
    expected = invert(noise, unet, scheduler, n_steps=5)
    unet.train()
    try:
        unet.conv_in.eval()
        np.testing.assert_allclose(invert(noise, unet, scheduler, n_steps=5), expected, atol=1e-4)
        assert unet.training
        assert not unet.conv_in.training
    finally:
        unet.eval()
    assert torch.is_grad_enabled()
    assert len(scheduler.timesteps) == 1000


def test_batches_do_not_show(unet: UNet2DModel, noise: np.ndarray) -> None:
    """Any batch size gives the same images and noise."""
    images = sample(noise, unet, PLAIN, n_steps=5)
    np.testing.assert_allclose(sample(noise, unet, PLAIN, n_steps=5, batch_size=3), images, atol=1e-3)
    found = invert(images, unet, PLAIN, n_steps=5, batch_size=1)
    np.testing.assert_allclose(found, invert(images, unet, PLAIN, n_steps=5), atol=1e-3)


def test_schedulers_without_clipping_do_not_clip(unet: UNet2DModel, noise: np.ndarray) -> None:
    """Schedulers that know no clipping, or switch it off, give images beyond [-1, 1]; a DDPM one clips."""
    free = sample(noise, unet, PNDMScheduler(), n_steps=10)
    same = ddim(set_alpha_to_one=False)
    np.testing.assert_allclose(free, sample(noise, unet, same, n_steps=10), rtol=0.01, atol=0.1)
    assert np.abs(free).max() > 1.5
    assert np.abs(sample(noise, unet, DDPMScheduler(), n_steps=10)).max() <= 1.0001


class Tokens:
    """Stands for a tokenizer, which plays no part below."""


class TinyLatentPipeline(DiffusionPipeline):
    """A latent pipeline whose text encoder knows one prompt."""

    def __init__(self, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler
        )

    def encode_prompt(self, prompt: str, device: Any, n: int, guided: bool) -> tuple[torch.Tensor, None]:
        """The encoder's table; only the empty prompt is expected, once, without guidance."""
        assert (prompt, n, guided) == ("", 1, False)
        return self.text_encoder.weight[None].to(device), None


def tiny_vae() -> AutoencoderKL:
    """An autoencoder of 32 x 32 pixels with latents of 4 x 8 x 8 and random weights."""
    options: dict[str, Any] = {  # annotated there as tuples of one
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.5,
        shift_factor=0.25,
        **options,
    ).eval()


def tiny_conditional_unet() -> UNet2DConditionModel:
    """A UNet of 4 x 8 x 8 latents and prompts of vectors of length 16, with random weights."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()


def test_latent_pipelines_are_inverted_with_the_empty_prompt(rng: np.random.Generator) -> None:
    """Images are encoded, shifted and scaled, and the steps see the empty prompt, as by hand."""
    torch.manual_seed(1)
    vae, unet, words = tiny_vae(), tiny_conditional_unet(), torch.nn.Embedding(5, 16)
    pipeline = TinyLatentPipeline(vae, unet, words, Tokens(), PNDMScheduler(skip_prk_steps=True))
    images = np.tanh(rng.standard_normal((3, 3, 32, 32))).astype(np.float32)
    found = invert_pipeline(images, pipeline, n_steps=10, batch_size=2)
    with torch.no_grad():
        encoded: Any = vae.encode(torch.from_numpy(images))
        mean = encoded.latent_dist.mean
    latents = encode_latents(images, vae)
    np.testing.assert_allclose(latents, (mean.numpy() - 0.25) * 0.5, atol=1e-5)
    prompt = words.weight.detach()[None].expand(3, -1, -1)

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> Any:
        return unet(noisy, times, encoder_hidden_states=prompt)

    np.testing.assert_allclose(found, invert(latents, predict, PNDMScheduler(), n_steps=10), atol=1e-4)
    with torch.no_grad():
        words.weight += 1
    assert np.abs(invert_pipeline(images, pipeline, n_steps=10) - found).max() > 1e-3


def test_pixel_pipelines_are_inverted(unet: UNet2DModel, noise: np.ndarray) -> None:
    """A pipeline of UNet and scheduler is inverted as its parts are."""
    images = np.tanh(noise)
    pipeline = DDIMPipeline(unet, PLAIN)
    expected = invert(images, unet, PLAIN, n_steps=5, n_refinements=1)
    found = invert_pipeline(images, pipeline, n_steps=5, n_refinements=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_stable_diffusion_pipelines_carry_marks(rng: np.random.Generator) -> None:
    """Marked latents passed to a real pipeline come back from what it makes, and images are accepted."""
    transformers = pytest.importorskip("transformers")
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    torch.manual_seed(2)
    config = transformers.CLIPTextConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=100,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
    )

    class Tokenizer(Tokens):
        model_max_length = 8

        def tokenize(self, text: str) -> list[str]:
            return []

        def __call__(self, texts: str | list[str], **options: Any) -> Any:
            ids = torch.zeros((1 if isinstance(texts, str) else len(texts), 8), dtype=torch.int64)
            return transformers.BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    scheduler = ddim(set_alpha_to_one=False, steps_offset=1)
    parts: dict[str, Any] = {
        "vae": tiny_vae(),
        "unet": tiny_conditional_unet(),
        "text_encoder": transformers.CLIPTextModel(config).eval(),
        "tokenizer": Tokenizer(),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    key = TreeRingKey(b"a", (4, 8, 8), radius=3.0)
    start = embed_tree_ring(3, key, rng=rng)
    made: Any = pipeline(
        [""] * 3,
        latents=torch.from_numpy(start),
        num_inference_steps=20,
        guidance_scale=1.0,
        output_type="latent",
    )
    condition, _ = pipeline.encode_prompt("", "cpu", 1, False)

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> Any:
        return parts["unet"](noisy, times, encoder_hidden_states=condition.expand(len(noisy), -1, -1))

    found = invert(made.images.numpy(), predict, scheduler, n_steps=20)
    assert detect_tree_ring(found, key).p_values.max() < 1e-6
    images = np.tanh(rng.standard_normal((2, 3, 32, 32))).astype(np.float32)
    expected = invert(encode_latents(images, parts["vae"]), predict, scheduler, n_steps=5)
    np.testing.assert_allclose(invert_pipeline(images, pipeline, n_steps=5), expected, atol=1e-4)


def test_unusable_input_is_refused(unet: UNet2DModel, noise: np.ndarray) -> None:
    """Images, steps, schedulers and pipelines that cannot be used are refused in one line."""
    for n_steps in (0, 1001):
        assert_refused(lambda n_steps=n_steps: invert(noise, unet, PLAIN, n_steps=n_steps), "n_steps")
        assert_refused(lambda n_steps=n_steps: sample(noise, unet, PLAIN, n_steps=n_steps), "n_steps")
    assert_refused(lambda: invert(noise, unet, PLAIN, n_refinements=-1), "n_refinements")
    assert_refused(lambda: invert(noise, unet, PLAIN, batch_size=0), "batch_size")
    assert_refused(lambda: invert(noise[:0], unet, PLAIN), "images")
    assert_refused(lambda: invert(np.full_like(noise, np.inf), unet, PLAIN), "images")
    assert_refused(lambda: invert(noise, unet, FlowMatchEulerDiscreteScheduler()), "scheduler")
    learnt = ddim(prediction_type="learned")
    assert_refused(lambda: invert(noise, unet, learnt), "scheduler")
    pipeline = DDIMPipeline(unet, PLAIN)
    assert_refused(lambda: invert_pipeline(np.full_like(noise, 255), pipeline), "images")
    partial = TinyLatentPipeline(None, unet, None, None, PLAIN)
    other = TinyLatentPipeline(tiny_vae(), unet, None, None, PLAIN)
    assert invert_pipeline(np.tanh(noise), partial, n_steps=2).shape == noise.shape
    assert_refused(lambda: invert_pipeline(np.tanh(noise), other), "pipeline")
