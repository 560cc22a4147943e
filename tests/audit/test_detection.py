"""Detectors on their own: fitted on pools, tried on pools, used by an audit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_pools import write_class, write_mixed

from poolproof.audit import figures as audit_figures
from poolproof.audit.detection import FitSpec, TrySpec, evaluate_on_pools, fit_on_pools, score_pool
from poolproof.audit.run import audit_pool
from poolproof.audit.spec import AuditSpec
from poolproof.errors import InputError, UnreliableEstimate


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References to fit on, and others to try a detector on."""
    folder = tmp_path_factory.mktemp("pools")
    write_class(folder / "real", 100, synthetic=False, seed=1)
    write_class(folder / "synthetic", 100, synthetic=True, seed=2)
    write_class(folder / "other-real", 60, synthetic=False, seed=3)
    write_class(folder / "other-synthetic", 60, synthetic=True, seed=4)
    write_mixed(folder / "pool", 30, 30, seed=5)
    return folder


def spec(pools: Path, out: Path, **options: object) -> FitSpec:
    """A fit on the module's references."""
    given = {"real": str(pools / "real"), "synthetic": str(pools / "synthetic"), "embedder": "forensic"}
    return FitSpec(out, **(given | {"workers": 0} | options))  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def fitted(pools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe fitted on the references."""
    out = tmp_path_factory.mktemp("fitted") / "probe"
    fit_on_pools(spec(pools, out))
    return out


def tried(pools: Path, detector: Path, out: Path) -> TrySpec:
    """A trial on images that the detector has not seen."""
    named = {"real": str(pools / "other-real"), "synthetic": str(pools / "other-synthetic")}
    return TrySpec(out, detector, named, workers=0)


def test_figures_are_those_of_held_out_references(fitted: Path) -> None:
    """Three in ten references are held out and counted; the others are marked as learnt from."""
    figures = json.loads((fitted / "figures.json").read_text())
    assert (figures["n_real"], figures["n_synthetic"]) == (30, 30)
    assert figures["auc"]["lower"] > 0.8
    assert figures["tpr"]["lower"] <= figures["tpr"]["point"] <= figures["tpr"]["upper"]
    assert figures["tpr_at_fpr"][0]["why"].startswith("30 real references cannot show")
    table = pq.read_table(fitted / "references.parquet").to_pylist()
    assert len(table) == 200
    assert sum(row["fitted"] for row in table) == 140
    held = [row["score"] for row in table if row["class"] == "real" and not row["fitted"]]
    assert figures["fpr"]["point"] == pytest.approx(np.mean(np.array(held) > figures["threshold"]))


def test_trial_agrees_with_the_held_out_figures(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """On new images of the same kinds the rates lie near those measured when fitting."""
    figures = evaluate_on_pools(tried(pools, fitted, tmp_path / "try"))
    assert (figures["n_real"], figures["n_synthetic"], figures["known"]) == (60, 60, 0)
    assert figures["auc"]["point"] > 0.85
    rows = pq.read_table(tmp_path / "try" / "scores.parquet").to_pylist()
    flagged = [row["score"] > figures["threshold"] for row in rows if row["class"] == "synthetic"]
    assert figures["tpr"]["point"] == pytest.approx(np.mean(flagged))
    assert figures["roc"]["fpr"][-1] == figures["roc"]["tpr"][-1] == 1.0


def test_what_it_learnt_from_is_left_out(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """Tried on its own references a detector is judged by those held out alone."""
    again = replace(
        tried(pools, fitted, tmp_path / "try"),
        pools={"real": str(pools / "real"), "synthetic": str(pools / "synthetic")},
    )
    figures = evaluate_on_pools(again)
    assert (figures["n_real"], figures["n_synthetic"], figures["known"]) == (30, 30, 140)


def test_scores_have_p_values_of_held_out_references(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """Every image has a score; p-values are ranks among thirty real references, small where synthetic."""
    counts = score_pool(TrySpec(tmp_path / "s", fitted, {"pool": str(pools / "pool")}, workers=0))
    assert (counts["items"], counts["scored"], counts["references"]) == (60, 60, 30)
    rows = pq.read_table(tmp_path / "s" / "scores.parquet").to_pylist()
    assert sum(row["flagged"] for row in rows) == counts["flagged"]
    p_values = {row["key"]: row["p_value"] for row in rows}
    assert all(np.isclose(p * 31, round(p * 31)) for p in p_values.values())
    synthetic = np.median([p for key, p in p_values.items() if key.startswith("s")])
    assert synthetic < 0.2 < np.median([p for key, p in p_values.items() if key.startswith("r")])


@pytest.mark.slow
def test_an_audit_takes_a_saved_detector(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """The share by a saved detector, calibrated on other references, holds the truth; its own are left out."""
    report = audit_pool(
        AuditSpec(
            str(pools / "pool"),
            tmp_path / "run",
            real=str(pools / "other-real"),
            synthetic=str(pools / "other-synthetic"),
            detector=str(fitted),
            workers=0,
        )
    )
    assert report["share"]["lower"] <= 0.5 <= report["share"]["upper"]
    assert report["tiers"]["detected"]["detector"] == "probe"
    known = audit_pool(
        AuditSpec(
            str(pools / "pool"),
            tmp_path / "again",
            real=str(pools / "real"),
            synthetic=str(pools / "synthetic"),
            detector=str(fitted),
            workers=0,
        )
    )
    assert known["tiers"]["detected"]["fpr"]["n"] == 30
    assert any("learnt from" in note for note in known["notes"])


@pytest.mark.slow
def test_threshold_by_stated_error(pools: Path, tmp_path: Path) -> None:
    """With --max-fpr the threshold is set on half of the held-out real references and counted on the others."""
    figures = fit_on_pools(spec(pools, tmp_path / "d", max_fpr=0.1))
    assert figures["n_real"] == 15
    saved = json.loads((tmp_path / "d" / "detector.json").read_text())
    assert saved["threshold"] == pytest.approx(figures["threshold"])
    with pytest.raises(UnreliableEstimate, match="real"):
        fit_on_pools(spec(pools, tmp_path / "e", max_fpr=0.001))


@pytest.mark.slow
def test_references_that_set_the_threshold_are_counted_nowhere(pools: Path, tmp_path: Path) -> None:
    """A threshold flags few of the references it was set on, so an audit and a trial leave them out too."""
    figures = fit_on_pools(spec(pools, tmp_path / "d", max_fpr=0.1))
    table = pq.read_table(tmp_path / "d" / "references.parquet").to_pylist()
    counted = [r for r in table if r["class"] == "real" and not r["fitted"] and not r["tuned"]]
    assert len(counted) == figures["n_real"] == sum(r["tuned"] for r in table) == 15
    named = {"real": str(pools / "real"), "synthetic": str(pools / "synthetic")}
    trial = evaluate_on_pools(TrySpec(tmp_path / "t", tmp_path / "d", named, workers=0))
    assert (trial["n_real"], trial["fpr"]) == (15, figures["fpr"])
    # p-values ask nothing of the threshold
    pool = {"pool": str(pools / "pool")}
    assert score_pool(TrySpec(tmp_path / "s", tmp_path / "d", pool, workers=0))["references"] == 30


def test_too_few_held_out_references_are_named_with_the_remedy(pools: Path, tmp_path: Path) -> None:
    """The message counts what is held out and names the option, whatever the detector would say of so few."""
    write_class(tmp_path / "few", 10, synthetic=False, seed=8)
    for kind in ("probe", "knn", "real-distance"):
        with pytest.raises(UnreliableEstimate, match=r"3 of 10 references are held out.*--hold-out"):
            fit_on_pools(spec(pools, tmp_path / kind, real=str(tmp_path / "few"), detector=kind))


def test_a_damaged_list_of_references_is_one_line(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """A list of references that is no table is refused by name."""
    folder = tmp_path / "d"
    folder.mkdir()
    for name in ("detector.json", "detector.safetensors"):
        (folder / name).write_bytes((fitted / name).read_bytes())
    (folder / "references.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"references\.parquet that is no list"):
        score_pool(TrySpec(tmp_path / "s", folder, {"pool": str(pools / "pool")}, workers=0))


def test_real_references_alone_fit_a_distance(pools: Path, tmp_path: Path) -> None:
    """A kind that knows no generator needs no synthetic pool, and tells false alarms alone."""
    figures = fit_on_pools(spec(pools, tmp_path / "d", synthetic=None, detector="real-distance"))
    assert figures["tpr"] is None
    assert figures["fpr"]["point"] < 0.3


def test_named_generators_are_told(pools: Path, tmp_path: Path) -> None:
    """Folders of the synthetic pool are left out in turn at the fit, and counted apart at the trial."""
    for name, seed in (("a", 6), ("b", 7)):
        write_class(tmp_path / "synthetic" / name, 40, synthetic=True, seed=seed)
    figures = fit_on_pools(spec(pools, tmp_path / "d", synthetic=str(tmp_path / "synthetic")))
    assert [row["name"] for row in figures["transfer"]] == ["a", "b"]
    assert all(row["left_out"]["point"] > 0.5 for row in figures["transfer"])
    named = {"real": str(pools / "other-real"), "synthetic": str(tmp_path / "synthetic")}
    trial = evaluate_on_pools(TrySpec(tmp_path / "t", tmp_path / "d", named, workers=0))
    assert [row["name"] for row in trial["generators"]] == ["a", "b"]
    assert sum(row["n"] for row in trial["generators"]) == trial["n_synthetic"]


def test_a_fit_continues_and_is_repeatable(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """The same command again leaves the same bytes, as does another folder; other settings are refused."""
    first = (fitted / "detector.safetensors").read_bytes()
    fit_on_pools(spec(pools, fitted))
    assert (fitted / "detector.safetensors").read_bytes() == first
    fit_on_pools(spec(pools, tmp_path / "d"))
    assert (tmp_path / "d" / "detector.safetensors").read_bytes() == first
    with pytest.raises(InputError, match="other settings"):
        fit_on_pools(spec(pools, fitted, seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "nothing"}, "--detector: got 'nothing'"),
        ({"detector": "univfd"}, "give --weights"),
        ({"synthetic": None}, "give --synthetic"),
        ({"hold_out": 1.0}, "--hold-out"),
        ({"weights": Path("x.pth")}, "--weights"),
        ({"real": "nowhere"}, "no such file or folder"),
        ({"seed": -1}, "--seed is -1"),
        ({"max_fpr": 1.0}, "--max-fpr is 1.0"),
        ({"workers": -1}, "--workers is -1"),
    ],
)
def test_bad_settings_are_named(
    pools: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    """What cannot be used is refused with its name."""
    with pytest.raises(InputError, match=message):
        fit_on_pools(spec(pools, tmp_path / "d", **options))


def test_no_detector_is_one_line(pools: Path, tmp_path: Path) -> None:
    """A folder without a detector, or with a damaged one, is refused."""
    with pytest.raises(InputError, match=r"detector\.json"):
        score_pool(TrySpec(tmp_path / "s", tmp_path, {"pool": str(pools / "pool")}, workers=0))


def test_inputs_are_never_the_output(pools: Path, tmp_path: Path) -> None:
    """A pool or a file in place of the output, and one pool for both classes, are refused, and nothing is written."""
    with pytest.raises(InputError, match="an input"):
        fit_on_pools(spec(pools, pools / "real"))
    assert all(path.suffix == ".png" for path in (pools / "real").iterdir())
    with pytest.raises(InputError, match="a file; give a folder"):
        fit_on_pools(spec(pools, next((pools / "real").iterdir())))
    with pytest.raises(InputError, match="the same pool"):
        fit_on_pools(spec(pools, tmp_path / "d", synthetic=str(pools / "other-real" / ".." / "real")))


def test_a_pool_that_cannot_be_opened_settles_nothing(pools: Path, tmp_path: Path) -> None:
    """After a mistyped pool the same folder takes the right one, and what it then reads is that one."""
    with pytest.raises(InputError, match="no such file or folder"):
        fit_on_pools(spec(pools, tmp_path / "d", real=str(pools / "other-real"), synthetic="nowhere"))
    figures = fit_on_pools(spec(pools, tmp_path / "d"))
    assert figures["n_real"] == 30


def test_a_long_curve_is_written_in_few_steps(
    pools: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images there are, the curve in the figures has both ends and a bounded number of its steps."""
    full = evaluate_on_pools(tried(pools, fitted, tmp_path / "full"))["roc"]
    monkeypatch.setattr(audit_figures, "MOST_STEPS", 9)
    roc = evaluate_on_pools(tried(pools, fitted, tmp_path / "thin"))["roc"]
    assert 2 < len(roc["fpr"]) <= 9
    steps = list(zip(roc["fpr"], roc["tpr"], strict=True))
    assert (steps[0], steps[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert set(steps) <= set(zip(full["fpr"], full["tpr"], strict=True))


def test_the_same_name_elsewhere_is_another_pool(
    pools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is that of the working folder: a fit is not continued with a pool of the same name."""
    write_class(tmp_path / "elsewhere" / "real", 40, synthetic=False, seed=9)
    monkeypatch.chdir(pools)
    fit_on_pools(spec(pools, tmp_path / "d", real="real"))
    fit_on_pools(spec(pools, tmp_path / "d"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="other settings"):
        fit_on_pools(spec(pools, tmp_path / "d", real="real"))


def test_a_pool_that_the_detector_learnt_from_is_noted(pools: Path, fitted: Path, tmp_path: Path) -> None:
    """An audit of the very images that a detector was fitted on says how many it knows."""
    report = audit_pool(
        AuditSpec(
            str(pools / "real"),
            tmp_path / "run",
            real=str(pools / "other-real"),
            synthetic=str(pools / "other-synthetic"),
            detector=str(fitted),
            workers=0,
        )
    )
    assert any("learnt from 70 images of the pool" in note for note in report["notes"])


def test_the_folder_of_an_audit_is_left_alone(pools: Path, tmp_path: Path) -> None:
    """A fit into the folder of an audit is refused before it replaces the plans and evidence there."""
    given = AuditSpec(str(pools / "pool"), tmp_path / "run", embedder="forensic", workers=0)
    audit_pool(replace(given, real=str(pools / "real"), synthetic=str(pools / "other-synthetic")))
    before = (tmp_path / "run" / "references" / "synthetic" / "plan.parquet").read_bytes()
    with pytest.raises(InputError, match="folder of an audit"):
        fit_on_pools(spec(pools, tmp_path / "run"))
    assert (tmp_path / "run" / "references" / "synthetic" / "plan.parquet").read_bytes() == before
