"""Marked copies of images, written into a folder of their own."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.audit.images import EncodedImage
from poolproof.audit.pool import Unread
from poolproof.errors import InputError
from poolproof.files import replace_file, write_json
from poolproof.watermark.schemes import AbstractScheme

FORMATS: Final = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""Formats of marked copies, with their endings. WebP is written without loss."""

_MARKABLE_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"})
_SETTINGS: Final = "marked.json"


@final
@dataclass(frozen=True)
class MarkedCopy:
    """What became of one image.

    Attributes:
        key: of the image.
        status: `marked`, `kept` (marked by an earlier run), or as in an audit.
        path: of the copy, None where there is none.
        reason: why there is none.
    """

    key: str
    status: str
    path: Path | None = None
    reason: str | None = None


@final
@dataclass(frozen=True)
class Marker:
    """Writes marked copies. Originals are only read.

    Args:
        scheme: that marks.
        out: folder for the copies.
        form: one of `FORMATS`.
        quality: of JPEG, 1 to 100.
    """

    scheme: AbstractScheme
    out: Path
    form: str = "png"
    quality: int = 95
    _written: dict[Path, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def prepare(self, settings: dict[str, Any]) -> None:
        """Makes the folder, or checks that it holds copies marked alike; their settings are written beside them.

        Args:
            settings: what decides the copies' bytes. A secret is not among them, its digest is.

        Raises:
            InputError: the folder holds copies marked otherwise, or cannot be made.
        """
        import json

        file = self.out / _SETTINGS
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                if json.loads(file.read_text("utf-8")) != settings:
                    raise InputError(
                        f"--out: got {str(self.out)!r} with copies marked otherwise (see {_SETTINGS} there), "
                        "allowed an empty folder or the same settings; choose another folder"
                    )
                return
            write_json(file, settings)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(
                f"--out: got {str(self.out)!r} ({error}), allowed a folder that can be written; choose another"
            ) from error

    def mark(self, image: EncodedImage) -> MarkedCopy:
        """Writes the copy of one image. Never raises for an image's content.

        Alpha, the colour profile and EXIF are kept. A copy that is there already is kept as it is.
        """
        target = self.out / safe_name(image.key, FORMATS[self.form])
        first = self._written.setdefault(target, f"{image.position} {image.key}")
        if first != f"{image.position} {image.key}":
            reason = f"name: image {first} has the same name; mark them into two folders"
            return MarkedCopy(image.key, "unsupported", reason=reason)
        if target.is_file():
            return MarkedCopy(image.key, "kept", target)
        if isinstance(image.data, Unread):
            return MarkedCopy(image.key, image.data.status, reason=image.data.reason)
        decoded = decode_image(image.data)
        if decoded.pixels is None or decoded.header is None:
            return MarkedCopy(image.key, decoded.status, reason=decoded.reason)
        if decoded.header.mode not in _MARKABLE_MODES:
            reason = f"mode: {decoded.header.mode} would lose by the way through 8-bit RGB; convert it first"
            return MarkedCopy(image.key, "unsupported", reason=reason)
        if decoded.header.frames > 1:
            reason = "animation: only its first frame could be marked; take its frames apart first"
            return MarkedCopy(image.key, "unsupported", reason=reason)
        try:
            marked = self.scheme.embed(decoded.pixels)
        except InputError as error:
            return MarkedCopy(image.key, "unsupported", reason=f"mark: {error}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(target) as temporary:
            temporary.write_bytes(self._encode(marked, decoded.alpha, image.data))
        return MarkedCopy(image.key, "marked", target)

    def _encode(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        alpha: UInt8[np.ndarray, "h w"] | None,
        original: bytes,
    ) -> bytes:
        options: dict[str, Any] = {}
        with Image.open(io.BytesIO(original)) as source:
            options |= {name: source.info[name] for name in ("icc_profile", "exif") if source.info.get(name)}
            if source.mode in ("L", "LA", "1"):
                options.pop("icc_profile", None)  # of gray, wrong for three channels
        image = Image.fromarray(pixels)
        if alpha is not None and self.form != "jpeg":
            image.putalpha(Image.fromarray(alpha))
        if self.form == "jpeg":
            options |= {"quality": self.quality, "subsampling": 0}
        elif self.form == "webp":
            options |= {"lossless": True, "exact": True}
        buffer = io.BytesIO()
        image.save(buffer, self.form, **options)
        return buffer.getvalue()


def safe_name(key: str, ending: str) -> Path:
    """A relative path for a copy, from a key that a stranger may have chosen: no way leads out of its folder.

    Args:
        key: of the image.
        ending: of the copy, with its dot.
    """
    parts = [part for part in PurePosixPath(key.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    clean = [re.sub(r"[^\w.=+@ -]", "_", part)[:120].strip(" .") or "_" for part in parts] or ["_"]
    # two images of one stem must not share a copy, so another ending stays in the name
    last = clean[-1]
    stem = last[: -len(ending)] if last.lower().endswith(ending) and len(last) > len(ending) else last
    return Path(*clean[:-1], stem + ending)
