"""Ray leaves the files of the local engine, survives its workers, and is left as it was found."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from refusals import assert_refused
from sharded_pools import digest, is_running, plan_of, plant_hook, write_pool

from poolproof.audit import ray_cluster
from poolproof.audit.engine import KILLED, Deaths, EngineError, WorkerError, part_path, run_shards
from poolproof.audit.ray_cluster import check_ray, connect, descendants
from poolproof.audit.ray_engine import _Driver, position_path, run_on_ray
from poolproof.audit.score import Scorer
from poolproof.audit.spec import AuditSpec, check_spec
from poolproof.errors import MissingExtra

CONFIG = "c" * 64


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An environment in which processes have the hook."""
    with pytest.MonkeyPatch.context() as patch:
        plant_hook(tmp_path_factory.mktemp("hook"), patch)
        yield


@pytest.fixture(scope="module")
def cluster(hooked: None) -> Iterator[str]:
    """The address of a Ray of two processors, which the module's tests share."""
    import ray

    del hooked
    with connect(None, 2) as inherited:
        assert inherited
        yield ray.get_runtime_context().gcs_address
    assert not ray.is_initialized()


def workers_at_work() -> list[int]:
    """Processes that score a shard."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_score"):
                found.append(pid)
    return found


@pytest.mark.usefixtures("cluster")
def test_ray_writes_the_bytes_of_the_local_engine(tmp_path: Path) -> None:
    """Parts and markers are byte-identical, damaged items included; nothing else is left in the folder."""
    plan = plan_of(write_pool(tmp_path / "pool", 28, damaged=True), tmp_path)
    run_shards(plan, Scorer(), tmp_path / "local", CONFIG, workers=0)
    ticks: list[int] = []
    run_on_ray(plan, Scorer(), tmp_path / "ray", CONFIG, tick=ticks.append, inherited=True)
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
    assert ticks == sorted(ticks)
    assert ticks[-1] == 28


@pytest.mark.usefixtures("cluster")
def test_progress_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a shard's last item and its answer its position is gone, and the count stays where it was."""
    seen = itertools.cycle([(6, 7), (-1, 0)])
    monkeypatch.setattr(_Driver, "_position", lambda driver, shard: next(seen))
    ticks: list[int] = []
    plan = plan_of(write_pool(tmp_path / "pool", 28), tmp_path)
    run_on_ray(plan, Scorer(), tmp_path / "ray", CONFIG, workers=1, tick=ticks.append, inherited=True)
    assert ticks == sorted(ticks)
    assert ticks[-1] == 28


@pytest.mark.usefixtures("cluster")
def test_ray_goes_on_where_a_local_run_stopped(tmp_path: Path) -> None:
    """Shards with a marker are left alone, whichever engine wrote it, and so are those of other parts."""
    plan = plan_of(write_pool(tmp_path / "pool", 28), tmp_path)
    evidence = tmp_path / "evidence"
    run_shards(plan, Scorer(), evidence, CONFIG, workers=0, shards=[1])
    written = part_path(evidence, 1).stat().st_mtime_ns
    run_on_ray(plan, Scorer(), evidence, CONFIG, workers=1, shards=[0, 1], inherited=True)
    assert [part_path(evidence, i).exists() for i in range(4)] == [True, True, False, False]
    assert part_path(evidence, 1).stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_killed_workers_cost_their_shard_alone(tmp_path: Path) -> None:
    """Workers that are killed midway are replaced, their shards read again, and the bytes stay the same."""
    pool = write_pool(tmp_path / "pool", 40)
    (pool / "0001.jpg").rename(pool / "0001slow.jpg")
    (pool / "0020.jpg").rename(pool / "0020slow.jpg")
    plan = plan_of(pool, tmp_path)
    run_shards(plan, Scorer(), tmp_path / "local", CONFIG, workers=0)
    killed: set[int] = set()

    def kill(n_done: int) -> None:
        del n_done
        if len(killed) < 2:
            for pid in workers_at_work():
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    run_on_ray(plan, Scorer(), tmp_path / "ray", CONFIG, tick=kill, inherited=True)
    assert killed
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_item_that_kills_its_worker_costs_its_own_row(tmp_path: Path) -> None:
    """It is tried twice and then recorded as unreadable, in the local engine's words; the rest is scored."""
    pool = write_pool(tmp_path / "pool", 6)
    (pool / "0003.jpg").rename(pool / "0003deadly.jpg")
    plan = plan_of(pool, tmp_path)
    run_shards(plan, Scorer(), tmp_path / "local", CONFIG, workers=1)
    run_on_ray(plan, Scorer(), tmp_path / "ray", CONFIG, inherited=True)
    rows = pq.read_table(part_path(tmp_path / "ray", 0)).to_pylist()
    assert [row["status"] for row in rows] == ["scored"] * 3 + ["unreadable"] + ["scored"] * 2
    assert rows[3]["reason"] == KILLED
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
    assert not position_path(tmp_path / "ray", 0).exists()


