"""How far a command is with its pictures: a bar on a terminal, nothing in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_LONG = 2.0  # seconds from which a speed is worth a word


class Bar:
    """Called with how many are done, and of how many."""

    def __init__(self, what: str, drawn: Progress) -> None:
        self.what, self.drawn = what, drawn
        self._task = drawn.add_task(what, total=None, speed="")
        self._begun: tuple[float, int] | None = None
        self._now = (0.0, 0)

    def __call__(self, done: int, total: int) -> None:
        self._now = (time.monotonic(), done)
        self._begun = self._begun or self._now  # the first ones warm up
        told = f"{self._rate:.3g} {self.what}/s" if self._rate else ""
        self.drawn.update(self._task, completed=done, total=total, speed=told)

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self.drawn.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def _rate(self) -> float:
        (start, before), (now, done) = self._begun or self._now, self._now
        return (done - before) / (now - start) if now > start else 0.0

    @property
    def speed(self) -> str:
        """``, 12.3 pictures/s``; "" of what took no time."""
        start = self._begun[0] if self._begun else self._now[0]
        long = self._now[0] - start >= _LONG
        return f", {self._rate:.3g} {self.what}/s" if long and self._rate else ""


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Bar]:
    """A bar on standard output while there is a terminal; ``what`` is counted."""
    console = Console()
    columns = (
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    drawn = Progress(*columns, console=console, transient=True)
    # a bar that is not begun draws nothing; some versions of rich end a disabled one with a line
    with drawn if console.is_terminal else contextlib.nullcontext():
        yield Bar(what, drawn)
