"""A detector of traces alone does not see what the picture shows."""

from __future__ import annotations

import numpy as np
import pytest

from poolproof.detectors.detector import DetectorState
from poolproof.detectors.forensic import FORENSIC_BLOCKS, FORENSIC_DIM, forensic_features
from poolproof.detectors.probe import fit_probe
from poolproof.detectors.traces import TRACE_BLOCKS, fit_forensic, restore_forensic
from poolproof.errors import InputError


def block(name: str) -> slice:
    """Where a block lies in the vector."""
    start = 0
    for other, length in FORENSIC_BLOCKS:
        if other == name:
            return slice(start, start + length)
        start += length
    raise KeyError(name)


def draw(rng: np.random.Generator, n: int, *, up_sampled: bool) -> np.ndarray:
    """Features of smooth noise with grain, or of the same at half the size and up-sampled."""
    rows = []
    for _ in range(n):
        size = 32 if up_sampled else 64
        field = np.cumsum(rng.normal(size=(size, size, 3)), axis=0) * 4 + rng.normal(size=(size, size, 3)) * 6
        pixels = np.clip(field + 128, 0, 255).astype(np.uint8)
        rows.append(forensic_features(pixels.repeat(2, 0).repeat(2, 1) if up_sampled else pixels))
    return np.array(rows)


def test_up_sampling_is_found(rng: np.random.Generator) -> None:
    """Images whose pixels were doubled are told from others on held-out ones."""
    detector = fit_forensic(draw(rng, 30, up_sampled=False), draw(rng, 30, up_sampled=True))
    real, synthetic = draw(rng, 20, up_sampled=False), draw(rng, 20, up_sampled=True)
    assert np.mean(detector.score(real).values > 0) < 0.1
    assert np.mean(detector.score(synthetic).values > 0) > 0.9


def test_only_the_blocks_of_traces_count(rng: np.random.Generator) -> None:
    """Colour, histogram and thumbnails may be anything; each block of traces changes the score."""
    real, synthetic = rng.normal(size=(40, FORENSIC_DIM)), rng.normal(size=(40, FORENSIC_DIM)) + 0.5
    detector = fit_forensic(real, synthetic)
    scores = detector.score(real).values
    for name, _ in FORENSIC_BLOCKS:
        changed = real.copy()
        changed[:, block(name)] = rng.normal(size=changed[:, block(name)].shape)
        assert np.array_equal(detector.score(changed).values, scores) == (name not in TRACE_BLOCKS)


@pytest.mark.reference
def test_it_is_a_probe_on_those_columns(rng: np.random.Generator) -> None:
    """The score is that of `fit_probe` on the blocks alone."""
    real, synthetic = rng.normal(size=(40, FORENSIC_DIM)), rng.normal(size=(30, FORENSIC_DIM)) + 0.5
    cut = [np.concatenate([x[:, block(name)] for name in TRACE_BLOCKS], axis=1) for x in (real, synthetic)]
    expected = fit_probe(cut[0], cut[1], regularisation=0.01).score(cut[0])
    found = fit_forensic(real, synthetic, regularisation=0.01).score(real).values
    np.testing.assert_array_equal(found, expected)


def test_another_version_of_the_features_is_refused(rng: np.random.Generator) -> None:
    """A detector that was saved with other features, or other columns, does not come back."""
    real, synthetic = rng.normal(size=(20, FORENSIC_DIM)), rng.normal(size=(20, FORENSIC_DIM)) + 1
    state = fit_forensic(real, synthetic).state()
    changed = dict(state.settings) | {"features": "forensic/0"}
    with pytest.raises(InputError, match="forensic/0"):
        restore_forensic(DetectorState(state.kind, state.tensors, changed))
    short = {name: tensor[:9] for name, tensor in state.tensors.items()}
    with pytest.raises(InputError, match="9 weights"):
        restore_forensic(DetectorState(state.kind, short, state.settings))
