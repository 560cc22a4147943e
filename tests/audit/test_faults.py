"""Whatever goes wrong while an audit or a filter runs, the same command ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crash_points
import numpy as np
import pyarrow.parquet as pq
import pytest
from filtered_pools import KINDS, contents, decide, write_kind
from image_pools import add_evidence
from sharded_pools import plan_of, write_pool

from poolproof.audit.decide import check_decision, check_out, judge_run, save_decision
from poolproof.audit.decide import decide as choose
from poolproof.audit.engine import done_path
from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.policy import DropFound
from poolproof.audit.reading import read_part
from poolproof.audit.run import audit_pool
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.spec import AuditSpec
from poolproof.audit.verify import find_faults
from poolproof.audit.verify_filter import find_filter_faults, is_filtered
from poolproof.errors import InputError

AUDIT = ("--quiet", "--shard-size", "8", "--max-unreadable", "1", "--embedder", "forensic")

SLOW = """
import sys, time

def hook(event, args):
    if event == "open" and str(args[0]).endswith((".jpg", ".png")):
        time.sleep(0.01)

sys.addaudithook(hook)
"""
"""Makes images take their time, so that kills meet the work and not the start."""

LIMITED = """
import resource, sys
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
from poolproof.cli import main
main()
"""
"""The command where no file may grow beyond a size."""


def mounts() -> bool:
    """Whether this user may mount a file system of its own."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


def command(*arguments: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "poolproof", *map(str, arguments)]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run(command(*arguments), check=False, capture_output=True, text=True, **options)


def is_one_line(text: str) -> bool:
    """Whether standard error is the one line that a user is to read."""
    return text.startswith("poolproof: ") and text.count("\n") == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, four of them damaged and two that declare themselves."""
    pool = write_pool(tmp_path_factory.mktemp("small") / "pool", 12, damaged=True)
    add_evidence(pool, declared=2, marked=0)
    return pool


@pytest.fixture(scope="module")
def small_run(small: Path) -> Path:
    """An audit of it."""
    audit_pool(spec_of(small, small.parent / "run"))
    return small.parent / "run"


@pytest.fixture
def spoilt(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the run to spoil."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def spec_of(pool: Path, out: Path, **options: Any) -> AuditSpec:
    """An audit in this process."""
    return AuditSpec(pool=str(pool), out=out, embedder="forensic", workers=0, shard_size=4, **options)


def empty(path: Path) -> None:
    """Leaves nothing of a file."""
    path.write_bytes(b"")


def flip(path: Path, at: float = 0.5) -> None:
    """Turns one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Cuts a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "first bit": lambda path: flip(path, 0.0),
    "a bit inside": lambda path: flip(path, 0.4),
    "a bit near the end": lambda path: flip(path, 0.97),
    "cut": cut,
    "empty": empty,
}


def evidence_of(folder: Path) -> dict[str, str]:
    """Hashes of what must not depend on what happened: evidence, answers, limits."""
    found = contents(folder)
    return {
        name: digest
        for name, digest in found.items()
        if name.startswith("evidence/") or name.endswith((".parquet", "run.json"))
    }


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name", ["evidence/part-00001.parquet", "evidence/part-00001.done.json", "items.parquet"]
)
def test_damage_of_what_was_written_is_named_and_mended(
    small: Path, small_run: Path, spoilt: Path, name: str, damage: str
) -> None:
    """`verify` names a damaged part, marker or answer, and a rerun writes the same bytes anew."""
    DAMAGE[damage](spoilt / name)
    faults = find_faults(spoilt)
    assert any("shard 1" in fault or "items.parquet" in fault for fault in faults), faults
    audit_pool(spec_of(small, spoilt))
    assert find_faults(spoilt) == []
    assert evidence_of(spoilt) == evidence_of(small_run)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_named_and_refused(small: Path, spoilt: Path, damage: str) -> None:
    """The plan says what the evidence is about: where it changed, nothing goes on, and the error is one line."""
    DAMAGE[damage](spoilt / "plan.parquet")
    assert any("plan" in fault for fault in find_faults(spoilt))
    for again in (lambda: audit_pool(spec_of(small, spoilt)), lambda: RunFolder(spoilt).plan()):
        with pytest.raises(InputError, match="remove the run and start it again"):
            again()


