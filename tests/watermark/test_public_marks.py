"""Search for public marks: calibration on clean pictures, recall on pictures marked by the public writer."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from poolproof.watermark.dwt import VARIANTS, Variant, block_remainders, strengths_of, variants_of
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import Payload, load_payloads
from poolproof.watermark.public_marks import MarkReading, plan_search, read_marks
from poolproof.watermark.significance import DETECTION_LEVEL, payload_pvalue

PAYLOADS = load_payloads()


def found(pixels: np.ndarray) -> MarkReading:
    """The reading of a picture that is large enough for one."""
    reading = read_marks(pixels, PAYLOADS)
    assert reading is not None
    return reading


def test_the_search_covers_all_payloads_in_all_variants() -> None:
    """Five payloads in four variants of dwtDct, and one in the two of dwtDctSvd on bytes."""
    assert len(plan_search(PAYLOADS)) == 5 * 4 + 2
    assert {variant for _, variant in plan_search(PAYLOADS)} == set(VARIANTS)


def test_no_public_payload_is_found_in_clean_pictures(clean_images: list[np.ndarray]) -> None:
    """Landscapes, pages, stripes, slopes and noise keep family-wise p-values far above the level."""
    assert min(found(image).p_value for image in clean_images) > 1e-4 > DETECTION_LEVEL


@pytest.mark.parametrize("value", [0, 37, 128, 255])
def test_constant_pictures_are_never_detected(value: int) -> None:
    """Where all blocks agree nothing speaks for any payload: the p-value is 1."""
    reading = found(np.full((512, 512, 3), value, np.uint8))
    assert reading.p_value == 1.0
    assert reading.matched == 0.5


CASES = [
    (payload, Variant(payload.algorithm, writer.array, writer.channels))
    for payload in PAYLOADS
    for writer in {(writer.array, writer.channels): writer for writer in payload.writers}.values()
]


@pytest.mark.parametrize(("payload", "variant"), CASES, ids=lambda case: getattr(case, "name", str(case)))
def test_marks_are_found_as_their_writers_leave_them(
    payload: Payload, variant: Variant, landscapes: list[np.ndarray]
) -> None:
    """At the level, the right payload is read from at least 11 of 12 pictures, floats and swapped channels included."""
    readings = [found(embed_dwt(pixels, payload.bits, variant)) for pixels in landscapes]
    hits = [reading for reading in readings if reading.p_value < DETECTION_LEVEL]
    assert len(hits) >= 11
    assert {reading.payload for reading in hits} == {payload.name}
    assert {reading.variant.channels for reading in hits} == {variant.channels}
    assert min(reading.matched for reading in hits) > 0.8


def test_other_payloads_and_the_inverse_do_not_fit_a_marked_picture(landscapes: list[np.ndarray]) -> None:
    """A marked picture gives p-values near 1 for the inverted payload and no detection for random ones."""
    rng = np.random.default_rng(4)
    sdxl = next(p for p in PAYLOADS if p.name == "sdxl")
    marked = embed_dwt(landscapes[0], sdxl.bits)
    strengths = strengths_of(block_remainders(marked)[Variant()]).reshape(-1, marked.shape[1] // 8)

    def p_value(bits: list[int]) -> float:
        return payload_pvalue(strengths, Payload("test", tuple(bits), (True,) * 48))

    assert p_value([1 - bit for bit in sdxl.bits]) > 0.999
    assert min(p_value(rng.integers(0, 2, 48).tolist()) for _ in range(200)) > 1e-5


def test_p_value_is_corrected_for_the_plan_search_the_search(landscapes: list[np.ndarray]) -> None:
    """The family-wise value is the smallest of the single ones times their number, at most 1."""
    for pixels in landscapes[:4]:
        remainders = block_remainders(pixels)
        singles = [
            payload_pvalue(strengths_of(remainders[variant]).reshape(-1, pixels.shape[1] // 8), payload)
            for payload, variant in plan_search(PAYLOADS)
        ]
        reading = found(pixels)
        assert reading.p_value == min(1.0, 22 * min(singles))
        assert (reading.payload, reading.variant) == [
            (payload.name, variant) for payload, variant in plan_search(PAYLOADS)
        ][int(np.argmin(singles))]
        assert reading.n_blocks == remainders[Variant()].size


def test_small_images_and_empty_searches_have_no_reading(landscapes: list[np.ndarray]) -> None:
    """Below the scheme's size, or without a payload, there is nothing to say."""
    assert read_marks(landscapes[0][:255], PAYLOADS) is None
    assert read_marks(landscapes[0], ()) is None


@pytest.mark.parametrize("variant", variants_of("dwtDct"), ids=str)
def test_resampled_marks_are_still_found(variant: Variant, landscapes: list[np.ndarray]) -> None:
    """Half the size and back leaves the low band, where the mark is, in most pictures."""
    sdxl = next(p for p in PAYLOADS if p.name == "sdxl")
    hits = 0
    for pixels in landscapes[2::4]:
        smooth = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
        image = Image.fromarray(embed_dwt(smooth, sdxl.bits, variant))
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
        hits += found(np.asarray(half.resize(image.size, Image.Resampling.BICUBIC))).p_value < DETECTION_LEVEL
    assert hits >= 2
