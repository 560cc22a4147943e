"""Checks a filtered pool: every kept item is there with the bytes that were judged, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from poolproof.audit.decision import DecisionFile, read_decision
from poolproof.audit.filter import WRITERS, listed
from poolproof.audit.paths import is_image_name, path_of, readable
from poolproof.audit.pool import AbstractReader, FolderReader, one_line, open_pool, refs_of
from poolproof.audit.write_files import FolderFiles
from poolproof.audit.write_metadata import METADATA
from poolproof.audit.write_place import WORK
from poolproof.errors import InputError
from poolproof.files import hash_file

# fmt: off
_TOP: Final = frozenset((
    "README.md", "croissant.json", "decision.json", "decision.parquet", "filter.json", "kept.txt", "names.parquet",
    "pool", "subset.npy", "weights.parquet",
))
# fmt: on
"""What a finished folder may hold."""

_SHOWN: Final = 10
_STRETCH: Final = 1 << 12


def is_filtered(path: Path) -> bool:
    """Whether a folder is a filtered pool, also one that is not finished."""
    if (path / "run.json").is_file():
        return False
    return any((path / name).exists() for name in ("filter.json", WORK, "decision.parquet"))


def find_filter_faults(path: Path) -> list[str]:
    """What is wrong with a filtered pool, a line each; empty where all is well.

    The folder is checked against itself: no run and no original is needed. Files beside images, such as captions, are
    checked by their hashes, and by their size alone where they came out of another kind of pool into a folder.

    Raises:
        InputError: the folder was not written by `poolproof filter`.
    """
    if not (path / "filter.json").is_file():
        return ["not finished; the filter command continues it"]
    try:
        manifest = json.loads((path / "filter.json").read_text("utf-8"))
        return [*_top_faults(path, manifest), *_item_faults(path, manifest)]
    except InputError as error:
        return [str(error)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"filter.json is damaged ({type(error).__name__}: {one_line(error)}); {_AGAIN}"]


_AGAIN: Final = "remove the folder and filter again"


def _top_faults(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the lists and with the counts of the manifest."""
    for entry in sorted(path.iterdir()):
        if entry.name == WORK:
            yield f"{WORK} is there, of a call that was stopped; the filter command ends it"
        elif entry.name not in _TOP:
            yield f"{entry.name} was not written by the filter"
    if manifest["files"].get("decision.parquet") != manifest["identity"]["decision"]:
        yield "filter.json names two different decisions"
    for name, sha256 in manifest["files"].items():
        yield from _file_faults(path / name, name, sha256)
    try:
        json.loads((path / "decision.json").read_text("utf-8"))
    except FileNotFoundError:
        pass  # a decision that was made elsewhere may come without its statement
    except (ValueError, OSError) as error:
        yield f"decision.json is damaged ({one_line(error)})"
    counts, reasons = manifest["counts"], manifest["reasons"]
    if counts["kept"] + counts["dropped"] != counts["audited"]:
        yield f"{counts['kept']} kept and {counts['dropped']} dropped are not the {counts['audited']} audited"
    if counts["audited"] + counts["not_audited"] != counts["pool"]:
        yield f"{counts['audited']} audited and {counts['not_audited']} not are not the pool's {counts['pool']}"
    for name in ("kept", "dropped"):
        if sum(reasons[name].values()) != counts[name]:
            yield f"reasons of {name} items add up to {sum(reasons[name].values())}, {name} are {counts[name]}"


def _file_faults(file: Path, name: str, sha256: str) -> Iterator[str]:
    if not file.is_file():
        yield f"{name} is missing; {_AGAIN}"
    elif hash_file(file) != sha256:
        yield f"{name} is not what was written (hash differs); {_AGAIN}"


