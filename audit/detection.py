"""Detectors on their own: fitted on pools, tried on pools, and their scores of a pool; no share is told.

A folder that `fit_on_pools` makes holds the detector, the scores of the references that were held out from it,
and the hashes of those it learnt from, so that it is never tried on what it knows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from poolproof.audit.calibration import choose_detector
from poolproof.audit.figures import measure_fit, measure_generators, measure_transfer
from poolproof.audit.known import REFERENCES, drop_learnt, fitted_digests, held_out_scores, write_references
from poolproof.audit.plan import make_plan, read_plan
from poolproof.audit.pool import open_pool
from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.references import Reference, drop_shared, part_features, read_reference
from poolproof.audit.run import RunFolder, scan, scan_settings
from poolproof.audit.score import Scorer
from poolproof.detectors.calibrate import calibrate_fixed
from poolproof.detectors.conformal import conformal_pvalues, conformal_threshold
from poolproof.detectors.detector import AbstractDetector, split_finite
from poolproof.detectors.embed import find_weights, resolve_embedder
from poolproof.detectors.folds import FEWEST
from poolproof.detectors.kinds import KINDS, fit_detector
from poolproof.detectors.reader_spec import PRESETS
from poolproof.detectors.saved import load_detector, save_detector
from poolproof.errors import InputError, UnreliableEstimate
from poolproof.files import hash_file, hash_json, replace_file, write_json

FIGURES: Final = "figures.json"
SETTINGS: Final = "detection.json"


@dataclass(frozen=True)
class FitSpec:
    """What to fit a detector on; equal to the command's flags.

    Args:
        out: folder of the detector, made if needed; the same settings continue a stopped fit.
        real: pool of real references.
        synthetic: pool of synthetic references; None for kinds that need none.
        detector: a kind of `KINDS`.
        weights: file of a public head, for kinds that are made of one.
        embedder: `auto`, or a spec of what makes features.
        max_fpr: mean rate of false alarms to set the threshold by, None for the detector's own threshold.
        hold_out: share of the references, in (0, 1), that the detector does not learn from.
        workers: processes; 0 for this one, None for one a core.
        cache: folder in which embeddings are remembered, None for none.
        seed: of the split.
    """

    out: Path
    real: str
    synthetic: str | None = None
    detector: str = "probe"
    weights: Path | None = None
    embedder: str = "auto"
    max_fpr: float | None = None
    hold_out: float = 0.3
    workers: int | None = None
    cache: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrySpec:
    """What to try a fitted detector on; equal to the command's flags.

    Args:
        out: folder of the results, made if needed.
        detector: folder that `fit_on_pools` made.
        pools: by role: `real` and `synthetic` to evaluate, `pool` to score.
        workers: processes; 0 for this one, None for one a core.
        cache: folder in which embeddings are remembered, None for none.
    """

    out: Path
    detector: Path
    pools: Mapping[str, str]
    workers: int | None = None
    cache: Path | None = None


def fit_on_pools(spec: FitSpec, *, progress: AbstractProgress | None = None) -> dict[str, Any]:
    """The figures of a detector that was fitted on references and saved to `spec.out`.

    Rates, areas and p-values come from the references held out from it. What needs no fit, such as a public
    head, is tried on all of them.

    Args:
        spec: what to fit on.
        progress: told of the items.

    Raises:
        InputError: a setting or a pool cannot be used, or the folder holds another detector.
        UnreliableEstimate: too few references.
    """
    if not 0 < spec.hold_out < 1:
        raise InputError(f"--hold-out is {spec.hold_out}; it must lie between 0 and 1, for example 0.3")
    if spec.max_fpr is not None and not 0 < spec.max_fpr < 1:
        raise InputError(f"--max-fpr is {spec.max_fpr}; it must lie between 0 and 1, for example 0.01")
    if spec.seed < 0:
        raise InputError(f"--seed is {spec.seed}; it must be 0 or more")
    progress = progress or Silence()
    embedder = _embedder_of(spec)
    roles = {"real": spec.real} | ({} if spec.synthetic is None else {"synthetic": spec.synthetic})
    run = _read_pools(spec.out, roles, embedder, spec.workers, spec.cache, asdict(spec), progress)
    references = _references(run, roles, embedder)
    splitting, fitting, calibrating, checking = np.random.default_rng(spec.seed).spawn(4)
    from_file = KINDS[spec.detector].needs == "file"
    with progress.stage("fitting the detector"):
        fitted = {
            role: np.zeros(len(each.features), bool)
            if from_file or KINDS[spec.detector].needs == "real" != role == "synthetic"
            else _split(len(each.features), spec.hold_out, splitting)
            for role, each in references.items()
        }
        _check_held(references, fitted)
        detector = _fit(spec, references, fitted, embedder, fitting)
        tuned = {role: np.zeros(len(each.features), bool) for role, each in references.items()}
        if spec.max_fpr is not None:
            detector, tuned["real"] = _tune(
                detector, references["real"].features, ~fitted["real"], spec.max_fpr, calibrating
            )
        counted = {role: each.features[~fitted[role] & ~tuned[role]] for role, each in references.items()}
        fit = calibrate_fixed(detector, counted["real"], counted.get("synthetic"), rng=calibrating)
        weights = find_weights(embedder)
        figures = measure_fit(fit, references, checking, run, held_out=True) | {
            "transfer": measure_transfer(references, spec.detector, embedder, checking)
        }
        write_references(spec.out / REFERENCES, references, fitted, detector, tuned)
        write_json(spec.out / FIGURES, figures)
        save_detector(detector, spec.out, weights_sha256=None if weights is None else hash_file(weights))
    return figures


def evaluate_on_pools(spec: TrySpec, *, progress: AbstractProgress | None = None) -> dict[str, Any]:
    """The figures of a saved detector on labelled pools, as written to `OUT/figures.json`.

    Items that it learnt from are left out, by content. `scores.parquet` holds the rest.

    Args:
        spec: the detector and the pools.
        progress: told of the items.

    Raises:
        InputError: a folder or pool cannot be used, or nothing is left.
        UnreliableEstimate: too few items.
    """
    progress = progress or Silence()
    detector = _load(spec.detector)
    run = _read_pools(
        spec.out, spec.pools, detector.reader, spec.workers, spec.cache, _identity(spec), progress
    )
    references = _references(run, spec.pools, detector.reader)
    references, n_known = drop_learnt(references, fitted_digests(spec.detector))
    with progress.stage("trying the detector"):
        synthetic = references.get("synthetic")
        fit = calibrate_fixed(
            detector,
            references["real"].features,
            None if synthetic is None else synthetic.features,
            rng=np.random.default_rng(0),
        )
        figures = measure_fit(fit, references, np.random.default_rng(0), run, held_out=False)
        figures |= {"known": n_known, "generators": measure_generators(detector, synthetic)}
        everything = {role: np.zeros(len(each.features), bool) for role, each in references.items()}
        write_references(spec.out / "scores.parquet", references, everything, detector)
        write_json(spec.out / FIGURES, figures)
    return figures


def score_pool(spec: TrySpec, *, progress: AbstractProgress | None = None) -> dict[str, Any]:
    """The counts of a saved detector's scores of a pool; the scores are in `OUT/scores.parquet`.

    Each item gets its score, whether it is flagged, and the p-value of "this item is real" by its rank among
    the real references that the detector was not fitted on.

    Args:
        spec: the detector and the pool.
        progress: told of the items.

    Raises:
        InputError: a folder or the pool cannot be used.
    """
    progress = progress or Silence()
    detector = _load(spec.detector)
    run = _read_pools(
        spec.out, spec.pools, detector.reader, spec.workers, spec.cache, _identity(spec), progress
    )
    real_scores = held_out_scores(spec.detector, "real")
    counts = {"items": 0, "scored": 0, "flagged": 0, "abstained": 0}
    path, evidence = spec.out / "scores.parquet", run.evidence()
    with (
        progress.stage("scoring the items"),
        replace_file(path) as temporary,
        pq.ParquetWriter(temporary, _SCORES, compression="zstd") as writer,
    ):
        for part in evidence.parts():
            scored = np.array([status == "scored" for status in part.column("status").to_pylist()], bool)
            table = _score_part(part, scored, detector, real_scores, counts)
            writer.write_table(table, row_group_size=max(1, part.num_rows))
    return {**counts, "threshold": detector.threshold, "references": len(real_scores)}


_SCORES: Final = pa.schema(
    [
        ("row", pa.int64()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float32()),
        ("flagged", pa.bool_()),
        ("p_value", pa.float64()),
    ]
)


def _score_part(
    part: pa.Table,
    scored: np.ndarray,
    detector: AbstractDetector,
    real_scores: Float32[np.ndarray, " r"],
    counts: dict[str, int],
) -> pa.Table:
    n = part.num_rows
    values = np.full(n, np.nan)
    features = part_features(part, detector.reader, scored)
    if len(features):
        answer = detector.score(features)
        values[np.flatnonzero(scored)[~answer.abstained]] = answer.values[~answer.abstained]
    told = np.isfinite(values)
    flagged = values > detector.threshold
    p_values = np.full(n, np.nan)
    if len(real_scores) and told.any():
        p_values[told] = conformal_pvalues(values[told].astype(np.float32), real_scores)
    counts["items"] += n
    counts["scored"] += int(told.sum())
    counts["abstained"] += int((scored & ~told).sum())
    counts["flagged"] += int(flagged[told].sum())
    columns = [part.column(name) for name in ("row", "key", "status", "reason")]
    columns += [
        pa.array(values.astype(np.float32), mask=~told),
        pa.array(flagged, mask=~told),
        pa.array(p_values, mask=np.isnan(p_values)),
    ]
    return pa.table(columns, schema=_SCORES)


def _embedder_of(spec: FitSpec) -> str:
    """The resolved embedder that a kind of detector is fitted with."""
    if spec.detector not in KINDS:
        raise InputError(f"--detector: got {spec.detector!r}, allowed {', '.join(KINDS)}; choose one")
    kind = KINDS[spec.detector]
    if kind.needs == "file":
        if spec.weights is None:
            raise InputError(f"--detector {spec.detector}: it is made from a file of weights; give --weights")
        if kind.reader:
            if spec.embedder not in ("auto", spec.detector, kind.reader):
                raise InputError(
                    f"--embedder: got {spec.embedder!r}, allowed {kind.reader!r} for this detector; leave it out"
                )
            return resolve_embedder(kind.reader)[0]
        return resolve_embedder(spec.embedder)[0]
    if spec.weights is not None:
        raise InputError("--weights: got a file, allowed for univfd, clipdet and linear; leave it out")
    if kind.needs == "both" and spec.synthetic is None:
        raise InputError(f"--detector {spec.detector}: it learns from both classes; give --synthetic too")
    embedder = PRESETS.get(spec.embedder, spec.embedder)
    return resolve_embedder(choose_detector(spec.detector, embedder)[1])[0]


def _read_pools(
    out: Path,
    roles: Mapping[str, str],
    embedder: str,
    workers: int | None,
    cache: Path | None,
    settings: Mapping[str, Any],
    progress: AbstractProgress,
) -> RunFolder:
    """Scans pools into a folder, or goes on with it; refuses one that was made with other settings."""
    _check_places(out, roles, workers)
    run = RunFolder(out)
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(embedder, marks=False, cache=None if cache is None else str(cache))
    scanned = scan_settings(scorer)
    kept = {k: v for k, v in settings.items() if k not in ("out", "workers", "cache", *roles)}
    # whole paths, so that the same name in another working folder is another pool
    places = {role: os.path.realpath(path) if Path(path).exists() else path for role, path in roles.items()}
    text = json.dumps(kept | {"pools": places} | scanned, default=str, sort_keys=True)
    file, plans = out / SETTINGS, {}
    pinned = file.is_file()
    if pinned and file.read_text("utf-8") != text:
        raise InputError(
            f"--out {str(out)!r} was made with other settings; give the same to continue, or another folder"
        )
    for role, path in roles.items():
        folder = run.folder(role)
        folder.mkdir(parents=True, exist_ok=True)
        plan_file = folder / "plan.parquet"
        if pinned and plan_file.is_file():
            plans[role] = read_plan(plan_file)
        else:
            plans[role] = make_plan(open_pool(path), plan_file, rng=np.random.default_rng(0))
    # only now, so that a pool that cannot be opened settles nothing
    with replace_file(file) as temporary:
        temporary.write_text(text, "utf-8")
    for role, plan in plans.items():
        scan(run, role, plan, scorer, hash_json(scanned), workers, progress)
    return run


def _check_places(out: Path, roles: Mapping[str, str], workers: int | None) -> None:
    """Raises InputError for a number of workers below 0, one pool in two roles, or an output on what is there."""
    if workers is not None and workers < 0:
        raise InputError(f"--workers is {workers}; it must be 0 or more")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {str(out)!r}, a file; give a folder")
    if RunFolder(out).config.is_file():
        raise InputError(f"--out is {str(out)!r}, the folder of an audit; give another folder")
    places = {role: os.path.realpath(path) for role, path in roles.items()}
    if len(set(places.values())) < len(places):
        raise InputError(f"{' and '.join(f'--{role}' for role in roles)} are the same pool; give two pools")
    if os.path.realpath(out) in places.values():
        raise InputError(f"--out is {str(out)!r}, an input; nothing is written there, give another folder")


def _references(run: RunFolder, roles: Mapping[str, str], embedder: str) -> dict[str, Reference]:
    return drop_shared(
        {role: read_reference(run.evidence(role), path, role, embedder, None) for role, path in roles.items()}
    )


def _split(n: int, hold_out: float, rng: np.random.Generator) -> np.ndarray:
    """Which items are fitted on; at least one stays on both sides where there are two."""
    n_held = min(max(round(hold_out * n), 1), n - 1) if n > 1 else 0
    fitted = np.ones(n, bool)
    fitted[rng.permutation(n)[:n_held]] = False
    return fitted


def _fit(
    spec: FitSpec,
    references: Mapping[str, Reference],
    fitted: Mapping[str, np.ndarray],
    embedder: str,
    rng: np.random.Generator,
) -> AbstractDetector:
    settings: dict[str, Any] = {} if spec.weights is None else {"path": spec.weights}
    features = {role: split_finite(each.features[fitted[role]])[0] for role, each in references.items()}
    return fit_detector(
        spec.detector, features.get("real"), features.get("synthetic"), reader=embedder, rng=rng, **settings
    )


def _check_held(references: Mapping[str, Reference], fitted: Mapping[str, np.ndarray]) -> None:
    """Raises UnreliableEstimate where too few references are held out to tell any rate."""
    for role, each in references.items():
        held, n = int((~fitted[role]).sum()), len(each.features)
        if held < FEWEST:
            raise UnreliableEstimate(
                f"--{role} {each.path!r}: {held} of {n} references are held out, allowed {FEWEST} or more: "
                "add some, 100 serve well, or raise --hold-out"
            )


def _tune(
    detector: AbstractDetector,
    real: Float32[np.ndarray, "r d"],
    held: Bool[np.ndarray, " r"],
    max_fpr: float,
    rng: np.random.Generator,
) -> tuple[AbstractDetector, Bool[np.ndarray, " r"]]:
    """The detector with its threshold set by stated error, and the half of the held-out ones it was set on."""
    scores = detector.score(real)
    usable = rng.permutation(np.flatnonzero(held & ~scores.abstained))
    setting = np.zeros(len(real), bool)
    setting[usable[: (len(usable) + 1) // 2]] = True
    threshold = conformal_threshold(scores.values[setting], max_fpr)
    return replace(detector, threshold=threshold), setting  # pyright: ignore[reportArgumentType, reportCallIssue]


def _load(folder: Path) -> AbstractDetector:
    """A saved detector, for the very weights that it was fitted with."""
    detector = load_detector(folder)
    weights = find_weights(detector.reader)
    return load_detector(folder, weights_sha256=None if weights is None else hash_file(weights))


def _identity(spec: TrySpec) -> dict[str, Any]:
    return {"detector": str(spec.detector.resolve()), "page": hash_file(spec.detector / "detector.json")}
