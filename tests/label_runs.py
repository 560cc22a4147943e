"""Finished runs to label: a pool whose keys tell the truth, audited without a detector, and sessions on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image_pools import write_mixed

from poolproof.audit.label_session import Labelling
from poolproof.audit.run import audit_pool
from poolproof.audit.spec import AuditSpec

PAGE = "tests0page0one"


def spec(folder: Path, **options: Any) -> AuditSpec:
    """The settings of an audit of `folder/pool` in this process."""
    values = {"pool": str(folder / "pool"), "out": folder / "run", "embedder": "forensic", "workers": 0}
    return AuditSpec(**(values | options))


def make_run(folder: Path, n_real: int = 14, n_synthetic: int = 6, **options: Any) -> Path:
    """The folder of an audited pool of small images; names of real ones begin with r, of synthetic ones with s."""
    write_mixed(folder / "pool", n_real, n_synthetic, seed=3)
    audit_pool(spec(folder, **options))
    return folder / "run"


def open_session(run: Path, **options: Any) -> Labelling:
    """A session on a run's own label file."""
    values: dict[str, Any] = {"by": None, "seed": None, "wanted": 200} | options
    return Labelling(run, values.pop("path", run / "labels.jsonl"), **values)


def label_truly(session: Labelling, n: int, page: str = PAGE) -> list[str]:
    """Labels the next n items by their names; returns these."""
    keys = []
    for _ in range(n):
        shown = session.show(page)
        assert shown is not None
        session.record(page, shown.row, "real" if shown.key.startswith("r") else "synthetic")
        keys.append(shown.key)
    return keys
