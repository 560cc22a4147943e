"""Loops on disk: stopped and continued, on one process or several, and what a damaged or foreign folder does."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolproof.errors import InputError
from poolproof.simulate import record, schedule, trained
from poolproof.simulate.generator import GeneratorDiverged
from poolproof.simulate.loop_spec import TrainedLoopSpec, parse_trained_loop
from poolproof.simulate.normal import NormalGenerator
from poolproof.simulate.real_data import load_real
from poolproof.simulate.record import Chain, lock_folder, make_chain, read_row
from poolproof.simulate.schedule import lay_data
from poolproof.simulate.setting import set_witness_apart
from poolproof.simulate.trained import TrainedStudy, run_trained

ARMS: list[Mapping[str, Any]] = [
    {"label": "synthetic", "n_synthetic": 40},
    {
        "label": "mixed",
        "n_fresh": 20,
        "n_fixed": 10,
        "n_synthetic": 30,
        "n_models": 2,
        "n_kept": 3,
        "mark_share": 0.5,
        "policy": {"kind": "ratio-cap", "max_ratio": 1.0, "flags": {"kind": "set", "tpr": 0.9, "fpr": 0.1}},
    },
]


def make_spec(n_generations: int = 4, **changes: Any) -> TrainedLoopSpec:
    """A spec of normal laws in the plane, which trains in no time."""
    table = {
        "title": "Normal laws",
        "data": {"kind": "normal", "n_reference": 200},
        "measure": {"features": "identity", "n_samples": 100},
        "mark": {"scheme": "shift", "amplitude": 0.5},
        "generator": {"kind": "normal"},
        "arms": ARMS,
        "seeds": 2,
        "n_generations": n_generations,
        **changes,
    }
    return parse_trained_loop(table)


def run(spec: TrainedLoopSpec, out: Path, **options: Any) -> TrainedStudy:
    """What the spec gives, on this process."""
    return run_trained(spec, out, n_workers=options.pop("n_workers", 1), **options)


@pytest.fixture(autouse=True)
def plain_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the page and its charts, but where a test looks at them."""
    if "with_page" not in request.fixturenames:
        monkeypatch.setattr(trained, "write_loop", lambda document, table, strips, out: [])


@pytest.fixture
def with_page() -> None:
    """Asks for the page."""


def chain_of(spec: TrainedLoopSpec, out: Path, arm: int) -> Chain:
    """Where the generations of an arm's first seed lie."""
    return make_chain(out, spec, spec.arms[arm], spec.seeds[0], load_real(spec.data).digest())


def figures(study: TrainedStudy) -> pd.DataFrame:
    """The table without its times."""
    return study.table.drop(columns=["fit_seconds", "sample_seconds"])


@pytest.mark.usefixtures("with_page")
def test_a_loop_writes_tables_document_and_page(tmp_path: Path) -> None:
    """The folder holds one row per arm, seed and generation, the document with its manifest, and the page."""
    study = run(make_spec(), tmp_path)
    table = pd.read_parquet(tmp_path / "generations.parquet")
    assert len(table) == 2 * 2 * 4
    assert (table["status"] == "done").all()
    document = json.loads((tmp_path / "loop.json").read_text())
    assert document["kind"] == "trained"
    assert document["spec"]["arms"][1]["policy"]["kind"] == "RatioCap"
    assert document["manifest"]["data_sha256"]
    assert document["reference"]["halves"]["precision"] > 0.8
    assert document["failed"] == []
    assert study.paths[-1] == tmp_path / "loop.html"
    page = study.paths[-1].read_text()
    assert "mixed" in page
    mixed = table[(table["arm"] == "mixed") & (table["generation"] > 1)]
    assert mixed["flag_tpr"].mean() == pytest.approx(0.9, abs=0.1)
    assert (table.loc[table["generation"] == 1, "n_synthetic"] == 0).all()


def test_stopped_and_continued_loops_give_the_same_table(tmp_path: Path) -> None:
    """Two generations, then four more, another seed and another arm, equal one run of everything."""
    first = make_spec(2, seeds=1, arms=ARMS[1:])
    run(first, tmp_path / "parts")
    done: list[int] = []
    study = run(make_spec(4), tmp_path / "parts", on_generation=done.append)
    assert len(done) == 2 * 2 * 4 - 2
    whole = run(make_spec(4), tmp_path / "whole")
    pd.testing.assert_frame_equal(figures(study), figures(whole))
    again = run(
        make_spec(4), tmp_path / "parts", on_generation=lambda n: pytest.fail("nothing was left to do")
    )
    pd.testing.assert_frame_equal(figures(again), figures(whole))


