"""A place at which runs wait, in whatever process they are, so that what is done to them is done to
a run that trains, however fast or slow the machine is.

``gate = Gate(folder, batches)``; ``gate.path`` first on PYTHONPATH; a start of a run that is a job
stops after the first batch from ``batches`` on, says so (`waiting`), and goes on when it is asked
to stop or when the gate is open.
"""

from __future__ import annotations

from pathlib import Path

HELD = """\
import os, pathlib, sys, time
if sys.orig_argv[1:4] == ["-m", "gansuite", "exp"]:
    from gansuite.callbacks.budget import StopAtBudget
    check, closed = StopAtBudget.check, pathlib.Path({closed!r})
    def held(self):
        if self.session.method.batches >= {batches} and closed.exists() and not self._asked:
            name = ".".join(os.environ[n] for n in ("GANSUITE_JOB", "GANSUITE_START"))
            (closed / (name + "." + os.environ.get("SLURM_PROCID", "0"))).touch()
            while closed.exists() and not self._asked:
                time.sleep(0.05)
            if self._asked:  # all are, behind the same batch; else they look about once a second
                self._next = self._count + 1
        check(self)
    StopAtBudget.check = held
"""


class Gate:
    """A closed gate whose files lie in ``folder``."""

    def __init__(self, folder: Path, batches: int) -> None:
        self.path, self._closed, self._open = folder, folder / "closed", folder / "open"
        self._closed.mkdir(parents=True)
        code = HELD.format(closed=str(self._closed), batches=batches)
        (folder / "sitecustomize.py").write_text(code)

    def waiting(self, job: str, start: int = 0, ranks: int = 1) -> bool:
        """Whether all processes of a job's start, counted from 0, have come so far."""
        return all((self._closed / f"{job}.{start}.{rank}").exists() for rank in range(ranks))

    def open(self) -> None:
        """Let all pass from now on."""
        self._closed.rename(self._open)
