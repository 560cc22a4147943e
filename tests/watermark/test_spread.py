"""The keyed mark: an exact test, what it survives, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from scipy import stats

from poolproof.watermark import spread
from poolproof.watermark.attacks import parse_attack
from poolproof.watermark.key import Key
from poolproof.watermark.quality import psnr
from poolproof.watermark.significance import sign_tail
from poolproof.watermark.spread import SCALES, TILE, detect_spread, embed_spread

KEY = Key(bytes(range(16)))
BITS = tuple(int(c) for c in "1011001111101100100100000111101110110001100111100011010101101100")
REQUIRED = ["none", "jpeg:50:420", "resize-back:0.5", "resize:0.5", "crop:0.1", "noise:5", "blur:1", "flip"]
REQUIRED += ["rotate:90", "rotate:180", "rotate:270", "webp:50", "brightness:1.2"]


def drawn(n: int, seed: int) -> list[Key]:
    """Random keys."""
    rng = np.random.default_rng(seed)
    return [Key(rng.bytes(16)) for _ in range(n)]


def attacked(name: str, pixels: np.ndarray) -> np.ndarray:
    """The picture after a named attack."""
    return parse_attack(name).apply(pixels, np.random.default_rng(1))


@pytest.fixture(scope="module")
def marked(large_landscapes: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures with the full payload."""
    return [embed_spread(pixels, KEY, BITS) for pixels in large_landscapes]


@pytest.mark.parametrize("attack", REQUIRED)
def test_mark_and_payload_survive(attack: str, marked: list[np.ndarray]) -> None:
    """From 512 pixels a side all 64 bits come back at any required attack, far below the level."""
    for pixels in marked:
        reading = detect_spread(attacked(attack, pixels), KEY, 64)
        assert 0 < reading.p_value < 1e-12
        assert reading.bits == BITS


@pytest.mark.parametrize("attack", REQUIRED)
def test_presence_alone_survives_in_small_pictures(attack: str, landscapes: list[np.ndarray]) -> None:
    """Without a payload a quarter as many pixels are enough."""
    for pixels in landscapes[:4]:
        reading = detect_spread(attacked(attack, embed_spread(pixels, KEY)), KEY)
        assert 0 < reading.p_value < 1e-12
        assert reading.bits is None


def test_what_was_done_to_the_picture_is_told(marked: list[np.ndarray]) -> None:
    """Size, turns and mirroring are found; undone, they give the picture back."""
    for attack, scale, mirrored in (("none", 1.0, False), ("resize:0.5", 2.0, False), ("flip", 1.0, True)):
        reading = detect_spread(attacked(attack, marked[0]), KEY, 64)
        assert (reading.scale, reading.mirrored, reading.quarter_turns) == (scale, mirrored, 0)
    for turns in (1, 2, 3):
        reading = detect_spread(np.rot90(marked[0], turns).copy(), KEY, 64)
        assert (reading.quarter_turns + turns) % 4 == 0
        assert not reading.mirrored


@settings(deadline=None, max_examples=12)
@pytest.mark.property
@given(st.integers(0, 400), st.integers(0, 380))
def test_any_crop_of_half_the_area_is_found(top: int, left: int) -> None:
    """Tiles are found wherever the picture was cut."""
    rng = np.random.default_rng(11)
    ground = (128 + rng.normal(scale=8, size=(800, 760, 1))).repeat(3, axis=2)
    picture = embed_spread(np.clip(ground, 0, 255).astype(np.uint8), KEY, BITS)
    reading = detect_spread(picture[top : top + 400, left : left + 380].copy(), KEY, 64, scales=(1.0,))
    assert reading.p_value < 1e-12
    assert reading.bits == BITS


