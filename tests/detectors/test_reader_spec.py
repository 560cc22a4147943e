"""Specs of readers: what may be written, and the one way in which it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.detectors.reader_spec import PRESETS, ReaderSpec, parse_reader
from poolproof.errors import InputError


@pytest.mark.parametrize(
    ("spec", "written"),
    [
        ("clip:ViT-B-32/openai", "clip:ViT-B-32/openai"),
        ("clip:ViT-L-14/openai@crop,raw", "clip:ViT-L-14/openai@raw,crop"),
        ("timm:m.tag//data/w.pt@224px,squash,bilinear", "timm:m.tag//data/w.pt@squash,bilinear,224px"),
        ("rigid:clip:a/b", "rigid:clip:a/b"),
        ("rigid:timm:a/b@4draws,96px", "rigid:timm:a/b@96px,4draws"),
        ("rigid:timm:a/b@1draws", "rigid:timm:a/b"),
        ("rigid:univfd", f"rigid:{PRESETS['univfd']}"),
        ("clip:m/home@x/w.pt", "clip:m/home@x/w.pt"),
        ("clip:m/w@v2.pt", "clip:m/w@v2.pt"),
        ("clip:m/home@x/w@v2.pt@raw", "clip:m/home@x/w@v2.pt@raw"),
        *((name, spec) for name, spec in PRESETS.items()),
    ],
)
def test_specs_are_written_in_one_way(spec: str, written: str) -> None:
    """Options come in one order, presets are spelled out, and what is written reads the same again."""
    reader = parse_reader(spec)
    assert str(reader) == written
    assert parse_reader(written) == reader


def test_the_presets_are_the_published_readers() -> None:
    """UnivFD crops without resizing and does not normalise; ClipDet takes unit vectors before the projection."""
    univfd, clipdet, rigid = (parse_reader(name) for name in ("univfd", "clipdet", "rigid"))
    assert univfd == ReaderSpec("clip", "ViT-L-14", "openai", unit=False, fit="crop")
    assert (clipdet.penultimate, clipdet.unit, clipdet.fit, clipdet.side) == (True, True, "resize", 224)
    assert (rigid.draws, rigid.fit, rigid.filter, rigid.side) == (1, "squash", "bilinear", 224)
    assert rigid.backbone.draws == 0


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(
    st.builds(
        ReaderSpec,
        st.just("clip"),
        st.sampled_from(["ViT-B-32", "a.b"]),
        st.sampled_from(["openai", "/x/y.pt", "me@home/w.pt", "w@2.pt"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["", "crop", "resize", "squash"]),
        st.sampled_from(["", "bilinear", "bicubic"]),
        st.sampled_from([None, 1, 224]),
        st.sampled_from([0, 1, 5]),
    )
)
def test_every_reader_can_be_written_and_read(reader: ReaderSpec) -> None:
    """Writing and reading give the same parts."""
    assert parse_reader(str(reader)) == reader


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("", "clip:MODEL/WEIGHTS"),
        ("forensic", "clip:MODEL/WEIGHTS"),
        ("rigid:", "clip:MODEL/WEIGHTS"),
        ("rigid:forensic", "clip:MODEL/WEIGHTS"),
        ("rigid:rigid:clip:a/b", "clip:MODEL/WEIGHTS"),
        ("rigid:rigid", "clip:MODEL/WEIGHTS"),
        ("clip:a/@raw", "clip:MODEL/WEIGHTS"),
        ("clip:a/b@", "option ''"),
        ("clip:a/b@raw,", "option ''"),
        ("clip:a/b@RAW", "option 'RAW'"),
        ("clip:a/b@0px", "option '0px'"),
        ("clip:a/b@99999px", "option '99999px'"),
        ("clip:a/b@2draws", "option '2draws'"),
        ("timm:a/b@penultimate", "option 'penultimate'"),
        ("clip:a/b@crop,squash", "two options for fit"),
        ("clip:a/b@raw,raw", "two options for unit"),
        ("rigid:clip:a/b@2draws,3draws", "two options for draws"),
    ],
)
def test_other_forms_are_refused_in_one_line(spec: str, match: str) -> None:
    """Unknown forms and options, and two that exclude each other, name what is allowed."""
    with pytest.raises(InputError, match=match) as caught:
        parse_reader(spec)
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)
