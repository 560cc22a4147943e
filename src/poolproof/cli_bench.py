"""`poolproof watermark bench`. Heavy packages load inside the functions that use them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.cli_watermark import Inputs, Level, Quiet, bit_text, shown, watermark, write_parquet
from poolproof.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from poolproof.watermark.schemes import AbstractScheme


@watermark.command("bench", short_help="See what marks survive.")
def bench(
    images: Inputs,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder for the tables (Parquet, CSV), JSON and a picture."
        ),
    ] = None,
    schemes: Annotated[
        str,
        typer.Option(
            metavar="NAME,..",
            help="spread, dwtDct, dwtDctSvd; with their packages installed also invisible-watermark:dwtDct, "
            "invisible-watermark:dwtDctSvd, blind-watermark.",
        ),
    ] = "spread,dwtDct,dwtDctSvd",
    attacks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,..",
            help="Such as none,jpeg:75:420,webp:80,resize:0.5,resize-back:0.5,crop:0.1,rotate:2,flip,noise:5,blur:1,"
            "brightness:1.2,regenerate. [default: seventeen of them]",
            show_default=False,
        ),
    ] = None,
    regenerate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A saved diffusers pipeline; adds the attack regenerate."),
    ] = None,
    strength: Annotated[float, typer.Option(help="Share of noise in regeneration, above 0 to 1.")] = 0.1,
    crop: Annotated[
        int | None, typer.Option(metavar="N", help="Use the upper left N x N pixels of each image.")
    ] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", help="Use the first N images.")] = None,
    level: Level = 1e-6,
    seed: Annotated[int, typer.Option(help="Seed of key, payload and attacks.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Mark IMAGES with every scheme, attack the copies, and read them: detection rate, bits, quality, time.

    The row "unmarked" reads images that carry no mark: what is found there is false.
    """
    import numpy as np

    from poolproof.audit.images import Images
    from poolproof.audit.progress import choose_progress
    from poolproof.watermark.attacks import STANDARD, parse_attack
    from poolproof.watermark.bench import run_bench, tabulate_outcomes

    names: list[str] = list(STANDARD) if attacks is None else attacks.split(",")
    model = None
    if regenerate is not None:
        from poolproof.watermark.regeneration import load_regenerator

        model = load_regenerator(regenerate, strength=strength)
        if "regenerate" not in names:
            names.append("regenerate")
    chosen = [parse_attack(name.strip(), regenerate=model) for name in names]
    rng = np.random.default_rng(seed)
    marks = [_scheme(name.strip(), rng) for name in schemes.split(",")]
    if sample is not None and sample < 1:
        raise InputError(f"--sample: got {sample}, allowed from 1; leave it out for all")
    if crop is not None and crop < 64:
        raise InputError(f"--crop: got {crop}, allowed from 64; 512 suits most images")
    source = Images(images)
    pixels = _decode(source, sample, crop, marks)
    total = len(pixels) * len(marks) * (len(chosen) + 1)
    done = 0
    outcomes = []
    with choose_progress(quiet=quiet).items("bench", total, 0, "readings") as tick:

        def count() -> None:
            nonlocal done
            done += 1
            tick(done)

        outcomes.extend(run_bench(pixels, marks, chosen, level=level, rng=rng, tick=count))
    table, summary = tabulate_outcomes(outcomes)
    _print_bench(summary, len(pixels), level)
    if out is None:
        typer.echo("nothing is written without --out DIR")
        return
    settings = {
        "images": len(pixels),
        "crop": crop,
        "level": level,
        "seed": seed,
        "schemes": {mark.name: bit_text(mark.bits) for mark in marks},
        "attacks": names,
        "strength": strength if model is not None else None,
        "command": shlex.join(["poolproof", *sys.argv[1:]]),
    }
    _write_bench(table, summary, settings, out)


def _scheme(name: str, rng: Any) -> AbstractScheme:
    from poolproof.watermark.dwt import Variant
    from poolproof.watermark.key import Key
    from poolproof.watermark.payloads import Payload
    from poolproof.watermark.peers import PEERS, load_peer
    from poolproof.watermark.schemes import DwtScheme, SpreadScheme

    if name == "spread":
        key: Key = Key(rng.bytes(16))
        return SpreadScheme(key, rng.integers(0, 2, 64).tolist())
    bits = tuple(rng.permutation([0, 1] * 24).tolist())
    if name in ("dwtDct", "dwtDctSvd"):
        algorithm = "dwtDct" if name == "dwtDct" else "dwtDctSvd"
        return DwtScheme(Payload(name, bits, (True,) * 48, algorithm), Variant(algorithm))
    if name in PEERS:
        return load_peer(name, bits)
    raise InputError(
        f"--schemes: got {name!r}, allowed spread, dwtDct, dwtDctSvd, {', '.join(PEERS)}; correct it"
    )


