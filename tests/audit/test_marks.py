"""Marks over a pool: recall by container, correction of the share, controls, and pooled detection."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_pools import draw, encode
from PIL import Image

from poolproof.audit.images import EncodedImage, Images
from poolproof.audit.marking import safe_name
from poolproof.audit.marks import (
    Detection,
    MarkSearch,
    MarkSummary,
    control_found,
    detections_table,
    marked_share,
)
from poolproof.audit.pool import Unread
from poolproof.detectors.prevalence import clopper_pearson
from poolproof.errors import InputError
from poolproof.watermark.dwt_encoder import embed_dwt
from poolproof.watermark.payloads import load_payloads

PAYLOADS = load_payloads()
SDXL = next(payload for payload in PAYLOADS if payload.name == "sdxl")


def jpeg(pixels: np.ndarray, quality: int, subsampling: int) -> bytes:
    """A JPEG's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def summarise(search: MarkSearch, images: list[bytes]) -> MarkSummary:
    """The summary of a search over encoded images."""
    summary = MarkSummary(search)
    for position, data in enumerate(images):
        summary.update(search.examine(EncodedImage(position, f"{position}.x", data)))
    return summary


def test_recall_follows_the_files(rng: np.random.Generator) -> None:
    """Marks would be found in lossless files, and lost in JPEGs with halved chroma: the share then stays open."""
    pictures = [draw(rng, synthetic=True, side=320) for _ in range(8)]
    search = MarkSearch(payloads=PAYLOADS, n_power=8, total=8)
    lossless = summarise(search, [encode(p) for p in pictures])
    halved = summarise(search, [jpeg(p, 30, 2) for p in pictures])
    assert lossless.power_tested == halved.power_tested == 8
    assert lossless.power_found >= 7
    assert halved.power_found == 0
    share, lost = lossless.corrected_share(), halved.corrected_share()
    assert share is not None
    assert lost is not None
    assert share.upper < 0.6
    assert lost.upper > 0.95
    assert lost.point is None


def test_a_search_counts_what_it_finds_and_what_chance_finds(rng: np.random.Generator) -> None:
    """Half the images carry a mark: they are counted with their payload, and controls stay silent."""
    pictures = [draw(rng, synthetic=True, side=320) for _ in range(6)]
    marked = [encode(embed_dwt(p, SDXL.bits) if i % 2 else p) for i, p in enumerate(pictures)]
    summary = summarise(MarkSearch(payloads=PAYLOADS, n_controls=10, n_power=3, total=6), marked)
    assert (summary.n_images, summary.n_tested, summary.n_detected) == (6, 6, 3)
    assert summary.payloads == {"sdxl": 3}
    assert summary.controls_tested == 6 * 22 * 10
    assert summary.controls_found == 0
    assert summary.power_tested == 3
    pooled = summary.pooled()
    assert pooled is not None
    assert pooled[0] == "sdxl"
    assert pooled[2] < 1e-9
    told = summary.as_dict()
    assert told["recall"]["tested"] == 3
    assert told["payloads"] == {"sdxl": 3}


def test_sampled_positions_are_spread_evenly(rng: np.random.Generator) -> None:
    """Of 20 images, 5 are tried, one in each stretch of four."""
    data = encode(draw(rng, synthetic=True, side=288))
    search = MarkSearch(payloads=PAYLOADS, n_power=5, total=20)
    tried = [
        position
        for position in range(20)
        if search.examine(EncodedImage(position, "x", data)).would_be_found is not None
    ]
    assert tried == [0, 4, 8, 12, 16]


def test_the_correction_is_the_prevalence_estimate_with_known_false_alarms() -> None:
    """With full recall it is close to the exact binomial interval, with half of it twice as high."""
    full = marked_share(30, 300, 1000, 1000)
    half = marked_share(30, 300, 500, 1000)
    plain = clopper_pearson(30, 300)
    assert full is not None
    assert half is not None
    assert full.lower == pytest.approx(plain.lower, abs=0.01)
    assert full.upper == pytest.approx(plain.upper, abs=0.01)
    assert half.point == pytest.approx(0.2)
    assert marked_share(0, 10, 0, 0) is None


def test_formats_with_unknown_loss_are_not_tried(rng: np.random.Generator) -> None:
    """What a WebP did to the pixels cannot be repeated, so no recall is told for it."""
    from poolproof.audit.decode import decode_image

    buffer = io.BytesIO()
    Image.fromarray(draw(rng, synthetic=True, side=288)).save(buffer, "WEBP", quality=80)
    decoded = decode_image(buffer.getvalue())
    assert decoded.pixels is not None
    assert control_found(decoded.pixels, decoded.header, PAYLOADS, 0, rng=rng) is None


def test_unread_items_keep_their_status() -> None:
    """A missing item is a row with its reason, and is not tested."""
    examined = MarkSearch(payloads=PAYLOADS).examine(EncodedImage(0, "k", Unread("missing", "no-file: gone")))
    assert examined.detection == Detection("k", "missing", "no-file: gone")


def test_tables_adjust_for_many_images() -> None:
    """The q-values are those of Benjamini and Hochberg over the tested images, and untested ones have none."""
    from scipy.stats import false_discovery_control

    p_values = [1e-9, 0.2, None, 0.03, 0.5]
    rows = [Detection(str(i), "scored", None, "sdxl", "v", p, False) for i, p in enumerate(p_values)]
    table = detections_table(rows)
    expected = iter(false_discovery_control([1e-9, 0.2, 0.03, 0.5]))
    for q, p in zip(table["mark_qvalue"].to_pylist(), p_values, strict=True):
        assert q == (None if p is None else pytest.approx(next(expected)))
    assert detections_table([]).num_rows == 0


def test_images_come_in_order_from_any_number_of_threads(tmp_path: Path) -> None:
    """Files and folders in the order given, the same with one thread and with four."""
    for name in ("b.png", "a.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    images = Images([str(tmp_path / "b.png"), str(tmp_path)])
    assert images.total == 3
    keys = ["b.png", "a.png", "b.png"]
    for n_workers in (1, 4):
        assert list(images.map(lambda image: image.key, n_workers)) == keys
    with pytest.raises(InputError, match="no path"):
        Images([])


@given(st.text(min_size=1, max_size=60))
def test_names_of_copies_stay_inside_their_folder(key: str) -> None:
    """Whatever a key holds, its copy has a plain relative path with the right ending."""
    path = safe_name(key, ".png")
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.suffix == ".png"
    assert len(path.name) < 130
    assert all(part.isprintable() for part in path.parts)
