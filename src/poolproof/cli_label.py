"""The `poolproof label` command. Heavy packages load inside it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from poolproof.audit.label_session import Labelling


def label(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `poolproof audit` wrote.")],
    n: Annotated[
        int, typer.Option("--n", metavar="N", help="Labels to aim for, those of earlier sessions included.")
    ] = 200,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="DRAW",
            help="random: all images alike; detector: more where its flags tell least. [default: random]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the draw. [default: a new one, kept in the file]", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of this machine for the page; 0 for any that is free.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The label file. [default: RUN/labels.jsonl]", show_default=False),
    ] = None,
) -> None:
    """Label images of RUN, drawn at random, on a page in the browser: real, synthetic or unsure.

    Each label is saved at once, and the same command goes on where it was; Ctrl-C ends it. Then
    `poolproof audit POOL --out RUN --labels FILE` tells the share by the labels, valid whatever the detector errs.
    """
    import webbrowser

    from poolproof.audit.label_server import LabelServer, serving
    from poolproof.audit.label_session import Labelling

    session = Labelling(run, labels or run / "labels.jsonl", by=by, seed=seed, wanted=n)
    ended = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda *_: ended.set())
        with serving(LabelServer(session, port=port)) as server:
            typer.echo(f"page        {server.url}")
            typer.echo("            keys: r real, s synthetic, u unsure, z undo; Ctrl-C here ends it")
            if not no_open and _has_screen():
                webbrowser.open(server.url)
            while not ended.wait(0.5):
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _summarise(session)


def _has_screen() -> bool:
    """Whether a browser has a window here; without one a text browser would take the terminal."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(named)


def _summarise(session: Labelling) -> None:
    """Prints what the labels say and what to do next."""
    counts, answer = session.counts(), session.answer()
    told = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    typer.echo(f"labels      {sum(counts.values()):,} of {session.wanted:,} ({told}) in {session.file.path}")
    if answer is None:
        typer.echo("share       not told without a label that is sure")
        return
    limits = answer.found.interval
    point = "not told" if limits.point is None else f"{100 * limits.point:.1f} %"
    between = f"{100 * limits.lower:.1f} % to {100 * limits.upper:.1f} %"
    typer.echo(f"share       {point}  ({between}, {100 * limits.level:g} % interval)")
    typer.echo(f"            {answer.describe_plan()}")
    typer.echo(f"next        {session.next_command()}")
