"""The benchmark of scale at a small size: made-up evidence goes from the plan to the report."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from poolproof.audit.evidence import EVIDENCE
from poolproof.audit.run import RunFolder

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location("scale_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_ten_thousand_rows_reach_the_report(
    scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is accounted for, copies are found, the run verifies, and each step is told with its memory."""
    options = [
        "--rows",
        "10000",
        "--references",
        "60",
        "--shard-size",
        "1500",
        "--out",
        str(tmp_path / "out"),
    ]
    report = scale.main(options)
    status = report["pool"]["status"]
    assert sum(status.values()) == report["pool"]["items"] == 10_000
    assert status["duplicate"] == scale.count_copies(10_000)
    assert 40 < status["duplicate"] < 60
    assert status["unreadable"] == 150 - status["duplicate"]  # a copy of what cannot be read is no duplicate
    told = capsys.readouterr().out
    for step in ("listing and plan", "fitting the detector", "scoring the items", "verify", "decide"):
        assert step in told
    assert told.count("MB peak") == 10
    run = RunFolder(tmp_path / "out" / "run")
    assert run.plan().sizes == (1500,) * 6 + (1000,)
    part = next(iter(run.evidence().parts()))
    assert part.schema.equals(EVIDENCE)
    assert pq.read_metadata(run.items).num_rows == 10_000


def test_copies_share_the_hash_of_an_earlier_row(scale: ModuleType) -> None:
    """Every hundredth row has the bytes of an earlier row that is itself no copy, and no other two agree."""
    rows = np.arange(5000)
    origin = scale.origin_of(rows)
    copies = rows % 100 == 99
    assert (origin[copies] < rows[copies]).all()
    assert (origin[~copies] == rows[~copies]).all()
    assert not (origin % 100 == 99).any()
    hashes = scale.hash_rows(origin, 0).to_pylist()
    assert len(set(hashes)) == len(np.unique(origin))
    assert set(hashes).isdisjoint(scale.hash_rows(origin, 1).to_pylist())
