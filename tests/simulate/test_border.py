"""The rise of a noisy curve through 0: bracketed from either side, and fitted with an honest error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from poolproof.simulate.border import REACH, Sample, bracket_border, fit_border


def constant(height: float) -> Sample:
    """A clear sample of that height."""
    return Sample(0.0, height, 0.001)


@pytest.mark.parametrize("start", [0.0, 5.0, 30.0])
def test_rise_is_bracketed_from_either_side(start: float) -> None:
    """Wherever the search starts, also beyond its end, it comes within a step of the rise."""
    found = bracket_border(start, lambda x, _: constant(0.1 if x > 14 else -0.1), 0.0, highest=20.0)
    assert found == pytest.approx(14, abs=math.log(2))


def test_open_brackets() -> None:
    """A curve below 0 up to the end has no border there, one above it from the start has none below."""
    assert bracket_border(30.0, lambda x, _: constant(-0.1), 0.0, highest=20.0) == math.inf
    assert bracket_border(30.0, lambda x, _: constant(0.1), 0.0, highest=20.0) == -math.inf


def test_next_to_zero_is_near_enough() -> None:
    """Where no precision tells the side the place itself is given."""
    assert bracket_border(7.0, lambda x, _: constant(0.0), 0.0, highest=20.0) == 7.0


@pytest.mark.coverage
def test_roots_spread_as_they_say(rng: np.random.Generator) -> None:
    """Over many noisy samples of one cubic its root is found as precisely as its error says."""
    places = 3 + REACH * np.linspace(-1, 1, 9)
    scores = []
    for _ in range(400):
        heights = 0.2 * (places - 3.1) + 0.3 * (places - 3.1) ** 3 + rng.normal(0, 0.004, 9)
        samples = [Sample(x, y, 0.004) for x, y in zip(places.tolist(), heights.tolist(), strict=True)]
        root, error = fit_border(samples, 3.0, 0.0)
        scores.append((root - 3.1) / error)
    assert abs(np.mean(scores)) < 0.2
    assert 0.8 < np.std(scores) < 1.2


@pytest.mark.parametrize("slope", [0.0, -0.2])
def test_no_clear_rise_has_no_root(slope: float) -> None:
    """A flat or falling curve has an infinite error."""
    samples = [Sample(x, slope * (x - 3), 0.004) for x in np.linspace(2.6, 3.4, 5).tolist()]
    assert fit_border(samples, 3.0, 0.0)[1] == math.inf


def test_root_beyond_reach_is_a_step_towards_it() -> None:
    """Where the samples end before the curve rises through 0 the next neighbourhood is named, without an error."""
    samples = [Sample(x, 0.2 * (x - 5), 0.001) for x in np.linspace(2.6, 3.4, 5).tolist()]
    assert fit_border(samples, 3.0, 0.0) == (pytest.approx(3 + REACH), math.inf)
