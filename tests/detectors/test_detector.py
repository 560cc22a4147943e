"""The contract of detectors, on all of them, and the table of kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.detectors.detector import (
    DetectorState,
    check_varied,
    fill_scores,
    split_finite,
    take_setting,
    take_tensor,
)
from poolproof.detectors.forensic import FORENSIC_DIM
from poolproof.detectors.kinds import KINDS, fit_detector
from poolproof.detectors.reader_spec import PRESETS
from poolproof.errors import InputError


def one_line(call: Callable[[], object], match: str) -> None:
    """Checks that the call raises an InputError of one line."""
    with pytest.raises(InputError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


def test_the_list_has_every_kind(all_detectors: tuple[str, ...]) -> None:
    """No kind of the table escapes the contract."""
    assert {name.removesuffix("-cosine") for name in all_detectors} == set(KINDS)


def test_larger_is_more_synthetic(fitted: Any) -> None:
    """On classes that lie apart, synthetic items score higher, and most of them above the threshold."""
    detector = fitted.detector
    real, synthetic = detector.score(fitted.real).values, detector.score(fitted.synthetic).values
    assert np.mean(real[:, None] < synthetic[None, :]) > 0.9
    assert np.mean(synthetic > detector.threshold) > np.mean(real > detector.threshold) + 0.5


def test_scores_are_row_by_row(fitted: Any) -> None:
    """A score is the same bits alone, in another order, in any batch and beside items without features."""
    detector, features = fitted.detector, np.concatenate([fitted.real, fitted.synthetic])
    together = detector.score(features).values
    assert together.dtype == np.float32
    alone = np.concatenate([detector.score(row[None]).values for row in features])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(detector.score(features[::-1]).values[::-1], together)
    holed = np.insert(features, 7, np.nan, axis=0)
    np.testing.assert_array_equal(np.delete(detector.score(holed).values, 7), together)
    np.testing.assert_array_equal(detector.score(np.asfortranarray(features)).values, together)


def test_rows_that_are_not_finite_are_abstained_from(fitted: Any) -> None:
    """NaN, infinity and overflow of half precision give no answer, a score of 0, and cost the others nothing."""
    detector, features = fitted.detector, fitted.real[:5].copy()
    features[1, 0], features[3, -1] = np.nan, -np.inf
    scores = detector.score(features)
    np.testing.assert_array_equal(scores.abstained, [False, True, False, True, False])
    np.testing.assert_array_equal(scores.values[scores.abstained], 0)
    assert np.isfinite(scores.values).all()
    with np.errstate(over="ignore"):
        stored = np.where(np.isfinite(features), features, 1e6).astype(np.float16)
    np.testing.assert_array_equal(detector.score(stored).abstained, scores.abstained)
    assert detector.score(np.full((2, features.shape[1]), np.nan)).abstained.all()


def test_no_items_have_no_scores(fitted: Any) -> None:
    """An empty batch gives empty scores."""
    scores = fitted.detector.score(fitted.real[:0])
    assert scores.values.shape == scores.abstained.shape == (0,)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_width_is_refused(fitted: Any, change: int) -> None:
    """Features of another reader are refused in one line that has both widths, even without a row."""
    width = fitted.real.shape[1] + change
    for n in (0, 3):
        one_line(lambda n=n: fitted.detector.score(np.zeros((n, width), np.float32)), f"got width {width}, ")


def test_huge_features_do_not_break_scores(fitted: Any) -> None:
    """Finite features near the end of single precision give a finite score or none, and no warning."""
    huge = np.full((2, fitted.real.shape[1]), 3e38, np.float32)
    huge[1] *= -1
    assert np.isfinite(fitted.detector.score(huge).values).all()


def test_the_state_is_plain(fitted: Any) -> None:
    """Tensors are of the three types that are saved, settings have reader and threshold, and the kind is listed."""
    state = fitted.detector.state()
    assert state.kind == fitted.detector.kind
    assert state.kind in KINDS
    assert state.settings["reader"] == fitted.detector.reader
    assert state.settings["threshold"] == fitted.detector.threshold
    assert {tensor.dtype.name for tensor in state.tensors.values()} <= {"float32", "float64", "int64"}
    rebuilt = KINDS[state.kind].restore(state)
    assert type(rebuilt) is type(fitted.detector)


def test_fits_repeat_and_leave_their_input_alone(fitted: Any) -> None:
    """Scoring twice gives the same bits and does not write into the features."""
    features = fitted.synthetic.copy()
    features.setflags(write=False)
    first, second = fitted.detector.score(features), fitted.detector.score(features)
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("kind", [kind for kind, row in KINDS.items() if row.needs != "file"])
def test_the_same_references_give_the_same_detector(kind: str, rng: np.random.Generator) -> None:
    """A fit is a function of its references: nothing in it is drawn below the size of a bank."""
    d = {"forensic": FORENSIC_DIM, "rigid": 1}.get(kind, 4)
    real, synthetic = rng.normal(size=(30, d)), rng.normal(size=(25, d)) + 1
    states = [
        fit_detector(kind, real, synthetic, rng=np.random.default_rng(seed), reader=_reader(kind)).state()
        for seed in (1, 2)
    ]
    assert states[0].settings == states[1].settings
    for name, tensor in states[0].tensors.items():
        np.testing.assert_array_equal(tensor, states[1].tensors[name])


def _reader(kind: str) -> str:
    return "rigid:univfd" if kind == "rigid" else ""


def test_banks_are_thinned_by_the_generator(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """More references than a bank holds are drawn without replacement; the seed decides which."""
    monkeypatch.setattr("poolproof.detectors.kinds.BANK", 20)
    real, synthetic = np.arange(50.0)[:, None], np.arange(10.0)[:, None]
    banks = [
        fit_detector("knn", real, synthetic, rng=np.random.default_rng(seed)).state().tensors
        for seed in (1, 1, 2)
    ]
    assert [len(bank["real"]) for bank in banks] == [20] * 3
    assert len(np.unique(banks[0]["real"])) == 20
    assert len(banks[0]["synthetic"]) == 10
    np.testing.assert_array_equal(banks[0]["real"], banks[1]["real"])
    assert (banks[0]["real"] != banks[2]["real"]).any()


@pytest.mark.parametrize("kind", [kind for kind, row in KINDS.items() if row.needs != "file"])
def test_bad_references_are_refused(kind: str, rng: np.random.Generator) -> None:
    """Missing, empty, equal, unequally wide and broken references give one line each."""
    d = {"forensic": FORENSIC_DIM, "rigid": 1}.get(kind, 4)
    real, synthetic = rng.normal(size=(12, d)), rng.normal(size=(12, d)) + 1
    both = KINDS[kind].needs == "both"

    def fit(*references: Any, **named: Any) -> Callable[[], object]:
        return lambda: fit_detector(kind, *references, rng=rng, reader=_reader(kind), **named)

    fit(real, synthetic)()
    one_line(fit(None, synthetic), "no real")
    one_line(fit(real[:0], synthetic), "no real")
    one_line(fit(np.ones((12, d)), np.ones((12, d))), "same features")
    broken = real.copy()
    broken[3, 0] = np.inf
    one_line(fit(broken, synthetic), "NaN or infinity")
    if both:
        one_line(fit(real), "no synthetic")
        one_line(fit(real, synthetic[:, :-1]), "width")
    if kind == "forensic":
        one_line(fit(real[:, :50], synthetic[:, :50]), "width")
    if kind == "rigid":
        one_line(fit(rng.normal(size=(12, 2))), "width")
    one_line(fit(real, synthetic, cheese=3), "setting cheese")
    one_line(fit(real, synthetic, threshold=np.nan), "threshold")
    assert (
        fit_detector(kind, real, synthetic, rng=rng, reader=_reader(kind), threshold=-0.25).threshold == -0.25
    )


def test_unknown_kinds_and_readers_of_another_kind_are_refused(rng: np.random.Generator) -> None:
    """The kind must be listed, and a kind that is tied to a reader takes no other."""
    real = rng.normal(size=(20, FORENSIC_DIM))
    one_line(lambda: fit_detector("oracle", real, real, rng=rng), "probe, knn")
    one_line(lambda: fit_detector("forensic", real, real + 1, reader="clip:a/b", rng=rng), "allowed forensic")
    one_line(lambda: fit_detector("rigid", real[:, :1], reader="forensic", rng=rng), "begins with rigid:")
    one_line(
        lambda: fit_detector("univfd", reader="forensic", path="x.pth", rng=rng), "ViT-L-14/openai@raw,crop"
    )
    one_line(lambda: fit_detector("univfd", rng=rng), "path=FILE")
    assert fit_detector("forensic", real, real + 1, rng=rng).reader == "forensic"
    assert fit_detector("probe", real, real + 1, reader="univfd", rng=rng).reader == PRESETS["univfd"]


def test_frozen_detectors_cannot_be_changed(fitted: Any) -> None:
    """A threshold is replaced in a copy, never in the detector that was counted on."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.detector.threshold = 1.0
    moved = dataclasses.replace(fitted.detector, threshold=3.5)
    np.testing.assert_array_equal(moved.score(fitted.real).values, fitted.detector.score(fitted.real).values)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, -2.5, 7.0, np.nan, np.inf, -np.inf, 1e300]), max_size=12))
