"""A run in parts ends as a run in one piece does, whoever comes first."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_pools import write_class, write_mixed
from refusals import assert_refused

from poolproof.audit.engine import done_path
from poolproof.audit.locks import lock_run
from poolproof.audit.parts import Part, describe_shards, parse_part
from poolproof.audit.plan import Plan
from poolproof.audit.reading import read_part
from poolproof.audit.run import audit_pool
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.spec import AuditSpec
from poolproof.errors import InputError

POOLS = ("pool", "real", "synthetic")


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pool and two references."""
    folder = tmp_path_factory.mktemp("pools")
    return {
        "pool": str(write_mixed(folder / "pool", 24, 16, seed=3)),
        "real": str(write_class(folder / "real", 20, synthetic=False, seed=1)),
        "synthetic": str(write_class(folder / "synthetic", 20, synthetic=True, seed=2)),
    }


def spec_of(pools: dict[str, str], out: Path, **options: Any) -> AuditSpec:
    """A spec with small shards, in this process."""
    values = {"embedder": "forensic", "workers": 0, "shard_size": 4, **options}
    return AuditSpec(**pools, out=out, **values)


def contents(run: Path) -> dict[str, str]:
    """The hash of every visible file of a run, its report without seconds and command."""
    hashes = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            data = path.read_bytes()
            if path.name == "report.json":
                report = json.loads(data)
                del report["manifest"]["seconds"], report["manifest"]["command"]
                data = json.dumps(report).encode()
            hashes[str(path.relative_to(run))] = hashlib.sha256(data).hexdigest()
    return hashes


@pytest.fixture(scope="module")
def whole(pools: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one piece."""
    out = tmp_path_factory.mktemp("whole") / "run"
    audit_pool(spec_of(pools, out))
    return out


def test_three_parts_and_a_merge_equal_a_run_in_one_piece(
    pools: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    """Plans, evidence, markers, items and report are the same files, whatever the order of the parts."""
    run = tmp_path / "run"
    left = []
    for number in (2, 3, 1):
        done = read_part(spec_of(pools, run, shards=f"{number}/3"))
        left.append(sum(map(len, done.missing.values())))
        assert not (run / "report.json").exists()
    assert left == [13, 7, 0]
    audit_pool(spec_of(pools, run, merge=True))
    assert contents(run) == contents(whole)


def test_merge_without_a_shard_is_refused(pools: dict[str, str], tmp_path: Path) -> None:
    """One line names what is missing, by set, and nothing is read; without the flag the run is finished."""
    run = tmp_path / "run"
    read_part(spec_of(pools, run, shards="1/2"))
    message = assert_refused(lambda: audit_pool(spec_of(pools, run, merge=True)), "--merge")
    assert "1, 3, 5, 7, 9 of the pool; 1, 3 of the real reference; 0, 2, 4 of the synthetic" in message
    assert not done_path(run / "evidence", 1).exists()
    assert audit_pool(spec_of(pools, run))["pool"]["items"] == 40


def test_merge_of_nothing_is_refused(pools: dict[str, str], tmp_path: Path) -> None:
    """A folder in which no part has begun is not merged, and no plan is made in it."""
    assert_refused(lambda: audit_pool(spec_of(pools, tmp_path / "run", merge=True)), "--merge")
    assert not (tmp_path / "run" / "plan.parquet").exists()


@pytest.mark.slow
def test_parts_at_once(pools: dict[str, str], whole: Path, tmp_path: Path) -> None:
    """Three processes that start together agree on the plan and leave the run of one process."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "poolproof", "audit", pools["pool"], "--real", pools["real"], "--quiet"]
    command += ["--synthetic", pools["synthetic"], "--embedder", "forensic", "--workers", "0"]
    command += ["--shard-size", "4", "--out", str(run)]
    parts = [
        subprocess.Popen([*command, "--shards", f"{i}/3"], stdout=subprocess.PIPE, text=True)
        for i in (1, 2, 3)
    ]
    said = [part.communicate(timeout=120)[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0, 0]
    assert said[1].startswith(
        "part        2 of 3: 3 shards of 12 items of the pool, 2 shards of 8 items of the real"
    )
    merged = subprocess.run([*command, "--merge"], check=False, capture_output=True, text=True)
    assert merged.returncode == 0, merged.stderr
    assert contents(run) | {"report.html": ""} == contents(whole) | {"report.html": ""}


def test_parts_and_a_whole_run_exclude_each_other(pools: dict[str, str], tmp_path: Path) -> None:
    """A merge waits for no part: it is refused while one is at work, and so is a part during a merge."""
    run = tmp_path / "run"
    run.mkdir()
    with lock_run(run, shared=True):
        read_part(spec_of(pools, run, shards="1/2"))
        with pytest.raises(InputError, match="another process is working on"):
            audit_pool(spec_of(pools, run, merge=True))
    with lock_run(run), pytest.raises(InputError, match="another process is working on"):
        read_part(spec_of(pools, run, shards="2/2"))


@pytest.mark.slow
def test_other_settings_are_refused_in_a_part(pools: dict[str, str], tmp_path: Path) -> None:
    """All parts have the settings of the first; workers and engine may differ."""
    read_part(spec_of(pools, tmp_path / "run", shards="1/2"))
    with pytest.raises(InputError, match="seed = 0, now it is 1"):
        read_part(spec_of(pools, tmp_path / "run", shards="2/2", seed=1))
    assert not read_part(spec_of(pools, tmp_path / "run", shards="2/2", workers=1)).missing
    settings = RunFolder(tmp_path / "run").settings()
    assert not {"shards", "merge", "engine", "ray_address", "workers", "out"} & settings.keys()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3 ", "1/3/5", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    """Parts are numbered from 1 to N."""
    assert_refused(lambda: parse_part(text), "--shards")


def test_shards_of_all_parts_are_those_of_the_plans() -> None:
    """Each shard belongs to one part, and a small reference does not fall to the first part alone."""
    plans = {
        role: Plan(Path(role), "", (4,) * n, 4 * n, {}) for role, n in zip(POOLS, (7, 1, 1), strict=True)
    }
    parts = [Part(number, 3).shards(plans) for number in (1, 2, 3)]
    for role, plan in plans.items():
        assert sorted(i for part in parts for i in part[role]) == list(range(plan.n_shards))
    assert [len(part["real"]) for part in parts] == [0, 1, 0]
    assert [len(part["synthetic"]) for part in parts] == [0, 0, 1]


def test_shards_with_merge_or_a_gate_are_refused(pools: dict[str, str], tmp_path: Path) -> None:
    """A part writes no report, so it neither merges nor closes a gate."""
    assert_refused(lambda: read_part(spec_of(pools, tmp_path, shards="1/2", merge=True)), "--shards")
    command = [sys.executable, "-m", "poolproof", "audit", pools["pool"], "--out", str(tmp_path / "run")]
    gated = [*command, "--shards", "1/2", "--fail-if", "share.lower > 0.1"]
    refused = subprocess.run(gated, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("poolproof: --fail-if: got a condition with --shards")


def test_many_missing_shards_are_named_in_brief() -> None:
    """Neighbours are drawn together, and after ten ranges the rest is counted."""
    words = describe_shards({"pool": range(0, 60, 2)})
    assert words.endswith("18 and 20 more ranges of the pool")
