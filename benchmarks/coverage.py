"""How often every interval of a share holds the truth, how wide it is, and when the alarm fires.

    python benchmarks/coverage.py [--repetitions 2000] [--out docs/results/coverage]

Writes every figure to OUT/rows.csv and the tables into OUT.md, between its `<!-- table NAME -->` marks.

Intervals from counts are not simulated. For given counts of the references an interval holds the share for a run
of flagged counts of the pool, whose ends are searched; the chance of that run is binomial, and the sum over the
references' counts is the coverage. Where these counts spread widely, the ends are found on a lattice of them
and interpolated. Soft scores, labels and the alarm are simulated; their Monte-Carlo errors are among the rows.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats
from scipy.interpolate import RectBivariateSpline

from poolproof.detectors.labelled import labelled_interval
from poolproof.detectors.melding import NEVER, lower_draw, share_below, upper_draw
from poolproof.detectors.mixture import alarm_edges, bin_counts, goodness_of_fit
from poolproof.detectors.prevalence import MID, Method, interval, lower_bound
from poolproof.detectors.soft import Moments, moments, soft_interval
from poolproof.detectors.strata import Stratum, stratified_interval

RATES = ((0.95, 0.05), (0.8, 0.1), (0.6, 0.3))
REFERENCES = (100, 1000)
SHARES = (0.0, 0.02, 0.2, 0.6)
POOLS = (10_000, 100_000)
REAL, SYNTHETIC = (-1.0, 1.2), (1.0, 1.0)
"""Mean and deviation of scores."""

PARTS = {"melded": 1.0, "melded-mid": MID}
"""How much of the chance of a reference count itself is counted against its limits."""

Limits = Callable[[int, int, int], tuple[float, float]]
"""Limits from flagged items, true positives and false positives."""


@dataclass(frozen=True)
class Row:
    """One figure: an estimator in one cell.

    Attributes:
        study: which table it belongs to.
        estimator: its name.
        tpr: true positive rate of the references, or a shift in deviations for scores.
        fpr: false positive rate.
        references: of each class, or labels.
        pool: items of the pool.
        share: true share.
        rate: coverage, or how often the alarm fires.
        width: mean width.
        error: Monte-Carlo error of the rate; 0 where it is computed.
    """

    study: str
    estimator: str
    tpr: float | None
    fpr: float | None
    references: int
    pool: int
    share: float
    rate: float
    width: float | None
    error: float


@dataclass(frozen=True)
class Cell:
    """A detector, references of each class, a pool, its share, and the rate at which its own items are caught."""

    tpr: float
    fpr: float
    references: int
    pool: int
    share: float
    pool_tpr: float

    @property
    def flagged(self) -> float:
        """Chance that an item of the pool is flagged."""
        return self.share * self.pool_tpr + (1 - self.share) * self.fpr


def wilson(cell: Cell) -> Limits:
    """Wilson's interval of the flagged share, taken for the share: the naive count."""

    def limits(flagged: int, _caught: int, _false: int) -> tuple[float, float]:
        n, z2 = cell.pool, float(special.ndtri(0.975)) ** 2
        q = flagged / n
        half = math.sqrt(z2 * (q * (1 - q) / n + z2 / (4 * n * n)))
        return (q + z2 / (2 * n) - half) / (1 + z2 / n), (q + z2 / (2 * n) + half) / (1 + z2 / n)

    return limits


def by_method(cell: Cell, method: Method) -> Limits:
    """The interval of `detectors/prevalence.py` by that method."""

    def limits(flagged: int, caught: int, false: int) -> tuple[float, float]:
        n = cell.references
        found = interval(flagged, cell.pool, caught, n, false, n, method=method)
        return found.lower, found.upper

    return limits


def run_of_any(limits: Limits, cell: Cell) -> Callable[[int, int], tuple[float, float]]:
    """Return the ends of the flagged counts for which limits hold the share, by bisection: limits grow with them."""

    def first(reached: Callable[[int], bool]) -> int:
        low, high = -1, cell.pool + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high

    def ends(caught: int, false: int) -> tuple[float, float]:
        start = first(lambda q: limits(q, caught, false)[1] >= cell.share)
        return start, first(lambda q: limits(q, caught, false)[0] > cell.share) - 1

    return ends


