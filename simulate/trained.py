"""Runs a spec of trained loops to the end: chains, tables, effective sizes, and the page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from poolproof import __version__
from poolproof.errors import InputError
from poolproof.simulate.checks import check_count
from poolproof.simulate.effective_size import RealOnlyCurve, real_only_curve
from poolproof.simulate.generator import Samples
from poolproof.simulate.loop_page import write_loop
from poolproof.simulate.loop_pool import stream
from poolproof.simulate.loop_spec import TrainedLoopSpec
from poolproof.simulate.measures import halves_measures
from poolproof.simulate.real_data import DataSpec, load_real
from poolproof.simulate.record import Chain, lock_folder, make_chain, open_chain, read_row, read_shown
from poolproof.simulate.schedule import count_generations, lay_data, load_setting, run_chains
from poolproof.simulate.setting import Setting, check_data, set_witness_apart
from poolproof.simulate.summary import summarise_generations

if TYPE_CHECKING:
    import pandas as pd

TRAINED_SCHEMA: Final = 1
"""Version of `loop.json` for trained loops."""

_KEYS: Final = ("arm", "seed", "generation", "status", "why")

ReadPool = Callable[[DataSpec], tuple[Samples, "np.ndarray | None"]]


@final
@dataclass(frozen=True, eq=False)
class TrainedStudy:
    """What a spec of trained loops gave.

    Attributes:
        spec: what was asked.
        table: one row per arm, seed and generation.
        document: the same with summary, floor, effective sizes and manifest, as JSON.
        paths: files that were written.
    """

    spec: TrainedLoopSpec
    table: pd.DataFrame
    document: dict[str, Any]
    paths: list[Path]


def run_trained(
    spec: TrainedLoopSpec,
    out: Path,
    *,
    n_workers: int | None = None,
    keep_models: bool = False,
    command: str = "",
    read_pool: ReadPool | None = None,
    on_start: Callable[[int, int], None] | None = None,
    on_generation: Callable[[int], None] | None = None,
) -> TrainedStudy:
    """The tables and page of a spec, written to a folder. A run that stopped goes on where it was.

    Args:
        spec: what to do.
        out: folder, made where it is missing.
        n_workers: processes; None takes one a core, or one where there is a graphics processor to share.
        keep_models: whether the weights of all generations stay on disk.
        command: what the user typed, for the manifest.
        read_pool: reads real data of kind `pool`.
        on_start: called once with the number of generations in all, and of those already finished.
        on_generation: called with the number finished in this call.

    Raises:
        InputError: a spec, data or folder that cannot be used. What was finished stays.
    """
    started = time.monotonic()
    if n_workers is None:
        n_workers = _default_workers()
    check_count("n_workers", n_workers, least=1)
    with lock_folder(out):
        data = load_real(spec.data, read_pool=read_pool)
        check_data(spec, set_witness_apart(spec, data)[0])
        digest = data.digest()
        with _told_in_one_line(out):
            lay_data(out, spec, data)
        setting = load_setting(out, spec)
        arms = (*spec.real_only(), *spec.arms)
        chains = [make_chain(out, spec, arm, seed, digest) for seed in spec.seeds for arm in arms]
        for chain in chains:
            open_chain(chain)
        if on_start is not None:
            total = sum(count_generations(spec, chain) for chain in chains)
            on_start(total, sum(len(_read_rows(spec, chain)) for chain in chains))
        run_chains(
            out, spec, chains, n_workers=n_workers, keep_models=keep_models, on_generation=on_generation
        )
        table, curve = collect_rows(spec, chains)
        document = _document(spec, setting, table, curve, digest)
        document["manifest"] |= {"command": command, "seconds": round(time.monotonic() - started, 3)}
        with _told_in_one_line(out):
            paths = write_loop(document, table, _strips(spec, chains), out)
    return TrainedStudy(spec, table, document, paths)


@contextlib.contextmanager
def _told_in_one_line(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--out: got {str(out)!r} ({error.strerror}), allowed a folder with room that can be written; finished "
            "generations stay, and the same command goes on"
        ) from error


def _default_workers() -> int:
    import os

    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _read_rows(spec: TrainedLoopSpec, chain: Chain) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, count_generations(spec, chain) + 1):
        row = read_row(chain, number)
        if row is None:
            break
        rows.append(row)
    return rows


def collect_rows(spec: TrainedLoopSpec, chains: Sequence[Chain]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finished rows of the loops, and those of the real-only curve with a column `n`.

    Args:
        spec: what was run.
        chains: of its arms and seeds.
    """
    import pandas as pd

    loops, curve = [], []
    for chain in chains:
        for row in _read_rows(spec, chain):
            if chain.arm.is_measured_real_only:
                curve.append(row | {"n": chain.arm.first_size})
            else:
                loops.append(row)
    table = pd.DataFrame(loops)
    if "frechet_distance" not in table:
        table["frechet_distance"] = np.nan
    figures = [name for name in table.columns if name not in (*_KEYS, "note") and not name.startswith("n_")]
    table = table.astype({name: float for name in figures})
    for name in ("n_e", "ratio"):
        table[name] = np.nan
    return table, pd.DataFrame(curve)