@pytest.mark.usefixtures("cluster")
def test_a_bug_in_a_worker_keeps_its_traceback(tmp_path: Path) -> None:
    """What is not the input's fault is raised in the driver, with the worker's traceback."""
    plan = plan_of(write_pool(tmp_path / "pool", 2), tmp_path)
    with pytest.raises(WorkerError, match=r"Traceback[\s\S]*Input\w+"):
        run_on_ray(plan, Scorer("no-such-form"), tmp_path / "ray", CONFIG, inherited=True)


@pytest.mark.usefixtures("cluster")
def test_workers_of_a_found_cluster_have_one_thread(tmp_path: Path) -> None:
    """In a session that has Ray already, that one is used and stays, and its workers get the environment."""
    import ray

    plan = plan_of(write_pool(tmp_path / "pool", 4), tmp_path)
    run_shards(plan, Scorer(), tmp_path / "local", CONFIG, workers=0)
    with connect(None, None) as inherited:
        assert not inherited
        run_on_ray(plan, Scorer(), tmp_path / "ray", CONFIG, workers=1, inherited=inherited)
    assert ray.is_initialized()
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


def test_a_cluster_that_was_started_reports_to_nobody(cluster: str) -> None:
    """Usage statistics are off in the head's processes, and no page is served."""
    del cluster
    heads = {}
    for pid in descendants(os.getpid()):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"gcs_server" in command or b"dashboard.py" in command:
            heads[pid] = (command, Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    assert heads
    assert all(b"RAY_USAGE_STATS_ENABLED=0" in environment for _, environment in heads.values())
    assert all(
        b"--disable-frontend" in command for command, _ in heads.values() if b"dashboard.py" in command
    )
    assert "RAY_USAGE_STATS_ENABLED" in os.environ  # for the length of the block


def test_two_deaths_without_an_item_stop_the_run() -> None:
    """Workers that die before they read anything are no image's fault."""
    deaths = Deaths()
    deaths.note(3, 5, "SIGKILL")
    deaths.note(3, -1, "SIGKILL")
    assert deaths.skip == {}
    with pytest.raises(EngineError, match=r"workers die \(SIGKILL\) in shard 3"):
        deaths.note(3, -1, "SIGKILL")


@pytest.mark.parametrize(
    "address", ["head", "ray://head:10001", "head:", "head:0", "head:66000", ":6379", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """An address is HOST:PORT or auto."""
    assert_refused(lambda: check_ray(address), "--ray-address")


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_address_where_no_ray_answers_is_refused(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is silent, hangs up or speaks another protocol is told from a cluster within seconds."""
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.recv(99)
                    connection.sendall(answer)
                else:
                    connection.recv(99)
                    connection.recv(99)  # until the other side gives up

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        message = assert_refused(lambda: check_ray(f"127.0.0.1:{server.getsockname()[1]}"), "--ray-address")
        thread.join()
    assert time.monotonic() - started < 5
    assert "answers there" in message


def test_a_closed_port_is_refused_by_the_command(tmp_path: Path) -> None:
    """One line, exit code 2, and nothing is written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    command = [sys.executable, "-m", "poolproof", "audit", str(tmp_path), "--out", str(tmp_path / "run")]
    refused = subprocess.run(
        [*command, "--engine", "ray", "--ray-address", address], check=False, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"poolproof: --ray-address: got '{address}'")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the message says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"poolproof\[ray\]"):
        check_ray(None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("--engine", {"engine": "spark"}),
        ("--ray-address", {"ray_address": "head:6379"}),
        ("--workers", {"engine": "ray", "workers": 0}),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, options: dict[str, object], tmp_path: Path) -> None:
    """An engine that is none, an address without Ray, and Ray without workers."""
    spec = AuditSpec(pool="pool", out=tmp_path, **options)  # pyright: ignore[reportArgumentType]
    assert_refused(lambda: check_spec(spec), name)


def command_of(pool: Path, run: Path) -> list[str]:
    """An audit on a Ray of its own."""
    command = [sys.executable, "-m", "poolproof", "audit", str(pool), "--quiet", "--workers", "2"]
    return [*command, "--engine", "ray", "--shard-size", "4", "--embedder", "forensic", "--out", str(run)]


def wait_for_part(process: subprocess.Popen[str], run: Path) -> set[int]:
    """The process's children, once it has committed a shard."""
    deadline = time.monotonic() + 120
    while not list((run / "evidence").glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return set(descendants(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_driver_leaves_a_run_to_go_on_with(
    number: signal.Signals, tmp_path: Path, hooked: None
) -> None:
    """Ctrl-C exits with 130; a killed driver takes Ray with it; the local engine then finishes the run."""
    del hooked
    pool = write_pool(tmp_path / "pool", 32)
    for path in sorted(pool.iterdir())[8:]:
        path.rename(path.with_name(f"{path.stem}slow.jpg"))
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here is so in the child
    process = subprocess.Popen(
        command_of(pool, tmp_path / "run"), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, ours)
    children = wait_for_part(process, tmp_path / "run")
    if number == signal.SIGINT:  # a terminal sends it to the whole group
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert len(children) > 3
    if number != signal.SIGKILL:
        assert process.returncode == 130, said
        assert said == "poolproof: interrupted; the same command continues\n"
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if is_running(pid)]
    command = command_of(pool, tmp_path / "run")
    command[command.index("ray")] = "local"
    subprocess.run(command, check=True, capture_output=True)
    plan = plan_of(pool, tmp_path, shard_size=4)
    assert len(list((tmp_path / "run" / "evidence").iterdir())) == 2 * plan.n_shards


@pytest.mark.slow
def test_an_audit_on_a_cluster_equals_a_local_one(cluster: str, tmp_path: Path) -> None:
    """The command with an address gives the items of a local run, and leaves the cluster running."""
    import ray

    pool = write_pool(tmp_path / "pool", 40)
    for engine in (["local"], ["ray", "--ray-address", cluster]):
        command = [sys.executable, "-m", "poolproof", "audit", str(pool), "--quiet", "--embedder", "forensic"]
        command += ["--shard-size", "8", "--out", str(tmp_path / engine[0]), "--engine", *engine]
        subprocess.run(command, check=True, capture_output=True)
    assert digest(tmp_path / "ray" / "evidence") == digest(tmp_path / "local" / "evidence")
    items = [(tmp_path / name / "items.parquet").read_bytes() for name in ("ray", "local")]
    assert items[0] == items[1]
    assert (tmp_path / "ray" / "run.json").read_bytes() == (tmp_path / "local" / "run.json").read_bytes()
    assert ray.is_initialized()
