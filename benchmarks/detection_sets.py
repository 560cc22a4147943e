"""Image sets of the detection benchmark: real images of four kinds, and synthetic ones made on the spot.

Nothing that a model was trained on is in a set. Every image is an encoded file, as in a pool, and both classes of a
set are encoded alike.
"""

from __future__ import annotations

import datetime
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from detection_models import (
    BACKBONE,
    SIDE,
    Autoencoder,
    Diffusion,
    keep_model,
    make_backbone,
    normalise,
    train_backbone,
)
from jaxtyping import Int, UInt8
from PIL import Image

from poolproof.audit.credentials import make_identity
from poolproof.audit.digits import LEVELS, encode_item, make_items
from poolproof.files import replace_file
from poolproof.simulate.diffusion import DiffusionSpec, fit_diffusion

N_TRAIN: Final = 5000
"""Photographs that models learn from; the others, as many, are references and pools."""

RECIPES: Final = {"nearest": ("nearest", 3), "nearest-again": ("nearest", 4), "transposed": ("transposed", 5)}
"""Autoencoders by name: kind and seed. The first makes the synthetic references."""


@dataclass(frozen=True)
class ImageSet:
    """Real images and what generators made.

    Attributes:
        name: of the scenario.
        real: encoded real images that no model was trained on.
        synthetic: encoded synthetic images by the generator that the references know.
        others: encoded synthetic images by generators that they do not know, by name.
        paired: whether synthetic image i was made from real image i; a pool then holds one of the two.
    """

    name: str
    real: list[bytes]
    synthetic: list[bytes]
    others: dict[str, list[bytes]]
    paired: bool = False


