"""How well detectors do on real images at hand: rates, error of the share, unknown generators, hard negatives.

    python benchmarks/detection.py --data DIR [--work DIR] [--out DIR] [--only digits,mnist,photographs,...]

DIR holds mnist.npz, cifar10/*.tar and kodak/*.png; the variable POOLPROOF_DATA serves as well. Generators and a
backbone are trained on the spot, on images that are in no reference and no pool; --work keeps them, their samples and
all features for the next run. Prints one table per question as Markdown; --out takes the pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from detection_negatives import Bench, deal_rows, kodak_crops, try_treatments
from detection_sets import (
    ImageSet,
    backbone_spec,
    decode,
    digits_set,
    encode,
    make_autoencoder,
    mnist_set,
    photograph_set,
    train_photographs,
)
from detection_trials import (
    CONTENDERS,
    Contender,
    Rates,
    Sizes,
    Trial,
    covered,
    make_split,
    read_features,
    run_trials,
    score,
)
from PIL import Image

from poolproof.detectors.prevalence import Interval, interval, lower_bound
from poolproof.detectors.roc import area_under_curve, roc_curve, tpr_at_fpr
from poolproof.detectors.subgroups import unknown_generator_interval
from poolproof.detectors.transfer import transfer

SIZES: Final = {
    "digits": Sizes(400, 600),
    "mnist": Sizes(1000, 3000),
    "mnist-raw": Sizes(1000, 3000),
    "photographs": Sizes(1000, 1500),
}
SHARES: Final = (0.0, 0.1, 0.3, 0.6)
BY_NAME: Final = {each.name: each for each in CONTENDERS}
TREATED: Final = tuple(each for each in CONTENDERS if each.name != "kNN, embedding")
MNIST_STEPS: Final = 1000
PHOTOGRAPH_STEPS: Final = 800
STRANGE: Final = tuple(each for each in CONTENDERS if each.reader != "stability")
LOOKS: Final = {
    "probe, weight-free": ("synthetic", False),
    "forensic (traces alone)": ("real", False),
    "kNN, weight-free": ("ink", False),
    "probe, embedding": ("synthetic", True),
    "real-distance": ("real", True),
    "RIGID, embedding": ("ink", True),
}
"""Colour of each curve, and whether it is dashed."""
PARTS: Final = ("digits", "mnist", "photographs", "paired", "unknown", "negatives", "kodak")


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("POOLPROOF_DATA"))
    parser.add_argument("--work", type=Path, default=Path("detection-work"), help="folder for what is kept")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run; mnist-raw is one more")
    parser.add_argument("--splits", type=int, default=20, help="random references and rests of each scenario")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data DIR or set POOLPROOF_DATA")
    data, work = Path(options.data), options.work
    torch.set_num_threads(options.threads)
    started, used = time.monotonic(), time.process_time()
    parts = options.only.split(",")
    spec = backbone_spec(data, work, steps=600, seed=0)
    readers = {"forensic": "forensic", "embedding": spec, "stability": f"rigid:{spec}"}
    for name in SIZES:
        if name in parts:
            images = load_set(name, data, work)
            run_scenario(images, readers, work, options.splits, options.out)
    if {"paired", "unknown", "negatives"} & {*parts}:
        images = load_set("photographs", data, work)
        features = read_features(images.real, readers, work), read_features(images.synthetic, readers, work)
        if "paired" in parts:
            run_paired(images, *features, options.splits)
        if "unknown" in parts:
            run_unknown(images, *features, readers, work, max(2, options.splits // 2))
        if "negatives" in parts:
            print_negatives("photographs", photograph_bench(images, readers, work))
    if "kodak" in parts:
        print_negatives("crops of 128 x 128", kodak_bench(data, work, readers))
    minutes = (time.monotonic() - started) / 60, (time.process_time() - used) / 60
    print(f"\n{minutes[0]:.1f} minutes, {minutes[1]:.1f} of processor time")


def load_set(name: str, data: Path, work: Path) -> ImageSet:
    """Return a scenario's images."""
    if name == "digits":
        return digits_set(work, seed=0)
    if name.startswith("mnist"):
        return mnist_set(data, work, n=3000, steps=MNIST_STEPS, seed=0, raw=name == "mnist-raw")
    return photograph_set(data, work, steps=PHOTOGRAPH_STEPS, n_other=600, seed=0)