# --- the document ---------------------------------------------------------------------------------------


def _document(
    spec: TrainedLoopSpec, setting: Setting, table: pd.DataFrame, curve: pd.DataFrame, digest: str
) -> dict[str, Any]:
    import pandas as pd

    both = pd.concat([each for each in (table, curve) if len(each)])
    failed = both[both["status"] == "failed"]
    sizes = None if spec.effective_size is None else _effective_sizes(spec, table, curve)
    summary = summarise_generations(table)
    return {
        "schema_version": TRAINED_SCHEMA,
        "kind": "trained",
        "title": spec.title,
        "spec": spec.to_json(),
        "columns": list(table.columns),
        "rows": [[_plain(value) for value in row] for row in table.itertuples(index=False)],
        "summary": [
            {str(key): _plain(value) for key, value in row.items()} for row in summary.to_dict("records")
        ],
        "reference": _reference(spec, setting),
        "effective_size": sizes,
        "failed": [
            {key: _plain(row[key]) for key in ("arm", "seed", "generation", "why")}
            for _, row in failed.iterrows()
        ],
        "manifest": {
            "versions": {
                "poolproof": __version__,
                **{name: version(name) for name in ("numpy", "torch", "diffusers", "scikit-learn")},
            },
            "data_sha256": digest,
        },
    }


def _reference(spec: TrainedLoopSpec, setting: Setting) -> dict[str, Any]:
    """What real data score on the yardstick, at the size that generations are measured by where there are enough."""
    rng = stream(spec.data.seed, 0, "measure")
    n, data = setting.n_measured, setting.data
    if data.draw is not None:
        supply, labels = data.draw(n, rng), None
    else:
        supply, labels = data.supply, data.supply_labels
        n = min(n, len(supply))
    halves = halves_measures(supply, labels, setting.yardstick, n, rng=rng)
    return {
        "n": len(data.reference),
        "n_halves": n,
        "n_measured": setting.n_measured,
        "n_features": setting.yardstick.n_features,
        "features": spec.measure.features,
        "classifier_accuracy": None
        if setting.yardstick.classifier is None or data.reference_labels is None
        else setting.yardstick.classifier.accuracy(data.reference, data.reference_labels),
        "halves": halves,
    }


