"""A filtered pool holds what was kept, byte for byte, whatever stops the writing, and nothing leads out of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filtered_pools import (
    KINDS,
    all_items,
    contents,
    decide,
    every_other,
    images,
    kept_items,
    load_saved,
    stored_rows,
    uid,
    write_kind,
)
from image_pools import add_evidence, write_mixed

from poolproof.audit.decide import decide as decide_policy
from poolproof.audit.decide import judge_run, save_decision
from poolproof.audit.filter import FORMATS, FilterSpec, filter_pool, listed
from poolproof.audit.policy import DropFound
from poolproof.audit.pool import Pool, open_pool
from poolproof.audit.run import RunFolder, audit_pool
from poolproof.audit.spec import AuditSpec
from poolproof.audit.write_place import FilterError, Place
from poolproof.errors import InputError

SLOW_STOPS = (
    ("folder", "webdataset"),
    ("folder", "dataset"),
    ("webdataset", "parquet"),
    ("parquet", "folder"),
)
STOPS = (
    *((kind, kind) for kind in KINDS),
    ("webdataset", "uids"),
    ("dataset", "folder"),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW_STOPS),
)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk here: what a stop leaves behind does not depend on it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "sync", lambda: None)


def opened(out: Path) -> Pool:
    """The pool that was written, its kind found by looking."""
    return open_pool(out / "pool")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_from_every_kind(tmp_path: Path, kind: str, name: str) -> None:
    """The output opens as its kind and holds exactly the kept bytes; the manifest and the list agree."""
    pool = write_kind(tmp_path, kind)
    run, decision = decide(pool, tmp_path)
    before = contents(pool)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name, shard_items=None))
    assert contents(pool) == before
    expected = kept_items(open_pool(pool))
    assert len(expected) == 5
    assert (tmp_path / "out" / "kept.txt").read_text().splitlines() == [key for key, _ in expected]
    assert json.loads((tmp_path / "out" / "filter.json").read_text()) == manifest
    assert manifest["counts"]["kept"] == 5
    assert manifest["reasons"] == {"kept": {"kept": 5}, "dropped": {"found": 5}}
    assert not (tmp_path / "out" / ".filter").exists()
    if name in ("uids", "keys"):
        assert not (tmp_path / "out" / "pool").exists()
        return
    written = opened(tmp_path / "out")
    assert written.kind == (kind if name == "auto" else name)
    assert sorted(data for _, data in all_items(written)) == sorted(data for _, data in expected)
    if written.kind == kind or name in ("parquet", "dataset"):
        assert all_items(written) == expected  # keys and order as well


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["webdataset", "folder"])
def test_captions_travel(tmp_path: Path, kind: str, name: str) -> None:
    """Caption and JSON stay beside their image, made of the columns where the pool is a table."""
    run, decision = decide(write_kind(tmp_path, kind), tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    written = opened(tmp_path / "out")
    bytes_of = {data: i for i, data in enumerate(images(10))}
    for ref, data in zip(written.refs(), written.reader.read(written.refs()), strict=True):
        assert isinstance(data, bytes)
        beside = written.reader.sidecars(ref)
        i = bytes_of[data]
        assert beside[".txt"].decode() == f"caption {i}"
        assert json.loads(beside[".json"])["uid"] == uid(i)


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize("name", ["parquet", "dataset"])
def test_captions_become_columns(tmp_path: Path, kind: str, name: str) -> None:
    """Files beside the image become columns of its row."""
    run, decision = decide(write_kind(tmp_path, kind), tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    if name == "parquet":
        rows = pq.read_table(tmp_path / "out" / "pool" / "00000000.parquet").to_pylist()
    else:
        rows = stored_rows(load_saved(tmp_path / "out" / "pool"))
    place = {data: i for i, data in enumerate(images(10))}
    for row in rows:
        i = place[row["image"]["bytes"]]
        assert row["txt"] == f"caption {i}"
        assert json.loads(row["json"])["uid"] == uid(i)
        assert row["sidecars"] == []


@pytest.mark.parametrize("name", ["webdataset", "dataset", "uids"])
def test_small_shards(tmp_path: Path, name: str) -> None:
    """Shards hold so many items and no more, in order."""
    pool = write_kind(tmp_path, "webdataset")
    run, decision = decide(pool, tmp_path)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name, shard_items=2))
    if name == "uids":
        assert len(np.load(tmp_path / "out" / "subset.npy")) == 5
    else:
        assert [shard["items"] for shard in manifest["shards"]] == [2, 2, 1]
        assert [data for _, data in all_items(opened(tmp_path / "out"))] == [
            d for _, d in kept_items(open_pool(pool))
        ]


class Stopped(BaseException):
    """What ends a call in the middle; not an error that anything handles."""


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[int]]:
    """Ends the call at the n-th file, before it takes its name; counts them."""
    count = [0]
    write = Place.file

    @contextmanager
    def file(self: Place, path: Path, *, sync: bool = True) -> Iterator[Any]:
        with write(self, path, sync=sync) as handle:
            yield handle
            count[0] += 1
            if count[0] == after:
                handle.flush()
                raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Place, "file", file)
        yield count


@pytest.mark.parametrize(("kind", "name"), STOPS)
def test_a_stop_anywhere_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """Stopped at each file in turn, the next call goes on and the output is what one call gives."""
    run, decision = decide(write_kind(tmp_path, kind, 6), tmp_path)
    small = None if (kind, name) == ("parquet", "parquet") else 2
    with stopping(monkeypatch, 0) as count:
        whole = filter_pool(run, decision, FilterSpec(tmp_path / "whole", format=name, shard_items=small))
    spec = FilterSpec(tmp_path / "out", format=name, shard_items=small)
    for at in range(1, count[0] + 1):
        shutil.rmtree(spec.out, ignore_errors=True)
        with stopping(monkeypatch, at), pytest.raises(Stopped):
            filter_pool(run, decision, spec)
        assert not (spec.out / "filter.json").exists()
        assert filter_pool(run, decision, spec) == whole
        assert contents(spec.out) == contents(tmp_path / "whole")


def test_finished_units_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop in the second tar the first one stays as it is."""
    run, decision = decide(write_kind(tmp_path, "webdataset"), tmp_path)
    spec = FilterSpec(tmp_path / "out", shard_items=2)
    with stopping(monkeypatch, 5), pytest.raises(Stopped):
        filter_pool(run, decision, spec)
    first = spec.out / "pool" / "00000000.tar"
    before = (first.stat().st_ino, first.stat().st_mtime_ns)
    filter_pool(run, decision, spec)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == before