def run_scenario(
    images: ImageSet, readers: dict[str, str], work: Path, n_splits: int, out: Path | None
) -> None:
    """Prints the table of a scenario and draws its curves."""
    real, synthetic = (read_features(files, readers, work) for files in (images.real, images.synthetic))
    sizes = SIZES[images.name]
    head(
        f"{images.name}: {sizes.reference} + {sizes.reference} references, pools of {sizes.pool}, "
        f"{n_splits} splits, shares {SHARES}",
        ["detector", "AUC", "TPR at 1 % FPR", "FPR, TPR at its threshold"]
        + [f"error at {share:.0%}, points" for share in SHARES]
        + ["melded: covered, width", "PACC: error, covered, width", "alarms"],
    )
    curves = {}
    for contender in CONTENDERS:
        features = real[contender.reader], synthetic[contender.reader]
        runs = list(run_trials(contender, images, *features, sizes, SHARES, n_splits, seed=1))
        curves[contender.name] = runs[0][0]
        row([contender.name, *rate_cells(runs[0][0]), *share_cells([trials for _, trials in runs])])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(curves, images.name, out)
        draw_samples(images, out)


def rate_cells(rates: Rates) -> list[str]:
    """Return area, operating point, and rates at the detector's own threshold."""
    scores = rates.real_scores, rates.synthetic_scores
    area, point = area_under_curve(*scores), tpr_at_fpr(*scores, 0.01).tpr
    return [limits(area), limits(point), f"{rates.flagged[0]:.3f}, {rates.flagged[1]:.3f}"]


def share_cells(runs: Sequence[Sequence[Trial]]) -> list[str]:
    """Return mean errors by share, coverage and width of both intervals, and alarms, all over pools."""
    flat = [trial for trials in runs for trial in trials]
    if flat[0].soft is None:  # real references alone: how far the bound lies below the truth
        gaps = [[trial.bound.lower - trial.truth for trial in column] for column in zip(*runs, strict=True)]
        cells = [f"bound {np.mean(gap) * 100:+.1f}" for gap in gaps]
        valid = sum(trial.bound.lower <= trial.truth for trial in flat)
        return [*cells, f"bound valid {valid} of {len(flat)}", "-", "-"]
    cells = []
    for column in zip(*runs, strict=True):
        errors = [
            100 * (trial.melded.point - trial.truth) for trial in column if trial.melded.point is not None
        ]
        lost = len(column) - len(errors)
        cells.append(
            (f"{np.mean(errors):+.1f} ± {np.std(errors):.1f}" if errors else "-")
            + (f" ({lost} withheld)" if lost else "")
        )
    held = sum(covered(trial.melded, trial.truth) for trial in flat)
    soft = [trial.soft for trial in flat if trial.soft is not None]
    soft_held = sum(covered(found, trial.truth) for found, trial in zip(soft, flat, strict=True))
    errors = [
        abs(found.point - trial.truth)
        for found, trial in zip(soft, flat, strict=True)
        if found.point is not None
    ]
    soft_error = f"{100 * np.mean(errors):.1f}" if errors else "-"
    return [
        *cells,
        f"{held} of {len(flat)}, {width([trial.melded for trial in flat])}",
        f"{soft_error}, {soft_held} of {len(flat)}, {width(soft)}",
        f"{sum(bool(trial.alarm) for trial in flat)} of {len(flat)}",
    ]


def run_paired(
    images: ImageSet, real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray], n_splits: int
) -> None:
    """Prints what changes where the synthetic references are made from the real ones."""
    head(
        "photographs: synthetic references made from the real references, or from other photographs",
        ["detector", "synthetic references", "held-out AUC", "FPR, TPR"]
        + [f"error at {share:.0%}, points" for share in SHARES]
        + ["melded: covered, width", "PACC: error, covered, width"],
    )
    for name in ("probe, weight-free", "forensic (traces alone)", "probe, embedding"):
        contender = BY_NAME[name]
        features = real[contender.reader], synthetic[contender.reader]
        for same in (False, True):
            sizes = SIZES["photographs"]
            runs = list(
                run_trials(
                    contender, images, *features, sizes, SHARES, n_splits, seed=1, same=same, alarm=False
                )
            )
            cells = rate_cells(runs[0][0])
            shares = share_cells([trials for _, trials in runs])[:-1]
            row([name, "the same photographs" if same else "others", cells[0], cells[2], *shares])


