"""The report of an audit as one HTML page: `report.json` and `items.parquet` of a run, put before people.

Nothing is computed here that the run did not find. The page says what `report.json` says, shows the images
that carry the most evidence, and says in words what a figure rests on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from markupsafe import Markup

from poolproof.audit.evidence import STATUSES
from poolproof.audit.gallery import LOST_SIZE, ReadImages, galleries, lost_items
from poolproof.audit.label_words import labelled_parts, labels_basis
from poolproof.audit.summary import SCHEMA_VERSION
from poolproof.charts import Counts, histogram_chart, interval_chart
from poolproof.errors import InputError
from poolproof.page import counted, percent, render_page, write_page

_STATUS_MEANING = {
    "scored": "decoded in full and measured",
    "unreadable": "damaged: the pixels cannot be decoded in full",
    "unsupported": "no image, or a kind that is not read",
    "duplicate": "byte for byte the same as an earlier item, counted once",
    "missing": "listed in the pool, but its bytes are not there",
}
_DETECTOR = {
    "probe": "a probe trained on both references",
    "knn": "which reference the nearest neighbours belong to",
    "forensic": "a probe on generator traces, trained on both references",
    "real-distance": "the distance from the real reference",
    "rigid": "how far noise moves the image's vector",
    "univfd": "a public head on CLIP (Ojha et al.)",
    "clipdet": "a public head on CLIP (Cozzolino et al.)",
    "linear": "a linear head from a file",
}
_METHOD = {
    "melded": "flags, corrected for misses and false alarms",
    "lang-reiczigel": "the same flags, in closed form",
    "pacc-fieller": "means of soft scores",
    "melded-lower": "flags, corrected for false alarms alone: holds for any generator",
    "matched": "flags of a sample, all files made alike in size and codec",
    "labels-strata": "labels by people, part by part: holds whatever the detector errs",
    "labels-survey": "labels by people alone",
}


@dataclass(frozen=True)
class Headline:
    """What stands at the top of the page. A figure never stands there without its interval or its reason."""

    figure: str
    words: str
    """What the figure is of."""
    told: bool
    """Whether the figure is a number."""
    basis: str
    why: str | None
    qualifier: str = ""
    """Words before the figure: `at least`, or nothing."""
    interval: str | None = None
    count: str | None = None


@dataclass(frozen=True)
class Tier:
    """One kind of evidence, kept apart from the others."""

    name: str
    meaning: str
    count: int | None
    share: float | None
    """Of the scored items, in [0, 1]."""
    facts: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Account:
    """The items of one status."""

    status: str
    meaning: str
    count: int
    share: float | None
    """Of the audited items, in [0, 1]."""
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Line:
    """A share with its limits in a table, drawn as a bar from lower to upper."""

    meaning: str
    share: Mapping[str, Any]
    name: str


@dataclass(frozen=True)
class Check:
    """One check and what came of it."""

    name: str
    outcome: str
    """`passed`, `failed`, `unsure` or `not made`."""
    words: tuple[str, ...]


def render_report(run: Path, *, read_images: ReadImages) -> Path:
    """The path of `report.html`, written into the run's folder in one step.

    Args:
        run: folder with `report.json` and `items.parquet`.
        read_images: gives encoded images by row, as `galleries` asks for them.

    Raises:
        InputError: a file is absent, unreadable, of another schema version, or its counts do not add up.
    """
    report = _read_report(run / "report.json")
    items = run / "items.parquet"
    if not items.is_file():
        raise InputError(f"run has no {items.name}: {run}; give the folder that an audit wrote")
    page = render_page(
        Path(__file__).with_name("report.html"),
        report=report,
        pool_name=PurePath(report["pool"]["path"]).name or report["pool"]["path"],
        headline=headline(report),
        tiers=tiers(report),
        accounts=accounts(report),
        estimates=[Line(_METHOD.get(e["method"], ""), e, e["method"]) for e in report["estimates"]],
        checks=checks(report),
        labels=report.get("labels"),
        labelled_parts=labelled_parts(report),
        groups=groups(report),
        share_chart=_share_chart(report),
        score_chart=_score_chart(report),
        galleries=galleries(items, read_images),
        lost=lost_items(items),
        lost_size=LOST_SIZE,
        config=[(key, json.dumps(value)) for key, value in report["manifest"]["config"].items()],
    )
    return write_page(page, run / "report.html")


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; give the folder that an audit wrote") from error
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema_version is {version}, allowed is {SCHEMA_VERSION}; audit again")
    total = sum(report["pool"]["status"].values())
    if total != report["pool"]["audited"]:
        raise InputError(f"{path}: statuses add up to {total}, audited are {report['pool']['audited']}")
    return report


# --- words ----------------------------------------------------------------------------------------------


def headline(report: Mapping[str, Any]) -> Headline:
    """The share in words, with its interval and what it rests on, or why there is none.

    Args:
        report: the content of `report.json`.
    """
    share = report["share"]
    if share is None:
        return Headline(
            figure="No figure",
            words="for the synthetic share",
            told=False,
            basis="Nothing can be said about how much of this pool is synthetic.",
            why=report["why"],
        )
    count = share["count"]
    between = f"{count['lower']:,} to {count['upper']:,}"
    about = None if count["point"] is None else f"about {counted(count['point'], 'image')} ({between})"
    told = share["point"] is not None or share["lower"] > 0
    return Headline(
        qualifier="at least" if told and share["point"] is None else "",
        figure=percent(share["lower"] if share["point"] is None else share["point"]) if told else "Not known",
        words="synthetic" if told else "how much is synthetic",
        told=told,
        interval=f"{100 * share['level']:g}\u00a0% interval "
        f"{percent(share['lower'], sign=False)} to {percent(share['upper'])}",
        count=about or f"{between} images",
        basis=_basis(report),
        why=share["why"],
    )


def _basis(report: Mapping[str, Any]) -> str:
    """One sentence: what the share was estimated from."""
    proven = counted(report["tiers"]["any"]["count"], "image")
    said = f"{proven} whose own signature, metadata or mark says synthetic"
    scored = counted(report["pool"]["status"]["scored"], "image")
    method = report["share"]["method"]
    if method.startswith("labels"):
        return labels_basis(report["labels"])
    if method == "floor":
        took = "no detector took part" if report["scores"] is None else "what the detector says was set aside"
        return f"It counts {said}, and nothing else: {took}."
    if method == "lower-bound+floor":
        return (
            f"It rests on how many of {scored} the detector flags beyond its false alarms on real references, "
            f"and on {said}."
        )
    tested = [report["tiers"]["detected"][rate] for rate in ("tpr", "fpr")]
    references = (
        f" measured on {tested[0]['n']:,} synthetic and {tested[1]['n']:,} real reference images"
        if all(tested)
        else ""
    )
    return (
        f"It rests on the scores of {scored}, corrected for the detector's misses and false alarms"
        f"{references}, and on {said}."
    )


def tiers(report: Mapping[str, Any]) -> list[Tier]:
    """The four kinds of evidence from the strongest to the weakest.

    Args:
        report: the content of `report.json`.
    """
    scored = report["pool"]["status"]["scored"]
    signed, declared, marked, detected = (
        report["tiers"][name] for name in ("signed", "declared", "marked", "detected")
    )

    def tier(name: str, meaning: str, count: int | None, facts: list[str], counts: Mapping[str, int]) -> Tier:
        share = count / scored if count is not None and scored else None
        largest_first = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
        return Tier(name, meaning, count, share, tuple(facts), largest_first)

    facts = []
    if detected["threshold"] is not None:
        facts.append(f"threshold {detected['threshold']:.3g}")
    for rate, words in (("tpr", "synthetic references found"), ("fpr", "real references falsely flagged")):
        if detected[rate] is not None:
            x, n = detected[rate]["x"], detected[rate]["n"]
            facts.append(f"{x:,} of {n:,} {words}" + (f" ({percent(x / n)})" if n else ""))
    if detected["auc"] is not None:
        facts.append(f"AUC {detected['auc']:.3f}")
    by = _DETECTOR.get(detected["detector"])
    return [
        tier(
            "Signed",
            "A cryptographic signature that verifies states that the image is synthetic.",
            signed["count"],
            [],
            {},
        ),
        tier(
            "Declared",
            "Metadata without a signature say so. Anyone can write them, and most sites strip them.",
            declared["count"],
            [],
            declared["tools"],
        ),
        tier(
            "Marked",
            "A public invisible watermark was read from the pixels.",
            marked["count"],
            _mark_facts(marked),
            marked["payloads"],
        ),
        tier(
            "Detected",
            f"The score lies above the threshold, by {by}. "
            "It includes false alarms and leaves out misses, so it is no proof."
            if by
            else "No detector took part: that takes a reference of real images.",
            detected["count"],
            facts,
            {},
        ),
    ]


def _mark_facts(marked: dict[str, Any]) -> list[str]:
    facts = [f"{counted(marked['tested'], 'image')} tested"]
    recall, share = marked["recall"], marked["share"]
    if recall["n"]:
        facts.append(f"{recall['x']:,} of {recall['n']:,} marks written into such images would be found")
    if share is not None:
        limits = f"{percent(share['lower'], sign=False)} to {percent(share['upper'])}"
        facts.append(f"{limits} were marked once, lost marks included")
    return facts


def accounts(report: Mapping[str, Any]) -> list[Account]:
    """What became of the audited items, by status and reason; the counts add up.

    Args:
        report: the content of `report.json`.
    """
    reasons: dict[str, list[tuple[str, int]]] = {status: [] for status in STATUSES}
    for text, count in report["reasons"].items():
        status, _, reason = text.partition(": ")
        reasons.setdefault(status, []).append((reason or status, count))
    audited = report["pool"]["audited"]
    return [
        Account(
            status,
            _STATUS_MEANING[status],
            count,
            count / audited if audited else None,
            tuple(sorted(reasons[status], key=lambda entry: (-entry[1], entry[0]))),
        )
        for status in STATUSES
        for count in [report["pool"]["status"][status]]
    ]


def checks(report: Mapping[str, Any]) -> list[Check]:
    """What was checked before the share was told, in words.

    Args:
        report: the content of `report.json`.
    """
    found = report["checks"]
    files, alarm, matched = found["files"], found["alarm"], found["matched"]
    made = []
    if files is None:
        made.append(Check("Files", "not made", ("It takes a reference and a scored image.",)))
    else:
        confounding = files["confounding"]
        verdicts = [] if confounding is None else [confounding["verdict"]]
        verdicts += [match["verdict"] for match in files["comparable"].values() if match is not None]
        bad = {"confounded", "incomparable"} & set(verdicts) or files["pool_unmatched"] > 0.5
        unsure = {"undecided", "partly"} & set(verdicts) or files["pool_unmatched"] > 0.1
        made.append(
            Check("Files", "failed" if bad else "unsure" if unsure else "passed", tuple(files["words"]))
        )
    if alarm is None:
        made.append(Check("Scores", "not made", (_sentence(found["alarm_why"] or "no references"),)))
    else:
        made.append(Check("Scores", "failed" if alarm["fires"] else "passed", (_sentence(alarm["words"]),)))
    if matched is not None:
        made.append(_matched(matched, report["estimates"]))
    return made


def _matched(matched: Mapping[str, Any], estimates: Sequence[Mapping[str, Any]]) -> Check:
    share, by = matched["share"], {each["method"]: each for each in estimates}
    if share is None:
        return Check("Files made alike", "not made", (_sentence(matched["why"]),))
    limits = f"{percent(share['lower'], sign=False)} to {percent(share['upper'])}"
    words = (
        f"Brought to {matched['target']}, {matched['n_pool']:,} images of the pool, {matched['n_real']:,} real and "
        f"{matched['n_synthetic']:,} synthetic references give {limits} synthetic among images without a finding "
        f"(AUC {matched['auc']:.3f})."
    )
    if "melded" not in by or "matched" not in by or share["point"] is None:
        return Check("Files made alike", "unsure", (words,))
    first, second = by["melded"], by["matched"]
    agree = first["lower"] <= second["upper"] and second["lower"] <= first["upper"]
    return Check("Files made alike", "passed" if agree else "failed", (words,))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".?!" else ".")


def groups(report: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """Shares of parts of the pool, by what they were cut by.

    Args:
        report: the content of `report.json`.
    """
    if report["groups"] is None:
        return []
    by: dict[str, list[Line]] = {}
    for row in report["groups"]["rows"]:
        by.setdefault(row["by"], []).append(Line(counted(row["items"], "image"), row, row["name"]))
    return list(by.items())


# --- charts ---------------------------------------------------------------------------------------------


def _share_chart(report: Mapping[str, Any]) -> Markup | None:
    share = report["share"]
    if share is None:
        return None
    scored = report["pool"]["status"]["scored"]
    floor = min(report["tiers"]["any"]["count"] / scored, 1.0) if scored else 0.0
    if share["method"].startswith("labels"):  # labels do not take findings for granted
        floor = 0.0
    label = f"{percent(floor)} signed, declared or marked"
    return interval_chart(share["point"], share["lower"], share["upper"], floor=floor, floor_label=label)


def _score_chart(report: Mapping[str, Any]) -> Markup | None:
    scores, detected = report["scores"], report["tiers"]["detected"]
    if scores is None:
        return None
    n_scored = sum(scores["pool"])
    above = {
        "pool": None if detected["count"] is None else {"x": detected["count"], "n": n_scored},
        "real": detected["fpr"],
        "synthetic": detected["tpr"],
    }
    rows = []
    for name, label in (("pool", "Pool"), ("real", "Real reference"), ("synthetic", "Synthetic reference")):
        if scores[name] is None:
            continue
        rate = above[name]
        notes = [counted(sum(scores[name]), "image")]
        if rate and rate["n"]:
            notes.append(f"{percent(rate['x'] / rate['n'])} above threshold")
        rows.append(Counts(label, np.array(scores[name], dtype=np.int64), name, tuple(notes)))
    return histogram_chart(
        np.array(scores["edges"], dtype=np.float64),
        rows,
        axis="score, larger = more synthetic",
        threshold=detected["threshold"],
        name="scores",
        title="Scores of the pool and of the references",
    )
