"""Controls, the recall of a search in a pool, and what many images say together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused
from scipy import stats

from poolproof.watermark.attacks import parse_attack
from poolproof.watermark.dwt import VARIANTS, Variant, block_remainders, strengths_of
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import Payload, load_payloads
from poolproof.watermark.public_marks import plan_search, read_marks
from poolproof.watermark.screening import Container, PooledSearch, draw_controls, would_be_found
from poolproof.watermark.significance import DETECTION_LEVEL, payload_supports, whiten

PAYLOADS = load_payloads()
SDXL = next(payload for payload in PAYLOADS if payload.name == "sdxl")


def container_of(name: str, seed: int = 0) -> Container:
    """What an attack does to pixels."""
    attack = parse_attack(name)
    return lambda pixels: attack.apply(pixels, np.random.default_rng(seed))


def recall(
    pictures: list[np.ndarray], container: Container | None, variant: Variant, payload: Payload
) -> float:
    """The share of the pictures in which a mark would be found."""
    rng = np.random.default_rng(3)
    found = [
        would_be_found(pixels, payload, variant, container, n_tests=len(plan_search(PAYLOADS)), rng=rng)
        for pixels in pictures
    ]
    assert all(isinstance(each, bool) for each in found)
    return float(np.mean([bool(each) for each in found]))


@pytest.mark.property
@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_controls_keep_fixed_bits_and_nothing_else(seed: int, n: int) -> None:
    """Bits that could not be otherwise stay; free ones are drawn; names are unique; order is that of the payloads."""
    controls = draw_controls(PAYLOADS, n, rng=np.random.default_rng(seed))
    assert len(controls) == n * len(PAYLOADS)
    assert len({control.name for control in controls}) == len(controls)
    for i, control in enumerate(controls):
        payload = PAYLOADS[i // n]
        assert (control.free, control.algorithm) == (payload.free, payload.algorithm)
        same = np.equal(control.bits, payload.bits)
        assert same[~np.array(payload.free)].all()
        assert set(control.bits) <= {0, 1}


@pytest.mark.theory
def test_free_bits_of_controls_are_fair_coins() -> None:
    """Over many controls each free bit is 1 half of the time."""
    controls = draw_controls([SDXL], 2000, rng=np.random.default_rng(4))
    ones = np.sum([control.bits for control in controls], axis=0)[np.array(SDXL.free)]
    assert np.abs(ones - 1000).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_recall_is_full_without_loss_and_none_after_jpeg(
    payload: Payload, landscapes: list[np.ndarray], large_landscapes: list[np.ndarray]
) -> None:
    """Lossless files keep the mark; JPEG at quality 50 with halved chroma loses it; one with full chroma need not."""
    variant = Variant(payload.algorithm)
    assert recall([*landscapes[2::4], *large_landscapes], None, variant, payload) == 1
    assert recall([*landscapes[2::4], *large_landscapes], container_of("jpeg:50:420"), variant, payload) == 0


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_recall_is_that_of_marked_copies(variant: Variant, landscapes: list[np.ndarray]) -> None:
    """The imitation agrees with marking each picture with the real payload and searching for it."""
    payload = next(payload for payload in PAYLOADS if payload.algorithm == variant.algorithm)
    container = container_of("jpeg:95:444")
    actual = []
    for pixels in landscapes[:8]:
        reading = read_marks(container(embed_dwt(pixels, payload.bits, variant)), PAYLOADS)
        actual.append(reading is not None and reading.p_value < DETECTION_LEVEL)
    assert recall(landscapes[:8], container, variant, payload) == pytest.approx(np.mean(actual), abs=0.26)


def test_recall_is_unknown_only_where_the_scheme_takes_no_image(landscapes: list[np.ndarray]) -> None:
    """Small images give None, a container that leaves too few pixels False; variants that are not read are refused."""
    rng = np.random.default_rng(5)
    for shape in ((255, 256), (8, 8), (1, 1), (7, 10_000)):
        pixels = np.zeros((*shape, 3), np.uint8)
        assert would_be_found(pixels, SDXL, Variant(), n_tests=22, rng=rng) is None
    shrunk = container_of("resize:0.1")
    assert would_be_found(landscapes[0], SDXL, Variant(), shrunk, n_tests=22, rng=rng) is False
    flat = np.full((256, 256, 3), 255, np.uint8)
    assert would_be_found(flat, SDXL, Variant(), n_tests=22, rng=rng) in (True, False)
    for variant in (Variant("dwtDctSvd"), Variant("dwtDctSvd", "float32")):
        assert_refused(
            lambda variant=variant: would_be_found(landscapes[0], SDXL, variant, n_tests=22, rng=rng),
            "variant",
        )


def test_correction_and_level_count(landscapes: list[np.ndarray]) -> None:
    """With a correction that no p-value meets nothing is found, and with a level of 1 all is; the picture stays."""
    pixels = landscapes[0].copy()
    pick = {"payload": SDXL, "variant": Variant()}
    assert not would_be_found(pixels, **pick, n_tests=10**30, rng=np.random.default_rng(0))
    assert would_be_found(pixels, **pick, n_tests=1, level=1, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, landscapes[0])


def test_images_together_show_what_none_shows_alone(landscapes: list[np.ndarray]) -> None:
    """Marks that compression left too weak to be found in any picture are found in all of them together."""
    lossy = container_of("jpeg:90:420")
    search, singles = PooledSearch(PAYLOADS), []
    for pixels in landscapes:
        worn = lossy(embed_dwt(lossy(pixels), SDXL.bits))
        reading = read_marks(worn, PAYLOADS)
        assert reading is not None
        singles.append(reading.p_value)
        search.update(worn)
    found = search.compute()
    assert search.n_images == len(landscapes)
    assert min(singles) > DETECTION_LEVEL > min(found.values())
    payload, variant = min(found, key=lambda test: found[test])
    assert payload == "sdxl"
    assert variant.channels == "BGR"
    assert all(p > 1e-3 for (name, _), p in found.items() if name != "sdxl")


def test_unmarked_images_show_nothing_together(clean_images: list[np.ndarray]) -> None:
    """Pages, stripes, slopes and landscapes, all in one search."""
    search = PooledSearch(PAYLOADS)
    for pixels in clean_images:
        search.update(pixels)
    found = search.compute()
    assert set(found) == {(payload.name, variant) for payload, variant in plan_search(PAYLOADS)}
    assert min(found.values()) > 1e-4


@pytest.mark.slow
@pytest.mark.theory
def test_pooled_p_values_are_valid_over_random_payloads(clean_images: list[np.ndarray]) -> None:
    """On fixed unmarked images the p-value of each test alone is uniform over payloads, and the corrected one valid."""
    rng = np.random.default_rng(6)
    whites = []
    for pixels in clean_images[::4]:
        remainders = block_remainders(pixels, VARIANTS[:4])
        columns = pixels.shape[1] // 8
        whites.append(
            {v: whiten(strengths_of(values).reshape(-1, columns)) for v, values in remainders.items()}
        )
    alone, corrected = [], []
    for _ in range(700):
        payload = Payload("random", tuple(rng.integers(0, 2, 48).tolist()), (True,) * 48)
        search = PooledSearch((payload,))
        for white in whites:
            search.add(
                (payload, variant, payload_supports(values, payload), values.size)
                for variant, values in white.items()
            )
        found = search.compute()
        alone.append(found["random", VARIANTS[0]] / 4)
        corrected.append(min(found.values()))
    for level in (0.05, 0.01, 0.001):
        assert stats.binomtest(sum(p <= level for p in alone), 700, level).pvalue > 1e-3, level
        worst = stats.binomtest(sum(p <= level for p in corrected), 700, level, alternative="greater")
        assert worst.pvalue > 1e-3, level


@pytest.mark.property
def test_pooling_does_not_depend_on_order_or_on_silent_images(landscapes: list[np.ndarray]) -> None:
    """Any order gives the same; constant and small images change no p-value, and small ones are not counted."""
    forth, back = PooledSearch(PAYLOADS), PooledSearch(PAYLOADS)
    for pixels in landscapes[:4]:
        forth.update(pixels)
    for pixels in landscapes[3::-1]:
        back.update(np.full((256, 256, 3), 90, np.uint8))
        back.update(pixels)
        back.update(pixels[:40])
    assert (forth.n_images, back.n_images) == (4, 8)
    one, other = forth.compute(), back.compute()
    assert one.keys() == other.keys()
    for test, p_value in one.items():
        assert other[test] == pytest.approx(p_value, rel=0.02)


def test_an_empty_search_has_no_p_values() -> None:
    """Before any image, after small ones, and without payloads; after constant ones all are 1."""
    search = PooledSearch(PAYLOADS)
    assert search.compute() == {}
    search.update(np.zeros((20, 20, 3), np.uint8))
    assert (search.compute(), search.n_images) == ({}, 0)
    search.update(np.zeros((256, 256, 3), np.uint8))
    assert set(search.compute().values()) == {1.0}
    nothing = PooledSearch(())
    nothing.update(np.zeros((256, 256, 3), np.uint8))
    assert nothing.compute() == {}
