"""The local engine: spawned processes that commit one file per shard, and survive what they read."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.evidence import STATUSES
from poolproof.audit.plan import Plan
from poolproof.audit.progress import Tick
from poolproof.audit.score import Progress, Scorer, score_shard
from poolproof.errors import Halted
from poolproof.files import hash_file, replace_file, sweep_folder, tell_failure, write_json
from poolproof.processes import die_with_parent

ITEM_SECONDS: Final = 120.0
"""An item that takes longer is taken for one that never ends; its process is killed."""

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What a worker's environment says, so that cores are shared out by processes alone."""

KILLED: Final = "killed: reading it ended the process twice"
"""The reason of an item that is left out for the deaths of its readers."""

_POLL_SECONDS: Final = 0.1

_LOG: Final = logging.getLogger(__name__)


class EngineError(Halted):
    """The engine could not go on; what was finished stays, and the same command continues."""


class WorkerError(RuntimeError):
    """A bug in a worker; carries the worker's traceback."""


def failure_of(told: str) -> RuntimeError:
    """The error that a worker's words stand for: a bug keeps its traceback, what can be mended is one line."""
    return WorkerError(told) if told.startswith("Traceback") else EngineError(told)


@dataclass
class Deaths:
    """Which items were at hand when a process died, and which are left out for it.

    Attributes:
        skip: reasons by shard and row.
        counts: deaths by shard and row; row -1 stands for no item at hand.
    """

    skip: dict[int, dict[int, str]] = field(default_factory=dict)
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def note(self, shard: int, row: int, cause: str) -> None:
        """Counts a death: the item at hand may be tried once more, and is then left out.

        The evidence says that, not what ended the process: engines are told it in different words, or not at all. It
        goes to the log.

        Raises:
            EngineError: two deaths in the shard without an item at hand.
        """
        self.counts[shard, row] += 1
        if self.counts[shard, row] < 2:
            return
        if row < 0:
            raise EngineError(
                f"workers die ({cause}) in shard {shard} without holding an item; "
                "look for too little memory or a broken install; the same command continues"
            )
        _LOG.warning(
            "row %d of shard %d is left out: reading it ended the process twice (%s)", row, shard, cause
        )
        self.skip.setdefault(shard, {})[row] = KILLED


def part_path(evidence: Path, index: int) -> Path:
    """Where a shard's evidence lies."""
    return evidence / f"part-{index:05d}.parquet"


def done_path(evidence: Path, index: int) -> Path:
    """The marker that says a shard's evidence is whole; written after it."""
    return evidence / f"part-{index:05d}.done.json"


def commit_shard(
    plan: Plan, index: int, scorer: Scorer, evidence: Path, config_sha256: str, **options: Any
) -> None:
    """Scores a shard and commits it: the part under its final name, then its marker."""
    table = score_shard(plan.shard(index), scorer, **options)
    part = part_path(evidence, index)
    with replace_file(part) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    write_json(done_path(evidence, index), _describe_part(plan, index, table, hash_file(part), config_sha256))


def try_shard(
    plan: Plan,
    index: int,
    scorer: Scorer,
    evidence: Path,
    config_sha256: str,
    *,
    skip: Mapping[int, str],
    progress: Progress,
) -> str | None:
    """Commits a shard in a worker. None where that went well, else what the driver is to raise."""
    try:
        commit_shard(plan, index, scorer, evidence, config_sha256, skip=skip, progress=progress)
    except OSError as error:
        return traceback.format_exc() if error.errno is None else tell_failure(error, evidence)
    except BaseException:  # it goes to the driver, which raises it with this traceback
        return traceback.format_exc()
    return None


def distrust(plan: Plan, evidence: Path) -> list[int]:
    """Shards whose evidence is not what was written. Their markers are removed, so that they are read again."""
    damaged = []
    for index in range(plan.n_shards):
        marker, part = _read_marker(evidence, index), part_path(evidence, index)
        if marker is None or not part.is_file():
            continue
        sha256 = hash_file(part)
        if sha256 == marker.get("sha256"):
            table = pq.read_table(part, columns=["status"])
            if marker == _describe_part(plan, index, table, sha256, marker.get("config_sha256")):
                continue
        done_path(evidence, index).unlink()
        damaged.append(index)
    return damaged


def unfinished(plan: Plan, evidence: Path, config_sha256: str) -> list[int]:
    """Shards without a marker of this plan and configuration."""
    return [i for i in range(plan.n_shards) if not _is_done(plan, i, evidence, config_sha256)]


def run_shards(
    plan: Plan,
    scorer: Scorer,
    evidence: Path,
    config_sha256: str,
    *,
    workers: int | None = None,
    tick: Tick | None = None,
    shards: Collection[int] | None = None,
) -> None:
    """Scores every shard that is not done yet. The files are the same for any number of workers.

    Args:
        plan: the pinned plan.
        scorer: what is read off the items.
        evidence: folder of the parts; made if needed.
        config_sha256: goes into each marker, so that a rerun with other settings is noticed.
        workers: processes, None for one a core; 0 works in this one, without protection from images that kill
            a decoder.
        tick: told of progress.
        shards: those to do, while other processes may do others; None for all.

    Raises:
        WorkerError: a worker met a bug.
        EngineError: the disk is full, or workers die without having touched an item.
    """
    evidence.mkdir(parents=True, exist_ok=True)
    if shards is None:
        sweep(evidence)
    todo = [i for i in unfinished(plan, evidence, config_sha256) if shards is None or i in shards]
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if workers == 0:
        n_done = 0
        for index in todo:
            commit_shard(plan, index, scorer, evidence, config_sha256)
            n_done += plan.sizes[index]
            if tick is not None:
                tick(n_done)
        return
    _Crew(plan, scorer, evidence, config_sha256, deque(todo), tick).work(min(workers, len(todo)))


