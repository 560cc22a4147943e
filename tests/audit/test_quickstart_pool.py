"""The demonstration's pools: their truth is the truth, and content alone tells the classes apart."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from poolproof.audit import quickstart
from poolproof.audit.digits import INK, LEVELS, MARKS, PAPER, RENDERINGS
from poolproof.audit.pool import open_pool
from poolproof.audit.quickstart import QuickstartPools, QuickstartSpec, build_pools, summarise
from poolproof.detectors.provenance import is_signed, read_provenance
from poolproof.errors import InputError
from poolproof.simulate.diffusion import DiffusionSpec
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.public_marks import read_marks
from poolproof.watermark.significance import DETECTION_LEVEL

SMALL = QuickstartSpec(
    n_train=80,
    n_reference=20,
    n_pool=60,
    n_signed=2,
    declared_share=0.2,
    marked_share=0.2,
    diffusion=DiffusionSpec(width=32, n_blocks=1, n_steps=20, n_sampling_steps=5),
)


@dataclass(frozen=True)
class Built:
    """Pools with what was seen while they were built."""

    out: Path
    pools: QuickstartPools
    trained_on: np.ndarray
    progress: list[tuple[str, float]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Small pools from seed 0."""
    out = tmp_path_factory.mktemp("quickstart") / "new" / "demo"
    seen: list[np.ndarray] = []
    progress: list[tuple[str, float]] = []
    fit = quickstart.fit_diffusion

    def spy(images: np.ndarray, *args: object, **options: object) -> object:
        seen.append(images)
        return fit(images, *args, **options)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "fit_diffusion", spy)
        pools = build_pools(out, seed=0, spec=SMALL, on_progress=lambda *told: progress.append(told))
    return Built(out, pools, np.rint((seen[0] + 1) * 8).astype(int), progress)


def files(folder: Path) -> list[Path]:
    """Files of a pool in order."""
    return sorted(folder.iterdir())


def opened(path: Path) -> Image.Image:
    """An image with its pixels loaded and its file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def levels(path: Path) -> bytes:
    """The 8 x 8 levels of ink that a file shows, by the middle of each cell."""
    pixels = np.asarray(opened(path).convert("RGB"), np.float64)
    side = len(pixels) // 8
    middle = pixels.reshape(8, side, 8, side, 3)[:, 8:-8, :, 8:-8].mean(axis=(1, 3, 4))
    ink, paper = np.mean(INK), np.mean(PAPER)
    return np.rint((middle - paper) / (ink - paper) * LEVELS).astype(np.uint8).tobytes()


def real_levels() -> set[bytes]:
    """All real digits; no two are equal."""
    bunch: Any = load_digits()
    return {digit.astype(np.uint8).tobytes() for digit in bunch.data}


def rendering(path: Path) -> tuple[str, int, tuple[int, ...], object]:
    """What the metadata of a file say about its encoding."""
    image = opened(path)
    tables = image.quantization if image.format == "JPEG" else {}  # pyright: ignore[reportAttributeAccessIssue]
    sampling = getattr(image, "layer", None)
    return path.suffix, image.width, tuple(tables.get(0, ())), repr(sampling)


def test_truth_is_that_of_the_files(built: Built) -> None:
    """Keys are the pool's, items called real are real digits, the others are not, and the share adds up."""
    pools = built.pools
    assert open_pool(pools.pool).items.column("key").to_pylist() == sorted(pools.truth_by_key)
    known = real_levels()
    unmarked = {
        key for key in pools.truth_by_key if not pools.evidence_by_key.get(key, "").startswith("marked")
    }
    for key in unmarked:
        assert (levels(pools.pool / key) in known) != pools.truth_by_key[key]
    assert pools.n_pool == len(pools.truth_by_key) == SMALL.n_pool
    assert pools.n_synthetic == sum(pools.truth_by_key.values())
    assert pools.truth == pools.n_synthetic / pools.n_pool
    assert 0.2 <= pools.truth <= 0.4


def test_no_real_image_is_used_twice(built: Built) -> None:
    """Training images, the reference and the pool's real items are different digits, each used once."""
    pools = built.pools
    reals = [pools.pool / key for key, synthetic in pools.truth_by_key.items() if not synthetic]
    used = [levels(path) for path in (*reals, *files(pools.real))]
    used += [image.astype(np.uint8).tobytes() for image in built.trained_on]
    assert len(set(used)) == len(used) == SMALL.n_train + SMALL.n_reference + SMALL.n_pool - pools.n_synthetic
    assert set(used) <= real_levels()


