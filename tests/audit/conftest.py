"""Finished runs to render: what an audit leaves in its folder, for four kinds of pools."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from poolproof.audit.evidence import ITEMS, STATUSES
from poolproof.audit.report import render_report

HOSTILE_KEY = "<img src=x onerror=alert(1)>.png"
HOSTILE_KEYS = (
    HOSTILE_KEY,
    '"><script>alert(2)</script>.jpg',
    "{{ 7 * 7 }}{% raw %}.jpg",
    "holiday\u202egpj.exe",
    "bell\x07\x1b[31m\x00\n.png",
    "תמונה-שלי.jpg",
    "写真🙂.webp",
    "very/" + "long" * 700 + "/name.jpeg",
)
DAMAGED_ROWS = (9, 10)
BOTH = ("both-references", "labelled")


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, and how its images are read."""

    path: Path
    read_images: Callable[[Sequence[int]], Mapping[int, bytes | None]]


@pytest.fixture(scope="session")
def write_run() -> Callable[[Path, str], FinishedRun]:
    """Writes a run of the given kind: both-references, labelled, real-only, no-references or nothing-scored."""

    def write(folder: Path, kind: str) -> FinishedRun:
        run = folder / kind
        run.mkdir()
        items = _items(kind)
        pq.write_table(pa.Table.from_pylist(items, schema=ITEMS), run / "items.parquet")
        (run / "report.json").write_text(json.dumps(_report(kind, items)), "utf-8")
        return FinishedRun(run, _read_images)

    return write


@pytest.fixture
def make_run(tmp_path: Path, write_run: Callable[[Path, str], FinishedRun]) -> Callable[[str], FinishedRun]:
    """Writes a run into the test's own folder, which the test may change."""
    return lambda kind: write_run(tmp_path, kind)


