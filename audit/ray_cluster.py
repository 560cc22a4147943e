"""Ray on this machine or on a cluster, for the length of a run: found or started, and left as it was."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from poolproof.audit.engine import one_thread_each
from poolproof.errors import InputError, MissingExtra

ANSWER_SECONDS: Final = 5.0
"""How long a cluster may take to answer at all."""

STORE_BYTES: Final = 80 << 20
"""Object store of a cluster that is started here; next to nothing goes through it."""

_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""What Ray reads from the environment: it reports its use to nobody, and warns of no change to come."""

_START: Final[dict[str, Any]] = {
    "address": "local",
    "object_store_memory": STORE_BYTES,
    "include_dashboard": False,
}
"""How a cluster is started here."""

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
def connect(address: str | None, workers: int | None) -> Iterator[bool]:
    """Ray for the length of the block: the session's own, a cluster's, or one on this machine.

    Gives whether its workers have the environment of one thread each.

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
            yield False
            return
        with contextlib.ExitStack() as stack:
            # what Ray has to say of dead workers goes to standard output, which is the report's
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.callback(ray.shutdown)
            with held_signals() as act:
                before = set(descendants(os.getpid()))
                _start(address, workers)
                if address is None:
                    stack.enter_context(_warden(set(descendants(os.getpid())) - before))
                act()
            yield address is None


@contextlib.contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
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


def _start(address: str | None, workers: int | None) -> None:
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {**_START, "num_cpus": workers or len(os.sched_getaffinity(0))}
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


@contextlib.contextmanager
def _warden(members: Collection[int]) -> Iterator[None]:
    """Ends the cluster that was started here, should this process be killed.

    Ray's own helpers notice it after minutes. A shell waits for the end of a pipe that only this process holds.
    """
    command = ["sh", "-c", 'read -r _; kill -9 "$@" 2>/dev/null', "warden", *map(str, members)]
    warden = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        warden.kill()
        warden.communicate()


def descendants(parent: int) -> Iterator[int]:
    """Processes that a process started, and those that they started."""
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that ended
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


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
