"""What is read off one item, and the embedding of a whole shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_pools import add_evidence, write_class, write_mixed
from PIL import Image

from poolproof.audit.plan import Shard, make_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.run import audit_pool
from poolproof.audit.score import Scorer, score_shard
from poolproof.audit.spec import AuditSpec
from poolproof.detectors.forensic import FORENSIC_DIM
from poolproof.watermark.significance import DETECTION_LEVEL

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a tiny model with random weights in a file."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny-score.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    state = open_clip.CLIP(**TINY).state_dict()  # type: ignore[arg-type]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "tiny.safetensors")
    return f"clip:tiny-score/{folder}/tiny.safetensors"


def evidence(pool: Path, out: Path, scorer: Scorer, shard_size: int = 100) -> list[dict[str, object]]:
    """The rows of a pool's evidence."""
    plan = make_plan(open_pool(pool), out, rng=np.random.default_rng(0), shard_size=shard_size)
    return [row for i in range(plan.n_shards) for row in score_shard(plan.shard(i), scorer).to_pylist()]


def test_a_row_tells_all_that_was_read(tmp_path: Path) -> None:
    """Header, hash, provenance, mark and features of each item stand in its row."""
    pool = write_class(tmp_path / "pool", 1, synthetic=False, seed=0)
    add_evidence(pool, declared=1, marked=1)
    plain, declared, marked = evidence(pool, tmp_path / "plan.parquet", Scorer())
    assert (plain["format"], plain["mode"], plain["width"], plain["frames"]) == ("PNG", "RGB", 64, 1)
    assert (plain["signed"], plain["declared"], plain["marked"], plain["findings"]) == (
        False,
        False,
        False,
        [],
    )
    assert len(plain["forensic"]) == 4 * FORENSIC_DIM  # type: ignore[arg-type]
    assert plain["embedding"] is None
    assert declared["declared"] is True
    assert declared["findings"][0]["tier"] == "declared"  # type: ignore[index]
    assert marked["mark_payload"] == "sdxl"
    assert marked["mark_pvalue"] < DETECTION_LEVEL  # type: ignore[operator]


@pytest.mark.parametrize(
    ("magic", "channels"), [(b"stealth_pnginfo", slice(3, 4)), (b"stealth_rgbinfo", slice(3))]
)
def test_text_in_the_lowest_bits_is_evidence(tmp_path: Path, magic: bytes, channels: slice) -> None:
    """Text hidden in alpha or in the colours stands among the findings and declares the item."""
    pool = write_class(tmp_path / "pool", 1, synthetic=False, seed=0)
    rgba = np.asarray(Image.open(pool / "0000.png").convert("RGBA")).copy()
    payload = magic + (8 * 4).to_bytes(4, "big") + b"text"
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    columns = rgba[:, :, channels].transpose(1, 0, 2).reshape(-1)
    columns[: len(bits)] = columns[: len(bits)] & 254 | bits
    n_channels = rgba[:, :, channels].shape[2]
    rgba[:, :, channels] = columns.reshape(rgba.shape[1], rgba.shape[0], n_channels).transpose(1, 0, 2)
    Image.fromarray(rgba).save(pool / "0000.png")
    (row,) = evidence(pool, tmp_path / "plan.parquet", Scorer())
    assert row["findings"] == [
        {
            "tier": "declared",
            "synthetic": True,
            "source": "stealth",
            "field": magic.decode(),
            "value": "text",
            "confidence": "stated",
        }
    ]
    assert (row["declared"], row["signed"], row["mode"]) == (True, False, "RGBA")


def test_marks_can_be_left_unread(tmp_path: Path) -> None:
    """Without marks the columns stay null: nothing was looked for."""
    pool = write_class(tmp_path / "pool", 1, synthetic=False, seed=0)
    (row,) = evidence(pool, tmp_path / "plan.parquet", Scorer(marks=False))
    assert (row["marked"], row["mark_payload"], row["mark_pvalue"]) == (None, None, None)


def test_embeddings_are_unit_vectors_of_the_right_item(tmp_path: Path, clip: str) -> None:
    """Each scored row carries its own embedding; damaged rows carry none, and shard borders do not matter."""
    pool = write_class(tmp_path / "pool", 5, synthetic=False, seed=0)
    (pool / "0002.png").write_bytes(b"")
    scorer = Scorer(clip)
    rows = evidence(pool, tmp_path / "a.parquet", scorer)
    assert [row["embedding"] is None for row in rows] == [False, False, True, False, False]
    vectors = np.stack([np.frombuffer(row["embedding"], "<f2") for row in rows if row["embedding"]])  # type: ignore[call-overload]
    assert vectors.shape == (4, 16)
    assert np.allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=5e-3)
    split = evidence(pool, tmp_path / "b.parquet", scorer, shard_size=2)
    apart = np.stack([np.frombuffer(row["embedding"], "<f2") for row in split if row["embedding"]])  # type: ignore[call-overload]
    assert np.allclose(vectors.astype(float), apart.astype(float), atol=5e-3)
    assert evidence(pool, tmp_path / "c.parquet", scorer) == rows


def test_audit_with_an_embedding_model(tmp_path: Path, clip: str) -> None:
    """A run with a local checkpoint works in its features and names weights and hash in the report."""
    write_mixed(tmp_path / "pool", 20, 10, seed=1)
    spec = AuditSpec(
        pool=str(tmp_path / "pool"),
        out=tmp_path / "run",
        real=str(write_class(tmp_path / "real", 30, synthetic=False, seed=2)),
        synthetic=str(write_class(tmp_path / "synthetic", 30, synthetic=True, seed=3)),
        embedder=clip,
        workers=0,
    )
    report = audit_pool(spec)
    assert report["set"]["embedder"] == clip
    assert report["set"]["frechet_distance"] is not None
    assert len(report["manifest"]["weights_sha256"]) == 64
    assert 0 <= report["share"]["lower"] <= report["share"]["upper"] <= 1


def test_a_cache_spares_the_model(tmp_path: Path, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache each image's vector is made once, whatever run asks for it, and is the same."""
    write_class(tmp_path / "pool", 4, synthetic=False, seed=1)
    pool = open_pool(tmp_path / "pool")
    shard = Shard(0, pool.reader, tuple(pool.refs()))
    first = score_shard(shard, Scorer(clip, marks=False, cache=str(tmp_path / "cache")))
    again = Scorer(clip, marks=False, cache=str(tmp_path / "cache"))
    assert again.model is not None

    def refuse(images: object) -> None:
        raise AssertionError("embedded once more")

    monkeypatch.setattr(type(again.model), "embed", lambda self, images: refuse(images))
    assert score_shard(shard, again)["embedding"].equals(first["embedding"])