def test_a_generation_cut_off_in_the_middle_is_done_again(tmp_path: Path) -> None:
    """Without its row a generation does not count, whatever else lies there."""
    spec = make_spec(3, seeds=1)
    whole = run(spec, tmp_path, keep_models=True)
    last = chain_of(spec, tmp_path, 1).generation_folder(3)
    (last / record.ROW).unlink()
    (last / "model.safetensors").write_bytes(b"half of it")
    pd.testing.assert_frame_equal(figures(run(spec, tmp_path)), figures(whole))


@pytest.mark.slow
def test_processes_do_not_change_the_table(tmp_path: Path) -> None:
    """Two processes give the bytes of one."""
    one = run(make_spec(3), tmp_path / "one")
    two = run(make_spec(3), tmp_path / "two", n_workers=2)
    pd.testing.assert_frame_equal(figures(one), figures(two))


def test_weights_are_kept_only_where_asked_or_needed(tmp_path: Path) -> None:
    """Models that no later generation draws from are removed, unless the user keeps all."""
    run(make_spec(4, seeds=1), tmp_path / "lean")
    run(make_spec(4, seeds=1), tmp_path / "all", keep_models=True)
    spec = make_spec(4, seeds=1)
    kept = [
        len(list(chain_of(spec, tmp_path / "lean", arm).folder.glob("*/model.safetensors"))) for arm in (0, 1)
    ]
    assert kept == [1, 2]
    assert len(list(tmp_path.glob("all/runs/*/*/model.safetensors"))) == 8


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A finished generation whose weights are broken stops the loop with one line."""
    run(make_spec(2, seeds=1), tmp_path)
    folder = chain_of(make_spec(2, seeds=1), tmp_path, 0).generation_folder(2)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"generation-0002/model\.safetensors'?, missing or damaged"):
        run(make_spec(3, seeds=1), tmp_path)


def test_a_folder_of_another_spec_is_refused(tmp_path: Path) -> None:
    """Generations of another spec in a chain's folder are never gone on from."""
    spec = make_spec(2, seeds=1)
    run(spec, tmp_path)
    path = sorted(tmp_path.glob("runs/*/spec.json"))[0]
    identity = json.loads(path.read_text())
    path.write_text(json.dumps(identity | {"seed": 7}))
    with pytest.raises(InputError, match="generations of another spec"):
        run(spec, tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="generations of another spec"):
        run(spec, tmp_path)


