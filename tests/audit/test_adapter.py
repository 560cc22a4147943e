"""The scorer as a callable gives an audit's evidence in other people's data frames."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from image_pools import add_evidence, write_class
from refusals import assert_refused

from poolproof.audit import adapter
from poolproof.audit.adapter import PLAIN, ItemScorer
from poolproof.audit.plan import make_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.ray_cluster import connect
from poolproof.audit.score import Scorer, score_shard
from poolproof.detectors.backbone import AbstractEmbedder

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, two that declare themselves, a damaged and an empty one."""
    folder = write_class(tmp_path_factory.mktemp("pools") / "scraped", 6, synthetic=False, seed=1)
    add_evidence(folder, declared=2, marked=0)
    (folder / "x.png").write_bytes((folder / "0001.png").read_bytes()[:500])
    (folder / "y.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def evidence(pool: Path) -> pa.Table:
    """What an audit records of the pool."""
    plan = make_plan(open_pool(str(pool)), pool.parent / "plan.parquet", rng=np.random.default_rng(0))
    return score_shard(plan.shard(0), Scorer())


def images(pool: Path) -> list[bytes]:
    """The encoded images in the order of the pool."""
    return [path.read_bytes() for path in sorted(pool.iterdir())]


def assert_same(columns: dict[str, Any], evidence: pa.Table) -> None:
    """Checks plain columns and vectors against the evidence."""
    for name in PLAIN:
        assert list(columns[name]) == evidence.column(name).to_pylist(), name
    for vector, cell in zip(columns["forensic"], evidence.column("forensic").to_pylist(), strict=True):
        if cell is None:
            assert np.isnan(vector).all()
        else:
            np.testing.assert_array_equal(vector, np.frombuffer(cell, np.float32))


def test_a_batch_gets_the_evidence_of_an_audit(pool: Path, evidence: pa.Table) -> None:
    """Bytes, arrays of bytes, Hugging Face structs and buffers give the same columns."""
    data = images(pool)
    forms: list[Any] = [
        data,
        np.array(data, object),
        [{"bytes": one, "path": "../../etc/passwd"} for one in data],
        [memoryview(one) for one in data],
        pa.array(data),
    ]
    for column in forms:
        assert_same(ItemScorer()({"image": column}), evidence)


def test_a_table_gets_a_table(pool: Path, evidence: pa.Table) -> None:
    """Arrow in, Arrow out, with the kept columns, types of the evidence, and null where there is no vector."""
    data = images(pool)
    batch = pa.table({"jpg": data, "key": list(range(len(data))), "other": data})
    table = ItemScorer(column="jpg", keep=["key"])(batch)
    assert table.column_names == ["key", *PLAIN, "forensic"]
    for name in PLAIN:
        assert table.column(name).combine_chunks().equals(evidence.column(name).combine_chunks())
    vectors = table.column("forensic").to_pylist()
    cells = evidence.column("forensic").to_pylist()
    assert [vector is None for vector in vectors] == [cell is None for cell in cells]
    assert vectors[0] == np.frombuffer(cells[0], np.float32).tolist()


def test_no_row_raises() -> None:
    """What is no image ends in a status and a reason, each in its own row."""
    from PIL import Image

    values = [None, 3, "no-such.png", b"<html>", Image.new("RGB", (9, 9)), {"bytes": None, "path": None}, {}]
    columns = ItemScorer()({"image": values})
    assert columns["status"] == ["missing", "unreadable", "missing", *["unreadable"] * 2, *["missing"] * 2]
    assert all(columns["reason"])
    assert np.isnan(columns["forensic"]).all()
    assert ItemScorer()({"image": []})["status"] == []


def test_a_bug_on_one_row_costs_that_row(
    pool: Path, evidence: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is the reason of its row alone."""
    real = adapter.score_shard

    def fail(shard: Any, scorer: Scorer) -> pa.Table:
        if any(bytes(value).startswith(b"BUG") for value in shard.reader.values):
            raise RuntimeError("unforeseen")
        return real(shard, scorer)

    monkeypatch.setattr(adapter, "score_shard", fail)
    columns = ItemScorer()({"image": [*images(pool), b"BUG"]})
    assert columns["status"].pop() == "unreadable"
    assert columns["reason"].pop() == "error: RuntimeError: unforeseen"
    assert columns["status"] == evidence.column("status").to_pylist()


def test_paths_are_followed_inside_the_folder_alone(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is read where a folder was named, and only below it."""
    (tmp_path / "secret.png").write_bytes((pool / "0001.png").read_bytes())
    monkeypatch.chdir(pool.parent)
    cells = [
        {"bytes": None, "path": str(pool / "0001.png")},
        "scraped/0002.png",
        str(tmp_path / "secret.png"),
    ]
    assert ItemScorer()({"image": cells})["status"] == ["missing"] * 3
    found = ItemScorer(folder="scraped")({"image": cells})
    assert found["status"] == ["scored", "scored", "missing"]
    assert found["reason"][2].startswith("outside:")


def test_an_absent_column_is_refused() -> None:
    """The message lists the batch's columns."""
    assert "jpg" in assert_refused(lambda: ItemScorer()({"jpg": []}), "column")
    assert_refused(lambda: ItemScorer("clap"), "embedder")


def test_a_scorer_travels(pool: Path, evidence: pa.Table) -> None:
    """It pickles small, and works after that."""
    data = pickle.dumps(ItemScorer())
    assert len(data) < 1000
    assert_same(pickle.loads(data)({"image": images(pool)}), evidence)


def blocks() -> Iterator[str]:
    """The Python blocks of the page."""
    yield from re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def beside(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder that the page's examples assume."""
    import datasets

    monkeypatch.chdir(pool.parent)
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("beside")
def test_the_example_with_datasets_runs(evidence: pa.Table) -> None:
    """The page's block maps a data set to the evidence of an audit."""
    names: dict[str, Any] = {}
    exec(next(block for block in blocks() if "import datasets" in block), names)
    table = names["scored"].with_format("arrow")[:]
    columns = {name: table.column(name).to_pylist() for name in (*PLAIN, "forensic")}
    assert_same(columns, evidence)
    assert names["declared"] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # its own, of its own settings
@pytest.mark.usefixtures("beside")
def test_the_example_with_ray_data_runs(evidence: pa.Table) -> None:
    """The page's block gives the statuses of an audit, and so do batches of numpy arrays."""
    import ray.data

    with connect(None, 2):
        ray.data.DataContext.get_current().enable_progress_bars = False
        names: dict[str, Any] = {}
        exec(next(block for block in blocks() if "import ray" in block), names)
        assert sorted(names["statuses"]) == sorted(evidence.column("status").to_pylist())
        pool = names["pool"]
        scored = pool.map_batches(
            ItemScorer,
            fn_constructor_kwargs={"column": "bytes", "keep": ["path"]},
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        rows = sorted(scored.take_all(), key=lambda row: row["path"])
        assert_same({name: [row[name] for row in rows] for name in (*PLAIN, "forensic")}, evidence)


def test_a_model_adds_its_vectors(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an embedder there is a row of numbers for each image that could be read."""

    class Constant(AbstractEmbedder):
        """Twice the same number for every image."""

        name, dim, weights_sha256 = "constant", 2, None

        def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
            return np.full((len(images), 2), 0.5, np.float32)

    monkeypatch.setattr(adapter, "resolve_embedder", lambda spec: (spec, None))
    monkeypatch.setattr("poolproof.audit.score.load_embedder", lambda spec: Constant())
    columns = ItemScorer("constant")({"image": images(pool)})
    read = [status == "scored" for status in columns["status"]]
    np.testing.assert_array_equal(np.isfinite(columns["embedding"]).all(axis=1), read)
    assert (columns["embedding"][read] == 0.5).all()
    table = ItemScorer("constant")(pa.table({"image": images(pool)}))
    assert [cell is not None for cell in table.column("embedding").to_pylist()] == read