def run_of_melded(cell: Cell, part: float) -> Callable[[int, int], tuple[float, float]]:
    """Return the same for the melded interval, without its limits: one search of a real count for each end.

    The lower limit is at most the share where the distribution that it is a quantile of has reached 2.5 %
    there, and the upper at least the share where its own has not passed 97.5 %.
    """
    n, x = cell.references, cell.share

    def solve(excess: Callable[[float], float], centre: float, step: float) -> float:
        """Return where the increasing excess is 0, or one beyond the end of the counts that it does not reach."""
        low = high = centre
        if excess(centre) > 0:
            while excess(low := max(low - step, 0.0)) > 0:
                if low == 0:
                    return -1.0
                high = low
        else:
            while excess(high := min(high + step, float(cell.pool))) < 0:
                if high == cell.pool:
                    return cell.pool + 1.0
                low = high
        return float(optimize.brentq(excess, low, high, xtol=0.1))  # pyright: ignore[reportArgumentType]

    def score(probability: float, level: float) -> float:
        return float(special.ndtri(min(max(probability, 1e-15), 1 - 1e-15)) - special.ndtri(level))

    def ends(caught: int, false: int) -> tuple[float, float]:
        q = min(max(x * caught / n + (1 - x) * false / n, 0.0), 1.0)
        f, t = upper_draw(false, n, part=part), upper_draw(caught, n, part=part)
        spread = q * (1 - q) / cell.pool + (x * t.spread) ** 2 + ((1 - x) * f.spread) ** 2
        centre, step = cell.pool * q, 2.5 * cell.pool * math.sqrt(spread)
        useless = 1.0 - share_below(0.5, NEVER, f, t)
        stop = solve(
            lambda k: -score(share_below(x, lower_draw(k, cell.pool), f, t) + useless, 0.025), centre, step
        )
        if x == 0:
            return 0.0, stop
        f, t = lower_draw(false, n, part=part), lower_draw(caught, n, part=part)
        start = solve(lambda k: -score(share_below(x, upper_draw(k, cell.pool), f, t), 0.975), centre, step)
        return start, stop

    return ends


def counts_of(n: int, rate: float, *, stride: float) -> np.ndarray:
    """Return counts of n within 3.7 deviations of the rate, so many deviations apart, or all of them."""
    deviation = math.sqrt(n * rate * (1 - rate))
    low, high = max(math.floor(n * rate - 3.7 * deviation), 0), min(math.ceil(n * rate + 3.7 * deviation), n)
    parts = math.ceil((high - low) / max(stride * deviation, 1.0))
    return np.unique(np.linspace(low, high, parts + 1).round().astype(int))


def exact_coverage(cell: Cell, ends: Callable[[int, int], tuple[float, float]]) -> float:
    """Return the chance that an interval holds the share, over all counts."""
    n = cell.references
    caught, false = (counts_of(n, rate, stride=0.7) for rate in (cell.tpr, cell.fpr))
    grid = np.array([[ends(int(x), int(y)) for y in false] for x in caught])
    all_caught, all_false = np.arange(caught[0], caught[-1] + 1), np.arange(false[0], false[-1] + 1)
    # Linear: the ends jump to those of all counts where the references hardly show t > f.
    start, stop = (
        RectBivariateSpline(caught, false, values, kx=1, ky=1)(all_caught, all_false)
        for values in np.moveaxis(grid, -1, 0)
    )
    law = stats.binom(cell.pool, cell.flagged)
    held = law.cdf(np.floor(stop + 1e-9)) - law.cdf(np.ceil(start - 1e-9) - 1)
    weight = np.outer(stats.binom.pmf(all_caught, n, cell.tpr), stats.binom.pmf(all_false, n, cell.fpr))
    return float((weight * np.maximum(held, 0)).sum() / weight.sum())


def mean_width(cell: Cell, limits: Limits) -> float:
    """Return the expected width, by sums over a lattice of reference counts and three flagged counts."""
    n = cell.references
    caught, false = (counts_of(n, rate, stride=1.0) for rate in (cell.tpr, cell.fpr))
    # Counts are not quite evenly apart: each stands for those halfway to its neighbours.
    steps = [dict(zip(counts, np.gradient(counts.astype(float)), strict=True)) for counts in (caught, false)]
    deviation = math.sqrt(3 * cell.pool * cell.flagged * (1 - cell.flagged))
    total = weights = 0.0
    for x, y, (part, step) in itertools.product(caught, false, ((1 / 6, -1), (2 / 3, 0), (1 / 6, 1))):
        weight = part * stats.binom.pmf(x, n, cell.tpr) * stats.binom.pmf(y, n, cell.fpr)
        weight *= steps[0][x] * steps[1][y]
        flagged = min(max(round(cell.pool * cell.flagged + step * deviation), 0), cell.pool)
        lower, upper = limits(flagged, int(x), int(y))
        total, weights = total + weight * (upper - lower), weights + weight
    return float(total / weights)


