"""The `poolproof detect` commands. Heavy packages load inside the commands that use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

detect = typer.Typer(
    help="Detectors on their own: fit one on references, try it, score a pool with it. Shares are told by `audit`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Workers = Annotated[int | None, typer.Option(help="Processes. [default: one a core]", show_default=False)]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Remember embeddings there by content, and use those that are."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DetectorOption = Annotated[
    Path, typer.Option("--detector", "-d", metavar="DIR", help="Folder that `poolproof detect fit` wrote.")
]


@detect.command("fit", short_help="Fit a detector on references.")
def fit(
    real: Annotated[str, typer.Option(metavar="POOL", help="Pool of real images.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the detector; the same command continues a stopped one.",
        ),
    ],
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="POOL",
            help="Pool of synthetic images; where its folders name generators, each is left out in turn.",
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="probe, knn or forensic (both references), real-distance or rigid (real ones), or, with --weights, "
            "univfd, clipdet or linear.",
        ),
    ] = "probe",
    embedder: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="auto, forensic (no weights), clip:MODEL/TAG, clip: or timm:MODEL/FILE; rigid:SPEC for rigid.",
        ),
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of a public head: .pth, .pt, .safetensors or .npz."),
    ] = None,
    max_fpr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Set the threshold by this rate of false alarms, on references held out."
        ),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of the references that the detector does not learn from."),
    ] = 0.3,
    workers: Workers = None,
    cache: Cache = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a detector on --real and --synthetic and save it to --out, with its error rates on references held out.

    Writes detector.json, detector.safetensors, figures.json and references.parquet. Use the folder with
    `poolproof detect score`, `poolproof detect evaluate` and `poolproof audit --detector`.
    """
    from poolproof.audit.detection import FitSpec, fit_on_pools
    from poolproof.audit.progress import choose_progress

    spec = FitSpec(
        out=out,
        real=real,
        synthetic=synthetic,
        detector=detector,
        weights=weights,
        embedder=embedder,
        max_fpr=max_fpr,
        hold_out=hold_out,
        workers=workers,
        cache=cache,
        seed=seed,
    )
    figures = fit_on_pools(spec, progress=choose_progress(quiet=quiet))
    _print_figures(figures)
    for row in figures["transfer"] or []:
        typer.echo(
            f"generator   {_name(row)}: {_rate(row['known'])} found when known, "
            f"{_rate(row['left_out'])} when left out"
        )
    typer.echo(f"detector    {out}")


@detect.command("evaluate", short_help="Try a detector on labelled pools.")
def evaluate(
    detector: DetectorOption,
    real: Annotated[str, typer.Option(metavar="POOL", help="Pool of real images.")],
    synthetic: Annotated[
        str, typer.Option(metavar="POOL", help="Pool of synthetic images; its folders are told apart.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the figures, scores and picture.")
    ],
    workers: Workers = None,
    cache: Cache = None,
    quiet: Quiet = False,
) -> None:
    """Try a detector on --real and --synthetic: rates, area under the ROC curve, true positives at few false ones.

    Images that the detector learnt from are left out, by content. Writes figures.json, scores.parquet and roc.svg.
    """
    from poolproof.audit.detection import TrySpec, evaluate_on_pools
    from poolproof.audit.progress import choose_progress

    spec = TrySpec(out, detector, {"real": real, "synthetic": synthetic}, workers, cache)
    figures = evaluate_on_pools(spec, progress=choose_progress(quiet=quiet))
    _draw_roc(figures, out / "roc.svg")
    _print_figures(figures)
    for row in figures["generators"] or []:
        typer.echo(f"generator   {_name(row)}: {_rate(row)} of {row['n']:,} found")
    if figures["known"]:
        typer.echo(f"note        {figures['known']:,} images left out: the detector learnt from them")
    typer.echo(f"figures     {out / 'figures.json'}")


@detect.command("score", short_help="Score a pool with a detector.")
def score(
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="A folder, WebDataset tars, Parquet, or hf:NAME.")
    ],
    detector: DetectorOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the scores; the command continues a stopped one.",
        ),
    ],
    workers: Workers = None,
    cache: Cache = None,
    quiet: Quiet = False,
) -> None:
    """Score every image of POOL: larger = more synthetic, with the p-value of "this image is real".

    Writes scores.parquet. Flagged images are no count of synthetic ones: for that use `poolproof audit`.
    """
    from poolproof.audit.detection import TrySpec, score_pool
    from poolproof.audit.progress import choose_progress

    spec = TrySpec(out, detector, {"pool": pool}, workers, cache)
    counts = score_pool(spec, progress=choose_progress(quiet=quiet))
    typer.echo(f"scored      {counts['scored']:,} of {counts['items']:,} images")
    typer.echo(
        f"flagged     {counts['flagged']:,} above {counts['threshold']:.4g}; this is no estimate of the share"
    )
    if counts["abstained"]:
        typer.echo(f"abstained   {counts['abstained']:,} images that the detector has no answer for")
    if counts["references"]:
        typer.echo(f"p-values    by {counts['references']:,} real references held out")
    typer.echo(f"scores      {out / 'scores.parquet'}")


def _print_figures(figures: Mapping[str, Any]) -> None:
    kind = "held-out references" if figures["held_out"] else "images"
    n = f"{figures['n_real']:,} real"
    n += "" if figures["n_synthetic"] is None else f" and {figures['n_synthetic']:,} synthetic"
    typer.echo(f"tried on    {n} {kind}, {figures['detector']} on {figures['embedder']}")
    typer.echo(f"threshold   {figures['threshold']:.4g}: {_rate(figures['fpr'])} of real images flagged")
    if figures["tpr"] is not None:
        typer.echo(f"            {_rate(figures['tpr'])} of synthetic images flagged")
        auc = figures["auc"]
        typer.echo(f"AUC         {auc['point']:.3f} ({auc['lower']:.3f} to {auc['upper']:.3f})")
    for at in figures["tpr_at_fpr"]:
        if at["point"] is None:
            typer.echo(f"            at {100 * at['fpr']:g} % false alarms: not told, {at['why']}")
        else:
            typer.echo(f"            {_rate(at)} found at {100 * at['fpr']:g} % false alarms")
    abstained = figures["abstained"]
    if abstained["real"] or abstained["synthetic"]:
        typer.echo(f"abstained   {abstained['real']:,} real, {abstained['synthetic']:,} synthetic")
    for words in figures["files"]:
        typer.echo(f"files       {words}")


def _name(row: Mapping[str, Any]) -> str:
    """A folder's name on one line: what could move the cursor is written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in row["name"])


def _rate(limits: Mapping[str, Any]) -> str:
    return f"{100 * limits['point']:.1f} % ({100 * limits['lower']:.1f} to {100 * limits['upper']:.1f})"


def _draw_roc(figures: Mapping[str, Any], path: Path) -> None:
    import numpy as np

    from poolproof.charts import standalone_svg
    from poolproof.curves import Curve, curve_chart
    from poolproof.files import replace_file

    roc = figures["roc"]
    curves = [
        Curve(figures["detector"], np.array(roc["fpr"]), np.array(roc["tpr"]), colour="synthetic"),
        Curve("chance", np.array([0.0, 1.0]), np.array([0.0, 1.0]), colour="muted", dashed=True),
    ]
    chart = curve_chart(
        curves,
        x_label="false positive rate",
        y_label="true positive rate",
        name="roc",
        title="ROC curve",
        y_range=(0.0, 1.0),
    )
    with replace_file(path) as temporary:
        temporary.write_bytes(standalone_svg(chart))
