"""The classifier: learns digits in seconds, is reproducible, and refuses what cannot be learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refusals import assert_refused
from sklearn.datasets import load_digits

from poolproof.simulate.classifier import Classifier, ClassifierSpec, fit_classifier, restore_classifier
from poolproof.simulate.denoiser import torch_generator
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.lenet import shift_images

TINY = ClassifierSpec(width=4, n_features=8, n_epochs=3, batch_size=16)


def plates(
    n: int = 40, shape: tuple[int, int, int] = (9, 11, 2), n_classes: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Classes of images that differ in how bright they are all over, with a little noise."""
    labels = np.arange(n) % n_classes
    noise = np.random.default_rng(0).normal(scale=0.02, size=(n, *shape))
    return (labels * 1.2 / (n_classes - 1) - 0.6)[:, None, None, None] + noise, labels


def fit(spec: ClassifierSpec = TINY, seed: int = 0) -> Classifier:
    """A classifier of the plates."""
    return fit_classifier(*plates(), spec, rng=np.random.default_rng(seed))


def same(one: Classifier, other: Classifier) -> bool:
    """Whether all weights agree in every byte."""
    return all(one.weights[name].tobytes() == other.weights[name].tobytes() for name in one.weights)


@pytest.fixture(scope="module")
def tiny() -> Classifier:
    """A classifier of the plates, hardly trained."""
    return fit()


@pytest.mark.timeout(120)
def test_learns_digits() -> None:
    """900 real digits teach the other 900 with 97 % and more; labels in any order fit one time in ten."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # pyright: ignore
    labels: np.ndarray = digits.target  # pyright: ignore
    rows = np.random.default_rng(0).permutation(len(images))
    train, test = rows[:900], rows[900:]
    fitted = fit_classifier(images[train], labels[train], ClassifierSpec(), rng=np.random.default_rng(1))
    assert fitted.accuracy(images[test], labels[test]) >= 0.97
    shuffled = np.random.default_rng(2).permutation(labels[test])
    # 5 standard deviations of a share of 900
    assert abs(fitted.accuracy(images[test], shuffled) - 0.1) < 5 * np.sqrt(0.09 / 900)
    features = fitted.features(images[test])
    assert features.shape == (len(test), 64)
    assert features.dtype == np.float32
    assert features.min() >= 0
    # the centres of classes lie further apart than images of one class from their centre
    centres = np.stack([features[labels[test] == k].mean(axis=0) for k in range(10)])
    within = np.square(features - centres[labels[test]]).sum(axis=1).mean()
    assert np.square(centres - centres.mean(axis=0)).sum(axis=1).mean() > within


def test_same_seed_gives_the_same_bytes(tiny: Classifier) -> None:
    """Two fits from equal random states agree in every byte, features too; another seed differs."""
    images, _ = plates()
    assert same(tiny, fit())
    assert not same(tiny, fit(seed=1))
    assert tiny.features(images).tobytes() == fit().features(images).tobytes()


def test_threads_set_elsewhere_and_global_state_change_nothing(tiny: Classifier) -> None:
    """Torch's threads and global generator neither enter the result nor are changed by it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            again = fit()
            assert not torch.is_grad_enabled()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(tiny, again)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 64, 4), (15, 9, 2), (28, 28, 1), (64, 64, 3)])
def test_images_of_any_size(shape: tuple[int, int, int]) -> None:
    """Classes of bright and dark images of any shape are told apart after a few epochs."""
    images, labels = plates(60, shape, n_classes=3)
    spec = ClassifierSpec(width=8, n_epochs=15, batch_size=16)
    fitted = fit_classifier(images, labels, spec, rng=np.random.default_rng(0))
    assert fitted.features(images).shape == (60, 64)
    assert fitted.n_classes == 3
    assert fitted.accuracy(images, labels) > 0.9


def test_bytes_and_floats_are_read_alike(tiny: Classifier) -> None:
    """Bytes and the floats in [-1, 1] that they stand for give the same features and the same fit."""
    images, labels = plates()
    as_bytes = np.rint((images + 1) * 127.5).astype(np.uint8)
    as_floats = as_bytes / np.float32(127.5) - np.float32(1)
    assert tiny.features(as_bytes).tobytes() == tiny.features(as_floats).tobytes()
    one, other = (
        fit_classifier(x, labels, TINY, rng=np.random.default_rng(0)) for x in (as_bytes, as_floats)
    )
    assert same(one, other)


