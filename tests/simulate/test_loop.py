"""Loops of trained generators against the exact theory, and what each generation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from poolproof.errors import InputError
from poolproof.simulate import loop
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.loop import extend_history, generations, run_generation
from poolproof.simulate.loop_pool import History, draw_synthetic, gather_pool, stream, take_real
from poolproof.simulate.loop_spec import TrainedLoopSpec, parse_trained_loop
from poolproof.simulate.real_data import RealData, load_real
from poolproof.simulate.setting import Setting, prepare_setting
from poolproof.simulate.theory import (
    augmentation_moments,
    fresh_moments,
    fully_synthetic_w2_1d,
    mark_drift,
)
from poolproof.simulate.yardstick import point_yardstick


def make_setting(arm: Mapping[str, Any], **options: Any) -> Setting:
    """The setting of one arm of normal laws in one dimension."""
    table = {
        "data": {"kind": "normal", "dim": 1, "n_reference": 20},
        "measure": {"features": "identity", "n_samples": 20},
        "generator": {"kind": "normal"},
        "arms": [{"label": "only", **arm}],
        "n_generations": 6,
        **options,
    }
    return setting_of(parse_trained_loop(table))


def setting_of(spec: TrainedLoopSpec) -> Setting:
    """The setting of a spec of normal laws, measured as they are."""
    data = load_real(spec.data)
    law = Gaussian.standard(spec.data.dim)
    return prepare_setting(spec, data, point_yardstick(data.reference, law=law))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what is measured of samples, which the theory of models does not need."""
    monkeypatch.setattr(loop, "measure_samples", lambda samples, labels, yardstick: {})


