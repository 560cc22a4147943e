"""How often a filtered pool is inside the admissible region, by its true counts: `python benchmarks/filtering.py`.

Real digits and samples of a diffusion model are drawn into references and pools again and again, at three shares. Each
time the probe is fitted anew, the share estimated as an audit does, and `HoldAdmissible` decides. Printed: pools inside
the region by their true counts, real images lost within the stated limits, and what it cost. With --pipeline the whole
path (files, audit, filter command) runs once for each share instead, on `poolproof quickstart`'s pools.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from poolproof.audit.credentials import make_identity
from poolproof.audit.decode import decode_image
from poolproof.audit.digits import LEVELS, encode_item, make_items
from poolproof.audit.ledger import Ledger
from poolproof.audit.policy import HoldAdmissible
from poolproof.audit.quickstart import QuickstartSpec, build_pools
from poolproof.audit.region import GaussianRegion
from poolproof.audit.run import audit_pool
from poolproof.audit.scored_pool import SCORED, ScoredPool, ShareLimits, Standing
from poolproof.audit.spec import AuditSpec
from poolproof.detectors.calibrate import cross_fit
from poolproof.detectors.forensic import forensic_features
from poolproof.detectors.prevalence import interval, split_level, with_floor
from poolproof.simulate.diffusion import DiffusionSpec, fit_diffusion

SHARES = (0.1, 0.3, 0.6)
LEVEL = 0.95


def main() -> None:
    """Runs the repetitions, or the pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=100, help="pools at each share")
    parser.add_argument("--sampling-bias", type=float, default=0.3, help="of the region")
    parser.add_argument("--dim", type=int, default=64, help="of the region; digits have 64 pixels")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--pipeline", action="store_true", help="the whole path, once for each share")
    options = parser.parse_args()
    if options.pipeline:
        run_pipeline(options.sampling_bias, options.dim, options.seed)
    else:
        repeat(options.repetitions, options.sampling_bias, options.dim, options.seed)


def repeat(repetitions: int, sampling_bias: float, dim: int, seed: int) -> None:
    """Decides on many pools drawn from the same digits."""
    features, is_synthetic = digits_and_samples(seed)
    region = GaussianRegion((sampling_bias,), dim)
    print(
        f"{'share':>5} {'inside':>9} {'said so':>9} {'lost within':>12} {'left within':>12} {'removed':>8} "
        f"{'real lost':>10}"
    )
    for share in SHARES:
        rng = np.random.default_rng([seed, round(100 * share)])
        rows = [decide_once(features, is_synthetic, share, region, rng) for _ in range(repetitions)]
        table = pd.DataFrame(rows)
        print(
            f"{share:>5} {int(table.inside.sum()):>5}/{repetitions} {int(table.reached.sum()):>5}/{repetitions} "
            f"{int(table.lost_within.sum()):>8}/{repetitions} {int(table.left_within.sum()):>8}/{repetitions} "
            f"{table.removed.mean():>8.1f} {table.lost.mean():>10.1f}",
            flush=True,
        )


