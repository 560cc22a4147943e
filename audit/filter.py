"""The filtered pool: what a decision keeps, byte for byte, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.croissant import describe_croissant
from poolproof.audit.dataset_card import render_card
from poolproof.audit.decision import DecisionFile
from poolproof.audit.plan import Plan
from poolproof.audit.pool import open_pool
from poolproof.audit.progress import AbstractProgress, Silence
from poolproof.audit.run_folder import RunFolder
from poolproof.audit.write_dataset import DatasetWriter
from poolproof.audit.write_folder import FolderWriter
from poolproof.audit.write_kept import Kept, open_kept
from poolproof.audit.write_parquet import ParquetWriter
from poolproof.audit.write_place import FilterError, Place, finished, hold
from poolproof.audit.write_pool import SHARD_ITEMS, AbstractWriter, spans
from poolproof.audit.write_tars import TarWriter
from poolproof.audit.write_uids import KeyWriter, UidWriter
from poolproof.errors import InputError
from poolproof.files import hash_file

__all__ = ["FORMATS", "LINKS", "FilterError", "FilterSpec", "filter_pool", "listed"]

FILTER_VERSION: Final = 1
"""Of `filter.json`. Raised when a field changes its meaning, or the same decision is written otherwise."""

WRITERS: Final[Mapping[str, type[AbstractWriter]]] = {
    writer.format: writer
    for writer in (FolderWriter, TarWriter, ParquetWriter, DatasetWriter, UidWriter, KeyWriter)
}
FORMATS: Final = ("auto", *WRITERS)
LINKS: Final = ("copy", "hard")

_FOLDER_UNIT: Final = 1000
"""Files of a folder between two markers."""


@dataclass(frozen=True)
class FilterSpec:
    """How a filtered pool is written.

    Attributes:
        out: the folder; new, or one that holds the decision alone, or one that an earlier call began.
        format: one of `FORMATS`; `auto` is the kind of the audited pool.
        link: `copy`, or `hard` for second names of the original files where pool and output are folders on one
            device. Copies are the default, since originals are never changed: whatever later writes into a hard
            link, or changes its permissions, does so to the original.
        shard_items: most items of a tar, of a Parquet file made of other pools, or of an Arrow file; None for
            10,000.
    """

    out: Path
    format: str = "auto"
    link: str = "copy"
    shard_items: int | None = None


def filter_pool(
    run: RunFolder,
    decision: DecisionFile,
    spec: FilterSpec,
    *,
    progress: AbstractProgress | None = None,
) -> dict[str, Any]:
    """The manifest of the filtered pool, as written to `OUT/filter.json` when all else is there.

    A call that was stopped, even by force, goes on where it was and ends with the same bytes. Every item is
    compared with the hash of what was audited while it is copied. Originals are only read.

    Args:
        run: the audit.
        decision: what is kept.
        spec: where it goes, and how.
        progress: told of the items.

    Raises:
        InputError: an option is wrong, the decision is not about this run, the pool changed since the audit, or
            the folder holds something else.
        FilterError: no space is left, or a file cannot be read or written.
    """
    progress = progress or Silence()
    plan = run.plan()
    name = _check_spec(spec, plan)
    check_apart(spec.out, plan, run)
    kept = open_kept(plan, decision)
    shard_items = spec.shard_items or (_FOLDER_UNIT if name == "folder" else SHARD_ITEMS)
    identity = {
        "version": FILTER_VERSION,
        "decision": hash_file(decision.path),
        "plan": plan.sha256,
        "format": name,
        "link": spec.link,
        "shard_items": shard_items,
    }
    with hold(spec.out, identity) as place:
        manifest = finished(spec.out)
        if manifest is not None and manifest["shards"] and not place.pool.is_dir():
            raise InputError(
                f"--out {str(spec.out)!r} is finished and its pool is gone; remove the folder and filter again"
            )
        if manifest is None:
            _take_decision(decision, place)
            writer = _make_writer(name, kept, place, shard_items, spec)
            units = _write_units(writer, progress)
            with progress.stage("writing the lists and the manifest"):
                manifest = _finish(writer, run, identity, units)
        place.clear()
    return manifest


def _make_writer(name: str, kept: Kept, place: Place, shard_items: int, spec: FilterSpec) -> AbstractWriter:
    if name == "folder":
        return FolderWriter(kept, place, shard_items, hard=spec.link == "hard")
    return WRITERS[name](kept, place, shard_items)


def _write_units(writer: AbstractWriter, progress: AbstractProgress) -> list[dict[str, Any]]:
    """Writes the units that are not finished; returns what is known of each."""
    units = [(i, start, stop, writer.place.done(i)) for i, (start, stop) in enumerate(spans(writer.bounds()))]
    before = sum(stop - start for _, start, stop, found in units if found is not None)
    n_done, told = 0, []
    with progress.items("writing the pool", sum(stop - start for _, start, stop, _ in units), before) as tick:
        for unit, start, stop, found in units:
            if found is None:
                found = writer.write(unit, start, stop)
                writer.place.mark_done(unit, found)
                n_done += stop - start
                tick(n_done)
            told.append(found)
    return told


def _finish(
    writer: AbstractWriter, run: RunFolder, identity: Mapping[str, Any], units: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Writes what tells of the whole, the manifest last."""
    place, kept = writer.place, writer.kept
    writer.finish(units)
    _check_opens(writer)
    with place.file(place.out / "kept.txt") as handle:
        for key in kept.read_keys():
            handle.write(f"{listed(key)}\n".encode())
    if kept.weighted:
        _write_weights(kept, place)
    reasons = kept.count_reasons()
    manifest: dict[str, Any] = {
        "schema_version": FILTER_VERSION,
        "identity": dict(identity),
        "format": writer.format,
        "kind": kept.kind,
        "policy": kept.decision.header.get("policy"),
        "counts": {
            "pool": kept.plan.n_pool,
            "audited": kept.plan.n_items,
            "kept": len(kept),
            "dropped": kept.plan.n_items - len(kept),
            "not_audited": kept.plan.n_pool - kept.plan.n_items,
            "bytes": sum(unit.get("bytes", 0) for unit in units),
            "lost_sidecars": sum(unit.get("lost", 0) for unit in units),
            "weighted": kept.weighted,
        },
        "reasons": reasons,
        "fields": sorted({each for unit in units for each in unit.get("fields", ())}),
        "shards": [
            {name: unit[name] for name in ("name", "items", "bytes", "sha256")}
            for unit in units
            if "name" in unit
        ],
    }
    share = _read_json(run.report).get("share")
    stated = _read_json(place.out / "decision.json")
    manifest["files"] = {
        name: hash_file(place.out / name)
        for name in ("decision.parquet", "kept.txt", "weights.parquet", "names.parquet")
        if (place.out / name).is_file()
    }
    data_files = writer.data_files(units)
    card = render_card(manifest, data_files, share, stated)
    place.write(place.out / "README.md", card.encode("utf-8", "backslashreplace"))
    place.json(place.out / "croissant.json", describe_croissant(manifest, writer.pattern, share, stated))
    place.json(place.out / "filter.json", manifest)
    return manifest


