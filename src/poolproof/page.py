"""The one HTML page that reports are written on.

A page is a single file: its styles, charts and pictures are inside, it has no script, and its content policy
forbids the browser to fetch anything. Every value that a template prints passes through `visible`, then
through HTML escaping: names and metadata of strangers stay text.
"""

from __future__ import annotations

import base64
import io
import os
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageOps

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_PREVIEWED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


# --- text -----------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    r"""The text with every character that draws nothing, or redirects others, written as an escape.

    Controls, direction overrides, zero-width characters, private and unpaired surrogate code points
    become `\x1b`, `\u202e` and so on. What is left can be encoded and cannot reorder its surroundings.

    >>> print(visible("cat\u202egnp.exe"))
    cat\u202egnp.exe
    """
    return "".join(_escape(character) if _is_unseen(character) else character for character in text)


def _is_unseen(character: str) -> bool:
    if " " <= character <= "~":
        return False
    # Code points that end in FFFE or FFFF are no characters, and HTML forbids them.
    return unicodedata.category(character) in _UNSEEN or ord(character) & 0xFFFE == 0xFFFE


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shorten(text: str, limit: int = 64) -> str:
    """The visible text, cut in the middle to `limit` characters: both ends of a name tell something.

    >>> shorten("a" * 50 + ".png", 12)
    'aaaaaa…a.png'
    """
    text = visible(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def percent(share: float | int, *, sign: bool = True) -> str:
    """A share in [0, 1] as a percentage; 0 and 100 appear only where the share is exactly that.

    >>> percent(0.3021, sign=False), percent(0.99996, sign=False), percent(0, sign=False)
    ('30.2', '99.996', '0')
    """
    hundredfold = 100 * share
    if hundredfold in (0, 100):
        text = f"{hundredfold:.0f}"
    else:
        texts = [f"{hundredfold:.{places}f}" for places in range(1, 7)]
        text = next((text for text in texts if float(text) not in (0, 100)), texts[-1])
    return f"{text}\u00a0%" if sign else text


def number(value: float | int) -> str:
    """A measured value to three significant digits, a whole number in full.

    >>> number(0.91234), number(12), number(1234567)
    ('0.912', '12', '1,234,567')
    """
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- pictures -------------------------------------------------------------------------------------------


def thumbnail_uris(images: Sequence[bytes | None], *, side: int = 128) -> list[str | None]:
    """Small WebP copies of encoded images as `data:` addresses; None where no picture can be made.

    Args:
        images: encoded files, from anyone; None where there are no bytes.
        side: longest side of a copy, in pixels.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        # What decoders remark about strangers' files is not the reader's concern, a bomb is.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return list(threads.map(lambda encoded: _thumbnail_uri(encoded, side), images))


def _thumbnail_uri(encoded: bytes | None, side: int) -> str | None:
    if encoded is None:
        return None
    try:
        # Named formats only: Pillow hands some others, such as PostScript, to outside programs.
        with Image.open(io.BytesIO(encoded), formats=_PREVIEWED) as image:
            image.draft("RGB", (2 * side, 2 * side))
            picture = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I"):
                values = np.asarray(picture).astype(np.int64)
                values = values >> 8 if values.max(initial=0) > 255 else values
                picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, format="WEBP", quality=76, method=4)
    except Exception:
        # A decoder fed hostile bytes can raise anything; the page shows a placeholder instead.
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


# --- page -----------------------------------------------------------------------------------------------


def render_page(template: Path, **values: Any) -> bytes:
    """The page that a template makes of values, as UTF-8.

    The template extends `page.html`, which names the blocks. Besides jinja's own filters it has `counted`,
    `number`, `percent`, `shorten` and `visible`. A value it uses and does not get is an error.

    Args:
        template: a file, from the package of the report it belongs to.
        values: what the template uses; a string is text and is escaped, a `Markup` is put in as it is.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": counted,
        "number": number,
        "percent": percent,
        "shorten": shorten,
        "visible": visible,
    }
    return environment.get_template(template.name).render(**values).encode("utf-8", "replace")


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def write_page(page: bytes, path: Path) -> Path:
    """The path, after the page was put there in one step: a reader sees the old file or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(page)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