def run_unknown(
    images: ImageSet,
    real: dict[str, np.ndarray],
    synthetic: dict[str, np.ndarray],
    readers: dict[str, str],
    work: Path,
    n_splits: int,
) -> None:
    """Prints what detectors say of pools whose generator is in no reference, and the range left out in turn."""
    share = 0.3
    sizes = SIZES["photographs"]
    head(
        f"photographs: pools with {share:.0%} by a generator that is not in the references, {n_splits} pools",
        [
            "generator",
            "detector",
            "AUC",
            "TPR",
            "share, mean",
            "covered",
            "alarms",
            "lower bound, mean",
            "valid",
        ],
    )
    others = {name: read_features(files, readers, work) for name, files in images.others.items()}
    for name, found in {"(known)": synthetic, **others}.items():
        for contender in STRANGE:
            key = contender.reader
            unknown = None if name == "(known)" else found[key]
            runs = list(
                run_trials(
                    contender,
                    images,
                    real[key],
                    synthetic[key],
                    sizes,
                    (share,),
                    n_splits,
                    seed=2,
                    unknown=unknown,
                )
            )
            trials = [trials[0] for _, trials in runs]
            points = [trial.melded.point for trial in trials if trial.melded.point is not None]
            one_sided = trials[0].soft is None
            row([
                name, contender.name,
                f"{area_under_curve(runs[0][0].real_scores, runs[0][0].synthetic_scores).point:.3f}",
                f"{np.mean([rates.flagged[1] for rates, _ in runs]):.3f}",
                "-" if one_sided else f"{np.mean(points):.3f}" if points else "withheld",
                "-" if one_sided else f"{sum(covered(t.melded, t.truth) for t in trials)} of {n_splits}",
                "-" if one_sided else f"{sum(bool(t.alarm) for t in trials)} of {n_splits}",
                f"{np.mean([t.bound.lower for t in trials]):.3f}",
                f"{sum(t.bound.lower <= t.truth for t in trials)} of {n_splits}",
            ])  # fmt: skip
    sets = {"nearest": synthetic, **others}
    for contender in (BY_NAME["probe, weight-free"], BY_NAME["probe, embedding"]):
        key = contender.reader
        run_left_out(contender, images, real[key], {name: each[key] for name, each in sets.items()}, n_splits)


def run_left_out(
    contender: Contender,
    images: ImageSet,
    real: np.ndarray,
    generators: dict[str, np.ndarray],
    n_splits: int,
) -> None:
    """Prints what references of several generators say of a pool by another one, each in turn.

    Args:
        contender: a detector that needs both classes.
        images: the photographs.
        real: features of the real ones.
        generators: features by generator; all but the short ones stem from the real images, row by row.
        n_splits: pools of each.
    """
    head(
        f"photographs: {contender.name}; pools with 30% by each generator, the others in the references",
        [
            "generator",
            "TPR",
            "TPR, others left out in turn",
            "share",
            "range",
            "range holds it",
            "lower bound",
            "valid",
        ],
    )
    size, n_each = SIZES["photographs"], 250
    for name, strange in generators.items():
        rates, points, ranges, bounds, seen = [], [], [], [], []
        for i in range(n_splits):
            draw, fit, turn, fold = np.random.default_rng([6, i]).spawn(4)
            split = make_split(images, size.reference, draw)
            own, used = draw.permutation(split.synthetic), {}
            for number, (other, found) in enumerate(generators.items()):
                if other != name:
                    rows = (
                        own[n_each * number : n_each * (number + 1)]
                        if len(found) == len(real)
                        else own % len(found)
                    )
                    used[other] = found[np.unique(rows)[:n_each]]
            fitted: Any = contender.calibrate(real[split.real], np.concatenate(list(used.values())), fit)
            turned = transfer(real[split.real], used, rng=turn)
            n_synthetic = round(0.3 * size.pool)
            high = split.synthetic_rest[:n_synthetic] if len(strange) == len(real) else np.arange(n_synthetic)
            low = split.real_rest[n_synthetic : size.pool]
            scores = score(fitted, np.concatenate([real[low], strange[high]]), fold)
            flagged = int((scores > 0).sum())
            left_out = {each.name: each.left_out for each in turned.generators}
            rates.append(float(np.mean(scores[len(low) :] > 0)))
            seen.append([hits / n for hits, n in left_out.values()])
            points.append(interval(flagged, size.pool, *fitted.tpr, *fitted.fpr).point or 0.0)
            ranges.append(unknown_generator_interval(flagged, size.pool, left_out, *fitted.fpr))
            bounds.append(lower_bound(flagged, size.pool, *fitted.fpr).lower)
        low, high = (np.mean([getattr(each, end) for each in ranges]) for end in ("lower", "upper"))
        row([
            name, f"{np.mean(rates):.3f}", ", ".join(f"{rate:.2f}" for rate in np.mean(seen, axis=0)),
            f"{np.mean(points):.3f}", f"{low:.3f} to {high:.3f}",
            f"{sum(covered(each, 0.3) for each in ranges)} of {n_splits}",
            f"{np.mean(bounds):.3f}", f"{sum(each <= 0.3 for each in bounds)} of {n_splits}",
        ])  # fmt: skip


