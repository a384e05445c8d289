"""What the callbacks of one run share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gansuite.callbacks.interval import crossed
from gansuite.callbacks.memory import PeakMemory
from gansuite.config import Experiment
from gansuite.data.module import DataModule
from gansuite.errors import NotFinite
from gansuite.losses.precision import full_float32
from gansuite.methods.base import Method
from gansuite.runs import Clock, Run


@dataclass
class Session:
    """One run: its experiment, data, method, directory and clock.

    ``notes`` is what callbacks must remember across an interruption (plain containers), such as
    the scores so far; ``latest`` the means of the last log interval, and of no other. ``stopped``
    names the signal that ended the run, or is "guard" with the reason in ``told``. ``trouble``:
    what is not finite, until the state is taken back; ``suspect``: the state shows a symptom, so
    that it must not replace one to which to roll back.
    """

    experiment: Experiment
    data: DataModule
    method: Method
    run: Run
    clock: Clock = field(default_factory=Clock)
    peak: PeakMemory = field(default_factory=PeakMemory)
    notes: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    told: str = ""
    trouble: NotFinite | None = None
    suspect: bool = False

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.method.rank == 0

    @property
    def budget_images(self) -> int | None:
        kimg = self.experiment.budget.kimg
        return None if kimg is None else round(1000 * kimg)

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        images, method = self.budget_images, self.method
        return method.progress >= 1 if images is None else method.images_seen >= images

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time and memory spent inside count as evaluation, and float32 means float32."""
        with self.clock.evaluating(), self.peak.evaluating(), full_float32():
            yield

    @property
    def rolls_back(self) -> bool:
        return self.experiment.guard.action == "rollback"


class RunCallback(Callback):
    """A callback that acts when a multiple of ``every`` kimg is crossed, and at the end; once per
    number of pictures seen, also across an interruption."""

    def __init__(self, session: Session, every_kimg: float | None = None) -> None:
        self.session = session
        self.every = None if every_kimg is None else 1000 * every_kimg

    def act(self, trainer: Trainer) -> None:
        """What to do at the interval."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.after_batch(trainer)

    def after_batch(self, trainer: Trainer) -> None:
        """After every batch: ``act`` if a multiple of the interval was crossed."""
        after = self.session.method.images_seen
        before = after - self.session.data.images_per_batch
        # a state that is to be taken back at the end of this batch is not acted upon
        if crossed(self.every, before, after) and self.session.trouble is None:
            try:
                self._once(trainer)
            except NotFinite as error:
                if not self.session.rolls_back:
                    raise
                self.session.trouble = error

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.session.stopped:
            self._once(trainer)

    def _once(self, trainer: Trainer) -> None:
        acted, seen = self.session.notes.setdefault("acted", {}), self.session.method.images_seen
        if acted.get(type(self).__name__) != seen:
            acted[type(self).__name__] = seen
            self.act(trainer)