def test_probabilities_are_of_the_classes(tiny: Classifier) -> None:
    """Probabilities add up to 1, and the predicted class has the highest."""
    images, _ = plates()
    probabilities = tiny.probabilities(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.shape == (40, 2)
    assert np.array_equal(tiny.predict(images), probabilities.argmax(axis=1))


@pytest.mark.property
def test_images_are_read_one_by_one(tiny: Classifier) -> None:
    """An image's features do not depend on which others are read with it, beyond rounding."""
    images, _ = plates()
    alone = np.concatenate([tiny.features(image[None]) for image in images[:5]])
    np.testing.assert_allclose(alone, tiny.features(images)[:5], atol=1e-5)


def test_state_and_restore(tiny: Classifier) -> None:
    """Arrays of the state make a classifier that gives the same bytes."""
    images, _ = plates()
    again = restore_classifier({name: value.copy() for name, value in tiny.state().items()}, TINY)
    assert again.shape == tiny.shape
    assert again.features(images).tobytes() == tiny.features(images).tobytes()
    assert again.probabilities(images).tobytes() == tiny.probabilities(images).tobytes()


def test_a_state_of_other_options_is_refused(tiny: Classifier) -> None:
    """Missing arrays, and those that other options make, are refused by name."""
    state = dict(tiny.state())
    assert_refused(lambda: restore_classifier(state, replace(TINY, width=5)), "state")
    assert_refused(lambda: restore_classifier({"shape": state["shape"]}, TINY), "state")
    assert_refused(lambda: restore_classifier(state | {"extra": np.zeros(2, np.float32)}, TINY), "state")
    del state["last.bias"]
    assert "last.bias" in assert_refused(lambda: restore_classifier(state, TINY), "state")


def test_a_class_in_between_may_be_absent() -> None:
    """Labels 0 and 2 alone make three classes, of which the middle one is hardly ever seen."""
    images, labels = plates()
    spec = replace(TINY, n_epochs=15, width=8)
    fitted = fit_classifier(images, labels * 2, spec, rng=np.random.default_rng(0))
    assert fitted.n_classes == 3
    assert fitted.accuracy(images, labels * 2) > 0.9


@pytest.mark.reference
def test_shifts_move_images_and_repeat_the_edge() -> None:
    """Each image comes out as one of the windows of its edge-padded self, and all moves occur."""
    import torch

    images = np.random.default_rng(0).normal(size=(200, 2, 5, 6)).astype(np.float32)
    moved = shift_images(torch.tensor(images), 1, torch_generator(np.random.default_rng(1))).numpy()
    seen = set()
    for image, out in zip(images, moved, strict=True):
        padded = np.pad(image, [(0, 0), (1, 1), (1, 1)], mode="edge")
        places = [
            (y, x) for y in range(3) for x in range(3) if np.array_equal(padded[:, y : y + 5, x : x + 6], out)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 9


def test_divergence_is_told() -> None:
    """A learning rate that blows the weights up ends in GeneratorDiverged."""
    with pytest.raises(GeneratorDiverged, match="learning_rate"):
        fit(replace(TINY, learning_rate=1e30))


def _refuse_fit(images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    return lambda: fit_classifier(images, labels, TINY, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x, y: (x, np.zeros_like(y)), "labels"),
        (lambda x, y: (x, np.where(np.arange(len(y)) == 0, 2, y)), "labels"),
        (lambda x, y: (x, y - 1), "labels"),
        (lambda x, y: (x, y[:-1]), "labels"),
        (lambda x, y: (np.where(x > 0.62, np.nan, x), y), "images"),
        (lambda x, y: (x * 3, y), "images"),
        (lambda x, y: (x[:, :7], y), "images"),
        (lambda x, y: (np.repeat(x, 8, axis=1), y), "images"),
        (lambda x, y: (np.repeat(x, 3, axis=3), y), "images"),
        (lambda x, y: (x[:0], y[:0]), "images"),
    ],
)
def test_what_cannot_be_learnt_is_refused(change: Callable[..., Any], name: str) -> None:
    """One class, a class of one image, bad labels, pixels and shapes are refused in one line."""
    assert_refused(_refuse_fit(*change(*plates())), name)


def test_images_of_another_shape_are_not_read(tiny: Classifier) -> None:
    """A classifier reads images of its own shape, finite and in range, with one label each."""
    images, labels = plates()
    assert_refused(lambda: tiny.features(images[:, :8]), "images")
    assert_refused(lambda: tiny.predict(images * np.nan), "images")
    assert_refused(lambda: tiny.accuracy(images, labels[1:]), "labels")


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"n_features": 0},
        {"n_epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"dropout": 1.0},
        {"shift": -1},
        {"n_threads": 0},
        {"device": "tpu"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Each option out of its range is refused by its name."""
    assert_refused(lambda: ClassifierSpec(**options), next(iter(options)))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a graphics processor where there is none is refused; `auto` does without."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(lambda: fit(replace(TINY, device="cuda")), "device")
    assert same(fit(replace(TINY, device="auto")), fit())