def sweep(evidence: Path) -> None:
    """Removes what killed workers left behind; nobody else may be at work in the folder."""
    sweep_folder(evidence)
    for leftover in evidence.glob(".*.row"):
        leftover.unlink(missing_ok=True)


def sweep_shard(evidence: Path, index: int) -> None:
    """Removes what a killed worker left of a shard that nobody works on any more."""
    for path in (part_path(evidence, index), done_path(evidence, index)):
        for leftover in evidence.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    position: Any
    """Shared with the process: the row at hand (-1: none), and how many of the shard's items were begun."""
    shard: int | None = None
    last_row: int = -1
    since: float = 0.0


@dataclass
class _Crew:
    """The parent's side: hands out shards, watches the workers, replaces those that die."""

    plan: Plan
    scorer: Scorer
    evidence: Path
    config_sha256: str
    todo: deque[int]
    tick: Tick | None
    deaths: Deaths = field(default_factory=Deaths)
    n_done: int = 0

    def work(self, n_workers: int) -> None:
        workers = [self._hire() for _ in range(n_workers)]
        try:
            for worker in workers:
                self._assign(worker)
            while any(worker.shard is not None for worker in workers):
                handles = [worker.pipe for worker in workers] + [
                    worker.process.sentinel for worker in workers
                ]
                ready = wait(handles, timeout=_POLL_SECONDS)
                for i, worker in enumerate(workers):
                    if worker.pipe in ready or worker.process.sentinel in ready:
                        workers[i] = self._hear(worker)
                    elif self._is_stuck(worker):
                        worker.process.kill()
                if self.tick is not None:
                    self.tick(
                        self.n_done
                        + sum(worker.position[1] for worker in workers if worker.shard is not None)
                    )
        finally:
            for worker in workers:
                self._dismiss(worker)

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        position = context.RawArray("q", [-1, 0])
        args = (theirs, position, self.plan, self.scorer, self.evidence, self.config_sha256, os.getpid())
        process = context.Process(target=_serve, args=args, daemon=True)
        with one_thread_each():
            process.start()
        theirs.close()
        return _Worker(process, ours, position)

    def _assign(self, worker: _Worker) -> None:
        worker.shard = self.todo.popleft() if self.todo else None
        worker.last_row, worker.since = -1, time.monotonic()
        worker.position[0], worker.position[1] = -1, 0
        if worker.shard is not None:
            with contextlib.suppress(BrokenPipeError):  # a dead worker is met at its sentinel
                worker.pipe.send((worker.shard, self.deaths.skip.get(worker.shard, {})))

    def _hear(self, worker: _Worker) -> _Worker:
        """Takes a worker's message, or its death."""
        try:
            failure = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if failure is not None:
            raise failure_of(failure)
        if worker.shard is not None:
            self.n_done += self.plan.sizes[worker.shard]
        self._assign(worker)
        return worker

    def _bury(self, worker: _Worker) -> _Worker:
        """Replaces a worker that died; the item it held is tried once more, then skipped."""
        worker.process.join()
        shard, row, code = worker.shard, int(worker.position[0]), worker.process.exitcode
        self._dismiss(worker)
        if shard is None:
            return self._hire()
        sweep_shard(self.evidence, shard)
        self.deaths.note(shard, row, _cause(code))
        self.todo.appendleft(shard)
        fresh = self._hire()
        self._assign(fresh)
        return fresh

    def _is_stuck(self, worker: _Worker) -> bool:
        row, now = int(worker.position[0]), time.monotonic()
        if worker.shard is None or row < 0 or row != worker.last_row:
            worker.last_row, worker.since = row, now
            return False
        return now - worker.since > ITEM_SECONDS

    @staticmethod
    def _dismiss(worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join(timeout=0.5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


def _serve(
    pipe: Connection,
    position: Any,
    plan: Plan,
    scorer: Scorer,
    evidence: Path,
    config_sha256: str,
    parent: int,
) -> None:
    """A worker: commits the shards it is sent, until the parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent takes Ctrl-C and closes the pipes
    die_with_parent(parent)

    def progress(row: int) -> None:
        position[0] = row
        if row >= 0:
            position[1] += 1

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone or done
        while True:
            index, skip = pipe.recv()
            failure = try_shard(plan, index, scorer, evidence, config_sha256, skip=skip, progress=progress)
            pipe.send(failure)
            if failure is not None:
                return


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Makes children that start inside the block use one thread.

    The cores are shared out by processes, and sums of floats come out alike whatever the number of cores.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _is_done(plan: Plan, index: int, evidence: Path, config_sha256: str) -> bool:
    marker = _read_marker(evidence, index)
    if marker is None:
        return False
    same = marker.get("plan_sha256") == plan.sha256 and marker.get("config_sha256") == config_sha256
    return same and part_path(evidence, index).is_file()


def _describe_part(
    plan: Plan, index: int, table: pa.Table, sha256: str, config_sha256: str | None
) -> dict[str, Any]:
    """What a shard's marker says."""
    statuses = Counter(table.column("status").to_pylist())
    return {
        "shard": index,
        "items": table.num_rows,
        "status": {status: statuses[status] for status in STATUSES},
        "sha256": sha256,
        "plan_sha256": plan.sha256,
        "config_sha256": config_sha256,
    }


def _read_marker(evidence: Path, index: int) -> dict[str, Any] | None:
    """A shard's marker, None where there is none or it is damaged."""
    try:
        marker = json.loads(done_path(evidence, index).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None