def test_killed_by_force(tmp_path: Path) -> None:
    """A process that is killed leaves a folder from which the same call ends in the same bytes."""
    run, decision = decide(write_kind(tmp_path, "folder", 40), tmp_path)
    whole = filter_pool(run, decision, FilterSpec(tmp_path / "whole", format="webdataset", shard_items=4))
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from poolproof.audit.decision import read_decision\n"
        "from poolproof.audit.filter import FilterSpec, filter_pool\n"
        "from poolproof.audit.run import RunFolder\n"
        "from poolproof.audit.write_place import Place\n"
        "done = Place.mark_done\n"
        "def mark(self, unit, found):\n"
        "    if unit == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done(self, unit, found)\n"
        "Place.mark_done = mark\n"
        "run, decision, out = map(Path, sys.argv[1:])\n"
        "filter_pool(RunFolder(run), read_decision(decision), FilterSpec(out, 'webdataset', shard_items=4))\n"
    )
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, run.path, decision.path, out], check=False)
    assert killed.returncode == -9
    assert (out / ".filter" / "00000001.json").exists()
    assert not (out / ".filter" / "00000002.json").exists()
    spec = FilterSpec(out, format="webdataset", shard_items=4)
    assert filter_pool(run, decision, spec) == whole
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_pool_is_left_alone(tmp_path: Path) -> None:
    """The same call again reads the manifest and writes nothing."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    first = filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert filter_pool(run, decision, FilterSpec(tmp_path / "out")) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_another_decision_or_format_is_refused(tmp_path: Path) -> None:
    """A folder is continued with the settings it was begun with, and no others."""
    pool = write_kind(tmp_path, "folder")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    with pytest.raises(InputError, match="another format"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out", format="keys"))
    again, other = decide(pool, tmp_path / "second", keep=lambda ref: ref.row < 3)
    with pytest.raises(InputError, match="another decision"):
        filter_pool(again, other, FilterSpec(tmp_path / "out"))


def test_the_decision_of_another_run_is_refused(tmp_path: Path) -> None:
    """A decision belongs to the plan it was made on."""
    run, _ = decide(write_kind(tmp_path, "folder"), tmp_path)
    _, other = decide(write_kind(tmp_path, "webdataset"), tmp_path / "second")
    with pytest.raises(InputError, match="another run"):
        filter_pool(run, other, FilterSpec(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_kept_is_refused(tmp_path: Path) -> None:
    """An empty pool is no pool."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path, keep=lambda ref: False)
    with pytest.raises(InputError, match="keeps none of 10"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out"))


def test_other_files_in_the_way(tmp_path: Path) -> None:
    """A folder with other files, or a link, is not written to."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"other files \('notes.txt', 1 in all\)"):
        filter_pool(run, decision, FilterSpec(out))
    assert os.listdir(out) == ["notes.txt"]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        filter_pool(run, decision, FilterSpec(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_planted_in_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that someone puts into a half-written pool is found before anything is written through it."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    spec = FilterSpec(tmp_path / "out")
    with stopping(monkeypatch, 2), pytest.raises(Stopped):
        filter_pool(run, decision, spec)
    (tmp_path / "target").mkdir()
    (spec.out / "pool").mkdir(exist_ok=True)
    (spec.out / "pool" / "b").symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="holds a link"):
        filter_pool(run, decision, spec)
    assert os.listdir(tmp_path / "target") == []


def test_output_apart_from_pool_and_run(tmp_path: Path) -> None:
    """The output lies neither in the pool nor above it or the run."""
    pool = write_kind(tmp_path / "data", "folder")
    run, decision = decide(pool, tmp_path / "runs")
    for out in (pool / "filtered", pool, tmp_path / "data", tmp_path / "runs"):
        with pytest.raises(InputError, match="lies in the audited pool"):
            filter_pool(run, decision, FilterSpec(out))
    assert filter_pool(run, decision, FilterSpec(run.path / "filtered"))["counts"]["kept"] == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet", "dataset"])
def test_a_changed_item_stops(tmp_path: Path, kind: str, name: str) -> None:
    """Other bytes than were audited end in one line that names the item, and no manifest."""
    pool = write_kind(tmp_path, kind)
    run, decision = decide(pool, tmp_path)
    target = next(
        path for path in sorted(pool.rglob("*")) if path.suffix in (".jpg", ".tar", ".parquet", ".arrow")
    )
    data = bytearray(target.read_bytes())
    at = data.find(images(10)[0][20:60])
    assert at > 0
    data[at + 5] ^= 255
    target.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"the pool changed since the audit: '.*' .*; audit it again"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    assert not (tmp_path / "out" / "filter.json").exists()


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet", "dataset"])
def test_a_removed_file_stops(tmp_path: Path, kind: str, name: str) -> None:
    """A file that is gone ends in one line that names the item."""
    pool = write_kind(tmp_path, kind)
    run, decision = decide(pool, tmp_path)
    next(path for path in sorted(pool.rglob("*")) if path.suffix in (".jpg", ".tar", ".parquet")).unlink()
    with pytest.raises(InputError, match="the pool changed since the audit"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    assert not (tmp_path / "out" / "filter.json").exists()


def test_what_was_never_read_cannot_be_kept(tmp_path: Path) -> None:
    """An item without a hash cannot be checked, so a decision that keeps it is refused."""
    pool = write_kind(tmp_path, "folder")
    (pool / "a" / "000.jpg").unlink()
    (pool / "a" / "000.jpg").symlink_to("nowhere.jpg")
    run, decision = decide(pool, tmp_path)
    with pytest.raises(InputError, match="no bytes were read"):
        filter_pool(run, decision, FilterSpec(tmp_path / "out"))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends in one line, leaves nothing half-written under a final name, and the call goes on later."""
    run, decision = decide(write_kind(tmp_path, "webdataset"), tmp_path)
    spec = FilterSpec(tmp_path / "out", shard_items=2)
    whole = filter_pool(run, decision, FilterSpec(tmp_path / "whole", shard_items=2))
    synced, fsync = [0], os.fsync

    def full(handle: int) -> None:
        synced[0] += 1
        if synced[0] == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            FilterError, match=r"no space left on the device of .*; free some, the same command continues"
        ):
            filter_pool(run, decision, spec)
    finals = contents(spec.out / "pool")
    assert finals
    assert all(contents(tmp_path / "whole" / "pool")[name] == digest for name, digest in finals.items())
    assert filter_pool(run, decision, spec) == whole
    assert contents(spec.out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet", "dataset"])
def test_a_device_without_space(tmp_path: Path, name: str) -> None:
    """Writing into a device that is always full is told the same way, whichever library writes."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    out = tmp_path / "out"
    (out / ".filter").mkdir(parents=True)
    whole = Place.file

    @contextmanager
    def full(self: Place, path: Path, *, sync: bool = True) -> Iterator[Any]:
        if "pool" in path.parts:
            with Path("/dev/full").open("wb") as handle:
                yield handle
        else:
            with whole(self, path, sync=sync) as handle:
                yield handle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "file", full)
        with pytest.raises(FilterError, match="no space left"):
            filter_pool(run, decision, FilterSpec(out, format=name))
    assert not (out / "filter.json").exists()


def test_weights_travel(tmp_path: Path) -> None:
    """Unequal weights are in a file of their own, and a column of tables."""
    pool = write_kind(tmp_path, "parquet")
    run, decision = decide(pool, tmp_path, weight=lambda ref: 0.25 if ref.row else 1.0)
    for name in ("parquet", "dataset", "webdataset"):
        manifest = filter_pool(run, decision, FilterSpec(tmp_path / name, format=name))
        assert manifest["counts"]["weighted"]
        table = pq.read_table(tmp_path / name / "weights.parquet")
        assert table.column("weight").to_pylist() == [1.0, 0.25, 0.25, 0.25, 0.25]
        assert table.column("key").to_pylist() == [uid(i) for i in range(0, 10, 2)]
    assert pq.read_table(tmp_path / "parquet" / "pool").column("weight").to_pylist() == [1.0] + [0.25] * 4


def test_a_sampled_audit_says_what_is_not_there(tmp_path: Path) -> None:
    """Items that were not audited are counted, in the card too."""
    from poolproof.audit.plan import make_plan

    pool = write_kind(tmp_path, "folder")
    run, decision = decide(pool, tmp_path)
    plan = make_plan(open_pool(pool), run.path / "plan.parquet", rng=np.random.default_rng(1), sample=4)
    from poolproof.audit.decision import DECISION, write_decision

    rows = pq.read_table(decision.path)
    refs = plan.shard(0).refs
    table = rows.take([ref.row for ref in refs]).cast(DECISION)
    header = {"plan_sha256": plan.sha256, "policy": {"kind": "by-hand"}}
    sampled = write_decision(tmp_path / "sampled.parquet", header, iter([table]))
    manifest = filter_pool(run, sampled, FilterSpec(tmp_path / "out", format="keys"))
    assert manifest["counts"]["not_audited"] == 6
    assert "6 more images were not judged" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "--format is 'zip'; allowed are auto, folder"),
        ({"link": "soft"}, "--link is 'soft'; allowed are copy, hard"),
        ({"format": "parquet", "link": "hard"}, "only files of a folder can be linked"),
        ({"shard_items": 0}, "must be at least 1"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """A wrong option is told before anything is written."""
    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    with pytest.raises(InputError, match=message):
        filter_pool(run, decision, FilterSpec(tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("a/b c.jpg", "a/b c.jpg"),
        ("new\nline", '"new\\nline"'),
        ('"quoted"', '"\\"quoted\\""'),
        (" space", '" space"'),
        ("\u202egpj", '"\\u202egpj"'),
        ("", '""'),
    ],
)
def test_keys_in_the_list(key: str, line: str) -> None:
    """A line is the key itself, or a JSON string of it where it could be misread."""
    assert listed(key) == line


def test_from_audit_to_pool(tmp_path: Path) -> None:
    """The decision that the policies write into the output folder is carried out there, and told in the card."""
    add_evidence(write_mixed(tmp_path / "pool", 6, 0, seed=3), declared=3, marked=0)
    audit_pool(AuditSpec(pool=str(tmp_path / "pool"), out=tmp_path / "run", embedder="forensic", workers=0))
    judged = judge_run(tmp_path / "run")
    decision, told = save_decision(judged, decide_policy(judged, DropFound()), tmp_path / "out")
    manifest = filter_pool(RunFolder(tmp_path / "run"), decision, FilterSpec(tmp_path / "out"))
    assert manifest["counts"]["kept"] == told["items"]["kept"] == 6
    assert sorted(os.listdir(tmp_path / "out" / "pool")) == [f"r{i:04d}.png" for i in range(6)]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- removed: 3 of 9 images" in card
    assert "```" not in card
    assert "removed: 3 of 9 images" in (tmp_path / "out" / "croissant.json").read_text()


def test_two_calls_at_once(tmp_path: Path) -> None:
    """A second process is told to wait."""
    import fcntl

    run, decision = decide(write_kind(tmp_path, "folder"), tmp_path)
    (tmp_path / "out" / ".filter").mkdir(parents=True)
    with (tmp_path / "out" / ".filter" / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert filter_pool(run, decision, FilterSpec(tmp_path / "out"))["counts"]["kept"] == 5
    assert every_other(open_pool(tmp_path / "folder-pool").refs()[0])
