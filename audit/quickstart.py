"""The demonstration: real digits and a diffusion model trained on the spot make a pool of known share."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int, UInt8

from poolproof.audit.credentials import make_identity
from poolproof.audit.digits import LEVELS, Item, encode_item, lay_evidence, make_items
from poolproof.errors import InputError
from poolproof.files import replace_file, write_json
from poolproof.simulate.diffusion import DiffusionSpec, fit_diffusion

TRUTH_RANGE: Final = (0.2, 0.4)
"""The share is drawn uniformly from here."""

FOLDERS: Final = ("pool", "real", "synthetic")
TRUTH_FILE: Final = "truth.parquet"


@dataclass(frozen=True)
class QuickstartSpec:
    """Sizes of the demonstration. The digits suffice for 1797 real images in all.

    Attributes:
        n_train: real images that the model learns from.
        n_reference: real and, as many, synthetic reference images.
        n_pool: items of the pool.
        share: of the pool that is synthetic, in [0, 1]; None draws it.
        n_signed: synthetic items of the pool that carry a signed manifest.
        declared_share: share of the pool's synthetic items whose metadata state their origin.
        marked_share: share of the pool's synthetic items that carry a public mark.
        diffusion: the model.
    """

    n_train: int = 700
    n_reference: int = 400
    n_pool: int = 600
    share: float | int | None = None
    n_signed: int = 4
    declared_share: float = 0.1
    marked_share: float = 0.1
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)

    def __post_init__(self) -> None:
        for name, least in (("n_train", 1), ("n_reference", 1), ("n_pool", 10), ("n_signed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, allowed {least} or more")
        for name in ("share", "declared_share", "marked_share"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: got {getattr(self, name)}, allowed 0 to 1")


@dataclass(frozen=True)
class QuickstartPools:
    """Where the pools lie, and what is true of them.

    Attributes:
        pool: folder of the contaminated pool.
        real: folder of the real reference.
        synthetic: folder of the synthetic reference.
        truth: share of synthetic items in the pool, in [0, 1].
        n_pool: items of the pool.
        n_synthetic: synthetic items of the pool.
        truth_by_key: whether each item of the pool is synthetic, by key.
        evidence_by_key: what was laid into an item: `signed`, `declared`, or `marked:` and the payload's name.
        seed: that the pools were built from.
    """

    pool: Path
    real: Path
    synthetic: Path
    truth: float
    n_pool: int
    n_synthetic: int
    truth_by_key: Mapping[str, bool]
    evidence_by_key: Mapping[str, str]
    seed: int


def build_pools(
    out: Path,
    *,
    seed: int,
    on_progress: Callable[[str, float], None] | None = None,
    spec: QuickstartSpec | None = None,
) -> QuickstartPools:
    """A contaminated pool and two clean references, written below `out`, and the truth about the pool.

    The truth goes to `out/truth.parquet`, outside of all pools. The same seed and options give the same
    files, but for the signed ones: signatures and manifests are random. Pools that lie there already are
    opened and not built again.

    Args:
        out: folder to write to; made if missing.
        seed: 0 or more. It decides the split, the model and the share.
        on_progress: called with the stage (`training`, `sampling`, `writing`) and its progress in [0, 1].
        spec: sizes.

    Raises:
        InputError: the seed is negative, there are too few digits for the sizes, or other pools lie in `out`.
    """
    spec = spec or QuickstartSpec()
    report = on_progress or (lambda stage, progress: None)
    if seed < 0:
        raise InputError(f"seed: got {seed}, allowed 0 or more")
    if out.exists() and not out.is_dir():
        raise InputError(f"out: got {str(out)!r}, a file, allowed a folder; choose another name")
    manifest = json.dumps({"seed": seed, "spec": asdict(spec)}, sort_keys=True)
    if any((out / name).exists() for name in (*FOLDERS, TRUTH_FILE)):
        return _open_pools(out, manifest, seed)
    split, fit, draw, lay = np.random.default_rng(seed).spawn(4)
    drawn_share = split.uniform(*TRUTH_RANGE)
    n_synthetic = round(spec.n_pool * (drawn_share if spec.share is None else spec.share))
    digits, labels = _real_digits()
    train, reference, rest = _split(
        len(digits), (spec.n_train, spec.n_reference, spec.n_pool - n_synthetic), split
    )
    model = fit_diffusion(
        digits[train] / np.float32(LEVELS / 2) - np.float32(1),
        labels[train],
        spec.diffusion,
        rng=fit,
        on_step=lambda step, loss: report("training", step / spec.diffusion.n_steps),
    )
    report("sampling", 0.0)
    drawn = model.draw_labels(spec.n_reference + n_synthetic, rng=draw)
    samples = np.rint((model.sample(drawn, rng=draw) + 1) * (LEVELS / 2)).astype(np.uint8)
    report("sampling", 1.0)
    n = spec.n_reference
    members = {
        "pool": _shuffled(
            make_items(digits[rest], labels[rest], False, rng=lay)
            + lay_evidence(
                make_items(samples[n:], drawn[n:], True, rng=lay),
                spec.declared_share,
                spec.marked_share,
                spec.n_signed,
                rng=lay,
            ),
            lay,
        ),
        "real": make_items(digits[reference], labels[reference], False, rng=lay),
        "synthetic": make_items(samples[:n], drawn[:n], True, rng=lay),
    }
    _write(out, members, manifest, lambda progress: report("writing", progress))
    return _open_pools(out, manifest, seed)


def summarise(out: Path, report: Mapping[str, Any], pools: QuickstartPools, seconds: float) -> dict[str, Any]:
    """What the demonstration found beside what is true, as written to `out/quickstart.json`.

    Args:
        out: the demonstration's folder.
        report: the audit's report; its `share` may be null.
        pools: that were audited.
        seconds: that the whole demonstration took.

    Returns:
        truth, share (point, lower, upper, level, why; None where the audit withheld it), covered (whether the
        interval holds the truth; None without a share), seconds, seed.
    """
    share = report.get("share")
    summary = {
        "truth": pools.truth,
        "share": None
        if share is None
        else {name: share[name] for name in ("point", "lower", "upper", "level", "why")},
        "covered": None if share is None else bool(share["lower"] <= pools.truth <= share["upper"]),
        "seconds": seconds,
        "seed": pools.seed,
    }
    write_json(out / "quickstart.json", summary)
    return summary


def _open_pools(out: Path, manifest: str, seed: int) -> QuickstartPools:
    """The pools that lie in `out`, if they were built in full from the same seed and options."""
    import pyarrow.parquet as pq

    path = out / TRUTH_FILE
    truth = pq.read_table(path) if path.is_file() else None
    metadata = {} if truth is None else truth.schema.metadata or {}
    if truth is None or metadata.get(b"quickstart") != manifest.encode():
        raise InputError(
            f"out: got {str(out)!r}, which holds other or unfinished pools; give a new folder, or remove "
            f"{', '.join(FOLDERS)} and {TRUTH_FILE} there"
        )
    keys = truth.column("key").to_pylist()
    synthetic = dict(zip(keys, truth.column("synthetic").to_pylist(), strict=True))
    evidence = zip(keys, truth.column("evidence").to_pylist(), strict=True)
    n_synthetic = sum(synthetic.values())
    return QuickstartPools(
        *(out / name for name in FOLDERS),
        truth=n_synthetic / len(keys),
        n_pool=len(keys),
        n_synthetic=n_synthetic,
        truth_by_key=synthetic,
        evidence_by_key={key: kind for key, kind in evidence if kind is not None},
        seed=seed,
    )


def _real_digits() -> tuple[UInt8[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images.astype(np.uint8), bunch.target


def _split(n: int, sizes: tuple[int, ...], rng: np.random.Generator) -> list[Int[np.ndarray, " _"]]:
    """Disjoint random rows, one array per size."""
    if sum(sizes) > n:
        raise InputError(f"spec: got {sum(sizes)} real images in all, allowed {n}; use smaller sizes")
    return np.split(rng.permutation(n)[: sum(sizes)], np.cumsum(sizes)[:-1])


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))]


def _write(
    out: Path,
    members: Mapping[str, list[Item]],
    manifest: str,
    on_progress: Callable[[float], None],
) -> None:
    """Writes the pools aside and moves them into place; the truth comes last, so where it is, all is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, members.values()))
    done = 0
    identity = make_identity(datetime.timedelta(days=3650))
    truth: dict[str, list[Any]] = {"key": [], "synthetic": [], "evidence": []}
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as building:
        for name, items in members.items():
            folder = Path(building, name)
            folder.mkdir()
            for number, item in enumerate(items):
                key = f"{number:06d}.{item.rendering.suffix}"
                (folder / key).write_bytes(encode_item(item, identity))
                if name == "pool":
                    for column, value in zip(
                        truth.values(), (key, item.synthetic, item.evidence), strict=True
                    ):
                        column.append(value)
                done += 1
                on_progress(done / total)
        for name in members:
            Path(building, name).replace(out / name)
    types = {"key": pa.string(), "synthetic": pa.bool_(), "evidence": pa.string()}
    table = pa.table({name: pa.array(truth[name], kind) for name, kind in types.items()})
    with replace_file(out / TRUTH_FILE) as path:
        pq.write_table(table.replace_schema_metadata({"quickstart": manifest}), path)
