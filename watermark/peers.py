"""Other packages' marks under our interface, for comparison. They are no dependencies: install them to use this."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
from jaxtyping import UInt8

from poolproof.errors import InputError, MissingExtra
from poolproof.watermark.dwt import MIN_PIXELS
from poolproof.watermark.schemes import AbstractScheme, Reading

PEERS: Final = ("invisible-watermark:dwtDct", "invisible-watermark:dwtDctSvd", "blind-watermark")
"""The names that `load_peer` knows."""


def load_peer(name: str, bits: Sequence[int]) -> AbstractScheme:
    """Another package's scheme.

    Args:
        name: one of `PEERS`.
        bits: payload.

    Raises:
        MissingExtra: the package is not installed.
        InputError: an unknown name, or no payload.
    """
    if name not in PEERS:
        raise InputError(f"scheme: got {name!r}, allowed {', '.join(PEERS)}; choose one")
    if not bits or not set(bits) <= {0, 1}:  # the packages would take anything, and fail later
        raise InputError(
            f"payload: got {bits!r}, allowed one or more of 0 and 1; give them as a sequence of ints"
        )
    package, _, method = name.partition(":")
    try:
        return InvisibleWatermark(method, bits) if method else BlindWatermark(bits)
    except ImportError as error:
        raise MissingExtra(package, "peers") from error


def matches_pvalue(read: Sequence[int], bits: Sequence[int]) -> float:
    """The chance that fair coins match at least as many bits: what users of bare decoders compute.

    It is no valid p-value on photographs, whose bits are not fair; see `significance.py`.
    """
    from scipy.stats import binom

    matched = int(np.sum(np.asarray(read) == np.asarray(bits)))
    return float(binom.sf(matched - 1, len(bits), 0.5))


@final
class InvisibleWatermark(AbstractScheme):
    """The invisible-watermark package on bytes in its own channel order.

    Args:
        method: `dwtDct` or `dwtDctSvd`.
        bits: payload.
    """

    def __init__(self, method: str, bits: Sequence[int]) -> None:
        from imwatermark import WatermarkDecoder, WatermarkEncoder

        self.name, self.bits, self.method = f"invisible-watermark {method}", tuple(bits), method
        self._encoder: Any = WatermarkEncoder()
        self._encoder.set_watermark("bits", list(self.bits))
        self._decoder = WatermarkDecoder("bits", len(self.bits))

    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A marked copy."""
        _check_size(pixels, self._fits(pixels))
        marked = self._encoder.encode(np.ascontiguousarray(pixels[:, :, ::-1]), self.method)
        return np.ascontiguousarray(marked[:, :, ::-1])

    def read(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """The bits that it decodes, and their matches."""
        if not self._fits(pixels):
            return Reading(1.0, None)
        bits = self._decoder.decode(np.ascontiguousarray(pixels[:, :, ::-1]), self.method)
        read = tuple(int(bit) for bit in bits)
        return Reading(matches_pvalue(read, self.bits), read)

    def _fits(self, pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Whether the package takes the image, and each bit has a block."""
        height, width, _ = pixels.shape
        return height * width >= MIN_PIXELS and (height // 8) * (width // 8) >= len(self.bits)


@final
class BlindWatermark(AbstractScheme):
    """The blind-watermark package with its default passwords.

    Args:
        bits: payload.
    """

    def __init__(self, bits: Sequence[int]) -> None:
        import multiprocessing

        # the package chooses how processes start while it is imported, and fails where that was chosen before
        before: Any = multiprocessing.get_start_method(allow_none=True)
        nothing: Any = None
        multiprocessing.set_start_method(nothing, force=True)
        try:
            import blind_watermark
        finally:
            multiprocessing.set_start_method(before, force=True)
        blind_watermark.bw_notes.close()
        self.name, self.bits = "blind-watermark", tuple(bits)
        self._make = lambda: blind_watermark.WaterMark(password_wm=1, password_img=1)

    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A marked copy."""
        _check_size(pixels, self._blocks(pixels) > len(self.bits))
        writer = self._make()
        writer.read_img(img=np.ascontiguousarray(pixels[:, :, ::-1]))
        writer.read_wm([bool(bit) for bit in self.bits], mode="bit")
        marked = np.clip(np.rint(writer.embed()), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(marked[:, :, ::-1])

    def read(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """The bits that it decodes, and their matches."""
        if self._blocks(pixels) <= len(self.bits):
            return Reading(1.0, None)
        with warnings.catch_warnings():
            # it sorts the bits into two groups, one of which is empty where all bits agree
            warnings.simplefilter("ignore", RuntimeWarning)
            values: Any = self._make().extract(
                embed_img=np.ascontiguousarray(pixels[:, :, ::-1]), wm_shape=len(self.bits), mode="bit"
            )
        read = tuple(int(value > 0.5) for value in values)
        return Reading(matches_pvalue(read, self.bits), read)

    def _blocks(self, pixels: UInt8[np.ndarray, "h w 3"]) -> int:
        """Of 4 x 4 in the wavelet's low band, each of which carries a bit."""
        down, right = ((side + 1) // 2 // 4 for side in pixels.shape[:2])
        return down * right


def _check_size(pixels: UInt8[np.ndarray, "h w 3"], enough: bool) -> None:
    if not enough:
        raise InputError(
            f"pixels: got {pixels.shape[0]}x{pixels.shape[1]}, allowed what the package has room for its bits in; "
            "enlarge it first"
        )
