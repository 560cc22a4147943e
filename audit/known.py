"""The references of a saved detector: which it learnt from, and what it says of the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, UInt64

from poolproof.audit.digests import find_members
from poolproof.audit.paths import readable
from poolproof.audit.references import Reference
from poolproof.detectors.detector import AbstractDetector
from poolproof.errors import InputError
from poolproof.files import replace_file

REFERENCES: Final = "references.parquet"
"""In the folder of a detector."""


def write_references(
    path: Path,
    references: Mapping[str, Reference],
    fitted: Mapping[str, Bool[np.ndarray, " _"]],
    detector: AbstractDetector,
    tuned: Mapping[str, Bool[np.ndarray, " _"]] | None = None,
) -> None:
    """Writes the class, content hash and score of each reference, and what the detector has of it.

    Args:
        path: of the table.
        references: by class.
        fitted: which items of each the detector learnt from.
        detector: scores them.
        tuned: which of the others its threshold was set on; None for none.
    """
    tables = []
    for role, each in references.items():
        answer = detector.score(each.features)
        tables.append(
            pa.table(
                {
                    "class": pa.array([role] * len(each.features)),
                    "row": pa.array(each.rows, pa.int64()),
                    "origin": pa.array([readable(name) for name in each.origins]),
                    "digest": pa.array([pair.tobytes() for pair in each.digests], pa.binary(16)),
                    "score": pa.array(answer.values, mask=answer.abstained),
                    "fitted": pa.array(fitted[role]),
                    "tuned": pa.array(np.zeros(len(each.rows), bool) if tuned is None else tuned[role]),
                }
            )
        )
    with replace_file(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")


def fitted_digests(folder: Path) -> UInt64[np.ndarray, "n 2"]:
    """The first 16 bytes of the hash of every reference that a saved detector or its threshold was fitted on.

    Args:
        folder: of the detector; one that came without a list of references gives none.
    """
    file = folder / REFERENCES
    if not file.is_file():
        return np.zeros((0, 2), np.uint64)
    table = _read(file)
    known = table.filter(pc.field("fitted") | pc.field("tuned"))
    digests = known.column("digest").to_pylist()
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2) if digests else np.zeros((0, 2), np.uint64)


def held_out_scores(folder: Path, role: str) -> Float32[np.ndarray, " n"]:
    """Scores of the references of a class that a saved detector did not learn from.

    Args:
        folder: of the detector; one that came without a list of references gives none.
        role: the class.
    """
    file = folder / REFERENCES
    if not file.is_file():
        return np.zeros(0, np.float32)
    table = _read(file)
    kept = table.filter((pc.field("class") == role) & ~pc.field("fitted"))
    return kept.column("score").drop_null().to_numpy().astype(np.float32)


def _read(file: Path) -> pa.Table:
    """The table of references.

    Raises:
        InputError: it is damaged, or not what `write_references` wrote.
    """
    try:
        return pq.read_table(file, columns=["class", "digest", "score", "fitted", "tuned"])
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        got = f"{file.name} that is no list of references"
        raise InputError(
            f"detector {file.parent}: got {got}, allowed the file as saved: fit it anew"
        ) from error


def drop_learnt(
    references: Mapping[str, Reference], learnt: UInt64[np.ndarray, "n 2"]
) -> tuple[dict[str, Reference], int]:
    """The references without what a saved detector learnt from, and how many items that were.

    Args:
        references: by class.
        learnt: hashes, as of `fitted_digests`.

    Raises:
        InputError: it learnt from every item of one of them.
    """
    kept, n = {}, 0
    for role, each in references.items():
        seen = find_members(each.digests, learnt)
        if seen.all():
            raise InputError(
                f"--{role} {each.path!r}: the detector learnt from every item of it; give items it has not seen"
            )
        n += int(seen.sum())
        kept[role] = each.take(~seen)
    return kept, n
