"""The Ray engine: a task a shard, which commits its own evidence; the driver sends numbers and reads markers.

Each task runs `commit_shard` as a worker of the local engine does, so plan, evidence and markers are the same bytes.
Ray itself retries nothing: a task whose worker or node died is sent again from here, where the item at hand is known.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from poolproof.audit.engine import (
    ITEM_SECONDS,
    ONE_THREAD,
    Deaths,
    EngineError,
    WorkerError,
    sweep,
    try_shard,
    unfinished,
)
from poolproof.audit.plan import Plan
from poolproof.audit.progress import Tick
from poolproof.audit.ray_cluster import held_signals
from poolproof.audit.score import Scorer

NODE_TRIES: Final = 10
"""Nodes that may die under one shard before the run stops."""

_WAIT_SECONDS: Final = 0.2


def run_on_ray(
    plan: Plan,
    scorer: Scorer,
    evidence: Path,
    config_sha256: str,
    *,
    workers: int | None = None,
    tick: Tick | None = None,
    shards: Collection[int] | None = None,
    inherited: bool = False,
) -> None:
    """Scores every shard that is not done yet, inside `connect`. The files are those of the local engine.

    Args:
        plan: the pinned plan, in a folder that all nodes see under the same path, as the pool must be.
        scorer: what is read off the items.
        evidence: folder of the parts, likewise.
        config_sha256: goes into each marker.
        workers: shards at once; None for as many as the cluster takes.
        tick: told of progress.
        shards: those to do, while other processes may do others; None for all.
        inherited: whether workers have the environment of one thread each from the cluster; if not, they are
            started with it, which takes some seconds.

    Raises:
        WorkerError: a worker met a bug, a full disk, or does not see the folders.
        EngineError: workers or nodes die without having touched an item.
    """
    evidence.mkdir(parents=True, exist_ok=True)
    if shards is None:
        sweep(evidence)
    todo = deque(i for i in unfinished(plan, evidence, config_sha256) if shards is None or i in shards)
    plan, evidence = replace(plan, path=plan.path.absolute()), evidence.absolute()
    paths = (plan.path, evidence, Path(plan.meta["reader"]["root"]))
    needs = tuple(path for path in paths if path.exists())
    environment = {} if inherited else {"runtime_env": {"env_vars": ONE_THREAD}}
    _Driver(_Job(plan, scorer, evidence, config_sha256, needs), todo, workers, tick, environment).work()


def position_path(evidence: Path, index: int) -> Path:
    """Where the worker of a shard says which row it has at hand; gone when the shard is committed."""
    return evidence / f".part-{index:05d}.row"


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run share; travels once.

    Attributes:
        needs: paths that the driver sees, so that a node which does not is told from items that are gone.
    """

    plan: Plan
    scorer: Scorer
    evidence: Path
    config_sha256: str
    needs: tuple[Path, ...]


@dataclass
class _Driver:
    """The driver's side: keeps tasks in flight, and sends those again whose worker died."""

    job: _Job
    todo: deque[int]
    workers: int | None
    tick: Tick | None
    environment: Mapping[str, Any]
    deaths: Deaths = field(default_factory=Deaths)
    nodes: Counter[int] = field(default_factory=Counter)
    flights: dict[Any, int] = field(default_factory=dict)
    n_done: int = 0

    def work(self) -> None:
        import ray

        task = ray.remote(max_retries=0, num_cpus=1, **self.environment)(_score)
        shared = ray.put(self.job)
        limit = self.workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        with held_signals() as act:
            try:
                while self.todo or self.flights:
                    while self.todo and len(self.flights) < limit:
                        shard = self.todo.popleft()
                        reference = task.remote(shared, shard, self.deaths.skip.get(shard, {}))
                        self.flights[reference] = shard
                    landed, _ = ray.wait(list(self.flights), num_returns=1, timeout=_WAIT_SECONDS)
                    act()
                    for reference in landed:
                        self._land(reference, self.flights.pop(reference))
                    if self.tick is not None:
                        self.tick(self.n_done + sum(self._position(i)[1] for i in self.flights.values()))
            finally:
                for reference in self.flights:
                    ray.cancel(reference, force=True)

    def _land(self, reference: Any, shard: int) -> None:
        """Takes a task's end, good or bad."""
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        try:
            failure = ray.get(reference)
        except NodeDiedError:
            self.nodes[shard] += 1
            if self.nodes[shard] >= NODE_TRIES:
                raise EngineError(
                    f"{NODE_TRIES} nodes died under shard {shard}; the same command continues"
                ) from None
        except (WorkerCrashedError, OutOfMemoryError) as error:
            self.deaths.note(shard, self._position(shard)[0], f"Ray: {type(error).__name__}")
        except RayError as error:
            raise WorkerError(str(error)) from error
        else:
            if failure is not None:
                raise WorkerError(failure)
            self.n_done += self.job.plan.sizes[shard]
            return
        position_path(self.job.evidence, shard).unlink(missing_ok=True)
        self.todo.appendleft(shard)

    def _position(self, shard: int) -> tuple[int, int]:
        """The row that a shard's worker has at hand (-1: none), and how many items it began."""
        try:
            row, begun = map(int, position_path(self.job.evidence, shard).read_bytes().split())
        except (FileNotFoundError, ValueError):  # none yet, or none any more
            return -1, 0
        return row, begun


def _score(job: _Job, index: int, skip: Mapping[int, str]) -> str | None:
    """A task: commits one shard; what went wrong comes back as text."""
    unseen = next((path for path in job.needs if not path.exists()), None)
    if unseen is not None:
        return f"node {socket.gethostname()} does not see {str(unseen)!r}: all nodes need the pool and the run's folder"
    position = position_path(job.evidence, index)
    handle = os.open(position, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    begun = 0

    def progress(row: int) -> None:
        nonlocal begun
        begun += row >= 0
        os.pwrite(handle, b"%20d %20d" % (row, begun), 0)
        # an item that never ends is ended by the system, with the process
        signal.setitimer(signal.ITIMER_REAL, ITEM_SECONDS if row >= 0 else 0)

    try:
        return try_shard(
            job.plan,
            index,
            _loaded(job.scorer),
            job.evidence,
            job.config_sha256,
            skip=skip,
            progress=progress,
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(handle)
        position.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _loaded(scorer: Scorer) -> Scorer:
    """The first scorer of its kind that came to this process, with the models that it has loaded."""
    return scorer