@pytest.mark.parametrize("name", ["run.json", "report.json", "calibration.parquet"])
@pytest.mark.parametrize("damage", ["cut", "empty", "first bit"])
def test_damage_of_other_files_is_an_error_of_one_line(
    small: Path, spoilt: Path, name: str, damage: str
) -> None:
    """Settings that cannot be read are refused, what follows from the evidence is written anew."""
    DAMAGE[damage](spoilt / name)
    if name == "run.json":
        for again in (lambda: audit_pool(spec_of(small, spoilt)), lambda: find_faults(spoilt)):
            with pytest.raises(InputError, match="damaged"):
                again()
        return
    assert any(name in fault for fault in find_faults(spoilt))
    audit_pool(spec_of(small, spoilt))
    assert find_faults(spoilt) == []


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"manifest": []}', '{"pool": {}}'])
def test_json_of_another_form_is_a_fault(spoilt: Path, text: str) -> None:
    """Markers and reports that are JSON, but not ours, are named and never a traceback."""
    done_path(spoilt / "evidence", 0).write_text(text)
    assert any("shard 0" in fault for fault in find_faults(spoilt))
    shutil.copy(done_path(spoilt / "evidence", 1), done_path(spoilt / "evidence", 0))
    assert any("shard 0" in fault for fault in find_faults(spoilt))


@pytest.mark.parametrize("text", ["[]", "3", '{"manifest": []}', '{"pool": {}}'])
def test_a_report_of_another_form_is_a_fault(spoilt: Path, text: str) -> None:
    """A report that is JSON, but no report, is named."""
    (spoilt / "report.json").write_text(text)
    assert any("report.json is damaged" in fault for fault in find_faults(spoilt))


def filtered(kind: str, format: str, folder: Path) -> Path:
    """A filtered pool, without an audit."""
    made = decide(write_kind(folder, kind), folder / "made")
    filter_pool(
        *made,
        FilterSpec(
            folder / "out", format=format, shard_items=None if kind == "parquet" and format == "auto" else 3
        ),
    )
    return folder / "out"


@pytest.mark.parametrize(
    ("kind", "format"), [(kind, format) for kind in KINDS for format in ("auto", "folder")]
)
def test_a_filtered_pool_is_verified(kind: str, format: str, tmp_path: Path) -> None:
    """As it was written, nothing is wrong; whatever file is spoilt or gone, something is."""
    out = filtered(kind, format, tmp_path)
    assert is_filtered(out)
    assert find_filter_faults(out) == []
    loose = {"README.md", "croissant.json", "decision.json"}
    beside = kind != "folder" and (format == "folder")
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.name in loose:
            continue
        data = path.read_bytes()
        path.unlink()
        assert find_filter_faults(out), f"{path.name} gone"
        path.write_bytes(data[:-2])
        assert find_filter_faults(out), f"{path.name} cut"
        path.write_bytes(data)
        if path.suffix not in (".json", ".txt") or (path.suffix == ".txt" and not beside):
            flip(path)
            assert find_filter_faults(out), f"{path.name} with another bit"
            path.write_bytes(data)
    assert find_filter_faults(out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_kept_is_found_in_a_filtered_pool(kind: str, tmp_path: Path) -> None:
    """Files that the filter did not write are named, in the pool and beside it."""
    out = filtered(kind, "auto", tmp_path)
    suffix = {"folder": "png", "webdataset": "tar", "parquet": "parquet", "dataset": "arrow"}[kind]
    like = next(out.joinpath("pool").rglob(f"*.{suffix}"))
    for extra in (out / "pool" / f"more.{suffix}", out / "pool" / "notes", out / "notes"):
        shutil.copy(like, extra)
        assert any(extra.name in fault for fault in find_filter_faults(out)), extra
        extra.unlink()
    (out / "pool" / "link").symlink_to("/")
    assert any("link" in fault for fault in find_filter_faults(out))


@pytest.mark.parametrize("format", ["uids", "keys"])
def test_lists_are_verified(format: str, tmp_path: Path) -> None:
    """Outputs without images are held against the decision too."""
    out = filtered("folder", format, tmp_path)
    assert find_filter_faults(out) == []
    flip(out / ("subset.npy" if format == "uids" else "kept.txt"))
    assert find_filter_faults(out)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"files": [], "identity": {}}', "{"])