def _item_faults(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the data, held against the decision."""
    decision = path / "decision.parquet"
    if not decision.is_file() or hash_file(decision) != manifest["identity"]["decision"]:
        return  # told already, and nothing can be held against it
    file = read_decision(decision)
    kept = _kept(file)
    n_kept, n_audited = sum(kept.values()), sum(file.sizes)
    if (n_kept, n_audited) != (manifest["counts"]["kept"], manifest["counts"]["audited"]):
        yield f"decision.parquet keeps {n_kept} of {n_audited}, filter.json says otherwise"
    yield from _list_faults(path, file)
    writer = WRITERS[manifest["format"]]
    if not writer.opens_as:
        for shard in manifest["shards"]:
            yield from _file_faults(path / shard["name"], shard["name"], shard["sha256"])
        return
    links = sorted(
        readable(os.fspath(file.relative_to(path))) for file in path.rglob("*") if file.is_symlink()
    )
    if links:  # the filter makes none, and one may lead anywhere
        yield from _shown(links, "{!r} is a link; remove it")
        return
    yield from _shard_faults(path, manifest)
    try:
        pool = open_pool(f"{writer.opens_as}:{path / 'pool'}")
    except (InputError, OSError, pa.ArrowException) as error:
        yield f"pool cannot be opened ({one_line(error)}); {_AGAIN}"
        return
    found = Counter(kept)
    extra = []
    for key, digest in _read_items(pool.reader, pool.items):
        if digest is not None and found[digest] > 0:
            found[digest] -= 1
        else:
            extra.append(key)
    yield from _shown(extra, "pool holds {!r}, which is no kept item or has other bytes")
    yield from _shown(
        list(_missing(file, found)), "pool lacks {!r}, which was kept, or has other bytes of it"
    )


def _kept(file: DecisionFile) -> Counter[bytes]:
    """How often the bytes with each hash were kept."""
    kept: Counter[bytes] = Counter()
    for table in file.shards(["keep", "sha256"]):
        kept.update(table.filter(table.column("keep")).column("sha256").to_pylist())
    return kept


def _list_faults(path: Path, file: DecisionFile) -> Iterator[str]:
    """Whether `kept.txt` lists the kept keys."""
    digest = hashlib.sha256()
    for table in file.shards(["key", "keep"]):
        for key in table.filter(table.column("keep")).column("key").to_pylist():
            digest.update(f"{listed(key)}\n".encode())
    if not (path / "kept.txt").is_file() or hash_file(path / "kept.txt") != digest.hexdigest():
        yield "kept.txt does not list what decision.parquet keeps"


def _shard_faults(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the files of the data, and which others are among them."""
    pool = path / "pool"
    files = {file for file in pool.rglob("*") if not file.is_dir()}
    if manifest["format"] == "folder":
        yield from _folder_faults(pool, manifest, {file for file in files if file.name not in METADATA})
        return
    data = {path / shard["name"] for shard in manifest["shards"]}
    for shard in manifest["shards"]:
        yield from _file_faults(path / shard["name"], shard["name"], shard["sha256"])
    index = {pool / name for name in _index_names(manifest)}
    others = sorted(readable(os.fspath(file.relative_to(path))) for file in files - data - index)
    yield from _shown(others, "{!r} is no kept data")
    for file in sorted(index):
        try:
            json.loads(file.read_text("utf-8"))
        except (ValueError, OSError) as error:
            yield f"{file.relative_to(path)} is missing or damaged ({one_line(error)}); {_AGAIN}"


def _index_names(manifest: Mapping[str, Any]) -> list[str]:
    """Files beside the data, by which loaders find their way."""
    if manifest["format"] == "webdataset":
        stems = [shard["name"].rpartition("/")[2].removesuffix(".tar") for shard in manifest["shards"]]
        return ["sizes.json", *(f"{stem}_stats.json" for stem in stems)]
    return ["dataset_info.json", "state.json"] if manifest["format"] == "dataset" else []


def _folder_faults(pool: Path, manifest: Mapping[str, Any], files: set[Path]) -> Iterator[str]:
    listing, owned, n_bytes = FolderFiles(FolderReader(pool)), set[Path](), 0
    for file in sorted(file for file in files if is_image_name(file.name)):
        beside = [pool / name for name, _ in listing.sidecars(os.fspath(file.relative_to(pool)))]
        owned.update((file, *beside))
        n_bytes += sum(each.stat().st_size for each in (file, *beside))
    others = sorted(readable(os.fspath(file.relative_to(pool))) for file in files - owned)
    yield from _shown(others, "pool holds {!r}, which lies beside no kept item")
    if any(file.name in METADATA for file in owned):
        return  # beside an image called `metadata`: not as it was copied, but with the kept rows alone
    if n_bytes != manifest["counts"]["bytes"]:
        yield f"pool holds {n_bytes} bytes of items, {manifest['counts']['bytes']} were written"
    elif manifest["kind"] == "folder":
        yield from _copy_faults(pool, manifest, listing)


def _copy_faults(pool: Path, manifest: Mapping[str, Any], listing: FolderFiles) -> Iterator[str]:
    """Whether names and bytes are those of the original folder, in stretches as they were written."""
    sources = _kept_sources(read_decision(pool.parent / "decision.parquet"))
    for shard in manifest["shards"]:
        digest = hashlib.sha256()
        for image in islice(sources, shard["items"]):
            for name in (image, *(name for name, _ in listing.sidecars(image))):
                if not (pool / name).is_file():
                    yield f"pool lacks {readable(name)!r}"
                    return
                digest.update(f"{hash_file(pool / name)}  ".encode() + os.fsencode(name) + b"\n")
        if digest.hexdigest() != shard["sha256"]:
            yield f"pool, {shard['name']}: an image or a file beside one is not what was written (hash differs)"


def _kept_sources(file: DecisionFile) -> Iterator[str]:
    for table in file.shards(["source", "keep"]):
        yield from map(path_of, table.filter(table.column("keep")).column("source").to_pylist())


def _read_items(reader: AbstractReader, listing: pa.Table) -> Iterator[tuple[str, bytes | None]]:
    """Key and hash of each item; None where it cannot be read."""
    for start in range(0, listing.num_rows, _STRETCH):
        refs = refs_of(listing.slice(start, _STRETCH), start)
        for ref, data in zip(refs, reader.read(refs), strict=True):
            yield ref.key, hashlib.sha256(data).digest() if isinstance(data, bytes) else None


def _missing(file: DecisionFile, left: Mapping[bytes, int]) -> Iterator[str]:
    """Keys of kept items whose bytes were not found."""
    left = {digest: n for digest, n in left.items() if n > 0}
    for table in file.shards(["key", "keep", "sha256"]) if left else ():
        kept = table.filter(table.column("keep"))
        for key, digest in zip(*(kept.column(name).to_pylist() for name in ("key", "sha256")), strict=True):
            if left.get(digest, 0) > 0:
                left[digest] -= 1
                yield key


def _shown(names: list[str], words: str) -> Iterator[str]:
    """A line for each of the first names, and one for how many more there are."""
    yield from (words.format(name) for name in islice(names, _SHOWN))
    if len(names) > _SHOWN:
        yield f"and {len(names) - _SHOWN} more such items"
