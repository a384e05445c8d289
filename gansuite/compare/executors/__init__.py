"""Who executes the runs of a comparison: the seam between a plan and processes, here or elsewhere.

A run is one command, ``gansuite exp ...``, that takes up where it was interrupted and leaves with
75 when it was asked to stop. So an executor only starts commands, looks how they stand, and goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gansuite.compare.jobs import Job


class Executor(Protocol):
    """Takes jobs that are ``waiting`` and says what becomes of them in their ``state``."""

    every: float
    """Seconds between two looks at the jobs."""
    left: str
    """What is said after `leave` when the command was asked to stop."""

    def submit(self, jobs: Sequence[Job]) -> list[Job]:
        """Start what waits, as far as there is room; those whose state has changed."""

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        """Look after what was started; those whose state has changed."""

    def leave(self, jobs: Sequence[Job], urgent: Callable[[], bool]) -> None:
        """The command ends: nothing of it may be left that the next one does not find again;
        ``urgent`` says whether it was asked twice."""
