"""One status line: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from gansuite.callbacks.session import Session
from gansuite.runs.clock import clock_text

_SECONDS = 20.0  # between two lines when nobody watches


class Progress:
    """kimg done of all, images/s, time left and each player's total loss."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._bar: Any = None
        self._begun = (0, 0.0)
        self._next = 0.0

    def begin(self) -> None:
        """Speed is measured from here."""
        if not self.session.main:
            return
        self._begun = (self.session.method.images_seen, self.session.clock.now())
        self._next = time.monotonic() + 5
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=1000,
                bar_format="{bar:24} {desc}",
                mininterval=0.5,
                dynamic_ncols=True,
                leave=False,
            )

    def update(self) -> None:
        """After a batch: a new status, if it is time."""
        now = time.monotonic()
        if not self.session.main or now < self._next:
            return
        if self._bar is not None:
            self._next = now + 0.5
            self._bar.n = int(1000 * min(self.session.method.progress, 1))
            self._bar.set_description_str(self.line(), refresh=True)
        else:
            self._next = now + _SECONDS
            print(self.line(), flush=True)

    def line(self) -> str:
        """The status, such as ``12.0/64 kimg  81 images/s  left 10:40  g 3.21  d 0.42``."""
        session = self.session
        method = session.method
        images, seconds = method.images_seen - self._begun[0], session.clock.now() - self._begun[1]
        speed = images / max(seconds, 1e-9)
        budget = session.experiment.budget
        total = f"/{budget.kimg:g}" if budget.kimg is not None else ""
        left = (
            (1000 * budget.kimg - method.images_seen) / max(speed, 1e-9)
            if budget.kimg is not None
            else (budget.seconds or 0) - session.clock.now()
        )
        parts = [
            f"{method.images_seen / 1000:.1f}{total} kimg",
            f"{speed:.0f} images/s" if speed >= 10 else f"{speed:.2g} images/s",
            f"left {clock_text(max(left, 0))}",
        ]
        for name in method.players:
            value = session.losses.get(f"loss/{name}/total")
            if value is not None:
                parts.append(f"{name} {value:.3f}")
        return "  ".join(parts)

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if not self.session.main:
            return
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
