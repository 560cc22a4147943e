"""Tests of metadata as numbers and words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from file_metadata import file_metadata

from poolproof.detectors.metadata import (
    check_columns,
    item_facts,
    join_columns,
    metadata_features,
    percent,
    quality_bands,
    size_bands,
    take_columns,
)
from poolproof.errors import InputError

TWO = {
    "format": ["JPEG", "PNG"],
    "mode": ["RGB", "L"],
    "width": [640, 512],
    "height": [481, 512],
    "quality": [90, None],
    "subsampling": ["4:2:0", None],
    "n_bytes": [64100, 262144],
    "has_exif": [True, False],
    "blockiness": [0.3, 0.0],
}


def test_each_fact_becomes_named_columns() -> None:
    """Words are columns of their own, sizes are logarithms, a missing quality is 0, bytes per pixel are apart."""
    found = metadata_features(TWO)
    by_name = dict(zip(found.names, found.values.T.tolist(), strict=True))
    assert by_name["format JPEG"] == [1, 0]
    assert by_name["mode L"] == [0, 1]
    assert by_name["subsampling none"] == [0, 1]
    assert by_name["quality"] == [90, 0]
    assert by_name["log width"] == [math.log2(640), 9]
    assert by_name["log aspect"][1] == 0
    assert by_name["sides are multiples of 64"] == [0, 1]
    assert by_name["has EXIF"] == [1, 0]
    assert set(found.facts) == {"format", "mode", "size", "multiples", "quality", "subsampling", "exif"}
    assert found.content_names == ("log bytes per pixel", "blockiness")
    np.testing.assert_allclose(found.content, [[math.log2(64100 / (640 * 481)), 0.3], [0, 0]])
    assert not any("bytes" in name for name in found.names)


def test_each_fact_is_put_in_words() -> None:
    """Facts read as parts of a sentence."""
    facts = item_facts(TWO)
    assert facts["size"] == ["640 x 481", "512 x 512"]
    assert facts["multiples"] == ["with sides in no multiples of 8", "with sides in multiples of 64"]
    assert facts["quality"] == ["with quality 90 to 94", "with no quality on record"]
    assert facts["exif"] == ["with EXIF", "without EXIF"]


def test_bands() -> None:
    """Round sizes lie in the middle of their bands, and bands of quality have whole ends."""
    sides = np.array([[512, 512], [480, 520], [1024, 256], [256, 256]], float)
    assert size_bands(sides[:, 0], sides[:, 1]) == [18, 18, 18, 16]
    ends = np.array([1, 49, 50, 69, 70, 79, 80, 89, 90, 94, 95, 100, math.nan])
    bands = ["1 to 49", "50 to 69", "70 to 79", "80 to 89", "90 to 94", "95 to 100"]
    expected = [f"quality {band}" for band in bands for _ in range(2)]
    assert quality_bands(ends) == [*expected, "no quality on record"]


def test_percent_never_rounds_to_all_or_nothing() -> None:
    """Only nothing is 0 % and only all is 100 %."""
    assert [percent(x) for x in (0.0, 0.001, 0.5, 0.999, 1.0)] == [
        "0 %",
        "under 1 %",
        "50 %",
        "over 99 %",
        "100 %",
    ]


def test_sets_are_joined_and_cut() -> None:
    """Joined sets keep the columns that both have, in order; rows can be taken."""
    rng = np.random.default_rng(1)
    other = file_metadata(rng, 3)
    joined = join_columns(TWO, other)
    assert check_columns("joined", joined) == 5
    assert "has_exif" not in joined
    assert joined["width"] == [640, 512, *other["width"]]
    assert take_columns(joined, np.array([1, 4]))["width"] == [512, other["width"][2]]


def test_bad_columns_are_named() -> None:
    """A missing column, unequal lengths, no items and broken sizes are refused."""
    with pytest.raises(InputError, match=r"^columns: got columns .*: add mode"):
        metadata_features({key: value for key, value in TWO.items() if key != "mode"})
    with pytest.raises(InputError, match=r"^columns: got lengths .*quality 1"):
        metadata_features({**TWO, "quality": [1]})
    with pytest.raises(InputError, match=r"^columns: got lengths"):
        metadata_features({key: [] for key in TWO})
    for broken in (None, 0, math.nan, -3):
        with pytest.raises(InputError, match=r"^columns: got a width"):
            metadata_features({**TWO, "width": [broken, 5]})
