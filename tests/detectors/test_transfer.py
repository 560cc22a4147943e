"""Tests of leaving generators out: right fits, right counts, and the gap that an unknown generator makes."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Float
from toy_detectors import Direction, fit_direction

from poolproof.detectors.roc import area_under_curve
from poolproof.detectors.transfer import transfer
from poolproof.errors import InputError, UnreliableEstimate

D = 6


def generator(rng: np.random.Generator, n: int, *axes: int) -> np.ndarray:
    """Return n items that differ from real ones along some axes."""
    items = rng.normal(size=(n, D))
    items[:, list(axes)] += 3.0
    return items


def test_a_generator_of_its_own_kind_is_lost_when_left_out() -> None:
    """Generators that share traces carry each other; one with traces of its own is found only when known."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=(200, D))
    sets = {"a": generator(rng, 60, 0, 1), "b": generator(rng, 70, 0, 1), "odd": generator(rng, 80, 3, 4)}
    found = transfer(real, sets, rng=rng)
    by_name = {each.name: each for each in found.generators}
    assert list(by_name) == ["a", "b", "odd"]
    assert [each.known[1] for each in found.generators] == [60, 70, 80]
    assert [each.left_out[1] for each in found.generators] == [60, 70, 80]
    assert by_name["a"].left_out[0] > 50
    assert by_name["odd"].known[0] > 65
    assert by_name["odd"].left_out[0] < 20
    assert by_name["odd"].left_out_auc.upper < by_name["odd"].known_auc.lower
    assert found.worst.name == "odd"
    assert found.best.name in ("a", "b")
    assert found.fpr[1] == 200
    assert found.too_few == {}


def test_each_fit_sees_what_it_should() -> None:
    """`folds` fits hold a fold out, one more per generator holds that generator and a fold of real ones out."""
    rng, calls = np.random.default_rng(2), []
    real = rng.normal(size=(50, D))
    sets = {name: generator(rng, n, 0) for name, n in (("a", 20), ("b", 30), ("few", 7))}

    def fit(
        real: Float[np.ndarray, "r d"], synthetic: Float[np.ndarray, "s d"], rng: np.random.Generator
    ) -> Direction:
        detector = fit_direction(real, synthetic, rng)
        calls.append((real, synthetic, detector))
        return detector

    found = transfer(real, sets, fit=fit, rng=rng)
    assert len(calls) == 5 + 2
    assert [(len(r), len(s)) for r, s, _ in calls[5:]] == [(40, 37), (40, 27)]
    assert all(len(r) == 40 for r, _, _ in calls[:5])
    assert sum(57 - len(s) for _, s, _ in calls[:5]) == 57
    assert found.too_few == {"few": 7}
    for each, (seen, others, detector) in zip(found.generators, calls[5:], strict=True):
        own = sets[each.name]
        assert not {row.tobytes() for row in own} & {row.tobytes() for row in others}
        held_out = np.array([row for row in real if row.tobytes() not in {r.tobytes() for r in seen}])
        new, old = (detector.score(x).values - detector.threshold for x in (own, held_out))
        assert each.left_out == ((new > 0).sum(), len(own))
        assert each.left_out_fpr == ((old > 0).sum(), 10)
        expected = area_under_curve(old.astype(np.float32), new.astype(np.float32))
        assert each.left_out_auc.point == pytest.approx(expected.point)


def test_the_same_seed_gives_the_same_figures() -> None:
    """Equal generators of random numbers give equal results."""
    rng = np.random.default_rng(3)
    real, sets = rng.normal(size=(40, D)), {name: generator(rng, 20, 0) for name in "ab"}
    first, second = (transfer(real, sets, fit=fit_direction, rng=np.random.default_rng(1)) for _ in range(2))
    assert first == second


def test_broken_items_are_left_out() -> None:
    """Rows that are not finite are in no fit and no count; a generator of nothing else has too few."""
    rng = np.random.default_rng(4)
    real, sets = rng.normal(size=(40, D)), {name: generator(rng, 20, 0) for name in "abc"}
    sets["a"][:3] = np.nan
    sets["c"][:] = np.inf
    found = transfer(real, sets, fit=fit_direction, rng=rng)
    assert [each.left_out[1] for each in found.generators] == [17, 20]
    assert found.too_few == {"c": 0}


def test_bad_input_is_named() -> None:
    """One generator, too few real references, unequal widths and one fold are refused."""
    rng = np.random.default_rng(5)
    real, sets = rng.normal(size=(40, D)), {name: generator(rng, 20, 0) for name in "ab"}
    with pytest.raises(UnreliableEstimate, match=r"^generators: got 1 with 10 finite items"):
        transfer(real, {"a": sets["a"], "b": sets["b"][:9]}, rng=rng)
    with pytest.raises(UnreliableEstimate, match=r"^real: got 9 references"):
        transfer(real[:9], sets, rng=rng)
    with pytest.raises(InputError, match=r"^real, generators\['b'\]: got 6 and 4 features"):
        transfer(real, {"a": sets["a"], "b": sets["b"][:, :4]}, rng=rng)
    with pytest.raises(InputError, match=r"^folds: "):
        transfer(real, sets, folds=1, rng=rng)
