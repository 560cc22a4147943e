"""The checks of a run end to end: files that give the classes away, unknown generators, named generators."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from image_pools import draw, encode, write_class, write_mixed
from PIL import Image

from poolproof.audit import score
from poolproof.audit.run import audit_pool
from poolproof.audit.spec import AuditSpec
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.subgroups import unknown_generator_interval
from poolproof.errors import InputError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))


def audit(tmp_path: Path, **options: object) -> dict[str, Any]:
    """The report of an audit in this process."""
    values = {"pool": str(tmp_path / "pool"), "out": tmp_path / "run", "embedder": "forensic", "workers": 0}
    report = audit_pool(AuditSpec(**(values | options)))  # pyright: ignore[reportArgumentType]
    jsonschema.validate(report, SCHEMA)
    return report


def write_jpegs(folder: Path, n: int, *, synthetic: bool, seed: int, quality: int = 60) -> Path:
    """A folder of n JPEG images of one class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        buffer = io.BytesIO()
        Image.fromarray(draw(rng, synthetic=synthetic)).save(buffer, "JPEG", quality=quality)
        (folder / f"j{seed}-{i:04d}.jpg").write_bytes(buffer.getvalue())
    return folder


def write_smooth(folder: Path, n: int, *, seed: int) -> Path:
    """A folder of images by another generator: half as noisy as both classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        noisy = draw(rng, synthetic=True).astype(float)
        coarse = np.asarray(Image.fromarray(noisy.astype(np.uint8)).resize((16, 16)).resize((64, 64)), float)
        mixed = (noisy + coarse) / 2
        (folder / f"o{i:04d}.png").write_bytes(encode(mixed.round().astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A hundred real and a hundred synthetic images."""
    folder = tmp_path_factory.mktemp("references")
    return {
        "real": str(write_class(folder / "real", 100, synthetic=False, seed=1)),
        "synthetic": str(write_class(folder / "synthetic", 100, synthetic=True, seed=2)),
    }


def test_alike_files_pass_and_groups_are_told(tmp_path: Path, references: dict[str, str]) -> None:
    """With references like the pool both checks pass, all methods agree, and each folder has its share."""
    write_class(tmp_path / "pool" / "a", 40, synthetic=False, seed=3)
    write_class(tmp_path / "pool" / "b", 40, synthetic=True, seed=4)
    report = audit(tmp_path, **references)
    checks = report["checks"]
    assert checks["files"]["confounding"]["verdict"] != "confounded"
    assert checks["files"]["comparable"]["real"]["verdict"] == "comparable"
    assert checks["alarm"]["fires"] is False
    assert checks["matched"] is None
    assert all(each["lower"] <= 0.5 <= each["upper"] for each in report["estimates"])
    shares = {row["name"]: row for row in report["groups"]["rows"] if row["by"] == "source"}
    assert shares["a"]["lower"] <= 0.0 <= shares["a"]["upper"] < 0.5
    assert 0.5 < shares["b"]["lower"] <= 1.0


def test_format_that_gives_the_classes_away_is_found_and_matched(tmp_path: Path) -> None:
    """Real JPEG against synthetic PNG references: files are confounded, and the share is estimated once more.

    The pool is real and half of it PNG. A detector of formats would call that half synthetic.
    """
    write_jpegs(tmp_path / "pool", 60, synthetic=False, seed=5)
    write_class(tmp_path / "pool", 60, synthetic=False, seed=6)
    report = audit(
        tmp_path,
        real=str(write_jpegs(tmp_path / "real", 80, synthetic=False, seed=7)),
        synthetic=str(write_class(tmp_path / "synthetic", 80, synthetic=True, seed=8)),
    )
    checks, share = report["checks"], report["share"]
    assert checks["files"]["confounding"]["verdict"] == "confounded"
    assert "format" in checks["files"]["confounding"]["facts"]
    assert checks["matched"]["target"].startswith("64 x 64 pixels, JPEG")
    assert checks["matched"]["n_pool"] == 120
    assert share["lower"] <= 0.05
    assert share["point"] is None
    assert share["why"]


@pytest.mark.slow
def test_matching_can_be_forbidden_or_asked_for(tmp_path: Path, references: dict[str, str]) -> None:
    """`never` reads nothing again, `always` does without a cause, and a finished run takes either."""
    write_mixed(tmp_path / "pool", 30, 30, seed=9)
    assert audit(tmp_path, match="never", **references)["checks"]["matched"] is None
    matched = audit(tmp_path, match="always", **references)["checks"]["matched"]
    assert matched["share"]["lower"] <= 0.5 <= matched["share"]["upper"]
    assert (matched["n_pool"], matched["n_real"], matched["n_synthetic"]) == (60, 100, 100)


@pytest.mark.slow
def test_references_of_another_size_are_named(tmp_path: Path, references: dict[str, str]) -> None:
    """A pool of larger images cannot be compared with small references: the floor alone remains, with the reason."""
    folder = tmp_path / "pool"
    folder.mkdir()
    rng = np.random.default_rng(10)
    for i in range(40):
        (folder / f"{i}.png").write_bytes(encode(draw(rng, synthetic=False, side=160)))
    report = audit(tmp_path, **references)
    assert report["share"]["method"] == "floor"
    assert "cannot be compared" in report["share"]["why"]
    assert report["checks"]["files"]["pool_unmatched"] == 1.0
    assert report["groups"] is None


def test_unknown_generator_raises_the_alarm(tmp_path: Path, references: dict[str, str]) -> None:
    """Images by a generator that no reference holds: the point is withheld, the lower bound holds."""
    write_class(tmp_path / "pool", 150, synthetic=False, seed=11)
    write_smooth(tmp_path / "pool", 150, seed=12)
    report = audit(tmp_path, **references)
    assert report["checks"]["alarm"]["fires"] is True
    assert report["share"]["point"] is None
    assert report["share"]["method"] == "lower-bound+floor"
    assert report["share"]["lower"] <= 0.5
    assert "no mix" in report["share"]["why"]


