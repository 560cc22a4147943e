"""How well latent marks survive: a pixel-space diffusion model is trained on the spot, marked, attacked, read.

    python benchmarks/latent_marks.py [--images DIR] [--minutes 2.5] [--side 16] [--n 200] [--threads 1]
        [--model FILE]

Without --images the model learns crops of the two photographs that come with scikit-learn, else crops of the
folder's pictures. Sampling and inversion take 50 steps of DDIM without clipping. For each mark and attack it prints
the share of marked images below 1 % and below 1e-6, and for unmarked samples and real crops the share below 1 %,
which should not exceed 1 % where a p-value is what it says. --model keeps the trained weights for the next run.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image

from poolproof.watermark.gaussian_shading import ShadingKey, embed_shading, read_shading, shading_pvalues
from poolproof.watermark.inversion import invert, sample
from poolproof.watermark.tree_ring import TreeRingKey, detect_tree_ring, embed_tree_ring

# velocities: a small model that predicts noise needs clipping to make images, which cannot be inverted
SCHEDULER = DDPMScheduler(
    beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
)
SECRET = b"a secret of the benchmark"


def read_crops(folder: Path | None, side: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Crops of pictures, halved first where they are large, as n 3 h w in [-1, 1]."""
    if folder is None:
        from sklearn.datasets import load_sample_images

        pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    else:
        paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".jpeg")]
        pictures = [Image.open(path).convert("RGB") for path in paths]
    arrays = []
    for picture in pictures:
        shrink = max(1, min(picture.size) // (4 * side))
        arrays.append(np.asarray(picture.reduce(shrink)))
    crops = []
    for i in range(n):
        pixels = arrays[i % len(arrays)]
        top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
        crops.append(pixels[top : top + side, left : left + side])
    return np.stack(crops).transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)


def make_unet(side: int) -> UNet2DModel:
    """A small UNet that is trained in minutes."""
    return UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def train(images: np.ndarray, minutes: float, rng: np.random.Generator) -> UNet2DModel:
    """A model fitted to the images for so long. Its weights are running means."""
    torch.manual_seed(int(rng.integers(2**31)))
    unet = make_unet(images.shape[-1])
    mean = [weight.detach().clone() for weight in unet.parameters()]
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    pixels = torch.from_numpy(images.astype(np.float32))
    started, losses = time.monotonic(), []
    while (spent := (time.monotonic() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, len(losses) / 50) * (1 - 0.95 * spent)
        batch = pixels[torch.from_numpy(rng.integers(len(pixels), size=32))]
        noise = torch.randn_like(batch)
        times: Any = torch.randint(1000, (len(batch),))
        found = unet(SCHEDULER.add_noise(batch, noise, times), times).sample
        loss = torch.nn.functional.mse_loss(found, SCHEDULER.get_velocity(batch, noise, times))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for kept, weight in zip(mean, unet.parameters(), strict=True):
            kept.lerp_(weight.detach(), 1 - min(0.995, (1 + len(losses)) / (10 + len(losses))))
    with torch.no_grad():
        for kept, weight in zip(mean, unet.parameters(), strict=True):
            weight.copy_(kept)
    print(f"trained {len(losses)} steps, last loss {np.mean(losses[-50:]):.4f}")
    return unet.eval()


def attacks(rng: np.random.Generator) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """What happens to a file on its way, by name."""

    def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
        def run(image: Image.Image) -> Image.Image:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            return Image.open(buffer)

        return run

    def noise(deviation: float) -> Callable[[Image.Image], Image.Image]:
        def run(image: Image.Image) -> Image.Image:
            pixels = np.asarray(image) + rng.normal(0, deviation, (*image.size[::-1], 3))
            return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))

        return run

    def resize(factor: float) -> Callable[[Image.Image], Image.Image]:
        def run(image: Image.Image) -> Image.Image:
            small = image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
            return small.resize(image.size, Image.Resampling.BICUBIC)

        return run

    return {
        "none": lambda image: image,
        "JPEG 90": jpeg(90),
        "JPEG 75": jpeg(75),
        "noise 5": noise(5),
        "noise 13": noise(13),
        "resize .5": resize(0.5),
    }


def through(images: np.ndarray, attack: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The images as bytes, attacked, in [-1, 1] again."""
    pixels = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    changed = np.stack([np.asarray(attack(Image.fromarray(one))) for one in pixels])
    return changed.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)


def main() -> None:
    """Trains, marks, attacks, reads, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--refinements", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    side, n = options.side, options.n
    crops = read_crops(options.images, side, 4000 + n, rng)
    if options.model is not None and options.model.exists():
        unet = make_unet(side).eval()
        unet.load_state_dict(torch.load(options.model, weights_only=True))
    else:
        unet = train(crops[n:], options.minutes, rng)
        if options.model is not None:
            torch.save(unet.state_dict(), options.model)

    shape, nonces = (3, side, side), range(n)
    shading = ShadingKey(SECRET, shape, n_bits=48, space_copies=side // 4)
    payload = rng.integers(0, 2, 48)
    rings = {kind: TreeRingKey(SECRET, shape, kind) for kind in ("random", "rings", "zeros")}
    starts = {kind: embed_tree_ring(n, key, rng=rng) for kind, key in rings.items()}
    starts["shading"] = embed_shading(payload, shading, nonces, rng=rng)
    starts["unmarked"] = rng.standard_normal((n, *shape)).astype(np.float32)
    images = {kind: sample(noise, unet, SCHEDULER) for kind, noise in starts.items()}
    images["real"] = crops[:n]
    print(f"samples: deviation {images['unmarked'].std():.3f}, real {images['real'].std():.3f}")

    print(f"{'attack':11s} {'images':9s} mark: below 1 % / below 1e-6 (by p_values; by key_p_values)")
    for name, attack in attacks(rng).items():
        for kind, clean in images.items():
            if kind in ("unmarked", "real") and name not in ("none", "JPEG 75"):
                continue
            found = invert(through(clean, attack), unet, SCHEDULER, n_refinements=options.refinements)
            cells = []
            for ring, key in rings.items():
                if kind in (ring, "unmarked", "real"):
                    read = detect_tree_ring(found, key)
                    cells.append(f"{ring} {_below(read.p_values)} {_below(read.key_p_values)}")
            if kind in ("shading", "unmarked", "real"):
                blind = read_shading(found, shading, nonces)
                known = shading_pvalues(found, payload[None], shading, nonces)[:, 0]
                right = (blind.bits == payload).mean()
                cells.append(f"shading {_below(known)} unknown {_below(blind.p_values)} bits {right:.3f}")
            if kind in starts:
                drift = np.sqrt(np.square(found - starts[kind]).mean())
                cells.append(f"error {drift:.2f}")
            print(f"{name:11s} {kind:9s} {'; '.join(cells)}; deviation {found.std():.2f}", flush=True)


def _below(values: np.ndarray | None) -> str:
    return "-" if values is None else f"{np.mean(values < 0.01):.2f}/{np.mean(values < 1e-6):.2f}"


if __name__ == "__main__":
    main()