def test_formats_do_not_depend_on_the_class(built: Built) -> None:
    """Within each class all renderings are equally frequent up to one, in the pool and in the references."""
    pools = built.pools
    for paths in (
        [pools.pool / key for key, synthetic in pools.truth_by_key.items() if synthetic],
        [pools.pool / key for key, synthetic in pools.truth_by_key.items() if not synthetic],
        files(pools.real),
        files(pools.synthetic),
    ):
        counts = Counter(map(rendering, paths))
        assert len(counts) == len(RENDERINGS) == 6
        assert max(counts.values()) - min(counts.values()) <= 1


def test_names_and_order_tell_nothing(built: Built) -> None:
    """Files are numbered without gaps, and both classes appear early and late."""
    for folder in (built.pools.pool, built.pools.real, built.pools.synthetic):
        assert [path.stem for path in files(folder)] == [f"{n:06d}" for n in range(len(files(folder)))]
    places = [int(key[:6]) for key, synthetic in built.pools.truth_by_key.items() if synthetic]
    # the mean rank of a random subset: 4 standard deviations
    n, k = built.pools.n_pool, built.pools.n_synthetic
    assert abs(np.mean(places) - (n - 1) / 2) < 4 * np.sqrt((n + 1) * (n - k) / (12 * k))


def test_evidence_lies_where_the_truth_says_and_nowhere_else(built: Built) -> None:
    """Signed items verify, declared ones carry parameters, marked ones a readable mark; no other carries anything."""
    pools = built.pools
    assert all(pools.truth_by_key[key] for key in pools.evidence_by_key)
    expected = round(0.2 * pools.n_synthetic)
    kinds = Counter(pools.evidence_by_key.values())
    assert kinds["declared"] == expected
    assert kinds["signed"] == 2
    assert set(kinds) == {"signed", "declared", *(f"marked:{name}" for name in MARKS)}
    assert sum(kinds.values()) == 2 * expected + 2
    payloads = load_payloads()
    for path in (*files(pools.pool), *files(pools.real), *files(pools.synthetic)):
        kind = pools.evidence_by_key.get(path.name) if path.parent == pools.pool else None
        image = opened(path)
        assert is_signed(read_provenance(path.read_bytes())) == (kind == "signed")
        text = image.info.get("parameters")
        assert (kind == "declared") == (text is not None)
        assert text is None or (text.startswith("digit ") and "\nSteps: " in text)
        assert set(image.info) <= {"parameters", "jfif", "jfif_version", "jfif_unit", "jfif_density"}
        reading = read_marks(np.asarray(image.convert("RGB")), payloads)
        assert reading is not None
        if kind is not None and kind.startswith("marked"):
            assert reading.p_value < DETECTION_LEVEL
            assert kind == f"marked:{reading.payload}"
        else:
            assert reading.p_value >= DETECTION_LEVEL


def test_images_suit_the_public_mark_and_clip_nowhere(built: Built) -> None:
    """Every image has at least 65536 pixels in three channels, and no channel reaches 0 or 255."""
    for path in files(built.pools.pool):
        pixels = np.asarray(opened(path))
        assert pixels.shape in ((256, 256, 3), (288, 288, 3))
        assert 0 < pixels.min() < pixels.max() < 255


def test_same_seed_gives_the_same_files_and_another_seed_another_share(built: Built, tmp_path: Path) -> None:
    """A second build of a seed repeats every byte but signatures; other seeds have other shares."""
    again = build_pools(tmp_path / "again", seed=0, spec=SMALL)
    assert again.truth_by_key == built.pools.truth_by_key
    for name in ("pool", "real", "synthetic"):
        first, second = files(built.out / name), files(tmp_path / "again" / name)
        assert [path.name for path in first] == [path.name for path in second]
        signed = {key for key, kind in again.evidence_by_key.items() if kind == "signed" and name == "pool"}
        same = {a.name for a, b in zip(first, second, strict=True) if a.read_bytes() == b.read_bytes()}
        assert same == {path.name for path in first} - signed
    other = build_pools(tmp_path / "other", seed=1, spec=SMALL)
    assert other.truth != built.pools.truth


