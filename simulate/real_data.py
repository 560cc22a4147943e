"""The real data of a loop: what its models learn from, and what they are measured against, apart from each other."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from jaxtyping import Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_dim
from poolproof.simulate.generator import OtherSamples, Samples

Labels = Int[np.ndarray, " n"]

DATA_VARIABLE: Final = "POOLPROOF_DATA"
"""Environment variable that names the folder with `mnist.npz`."""

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")

LEAST_ITEMS: Final = 20
"""Real items below which there is nothing to learn from and to measure against."""

MOST_ITEMS: Final = 10_000_000

MOST_CLASSES: Final = 100_000

MOST_REFERENCE: Final = 10_000
"""Items that are held out to measure against, unless told otherwise."""


@final
@dataclass(frozen=True)
class DataSpec:
    """Which real data a loop uses.

    Attributes:
        kind: `digits` (1,797 of 8 x 8 pixels, from scikit-learn), `mnist`, `npz`, `folder` (images; sub-folders are
            classes), `datasets` (a data set of the Hugging Face hub from the local cache, or a
            folder of `save_to_disk`), `pool` (anything that can
            be audited, read by the command line), `grid` (25 normal modes in the plane), `rosenbrock` (a banana in the
            plane), or `normal` (standard, `dim` coordinates).
        path: file, folder, pool, or name of a data set; of `mnist` an npz file, by default `mnist.npz` in the folder
            that the environment variable POOLPROOF_DATA names.
        size: pixels a side that images are brought to, cut square from their middle; None keeps their size.
        channels: 1 or 3.
        n_items: most items to use; None uses all.
        n_reference: items held out to measure against; None holds out half, at most 10,000.
        dim: coordinates of `normal`.
        seed: of the split and, for laws, of the held-out draw. The split is the same for all seeds of a loop.
    """

    kind: Literal["digits", "mnist", "npz", "folder", "datasets", "pool", "grid", "rosenbrock", "normal"]
    path: str = ""
    size: int | None = None
    channels: Literal[1, 3] = 1
    n_items: int | None = None
    n_reference: int | None = None
    dim: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            check_count("size", self.size, least=8)
        for name in ("n_items", "n_reference"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=LEAST_ITEMS if name == "n_items" else 10)
                if getattr(self, name) > MOST_ITEMS:
                    raise InputError(
                        f"{name}: got {getattr(self, name)}, allowed up to {MOST_ITEMS:,}; lower it"
                    )
        check_dim(self.dim)
        check_count("seed", self.seed, least=0)
        if self.kind in ("npz", "folder", "datasets", "pool") and not self.path:
            raise InputError(f"path: got none, allowed where the {self.kind} lies; add it")


Draw = Callable[[int, np.random.Generator], Samples]


@final
@dataclass(frozen=True, eq=False)
class RealData:
    """Real items in two parts that share none.

    Attributes:
        supply: items that models learn from, in an order that means nothing. Of a law, none: it is drawn from.
        supply_labels: their classes; None without.
        reference: items to measure against.
        reference_labels: their classes; None without.
        draw: draws items from a law without end; None for data sets.
    """

    supply: Samples
    supply_labels: Labels | None
    reference: OtherSamples
    reference_labels: Int[np.ndarray, " m"] | None
    draw: Draw | None = None

    def digest(self) -> str:
        """SHA-256 of all items, in hex."""
        sha = hashlib.sha256()
        for part in (self.supply, self.supply_labels, self.reference, self.reference_labels):
            if part is not None:
                sha.update(f"{part.dtype}{part.shape}".encode())
                sha.update(np.ascontiguousarray(part).data)
        return sha.hexdigest()

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return 0 if self.reference_labels is None else int(self.reference_labels.max()) + 1


def load_real(
    spec: DataSpec,
    *,
    read_pool: Callable[[DataSpec], tuple[Samples, Labels | None]] | None = None,
) -> RealData:
    """The real data that a spec names, split into supply and reference by the spec's seed.

    Args:
        spec: what to load.
        read_pool: reads images and labels of kind `pool`; None where pools cannot be read.

    Raises:
        InputError: data that are not there, cannot be read, or are too few.
    """
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(0,)))
    if spec.kind in LAWS:
        return _law(spec, rng)
    if spec.kind == "pool":
        if read_pool is None:
            raise InputError("data.kind: got 'pool', allowed where the command line reads pools; use folder")
        images, labels = read_pool(spec)
    else:
        images, labels = _READERS[spec.kind](spec)
    _check_items(spec, images, labels)
    order = rng.permutation(len(images))
    if spec.n_items is not None:
        order = order[: spec.n_items]
    n = min(len(order) // 2, MOST_REFERENCE) if spec.n_reference is None else spec.n_reference
    if n > len(order) - 10:
        raise InputError(
            f"data.n_reference: got {n} of {len(order)} items, allowed 10 fewer than there are; lower it"
        )
    held, rest = order[:n], order[n:]
    return RealData(
        images[rest],
        None if labels is None else labels[rest],
        images[held],
        None if labels is None else labels[held],
    )


def _check_items(spec: DataSpec, images: Samples, labels: Labels | None) -> None:
    if len(images) < LEAST_ITEMS:
        raise InputError(
            f"data: got {len(images)} images in {spec.path or spec.kind!r}, allowed {LEAST_ITEMS} or more; add some"
        )
    if labels is not None:
        if labels.min() < 0:
            raise InputError("data: got a negative label, allowed 0 or more; number the classes from 0")
        if labels.max() >= MOST_CLASSES:
            raise InputError(
                f"data: got the label {labels.max()}, allowed below {MOST_CLASSES}; number the classes from 0"
            )
        least = int(np.bincount(labels).min())
        if labels.max() == 0 or least == 0:
            raise InputError(
                f"data: got {len(np.unique(labels))} of {labels.max() + 1} classes in {spec.path or spec.kind!r}, "
                "allowed two classes or more, numbered without gaps; put each class into a sub-folder, or images "
                "without any"
            )


# --- data sets ------------------------------------------------------------------------------------------


def _read_digits(spec: DataSpec) -> tuple[Samples, Labels | None]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return _fit(spec, images), digits.target.astype(np.int64)


def _read_mnist(spec: DataSpec) -> tuple[Samples, Labels | None]:
    folder = os.environ.get(DATA_VARIABLE)
    path = spec.path or (str(Path(folder) / "mnist.npz") if folder else "")
    if not path:
        raise InputError(
            f"data.path: got none, allowed an npz file with x_train and y_train; give --data FILE, or set "
            f"{DATA_VARIABLE} to the folder of mnist.npz"
        )
    return _read_arrays(spec, Path(path))


def _read_npz(spec: DataSpec) -> tuple[Samples, Labels | None]:
    return _read_arrays(spec, Path(spec.path))


def _read_arrays(spec: DataSpec, path: Path) -> tuple[Samples, Labels | None]:
    """Images and labels under the names of Keras' files (x_train, y_train), or images and labels."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            names = ("x_train", "y_train") if "x_train" in arrays else ("images", "labels")
            images = arrays[names[0]]
            found = arrays[names[1]].ravel() if names[1] in arrays else None
    except OSError as error:
        raise InputError(
            f"data.path: got {str(path)!r} ({error.strerror or 'no npz file'}), allowed an npz file; give another"
        ) from error
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(
            f"data.path: got {str(path)!r}, allowed an npz file with arrays x_train, or images, of numbers"
        ) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"data.path: got images of type {images.dtype} and shape {images.shape}, allowed uint8, n h w or n h w c"
        )
    if found is not None and not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"data.path: got labels of type {found.dtype}, allowed whole numbers; convert them")
    labels = None if found is None else found.astype(np.int64)
    if labels is not None and len(labels) != len(images):
        raise InputError(f"data.path: got {len(labels)} labels, allowed {len(images)}, one per image")
    return _fit(spec, images if images.ndim == 4 else images[..., None]), labels


