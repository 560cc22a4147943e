"""The Ray engine: a task a shard, which commits its own evidence; the driver sends numbers and reads markers.

Each task runs `commit_shard` as a worker of the local engine does, so plan, evidence and markers are the same bytes.
Where nodes have GPUs and a model embeds, actors take the tasks' place, each with its model on a GPU.
Ray itself retries nothing: a task whose worker or node died is sent again from here, where the item at hand is known.
"""

from __future__ import annotations

import contextlib
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
    failure_of,
    sweep,
    sweep_shard,
    try_shard,
    unfinished,
)
from poolproof.audit.plan import Plan
from poolproof.audit.progress import Tick
from poolproof.audit.ray_cluster import held_signals
from poolproof.audit.score import Scorer
from poolproof.detectors.placement import place_embedder
from poolproof.detectors.reader_spec import FORENSIC
from poolproof.simulate.device import find_device

NODE_TRIES: Final = 10
"""Nodes that may die under one shard before the run stops."""

LANES_PER_GPU: Final = 4
"""Actors that share a GPU, each with a model of its own: decoding and marks take a processor several times longer than
a model takes a GPU."""

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
        WorkerError: a worker met a bug.
        EngineError: a worker met a full disk or does not see the folders, or workers or nodes die without having
            touched an item.
    """
    evidence.mkdir(parents=True, exist_ok=True)
    if shards is None:
        sweep(evidence)
    todo = deque(i for i in unfinished(plan, evidence, config_sha256) if shards is None or i in shards)
    plan, evidence = replace(plan, path=plan.path.absolute()), evidence.absolute()
    paths = (plan.path, evidence, Path(plan.meta["reader"]["root"]))
    needs = tuple(path for path in paths if path.exists())
    environment = {} if inherited else {"runtime_env": {"env_vars": ONE_THREAD}}
    job = _Job(plan, scorer, evidence, config_sha256, needs)
    _Driver(job, todo, tick, owned=inherited).work(workers, environment)


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
    """The driver's side: keeps shards in flight, and sends those again whose worker died.

    Attributes:
        free: ways to send a shard that wait for one.
        flights: the shard of each answer that is awaited, and the way it was sent.
        hired: actors whose start is awaited.
        n_done: items of shards that are committed.
        n_told: the most items that progress was told of.
        owned: whether Ray was started for this call, and ends with it.
    """

    job: _Job
    todo: deque[int]
    tick: Tick | None
    deaths: Deaths = field(default_factory=Deaths)
    nodes: Counter[int] = field(default_factory=Counter)
    free: list[_Lane] = field(default_factory=list)
    flights: dict[Any, tuple[int, _Lane]] = field(default_factory=dict)
    hired: dict[Any, _Lane] = field(default_factory=dict)
    n_done: int = 0
    n_told: int = 0
    owned: bool = False

    def work(self, workers: int | None, environment: Mapping[str, Any]) -> None:
        import ray

        shared = ray.put(self.job)
        n_lanes = _count_gpu_lanes() if self.job.scorer.embedder != FORENSIC else 0
        if n_lanes:
            share = {"num_cpus": 1, "num_gpus": 1 / LANES_PER_GPU, **environment}
            remote = ray.remote(max_restarts=0, **share)(_Holder)
            for _ in range(min(n_lanes, workers or n_lanes, len(self.todo))):
                self._hire(_Lane(shared, remote))
        else:
            n_tasks = workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            remote = ray.remote(max_retries=0, num_cpus=1, **environment)(_score)
            self.free = [_Lane(shared, remote)] * n_tasks
        with held_signals() as act:
            try:
                while self.todo or self.flights:
                    while self.todo and self.free:
                        shard, lane = self.todo.popleft(), self.free.pop()
                        self.flights[lane.send(shard, self.deaths.skip.get(shard, {}))] = shard, lane
                    awaited = [*self.flights, *self.hired]
                    landed, _ = ray.wait(awaited, num_returns=1, timeout=_WAIT_SECONDS)
                    act()
                    for reference in landed:
                        self._land(reference)
                    if self.tick is not None:
                        # a shard whose position is gone and whose answer is on its way counts as it last did
                        begun = sum(self._position(shard)[1] for shard, _ in self.flights.values())
                        self.n_told = max(self.n_told, self.n_done + begun)
                        self.tick(self.n_told)
            finally:
                self._dismiss()

    def _dismiss(self) -> None:
        """Ends what is still at work. That some of it has ended already must not hide why the call ends."""
        import ray
        from ray.exceptions import RayError

        for reference, (_, lane) in self.flights.items():
            # a Ray that was started for this call ends with it; to cancel a task as it completes can abort the process
            if lane.actor is None and not self.owned:
                with contextlib.suppress(RayError, TypeError, ValueError):
                    ray.cancel(reference, force=True)
        for lane in (*self.free, *self.hired.values(), *(lane for _, lane in self.flights.values())):
            if lane.actor is not None:
                with contextlib.suppress(RayError, TypeError, ValueError):
                    ray.kill(lane.actor)

    def _hire(self, lane: _Lane) -> None:
        actor = lane.remote.remote(lane.shared)
        self.hired[actor.ready.remote()] = replace(lane, actor=actor)

    def _land(self, reference: Any) -> None:
        """Takes an answer, or the death of who should have given it."""
        import ray
        from ray.exceptions import (
            NodeDiedError,
            OutOfMemoryError,
            RayActorError,
            RayError,
            WorkerCrashedError,
        )

        if reference in self.hired:
            lane = self.hired.pop(reference)
            try:
                ray.get(reference)
            except RayError as error:
                raise EngineError(f"an actor did not start ({error}); the same command continues") from error
            self.free.append(lane)
            return
        shard, lane = self.flights.pop(reference)
        try:
            failure = ray.get(reference)
        except NodeDiedError:
            self.nodes[shard] += 1
            if self.nodes[shard] >= NODE_TRIES:
                raise EngineError(
                    f"{NODE_TRIES} nodes died under shard {shard}; the same command continues"
                ) from None
        except (WorkerCrashedError, OutOfMemoryError, RayActorError) as error:
            self.deaths.note(shard, self._position(shard)[0], f"Ray: {type(error).__name__}")
        except RayError as error:
            raise WorkerError(str(error)) from error
        else:
            self.free.append(lane)
            if failure is not None:
                raise failure_of(str(failure))
            self.n_done += self.job.plan.sizes[shard]
            return
        position_path(self.job.evidence, shard).unlink(missing_ok=True)
        sweep_shard(self.job.evidence, shard)
        self.todo.appendleft(shard)
        if lane.actor is None:
            self.free.append(lane)
        else:
            ray.kill(lane.actor)  # where it is only out of reach
            self._hire(lane)

    def _position(self, shard: int) -> tuple[int, int]:
        """The row that a shard's worker has at hand (-1: none), and how many items it began."""
        try:
            row, begun = map(int, position_path(self.job.evidence, shard).read_bytes().split())
        except (FileNotFoundError, ValueError):  # none yet, or none any more
            return -1, 0
        return row, begun