def listed(key: str) -> str:
    r"""A key as a line of `kept.txt`: as it is, or as a JSON string where it could be taken for something else.

    >>> listed("a/b.jpg"), listed("bell\x07")
    ('a/b.jpg', '"bell\\u0007"')
    """
    plain = key.isprintable() and key == key.strip() and key and not key.startswith('"')
    return key if plain else json.dumps(key)


def _write_weights(kept: Kept, place: Place) -> None:
    schema = pa.schema([("row", pa.int64()), ("key", pa.string()), ("weight", pa.float32())])
    with (
        place.file(place.out / "weights.parquet") as handle,
        pq.ParquetWriter(handle, schema, compression="zstd") as writer,
    ):
        for table in kept.decision.shards(["row", "key", "keep", "weight"]):
            chosen = table.filter(table.column("keep")).drop_columns("keep")
            writer.write_table(chosen.cast(schema).replace_schema_metadata(None))


def _take_decision(decision: DecisionFile, place: Place) -> None:
    """Puts the decision into the folder, unless it is there.

    Raises:
        InputError: another one is there.
    """
    own = place.out / "decision.parquet"
    if own.is_file():
        if hash_file(own) != hash_file(decision.path):
            raise InputError(f"--out {str(place.out)!r} holds another decision; give another folder")
    else:
        with place.file(own) as handle, decision.path.open("rb") as source:
            shutil.copyfileobj(source, handle)
    beside = decision.path.with_name("decision.json")
    if beside.is_file() and not (place.out / "decision.json").exists():
        place.write(place.out / "decision.json", beside.read_bytes())


def _check_opens(writer: AbstractWriter) -> None:
    """Opens what was written and counts the items: a bug here must not become a smaller pool."""
    if not writer.opens_as:
        return
    n_items = len(open_pool(f"{writer.opens_as}:{writer.place.pool}"))
    if n_items != len(writer.kept):
        raise RuntimeError(f"{len(writer.kept)} items were kept, the pool that was written holds {n_items}")


def _check_spec(spec: FilterSpec, plan: Plan) -> str:
    """The format that is written."""
    if spec.format not in FORMATS:
        raise InputError(f"--format is {spec.format!r}; allowed are {', '.join(FORMATS)}")
    if spec.link not in LINKS:
        raise InputError(f"--link is {spec.link!r}; allowed are {', '.join(LINKS)}")
    kind = plan.meta["reader"]["kind"]
    name = kind if spec.format == "auto" else spec.format
    if spec.link == "hard" and (kind, name) != ("folder", "folder"):
        raise InputError(f"--link hard: only files of a folder can be linked, not {kind} as {name}; use copy")
    if spec.shard_items is not None and spec.shard_items < 1:
        raise InputError(f"--shard-items is {spec.shard_items}; it must be at least 1")
    if spec.shard_items is not None and (kind, name) == ("parquet", "parquet"):
        raise InputError("--shard-items: Parquet files keep their division; leave it out")
    return name


def check_apart(out: Path, plan: Plan, run: RunFolder) -> None:
    """Raises InputError where the output would lie in the pool or among a run's files, or hold the pool or the run."""
    root, target = Path(plan.meta["reader"]["root"]).resolve(), out.resolve()
    inside = target.is_relative_to(root) and not _is_file(run)
    inside |= any(target.is_relative_to(run.path.resolve() / name) for name in ("evidence", "references"))
    if inside or root.is_relative_to(target) or run.path.resolve().is_relative_to(target):
        raise InputError(
            f"--out {str(out)!r} lies in the audited pool or the run's evidence, or holds the pool or the run; "
            "give another folder"
        )


def _is_file(run: RunFolder) -> bool:
    """Whether the pool is a file: its folder may hold anything, the output too."""
    audited = str(_read_json(run.config).get("pool", ""))
    return Path(audited).is_file() or Path(audited.partition(":")[2] or os.curdir).is_file()


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of the run says; nothing where it is not there."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{str(path)!r} is damaged ({error}); make it anew") from error
    return value if isinstance(value, dict) else {}