def test_a_manifest_of_another_form_is_a_fault(text: str, tmp_path: Path) -> None:
    """A manifest that says something else is named and never a traceback."""
    out = filtered("folder", "auto", tmp_path)
    (out / "filter.json").write_text(text)
    assert any("filter.json is damaged" in fault for fault in find_filter_faults(out))
    (out / "filter.json").unlink()
    assert any("not finished" in fault for fault in find_filter_faults(out))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_decision_is_named_and_refused(spoilt: Path, tmp_path: Path, damage: str) -> None:
    """A decision that changed is never written out: the error is one line, whether it is made anew or applied."""
    out = tmp_path / "filtered"
    judged = judge_run(spoilt)
    decision, _ = save_decision(judged, choose(judged, DropFound()), out)
    filter_pool(RunFolder(spoilt), decision, FilterSpec(out))
    assert find_filter_faults(out) == []
    DAMAGE[damage](out / "decision.parquet")
    assert any("decision.parquet" in fault for fault in find_filter_faults(out))
    with pytest.raises(InputError, match="another decision"):
        save_decision(judged, choose(judged, DropFound()), out)
    with pytest.raises(InputError, match=r"another decision|damaged|another policy|of another"):
        filter_pool(RunFolder(spoilt), check_decision(spoilt, out), FilterSpec(out))


def strike(
    tmp_path: Path, fault: str, words: list[str], *, every: int = 1, first: int = 0
) -> list[dict[str, Any]]:
    """What came of a fault at each of a command's turns to its folder."""
    spec = {
        "command": words,
        "out": str(tmp_path / "struck"),
        "fault": fault,
        "every": every,
        "first": first,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    environment = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, crash_points.__file__, str(tmp_path / "spec.json")],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_strikes(struck: list[dict[str, Any]], codes: set[int]) -> None:
    """Nothing half-written had its final name, and the same command ended with the bytes of a calm one."""
    assert struck
    for turn in struck:
        assert turn["code"] in codes, turn
        assert not turn["half"], turn
        assert turn["again"] == 0, turn
        assert not turn["differs"], turn
        if turn["code"] > 0:
            said = turn["said"][turn["said"].find("poolproof: ") :]
            assert is_one_line(said), turn


COMMANDS = ("audit", "filter")


def words_of(name: str, small: Path, small_run: Path) -> list[str]:
    """The command line of an audit or a filter of the small pool."""
    if name == "filter":
        return ["filter", str(small_run), "-o", "OUT", "-q"]
    return ["audit", str(small), "-o", "OUT", *AUDIT, "--workers", "0"]


@pytest.mark.parametrize(
    ("name", "fault", "code"), [("audit", "full", 1), ("filter", "kill", -signal.SIGKILL)]
)
def test_a_kill_or_a_full_disk_at_some_turns(
    name: str, fault: str, code: int, small: Path, small_run: Path, tmp_path: Path
) -> None:
    """A process that dies, or that finds no space, leaves whole files alone, and the same command continues."""
    check_strikes(strike(tmp_path, fault, words_of(name, small, small_run), every=31, first=5), {code})


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_kill_or_a_full_disk_at_every_turn(
    name: str, fault: str, small: Path, small_run: Path, tmp_path: Path
) -> None:
    """The same at every turn to the file system."""
    words = words_of(name, small, small_run)
    check_strikes(strike(tmp_path, fault, words), {-signal.SIGKILL} if fault == "kill" else {1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder"), [("audit", "evidence"), ("filter", "pool"), ("filter", ".filter")]
)
def test_a_folder_that_is_taken_away_midway(
    name: str, folder: str, small: Path, small_run: Path, tmp_path: Path
) -> None:
    """Where a dangling link takes a folder's place, as root may pass any other bar, the error is one line."""
    struck = strike(tmp_path, f"swap:{folder}", words_of(name, small, small_run), every=9, first=11)
    check_strikes(struck, {0, 1, 2})
    assert any(turn["code"] for turn in struck)


def test_images_that_are_taken_away_midway_cost_their_own_rows(small: Path, tmp_path: Path) -> None:
    """A folder, a dangling link, a file that ends early or nothing in an image's place: each has its status."""
    pool = Path(shutil.copytree(small, tmp_path / "pool"))
    read_part(spec_of(pool, tmp_path / "run", shards="1/2"))
    images = ["0004.jpg", "0006.jpg", "0007.jpg", "d0000.png"]
    for image in images:
        (pool / image).unlink()
    (pool / images[0]).mkdir()
    (pool / images[1]).symlink_to("nowhere")
    (pool / images[2]).write_bytes(b"\xff\xd8")
    audit_pool(spec_of(pool, tmp_path / "run"))
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()}
    assert [rows[image]["status"] for image in images[:3]] == ["unreadable", "missing", "unreadable"]
    assert rows["d0000.png"]["status"] in ("missing", "scored")  # by the part that its shard belongs to
    assert len(rows) == 14
    assert find_faults(tmp_path / "run") == []
    judged = judge_run(tmp_path / "run")
    decision, _ = save_decision(judged, choose(judged, DropFound()), tmp_path / "out")
    (pool / "0000.jpg").unlink()
    (pool / "0000.jpg").mkdir()
    with pytest.raises(InputError, match="changed since the audit"):
        filter_pool(RunFolder(tmp_path / "run"), decision, FilterSpec(tmp_path / "out"))
    assert find_filter_faults(tmp_path / "out") == ["not finished; the filter command continues it"]