@settings(deadline=None, max_examples=15)
@pytest.mark.property
@given(
    st.binary(min_size=16, max_size=64), st.lists(st.integers(0, 1), max_size=64), st.integers(0, 2**32 - 1)
)
def test_every_key_and_payload_is_read_back(secret: bytes, bits: list[int], seed: int) -> None:
    """On an easy ground, whatever the key and the payload of 0 to 64 bits."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(110, 140, (256, 270, 3), dtype=np.uint8)
    key = Key(secret)
    reading = detect_spread(embed_spread(pixels, key, bits), key, len(bits), scales=(1.0,))
    assert 0 < reading.p_value < 1e-12
    assert reading.bits == (tuple(bits) or None)


def test_another_key_finds_nothing(marked: list[np.ndarray], large_landscapes: list[np.ndarray]) -> None:
    """Not in a picture with a payload, nor in one with presence alone, at any setting."""
    alone = embed_spread(large_landscapes[0], KEY)
    for key in drawn(6, 1):
        for pixels, n_bits in ((marked[0], 64), (marked[0], 0), (alone, 0), (alone, 64)):
            assert detect_spread(pixels, key, n_bits, scales=(1.0,)).p_value > 1e-4


def test_presence_is_found_with_a_payload_of_unknown_length(marked: list[np.ndarray]) -> None:
    """A wrong length gives no payload, and leaves the presence as it is."""
    right, wrong = (detect_spread(marked[0], KEY, n, scales=(1.0,)) for n in (64, 40))
    assert wrong.p_value == right.p_value
    assert wrong.bits is None


@pytest.mark.coverage
def test_payloads_are_right_or_none_in_heavy_noise() -> None:
    """However little is left of the mark, a wrong payload does not come out."""
    rng = np.random.default_rng(2)
    recovered = 0
    for n in range(60):
        bits = tuple(rng.integers(0, 2, 32).tolist())
        pixels = rng.integers(100, 156, (128, 160, 3), dtype=np.uint8)
        noisy = attacked(f"noise:{5 + n}", embed_spread(pixels, KEY, bits))
        found = detect_spread(noisy, KEY, 32, scales=(1.0,)).bits
        assert found in (None, bits)
        recovered += found is not None
    assert 0 < recovered < 60


@pytest.mark.theory
@pytest.mark.parametrize("n_bits", [pytest.param(0, marks=pytest.mark.slow), 64])
def test_fit_at_one_alignment_is_uniform_over_keys(n_bits: int, landscapes: list[np.ndarray]) -> None:
    """At a fixed alignment the share of keys that fit as well is uniform, on pictures and on stripes alike."""
    stripes = np.tile(np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3), (256, 1, 1))
    p_values = []
    for pixels in (landscapes[0], stripes):
        p_values += [single_pvalue(pixels, key, n_bits) for key in drawn(150, 3)]
    for level in (0.5, 0.05, 0.01):
        count = sum(p <= level for p in p_values)
        assert stats.binomtest(count, len(p_values), level).pvalue > 1e-3, level


def single_pvalue(pixels: np.ndarray, key: Key, n_bits: int) -> float:
    """The exact p-value at the first alignment alone."""
    band = spread._band()
    folded = spread._fold(spread._whitened(spread._enlarged(pixels, 1.0)))
    spectrum = spread._weighted(np.fft.rfft2(folded)[band.rows, band.columns])
    weights = np.real(spectrum * np.conj(band.phases))
    places, signs = spread._sync(key, with_payload=n_bits > 0)
    return sign_tail(spread._whole_weights(weights[places]) * signs)


@pytest.mark.theory
@pytest.mark.parametrize("n_bits", [0, pytest.param(64, marks=pytest.mark.slow)])
def test_p_values_are_valid_over_keys(n_bits: int, landscapes: list[np.ndarray]) -> None:
    """Over random keys, unmarked pictures and one with another key's mark, stay within each level."""
    rng = np.random.default_rng(4)
    pictures = [
        embed_spread(landscapes[0], KEY),
        np.zeros((64, 64, 3), np.uint8),
        rng.integers(0, 256, (90, 128, 3), dtype=np.uint8),
    ]
    pictures[1][20:40, 8:50] = 255
    p_values = np.array(
        [
            detect_spread(pixels, key, n_bits, scales=(1.0, 2.0)).p_value
            for pixels in pictures
            for key in drawn(60, 5)
        ]
    )
    assert ((p_values > 0) & (p_values <= 1)).all()
    for level in (0.05, 0.01, 0.001):
        count = int((p_values <= level).sum())
        assert stats.binomtest(count, p_values.size, level, alternative="greater").pvalue > 1e-3


