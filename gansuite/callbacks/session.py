"""What the callbacks of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gansuite.callbacks.interval import crossed
from gansuite.config import Experiment
from gansuite.data.module import DataModule
from gansuite.methods.base import Method
from gansuite.runs import Clock, Run


@dataclass
class Session:
    """One run: its experiment, data, method, directory and clock.

    ``notes`` is what callbacks must remember across an interruption (plain containers), such as
    the scores so far; ``latest`` the newest logged values, for the progress line.
    """

    experiment: Experiment
    data: DataModule
    method: Method
    run: Run
    clock: Clock = field(default_factory=Clock)
    notes: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    stopped: str = ""

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.method.rank == 0

    @property
    def budget_images(self) -> int | None:
        kimg = self.experiment.budget.kimg
        return None if kimg is None else round(1000 * kimg)


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
        after = self.session.method.images_seen
        before = after - self.session.data.images_per_batch
        if crossed(self.every, before, after):
            self._once(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.session.stopped:
            self._once(trainer)

    def _once(self, trainer: Trainer) -> None:
        acted, seen = self.session.notes.setdefault("acted", {}), self.session.method.images_seen
        if acted.get(type(self).__name__) != seen:
            acted[type(self).__name__] = seen
            self.act(trainer)
