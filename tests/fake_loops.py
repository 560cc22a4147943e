"""Tables and documents of loops of trained generators that never ran, with figures like those of one that did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

FOUR = ("fully synthetic", "fixed real data", "fresh: keep all", "fresh: drop flagged")


def fake_table(
    arms: Sequence[str] = FOUR, *, n_seeds: int = 3, n_generations: int = 6, failing: bool = False
) -> pd.DataFrame:
    """One row per arm, seed and generation: distances grow, recall falls, faster in some arms than in others.

    Args:
        arms: labels; one with "flagged" has a policy that drops images.
        n_seeds: loops per arm.
        n_generations: of each loop.
        failing: whether the last generation of the first arm's first seed failed.
    """
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for position, arm in enumerate(arms):
        pace = (0.55, 0.12, 0.05, 0.01)[position % 4] * 5 / max(n_generations - 1, 1)
        drops = "flagged" in arm
        for seed in range(n_seeds):
            for generation in range(1, n_generations + 1):
                last = failing and position == 0 and seed == 0 and generation == n_generations
                rows.append(_row(arm, seed, generation, pace, drops, last, rng))
    return pd.DataFrame(rows)


def _row(
    arm: str, seed: int, generation: int, pace: float, drops: bool, failed: bool, rng: np.random.Generator
) -> dict[str, Any]:
    decay = np.exp(-pace * (generation - 1) / 2)

    def noisy(value: float, part: float = 0.02) -> float:
        return float(value * (1 + part * rng.standard_normal()))

    n_fresh, n_fixed = (500, 0) if arm.startswith("fresh") else (0, 500)
    n_synthetic = 0 if generation == 1 else 1000
    if arm.startswith("fully") and generation > 1:
        n_fresh, n_fixed = 0, 0
    row: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "generation": generation,
        "status": "failed" if failed else "done",
        "why": "the loss is not finite after 312 steps" if failed else None,
        "n_fresh": n_fresh,
        "n_fixed": n_fixed,
        "n_synthetic": n_synthetic,
        "n_marked": 0 if failed else n_synthetic,
        "kept_real": 0 if failed else round((n_fresh + n_fixed) * (0.97 if drops else 1)),
        "kept_synthetic": 0 if failed else round(n_synthetic * (0.12 if drops else 1)),
        "fit_seconds": noisy(12.0),
        "sample_seconds": noisy(1.5),
    }
    distance = 1.2 * np.exp(pace * (generation - 1))
    figures = {
        "frechet_distance": noisy(distance, 0.05),
        "kernel_distance": noisy(0.01 * distance) - 0.011,
        "precision": min(noisy(0.9 * decay), 1.0),
        "recall": min(noisy(0.85 * decay**2), 1.0),
        "density": noisy(1.02 * decay),
        "coverage": min(noisy(0.9 * decay), 1.0),
        "class_accuracy": min(noisy(0.97 * decay**0.5), 1.0),
        "trained_accuracy": min(noisy(0.93 * decay), 1.0),
        "variance": noisy(40 * decay),
        "n_modes": float(round(10 * decay)),
        "high_quality": min(noisy(0.8 * decay), 1.0),
        "mode_variance": noisy(0.3 * decay**4),
        "squared_w2": None,
        "n_e": noisy(700 / distance**2),
        "ratio": noisy(1.4 / distance**2),
        "mark_strength": noisy(0.6 * decay),
        "mark_z": noisy(40 * decay**3),
        "mark_p_value": float(np.exp(-60 * decay**3) if decay > 0.3 else 0.2),
        "mark_detected": min(noisy(0.6 * decay**2) + 0.01, 1.0),
        "mark_bit_accuracy": 0.5 + 0.45 * decay,
        "flag_tpr": min(noisy(0.88), 1.0) if drops and generation > 1 else None,
        "flag_fpr": noisy(0.03, 0.2) if drops else None,
    }
    return row | ({name: None for name in figures} if failed else figures)


def arm_options(arm: str) -> dict[str, Any]:
    """What a spec says of an arm: the part before a colon names the loop, the rest its policy."""
    kind = "DropFlagged" if "drop" in arm else "KeepAll"
    return {"label": arm, "mixing": arm.split(":")[0], "policy": {"kind": kind}}


def fake_document(table: pd.DataFrame, *, title: str = "Digits, four kinds of loop") -> dict[str, Any]:
    """The document of a table, with all that a document can have."""
    arms = list(dict.fromkeys(table["arm"]))
    failed = table[table["status"] == "failed"]
    ratios = (None, 0.6, 1.02, 1.6)
    return {
        "schema_version": 1,
        "kind": "trained",
        "title": title,
        "spec": {
            "data": {"kind": "digits", "side": 8},
            "generator": {"kind": "denoiser", "width": 64},
            "arms": [arm_options(arm) for arm in arms],
        },
        "columns": list(table.columns),
        "rows": table.astype(object).where(table.notna(), None).to_numpy().tolist(),
        "summary": [],
        "reference": {
            "n": 1797,
            "n_features": 128,
            "features": "forensic features without weights",
            "classifier_accuracy": 0.981,
            "halves": {
                "frechet_distance": 0.31,
                "precision": 0.97,
                "recall": 0.96,
                "density": 1.0,
                "coverage": 0.98,
            },
        },
        "effective_size": {
            "curve": [
                {"n": n, "mean": 90 * n**-0.7, "stderr": 3 * n**-0.7} for n in (62, 125, 250, 500, 1000, 2000)
            ],
            "arms": [
                {
                    "arm": arm,
                    "n_real": 500,
                    "ratio": ratios[position % 4],
                    "lower": None if position % 4 == 0 else 0.8 * (ratios[position % 4] or 0),
                    "upper": None if position % 4 == 0 else 1.2 * (ratios[position % 4] or 0),
                    "why": "the distance lies above that of the fewest real images"
                    if position % 4 == 0
                    else None,
                    "admissible": (False, False, None, True)[position % 4],
                }
                for position, arm in enumerate(arms)
            ],
        },
        "failed": failed[["arm", "seed", "generation", "why"]].to_dict("records"),
        "manifest": {
            "versions": {"poolproof": "0.4.0", "numpy": "2.3.0", "torch": "2.8.0"},
            "command": "poolproof simulate loop digits.toml --out 'my <loop>'",
            "seconds": 431.27,
        },
    }


def fake_images(n: int, spread: float, *, side: int = 8, channels: int = 1) -> np.ndarray:
    """Images of one bright blob each, whose places vary as far as `spread`."""
    rng = np.random.default_rng(round(1000 * spread) + n)
    centre = side / 2 + spread * side / 5 * rng.standard_normal((n, 2, 1, 1))
    down, across = np.mgrid[:side, :side]
    squared = (down - centre[:, 0]) ** 2 + (across - centre[:, 1]) ** 2
    blob = np.round(255 * np.exp(-squared / (side / 3))).astype(np.uint8)
    return np.repeat(blob[..., None], channels, axis=3)


def fake_strips(
    table: pd.DataFrame, *, side: int = 8, channels: int = 1
) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Images of every generation by arm."""
    generations = sorted({int(each) for each in table["generation"]})
    return {
        str(arm): [
            (generation, fake_images(16, 1 / generation, side=side, channels=channels))
            for generation in generations
        ]
        for arm in dict.fromkeys(table["arm"])
    }
