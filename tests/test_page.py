"""The page: text made safe, small pictures, a template that cannot let a stranger's text act."""

from __future__ import annotations

import base64
import doctest
import io
import re
import struct
import unicodedata
import warnings
from pathlib import Path

import jinja2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image, ImageSequence

import poolproof.page
from poolproof.page import percent, render_page, shorten, thumbnail_uris, visible, write_page

any_text = st.text(st.characters(codec=None), max_size=60)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    """The image as a file of the given format."""
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def decode(uri: str | None) -> Image.Image:
    """The picture in a `data:` address."""
    assert uri is not None
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)), formats=("WEBP",))


def gradient(width: int, height: int) -> Image.Image:
    """An image whose colours tell the place."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    outcome = doctest.testmod(poolproof.page)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.property
@settings(deadline=None)
@given(any_text)
@example("\ud800 \u202e \u2066 \u200b \ufeff \x00 \x1b \u2028 \ue000 \ufffe \U0001ffff \u061c")
def test_visible_leaves_nothing_unseen(text: str) -> None:
    """No control, format, surrogate, private or line-separating character is left; the rest is unchanged."""
    shown = visible(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    shown.encode("utf-8")
    assert visible(shown) == shown
    kept = [c for c in text if unicodedata.category(c)[0] in "LMNPS"]
    assert [c for c in kept if c not in shown] == []


@pytest.mark.property
@settings(deadline=None)
@given(any_text, st.integers(3, 40))
def test_shorten_keeps_both_ends(text: str, limit: int) -> None:
    """The text fits the limit, and where it was cut, begins and ends as the whole does."""
    short = shorten(text, limit)
    assert len(short) <= limit
    if len(visible(text)) > limit:
        head, tail = short.split("…", 1)[0], short.rsplit("…", 1)[1]
        assert visible(text).startswith(head)
        assert visible(text).endswith(tail)


@pytest.mark.property
@settings(deadline=None)
@given(st.floats(0, 1))
@example(1e-5)
@example(1 - 1e-5)
def test_percent_never_rounds_to_certainty(share: float) -> None:
    """0 % and 100 % stand for nothing but 0 and 1, down to a millionth of a per cent."""
    text = percent(share, sign=False)
    assert abs(float(text) - 100 * share) <= 0.0501
    if 1e-8 < share < 1 - 1e-8:
        assert float(text) not in (0.0, 100.0)


@pytest.mark.parametrize(
    ("encoded", "size"),
    [
        (encode(gradient(400, 200), "JPEG"), (128, 64)),
        (encode(gradient(200, 400), "PNG"), (64, 128)),
        (encode(gradient(60, 40), "PNG"), (60, 40)),
        (encode(gradient(300, 300).convert("CMYK"), "JPEG"), (128, 128)),
        (encode(gradient(300, 300).convert("P"), "PNG", transparency=3), (128, 128)),
        (encode(gradient(300, 300).convert("LA"), "PNG"), (128, 128)),
        (encode(gradient(300, 300).convert("1"), "TIFF"), (128, 128)),
        (encode(gradient(300, 300), "GIF", save_all=True, append_images=[gradient(300, 300)]), (128, 128)),
    ],
    ids=["jpeg", "png", "small", "cmyk", "palette", "gray-alpha", "bilevel", "animated"],
)
def test_thumbnails_of_all_modes(encoded: bytes, size: tuple[int, int]) -> None:
    """Every mode gives a still WebP whose longest side is at most 128 and whose shape is the image's."""
    image = decode(thumbnail_uris([encoded])[0])
    assert image.size == size
    assert len(list(ImageSequence.Iterator(image))) == 1