@dataclass(frozen=True)
class _Lane:
    """A way to send a shard: as a task, or to an actor.

    Attributes:
        shared: the job.
        remote: the task, or the class of the actor.
        actor: None for tasks.
    """

    shared: Any
    remote: Any
    actor: Any = None

    def send(self, shard: int, skip: Mapping[int, str]) -> Any:
        """The answer to await."""
        if self.actor is None:
            return self.remote.remote(self.shared, shard, skip)
        return self.actor.score.remote(shard, skip)


class _Holder:
    """An actor that keeps a model on its GPU."""

    def __init__(self, job: _Job) -> None:
        self.job = job

    def ready(self) -> None:
        """Answers once the actor has its place."""

    def score(self, index: int, skip: Mapping[int, str]) -> str | None:
        """As a task."""
        return _score(self.job, index, skip, device=find_device("auto"))


def _count_gpu_lanes() -> int:
    """Actors that the cluster's nodes with GPUs can hold, a processor each."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(LANES_PER_GPU * node.get("GPU", 0)), int(node.get("CPU", 0))) for node in found)


def _score(job: _Job, index: int, skip: Mapping[int, str], device: str = "cpu") -> str | None:
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
            _loaded(job.scorer, device),
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
def _loaded(scorer: Scorer, device: str) -> Scorer:
    """The first scorer of its kind that came to this process, with the model that it has loaded."""
    if device != "cpu" and scorer.model is not None:
        vars(scorer)["model"] = place_embedder(scorer.model, device)
    return scorer
