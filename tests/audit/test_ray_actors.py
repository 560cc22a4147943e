"""On a cluster with GPUs, actors hold the models."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sharded_pools import digest, plan_of, plant_hook, write_pool

from poolproof.audit import ray_cluster
from poolproof.audit.engine import KILLED, part_path, run_shards
from poolproof.audit.ray_cluster import connect
from poolproof.audit.ray_engine import run_on_ray
from poolproof.audit.score import Scorer

CONFIG = "c" * 64


@pytest.fixture
def tiny_embedder(tmp_path: Path) -> str:
    """The spec of a small vision transformer with weights from chance."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return f"timm:test_vit/{path}"


@pytest.mark.slow
def test_gpus_are_held_by_actors(tiny_embedder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nodes have GPUs, actors embed: with the local bytes, here on processors, and with their deaths survived."""
    (tmp_path / "hook").mkdir()
    plant_hook(tmp_path / "hook", monkeypatch)
    clean = plan_of(write_pool(tmp_path / "clean", 28), tmp_path)
    run_shards(clean, Scorer(tiny_embedder), tmp_path / "local", CONFIG, workers=1)
    (tmp_path / "other").mkdir()
    pool = write_pool(tmp_path / "deadly", 12)
    (pool / "0003.jpg").rename(pool / "0003deadly.jpg")
    plan = plan_of(pool, tmp_path / "other")
    monkeypatch.setattr(ray_cluster, "_START", ray_cluster._START | {"num_gpus": 1})
    with connect(None, 2) as inherited:
        run_on_ray(clean, Scorer(tiny_embedder), tmp_path / "ray", CONFIG, inherited=inherited)
        run_on_ray(plan, Scorer(tiny_embedder), tmp_path / "survived", CONFIG, inherited=inherited)
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
    rows = [row for i in (0, 1) for row in pq.read_table(part_path(tmp_path / "survived", i)).to_pylist()]
    assert [row["row"] for row in rows if row["status"] != "scored"] == [3]
    assert rows[3]["reason"] == KILLED
    assert all(row["embedding"] for row in rows if row["status"] == "scored")