def test_finished_pools_are_opened_and_not_built_again(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call on its own folder trains nothing and returns the same value."""
    monkeypatch.setattr(quickstart, "fit_diffusion", None)
    assert build_pools(built.out, seed=0, spec=SMALL) == built.pools


def test_other_pools_are_never_overwritten(built: Built, tmp_path: Path) -> None:
    """Another seed or other sizes, and folders without a truth, are InputErrors that leave files alone."""
    with pytest.raises(InputError, match="other or unfinished"):
        build_pools(built.out, seed=1, spec=SMALL)
    with pytest.raises(InputError, match="other or unfinished"):
        build_pools(built.out, seed=0)
    mine = tmp_path / "pool" / "mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="other or unfinished"):
        build_pools(tmp_path, seed=0, spec=SMALL)
    assert [path.name for path in files(tmp_path)] == ["pool"]
    assert mine.read_bytes() == b"mine"
    with pytest.raises(InputError, match="a file"):
        build_pools(mine, seed=0, spec=SMALL)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    """A build that is stopped while it writes leaves an empty folder, so the same call can be given again."""

    def stop(stage: str, progress: float) -> None:
        if stage == "writing" and progress > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pools(tmp_path, seed=0, spec=SMALL, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_truth_lies_outside_the_pools(built: Built) -> None:
    """The truth is a table beside the pools, which hold images alone."""
    table = pq.read_table(built.out / "truth.parquet")
    assert table.column_names == ["key", "synthetic", "evidence"]
    assert dict(zip(*(table.column(name).to_pylist() for name in ("key", "synthetic")), strict=True)) == (
        built.pools.truth_by_key
    )
    assert {path.name for path in built.out.iterdir()} == {"pool", "real", "synthetic", "truth.parquet"}
    for name in ("pool", "real", "synthetic"):
        assert {path.suffix for path in files(built.out / name)} == {".png", ".jpg"}


def test_progress_runs_through_the_stages(built: Built) -> None:
    """Training, sampling and writing are told in turn, each rising to 1."""
    stages = [stage for stage, _ in built.progress]
    assert sorted(set(stages), key=stages.index) == ["training", "sampling", "writing"]
    for name in set(stages):
        values = [value for stage, value in built.progress if stage == name]
        assert values == sorted(values)
        assert values[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train: got 0"),
        ({"n_pool": 9}, "n_pool: got 9"),
        ({"declared_share": 1.5}, "declared_share: got 1.5"),
        ({"marked_share": -0.1}, "marked_share: got -0.1"),
    ],
)
def test_sizes_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """Every size names itself when it cannot be used."""
    with pytest.raises(InputError, match=message):
        QuickstartSpec(**options)  # pyright: ignore[reportArgumentType]


def test_too_many_images_and_negative_seeds_are_refused(tmp_path: Path) -> None:
    """More real images than there are, and a seed below 0, are InputErrors before anything is written."""
    with pytest.raises(InputError, match="allowed 1797"):
        build_pools(tmp_path / "a", seed=0, spec=QuickstartSpec(n_train=1700))
    with pytest.raises(InputError, match="seed: got -1"):
        build_pools(tmp_path / "a", seed=-1, spec=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_summary_sets_the_finding_beside_the_truth(built: Built, tmp_path: Path) -> None:
    """The summary says whether the interval holds the truth, on disk as in memory; no share, no claim."""
    truth = built.pools.truth
    share = {"point": truth, "lower": truth - 0.1, "upper": truth, "level": 0.95, "why": None}
    summary = summarise(tmp_path, {"share": share | {"method": "melding"}}, built.pools, 12.5)
    assert summary == {"truth": truth, "share": share, "covered": True, "seconds": 12.5, "seed": 0}
    assert json.loads((tmp_path / "quickstart.json").read_text("utf-8")) == summary
    missed = summarise(tmp_path, {"share": share | {"upper": truth - 0.01}}, built.pools, 1.0)
    assert missed["covered"] is False
    withheld = summarise(tmp_path, {"share": None}, built.pools, 1.0)
    assert (withheld["share"], withheld["covered"]) == (None, None)


@pytest.mark.slow
def test_classes_differ_in_content_but_not_in_encoding(tmp_path: Path) -> None:
    """Cross-validated AUC of the references: at least .85 from pixels, chance from format and size."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from poolproof.detectors.forensic import forensic_features

    pools = build_pools(tmp_path, seed=0)
    paths = files(pools.real) + files(pools.synthetic)
    synthetic = np.repeat([False, True], [len(files(pools.real)), len(files(pools.synthetic))])
    kinds = sorted(set(map(rendering, paths)))

    def auc(features: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=3000))
        scores: Any = cross_val_predict(model, features, synthetic, cv=5, method="predict_proba")
        return float(roc_auc_score(synthetic, scores[:, 1]))

    assert (
        auc(np.array([forensic_features(np.asarray(opened(path).convert("RGB"))) for path in paths])) > 0.85
    )
    assert auc(np.array([np.eye(len(kinds))[kinds.index(rendering(path))] for path in paths])) < 0.55
