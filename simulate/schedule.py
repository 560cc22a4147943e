"""Runs the chains of a loop, several at a time: the disk is what connects one generation with the next."""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

import numpy as np

from poolproof.errors import InputError
from poolproof.files import hash_json, replace_file, write_json
from poolproof.processes import die_with_parent
from poolproof.simulate.classifier import fit_classifier, restore_classifier
from poolproof.simulate.gaussian import Gaussian
from poolproof.simulate.loop import run_generation
from poolproof.simulate.loop_pool import stream
from poolproof.simulate.loop_spec import TrainedLoopSpec, describe
from poolproof.simulate.real_data import LAWS, RealData, load_real
from poolproof.simulate.record import (
    Chain,
    count_finished,
    drop_models,
    drop_out_of_memory,
    read_arrays,
    read_history,
    read_row,
    write_generation,
)
from poolproof.simulate.setting import Setting, prepare_setting, set_witness_apart
from poolproof.simulate.threads import one_blas_thread
from poolproof.simulate.yardstick import (
    Yardstick,
    classifier_yardstick,
    embedder_yardstick,
    point_yardstick,
)

PARTS: Final = ("supply", "supply_labels", "reference", "reference_labels")

Tick = Callable[[int], None]


# --- what all workers share -----------------------------------------------------------------------------


