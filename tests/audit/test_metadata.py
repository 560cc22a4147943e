"""The facts of files that a pre-flight check looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_pools import write_class

from poolproof.audit import metadata as module
from poolproof.audit.metadata import FACTS, read_facts
from poolproof.audit.run import audit_pool
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.spec import AuditSpec


def test_facts_are_those_of_the_kept_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts come in the plan's order for the kept items alone, and at most so many, drawn."""
    write_class(tmp_path / "pool", 12, synthetic=False, seed=1)
    audit_pool(AuditSpec(str(tmp_path / "pool"), tmp_path / "run", embedder="forensic", workers=0))
    evidence = RunFolder(tmp_path / "run").evidence()
    keep = np.arange(12) % 2 == 0
    facts = read_facts(evidence, keep, rng=np.random.default_rng(0))
    assert tuple(facts) == tuple(FACTS.values())
    sizes = np.array(evidence.column("n_bytes").to_pylist())
    assert facts["n_bytes"] == sizes[keep].tolist()
    assert not any(facts["has_exif"])
    monkeypatch.setattr(module, "MOST", 4)
    drawn = read_facts(evidence, keep, rng=np.random.default_rng(0))["n_bytes"]
    assert len(drawn) == 4
    assert set(drawn) <= set(sizes[keep].tolist())
