"""The Ray engine: a task a shard, which commits its own evidence; the driver sends numbers and reads markers.

Each task runs `commit_shard` as a worker of the local engine does, so plan, evidence and markers are the same bytes.
Ray itself retries nothing: a task whose worker or node died is sent again from here, where the item at hand is known.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from poolproof.audit.engine import (
    ITEM_SECONDS,
    ONE_THREAD,
    Deaths,
    EngineError,
    WorkerError,
    one_thread_each,
    sweep,
    try_shard,
    unfinished,
)
from poolproof.audit.plan import Plan
from poolproof.audit.progress import Tick
from poolproof.audit.score import Scorer
from poolproof.errors import InputError, MissingExtra

ANSWER_SECONDS: Final = 5.0
"""How long a cluster may take to answer at all."""

STORE_BYTES: Final = 80 << 20
"""Object store of a cluster that is started here; next to nothing goes through it."""

NODE_TRIES: Final = 10
"""Nodes that may die under one shard before the run stops."""

_WAIT_SECONDS: Final = 0.2

_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""What Ray reads from the environment: it reports its use to nobody, and warns of no change to come."""

_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a gRPC client begins: the preface of HTTP/2 and empty settings. The server's own settings follow."""


def check_ray(address: str | None) -> None:
    """Makes sure that Ray is installed and that a cluster answers, before anything is begun.

    Args:
        address: HOST:PORT of a cluster's head, `auto` for the one of this machine, None to start one here.

    Raises:
        MissingExtra: the package is not installed.
        InputError: not an address, or nothing there that answers within some seconds.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "ray")
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"--ray-address: got {address!r}, allowed HOST:PORT of a head node (its port is 6379 unless told "
            "otherwise) or auto; leave it out to start Ray on this machine"
        )
    if (fault := _find_fault(host.strip("[]"), int(port))) is not None:
        raise InputError(
            f"--ray-address: got {address!r}, allowed the address of a running Ray cluster, and {fault}; check that "
            "`ray status` works on its head, and that this machine reaches it"
        )


@contextlib.contextmanager
def connect(address: str | None, workers: int | None) -> Iterator[Callable[..., None]]:
    """`run_on_ray`, for the length of the block, on the session's own Ray, a cluster's, or one on this machine.

    One that is started here ends with the block, and with this process if that is killed.

    Args:
        address: as for `check_ray`.
        workers: processors of a cluster that is started here; None for those of this process.

    Raises:
        InputError: the cluster does not take this process in.
        MissingExtra: the package is not installed.
    """
    check_ray(address)
    with _environment(_QUIET):
        import ray

        if ray.is_initialized():
            yield run_on_ray
            return
        try:
            with _held_signals() as act:
                _start(address, workers)
                act()
            yield functools.partial(run_on_ray, inherited=address is None)
        finally:
            ray.shutdown()


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
        with _held_signals() as act:
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
            job.plan, index, _loaded(job.scorer), job.evidence, job.config_sha256, skip=skip, progress=progress
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(handle)
        position.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _loaded(scorer: Scorer) -> Scorer:
    """The first scorer of its kind that came to this process, with the models that it has loaded."""
    return scorer


def _start(address: str | None, workers: int | None) -> None:
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": workers or len(os.sched_getaffinity(0)),
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        }
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with one_thread_each():
            ray.init(log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        line = " ".join(str(error).split())[:300]
        raise InputError(
            f"--ray-address: got {address!r}, allowed a running Ray cluster of this version, and it cannot be "
            f"used ({line}); check `ray status`, or leave it out to start Ray on this machine"
        ) from error
    finally:
        log.setLevel(level)


def _find_fault(host: str, port: int) -> str | None:
    """Why no Ray head is at an address; None where something there speaks its protocol.

    Ray's own client would wait for minutes.
    """
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return None  # what it says is encrypted
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(_HELLO)
            answer = connection.recv(9)
    except TimeoutError:
        return f"nothing answers there within {ANSWER_SECONDS:g} s"
    except (OSError, UnicodeError) as error:
        return f"nothing answers there ({getattr(error, 'strerror', None) or error})"
    return None if len(answer) >= 4 and answer[3] == 4 else "what answers there is no Ray head"


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _held_signals() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and requests to end until the given function is called, and puts their handlers back after.

    What a handler raises inside Ray's own waits is lost, and Ray puts a handler of its own in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hold(number: int, frame: object) -> None:
        del frame
        heard.append(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def act() -> None:
        if heard:
            restore()
            signal.raise_signal(heard.pop())

    for number in before:
        signal.signal(number, hold)
    try:
        yield act
    finally:
        restore()
