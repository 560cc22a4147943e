"""Marks in loops: written, found in what learnt from them, and not found where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate.loop_marks import PresenceMark, ShiftMark, make_key, make_mark
from poolproof.simulate.loop_spec import MarkSpec
from poolproof.simulate.real_data import DataSpec, load_real


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the real digits."""
    data = load_real(DataSpec("digits"))
    return data.supply, data.reference


def test_marked_digits_carry_the_strength_that_was_written() -> None:
    """The matched filter finds what was written into digits, and about 0 in plain ones; one alone shows little."""
    plain, real = digits()
    mark = make_mark(MarkSpec(amplitude=8), (8, 8, 1))
    marked = mark.measure(mark.write(plain), real, 0.01)
    control = mark.measure(plain, real, 0.01)
    strength, background = marked["mark_strength"], control["mark_strength"]
    assert strength is not None
    assert background is not None
    # what is cut off at black and white is lost
    assert 0.5 < strength < 1.1
    assert abs(background) < 0.15
    assert marked["mark_p_value"] is not None
    assert marked["mark_p_value"] < 1e-6
    assert marked["mark_detected"] is not None
    assert control["mark_detected"] is not None
    assert marked["mark_detected"] > 0.03 > 0.02 > control["mark_detected"]


def test_amplitude_means_the_same_for_bytes_and_floats() -> None:
    """Grey levels are those of bytes; floats in [-1, 1] are marked by as much."""
    plain, real = digits()
    mark = make_mark(MarkSpec(amplitude=8), (8, 8, 1))
    floats = plain / np.float32(127.5) - np.float32(1)
    change = mark.write(floats) - floats
    assert np.sqrt((change**2).mean()) * 127.5 == pytest.approx(8, rel=1e-3)
    reals = real / np.float32(127.5) - np.float32(1)
    found = mark.measure(mark.write(floats), reals, 0.01)["mark_strength"]
    assert found == pytest.approx(1, abs=0.15)


@pytest.mark.coverage
def test_single_pvalues_hold_their_level_over_keys() -> None:
    """Over random keys, unmarked digits fall below a level no more often than it says."""
    plain, _ = digits()
    shares = [
        (PresenceMark(make_key(seed), 8.0).pvalues(plain[seed * 20 : seed * 20 + 20]) < 0.1).mean()
        for seed in range(40)
    ]
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert np.mean(shares) <= 0.1 + 4 * error


def test_public_and_spread_marks_are_written_into_images_of_their_size(rng: np.random.Generator) -> None:
    """Schemes of `watermark` mark stacks of grey or colour images and are read back."""
    images = np.clip(rng.normal(128, 20, (3, 256, 256, 3)), 0, 255).astype(np.uint8)
    for scheme in ("stable-diffusion-v2", "spread"):
        mark = make_mark(MarkSpec(scheme), (256, 256, 3))
        found = mark.measure(mark.write(images), images, 0.01)
        assert found["mark_detected"] == 1.0
        assert found["mark_strength"] is None
        assert mark.measure(images, images, 0.001)["mark_detected"] == 0.0
    grey = images[..., :1]
    spread = make_mark(MarkSpec("spread"), (256, 256, 1))
    assert spread.write(grey).shape == grey.shape
    assert spread.measure(spread.write(grey), grey, 0.01)["mark_detected"] == 1.0


def test_shift_is_measured_against_the_real_mean(rng: np.random.Generator) -> None:
    """Points moved along the first coordinate have that drift in units of the mark."""
    real, points = rng.standard_normal((4000, 3)), rng.standard_normal((4000, 3))
    mark = make_mark(MarkSpec("shift", 0.5), (3,))
    found = mark.measure(mark.write(points), real, 0.01)
    assert found["mark_strength"] == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(mark.write(points)[:, 1:], points[:, 1:])
    with pytest.raises(InputError, match="got 'mark' for points"):
        ShiftMark(1.0).pvalues(points)


@pytest.mark.parametrize(
    ("scheme", "shape", "message"),
    [
        ("spread", (8, 8, 1), "got 'spread' for samples of shape"),
        ("stable-diffusion-v2", (32, 32, 3), "for samples of shape"),
        ("glaze", (8, 8, 1), "got 'glaze', allowed presence, spread, shift"),
    ],
)
def test_marks_that_do_not_fit_are_refused(scheme: str, shape: tuple[int, ...], message: str) -> None:
    """Before anything is trained, a mark that needs larger images, or that nobody knows, is refused."""
    with pytest.raises(InputError, match=message):
        make_mark(MarkSpec(scheme), shape)
