"""What training costs: FLOPs, counted while the first batches train; seconds and memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning import Callback, Trainer

from gansuite.callbacks.session import Session
from gansuite.core.flops import OperationCounter
from gansuite.loggers.run import COST


class CountFlops:
    """FLOPs per real picture, forward and backward, all players; into
    ``notes["flops_per_image"]``.

    Counted over the first cycle of the method's updates and lazy terms, and kept in
    ``notes["flops"]`` on the way, so that the number is the same wherever the run was interrupted.
    Every kind of batch counts as often as in the budget (its first 1,000 cycles), so that a warm-up
    is not taken for the whole.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._counter: OperationCounter | None = None

    def begin(self) -> None:
        """Before a batch."""
        if "flops_per_image" not in self.session.notes:
            self._counter = OperationCounter()
            self._counter.__enter__()

    def leave(self) -> int | None:
        """Count no longer; what was counted."""
        counter, self._counter = self._counter, None
        if counter is None:
            return None
        counter.__exit__(None, None, None)
        return counter.flops

    def end(self) -> None:
        """After the batch."""
        flops = self.leave()
        if flops is None:
            return
        method, notes = self.session.method, self.session.notes
        last = method.batches - 1
        found = notes.setdefault("flops", {"begin": last, "counted": {}})
        updates = " ".join(method.updates_in(last))
        times, total = found["counted"].get(updates, (0, 0))
        found["counted"][updates] = [times + 1, total + flops]
        if method.batches - found["begin"] == method.period:
            del notes["flops"]
            notes["flops_per_image"] = self._per_image(found["counted"])

    def _per_image(self, counted: dict[str, list[int]]) -> int:
        """``counted``: updates -> [batches, FLOPs of this process] in one cycle."""
        method, budget = self.session.method, self.session.budget_images
        each, cycle = self.session.data.images_per_batch, method.period
        batches = cycle * min(-(-budget // (each * cycle)), 1000) if budget else cycle
        often = Counter(" ".join(method.updates_in(i)) for i in range(batches))
        flops = sum(total / times * often[updates] for updates, (times, total) in counted.items())
        return round(flops * method.world / (each * sum(often[updates] for updates in counted)))


class OnlyCountFlops(Callback):
    """Ends training as soon as ``notes["flops_per_image"]`` is known."""

    def __init__(self, session: Session) -> None:
        self.session, self.flops = session, CountFlops(session)

    def on_train_batch_start(self, *_: Any) -> None:
        self.flops.begin()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.flops.end()
        trainer.should_stop = "flops_per_image" in self.session.notes

    def on_exception(self, *_: Any) -> None:
        self.flops.leave()


class Expenses:
    """What the clock and the memory say at each record."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.begin()

    def begin(self) -> None:
        """Speed is measured from here."""
        self._at = (self.session.method.images_seen, self.session.clock.now())

    def now(self) -> dict[str, float]:
        """``cost/seconds``, ``eval_seconds``, ``peak_memory_mb`` and, since the last time,
        ``images_per_second``."""
        session, (images, seconds) = self.session, self._at
        self.begin()
        spent = {
            "seconds": round(self._at[1], 3),
            "eval_seconds": round(session.clock.evaluation, 3),
            "peak_memory_mb": session.peak.megabytes()["peak_memory_mb"] or 0.0,
        }
        if self._at[0] > images:
            speed = (self._at[0] - images) / max(self._at[1] - seconds, 1e-9)
            spent["images_per_second"] = round(speed, 3)
        return {COST + key: value for key, value in spent.items()}