def print_negatives(title: str, bench: Bench) -> None:
    """Prints what detectors say of real photographs that were treated."""
    found, n = list(try_treatments(bench)), len(bench.splits)
    sizes = [len(rows) for rows in dataclasses.astuple(bench.splits[0])]
    head(
        f"{title}: {sizes[0]} + {sizes[1]} untreated references, pools of {sizes[2]} treated real ones, {n} splits; "
        "false positives in per cent at the own threshold / at that of 1 %",
        ["treatment", *(each.name for each in bench.contenders)],
    )
    for each in found:
        cells = []
        for name, rate in each.false_positives.items():
            strict = each.strict[name]
            cells.append(f"{100 * rate:.1f} / {'-' if strict is None else f'{100 * strict:.1f}'}")
        row([each.name, *cells])
    shown = [each.name for each in bench.contenders if each.kind in ("probe", "forensic")]
    head(
        f"{title}: what the checks say, and the share, which is 0: mean, intervals that hold 0, alarms of {n}",
        ["treatment", "AUC of the files", "verdict", "files of pool and references"]
        + [f"{name}{after}" for after in ("", "; matched") for name in shown],
    )
    for each in found:
        cells = [each.name, f"{each.files.auc.point:.2f}", each.files.verdict, each.fit.verdict]
        for trials in (each.trials, each.matched):
            cells += ["-" if trials is None else share_alarm(trials[name]) for name in shown]
        row(cells)


def photograph_bench(images: ImageSet, readers: dict[str, str], work: Path) -> Bench:
    """Return small photographs for hard negatives: 1000 + 1000 references and a pool of 1000 in each of five splits."""
    n = 3000
    splits = [deal_rows(np.arange(n), (1000, 1000, 1000), np.random.default_rng([8, i])) for i in range(5)]
    return Bench(images.real[:n], images.synthetic[:n], splits, TREATED, readers, work)


def kodak_bench(data: Path, work: Path, readers: dict[str, str]) -> Bench:
    """Return crops of large photographs: eight photographs for each part of each split."""
    crops, groups = kodak_crops(data)
    model = make_autoencoder("nearest", work, train_photographs(data), steps=PHOTOGRAPH_STEPS, seed=0)
    files = [[encode(one, "JPEG", quality=90) for one in each] for each in (crops, model.pass_through(crops))]
    splits = [deal_rows(groups, (8, 8, 8), np.random.default_rng([9, i])) for i in range(5)]
    return Bench(files[0], files[1], splits, TREATED, readers, work)


def share_alarm(trials: Sequence[Trial]) -> str:
    """Return the mean share, how many intervals hold the truth, and how many alarms fire."""
    points = [trial.melded.point for trial in trials if trial.melded.point is not None]
    held = sum(covered(trial.melded, trial.truth) for trial in trials)
    mean = f"{100 * np.mean(points):.1f} %" if points else "withheld"
    return f"{mean}, {held}, {sum(bool(trial.alarm) for trial in trials)}"


def limits(found: Interval) -> str:
    """Return an estimate with its limits."""
    point = "-" if found.point is None else f"{found.point:.3f}"
    return f"{point} [{found.lower:.3f}, {found.upper:.3f}]"


def width(found: Sequence[Interval]) -> str:
    """Return the mean width of intervals in points."""
    return f"{100 * np.mean([each.upper - each.lower for each in found]):.1f}"


def head(title: str, columns: Sequence[str]) -> None:
    """Prints the head of a table."""
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(cells: Sequence[str]) -> None:
    """Prints a row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def draw(curves: dict[str, Rates], name: str, out: Path) -> None:
    """Writes a picture of the curves, false positives on a logarithmic axis."""
    from poolproof.charts import standalone_svg
    from poolproof.curves import Curve, curve_chart

    drawn = []
    for label, (colour, dashed) in LOOKS.items():
        roc = roc_curve(curves[label].real_scores, curves[label].synthetic_scores)
        x = np.geomspace(1 / roc.n_real, 1, 100)
        y = np.array([roc.tpr[roc.fpr <= rate + 1e-12].max() for rate in x])
        drawn.append(Curve(label, x, y, colour=colour, dashed=dashed))
    picture = curve_chart(
        drawn, x_label="false positive rate", y_label="true positive rate", log_x=True, name=f"roc-{name}",
        title=f"ROC curves, {name}", y_range=(0, 1),
    )  # fmt: skip
    (out / f"{name}.svg").write_bytes(standalone_svg(picture))


def draw_samples(images: ImageSet, out: Path, *, n: int = 8, side: int = 64) -> None:
    """Writes a picture of some images: real ones, synthetic ones, and those of other generators, a row each."""
    rows = []
    for files in (images.real, images.synthetic, *images.others.values()):
        tiles = [Image.fromarray(decode(file)) for file in files[:n]]
        rows.append(
            np.concatenate(
                [np.asarray(each.resize((side, side), Image.Resampling.NEAREST)) for each in tiles], axis=1
            )
        )
    Image.fromarray(np.concatenate(rows)).save(out / f"{images.name}-samples.png", optimize=True)


if __name__ == "__main__":
    main()