def test_other_options_get_a_folder_of_their_own(tmp_path: Path) -> None:
    """What decides a generation decides the name of its folder; a label does not."""
    spec = make_spec()
    names = set()
    for arm in (
        ARMS[0],
        {**ARMS[0], "label": "Another name"},
        {**ARMS[0], "sampling_bias": 0.9},
        {**ARMS[0], "n_initial": 50},
    ):
        changed = make_spec(arms=[arm])
        names.add(make_chain(tmp_path, changed, changed.arms[0], 0, "abc").folder.name)
    assert len(names) == 3
    same = make_chain(tmp_path, spec, spec.arms[0], 0, "abc").folder
    assert make_chain(tmp_path, make_spec(9), make_spec(9).arms[0], 0, "abc").folder == same
    assert make_chain(tmp_path, spec, spec.arms[0], 0, "other data").folder != same


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the command ends in one line, and goes on when there is room."""
    write, calls = record.write_generation, []

    def write_until_full(chain: Any, generation: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(chain, generation)

    spec = make_spec(4, seeds=1, arms=ARMS[:1])
    monkeypatch.setattr(schedule, "write_generation", write_until_full)
    with pytest.raises(
        InputError, match=r"No space left on device.*2 generations of 'synthetic' are finished"
    ):
        run(spec, tmp_path)
    monkeypatch.setattr(schedule, "write_generation", write)
    pd.testing.assert_frame_equal(figures(run(spec, tmp_path)), figures(run(spec, tmp_path / "whole")))


def test_failed_generations_are_told_and_the_other_arms_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that diverges ends its arm; table, document and page say why, and nothing is run again."""
    fit = NormalGenerator.fit

    def fail_small(self: NormalGenerator, images: np.ndarray, *args: Any, **options: Any) -> NormalGenerator:
        if len(images) == 40 and abs(float(images.mean())) > 1e-9 and fail_small.calls >= 2:  # type: ignore[attr-defined]
            raise GeneratorDiverged("loss is not finite")
        fail_small.calls += 1  # type: ignore[attr-defined]
        return fit(self, images, *args, **options)

    fail_small.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(NormalGenerator, "fit", fail_small)
    spec = make_spec(4, seeds=1)
    study = run(spec, tmp_path)
    assert study.document["failed"] == [
        {"arm": "synthetic", "seed": 0, "generation": 3, "why": "diverged: loss is not finite"}
    ]
    statuses = study.table.groupby("arm")["status"].apply(list).to_dict()
    assert statuses == {"mixed": ["done"] * 4, "synthetic": ["done", "done", "failed"]}
    chain = make_chain(tmp_path, spec, spec.arms[0], 0, study.document["manifest"]["data_sha256"])
    assert read_row(chain, 3) is not None
    run(spec, tmp_path, on_generation=lambda n: pytest.fail("a failed arm was run again"))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A folder that is being written is refused to a second process."""
    with lock_folder(tmp_path), pytest.raises(InputError, match="another process is writing"):
        run(make_spec(), tmp_path)


@pytest.mark.theory
def test_effective_size_of_a_normal_law_is_its_own_number(tmp_path: Path) -> None:
    """A loop without synthetic data is worth the real samples it uses, and one with many is worth more."""
    spec = make_spec(
        4,
        seeds=5,
        arms=[
            {"label": "real alone", "n_fresh": 60},
            {"label": "with synthetic", "n_fresh": 60, "n_synthetic": 60},
        ],
        effective_size={"n_real": [15, 30, 60, 120, 240], "last": 2},
        measure={"features": "identity", "n_samples": 400},
        data={"kind": "normal", "dim": 5, "n_reference": 1000},
        mark={"scheme": "shift", "amplitude": 1},
    )
    study = run(spec, tmp_path)
    sizes = {row["arm"]: row for row in study.document["effective_size"]["arms"]}
    alone = sizes["real alone"]
    assert alone["lower"] <= 1 <= alone["upper"]
    assert sizes["with synthetic"]["ratio"] > alone["ratio"]
    assert len(study.document["effective_size"]["curve"]) == 5
    assert study.table["n_e"].notna().any()
    assert "real_only" not in json.dumps(study.document["rows"])


@pytest.mark.theory
def test_sampling_bias_of_the_measuring_costs_no_real_samples(tmp_path: Path) -> None:
    """n_e compares models: an arm that samples with a bias and learns from real data alone is worth its real data."""
    spec = make_spec(
        4,
        seeds=5,
        arms=[{"label": "curve", "n_fresh": 60}, {"label": "biased", "n_fresh": 60, "sampling_bias": 0.5}],
        effective_size={"n_real": [15, 30, 60, 120, 240], "last": 2},
        measure={"features": "identity", "n_samples": 400},
        data={"kind": "normal", "dim": 5, "n_reference": 1000},
        mark={"scheme": "shift", "amplitude": 1},
    )
    study = run(spec, tmp_path)
    biased = study.document["effective_size"]["arms"][1]
    assert biased["lower"] <= 1 <= biased["upper"]
    rows = study.table[study.table["arm"] == "biased"]
    assert (rows["frechet_distance"] > 1.4 * rows["model_distance"]).mean() > 0.8


def test_one_seed_gives_no_verdict(tmp_path: Path) -> None:
    """Without an error of the loop its n_e has no interval, and the reason is told."""
    spec = make_spec(
        3, seeds=1, arms=[{"label": "a", "n_fresh": 60}], effective_size={"n_real": [30, 60, 120], "last": 1}
    )
    sizes = run(spec, tmp_path).document["effective_size"]
    assert sizes["arms"] == []
    assert "one seed" in sizes["why"]


def test_equal_arms_share_their_work_under_any_label(tmp_path: Path) -> None:
    """Arms of the same options are run once, whatever their labels are, and so is the start of the curve."""
    done: list[int] = []
    arms = [
        {"label": "Control", "n_fresh": 60},
        {"label": "control!", "n_fresh": 60},
        {"label": "\u5bf9", "n_fresh": 60},
    ]
    spec = make_spec(3, seeds=2, arms=arms, effective_size={"n_real": [30, 60], "last": 1})
    study = run(spec, tmp_path, on_generation=done.append)
    assert len(done) == 2 * (3 + 1)
    assert study.table.groupby("arm")["frechet_distance"].nunique().tolist() == [6, 6, 6]


def test_lack_of_memory_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation that failed for want of memory is run again by the same command."""
    spec = make_spec(2, seeds=1, arms=ARMS[:1])
    with monkeypatch.context() as patch:

        def fail(*args: Any, **options: Any) -> None:
            raise MemoryError

        patch.setattr(NormalGenerator, "fit", fail)
        assert run(spec, tmp_path).document["failed"][0]["why"].startswith("out of memory")
    assert run(spec, tmp_path).document["failed"] == []