def lay_data(root: Path, spec: TrainedLoopSpec, data: RealData) -> None:
    """Writes what every worker needs beside the spec: the real items, and a classifier trained on the supply.

    What lies there already is kept if it is of the same data.

    Args:
        root: folder of the loop.
        spec: what to do.
        data: real items.

    Raises:
        InputError: the folder holds the data of another loop, or data without classes where a classifier is asked for.
    """
    if data.draw is None:
        folder, digest = root / "data", data.digest()
        page = folder / "data.json"
        if page.exists():
            try:
                found = json.loads(page.read_text("utf-8"))
            except ValueError as error:
                raise _damaged(root) from error
            if found.get("sha256") != digest:
                raise InputError(
                    f"--out: got {str(root)!r} with a loop of other real data, allowed an empty folder or one of the "
                    "same data; give another --out"
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for name in PARTS:
                part = getattr(data, name)
                if part is not None:
                    with replace_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as handle:
                        np.save(handle, part)
            write_json(page, {"sha256": digest})
    if spec.measure.features == "classifier":
        _lay_classifier(root, spec, data)


def _lay_classifier(root: Path, spec: TrainedLoopSpec, data: RealData) -> None:
    from safetensors.numpy import save

    if data.supply_labels is None:
        raise InputError(
            f"measure.features: got 'classifier' for {spec.data.kind} without classes, allowed an embedder such as "
            "'forensic' or 'clip:MODEL/FILE'; or put each class into a sub-folder"
        )
    path = _classifier_path(root, spec)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_blas_thread():
        classifier = fit_classifier(
            data.supply,
            data.supply_labels,
            spec.measure.classifier,
            rng=stream(spec.data.seed, 0, "classifier"),
        )
    with replace_file(path) as temporary:
        temporary.write_bytes(save({name: np.ascontiguousarray(v) for name, v in classifier.state().items()}))


def _classifier_path(root: Path, spec: TrainedLoopSpec) -> Path:
    return root / "data" / f"classifier-{hash_json(describe(spec.measure.classifier))[:12]}.safetensors"


def load_setting(root: Path, spec: TrainedLoopSpec) -> Setting:
    """The setting of a loop whose data lie in a folder.

    Args:
        root: folder of the loop, after `lay_data`.
        spec: what to do.

    Raises:
        InputError: see `prepare_setting`.
    """
    if spec.data.kind in LAWS:
        data = load_real(spec.data)
    else:
        parts = {name: root / "data" / f"{name}.npy" for name in PARTS}
        try:
            arrays = {
                name: np.load(path, allow_pickle=False) for name, path in parts.items() if path.exists()
            }
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(root) from error
        if not {"supply", "reference"} <= set(arrays):
            raise _damaged(root)
        data = RealData(**{name: arrays.get(name) for name in PARTS})  # pyright: ignore[reportArgumentType]
    data, witness = set_witness_apart(spec, data)
    return prepare_setting(spec, data, make_yardstick(root, spec, data), witness)


def _damaged(root: Path) -> InputError:
    return InputError(
        f"--out: got {str(root / 'data')!r} with missing or damaged files, allowed them as they were written; remove "
        "that folder, and it is made again"
    )


def make_yardstick(root: Path, spec: TrainedLoopSpec, data: RealData) -> Yardstick:
    """What the spec says to measure with.

    Raises:
        InputError: an embedder that is not there, or a reference that it does not read.
    """
    measure = spec.measure
    if measure.features == "identity":
        law = Gaussian.standard(spec.data.dim) if spec.data.kind == "normal" else None
        return point_yardstick(data.reference, k=measure.k, law=law)
    if measure.features == "classifier":
        state = read_arrays(_classifier_path(root, spec))
        return classifier_yardstick(
            data.reference, restore_classifier(state, measure.classifier), k=measure.k
        )
    from poolproof.detectors.embed import load_embedder

    embedder = None if measure.features == "forensic" else load_embedder(measure.features)
    return embedder_yardstick(data.reference, embedder, k=measure.k)


# --- one generation -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _unpack_setting(root: Path, packed: bytes, data_sha256: str) -> Setting:
    """The setting of a pickled spec, which this program pickled itself; remembered within a worker by spec and data."""
    del data_sha256
    return load_setting(root, pickle.loads(packed))


def advance(root: Path, packed: bytes, chain: Chain, keep_models: bool) -> bool:
    """Runs the next generation of a chain; whether the chain can go on.

    Args:
        root: folder of the loop.
        packed: the spec, pickled by the process that started this one.
        chain: an arm and seed.
        keep_models: whether the weights of all generations stay on disk.

    Raises:
        InputError: options that do not fit, a damaged file of an earlier generation, or a full disk.
    """
    with one_blas_thread():
        setting = _unpack_setting(root, packed, str(chain.identity["data_sha256"]))
        number = count_finished(chain) + 1
        generation = run_generation(setting, chain.arm, chain.seed, number, read_history(chain, number))
        try:
            write_generation(chain, generation)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise InputError(
                    f"--out: got {str(root)!r} ({error.strerror}), allowed room for more; {number - 1} generations of "
                    f"{chain.arm.label!r} are finished, and the same command goes on"
                ) from error
            raise
    if not keep_models:
        drop_models(chain, number)
    return generation.model is not None


def count_generations(spec: TrainedLoopSpec, chain: Chain) -> int:
    """Generations that a chain is to have."""
    return 1 if chain.arm.is_measured_real_only else spec.n_generations


def run_chains(
    root: Path,
    spec: TrainedLoopSpec,
    chains: Sequence[Chain],
    *,
    n_workers: int,
    keep_models: bool,
    on_generation: Tick | None = None,
) -> None:
    """Runs every chain to its end; finished generations are not run again.

    Args:
        root: folder of the loop, after `lay_data`.
        spec: what to do.
        chains: of its arms and seeds.
        n_workers: processes; the results do not depend on it.
        keep_models: whether the weights of all generations stay on disk.
        on_generation: called with the number of generations finished in this call.

    Raises:
        InputError: see `advance`. What is finished stays.
    """
    packed = pickle.dumps(spec)
    longest: dict[Path, Chain] = {}
    for chain in chains:  # arms of the same options are one chain, and the curve may be the start of another
        drop_out_of_memory(chain)
        known = longest.get(chain.folder)
        if known is None or count_generations(spec, chain) > count_generations(spec, known):
            longest[chain.folder] = chain
    waiting = [chain for chain in longest.values() if _has_more(spec, chain)]
    n_done = 0

    def tick() -> None:
        nonlocal n_done
        n_done += 1
        if on_generation is not None:
            on_generation(n_done)

    if n_workers == 1:
        for chain in waiting:
            goes_on = True
            while goes_on and _has_more(spec, chain):
                goes_on = advance(root, packed, chain, keep_models)
                tick()
        return
    others = multiprocessing.active_children()
    with _make_pool(n_workers) as workers:
        running: dict[Future[bool], Chain] = {}
        try:
            while waiting or running:
                while waiting and len(running) < n_workers:
                    chain = waiting.pop(0)
                    running[workers.submit(advance, root, packed, chain, keep_models)] = chain
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    chain = running.pop(future)
                    try:
                        goes_on = future.result()
                    except BrokenProcessPool as error:
                        raise InputError(
                            f"--workers: got {n_workers}, of which one was killed, most likely for lack of memory, "
                            "allowed fewer; finished generations stay, and the same command goes on"
                        ) from error
                    tick()
                    if goes_on and _has_more(spec, chain):
                        waiting.insert(0, chain)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:  # a generation may take minutes, and is done again anyway
                    child.kill()
            raise


def _has_more(spec: TrainedLoopSpec, chain: Chain) -> bool:
    n = count_finished(chain)
    last = read_row(chain, n) if n else None
    return n < count_generations(spec, chain) and (last is None or last["status"] == "done")


def _make_pool(n_workers: int) -> Executor:
    # spawn: torch's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),)
    )


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent takes Ctrl-C and ends its workers
    die_with_parent(parent)