def count_rows(cell: Cell, study: str) -> Iterator[Row]:
    """Yield coverage and width of every interval from counts in one cell."""
    methods: dict[str, Limits] = {
        "naive Wilson": wilson(cell),
        "Rogan-Gladen": by_method(cell, "rogan-gladen"),
        "Lang-Reiczigel": by_method(cell, "lang-reiczigel"),
        "melded": by_method(cell, "melded"),
        "melded-mid": by_method(cell, "melded-mid"),
    }
    for name, limits in methods.items():
        ends = run_of_melded(cell, PARTS[name]) if name in PARTS else run_of_any(limits, cell)
        yield row(cell, study, name, exact_coverage(cell, ends), mean_width(cell, limits))
    found = [
        (stats.binom.pmf(y, cell.references, cell.fpr), int(y))
        for y in counts_of(cell.references, cell.fpr, stride=0.0)
    ]
    law = stats.binom(cell.pool, cell.flagged)
    held = size = 0.0
    for weight, y in found:
        stop = run_of_any(lambda q, _, f: (lower_bound(q, cell.pool, f, cell.references).lower, 1.0), cell)(
            0, y
        )[1]
        held, size = held + weight * law.cdf(stop), size + weight
    yield row(cell, study, "lower bound", float(held / size), None)


def row(cell: Cell, study: str, name: str, rate: float, width: float | None, error: float = 0.0) -> Row:
    """Return the row of a cell."""
    rates = cell.tpr, cell.fpr, cell.references, cell.pool, cell.share
    return Row(study, name, *rates, rate, width, error)


def draw(rng: np.random.Generator, law: tuple[float, float], n: int, shift: float = 0.0) -> np.ndarray:
    """Return n normal scores."""
    return rng.normal(law[0] + shift, law[1], n)


def soft_rows(repetitions: int, rng: np.random.Generator) -> Iterator[Row]:
    """Yield coverage of the soft intervals: normal scores through a logistic, good, poor and shifted."""
    pool = POOLS[0]
    cases = [("soft", mu, 0.0, share) for mu in (1.0, 0.0, -0.6) for share in SHARES]
    cases += [("soft, unseen generator", 1.0, shift, 0.2) for shift in (-0.25, -0.5, -1.0)]
    for (study, mu, shift, share), n in itertools.product(cases, REFERENCES):
        found = []
        for _ in range(repetitions):
            k = int(rng.binomial(pool, share))
            sets = (
                np.concatenate([draw(rng, (mu, 1.0), k, shift), draw(rng, REAL, pool - k)]),
                draw(rng, (mu, 1.0), n),
                draw(rng, REAL, n),
            )
            parts: list[Moments] = [moments(special.expit(2 * scores)) for scores in sets]
            found.append([soft_interval(*parts, method=method) for method in ("fieller", "delta")])
        for place, name in enumerate(("soft, Fieller", "soft, delta")):
            held = np.mean([f[place].lower <= share <= f[place].upper for f in found])
            width = float(np.mean([f[place].upper - f[place].lower for f in found]))
            error = math.sqrt(held * (1 - held) / repetitions)
            yield Row(study, name, mu + shift, None, n, pool, share, float(held), width, error)


@functools.lru_cache(maxsize=100_000)
def strata_limits(strata: tuple[Stratum, ...]) -> tuple[float, float]:
    """Return limits from parts, once for each set of counts."""
    found = stratified_interval(strata)
    return found.lower, found.upper


