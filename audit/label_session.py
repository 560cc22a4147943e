"""A session of labelling: what is shown next to whom, what was said, and how far it has come."""

from __future__ import annotations

import datetime
import functools
import json
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from poolproof.audit.engine import part_path
from poolproof.audit.label_draw import (
    DRAWS,
    PARTS,
    Draw,
    DrawnPart,
    allocate,
    guess_rates,
    read_candidates,
)
from poolproof.audit.label_pictures import Picture, show_picture
from poolproof.audit.label_share import LabelAnswer, answer_labels, count_at_most, find_row, open_draw
from poolproof.audit.labels import LABELS, Header, Label, LabelFile, start_labels
from poolproof.audit.run import RunFolder
from poolproof.audit.spec import AuditSpec
from poolproof.errors import InputError

LEASE: Final = 120.0
"""Seconds for which an item that one page shows is not shown to another."""


class NotShown(Exception):
    """A label came for an item that its page does not show, as from a second click."""


@dataclass(frozen=True)
class Shown:
    """The item that a page shows.

    Attributes:
        position: among the candidates.
        row: in the pool.
        key: its name, of any characters.
        sha256: of its bytes at the audit.
        picture: what a browser can show, or why nothing can be.
    """

    position: int
    row: int
    key: str
    sha256: str
    picture: Picture | str