def test_thumbnail_shows_the_image() -> None:
    """The small copy has the image's colours, turned upright as its EXIF orientation asks."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored top is the right side
    upright, turned = thumbnail_uris(
        [encode(gradient(256, 256), "PNG"), encode(gradient(256, 256), "JPEG", quality=95, exif=exif)]
    )
    expected = np.asarray(gradient(256, 256).resize((128, 128)), dtype=np.float64)
    assert np.abs(np.asarray(decode(upright).convert("RGB")) - expected).mean() < 5
    assert np.abs(np.asarray(decode(turned).convert("RGB")) - np.rot90(expected, -1)).mean() < 5


def test_thumbnail_of_sixteen_bits_is_not_clipped() -> None:
    """A 16-bit ramp stays a ramp: its high byte is shown."""
    ramp = np.tile(np.linspace(0, 65535, 128), (128, 1)).astype(np.uint16)
    shown = np.asarray(decode(thumbnail_uris([encode(Image.fromarray(ramp), "PNG")])[0]).convert("L"))
    assert np.abs(shown.mean(axis=0) - np.linspace(0, 255, 128)).max() < 12


@pytest.mark.parametrize(
    "encoded",
    [
        None,
        b"",
        b"<!doctype html><p>404",
        encode(gradient(300, 300), "JPEG")[:400],
        encode(gradient(300, 300), "PNG")[:400],
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 40,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        b"8BPS" + struct.pack(">HIHHIIHH", 1, 0, 0, 3, 8, 8, 8, 3),
    ],
    ids=["none", "empty", "html", "cut-jpeg", "cut-png", "bad-png", "postscript", "psd"],
)
def test_no_thumbnail_of_what_is_no_image(encoded: bytes | None) -> None:
    """Damage, other file types and absent bytes give None, and the images beside them are unharmed."""
    good = encode(gradient(64, 64), "PNG")
    first, none, last = thumbnail_uris([good, encoded, good])
    assert none is None
    assert first == last is not None


def test_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image beyond Pillow's limit gives None and no warning."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert thumbnail_uris([encode(gradient(40, 40), "PNG")]) == [None]
    assert not caught


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A page that prints one value in an attribute and in its text."""
    path = tmp_path / "note.html"
    block = '{% block main %}<p title="{{ text }}">{{ text }}</p>{% endblock %}'
    path.write_text('{% extends "page.html" %}' + block)
    return path


@pytest.mark.property
def test_printed_values_are_made_safe(template: Path) -> None:
    """Markup, quotes, template syntax, overrides and lone surrogates come out as visible text."""
    page = render_page(template, text="\"'><script>{{ 7*7 }}</script>\u202e\udc80\x00").decode("utf-8")
    safe = "&#34;&#39;&gt;&lt;script&gt;{{ 7*7 }}&lt;/script&gt;\\u202e\\udc80\\x00"
    assert f'<p title="{safe}">{safe}</p>' in page


def test_markup_is_put_in_as_it_is(template: Path) -> None:
    """A value marked as HTML, such as a chart, is not escaped."""
    assert b"<b>bold</b></p>" in render_page(template, text=Markup("<b>bold</b>"))


def test_lone_surrogates_in_markup_do_not_stop_the_write(template: Path) -> None:
    """Even where `visible` does not look, the page can be encoded."""
    assert b"<b>?</b></p>" in render_page(template, text=Markup("<b>\udc80</b>"))


def test_forgotten_value_is_an_error(template: Path) -> None:
    """A template that gets no value for a name fails, so that no report has silent gaps."""
    with pytest.raises(jinja2.UndefinedError):
        render_page(template)


def test_page_may_fetch_and_run_nothing(template: Path) -> None:
    """The policy forbids everything but inline styles and data: pictures; no address occurs in the page."""
    page = render_page(template, text="").decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    assert "script" not in policy[1]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    assert '<link rel="icon" href="data:,">' in page


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.reference
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme: int) -> None:
    """Text has WCAG's contrast of 4.5 on every ground it stands on, chart colours 3."""
    style = Path(poolproof.page.__file__).with_name("page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))

    def contrast(one: str, other: str) -> float:
        pale, dark = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (pale + 0.05) / (dark + 0.05)

    for ground in ("paper", "surface", "shade"):
        assert contrast("ink", ground) >= 7
        assert contrast("muted", ground) >= 4.5
    for graphic in ("pool", "real", "synthetic"):
        assert contrast(graphic, "surface") >= 3
        assert contrast(graphic, "paper") >= 3


def test_write_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old page and no scrap; one that ends well leaves the new page alone."""
    path = tmp_path / "report.html"
    assert write_page(b"old", path) == path

    def refuse(source: object, target: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(OSError, match="disk"):
            write_page(b"new", path)
    assert path.read_bytes() == b"old"
    write_page(b"new", path)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
