"""Labels in an audit: they are held against the run, and become its share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolproof.audit.estimate import Share
from poolproof.audit.label_draw import read_candidates
from poolproof.audit.label_share import LabelAnswer, answer_labels, count_at_most, open_draw
from poolproof.audit.labels import LabelFile, read_labels
from poolproof.audit.plan import Plan
from poolproof.audit.references import Evidence
from poolproof.errors import InputError
from poolproof.files import hash_file


@dataclass(frozen=True)
class LabelledAudit:
    """The share of an audit by labels.

    Attributes:
        share: what is told.
        answer: the labels behind it.
        sha256: of the label file.
    """

    share: Share
    answer: LabelAnswer
    sha256: str


def check_run(path: str | None, plan: Plan) -> LabelFile | None:
    """The label file, whole and of this run; None where none was given. Asked before the pool is read.

    Args:
        path: of the label file.
        plan: of the pool.

    Raises:
        InputError: the file is absent, damaged or of another run.
    """
    if path is None:
        return None
    file = read_labels(Path(path))
    if file.header.plan_sha256 != plan.sha256:
        raise InputError(
            f"--labels {path!r} is of another run; give the file that `poolproof label` wrote for this --out"
        )
    return file


def share_of_labels(
    file: LabelFile | None,
    items: Path,
    evidence: Evidence,
    *,
    level: float,
) -> LabelledAudit | None:
    """The share by labels; None where no file was given.

    Args:
        file: what `check_run` gave.
        items: `items.parquet`, just written.
        evidence: of the pool.
        level: confidence level.

    Raises:
        InputError: a label is of an item that the run does not have, or did not score, or whose bytes are others;
            or no label is sure.
    """
    if file is None:
        return None
    _check_items(file, items, evidence)
    candidates, plan = read_candidates(items), evidence.plan
    draw = open_draw(file.header, candidates)
    sampled_from = None
    if plan.meta["sample"] is not None:
        if file.header.draw != "random":
            raise InputError(
                "--labels: got a draw by the detector for a sample, allowed a random one; label again"
            )
        sampled_from = count_at_most(plan.n_pool, plan.n_items, len(candidates))
    answer = answer_labels(file, candidates, draw, level=level, sampled_from=sampled_from)
    if answer is None:
        raise InputError(
            f"--labels {str(file.path)!r}: got no label that is sure, allowed 1 or more; label some images first"
        )
    share = Share(answer.found.interval, answer.found.interval.method, _assumes(answer), _why(answer))
    return LabelledAudit(share, answer, hash_file(file.path))


def report_labels(labelled: LabelledAudit | None) -> dict[str, Any] | None:
    """The section `labels` of `report.json`; None where no labels were given."""
    if labelled is None:
        return None
    answer = labelled.answer
    found, plan = answer.found, answer.plan
    return {
        "n": found.labelled,
        "synthetic": answer.synthetic,
        "unsure": found.unsure,
        "hits_real": answer.hits_real,
        "draw": answer.draw,
        "worst_case": {"lower": found.worst_case.lower, "upper": found.worst_case.upper},
        "parts": [
            {
                "names": list(part.names),
                "items": part.stratum.size,
                "n": part.stratum.labelled,
                "synthetic": part.stratum.synthetic,
                "unsure": part.stratum.unsure,
            }
            for part in answer.parts
        ],
        "plan": {
            "n_more": min(plan.n_more, answer.left),
            "half_width": plan.half_width,
            "expected_half_width": plan.expected_half_width,
            "current_half_width": plan.current_half_width,
            "reachable": plan.reachable and plan.n_more <= answer.left,
            "words": answer.describe_plan(),
        },
        "sha256": labelled.sha256,
    }


def _check_items(file: LabelFile, items: Path, evidence: Evidence) -> None:
    """Refuses labels of items that the run does not know by their row, name and content, or did not score."""
    table = pq.read_table(items, columns=["row", "key", "status"])
    rows, names = table["row"].to_numpy(), table["key"].cast(pa.binary())  # both in the order of the plan
    for label in file.latest.values():
        at = int(np.searchsorted(rows, label.row))
        known = at < len(rows) and rows[at] == label.row
        if not known or names[at].as_py().decode("utf-8", "backslashreplace") != label.key:
            raise InputError(
                f"--labels: got {label.key!r} as row {label.row}, allowed items of the run; "
                "give the file that `poolproof label` wrote for it"
            )
        status = table["status"][at].as_py()
        if status != "scored":
            raise InputError(
                f"--labels: got {label.key!r}, which is {status}, allowed items that were scored; "
                "give the file that `poolproof label` wrote for this run"
            )
        sha256 = evidence.take(["sha256"], np.array([at]))["sha256"][0].as_py()
        if sha256.hex() != label.sha256:
            raise InputError(
                f"--labels: the bytes of {label.key!r} were others when it was labelled; label this run anew"
            )


def _assumes(answer: LabelAnswer) -> tuple[str, ...]:
    by_flags = len(answer.parts) > 1
    assumes = [
        "The labels are right.",
        "The labelled images are a random draw; the people who label did not choose them, and did not stop "
        "because of what the interval said.",
        "The share is over readable, distinct images: byte-identical copies count once.",
    ]
    if answer.found.unsure:
        assumes.append(
            "Images that were shown and have no sure label are as often synthetic as the others"
            f"{' of their part' if by_flags else ''}; `labels.worst_case` holds whatever they are."
        )
    return tuple(assumes)


def _why(answer: LabelAnswer) -> str | None:
    return "a part of the pool has no sure label yet" if answer.found.interval.point is None else None