def decode(encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of a file."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def encode(pixels: UInt8[np.ndarray, "h w c"], kind: str = "PNG", **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def encode_like(pixels: UInt8[np.ndarray, "h w 3"], original: bytes) -> bytes:
    """Return a JPEG with the quantisation and chroma sampling of another one."""
    from PIL import JpegImagePlugin

    image: Any = Image.open(io.BytesIO(original))
    sampling = JpegImagePlugin.get_sampling(image)
    return encode(pixels, "JPEG", qtables=image.quantization, subsampling=sampling)


def digits_set(work: Path, *, seed: int) -> ImageSet:
    """Return the embedded digits and samples of the project's diffusion model, written as in the demonstration."""
    from sklearn.datasets import load_digits

    split, train, draw, lay = np.random.default_rng([seed, 1]).spawn(4)
    bunch: Any = load_digits()
    order = split.permutation(len(bunch.images))
    levels, labels = bunch.images.astype(np.uint8)[order], bunch.target[order]

    def make() -> dict[str, np.ndarray]:
        pixels = levels[:700] / np.float32(LEVELS / 2) - np.float32(1)
        model = fit_diffusion(pixels, labels[:700], DiffusionSpec(), rng=train)
        drawn = model.draw_labels(1600, rng=draw)
        samples = np.rint((model.sample(drawn, rng=draw) + 1) * (LEVELS / 2)).astype(np.uint8)
        return {"images": samples, "labels": drawn}

    samples = keep_arrays(work / "digits-samples.npz", make)
    identity = make_identity(datetime.timedelta(days=1))
    real = make_items(levels[700:], labels[700:], False, rng=lay)
    synthetic = make_items(samples["images"], samples["labels"], True, rng=lay)
    files = [[encode_item(item, identity) for item in items] for items in (real, synthetic)]
    return ImageSet("digits", files[0], files[1], {})


def mnist_set(data: Path, work: Path, *, n: int, steps: int, seed: int, raw: bool = False) -> ImageSet:
    """Return handwritten digits and samples of a diffusion model that learnt others, as PNG files.

    The ground of the real ones is 0 to the bit, and that of samples nearly so; their strokes are not as white. Any
    look at grey levels parts the two, which says nothing of detectors. So both classes become black and white.

    Args:
        data: folder with mnist.npz.
        work: folder for weights and samples.
        n: samples.
        steps: of training.
        seed: of everything.
        raw: whether to leave the grey levels.
    """
    images, _ = read_mnist(data)

    def make() -> dict[str, np.ndarray]:
        torch.manual_seed(seed + 2)
        model: Any = Diffusion(28, 1)
        rng = np.random.default_rng([seed, 2])
        print("mnist: training a diffusion model", flush=True)
        keep_model(
            work / "mnist-diffusion.safetensors", model, lambda m: m.train_on(images[:30_000], steps, rng=rng)
        )
        return {"images": model.draw(n)}

    samples = keep_arrays(work / "mnist-samples.npz", make)["images"]
    both = images[40_000 : 40_000 + 2 * n], samples
    if not raw:
        both = tuple(np.where(each >= 128, 255, 0).astype(np.uint8) for each in both)
    real, synthetic = ([encode(one) for one in each] for each in both)
    return ImageSet("mnist-raw" if raw else "mnist", real, synthetic, {})


def photograph_set(data: Path, work: Path, *, steps: int, n_other: int, seed: int) -> ImageSet:
    """Return photographs and what they become behind an autoencoder, both as JPEG files of one kind.

    Args:
        data: folder with the tars.
        work: folder for weights and samples.
        steps: of training of each autoencoder.
        n_other: samples of a diffusion model, which is another generator; 0 for none.
        seed: of everything.
    """
    files, _ = read_photographs(data)
    pixels = np.stack([decode(file) for file in files])
    train, real, originals = pixels[:N_TRAIN], files[N_TRAIN:], pixels[N_TRAIN:]
    made: dict[str, list[bytes]] = {}
    for name in RECIPES:
        model = make_autoencoder(name, work, train, steps=steps, seed=seed)
        passed = model.pass_through(originals)
        error = np.square(passed.astype(float) - originals).mean()
        print(f"photographs: PSNR {10 * np.log10(255**2 / error):.1f} dB by {name}", flush=True)
        made[name] = [encode_like(one, file) for one, file in zip(passed, real, strict=True)]
    if n_other:

        def make() -> dict[str, np.ndarray]:
            torch.manual_seed(seed + 6)
            model: Any = Diffusion(32, 3)
            rng = np.random.default_rng([seed, 6])
            print("photographs: training a diffusion model", flush=True)
            path = work / "photographs-diffusion.safetensors"
            keep_model(path, model, lambda m: m.train_on(train, steps, rng=rng))
            return {"images": model.draw(n_other)}

        drawn = keep_arrays(work / "photographs-samples.npz", make)["images"]
        made["diffusion"] = [encode_like(one, file) for one, file in zip(drawn, real[:n_other], strict=True)]
    known = made.pop("nearest")
    return ImageSet("photographs", real, known, made, paired=True)


def make_autoencoder(
    name: str, work: Path, train: UInt8[np.ndarray, "n h w 3"] | None, *, steps: int, seed: int
) -> Autoencoder:
    """Return an autoencoder of `RECIPES`, trained now or before.

    Args:
        name: of the recipe.
        work: folder for weights.
        train: photographs to learn from; None where the weights are in the folder.
        steps: of training.
        seed: of weights and order.
    """
    kind, number = RECIPES[name]
    torch.manual_seed(seed + number)
    rng = np.random.default_rng([seed, number])
    model = Autoencoder(kind)

    def learn(model: Any) -> None:
        print(f"photographs: training the autoencoder {name}", flush=True)
        model.train_on(train, steps, rng=rng)

    keep_model(work / f"photographs-{name}.safetensors", model, learn)
    return model


def backbone_spec(data: Path, work: Path, *, steps: int, seed: int) -> str:
    """Return the spec of an embedding model that learnt the labels of photographs and digits, its file in `work`."""
    path = work / f"backbone-{BACKBONE}.safetensors"
    if not path.exists():
        files, labels = read_photographs(data)
        photographs = train_photographs(data)
        digits, numbers = read_mnist(data)
        small = np.pad(digits[30_000:35_000], ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=3)
        images = np.concatenate([photographs, small])
        classes = np.concatenate([labels[:N_TRAIN], 10 + numbers[30_000:35_000]])
        torch.manual_seed(seed + 7)
        rng = np.random.default_rng([seed, 7])
        model = make_backbone(20)
        print("backbone: training a classifier", flush=True)
        keep_model(path, model, lambda m: train_backbone(m, images, classes, steps, rng=rng))
        report_accuracy(model, np.stack([decode(file) for file in files[-1000:]]), labels[-1000:])
    return f"timm:{BACKBONE}/{path}@resize,bilinear,{SIDE}px"


def report_accuracy(
    model: torch.nn.Module, images: UInt8[np.ndarray, "n h w 3"], labels: Int[np.ndarray, " n"]
) -> None:
    """Prints how many photographs the backbone's classifier names rightly."""
    with torch.inference_mode():
        found = model(normalise(images)).argmax(dim=1).numpy()
    print(f"backbone: {np.mean(found == labels):.0%} of new photographs named rightly", flush=True)


def read_mnist(data: Path) -> tuple[UInt8[np.ndarray, "n 28 28 1"], Int[np.ndarray, " n"]]:
    """Return the training images of MNIST and their labels."""
    with np.load(data / "mnist.npz") as arrays:
        return arrays["x_train"][..., None], arrays["y_train"].astype(np.int64)


def read_photographs(data: Path) -> tuple[list[bytes], Int[np.ndarray, " n"]]:
    """Return the JPEG files of the tars and their labels, in an order that mixes the classes."""
    files: dict[str, bytes] = {}
    labels: dict[str, str] = {}
    for path in sorted((data / "cifar10").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, suffix = member.name.rpartition(".")
                content: Any = tar.extractfile(member)
                if suffix == "jpg":
                    files[stem] = content.read()
                elif suffix == "cls":
                    labels[stem] = content.read().decode()
    names = sorted(files)
    order = np.random.default_rng(0).permutation(len(names))
    _, classes = np.unique([labels[name] for name in names], return_inverse=True)
    return [files[names[i]] for i in order], classes[order]


def train_photographs(data: Path) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Return the photographs that models learn from."""
    return np.stack([decode(file) for file in read_photographs(data)[0][:N_TRAIN]])


def keep_arrays(path: Path, make: Any) -> dict[str, np.ndarray]:
    """Return the arrays that lie at the path, or that are made now and written there."""
    if not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as new, new.open("wb") as file:  # savez adds a suffix to a path
            np.savez(file, **arrays)
    with np.load(path) as kept:
        return dict(kept)
