"""The contract that every generator of a loop keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.generator import AbstractGenerator
from poolproof.simulate.generators import GENERATORS, kind_of, read_generator, with_device

ALL_GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "diffusion": {"width": 16, "n_blocks": 1, "n_steps": 30, "n_timesteps": 20, "n_sampling_steps": 5},
    "negative-guidance": {
        "n_auxiliary": 20,
        "diffusion": {"width": 16, "n_blocks": 1, "n_steps": 30, "n_timesteps": 20, "n_sampling_steps": 5},
    },
    "gan": {"width": 8, "latent_dim": 8, "n_steps": 6, "batch_size": 8},
    "flow": {"n_layers": 2, "hidden": 8, "n_epochs": 2, "batch_size": 32},
    "gmm": {"n_components": 3, "n_init": 1},
    "normal": {},
}
"""Every kind of the table with options that train in no time."""


def make(kind: str) -> AbstractGenerator:
    """A small generator of a kind."""
    return read_generator({"kind": kind, **ALL_GENERATORS[kind]})


def training_data(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Sixty samples that the kind learns from, with classes where it takes them."""
    if "images" in GENERATORS[kind].fits:
        return rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), np.arange(60) % 3
    return rng.standard_normal((60, 2)), None


def test_every_generator_of_the_table_is_held_to_the_contract() -> None:
    """No kind is left out of these tests."""
    assert list(ALL_GENERATORS) == list(GENERATORS)
    for kind in GENERATORS:
        assert kind_of(make(kind)) is GENERATORS[kind]


@pytest.mark.parametrize("kind", ALL_GENERATORS)
def test_contract(kind: str, rng: np.random.Generator) -> None:
    """Fitting leaves the generator alone; the same stream gives the same bytes, also from a state taken up again."""
    images, labels = training_data(kind, rng)
    blank = make(kind)
    fitted, again = (blank.fit(images, labels, rng=np.random.default_rng(3)) for _ in range(2))
    with pytest.raises(InputError):
        blank.sample(3, rng=rng)
    with pytest.raises(InputError):
        blank.state()
    restored = blank.restore({name: np.array(array) for name, array in fitted.state().items()})
    for bias in (1.0, 0.5):
        drawn = [
            each.sample(20, sampling_bias=bias, rng=np.random.default_rng(4))
            for each in (fitted, again, restored)
        ]
        for samples, classes in drawn:
            np.testing.assert_array_equal(samples, drawn[0][0])
            assert samples.shape == (20, *images.shape[1:])
            assert samples.dtype == images.dtype
            assert (classes is None) == (labels is None)
            if classes is not None:
                assert set(classes.tolist()) <= {0, 1, 2}
    other = fitted.sample(20, rng=np.random.default_rng(5))[0]
    assert not np.array_equal(other, fitted.sample(20, rng=np.random.default_rng(4))[0])


@pytest.mark.parametrize("kind", ALL_GENERATORS)
def test_rows_of_weight_0_change_no_byte(kind: str, rng: np.random.Generator) -> None:
    """What weighs nothing is not there: samples are those of the other rows alone."""
    images, labels = training_data(kind, rng)
    weights = np.ones(60)
    weights[:12] = 0
    wild = images.copy()
    wild[:12] = 255 if images.dtype == np.uint8 else 1e6
    first, second = (
        make(kind)
        .fit(each, labels, weights=weights, rng=np.random.default_rng(3))
        .sample(10, rng=np.random.default_rng(4))[0]
        for each in (images, wild)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ALL_GENERATORS)
def test_warm_start_goes_on_from_a_fit(kind: str, rng: np.random.Generator) -> None:
    """A start of the same options is taken, and gives samples of the right form."""
    images, labels = training_data(kind, rng)
    start = make(kind).fit(images, labels, rng=np.random.default_rng(3))
    warm = make(kind).fit(images, labels, start=start, rng=np.random.default_rng(5))
    assert warm.sample(5, rng=rng)[0].shape == (5, *images.shape[1:])


@pytest.mark.parametrize("kind", ALL_GENERATORS)
@pytest.mark.parametrize("bias", [0.0, -0.5, 1.5, float("nan")])
def test_bias_outside_its_range_is_refused(kind: str, bias: float, rng: np.random.Generator) -> None:
    """The sampling bias lies above 0 and up to 1."""
    images, labels = training_data(kind, rng)
    fitted = make(kind).fit(images, labels, rng=rng)
    with pytest.raises(InputError, match="sampling_bias"):
        fitted.sample(5, sampling_bias=bias, rng=rng)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("diffusion", r"generator: got 'diffusion', allowed a table headed \[generator\]"),
        (
            {"kind": "vae"},
            "generator.kind: got 'vae', allowed diffusion, negative-guidance, gan, flow, gmm, normal",
        ),
        ({"kind": ["gan"]}, "generator.kind: got"),
        ({"kind": "gan", "depth": 3}, "generator: got unknown key 'depth'"),
        ({"kind": "diffusion", "n_steps": 0}, "generator.n_steps: got 0"),
        ({"kind": "diffusion", "width": 2.5}, "generator.width: got 2.5, allowed a whole number"),
        (
            {"kind": "negative-guidance", "diffusion": {"wid": 1}},
            "generator.diffusion: got unknown key 'wid'",
        ),
        ({"kind": "normal", "covariance": "best"}, "covariance: got 'best'"),
    ],
)
def test_tables_that_are_no_generator_are_refused(table: object, message: str) -> None:
    """One line says what is wrong with a generator's table."""
    with pytest.raises(InputError, match=message):
        read_generator(table)


def test_device_reaches_every_generator_that_has_one() -> None:
    """The command line's device replaces that of the spec, also inside negative guidance."""
    found: Any = with_device(make("gan"), "cpu")
    assert found.spec == replace(found.spec, device="cpu")
    nested: Any = with_device(make("negative-guidance"), "cpu")
    assert nested.spec.diffusion.device == "cpu"
    assert kind_of(with_device(make("normal"), "cpu")) is GENERATORS["normal"]
