"""Tests of the detector that knows real references alone: disjoint counts and a bound that holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from jaxtyping import Float64

from poolproof.detectors.neighbours import real_distance
from poolproof.detectors.prevalence import lower_bound
from poolproof.detectors.realonly import real_only
from poolproof.errors import InputError, UnreliableEstimate

D = 8


def draw(rng: np.random.Generator, n: int, shift: float) -> Float64[np.ndarray, "n d"]:
    """Return n normal items whose features are all moved by `shift`."""
    return rng.normal(size=(n, D)) + shift


def pool(rng: np.random.Generator, n: int, share: float, shift: float) -> Float64[np.ndarray, "n d"]:
    """Return n items of which each is synthetic with probability `share`."""
    synthetic = rng.random(n) < share
    return draw(rng, n, 0.0) + shift * synthetic[:, None]


def test_real_only_counts_on_references_outside_its_bank() -> None:
    """The bank holds 60 %, the counts are those of the others, and the score is the distance to the bank."""
    rng = np.random.default_rng(9)
    real = draw(rng, 100, 0.0)
    fit = real_only(real, rng=rng)
    assert (len(fit.bank), fit.n) == (60, 40)
    known = {row.tobytes() for row in fit.bank}
    scaled = fit.scaling.apply(real)
    held_out = np.array([row for row, s in zip(real, scaled, strict=True) if s.tobytes() not in known])
    scores = fit.score(held_out)
    np.testing.assert_array_equal(np.sort(scores), np.sort(fit.held_out_scores))
    assert fit.false_positives == int((scores > fit.threshold).sum())
    np.testing.assert_array_equal(scores, real_distance(fit.scaling.apply(held_out), fit.bank))
    own = real_distance(fit.bank, fit.bank, same=True)
    assert (own > fit.threshold).mean() <= 0.05


def test_bad_input_is_named() -> None:
    """Too few references, too large a k and NaN are refused."""
    rng = np.random.default_rng(8)
    real = draw(rng, 20, 0.0)
    with pytest.raises(UnreliableEstimate, match="got 9 references, allowed 10 or more"):
        real_only(real[:9], rng=rng)
    with pytest.raises(InputError, match=r"^k: "):
        real_only(real, k=12, rng=rng)
    with pytest.raises(InputError, match=r"^real: .*NaN"):
        real_only(real * np.nan, rng=rng)


@pytest.mark.coverage
@pytest.mark.parametrize("shift", [0.3, 1.2])
def test_the_bound_holds_for_a_generator_nobody_knows(shift: float) -> None:
    """Real references alone bound a share of 0.2 from below, for a generator near to real and for one far off."""
    rng, share, repetitions, above, bounds = np.random.default_rng(13), 0.2, 40, 0, []
    for _ in range(repetitions):
        fit = real_only(draw(rng, 300, 0.0), rng=rng)
        flagged = int((fit.score(pool(rng, 1000, share, shift)) > fit.threshold).sum())
        bounds.append(lower_bound(flagged, 1000, fit.false_positives, fit.n).lower)
        above += bounds[-1] > share
    assert above / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    if shift > 1:
        assert np.mean(bounds) > 0.05
