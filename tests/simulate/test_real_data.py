"""Real data of loops: what is read, how it is split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poolproof.errors import InputError
from poolproof.simulate.real_data import DataSpec, load_real


def write_folder(root: Path, rng: np.random.Generator, classes: dict[str, int], side: int = 20) -> Path:
    """A folder of images, those of a class in a sub-folder; the empty name stands for the folder itself."""
    for name, n in classes.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (side + i % 3, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def test_digits_are_split_in_halves_without_overlap() -> None:
    """Supply and reference of the digits are halves that share none, the same for every call."""
    data = load_real(DataSpec("digits"))
    assert data.supply.shape == (899, 8, 8, 1)
    assert data.reference.shape == (898, 8, 8, 1)
    assert data.supply.dtype == np.uint8
    assert data.supply.max() == 255
    assert data.n_classes == 10
    together = {each.tobytes() for each in data.supply} & {each.tobytes() for each in data.reference}
    assert not together
    assert data.digest() == load_real(DataSpec("digits")).digest()
    assert data.digest() != load_real(DataSpec("digits", seed=1)).digest()


def test_sizes_of_the_parts_are_those_asked_for() -> None:
    """n_items and n_reference decide how many there are, and images are brought to a size."""
    data = load_real(DataSpec("digits", n_items=500, n_reference=100, size=16, channels=3))
    assert data.supply.shape == (400, 16, 16, 3)
    assert data.reference.shape == (100, 16, 16, 3)


def test_folder_of_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    """Sub-folders are classes, in the order of their names; loose images have none."""
    root = write_folder(tmp_path / "a", rng, {"cat": 15, "dog": 15})
    data = load_real(DataSpec("folder", str(root), size=8, channels=3))
    assert data.supply.shape[1:] == (8, 8, 3)
    assert data.supply_labels is not None
    assert data.reference_labels is not None
    assert sorted(np.concatenate([data.supply_labels, data.reference_labels]).tolist()) == [0] * 15 + [1] * 15
    loose = write_folder(tmp_path / "b", rng, {"": 24})
    assert load_real(DataSpec("folder", str(loose), size=8)).supply_labels is None


def test_mnist_is_found_by_path_and_by_variable(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An npz file with x_train and y_train is read where the spec or the environment says it lies."""
    images, labels = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels)
    monkeypatch.delenv("POOLPROOF_DATA", raising=False)
    with pytest.raises(InputError, match="POOLPROOF_DATA"):
        load_real(DataSpec("mnist"))
    monkeypatch.setenv("POOLPROOF_DATA", str(tmp_path))
    found = load_real(DataSpec("mnist"))
    assert found.digest() == load_real(DataSpec("mnist", str(tmp_path / "mnist.npz"))).digest()
    whole = np.concatenate([found.supply, found.reference])[..., 0]
    assert sorted(each.tobytes() for each in whole) == sorted(each.tobytes() for each in images)


@pytest.mark.parametrize("kind", ["grid", "rosenbrock", "normal"])
def test_laws_are_drawn_from_without_end(kind: str) -> None:
    """A law has a reference and draws on; it holds no supply."""
    data = load_real(DataSpec(kind, n_reference=500))  # type: ignore[arg-type]
    assert data.reference.shape == (500, 2)
    assert len(data.supply) == 0
    assert data.draw is not None
    assert data.draw(7, np.random.default_rng(0)).shape == (7, 2)


def test_pool_is_read_by_the_caller() -> None:
    """Kind `pool` asks the function it is given, and is refused where there is none."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    data = load_real(DataSpec("pool", "x", size=8), read_pool=lambda spec: (images, None))
    assert len(data.supply) == 15
    with pytest.raises(InputError, match="got 'pool'"):
        load_real(DataSpec("pool", "x", size=8))


def test_what_cannot_be_used_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    """Too few images, one class, no size, broken files and wrong arrays are one line each."""
    few = write_folder(tmp_path / "few", rng, {"": 10})
    with pytest.raises(InputError, match=r"got 10 images .* allowed 20 or more"):
        load_real(DataSpec("folder", str(few), size=8))
    one = write_folder(tmp_path / "one", rng, {"cat": 30})
    with pytest.raises(InputError, match="got 1 of 1 classes"):
        load_real(DataSpec("folder", str(one), size=8))
    with pytest.raises(InputError, match=r"data.size: got none"):
        load_real(DataSpec("folder", str(one)))
    (one / "cat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png.*allowed readable images"):
        load_real(DataSpec("folder", str(one), size=8))
    with pytest.raises(InputError, match="no folder"):
        load_real(DataSpec("folder", str(tmp_path / "absent"), size=8))
    with pytest.raises(InputError, match="path: got none"):
        DataSpec("folder")
    with pytest.raises(InputError, match="n_reference: got 1790 of 1797"):
        load_real(DataSpec("digits", n_reference=1790))
    for name, arrays, message in (
        ("floats", {"images": np.zeros((30, 8, 8))}, "type float64"),
        ("nothing", {"other": np.zeros(3)}, "arrays x_train, or images"),
        ("labels", {"images": np.zeros((30, 8, 8), np.uint8), "labels": np.zeros(3, int)}, "got 3 labels"),
        (
            "gaps",
            {"images": np.zeros((30, 8, 8), np.uint8), "labels": np.arange(30) % 2 * 2},
            "got 2 of 3 classes",
        ),
        ("fractions", {"images": np.zeros((30, 8, 8), np.uint8), "labels": np.full(30, 0.7)}, "type float64"),
        ("objects", {"images": np.array([None] * 30)}, "arrays x_train, or images"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        with pytest.raises(InputError, match=message):
            load_real(DataSpec("npz", str(tmp_path / f"{name}.npz")))
    for content in (b"", b"\x93NUMPY" + bytes(60), (tmp_path / "floats.npz").read_bytes()[:300]):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"cut\.npz"):
            load_real(DataSpec("npz", str(tmp_path / "cut.npz")))
    for name, shape in (("rgba", (30, 8, 8, 4)), ("planes", (30, 3, 8, 8))):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros(shape, np.uint8))
        with pytest.raises(InputError, match="allowed h w 1 or h w 3"):
            load_real(DataSpec("npz", str(tmp_path / f"{name}.npz"), channels=3))
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(InputError, match=r"text\.npz"):
        load_real(DataSpec("npz", str(tmp_path / "text.npz")))
    with pytest.raises(InputError, match="local cache"):
        load_real(DataSpec("datasets", "nobody/nothing-of-this-name", size=8))


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    """Grey images of 16 bits become bytes of the same brightness, not white."""
    for i in range(20):
        Image.fromarray(np.full((8, 8), 128 * 256 + i, np.uint16)).save(tmp_path / f"{i}.png")
    data = load_real(DataSpec("folder", str(tmp_path), size=8))
    assert set(np.unique(data.supply).tolist()) == {128}


def test_saved_data_sets_are_read_with_their_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    """A folder of `save_to_disk` gives its images and class labels; one without images is refused."""
    import datasets

    images = [Image.fromarray(rng.integers(0, 256, (10, 10), dtype=np.uint8)) for _ in range(24)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 12}, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    data = load_real(DataSpec("datasets", str(tmp_path / "saved"), size=8))
    assert data.supply.shape == (12, 8, 8, 1)
    assert data.n_classes == 2
    datasets.Dataset.from_dict({"x": list(range(24))}).save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(InputError, match="without images"):
        load_real(DataSpec("datasets", str(tmp_path / "plain"), size=8))