@pytest.fixture(scope="session")
def rendered(
    write_run: Callable[[Path, str], FinishedRun], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives the page of a run of the given kind, rendered once for all tests that only look."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def render(kind: str) -> Path:
        run = write_run(folder, kind)
        return render_report(run.path, read_images=run.read_images)

    return render


def _read_images(rows: Sequence[int]) -> dict[int, bytes | None]:
    """Damaged bytes for two rows and no bytes for a third, else a drawing that is the row's own."""
    images: dict[int, bytes | None] = {row: _draw(row) for row in rows}
    images |= {row: _draw(row)[:200] for row in rows if row in DAMAGED_ROWS}
    images |= {row: None for row in rows if row == 11}
    return images


def _draw(row: int) -> bytes:
    rng = np.random.default_rng(row)
    width, height = [(320, 240), (240, 320), (256, 256)][row % 3]
    top, bottom = rng.integers(90, 250, 3), rng.integers(90, 250, 3)
    ramp = np.linspace(0, 1, height)[:, None, None]
    image = Image.fromarray((top + ramp * (bottom - top) + np.zeros((1, width, 1))).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y, radius = (int(rng.integers(*span)) for span in ((40, width - 40), (30, height // 2), (12, 34)))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(252, 240, 200))
    for layer in range(3):
        base, tone = height * (0.55 + 0.14 * layer), [int(value) for value in rng.integers(30, 150, 3)]
        phase, pace = rng.uniform(0, 6), rng.uniform(0.01, 0.04)
        hills = [(at, base + 16 * math.sin(phase + pace * at)) for at in range(0, width + 8, 8)]
        draw.polygon([(0, height), *hills, (width, height)], fill=(tone[0], tone[1], tone[2]))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _items(kind: str) -> list[dict[str, Any]]:
    if kind == "nothing-scored":
        return [
            _item(row, f"img_{row:05d}.jpg", status="unreadable", reason="truncated: image file is truncated")
            for row in range(4)
        ]
    rng = np.random.default_rng(7)
    synthetic = rng.random(600) < 0.3
    scores = np.where(synthetic, rng.beta(6, 2.2, 600), rng.beta(2, 6, 600))
    # The strangers' names go where the page shows them.
    scores[: len(HOSTILE_KEYS)] = np.linspace(0.999, 0.99, len(HOSTILE_KEYS))
    scores[list(DAMAGED_ROWS)] = 0.985
    scores[11] = 0.984
    items = []
    for row in range(600):
        folder = ("crawl-2026-03/portraits", "crawl-2026-03/landscapes", "stock")[row % 3]
        key = HOSTILE_KEYS[row] if row < len(HOSTILE_KEYS) else f"{folder}/{row:06d}.jpg"
        status, reason = {
            100: ("unreadable", "truncated: image file is truncated (42 bytes not processed)"),
            101: ("unreadable", "truncated: image file is truncated (7 bytes not processed)"),
            102: ("unreadable", "not-an-image: HTML or XML text"),
            103: ("unsupported", "format: HEIC"),
            104: ("missing", "gone: <b>no such file</b>"),
        }.get(row, ("duplicate", f"row {row - 300}") if 560 <= row < 580 else ("scored", None))
        item = _item(row, key, status=status, reason=reason)
        if status == "scored":
            if kind in BOTH:
                item["score"] = float(scores[row])
                item["flagged"] = bool(scores[row] > 0.55)
            if kind != "no-references":
                item["knn_score"] = float(scores[row] * 3)
            if synthetic[row] and row % 5 == 0:
                item |= {
                    "signed": True,
                    "evidence": "C2PA by Example Imaging: trainedAlgorithmicMedia",
                }
            if synthetic[row] and row % 3 == 0:
                item |= {"declared": True, "evidence": 'PNG text "parameters": Steps: 30, Sampler: Euler a'}
            if synthetic[row] and row % 7 == 0:
                item |= {"marked": True, "mark_payload": "StableDiffusionV1", "mark_pvalue": 1e-9 * (row + 1)}
                item["evidence"] = f"mark StableDiffusionV1, p = {item['mark_pvalue']:.1e}"
        items.append(item)
    return items


def _item(row: int, key: str, *, status: str, reason: str | None) -> dict[str, Any]:
    return dict.fromkeys(ITEMS.names) | {
        "row": row,
        "key": key,
        "source": f"images/{row:06d}.jpg",
        "status": status,
        "reason": reason,
        "n_bytes": 24_000 + row,
        "format": "JPEG" if row % 4 else "PNG",
        "width": 512,
        "height": 512,
    }


def _histogram(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return [int(count) for count in np.histogram(values, edges)[0]]


def _report(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    status = {name: sum(item["status"] == name for item in items) for name in STATUSES}
    scored = [item for item in items if item["status"] == "scored"]
    count = {name: sum(bool(item[name]) for item in scored) for name in ("signed", "declared", "marked")}
    any_count = sum(any(item[name] for name in count) for item in scored)
    reasons: dict[str, int] = {}
    for item in items:
        if item["status"] in ("unreadable", "unsupported", "missing"):
            text = f"{item['status']}: {item['reason'].partition(':')[0]}"
            reasons[text] = reasons.get(text, 0) + 1
    rng = np.random.default_rng(8)
    detected: dict[str, Any] = dict.fromkeys(("count", "detector", "threshold", "tpr", "fpr", "auc"))
    scores, real, synthetic = None, None, None
    edges = np.linspace(0, 1, 41)
    if kind in BOTH:
        pool_scores = np.array([item["score"] for item in scored])
        real_scores, synthetic_scores = rng.beta(2, 6, 400), rng.beta(6, 2.2, 400)
        scores = {
            "edges": [float(edge) for edge in edges],
            "pool": _histogram(pool_scores, edges),
            "real": _histogram(real_scores, edges),
            "synthetic": _histogram(synthetic_scores, edges),
        }
        detected = {
            "count": int((pool_scores > 0.55).sum()),
            "detector": "probe",
            "threshold": 0.55,
            "tpr": {"x": int((synthetic_scores > 0.55).sum()), "n": 400},
            "fpr": {"x": int((real_scores > 0.55).sum()), "n": 400},
            "auc": 0.9723,
        }
        synthetic = {
            "path": "/data/synthetic",
            "items": 410,
            "scored": 400,
            "used": 400,
            "overlap": 3,
        }
    if kind == "real-only":
        distances = np.array([item["knn_score"] for item in scored])
        scores = {
            "edges": [float(3 * edge) for edge in edges],
            "pool": _histogram(distances, 3 * edges),
            "real": _histogram(3 * rng.beta(2, 6, 400), 3 * edges),
            "synthetic": None,
        }
        detected |= {"count": int((distances > 1.8).sum()), "detector": "real-distance", "threshold": 1.8}
        detected |= {"fpr": {"x": 12, "n": 400}}
    if kind in (*BOTH, "real-only"):
        real = {"path": "/data/real", "items": 402, "scored": 400, "used": 397, "overlap": 0}
    floor = any_count / len(scored) if scored else 0.0
    bounds: dict[str, tuple[float | None, float, float, str, str | None]] = {
        "both-references": (0.3021, 0.2612, 0.3478, "melded+floor", None),
        "real-only": (
            None,
            0.2071,
            1.0,
            "lower-bound+floor",
            "Only a reference of real images was given, so misses cannot be counted: give --synthetic too.",
        ),
        "labelled": (0.2711, 0.2312, 0.3144, "labels-strata", None),
        "no-references": (
            None,
            floor,
            1.0,
            "floor",
            "Without a reference no detector can be calibrated.",
        ),
    }
    share = None
    if kind != "nothing-scored":
        point, lower, upper, method, why = bounds[kind]
        share = {
            "point": point,
            "lower": lower,
            "upper": upper,
            "level": 0.95,
            "method": method,
            "assumes": [
                "Signatures, statements and marks that say synthetic are right.",
                "The synthetic images of the pool score like those of the synthetic reference.",
                "The real images of the pool score like those of the real reference.",
            ],
            "why": why,
            "count": {
                "point": None if point is None else round(point * len(scored)),
                "lower": math.floor(lower * len(scored)),
                "upper": math.ceil(upper * len(scored)),
            },
        }
    measured = real is not None
    return {
        "schema_version": 1,
        "pool": {
            "path": "/data/pools/crawl-2026-03 <b onclick=alert(3)>\udc80",
            "kind": "folder",
            "items": 12_000 if kind == "real-only" else len(items),
            "audited": len(items),
            "sample": 600 if kind == "real-only" else None,
            "ignored": 14,
            "n_bytes": sum(item["n_bytes"] for item in items),
            "status": status,
        },
        "share": share,
        "why": None if share else "All 4 items are unreadable.",
        "labels": _labels() if kind == "labelled" else None,
        **_findings(kind, share),
        "tiers": {
            "signed": {"count": count["signed"]},
            "declared": {
                "count": count["declared"],
                "tools": {
                    "AUTOMATIC1111": max(0, count["declared"] - 3),
                    "ComfyUI": 2,
                    "</style><script>alert(4)</script>\udcff": 1,
                }
                if scored
                else {},
            },
            "marked": {
                "count": count["marked"],
                "tested": len(scored),
                "payloads": {"StableDiffusionV1": count["marked"]} if scored else {},
                "recall": {"x": 7, "n": 9} if scored else {"x": 0, "n": 0},
                "share": {"point": 0.0312, "lower": 0.0123, "upper": 0.4321, "level": 0.95}
                if scored
                else None,
            },
            "detected": detected,
            "any": {"count": any_count},
        },
        "references": {"real": real, "synthetic": synthetic},
        "set": {
            "precision": 0.8123 if measured else None,
            "recall": 0.9011 if measured else None,
            "density": 1.0432 if measured else None,
            "coverage": 0.9333 if measured else None,
            "frechet_distance": 23.4178 if measured else None,
            "k": 5,
            "embedder": "forensic",
            "n_pool": len(scored) if measured else None,
            "n_real": 397 if measured else None,
            "why": None if measured else "No reference of real images was given.",
        },
        "scores": scores,
        "reasons": reasons,
        "formats": {name: sum(item["format"] == name for item in items) for name in ("JPEG", "PNG")},
        "admissible": {
            "sampling_bias": 0.85 if kind in BOTH else None,
            "n_real": 402 if kind in BOTH else None,
            "n_synthetic": 173 if kind in BOTH else None,
            "threshold": 1840.0 if kind in BOTH else None,
            "verdict": "Admissible: 173 synthetic images stay below the threshold of 1,840."
            if kind in BOTH
            else None,
            "why": None if kind in BOTH else "The share of synthetic images is not known.",
        },
        "notes": [
            "CLIP is not in the local cache, so weight-free features were used: they see resizing "
            "and compression as well as synthesis.",
            "3 items of the synthetic reference are in the pool too and were left out.\x1b[0m",
        ],
        "manifest": {
            "versions": {"poolproof": "0.1.0", "numpy": "2.4.6", "pillow": "13.0.0", "torch": "2.15.0"},
            "config": {
                "embedder": "auto",
                "shard_size": 1024,
                "real": "/data/real",
                "sample": None,
            },
            "config_sha256": "3f" * 32,
            "plan_sha256": "a1" * 32,
            "weights_sha256": None,
            "seed": 0,
            "seconds": 81.25,
            "command": "poolproof audit /data/pools/crawl-2026-03 --out run --real /data/real "
            "--synthetic /data/synthetic",
        },
    }


def _labels() -> dict[str, Any]:
    """What people said, where the detector is not believed."""
    parts = ((["hit"], 75, 24, 22, 1), (["flagged"], 110, 60, 51, 3), (["rest"], 390, 116, 9, 0))
    names = ("names", "items", "n", "synthetic", "unsure")
    return {
        "n": 200,
        "synthetic": 82,
        "unsure": 4,
        "hits_real": 2,
        "draw": "detector",
        "worst_case": {"lower": 0.2244, "upper": 0.3266},
        "parts": [dict(zip(names, part, strict=True)) for part in parts],
        "plan": {
            "n_more": 96,
            "half_width": 0.03,
            "expected_half_width": 0.0298,
            "current_half_width": 0.0416,
            "reachable": True,
            "words": "label 96 more for ±3 points (now ±4.2 points)",
        },
        "sha256": "5e" * 32,
    }


def _findings(kind: str, share: dict[str, Any] | None) -> dict[str, Any]:
    """Estimates, checks, generators and groups of a run; all there are with both references."""
    if kind not in BOTH or share is None:
        why = "it takes both references"
        checks = {"files": None, "alarm": None, "alarm_why": why, "matched": None}
        return {"estimates": [], "checks": checks, "generators": None, "groups": None}
    limits = {"point": 0.3021, "lower": 0.2612, "upper": 0.3478, "level": 0.95}
    bound = {"method": "melded-lower", "point": None, "lower": 0.2402, "upper": 1.0, "level": 0.95}
    fit = {"share_in_pool": 0.97, "verdict": "comparable"}
    rate = {"x": 171, "n": 200}
    told = {name: share[name] for name in ("method", *limits)}
    return {
        "estimates": [
            *([told] if kind == "labelled" else []),
            {"method": "melded", **limits},
            {"method": "pacc-fieller", **limits},
            bound,
            {"method": "matched", **limits},
        ],
        "checks": {
            "files": {
                "confounding": {
                    "auc": {"point": 0.52, "lower": 0.48, "upper": 0.56, "level": 0.95},
                    "verdict": "clean",
                    "facts": ["quality"],
                },
                "why": None,
                "pool_unmatched": 0.12,
                "comparable": {"real": fit, "synthetic": {"share_in_pool": 0.8, "verdict": "partly"}},
                "words": [
                    "Files alone hardly tell the references apart.",
                    "12 % of the pool are <i>PNG</i>.",
                ],
            },
            "alarm": {
                "fires": False,
                "p_value": 0.41,
                "level": 0.95,
                "bins": 20,
                "words": "a mix of the two references explains the pool's scores (p = 0.41)",
            },
            "alarm_why": None,
            "matched": {
                "target": "256 x 256 pixels, JPEG 75, chroma halved",
                "share": {"method": "matched", **limits},
                "auc": 0.91,
                "n_pool": 500,
                "n_real": 400,
                "n_synthetic": 400,
                "why": None,
            },
        },
        "generators": {
            "rows": [
                {
                    "name": name,
                    "known": rate,
                    "left_out": {"x": x, "n": 200},
                    "known_auc": 0.96,
                    "left_out_auc": 0.8,
                }
                for name, x in (("flux", 140), ("<img src=x onerror=alert(5)>", 90))
            ],
            "too_few": 0,
            "unknown": {
                "method": "melded-generators",
                "point": None,
                "lower": 0.25,
                "upper": 0.61,
                "level": 0.95,
            },
        },
        "groups": {
            "level": 0.95,
            "rows": [
                {"by": by, "name": name, "items": 290, "hits": 20, "point": 0.3, "lower": 0.2, "upper": 0.41}
                for by, name in (
                    ("source", "crawl-2026-03"),
                    ("source", "<script>alert(6)</script>"),
                    ("format", "JPEG"),
                    ("format", "PNG"),
                )
            ],
        },
    }
