"""References that were read: what is left out of them, and their features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolproof.audit.engine import part_path
from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.plan import Plan
from poolproof.audit.references import Evidence, Reference, drop_shared, part_features, places_of
from poolproof.errors import InputError


def test_shared_images_leave_both_references() -> None:
    """An image in both references is left out of both; equal references are refused."""

    def reference(first: int, last: int) -> Reference:
        digests = np.array([[i, i] for i in range(first, last)], np.uint64)
        n = last - first
        features = np.arange(n, dtype=np.float32)[:, None]
        return Reference(f"{first}-{last}", features, digests, n, n, 0, np.arange(n), ("",) * n)

    kept = drop_shared({"real": reference(0, 10), "synthetic": reference(8, 20)})
    assert kept["real"].digests[:, 0].tolist() == list(range(8))
    assert kept["synthetic"].features[:, 0].tolist() == list(range(2, 12))
    assert (kept["real"].n_shared, kept["synthetic"].n_shared) == (2, 2)
    with pytest.raises(InputError, match="two different pools"):
        drop_shared({"real": reference(0, 3), "synthetic": reference(0, 5)})


@pytest.mark.parametrize(("embedder", "kind"), [("forensic", "<f4"), ("clip:x/y", "<f2")])
def test_features_are_those_of_the_kept_rows(embedder: str, kind: str) -> None:
    """Vectors come back row by row from any slice and chunk, whatever lies between them."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 5)).astype(kind)
    values = [None if i == 4 else vector.tobytes() for i, vector in enumerate(vectors)]
    name = "forensic" if embedder == "forensic" else "embedding"
    column = pa.chunked_array([pa.array(values, pa.binary()), pa.array(values[::-1], pa.binary())])
    part = pa.table({name: column}).slice(2, 14)
    keep = np.array([i % 3 != 0 for i in range(2, 16)]) & part.column(name).is_valid().to_numpy()
    expected = np.concatenate([vectors, vectors[::-1]])[2:16][keep].astype(np.float32)
    found = part_features(part, embedder, keep)
    assert found.dtype == np.float32
    assert (found == expected).all()
    assert part_features(part, embedder, np.zeros(14, bool)).shape == (0, 0)


def test_vectors_of_two_lengths_are_no_features() -> None:
    """A vector that is cut or missing is an error and shifts no other."""
    for values in ([bytes(8), bytes(4), bytes(12)], [bytes(8), None]):
        part = pa.table({"forensic": pa.array(values, pa.binary())})
        with pytest.raises(RuntimeError, match="vectors of 8 bytes"):
            part_features(part, "forensic", np.ones(len(values), bool))


@pytest.mark.parametrize("places", [[], [0], [6], [1, 2, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_items_are_taken_by_position(tmp_path: Path, places: list[int]) -> None:
    """Columns of chosen items come in the plan's order from whatever part holds them."""
    sizes, start = (3, 1, 3), 0
    for index, n in enumerate(sizes):
        rows: list[dict[str, Any]] = [
            {"row": 10 * i, "key": f"k{i}", "source": "s", "status": "scored", "sha256": bytes([i] * 32)}
            for i in range(start, start + n)
        ]
        start += n
        pq.write_table(pa.Table.from_pylist(rows, schema=EVIDENCE), part_path(tmp_path, index))
    evidence = Evidence(Plan(tmp_path / "plan.parquet", "", sizes, 7, {}), tmp_path)
    taken = evidence.take(["row", "sha256"], np.array(places, np.int64))
    assert taken.column("row").to_pylist() == [10 * place for place in places]
    assert taken.column("sha256").to_pylist() == [bytes([place] * 32) for place in places]


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), max_size=60), st.data())
def test_places_of_ranks_are_those_of_the_true_entries(values: list[bool], data: st.DataObject) -> None:
    """The k-th true entry is found without a list of all."""
    mask = np.array(values, bool)
    n = int(mask.sum())
    ranks = sorted(data.draw(st.sets(st.integers(0, n - 1)))) if n else []
    expected = np.flatnonzero(mask)[ranks].tolist()
    assert places_of(mask, np.array(ranks, np.int64)).tolist() == expected