@pytest.mark.parametrize("name", ["items.parquet", "report.json", "calibration.parquet", "evidence"])
def test_a_folder_or_a_file_in_the_way_is_an_error_of_one_line(small: Path, spoilt: Path, name: str) -> None:
    """Where a result cannot take its place, the run says so, and goes on when the way is free."""
    target = spoilt / name
    if target.is_dir():
        shutil.rmtree(target)
        target.write_bytes(b"")
    else:
        target.unlink()
        (target / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"Errno \d+"):
        audit_pool(spec_of(small, spoilt))
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    audit_pool(spec_of(small, spoilt))
    assert find_faults(spoilt) == []


@pytest.mark.parametrize(
    "left", ["..decision.parquet.17-4.tmp", ".decision.parquet", ".decision.json.17-4.tmp"]
)
def test_what_a_kill_left_of_a_decision_is_in_nobodys_way(left: str, tmp_path: Path) -> None:
    """A folder with a half-written decision is taken for a new one, and nothing of it stays."""
    made = decide(write_kind(tmp_path, "folder"), tmp_path / "made")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / left).write_bytes(b"half")
    check_out(tmp_path / "out")
    filter_pool(*made, FilterSpec(tmp_path / "out"))
    assert find_filter_faults(tmp_path / "out") == []
    assert not (tmp_path / "out" / left).exists()


def test_what_a_kill_left_of_a_report_is_swept(small: Path, spoilt: Path) -> None:
    """Temporary files of killed audits do not gather in the run, and other hidden files stay."""
    (spoilt / ".items.parquet.17-4.tmp").write_bytes(b"half")
    (spoilt / ".report.html.17.tmp").write_bytes(b"half")
    (spoilt / ".notes.tmp").write_bytes(b"kept")
    audit_pool(spec_of(small, spoilt))
    assert [path.name for path in spoilt.glob(".*.tmp")] == [".notes.tmp"]


def test_a_continued_audit_has_the_notes_of_the_first_call(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the weight-free features cost is told again when a run with `auto` goes on."""
    monkeypatch.setattr("poolproof.detectors.embed.default_is_cached", lambda: False)
    spec = AuditSpec(pool=str(small), out=tmp_path / "run", workers=0, shard_size=4)
    first, again = audit_pool(spec), audit_pool(spec)
    assert any("weight-free" in note for note in first["notes"])
    assert again["notes"] == first["notes"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred and sixty images, some damaged, some that declare themselves."""
    pool = write_pool(tmp_path_factory.mktemp("large") / "pool", 240, damaged=True)
    add_evidence(pool, declared=20, marked=0)
    return pool


@pytest.fixture(scope="module")
def calm(large: Path) -> Path:
    """The folder of an undisturbed audit and of an undisturbed filter."""
    folder = large.parent
    assert run("audit", large, "-o", folder / "run", *AUDIT, "--workers", "2").returncode == 0
    assert run("filter", folder / "run", "-o", folder / "filtered", "-q").returncode == 0
    return folder


@pytest.fixture
def slowed(tmp_path: Path) -> dict[str, str]:
    """An environment in which images take their time."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(SLOW)
    paths = [str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def kill_often(
    words: list[str],
    environment: dict[str, str],
    n_kills: int,
    rng: np.random.Generator,
    *,
    with_workers: bool,
) -> int:
    """Kills a command's workers and the command itself in turn, at random moments; says how often it was begun.

    No worker dies twice in one life of the command: an item at hand at both deaths would be left out, rightly.
    """
    kills = lives = 0
    finished = False
    while kills < n_kills:
        lives += 1
        assert lives < 4 * n_kills
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if finished:  # all is read, no worker comes any more, and the command itself is struck before it ends
            time.sleep(float(rng.uniform(0.05, 0.8)))
        else:
            waiting = time.monotonic() + 2
            while with_workers and time.monotonic() < waiting and process.poll() is None:
                if children(process.pid):
                    break
                time.sleep(0.02)
            time.sleep(float(rng.uniform(0.2, 2.5 if with_workers else 5)))
        workers = children(process.pid)
        if workers and kills % 2 == 0:
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            kills += 1
            time.sleep(float(rng.uniform(0.1, 1.5)))
        if process.poll() is None:
            process.kill()
            kills += 1
        finished = process.wait() == 0 or finished
    return lives


@pytest.mark.slow
def test_an_audit_that_is_killed_twenty_times(
    large: Path, calm: Path, slowed: dict[str, str], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Workers and the command die at random moments, and evidence, answers and limits are those of a calm run."""
    words = command("audit", large, "-o", tmp_path / "run", *AUDIT, "--workers", "2")
    assert kill_often(words, slowed, 20, rng, with_workers=True) >= 5
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert evidence_of(tmp_path / "run") == evidence_of(calm / "run")
    assert find_faults(tmp_path / "run") == []
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.suffix == ".tmp"]


