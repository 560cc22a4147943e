"""Properties and packets of XMP, against an XML parser and in forms that no parser takes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import packet

from poolproof.detectors.exif import MAX_TEXT
from poolproof.detectors.xmp import find_packet, read_properties

LETTERS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=40)


@pytest.mark.reference
@settings(max_examples=200, deadline=None)
@given(value=LETTERS, form=st.sampled_from(["attribute", "element"]))
def test_values_equal_those_of_a_parser(value: str, form: str) -> None:
    """A value that an XML writer put into an attribute or an element comes back as an XML parser reads it."""
    name = "{http://ns.adobe.com/photoshop/1.0/}Credit"
    description = ElementTree.Element("description")
    if form == "attribute":
        description.set(name, value)
    else:
        ElementTree.SubElement(description, name).text = value
    text = ElementTree.tostring(description, "unicode")
    parsed = ElementTree.fromstring(text)
    expected = parsed.get(name) if form == "attribute" else parsed.findtext(name)
    assert expected == value
    assert read_properties(text, ["Credit"]) == (("Credit", value),)


@pytest.mark.parametrize(
    ("xmp", "expected"),
    [
        ("<a:P>one</a:P><b:P>two</b:P>", ["one", "two"]),
        ("<P>one</P>", ["one"]),
        (' P = "one" ', ["one"]),
        ("<a:P>one", ["one"]),
        ("<a:P", []),
        ("<a:P/>", []),
        ("<a:NotP>one</a:NotP>", []),
        ("<a:Pp>one</a:Pp>", []),
        (" a:P='one", ["one"]),
        ('<a:P><rdf:Alt><rdf:li xml:lang="x-default">one</rdf:li></rdf:Alt></a:P>', ["one"]),
        ("<a:P>&lt;&#111;ne&amp;</a:P>", ["<one&"]),
    ],
)
def test_forms_of_a_property(xmp: str, expected: list[str]) -> None:
    """Any prefix, any quotes, lists and cut packets are read; other names are not."""
    assert [value for _, value in read_properties(xmp, ["P"])] == expected


def test_packets_are_found_and_cut() -> None:
    """A packet is cut at its end, or at the limit where it has none; bytes without one give nothing."""
    body = packet("").encode()
    found, cut = find_packet(b"noise" + body + b"noise")
    assert (found.startswith(b"<x:xmpmeta"), found.endswith(b"</rdf:RDF>"), cut) == (True, True, False)
    endless, cut = find_packet(b"<x:xmpmeta>" + b"a" * (MAX_TEXT + 100))
    assert (len(endless), cut) == (MAX_TEXT, True)
    assert find_packet(b"a:xmpmeta") == (b"", False)
    assert find_packet(b"") == (b"", False)
