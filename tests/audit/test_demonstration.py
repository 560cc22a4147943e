"""The demonstration end to end, with a small model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from poolproof.audit.demonstration import run_quickstart
from poolproof.audit.quickstart import QuickstartSpec
from poolproof.audit.verify import find_faults
from poolproof.errors import InputError
from poolproof.simulate.diffusion import DiffusionSpec


@pytest.fixture
def small() -> QuickstartSpec:
    """A demonstration of seconds."""
    return QuickstartSpec(
        n_train=100, n_reference=60, n_pool=80, diffusion=replace(DiffusionSpec(), n_steps=60)
    )


def test_share_and_truth_stand_side_by_side(tmp_path: Path, small: QuickstartSpec) -> None:
    """The summary holds truth, interval and whether it covers; the run is whole; a rerun says the same."""
    summary = run_quickstart(tmp_path / "demo", seed=3, workers=0, spec=small)
    assert summary == json.loads((tmp_path / "demo" / "quickstart.json").read_text())
    assert summary["covered"] == (summary["share"]["lower"] <= summary["truth"] <= summary["share"]["upper"])
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["pool"]["status"]["scored"] + report["pool"]["status"]["duplicate"] == 80
    assert report["tiers"]["declared"]["count"] >= 1
    assert find_faults(tmp_path / "demo") == []
    again = run_quickstart(tmp_path / "demo", seed=3, workers=0, spec=small)
    assert again["share"] == summary["share"]


@pytest.mark.slow
def test_another_seed_needs_another_folder(tmp_path: Path, small: QuickstartSpec) -> None:
    """A folder that holds a demonstration is not mixed with another one."""
    run_quickstart(tmp_path / "demo", seed=3, workers=0, spec=small)
    with pytest.raises(InputError, match="new folder"):
        run_quickstart(tmp_path / "demo", seed=4, workers=0, spec=small)