def test_named_generators_are_left_out_in_turn(tmp_path: Path, references: dict[str, str]) -> None:
    """Folders of the synthetic reference are generators; each is found less often where it was left out."""
    write_class(tmp_path / "synthetic" / "noisy", 60, synthetic=True, seed=13)
    write_smooth(tmp_path / "synthetic" / "smooth", 60, seed=14)
    write_mixed(tmp_path / "pool", 40, 20, seed=15)
    report = audit(tmp_path, real=references["real"], synthetic=str(tmp_path / "synthetic"))
    rows = {row["name"]: row for row in report["generators"]["rows"]}
    assert set(rows) == {"noisy", "smooth"}
    assert all(row["known"]["x"] > 0.8 * row["known"]["n"] for row in rows.values())
    assert rows["noisy"]["left_out"]["x"] < 0.5 * rows["noisy"]["left_out"]["n"]
    unknown = report["generators"]["unknown"]
    assert unknown["lower"] <= 1 / 3 <= unknown["upper"]
    # the false alarms are those of the detector that flagged the pool
    detected = report["tiers"]["detected"]
    left_out = {name: tuple(row["left_out"].values()) for name, row in rows.items()}
    expected = unknown_generator_interval(
        detected["count"], 60, left_out, detected["fpr"]["x"], detected["fpr"]["n"]
    )
    assert (unknown["lower"], unknown["upper"]) == pytest.approx((expected.lower, expected.upper))


def test_nothing_is_said_of_unknown_generators_where_the_rates_are_set_aside(
    tmp_path: Path, references: dict[str, str]
) -> None:
    """References that cannot be compared with the pool tell no share for an unknown generator either."""
    for name, seed in (("a", 21), ("b", 22)):
        write_class(tmp_path / "synthetic" / name, 20, synthetic=True, seed=seed)
    (tmp_path / "pool").mkdir()
    rng = np.random.default_rng(23)
    for i in range(20):
        (tmp_path / "pool" / f"{i}.png").write_bytes(encode(draw(rng, synthetic=False, side=160)))
    report = audit(tmp_path, real=references["real"], synthetic=str(tmp_path / "synthetic"))
    assert report["share"]["method"] == "floor"
    assert len(report["generators"]["rows"]) == 2
    assert report["generators"]["unknown"] is None


@pytest.mark.parametrize(
    "detector",
    ["knn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forensic", "real-distance"))],
)
def test_other_detectors_give_a_share_that_holds(
    tmp_path: Path, references: dict[str, str], detector: str
) -> None:
    """Each kind that references can fit is calibrated on those it did not learn from."""
    write_mixed(tmp_path / "pool", 60, 60, seed=16)
    report = audit(tmp_path, detector=detector, **references)
    assert report["tiers"]["detected"]["detector"] == detector
    assert report["share"]["lower"] <= 0.5 <= report["share"]["upper"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match": "sometimes"}, "--match is"),
        ({"detector": "nothing"}, "--detector: got 'nothing'"),
        ({"detector": "univfd"}, "poolproof detect fit"),
        ({"detector": "rigid"}, "such as rigid:clip"),
        ({"detector": "forensic", "embedder": "clip:ViT-B-32/x.pt"}, "--detector forensic"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    """A setting that cannot be used is refused before anything is read."""
    write_class(tmp_path / "pool", 2, synthetic=False, seed=1)
    with pytest.raises(InputError, match=message):
        audit(tmp_path, **options)


@pytest.mark.slow
def test_a_sample_can_be_matched(tmp_path: Path, references: dict[str, str]) -> None:
    """In a sample the estimate on files made alike shares its error with the floor's, as the others do."""
    write_mixed(tmp_path / "pool", 30, 30, seed=17)
    report = audit(tmp_path, match="always", sample=50, **references)
    assert report["checks"]["matched"]["share"]["level"] == pytest.approx(0.975)
    matched = report["estimates"][-1]
    assert (matched["method"], matched["level"]) == ("matched", 0.95)
    assert matched["lower"] <= 0.5 <= matched["upper"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in ({"synthetic": None}, {"detector": "real-distance"}, {"detector": "knn"})
        ),
    ],
)
def test_features_that_are_not_finite_cost_their_own_item(
    tmp_path: Path, references: dict[str, str], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Items and references whose features overflow are abstained from; the share of the others is told."""

    def overflow(pixels: np.ndarray) -> np.ndarray:
        features = forensic_features(pixels)
        if pixels[0, 0, 0] % 5 == 0:
            features[0] = np.inf
        return features

    monkeypatch.setattr(score, "forensic_features", overflow)
    write_mixed(tmp_path / "pool", 40, 40, seed=18)
    report = audit(tmp_path, **(references | options))
    rows = pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"scored"}
    assert 0 < sum(row["score"] is None for row in rows) < 40
    assert report["share"]["lower"] <= 0.5 <= report["share"]["upper"]
    assert 10 < report["tiers"]["detected"]["fpr"]["n"] < 100
    assert report["set"]["precision"] is not None


def test_too_few_references_for_a_kind_leave_the_floor(tmp_path: Path) -> None:
    """Twelve references cannot fit a distance on their half: the floor remains, with the reason."""
    write_mixed(tmp_path / "pool", 10, 4, seed=19)
    real = write_class(tmp_path / "real", 12, synthetic=False, seed=20)
    share = audit(tmp_path, real=str(real), detector="real-distance")["share"]
    assert (share["method"], share["point"]) == ("floor", None)
    assert "allowed 10 or more" in share["why"]