def decide_once(
    features: np.ndarray,
    is_synthetic: np.ndarray,
    share: float,
    region: GaussianRegion,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One pool of 600 images against 400 references a side: what was decided, and what is true of it."""
    real, synthetic = (rng.permutation(np.flatnonzero(is_synthetic == kind)) for kind in (False, True))
    n_synthetic = round(600 * share)
    pool = np.concatenate([real[400 : 1000 - n_synthetic], synthetic[400 : 400 + n_synthetic]])
    truth = is_synthetic[pool]
    fit = cross_fit(features[real[:400]], features[synthetic[:400]], rng=rng)
    scores = fit.answer(features[pool], rng.integers(fit.folds, size=len(pool))).values
    found = truth & (rng.random(len(pool)) < 0.2)
    rest = ~found
    at = split_level(LEVEL)
    limits = interval(
        int((scores[rest] > fit.threshold).sum()), int(rest.sum()), *fit.tpr, *fit.fpr, level=at
    )
    whole = with_floor(int(found.sum()), limits, int(rest.sum()))
    standing = Standing(
        ShareLimits.of(whole), LEVEL, float(fit.threshold), fit.real_scores, fit.synthetic_scores, None, None
    )
    scored = ScoredPool(np.full(len(pool), SCORED, np.uint8), found.astype(np.uint8), scores, standing)
    ledger = Ledger(scored, rng=rng)
    choice = HoldAdmissible(region).choose(ledger)
    told, gone = ledger.balance(choice.cut), choice.cut.gone
    left, lost = int((truth & ~gone).sum()), int((~truth & gone).sum())
    return {
        "inside": region.holds(int((~gone).sum()), left, left),
        "reached": choice.shortfall is None,
        "lost_within": told.real_lost.lower <= lost <= told.real_lost.upper,
        "left_within": told.synthetic_left.lower <= left <= told.synthetic_left.upper,
        "removed": told.removed,
        "lost": lost,
    }


def digits_and_samples(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight-free features of 1,097 real digits and 1,000 samples of a model of the others; which are samples."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    digits, labels = bunch.images.astype(np.uint8), bunch.target  # pyright: ignore[reportAttributeAccessIssue]
    split, fit, draw, lay = np.random.default_rng(seed).spawn(4)
    order = split.permutation(len(digits))
    train, rest = order[:700], order[700:]
    scale = np.float32(LEVELS / 2)
    model = fit_diffusion(digits[train] / scale - np.float32(1), labels[train], DiffusionSpec(), rng=fit)
    drawn = model.draw_labels(1000, rng=draw)
    samples = np.rint((model.sample(drawn, rng=draw) + 1) * (LEVELS / 2)).astype(np.uint8)
    identity = make_identity(datetime.timedelta(days=1))
    items = make_items(digits[rest], labels[rest], False, rng=lay) + make_items(samples, drawn, True, rng=lay)
    features = []
    for item in items:
        pixels = decode_image(encode_item(item, identity)).pixels
        assert pixels is not None
        features.append(forensic_features(pixels))
    return np.stack(features), np.array([item.synthetic for item in items])


def run_pipeline(sampling_bias: float, dim: int, seed: int) -> None:
    """Builds pools of set shares, audits and filters them by the command line, and counts what is left."""
    region = GaussianRegion((sampling_bias,), dim)
    for share in SHARES:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pools = build_pools(folder / "demo", seed=seed, spec=QuickstartSpec(share=share))
            report = audit_pool(
                AuditSpec(
                    pool=str(pools.pool),
                    out=folder / "run",
                    real=str(pools.real),
                    synthetic=str(pools.synthetic),
                    embedder="forensic",
                )
            )
            command = [
                *(
                    sys.executable,
                    "-m",
                    "poolproof",
                    "filter",
                    str(folder / "run"),
                    "--out",
                    str(folder / "out"),
                    "-q",
                ),
                *("--policy", "admissible", "--sampling-bias", str(sampling_bias), "--dim", str(dim)),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{share}: exit code {done.returncode}: {done.stdout}{done.stderr}")
                continue
            kept = {path.name for path in (folder / "out" / "pool").iterdir()}
            told = json.loads((folder / "out" / "decision.json").read_text("utf-8"))["statement"]
            left = sum(pools.truth_by_key[key] for key in kept)
            lost = sum(not value for key, value in pools.truth_by_key.items() if key not in kept)
            found = report["share"]
            print(
                f"share {share} (audit {found['lower']:.3f} to {found['upper']:.3f}): {told['before']} before, "
                f"{told['after']} after; kept {len(kept)}, synthetic left {left} (stated {told['synthetic_left']}), "
                f"real lost {lost} (stated {told['real_lost']}); inside by true counts: "
                f"{region.holds(len(kept), left, left)}; {time.monotonic() - started:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
