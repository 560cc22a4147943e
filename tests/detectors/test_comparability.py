"""Tests of whether references are made of the pool's kinds of file."""

from __future__ import annotations

import numpy as np
import pytest
from file_metadata import file_metadata

from poolproof.detectors.comparability import comparable
from poolproof.errors import InputError


def test_alike_sets_are_comparable() -> None:
    """Sets of one origin share their kinds of file, and one sentence says so."""
    rng = np.random.default_rng(1)
    found = comparable(*(file_metadata(rng, n) for n in (300, 300, 2000)))
    assert found.verdict == "comparable"
    assert found.real is not None
    assert found.real.share_in_pool == 1.0
    assert found.real.overlap > 0.8
    assert found.pool_unmatched < 0.1
    assert found.words == ("References and pool consist of the same kinds of file.",)


def test_a_foreign_reference_is_named() -> None:
    """A reference of small JPEGs says nothing of a pool of large PNGs; the sentence gives the numbers."""
    rng = np.random.default_rng(2)
    small = file_metadata(rng, 90, sides=[256], qualities=[75])
    some = file_metadata(rng, 10, formats=["PNG"], sides=[1024])
    real = {name: small[name] + some[name] for name in small}
    pool = file_metadata(rng, 500, formats=["PNG"], sides=[1024])
    found = comparable(real, pool, pool)
    assert found.real is not None
    assert found.synthetic is not None
    assert (found.real.share_in_pool, found.real.overlap) == (0.1, 0.1)
    assert (found.real.verdict, found.synthetic.verdict) == ("incomparable", "comparable")
    assert found.verdict == "incomparable"
    assert found.pool_unmatched == 0
    expected = "90 % of the real reference are JPEG with quality 70 to 79 of 256 x 256; 0 % of the pool are."
    assert found.words[0] == expected
    assert found.words[1] == "The pool holds the kinds of file of 10 % of the real reference."


def test_a_pool_of_files_that_nobody_knows_is_named() -> None:
    """What neither reference holds is a share of the pool, and partly so is a verdict of its own."""
    rng = np.random.default_rng(3)
    reference = file_metadata(rng, 100, sides=[512], qualities=[90])
    strange = file_metadata(rng, 30, formats=["WEBP"], sides=range(900, 1100))
    pool = {name: reference[name][:70] + strange[name] for name in reference}
    found = comparable(reference, None, pool)
    assert found.synthetic is None
    assert (found.verdict, found.pool_unmatched) == ("partly", 0.3)
    assert found.words[0] == "30 % of the pool are kinds of file that the real reference does not hold."
    assert "WEBP of about 1024 pixels a side; 0 % of the references are." in found.words[1]


def test_one_stray_file_does_not_make_a_kind() -> None:
    """A kind of file that one pool item in many has does not count as occurring."""
    rng = np.random.default_rng(4)
    reference = file_metadata(rng, 50, sides=[256], qualities=[90])
    pool = file_metadata(rng, 2000, sides=[1024], qualities=[90])
    pool["width"][0] = pool["height"][0] = 256
    found = comparable(None, reference, pool)
    assert found.synthetic is not None
    assert found.synthetic.share_in_pool == 0
    assert "under 1 % of the pool are." in found.words[0]


def test_bad_input_is_named() -> None:
    """No reference, and broken columns, are refused."""
    some = file_metadata(np.random.default_rng(5), 20)
    with pytest.raises(InputError, match=r"^real, synthetic: got neither"):
        comparable(None, None, some)
    with pytest.raises(InputError, match=r"^pool: got lengths"):
        comparable(some, None, {**some, "width": [1]})
