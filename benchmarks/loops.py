"""Loops of trained generators on the digits: runs the presets and writes the tables of the results page.

    python benchmarks/loops.py --work WORK [--out docs/results/loops] [--only digits-synthetic,digits-marks,...]

Runs each preset into WORK (a stopped run goes on) and prints, as Markdown, its figures at the first and last generation
with standard errors over seeds, marks beside their controls, policies beside keeping all, and seconds of a generation.
--out takes the pictures.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from poolproof.simulate.loop_spec import TrainedLoopSpec
from poolproof.simulate.spec import read_spec
from poolproof.simulate.trained import run_trained

PRESETS: Final = (
    "digits-synthetic",
    "digits-augmentation",
    "digits-fresh",
    "digits-gan",
    "digits-flow",
    "digits-marks",
    "digits-mark-once",
    "digits-policies",
    "digits-admissible",
    "grid-25",
    "rosenbrock",
)

FIGURES: Final = {
    "frechet_distance": "FD",
    "precision": "P",
    "recall": "R",
    "coverage": "coverage",
    "class_accuracy": "in class",
    "trained_accuracy": "trained on samples",
    "n_modes": "modes",
    "high_quality": "high quality",
    "mode_variance": "variance in modes",
    "variance": "variance",
}

PICTURES: Final = (
    "frechet-distance",
    "recall",
    "precision",
    "mark-strength",
    "n-modes",
    "effective-size-1",
    "effective-size-2",
)


def told(values: pd.Series) -> str:
    """A mean with its standard error, or a dash."""
    numbers = values.dropna().to_numpy(float)
    if not len(numbers):
        return "-"
    if len(numbers) == 1:
        return f"{numbers[0]:.3g}"
    error = numbers.std(ddof=1) / math.sqrt(len(numbers))
    places = 2 if error == 0 else max(0, min(4, 1 - math.floor(math.log10(error))))
    return f"{numbers.mean():.{places}f} ± {error:.{places}f}"


def markdown(rows: list[list[str]], head: list[str]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def families(table: pd.DataFrame) -> str:
    """Each arm at its first, middle and last generation."""
    shown = [name for name in FIGURES if name in table and table[name].notna().any()]
    rows = []
    for arm, mine in table.groupby("arm", sort=False):
        last = int(mine["generation"].max())
        for generation in sorted({1, 2, math.ceil(last / 2), last}):
            at = mine[mine["generation"] == generation]
            rows.append([str(arm), str(generation), *(told(at[name]) for name in shown)])
    return markdown(rows, ["arm", "generation", *(FIGURES[name] for name in shown)])


def marks(table: pd.DataFrame) -> str:
    """Strength of the mark less that of the control with the same seed, by generation, and the harm it does."""
    rows = []
    control_of = {}
    arms = list(dict.fromkeys(table["arm"]))
    for arm in arms:
        prefix = arm.split(":")[0] + ": control" if ":" in arm else "control"
        if prefix in arms and prefix != arm:
            control_of[arm] = prefix
    for arm, control in control_of.items():
        pair = table[table["arm"] == arm].merge(
            table[table["arm"] == control], on=["seed", "generation"], suffixes=("", "_control")
        )
        for generation, at in pair.groupby("generation"):
            rows.append(
                [
                    arm,
                    str(generation),
                    told(at["mark_strength"] - at["mark_strength_control"]),
                    told(at["mark_z"]),
                    told(at["mark_z_control"]),
                    told(at["mark_detected"]),
                    told(at["frechet_distance"] / at["frechet_distance_control"]),
                ]
            )
    head = [
        "arm",
        "generation",
        "strength less control",
        "z",
        "z of control",
        "detected alone",
        "FD over control",
    ]
    return markdown(rows, head)


def policies(table: pd.DataFrame, document: dict[str, Any]) -> str:
    """The last generation of each arm, what its policy cost, and the region that it ended in."""
    sizes = {row["arm"]: row for row in (document["effective_size"] or {}).get("arms", [])}
    rows = []
    alone = table[table["arm"].str.endswith("real alone")]
    for arm, mine in table.groupby("arm", sort=False):
        last = mine[mine["generation"] == mine["generation"].max()]
        pair = mine[mine["generation"] > 2].merge(alone, on=["seed", "generation"], suffixes=("", "_alone"))
        over = (pair["frechet_distance"] / pair["frechet_distance_alone"]).groupby(pair["seed"]).mean()
        later = mine[mine["generation"] > 1]
        real = (later["n_fresh"] + later["n_fixed"]).replace(0, np.nan)
        size = sizes.get(arm, {})
        ends = [size.get("lower"), size.get("upper")]
        interval = " to ".join("?" if each is None else f"{each:.2f}" for each in ends)
        ratio = "-" if size.get("ratio") is None else f"{size['ratio']:.2f}"
        verdict = {True: "yes", False: "no"}.get(size.get("admissible"), "undecided")  # type: ignore[arg-type]
        rows.append(
            [
                str(arm),
                told(last["frechet_distance"]),
                told(over),
                told(last["precision"]),
                told(last["recall"]),
                told(1 - later["kept_real"] / real),
                told(later["kept_synthetic"] / later["kept_real"]),
                f"{ratio} ({interval})",
                verdict,
            ]
        )
    head = [
        "arm",
        "FD",
        "FD over real alone, paired",
        "P",
        "R",
        "real lost",
        "synthetic per real kept",
        "n_e / n_r (95 %)",
        "admissible",
    ]
    return markdown(rows, head)


def main() -> None:
    """Runs the presets and prints their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default=",".join(PRESETS))
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    for name in options.only.split(","):
        spec = read_spec(name)
        assert isinstance(spec, TrainedLoopSpec)
        study = run_trained(spec, options.work / name, n_workers=options.workers)
        table, document = study.table, study.document
        print(f"\n## {name}\n")
        halves = document["reference"]["halves"]
        shown = [key for key in ("frechet_distance", "precision", "recall", "coverage") if halves.get(key)]
        print("Real data against real data:", ", ".join(f"{FIGURES[key]} {halves[key]:.3g}" for key in shown))
        print(
            f"Seconds of a generation (median): fit {table['fit_seconds'].median():.1f}, "
            f"sample {table['sample_seconds'].median():.1f}; failed generations: {len(document['failed'])}\n"
        )
        print(families(table))
        if spec.mark is not None:
            print("\n" + marks(table))
        if document["effective_size"]:
            print("\n" + policies(table, document))
            curve = [
                [str(row["n"]), f"{row['mean']:.2f} ± {row['stderr']:.2f}"]
                for row in document["effective_size"]["curve"]
            ]
            print("\n" + markdown(curve, ["real samples alone", "FD"]))
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for path in study.paths:
                if path.suffix == ".svg" and path.stem in PICTURES:
                    shutil.copyfile(path, options.out / f"{name}-{path.stem}.svg")


if __name__ == "__main__":
    main()