def run_models(setting: Setting, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of the models, by seed and generation."""
    means, variances = [], []
    for seed in range(n_seeds):
        models: list[Any] = [each.model for each in generations(setting, setting.spec.arms[0], seed)]
        means.append([float(model.mean[0]) for model in models])
        variances.append([float(model.factor[0, 0] ** 2) for model in models])
    return np.array(means), np.array(variances)


def agrees(values: np.ndarray, expected: np.ndarray, n_errors: float = 4.0) -> bool:
    """Whether means over seeds are within some standard errors of what theory says."""
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return bool((np.abs(values.mean(axis=0) - expected) <= n_errors * errors).all())


@pytest.mark.theory
@pytest.mark.usefixtures("unmeasured")
def test_fully_synthetic_loop_follows_the_closed_form() -> None:
    """The mean squared W2 distance of a 1-D loop without bias has its exact expectation in every generation."""
    means, variances = run_models(make_setting({"n_synthetic": 30}), 250)
    distance = means**2 + (1 - np.sqrt(variances)) ** 2
    assert agrees(distance, fully_synthetic_w2_1d(30, 1.0, 6)[1:])


@pytest.mark.theory
@pytest.mark.usefixtures("unmeasured")
def test_sampling_bias_shrinks_each_generation_by_its_own_factor() -> None:
    """The bias of a generation is that of its samples, so the variance of the next is its product with all before."""
    setting = make_setting({"n_synthetic": 30, "sampling_bias": [0.9, 0.5]}, n_generations=4)
    _, variances = run_models(setting, 250)
    assert agrees(variances, np.array([1.0, 0.9, 0.45, 0.225]))


@pytest.mark.theory
@pytest.mark.usefixtures("unmeasured")
def test_fresh_loop_follows_the_recursion_from_its_first_fit() -> None:
    """Variance and mean error of a fresh-data loop have the moments of the exact recursion."""
    setting = make_setting({"n_fresh": 10, "n_synthetic": 30, "sampling_bias": 0.9, "n_initial": 20})
    means, variances = run_models(setting, 250)
    moments = fresh_moments(10, 30, 0.9, 6, n_initial=20)
    assert agrees(variances, moments.variance[1:])
    assert agrees(means**2, moments.mean_error[1:])


@pytest.mark.theory
@pytest.mark.usefixtures("unmeasured")
def test_augmentation_loop_keeps_its_real_data() -> None:
    """Variance and mean error of a loop with fixed real data have the moments of the exact recursion."""
    means, variances = run_models(make_setting({"n_fixed": 15, "n_synthetic": 30}), 250)
    moments = augmentation_moments(15, 30, 1.0, 6)
    assert agrees(variances, moments.variance[1:])
    assert agrees(means**2, moments.mean_error[1:])


@pytest.mark.theory
@pytest.mark.usefixtures("unmeasured")
def test_mark_drifts_by_the_closed_form() -> None:
    """A shift written into all synthetic points of a fresh-data loop adds up to n_synthetic over n_real times it."""
    setting = make_setting(
        {"n_fresh": 20, "n_synthetic": 60, "mark_share": 1.0}, mark={"scheme": "shift", "amplitude": 0.5}
    )
    means, _ = run_models(setting, 250)
    assert agrees(means, mark_drift(20, 60, 0.5, 5))


def test_control_shares_real_data_and_draws_with_the_marked_arm() -> None:
    """Arms of a seed see the same real items and the same noise, so that their difference is the mark's."""
    mark = {"scheme": "shift", "amplitude": 0.5}
    marked = make_setting({"n_synthetic": 40, "mark_share": 1.0}, mark=mark)
    control = make_setting({"n_synthetic": 40}, mark=mark)
    pairs = zip(
        generations(marked, marked.spec.arms[0], 3),
        generations(control, control.spec.arms[0], 3),
        strict=True,
    )
    for number, (with_mark, without) in enumerate(pairs):
        difference = with_mark.model.mean[0] - without.model.mean[0]  # type: ignore[union-attr]
        assert difference == pytest.approx(0.5 * number, abs=1e-9)


def test_real_items_follow_one_order_without_repeats_until_used_up() -> None:
    """Fixed items are the first of a seed's order, fresh ones those that follow, and repeats are counted."""
    supply = np.arange(60, dtype=np.float64)[:, None] + 0.5
    data = RealData(supply, None, np.arange(100, dtype=np.float64)[:, None], None)
    spec = make_setting({"n_fixed": 10, "n_fresh": 15, "n_synthetic": 5, "n_initial": 20}).spec
    setting = Setting(spec, data, point_yardstick(data.reference), None, data.reference[:0])
    arm = spec.arms[0]
    first, part, n_repeated = gather_pool(setting, arm, 4, 1, History())
    assert (len(first), part, n_repeated) == (20, None, 0)
    model = arm.generator.fit(first.images, None, rng=stream(4, 1, "fit"))
    seen: list[float] = []
    repeats = []
    for number in (2, 3, 4):
        pool, part, n_repeated = gather_pool(setting, arm, 4, number, History((model,)))
        assert part is not None
        assert pool.counts() == {"fresh": 15, "fixed": 10, "synthetic": 5}
        np.testing.assert_array_equal(pool.images[15:25], first.images[:10])
        seen += pool.images[:15, 0].tolist()
        repeats.append(n_repeated)
    assert len(set(seen[:40])) == 40
    assert not set(seen[:40]) & set(first.images[:, 0].tolist())
    assert repeats == [0, 0, 5]
    again, _ = take_real(data, 4, 0, 60)
    assert sorted(again[:, 0].tolist()) == supply[:, 0].tolist()


def test_order_of_a_law_does_not_depend_on_how_much_is_taken() -> None:
    """Item i of a law is the same whether it is taken alone or with others, also across blocks."""
    data = load_real(make_setting({"n_synthetic": 10}).spec.data)
    whole, _ = take_real(data, 1, 0, 9000)
    piece, _ = take_real(data, 1, 4000, 500)
    np.testing.assert_array_equal(whole[4000:4500], piece)
    other, _ = take_real(data, 2, 0, 10)
    assert not np.array_equal(whole[:10], other)


def test_memory_of_models_and_kept_samples() -> None:
    """Synthetic samples come from the last K models in equal parts, and those of earlier generations stay."""
    setting = make_setting({"n_fixed": 5, "n_synthetic": 12, "n_models": 3, "n_kept": 2})
    arm = setting.spec.arms[0]
    history = History()
    sizes = []
    for number in range(1, 6):
        generation = run_generation(setting, arm, 0, number, history)
        sizes.append((len(history.models), generation.row["n_synthetic"]))
        history = extend_history(history, generation, arm)
        assert len(history.kept) <= 1
    assert sizes == [(0, 0), (1, 12), (2, 24), (3, 24), (3, 24)]
    everything = make_setting({"n_fixed": 5, "n_synthetic": 12, "n_kept": "all"})
    counts = [each.row["n_synthetic"] for each in generations(everything, everything.spec.arms[0], 0)]
    assert counts == [0, 12, 24, 36, 48, 60]


def test_marks_are_written_into_a_share_of_chosen_generations() -> None:
    """The share and the generations of the mark are those that the arm names."""
    setting = make_setting(
        {"n_synthetic": 40, "mark_share": 0.25, "mark_generations": [1, 3]},
        mark={"scheme": "shift", "amplitude": 100.0},
    )
    rows = [each.row["n_marked"] for each in generations(setting, setting.spec.arms[0], 0)]
    assert rows == [0, 10, 0, 10, 0, 0]
    arm = setting.spec.arms[0]
    model = arm.generator.fit(np.zeros((5, 1)) + np.arange(5)[:, None], None, rng=stream(0, 1, "fit"))
    part = draw_synthetic(setting, arm, 0, 2, [model])
    assert (part.images[part.is_marked, 0] > 50).all()
    assert (part.images[~part.is_marked, 0] < 50).all()


def test_subsample_and_weights_reach_the_generator() -> None:
    """A subsample has the asked size, and a weight of 0 leaves a source out."""
    setting = make_setting({"n_fresh": 30, "n_synthetic": 70, "n_subsample": 40})
    for each in list(generations(setting, setting.spec.arms[0], 0))[1:]:
        assert each.row["n_fresh"] + each.row["n_synthetic"] == 40
    without = make_setting({"n_fresh": 30, "n_synthetic": 70, "weight_synthetic": 0.0, "n_initial": 30})
    alone = make_setting({"n_fresh": 30, "n_initial": 30})
    for a, b in zip(
        generations(without, without.spec.arms[0], 0), generations(alone, alone.spec.arms[0], 0), strict=True
    ):
        assert a.model.mean[0] == pytest.approx(b.model.mean[0])  # type: ignore[union-attr]


def test_a_generation_that_diverges_is_recorded_and_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed generation has its reason, those before stay, and none follows."""
    from poolproof.simulate.normal import NormalGenerator

    fit, calls = NormalGenerator.fit, []

    def fail_third(self: NormalGenerator, *args: Any, **options: Any) -> NormalGenerator:
        calls.append(1)
        if len(calls) == 3:
            raise GeneratorDiverged("loss of nan at step 7")
        return fit(self, *args, **options)

    monkeypatch.setattr(NormalGenerator, "fit", fail_third)
    setting = make_setting({"n_synthetic": 30})
    rows = [each.row for each in generations(setting, setting.spec.arms[0], 0)]
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert rows[-1]["why"] == "diverged: loss of nan at step 7"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
    ],
)
def test_lack_of_memory_is_a_failed_generation(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that does not suffice is recorded; any other error of the program keeps its traceback."""
    from poolproof.simulate.normal import NormalGenerator

    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(NormalGenerator, "fit", fail)
    setting = make_setting({"n_synthetic": 30})
    row = next(iter(generations(setting, setting.spec.arms[0], 0))).row
    assert (row["status"], row["why"].startswith(why)) == ("failed", True)

    def break_down(*args: Any, **options: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(NormalGenerator, "fit", break_down)
    with pytest.raises(RuntimeError, match="mat1"):
        next(iter(generations(setting, setting.spec.arms[0], 0)))


def test_policy_that_keeps_too_little_is_a_failed_generation() -> None:
    """A pool that a policy empties cannot be trained on; the record says why."""
    setting = make_setting(
        {
            "n_synthetic": 30,
            "policy": {"kind": "drop-flagged", "flags": {"kind": "set", "tpr": 1.0, "fpr": 0.0}},
        }
    )
    rows = [each.row for each in generations(setting, setting.spec.arms[0], 0)]
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert "0 of 30 samples kept" in rows[1]["why"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": {"kind": "diffusion"}}, "DiffusionGenerator in 'only' for points"),
        ({"generator": {"kind": "gan"}}, "GanGenerator in 'only' for points"),
    ],
)
def test_generators_for_other_data_are_refused(change: Mapping[str, Any], message: str) -> None:
    """Before anything is trained, a generator of images is refused for points."""
    with pytest.raises(InputError, match=message):
        make_setting({"n_synthetic": 30}, **change)


def test_more_real_items_than_there_are_is_refused() -> None:
    """The first model cannot learn from more real items than the supply has."""
    spec = make_setting({"n_fixed": 100, "n_synthetic": 5}).spec
    data = RealData(np.zeros((60, 1)), None, np.arange(40.0)[:, None], None)
    with pytest.raises(InputError, match="got 100 real samples for a model of 'only'"):
        prepare_setting(spec, data, point_yardstick(data.reference))