def labelled_rows(repetitions: int, rng: np.random.Generator) -> Iterator[Row]:
    """Yield coverage of intervals from labels on a draw of a fixed pool."""
    size = POOLS[0]
    for share, n in itertools.product((0.0, 0.01, 0.05, 0.3), (50, 200, 700)):
        y = np.arange(size) < round(share * size)
        scores = np.where(y, draw(rng, SYNTHETIC, size), draw(rng, REAL, size))
        soft, flags = special.expit(2 * scores), scores > 0.7
        whole, flagged = moments(soft), int(flags.sum())
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(repetitions):
            i = rng.choice(size, n, replace=False)
            on = flags[i]
            parts = tuple(
                Stratum(part, int(which.sum()), int((which & y[i]).sum()))
                for part, which in ((flagged, on), (size - flagged, ~on))
            )
            survey = strata_limits((Stratum(size, n, int(y[i].sum())),))
            labels = [bool(v) for v in y[i]]
            powered = labelled_interval(labels, soft[i], whole, method="ppi").interval
            few = min(int(y[i].sum()), n - int(y[i].sum())) < 30
            found.setdefault("labels, survey", []).append(survey)
            found.setdefault("labels, parts by flag", []).append(strata_limits(parts))
            found.setdefault("labels, PPI++ alone", []).append((powered.lower, powered.upper))
            found.setdefault("labels, soft (auto)", []).append(
                survey if few else (powered.lower, powered.upper)
            )
        for name, limits in found.items():
            held = float(np.mean([low - 1e-12 <= share <= high + 1e-12 for low, high in limits]))
            width = float(np.mean([high - low for low, high in limits]))
            error = math.sqrt(held * (1 - held) / repetitions)
            yield Row("labels", name, None, None, n, size, share, held, width, error)


def alarm_rows(repetitions: int, rng: np.random.Generator) -> Iterator[Row]:
    """Yield how often the alarm fires, without change and with changes of either class's scores."""
    cells = [
        ("size", 0.0, 0.0, n, pool, s) for n in (40, 200, 2000) for pool in (300, 100_000) for s in SHARES
    ]
    cells += [("size", 0.0, 0.0, n, pool, 1.0) for n in (40, 200, 2000) for pool in (300, 100_000)]
    cells += [
        ("power", shift, 0.0, n, pool, 0.2)
        for shift in (-0.5, 0.25, 0.5, 1.0) for n in (200, 500, 2000) for pool in POOLS
    ]  # fmt: skip
    cells += [("power, real images shifted", 0.0, 0.25, n, 100_000, 0.2) for n in (200, 500, 2000)]
    for kind, shift, real_shift, n, pool, share in cells:
        fired = 0
        for _ in range(repetitions):
            real, synthetic = draw(rng, REAL, n), draw(rng, SYNTHETIC, n)
            edges = alarm_edges(real, synthetic)
            ends = np.concatenate([[-np.inf], edges, [np.inf]])
            p1 = np.diff(special.ndtr((ends - SYNTHETIC[0] - shift) / SYNTHETIC[1]))
            p0 = np.diff(special.ndtr((ends - REAL[0] - real_shift) / REAL[1]))
            counts = rng.multinomial(pool, share * p1 + (1 - share) * p0)
            found = goodness_of_fit(counts, bin_counts(real, edges), bin_counts(synthetic, edges), rng=rng)
            fired += found.fires
        rate = fired / repetitions
        error = math.sqrt(rate * (1 - rate) / repetitions)
        yield Row(f"alarm, {kind}", "alarm", shift or real_shift, None, n, pool, share, rate, None, error)


def percent(value: float) -> str:
    """Return a rate as a cell of a table."""
    return f"{100 * value:.1f}"


def table(heads: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines])


def count_table(rows: list[Row], study: str) -> str:
    """Return coverage/width of the intervals from counts, one line a cell, with melded over Lang-Reiczigel."""
    names = ["naive Wilson", "Rogan-Gladen", "Lang-Reiczigel", "melded", "melded-mid", "lower bound"]
    cells: dict[tuple, dict[str, Row]] = {}
    for r in rows:
        if r.study == study:
            cells.setdefault((r.tpr, r.fpr, r.references, r.pool, r.share), {})[r.estimator] = r
    lines = []
    for (tpr, fpr, references, pool, share), by in cells.items():
        figures = [
            percent(by[n].rate) + ("" if by[n].width is None else f" / {by[n].width:.3f}") for n in names
        ]
        base = by["Lang-Reiczigel"].width or 1.0
        ratios = [f"{(by[name].width or 0) / base:.3f}" for name in PARTS]
        lines.append([f"{tpr} / {fpr}", f"{references:,}", f"{pool:,}", f"{share:g}", *figures, *ratios])
    return table(
        ["TPR / FPR", "references", "pool", "share", *names, "melded / L.-R.", "melded-mid / L.-R."], lines
    )


