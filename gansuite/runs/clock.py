"""Seconds of training and of evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Seconds of training and of evaluation, across interruptions."""

    def __init__(self) -> None:
        self.train = 0.0
        self.evaluation = 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.perf_counter()

    def now(self) -> float:
        """Training seconds so far."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self.train + running

    def stop(self) -> None:
        self.train = self.now()
        self._since = None

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time spent inside counts as evaluation."""
        running = self._since is not None
        self.stop()
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation += time.perf_counter() - begin
            if running:
                self.start()


def clock_text(seconds: float) -> str:
    """ "1:02:03" or "2:03"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