class Labelling:
    """Labels for a run, one item at a time, by one page or several.

    Nothing that the run says of an item leaves this: it would sway who looks at it.

    Args:
        run: folder of a finished audit.
        path: the label file, begun where there is none.
        by: `random` or `detector`; None for what the file has, or `random`.
        seed: of a new draw.
        wanted: labels to aim for, those of earlier sessions included.

    Raises:
        InputError: the run is not finished or holds nothing to label, the file is of another run or draw, or
            items of an audited sample are to be drawn by the detector.
    """

    def __init__(self, run: Path, path: Path, *, by: str | None, seed: int | None, wanted: int) -> None:
        if wanted < 1:
            raise InputError(f"--n: got {wanted}, allowed 1 or more; leave it out for 200")
        if by not in (None, *DRAWS):
            raise InputError(f"--by: got {by!r}, allowed {' or '.join(DRAWS)}; leave it out for random")
        if seed is not None and seed < 0:
            raise InputError(f"--seed: got {seed}, allowed 0 or more; leave it out for a new one")
        self.folder = RunFolder(run)
        self.settings = self.folder.settings()
        self.plan = self.folder.plan()
        self.report = _read_report(self.folder)
        self.candidates = read_candidates(self.folder.items)
        if not len(self.candidates):
            raise InputError(f"run {str(run)!r} holds no image that could be read; audit a pool with images")
        self.file = self._open_file(path, by, seed)
        self.wanted = min(wanted, len(self.candidates))
        draw = open_draw(self.file.header, self.candidates)
        if draw is None:
            raise InputError(
                f"labels {str(path)!r} were drawn by flags that the run no longer has; "
                "give another --labels, or audit with the references of then"
            )
        self.draw: Draw = draw
        self._shown: dict[str, tuple[int, float]] = {}
        self._last: dict[str, list[int]] = {}
        self._ends = np.cumsum(self.plan.sizes)
        self._plan_rows = pq.read_table(self.folder.items, columns=["row"])["row"].to_numpy()
        self._read_last = functools.lru_cache(maxsize=4)(
            self._read
        )  # a page asks twice: for words and for the picture
        self._lock = threading.RLock()
        self.answer()

    # --- what pages ask for

    def show(self, page: str) -> Shown | None:
        """The item that a page is to show; None where all have labels or are shown to others."""
        with self._lock:
            self.file.refresh()
            position = self._pick(page)
            if position is None:
                self._shown.pop(page, None)
                return None
            self._shown[page] = position, time.monotonic()
        return self._read_last(position)

    def picture(self, row: int) -> Picture | None:
        """The picture of an item that a page shows now; None for any other."""
        with self._lock:
            position = find_row(self.candidates, row)
            if position is None or all(position != shown for shown, _ in self._shown.values()):
                return None
        found = self._read_last(position).picture
        return found if isinstance(found, Picture) else None

    def record(self, page: str, row: int, label: str) -> None:
        """Puts a label on the disk.

        Raises:
            NotShown: the page does not show the item.
            InputError: there is no such label.
        """
        if label not in LABELS:
            raise InputError(f"label: got {label!r}, allowed {', '.join(LABELS)}; press one of the buttons")
        with self._lock:
            shown = self._shown.get(page)
            if shown is None or int(self.candidates.rows[shown[0]]) != row:
                raise NotShown
            self._append(shown[0], label, page)
            del self._shown[page]
            self._last.setdefault(page, []).append(shown[0])

    def undo(self, page: str) -> bool:
        """Takes the page's latest label back and shows its item again; False where there is none.

        A page that is new, as after a restart, takes back the latest of the file where it is the only one.
        """
        with self._lock:
            self.file.refresh()
            mine = self._last.setdefault(page, [])
            if not mine and set(self._shown) | set(self._last) <= {page}:
                rows = [label.row for label in self.file.labels.values()][-1:]
                mine += [position for row in rows if (position := find_row(self.candidates, row)) is not None]
            if not mine:
                return False
            position = mine.pop()
            if int(self.candidates.rows[position]) in self.file.labels:
                self._append(position, None, page)
            self._shown[page] = position, time.monotonic()
            return True

    def answer(self) -> LabelAnswer | None:
        """The share by the labels so far."""
        with self._lock:
            meta, sampled_from = self.plan.meta, None
            if meta["sample"] is not None:
                sampled_from = count_at_most(self.plan.n_pool, self.plan.n_items, len(self.candidates))
            level = self.settings["level"]
            return answer_labels(
                self.file, self.candidates, self.draw, level=level, sampled_from=sampled_from
            )

    def counts(self) -> dict[str, int]:
        """Items per label."""
        with self._lock:
            said = [label.label for label in self.file.labels.values()]
        return {name: said.count(name) for name in LABELS}

    def next_command(self) -> str:
        """The audit's command, with these labels."""
        words = ["poolproof", "audit", self.settings["pool"], "--out", str(self.folder.path)]
        for field in fields(AuditSpec):
            value = self.settings.get(field.name)
            if field.name not in ("pool", "out", "embedder", "labels", "workers") and value is not None:
                default = None if field.default is MISSING else field.default
                words += [] if value == default else [f"--{field.name.replace('_', '-')}", str(value)]
        return shlex.join([*words, "--labels", str(self.file.path)])

    # --- inside

    def _open_file(self, path: Path, by: str | None, seed: int | None) -> LabelFile:
        if path.exists():
            file = LabelFile(path)
            header = file.header
            if header.plan_sha256 != self.plan.sha256:
                raise InputError(f"labels {str(path)!r} are of another run; give another --labels")
            for name, got, has in (("--by", by, header.draw), ("--seed", seed, header.seed)):
                if got not in (None, has):
                    raise InputError(
                        f"{name}: got {got}, allowed {has}, which {str(path)!r} was begun with; "
                        "leave it out, or give another --labels"
                    )
            return file
        # nobody who made the pool can know which items are looked at first
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        header = Header(self.plan.sha256, by or "random", seed, len(self.candidates))
        if by == "detector":
            header = self._by_part(header)
        return start_labels(path, header)

    def _by_part(self, header: Header) -> Header:
        if self.plan.meta["sample"] is not None:
            raise InputError(
                "--by: got 'detector' for a run that audits a sample, allowed random: how large the parts of the whole "
                "pool are is not known; leave it out"
            )
        sizes = self.candidates.sizes
        allocation = allocate(sizes, guess_rates(self.report, sizes))
        parts = tuple(
            DrawnPart(name, size, allocation[name]) for name, size in zip(PARTS, sizes, strict=True) if size
        )
        return Header(
            header.plan_sha256, "detector", header.seed, header.size, parts, self.candidates.parts_sha256
        )

    def _pick(self, page: str) -> int | None:
        now, labelled = time.monotonic(), self.file.labels
        mine = self._shown.get(page)
        if mine is not None and int(self.candidates.rows[mine[0]]) not in labelled:
            return mine[0]
        held = {shown for other, (shown, at) in self._shown.items() if other != page and now - at < LEASE}
        free = (
            int(position)
            for position in self.draw.order
            if int(position) not in held and int(self.candidates.rows[position]) not in labelled
        )
        return next(free, None)

    def _append(self, position: int, label: str | None, page: str) -> None:
        shown = self._facts(position)
        self.file.append(
            Label(
                row=int(self.candidates.rows[position]),
                key=shown[0],
                sha256=shown[1],
                label=label,
                at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                part=PARTS[self.candidates.parts[position]] if self.file.header.parts else None,
                place=int(self.draw.places[position]),
                by=page,
            )
        )

    def _facts(self, position: int) -> tuple[str, str]:
        """Key and content hash at the audit."""
        row = int(self.candidates.rows[position])
        shard = int(np.searchsorted(self._ends, np.searchsorted(self._plan_rows, row), side="right"))
        part = part_path(self.folder.folder("pool") / "evidence", shard)
        table = ds.dataset(part).to_table(columns=["key", "sha256"], filter=pc.field("row") == row)
        key = table["key"].cast(pa.binary())[0].as_py().decode("utf-8", "backslashreplace")
        return key, table["sha256"][0].as_py().hex()

    def _read(self, position: int) -> Shown:
        row = int(self.candidates.rows[position])
        key, sha256 = self._facts(position)
        data = next((data for _, data in self.plan.read_rows([row])), None)
        picture = show_picture(data, sha256) if isinstance(data, bytes) else "its bytes are no longer there"
        return Shown(position, row, key, sha256, picture)


def _read_report(run: RunFolder) -> Mapping[str, Any]:
    try:
        return json.loads(run.report.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{str(run.path)!r} has no report.json; the audit did not finish, give its command again"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{str(run.report)!r} is damaged ({error}); give the audit's command again"
        ) from error
