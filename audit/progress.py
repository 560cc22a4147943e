"""Progress for people: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, final

Tick = Callable[[int], None]
"""Called with the number of items finished so far in this call."""

LINE_SECONDS: Final = 10.0
"""Between two plain lines."""


class AbstractProgress(abc.ABC):
    """Is told what goes on."""

    @abc.abstractmethod
    def items(
        self, label: str, total: int, before: int, unit: str = "items"
    ) -> contextlib.AbstractContextManager[Tick]:
        """A stage that counts items; the tick takes the number finished in this call."""

    @abc.abstractmethod
    def stage(self, label: str) -> contextlib.AbstractContextManager[None]:
        """A stage without a count."""


@final
class Silence(AbstractProgress):
    """Says nothing."""

    @contextlib.contextmanager
    def items(self, label: str, total: int, before: int, unit: str = "items") -> Iterator[Tick]:
        """Ignores the ticks."""
        del label, total, before, unit
        yield lambda n_done: None

    @contextlib.contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """Ignores the stage."""
        del label
        yield


@final
class Lines(AbstractProgress):
    """One line at the start and end of a stage, and one every few seconds, to standard error."""

    @contextlib.contextmanager
    def items(self, label: str, total: int, before: int, unit: str = "items") -> Iterator[Tick]:
        """Lines with count, rate and time left."""
        started = last = time.monotonic()
        resumed = f", {before} done earlier" if before else ""
        _say(f"{label}: {total} {unit}{resumed}")

        def tick(n_done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= LINE_SECONDS and n_done:
                last = now
                rate = n_done / (now - started)
                left = (total - before - n_done) / rate
                _say(f"{label}: {before + n_done} of {total} {unit}, {_pace(rate)}, {_clock(left)} left")

        yield tick
        seconds = time.monotonic() - started
        n = total - before
        _say(
            f"{label}: done, {n} {unit} in {seconds:.1f} s"
            + (f", {_pace(n / seconds)}" if n and seconds else "")
        )

    @contextlib.contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """A line at the end."""
        started = time.monotonic()
        yield
        _say(f"{label}: {time.monotonic() - started:.1f} s")


@final
class Bars(AbstractProgress):
    """Rich bars on a terminal."""

    @contextlib.contextmanager
    def items(self, label: str, total: int, before: int, unit: str = "items") -> Iterator[Tick]:
        """A bar with count, rate and time left."""
        del unit
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        started = time.monotonic()
        with Progress(*columns, console=Console(stderr=True)) as bars:
            bar = bars.add_task(label, total=total, completed=before, rate="")

            def tick(n_done: int) -> None:
                rate = n_done / max(time.monotonic() - started, 1e-6)
                bars.update(bar, completed=before + n_done, rate=_pace(rate))

            yield tick
            bars.update(bar, completed=total)

    @contextlib.contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """A spinner."""
        from rich.console import Console

        with Console(stderr=True).status(label):
            yield


def choose_progress(*, quiet: bool = False) -> AbstractProgress:
    """Bars on a terminal, lines elsewhere, silence when asked."""
    if quiet:
        return Silence()
    return Bars() if sys.stderr.isatty() else Lines()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _pace(rate: float) -> str:
    """Items a second, or what one takes where that is seconds.

    >>> _pace(12.4), _pace(0.125)
    ('12/s', '8.0 s each')
    """
    return f"{rate:.0f}/s" if rate >= 1 or rate <= 0 else f"{1 / rate:.1f} s each"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
