"""Other packages' marks: what they do under our interface is what they do on their own."""

from __future__ import annotations

import sys
from math import comb
from typing import Any

import cv2
import numpy as np
import pytest
from refusals import assert_refused

from poolproof.errors import MissingExtra
from poolproof.watermark.peers import PEERS, load_peer, matches_pvalue

BITS = tuple(int(c) for c in "10110011111011001001000001111011")


@pytest.mark.reference
@pytest.mark.parametrize("method", ["dwtDct", "dwtDctSvd"])
def test_invisible_watermark_gets_its_own_channel_order(method: str, landscapes: list[np.ndarray]) -> None:
    """Pixels equal those of the package on BGR, and so do the bits that it decodes."""
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    encoder: Any = WatermarkEncoder()
    encoder.set_watermark("bits", list(BITS))
    bgr = encoder.encode(cv2.cvtColor(landscapes[1], cv2.COLOR_RGB2BGR), method)
    scheme = load_peer(f"invisible-watermark:{method}", BITS)
    marked = scheme.embed(landscapes[1])
    np.testing.assert_array_equal(marked, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    decoded = WatermarkDecoder("bits", len(BITS)).decode(bgr, method)
    reading = scheme.read(marked)
    assert reading.bits == tuple(int(bit) for bit in decoded)
    assert reading.bits is not None
    assert reading.p_value == matches_pvalue(reading.bits, BITS)


@pytest.mark.reference
def test_blind_watermark_gets_its_own_channel_order(landscapes: list[np.ndarray]) -> None:
    """Pixels equal those of the package on BGR but for its missing rounding."""
    scheme = load_peer("blind-watermark", BITS)  # imports it with care for how processes start
    from blind_watermark import WaterMark

    writer = WaterMark(password_wm=1, password_img=1)
    writer.read_img(img=cv2.cvtColor(landscapes[0], cv2.COLOR_RGB2BGR))
    writer.read_wm([bool(bit) for bit in BITS], mode="bit")
    expected = np.rint(np.asarray(writer.embed()))[:, :, ::-1]
    marked = scheme.embed(landscapes[0])
    np.testing.assert_array_equal(marked, expected)
    assert scheme.read(marked).bits == BITS


@pytest.mark.theory
def test_matches_are_counted_as_fair_coins() -> None:
    """The binomial tail by hand, from no match to all."""
    for n in (1, 8, 32):
        bits = (0, 1) * n
        bits = bits[:n]
        for matched in range(n + 1):
            read = bits[:matched] + tuple(1 - bit for bit in bits[matched:])
            expected = sum(comb(n, k) for k in range(matched, n + 1)) / 2**n
            assert matches_pvalue(read, bits) == pytest.approx(expected)


@pytest.mark.parametrize("name", PEERS)
def test_a_package_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    for module in ("imwatermark", "blind_watermark"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=name.partition(":")[0]) as caught:
        load_peer(name, BITS)
    assert "poolproof[peers]" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "invisible-watermark", "invisible-watermark:rivaGan", "blind-watermark:x", "a\nb"]
)
def test_unknown_names_are_refused(name: str) -> None:
    """The known ones are listed, in one line."""
    message = assert_refused(lambda: load_peer(name, BITS), "scheme")
    assert all(peer in message for peer in PEERS)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("bits", [(), (0, 2), (-1, 1)])
def test_what_is_no_payload_is_refused(name: str, bits: tuple[int, ...]) -> None:
    """The packages take anything for bits, and divide by their number."""
    assert_refused(lambda: load_peer(name, bits), "payload")


@pytest.mark.parametrize("name", PEERS)
def test_writing_leaves_global_randomness_alone(name: str, landscapes: list[np.ndarray]) -> None:
    """NumPy's global generator goes on as if nothing had happened."""
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    scheme = load_peer(name, BITS)
    scheme.read(scheme.embed(landscapes[0]))
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("name", PEERS)
def test_nothing_is_printed(
    name: str, landscapes: list[np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """Output belongs to the program that uses this."""
    scheme = load_peer(name, BITS)
    scheme.read(scheme.embed(landscapes[0]))
    assert capsys.readouterr() == ("", "")