def test_scores_fill_up_the_finite_rows(values: list[float]) -> None:
    """Split and filled again, finite rows keep their place; what no single precision holds is abstained from."""
    features = np.array(values)[:, None]
    rows, finite = split_finite(features)
    scores = fill_scores(rows[:, 0], finite)
    answered = np.array([np.isfinite(v) and abs(v) < 1e38 for v in values], dtype=bool)
    np.testing.assert_array_equal(scores.abstained, ~answered)
    np.testing.assert_array_equal(scores.values, np.where(answered, values, 0).astype(np.float32))


def test_states_are_read_with_care() -> None:
    """Missing, misshapen, broken and mistyped parts of a state give one line each."""
    state = DetectorState("knn", {"a": np.ones((2, 3)), "b": np.array([np.nan])}, {"k": 2.5, "t": 3})
    assert take_tensor(state, "a", None, 3, dtype=np.float32).dtype == np.float32
    assert take_setting(state, "t", float) == 3.0
    one_line(lambda: take_tensor(state, "c", 1), "with c")
    one_line(lambda: take_tensor(state, "a", 2, 4), "shape")
    one_line(lambda: take_tensor(state, "a", None), "shape")
    one_line(lambda: take_tensor(state, "b", 1), "NaN")
    one_line(lambda: take_setting(state, "k", int), "k = 2.5")
    one_line(lambda: take_setting(state, "none", str), "none = None")
    one_line(lambda: check_varied("x", np.ones((3, 2))), "same features")