def _read_folder(spec: DataSpec) -> tuple[Samples, Labels | None]:
    root = Path(spec.path)
    if not root.is_dir():
        raise InputError(f"data.path: got {spec.path!r}, no folder, allowed a folder of images")
    paths = sorted(
        path for path in root.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
    )
    classes = sorted({path.relative_to(root).parts[0] for path in paths if path.parent != root})
    loose = any(path.parent == root for path in paths)
    labels = None
    if classes and not loose:
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[path.relative_to(root).parts[0]] for path in paths], np.int64)
    _check_count(spec, len(paths))
    return np.stack([_open(path, spec) for path in paths]), labels


def _check_count(spec: DataSpec, n: int) -> None:
    if n < LEAST_ITEMS:
        raise InputError(f"data: got {n} images in {spec.path!r}, allowed {LEAST_ITEMS} or more; add some")
    if spec.size is None:
        raise InputError("data.size: got none, allowed pixels a side that all images are brought to; add it")


def _open(path: Path, spec: DataSpec) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return fit_picture(image, spec)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"data: got {str(path)!r} ({reason}), allowed readable images; take it out"
        ) from error


def fit_picture(image: Any, spec: DataSpec) -> np.ndarray:
    """Pixels of a Pillow image, cut square from the middle and brought to the spec's size and channels."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(image)
    if picture.mode.startswith("I"):  # 16 bits: the high byte, and the low one where nothing is above it
        values = np.asarray(picture).astype(np.int64)
        values = values >> 8 if values.max(initial=0) > 255 else values
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    picture = picture.convert("L" if spec.channels == 1 else "RGB")
    assert spec.size is not None
    picture = ImageOps.fit(
        picture,
        (spec.size, spec.size),
        Image.Resampling.BOX if min(picture.size) > spec.size else Image.Resampling.BICUBIC,
    )
    return np.asarray(picture, np.uint8).reshape(spec.size, spec.size, spec.channels)


def _read_datasets(spec: DataSpec) -> tuple[Samples, Labels | None]:
    """The training split of a data set in the local cache or in a folder, with its first image and class columns.

    `load_dataset` would ask the hub first; the library's reader of its cache does not.
    """
    import datasets
    from datasets.packaged_modules.cache.cache import Cache

    try:
        if Path(spec.path).is_dir():
            loaded: Any = datasets.load_from_disk(spec.path)
            table: Any = loaded["train"] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            name = spec.path.rpartition("/")[2]
            table = Cache(repo_id=spec.path, dataset_name=name, version="auto", hash="auto").as_dataset(
                "train"
            )
    except Exception as error:  # whatever the library meets, the user's remedy is the same
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"data.path: got {spec.path!r} ({reason}), allowed a data set in the local cache; load it there once"
        ) from error
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    image_column = next((name for name, kind in kinds.items() if kind == "Image"), None)
    label_column = next((name for name, kind in kinds.items() if kind == "ClassLabel"), None)
    if image_column is None:
        raise InputError(
            f"data.path: got {spec.path!r} without images, allowed a data set with an image column"
        )
    _check_count(spec, len(table))
    images = np.stack([fit_picture(image, spec) for image in table[image_column]])
    labels = None if label_column is None else np.array(table[label_column], np.int64)
    return images, labels


def _fit(spec: DataSpec, images: np.ndarray) -> np.ndarray:
    """The images at the spec's size and number of channels."""
    from PIL import Image

    if images.shape[3] not in (1, 3) or min(images.shape[1:3]) < 8:
        raise InputError(
            f"data: got images of shape {images.shape[1:]}, allowed h w 1 or h w 3 from 8 pixels a side; convert them"
        )
    if images.shape[3] != spec.channels:
        if images.shape[3] == 3:
            weights = np.array([0.299, 0.587, 0.114])
            images = np.rint(images @ weights).astype(np.uint8)[..., None]
        else:
            images = np.repeat(images[..., :1], 3, axis=3)
    if spec.size is None or images.shape[1:3] == (spec.size, spec.size):
        return images
    return np.stack(
        [
            fit_picture(Image.fromarray(each.squeeze(2) if each.shape[2] == 1 else each), spec)
            for each in images
        ]
    )


_READERS: Final[Mapping[str, Callable[[DataSpec], tuple[Samples, Labels | None]]]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "npz": _read_npz,
    "folder": _read_folder,
    "datasets": _read_datasets,
}


# --- laws -----------------------------------------------------------------------------------------------

LAWS: Final = ("grid", "rosenbrock", "normal")
"""Kinds that are drawn from without end."""


def _law(spec: DataSpec, rng: np.random.Generator) -> RealData:
    from poolproof.simulate.laws import grid_of_normals, rosenbrock

    draws: dict[str, Draw] = {
        "grid": lambda n, rng: grid_of_normals(n, rng=rng)[0],
        "rosenbrock": lambda n, rng: rosenbrock(n, rng=rng),
        "normal": lambda n, rng: rng.standard_normal((n, spec.dim)),
    }
    draw = draws[spec.kind]
    n = MOST_REFERENCE if spec.n_reference is None else spec.n_reference
    reference = draw(n, rng)
    return RealData(reference[:0], None, reference, None, draw)
