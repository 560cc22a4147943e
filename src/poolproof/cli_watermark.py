"""The `poolproof watermark` commands. Heavy packages load inside the commands that use them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolproof.errors import InputError

if TYPE_CHECKING:
    from poolproof.audit.marks import MarkSummary
    from poolproof.watermark.payloads import Payload
    from poolproof.watermark.schemes import AbstractScheme

watermark = typer.Typer(
    help="Invisible marks: write them, read them, and see what they survive.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES", help="Image files, folders, tars, Parquet files, or hf:NAME."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(metavar="KEY|FILE", help="32 to 128 hexadecimal digits, or a file that holds them."),
]
Registry = Annotated[
    Path | None,
    typer.Option(metavar="FILE.toml", help="More public payloads, in the form of the packaged registry."),
]
Level = Annotated[
    float, typer.Option(metavar="P", help="An image counts as marked where its p-value lies below this.")
]
Workers = Annotated[int | None, typer.Option(help="Threads. [default: one a core]", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@watermark.command("key", short_help="Make a secret key.")
def key(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it there, readable by you alone."),
    ] = None,
) -> None:
    """Make a secret key for marks of one's own, and print it or write it to a file."""
    from poolproof.watermark.key import new_key

    digits = new_key().secret.hex()
    if out is None:
        typer.echo(digits)
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(
            f"--out: got {str(out)!r}, which is there already, allowed a new file; a key is never replaced"
        ) from None
    except OSError as error:
        raise InputError(
            f"--out: got {str(out)!r} ({error.strerror}), allowed a file that can be written"
        ) from None
    with os.fdopen(descriptor, "w") as handle:
        handle.write(digits + "\n")
    typer.echo(str(out))