@settings(deadline=None, max_examples=25)
@pytest.mark.property
@given(
    st.floats(30, 60), st.sampled_from(["flat", "black", "white", "halves", "noise", "slope"]), st.booleans()
)
def test_change_has_the_size_asked_for(wanted: float, kind: str, payload: bool) -> None:
    """The ratio of signal to noise is met within a decibel, two where rounding decides, saturated or not."""
    rng = np.random.default_rng(6)
    slope = np.linspace(0, 255, 200)[None, :, None].repeat(150, axis=0).repeat(3, axis=2)
    pixels = {
        "flat": np.full((150, 200, 3), 93),
        "black": np.zeros((150, 200, 3)),
        "white": np.full((150, 200, 3), 255),
        "halves": np.where(slope > 127, 255, 0),
        "noise": rng.integers(0, 256, (150, 200, 3)),
        "slope": slope,
    }[kind].astype(np.uint8)
    reached = psnr(pixels, embed_spread(pixels, KEY, BITS if payload else (), psnr=wanted))
    assert wanted - 1 < reached < wanted + (2.5 if wanted > 50 else 1)


def test_marks_are_hard_to_see(large_landscapes: list[np.ndarray], marked: list[np.ndarray]) -> None:
    """At least 40 dB lie between a picture and its copy, and the input is left alone."""
    for pixels, copy in zip(large_landscapes, marked, strict=True):
        assert psnr(pixels, copy) > 40.5
        before = pixels.copy()
        np.testing.assert_array_equal(embed_spread(pixels, KEY, BITS), copy)
        np.testing.assert_array_equal(pixels, before)


@pytest.mark.theory
def test_tile_has_no_trace_outside_its_band() -> None:
    """The tile's power lies between 0.06 and 0.30 cycles per pixel, alike in all coefficients; no place stands out."""
    tile = spread._tile(KEY, BITS)
    power = np.abs(np.fft.fft2(tile)) ** 2
    radius = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE))
    inside = (radius >= 0.06) & (radius < 0.30)
    assert power[~inside].max() < 1e-6 * power[inside].mean()
    assert np.ptp(power[inside]) < 1e-3 * power[inside].mean()
    assert np.abs(tile).max() < 6 * tile.std()


def test_payload_leaves_the_synchronisation_as_it_is() -> None:
    """Payload and presence share no coefficient, and together take all."""
    places, _ = spread._sync(KEY, with_payload=True)
    carriers, _, owner = spread._carriers(KEY, 64)
    assert sorted([*places.tolist(), *carriers.tolist()]) == list(range(spread._band().n))
    assert np.ptp(np.bincount(owner)) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 8), (3, 900), (900, 3), (1, 3000)], ids=str)
def test_small_images_are_read_without_finding_anything(shape: tuple[int, int]) -> None:
    """Any shape is read, at all scales, without a warning."""
    for pixels in (
        np.zeros((*shape, 3), np.uint8),
        np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8),
    ):
        for n_bits in (0, 64):
            assert detect_spread(pixels, KEY, n_bits).p_value > 1e-4


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_constant_pictures_say_nothing(value: int) -> None:
    """Their p-value is 1 and they carry no payload."""
    reading = detect_spread(np.full((200, 130, 3), value, np.uint8), KEY, 64)
    assert reading.p_value == 1.0
    assert reading.bits is None


def test_values_out_of_range_are_refused() -> None:
    """Sizes, payloads, decibels, scales and lengths."""
    pixels = np.full((64, 64, 3), 100, np.uint8)
    assert embed_spread(pixels, KEY).shape == pixels.shape
    for shape in ((63, 64), (64, 63), (1, 1)):
        assert_refused(lambda shape=shape: embed_spread(np.zeros((*shape, 3), np.uint8), KEY), "pixels")
    for bits in ([0] * 65, [0, 2], [-1]):
        assert_refused(lambda bits=bits: embed_spread(pixels, KEY, bits), "payload")
    for value in (29.9, 60.1, -1.0, math.nan, math.inf):
        assert_refused(lambda value=value: embed_spread(pixels, KEY, psnr=value), "psnr")
    for scales in ((), (0.0,), (1.0, 9.0), (math.nan,), (-1.0,)):
        assert_refused(lambda scales=scales: detect_spread(pixels, KEY, scales=scales), "scales")
    for n_bits in (-1, 65):
        assert_refused(lambda n_bits=n_bits: detect_spread(pixels, KEY, n_bits), "payload")
    assert 1.0 in SCALES
