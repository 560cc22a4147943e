"""SIMS: the base model at weight 0, its formula elsewhere, one budget for both models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.diffusion import DiffusionGenerator
from poolproof.simulate.diffusion_spec import DiffusionSpec
from poolproof.simulate.sims import NegativeGuidanceGenerator, NegativeGuidanceSpec

TINY = DiffusionSpec(n_timesteps=50, n_sampling_steps=5, width=32, n_blocks=2, n_steps=40, batch_size=16)
SIMS = NegativeGuidanceSpec(TINY, weight=0.5, base_share=0.6, n_auxiliary=30)


def plates(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 4 x 5 x 1 byte images that are dark or bright all over, with a little noise."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(scale=2, size=(n, 4, 5, 1))
    return np.rint(labels[:, None, None, None] * 150 + 50 + noise).astype(np.uint8), labels


def fit(spec: NegativeGuidanceSpec = SIMS, **options: Any) -> NegativeGuidanceGenerator:
    """A generator of the plates."""
    return NegativeGuidanceGenerator(spec).fit(*plates(), **options, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted() -> NegativeGuidanceGenerator:
    """A generator of the plates, hardly trained."""
    return fit()


def test_weight_zero_is_the_base_model(fitted: NegativeGuidanceGenerator) -> None:
    """At w = 0 samples are those of the base, which is a diffusion model of its share of the steps; else not."""
    alone = DiffusionGenerator(replace(TINY, n_steps=24)).fit(*plates(), rng=np.random.default_rng(0))
    assert fitted.base is not None
    none = replace(fitted, spec=replace(SIMS, weight=0))
    for bias in (1.0, 0.6):
        draws = [
            one.sample(6, sampling_bias=bias, rng=np.random.default_rng(1))
            for one in (alone, fitted.base, none, fitted)
        ]
        assert draws[0][0].tobytes() == draws[1][0].tobytes() == draws[2][0].tobytes()
        assert draws[3][0].tobytes() != draws[2][0].tobytes()
        for _, labels in draws:
            np.testing.assert_array_equal(np.array(labels), np.array(draws[0][1]))
        assert draws[3][0].dtype == np.uint8


@pytest.mark.theory
@pytest.mark.parametrize("bias", [1.0, 0.66])
def test_extrapolation_follows_its_formula(fitted: NegativeGuidanceGenerator, bias: float) -> None:
    """One step gives (1 + w) times the base's image less w times the copy's, each of them guided."""
    assert fitted.base is not None
    assert fitted.auxiliary is not None
    assert fitted.base.model is not None
    assert fitted.auxiliary.model is not None
    base, copy = (
        replace(model, spec=replace(TINY, n_sampling_steps=1))
        for model in (fitted.base.model, fitted.auxiliary.model)
    )
    labels = np.array([0, 1, 1, 0])

    def draw(model: Any, **options: Any) -> np.ndarray:
        return model.sample(labels, sampling_bias=bias, **options, rng=np.random.default_rng(1))

    expected = 1.5 * draw(base) - 0.5 * draw(copy)
    assert np.abs(expected).max() < 1
    np.testing.assert_allclose(draw(base, auxiliary=copy, auxiliary_weight=0.5), expected, atol=1e-5)


@pytest.mark.parametrize(("share", "steps"), [(0.6, (24, 16)), (0.5, (20, 20)), (0.33, (13, 27))])
def test_both_models_share_the_budget(share: float, steps: tuple[int, int]) -> None:
    """The steps of the base and of its copy add up to those of one diffusion model."""
    made = fit(replace(SIMS, base_share=share))
    assert made.base is not None
    assert made.auxiliary is not None
    assert (made.base.spec.n_steps, made.auxiliary.spec.n_steps) == steps == made.spec.steps()
    assert sum(steps) == TINY.n_steps


def test_the_copy_starts_from_the_base_and_learns_its_samples(fitted: NegativeGuidanceGenerator) -> None:
    """The copy is what a warm start on the base's samples gives, from the same random state."""
    rng = np.random.default_rng(0)
    base = DiffusionGenerator(replace(TINY, n_steps=24)).fit(*plates(), rng=rng)
    drawn, labels = base.sample(30, rng=rng)
    copy = DiffusionGenerator(replace(TINY, n_steps=16)).fit(drawn, labels, start=base, rng=rng)
    assert fitted.auxiliary is not None
    for name, value in copy.state().items():
        np.testing.assert_array_equal(value, fitted.auxiliary.state()[name])


def test_is_laid_down_taken_up_weighted_and_gone_on_with(fitted: NegativeGuidanceGenerator) -> None:
    """A restored generator draws the same bytes; weights of 0 drop images; a start changes what comes out."""
    restored = NegativeGuidanceGenerator(SIMS).restore(dict(fitted.state()))
    one, other = (model.sample(5, rng=np.random.default_rng(3))[0] for model in (fitted, restored))
    assert one.tobytes() == other.tobytes()
    images, labels = plates()
    dark = NegativeGuidanceGenerator(SIMS).fit(
        images[labels == 0], labels[labels == 0], weights=np.ones(20), rng=np.random.default_rng(0)
    )
    weighted = fit(weights=(labels == 0).astype(float))
    draws = [model.sample(5, rng=np.random.default_rng(3))[0] for model in (dark, weighted)]
    assert draws[0].tobytes() == draws[1].tobytes()
    warm = fit(start=fitted)
    assert warm.base is not None
    assert fitted.base is not None
    assert warm.base.model is not None
    assert fitted.base.model is not None
    assert warm.base.model.loss < fitted.base.model.loss


def test_floats_without_labels_are_learnt_too() -> None:
    """Images as floats and no labels give floats in [-1, 1] and no labels."""
    images = plates()[0] / 127.5 - 1
    made = NegativeGuidanceGenerator(SIMS).fit(images, None, rng=np.random.default_rng(0))
    samples, labels = made.sample(3, rng=np.random.default_rng(1))
    assert labels is None
    assert samples.shape == (3, 4, 5, 1)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", -0.1),
        ("weight", float("nan")),
        ("base_share", 0.0),
        ("base_share", 1.0),
        ("base_share", 0.999),
        ("n_auxiliary", 0),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    """Every option names itself when it cannot be used."""
    with pytest.raises(InputError, match=f"{name}: got"):
        replace(SIMS, **{name: value})


def test_what_is_not_fitted_is_refused(fitted: NegativeGuidanceGenerator) -> None:
    """Sampling, laying down and starting from what was not fitted, and a state of one model, are InputErrors."""
    blank = NegativeGuidanceGenerator(SIMS)
    with pytest.raises(InputError, match="not fitted"):
        blank.sample(2, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="not fitted"):
        blank.state()
    with pytest.raises(InputError, match="start: got NegativeGuidanceGenerator"):
        fit(start=blank)
    assert fitted.base is not None
    with pytest.raises(InputError, match="start: got DiffusionGenerator"):
        fit(start=fitted.base)
    with pytest.raises(InputError, match="state: got none of"):
        blank.restore(dict(fitted.base.state()))
