"""Benches: a row for every image, scheme and attack, the same for the same seed, false finds included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from refusals import assert_refused

from poolproof.watermark.attacks import Attack, parse_attack
from poolproof.watermark.bench import UNMARKED, Outcome, run_bench
from poolproof.watermark.dwt import MIN_PIXELS
from poolproof.watermark.key import Key
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.quality import psnr, ssim
from poolproof.watermark.schemes import AbstractScheme, DwtScheme, Reading, SpreadScheme

KEY = Key(bytes(range(16)))
ATTACKS = [parse_attack(name) for name in ("none", "noise:5", "jpeg:50:420")]


class BlankScheme(AbstractScheme):
    """Marks nothing, and remembers what it read."""

    def __init__(self, name: str, bits: tuple[int, ...] = (), read: Reading | None = None) -> None:
        self.name, self.bits, self.reading = name, bits, read or Reading(0.5, None)
        self.seen: list[np.ndarray] = []

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """A copy."""
        return pixels.copy()

    def read(self, pixels: np.ndarray) -> Reading:
        """What was told to say."""
        self.seen.append(pixels)
        return self.reading


def untimed(rows: list[Outcome]) -> list[Outcome]:
    """Rows without what a clock says."""
    return [dataclasses.replace(row, embed_seconds=None, read_seconds=0.0) for row in rows]


@pytest.fixture(scope="module")
def images(landscapes: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Two pictures with keys."""
    return [("a", landscapes[2]), ("b", landscapes[6])]


@pytest.fixture(scope="module")
def rows(images: list[tuple[str, np.ndarray]]) -> list[Outcome]:
    """A bench of two real schemes."""
    schemes = [SpreadScheme(KEY), DwtScheme(load_payloads()[0])]
    return list(run_bench(images, schemes, ATTACKS, rng=np.random.default_rng(1)))


def test_every_combination_has_one_row(rows: list[Outcome]) -> None:
    """Image by image, each scheme first without a mark and then under each attack in order."""
    expected = [
        (image, scheme, attack)
        for image in ("a", "b")
        for scheme in ("spread", "dwtDct (uint8)")
        for attack in (UNMARKED, "none", "noise:5", "jpeg:50:420")
    ]
    assert [(row.image, row.scheme, row.attack) for row in rows] == expected


def test_marks_are_found_and_their_absence_too(
    rows: list[Outcome], images: list[tuple[str, np.ndarray]]
) -> None:
    """Without a mark nothing is detected; ours survives all three, the public one not the JPEG."""
    for row in rows:
        assert 0 < row.p_value <= 1
        assert row.detected == (row.p_value < 1e-6)
        assert row.read_seconds > 0
        if row.attack == UNMARKED:
            assert not row.detected
            assert (row.psnr, row.ssim, row.embed_seconds) == (None, None, None)
        else:
            assert row.detected == (row.scheme == "spread" or row.attack != "jpeg:50:420")
            assert row.psnr is not None
            assert row.psnr > 25
            assert row.embed_seconds is not None
            assert row.embed_seconds > 0
        if row.scheme == "spread":
            assert (row.bit_accuracy, row.recovered) == (None, None)
        else:
            assert row.recovered == (row.bit_accuracy == 1)
    marked = SpreadScheme(KEY).embed(images[0][1])
    assert rows[1].psnr == psnr(images[0][1], marked)
    assert rows[1].ssim == ssim(images[0][1], marked)


def test_same_seed_same_rows(rows: list[Outcome], images: list[tuple[str, np.ndarray]]) -> None:
    """A scheme's rows do not depend on the other schemes, nor an image's on those after it."""
    again = list(run_bench(images, [SpreadScheme(KEY)], ATTACKS, rng=np.random.default_rng(1)))
    assert untimed(again) == untimed([row for row in rows if row.scheme == "spread"])
    first = list(run_bench(images[:1], [SpreadScheme(KEY)], ATTACKS, rng=np.random.default_rng(1)))
    assert untimed(first) == untimed(again[:4])


def test_randomness_is_the_same_for_all_schemes() -> None:
    """Schemes that change nothing see the same noise; images, and attacks of one name, see others."""
    grey = np.full((40, 40, 3), 128, np.uint8)
    one, other = BlankScheme("one"), BlankScheme("other")
    noise = [parse_attack("noise:5"), parse_attack("noise:5")]
    list(run_bench([("a", grey), ("b", grey)], [one, other], noise, rng=np.random.default_rng(2)))
    assert len(one.seen) == 6
    for mine, others in zip(one.seen, other.seen, strict=True):
        np.testing.assert_array_equal(mine, others)
    noisy = [one.seen[i] for i in (1, 2, 4, 5)]
    assert len({pixels.tobytes() for pixels in noisy}) == 4
    np.testing.assert_array_equal(one.seen[0], grey)


def test_accuracy_is_the_share_of_right_bits() -> None:
    """Bits that were not read have no accuracy and were not recovered; half right is not recovered."""
    grey = np.full((20, 20, 3), 128, np.uint8)
    cases = [
        (None, None, False),
        ((1, 0, 1, 0), 1.0, True),
        ((1, 0, 0, 1), 0.5, False),
    ]
    for read, accuracy, recovered in cases:
        scheme = BlankScheme("s", (1, 0, 1, 0), Reading(1e-9, read))
        (row, *_) = run_bench([("a", grey)], [scheme], [], level=1e-8, rng=np.random.default_rng(0))
        assert (row.bit_accuracy, row.recovered, row.detected) == (accuracy, recovered, True)


def test_rows_come_as_they_are_made(images: list[tuple[str, np.ndarray]]) -> None:
    """One tick for each row, and no image is taken before its turn."""
    taken, ticks = [], []

    def source() -> object:
        for key, pixels in images:
            taken.append(key)
            yield key, pixels[:64, :64]

    bench = run_bench(
        source(),  # type: ignore[arg-type]
        [BlankScheme("s")],
        ATTACKS,
        rng=np.random.default_rng(0),
        tick=lambda: ticks.append(1),
    )
    next(bench)
    assert taken == ["a"]
    assert len([*bench]) == 7
    assert len(ticks) == 8


def test_benches_that_cannot_run_are_refused() -> None:
    """Levels out of range, schemes of one name, and images without room."""
    small = [("a", np.zeros((20, 20, 3), np.uint8))]
    rng = np.random.default_rng(0)
    for level in (0, 1, -1.0, float("nan"), 2.0):
        assert_refused(lambda level=level: list(run_bench([], [], [], level=level, rng=rng)), "level")
    twice = [BlankScheme("s"), BlankScheme("s")]
    assert_refused(lambda: list(run_bench(small, twice, [], rng=rng)), "schemes")
    assert_refused(lambda: list(run_bench(small, [SpreadScheme(KEY)], [], rng=rng)), "pixels")
    assert list(run_bench([], [SpreadScheme(KEY)], ATTACKS, rng=rng)) == []
    assert MIN_PIXELS > 400


def test_an_attack_may_change_the_size(images: list[tuple[str, np.ndarray]]) -> None:
    """Quality is taken before the attack, and what is left is read, however small."""
    gone = Attack("gone", lambda pixels, rng: pixels[:1, :1].copy())
    scheme = SpreadScheme(KEY, (1, 0, 1))
    row = list(run_bench(images[:1], [scheme], [gone], rng=np.random.default_rng(0)))[1]
    assert not row.detected
    assert row.psnr is not None
    assert (row.bit_accuracy, row.recovered) == (None, False)
