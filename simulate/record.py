"""What a loop leaves on disk: a folder per arm and seed, in it one per generation, each finished by its row."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from poolproof.errors import InputError
from poolproof.files import hash_json, replace_file, write_json
from poolproof.simulate.generator import AbstractGenerator, Samples, State
from poolproof.simulate.loop import OUT_OF_MEMORY, Generation
from poolproof.simulate.loop_pool import History
from poolproof.simulate.loop_spec import TrainedArm, TrainedLoopSpec
from poolproof.simulate.training_pool import Part

LOOP_METHOD: Final = "trained-loop/1"
"""Names the computation of a generation; a change that moves figures takes another number."""

ROW: Final = "generation.json"
"""Written last: where it is, the generation is whole."""


@final
@dataclass(frozen=True)
class Chain:
    """One arm with one seed, and where its generations lie.

    Attributes:
        arm: the loop.
        seed: the repetition.
        folder: of its generations; the name is made of a hash of all that decides them.
        identity: all that decides them, as JSON.
    """

    arm: TrainedArm
    seed: int
    folder: Path
    identity: Mapping[str, Any]

    def generation_folder(self, number: int) -> Path:
        """Where a generation lies."""
        return self.folder / f"generation-{number:04d}"


def make_chain(root: Path, spec: TrainedLoopSpec, arm: TrainedArm, seed: int, data_sha256: str) -> Chain:
    """The chain of an arm and seed. More generations, seeds or arms leave the chains that are there as they are.

    Labels decide nothing: arms of the same options share a folder.

    Args:
        root: folder of the whole loop.
        spec: what to do.
        arm: one of its loops.
        seed: one of its seeds.
        data_sha256: of the real data.
    """
    whole = spec.to_json()
    identity = {
        "method": LOOP_METHOD,
        "data_sha256": data_sha256,
        **{name: whole[name] for name in ("data", "measure", "mark")},
        "arm": json.loads(json.dumps(arm.options())),
        "seed": seed,
    }
    identity["data"] = {key: value for key, value in whole["data"].items() if key != "path"}
    if spec.has_policies:  # measured against what the witness leaves of the reference
        identity["witness"] = True
    folder = root / "runs" / f"{hash_json(identity)[:16]}-seed-{seed}"
    return Chain(arm, seed, folder, identity)


def open_chain(chain: Chain) -> None:
    """Makes the folder of a chain, or checks that what lies there is of the same chain.

    Raises:
        InputError: the folder is of another spec, or cannot be written.
    """
    path = chain.folder / "spec.json"
    try:
        chain.folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                found = json.loads(path.read_text("utf-8"))
            except ValueError:
                found = None
            if found != chain.identity:
                raise InputError(
                    f"--out: got {str(chain.folder)!r} with generations of another spec, allowed an empty folder or "
                    "one of the same spec; remove it, or give another --out"
                )
        else:
            write_json(path, dict(chain.identity))
    except OSError as error:
        raise InputError(
            f"--out: got {str(chain.folder)!r} ({error.strerror}), allowed a folder that can be written"
        ) from error


def drop_out_of_memory(chain: Chain) -> None:
    """Removes a last generation that failed for lack of memory, so that it is tried again."""
    n = count_finished(chain)
    row = read_row(chain, n) if n else None
    if row is not None and row["status"] == "failed" and str(row["why"]).startswith(OUT_OF_MEMORY):
        shutil.rmtree(chain.generation_folder(n))


def count_finished(chain: Chain) -> int:
    """Generations of a chain that are whole, from the first on without a gap; one that failed counts."""
    number = 0
    while (row := read_row(chain, number + 1)) is not None:
        number += 1
        if row["status"] == "failed":
            break
    return number


def read_row(chain: Chain, number: int) -> dict[str, Any] | None:
    """The row of a finished generation under the arm's present label; None where there is none."""
    try:
        row = json.loads((chain.generation_folder(number) / ROW).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return row | {"arm": chain.arm.label} if isinstance(row, dict) and "status" in row else None


def write_generation(chain: Chain, generation: Generation) -> None:
    """Lays a generation down: weights, samples, and its row last.

    Raises:
        OSError: the disk is full or the folder cannot be written; the generation then does not count as finished.
    """
    folder = chain.generation_folder(generation.number)
    if folder.exists():
        shutil.rmtree(folder)  # unfinished: it has no row
    folder.mkdir(parents=True)
    if generation.model is not None:
        _write_arrays(folder / "model.safetensors", generation.model.state())
    if generation.part is not None and (chain.arm.mixing.n_kept is None or chain.arm.mixing.n_kept > 1):
        _write_samples(
            folder / "synthetic.safetensors",
            images=generation.part.images,
            labels=generation.part.labels,
            is_marked=generation.part.is_marked,
        )
    _write_samples(folder / "shown.safetensors", images=generation.shown, labels=generation.shown_labels)
    _write_samples(folder / "witness.safetensors", images=generation.witness)
    write_json(folder / ROW, generation.row)


def read_history(chain: Chain, number: int) -> History:
    """What the generations before `number` left for it.

    Raises:
        InputError: a file of a finished generation is missing or damaged.
    """
    mixing = chain.arm.mixing
    if number == 1:
        return History()
    oldest = 1 if mixing.n_models is None else max(1, number - mixing.n_models)
    models = tuple(read_model(chain, each) for each in range(number - 1, oldest - 1, -1))
    first = 2 if mixing.n_kept is None else max(2, number - mixing.n_kept + 1)
    parts = []
    for each in range(first, number if mixing.n_kept != 1 else first):
        arrays = read_arrays(chain.generation_folder(each) / "synthetic.safetensors")
        if "images" in arrays:
            parts.append(Part(arrays["images"], arrays.get("labels"), arrays["is_marked"]))
    witness = chain.generation_folder(1) / "witness.safetensors"
    return History(models, tuple(parts), read_arrays(witness)["images"] if witness.exists() else None)


def read_model(chain: Chain, number: int) -> AbstractGenerator:
    """The generator that a generation fitted.

    Raises:
        InputError: its file is missing or damaged.
    """
    return chain.arm.generator.restore(read_arrays(chain.generation_folder(number) / "model.safetensors"))


def read_shown(chain: Chain, number: int) -> tuple[Samples, np.ndarray | None] | None:
    """Some samples of a generation and their labels; None where they are missing."""
    path = chain.generation_folder(number) / "shown.safetensors"
    if not path.exists():
        return None
    arrays = read_arrays(path)
    return arrays["images"], arrays.get("labels")


def drop_models(chain: Chain, n_finished: int) -> None:
    """Removes weights and samples that no later generation needs; rows and shown samples stay."""
    mixing = chain.arm.mixing
    if mixing.n_models is not None:
        for number in range(n_finished - mixing.n_models, 0, -1):
            path = chain.generation_folder(number) / "model.safetensors"
            if not path.exists():
                break
            path.unlink()
    if mixing.n_kept is not None:
        for number in range(n_finished - mixing.n_kept + 1, 0, -1):
            path = chain.generation_folder(number) / "synthetic.safetensors"
            if not path.exists():
                break
            path.unlink()


@contextlib.contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Holds a loop's folder, so that two processes do not write to it.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = (root / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"--out: got {str(root)!r} ({error.strerror}), allowed a folder, made where it is missing; give another"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--out: got {str(root)!r}, which another process is writing, allowed one at a time; wait for it"
            ) from error
        yield


def _write_samples(path: Path, **arrays: np.ndarray | None) -> None:
    given = {name: array for name, array in arrays.items() if array is not None}
    if given:
        _write_arrays(path, given)


def _write_arrays(path: Path, arrays: State) -> None:
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that was written here.

    Raises:
        InputError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        # copies are aligned: kernels may round differently at other alignments
        return {name: array.copy() for name, array in load(path.read_bytes()).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"--out: got {str(path)!r}, missing or damaged, allowed the file as it was written; remove its folder "
            "and those of later generations"
        ) from error