@watermark.command("embed", short_help="Write marked copies of images.")
def embed(
    images: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the marked copies.")],
    scheme: Annotated[
        str,
        typer.Option(
            help="spread (our keyed mark), or dwtDct or dwtDctSvd as public generators write them.",
        ),
    ] = "spread",
    key: KeyOption = None,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="PAYLOAD",
            help="text:WORDS, hex:DIGITS or bits:0101; for dwtDct and dwtDctSvd also a name of the registry. "
            "spread takes up to 64 bits, or none.",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="ARRAY/ORDER",
            help="Form in which dwtDct and dwtDctSvd take the image: uint8 or float32, BGR or RGB. "
            "[default: uint8/BGR]",
            show_default=False,
        ),
    ] = None,
    psnr: Annotated[float, typer.Option(metavar="DB", help="Faintness of the spread mark, 30 to 60.")] = 41.0,
    form: Annotated[str, typer.Option("--format", help="png, webp (without loss) or jpeg (4:4:4).")] = "png",
    quality: Annotated[int, typer.Option(help="Of JPEG, 1 to 100.")] = 95,
    registry: Registry = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Write marked copies of IMAGES to --out. Originals are only read; the same command continues a stopped one.

    The spread mark needs a --key, survives compression, resizing and cropping, and is read with the same key.
    """
    from poolproof.audit.images import Images
    from poolproof.audit.marking import FORMATS, Marker
    from poolproof.audit.progress import choose_progress

    if form not in FORMATS:
        raise InputError(f"--format: got {form!r}, allowed {', '.join(FORMATS)}; choose one")
    if not 1 <= quality <= 100:
        raise InputError(f"--quality: got {quality}, allowed 1 to 100; 95 is usual")
    chosen = _scheme(scheme, key, payload, variant, psnr, registry)
    source = Images(images)
    marker = Marker(chosen, out, form, quality)
    marker.prepare(_settings(chosen, psnr, form, quality))
    counts: dict[str, int] = {}
    faults: list[str] = []
    with choose_progress(quiet=quiet).items("marking", source.total, 0, "images") as tick:
        for n, copy in enumerate(source.map(marker.mark, _threads(workers)), start=1):
            counts[copy.status] = counts.get(copy.status, 0) + 1
            if copy.reason is not None:
                faults.append(f"{copy.status:12}{shown(copy.key)}: {shown(copy.reason)}")
            tick(n)
    for line in faults[:20]:
        typer.echo(line, err=True)
    if len(faults) > 20:
        typer.echo(f"and {len(faults) - 20} more without a copy", err=True)
    typer.echo(
        f"mark        {chosen.name}, {len(chosen.bits)} bits"
        + (f": {bit_text(chosen.bits)}" if chosen.bits else "")
    )
    typer.echo("images      " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    typer.echo(f"copies      {out}")
    if not counts.get("marked") and not counts.get("kept"):
        raise typer.Exit(1)


@watermark.command("detect", short_help="Read marks off images.")
def detect(
    images: Inputs,
    key: KeyOption = None,
    bits: Annotated[int, typer.Option(metavar="N", help="Payload length of the keyed mark, 0 for none.")] = 0,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,..",
            help="Enlargements tried for the keyed mark, 2 for a copy of half the size. "
            "[default: 1, 2 and five others]",
            show_default=False,
        ),
    ] = None,
    registry: Registry = None,
    level: Level = 1e-6,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: key, payload, variant, p_value, detected.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.parquet", help="Table that joins an audit's items by key."),
    ] = None,
    power: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Images in which a mark is written in memory, to see whether it would be found.",
        ),
    ] = 40,
    controls: Annotated[
        int, typer.Option(metavar="N", help="Invented payloads tried beside each public one.")
    ] = 4,
    seed: Annotated[int, typer.Option(help="Seed of invented payloads.")] = 0,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Read every public mark in every form off IMAGES, or with --key the marks of that key.

    A p-value is the chance that an image without the mark fits as well, over all tests made on it. "None found" says
    little where marks would not be found: the recall is measured on the same images.
    """
    from poolproof.audit.images import Images
    from poolproof.audit.marks import MarkSearch, MarkSummary, detections_table
    from poolproof.audit.progress import choose_progress
    from poolproof.watermark.key import parse_key
    from poolproof.watermark.spread import SCALES

    if not 0 < level < 1:
        raise InputError(f"--level: got {level}, allowed between 0 and 1; 1e-6 is usual")
    for name, value in (("--power", power), ("--controls", controls), ("--bits", bits)):
        if value < 0:
            raise InputError(f"{name}: got {value}, allowed from 0; 0 leaves it out")
    if bits > 64 or (bits and key is None):
        raise InputError(f"--bits: got {bits}, allowed 1 to 64 beside --key; leave it out")
    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out: got {str(out)!r}, allowed a file that ends in .parquet; rename it")
    source = Images(images)
    search = MarkSearch(
        payloads=() if key is not None else _payloads(registry),
        key=None if key is None else parse_key(key),
        n_bits=bits,
        scales=SCALES if scales is None else _numbers("--scales", scales),
        level=level,
        n_controls=controls,
        n_power=power,
        total=source.total,
        seed=seed,
    )
    summary = MarkSummary(search)
    detections = []
    show = choose_progress(quiet=quiet or (as_json and sys.stdout.isatty()))
    with show.items("reading", source.total, 0, "images") as tick:
        for n, examined in enumerate(source.map(search.examine, _threads(workers)), start=1):
            summary.update(examined)
            row = examined.detection
            if as_json:
                typer.echo(json.dumps(vars(row), allow_nan=False))
            if out is not None:
                detections.append(row)
            elif not as_json and (row.detected or row.status != "scored"):
                _print_detection(row, quiet=n > 10_000)
            tick(n)
    if out is not None:
        write_parquet(detections_table(detections), out)
    if not as_json:
        _print_summary(summary)
        if out is not None:
            typer.echo(f"table       {out}")


# --- options --------------------------------------------------------------------------------------------


def _payloads(registry: Path | None) -> tuple[Payload, ...]:
    from poolproof.watermark.payloads import load_payloads

    packaged = load_payloads()
    if registry is None:
        return packaged
    own = load_payloads(registry)
    twice = sorted({p.name for p in own} & {p.name for p in packaged})
    if twice:
        raise InputError(
            f"{registry}: got the name {twice[0]!r}, which is packaged, allowed new names; rename it"
        )
    return packaged + own


def _threads(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise InputError(f"--workers: got {workers}, allowed from 1; leave it out for one a core")
    return workers or os.cpu_count() or 1


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name}: got {text!r}, allowed numbers separated by commas, such as 1,2") from None