def _decode(
    source: Any, sample: int | None, crop: int | None, marks: list[AbstractScheme]
) -> list[tuple[str, Any]]:
    """Pixels of the images that all schemes take; the others are named."""
    from poolproof.audit.decode import decode_image
    from poolproof.audit.pool import Unread
    from poolproof.watermark.dwt import MIN_PIXELS

    pixels: list[tuple[str, Any]] = []
    for image in source:
        if sample is not None and len(pixels) >= sample:
            break
        decoded = None if isinstance(image.data, Unread) else decode_image(image.data)
        if decoded is None or decoded.pixels is None:
            reason = image.data.reason if isinstance(image.data, Unread) else decoded and decoded.reason
            typer.echo(f"left out    {shown(image.key)}: {shown(str(reason))}", err=True)
            continue
        cut = decoded.pixels if crop is None else decoded.pixels[:crop, :crop].copy()
        if cut.shape[0] * cut.shape[1] < MIN_PIXELS or min(cut.shape[:2]) < 64:
            size = f"{cut.shape[1]}x{cut.shape[0]}"
            typer.echo(
                f"left out    {shown(image.key)}: {size} pixels; 65536 and 64 a side are needed", err=True
            )
            continue
        pixels.append((image.key, cut))
    if not pixels:
        raise InputError("images: got none that can be marked, allowed from 65536 pixels and 64 a side")
    return pixels


def _print_bench(summary: pd.DataFrame, n_images: int, level: float) -> None:
    schemes, attacks = list(summary["scheme"].unique()), list(summary["attack"].unique())
    indexed = summary.set_index(["scheme", "attack"])
    width = max(16, *(len(name) + 2 for name in schemes))
    typer.echo(f"detected at p < {level:g} on {n_images} images, in %; in brackets payloads read whole")
    typer.echo(" " * 16 + "".join(f"{name:>{width}}" for name in schemes))
    for attack in attacks:
        cells = []
        for scheme in schemes:
            row = indexed.loc[(scheme, attack)]
            words = f"{100 * row['detected']:.0f}"
            if row["recovered"] == row["recovered"]:  # not missing
                words += f" ({100 * row['recovered']:.0f})"
            cells.append(f"{words:>{width}}")
        typer.echo(f"{attack:16}" + "".join(cells))
    for label, column, form in (
        ("PSNR, dB", "psnr", ".1f"),
        ("SSIM", "ssim", ".4f"),
        ("write, ms", "embed_ms", ".1f"),
        ("read, ms", "read_ms", ".1f"),
    ):
        medians = [summary.loc[summary["scheme"] == scheme, column].median() for scheme in schemes]
        typer.echo(f"{label:16}" + "".join(f"{format(value, form):>{width}}" for value in medians))


def _write_bench(table: pd.DataFrame, summary: pd.DataFrame, settings: dict[str, Any], out: Path) -> None:
    import pyarrow as pa

    from poolproof.charts import standalone_svg
    from poolproof.files import replace_file, write_json
    from poolproof.rates import RateTable, rate_table

    write_parquet(pa.Table.from_pandas(table, preserve_index=False), out / "outcomes.parquet")
    wide = summary.pivot(index="attack", columns="scheme", values="detected")
    rows, columns = list(summary["attack"].unique()), list(summary["scheme"].unique())
    rates = RateTable(rows, columns, wide.loc[rows, columns].to_numpy(dtype=float))
    picture = rate_table(rates, name="marks", title="Detection rate by attack and scheme")
    with replace_file(out / "marks.svg") as temporary:
        temporary.write_bytes(standalone_svg(picture))
    with replace_file(out / "marks.csv") as temporary:
        summary.round(6).to_csv(temporary, index=False)
    write_json(out / "bench.json", settings)
    for label, name in (("picture", "marks.svg"), ("table", "marks.csv"), ("outcomes", "outcomes.parquet")):
        typer.echo(f"{label:12}{out / name}")