def _effective_sizes(spec: TrainedLoopSpec, table: pd.DataFrame, curve: pd.DataFrame) -> dict[str, Any]:
    """The real-only curve, and what the loops' ends are worth on it; the table gets n_e by generation."""
    assert spec.effective_size is not None
    done = curve[curve["status"] == "done"]
    if done.empty:
        return {"curve": [], "arms": [], "why": "every model of real data alone failed"}
    table["n_e_from"] = table["frechet_distance"]
    if "model_distance" in table:
        table["n_e_from"] = table["model_distance"].fillna(table["frechet_distance"])
    found: dict[str, Any] = {"curve": [], "arms": []}
    for n, distances in done.groupby("n")["frechet_distance"]:
        count = len(distances)
        error = float(distances.std(ddof=1) / np.sqrt(count)) if count > 1 else None
        found["curve"].append({"n": _plain(n), "mean": float(distances.mean()), "stderr": error})
    try:
        real_only = real_only_curve(
            (int(n), done.loc[done["n"] == n, "frechet_distance"].tolist()) for n in sorted(set(done["n"]))
        )
    except InputError as error:  # one seed, or sizes that failed: the curve stays without its inversion
        return found | {"why": str(error)}
    for arm in spec.arms:
        n_real = arm.mixing.n_fresh + arm.mixing.n_fixed
        mine = table[(table["arm"] == arm.label) & (table["status"] == "done")]
        for position, distance in mine["n_e_from"].items():
            size = real_only.invert(float(distance), 0.0, n_draws=100, rng=np.random.default_rng(0))
            if size.point is not None:
                table.loc[position, "n_e"] = size.point  # pyright: ignore[reportArgumentType, reportCallIssue]
                if n_real:
                    table.loc[position, "ratio"] = size.point / n_real  # pyright: ignore[reportArgumentType, reportCallIssue]
        last = mine[mine["generation"] > spec.n_generations - spec.effective_size.last]
        if n_real and len(last):
            found["arms"].append(_place_arm(arm.label, n_real, last, real_only))
    del table["n_e_from"]
    return found


def _place_arm(label: str, n_real: int, last: pd.DataFrame, curve: RealOnlyCurve) -> dict[str, Any]:
    """n_e over n_real of the mean of a loop's last generations, by seed; what is beyond the curve is a bound."""
    means = last.groupby("seed")["n_e_from"].mean()
    n = len(means)
    if n < 2:
        size = curve.invert(float(means.mean()), 0.0, rng=np.random.default_rng(0))
        why = "one seed shows no error of the loop, so there is no verdict; run more seeds"
        ratio = None if size.point is None else size.point / n_real
        return {
            "arm": label,
            "n_real": n_real,
            "ratio": ratio,
            "lower": None,
            "upper": None,
            "why": why,
            "admissible": None,
        }
    error = float(means.std(ddof=1) / np.sqrt(n))
    size = curve.invert(float(means.mean()), error, dof=n - 1, rng=np.random.default_rng(0))
    lower = None if size.lower is None else size.lower / n_real
    upper = None if size.upper is None else size.upper / n_real
    admissible = None
    if lower is not None and lower >= 1:
        admissible = True
    elif upper is not None and upper < 1:
        admissible = False
    return {
        "arm": label,
        "n_real": n_real,
        "ratio": None if size.point is None else size.point / n_real,
        "lower": lower,
        "upper": upper,
        "why": size.why,
        "admissible": admissible,
    }


def _strips(spec: TrainedLoopSpec, chains: Sequence[Chain]) -> Mapping[str, list[tuple[int, Samples]]]:
    """Samples of each arm's generations, of the first seed, in the same order of classes throughout."""
    strips: dict[str, list[tuple[int, Samples]]] = {}
    for chain in chains:
        if chain.arm.is_measured_real_only or chain.seed != spec.seeds[0]:
            continue
        rows = []
        for number in range(1, spec.n_generations + 1):
            shown = read_shown(chain, number)
            if shown is not None:
                images, labels = shown
                if images.ndim == 2 and images.shape[1] != 2:  # a picture has two coordinates
                    images = np.pad(images[:, :2], ((0, 0), (0, max(0, 2 - images.shape[1]))))
                order = np.arange(len(images)) if labels is None else _deal(labels)
                rows.append((number, images[order]))
        strips[chain.arm.label] = rows
    return strips


def _deal(labels: np.ndarray) -> np.ndarray:
    """Places of samples, one of each class in turn."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        turn[rows] = np.arange(len(rows))
    return np.lexsort((labels, turn))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def check_runnable(spec: TrainedLoopSpec) -> None:
    """Raises InputError where a spec asks for what this machine has not, before anything is written."""
    specs: list[Any] = [getattr(arm.generator, "spec", None) for arm in spec.arms]
    specs += [getattr(each, "diffusion", None) for each in specs]
    devices = {getattr(each, "device", "auto") for each in (*specs, spec.measure.classifier)}
    if "cuda" in devices:
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "generator.device: got 'cuda' where there is none, allowed 'auto' or 'cpu'; change it"
            )