def test_policies_learn_from_real_items_that_nothing_is_measured_against() -> None:
    """A quarter of the reference is set apart where an arm has a policy, and none where there is none."""
    spec = make_spec(2, data={"kind": "digits"}, arms=ARMS[1:], mark={"scheme": "presence"}, measure={})
    data = load_real(spec.data)
    rest, witness = set_witness_apart(spec, data)
    assert (len(witness), len(rest.reference)) == (224, 674)
    together = {each.tobytes() for each in witness} & {each.tobytes() for each in rest.reference}
    assert not together
    plain = make_spec(2, arms=ARMS[:1])
    assert len(set_witness_apart(plain, data)[1]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effective_size": {"n_real": [30, 60], "last": 4}}, "effective_size.last: got 4 of 4 generations"),
        ({"arms": [{**ARMS[0], "mark_share": 1.0, "mark_generations": [9]}]}, "mark_generations: got 9"),
        (
            {"arms": [{**ARMS[0], "policy": {"kind": "drop-flagged", "flags": {"kind": "mark"}}}]},
            "policy.flags: got 'mark'",
        ),
        ({"measure": {"features": "identity", "n_samples": 10, "k": 10}}, "measure.k: got 10 for 10 samples"),
        ({"measure": {"features": "identity", "n_samples": 2**62}}, "n_samples: got"),
        ({"seeds": 10**9}, "seeds: got 1000000000"),
        ({"data": {"kind": "normal", "dim": 10**8}}, "dim: got 100000000"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    changes: Mapping[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes of a spec are told at once, not after the first generation."""
    monkeypatch.setattr(schedule, "run_generation", lambda *args: pytest.fail("a generation was run"))
    with pytest.raises(InputError, match=message):
        run(make_spec(4, **changes), tmp_path)


def test_damaged_shared_data_are_named(tmp_path: Path) -> None:
    """Files that all workers share are refused in one line when they are cut."""
    spec = make_spec(
        2,
        seeds=1,
        data={"kind": "digits"},
        generator={"kind": "flow", "n_epochs": 1, "hidden": 8, "n_layers": 2},
        arms=[{"label": "a", "n_synthetic": 60}],
        mark={"scheme": "presence"},
        measure={"classifier": {"n_epochs": 2, "width": 8}},
    )
    lay_data(tmp_path, spec, load_real(spec.data))
    for name in ("supply.npy", "data.json", next(tmp_path.glob("data/*.safetensors")).name):
        path = tmp_path / "data" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="damaged"):
            run(spec, tmp_path)
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["normal", "gmm"])
def test_a_law_of_points_is_refused_before_a_classifier_learns_from_images(kind: str, tmp_path: Path) -> None:
    """What the data alone rule out costs no training, and leaves no data behind."""
    arms = [{"label": "only", "n_initial": 100, "n_synthetic": 50}]
    spec = parse_trained_loop({"data": {"kind": "digits"}, "generator": {"kind": kind}, "arms": arms})
    with pytest.raises(
        InputError, match="Generator in 'only' for images, allowed one that learns from images"
    ):
        run(spec, tmp_path)
    assert not (tmp_path / "data").exists()
