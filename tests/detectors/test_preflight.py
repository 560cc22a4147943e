"""Tests of confounding: files that give the classes away are named, and alike ones are cleared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from file_metadata import file_metadata

from poolproof.detectors.preflight import BOUND, confounding
from poolproof.errors import InputError, UnreliableEstimate


def test_jpeg_against_png_is_confounded_and_said_so() -> None:
    """The classic trap: the area is 1, the format is among the most telling facts, and a sentence says it."""
    rng = np.random.default_rng(1)
    real = file_metadata(rng, 100)
    synthetic = file_metadata(rng, 80, formats=["PNG"], sides=[1024])
    found = confounding(real, synthetic, rng=rng)
    assert found.verdict == "confounded"
    assert found.auc.point == 1.0
    assert {"format", "size", "multiples", "quality", "subsampling"} == {fact.name for fact in found.facts}
    words = {fact.name: fact.words for fact in found.facts}
    assert words["format"] == "0 % of the real reference are PNG, 100 % of the synthetic reference."
    assert words["size"] == "0 % of the real reference are 1024 x 1024, 100 % of the synthetic reference."
    assert "no evidence" in found.words[-1]


def test_a_single_fact_is_enough() -> None:
    """Same format and sizes, another quality: that fact alone is named."""
    rng = np.random.default_rng(2)
    real, synthetic = file_metadata(rng, 200, qualities=[90]), file_metadata(rng, 200, qualities=[75, 90])
    found = confounding(real, synthetic, names=("real reference", "pool"), rng=rng)
    assert found.verdict == "confounded"
    assert found.facts[0].name == "quality"
    assert found.facts[0].words.startswith("0 % of the real reference are with quality 70 to 79, 4")
    assert found.facts[0].words.endswith("of the pool.")


def test_sizes_that_differ_in_the_middle_are_told_by_medians() -> None:
    """No single size stands out, so the sentence compares medians."""
    rng = np.random.default_rng(3)
    found = confounding(
        file_metadata(rng, 150, sides=range(200, 500)),
        file_metadata(rng, 150, sides=range(400, 900)),
        rng=rng,
    )
    assert found.facts[0].words.startswith("The median side is ")


def test_bytes_per_pixel_do_not_decide() -> None:
    """What the picture has a say in is reported apart and changes no verdict."""
    rng = np.random.default_rng(4)
    real, synthetic = file_metadata(rng, 300), file_metadata(rng, 300)
    synthetic["n_bytes"] = [10 * n for n in synthetic["n_bytes"]]
    found = confounding(real, synthetic, rng=rng)
    assert found.verdict == "clean"
    assert found.auc_with_content.lower > 0.95
    assert found.facts == ()


def test_equal_files_score_exactly_one_half() -> None:
    """Where all files are alike nothing can be told, whatever the sizes of the sets."""
    rng = np.random.default_rng(5)
    sets = [file_metadata(rng, n, sides=[512], qualities=[90]) for n in (157, 93)]
    found = confounding(sets[0], sets[1], rng=rng)
    assert found.auc.point == 0.5
    assert found.verdict == "clean"


@pytest.mark.coverage
def test_sets_of_one_origin_are_hardly_ever_called_confounded() -> None:
    """Alike sets are never called confounded by more than chance, and few items leave the question open."""
    rng, called, repetitions = np.random.default_rng(6), [], 8
    for _ in range(repetitions):
        called.append(confounding(file_metadata(rng, 300), file_metadata(rng, 300), rng=rng).verdict)
    assert called.count("confounded") == 0
    assert called.count("clean") >= repetitions - 1
    few = confounding(file_metadata(rng, 15), file_metadata(rng, 15), rng=rng)
    assert few.verdict == "undecided"


def test_the_same_seed_gives_the_same_findings() -> None:
    """Equal generators give equal findings, also where large sets are drawn from."""
    rng = np.random.default_rng(7)
    real, synthetic = file_metadata(rng, 2600), file_metadata(rng, 40, sides=range(500, 1000))
    first, second = (confounding(real, synthetic, rng=np.random.default_rng(1)) for _ in range(2))
    assert first == second


@pytest.mark.theory
def test_an_area_can_be_read_as_a_gap_of_rates() -> None:
    """At one threshold an area of A is a gap of 2 A - 1 between the rates, the reason given for the bound."""
    rng = np.random.default_rng(8)
    flags = np.where(np.arange(400) < 200, np.arange(400) < 70, np.arange(400) < 230)  # rates .35 and .15
    sets = [
        file_metadata(rng, 200, sides=[512], qualities=[90]),
        file_metadata(rng, 200, sides=[512], qualities=[90]),
    ]
    for i, columns in enumerate(sets):
        columns["has_exif"] = flags[200 * i : 200 * (i + 1)].tolist()
    found = confounding(sets[0], sets[1], rng=rng)
    assert found.auc.point is not None
    assert found.auc.point == pytest.approx(BOUND, abs=0.02)
    assert (
        found.facts[0].words == "35 % of the real reference are with EXIF, 15 % of the synthetic reference."
    )
    assert math.isclose(2 * BOUND - 1, 0.2, abs_tol=1e-12)


def test_bad_input_is_named() -> None:
    """Too few items and missing columns are refused under the set's name."""
    rng = np.random.default_rng(9)
    some = file_metadata(rng, 30)
    with pytest.raises(UnreliableEstimate, match=r"^pool: got 9 items, allowed 10 or more"):
        confounding(some, file_metadata(rng, 9), names=("real reference", "pool"), rng=rng)
    with pytest.raises(InputError, match=r"^real reference: got columns"):
        confounding({"format": ["JPEG"]}, some, rng=rng)