def simple_table(rows: list[Row], study: str, first: str) -> str:
    """Return one line for each cell of a simulated study, estimators side by side."""
    cells: dict[tuple, dict[str, Row]] = {}
    for r in rows:
        if r.study == study:
            cells.setdefault((r.tpr, r.references, r.pool, r.share), {})[r.estimator] = r
    names = list(dict.fromkeys(r.estimator for r in rows if r.study == study))
    lines = []
    for (tpr, references, pool, share), by in cells.items():
        figures = [
            f"{percent(by[n].rate)} ± {percent(by[n].error)}"
            + ("" if by[n].width is None else f" / {by[n].width:.3f}")
            for n in names
        ]
        lines.append(
            ["" if tpr is None else f"{tpr:g}", f"{references:,}", f"{pool:,}", f"{share:g}", *figures]
        )
    return table([first, "references" if first else "labels", "pool", "share", *names], lines)


def summary_table(rows: list[Row]) -> str:
    """Return least and mean coverage of every estimator where its assumptions hold."""
    lines = []
    for study in ("counts", "soft", "labels"):
        for name in dict.fromkeys(r.estimator for r in rows if r.study == study):
            found = [r for r in rows if r.study == study and r.estimator == name]
            worst = min(found, key=lambda r: r.rate)
            mean = sum(r.rate for r in found) / len(found)
            chance = f" ± {percent(worst.error)}" if worst.error else ""
            lines.append([name, str(len(found)), percent(worst.rate) + chance, percent(mean)])
    return table(["interval", "cells", "least coverage, %", "mean, %"], lines)


def fill(page: Path, tables: dict[str, str]) -> None:
    """Write tables between their marks in a page; the page is begun where there is none."""
    text = (
        page.read_text()
        if page.exists()
        else "".join(f"<!-- table {n} -->\n<!-- end -->\n\n" for n in tables)
    )
    for name, content in tables.items():
        mark = f"<!-- table {name} -->"
        head, rest = text.split(mark, 1)
        text = f"{head}{mark}\n\n{content}\n\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    page.write_text(text)


def all_rows(repetitions: int, seed: int) -> Iterator[Row]:
    """Yield every row; the simulated studies have a stream each."""
    for (t, f), n, pool, share in itertools.product(RATES, REFERENCES, POOLS, SHARES):
        yield from count_rows(Cell(t, f, n, pool, share, t), "counts")
    for drop, n in itertools.product((0.05, 0.2, 0.5), REFERENCES):
        yield from count_rows(
            Cell(0.8, 0.1, n, 100_000, 0.2, 0.8 - drop), f"counts, generator caught {drop:g} less"
        )
    soft, labels, alarms = np.random.default_rng(seed).spawn(3)
    yield from soft_rows(repetitions, soft)
    yield from labelled_rows(repetitions, labels)
    yield from alarm_rows(max(repetitions // 5, 10), alarms)


def main() -> None:
    """Run all studies and write rows and tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions", type=int, default=2000, help="simulated runs a cell; a fifth for the alarm"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/coverage"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started, rows, study = time.process_time(), [], ""
    for r in all_rows(args.repetitions, args.seed):
        if r.study != study or len(rows) % 50 == 0:
            study = r.study
            print(f"{time.process_time() - started:6.0f} s  {len(rows)} rows, {study}", flush=True)
        rows.append(r)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(r).items()} for r in rows
        )
    shifted = [s for s in dict.fromkeys(r.study for r in rows) if s.startswith("counts, ")]
    tables = {"summary": summary_table(rows), "counts": count_table(rows, "counts")}
    tables["unseen"] = "\n\n".join(f"{s.split(', ')[1]}:\n\n{count_table(rows, s)}" for s in shifted)
    tables["soft"] = simple_table(rows, "soft", "synthetic mean")
    tables["soft-unseen"] = simple_table(rows, "soft, unseen generator", "pool's synthetic mean")
    tables["labels"] = simple_table(rows, "labels", "")
    for name in ("size", "power", "power, real images shifted"):
        tables[f"alarm-{name}"] = simple_table(rows, f"alarm, {name}", "shift")
    fill(args.out.with_suffix(".md"), tables)
    print(f"{time.process_time() - started:6.0f} s  {len(rows)} rows in {args.out}")


if __name__ == "__main__":
    main()
