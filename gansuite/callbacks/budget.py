"""Ends a run when its budget is used up, or when it is asked to stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from gansuite.callbacks.session import Session
from gansuite.errors import SCHEDULER, heed_no_more
from gansuite.processes import all_reduce_sum

_AGREE_EVERY = 1.0  # seconds, about, between two looks at one another's flags (several processes)
_MOST = 256  # batches between them


class StopAtBudget:
    """``budget.kimg`` pictures or ``budget.seconds`` of training.

    SIGTERM, SIGUSR1, SIGUSR2 and the first Ctrl-C end the run after the batch in hand, with a
    checkpoint to resume from; a second Ctrl-C ends it at once.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._asked = ""
        self._before: dict[int, Any] = {}
        self._count = 0  # batches of this process, which no rollback turns back
        self._at, self._from, self._next = 0.0, 0, 1  # the last look, and when to look again

    def begin(self) -> None:
        """Training begins: the clock runs, and signals are heeded."""
        for number in (*SCHEDULER, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us handles signals
                break
        self.session.peak.start(self.session.method.device)
        self.session.clock.start()
        self._at = self.session.clock.now()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number).name

    def check(self) -> None:
        """After a batch: how much is used (``method.progress`` of a budget in seconds), and
        ``session.stopped`` if any rank is asked to stop."""
        self._count += 1
        if self._count >= self._next:
            self._agree()

    def _agree(self) -> None:
        """All ranks: is anyone asked to stop, how long has rank 0 trained, when to ask again."""
        method, session = self.session.method, self.session
        now = session.clock.now()
        pace = (now - self._at) / max(1, self._count - self._from)
        after = min(_MOST, max(1, int(_AGREE_EVERY / max(pace, 1e-9)))) if method.world > 1 else 1
        mine = [now, float(after)] if session.main else [0.0, 0.0]
        asked, spent, after_ = all_reduce_sum([float(bool(self._asked)), *mine])
        self._at, self._from, self._next = now, self._count, self._count + int(after_)
        seconds = session.experiment.budget.seconds
        if seconds is not None:
            method.progress = spent / seconds
        if asked:
            session.stopped = self._asked or "SIGTERM"

    def end(self) -> None:
        """Signals are whose they were; a process that leaves because it was asked heeds none."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.session.stopped:
            heed_no_more()
