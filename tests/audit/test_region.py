"""Regions that a pool is held in: borders by simulation and by the closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from poolproof.audit.region import MANY, GaussianRegion, RatioRegion
from poolproof.simulate.admissible import effective_sample_size
from poolproof.simulate.theory import phase_line


def test_ratio_border_is_set_by_the_fewest_real_images() -> None:
    """A ratio of a third allows 30 synthetic images beside 90 to 200 real ones, and a share of 0.25 fits it exactly."""
    region = RatioRegion(1 / 3)
    assert region.border(90, 200) == pytest.approx(30)
    assert region.holds(120, 0, 30)
    assert not region.holds(120, 0, 31)


def test_unbiased_samples_are_inside_in_any_number() -> None:
    """At a sampling bias of 1 there is no border, however few real images."""
    assert GaussianRegion((1.0,)).border(5, 10) == math.inf
    assert GaussianRegion((1.0,)).verdict(100, 0, 90) == "admissible"


@pytest.mark.theory
def test_border_of_many_real_images_is_the_phase_line() -> None:
    """With a million real images the border is that of the limit, within 2 %."""
    border = GaussianRegion((0.7,), dim=20).border(10**6, 10**6)
    assert border == pytest.approx(phase_line(0.7, dim=20), rel=0.02)


@pytest.mark.slow
@pytest.mark.theory
def test_border_is_on_the_safe_side_of_the_simulated_one(tmp_path: Path) -> None:
    """Between two places the border is at most where n_e / n_real is 1, and at it the ratio is not below 1."""
    region = GaussianRegion((0.5,), dim=8, cache=tmp_path)
    border = region.border(60, 70)
    found = effective_sample_size(
        65, math.floor(border), 0.5, dim=8, tolerance=0.01, rng=np.random.default_rng(0)
    )
    assert found.ratio >= 1 - 2 * found.ratio_stderr
    assert any(tmp_path.rglob("*.json"))


@pytest.mark.slow
@pytest.mark.theory
def test_border_does_not_jump_where_the_closed_form_takes_over(tmp_path: Path) -> None:
    """On both sides of the change the borders agree within 8 %: steps, errors and the closed form together."""
    region = GaussianRegion((0.5,), dim=20, cache=tmp_path)
    many = MANY * 20
    below, above = region.border(many - 20, many - 10), region.border(many + 10, many + 20)
    assert below == pytest.approx(above, rel=0.08)


def test_a_range_of_biases_counts_by_its_worst(tmp_path: Path) -> None:
    """The border of a range is the lowest of its biases."""
    ends = [GaussianRegion((bias,), dim=4, cache=tmp_path).border(500, 500) for bias in (0.3, 0.9)]
    assert GaussianRegion((0.9, 0.3), dim=4, cache=tmp_path).border(500, 500) == min(ends)
