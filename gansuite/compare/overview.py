"""How the runs of a comparison stand: a table that renews itself on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import rich.table

    from gansuite.compare.jobs import Job

_LINE_EVERY = 30.0  # seconds between two lines of one run where nobody watches
_TEXT = {
    "running": "begins",
    "done": "done",
    "failed": "failed: {reason}",
    "stopped": "stopped",
    "elsewhere": "goes on in another process; waiting for it",
    "waiting": "waits",
    "queued": "waits in the queue",
}


class Overview:
    """All runs at a glance; ``rank_by`` is the metric that is shown."""

    def __init__(self, stream: TextIO, rank_by: str) -> None:
        self.stream, self.rank_by = stream, rank_by
        self._next = 0.0
        self._live: Any = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=stream),
                auto_refresh=False,  # no thread of its own: it is drawn by `update`
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def event(self, job: Job, jobs: Sequence[Job]) -> None:
        """A run began or ended."""
        done = sum(j.state in ("done", "failed") for j in jobs)
        count = f"[{done}/{len(jobs)}] " if job.state in ("done", "failed") else ""
        self._say(f"{count}{job.name} {_TEXT[job.state].format(reason=job.reason)}")
        self._next = 0.0

    def update(self, jobs: Sequence[Job]) -> None:
        """Show how the running ones stand, if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        running = [job for job in jobs if job.state == "running"]
        self._next = now + max(1.0, len(running) / 20)  # their files may lie far away
        for job in running:
            job.look()
        if self._live is not None:
            self._live.update(self._table(running, jobs), refresh=True)
            return
        for job in running:
            if now >= job.last_line + _LINE_EVERY:
                job.last_line = now
                self._say(job.line(self.rank_by))

    def close(self) -> None:
        """Take the table away; what was said stays."""
        if self._live is not None:
            self._live.stop()

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.stream, flush=True)

    def _table(self, running: Sequence[Job], jobs: Sequence[Job]) -> rich.table.Table:
        """How the running ones stand, and how many are not running."""
        from gansuite.compare.cells import Cell, Column, Table, terminal

        counts = [
            (s, sum(j.state == s for j in jobs)) for s in ("done", "failed", "queued", "waiting")
        ]
        titles = ("trained", "speed", "left", self.rank_by)
        columns = [Column("run", words=True), *map(Column, titles)]
        rows = [[*map(Cell, (job.name, *job.cells(self.rank_by)))] for job in running]
        caption = ", ".join(f"{n} {s}" for s, n in counts if n)
        return terminal(Table(columns, rows, []), caption)