@pytest.mark.slow
def test_a_filter_that_is_killed_twenty_times(
    calm: Path, slowed: dict[str, str], tmp_path: Path, rng: np.random.Generator
) -> None:
    """The filtered pool is byte for byte that of a calm call, and nothing else is left in its folder."""
    words = command("filter", calm / "run", "-o", tmp_path / "out", "-q")
    assert kill_often(words, slowed, 20, rng, with_workers=False) >= 20
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found, wanted = contents(tmp_path / "out"), contents(calm / "filtered")
    for each in (found, wanted):
        del each["decision.json"]  # holds the command
    assert found == wanted
    assert find_filter_faults(tmp_path / "out") == []


@pytest.fixture(params=["limit", *(["disk"] if mounts() else [])])
def tight(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """A command under which no file may grow beyond a size, or which has a disk of that size."""

    def limit(n_bytes: int, out: Path, *words: str | Path) -> list[str]:
        del out
        return [sys.executable, "-c", LIMITED, str(n_bytes), *map(str, words)]

    def disk(n_bytes: int, out: Path, *words: str | Path) -> list[str]:
        out.mkdir(exist_ok=True)
        script = (
            f'mount -t tmpfs -o size={n_bytes} tmpfs "$0"; cp -a "$0.kept/." "$0" 2>/dev/null; "$@"; code=$?; '
            'mkdir -p "$0.kept"; rm -rf "$0.kept"; cp -a "$0" "$0.kept"; exit $code'
        )
        return ["unshare", "-rm", "sh", "-c", script, str(out), *command(*words)]

    return limit if request.param == "limit" else disk


@pytest.mark.slow
def test_a_disk_that_is_full_ends_in_one_line(
    large: Path, calm: Path, tight: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Audit and filter say that no space is left, leave nothing half-written, and continue when there is some."""
    audited, filtered_ = tmp_path / "run", tmp_path / "out"
    audit = ("audit", large, "-o", audited, *AUDIT, "--workers", "2")
    choice = ("filter", calm / "run", "-o", filtered_, "-q", "--format", "webdataset")
    for out, words, sizes in (
        (audited, audit, (9_000, 16_000, 60_000)),
        (filtered_, choice, (16_000, 100_000)),
    ):
        for n_bytes in sizes:
            ended = subprocess.run(tight(n_bytes, out, *words), check=False, capture_output=True, text=True)
            kept = out.with_name(f"{out.name}.kept")
            if kept.is_dir():  # what was on the small disk
                shutil.rmtree(out)
                kept.rename(out)
            assert ended.returncode == 1, (n_bytes, ended)
            assert is_one_line(ended.stderr), ended.stderr
            assert "no space left" in ended.stderr
            for name, digest in evidence_of(out).items():
                if not any(part.startswith(".") for part in Path(name).parts):
                    assert digest == evidence_of(calm / ("run" if out == audited else "filtered"))[name], name
    assert run(*audit).returncode == run(*choice).returncode == 0
    assert evidence_of(audited) == evidence_of(calm / "run")
    assert find_filter_faults(filtered_) == []


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_ray_node_that_dies_midway(two_nodes: Any, tmp_path: Path) -> None:
    """Its shards are read again elsewhere, and the bytes are those of the local engine."""
    from poolproof.audit.engine import run_shards
    from poolproof.audit.ray_engine import run_on_ray
    from poolproof.audit.score import Scorer

    plan = plan_of(write_pool(tmp_path / "pool", 96), tmp_path)
    run_shards(plan, Scorer(), tmp_path / "local", "c" * 64, workers=0)
    lost: list[int] = []

    def lose(n_done: int) -> None:
        if not lost and n_done >= 16:
            lost.append(n_done)
            (node,) = two_nodes.worker_nodes
            two_nodes.remove_node(node, allow_graceful=False)

    run_on_ray(plan, Scorer(), tmp_path / "ray", "c" * 64, tick=lose)
    assert lost
    assert lost[0] < 96
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