def _scheme(
    name: str, key: str | None, payload: str | None, variant: str | None, psnr: float, registry: Path | None
) -> AbstractScheme:
    from poolproof.watermark.dwt import Variant, variants_of
    from poolproof.watermark.key import parse_key
    from poolproof.watermark.payloads import Payload, parse_payload
    from poolproof.watermark.schemes import DwtScheme, SpreadScheme

    if name == "spread":
        if key is None:
            raise InputError(
                "--key: got none, allowed one for the spread mark; make it with `poolproof watermark key`"
            )
        if variant is not None:
            raise InputError(
                f"--variant: got {variant!r}, allowed for dwtDct and dwtDctSvd alone; leave it out"
            )
        bits = () if payload is None else parse_payload(payload)
        return SpreadScheme(parse_key(key), bits, psnr=psnr)
    if name not in ("dwtDct", "dwtDctSvd"):
        raise InputError(f"--scheme: got {name!r}, allowed spread, dwtDct, dwtDctSvd; choose one")
    if key is not None:
        raise InputError(f"--key: got one, allowed with --scheme spread alone; {name} has no key")
    if payload is None:
        raise InputError(
            f"--payload: got none, allowed one for {name}; give a name of the registry or text:WORDS"
        )
    forms = {f"{v.array}/{v.channels}": v for v in variants_of("dwtDct" if name == "dwtDct" else "dwtDctSvd")}
    if variant is not None and variant not in forms:
        raise InputError(f"--variant: got {variant!r}, allowed {', '.join(forms)}; choose one")
    form: Variant = forms[variant or "uint8/BGR"]
    known = {p.name: p for p in _payloads(registry)}
    if payload in known:
        return DwtScheme(known[payload], form)
    bits = parse_payload(payload)
    return DwtScheme(Payload("given", bits, (True,) * len(bits), form.algorithm), form)


def _settings(scheme: AbstractScheme, psnr: float, form: str, quality: int) -> dict[str, Any]:
    from poolproof.watermark.schemes import SpreadScheme

    keyed = isinstance(scheme, SpreadScheme)
    return {
        "scheme": scheme.name,
        "payload": bit_text(scheme.bits),
        "key": scheme.key.digest() if isinstance(scheme, SpreadScheme) else None,
        "psnr": psnr if keyed else None,
        "format": form,
        "quality": quality if form == "jpeg" else None,
    }


# --- output ---------------------------------------------------------------------------------------------


def shown(text: str) -> str:
    """A stranger's text on one line, its control characters made visible."""
    from poolproof.page import visible

    return visible(" ".join(text.split()))


def bit_text(bits: tuple[int, ...]) -> str:
    """Bits as 0 and 1."""
    return "".join(map(str, bits))


def _print_detection(row: Any, *, quiet: bool) -> None:
    if quiet:
        return
    if row.status != "scored":
        typer.echo(f"{row.status:12}{shown(row.key)}: {shown(row.reason or '')}")
        return
    form = f" as {row.variant}" if row.variant else ""
    bits = f"  bits {row.bits}" if row.bits is not None else ""
    typer.echo(f"marked      {shown(row.key)}: {row.payload}{form}, p = {row.p_value:.1e}{bits}")


def _print_summary(summary: MarkSummary) -> None:
    found = ", ".join(f"{n} {name}" for name, n in summary.payloads.most_common())
    typer.echo(
        f"found       {summary.n_detected} of {summary.n_tested} tested images marked"
        + (f": {found}" if found else "")
    )
    statuses = ", ".join(f"{n} {status}" for status, n in sorted(summary.statuses.items()))
    small = summary.statuses["scored"] - summary.n_tested
    typer.echo(f"images      {statuses}" + (f"; {small} too small for the public schemes" if small else ""))
    if summary.search.key is not None:
        typer.echo(
            f"level       {summary.search.level:g}: so often or more rarely is an unmarked image called marked"
        )
        return
    share = summary.corrected_share()
    if summary.power_tested:
        typer.echo(
            f"recall      {summary.power_found} of {summary.power_tested} marks written into these images "
            "would be found"
        )
    elif summary.search.n_power:
        typer.echo("recall      not known: no image in a lossless file or a JPEG could be marked")
    if share is not None:
        point = "not told" if share.point is None else f"{100 * share.point:.1f} %"
        typer.echo(
            f"share       {point} were marked once ({100 * share.lower:.1f} to {100 * share.upper:.1f} %, "
            f"{100 * share.level:g} % interval), missed marks included"
        )
    pooled = summary.pooled()
    if pooled is not None:
        payload, variant, p_value = pooled
        typer.echo(f"together    p = {p_value:.1e} for {payload} as {variant} over all images at once")
    if summary.controls_tested:
        typer.echo(
            f"controls    {summary.controls_found} of {summary.controls_tested} tests of invented payloads "
            "below the level"
        )


def write_parquet(table: Any, path: Path) -> None:
    """Writes a table whole or not at all; makes its folder."""
    import pyarrow.parquet as pq

    from poolproof.files import replace_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            pq.write_table(table, temporary)
    except OSError as error:
        raise InputError(f"--out: got {str(path)!r} ({error}), allowed a file that can be written") from None
